# rows_chunk.sh: what many chunks cost those who use old ones.

# shellcheck shell=bash
row cold_chunks $((60 / shrink)) 4

# Two databases get the same streams of 10 events, one stream after the other; they differ in es_pg.event_chunk_size
# alone, so in one of them the streams lie in 1,000 chunks and in the other in one. Afterwards both go on in one large
# chunk, so that nobody measures the making of chunks. A read is of any of the streams. An append is the first to its
# stream since the load: it finds the head in an old chunk and writes to the newest, and the next append takes another
# stream. In each sample the session is new and has to open every chunk once; that is part of it.
cold_streams=$((100000 / shrink))
cold_events=10
cold_chunks=1000
[ "$scale" = full ] || cold_chunks=20
cold_size=$((cold_streams * cold_events / cold_chunks))

cold_database() {
  fresh "$1"
  sql -c "ALTER DATABASE $1 SET es_pg.event_chunk_size = $2"
  fill "$1" "$cold_streams" 1 "$cold_events"
  sql -c "ALTER DATABASE $1 RESET es_pg.event_chunk_size"
  sql -d "$1" -v data="$data" -f large_chunk.sql
  tidy "$1"
}

# chunks_of DATABASE: how many chunks have events of the streams.
chunks_of() {
  sql -At -d "$1" -c "SELECT count(DISTINCT e.tableoid) FROM es_events AS e JOIN es_streams AS s USING (stream_id)
    WHERE s.name LIKE 'order-%'"
}

sample_read_many() { pgbench_rate cold_many 1 read_stream_es.sql -D streams="$cold_streams" -D events="$cold_events"; }
sample_read_one() { pgbench_rate cold_one 1 read_stream_es.sql -D streams="$cold_streams" -D events="$cold_events"; }
sample_append_many() { append_cold cold_many; }
sample_append_one() { append_cold cold_one; }

# append_cold DATABASE: the next so many streams that no sample has had.
append_cold() {
  local count=$((cold_streams / (rounds + warm)))
  pgbench_rate "$1" 1 append_cold.sql -t "$count" -D streams="$cold_streams" -D n="${cold_next[$1]}"
  cold_next[$1]=$((${cold_next[$1]} + count))
}

cold_chunks() {
  local -A cold_next=([cold_many]=0 [cold_one]=0)
  local many
  cold_database cold_many "$cold_size"
  cold_database cold_one 16000000
  many="$(chunks_of cold_many) chunks"
  ready
  interleave read_many read_one append_many append_one
  compare 0.8 read_many "es_read_stream of $cold_events events, $many" read_one "the same, $(chunks_of cold_one) chunk"
  compare 0.8 append_many "es_append to a cold stream, $many" append_one "the same, $(chunks_of cold_one) chunk"
  drop cold_many cold_one
}
