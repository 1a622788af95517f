# rows_snapshot.sh: what the state of a long stream costs: with and without a snapshot, by a built-in reducer and by a function.
# The rows share one database, which they do not change.

# shellcheck shell=bash
row state_100000 $((10 / shrink + 2)) 2
row fold_builtin $((5 / shrink + 1)) 6

state_events=$((100000 / shrink))
state_behind=50 # events after the snapshot, half of what a policy lets be by default
state_made=no

state_database() {
  if [ "$state_made" = no ]; then
    fresh bench_state
    sql -d bench_state -v events="$state_events" -v behind="$state_behind" -f state_tables.sql
    tidy bench_state
    state_made=yes
  fi
  ready
}

# One client; the state goes to the client.
sample_state_snapshot() { pgbench_rate bench_state 1 state.sql -D stream=account-1; }
sample_state_whole() { pgbench_rate bench_state 1 state.sql -D stream=account-2; }

state_100000() {
  state_database
  interleave state_snapshot state_whole
  compare - state_snapshot "es_state of $state_events events, a snapshot $state_behind events back" \
    state_whole 'the same without a snapshot'
}

# By processor time of the backend: RATE is events a second of it. A plpgsql count by order writes a state that grows to a
# thousand members anew for each event.
fold_rate() {
  RATE=$(sql -d bench_state -At -v reducer="$1" -v times="$2" <<<"SELECT folds(:'reducer', :times)") || exit 1
}
sample_fold_sum() { fold_rate 'sum {"path": "$.amount"}' 10; }
sample_fold_plpgsql_sum() { fold_rate plpgsql_sum 2; }
sample_fold_merge() { fold_rate merge_patch 5; }
sample_fold_plpgsql_merge() { fold_rate plpgsql_merge 2; }
sample_fold_count() { fold_rate 'count {"by": "$.order"}' 5; }
sample_fold_plpgsql_count() { fold_rate plpgsql_count 1; }

fold_builtin() {
  state_database
  interleave fold_sum fold_plpgsql_sum fold_merge fold_plpgsql_merge fold_count fold_plpgsql_count
  compare - fold_sum "built-in sum over $state_events events, by processor time" fold_plpgsql_sum 'the same in plpgsql' 1 events/s
  compare - fold_merge 'built-in merge_patch' fold_plpgsql_merge 'state || event.data in plpgsql' 1 events/s
  compare - fold_count "built-in count of $((state_events / 100)) groups" fold_plpgsql_count 'the same in plpgsql' 1 events/s
}
