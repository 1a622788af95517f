-- snapshot: the state of a stream, now and at any past moment; snapshots of it.
CREATE EXTENSION es_pg;
SET timezone = 'UTC';

-- A bank account. Its balance is what was deposited less what was withdrawn.
SELECT clock_timestamp() AS before_all \gset
SELECT version FROM es_append_json('account-7', '[
    {"type": "Opened",    "data": {"owner": "Ada"}},
    {"type": "Deposited", "data": {"amount": 100}}]');
SELECT clock_timestamp() AS at_three \gset
SELECT version FROM es_append_json('account-7', '[
    {"type": "Withdrawn", "data": {"amount": 30}},
    {"type": "Deposited", "data": {"amount": 5.50}}]');
SELECT es_reducer('sum', '{"path": "$.amount", "minus": ["Withdrawn"]}') AS balance \gset
SELECT state, version FROM es_state('account-7', :'balance');
-- After each event: balance over time.
SELECT version, type, es_fold(e, :'balance') OVER (ORDER BY version) AS balance FROM es_read_stream('account-7') AS e;
-- At a version.
SELECT state, version FROM es_state('account-7', :'balance', at_version => 1);
SELECT state, version FROM es_state('account-7', :'balance', -1);
-- At a time: what was it at three?
SELECT state, version FROM es_state('account-7', :'balance', at_time => :'at_three');
SELECT state, version FROM es_state('account-7', :'balance', at_time => :'before_all');
SELECT state, version FROM es_state('account-7', :'balance', at_time => now());
SELECT state, version FROM es_state('account-7', :'balance', at_time => (SELECT recorded_at FROM es_read_stream('account-7', 2, 1)));

-- By a function of one's own: who decides by a state gets the version to append at, too.
CREATE FUNCTION account(state jsonb, event es_event) RETURNS jsonb LANGUAGE sql IMMUTABLE AS $$
    SELECT CASE event.type
               WHEN 'Opened' THEN event.data || '{"balance": 0, "movements": 0}'
               WHEN 'Deposited' THEN state || jsonb_build_object('balance', (state->>'balance')::numeric + (event.data->>'amount')::numeric, 'movements', (state->>'movements')::int + 1)
               WHEN 'Withdrawn' THEN state || jsonb_build_object('balance', (state->>'balance')::numeric - (event.data->>'amount')::numeric, 'movements', (state->>'movements')::int + 1)
               ELSE state
           END
$$;
SELECT * FROM es_state('account-7', 'account');
CREATE FUNCTION withdraw(stream text, amount numeric) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    account es_folded;
BEGIN
    SELECT * INTO account FROM es_state(stream, 'account');
    IF (account.state->>'balance')::numeric < amount THEN
        RAISE EXCEPTION 'only % left', account.state->>'balance';
    END IF;
    RETURN version FROM es_append(stream, 'Withdrawn', jsonb_build_object('amount', amount), account.version);
END $$;
SELECT withdraw('account-7', 70);
SELECT withdraw('account-7', 6);

--
-- Snapshots
--
SELECT es_snapshot('account-7', 'account');
SELECT es_append('account-7', 'Deposited', '{"amount": 1}') IS NOT NULL AS appended;
SELECT * FROM es_state('account-7', 'account');
SELECT * FROM es_state('account-7', 'account', 3) AS "before the snapshot";
SELECT * FROM es_state('account-7', 'account', 4) AS "at the snapshot";
-- The state may be the caller's own; it is believed, until it is computed anew.
SELECT es_snapshot('account-7', 'account', 2, '{"balance": 1000, "movements": 0}');
SELECT * FROM es_state('account-7', 'account', 3);
SELECT es_snapshot('account-7', 'account', 2);
SELECT * FROM es_state('account-7', 'account', 3);
-- A function that changes is another reducer: its old snapshots are not used, and go when there is a new one.
CREATE OR REPLACE FUNCTION account(state jsonb, event es_event) RETURNS jsonb LANGUAGE sql IMMUTABLE AS $$
    SELECT to_jsonb(COALESCE(state::int, 0) + 1)
$$;
SELECT * FROM es_state('account-7', 'account');
SELECT es_snapshot('account-7', 'account', 0);
SELECT version, reducer, state FROM es_snapshots;
-- What does the same under another name, or with other settings, is another one, too.
ALTER FUNCTION account SET work_mem = '4MB';
SELECT * FROM es_state('account-7', 'account', 0);
ALTER FUNCTION account RESET work_mem;
SELECT * FROM es_state('account-7', 'account', 0);
ALTER FUNCTION account RENAME TO counted;
SELECT * FROM es_state('account-7', 'counted', 0);
ALTER FUNCTION counted RENAME TO account;
-- A function with a body in SQL's own syntax.
CREATE FUNCTION types(state jsonb, event es_event) RETURNS jsonb BEGIN ATOMIC
    SELECT COALESCE(state, '[]') || to_jsonb((event).type);
END;
SELECT es_snapshot('account-7', 'types', 1), es_snapshot('account-7', 'public.types', 2);
SELECT * FROM es_state('account-7', 'types', 2);
CREATE OR REPLACE FUNCTION types(state jsonb, event es_event) RETURNS jsonb BEGIN ATOMIC
    SELECT COALESCE(state, '[]') || to_jsonb((event).version);
END;
SELECT * FROM es_state('account-7', 'types', 2);

--
-- Snapshots by themselves, every so many events that es_state had to fold
--
SELECT es_set_snapshot_policy('cart', 'merge_patch', every => 10, keep => 2);
SELECT es_set_snapshot_policy('cart', 'count', 10, keep => -1);
SELECT * FROM es_snapshot_policies ORDER BY reducer;
CREATE FUNCTION add_events(stream text, n int) RETURNS bigint LANGUAGE sql AS $$
    SELECT version FROM es_append_batch(stream, array_fill('Put'::text, ARRAY[n]), ARRAY(SELECT jsonb_build_object('i' || g % 7, g) FROM generate_series(1, n) AS g))
$$;
SELECT add_events('cart-1', 9);
SELECT version, snapshot, events FROM es_state('cart-1', 'merge_patch');
SELECT count(*) AS "too few yet" FROM es_snapshots WHERE reducer = 'merge_patch';
SELECT add_events('cart-1', 1);
SELECT version, snapshot, events FROM es_state('cart-1', 'merge_patch');
SELECT version, snapshot, events FROM es_state('cart-1', 'merge_patch');
SELECT add_events('cart-1', 15), version, snapshot, events FROM es_state('cart-1', 'merge_patch');
SELECT version, snapshot, events FROM es_state('cart-1', 'merge_patch');
SELECT add_events('cart-1', 20);
SELECT version, snapshot, events FROM es_state('cart-1', 'merge_patch');
SELECT version FROM es_snapshots WHERE reducer = 'merge_patch' ORDER BY 1;
-- A state of the past is kept where all stay.
SELECT version, snapshot, events FROM es_state('cart-1', 'merge_patch', 15);
SELECT version, snapshot, events FROM es_state('cart-1', 'count', 15);
SELECT version, snapshot, events FROM es_state('cart-1', 'count');
SELECT version FROM es_snapshots WHERE reducer = 'count' ORDER BY 1;
-- What is rolled back leaves none.
BEGIN;
SELECT add_events('cart-2', 10);
SELECT version, snapshot, events FROM es_state('cart-2', 'count');
SELECT version, snapshot, events FROM es_state('cart-2', 'count');
ROLLBACK;
SELECT count(*) FROM es_snapshots WHERE version = 9 AND reducer = 'count';
SELECT add_events('cart-2', 10);
-- Nor does a read-only transaction, or one whose snapshot is old.
BEGIN READ ONLY;
SELECT version, snapshot, events FROM es_state('cart-2', 'count');
COMMIT;
BEGIN ISOLATION LEVEL REPEATABLE READ;
SELECT version, snapshot, events FROM es_state('cart-2', 'count');
COMMIT;
SELECT count(*) FROM es_snapshots WHERE version = 9 AND reducer = 'count';
-- What cannot be stored is no reason for the state not to be told.
CREATE FUNCTION full_disk() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'no space left'; END $$;
CREATE TRIGGER full_disk BEFORE INSERT ON es_snapshots FOR EACH ROW EXECUTE FUNCTION full_disk();
SELECT version, snapshot, events FROM es_state('cart-2', 'count');
DROP TRIGGER full_disk ON es_snapshots;
SELECT version, snapshot, events FROM es_state('cart-2', 'count');
SELECT version, snapshot, events FROM es_state('cart-2', 'count');
SELECT es_drop_snapshot_policy('cart', 'count'), es_drop_snapshot_policy('cart'), es_drop_snapshot_policy('cart');

--
-- Streams with limits: what is left out must be covered by a snapshot
--
SELECT add_events('meter-1', 20);
UPDATE es_streams SET truncate_before = 5 WHERE name = 'meter-1';
SELECT * FROM es_state('meter-1', 'count');
UPDATE es_streams SET truncate_before = NULL WHERE name = 'meter-1';
SELECT es_snapshot('meter-1', 'count', 3), es_snapshot('meter-1', 'count', 9);
UPDATE es_streams SET truncate_before = 5 WHERE name = 'meter-1';
SELECT * FROM es_state('meter-1', 'count');
SELECT * FROM es_state('meter-1', 'count', 9);
SELECT * FROM es_state('meter-1', 'count', 8);
SELECT * FROM es_state('meter-1', 'count', 3);
UPDATE es_streams SET truncate_before = 10 WHERE name = 'meter-1';
SELECT * FROM es_state('meter-1', 'count');
UPDATE es_streams SET truncate_before = 11 WHERE name = 'meter-1';
SELECT * FROM es_state('meter-1', 'count');
UPDATE es_streams SET truncate_before = NULL, max_count = 10 WHERE name = 'meter-1';
SELECT * FROM es_state('meter-1', 'count');
SELECT add_events('meter-1', 1);
SELECT * FROM es_state('meter-1', 'count');
SELECT es_fold(e, 'count') AS "what is left" FROM es_read_stream('meter-1') AS e;
UPDATE es_streams SET max_count = NULL, max_age = '1 hour' WHERE name = 'meter-1';
SELECT * FROM es_state('meter-1', 'count', 8);
UPDATE es_streams SET max_age = '0 s' WHERE name = 'meter-1';
SELECT * FROM es_state('meter-1', 'count', 8);
-- The newest snapshot of such a stream is never pruned; others are.
SELECT es_prune_snapshots(older_than => '1 hour');
SELECT es_prune_snapshots(keep => 0, category => 'meter');
SELECT version FROM es_snapshots AS s JOIN es_streams USING (stream_id) WHERE name = 'meter-1' ORDER BY 1;
UPDATE es_streams SET max_age = NULL WHERE name = 'meter-1';
SELECT es_prune_snapshots(0, category => 'meter');
SELECT count(*) FROM es_snapshots AS s JOIN es_streams USING (stream_id) WHERE name = 'meter-1';
-- A deleted stream has no state.
SELECT es_snapshot('meter-1', 'count');
UPDATE es_streams SET deleted = true WHERE name = 'meter-1';
SELECT * FROM es_state('meter-1', 'count');
SELECT es_snapshot('meter-1', 'count');
SELECT es_prune_snapshots(10, category => 'meter');
-- A stream that was never written has none yet.
SELECT * FROM es_state('nothing-1', 'count');
SELECT * FROM es_state('nothing-1', 'count', -1);
SELECT * FROM es_state('nothing-1', 'count', at_time => 'infinity');

--
-- Given, when, then: a reducer without a log
--
SELECT position, stream, version, type, data, metadata, occurred_at, recorded_at FROM es_given('[
    {"type": "Opened", "data": {}, "metadata": {"user": "u1"}},
    {"type": "Closed", "data": {}, "occurred_at": "2026-03-01T12:00:00Z"}]', 'door-1', from_version => 3);
SELECT event_id = es_uuid('given-1', '0') AS "the same each time" FROM es_given('[{"type": "T", "data": {}}]');
