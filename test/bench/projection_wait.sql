-- Write, and read it back from the read model that a worker keeps up.
\set stream random(1, :streams)
SELECT "position" FROM es_append('order-' || :stream, 'OrderNoted', :data) \gset
SELECT es_wait_for('by_set', :position);
