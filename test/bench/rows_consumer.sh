# rows_consumer.sh: consumers beside other things: open transactions, writers that are to wake them.

# shellcheck shell=bash
row open_transaction $((15 / shrink + 5 * (rounds + warm) * open_seconds)) 5
row armed_notify $((15 / shrink)) 3
row publish_consumer 2 2

# What a consumer gets while somebody's transaction is open. Each sample opens that transaction, lets 4 clients append
# until it is as old as asked for, then has a backlog written, and measures how fast the consumer gets through it. All
# that is delivered was written after the transaction began: a reader that waited for its end would get nothing. With
# "xid" the transaction has written, in a table of its own; it is in the consumer's database or in another one.
open_batches=200
[ "$scale" = full ] || open_batches=20

open_sample() {
  local database=$1 sql=$2 streams
  [ -z "$database" ] || hold open_transaction "$database" "$sql"
  streams=$((append_streams < 1000 ? append_streams : 1000))
  [ "$open_seconds" -eq 0 ] ||
    pgbench_rate open_here 4 append_es.sql -D streams="$streams" -T "$open_seconds"
  sql -d open_here -o /dev/null -c "SELECT es_create_subscription('bench', 'end')"
  sql -d open_here -o /dev/null -v batches="$open_batches" -v data="$data" -f - <<'END'
SELECT count(*) FROM generate_series(1, :batches) AS i,
       es_append_batch('order-' || i, array_fill('OrderNoted'::text, '{1000}'), array_fill(:'data'::jsonb, '{1000}'));
END
  consume open_here "$open_batches" 1000
  RATE=$(scaled "$RATE" 1000)
  consumed_all open_here || { RATE=0; note "the consumer did not get all that was committed"; }
  sql -d open_here -o /dev/null -c "SELECT es_drop_subscription('bench')"
  [ -z "$database" ] || release open_transaction
}

open_snapshot='BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM pg_class;'
open_xid="BEGIN ISOLATION LEVEL REPEATABLE READ; INSERT INTO somebodys VALUES (1);"

sample_open_none() { open_sample '' ''; }
sample_open_here() { open_sample open_here "$open_snapshot"; }
sample_open_here_xid() { open_sample open_here "$open_xid"; }
sample_open_there() { open_sample open_there "$open_snapshot"; }
sample_open_there_xid() { open_sample open_there "$open_xid"; }

open_transaction() {
  local database name
  sql -c 'CREATE DATABASE open_there'
  fresh open_here
  fill open_here "$append_streams" 1 1
  for database in open_here open_there; do sql -d $database -c 'CREATE TABLE somebodys (n integer)'; done
  tidy open_here
  ready
  interleave open_none open_here open_here_xid open_there open_there_xid
  note "each transaction was open for $open_seconds s of appends, and while the backlog was written and read"
  name="es_fetch of 1,000, transaction open"
  compare 0.95 open_here "$name here" open_none "the same without" 1 events/s
  compare 0.95 open_here_xid "$name here, with an xid" open_none "the same without" 1 events/s
  compare 0.95 open_there "$name elsewhere" open_none "the same without" 1 events/s
  compare 0.95 open_there_xid "$name elsewhere, with an xid" open_none "the same without" 1 events/s
  drop open_here open_there
}

# What waking a consumer costs the writers: 32 clients append, and one consumer long-polls in es_fetch and acknowledges.
# Under load es_pg notifies nobody, because nobody waits. The other way is a NOTIFY in each transaction, here in the
# same statement as the append, with the same consumer, who also listens. Measured are the writers.
sample_without_consumer() { pgbench_rate armed_notify 32 append_es.sql -D streams="$append_streams"; }
sample_with_consumer() { beside_consumer armed_notify events 0 append_es.sql -D streams="$append_streams"; }
sample_notify_each() { beside_consumer armed_notify events 1 append_notify.sql -D streams="$append_streams"; }

# beside_consumer DATABASE SOURCE LISTEN SCRIPT [pgbench's options]: 32 writers while a new subscription is consumed.
beside_consumer() {
  local database=$1 source=$2 listen=$3 script=$4
  shift 4
  sql -d "$database" -o /dev/null -c "SELECT es_create_subscription('bench', 'end', source => '$source')"
  consume_beside "$database" "$listen"
  pgbench_rate "$database" 32 "$script" "$@"
  consume_end
  consumed_all "$database" "es_$source" || note "a second after a sample of $script the consumer was still behind"
  sql -d "$database" -o /dev/null -c "SELECT es_drop_subscription('bench')"
}

armed_notify() {
  local without='the same without a consumer'
  append_database armed_notify
  ready
  interleave without_consumer with_consumer notify_each
  compare - with_consumer 'es_append, 32 clients, a consumer attached' without_consumer "$without"
  compare - notify_each 'the same and NOTIFY in each transaction' without_consumer "$without"
  drop armed_notify
}

# The same of es_publish: what a consumer that keeps up costs the publishers, on the processors that they share.
sample_publish_alone() { pgbench_rate publish_consumer 32 publish_es.sql; }
sample_publish_consumed() { beside_consumer publish_consumer outbox 0 publish_es.sql; }

publish_consumer() {
  outbox_database publish_consumer
  ready
  interleave publish_consumed publish_alone
  compare 0.9 publish_consumed 'es_publish, 32 clients, a consumer attached that keeps up' \
    publish_alone 'the same without a consumer'
  drop publish_consumer
}
