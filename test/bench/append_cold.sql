-- One event to a stream that nobody has touched since the load: each stream once, in an order that jumps between
-- chunks.
\set n :n + 1
\set stream permute(:n, :streams) + 1
SELECT * FROM es_append('order-' || :stream, 'OrderNoted', :data, es_any());
