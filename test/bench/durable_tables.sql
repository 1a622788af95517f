-- What rows_inbox_durable.sh compares with: a row a number, and a queue with a worker as one would write them.
CREATE SEQUENCE es_number MINVALUE 0;
CREATE SEQUENCE plain_number MINVALUE 0;
CREATE TABLE plain_sequence (consumer text, source text, n bigint, PRIMARY KEY (consumer, source, n));
SELECT es_create_inbox('bench');
CREATE TABLE plain_queue (id bigserial PRIMARY KEY, message_id text UNIQUE, key text, payload jsonb, done boolean NOT NULL DEFAULT false);
CREATE INDEX ON plain_queue (id) WHERE NOT done;
CREATE TABLE effect (key text, payload jsonb);
CREATE FUNCTION es_effect(m es_inbox_message) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO effect VALUES (m.key, m.payload);
END $$;
CREATE FUNCTION plain_effect(m plain_queue) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO effect VALUES (m.key, m.payload);
END $$;
CREATE FUNCTION plain_run(n int) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    m plain_queue;
BEGIN
    FOR m IN SELECT * FROM plain_queue WHERE NOT done ORDER BY id LIMIT n FOR UPDATE SKIP LOCKED LOOP
        BEGIN
            PERFORM plain_effect(m);
            UPDATE plain_queue SET done = true WHERE id = m.id;
        EXCEPTION WHEN OTHERS THEN
            RAISE WARNING '%', SQLERRM;
        END;
    END LOOP;
END $$;
