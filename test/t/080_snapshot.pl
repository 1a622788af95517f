# 080_snapshot: snapshots in the long run: dumped and restored, on a standby, over many chunks, behind locks, after a crash.
#
# A snapshot counts as long as its reducer is what it was. A restore gives functions other OIDs and may write their settings
# in another way, but they are what they were: so all snapshots count in the restored database, and stop counting when
# a function changes there. A standby uses them and takes none.
use strict;
use warnings;
use Test::More;

use EsRestore;
use EsTest;

my $node = es_cluster('primary', 'wal_level = replica', 'max_wal_senders = 8', 'hot_standby = on', 'es_pg.event_chunk_size = 100', 'jit = off');
my $db = es_connect($node);

# One of each kind of function; their settings are of the kinds that pg_dump writes in their own ways.
my @functions = (
	q{CREATE FUNCTION r_sql(state jsonb, event es.es_event) RETURNS jsonb LANGUAGE sql AS $f$ SELECT to_jsonb(COALESCE(state::int, 0) + 1) $f$},
	q{CREATE FUNCTION r_body(state jsonb, event es.es_event) RETURNS jsonb BEGIN ATOMIC SELECT COALESCE(state, '[]') || to_jsonb((event).version); END},
	q{CREATE FUNCTION "R Strange"(state jsonb, event es.es_event) RETURNS jsonb LANGUAGE plpgsql
	    SET search_path = pg_catalog, "Odd Schema", pg_temp SET datestyle = 'German, DMY' SET work_mem = '4MB' SET application_name = 'it''s'
	    AS $f$ BEGIN -- a comment's
	    RETURN to_jsonb(COALESCE(state::int, 0) + 2); END $f$},
	q{CREATE FUNCTION r_definer(state jsonb, event es.es_event) RETURNS jsonb SECURITY DEFINER LANGUAGE plpgsql AS $f$ BEGIN RETURN to_jsonb(COALESCE(state::int, 0) + 3); END $f$});
my @reducers = ('r_sql', 'r_body', '"R Strange"', 'r_definer', 'count', 'merge_patch', 'sum {"path": "$.n", "by": "$.k"}',
	'combine {"b": {"reducer": "count"}, "a": {"reducer": "last_write", "path": "$.n"}}');

$db->rows('CREATE DATABASE shop');
$db = es_connect($node, dbname => 'shop');
$db->rows('CREATE SCHEMA es');
$db->rows('CREATE EXTENSION es_pg SCHEMA es');
$db->rows('SET search_path = public, es');
$db->rows('CREATE SCHEMA "Odd Schema"');
$db->rows($_) for @functions;
# A stream in four chunks.
$db->rows(q{SELECT es_append_batch('cart-1', array_fill('Put'::text, ARRAY[50]), ARRAY(SELECT jsonb_build_object('n', g, 'k', g % 3) FROM generate_series(1, 50) AS g)) FROM generate_series(1, 7)});
cmp_ok($db->value(q{SELECT count(*) FROM es_stream_chunks}), '>=', 3, 'the stream is in several chunks');

sub quoted { my ($text) = @_; $text =~ s/'/''/g; return "'$text'" }

sub state_of
{
	my ($db, $reducer, $more) = @_;
	return [ $db->rows('SELECT state, version, snapshot, events FROM es_state(\'cart-1\', ' . quoted($reducer) . ($more // '') . ')') ]->[0];
}

my %before = map { $_ => state_of($db, $_)->[0] } @reducers;
$db->rows("SELECT es_snapshot('cart-1', " . quoted($_) . ', 299)') for @reducers;
is_deeply(state_of($db, $_), [ $before{$_}, 349, 299, 50 ], "$_: the state with a snapshot is the state without") for @reducers;
$db->rows(q{SELECT es_set_snapshot_policy('cart', 'count', 10), es_set_snapshot_policy('cart', '"R Strange"', 10, -1)});
my $policies = [ $db->rows('SELECT * FROM es_snapshot_policies ORDER BY reducer') ];

# A dump and a restore.
my $dump = "$PostgreSQL::Test::Utils::tmp_check/shop.dump";
es_run('dump', $node, 'pg_dump', '-Fc', '-f', $dump, 'shop');
es_connect($node)->rows('CREATE DATABASE restored');
es_run('restore', $node, 'pg_restore', '--exit-on-error', '-d', 'restored', $dump);
my $restored = es_connect($node, dbname => 'restored');
$restored->rows('SET search_path = public, es');
es_continue($restored);
is_deeply([ $restored->rows('SELECT * FROM es_snapshot_policies ORDER BY reducer') ], $policies, 'policies are restored');
is_deeply(state_of($restored, $_, ', 348')->[2], 299, "$_: its snapshot counts after a restore") for @reducers;
is_deeply(state_of($restored, $_)->[0], $before{$_}, "$_: and the state is the same") for @reducers;
is(state_of($restored, 'count')->[2], 349, 'the policy holds there');
$restored->rows(q{ALTER FUNCTION "R Strange"(jsonb, es_event) RESET datestyle});
is(state_of($restored, '"R Strange"', ', 348')->[2], undef, 'a changed setting is noticed there');
is(state_of($db, '"R Strange"', ', 348')->[2], 299, 'and not here');

# Events that the snapshot is not of: a log that was wound back and went on in its own way.
$restored->rows(q{UPDATE es_snapshots SET "position" = "position" + 1000000 WHERE reducer = 'merge_patch'});
is_deeply(state_of($restored, 'merge_patch'), [ $before{merge_patch}, 349, undef, 350 ], 'a snapshot of another history does not count');

# Somebody has the table; nobody waits for that but who asks for a snapshot. Bounded, so that a wait would be a failure.
my $other = es_connect($node, dbname => 'shop');
$other->rows('SET search_path = public, es');
$db->rows(q{SET statement_timeout = '60s'});
$other->rows('BEGIN; LOCK TABLE es_snapshots IN SHARE MODE');
my $answer = $db->try(q{SELECT version, snapshot FROM es_state('cart-1', 'count')});
is_deeply($answer->{rows}, [ [ 349, 299 ] ], 'a state is told though its snapshot cannot be stored now');
$other->rows('ROLLBACK');
is($db->value(q{SELECT count(*) FROM es_snapshots WHERE reducer = 'count' AND version = 349}), 0, 'and it was not');
$db->rows(q{SELECT es_state('cart-1', 'count')});
is($db->value(q{SELECT count(*) FROM es_snapshots WHERE reducer = 'count' AND version = 349}), 1, 'when the table is free it is');

# A standby.
$node->backup('base');
my $standby = PostgreSQL::Test::Cluster->new('standby');
$standby->init_from_backup($node, 'base', has_streaming => 1);
$standby->start;
$db->rows(q{SELECT es_append_batch('cart-1', array_fill('Put'::text, ARRAY[50]), array_fill('{"n": 1}'::jsonb, ARRAY[50]))});
$node->wait_for_catchup($standby, 'replay', $node->lsn('insert'));
my $there = es_connect($standby, dbname => 'shop');
$there->rows('SET search_path = public, es');
is_deeply(state_of($there, 'count'), [ 400, 399, 349, 50 ], 'a standby begins at a snapshot');
is_deeply(state_of($there, 'count'), [ 400, 399, 349, 50 ], 'and takes none');
is($there->try(q{SELECT es_snapshot('cart-1', 'count')})->{sqlstate}, '25006', 'nor does it when asked');
is_deeply(state_of($there, 'r_body', ', 120')->[2], undef, 'the past is there, too');

# A crash takes nothing that was committed, and everything that was not.
$db->rows('BEGIN');
is_deeply(state_of($db, 'count'), [ 400, 399, 349, 50 ], 'a snapshot is taken');
is(state_of($db, 'count')->[2], 399, 'and seen');
$node->stop('immediate');
$node->start;
$db = es_connect($node, dbname => 'shop');
$db->rows('SET search_path = public, es');
is_deeply(state_of($db, 'count'), [ 400, 399, 349, 50 ], 'after a crash it is gone with its transaction');
is(state_of($db, 'count')->[2], 399, 'and taken anew');

done_testing();
