-- subscription_dead: dead letters, how they hold their keys up or do not, and what brings them back.
\set SHOW_CONTEXT never
CREATE EXTENSION es_pg;
CREATE VIEW dead AS SELECT subscription, key, type, error FROM es_dead_letters ORDER BY subscription, position;
CREATE VIEW parked AS SELECT name, key, type, attempts, dead, next_attempt_at IS NOT NULL AS planned, error
  FROM es_parked JOIN es_subscriptions USING (subscription_id) ORDER BY name, position;
-- Handle a fetch: what is of these types fails, the rest is acknowledged.
CREATE FUNCTION handle(subscription text, failing text[], error text DEFAULT 'oops', rejected boolean DEFAULT true)
RETURNS TABLE (key text, type text, attempt integer, what text) LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
    m es_delivery;
    behind bigint[] := '{}';
BEGIN
    FOR m IN SELECT * FROM es_fetch(subscription, 'me') LOOP
        what := 'done';
        IF m.position = ANY (behind) THEN
            what := 'waits';
        ELSIF m.type = ANY (failing) THEN
            what := 'failed';
            behind := behind || ARRAY(SELECT es_nack(subscription, m.lane, m.epoch, m.position, error || ' of ' || m.type, '0 s', rejected));
        END IF;
        PERFORM es_ack(subscription, m.lane, m.epoch, m.position);
        key := m.key; type := m.type; attempt := m.attempt;
        RETURN NEXT;
    END LOOP;
END $$;

SELECT es_create_subscription('block', 'beginning', max_attempts => 2);
SELECT es_create_subscription('skip', 'beginning', max_attempts => 2, on_dead => 'skip');
SELECT count(es_append('order-' || o, t || o, '1')) FROM unnest('{A,B,C}'::text[]) AS t, generate_series(1, 3) AS o;

--
-- block: what is behind a dead letter waits for as long as that is one. skip: it goes on at once.
--
SELECT * FROM handle('block', '{A1,B2}');
SELECT * FROM handle('skip', '{A1,B2}');
SELECT * FROM handle('block', '{}');
SELECT * FROM handle('skip', '{}');
SELECT * FROM dead;
SELECT * FROM parked;
-- Later ones, the same.
SELECT count(es_append('order-' || o, 'D' || o, '1')) FROM generate_series(1, 3) AS o;
SELECT * FROM handle('block', '{}');
SELECT * FROM handle('skip', '{}');
SELECT * FROM handle('block', '{}');

--
-- Redriven by key: the key goes on in order, others stay. The attempts begin anew, and may be used up again.
--
SELECT es_redrive('block', key => 'order-1'), es_redrive('skip', key => 'order-1');
SELECT * FROM handle('block', '{}');
SELECT * FROM handle('skip', '{A1}', 'again', false);
SELECT * FROM handle('skip', '{A1}', 'again', false);
SELECT * FROM handle('skip', '{A1}', 'again', false);
SELECT * FROM dead;

--
-- By a text in the error, by position, a number of them, all.
--
SELECT count(es_append('order-' || o, 'E' || o, '1')) FROM generate_series(4, 7) AS o;
SELECT * FROM handle('skip', '{E4,E5}', 'no such address');
SELECT count(es_append('order-' || o, 'F' || o, '1')) FROM generate_series(4, 7) AS o;
SELECT * FROM handle('skip', '{F6,F7}', 'timeout');
SELECT * FROM dead WHERE subscription = 'skip';
SELECT es_redrive('skip', error => 'time'), es_redrive('skip', error => 'TIME');
SELECT * FROM handle('skip', '{}');
SELECT es_redrive('skip', "position" => position) FROM es_dead_letters WHERE subscription = 'skip' AND type = 'E5';
SELECT es_redrive('skip', key => 'order-4', error => 'timeout'), es_redrive('skip', key => 'order-4', error => 'address', max_count => 5);
SELECT * FROM handle('skip', '{}');
SELECT es_redrive('skip', max_count => 1);
SELECT * FROM handle('skip', '{A1}');
SELECT es_redrive('skip');
SELECT * FROM handle('skip', '{}');
SELECT es_redrive('skip');
SELECT * FROM dead WHERE subscription = 'skip';

--
-- At a rate: so many keys a second are due, each key's messages one after the other all the same.
--
SELECT count(es_append('bulk-' || o, t, '1')) FROM unnest('{A,B}'::text[]) AS t, generate_series(1, 5) AS o;
SELECT what, count(*) FROM handle('skip', '{A,B}', 'down') GROUP BY what;
SELECT what, count(*) FROM handle('skip', '{A,B}', 'down') GROUP BY what;
SELECT es_redrive('skip', per_second => 0.01);
SELECT key, type, next_attempt_at IS NOT NULL AS planned, round(EXTRACT(epoch FROM next_attempt_at - first) / 100) AS hundreds_of_seconds
  FROM es_parked, (SELECT min(next_attempt_at) AS first FROM es_parked) AS f WHERE key LIKE 'bulk%' ORDER BY key, position;
SELECT * FROM handle('skip', '{}');
-- What is planned for later can be had at once; it is no dead letter any more.
UPDATE es_parked SET next_attempt_at = now() WHERE next_attempt_at IS NOT NULL;
SELECT what, count(*) FROM handle('skip', '{}') GROUP BY what;

--
-- Given up: by key, by error, by position, a number, all; what waits behind goes on.
--
SELECT * FROM dead;
SELECT es_discard('block', error => 'nothing'), es_discard('block', key => 'order-1'), es_discard('block', max_count => 1);
SELECT key, type, what FROM handle('block', '{E4,F5,A}') WHERE key NOT LIKE 'bulk-%';
SELECT key, type FROM handle('block', '{}');
SELECT type, es_discard('block', "position" => position) FROM es_dead_letters WHERE type = 'E4';
SELECT key, type, what FROM handle('block', '{}');
SELECT es_discard('block', error => 'oops of F', max_count => 7), es_discard('block', max_count => 2);
SELECT key, type FROM handle('block', '{}');
SELECT es_discard('block');
SELECT key, type FROM handle('block', '{}');
SELECT * FROM parked;

--
-- More lanes than a server without preloading remembers what they were handed: whatever fails can be told.
--
SELECT es_create_subscription('wide', 'end', lanes => 300);
SELECT count(es_append('wide-' || i, t, '1')) FROM unnest('{A,B}'::text[]) AS t, generate_series(1, 300) AS i;
CREATE TEMP TABLE got AS SELECT * FROM es_fetch('wide', 'me', 400);
SELECT count(*) >= 100 AS followers FROM (SELECT es_nack('wide', lane, epoch, position, 'no', '1 h') FROM got WHERE type = 'A') AS behind;
SELECT count(*) FROM (SELECT es_ack('wide', lane, epoch, max(position)) FROM got GROUP BY lane, epoch) AS acks;
SELECT count(*) FROM es_fetch('wide', 'me');
SELECT count(*) FROM es_fetch('wide', 'me');
SELECT type, count(*), count(next_attempt_at) AS planned FROM es_parked GROUP BY type ORDER BY type;
