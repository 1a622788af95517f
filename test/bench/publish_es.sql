-- One message, as the README shows it.
\set entity random(1, 100000)
SELECT es_publish('orders', 'OrderNoted', :data, key => :entity::text);
