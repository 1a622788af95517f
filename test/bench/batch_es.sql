-- 1,000 events to one stream. A driver would send the arrays; array_fill makes them in the server, about a fiftieth of
-- the call, and es_append_batch pays for making them and for taking them apart.
\set stream random(1, :streams)
SELECT * FROM es_append_batch('order-' || :stream, array_fill('OrderNoted'::text, '{1000}'),
                              array_fill(:data::jsonb, '{1000}'), es_any());
