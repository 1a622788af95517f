-- subscription: what must hold of deliveries, whatever the filter and however acknowledged.
\ir history.inc
SELECT plan(11);

CREATE TABLE filter (name text, categories text[], types text[]);
INSERT INTO filter VALUES
    ('all', NULL, NULL), ('empty', '{}', '{}'), ('apple', '{apple}', NULL), ('fruit', '{pear,plum,apple}', NULL),
    ('types', NULL, '{Type0,Type2}'), ('both', '{plum,nothing}', '{Type1,nothing}'), ('none', '{nothing}', NULL);
SELECT count(es_create_subscription(name, 'beginning', 'events', categories, types)) FROM filter;

-- Each delivery in the order it came, and whether it was acknowledged then.
CREATE TABLE delivered (n serial, name text, lane int, epoch bigint, incarnation uuid, "position" bigint, topic text, key text, version bigint, message_id uuid, type text, payload jsonb, headers jsonb, acknowledged boolean);
DO $$
DECLARE
    subscription text;
    last record;
    done boolean;
BEGIN
    PERFORM setseed(0.7);
    FOR subscription IN SELECT name FROM filter LOOP
        LOOP
            INSERT INTO delivered (name, lane, epoch, incarnation, position, topic, key, version, message_id, type, payload, headers)
                SELECT subscription, lane, epoch, incarnation, position, topic, key, version, message_id, type, payload, headers
                  FROM es_fetch(subscription, 'tap', 1 + floor(random() * 300)::int);
            SELECT * INTO last FROM delivered AS d WHERE d.name = subscription AND acknowledged IS NULL ORDER BY n DESC LIMIT 1;
            EXIT WHEN NOT FOUND;
            done := random() < 0.7;
            IF done THEN
                PERFORM es_ack(subscription, last.lane, last.epoch, last.position);
            END IF;
            UPDATE delivered AS d SET acknowledged = done WHERE d.name = subscription AND acknowledged IS NULL;
            IF random() < 0.1 THEN
                PERFORM es_maintain();
            END IF;
            COMMIT;
        END LOOP;
    END LOOP;
END $$;

CREATE VIEW wanted AS
    SELECT f.name, e.* FROM filter AS f, es_read_all(0, 1000000) AS e
     WHERE (coalesce(categories, '{}') = '{}' OR es_category(stream) = ANY (categories)) AND (coalesce(types, '{}') = '{}' OR type = ANY (types));
SELECT cmp_ok(count(*) FILTER (WHERE NOT acknowledged), '>', 100::bigint, 'some was handed out and not acknowledged') FROM delivered;
SELECT results_eq('SELECT name, position FROM delivered WHERE acknowledged ORDER BY name, n', 'SELECT name, position FROM wanted ORDER BY name, position',
    'every subscription acknowledged what its filter wants, once, in order');
SELECT set_eq('SELECT DISTINCT name, position FROM delivered', 'SELECT name, position FROM wanted', 'and nothing else was handed out');
SELECT is_empty('SELECT FROM delivered AS d WHERE NOT acknowledged AND NOT EXISTS (SELECT FROM delivered AS a WHERE a.name = d.name AND a.position = d.position AND a.n > d.n AND a.acknowledged)',
    'what was not acknowledged came again');
SELECT is_empty('SELECT FROM delivered AS d JOIN wanted AS w USING (name, position)
                  WHERE (d.topic, d.key, d.version, d.message_id, d.type, d.payload) <> (es_category(w.stream), w.stream, w.version, w.event_id, w.type, w.data)
                     OR d.headers IS DISTINCT FROM w.metadata', 'a delivery is the event');
SELECT is_empty('SELECT FROM delivered AS d JOIN es_subscriptions USING (name) JOIN es_leases AS l USING (subscription_id)
                  WHERE (d.lane, d.epoch, d.incarnation) IS DISTINCT FROM (0, l.epoch, es_incarnation())', 'with lane, epoch and incarnation');
SELECT is_empty($$SELECT FROM filter, es_fetch(name, 'tap')$$, 'and nothing is left');

SELECT lives_ok('SELECT es_maintain()', 'housekeeping works');
SELECT is((SELECT count(*) FROM es_cursors), (SELECT count(*) FROM es_subscriptions), 'and leaves one cursor a subscription');
SELECT is_empty($$SELECT FROM filter, es_fetch(name, 'tap')$$, 'which is the right one');
SELECT count(es_drop_subscription(name)) FROM filter;
SELECT is_empty('SELECT FROM es_cursors', 'dropped subscriptions leave nothing');
SELECT * FROM finish();
