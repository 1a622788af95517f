-- The peer's append of peers.sql, called as es_append is.
\set stream random(1, :streams)
SELECT * FROM lock_append('order-' || :stream, 'OrderNoted', :data);
