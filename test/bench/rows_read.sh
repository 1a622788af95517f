# rows_read.sh: what reads cost, and what an event takes on disk. The rows share one database, which they do not change:
# streams of 100 events, ten at a time, so a stream's events lie scattered; "plain" has the same rows in the same order.

# shellcheck shell=bash
row read_stream_100 $((40 / shrink)) 2
row read_all_10000 $((5 / shrink)) 4
row fetch_10000 $((5 / shrink)) 2
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
  local leaf starts
  leaf=$(sql -At -d bench_read -c 'SELECT tableoid::regclass FROM es_events GROUP BY 1')
  [ "$(wc -w <<<"$leaf")" -eq 1 ] || es_die "the events for the reads are in more than one chunk: $leaf"
  starts=$(sql -At -d bench_read -c "SELECT 0 UNION ALL SELECT p FROM (SELECT \"position\" AS p, row_number()
    OVER (ORDER BY \"position\") AS n FROM es_events) AS e WHERE n % $batch = 0 AND n < $read_events ORDER BY 1")
  awk -v columns="${copy_columns//$'\n'/ }" -v leaf="$leaf" -v batch="$batch" '{
    print "COPY (SELECT " columns " FROM " leaf " WHERE \"position\" > " $1
    print "  ORDER BY \"position\" LIMIT " batch ") TO STDOUT;"
  }' <<<"$starts" >"$ES_WORK/scripts/copy_batches.sql"
  awk -v batch="$batch" '{ print "COPY (SELECT * FROM es_read_all(" $1 ", " batch ")) TO STDOUT;" }' \
    <<<"$starts" >"$ES_WORK/scripts/copy_read_all.sql"
  echo "COPY $leaf TO STDOUT;" >"$ES_WORK/scripts/copy_leaf.sql"
}

# copy_rate SCRIPT: rows a second of a script that copies all events, by psql's own clock.
copy_rate() {
  local out
  out=$(sql -d bench_read -c '\timing on' -c '\o /dev/null' -f "$1") || es_die "$row: psql $1 failed"
  RATE=$(awk -v rows="$read_events" \
    '/^Time: / { ms += $2 } END { if (ms > 0) printf "%.3f", rows * 1000 / ms }' <<<"$out")
}

sample_es_read_all() {
  pgbench_rate bench_read 1 read_all_es.sql -t $((read_events / batch)) -D position=0 -D batch="$batch"
  RATE=$(scaled "$RATE" "$batch")
}
sample_es_read_all_by_copy() { copy_rate copy_read_all.sql; }
sample_copy_batches() { copy_rate copy_batches.sql; }
sample_copy_leaf() { copy_rate copy_leaf.sql; }

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
sample_es_fetch() {
  sql -d bench_read -c "SELECT es_create_subscription('bench', 'beginning')" -o /dev/null
  consume bench_read $((read_events / batch)) "$batch"
  RATE=$(scaled "$RATE" "$batch")
  consumed_all bench_read || es_die "$row: the consumer did not get everything"
  sql -d bench_read -c "SELECT es_drop_subscription('bench')" -o /dev/null
}

fetch_10000() {
  read_database
  interleave es_fetch copy_batches
  compare 0.6 es_fetch "es_fetch and es_ack, batches of $batch" \
    copy_batches 'COPY of the same rows, same batches' 1 events/s
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
