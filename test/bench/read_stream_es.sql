-- A whole stream by its name. The name is put together in the server; es_read_stream pays for that.
\set stream random(1, :streams)
SELECT * FROM es_read_stream('order-' || :stream, 0, :events);
