-- stream: what must hold of streams, whatever was appended.
\ir history.inc
SELECT plan(23);

SELECT cmp_ok(count(*), '>', 4000::bigint, 'the history is long enough to mean something') FROM es_events;
SELECT cmp_ok(count(*), '>', 20::bigint, 'and has many streams') FROM es_streams;
SELECT is_empty('SELECT * FROM mistakes', 'every answer was right');

SELECT is_empty($$SELECT stream_id FROM es_events GROUP BY stream_id HAVING min(version) <> 0 OR max(version) <> count(*) - 1 OR count(DISTINCT version) <> count(*)$$,
    'versions of each stream go from 0 without gaps');
SELECT is_empty($$SELECT position FROM es_events GROUP BY position HAVING count(*) > 1$$, 'no position twice');
SELECT is_empty($$SELECT FROM (SELECT position - lag(position) OVER (PARTITION BY stream_id ORDER BY version) AS step FROM es_events) AS s WHERE step <= 0$$,
    'positions rise with versions');
SELECT is_empty($$SELECT FROM es_events WHERE position < 1 OR position > es_last_position()$$, 'positions lie between 1 and the last drawn');
SELECT is_empty($$SELECT FROM es_streams WHERE stream_id NOT IN (SELECT stream_id FROM es_events)$$, 'a stream without events has no row');
SELECT is_empty($$SELECT FROM es_events WHERE stream_id NOT IN (SELECT stream_id FROM es_streams)$$, 'no event without a stream');
SELECT is_empty($$SELECT FROM es_events AS e JOIN es_streams AS s USING (stream_id)
                   WHERE e.category_id <> s.category_id OR s.category_id <> es_category_id(es_category(s.name))$$,
    'categories are those of the names');

-- What was appended is what is there.
SELECT set_eq(
    $$SELECT name, version, position, type, data, metadata, e.schema_version, e.occurred_at, e.correlation_id FROM es_events AS e JOIN es_streams USING (stream_id)$$,
    $$SELECT stream, version, position, type, data, metadata, schema_version, occurred_at, correlation_id FROM said$$,
    'the events are those that appends promised');
SELECT is((SELECT count(*) FROM es_events), (SELECT count(*) FROM said), 'and as many');
SELECT is_empty($$SELECT FROM said AS s LEFT JOIN es_events AS e USING (position) WHERE s.event_id IS NOT NULL AND e.event_id IS DISTINCT FROM s.event_id$$,
    'with the ids that were given or answered');
SELECT is_empty($$SELECT FROM es_events JOIN said USING (position) WHERE NOT given AND substr(es_events.event_id::text, 15, 1) <> '7'$$,
    'ids that were not given are UUIDv7');
SELECT is_empty($$SELECT event_id FROM es_events GROUP BY event_id HAVING count(*) > 1$$, 'and no id is there twice');

-- Reads agree with the table.
CREATE VIEW all_of_them AS
    SELECT position, name AS stream, version, event_id, type, schema_version, source, data, metadata, correlation_id, causation_id,
           traceparent, coalesce(occurred_at, recorded_at) AS occurred_at, recorded_at
      FROM es_events JOIN es_streams USING (stream_id);
SELECT results_eq('SELECT * FROM es_read_all(0, 1000000)', 'SELECT * FROM all_of_them ORDER BY position',
    'es_read_all is all events in order of position');
SELECT results_eq('SELECT r.* FROM es_streams AS s, es_read_stream(s.name, 0, 1000000) AS r ORDER BY r.position', 'SELECT * FROM all_of_them ORDER BY position',
    'the union of all streams is the log');
SELECT results_eq($$SELECT r.* FROM (VALUES ('apple'), ('pear'), ('plum')) AS c (category), es_read_category(category, 0, 1000000) AS r ORDER BY r.position$$,
    'SELECT * FROM all_of_them ORDER BY position', 'the union of all categories is the log');
SELECT is_empty($$SELECT FROM es_streams WHERE es_stream_version(name) <> (SELECT max(version) FROM es_events WHERE es_events.stream_id = es_streams.stream_id)$$,
    'es_stream_version is the highest version');
SELECT is_empty($$SELECT FROM es_events AS e WHERE (SELECT count(*) FROM es_read_event(e.event_id) AS r WHERE r.position = e.position) <> 1$$,
    'es_read_event finds every event');

-- Any page of any stream, in both directions.
CREATE FUNCTION wrong_pages() RETURNS SETOF text LANGUAGE plpgsql AS $$
DECLARE
    s es_streams;
    first bigint;
    n bigint;
    page bigint[];
    right_page bigint[];
BEGIN
    FOR s IN SELECT * FROM es_streams, generate_series(1, 10) LOOP
        first := floor(random() * (es_stream_version(s.name) + 3));
        n := floor(random() ^ 2 * 250);
        page := ARRAY(SELECT position FROM es_read_stream(s.name, first, n));
        right_page := ARRAY(SELECT position FROM es_events WHERE stream_id = s.stream_id AND version >= first ORDER BY version LIMIT n);
        IF page <> right_page THEN
            RETURN NEXT format('%s from %s, %s', s.name, first, n);
        END IF;
        page := ARRAY(SELECT position FROM es_read_stream(s.name, first, n, true));
        right_page := ARRAY(SELECT position FROM es_events WHERE stream_id = s.stream_id AND version <= first ORDER BY version DESC LIMIT n);
        IF page <> right_page THEN
            RETURN NEXT format('%s backward from %s, %s', s.name, first, n);
        END IF;
    END LOOP;
END $$;
SELECT is_empty('SELECT * FROM wrong_pages()', 'any page of any stream, forward and backward');

-- Whoever remembers the last position and goes on from there sees everything once.
CREATE FUNCTION pages(n bigint, categories text[], types text[]) RETURNS SETOF bigint LANGUAGE plpgsql AS $$
DECLARE
    at bigint := 0;
    page bigint[];
BEGIN
    LOOP
        page := ARRAY(SELECT position FROM es_read_all(at, n, pages.categories, pages.types));
        EXIT WHEN page = '{}';
        RETURN QUERY SELECT unnest(page);
        at := page[array_upper(page, 1)];
    END LOOP;
END $$;
SELECT results_eq('SELECT * FROM pages(37, NULL, NULL)', 'SELECT position FROM es_events ORDER BY position', 'pages of the log have no gap and no overlap');
SELECT results_eq($$SELECT * FROM pages(7, '{apple,plum}', '{Type1,Type3}')$$,
    $$SELECT position FROM all_of_them WHERE es_category(stream) IN ('apple', 'plum') AND type IN ('Type1', 'Type3') ORDER BY position$$,
    'nor have pages of a filtered log');
SELECT * FROM finish();
