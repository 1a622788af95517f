# rows_relay.sh: es-relay with the sink kafka, to librdkafka's mock cluster, which is fast and remembers little.

# shellcheck shell=bash
row relay_kafka $((60 / shrink + rounds * 20 / shrink + 2)) 4
row relay_latency $((rounds * 7 / shrink + 5)) 0

# kafka_begin TOPIC:PARTITIONS: sets brokers.
kafka_begin() {
  local fifo=$ES_WORK/tmp/kafka
  es_as mkfifo "$fifo.in" "$fifo.out"
  es_as ./kafka_mock - 1 "$@" <"$fifo.in" >"$fifo.out" 2>"$ES_WORK/tmp/kafka.log" &
  kafka_pid=$!
  exec {kafka_fd}>"$fifo.in"
  read -r brokers <"$fifo.out" || es_die "$row: no mock cluster: $(cat "$ES_WORK/tmp/kafka.log")"
  rm -f "$fifo.in" "$fifo.out"
}

kafka_end() {
  exec {kafka_fd}>&-
  wait "$kafka_pid"
}

# relay_config DATABASE TOPIC: to $ES_WORK/tmp/relay.conf
relay_config() {
  es_as tee "$ES_WORK/tmp/relay.conf" >/dev/null <<END
[database]
conninfo = host=$PGHOST port=$PGPORT dbname=$1
maintain_interval_s = 0
[pipeline]
subscription = bench
[sink]
type = kafka
brokers = $brokers
topic = $2
[log]
level = warning
END
}

# Both sides send the same rows with keys, the same settings of librdkafka and ten headers; each begins with nothing and ends
# when the last message is confirmed. Starting the process, connecting and reading the first metadata are part of it.
relay_events=$((200000 / shrink))
relay_headers=(ce_specversion=1.0 ce_id=0199e0a0-0000-7000-8000-000000000001 ce_source=/es_pg/relay_kafka ce_type=OrderPlaced
  ce_subject=order-4711 ce_time=2026-11-21T12:00:00.000000Z ce_position=1234567
  ce_incarnation=0199e0a0-0000-7000-8000-000000000002 ce_streamversion=17 content-type=application/json)

# seconds_of FILE COMMAND...: runs it; RATE is the events a second, and FILE gets its CPU seconds.
rate_of() {
  local file=$1 start=${EPOCHREALTIME/[.,]/} TIMEFORMAT='%U %S'
  shift
  { time "$@" 2>"$ES_WORK/tmp/errors"; } 2>>"$file" || es_die "$row: $* failed: $(cat "$ES_WORK/tmp/errors")"
  RATE=$(scaled "$relay_events" "$(ratio_of 1000000 $((${EPOCHREALTIME/[.,]/} - start)))")
}

# child_of PID: what a background es_as has started.
child_of() { awk '{ print $1 }' "/proc/$1/task/$1/children" 2>/dev/null; }

# The relay, and beside it somebody who looks how large it gets.
relay_once() {
  local shell
  es_as "$ES_RELAY" --config "$ES_WORK/tmp/relay.conf" --once &
  shell=$!
  while [ -e "/proc/$shell" ]; do
    awk '/^VmHWM/ { print $2 }' "/proc/$(child_of "$shell")/status" 2>/dev/null >>"$ES_WORK/tmp/$row.size"
    sleep 0.1
  done
  wait "$shell"
}

relay_side() {
  sql -d relay_kafka -o /dev/null -c "SELECT es_create_subscription('bench', 'beginning', categories => '{$1}', lanes => 4)"
  relay_config relay_kafka orders
  rate_of "$ES_WORK/tmp/$row.cpu" relay_once
  sql -d relay_kafka -o /dev/null -c "SELECT es_drop_subscription('bench')"
}

copy_piped() {
  es_psql -d relay_kafka -c "COPY (SELECT key, data FROM plain_$1 ORDER BY n) TO STDOUT" |
    es_as kcat -P -b "$brokers" -t orders -K $'\t' -X enable.idempotence=true -X linger.ms=1 -X socket.nagle.disable=true \
      -X partitioner=murmur2_random "${relay_headers[@]/#/-H}"
}

copy_side() { rate_of "$ES_WORK/tmp/$row.copy_cpu" copy_piped "$1"; }

sample_relay_200() { relay_side small; }
sample_copy_200() { copy_side small; }
sample_relay_1000() { relay_side large; }
sample_copy_1000() { copy_side large; }

relay_fill() {
  local batch=$((relay_events / 1000 > 0 ? 1000 : relay_events))
  sql -d relay_kafka -v data="$2" -v name="$1" -v batches=$((relay_events / batch)) -v batch=$batch -o /dev/null -f - <<'END'
SET synchronous_commit = off;
SELECT count(*) FROM generate_series(1, :batches) AS i,
       es_append_batch(:'name' || '-' || i % 100, array_fill('OrderPlaced'::text, ARRAY[:batch]), array_fill(:'data'::jsonb, ARRAY[:batch]));
CREATE TABLE plain_:name AS
SELECT row_number() OVER (ORDER BY e."position") AS n, s.name AS key, e.data
  FROM es_events AS e JOIN es_streams AS s USING (stream_id) WHERE s.name LIKE :'name' || '-%';
END
}

relay_kafka() {
  local pad cpu
  pad=$(printf 'x%.0s' {1..850})
  fresh relay_kafka
  relay_fill small "$data"
  relay_fill large "${data%\}}, \"pad\": \"$pad\"}"
  tidy relay_kafka
  ready
  kafka_begin orders:4
  interleave relay_200 copy_200 relay_1000 copy_1000
  kafka_end
  compare - relay_200 'es-relay to Kafka, data of 200 bytes' copy_200 'COPY TO STDOUT | kcat -P, 10 headers' 1 messages/s
  compare 0.5 relay_1000 'es-relay to Kafka, data of 1 KB' copy_1000 'COPY TO STDOUT | kcat -P, 10 headers' 1 messages/s
  cpu=$(awk -v n="$relay_events" '{ s += $1 + $2; k++ } END { printf "%.1f", s / k / n * 1e6 }' "$ES_WORK/tmp/relay_kafka.cpu")
  note "es-relay took $cpu CPU seconds a million messages, and was at most $(sort -n "$ES_WORK/tmp/relay_kafka.size" | tail -n 1) kB in memory"
  cpu=$(awk -v n="$relay_events" '{ s += $1 + $2; k++ } END { printf "%.1f", s / k / n * 1e6 }' "$ES_WORK/tmp/relay_kafka.copy_cpu")
  note "psql and kcat took $cpu CPU seconds a million messages"
  drop relay_kafka
}

# At 1,000 messages a second: from the statement that publishes to a consumer of Kafka, so with the commit, the relay, its
# linger, Kafka, and the consumer's fetch. Beside it a bare NOTIFY, from session to session.
relay_latency_seconds=5
[ "$scale" = full ] || relay_latency_seconds=1

relay_latency() {
  local round relay consumer
  fresh relay_notify
  sql -d relay_notify -o /dev/null -c 'CREATE TABLE noted (n integer)' -c "SELECT es_create_subscription('bench', 'end', source => 'outbox')"
  fresh relay_latency
  sql -d relay_latency -o /dev/null -c "SELECT es_create_subscription('bench', 'end', source => 'outbox')"
  echo "SELECT es_publish('orders', 'OrderNoted', '{\"order\": 4711}', key => '42');" >"$ES_WORK/tmp/publish.sql"
  ready
  kafka_begin orders:1
  relay_config relay_latency orders
  # Who else has the writing end of the mock's input keeps it alive.
  es_as "$ES_RELAY" --config "$ES_WORK/tmp/relay.conf" 2>"$ES_WORK/tmp/relay.log" {kafka_fd}>&- &
  relay=$!
  for ((round = 1; round <= rounds; round++)); do
    : >"$ES_WORK/tmp/arrived"
    es_as kcat -C -q -u -b "$brokers" -t orders -o end -f '%h\n' -X fetch.wait.max.ms=5 2>/dev/null |
      perl -MTime::HiRes=time -MTime::Local -ne '
        BEGIN { $| = 1 } my $now = time;
        /ce_time=(\d+)-(\d+)-(\d+)T(\d+):(\d+):(\d+)\.(\d+)Z/ or next;
        printf "latency %.3f\n", 1000 * ($now - timegm($6, $5, $4, $3, $2 - 1, $1) - "0.$7")' >"$ES_WORK/tmp/arrived" &
    consumer=$!
    pgbench_rate relay_latency 1 "$ES_WORK/tmp/publish.sql" -R 1000 -T "$relay_latency_seconds"
    sleep 1
    es_pids_in "$ES_WORK/scripts" | while read -r pid; do [ "$(cat "/proc/$pid/comm" 2>/dev/null)" != kcat ] || kill "$pid"; done
    wait "$consumer"
    PGDATABASE=relay_notify latencies wake 200 >"$ES_WORK/tmp/notified" || exit 1
    percentile 50 latency <"$ES_WORK/tmp/arrived" >>"$ES_WORK/samples/$row.relay_50"
    percentile 99 latency <"$ES_WORK/tmp/arrived" >>"$ES_WORK/samples/$row.relay_99"
    percentile 50 notify <"$ES_WORK/tmp/notified" >>"$ES_WORK/samples/$row.notify_50"
    percentile 99 notify <"$ES_WORK/tmp/notified" >>"$ES_WORK/samples/$row.notify_99"
    progress "round $round/$rounds"
  done
  kill "$(child_of "$relay")" && wait "$relay"
  kafka_end
  compare - relay_50 'es_publish at 1,000/s, until a consumer of Kafka has it, median' notify_50 'bare NOTIFY round trip, median' 1000 us
  compare - relay_99 'es_publish at 1,000/s, until a consumer of Kafka has it, p99' notify_99 'bare NOTIFY round trip, p99' 1000 us
  drop relay_latency relay_notify
}
