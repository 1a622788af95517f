-- capture.sql: the trigger that publishes what happens to a table's rows.

CREATE FUNCTION @extschema@.es_capture() RETURNS trigger
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION @extschema@.es_capture() IS
'Trigger function: publishes each change of a table''s rows to the outbox, in the transaction that makes it. Type: <table>.created, .updated, .deleted or .truncated; payload: {"before": row or null, "after": row or null, "changed": columns or null}; headers: {"schema", "table", "operation"}.
Arguments of the trigger: the topic; the key columns, separated by commas (default: the primary key; '''': no key); exclude=column,... (these appear nowhere); skip_unchanged=true (an UPDATE that changes no column that is not excluded is left out).
An AFTER trigger FOR EACH ROW, or FOR EACH STATEMENT with the transition tables of its event (for bulk changes), or FOR EACH STATEMENT on TRUNCATE. CREATE TRIGGER needs EXECUTE on this function (es_grant: ''capture''), which is the right to publish to any topic; who then writes the table needs no right of es_pg''s.
Errors, of the statement that fires it: 22023 bad argument, key or name, 42703 no such column, 42P16 no primary key, 39P01 not an AFTER trigger or no transition tables, 0A000 not a table, or FOR EACH STATEMENT on one with partitions or a parent; 53400 and 25006 as es_publish.
Example: SELECT es_grant(''shop_owner'', ''capture''); then CREATE TRIGGER orders_capture AFTER INSERT OR UPDATE OR DELETE ON orders FOR EACH ROW EXECUTE FUNCTION es_capture(''orders'', ''id'', ''exclude=card_number'', ''skip_unchanged=true'');';
REVOKE ALL ON FUNCTION @extschema@.es_capture() FROM PUBLIC;
