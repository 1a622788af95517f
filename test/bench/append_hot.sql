-- One event to the client's own stream, so nobody waits for a row lock and what is measured is the path itself.
\set stream :client_id + 1
SELECT * FROM es_append('order-' || :stream, 'OrderNoted', :data, es_any());
