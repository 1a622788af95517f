-- chunk.sql: chunks, as an operator sees and asks for them.

CREATE FUNCTION @extschema@.es_prepare_chunks(ahead integer DEFAULT 2) RETURNS integer
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION @extschema@.es_prepare_chunks(integer) IS
'Has the chunks made, for events and for the outbox, that the next positions will fall into, and for an inbox in use those of the next time: the current one and so many ahead (0 to 1,000). A background worker makes them, in a transaction of its own. Returns how many were made. Appends ask for chunks themselves; this is for maintenance and before a large import.
Errors: 22023.
Example: SELECT es_prepare_chunks(4);';
REVOKE ALL ON FUNCTION @extschema@.es_prepare_chunks(integer) FROM PUBLIC;

CREATE FUNCTION @extschema@.es_restore_chunks(chunks text[]) RETURNS integer
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION @extschema@.es_restore_chunks(text[]) IS
'Makes the chunks that a dump of data alone copies into, by their names there, with or without "es_chunks.". Each reaches up to the next one there is, the last as far as the setting of its size says, which must be the one it was made with. Returns how many were made; those that exist stay as they are. For an empty installation.
Errors: 22004, 22023.
Example: SELECT es_restore_chunks(ARRAY[''es_events_0'', ''es_events_16000000'']);';
REVOKE ALL ON FUNCTION @extschema@.es_restore_chunks(text[]) FROM PUBLIC;

CREATE FUNCTION @extschema@.es_retire_chunks() RETURNS integer
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION @extschema@.es_retire_chunks() IS
'Closes the outbox chunk that is written to if its first message is older than es_pg.outbox_chunk_interval, and drops those chunks of the outbox whose messages are acknowledged by every subscription and older than es_pg.outbox_retention, or that are empty; drops the chunks of the inbox whose end is es_pg.inbox_retention ago. A background worker drops, in transactions of its own; a chunk that somebody uses stays for the next time. Returns how many were dropped. es_maintain() calls it.
Errors: 55000 on a standby, 25006 read-only transaction.
Example: SELECT es_retire_chunks();';
REVOKE ALL ON FUNCTION @extschema@.es_retire_chunks() FROM PUBLIC;

CREATE VIEW @extschema@.es_chunk_list AS
    SELECT p.relname AS of_table, c.oid::pg_catalog.regclass AS chunk,
           pg_catalog.pg_get_expr(c.relpartbound, c.oid) AS bounds,
           pg_catalog.pg_total_relation_size(c.oid) AS bytes
      FROM pg_catalog.pg_inherits AS i
      JOIN pg_catalog.pg_class AS c ON c.oid = i.inhrelid
      JOIN pg_catalog.pg_class AS p ON p.oid = i.inhparent
     WHERE i.inhparent IN ('@extschema@.es_events'::pg_catalog.regclass, '@extschema@.es_outbox'::pg_catalog.regclass,
                           '@extschema@.es_inbox'::pg_catalog.regclass);
COMMENT ON VIEW @extschema@.es_chunk_list IS
'The chunks of events, outbox and inbox: the range of positions, or of times, that each holds, and its size in bytes with indexes and TOAST.
Example: SELECT * FROM es_chunk_list;';
