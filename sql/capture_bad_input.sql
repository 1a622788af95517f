-- capture_bad_input: what es_capture() refuses, when, and who may what.
CREATE EXTENSION es_pg;

-- Runs a statement; returns SQLSTATE and message of its refusal.
CREATE FUNCTION refusal(statement text) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE statement;
    RETURN 'not refused';
EXCEPTION WHEN OTHERS THEN
    RETURN SQLSTATE || ' ' || replace(SQLERRM, repeat('x', 100), 'x...x');
END $$;

CREATE TABLE t (id integer PRIMARY KEY, name text, secret text);

-- CREATE TRIGGER does not look at the arguments: the first statement that fires it is refused.
CREATE FUNCTION firing(arguments text) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE format('CREATE OR REPLACE TRIGGER capture AFTER INSERT ON t FOR EACH ROW EXECUTE FUNCTION es_capture(%s)', arguments);
    RETURN refusal('INSERT INTO t VALUES (1, ''n'', ''s'')');
END $$;
SELECT arguments, firing(arguments) FROM (VALUES
    ($$$$),
    ($$''$$),
    ($$E'a\tb'$$),
    ($$'t', 'nothing'$$),
    ($$'t', 'id, nothing'$$),
    ($$'t', 'ID, "Name"'$$),
    ($$'t', 'ctid'$$),
    ($$'t', 'id,'$$),
    ($$'t', 'id name'$$),
    ($$'t', '"id'$$),
    ($$'t', 'id', 'name'$$),
    ($$'t', 'exclude=nothing'$$),
    ($$'t', 'exclude=secret,'$$),
    ($$'t', 'exclude=id'$$),
    ($$'t', 'name', 'exclude=secret, name'$$),
    ($$'t', 'exclude=secret', 'exclude=name'$$),
    ($$'t', 'exclude=secret', 'id'$$),
    ($$'t', 'exlude=secret'$$),
    ($$'t', 'id', 'Exclude=secret'$$),
    ($$'t', 'skip_unchanged'$$),
    ($$'t', 'skip_unchanged=maybe'$$),
    ($$'t', 'skip_unchanged='$$),
    ($$'t', 'skip_unchanged=true', 'skip_unchanged=true'$$),
    ($$'t', 'id', ''$$)) AS a (arguments);
SELECT refusal(format('CREATE OR REPLACE TRIGGER capture AFTER INSERT ON t FOR EACH ROW EXECUTE FUNCTION es_capture(%L)', repeat('x', 1025)));
SELECT refusal('INSERT INTO t VALUES (1)');
CREATE TABLE "tab	bed" (id integer PRIMARY KEY);
CREATE TRIGGER capture AFTER INSERT ON "tab	bed" FOR EACH ROW EXECUTE FUNCTION es_capture('t');
SELECT refusal('INSERT INTO "tab	bed" VALUES (1)');
-- Nothing was written, and nothing published.
SELECT count(*) FROM t;
SELECT count(*) FROM es_outbox;
-- What is no option is a column; hints and details tell the rest.
CREATE OR REPLACE TRIGGER capture AFTER INSERT ON t FOR EACH ROW EXECUTE FUNCTION es_capture('t', 'exlude=secret');
INSERT INTO t VALUES (1);
CREATE OR REPLACE TRIGGER capture AFTER INSERT ON t FOR EACH ROW EXECUTE FUNCTION es_capture('t', 'exclude=secrets');
INSERT INTO t VALUES (1);
CREATE OR REPLACE TRIGGER capture AFTER INSERT ON t FOR EACH ROW EXECUTE FUNCTION es_capture('t', 'name', 'exclude=name');
INSERT INTO t VALUES (1);
CREATE OR REPLACE TRIGGER capture AFTER INSERT ON t FOR EACH ROW EXECUTE FUNCTION es_capture();
INSERT INTO t VALUES (1);
DROP TRIGGER capture ON t;

-- Not AFTER, not with transition tables, not a table, not a trigger.
CREATE TRIGGER capture BEFORE INSERT ON t FOR EACH ROW EXECUTE FUNCTION es_capture('t');
INSERT INTO t VALUES (1);
CREATE OR REPLACE TRIGGER capture BEFORE INSERT ON t FOR EACH STATEMENT EXECUTE FUNCTION es_capture('t');
INSERT INTO t VALUES (1);
CREATE OR REPLACE TRIGGER capture AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON t FOR EACH STATEMENT EXECUTE FUNCTION es_capture('t');
TRUNCATE t;
INSERT INTO t VALUES (1);
UPDATE t SET id = 1;
DELETE FROM t;
CREATE OR REPLACE TRIGGER capture AFTER UPDATE ON t REFERENCING NEW TABLE AS n FOR EACH STATEMENT EXECUTE FUNCTION es_capture('t');
UPDATE t SET id = 1;
DROP TRIGGER capture ON t;
CREATE VIEW v AS SELECT id, name FROM t;
CREATE TRIGGER capture INSTEAD OF INSERT ON v FOR EACH ROW EXECUTE FUNCTION es_capture('v', 'id');
INSERT INTO v VALUES (1);
DROP VIEW v;
SELECT es_capture();
-- No primary key.
CREATE TABLE keyless (a integer);
CREATE TRIGGER capture AFTER INSERT ON keyless FOR EACH ROW EXECUTE FUNCTION es_capture('t');
INSERT INTO keyless VALUES (1);
DROP TABLE keyless;

-- Rows that make no message: keys are as es_publish has them, json as jsonb.
CREATE TABLE odd (key text PRIMARY KEY, j json);
CREATE TRIGGER capture AFTER INSERT ON odd FOR EACH ROW EXECUTE FUNCTION es_capture('odd');
SELECT refusal('INSERT INTO odd VALUES ('''')');
SELECT refusal(format('INSERT INTO odd VALUES (%L)', repeat('x', 1025)));
SELECT refusal(E'INSERT INTO odd VALUES (''a\tb'')');
SELECT refusal(E'INSERT INTO odd VALUES (''j'', ''"\\u0000"'')');
CREATE TEMPORARY TABLE own (id integer PRIMARY KEY);
CREATE TRIGGER capture AFTER INSERT ON own FOR EACH ROW EXECUTE FUNCTION es_capture('own');
BEGIN READ ONLY;
INSERT INTO own VALUES (1);
ROLLBACK;
DROP TABLE odd;
-- No more than may wait.
CREATE TRIGGER capture AFTER INSERT ON t FOR EACH ROW EXECUTE FUNCTION es_capture('t');
SELECT es_create_subscription('slow', 'end', source => 'outbox');
SET es_pg.max_outbox_backlog = 2;
INSERT INTO t VALUES (1), (2);
INSERT INTO t VALUES (3);
RESET es_pg.max_outbox_backlog;
SELECT es_drop_subscription('slow');
-- es_pg's own tables are written past their triggers, so they may have none.
CREATE TRIGGER capture AFTER INSERT ON es_outbox FOR EACH ROW EXECUTE FUNCTION es_capture('loop', 'position');
INSERT INTO t VALUES (3);
DROP TRIGGER capture ON es_outbox;
TRUNCATE es_outbox;
TRUNCATE t;

--
-- Rights: 'capture' to attach it, for any topic. Who then writes the table needs
-- none, and no search path of his changes anything.
--
CREATE ROLE es_pg_owner;
CREATE ROLE es_pg_writer;
CREATE TABLE owned (id integer PRIMARY KEY, total numeric, at timestamptz);
ALTER TABLE owned OWNER TO es_pg_owner;
GRANT INSERT, UPDATE ON owned TO es_pg_writer;
SET ROLE es_pg_owner;
CREATE TRIGGER capture AFTER INSERT OR UPDATE ON owned FOR EACH ROW EXECUTE FUNCTION es_capture('owned');
RESET ROLE;
SELECT es_grant('es_pg_owner', 'capture', 'owned');
SELECT es_grant('es_pg_owner', 'capture');
SET ROLE es_pg_owner;
CREATE TRIGGER capture AFTER INSERT OR UPDATE ON owned FOR EACH ROW EXECUTE FUNCTION es_capture('owned');
RESET ROLE;
SELECT es_revoke('es_pg_owner', 'capture');
CREATE SCHEMA evil AUTHORIZATION es_pg_writer;
SET ROLE es_pg_writer;
CREATE FUNCTION evil.to_jsonb(anyelement) RETURNS jsonb LANGUAGE sql AS $$ SELECT '"evil"'::jsonb $$;
CREATE TABLE evil.es_outbox (position bigint, type text, key text, payload jsonb);
SET search_path = evil;
INSERT INTO public.owned VALUES (1, 1.5, '2026-11-21 00:00+00');
UPDATE public.owned SET total = 2;
SHOW search_path;
SELECT count(*) FROM public.es_outbox;
RESET search_path;
RESET ROLE;
SELECT type, payload->'after' AS after FROM es_outbox ORDER BY position;
SELECT count(*) FROM evil.es_outbox;

-- Under session_replication_role = replica, as rows arrive by logical replication, it fires only if told so.
TRUNCATE es_outbox;
SET session_replication_role = replica;
INSERT INTO owned VALUES (2);
ALTER TABLE owned ENABLE ALWAYS TRIGGER capture;
INSERT INTO owned VALUES (3);
RESET session_replication_role;
SELECT key FROM es_outbox;

-- A transaction that has captured something cannot be prepared.
BEGIN;
INSERT INTO owned VALUES (4);
PREPARE TRANSACTION 'capture';

DROP TABLE owned;
DROP SCHEMA evil CASCADE;
DROP ROLE es_pg_owner, es_pg_writer;
-- The extension does not go while a table of yours needs it.
DROP EXTENSION es_pg;
