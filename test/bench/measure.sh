# measure.sh: the harness's engine, sourced by test/bench/run: samples, interleaving, medians, the table, the time left.
#
# Words: a row is a line or two of the table and a bash function of that name in rows_*.sh; a side is one of the things
# that a row compares, a function sample_SIDE that measures once and leaves a figure in RATE; a sample is one such call.
#
# Why the figures can be compared: the sides of a row take turns (A B A B ...), so what the machine does meanwhile hits
# all of them; each side has one sample before the first that counts, to warm it up; of the others the median counts,
# with the lowest and the highest beside it. A row starts from a checkpoint and, but for the reads, in databases of its
# own, so it gives the same alone and with all the others. The server's log must be free of errors: a sample that
# failed is no sample.

# A rate suffers from whatever else the machine does. So what pgbench measures has a second figure, SPENT: the processor
# time in microseconds that the server's backends took for a transaction. Other work touches it far less; it says nothing
# about waiting. Where both sides have it, it is in the remarks below the table.

# shellcheck shell=bash
rows=()
declare -A row_setup row_turns
row=
RATE= SPENT=

# row NAME SETUP TURNS: declares a row; what it costs: seconds to set up, samples in a round.
row() { rows+=("$1") row_setup[$1]=$2 row_turns[$1]=$3; }

# ------------------------------------------------------------------ progress

work_total=0 work_done=0 row_begin=0 # in planned seconds
work_start=$SECONDS

sample_cost() { echo $((seconds + 1)); }
row_cost() { echo $((${row_setup[$1]} + (rounds + warm) * ${row_turns[$1]} * $(sample_cost))); }

# progress TEXT: what is going on, and when all of it will be over. The plan's seconds are corrected by how long what
# is done took, once that says something.
progress() {
  local left=$((work_total - work_done)) spent=$((SECONDS - work_start))
  [ "$left" -gt 0 ] || left=0
  [ "$spent" -lt 20 ] || [ "$work_done" -lt 20 ] || left=$((left * spent / work_done))
  printf '%3d%%  %3d:%02d left  %-16s %s\n' \
    $((work_done * 100 / (work_total + 1))) $((left / 60)) $((left % 60)) "$row" "$*" >&2
}

# ready: the row's set-up is over.
ready() {
  work_done=$((row_begin + ${row_setup[$row]}))
  sql -c CHECKPOINT
}

# ------------------------------------------------------------------ samples

# interleave SIDE...: the rounds of a row.
interleave() {
  local round side
  for ((round = 1 - warm; round <= rounds; round++)); do
    for side; do
      RATE= SPENT=
      "sample_$side"
      [[ $RATE =~ ^[0-9.]+$ ]] || es_die "$row: side $side gave no figure"
      if [ "$round" -ge 1 ]; then
        echo "$RATE" >>"$ES_WORK/samples/$row.$side"
        [ -z "$SPENT" ] || echo "$SPENT" >>"$ES_WORK/samples/$row.$side.spent"
      fi
      work_done=$((work_done + $(sample_cost)))
      progress "$([ "$round" -lt 1 ] && echo 'warm-up ' || echo "round $round/$rounds") $side: $(figure "$RATE")/s"
    done
  done
}

# pgbench_rate DATABASE CLIENTS SCRIPT [pgbench's options]: RATE is the transactions a second, without the time to
# connect. Statements are prepared once a connection. Without -t or -T it runs for the sample's seconds.
pgbench_rate() {
  local database=$1 clients=$2 script=$3 out threads=$2
  shift 3
  [ "$threads" -le "$cpus" ] || threads=$cpus
  case " $* " in
    *' -t '* | *' -T '*) ;;
    *) if [ "$seconds" -gt 0 ]; then set -- "$@" -T "$seconds"; else set -- "$@" -t 20; fi ;;
  esac
  spend_begin
  out=$(es_as "$ES_BIN/pgbench" -n -M prepared -c "$clients" -j "$threads" -f "$script" -D data="$data" "$@" \
    "$database" 2>&1) || es_die "$row: pgbench $script failed: $out"
  RATE=$(sed -n 's/^tps = \([0-9.]*\).*/\1/p' <<<"$out")
  spend_end
  spent_by "$(sed -n 's/^number of transactions actually processed: \([0-9]*\).*/\1/p' <<<"$out")"
}

# clients_of SERVER: how many are connected.
clients_of() {
  local pid n=0
  for pid in $(cat "/proc/$1/task/$1/children"); do
    ! grep -qas '\[local\]' "/proc/$pid/cmdline" || n=$((n + 1))
  done
  echo "$n"
}

# ticks_of SERVER: the processor time of all its processes that have ended.
ticks_of() { sed 's/.*) //' "/proc/$1/stat" | awk '{ print $14 + $15 }'; }

# spend_begin, spend_end: between them "spent" is the processor time, in microseconds, of the backends that began and
# ended there.
spend_begin() {
  server=$(head -n 1 "$ES_WORK/bench/data/postmaster.pid")
  spend_clients=$(clients_of "$server")
  spend_ticks=$(ticks_of "$server")
}

spend_end() {
  local n
  for ((n = 0; n < 100; n++)); do
    [ "$(clients_of "$server")" -gt "$spend_clients" ] || break
    sleep 0.02
  done
  spent=$((($(ticks_of "$server") - spend_ticks) * 1000000 / $(getconf CLK_TCK)))
}

# spent_by N: SPENT, if it was long enough to be seen by the clock's ticks.
spent_by() { SPENT=; [ "$spent" -lt 100000 ] || SPENT=$(ratio_of "$spent" "$1"); }

# scaled RATE FACTOR
scaled() { awk -v a="$1" -v b="$2" 'BEGIN { printf "%.3f", a * b }'; }
ratio_of() { awk -v a="$1" -v b="$2" 'BEGIN { printf "%.3f", (b > 0 ? a / b : 0) }'; }

# ------------------------------------------------------------------ latencies

# latencies ARGUMENT...: what test/bench/latency measures in the database of PGDATABASE, by name and in milliseconds.
latencies() { es_as ./latency "$@" || es_die "$row: latency $* failed"; }

# percentile P NAME: of the latencies of that name on standard input; by nearest rank.
percentile() {
  awk -v name="$2" '$1 == name { print $2 }' | sort -g |
    awk -v p="$1" '{ x[NR] = $1 } END { i = int(NR * p / 100); print x[i < NR * p / 100 ? i + 1 : i] }'
}

# ------------------------------------------------------------------ sessions beside the load

declare -A held_fd held_pid

# hold NAME DATABASE SQL: a session that runs SQL and then sits there, idle in its transaction and with a snapshot,
# until release NAME.
hold() {
  local fifo=$ES_WORK/tmp/$1.fifo fd
  es_as mkfifo "$fifo"
  es_as env PGAPPNAME="bench $1" "$ES_BIN/psql" -X -q -v ON_ERROR_STOP=1 -d "$2" -f "$fifo" >/dev/null &
  held_pid[$1]=$!
  exec {fd}>"$fifo"
  held_fd[$1]=$fd
  rm -f "$fifo"
  printf '%s\n' "$3" >&"$fd"
  await "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'bench $1' AND state = 'idle in transaction'
    AND backend_xmin IS NOT NULL"
}

release() {
  local fd=${held_fd[$1]}
  printf '\\q\n' >&"$fd"
  exec {fd}>&-
  wait "${held_pid[$1]}" || es_die "$row: the session $1 did not live to its end"
}

# await QUERY: until it returns 1; a minute at most.
await() {
  local n
  for ((n = 0; n < 600; n++)); do
    [ "$(sql -At -c "$1")" != 1 ] || return 0
    sleep 0.1
  done
  es_die "$row: waited a minute in vain for: $1"
}

# ------------------------------------------------------------------ a consumer

consumer=(-D lane=0 -D epoch=0 -D position=0)

# consume DATABASE FETCHES BATCH: so many times fetch and acknowledge, by one consumer of the subscription "bench"; RATE
# is the fetches a second.
consume() {
  pgbench_rate "$1" 1 consume.sql -t "$2" -D batch="$3" -D wait=0 -D listen=0 "${consumer[@]}"
}

# consume_beside DATABASE LISTEN: a consumer of the subscription "bench" that long-polls until a second after a
# sample that begins now; it is there when this returns. Then consume_end.
consume_beside() {
  es_as env PGAPPNAME="bench consumer" "$ES_BIN/pgbench" -n -M prepared -f consume.sql -T $((seconds + 1)) \
    -D batch=1000 -D wait="1 s" -D listen="$2" "${consumer[@]}" "$1" >"$ES_WORK/tmp/consumer.log" 2>&1 &
  consumer_pid=$!
  await "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'bench consumer'"
}

consume_end() {
  wait "$consumer_pid" || es_die "$row: the consumer failed: $(cat "$ES_WORK/tmp/consumer.log")"
}

# consumed_all DATABASE [TABLE]: has the subscription acknowledged the last event, or message, of all?
consumed_all() {
  local query="SELECT (SELECT max(\"position\") FROM es_cursors) >= (SELECT max(\"position\") FROM ${2:-es_events})"
  [ "$(sql -At -d "$1" -c "$query")" = t ]
}

# ------------------------------------------------------------------ databases

# sql ARGUMENT...: psql, which must succeed.
sql() { es_psql "$@" || es_die "${row:-start}: psql failed"; }

# fresh NAME: a new database with es_pg and the table "plain".
fresh() {
  sql -c "CREATE DATABASE $1"
  sql -d "$1" -c 'CREATE EXTENSION es_pg' -f plain.sql
}

# fill NAME STREAMS PASSES EVENTS: streams order-1 to order-STREAMS, PASSES times EVENTS events in each.
fill() {
  sql -d "$1" -v streams="$2" -v passes="$3" -v events="$4" -v data="$data" -f fill.sql
}

fill_plain() { sql -d "$1" -f plain_fill.sql; }

# tidy NAME: statistics, hint bits and visibility as they are in a database that has been there for a while.
tidy() { sql -d "$1" -c 'VACUUM (ANALYZE)'; }

drop() {
  local name
  for name; do sql -c "DROP DATABASE $name"; done
}

# ------------------------------------------------------------------ the table

# figure NUMBER: with commas, and decimals only where it is small.
figure() {
  awk -v x="$1" 'BEGIN { printf (x < 100 ? "%.1f" : "%.0f"), x }' |
    sed ':a; s/^\([0-9]\{1,\}\)\([0-9]\{3\}\)/\1,\2/; ta'
}

# spread SIDE: median, lowest and highest of its samples.
spread() {
  sort -g "$ES_WORK/samples/$row.$1" |
    awk '{ x[NR] = $1 } END { m = int((NR + 1) / 2); print NR % 2 ? x[m] : (x[m] + x[m + 1]) / 2, x[1], x[NR] }'
}

# compare BAR SIDE "what it is" SIDE "against what" [FACTOR "unit"]: a line of the table; the ratio is that of the
# medians, the first over the second. BAR - is for information, <=BAR for what shall be small. FACTOR units are in one of
# what the samples count.
compare() {
  local bar=$1 a_name=$3 b_name=$5 factor=${6:-1} unit=${7:-1/s} a b ratio
  a=$(spread "$2")
  b=$(spread "$4")
  ratio=$(ratio_of "${a%% *}" "${b%% *}")
  line "$a_name" "$unit" "$(shown "$factor" $a)" "$b_name" "$(shown "$factor" $b)" "$ratio" "$bar" \
    "$(verdict "$ratio" "$bar")"
  compare_spent "$2" "$a_name" "$4" "$b_name"
}

# verdict FIGURE BAR
verdict() {
  awk -v r="$1" -v bar="$2" 'BEGIN {
    if (sub(/^<=/, "", bar)) print (r <= bar + 0 ? "PASS" : "ABOVE")
    else if (bar != "-") print (r >= bar + 0 ? "PASS" : "BELOW")
  }'
}

# compare_spent SIDE "what it is" SIDE "against what": the same by processor time, as a remark; of what takes less the
# ratio is above 1, as with rates.
compare_spent() {
  local a b
  [ -e "$ES_WORK/samples/$row.$1.spent" ] && [ -e "$ES_WORK/samples/$row.$3.spent" ] || return 0
  a=$(spread "$1.spent")
  b=$(spread "$3.spent")
  note "$2, us of processor time: $(shown 1 $a); $4: $(shown 1 $b); ratio $(ratio_of "${b%% *}" "${a%% *}")"
}

# shown FACTOR MEDIAN LOWEST HIGHEST
shown() {
  printf '%s (%s .. %s)' "$(figure "$(scaled "$2" "$1")")" "$(figure "$(scaled "$3" "$1")")" \
    "$(figure "$(scaled "$4" "$1")")"
}

# line WHAT UNIT FIGURES AGAINST FIGURES RATIO BAR VERDICT
line() {
  printf '%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n' "$row" "$@" >>"$ES_WORK/table"
}

# verdicts: the lines of the current row in short.
verdicts() {
  awk -F '\t' -v row="$row" '$1 == row { print $2 ": " $7 ($8 == "-" ? "" : ", bar " $8 ", " $9) }' "$ES_WORK/table"
}

# note TEXT: a remark below the table.
note() { printf '%s: %s\n' "$row" "$*" >>"$ES_WORK/notes"; }

print_table() {
  {
    printf 'row\twhat, and below it against what\tunit\tmedian (lowest .. highest)\t\t\tratio\tbar\t\n'
    cat "$ES_WORK/table"
  } | awk -F '\t' '{
    printf "%-16s %-62s %-9s %-38s %6s  %5s  %s\n", $1, $2, $3, $4, $7, $8, $9
    if ($5 != "") printf "%-16s   %-60s %-9s %s\n", "", $5, "", $6
  }'
  [ ! -s "$ES_WORK/notes" ] || { echo; sort -u "$ES_WORK/notes"; }
}
