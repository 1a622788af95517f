-- horizon: what must hold of positions and the horizon, whatever goes on.
\ir history.inc
SELECT plan(12);

SELECT is(es_horizon(), es_last_position(), 'at rest the horizon is the last position');
SELECT cmp_ok(es_last_position(), '>=', max(position), 'no event has a position that was not drawn') FROM es_events;
SELECT cmp_ok(es_last_position(), '>', count(*), 'positions of rollbacks are lost, which is allowed') FROM es_events;
SELECT cmp_ok(last_value, '>=', es_last_position(), 'the durable bound covers what was drawn') FROM es_position_bound;
SELECT is_empty('SELECT * FROM es_in_flight()', 'nobody is in flight');
SELECT is_empty('SELECT * FROM es_read_all(es_horizon())', 'nothing lies above the horizon');
SELECT is(count(*), 1::bigint, 'there is one incarnation') FROM es_incarnations;
SELECT is(es_incarnation(), incarnation, 'and it is the current one') FROM es_incarnations;

-- In random transactions: what is open is not handed out, what has ended is.
CREATE TABLE seen (rule text, broken bigint);
CREATE FUNCTION look(own_first bigint) RETURNS TABLE (rule text, broken bigint) LANGUAGE sql AS $$
    SELECT * FROM (VALUES
        ('the horizon lies below an open transaction''s positions', CASE WHEN own_first IS NULL THEN es_last_position() - es_horizon() ELSE es_horizon() - own_first + 1 END),
        ('an open transaction is in flight', CASE WHEN own_first IS NULL THEN 0 ELSE 1 END - (SELECT count(*) FROM es_in_flight() WHERE pid = pg_backend_pid() AND position <= own_first)),
        ('behind is what readers wait behind', (SELECT coalesce(sum(behind), 0) FROM es_in_flight()) - (es_last_position() - es_horizon())),
        ('no event above the horizon is read', (SELECT count(*) FROM es_read_all(greatest(es_horizon() - 20, 0)) WHERE position > es_horizon()))) AS v
$$;
DO $$
DECLARE
    own_first bigint;
    was bigint := 0;
    answer es_appended;
BEGIN
    PERFORM setseed(0.1);
    FOR step IN 1..400 LOOP
        IF random() < 0.5 THEN
            BEGIN
                answer := es_append('walk-' || floor(random() * 5), 'Step', to_jsonb(step));
                IF random() < 0.3 THEN
                    RAISE EXCEPTION 'taken back';
                END IF;
                own_first := coalesce(own_first, answer.position);
            EXCEPTION WHEN raise_exception THEN NULL;
            END;
        END IF;
        IF random() < 0.3 THEN
            IF random() < 0.5 THEN COMMIT; ELSE ROLLBACK; END IF;
            own_first := NULL;
        END IF;
        INSERT INTO seen SELECT * FROM look(own_first);
        INSERT INTO seen VALUES ('the horizon never goes back', CASE WHEN es_horizon() < was THEN 1 ELSE 0 END);
        was := es_horizon();
        IF own_first IS NULL THEN COMMIT; END IF;
    END LOOP;
END $$;
SELECT cmp_ok(count(*), '>', 400::bigint, 'it was looked often') FROM seen;
SELECT is_empty($$SELECT rule, count(*) FROM seen WHERE broken > 0 AND rule NOT LIKE 'behind%' GROUP BY rule$$, 'the horizon was right at every look');
SELECT is_empty($$SELECT broken, count(*) FROM seen WHERE broken <> 0 AND rule LIKE 'behind%' GROUP BY broken$$, 'and es_in_flight said how far it is behind');
SELECT is(es_horizon(), es_last_position(), 'at rest the horizon is the last position again');
SELECT * FROM finish();
