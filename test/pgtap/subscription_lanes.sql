-- subscription_lanes: what must hold of lanes, leases and parked messages, whatever members do in whatever order.
CREATE EXTENSION es_pg;
SELECT plan(8);

SELECT count(es_create_subscription(name, 'beginning', source, lanes => 5, on_dead => policy, max_attempts => 2, retry_base => '1 ms'))
  FROM (VALUES ('block', 'events', 'block'), ('skip', 'events', 'skip'), ('out', 'outbox', 'block'), ('out skip', 'outbox', 'skip')) AS s (name, source, policy);
CREATE TABLE handled (n serial, name text, "position" bigint, key text);
CREATE TABLE made ("position" bigint, source text, key text);
CREATE TABLE violation (step integer, name text, what text, "position" bigint);

-- What is wrong now.
CREATE FUNCTION wrong() RETURNS TABLE (name text, what text, "position" bigint) LANGUAGE sql AS $$
    WITH s AS (SELECT * FROM es_subscriptions),
         p AS (SELECT * FROM es_parked JOIN s USING (subscription_id)),
         c AS (SELECT * FROM es_lane_cursors)
    SELECT s.name, 'not one lease and a cursor a lane', NULL::bigint FROM s
     WHERE ARRAY(SELECT l.lane FROM es_leases AS l WHERE l.subscription_id = s.subscription_id ORDER BY 1) <> ARRAY(SELECT generate_series(0, s.lanes - 1))
        OR ARRAY(SELECT DISTINCT k.lane FROM es_cursors AS k WHERE k.subscription_id = s.subscription_id ORDER BY 1) <> ARRAY(SELECT generate_series(0, s.lanes - 1))
    UNION ALL
    SELECT s.name, 'a cursor in an epoch that is not yet', k.position FROM s JOIN es_cursors AS k USING (subscription_id)
      JOIN es_leases AS l USING (subscription_id, lane) WHERE k.epoch > l.epoch
    UNION ALL
    SELECT p.name, 'parked in another lane than its key''s', p.position FROM p WHERE p.lane <> (p.key_hash & 9223372036854775807) % p.lanes
    UNION ALL
    SELECT p.name, 'out, and above its cursor or in a later epoch', p.position FROM p JOIN c USING (subscription_id, lane)
     WHERE p.delivered_epoch IS NOT NULL AND (p.position > c.position OR p.delivered_epoch > c.epoch)
    UNION ALL
    SELECT p.name, 'a dead letter that is planned or out', p.position FROM p WHERE p.dead AND (p.next_attempt_at IS NOT NULL OR p.delivered_epoch IS NOT NULL)
    UNION ALL
    -- Nothing waits for what is not there: the first of a key that may go on is planned.
    SELECT p.name, 'waits behind nothing', p.position FROM p
     WHERE NOT p.dead AND p.next_attempt_at IS NULL
       AND NOT EXISTS (SELECT FROM p AS q WHERE q.subscription_id = p.subscription_id AND q.key = p.key AND q.position < p.position
                          AND (NOT q.dead OR p.on_dead = 'block'))
    UNION ALL
    SELECT p.name, 'planned behind another one of its key', p.position FROM p
     WHERE p.next_attempt_at IS NOT NULL
       AND EXISTS (SELECT FROM p AS q WHERE q.subscription_id = p.subscription_id AND q.key = p.key AND q.position < p.position
                      AND (NOT q.dead OR p.on_dead = 'block'))
    UNION ALL
    -- Each message is handled, parked, or still to come.
    SELECT s.name, 'lost', m.position FROM s JOIN made AS m USING (source)
     WHERE m.position <= (SELECT min(c.position) FROM c WHERE c.subscription_id = s.subscription_id)
       AND NOT EXISTS (SELECT FROM handled AS h WHERE h.name = s.name AND h.position = m.position)
       AND NOT EXISTS (SELECT FROM p WHERE p.subscription_id = s.subscription_id AND p.position = m.position)
    UNION ALL
    SELECT h.name, 'parked and handled', h.position FROM handled AS h JOIN p USING (name, position)
$$;

-- One member's fetch: of what comes some fails, some is rejected, a part is acknowledged; sometimes all of it is rolled back.
CREATE FUNCTION work(subscription text, member text) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    m es_delivery;
    behind bigint[] := '{}';
    stopped integer[] := '{}';
BEGIN
    FOR m IN SELECT * FROM es_fetch(subscription, member, 1 + floor(random() * 30)::int) LOOP
        CONTINUE WHEN m.lane = ANY (stopped);
        IF random() < 0.03 THEN
            stopped := stopped || m.lane;       -- the rest of the lane is left alone
        ELSIF m.position = ANY (behind) THEN
            CONTINUE;
        ELSIF random() < 0.1 THEN
            behind := behind || ARRAY(SELECT es_nack(subscription, m.lane, m.epoch, m.position, 'failed', '0 s', random() < 0.2));
        ELSE
            INSERT INTO handled (name, position, key) VALUES (subscription, m.position, m.key);
            PERFORM es_ack(subscription, m.lane, m.epoch, m.position);
        END IF;
    END LOOP;
    IF random() < 0.1 THEN
        RAISE EXCEPTION 'rolled back' USING ERRCODE = 'TEST1';
    END IF;
EXCEPTION WHEN SQLSTATE 'TEST1' THEN
    NULL;
END $$;

CREATE FUNCTION make() RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    k text := 'key-' || floor(random() * 12);
BEGIN
    IF random() < 0.5 THEN
        INSERT INTO made SELECT position, 'events', k FROM es_append(k, 'E', '1');
    ELSE
        k := CASE WHEN random() < 0.8 THEN k END;
        INSERT INTO made VALUES (es_publish('t', 'T', '1', key => k), 'outbox', k);
    END IF;
END $$;

DO $$
DECLARE
    names text[] := ARRAY(SELECT name FROM es_subscriptions ORDER BY name);
    name text;
BEGIN
    PERFORM setseed(0.3);
    FOR step IN 1 .. 700 LOOP
        name := names[1 + floor(random() * 4)];
        FOR i IN 1 .. floor(random() * 5) LOOP
            PERFORM make();
            COMMIT;
        END LOOP;
        PERFORM work(name, 'm' || floor(random() * 4));
        COMMIT;
        CASE floor(random() * 40)
            WHEN 0 THEN PERFORM es_release(name, 'm' || floor(random() * 4));
            WHEN 1 THEN PERFORM es_redrive(name, max_count => 1 + floor(random() * 5)::int);
            WHEN 2 THEN PERFORM es_redrive(name, 'key-' || floor(random() * 12));
            WHEN 3 THEN PERFORM es_maintain();
            WHEN 4 THEN
                IF (SELECT lanes_next IS NULL FROM es_subscriptions AS s WHERE s.name = names[1]) THEN
                    PERFORM es_alter_subscription(names[1], lanes => 1 + floor(random() * 9)::int);
                END IF;
            WHEN 5 THEN
                PERFORM es_alter_subscription(name, on_dead => (ARRAY['block', 'skip'])[1 + floor(random() * 2)]);
            ELSE NULL;
        END CASE;
        COMMIT;
        IF step % 10 = 0 THEN
            INSERT INTO violation SELECT step, w.* FROM wrong() AS w;
            COMMIT;
        END IF;
    END LOOP;
END $$;

SELECT is_empty('SELECT * FROM violation ORDER BY step LIMIT 20', 'at every step all is as it must be');
SELECT cmp_ok(count(*), '>', 100::bigint, 'some was parked') FROM es_parked;
SELECT cmp_ok(count(*), '>', 10::bigint, 'some of it for good') FROM es_parked WHERE dead;
SELECT cmp_ok(count(*), '>', 1000::bigint, 'and much was handled') FROM handled;

-- All that is left, by one member, who fails at nothing.
DO $$
DECLARE
    s record;
    m es_delivery;
    more boolean := true;
BEGIN
    PERFORM es_release(name, 'm' || i) FROM es_subscriptions, generate_series(0, 3) AS i;
    COMMIT;
    WHILE more LOOP
        more := false;
        FOR s IN SELECT name FROM es_subscriptions LOOP
            PERFORM es_redrive(s.name);
            FOR i IN 1 .. 3 LOOP        -- parking, changing lanes
                FOR m IN SELECT * FROM es_fetch(s.name, 'last') LOOP
                    more := true;
                    INSERT INTO handled (name, position, key) VALUES (s.name, m.position, m.key);
                    PERFORM es_ack(s.name, m.lane, m.epoch, m.position);
                END LOOP;
                COMMIT;
            END LOOP;
        END LOOP;
    END LOOP;
END $$;
SELECT is_empty('SELECT * FROM wrong()', 'at the end, too');
SELECT is_empty('SELECT position FROM es_parked', 'nothing is left parked');
SELECT bag_eq('SELECT name, position FROM handled', 'SELECT name, position FROM made JOIN es_subscriptions USING (source)', 'each message is handled, once');
-- With skip, or a policy that changed, a dead letter comes after what it did not hold up.
CREATE TABLE overtaken AS
    SELECT h.name, h.key, h.position FROM (SELECT *, max(position) OVER (PARTITION BY name, key ORDER BY n) AS highest FROM handled WHERE key IS NOT NULL) AS h WHERE position < highest;
SELECT cmp_ok(count(*), '<', (SELECT count(*) / 20 FROM handled), 'and little was overtaken, by dead letters') FROM overtaken;
SELECT * FROM finish();
