-- The same rows, in the same columns, without looking a name up: it is a constant here.
\set stream random(1, :streams)
SELECT "position", 'order-12345' AS stream, version, event_id, type, schema_version, source, data, metadata,
       correlation_id, causation_id, traceparent, COALESCE(occurred_at, recorded_at) AS occurred_at, recorded_at
  FROM plain
 WHERE stream_id = :stream AND version >= 0
 ORDER BY version LIMIT :events;
