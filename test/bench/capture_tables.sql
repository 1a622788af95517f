-- Four tables alike, in a schema each, and how each of them is captured: not at all; by es_capture for each row, or for
-- each statement; by the trigger that one writes without es_pg, which inserts into a table of the outbox's shape. That one
-- makes the same images, but does not say which columns changed.
CREATE SCHEMA free;
CREATE SCHEMA by_row;
CREATE SCHEMA by_statement;
CREATE SCHEMA plain;
CREATE TABLE free.orders (id bigint PRIMARY KEY, customer text, status text, total numeric(10,2), ordered_at timestamp,
                          note text, data jsonb) WITH (fillfactor = 45);
CREATE TABLE by_row.orders (LIKE free.orders INCLUDING ALL) WITH (fillfactor = 45);
CREATE TABLE by_statement.orders (LIKE free.orders INCLUDING ALL) WITH (fillfactor = 45);
CREATE TABLE plain.orders (LIKE free.orders INCLUDING ALL) WITH (fillfactor = 45);
CREATE SEQUENCE orders_id START 1000000;

-- The rows for the updates.
INSERT INTO free.orders SELECT i, 'c-' || i, 'placed', 129.95, '2026-11-21 12:00', 'leave it at the door', :'data'
  FROM generate_series(1, :rows) AS i;
INSERT INTO by_row.orders TABLE free.orders;
INSERT INTO by_statement.orders TABLE free.orders;
INSERT INTO plain.orders TABLE free.orders;

CREATE TRIGGER capture AFTER INSERT OR UPDATE OR DELETE ON by_row.orders FOR EACH ROW EXECUTE FUNCTION es_capture('orders');
CREATE TRIGGER capture_insert AFTER INSERT ON by_statement.orders REFERENCING NEW TABLE AS n
    FOR EACH STATEMENT EXECUTE FUNCTION es_capture('orders');
CREATE TRIGGER capture_update AFTER UPDATE ON by_statement.orders REFERENCING OLD TABLE AS o NEW TABLE AS n
    FOR EACH STATEMENT EXECUTE FUNCTION es_capture('orders');

CREATE FUNCTION plain_capture() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO plain_outbox ("position", created_at, message_id, topic, type, key, payload)
    VALUES (nextval('plain_outbox_position'), now(), gen_random_uuid(), 'orders', tg_table_name || '.' || tg_op, new.id::text,
            CASE tg_op WHEN 'INSERT' THEN to_jsonb(new) ELSE jsonb_build_object('before', to_jsonb(old), 'after', to_jsonb(new)) END);
    RETURN NULL;
END $$;
CREATE TRIGGER capture AFTER INSERT OR UPDATE ON plain.orders FOR EACH ROW EXECUTE FUNCTION plain_capture();
