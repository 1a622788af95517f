-- 1,000 messages to one topic. A driver would send the arrays; array_fill makes them in the server, and
-- es_publish_batch pays for making them and for taking them apart.
\set entity random(1, 100000)
SELECT es_publish_batch('orders', array_fill('OrderNoted'::text, '{1000}'), array_fill(:data::jsonb, '{1000}'),
                        array_fill(:entity::text, '{1000}'));
