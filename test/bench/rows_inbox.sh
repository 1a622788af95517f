# rows_inbox.sh: what it costs to handle a message once, by es_pg's inbox and by a table of one's own.

# shellcheck shell=bash
row inbox_1 $((30 / shrink)) 2
row inbox_32 $((30 / shrink)) 2
row inbox_batch $((30 / shrink)) 2
row inbox_size $((60 / shrink)) 0
row inbox_clean $((240 / shrink)) 0

inbox_known=$((1400000 / shrink))

inbox_database() {
  fresh "$1"
  sql -d "$1" -v known="$inbox_known" -f inbox_tables.sql >/dev/null
  tidy "$1"
}

# Both sides: a message with a random id that was not seen, a transaction and so a commit each.
sample_es_inbox() { pgbench_rate "$row" "$clients" inbox_es.sql; }
sample_plain_inbox() { pgbench_rate "$row" "$clients" inbox_plain.sql; }

inbox_with() {
  local clients=$1
  inbox_database "$row"
  ready
  interleave es_inbox plain_inbox
  compare 0.95 es_inbox "es_inbox_accept, clients: $clients" plain_inbox 'prepared INSERT ... ON CONFLICT DO NOTHING'
  drop "$row"
}

inbox_1() { inbox_with 1; }
inbox_32() { inbox_with 32; }

# A transaction is 1,000 messages.
sample_es_inbox_batch() { pgbench_rate "$row" 2 inbox_batch_es.sql; }
sample_plain_inbox_batch() { pgbench_rate "$row" 2 inbox_batch_plain.sql; }

inbox_batch() {
  inbox_database "$row"
  ready
  interleave es_inbox_batch plain_inbox_batch
  compare - es_inbox_batch 'es_inbox_accept_batch of 1,000, 2 clients' \
    plain_inbox_batch 'INSERT ... SELECT of 1,000 ON CONFLICT DO NOTHING' 1000 messages/s
  drop "$row"
}

# Bytes a message with its index: so many messages by their ids, one batch of 1,000 after the other.
inbox_size() {
  local count=$((1000000 / shrink)) es plain
  fresh "$row"
  sql -d "$row" -v known=0 -f inbox_tables.sql >/dev/null
  es_as "$ES_BIN/pgbench" -n -M prepared -t $((count / 1000)) -f inbox_batch_es.sql "$row" >/dev/null 2>&1 || es_die "$row: pgbench failed"
  es_as "$ES_BIN/pgbench" -n -M prepared -t $((count / 1000)) -f inbox_batch_plain.sql "$row" >/dev/null 2>&1 || es_die "$row: pgbench failed"
  ready
  es=$(sql -At -d "$row" -c "SELECT sum(bytes) FROM es_chunk_list WHERE of_table = 'es_inbox'")
  plain=$(sql -At -d "$row" -c "SELECT pg_total_relation_size('plain_inbox')")
  line 'es_inbox, random ids of 36 bytes' 'bytes' "$(figure "$(ratio_of "$es" "$count")")" \
    'the plain table' "$(figure "$(ratio_of "$plain" "$count")")" "$(ratio_of "$es" "$plain")" - ''
  drop "$row"
}

# timed_sql DATABASE SQL: RATE is its milliseconds.
timed_sql() {
  local begin=${EPOCHREALTIME/./}
  sql -d "$1" -c "$2" >/dev/null
  RATE=$(((${EPOCHREALTIME/./} - begin) / 1000))
}

# The time of ten million marks is over: what it takes to forget them.
inbox_clean() {
  local count=$((10000000 / shrink)) es plain
  fresh "$row"
  sql -d "$row" -v known=0 -f inbox_tables.sql >/dev/null
  sql -d "$row" -c "SELECT es_restore_chunks(ARRAY[format('es_inbox_%s', (div(extract(epoch FROM now())::numeric - 946684800, 604800) - 2) * 604800000000)])" \
    -c "INSERT INTO es_inbox SELECT now() - interval '336 hours', 1, gen_random_uuid() FROM generate_series(1, $count)" \
    -c "INSERT INTO plain_inbox SELECT now() - interval '336 hours', 'shipping', gen_random_uuid()::text FROM generate_series(1, $count)"
  ready
  timed_sql "$row" 'SELECT es_retire_chunks()'
  es=$RATE
  [ "$(sql -At -d "$row" -c 'SELECT count(*) FROM es_inbox')" = 0 ] || es_die "$row: marks are left"
  timed_sql "$row" "DELETE FROM plain_inbox WHERE accepted_at < now() - interval '7 days'"
  plain=$RATE
  timed_sql "$row" 'VACUUM plain_inbox'
  line "forgetting $(figure "$count") messages: es_retire_chunks()" ms "$(figure "$es")" \
    'DELETE, and then VACUUM' "$(figure "$plain") and $(figure "$RATE")" "$(ratio_of "$es" "$((plain + RATE + 1))")" - ''
  drop "$row"
}
