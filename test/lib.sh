# Shared by test/run, test/debian, test/setup, test/demo and test/bench/run: a private work directory, a staged installation and
# temporary clusters in it. Source it:
#
#   . "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
#   es_begin                             # $ES_WORK, removed at exit whatever happens
#   es_stage                             # es_pg installed in a private copy of PostgreSQL, first on PATH
#   es_cluster_start bench fsync=on "shared_buffers='1GB'"
#   es_psql -c 'CREATE EXTENSION es_pg'
#   es_as "$ES_RELAY" --config ...       # anything that is to run unprivileged
#
# What it guarantees:
# * Nothing of it ever runs a server, a client or a relay as root: for root, `es_as` changes to ES_USER
#   (default postgres, else nobody); for anybody else it changes nothing. PostgreSQL refuses root anyway.
# * The clone may lie where that user cannot read. So what es_as runs must come from $ES_WORK: what
#   es_stage put there, or what the caller copied there.
# * Servers listen on a Unix socket inside $ES_WORK only, so no port is taken and no two runs meet.
# * At exit, on failure, on INT and on TERM every server is stopped, every process that still works
#   inside $ES_WORK is killed, and $ES_WORK is removed (ES_KEEP=1 keeps the files, not the processes).

# shellcheck shell=bash
ES_ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
: "${PG_CONFIG:=pg_config}"

es_say() { printf '%s\n' "$*"; }
es_die() { printf '%s: %s\n' "${0##*/}" "$*" >&2; exit 1; }

# es_begin: makes ES_WORK and sees to it that nothing outlives this script.
es_begin() {
  if [ "$EUID" -eq 0 ]; then
    for ES_USER in ${ES_TEST_USER:-postgres nobody} ''; do id "$ES_USER" >/dev/null 2>&1 && break; done
    [ -n "$ES_USER" ] || es_die 'root needs an unprivileged user to run servers as; name one: ES_TEST_USER=name'
  fi

  trap es_end EXIT
  trap 'exit 130' INT
  trap 'exit 143' TERM HUP
  umask 022

  # The unprivileged user must be able to get there; a private TMPDIR of root's is no such place.
  local base
  for base in "${TMPDIR:-/tmp}" /tmp; do
    ES_WORK=$(mktemp -d "$base/es_pg.XXXXXX") || continue
    es_own "$ES_WORK"
    # 107 bytes are all a socket's path may have.
    [ "${#ES_WORK}" -le 60 ] && es_as test -w "$ES_WORK" && break
    rmdir "$ES_WORK"
    ES_WORK=
  done
  [ -n "${ES_WORK:-}" ] || es_die 'no temporary directory that the test user can write to'
  es_as mkdir -p "$ES_WORK/tmp"
  es_environment
}

# es_environment: what each process below us sees: no settings of the caller's, temporary files in ES_WORK.
es_environment() {
  local name
  for name in $(compgen -e | grep "^PG" | grep -vx PG_CONFIG); do unset "$name"; done
  export ES_WORK
  export TMPDIR=$ES_WORK/tmp HOME=$ES_WORK/tmp
  export LC_ALL=C.UTF-8 TZ=UTC
}

# es_end: the EXIT trap of es_begin. The caller's exit code stays.
es_end() {
  local rc=$?
  es_clean
  exit "$rc"
}

# es_clean: stops and removes everything; for a script with an EXIT trap of its own.
es_clean() {
  set +e
  trap - EXIT
  trap '' INT TERM HUP
  cd /
  [ -n "${ES_WORK:-}" ] && [ -d "$ES_WORK" ] || return 0
  es_sweep "$ES_WORK"
  if [ "${ES_KEEP:-}" = 1 ]; then es_say "kept: $ES_WORK" >&2; else rm -rf "$ES_WORK"; fi
}

# es_as COMMAND...: runs it as the unprivileged user.
es_as() {
  if [ "$EUID" -eq 0 ]; then
    setpriv --reuid "$ES_USER" --regid "$(id -g "$ES_USER")" --init-groups -- "$@"
  else
    "$@"
  fi
}

# es_kafka_jars: where a Kafka broker's jars are kept between runs; a change of what they are changes the name.
es_kafka_jars() {
  local cache=${XDG_CACHE_HOME:-/var/cache}
  [ "$EUID" -eq 0 ] || cache=${XDG_CACHE_HOME:-$HOME/.cache}
  echo "${ES_CACHE:-$cache/es_pg}/kafka/$(cksum <"$ES_ROOT/test/kafka/pom.xml" | cut -d ' ' -f 1)"
}

# es_copy_tree DIRECTORY: all that is built and tested, at the place where a test looks for it, and where there is
# test data (ES_DATA, or a folder of it near by) that too.
es_copy_tree() {
  local name data
  mkdir "$1/tree" || return
  for name in Makefile es_pg.control sql expected test src relay README.md; do
    [ ! -e "$ES_ROOT/$name" ] || cp -r "$ES_ROOT/$name" "$1/tree/" || return
  done
  for data in "${ES_DATA:-}" "$ES_ROOT/test/data" "$ES_ROOT/../shared/data"; do
    [ -z "$data" ] || [ ! -d "$data" ] || break
  done
  [ ! -d "$data" ] || cp -r --no-preserve=mode "$data" "$1/data"
}

# es_own PATH...: gives what root made to the unprivileged user.
es_own() { [ "$EUID" -ne 0 ] || chown -R "$ES_USER" "$@"; }

# es_stage: builds nothing; installs the built tree into ES_WORK/stage and uses it from now on.
es_stage() {
  "$ES_ROOT/test/stage" "$ES_WORK/stage" || es_die 'cannot stage the installation'
  es_use_stage
}

es_use_stage() {
  # By its full name: the copy has a pg_config too, and is first on PATH from here on.
  PG_CONFIG=$(command -v "$PG_CONFIG") || es_die "no $PG_CONFIG"
  export PG_CONFIG
  ES_BIN=$ES_WORK/stage$("$PG_CONFIG" --bindir)
  ES_RELAY=$ES_WORK/stage/usr/local/bin/es-relay
  ES_DEBUG_BIN=$ES_WORK/stage-debug$("$PG_CONFIG" --bindir)    # where test/debug-build was called
  PATH=$ES_BIN:$PATH
  export ES_BIN ES_DEBUG_BIN ES_RELAY PATH
}

# es_cluster_start NAME [setting=value...]: a new cluster, or NAME again after es_cluster_stop. The value is as
# postgresql.conf takes it. Sets PGHOST, PGPORT, PGUSER, PGDATABASE, so every client reaches this one.
es_cluster_start() {
  local name=$1 data=$ES_WORK/$1/data
  shift
  if [ ! -e "$data/PG_VERSION" ]; then
    es_as mkdir -p "$ES_WORK/$name"
    es_as "$ES_BIN/initdb" -D "$data" -A trust -U postgres --no-sync --locale=C -E UTF8 \
      >"$ES_WORK/tmp/initdb.log" 2>&1 || { cat "$ES_WORK/tmp/initdb.log" >&2; return 1; }
    es_as tee -a "$data/postgresql.conf" >/dev/null <<END
listen_addresses = ''
unix_socket_directories = '$ES_WORK/$name'
log_line_prefix = '%m [%p] %q%a '
max_prepared_transactions = 10
END
  fi
  [ $# -eq 0 ] || printf '%s\n' "$@" | es_as tee -a "$data/postgresql.conf" >/dev/null
  es_as "$ES_BIN/pg_ctl" -D "$data" -l "$ES_WORK/$name/log" -w -t 60 start >/dev/null </dev/null ||
    { tail -n 40 "$ES_WORK/$name/log" >&2; return 1; }
  export PGHOST=$ES_WORK/$name PGPORT=5432 PGUSER=postgres PGDATABASE=postgres
}

# es_cluster_stop NAME [fast|immediate]
es_cluster_stop() {
  es_as "$ES_BIN/pg_ctl" -D "$ES_WORK/$1/data" -m "${2:-fast}" -w -t 60 stop >/dev/null
}

# es_cluster_ready: waits out the recovery of the cluster started last; false if it is not running.
es_cluster_ready() {
  local n
  for ((n = 0; n < 300; n++)); do
    es_as "$ES_BIN/pg_isready" -q && return 0
    [ $? -eq 1 ] || return 1
    sleep 0.1
  done
  return 1
}

# es_psql ARGUMENT...: psql on the cluster that was started last; stops at the first error.
es_psql() { es_as "$ES_BIN/psql" -X -q -v ON_ERROR_STOP=1 "$@"; }

# es_sweep DIRECTORY: ends every process that works below it. A server gets the chance to give its shared memory
# back; what is left after five seconds is killed.
es_sweep() {
  local pid
  for pid in $(find "$1" -name postmaster.pid -exec head -n 1 {} \; 2>/dev/null); do
    [[ "$(readlink "/proc/$pid/cwd")" == "$1"/* ]] && kill -QUIT "$pid" 2>/dev/null
  done
  es_wait_gone "$1" 50 && return 0
  es_pids_in "$1" | xargs -r kill -TERM 2>/dev/null
  es_wait_gone "$1" 50 && return 0
  es_pids_in "$1" | xargs -r kill -KILL 2>/dev/null
  es_wait_gone "$1" 50
}

# es_wait_gone DIRECTORY TENTHS: true as soon as no process works below it.
es_wait_gone() {
  local n
  for ((n = 0; n < $2; n++)); do
    [ -n "$(es_pids_in "$1")" ] || return 0
    sleep 0.1
  done
  return 1
}

es_pids_in() {
  find /proc -mindepth 2 -maxdepth 2 -path '/proc/[0-9]*/cwd' \( -lname "$1" -o -lname "$1/*" \) 2>/dev/null |
    cut -d / -f 3 | grep -vx "$$"
}
