# Builds es_pg.so, the install script and es-relay; runs the tests, the demo and the benchmark.
#
#   make            build everything, installs nothing
#   make install    extension into PG_CONFIG's server, es-relay into RELAY_BINDIR (both below DESTDIR)
#   make check      the whole test suite in temporary clusters, on PG_CONFIG's server and then on PostgreSQL 17 in
#                   a folder of its own (ES_ONLY_HERE=1: without it); check-regress, check-isolation, check-pgtap,
#                   check-tap, check-relay run one part on PG_CONFIG's server, check-15, -17, -18 all on that
#                   version, or PART=name; T=name runs one test
#   make check-kafka       the relay and a broker of Apache Kafka; part of `make check`
#   make check-relay-asan  the relay's tests with its addresses and its undefined behaviour watched
#   make ES_DEBUG_POINTS=1   es_pg with src/debug_point.h's places to break it at, and assertions; for tests
#                   (test/debug-build makes it in a copy of the tree, since objects do not mix)
#   make demo       the tour; make bench the figures; make setup the Debian packages for all of it
#
# The file has two halves. What runs something (check, demo, bench, setup) must work on a machine
# that has no pg_config yet, so it calls test/setup first and builds in a second make afterwards.
# What builds something includes PGXS, which needs pg_config at parse time, and which defines a
# `check` of its own. So a make whose goals run something never reads the second half.

PG_CONFIG ?= pg_config
RELAY_BINDIR ?= /usr/local/bin
export PG_CONFIG

.DEFAULT_GOAL := all
.DELETE_ON_ERROR:

ifneq (,$(filter check check-% demo bench setup,$(MAKECMDGOALS)))

# ---------------------------------------------------------------- what runs

.PHONY: check check-relay-asan demo bench setup
check:
	+@T='$(T)' test/run

check-%:
	+@T='$(T)' test/run $* $(PART)

check-relay-asan:
	+@T='$(T)' test/asan

setup:
	@test/setup

demo: setup
	+@$(MAKE) --no-print-directory all
	+@test/demo

bench: setup
	+@$(MAKE) --no-print-directory all
	+@test/bench/run

# A building goal named beside a running one (`make clean check`).
.PHONY: all install uninstall clean
all install uninstall clean:
	+@$(MAKE) --no-print-directory $@

else

# ---------------------------------------------------------------- what builds

EXTENSION = es_pg
MODULE_big = es_pg
EXTVERSION := $(shell sed -n "s/^default_version *= *'\(.*\)'.*/\1/p" es_pg.control)

# The install script is these files in this order: later ones use what earlier ones create.
INSTALL_SQL = \
	src/horizon.sql \
	src/stream.sql \
	src/outbox.sql \
	src/capture.sql \
	src/inbox.sql \
	src/chunk.sql \
	src/subscription.sql \
	src/subscription_parked.sql \
	src/subscription_admin.sql \
	src/subscription_status.sql \
	src/outbox_status.sql \
	src/snapshot.sql \
	src/inbox_sequence.sql \
	src/inbox_durable.sql \
	src/inbox_resequence.sql \
	src/inbox_status.sql \
	src/projection.sql \
	src/projection_rebuild.sql \
	src/privilege.sql \
	src/es_pg.sql

DATA_built = es_pg--$(EXTVERSION).sql
DATA = $(wildcard src/upgrade/es_pg--*--*.sql)
OBJS = $(patsubst %.c,%.o,$(filter-out $(if $(ES_DEBUG_POINTS),,src/debug_point.c),$(sort $(wildcard src/*.c))))

# -MMD -MP write the header dependencies beside each object, in src/*.d.
PG_CPPFLAGS = -DES_PG_VERSION='"$(EXTVERSION)"' $(if $(ES_DEBUG_POINTS),-DES_DEBUG_POINTS -DUSE_ASSERT_CHECKING)
PG_CFLAGS = -MMD -MP -Wall -Wextra -Werror \
	-Wno-unused-parameter -Wno-sign-compare -Wno-missing-field-initializers

RELAY_SRCS = $(sort $(wildcard relay/*.c relay/sinks/*.c))
RELAY_TEST_SRCS = $(filter relay/test_%.c,$(RELAY_SRCS))
RELAY_OBJS = $(patsubst %.c,%.o,$(filter-out $(RELAY_TEST_SRCS),$(RELAY_SRCS)))
RELAY_TESTS = $(patsubst %.c,%,$(RELAY_TEST_SRCS))
RELAY = $(if $(wildcard relay/main.c),relay/es-relay)
BENCH = $(patsubst %.c,%,$(wildcard test/bench/latency.c))
KAFKA_MOCK = $(patsubst %.c,%,$(wildcard test/kafka/mock.c))

EXTRA_CLEAN = es_pg--*.sql src/*.d relay/es-relay relay/*.o relay/sinks/*.o relay/*.d relay/sinks/*.d \
	$(RELAY_TESTS) $(BENCH) test/bench/*.d $(KAFKA_MOCK) test-output

# No bitcode (it would need clang to build), no installcheck (the suite brings its own cluster).
override with_llvm := no
NO_INSTALLCHECK = 1

PGXS := $(wildcard $(shell $(PG_CONFIG) --pgxs 2>/dev/null))

ifneq (,$(PGXS))
include $(PGXS)

es_pg--$(EXTVERSION).sql: $(INSTALL_SQL) es_pg.control Makefile
	{ printf '%s\n' '\echo Use "CREATE EXTENSION es_pg" to load this file. \quit'; \
	  for part in $(INSTALL_SQL); do printf '\n'; cat $$part || exit 1; done; } >$@

# A change of the version or of the flags rebuilds.
$(OBJS): es_pg.control Makefile
-include $(OBJS:.o=.d)

all: $(RELAY) $(if $(RELAY),$(RELAY_TESTS)) $(BENCH) $(KAFKA_MOCK)

RELAY_CFLAGS ?= -O2 -g
RELAY_FLAGS = -std=gnu11 -Wall -Wextra -Werror -MMD -MP -fstack-protector-strong \
	-DES_PG_VERSION='"$(EXTVERSION)"' -Irelay -I$(shell $(PG_CONFIG) --includedir)
RELAY_LIBS = -L$(shell $(PG_CONFIG) --libdir) -Wl,--as-needed -lpq -lrdkafka -lm -lpthread

$(RELAY_OBJS) $(RELAY_TESTS:=.o): %.o: %.c es_pg.control Makefile
	$(CC) $(RELAY_FLAGS) $(RELAY_CFLAGS) -c -o $@ $<
-include $(RELAY_OBJS:.o=.d) $(RELAY_TESTS:=.d)

relay/es-relay: $(RELAY_OBJS)
	$(CC) $(RELAY_CFLAGS) -o $@ $^ $(RELAY_LIBS)

$(RELAY_TESTS): %: %.o $(filter-out relay/main.o,$(RELAY_OBJS))
	$(CC) $(RELAY_CFLAGS) -o $@ $^ $(RELAY_LIBS)

# Measures for the benchmark what pgbench cannot.
$(BENCH): %: %.c es_pg.control Makefile
	$(CC) $(RELAY_FLAGS) $(RELAY_CFLAGS) -o $@ $< $(RELAY_LIBS)
-include $(BENCH:=.d)

# Imitates a Kafka cluster in the tests.
$(KAFKA_MOCK): %: %.c Makefile
	$(CC) -std=gnu11 -Wall -Wextra -Werror $(RELAY_CFLAGS) -o $@ $< -lrdkafka -lpthread

ifneq (,$(RELAY))
install: install-relay
uninstall: uninstall-relay
endif

.PHONY: install-relay uninstall-relay
install-relay: $(RELAY)
	$(MKDIR_P) '$(DESTDIR)$(RELAY_BINDIR)'
	$(INSTALL_PROGRAM) relay/es-relay '$(DESTDIR)$(RELAY_BINDIR)/'

uninstall-relay:
	rm -f '$(DESTDIR)$(RELAY_BINDIR)/es-relay'

else # no PGXS: nothing can be built, but the tree can be cleaned

.PHONY: all install uninstall clean
all install uninstall:
	@echo 'No PostgreSQL server headers: "$(PG_CONFIG) --pgxs" names no file.' >&2
	@echo 'Run "make setup" (Debian, Ubuntu), or name your pg_config: make PG_CONFIG=/path/to/pg_config' >&2
	@false

clean:
	rm -rf es_pg.so $(OBJS) $(EXTRA_CLEAN)

endif
endif
