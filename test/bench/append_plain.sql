-- The plain INSERT at its cheapest: constants, one nextval, now(), and a version that the client knows. No RETURNING,
-- though es_append does answer with version, position and id.
\set stream random(1, :streams)
\set version random(1, 1000000000000000)
INSERT INTO plain ("position", stream_id, version, recorded_at, category_id, event_id, type, data)
VALUES (nextval('plain_position'), :stream, :version, now(), 7, gen_random_uuid(), 'OrderNoted', :data);
