# rows_latency.sh: how soon. What is measured is time and not rates; test/bench/latency.c says how.

# shellcheck shell=bash
row wake_up $((rounds * 4 / shrink + 2)) 0
row takeover $((rounds * 5 / shrink + 2)) 0

latency_database() {
  fresh "$row"
  sql -d "$row" -c 'CREATE TABLE noted (n integer)'
}

# Of each round the median and the 99th percentile of so many wake-ups; the kinds alternate. Publishing and the INSERT wait
# for their commit to be on disk before anybody is told, a bare NOTIFY has nothing to wait for.
wake_samples=$((500 / shrink))

wake_up() {
  local round name out published='es_publish, until es_fetch(wait) has it'
  latency_database
  sql -d "$row" -o /dev/null -c "SELECT es_create_subscription('bench', 'end', source => 'outbox')"
  ready
  for ((round = 1; round <= rounds; round++)); do
    out=$(PGDATABASE=$row latencies wake "$wake_samples") || exit 1
    for name in fetch publish notify insert; do
      percentile 50 $name <<<"$out" >>"$ES_WORK/samples/$row.${name}_50"
      percentile 99 $name <<<"$out" >>"$ES_WORK/samples/$row.${name}_99"
    done
    progress "round $round/$rounds"
  done
  compare - fetch_50 "$published, median" notify_50 'bare NOTIFY round trip, median' 1000 us
  compare - fetch_99 "$published, p99" notify_99 'bare NOTIFY round trip, p99' 1000 us
  compare - fetch_50 "$published, median" insert_50 'INSERT and NOTIFY in one transaction, until heard, median' 1000 us
  compare - fetch_99 "$published, p99" insert_99 'INSERT and NOTIFY in one transaction, until heard, p99' 1000 us
  compare - fetch_50 "$published, median" publish_50 'until es_publish itself has returned, median' 1000 us
  drop "$row"
}

# A process that is a member and has the only lane is killed, its backend finds nobody at the other end, and another member
# that waits in es_fetch gets the lane: at once where the killed one was session_bound, else when its lease is over. The
# first kill does not count: a server that has just started waits a lease for the owners that it does not know.
takeover() {
  local lease=2 side
  [ "$scale" = full ] || lease=1
  latency_database
  sql -d "$row" -o /dev/null -c "SELECT es_create_subscription('bench', 'beginning', source => 'outbox', lease_time => '$lease s')" \
    -c "SELECT es_publish('orders', 'OrderNoted', '{}')"
  ready
  PGDATABASE=$row latencies takeover 1 true '1 s' >/dev/null || exit 1
  PGDATABASE=$row latencies takeover $((rounds * 4)) true '1 s' >"$ES_WORK/tmp/bound" || exit 1
  PGDATABASE=$row latencies takeover "$rounds" false '1 s' >"$ES_WORK/tmp/leased" || exit 1
  for side in bound leased; do awk '{ print $2 }' "$ES_WORK/tmp/$side" >"$ES_WORK/samples/$row.$side"; done
  line "kill -9 of a session_bound member, $((rounds * 4)) times" ms "$(shown 1 $(spread bound))" '' '' - - ''
  line "kill -9 of another, $rounds times, lease_time $lease s" ms "$(shown 1 $(spread leased))" '' '' - - ''
  drop "$row"
}
