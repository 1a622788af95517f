-- One event to one of the streams, as the README shows it. The name is put together in the server, because pgbench
-- has no strings to compute with: es_append pays for that, not the plain side.
\set stream random(1, :streams)
SELECT * FROM es_append('order-' || :stream, 'OrderNoted', :data, es_any());
