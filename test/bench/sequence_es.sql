SELECT es_inbox_accept_sequence('bench', 'source', nextval('es_number'));
