-- subscription_held: fetching ahead of what is not acknowledged yet.
\set SHOW_CONTEXT never
CREATE EXTENSION es_pg;
-- Fetch behind a position of lane 0, and of its present epoch.
CREATE FUNCTION ahead(subscription text, held bigint, max_count integer DEFAULT 1000, OUT "position" bigint, OUT key text, OUT attempt integer)
RETURNS SETOF record LANGUAGE sql AS
$$SELECT f.position, f.key, f.attempt FROM es_leases AS l JOIN es_subscriptions AS s USING (subscription_id),
         es_fetch($1, 'me', $3, held_lanes => ARRAY[l.lane], held_epochs => ARRAY[l.epoch], held_positions => ARRAY[held]) AS f
   WHERE s.name = $1$$;
CREATE FUNCTION fail(subscription text, "position" bigint)
RETURNS SETOF bigint LANGUAGE sql AS
$$SELECT es_nack($1, l.lane, l.epoch, $2, 'oops', '0 s') FROM es_leases AS l JOIN es_subscriptions AS s USING (subscription_id) WHERE s.name = $1$$;
CREATE FUNCTION done(subscription text, "position" bigint) RETURNS void LANGUAGE sql AS
$$SELECT es_ack($1, l.lane, l.epoch, $2) FROM es_leases AS l JOIN es_subscriptions AS s USING (subscription_id) WHERE s.name = $1$$;

SELECT es_create_subscription('work', 'beginning');
-- Three orders, four events each: positions 1 to 12.
SELECT count(es_append('order-' || 1 + i % 3, 'E', to_jsonb(i))) FROM generate_series(0, 11) AS i;
SELECT position, key FROM es_fetch('work', 'me', 4);
-- What is not acknowledged comes again,
SELECT position, key FROM es_fetch('work', 'me', 4);
-- unless the consumer says that it has it.
SELECT * FROM ahead('work', 4, 3);
SELECT * FROM ahead('work', 7, 3);
-- It may have lost some on the way.
SELECT * FROM ahead('work', 8, 3);
-- Acknowledgements follow behind. The cursor is where they put it, however far ahead was looked.
SELECT done('work', 5);
SELECT * FROM ahead('work', 11);
SELECT * FROM ahead('work', 12);
SELECT max(position) AS cursor FROM es_cursors;
SELECT position FROM es_fetch('work', 'me', 3);

-- A failure holds back what its key was handed in later fetches too: 6, 9 and 12 are of order-3.
SELECT fail('work', 6);
SELECT done('work', 8);
-- Now it is due. While the consumer has something of the lane nothing comes, nothing new either,
SELECT count(es_append('order-' || o, 'E5', '5')) FROM generate_series(1, 3) AS o;
SELECT * FROM ahead('work', 11);
SELECT done('work', 11);
-- and when it holds nothing, the retry with what waited behind, and the new ones.
SELECT position, key, attempt FROM es_fetch('work', 'me');
-- The retry is at work: it does not come twice.
SELECT count(es_append('order-1', 'E6', '6'));
SELECT * FROM ahead('work', 15);
SELECT done('work', 15);
SELECT position, key, attempt FROM es_fetch('work', 'me');
SELECT done('work', 17);
SELECT position, key, attempt FROM es_fetch('work', 'me');
SELECT done('work', 16);
SELECT count(*) AS parked FROM es_parked;

-- A lane whose key is parked goes on for the others.
SELECT count(es_append('order-' || o, 'E7', '7')) FROM generate_series(1, 3) AS o;
SELECT position, key FROM es_fetch('work', 'me', 2);
SELECT es_nack('work', lane, epoch, 18, 'oops', '1 hour') FROM es_leases;
SELECT count(es_append('order-' || o, 'E8', '8')) FROM generate_series(1, 3) AS o;
SELECT * FROM ahead('work', 19);
SELECT * FROM ahead('work', 20);
SELECT position, key FROM es_fetch('work', 'me');
SELECT done('work', 23);
SELECT position, key, delivered_epoch IS NOT NULL AS out FROM es_parked ORDER BY 1;

-- An epoch that is over holds nothing.
SELECT position FROM es_fetch('work', 'me', held_lanes => '{0}', held_epochs => '{1}', held_positions => '{23}');

-- Bad input
SELECT * FROM ahead('work', 24);
SELECT * FROM es_fetch('work', 'me', held_lanes => '{0}');
SELECT * FROM es_fetch('work', 'me', held_lanes => '{0}', held_epochs => '{1,2}', held_positions => '{1}');
SELECT * FROM es_fetch('work', 'me', held_lanes => '{NULL}', held_epochs => '{1}', held_positions => '{1}');
SELECT * FROM es_fetch('work', 'me', held_lanes => '{{0},{1}}', held_epochs => '{1,2}', held_positions => '{1,2}');
SELECT * FROM es_fetch('work', 'me', held_lanes => '{}', held_epochs => '{}', held_positions => '{}');
