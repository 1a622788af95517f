-- One message that is new.
SELECT es_inbox_accept('shipping', gen_random_uuid()::text);
