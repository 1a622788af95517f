# rows_capture.sh: what es_capture adds to a change of a table. Each row has a database with all sides in it, a table each.

# shellcheck shell=bash
row capture_insert $((10 / shrink + 2)) 4
row capture_update $((10 / shrink + 2)) 4

capture_rows=$((100000 / shrink))

sample_capture_free() { "sample_$row" free; }
sample_capture_row() { "sample_$row" by_row; }
sample_capture_statement() { "sample_$row" by_statement; }
sample_capture_plain() { "sample_$row" plain; }

# A side is told by its schema: pgbench would take a variable for a parameter.
sample_capture_insert() { PGOPTIONS="-c search_path=$1,public" pgbench_rate "$row" 32 capture_insert.sql; }

# The dead rows of the sample before are gone, so that each update finds the table as it was.
sample_capture_update() {
  sql -d "$row" -c "VACUUM $1.orders"
  PGOPTIONS="-c search_path=$1,public" pgbench_rate "$row" 1 capture_update.sql -t 1
}

# capture_sides "what" FACTOR: the four, and the two of es_capture against each of the others.
capture_sides() {
  local side name
  outbox_database "$row"
  sql -d "$row" -v rows="$capture_rows" -v data="$data" -f capture_tables.sql
  tidy "$row"
  ready
  interleave capture_free capture_row capture_statement capture_plain
  for side in row statement; do
    name="$1, captured by $side"
    compare - "capture_$side" "$name" capture_free 'the same, not captured' "$2" rows/s
    compare - "capture_$side" "$name" capture_plain 'the same, by a plpgsql trigger that inserts' "$2" rows/s
  done
  drop "$row"
}

capture_insert() { capture_sides 'INSERT of one row, 32 clients' 1; }
capture_update() { capture_sides "UPDATE of $capture_rows rows at once" "$capture_rows"; }
