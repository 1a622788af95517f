# rows_projection.sh: read models: bodies by set and by event, in the append and behind it, rebuilt and waited for.

# shellcheck shell=bash
row projection_body $((20 / shrink + 2)) 4
row projection_inline $((20 / shrink + 2)) 4
row projection_rebuild $((20 / shrink + 2)) 2
row projection_wait $((20 / shrink + 2)) 2

# Orders of ten events each, one after the other; a sample goes through all of them.
projection_orders=$((20000 / shrink))
projection_events=$((projection_orders * 10))

projection_database() {
  fresh "$1"
  sql -d "$1" -f projection.sql
}

quietly() { sql -d "$row" -o /dev/null -c "SET client_min_messages = warning" -c "$1"; }

# From the beginning to the end, into an empty table, in batches of so many; RATE is the batches a second.
sample_by() {
  quietly "TRUNCATE by_$1; SELECT es_seek_subscription('by_$1', 0)"
  pgbench_rate "$row" 1 projection_run.sql -D name="by_$1" -t $((projection_events / 1000))
  RATE=$(scaled "$RATE" 1000)
  [ "$(sql -At -d "$row" -c "SELECT sum(n) FROM by_$1")" = "$projection_events" ] || note "by_$1 did not get every event"
}
sample_by_handler() { sample_by handler; }
sample_by_set() { sample_by set; }

# Each event by itself, in a transaction of its own, as a consumer does that handles and acknowledges one at a time.
projection_ones=$((500 / shrink))
sample_by_one() {
  quietly "TRUNCATE by_handler; SELECT es_seek_subscription('by_handler', 0)"
  pgbench_rate "$row" 1 projection_one.sql -D name=by_handler -t "$projection_ones"
}

# The same without anything to apply: what fetching and acknowledging take.
sample_by_nothing() {
  quietly "SELECT es_seek_subscription('by_nothing', 0)"
  pgbench_rate "$row" 1 projection_run.sql -D name=by_nothing -t $((projection_events / 1000))
  RATE=$(scaled "$RATE" 1000)
}

projection_body() {
  projection_database "$row"
  fill "$row" "$projection_orders" 1 10
  quietly "SELECT es_create_projection('by_set', set_body()), es_create_projection('by_handler', handler => 'summarize(es_event)'),
                  es_create_projection('by_nothing', 'SELECT count(*) FROM es_batch')"
  tidy "$row"
  ready
  interleave by_handler by_set by_one by_nothing
  note "orders of ten events each, one after the other, 1,000 events a batch"
  compare 10 by_set 'a set-based body' by_handler 'a plpgsql handler, called for each event' 1 events/s
  compare 10 by_set 'a set-based body' by_one 'the handler, each event in a transaction of its own' 1 events/s
  compare - by_nothing 'a body that does nothing' by_handler 'the same' 1 events/s
  drop "$row"
}

# In the append: against the same append without, and a plain INSERT with and without a trigger that does the same.
projection_streams=$((10000 / shrink))
inline_is() {
  quietly "SELECT es_drop_projection(name) FROM es_projections"
  quietly "TRUNCATE by_handler, by_set, by_trigger"
  [ -z "$1" ] || quietly "$1"
}
sample_inline_none() { inline_is ''; pgbench_rate "$row" 1 append_es.sql -D streams="$projection_streams"; }
sample_inline_set() {
  inline_is "SELECT es_create_projection('by_set', set_body(), mode => 'inline')"
  pgbench_rate "$row" 1 append_es.sql -D streams="$projection_streams"
}
sample_plain_none() {
  quietly 'ALTER TABLE plain DISABLE TRIGGER summarize_plain'
  pgbench_rate "$row" 1 append_plain.sql -D streams="$projection_streams"
}
sample_plain_trigger() {
  quietly 'TRUNCATE by_trigger; ALTER TABLE plain ENABLE TRIGGER summarize_plain'
  pgbench_rate "$row" 1 append_plain.sql -D streams="$projection_streams"
}

projection_inline() {
  projection_database "$row"
  fill "$row" "$projection_streams" 1 1
  quietly 'CREATE TRIGGER summarize_plain AFTER INSERT ON plain FOR EACH ROW EXECUTE FUNCTION summarize_plain()'
  # Nobody waits for the disk: what is measured is the work.
  quietly "ALTER DATABASE $row SET synchronous_commit = off"
  tidy "$row"
  ready
  interleave inline_none inline_set plain_none plain_trigger
  note 'synchronous_commit = off, so that the work shows and not the disk'
  compare - inline_set 'es_append with an inline projection' inline_none 'the same without'
  compare - plain_trigger 'plain INSERT with a plpgsql trigger that does the same' plain_none 'the same without'
  compare - inline_set 'es_append with an inline projection' plain_trigger 'plain INSERT with a plpgsql trigger that does the same'
  drop "$row"
}

# A rebuild to its end, the swap included, in batches of 10,000.
sample_rebuild() {
  local begin=$EPOCHREALTIME
  quietly "SELECT es_rebuild_projection('by_set')"
  sql -d "$row" -o /dev/null -c "DO \$\$ BEGIN WHILE EXISTS (SELECT FROM es_projections WHERE NOT live) LOOP PERFORM es_run_projections('by_set'); COMMIT; END LOOP; END \$\$"
  RATE=$(awk -v n="$projection_events" -v a="${begin/,/.}" -v b="${EPOCHREALTIME/,/.}" 'BEGIN { print n / (b - a) }')
}
sample_statement() {
  local begin=$EPOCHREALTIME
  sql -d "$row" -o /dev/null -c 'TRUNCATE by_handler' -c "INSERT INTO by_handler SELECT s.name, count(*), sum((data->>'total')::numeric),
    (array_agg(data->>'status' ORDER BY version DESC))[1] FROM es_events JOIN es_streams AS s USING (stream_id) GROUP BY 1"
  RATE=$(awk -v n="$projection_events" -v a="${begin/,/.}" -v b="${EPOCHREALTIME/,/.}" 'BEGIN { print n / (b - a) }')
}

projection_rebuild() {
  projection_database "$row"
  fill "$row" "$projection_orders" 1 10
  quietly "SELECT es_create_projection('by_set', set_body())"
  sql -d "$row" -o /dev/null -c "DO \$\$ BEGIN WHILE es_run_projections() > 0 LOOP COMMIT; END LOOP; END \$\$"
  tidy "$row"
  ready
  interleave rebuild statement
  compare - rebuild 'es_rebuild_projection, to the swap' statement 'one INSERT ... SELECT over all events' 1 events/s
  drop "$row"
}

# Write and read it back: one client appends, and waits for the worker to have applied it.
sample_append_and_wait() { pgbench_rate "$row" 1 projection_wait.sql -D streams="$projection_streams"; }
sample_append_only() { pgbench_rate "$row" 1 append_es.sql -D streams="$projection_streams"; }

projection_wait() {
  projection_database "$row"
  fill "$row" "$projection_streams" 1 1
  quietly "SELECT es_create_projection('by_set', set_body()), es_start_worker()"
  await "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'es_pg projection worker'"
  tidy "$row"
  ready
  interleave append_and_wait append_only
  note 'a round trip is an append, its commit, the worker'"'"'s batch and its commit, and the wake-up'
  compare - append_and_wait 'es_append, and es_wait_for a projection, 1 client' append_only 'es_append alone (the worker applies it, too)'
  quietly 'SELECT es_stop_worker()'
  drop "$row"
}
