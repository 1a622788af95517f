-- capture: what happens to a table's rows, published by a trigger in the transaction that does it.
CREATE EXTENSION es_pg;

-- What was published, without what differs from run to run.
CREATE VIEW message AS
    SELECT topic, type, key, payload->'before' AS before, payload->'after' AS after, payload->'changed' AS changed
      FROM es_outbox ORDER BY position;
-- Shows it, and begins anew.
CREATE FUNCTION told() RETURNS TABLE (type text, key text, before jsonb, after jsonb, changed jsonb) LANGUAGE plpgsql AS $$
BEGIN
    RETURN QUERY SELECT m.type, m.key, m.before, m.after, m.changed FROM message AS m;
    TRUNCATE es_outbox;
END $$;

--
-- A trigger on a table of yours. The key of the messages is the primary key.
--
CREATE TABLE orders (id integer PRIMARY KEY, customer text, total numeric(8,2), card text);
CREATE TRIGGER orders_capture AFTER INSERT OR UPDATE OR DELETE ON orders
    FOR EACH ROW EXECUTE FUNCTION es_capture('orders');
INSERT INTO orders VALUES (42, 'Ada', 99.9, '4111');
UPDATE orders SET total = 80, customer = 'Ada L.' WHERE id = 42;
UPDATE orders SET total = 80 WHERE id = 42;
DELETE FROM orders;
SELECT DISTINCT topic FROM message;
SELECT type, payload, headers FROM es_outbox WHERE key = '42' ORDER BY position;
SELECT * FROM told();
-- The message commits with the change, or not at all.
BEGIN;
INSERT INTO orders VALUES (1);
SAVEPOINT s;
INSERT INTO orders VALUES (2);
UPDATE orders SET total = 1 WHERE id = 1;
ROLLBACK TO s;
INSERT INTO orders VALUES (3);
COMMIT;
BEGIN;
DELETE FROM orders;
ROLLBACK;
SELECT * FROM told();
-- Correlation, causation and trace come from the settings.
BEGIN;
SET LOCAL es_pg.correlation_id = 'request-8';
SET LOCAL es_pg.causation_id = 'click-2';
SET LOCAL es_pg.traceparent = '00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01';
DELETE FROM orders WHERE id = 3;
COMMIT;
SELECT correlation_id, causation_id, traceparent FROM es_outbox;
SELECT * FROM told();

--
-- Secrets stay: an excluded column is in no image, and not among the changed. An
-- UPDATE that changes nothing that is seen can be left out.
--
CREATE OR REPLACE TRIGGER orders_capture AFTER INSERT OR UPDATE OR DELETE ON orders
    FOR EACH ROW EXECUTE FUNCTION es_capture('orders', 'exclude=card');
UPDATE orders SET card = '5555';
SELECT * FROM told();
CREATE OR REPLACE TRIGGER orders_capture AFTER INSERT OR UPDATE OR DELETE ON orders
    FOR EACH ROW EXECUTE FUNCTION es_capture('orders', 'id', 'exclude=card , total', 'skip_unchanged=true');
UPDATE orders SET card = '6666', total = 1;
UPDATE orders SET customer = NULL;
UPDATE orders SET customer = 'Bob', card = '7777';
DELETE FROM orders;
SELECT * FROM told();
-- A trigger can also name columns and a condition itself.
CREATE OR REPLACE TRIGGER orders_capture AFTER UPDATE OF total ON orders
    FOR EACH ROW WHEN (new.total > 100) EXECUTE FUNCTION es_capture('big-orders');
INSERT INTO orders VALUES (5);
UPDATE orders SET customer = 'Eve';
UPDATE orders SET total = 100;
UPDATE orders SET total = 101;
SELECT topic, type, key FROM message;
TRUNCATE es_outbox;

--
-- Keys. Several columns are a JSON array of texts; a NULL in a single one is no key.
--
CREATE TABLE item (sku text, lot integer, note text, PRIMARY KEY (lot, sku));
CREATE TRIGGER item_capture AFTER INSERT OR UPDATE OR DELETE ON item
    FOR EACH ROW EXECUTE FUNCTION es_capture('items');
INSERT INTO item VALUES ('a,1', 2, 'n'), ('a","1', 3, 'n'), (E'tab\t', 4, 'n');
UPDATE item SET lot = 30 WHERE lot = 3;
SELECT type, key, before->>'lot' AS before, changed FROM told();
CREATE OR REPLACE TRIGGER item_capture AFTER INSERT OR UPDATE OR DELETE ON item
    FOR EACH ROW EXECUTE FUNCTION es_capture('items', 'note');
INSERT INTO item VALUES ('b', 1, NULL), ('c', 1, 'key');
SELECT type, key FROM told();
CREATE OR REPLACE TRIGGER item_capture AFTER INSERT OR UPDATE OR DELETE ON item
    FOR EACH ROW EXECUTE FUNCTION es_capture('items', '"sku", NOTE');
INSERT INTO item VALUES ('d', 1, NULL);
CREATE OR REPLACE TRIGGER item_capture AFTER INSERT OR UPDATE OR DELETE ON item
    FOR EACH ROW EXECUTE FUNCTION es_capture('items', '');
INSERT INTO item VALUES ('e', 1, NULL);
SELECT type, key FROM told();
-- Names that need quotes.
CREATE TABLE "Odd ""Names" ("The Key" integer, "a=b" text, "c,d" text);
CREATE TRIGGER t AFTER INSERT OR UPDATE ON "Odd ""Names"
    FOR EACH ROW EXECUTE FUNCTION es_capture('odd', '"The Key","a=b"', 'exclude="c,d"');
INSERT INTO "Odd ""Names" VALUES (1, 'x', 'secret');
SELECT * FROM told();

--
-- Values are as to_jsonb has them, whatever the session's settings: in UTC, hex, ISO 8601.
--
CREATE TYPE mood AS ENUM ('sad', 'ok');
CREATE TYPE pair AS (a integer, b text);
CREATE DOMAIN percent AS numeric CHECK (VALUE <= 100);
CREATE TABLE kinds (
    id timestamptz PRIMARY KEY, i interval, f float8, r real, n numeric, b bytea, d date, ts timestamp, m money,
    j json, jb jsonb, a integer[], aa text[][], p pair, ps pair[], dom percent, e mood, u uuid, bo boolean, c char(4),
    rng tstzrange, cls regclass, x xml, ip inet);
CREATE TRIGGER kinds_capture AFTER INSERT OR UPDATE OR DELETE ON kinds
    FOR EACH ROW EXECUTE FUNCTION es_capture('kinds');
SET TimeZone = 'Asia/Kolkata';
SET DateStyle = 'German';
SET IntervalStyle = 'sql_standard';
SET extra_float_digits = -15;
SET bytea_output = 'escape';
INSERT INTO kinds VALUES (
    '2026-11-21 12:00:00.123456+00', '1 day 02:03:04', 0.1::float8 + 0.2, 0.1, 1.50, '\x00ff', '2026-11-21', '2026-11-21 12:00', 1.5,
    '{"b": 1, "a": [1, 2]}', '{"b": null}', '{1,NULL,3}', '{{a,b},{c,NULL}}', '(1,"x y")', '{"(1,a)","(,)"}', 12.5, 'ok',
    '0190163d-8694-739b-aea5-966c26f8ad91', true, 'ab', '[2026-11-21 00:00+00,2026-11-22 00:00+00)', 'public.orders', '<a>1</a>', '10.0.0.1/8');
SHOW TimeZone;
SHOW DateStyle;
RESET TimeZone;
RESET DateStyle;
RESET IntervalStyle;
RESET extra_float_digits;
RESET bytea_output;
INSERT INTO kinds (id, i, f, r, n, d, ts) VALUES ('infinity', '0', 'NaN', '-Infinity', 'NaN', 'infinity', '-infinity');
INSERT INTO kinds (id, n) VALUES ('4713-01-01 00:00:00+00 BC', '-Infinity');
UPDATE kinds SET n = 1.500, f = 0.3 WHERE n = 1.5;
-- All that is null is left out here, to be readable.
SELECT type, key, jsonb_pretty(jsonb_strip_nulls(after)) AS after, changed FROM told();

-- Long values are whole, whether they changed or not.
CREATE TABLE wide (id integer PRIMARY KEY, small text, large text, other text, bytes bytea);
ALTER TABLE wide ALTER COLUMN large SET STORAGE EXTERNAL, ALTER COLUMN bytes SET STORAGE EXTERNAL;
CREATE TRIGGER wide_capture AFTER INSERT OR UPDATE OR DELETE ON wide
    FOR EACH ROW EXECUTE FUNCTION es_capture('wide');
INSERT INTO wide VALUES (1, 's', repeat('0123456789', 100000), repeat('x', 1000000), decode(repeat('00ff', 50000), 'hex'));
UPDATE wide SET small = 't';
UPDATE wide SET large = large || '!';
UPDATE wide SET large = repeat('0123456789', 100000) || '!', other = repeat('x', 1000000);
DELETE FROM wide;
SELECT type, length(before->>'large') AS large_before, length(after->>'large') AS large, length(after->>'other') AS other,
       length(after->>'bytes') AS bytes, changed
  FROM told();
-- Many columns.
DO $$
BEGIN
    EXECUTE (SELECT format('CREATE TABLE columns (%s, PRIMARY KEY (c1))', string_agg(format('c%s integer', i), ', ')) FROM generate_series(1, 1000) AS i);
END $$;
CREATE TRIGGER columns_capture AFTER INSERT OR UPDATE ON columns FOR EACH ROW EXECUTE FUNCTION es_capture('columns', 'exclude=c2');
INSERT INTO columns (c1, c2, c1000) VALUES (1, 2, 1000);
UPDATE columns SET c2 = 3, c500 = 500, c1000 = NULL;
SELECT type, key, after->'c1000' AS last, changed, (SELECT count(*) FROM jsonb_object_keys(after)) AS columns FROM told();

--
-- Tables that change. The next firing sees them as they are then.
--
CREATE TABLE living (id integer PRIMARY KEY, a integer, b integer, secret text);
CREATE TRIGGER living_capture AFTER INSERT OR UPDATE OR DELETE ON living
    FOR EACH ROW EXECUTE FUNCTION es_capture('living', 'exclude=secret');
INSERT INTO living VALUES (1, 2, 3, 'x');
ALTER TABLE living DROP COLUMN a;
ALTER TABLE living RENAME COLUMN b TO bb;
ALTER TABLE living ADD COLUMN late integer DEFAULT 7;
UPDATE living SET bb = 4;
ALTER TABLE living RENAME TO alive;
ALTER TABLE alive RENAME CONSTRAINT living_pkey TO alive_pkey;
CREATE SCHEMA house;
ALTER TABLE alive SET SCHEMA house;
UPDATE house.alive SET late = 8;
ALTER SCHEMA house RENAME TO home;
UPDATE home.alive SET late = 9;
SELECT headers FROM es_outbox ORDER BY position;
SELECT * FROM told();
-- A secret whose column is renamed does not get out.
ALTER TABLE home.alive RENAME COLUMN secret TO password;
UPDATE home.alive SET late = 10;
DROP TABLE home.alive;
-- Generated columns.
CREATE TABLE made (id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY, a integer, twice integer GENERATED ALWAYS AS (a * 2) STORED);
CREATE TRIGGER made_capture AFTER INSERT OR UPDATE ON made FOR EACH ROW EXECUTE FUNCTION es_capture('made');
INSERT INTO made (a) VALUES (1);
UPDATE made SET a = 2;
-- The user's own sequence is what lastval() speaks of.
SELECT lastval();
SELECT * FROM told();
-- A BEFORE trigger has changed the row by then.
CREATE FUNCTION up() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN new.a := new.a + 100; RETURN new; END $$;
CREATE TRIGGER up BEFORE INSERT OR UPDATE ON made FOR EACH ROW EXECUTE FUNCTION up();
INSERT INTO made (a) VALUES (1);
SELECT after FROM told();

--
-- All ways to change rows.
--
CREATE TABLE ways (id integer PRIMARY KEY, v integer);
CREATE TRIGGER ways_capture AFTER INSERT OR UPDATE OR DELETE ON ways
    FOR EACH ROW EXECUTE FUNCTION es_capture('ways');
COPY ways FROM stdin;
1	1
2	2
\.
INSERT INTO ways VALUES (2, 20), (3, 3) ON CONFLICT (id) DO UPDATE SET v = excluded.v;
INSERT INTO ways VALUES (3, 30) ON CONFLICT DO NOTHING;
MERGE INTO ways AS w USING (VALUES (1, 10), (2, NULL), (4, 4)) AS n (id, v) ON w.id = n.id
    WHEN MATCHED AND n.v IS NULL THEN DELETE
    WHEN MATCHED THEN UPDATE SET v = n.v
    WHEN NOT MATCHED THEN INSERT VALUES (n.id, n.v);
WITH gone AS (DELETE FROM ways WHERE id = 4 RETURNING id) INSERT INTO ways SELECT id + 1, 0 FROM gone;
SELECT * FROM told();
-- Another AFTER trigger that changes the row again: triggers fire in the order of
-- their names, so es_capture() tells in order if its trigger comes first.
CREATE FUNCTION again() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN UPDATE ways SET v = 100 WHERE id = new.id; RETURN NULL; END $$;
CREATE TRIGGER again AFTER INSERT ON ways FOR EACH ROW EXECUTE FUNCTION again();
INSERT INTO ways VALUES (7, 0);
ALTER TRIGGER ways_capture ON ways RENAME TO a_capture;
INSERT INTO ways VALUES (8, 0), (9, 0);
SELECT type, key, after->'v' AS v FROM told();
DROP TRIGGER again ON ways;
ALTER TRIGGER a_capture ON ways RENAME TO ways_capture;
-- Foreign keys that cascade.
CREATE TABLE part (id integer PRIMARY KEY, way integer REFERENCES ways ON UPDATE CASCADE ON DELETE SET NULL);
CREATE TRIGGER part_capture AFTER UPDATE ON part FOR EACH ROW EXECUTE FUNCTION es_capture('ways');
INSERT INTO part VALUES (1, 1), (3, 3);
UPDATE ways SET id = 10 WHERE id = 1;
DELETE FROM ways WHERE id = 3;
SELECT * FROM told();
-- A constraint trigger that is deferred tells at the end.
DROP TRIGGER ways_capture ON ways;
CREATE CONSTRAINT TRIGGER ways_capture AFTER INSERT OR UPDATE ON ways DEFERRABLE INITIALLY DEFERRED
    FOR EACH ROW EXECUTE FUNCTION es_capture('ways');
BEGIN;
UPDATE ways SET v = 11 WHERE id = 10;
SAVEPOINT s;
UPDATE ways SET v = 12 WHERE id = 10;
ROLLBACK TO s;
INSERT INTO ways VALUES (11, 1);
SELECT count(*) FROM message;
COMMIT;
SELECT * FROM told();
DROP TABLE part, ways;
-- TRUNCATE is one message, without rows and key, if you ask for it.
CREATE TABLE log (line text);
CREATE TRIGGER log_truncate AFTER TRUNCATE ON log FOR EACH STATEMENT EXECUTE FUNCTION es_capture('log');
INSERT INTO log VALUES ('a');
TRUNCATE log;
SELECT payload, headers FROM es_outbox;
SELECT * FROM told();
-- Temporary tables do as well.
CREATE TEMPORARY TABLE passing (id integer PRIMARY KEY);
CREATE TRIGGER t AFTER INSERT ON passing FOR EACH ROW EXECUTE FUNCTION es_capture('passing');
INSERT INTO passing VALUES (1);
SELECT * FROM told();

--
-- Partitioned tables: the name is that of the whole, whose trigger is cloned to
-- every partition, and the order of a partition's columns does not matter.
--
CREATE TABLE sale (region text, id integer, amount integer, secret text, PRIMARY KEY (region, id)) PARTITION BY LIST (region);
CREATE TABLE sale_north PARTITION OF sale FOR VALUES IN ('n');
CREATE TABLE sale_south (secret text, gone integer, amount integer, id integer NOT NULL, region text NOT NULL);
ALTER TABLE sale_south DROP COLUMN gone;
ALTER TABLE sale ATTACH PARTITION sale_south FOR VALUES IN ('s');
CREATE TABLE sale_rest PARTITION OF sale DEFAULT PARTITION BY RANGE (id);
CREATE TABLE sale_rest_1 PARTITION OF sale_rest FOR VALUES FROM (0) TO (100);
CREATE TRIGGER sale_capture AFTER INSERT OR UPDATE OR DELETE ON sale
    FOR EACH ROW EXECUTE FUNCTION es_capture('sales', 'exclude=secret');
INSERT INTO sale VALUES ('n', 1, 10, 'x'), ('s', 2, 20, 'x'), ('west', 3, 30, 'x');
UPDATE sale SET amount = amount + 1, secret = 'y';
INSERT INTO sale_rest_1 VALUES ('east', 4, 40, 'x');
-- A row that moves is deleted in one partition and created in another.
UPDATE sale SET region = 's' WHERE id = 1;
MERGE INTO sale USING (VALUES (3, 'n')) AS n (id, region) ON sale.id = n.id WHEN MATCHED THEN UPDATE SET region = n.region;
DELETE FROM sale_south WHERE id = 2;
SELECT DISTINCT headers - 'operation' AS headers FROM es_outbox;
SELECT * FROM told();
-- A new name of the root is noticed by the partitions; so is a partition that leaves.
ALTER TABLE sale RENAME TO sold;
INSERT INTO sale_rest_1 VALUES ('east', 5, 50, 'x');
ALTER TABLE sold DETACH PARTITION sale_rest;
CREATE TRIGGER t AFTER INSERT ON sale_rest FOR EACH ROW EXECUTE FUNCTION es_capture('sales', 'exclude=secret');
INSERT INTO sale_rest_1 VALUES ('east', 6, 60, 'x');
ALTER TABLE sold ATTACH PARTITION sale_rest DEFAULT;
SELECT type, key FROM told();
DROP TABLE sold;
