-- Two streams of :events events each, appended 100 at a time; of one a snapshot is kept, :behind events behind its end. And
-- the functions that somebody would write in place of built-in reducers.
SELECT es_append_batch(stream, array_fill('Deposited'::text, ARRAY[100]),
                       ARRAY(SELECT jsonb_build_object('amount', n * 100 + i, 'by', 'user' || i % 10, 'order', n, 'customer', 'c-' || i, 'note', md5(i::text)) FROM generate_series(1, 100) AS i))
       IS NOT NULL AS appended
  FROM generate_series(1, :events / 100) AS n, unnest('{account-1,account-2}'::text[]) AS stream \g /dev/null

CREATE FUNCTION plpgsql_sum(state jsonb, event es_event) RETURNS jsonb LANGUAGE plpgsql IMMUTABLE AS $$
BEGIN
    RETURN to_jsonb(COALESCE(state::numeric, 0) + (event.data->>'amount')::numeric);
END $$;
CREATE FUNCTION plpgsql_merge(state jsonb, event es_event) RETURNS jsonb LANGUAGE plpgsql IMMUTABLE AS $$
BEGIN
    RETURN COALESCE(state, '{}') || event.data;
END $$;
CREATE FUNCTION plpgsql_count(state jsonb, event es_event) RETURNS jsonb LANGUAGE plpgsql IMMUTABLE AS $$
BEGIN
    RETURN COALESCE(state, '{}') || jsonb_build_object(event.data->>'order', COALESCE((state->>(event.data->>'order'))::int, 0) + 1);
END $$;

-- Processor time of this backend in hundredths of a second, in user mode and in the kernel.
CREATE FUNCTION cpu_ticks() RETURNS bigint LANGUAGE sql VOLATILE AS $$
    SELECT f[12]::bigint + f[13]::bigint FROM string_to_array(split_part(pg_read_file('/proc/self/stat'), ') ', 2), ' ') AS f
$$;
-- Folds the whole of account-2 so often that it takes a while; returns events a second of processor time.
CREATE FUNCTION folds(reducer text, times int) RETURNS numeric LANGUAGE plpgsql AS $$
DECLARE
    before bigint := cpu_ticks();
    folded bigint := 0;
BEGIN
    FOR i IN 1 .. times LOOP
        folded := folded + (es_state('account-2', reducer)).events;
    END LOOP;
    RETURN round(folded * 100.0 / greatest(cpu_ticks() - before, 1), 1);
END $$;
SELECT es_snapshot('account-1', 'sum {"path": "$.amount"}', es_stream_version('account-1') - :behind) \g /dev/null
