-- projection: read models kept up from events, by example.
\set SHOW_CONTEXT never
CREATE EXTENSION es_pg;
CREATE VIEW status AS
    SELECT projection, version, live, mode, state, lag_messages, parked, dead, last_error, last_sqlstate
      FROM es_projection_status ORDER BY projection, live DESC;

--
-- An order summary with the customer's name, by a set-based body: it runs once a batch over the relation es_batch.
--
CREATE TABLE customer (customer_id text PRIMARY KEY, name text NOT NULL);
CREATE TABLE order_summary (order_id text PRIMARY KEY, customer_id text, customer_name text, total numeric NOT NULL DEFAULT 0, status text NOT NULL);
SELECT es_create_projection('customers', $$
    INSERT INTO customer SELECT DISTINCT ON (stream) stream, data->>'name' FROM es_batch ORDER BY stream, version DESC
        ON CONFLICT (customer_id) DO UPDATE SET name = EXCLUDED.name
$$, categories => '{customer}');
SELECT es_create_projection('orders', $$
    INSERT INTO order_summary (order_id, customer_id, customer_name, total, status)
        SELECT e.stream, max(e.data->>'customer'), max(c.name), sum(coalesce((e.data->>'price')::numeric, 0)), (array_agg(e.type ORDER BY e.version DESC))[1]
          FROM es_batch AS e LEFT JOIN customer AS c ON c.customer_id = e.data->>'customer'
         GROUP BY e.stream
        ON CONFLICT (order_id) DO UPDATE SET customer_id = coalesce(EXCLUDED.customer_id, order_summary.customer_id),
            customer_name = coalesce(EXCLUDED.customer_name, order_summary.customer_name),
            total = order_summary.total + EXCLUDED.total, status = EXCLUDED.status
$$, categories => '{order}');
SELECT count(es_append('customer-' || n, 'Named', jsonb_build_object('name', name))) FROM (VALUES (1, 'Ada'), (2, 'Grace')) AS c (n, name);
SELECT count(es_append('order-' || i, 'Placed', jsonb_build_object('customer', 'customer-' || 1 + i % 2))) FROM generate_series(1, 4) AS i;
SELECT count(es_append('order-' || i, 'ItemAdded', jsonb_build_object('price', i * 1.5))) FROM generate_series(1, 4) AS i;
SELECT es_append('order-2', 'Shipped', '{}') IS NOT NULL;
-- Without a worker: each call is a batch of each projection, its effects and its checkpoint commit together.
SELECT es_run_projections();
SELECT * FROM order_summary ORDER BY 1;
SELECT es_run_projections();
BEGIN;
SELECT es_append('order-1', 'Cancelled', '{}') IS NOT NULL;
COMMIT;
BEGIN;
SELECT es_run_projections('orders');
SELECT status FROM order_summary WHERE order_id = 'order-1';
ROLLBACK;
SELECT status FROM order_summary WHERE order_id = 'order-1';
SELECT es_run_projections('orders', 1);
SELECT status FROM order_summary WHERE order_id = 'order-1';
SELECT * FROM status;
-- It is a subscription.
SELECT subscription, source, state, lanes FROM es_subscription_status ORDER BY 1;

--
-- A bank account: a handler, called for each event; in the transaction of the append.
--
CREATE TABLE balance (account text PRIMARY KEY, amount numeric NOT NULL CHECK (amount >= 0), as_of bigint NOT NULL);
CREATE FUNCTION apply_account(event es_event) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO balance VALUES (event.stream, 0, event.version) ON CONFLICT DO NOTHING;
    UPDATE balance SET amount = amount + (event.data->>'amount')::numeric * CASE event.type WHEN 'Withdrawn' THEN -1 ELSE 1 END, as_of = event.version
     WHERE account = event.stream;
END $$;
SELECT es_append('account-0', 'Deposited', '{"amount": 7}') IS NOT NULL;
SELECT es_create_projection('balance', handler => 'apply_account(es_event)', mode => 'inline', categories => '{account}', tables => '{balance}');
SELECT version, position IS NOT NULL FROM es_append('account-1', 'Deposited', '{"amount": 100}');
SELECT version FROM es_append_batch('account-1', '{Withdrawn,Deposited}', '{"{\"amount\": 30}","{\"amount\": 5}"}');
SELECT * FROM balance;
-- What fails there fails the append.
SELECT es_append('account-1', 'Withdrawn', '{"amount": 1000}');
SELECT es_stream_version('account-1');
SELECT * FROM balance;
-- A retry writes nothing, so it is applied once.
SELECT version FROM es_append('account-1', 'Deposited', '{"amount": 1}', 2, event_id => '11111111-1111-1111-1111-111111111111');
SELECT version FROM es_append('account-1', 'Deposited', '{"amount": 1}', 2, event_id => '11111111-1111-1111-1111-111111111111');
SELECT * FROM balance;
SELECT es_run_projections('balance');
-- It began with what was written from then on. A rebuild takes the rest in: tables of the same names are filled beside
-- the live ones, and take their place.
SELECT es_rebuild_projection('balance');
SELECT * FROM status WHERE projection = 'balance';
SELECT es_append('account-2', 'Deposited', '{"amount": 2}') IS NOT NULL;
SELECT es_run_projections('balance');
SELECT es_run_projections('balance');
SELECT * FROM status WHERE projection = 'balance';
SELECT * FROM balance ORDER BY 1;
SELECT version FROM es_append('account-0', 'Withdrawn', '{"amount": 1}');
SELECT * FROM balance ORDER BY 1;

--
-- Another body is a new version, which is built beside the live one.
--
CREATE VIEW big_orders AS SELECT order_id, total FROM order_summary WHERE total > 4;
SELECT es_rebuild_projection('orders', $$
    INSERT INTO order_summary (order_id, total, status)
        SELECT e.stream, sum(coalesce((e.data->>'price')::numeric, 0)) * 2, 'new' FROM es_batch AS e GROUP BY e.stream
        ON CONFLICT (order_id) DO UPDATE SET total = order_summary.total + EXCLUDED.total
$$, swap => false);
SELECT es_run_projections('orders'), es_run_projections('orders');
SELECT order_id, total, status FROM order_summary ORDER BY 1;
SELECT shadow FROM es_projections WHERE NOT live \gset
SELECT order_id, total, status FROM :"shadow".order_summary ORDER BY 1;
-- Both are kept up until the swap.
SELECT es_append('order-3', 'ItemAdded', '{"price": 10}') IS NOT NULL;
SELECT es_run_projections('orders');
SELECT o.total, n.total FROM order_summary AS o JOIN :"shadow".order_summary AS n USING (order_id) WHERE order_id = 'order-3';
SELECT es_swap_projection('orders');
SELECT order_id, total, status FROM order_summary ORDER BY 1;
SELECT * FROM big_orders ORDER BY 1;
SELECT * FROM status WHERE projection = 'orders';
SELECT indexrelid::regclass FROM pg_index WHERE indrelid = 'order_summary'::regclass;
SELECT count(*) FROM pg_namespace WHERE nspname LIKE 'es\_shadow%';
-- One that is given up leaves nothing.
SELECT es_rebuild_projection('orders');
SELECT es_pause_projection('orders', rebuild => true);
SELECT es_run_projections('orders');
SELECT * FROM status WHERE projection = 'orders';
SELECT es_cancel_rebuild('orders');
SELECT count(*) FROM pg_namespace WHERE nspname LIKE 'es\_shadow%';

--
-- Read your own writes.
--
SELECT position FROM es_append('order-9', 'Placed', '{"price": 1}') \gset
SELECT es_wait_for('orders', :position, '0');
SELECT es_run_projections('orders');
SELECT es_wait_for('orders', :position);
-- What the filter does not want is passed as soon as it was looked at.
SELECT position FROM es_append('other-1', 'E', '{}') \gset
SELECT es_wait_for('orders', :position, '0'), es_wait_for('balance', :position, '0');
SELECT es_run_projections('orders');
SELECT es_wait_for('orders', :position, '0');
SELECT es_wait_for('orders', :position + 1000000, '10 ms');

--
-- A failing event: stop, park its stream, or skip it.
--
CREATE TABLE quotient (stream text, version bigint, value numeric, PRIMARY KEY (stream, version));
SELECT es_create_projection('q_' || policy, format('INSERT INTO quotient SELECT stream || %L, version, 100 / (data->>''n'')::numeric FROM es_batch', '-' || policy),
                            categories => '{number}', on_error => policy, retry_base => '1 h') FROM (VALUES ('stop'), ('park'), ('skip')) AS p (policy);
SELECT count(es_append('number-' || s, 'N', jsonb_build_object('n', n))) FROM (VALUES (1, 1, 4), (2, 2, 5), (3, 1, 0), (4, 2, 10), (5, 1, 20), (6, 3, 25)) AS v (i, s, n);
SELECT es_run_projections('q_stop'), es_run_projections('q_park'), es_run_projections('q_skip');
SELECT stream, version, round(value) FROM quotient ORDER BY stream COLLATE "C", version;
SELECT projection, state, parked, dead, last_error, last_sqlstate, last_error_position IS NOT NULL AS at FROM es_projection_status WHERE projection LIKE 'q%' ORDER BY 1;
SELECT subscription, key, error FROM es_dead_letters;
SELECT es_run_projections('q_stop');
SELECT es_resume_projection('q_stop');
SELECT es_run_projections('q_stop');
-- A body that depends on how events are cut into batches is found out, and told of.
CREATE TABLE latest (stream text PRIMARY KEY, version bigint);
SELECT es_create_projection('latest', $$INSERT INTO latest SELECT stream, version FROM es_batch ON CONFLICT (stream) DO UPDATE SET version = EXCLUDED.version$$, categories => '{number}');
SELECT es_run_projections('latest');
SELECT state, last_sqlstate FROM status WHERE projection = 'latest';
SELECT * FROM latest ORDER BY 1;

--
-- From the outbox, without event sourcing: es_batch then has the columns of es_delivery.
--
CREATE TABLE sent (topic text PRIMARY KEY, n bigint);
SELECT es_create_projection('sent', $$INSERT INTO sent SELECT topic, count(*) FROM es_batch GROUP BY 1 ON CONFLICT (topic) DO UPDATE SET n = sent.n + EXCLUDED.n$$,
                            source => 'outbox', mode => 'inline', topics => '{a,b}');
SELECT count(es_publish(topic, 'T', '{}')) FROM unnest('{a,b,c,a}'::text[]) AS t (topic);
SELECT es_publish_batch('b', '{T,T}', '{"{}","{}"}') IS NOT NULL;
SELECT * FROM sent ORDER BY 1;
SELECT es_rebuild_projection('sent'), es_run_projections('sent'), es_run_projections('sent');
SELECT * FROM sent ORDER BY 1;

SELECT es_drop_projection(name) FROM es_projections ORDER BY name COLLATE "C";
SELECT count(*) FROM es_subscriptions;
SELECT version FROM es_append('account-1', 'Withdrawn', '{"amount": 1000}');
