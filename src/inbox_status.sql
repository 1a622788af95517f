-- inbox_status.sql: the inbox, as an operator sees it.

CREATE FUNCTION @extschema@.es_inbox_counts(
    OUT consumer_id bigint, OUT accepted bigint, OUT duplicates bigint, OUT since timestamptz)
RETURNS SETOF record LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION @extschema@.es_inbox_counts() IS
'How often each consumer was told that a message is new, and how often that it is a duplicate, since it was first asked after the server''s start; also by transactions that were rolled back. Kept in shared memory, for as many consumers as there is room for: 48 in a server of version 15 or 16 that does not preload es_pg, else 1,024.
Errors: 55000 on a standby.
Example: SELECT * FROM es_inbox_counts();';

CREATE FUNCTION @extschema@.es_key_lane(key text, "position" bigint, lanes integer)
RETURNS integer LANGUAGE c IMMUTABLE PARALLEL SAFE AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION @extschema@.es_key_lane(text, bigint, integer) IS
'Into which of so many lanes a message of the outbox falls, by its key, or by its position if it has none.
Example: SELECT es_key_lane(''42'', 4711, 8);';

-- Messages of an inbox that were not handled yet: those above their lanes' cursors, parked ones, and those that wait
-- for earlier ones of their key.
CREATE FUNCTION @extschema@.es_inbox_waiting(name text, consumer_id bigint)
RETURNS SETOF timestamptz LANGUAGE sql VOLATILE PARALLEL UNSAFE ROWS 1000 SECURITY DEFINER SET search_path = pg_catalog, pg_temp
BEGIN ATOMIC
    SELECT o.created_at
      FROM @extschema@.es_subscriptions AS s
      JOIN (SELECT c.subscription_id, pg_catalog.min(c."position") AS lowest FROM @extschema@.es_lane_cursors AS c GROUP BY 1) AS l
        ON l.subscription_id = s.subscription_id
      JOIN @extschema@.es_outbox AS o ON o."position" > l.lowest AND o.topic = s.name
      JOIN @extschema@.es_lane_cursors AS c
        ON c.subscription_id = s.subscription_id AND c.lane = @extschema@.es_key_lane(o.key, o."position", s.lanes) AND c."position" < o."position"
     WHERE s.name = $1
       AND NOT EXISTS (SELECT FROM @extschema@.es_parked AS p WHERE p.subscription_id = s.subscription_id AND p."position" = o."position")
    UNION ALL
    SELECT p.recorded_at FROM @extschema@.es_parked AS p JOIN @extschema@.es_subscriptions AS s USING (subscription_id)
     WHERE s.name = $1 AND NOT p.dead
    UNION ALL
    SELECT h.held_at FROM @extschema@.es_inbox_held AS h WHERE h.consumer_id = $2
     LIMIT 100000;
END;
COMMENT ON FUNCTION @extschema@.es_inbox_waiting(text, bigint) IS
'When each message of a durable inbox was put that was not handled yet, but for dead letters; at most 100,000.
Example: SELECT count(*) FROM es_inbox_waiting(''$inbox/shipping'', 1);';

CREATE VIEW @extschema@.es_inbox_status AS
    SELECT c.name AS consumer, n.accepted, n.duplicates, n.since AS counted_since,
           (n.accepted / GREATEST(EXTRACT(epoch FROM pg_catalog.clock_timestamp() - n.since), 1))::numeric(20, 1) AS accepted_per_second,
           i.name AS inbox, w.backlog, w.oldest_waiting,
           p.parked, p.dead, p.last_failed_at,
           (SELECT pg_catalog.count(*) FROM @extschema@.es_inbox_held AS h WHERE h.consumer_id = c.consumer_id) AS held,
           (SELECT COALESCE(pg_catalog.sum(k.late), 0) FROM @extschema@.es_inbox_keys AS k WHERE k.consumer_id = c.consumer_id) AS late
      FROM @extschema@.es_inbox_consumers AS c
      LEFT JOIN @extschema@.es_inbox_counts() AS n ON n.consumer_id = c.consumer_id
      LEFT JOIN @extschema@.es_inboxes AS i ON i.consumer_id = c.consumer_id
      LEFT JOIN LATERAL (
        SELECT pg_catalog.count(*) AS backlog, pg_catalog.min(t.at) AS oldest_waiting
          FROM @extschema@.es_inbox_waiting(i.name, i.consumer_id) AS t (at)) AS w ON i.name IS NOT NULL
      LEFT JOIN LATERAL (
        SELECT pg_catalog.count(*) FILTER (WHERE NOT q.dead) AS parked, pg_catalog.count(*) FILTER (WHERE q.dead) AS dead,
               pg_catalog.max(q.failed_at) AS last_failed_at
          FROM @extschema@.es_parked AS q JOIN @extschema@.es_subscriptions AS s USING (subscription_id) WHERE s.name = i.name) AS p
        ON i.name IS NOT NULL;
COMMENT ON VIEW @extschema@.es_inbox_status IS
'A row a consumer of the inbox: how many messages were accepted, and how many duplicates were seen, since counted_since (see es_inbox_counts), and the mean rate. Of its durable inbox, NULL where it has none: backlog, messages that were not handled yet, counted up to 100,000; since when the oldest waits; parked (they failed, or wait behind such a one) and held (they wait for earlier sequences), both among the backlog; dead letters; late, messages that came after their key had gone on without them.
Errors: 55000 on a standby.
Example: SELECT consumer, duplicates, backlog, oldest_waiting, dead FROM es_inbox_status;';

REVOKE ALL ON FUNCTION
    @extschema@.es_inbox_counts(),
    @extschema@.es_key_lane(text, bigint, integer),
    @extschema@.es_inbox_waiting(text, bigint)
FROM PUBLIC;
