-- capture: what was captured is what happened, whatever was done: who replays the messages has the tables.
CREATE EXTENSION es_pg;
SELECT plan(13);
SET es_pg.outbox_chunk_size = 100;
SET TimeZone = 'UTC';

-- One captured by row, with partitions, one by statement.
CREATE TABLE by_row (id int, region text, v numeric, large text, at timestamptz DEFAULT clock_timestamp(), secret text DEFAULT 'geheim',
                     twice numeric GENERATED ALWAYS AS (v * 2) STORED, PRIMARY KEY (region, id)) PARTITION BY LIST (region);
CREATE TABLE by_row_n PARTITION OF by_row FOR VALUES IN ('n');
CREATE TABLE by_row_s (secret text DEFAULT 'geheim', gone int, twice numeric GENERATED ALWAYS AS (v * 2) STORED, v numeric, large text,
                       id int NOT NULL, region text NOT NULL, at timestamptz DEFAULT clock_timestamp());
ALTER TABLE by_row_s DROP COLUMN gone;
ALTER TABLE by_row ATTACH PARTITION by_row_s FOR VALUES IN ('s');
CREATE TABLE by_row_rest PARTITION OF by_row DEFAULT;
CREATE TABLE by_statement (id int, region text, v numeric, large text, at timestamptz DEFAULT clock_timestamp(), secret text DEFAULT 'geheim',
                           twice numeric GENERATED ALWAYS AS (v * 2) STORED, PRIMARY KEY (region, id));
ALTER TABLE by_row_n ALTER COLUMN large SET STORAGE EXTERNAL;
ALTER TABLE by_statement ALTER COLUMN large SET STORAGE EXTERNAL;
CREATE TRIGGER capture AFTER INSERT OR UPDATE OR DELETE ON by_row
    FOR EACH ROW EXECUTE FUNCTION es_capture('by_row', 'exclude=secret', 'skip_unchanged=true');
CREATE TRIGGER capture_insert AFTER INSERT ON by_statement REFERENCING NEW TABLE AS n
    FOR EACH STATEMENT EXECUTE FUNCTION es_capture('by_statement', 'exclude=secret', 'skip_unchanged=true');
CREATE TRIGGER capture_update AFTER UPDATE ON by_statement REFERENCING OLD TABLE AS o NEW TABLE AS n
    FOR EACH STATEMENT EXECUTE FUNCTION es_capture('by_statement', 'exclude=secret', 'skip_unchanged=true');
CREATE TRIGGER capture_delete AFTER DELETE ON by_statement REFERENCING OLD TABLE AS o
    FOR EACH STATEMENT EXECUTE FUNCTION es_capture('by_statement', 'exclude=secret', 'skip_unchanged=true');

-- One statement at random on one of the tables.
CREATE FUNCTION do_something(t text) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    chance float := random();
    low int := floor(random() * 200);
    high int := low + floor(random() ^ 2 * 60);
    region text := (ARRAY['n', 's', 'west'])[1 + floor(random() * 3)];
    large text := CASE WHEN random() < 0.2 THEN repeat(md5(random()::text), 500) END;
BEGIN
    IF chance < 0.35 THEN
        EXECUTE format('INSERT INTO %I (id, region, v, large) SELECT i, $1, i + random()::numeric(6,3), $2 FROM generate_series($3, $4) AS i
                        ON CONFLICT (region, id) DO UPDATE SET v = excluded.v', t) USING region, large, low, high;
    ELSIF chance < 0.5 THEN
        EXECUTE format('UPDATE %I SET v = v + 1, secret = ''neu'' WHERE id BETWEEN $1 AND $2', t) USING low, high;
    ELSIF chance < 0.6 THEN
        EXECUTE format('UPDATE %I SET secret = md5(v::text), large = large WHERE id BETWEEN $1 AND $2', t) USING low, high;
    ELSIF chance < 0.7 THEN
        EXECUTE format('UPDATE %I AS u SET region = $1 WHERE id BETWEEN $2 AND $3
                        AND NOT EXISTS (SELECT FROM %1$I AS o WHERE o.id = u.id AND o.region <> u.region)', t) USING region, low, high;
    ELSIF chance < 0.85 THEN
        EXECUTE format('DELETE FROM %I WHERE id BETWEEN $1 AND $2', t) USING low, high;
    ELSE
        EXECUTE format('MERGE INTO %I AS t USING (SELECT $1 AS region, i FROM generate_series($2, $3) AS i) AS n ON t.id = n.i AND t.region = n.region
                        WHEN MATCHED AND n.i %% 3 = 0 THEN DELETE WHEN MATCHED THEN UPDATE SET large = $4, at = ''-infinity''
                        WHEN NOT MATCHED AND n.i %% 5 = 0 THEN INSERT (id, region, v) VALUES (n.i, n.region, ''NaN'')', t)
            USING region, low, high, large;
    END IF;
END $$;

DO $$
BEGIN
    PERFORM setseed(0.21);
    FOR n IN 1..300 LOOP
        BEGIN
            PERFORM do_something((ARRAY['by_row', 'by_statement'])[1 + n % 2]);
            PERFORM do_something((ARRAY['by_row', 'by_statement'])[1 + floor(random() * 2)]) WHERE random() < 0.3;
            IF random() < 0.2 THEN
                RAISE EXCEPTION 'rolled back';
            END IF;
        EXCEPTION WHEN raise_exception THEN
            NULL;
        END;
        IF n % 10 = 0 THEN
            COMMIT;
        END IF;
    END LOOP;
END $$;

SELECT cmp_ok(count(*), '>', 1000::bigint, 'there are messages') FROM es_outbox;
SELECT cmp_ok(count(*), '>=', 5::bigint, 'of all kinds: ' || string_agg(type, ' ' ORDER BY type)) FROM (SELECT DISTINCT type FROM es_outbox) AS t;

-- Who replays them, message by message, finds each row as it was before, and has the tables at the end.
CREATE TABLE replica (topic text, row jsonb);
CREATE INDEX ON replica (topic, (row->>'region'), (row->>'id'));
CREATE TABLE amiss (what text, "position" bigint);
DO $$
DECLARE
    m record;
    n int;
BEGIN
    FOR m IN SELECT position, topic, type, payload->'before' AS before, payload->'after' AS after FROM es_outbox ORDER BY position LOOP
        IF m.before <> 'null' THEN
            DELETE FROM replica AS r WHERE r.topic = m.topic AND r.row = m.before AND r.row->>'region' = m.before->>'region' AND r.row->>'id' = m.before->>'id';
            GET DIAGNOSTICS n = ROW_COUNT;
            IF n <> 1 THEN
                INSERT INTO amiss VALUES ('not as it was before', m.position);
            END IF;
        END IF;
        IF m.after <> 'null' THEN
            INSERT INTO replica VALUES (m.topic, m.after);
        END IF;
    END LOOP;
END $$;
SELECT is_empty('SELECT * FROM amiss', 'every row was before as the messages before it say');
SELECT bag_eq($$SELECT row FROM replica WHERE topic = 'by_row'$$, $$SELECT to_jsonb(t) - 'secret' FROM by_row AS t$$,
    'the messages by row make up the table');
SELECT bag_eq($$SELECT row FROM replica WHERE topic = 'by_statement'$$, $$SELECT to_jsonb(t) - 'secret' FROM by_statement AS t$$,
    'and so do those by statement');
SELECT cmp_ok(count(*), '>', 100::bigint, 'in which there are rows') FROM replica;

-- What each message says of itself.
SELECT is_empty($$SELECT FROM es_outbox WHERE payload::text LIKE '%secret%' OR payload::text LIKE '%geheim%' OR payload::text LIKE '%neu%'$$, 'no secret is in any');
SELECT is_empty($$SELECT position FROM es_outbox WHERE type <> topic || CASE headers->>'operation' WHEN 'INSERT' THEN '.created' WHEN 'UPDATE' THEN '.updated' ELSE '.deleted' END$$,
    'types are those of the operations');
SELECT is_empty($$SELECT position FROM es_outbox WHERE (payload->'before' = 'null') <> (type LIKE '%.created') OR (payload->'after' = 'null') <> (type LIKE '%.deleted')$$,
    'there are the images of the operation');
SELECT is_empty($$SELECT position FROM es_outbox CROSS JOIN LATERAL (SELECT coalesce(nullif(payload->'after', 'null'), payload->'before') AS row) AS r
                   WHERE key::jsonb <> jsonb_build_array(row->>'region', row->>'id')$$, 'keys are those of the rows');
SELECT is_empty($$SELECT position FROM es_outbox WHERE type LIKE '%.updated' AND (payload->'before' = payload->'after' OR payload->'changed' = '[]')$$,
    'what changed nothing is left out');
SELECT is_empty($$SELECT position FROM es_outbox WHERE type LIKE '%.updated' AND payload->'changed' @> (
                    SELECT jsonb_agg(b.key) FROM jsonb_each(payload->'before') AS b WHERE b.value IS DISTINCT FROM payload->'after'->b.key) IS NOT TRUE$$,
    'what differs is among the changed');
SELECT is_empty($$SELECT position FROM es_outbox WHERE type NOT LIKE '%.updated' AND payload->'changed' <> 'null'$$, 'and only updates change');
SELECT * FROM finish();
