-- What the rows of rows_projection.sh project: a summary of each order, by a handler, by a set-based body, and by a
-- trigger on the plain table.
CREATE TABLE by_handler (stream text COLLATE "C" PRIMARY KEY, n bigint, total numeric, status text);
CREATE TABLE by_set (LIKE by_handler INCLUDING ALL);
CREATE TABLE by_trigger (LIKE by_handler INCLUDING ALL);

CREATE FUNCTION summarize(event es_event) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO by_handler VALUES (event.stream, 1, (event.data->>'total')::numeric, event.data->>'status')
    ON CONFLICT (stream) DO UPDATE SET n = by_handler.n + 1, total = by_handler.total + EXCLUDED.total, status = EXCLUDED.status;
END $$;

CREATE FUNCTION summarize_plain() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO by_trigger VALUES ('order-' || NEW.stream_id, 1, (NEW.data->>'total')::numeric, NEW.data->>'status')
    ON CONFLICT (stream) DO UPDATE SET n = by_trigger.n + 1, total = by_trigger.total + EXCLUDED.total, status = EXCLUDED.status;
    RETURN NULL;
END $$;

CREATE FUNCTION set_body() RETURNS text LANGUAGE sql AS $$
    SELECT 'INSERT INTO by_set AS t
                SELECT stream, count(*), sum((data->>''total'')::numeric), (array_agg(data->>''status'' ORDER BY version DESC))[1] FROM es_batch GROUP BY stream
            ON CONFLICT (stream) DO UPDATE SET n = t.n + EXCLUDED.n, total = t.total + EXCLUDED.total, status = EXCLUDED.status'
$$;
