SELECT count(*) FILTER (WHERE es_inbox_accept_sequence('bench', 'source', nextval('es_number'))) FROM generate_series(1, 1000);
