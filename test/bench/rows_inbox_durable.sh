# rows_inbox_durable.sh: numbers of ordered sources, and messages that are stored first and handled later, against
# tables of one's own.

# shellcheck shell=bash
row sequence_1 2 2
row sequence_batch 2 2
row sequence_xmin 2 2
row sequence_size $((90 / shrink)) 0
row inbox_put 2 2
row inbox_run $((60 / shrink)) 2

# The next number of a source, a transaction each.
sample_es_sequence() { pgbench_rate "$row" 1 sequence_es.sql; }
sample_plain_sequence() { pgbench_rate "$row" 1 sequence_plain.sql; }

sequence_1() {
  fresh "$row"
  sql -d "$row" -f durable_tables.sql >/dev/null
  ready
  interleave es_sequence plain_sequence
  compare - es_sequence 'es_inbox_accept_sequence, 1 client' plain_sequence 'INSERT ... ON CONFLICT DO NOTHING, a row a number'
  drop "$row"
}

# 1,000 numbers in a transaction.
sample_es_sequences() { pgbench_rate "$row" 1 sequence_batch_es.sql; }
sample_plain_sequences() { pgbench_rate "$row" 1 sequence_batch_plain.sql; }

sequence_batch() {
  fresh "$row"
  sql -d "$row" -f durable_tables.sql >/dev/null
  ready
  interleave es_sequences plain_sequences
  compare - es_sequences 'es_inbox_accept_sequence, 1,000 numbers a transaction' \
    plain_sequences 'INSERT ... SELECT of 1,000 ON CONFLICT DO NOTHING' 1000 numbers/s
  drop "$row"
}

# Row versions that cannot be pruned, since somebody holds a snapshot.
sample_sequence_held() {
  hold xmin "$row" 'BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT 1;'
  pgbench_rate "$row" 1 sequence_es.sql
  release xmin
}
sample_at_rest() { pgbench_rate "$row" 1 sequence_es.sql; }

sequence_xmin() {
  fresh "$row"
  sql -d "$row" -f durable_tables.sql >/dev/null
  ready
  interleave sequence_held at_rest
  compare - sequence_held 'es_inbox_accept_sequence, one source, an old snapshot is held' at_rest 'the same at rest'
  drop "$row"
}

# What ten million numbers leave behind, in transactions of 1,000.
sequence_size() {
  local count=$((10000000 / shrink)) es plain
  fresh "$row"
  sql -d "$row" -f durable_tables.sql >/dev/null
  es_as "$ES_BIN/pgbench" -n -M prepared -t $((count / 1000)) -f sequence_batch_es.sql "$row" >/dev/null 2>&1 || es_die "$row: pgbench failed"
  es_as "$ES_BIN/pgbench" -n -M prepared -t $((count / 1000)) -f sequence_batch_plain.sql "$row" >/dev/null 2>&1 || es_die "$row: pgbench failed"
  ready
  [ "$(sql -At -d "$row" -c "SELECT watermark + 1 FROM es_inbox_sequences")" = "$count" ] || es_die "$row: numbers are missing"
  es=$(sql -At -d "$row" -c "SELECT sum(pg_total_relation_size(t)) FROM unnest('{es_inbox_sequences,es_inbox_ranges,es_inbox_lost}'::regclass[]) AS t")
  plain=$(sql -At -d "$row" -c "SELECT pg_total_relation_size('plain_sequence')")
  line "storage of $(figure "$count") numbers by es_inbox_accept_sequence" bytes "$(figure "$es")" \
    'a row a number' "$(figure "$plain")" - - ''
  drop "$row"
}

# A message with a random id, a transaction each.
sample_es_put() { pgbench_rate "$row" 2 put_es.sql; }
sample_plain_put() { pgbench_rate "$row" 2 put_plain.sql; }

inbox_put() {
  fresh "$row"
  sql -d "$row" -f durable_tables.sql >/dev/null
  ready
  interleave es_put plain_put
  compare - es_put 'es_inbox_put, 2 clients' plain_put 'INSERT ... ON CONFLICT DO NOTHING into a queue'
  drop "$row"
}

# ran SCRIPT TABLE: RATE is the messages a second that 2 sessions handle, 100 a transaction, each in a subtransaction.
ran() {
  sql -d "$row" -c 'TRUNCATE effect'
  pgbench_rate "$row" 2 "$1"
  RATE=$(sql -At -d "$row" -c "SELECT count(*)::numeric / $((seconds > 0 ? seconds : 1)) FROM effect")
}
sample_es_run() { ran run_es.sql; }
sample_plain_run() { ran run_plain.sql; }

inbox_run() {
  local count=$((1000000 / shrink))
  fresh "$row"
  sql -d "$row" -f durable_tables.sql >/dev/null
  sql -d "$row" -v n="$count" -f durable_fill.sql >/dev/null
  tidy "$row"
  ready
  interleave es_run plain_run
  [ "$(sql -At -d "$row" -c 'SELECT backlog > 0 FROM es_inbox_status')" = t ] || note 'the inbox was empty before the end: the rate is too low'
  compare - es_run 'es_inbox_run, 100 messages a call, 2 sessions, 8 lanes' \
    plain_run 'FOR UPDATE SKIP LOCKED and an EXCEPTION block, no order' 1 messages/s
  drop "$row"
}
