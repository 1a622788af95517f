# rows_lanes.sh: subscriptions with many lanes and members, and with many parked messages.

# shellcheck shell=bash
row fetch_64_lanes $((10 / shrink)) 2
row parked_keys $((60 / shrink)) 2

lane_streams=$((2000 / shrink))
lane_rounds=5 # of 100 events in each stream
[ "$scale" = full ] || lane_rounds=1

# consumed DATABASE SUBSCRIPTION MEMBERS BATCH: RATE is the messages a second that all members together get through in
# a sample, from the beginning; what is there must last for it.
consumed() {
  local left messages
  sql -d "$1" -c 'TRUNCATE bench_done'
  pgbench_rate "$1" "$3" consume_member.sql -D subscription="$2" -D batch="$4"
  messages=$(sql -At -d "$1" -c "SELECT sum(n) FROM bench_done")
  RATE=$(ratio_of "$messages" $((seconds > 0 ? seconds : 1)))
  spent_by "$messages"
  left=$(sql -At -d "$1" -c "SELECT lag_messages FROM es_subscription_status WHERE subscription = '$2'")
  [ "$left" -gt 0 ] || note "$2 was read to its end within a sample: the rate is too low"
}

# All members together against one; each gets the rows of its lanes, and each reads the log to find them.
lanes_sample() {
  sql -d bench_lanes -o /dev/null -c "SELECT es_create_subscription('lanes', 'beginning', lanes => $1)"
  # The members take their lanes before it counts.
  pgbench_rate bench_lanes "$2" consume_member.sql -D subscription=lanes -D batch=1 -t 20
  sql -d bench_lanes -o /dev/null -c "SELECT es_seek_subscription('lanes', 0)"
  pgbench_rate bench_lanes "$2" consume_member.sql -D subscription=lanes -D batch=1 -t 5
  consumed bench_lanes lanes "$2" 1000
  sql -d bench_lanes -o /dev/null -c "SELECT es_drop_subscription('lanes')"
}
sample_one_lane() { lanes_sample 1 1; }
sample_64_lanes() { lanes_sample 64 16; }

fetch_64_lanes() {
  fresh bench_lanes
  fill bench_lanes "$lane_streams" $((lane_rounds * 10)) 10
  sql -d bench_lanes -c 'CREATE TABLE bench_done (n bigint)'
  tidy bench_lanes
  ready
  interleave 64_lanes one_lane
  compare 0.8 64_lanes 'es_fetch and es_ack, 64 lanes, 16 members' one_lane 'the same, one lane, one member' 1 events/s
  drop bench_lanes
}

# 100,000 messages of 10,000 keys wait in "sick"; "well" has none. Both then read the same healthy events.
sample_sick() { keys_sample sick; }
sample_well() { keys_sample well; }
keys_sample() {
  sql -d bench_parked -o /dev/null -c "SELECT es_seek_subscription('$1', (SELECT max(\"position\") FROM es_events WHERE type = 'Sick'))"
  consumed bench_parked "$1" 1 1000
}

parked_keys() {
  local sick=$((10000 / shrink))
  fresh bench_parked
  sql -d bench_parked -v sick="$sick" -v data="$data" -f - <<'END'
CREATE TABLE bench_done (n bigint);
SELECT es_create_subscription('sick', 'beginning'), es_create_subscription('well', 'beginning') \g /dev/null
SELECT count(es_append('sick-' || s, 'Sick', :'data')) FROM generate_series(1, 10) AS pass, generate_series(1, :sick) AS s \g /dev/null
CREATE PROCEDURE bench_park() LANGUAGE plpgsql AS $$
DECLARE
    m record;
    last record;
BEGIN
    FOR i IN 1 .. 1000000 LOOP
        last := NULL;
        FOR m IN SELECT lane, epoch, position FROM es_fetch('sick', 'member0', 1000) LOOP
            last := m;
            PERFORM es_nack('sick', m.lane, m.epoch, m.position, 'sick', '10 days');
        END LOOP;
        IF last IS NOT NULL THEN
            PERFORM es_ack('sick', last.lane, last.epoch, last.position);
        END IF;
        COMMIT;
        EXIT WHEN (SELECT count(*) FROM es_parked) = (SELECT count(*) FROM es_events);
    END LOOP;
END $$;
CALL bench_park();
END
  fill bench_parked "$lane_streams" $((lane_rounds * 10)) 10
  tidy bench_parked
  ready
  interleave sick well
  compare 0.95 sick "healthy keys, $((sick * 10)) parked messages of $sick keys" well 'the same without' 1 events/s
  drop bench_parked
}
