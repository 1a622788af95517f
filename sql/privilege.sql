-- privilege: who may do what. The right itself is EXECUTE on functions; es_grant knows which, and can limit it.
\set SHOW_CONTEXT never
CREATE EXTENSION es_pg;

SELECT version FROM es_append_batch('order-1', '{OrderPlaced,OrderPaid}', '{"{}","{}"}');
SELECT es_create_subscription('mailer', 'beginning');
SELECT es_create_subscription('audit', 'beginning');
CREATE ROLE es_pg_reader;
CREATE ROLE es_pg_writer;
CREATE ROLE es_pg_consumer;
CREATE ROLE es_pg_admin;
CREATE ROLE es_pg_stranger;

-- Tells whether somebody may.
CREATE FUNCTION may(statement text) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE statement;
    RETURN 'yes';
EXCEPTION WHEN OTHERS THEN
    RETURN SQLSTATE || ' ' || SQLERRM;
END $$;
-- All that there is to be kept from somebody.
CREATE TABLE deed (n serial, privilege text, statement text);
GRANT SELECT ON deed TO PUBLIC;
INSERT INTO deed (privilege, statement) VALUES
    ('append', $$SELECT es_append('order-1', 'OrderNoted', '{}')$$),
    ('append', $$SELECT es_append_batch('order-1', '{OrderNoted}', '{"{}"}')$$),
    ('append', $$SELECT es_append_json('order-1', '[{"type": "OrderNoted", "data": {}}]')$$),
    ('read', $$SELECT * FROM es_read_stream('order-1')$$),
    ('read', $$SELECT * FROM es_read_category('order')$$),
    ('read', $$SELECT * FROM es_read_all()$$),
    ('read', $$SELECT * FROM es_read_event('d0000000-0000-0000-0000-000000000001')$$),
    ('read', $$SELECT es_stream_version('order-1')$$),
    ('read and others', $$SELECT es_horizon()$$),
    ('consume', $$SELECT * FROM es_fetch('mailer', 'me')$$),
    ('consume', $$SELECT count(es_ack('mailer', lane, epoch, 1)) FROM es_fetch('mailer', 'me')$$),
    ('admin', $$SELECT es_create_subscription('new', 'end')$$),
    ('admin', $$SELECT es_drop_subscription('new')$$),
    ('admin', $$SELECT es_maintain()$$),
    ('admin', $$SELECT es_prepare_chunks()$$),
    ('admin', $$SELECT * FROM es_in_flight()$$),
    ('admin', $$SELECT * FROM es_privileges$$),
    ('admin', $$SELECT es_grant('es_pg_stranger', 'read'), es_revoke('es_pg_stranger', 'read')$$),
    ('nobody', $$INSERT INTO es_events SELECT * FROM es_events$$),
    ('nobody', $$UPDATE es_events SET type = 'Rewritten'$$),
    ('nobody', $$DELETE FROM es_events$$),
    ('nobody', $$TRUNCATE es_events$$),
    ('nobody', $$SELECT * FROM es_events$$),
    ('nobody', $$DELETE FROM es_chunks.es_events_1$$),
    ('nobody', $$UPDATE es_streams SET deleted = true$$),
    ('nobody', $$INSERT INTO es_outbox SELECT * FROM es_outbox$$),
    ('nobody', $$SELECT nextval('es_position_bound')$$),
    ('nobody', $$SELECT setval('es_position_bound', 1)$$),
    ('nobody', $$INSERT INTO es_cursors VALUES (1, 0, 1, 0)$$),
    ('nobody', $$INSERT INTO es_grants VALUES ('es_pg_reader', 'append', '*')$$),
    ('nobody', $$ALTER TABLE es_events DISABLE TRIGGER ALL$$),
    ('nobody', $$DROP TABLE es_grants$$),
    ('nobody', $$DROP EXTENSION es_pg$$);

-- Nobody begins with anything.
SET ROLE es_pg_stranger;
SELECT privilege, statement, may(statement) FROM deed ORDER BY n;
-- But for what reads and writes nothing.
SELECT es_category('order-1'), es_category_id('order'), es_uuid('a', 'b'), es_any(), es_no_stream(), es_stream_exists();
RESET ROLE;

--
-- One privilege each. A reader cannot write, a writer cannot read, nor touch history, and nobody draws positions.
--
SELECT es_grant('es_pg_reader', 'read');
SELECT es_grant('es_pg_writer', 'append');
SELECT es_grant('es_pg_consumer', 'consume');
SELECT es_grant('es_pg_admin', 'admin');
SELECT * FROM es_privileges ORDER BY role::text, privilege;
SET ROLE es_pg_reader;
SELECT privilege, statement FROM deed WHERE may(statement) = 'yes' ORDER BY n;
SET ROLE es_pg_writer;
SELECT privilege, statement FROM deed WHERE may(statement) = 'yes' ORDER BY n;
SET ROLE es_pg_consumer;
SELECT privilege, statement FROM deed WHERE may(statement) = 'yes' ORDER BY n;
SET ROLE es_pg_admin;
SELECT privilege, statement FROM deed WHERE may(statement) = 'yes' ORDER BY n;
-- An administrator may help itself, but not to what is nobody's.
SELECT es_grant('es_pg_admin', 'append'), es_grant('es_pg_admin', 'read'), es_grant('es_pg_admin', 'consume');
SELECT privilege, statement, may(statement) FROM deed WHERE may(statement) <> 'yes' ORDER BY n;
SELECT es_revoke('es_pg_admin', 'append'), es_revoke('es_pg_admin', 'read'), es_revoke('es_pg_admin', 'consume');
RESET ROLE;
-- What is taken is gone, and taking it again is harmless.
SELECT es_revoke('es_pg_writer', 'append');
SELECT es_revoke('es_pg_writer', 'append');
SET ROLE es_pg_writer;
SELECT privilege, statement FROM deed WHERE may(statement) = 'yes' ORDER BY n;
RESET ROLE;
-- A function that two privileges share goes with the second of them.
SELECT es_grant('es_pg_consumer', 'read');
SELECT es_revoke('es_pg_consumer', 'consume');
SELECT has_function_privilege('es_pg_consumer', 'es_horizon()', 'EXECUTE') AS shared, has_function_privilege('es_pg_consumer', 'es_ack(text, int, bigint, bigint)', 'EXECUTE') AS own;
SELECT es_revoke('es_pg_consumer', 'read');
SELECT has_function_privilege('es_pg_consumer', 'es_horizon()', 'EXECUTE') AS shared;

--
-- To append only to some categories: by name, or with "*" by how they begin.
--
SELECT es_grant('es_pg_writer', 'append', 'order');
SELECT es_grant('es_pg_writer', 'append', 'tenant1.*');
SELECT * FROM es_privileges WHERE role = 'es_pg_writer'::regrole;
SET ROLE es_pg_writer;
SELECT stream, may(format($$SELECT es_append(%L, 'T', '{}')$$, stream))
  FROM (VALUES ('order-1'), ('order'), ('orders-1'), ('orde-1'), ('Order-1'), ('tenant1.order-1'), ('tenant1.-1'), ('tenant1'), ('tenant10.order-1'), ('tenant2.order-1'), ('*-1')) AS s (stream);
SELECT may($$SELECT es_append_batch('invoice-1', '{T}', '{"{}"}')$$);
SELECT may($$SELECT es_append_json('invoice-1', '[{"type": "T", "data": {}}]')$$);
-- What is refused says what to do, and has cost nothing: no stream, no lock, no position.
SELECT es_append('invoice-1', 'T', '{}');
RESET ROLE;
SELECT count(*) FROM es_streams WHERE name LIKE 'invoice%';
-- A limit that is widened or narrowed is so at once, in a session that knows the old one too.
SELECT es_grant('es_pg_writer', 'append', 'invoice');
SELECT es_revoke('es_pg_writer', 'append', 'order');
SET ROLE es_pg_writer;
SELECT may($$SELECT es_append('invoice-1', 'T', '{}')$$), may($$SELECT es_append('order-1', 'T', '{}')$$);
RESET ROLE;
-- Inside the granting transaction, too, and not after its end by rollback.
BEGIN;
SELECT es_grant('es_pg_writer', 'append', 'order');
SET ROLE es_pg_writer;
SELECT may($$SELECT es_append('order-1', 'T', '{}')$$);
ROLLBACK;
SET ROLE es_pg_writer;
SELECT may($$SELECT es_append('order-1', 'T', '{}')$$);
RESET ROLE;
-- Without a scope the limits end; to limit it then, take it first.
SELECT es_grant('es_pg_writer', 'append');
SET ROLE es_pg_writer;
SELECT may($$SELECT es_append('anything-1', 'T', '{}')$$);
RESET ROLE;
SELECT es_grant('es_pg_writer', 'append', 'order');
SELECT es_revoke('es_pg_writer', 'append', 'order');
-- With the last scope goes the privilege.
SELECT es_revoke('es_pg_writer', 'append');
SELECT es_grant('es_pg_writer', 'append', 'order');
SELECT es_revoke('es_pg_writer', 'append', 'order');
SELECT count(*) FROM es_privileges WHERE role = 'es_pg_writer'::regrole;
SELECT count(*) FROM es_grants;

--
-- To consume only some subscriptions: a consumer cannot acknowledge for another one.
--
SELECT es_grant('es_pg_consumer', 'consume', 'mailer');
SET ROLE es_pg_consumer;
SELECT statement, may(statement) FROM (VALUES
    ($$SELECT * FROM es_fetch('mailer', 'me')$$),
    ($$SELECT count(es_ack('mailer', lane, epoch, 2)) FROM es_fetch('mailer', 'me')$$),
    ($$SELECT * FROM es_fetch('audit', 'me')$$),
    ($$SELECT es_ack('audit', 0, 0, 2)$$),
    ($$SELECT * FROM es_fetch('no such one', 'me')$$)) AS s (statement);
RESET ROLE;
SELECT name, max(c.position) FROM es_cursors AS c JOIN es_subscriptions USING (subscription_id) GROUP BY name ORDER BY name;

--
-- Rights add up over the roles that one has the privileges of.
--
CREATE ROLE es_pg_shop IN ROLE es_pg_writer;
CREATE ROLE es_pg_clerk;
SELECT es_grant('es_pg_writer', 'append', 'order');
SELECT es_grant('es_pg_clerk', 'append', 'invoice');
CREATE FUNCTION shop_may(OUT "order" text, OUT invoice text, OUT cart text) LANGUAGE sql
    RETURN ROW(may($$SELECT es_append('order-1', 'T', '{}')$$), may($$SELECT es_append('invoice-1', 'T', '{}')$$), may($$SELECT es_append('cart-1', 'T', '{}')$$));
SET ROLE es_pg_shop;
SELECT * FROM shop_may();
RESET ROLE;
GRANT es_pg_clerk TO es_pg_shop;
SET ROLE es_pg_shop;
SELECT * FROM shop_may();
RESET ROLE;
-- A GRANT by hand has no limits, whoever of them it was to.
CREATE ROLE es_pg_chief;
GRANT EXECUTE ON FUNCTION es_append TO es_pg_chief;
GRANT es_pg_chief TO es_pg_shop;
SET ROLE es_pg_shop;
SELECT * FROM shop_may();
-- It was one function: another one has its limits still.
SELECT may($$SELECT es_append_json('cart-1', '[{"type": "T", "data": {}}]')$$);
RESET ROLE;
SELECT role, privilege, scopes, missing FROM es_privileges WHERE privilege = 'append' ORDER BY role::text;
REVOKE es_pg_chief FROM es_pg_shop;
-- To the role itself that is limited, a GRANT by hand gives nothing new.
GRANT EXECUTE ON FUNCTION es_append TO es_pg_writer;
SET ROLE es_pg_shop;
SELECT * FROM shop_may();
RESET ROLE;
-- To PUBLIC: everybody.
GRANT EXECUTE ON FUNCTION es_append TO PUBLIC;
SET ROLE es_pg_shop;
SELECT * FROM shop_may();
RESET ROLE;
REVOKE EXECUTE ON FUNCTION es_append FROM PUBLIC;
-- One who inherits nothing has nothing before SET ROLE.
CREATE ROLE es_pg_heir NOINHERIT IN ROLE es_pg_writer;
SET ROLE es_pg_heir;
SELECT * FROM shop_may();
SET ROLE es_pg_writer;
SELECT * FROM shop_may();
RESET ROLE;

--
-- Whose right counts is the current user's: of a SECURITY DEFINER function, its owner's.
--
CREATE FUNCTION note_invoice() RETURNS bigint LANGUAGE sql SECURITY DEFINER SET search_path = public, pg_temp
    AS $$ SELECT version FROM es_append('invoice-7', 'Noted', '{}') $$;
ALTER FUNCTION note_invoice() OWNER TO es_pg_clerk;
SET ROLE es_pg_writer;
SELECT note_invoice();
SELECT may($$SELECT es_append('invoice-7', 'T', '{}')$$);
RESET ROLE;
ALTER FUNCTION note_invoice() OWNER TO es_pg_writer;
SET ROLE es_pg_writer;
SELECT may('SELECT note_invoice()');
RESET ROLE;
-- PostgreSQL checks an aggregate's functions against its owner; here its user counts.
GRANT CREATE ON SCHEMA public TO es_pg_writer;
SET ROLE es_pg_writer;
CREATE FUNCTION keep(text, text) RETURNS text LANGUAGE sql IMMUTABLE RETURN $2;
CREATE AGGREGATE write_to(jsonb, bigint ORDER BY text) (SFUNC = keep, STYPE = text, FINALFUNC = es_append_json);
RESET ROLE;
SELECT may($$SELECT write_to('[{"type": "T", "data": {}}]', NULL) WITHIN GROUP (ORDER BY s) FROM (VALUES ('cart-1')) AS v (s)$$) AS superuser;
SET ROLE es_pg_writer;
SELECT stream, may(format($$SELECT write_to('[{"type": "T", "data": {}}]', NULL) WITHIN GROUP (ORDER BY s) FROM (VALUES (%L)) AS v (s)$$, stream))
  FROM (VALUES ('order-1'), ('cart-1')) AS s (stream);
SET ROLE es_pg_stranger;
SELECT may($$SELECT write_to('[{"type": "T", "data": {}}]', NULL) WITHIN GROUP (ORDER BY s) FROM (VALUES ('order-1')) AS v (s)$$);
RESET ROLE;
DROP AGGREGATE write_to(jsonb, bigint ORDER BY text);
DROP FUNCTION keep(text, text), note_invoice();
REVOKE CREATE ON SCHEMA public FROM es_pg_writer;

--
-- A limited role whose rows are gone may do nothing, not everything.
--
BEGIN;
DELETE FROM es_grants;
SELECT role, scopes FROM es_privileges WHERE role = 'es_pg_writer'::regrole;
SET ROLE es_pg_writer;
SELECT * FROM shop_may();
ROLLBACK;
-- One who drops what it owns keeps its limits: PostgreSQL takes away only what one may take away.
SET SESSION AUTHORIZATION es_pg_writer;
SET client_min_messages = error;
DROP OWNED BY es_pg_writer;
RESET client_min_messages;
SELECT * FROM shop_may();
RESET SESSION AUTHORIZATION;
-- DROP OWNED by a superuser takes rights and limits; rows that are left mean nothing, and are swept away by the next one.
DROP OWNED BY es_pg_writer;
SELECT count(*) FROM es_privileges WHERE role = 'es_pg_writer'::regrole;
SET ROLE es_pg_writer;
SELECT * FROM shop_may();
RESET ROLE;
SELECT count(*) FROM es_grants WHERE role = 'es_pg_writer'::regrole;
SELECT es_grant('es_pg_writer', 'append', 'cart');
SET ROLE es_pg_writer;
SELECT * FROM shop_may();
RESET ROLE;
-- A role with privileges cannot be dropped; one that was leaves nothing.
DROP ROLE es_pg_writer;
DROP OWNED BY es_pg_writer;
DROP ROLE es_pg_writer;
SELECT es_grant('es_pg_clerk', 'append', 'credit');
SELECT role, privilege, scope FROM es_grants ORDER BY 1::text, 2, 3;
-- A role by another name is the same role.
ALTER ROLE es_pg_clerk RENAME TO "es_pg Clerk's";
SELECT es_grant('"es_pg Clerk''s"', 'append', 'debit');
SELECT role, scopes FROM es_privileges WHERE privilege = 'append' AND scopes IS NOT NULL;

--
-- Untyped parameters.
--
PREPARE give AS SELECT es_grant($1, $2, $3);
PREPARE take AS SELECT es_revoke($1, $2, $3);
EXECUTE give('es_pg_stranger', 'append', 'a*');
EXECUTE give('es_pg_stranger', 'read', NULL);
SELECT role, privilege, scopes FROM es_privileges WHERE role = 'es_pg_stranger'::regrole ORDER BY 2;
EXECUTE take('es_pg_stranger', 'append', 'a*');
EXECUTE take('es_pg_stranger', 'read', NULL);
SELECT es_grant(role => 'es_pg_stranger', privilege => 'consume', scope => 'x'), es_revoke(role => 'es_pg_stranger', privilege => 'consume');
SELECT count(*) FROM es_privileges WHERE role = 'es_pg_stranger'::regrole;

--
-- What is refused, and how.
--
SELECT arguments, may('SELECT es_grant(' || arguments || ')') AS es_grant, may('SELECT es_revoke(' || arguments || ')') AS es_revoke FROM (VALUES
    ($$NULL, 'append'$$),
    ($$'es_pg_reader', NULL$$),
    ($$'nobody there', 'append'$$),
    ($$'es_pg_nobody', 'append'$$),
    ($$0, 'append'$$),
    ($$'postgres', 'append'$$),
    ($$'es_pg_reader', 'write'$$),
    ($$'es_pg_reader', 'publish'$$),
    ($$'es_pg_reader', 'read', 'order'$$),
    ($$'es_pg_reader', 'admin', '*'$$),
    ($$'es_pg_reader', 'append', ''$$),
    ($$'es_pg_reader', 'append', E'a\nb'$$),
    ($$'es_pg_reader', 'append', repeat('x', 1025)$$),
    ($$'es_pg_reader', 'append', 'order-1'$$)) AS t (arguments);
-- In a schema that a role may not use, privileges are of no use either.
CREATE SCHEMA es_pg_elsewhere;
DROP EXTENSION es_pg;
CREATE EXTENSION es_pg SCHEMA es_pg_elsewhere;
SET ROLE es_pg_reader;
SELECT may($$SELECT es_pg_elsewhere.es_append('order-1', 'T', '{}')$$);
RESET ROLE;
SELECT es_pg_elsewhere.es_grant('es_pg_reader', 'append', 'order');
GRANT USAGE ON SCHEMA es_pg_elsewhere TO es_pg_reader;
SET ROLE es_pg_reader;
SELECT may($$SELECT es_pg_elsewhere.es_append('order-1', 'T', '{}')$$), may($$SELECT es_pg_elsewhere.es_append('cart-1', 'T', '{}')$$);
RESET ROLE;

DROP EXTENSION es_pg;
DROP OWNED BY es_pg_reader;
DROP ROLE es_pg_reader, es_pg_consumer, es_pg_admin, es_pg_stranger, es_pg_shop, "es_pg Clerk's", es_pg_chief, es_pg_heir;
