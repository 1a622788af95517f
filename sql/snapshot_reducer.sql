-- snapshot_reducer: the built-in reducers, by example.
CREATE EXTENSION es_pg;
SET timezone = 'Asia/Tokyo';    -- no state depends on it
SET datestyle = 'German';

--
-- merge_patch is RFC 7396: every example of its appendix A, and the one of its section 3
--
CREATE TABLE example (id int, original jsonb, patch jsonb, result jsonb);
INSERT INTO example VALUES
    (1, '{"a": "b"}', '{"a": "c"}', '{"a": "c"}'),
    (2, '{"a": "b"}', '{"b": "c"}', '{"a": "b", "b": "c"}'),
    (3, '{"a": "b"}', '{"a": null}', '{}'),
    (4, '{"a": "b", "b": "c"}', '{"a": null}', '{"b": "c"}'),
    (5, '{"a": ["b"]}', '{"a": "c"}', '{"a": "c"}'),
    (6, '{"a": "c"}', '{"a": ["b"]}', '{"a": ["b"]}'),
    (7, '{"a": {"b": "c"}}', '{"a": {"b": "d", "c": null}}', '{"a": {"b": "d"}}'),
    (8, '{"a": [{"b": "c"}]}', '{"a": [1]}', '{"a": [1]}'),
    (9, '["a", "b"]', '["c", "d"]', '["c", "d"]'),
    (10, '{"a": "b"}', '["c"]', '["c"]'),
    (11, '{"a": "foo"}', 'null', 'null'),
    (12, '{"a": "foo"}', '"bar"', '"bar"'),
    (13, '{"e": null}', '{"a": 1}', '{"e": null, "a": 1}'),
    (14, '[1, 2]', '{"a": "b", "c": null}', '{"a": "b"}'),
    (15, '{}', '{"a": {"bb": {"ccc": null}}}', '{"a": {"bb": {}}}'),
    (16, '{"title": "Goodbye!", "author": {"givenName": "John", "familyName": "Doe"}, "tags": ["example", "sample"], "content": "This will be unchanged"}',
         '{"title": "Hello!", "phoneNumber": "+01-123-456-7890", "author": {"familyName": null}, "tags": ["example"]}',
         '{"title": "Hello!", "author": {"givenName": "John"}, "tags": ["example"], "content": "This will be unchanged", "phoneNumber": "+01-123-456-7890"}');
-- The original is a snapshot's state, the patch the event after it.
DO $$
DECLARE
    e example;
BEGIN
    FOR e IN SELECT * FROM example ORDER BY id LOOP
        PERFORM es_append('rfc7396-' || e.id, 'Original', '{}');
        PERFORM es_snapshot('rfc7396-' || e.id, 'merge_patch', 0, e.original);
        PERFORM es_append('rfc7396-' || e.id, 'Patch', e.patch);
    END LOOP;
END $$;
SELECT id, s.state = e.result AND s.snapshot = 0 AS right, s.state FROM example AS e, es_state('rfc7396-' || id, 'merge_patch') AS s ORDER BY id;
-- From nothing, a patch's nulls are gone at any depth.
SELECT es_fold(e, 'merge_patch') FROM es_given('[{"type": "T", "data": {"a": {"b": {"c": null, "d": 1}}, "e": null, "f": [null]}}]') AS e;

--
-- The vocabulary
--
CREATE TABLE trade AS SELECT e FROM es_given('[
    {"type": "Deposited", "data": {"amount": 100.50, "by": "ada"}, "metadata": {"user": "u1"}},
    {"type": "Withdrawn", "data": {"amount": 30, "by": "bob"}, "metadata": {"user": "u2"}},
    {"type": "Noted",     "data": {"text": "a note"}},
    {"type": "Deposited", "data": {"amount": null}},
    {"type": "Deposited", "data": {"amount": 9.50, "by": "ada", "lines": [{"n": 1}, {"n": 2}, {"x": 3}]}, "metadata": {"user": "u1"}}]', 'account-7') AS e;
SELECT reducer, (SELECT es_fold(e, reducer) FROM trade) FROM unnest(ARRAY[
    'count',
    'count {"types": ["Deposited"]}',
    'count {"types": []}',
    'count {"minus": ["Noted"]}',
    'count {"by": "type"}',
    'count {"by": "metadata.user"}',
    'count {"by": "$.by"}',
    'count{"by": "stream"}',
    'sum {"path": "$.amount"}',
    'sum {"path": "$.amount", "minus": ["Withdrawn"]}',
    'sum {"path": "$.amount", "types": ["Withdrawn"]}',
    'sum {"path": "$.amount", "by": "$.by"}',
    'sum {"path": "$.nothing"}',
    'sum {"path": "$.nothing", "by": "type"}',
    'sum {"path": "$.lines[*].n"}',
    'sum {"path": "$.lines[1].n"}',
    'sum {"path": "$.lines[9].n"}',
    'sum {"path": "$.lines[0].n[0]"}',
    'sum {"path": "version"}',
    'last_value',
    'last_value {"path": "$.by"}',
    'last_value {"path": "$.\"by\""}',
    'last_value {"path": "type", "by": "$.by"}',
    'last_value {"path": "metadata"}',
    'last_value {"path": "$.nothing"}',
    'last_value {"path": "$.lines", "types": ["Deposited"]}',
    'last_value {"path": "occurred_at"}',
    'merge_patch {"path": "metadata"}',
    'merge_patch {"by": "type"}',
    'combine {"balance": {"reducer": "sum", "path": "$.amount", "minus": ["Withdrawn"]}, "n": {"reducer": "count"}, "note": {"reducer": "last_value", "path": "$.text"}, "none": {"reducer": "last_value", "path": "$.none"}}',
    'combine {"outer": {"reducer": "combine", "inner": {"reducer": "count", "by": "type"}}}']) AS reducer;
-- No events, no state; events that all are passed over leave what a reducer begins with.
SELECT es_fold(e, 'count') FROM es_given('[]') AS e;
SELECT es_fold(e, 'count {"types": ["None"]}'), es_fold(e, 'sum {"path": "$.x", "by": "type", "types": []}'), es_fold(e, 'last_value {"types": []}'),
       es_fold(e, 'pn_counter {"types": []}'), es_fold(e, 'combine {"a": {"reducer": "count", "types": []}}') FROM trade;
-- Numbers are exact, whatever their size.
SELECT es_fold(e, 'sum {"path": "$"}') FROM es_given('[{"type": "T", "data": 0.1}, {"type": "T", "data": 0.2}, {"type": "T", "data": 1e40}, {"type": "T", "data": -1e40}]') AS e;

--
-- Conflicts: the last write wins
--
CREATE FUNCTION last_write(writes jsonb) RETURNS jsonb LANGUAGE sql AS $$
    SELECT es_fold(e, 'last_write {"path": "$.value", "at": "$.at"}')
      FROM es_given((SELECT jsonb_agg(jsonb_build_object('type', 'Written', 'data', w)) FROM jsonb_array_elements(writes) AS w)) AS e
$$;
SELECT last_write('[{"at": 2, "value": "second"}, {"at": 1, "value": "first"}]');
SELECT last_write('[{"at": 10, "value": "ten"}, {"at": 9.5, "value": "nine"}]');
SELECT last_write('[{"at": 1, "value": "a"}, {"at": 1, "value": "b"}]') AS "the later of equals";
SELECT last_write('[{"at": 1, "value": {"deep": [1]}}, {"at": 2}]') AS "no value is no write";
SELECT last_write('[{"at": 1, "value": 1}, {"at": 2, "value": null}]') AS "null is one";
-- Times of one moment are equal however they are written; fractions, zones and forms do not mislead.
SELECT last_write('[{"at": "2026-03-01T12:00:00.5Z", "value": "later"}, {"at": "2026-03-01T12:00:00Z", "value": "earlier"}]');
SELECT last_write('[{"at": "2026-03-01T12:00:00+02:00", "value": "earlier"}, {"at": "2026-03-01T11:00:00Z", "value": "later"}]');
SELECT last_write('[{"at": "2026-03-01 12:00:00+01", "value": "a"}, {"at": "2026-03-01T11:00Z", "value": "the same moment"}]');
-- Other strings go by their bytes: ULIDs, hybrid clocks.
SELECT last_write('[{"at": "01HZX2", "value": "later"}, {"at": "01HZX10", "value": "earlier"}]');
SELECT last_write('[{"at": "2026-13-01T12:00:00Z", "value": "later"}, {"at": "2026-12-01T12:00:00Z", "value": "earlier"}]') AS "no date, so bytes";
-- By occurred_at where nothing else is said, and for each field its own.
SELECT es_fold(e, 'last_write {"path": "$.to", "by": "$.field"}') FROM es_given('[
    {"type": "Changed", "occurred_at": "2026-03-01T10:00:00Z", "data": {"field": "name", "to": "Ada"}},
    {"type": "Changed", "occurred_at": "2026-03-01T12:00:00Z", "data": {"field": "town", "to": "Rome"}},
    {"type": "Changed", "occurred_at": "2026-03-01T09:00:00Z", "data": {"field": "name", "to": "Eve"}}]') AS e;

--
-- A PN-counter: each node tells its own totals, in any order and as often as it likes
--
CREATE FUNCTION pn_counter(totals jsonb) RETURNS jsonb LANGUAGE sql AS $$
    SELECT es_fold(e, 'pn_counter') FROM es_given((SELECT jsonb_agg(jsonb_build_object('type', 'Told', 'data', t)) FROM jsonb_array_elements(totals) AS t)) AS e
$$;
SELECT pn_counter('[{"node": "a", "p": 5}, {"node": "b", "p": 3, "n": 1}, {"node": "a", "p": 7, "n": 2}]');
SELECT pn_counter('[{"node": "a", "p": 7, "n": 2}, {"node": "a", "p": 5}, {"node": "b", "p": 3, "n": 1}, {"node": "a", "p": 7, "n": 2}]') AS "the same";
SELECT pn_counter('[{"node": 1, "p": 0.5}, {"node": true, "n": null}]');
SELECT es_fold(e, 'pn_counter {"node": "source", "p": "$.up", "n": "$.down"}') FROM es_given('[{"type": "T", "source": "till-1", "data": {"up": 2, "down": 1}}]') AS e;

--
-- A merge of one's own: a cart that two devices change offline. Of each article the larger number stays, tags are united, so
-- that the order in which the devices' events arrive does not matter.
--
CREATE FUNCTION merge_cart(state jsonb, event es_event) RETURNS jsonb LANGUAGE sql IMMUTABLE AS $$
    SELECT jsonb_build_object(
        'items', (SELECT COALESCE(jsonb_object_agg(sku, n), '{}')
                    FROM (SELECT sku, max(n::int) AS n FROM (SELECT * FROM jsonb_each_text(state->'items') UNION ALL SELECT * FROM jsonb_each_text(event.data->'items')) AS i (sku, n) GROUP BY sku) AS larger),
        'tags', (SELECT COALESCE(jsonb_agg(DISTINCT tag ORDER BY tag), '[]')
                   FROM (SELECT jsonb_array_elements_text(state->'tags') UNION ALL SELECT jsonb_array_elements_text(event.data->'tags')) AS t (tag)))
$$;
\set phone '{"type": "Merged", "data": {"items": {"A-1": 2, "B-2": 1}, "tags": ["gift"]}}'
\set laptop '{"type": "Merged", "data": {"items": {"A-1": 1, "C-3": 5}, "tags": ["fast", "gift"]}}'
SELECT es_fold(e, 'merge_cart') FROM es_given(jsonb_build_array(:'phone'::jsonb, :'laptop'::jsonb)) AS e;
SELECT es_fold(e, 'merge_cart') FROM es_given(jsonb_build_array(:'laptop'::jsonb, :'phone'::jsonb, :'laptop'::jsonb)) AS e;

-- Names of members may be anything.
SELECT es_fold(e, 'last_value {"path": "$.\"a \\\"b\\\" \\\\ c\".d"}') FROM es_given('[{"type": "T", "data": {"a \"b\" \\ c": {"d": "found"}}}]') AS e;
SELECT es_fold(e, 'count {"by": "$.k"}') FROM es_given('[{"type": "T", "data": {"k": ""}}, {"type": "T", "data": {"k": 1.50}}, {"type": "T", "data": {"k": 1.5}}, {"type": "T", "data": {"k": false}}, {"type": "T", "data": {"k": null}}]') AS e;
SELECT es_fold(e, 'last_value {"path": "$.grün"}') FROM es_given('[{"type": "T", "data": {"grün": 1}}]') AS e;

-- A state from a snapshot goes on as it was, deep or flat.
SELECT es_append('deep-1', 'T', '{"a": {"b": {"c": [1, {"d": null}], "e": 1.500}}, "f": "g"}') IS NOT NULL AS appended;
SELECT es_snapshot('deep-1', 'merge_patch');
SELECT es_append('deep-1', 'T', '{"a": {"b": {"e": null, "h": true}}}') IS NOT NULL AS appended;
SELECT state, snapshot, events FROM es_state('deep-1', 'merge_patch');
DELETE FROM es_snapshots;
SELECT state, snapshot, events FROM es_state('deep-1', 'merge_patch');
