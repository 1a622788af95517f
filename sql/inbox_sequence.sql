-- inbox_sequence: numbers of ordered sources, each accepted once.
\set SHOW_CONTEXT never
CREATE EXTENSION es_pg;
CREATE VIEW seen AS
    SELECT source, incarnation, watermark, highest, accepted, holes, lost, late FROM es_inbox_sequence_status ORDER BY source, incarnation;
CREATE VIEW stretches AS SELECT low, high FROM es_inbox_ranges ORDER BY sequence_id, low;

--
-- A number is new once. However many there were, in order they are one row.
--
SELECT es_inbox_accept_sequence('shipping', 'orders/0', 0);
SELECT es_inbox_accept_sequence('shipping', 'orders/0', 0);
SELECT count(*) FILTER (WHERE es_inbox_accept_sequence('shipping', 'orders/0', n)) FROM generate_series(0, 99999) AS n;
SELECT * FROM seen;
SELECT count(*) FROM es_inbox_sequences;
-- Each source, and each consumer, has numbers of its own.
SELECT es_inbox_accept_sequence('shipping', 'orders/1', 0), es_inbox_accept_sequence('billing', 'orders/0', 0);

--
-- Out of order: a row for each stretch beyond a hole, until the hole is filled.
--
SELECT es_inbox_accept_sequence('shipping', 'orders/1', n) FROM unnest('{5, 3, 5, 9, 4, 3}'::int[]) AS n;
SELECT * FROM seen WHERE source = 'orders/1';
SELECT * FROM stretches;
SELECT es_inbox_accept_sequence('shipping', 'orders/1', n) FROM unnest('{1, 7, 2}'::int[]) AS n;
SELECT * FROM seen WHERE source = 'orders/1';
SELECT * FROM stretches;
SELECT es_inbox_accept_sequence('shipping', 'orders/1', n) FROM unnest('{8, 6}'::int[]) AS n;
SELECT * FROM seen WHERE source = 'orders/1';
SELECT * FROM stretches;

--
-- It belongs to the transaction: rolled back, also to a savepoint, it was not.
--
BEGIN;
SELECT es_inbox_accept_sequence('shipping', 'orders/1', 10);
ROLLBACK;
BEGIN;
SELECT es_inbox_accept_sequence('shipping', 'orders/1', 10);
SAVEPOINT a;
SELECT es_inbox_accept_sequence('shipping', 'orders/1', 11), es_inbox_accept_sequence('shipping', 'orders/1', 13);
SAVEPOINT b;
SELECT es_inbox_accept_sequence('shipping', 'orders/1', 12);
RELEASE b;
ROLLBACK TO a;
SELECT es_inbox_accept_sequence('shipping', 'orders/1', 12), es_inbox_accept_sequence('shipping', 'orders/1', 10);
COMMIT;
SELECT * FROM seen WHERE source = 'orders/1';
SELECT * FROM stretches;
-- A savepoint that was the first to see a source.
BEGIN;
SAVEPOINT a;
SELECT es_inbox_accept_sequence('shipping', 'orders/2', 0);
ROLLBACK TO a;
SELECT es_inbox_accept_sequence('shipping', 'orders/2', 0), es_inbox_accept_sequence('shipping', 'orders/2', 0);
COMMIT;
SELECT * FROM seen WHERE source = 'orders/2';
-- Transactions of a procedure, and one that is prepared.
DO $$
BEGIN
    FOR n IN 0 .. 29 LOOP
        PERFORM es_inbox_accept_sequence('shipping', 'orders/2', n);
        IF n % 10 = 9 THEN
            COMMIT;
        END IF;
    END LOOP;
END $$;
BEGIN;
SELECT es_inbox_accept_sequence('shipping', 'orders/2', 30);
PREPARE TRANSACTION 'inbox';
COMMIT PREPARED 'inbox';
SELECT * FROM seen WHERE source = 'orders/2';

--
-- Holes that never fill. Given up after es_pg.inbox_hole_timeout, their numbers are false and, if they come, late.
--
SHOW es_pg.inbox_hole_timeout;
SELECT es_inbox_accept_sequence('shipping', 'orders/2', n) FROM unnest('{35, 40}'::int[]) AS n;
SELECT es_inbox_close_holes('shipping', 'orders/2', '1 hour');
UPDATE es_inbox_ranges SET since = since - interval '2 hours' WHERE low = 35;
SELECT es_inbox_close_holes('shipping', 'orders/2', '1 hour');
SELECT low, high FROM es_inbox_lost;
SELECT es_inbox_accept_sequence('shipping', 'orders/2', n) FROM unnest('{34, 30, 36}'::int[]) AS n;
SELECT * FROM seen WHERE source = 'orders/2';
-- The next transaction that finds an old one gives it up, and so does es_maintain().
UPDATE es_inbox_ranges SET since = since - interval '2 days' WHERE low = 40;
SELECT es_inbox_accept_sequence('shipping', 'orders/2', 50);
SELECT * FROM seen WHERE source = 'orders/2';
UPDATE es_inbox_ranges SET since = since - interval '2 days' WHERE low = 50;
SELECT es_maintain();
SELECT * FROM seen WHERE source = 'orders/2';
-- Not in a transaction that has accepted from it: what that knows would be false, and 50 new again.
BEGIN;
SELECT es_inbox_accept_sequence('shipping', 'orders/2', 70);
SAVEPOINT s;
SELECT es_inbox_close_holes('shipping', 'orders/2');
ROLLBACK TO s;
UPDATE es_inbox_ranges SET since = since - interval '2 days';
SELECT es_maintain();
SELECT es_inbox_accept_sequence('shipping', 'orders/2', 50);
ROLLBACK;
SELECT es_inbox_close_holes('shipping', 'orders/1');
SELECT * FROM seen WHERE source = 'orders/1';
-- A hole is as old as the first number above it, also when it is split.
SET es_pg.inbox_hole_timeout = -1;
SELECT es_inbox_accept_sequence('shipping', 'orders/3', 10);
UPDATE es_inbox_ranges SET since = '2020-01-01 UTC';
SELECT es_inbox_accept_sequence('shipping', 'orders/3', n) FROM unnest('{5, 20}'::int[]) AS n;
SELECT low, high, since < '2021-01-01' AS old FROM es_inbox_ranges ORDER BY low;
-- 0: the source comes in order and has gaps; nothing waits, nothing is recorded.
SET es_pg.inbox_hole_timeout = 0;
SELECT es_inbox_accept_sequence('shipping', 'kafka', n) FROM unnest('{7, 9, 8, 9, 1000000, 999999}'::int[]) AS n;
SELECT es_inbox_accept_sequence('shipping', 'kafka', n) FROM unnest('{1000000, 2000000}'::int[]) AS n;
SELECT * FROM seen WHERE source = 'kafka';
-- Also where there are holes from before.
SELECT es_inbox_accept_sequence('shipping', 'orders/3', 15), es_inbox_accept_sequence('shipping', 'orders/3', 21);
SELECT * FROM seen WHERE source = 'orders/3';
RESET es_pg.inbox_hole_timeout;

--
-- Another incarnation of the source: refused, until somebody has said that it is right. It has numbers of its own.
--
SELECT es_inbox_accept_sequence('shipping', 'shop', 1, 'first');
SELECT es_inbox_accept_sequence('shipping', 'shop', 1, 'second');
SELECT es_inbox_accept_sequence('shipping', 'shop', 1);
SELECT es_inbox_add_incarnation('shipping', 'shop', 'second');
SELECT es_inbox_add_incarnation('shipping', 'shop', 'second');
SELECT es_inbox_accept_sequence('shipping', 'shop', 1, 'second'), es_inbox_accept_sequence('shipping', 'shop', 1, 'first');
SET es_pg.inbox_new_incarnation = accept;
SELECT es_inbox_accept_sequence('shipping', 'shop', 1, 'third');
RESET es_pg.inbox_new_incarnation;
SELECT incarnation FROM seen WHERE source = 'shop';

--
-- Bad input.
--
SELECT es_inbox_accept_sequence('shipping', 'orders/0', -1);
SELECT es_inbox_accept_sequence('shipping', 'orders/0', 9223372036854775807);
SELECT es_inbox_accept_sequence('shipping', 'orders/0', NULL);
SELECT es_inbox_accept_sequence('shipping', '', 1);
SELECT es_inbox_accept_sequence('shipping', NULL, 1);
SELECT es_inbox_accept_sequence(NULL, 'orders/0', 1);
SELECT es_inbox_accept_sequence('shipping', repeat('x', 1025), 1);
SELECT es_inbox_accept_sequence('shipping', 'orders/0', 1, '');
SELECT es_inbox_add_incarnation('shipping', 'shop', NULL);
SELECT es_inbox_close_holes('shipping', 'nothing');
SELECT es_inbox_close_holes('shipping', 'shop', '-1 s');
SELECT es_inbox_close_holes(NULL, 'shop');
BEGIN READ ONLY;
SELECT es_inbox_accept_sequence('shipping', 'orders/0', 1);
ROLLBACK;
UPDATE es_inbox_sequences SET ranges = 100000 WHERE source = 'orders/0' AND accepted > 1;
SELECT es_inbox_accept_sequence('shipping', 'orders/0', 200000), es_inbox_accept_sequence('shipping', 'orders/0', 200002);
-- Untyped parameters.
PREPARE accept AS SELECT es_inbox_accept_sequence($1, $2, $3, $4);
EXECUTE accept('shipping', 'shop', 2, 'first');

-- What a dropped consumer has seen goes with the next maintenance.
SELECT es_drop_consumer('shipping');
SELECT es_maintain();
SELECT DISTINCT source FROM es_inbox_sequences;
SELECT count(*) FROM es_inbox_ranges;
