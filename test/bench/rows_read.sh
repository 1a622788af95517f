# rows_read.sh: what reads cost, and what an event takes on disk. The rows share one database, which they do not change:
# streams of 100 events, ten at a time, so a stream's events lie scattered; "plain" has the same rows in the same order.

# shellcheck shell=bash
row read_stream_100 $((40 / shrink)) 2
row read_all_10000 $((5 / shrink)) 4
row fetch_10000 $((5 / shrink)) 2
row fetch_outbox_10000 $((20 / shrink)) 2
row size 0 0

read_streams=$((10000 / shrink)) # a million events at full scale
read_events=$((read_streams * 100))
batch=10000
[ "$scale" = full ] || batch=1000
read_made=no

# read_database: made once, by the first row that needs it.
read_database() {
  if [ "$read_made" = no ]; then
    fresh bench_read
    fill bench_read "$read_streams" 10 10
    fill_plain bench_read
    tidy bench_read
    copy_scripts
    read_made=yes
  fi
  ready
}

# Both sides: one client, the same streams, the same columns and as many bytes to the client.
sample_es_read_stream() {
  pgbench_rate bench_read 1 read_stream_es.sql -D streams=$((read_streams / 10)) -D events=100
}
sample_plain_read_stream() {
  pgbench_rate bench_read 1 read_stream_plain.sql -D streams=$((read_streams / 10)) -D events=100
}

read_stream_100() {
  read_database
  interleave es_read_stream plain_read_stream
  compare 0.9 es_read_stream 'es_read_stream, 100 events, 1 client' \
    plain_read_stream 'prepared SELECT of the same rows' 100 events/s
}

# Log reads: a sample is one pass over the whole log. The sides with a bar are what a consumer does, a prepared SELECT
# through libpq; theirs is pgbench's time without connecting. COPY is psql's \timing of the same rows in the same
# batches straight from the chunk, with the columns that the reads return and a constant for the stream's name; where
# each batch begins is known beforehand and costs nothing. Both clients take the rows and throw them away.
copy_columns="\"position\", 'order-12345', version, event_id, type, schema_version, source, data, metadata,
  correlation_id, causation_id, traceparent, COALESCE(occurred_at, recorded_at), recorded_at"

# copy_scripts: the psql scripts of the COPY sides.
copy_scripts() {
  local leaf
  leaf=$(only_leaf bench_read es_events) || exit 1
  copy_batches_of bench_read "$leaf" "$copy_columns" >"$ES_WORK/scripts/copy_batches.sql"
  batch_starts bench_read "$leaf" | awk -v batch="$batch" \
    '{ print "COPY (SELECT * FROM es_read_all(" $1 ", " batch ")) TO STDOUT;" }' >"$ES_WORK/scripts/copy_read_all.sql"
  echo "COPY $leaf TO STDOUT;" >"$ES_WORK/scripts/copy_leaf.sql"
}

# only_leaf DATABASE TABLE: the one chunk that has rows.
only_leaf() {
  local leaf
  leaf=$(sql -At -d "$1" -c "SELECT tableoid::regclass FROM $2 GROUP BY 1")
  [ "$(wc -w <<<"$leaf")" -eq 1 ] || es_die "the rows of $2 for the reads are in more than one chunk: $leaf"
  echo "$leaf"
}

# batch_starts DATABASE LEAF: the positions behind which batches begin.
batch_starts() {
  sql -At -d "$1" -c "SELECT 0 UNION ALL SELECT p FROM (SELECT \"position\" AS p, row_number() OVER w AS n,
    count(*) OVER () AS rows FROM $2 WINDOW w AS (ORDER BY \"position\")) AS e WHERE n % $batch = 0 AND n < rows ORDER BY 1"
}

# copy_batches_of DATABASE LEAF COLUMNS
copy_batches_of() {
  batch_starts "$1" "$2" | awk -v columns="${3//$'\n'/ }" -v leaf="$2" -v batch="$batch" '{
    print "COPY (SELECT " columns " FROM " leaf " WHERE \"position\" > " $1
    print "  ORDER BY \"position\" LIMIT " batch ") TO STDOUT;"
  }'
}

# copy_rate DATABASE ROWS SCRIPT: rows a second of a script that copies so many, by psql's own clock.
copy_rate() {
  local out
  out=$(sql -d "$1" -c '\timing on' -c '\o /dev/null' -f "$3") || es_die "$row: psql $3 failed"
  RATE=$(awk -v rows="$2" \
    '/^Time: / { ms += $2 } END { if (ms > 0) printf "%.3f", rows * 1000 / ms }' <<<"$out")
}

sample_es_read_all() {
  pgbench_rate bench_read 1 read_all_es.sql -t $((read_events / batch)) -D position=0 -D batch="$batch"
  RATE=$(scaled "$RATE" "$batch")
}
sample_es_read_all_by_copy() { copy_rate bench_read "$read_events" copy_read_all.sql; }
sample_copy_batches() { copy_rate bench_read "$read_events" copy_batches.sql; }
sample_copy_leaf() { copy_rate bench_read "$read_events" copy_leaf.sql; }

read_all_10000() {
  read_database
  interleave es_read_all copy_batches es_read_all_by_copy copy_leaf
  compare 0.6 es_read_all "es_read_all, batches of $batch" \
    copy_batches 'COPY of the same rows, same batches' 1 events/s
  compare - es_read_all_by_copy 'COPY (SELECT * FROM es_read_all(...))' \
    copy_batches 'COPY of the same rows, same batches' 1 events/s
  compare - es_read_all "es_read_all, batches of $batch" copy_leaf 'COPY of the whole chunk in one go' 1 events/s
}

# A subscription from the beginning to the end, each batch acknowledged, which is a commit of its own.
sample_es_fetch() { fetch_all bench_read events "$read_events"; }

# fetch_all DATABASE SOURCE ROWS
fetch_all() {
  sql -d "$1" -c "SELECT es_create_subscription('bench', 'beginning', source => '$2')" -o /dev/null
  consume "$1" $(($3 / batch)) "$batch"
  RATE=$(scaled "$RATE" "$batch")
  consumed_all "$1" "es_$2" || es_die "$row: the consumer did not get everything"
  sql -d "$1" -c "SELECT es_drop_subscription('bench')" -o /dev/null
}

fetch_10000() {
  read_database
  interleave es_fetch copy_batches
  compare 0.6 es_fetch "es_fetch and es_ack, batches of $batch" \
    copy_batches 'COPY of the same rows, same batches' 1 events/s
}

# The same of the outbox, in a database of its own: half a million messages of 100,000 keys, in one chunk. The columns
# are those of a message that es_fetch returns.
outbox_messages=$((500000 / shrink))
outbox_columns="\"position\", topic, key, message_id, type, payload, headers, correlation_id, causation_id, traceparent,
  created_at, created_at, payload_binary, content_type"

sample_es_fetch_outbox() { fetch_all bench_outbox outbox "$outbox_messages"; }
sample_copy_outbox() { copy_rate bench_outbox "$outbox_messages" copy_outbox.sql; }

fetch_outbox_10000() {
  local leaf
  fresh bench_outbox
  sql -d bench_outbox -v messages="$outbox_messages" -v data="$data" -f outbox_fill.sql
  tidy bench_outbox
  leaf=$(only_leaf bench_outbox es_outbox) || exit 1
  copy_batches_of bench_outbox "$leaf" "$outbox_columns" >"$ES_WORK/scripts/copy_outbox.sql"
  ready
  interleave es_fetch_outbox copy_outbox
  compare 0.6 es_fetch_outbox "es_fetch of the outbox and es_ack, batches of $batch" \
    copy_outbox 'COPY of the same rows, same batches' 1 messages/s
  drop bench_outbox
}

# Bytes on disk, divided by the events. Both tables grew in the same order and were vacuumed as usual, neither was
# rewritten; the plain table's ids are random, as gen_random_uuid() makes them.
size() {
  local what es plain
  read_database
  while IFS='|' read -r what es plain; do
    if [ "$plain" = 0.000 ]; then
      line "$what" bytes "$(figure "$es")" '' '' - - ''
    else
      line "$what" bytes "$(figure "$es")" 'plain table' "$(figure "$plain")" "$(ratio_of "$es" "$plain")" - ''
    fi
  done < <(sql -At -d bench_read -v events="$read_events" -f size.sql)
}
