-- A member of all lanes: fetch, acknowledge the last row of each lane in the same transaction, and count both.
WITH f AS MATERIALIZED (SELECT * FROM es_fetch('bench', 'bench', :batch)),
     a AS MATERIALIZED (SELECT es_ack('bench', lane, epoch, max("position")), count(*) AS n FROM f GROUP BY lane, epoch)
INSERT INTO bench_done SELECT COALESCE(sum(n), 0), count(*) FROM a;
