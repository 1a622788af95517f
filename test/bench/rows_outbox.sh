# rows_outbox.sh: what a publish costs. Each row has a database with both sides in it, which start empty and grow alike.

# shellcheck shell=bash
row publish_1 2 2
row publish_32 2 2
row publish_batch 2 2

outbox_database() {
  fresh "$1"
  sql -d "$1" -f plain_outbox.sql -c 'SELECT es_prepare_chunks()' >/dev/null
}

# Both sides: the same payload as a parameter, a key at random, a transaction and so a commit each.
sample_es_publish() { pgbench_rate "$row" "$clients" publish_es.sql; }
sample_plain_publish() { pgbench_rate "$row" "$clients" publish_plain.sql; }

publish_with() {
  local clients=$1
  outbox_database "$row"
  ready
  interleave es_publish plain_publish
  compare 0.95 es_publish "es_publish, clients: $clients" plain_publish 'prepared INSERT, same columns and index'
  drop "$row"
}

publish_1() { publish_with 1; }
publish_32() { publish_with 32; }

# A transaction is 1,000 messages or rows. See publish_batch_es.sql and publish_batch_plain.sql.
sample_es_publish_batch() { pgbench_rate "$row" 2 publish_batch_es.sql; }
sample_plain_publish_batch() { pgbench_rate "$row" 2 publish_batch_plain.sql; }

publish_batch() {
  outbox_database "$row"
  ready
  interleave es_publish_batch plain_publish_batch
  compare 1.4 es_publish_batch 'es_publish_batch of 1,000, 2 clients' \
    plain_publish_batch 'INSERT ... SELECT of 1,000 rows' 1000 messages/s
  drop "$row"
}
