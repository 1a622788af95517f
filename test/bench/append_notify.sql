-- es_append and a NOTIFY in the same statement and so in the same transaction: one round trip, as without it.
\set stream random(1, :streams)
SELECT a.*, pg_notify('bench', '') FROM es_append('order-' || :stream, 'OrderNoted', :data, es_any()) AS a;
