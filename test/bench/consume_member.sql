-- A member of a subscription: fetch, acknowledge the last row of each lane in the same transaction, and count.
WITH f AS MATERIALIZED (SELECT * FROM es_fetch(:subscription, 'member' || :client_id, :batch)),
     a AS (SELECT es_ack(:subscription, lane, epoch, max("position")) FROM f GROUP BY lane, epoch),
     d AS (INSERT INTO bench_done SELECT count(*) FROM f)
SELECT f.* FROM f, (SELECT count(*) FROM a) AS a;
