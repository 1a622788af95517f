# rows_append.sh: what an append costs. Each row has a database with both sides in it, which start with the same events
# and grow alike.

# shellcheck shell=bash
row append_1 $((15 / shrink)) 2
row append_32 $((15 / shrink)) 2
row batch_1000 $((15 / shrink)) 2
row category_lock $((15 / shrink)) 2
row held_xmin $((held_seconds + 5 / shrink)) 2

append_streams=$((100000 / shrink))

append_database() {
  fresh "$1"
  fill "$1" "$append_streams" 1 1
  fill_plain "$1"
  tidy "$1"
}

# Both sides: the same streams at random, the same data as a parameter, a transaction and so a commit each.
# es_append finds and locks the stream, draws version and position without holes in the version, and answers;
# the INSERT does none of that. See append_es.sql and append_plain.sql.
sample_es_append() { pgbench_rate "$row" "$clients" append_es.sql -D streams="$append_streams"; }
sample_plain_insert() { pgbench_rate "$row" "$clients" append_plain.sql -D streams="$append_streams"; }

append_with() {
  local clients=$1
  append_database "$row"
  ready
  interleave es_append plain_insert
  compare 0.95 es_append "es_append, clients: $clients" plain_insert 'prepared INSERT, same columns and indexes'
  drop "$row"
}

append_1() { append_with 1; }
append_32() { append_with 32; }

# A transaction is 1,000 events or rows, all of one stream. See batch_es.sql and batch_plain.sql.
sample_es_append_batch() { pgbench_rate "$row" 2 batch_es.sql -D streams="$append_streams"; }
sample_plain_batch() { pgbench_rate "$row" 2 batch_plain.sql -D streams="$append_streams"; }

batch_1000() {
  append_database "$row"
  ready
  interleave es_append_batch plain_batch
  compare 1.4 es_append_batch 'es_append_batch of 1,000, 2 clients' \
    plain_batch 'INSERT ... SELECT of 1,000 rows' 1000 events/s
  drop "$row"
}

# The peer guarantees the same to a reader of one category, with no concurrency between its writers. Both are called
# alike, with the stream's name, and answer with version, position and id.
sample_lock_append() { pgbench_rate "$row" 32 append_lock.sql -D streams="$append_streams"; }

category_lock() {
  local clients=32
  append_database "$row"
  sql -d "$row" -v data="$data" -f peers.sql -f - <<'END'
INSERT INTO lock_events (version, category, stream, type, data)
SELECT 0, 'order', s.name, 'OrderPlaced', :'data' FROM es_streams AS s ORDER BY s.stream_id;
END
  tidy "$row"
  ready
  interleave es_append lock_append
  compare 4 es_append 'es_append, 32 clients, one category' lock_append 'plpgsql append, advisory lock per category'
  drop "$row"
}

# A snapshot holds back the clean-up of its own database only. So there are two alike in one cluster: in one of them a
# session has sat in REPEATABLE READ since before the first sample. Both get the same load by turns until that snapshot
# is as old as asked for, so that whatever can pile up does; then the samples alternate between the two.
sample_held() { pgbench_rate held 4 append_hot.sql; }
sample_rest() { pgbench_rate rest 4 append_hot.sql; }

# age_snapshot: the load until the snapshot has its age, in turns of some seconds.
age_snapshot() {
  local age end=$((SECONDS + held_seconds)) seconds=$((seconds > 0 ? seconds : 1))
  while [ "$SECONDS" -lt "$end" ]; do
    sample_held
    sample_rest
    age=$((held_seconds - (end - SECONDS)))
    work_done=$((row_begin + age))
    progress "the held snapshot is $age s of $held_seconds s old"
  done
}

held_xmin() {
  local database
  for database in held rest; do
    fresh $database
    fill $database 4 1 1
    tidy $database
  done
  hold old_snapshot held 'BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM es_streams;'
  age_snapshot
  ready
  interleave held rest
  compare 0.9 held "es_append, 4 hot streams, xmin held ${held_seconds} s" rest 'the same at rest'
  release old_snapshot
  drop held rest
}
