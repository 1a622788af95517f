-- es_pg.sql: the installation as a whole.

-- Grows when what es-relay calls here changes so that an older or newer one would go wrong.
CREATE FUNCTION @extschema@.es_protocol_version()
RETURNS integer LANGUAGE sql IMMUTABLE PARALLEL SAFE AS 'SELECT 1';
COMMENT ON FUNCTION @extschema@.es_protocol_version() IS
'What es_pg and es-relay speak with each other: a relay works with its own version and the neighbouring ones, and says so when it does not. 1: es_fetch with held lanes, es_ack, es_nack, es_renew, es_release.
Example: SELECT es_protocol_version();';

-- Function bodies name the schemas, so these keep their names. (SET SCHEMA is refused by the server itself.)
CREATE FUNCTION @extschema@.es_refuse_rename() RETURNS event_trigger
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    renamed text;
BEGIN
    renamed := CASE
        WHEN NOT EXISTS (SELECT FROM pg_catalog.pg_extension AS e JOIN pg_catalog.pg_namespace AS n ON n.oid = e.extnamespace
                          WHERE e.extname = 'es_pg' AND pg_catalog.quote_ident(n.nspname) = '@extschema@') THEN '@extschema@'
        WHEN pg_catalog.to_regnamespace('es_chunks') IS NULL THEN 'es_chunks'
    END;
    IF renamed IS NOT NULL THEN
        RAISE EXCEPTION 'cannot rename schema "%" because extension "es_pg" uses it', pg_catalog.btrim(renamed, '"')
            USING ERRCODE = 'feature_not_supported',
                  DETAIL = 'Functions of the extension name it.',
                  HINT = 'A log gets into another schema by a dump of its data; see the README.';
    END IF;
END $$;
COMMENT ON FUNCTION @extschema@.es_refuse_rename() IS
'es_pg: the event trigger that keeps the extension''s schema and es_chunks from being renamed (0A000).';
REVOKE ALL ON FUNCTION @extschema@.es_refuse_rename() FROM PUBLIC;

CREATE EVENT TRIGGER es_refuse_rename ON ddl_command_end WHEN TAG IN ('ALTER SCHEMA')
    EXECUTE FUNCTION @extschema@.es_refuse_rename();
COMMENT ON EVENT TRIGGER es_refuse_rename IS 'es_pg: keeps the extension''s schema and es_chunks from being renamed.';

-- Only a superuser may own it, but the extension may be handed to somebody who is none (REASSIGN OWNED).
DO $$
DECLARE
    superuser text := (SELECT r.rolname FROM pg_catalog.pg_roles AS r WHERE r.oid = 10 AND r.rolsuper);
BEGIN
    IF superuser IS NOT NULL THEN
        EXECUTE pg_catalog.format('ALTER EVENT TRIGGER es_refuse_rename OWNER TO %I', superuser);
    END IF;
END $$;
