# rows_growth.sh: what acknowledgements leave behind.

# shellcheck shell=bash
row growth $((60 / shrink)) 0

# Two million messages are fetched and acknowledged by a member of four lanes, 100 a fetch: at rest, and then from the
# beginning again while a session holds an old snapshot, so that nothing that dies can be cleaned up. Maintenance runs as it
# does for anybody who acknowledges, and autovacuum too. A row written is one inserted or updated in any table of es_pg's.
growth_messages=$((2000000 / shrink))
growth_batch=100
growth_tables="es_cursors es_leases es_parked es_outbox"

# written: rows that were written into es_pg's tables so far.
written() {
  sql -At -d growth -c "SELECT sum(n_tup_ins + n_tup_upd) FROM pg_stat_user_tables
    WHERE relname LIKE 'es\_%' OR schemaname = 'es_chunks'"
}

# left_in TABLE: its live rows, its dead ones by the statistics, its size with indexes and chunks. Of the outbox the
# statistics of its chunks: counting is for the others.
left_in() {
  local live="(SELECT count(*) FROM $1)"
  [ "$1" != es_outbox ] || live='sum(s.n_live_tup)'
  sql -At -d growth -c "SELECT to_char($live, 'FM999,999,990') || ' + ' || to_char(sum(s.n_dead_tup), 'FM999,999,990') || ', ' ||
    pg_size_pretty(sum(pg_total_relation_size(s.relid))) FROM pg_stat_user_tables AS s
    WHERE s.relid = '$1'::regclass OR s.relid IN (SELECT inhrelid FROM pg_inherits WHERE inhparent = '$1'::regclass)"
}

# acknowledge_all "when": from the beginning to the end, and what there is then.
acknowledge_all() {
  local when=$1 table begin rows acks
  local -A before
  sql -d growth -o /dev/null -c "SELECT es_seek_subscription('bench', 0)" -c "SELECT es_fetch('bench', 'bench', 1)" \
    -c 'TRUNCATE bench_done'
  for table in $growth_tables; do before[$table]=$(left_in $table); done
  begin=$(written)
  # A few more for what the lanes' shares leave over.
  pgbench_rate growth 1 consume_growth.sql -D batch="$growth_batch" -t $((growth_messages / growth_batch + 20))
  consumed_all growth es_outbox || es_die "$row: the consumer did not get everything"
  sql -d growth -c 'SELECT es_maintain()' -o /dev/null
  rows=$(($(written) - begin))
  acks=$(sql -At -d growth -c 'SELECT sum(acks) FROM bench_done')
  for table in $growth_tables; do
    line "$table, $when: rows live + dead, size" '' "$(left_in $table)" 'before' "${before[$table]}" - - ''
  done
  line "rows written, $when" rows "$(figure "$rows")" 'acknowledgements' "$(figure "$acks")" \
    "$(ratio_of "$rows" "$acks")" '<=1' "$(verdict "$(ratio_of "$rows" "$acks")" '<=1')"
}

growth() {
  fresh growth
  sql -d growth -v messages="$growth_messages" -v data='{"order": 4711}' -f outbox_fill.sql
  sql -d growth -o /dev/null -c 'CREATE TABLE bench_done (n bigint, acks bigint)' \
    -c "SELECT es_create_subscription('bench', 'beginning', source => 'outbox', lanes => 4)"
  tidy growth
  ready
  acknowledge_all 'at rest'
  tidy growth
  hold old_snapshot growth 'BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM es_cursors;'
  acknowledge_all 'xmin held'
  release old_snapshot
  drop growth
}
