# EsRestore: what the tests of dump and restore share: a log to dump, what must be the same in its restore, and what the
# restore must be able to do from then on.
package EsRestore;

use strict;
use warnings;
use Exporter 'import';
use IPC::Run;
use Test::More;

use EsTest;

our @EXPORT = qw(es_make_log es_log_contents es_check_restored es_client es_run);

# All that must be the same afterwards. Of the chunks, those that are not made ahead, for that may still go on.
my %contents = (
	events => 'SELECT e::text FROM es_events AS e ORDER BY position',
	streams => 'SELECT s::text FROM es_streams AS s ORDER BY stream_id',
	'chunks of streams' => 'SELECT c::text FROM es_stream_chunks AS c ORDER BY stream_id, chunk',
	incarnations => 'SELECT i::text FROM es_incarnations AS i ORDER BY ordinal',
	subscriptions => 'SELECT s::text FROM es_subscriptions AS s ORDER BY subscription_id',
	cursors => 'SELECT c::text FROM es_cursors AS c ORDER BY subscription_id, lane, epoch, position',
	chunks => q{SELECT chunk::regclass, bounds FROM es_chunk_list WHERE chunk IN (SELECT tableoid FROM es_events) ORDER BY chunk::text COLLATE "C"},
	'triggers of chunks' => q{SELECT tgrelid::regclass, tgname, tgenabled FROM pg_trigger
		WHERE NOT tgisinternal AND tgrelid IN (SELECT tableoid FROM es_events) ORDER BY tgrelid::regclass::text COLLATE "C"},
	'keys and indexes' => q{SELECT pg_get_indexdef(indexrelid) FROM pg_index
		WHERE indrelid IN (SELECT tableoid FROM es_events) ORDER BY pg_get_indexdef(indexrelid) COLLATE "C"},
	'the log as read' => 'SELECT position, stream, version, event_id, type, data FROM es_read_all(0, 100000)',
	'one stream' => q{SELECT version, position, event_id FROM es_read_stream('order-7')});

sub es_log_contents
{
	my ($db) = @_;
	my %got;
	for my $what (keys %contents)
	{
		$got{$what} = [ map { join '|', map { $_ // '' } @$_ } $db->rows($contents{$what}) ];
	}
	return \%got;
}

# A database with a log of about 1,200 events over more than ten chunks, and two subscriptions.
sub es_make_log
{
	my ($node, $name, $schema, $owner) = @_;

	es_connect($node)->rows("CREATE DATABASE $name");
	my $db = es_connect($node, dbname => $name);
	$db->rows("SET ROLE $owner") if defined $owner;
	$db->rows("CREATE SCHEMA IF NOT EXISTS $schema");
	$db->rows("ALTER DATABASE $name SET search_path = $schema, public");
	$db->rows("SET search_path = $schema, public");
	$db->rows("CREATE EXTENSION es_pg SCHEMA $schema");
	for my $i (1 .. 300)
	{
		my $stream = 'order-' . $i % 20;
		$db->rows("SELECT es_append('$stream', 'Single', jsonb_build_object('i', $i), metadata => '{\"n\": null}')");
		$db->rows("SELECT es_append_batch('$stream', array_fill('Batch'::text, ARRAY[30]), array_fill('{\"a\": \"\\u00e9\"}'::jsonb, ARRAY[30]))")
		  if $i % 10 == 0;
	}
	$db->rows(q{SELECT es_create_subscription('mailer', 'beginning', categories => '{order}'), es_create_subscription('idle', 'end')});
	$db->rows(q{SELECT es_ack('mailer', lane, epoch, position) FROM es_fetch('mailer', 'm', 555) WHERE position = 555});
	$db->rows(q{UPDATE es_streams SET truncate_before = 3 WHERE name = 'order-5'});
	return $db;
}

# What must hold in a restored database.
sub es_check_restored
{
	my ($name, $db, $expected) = @_;
	my $got = es_log_contents($db);

	is_deeply($got->{$_}, $expected->{$_}, "$name: $_") for sort keys %$expected;
	es_continue($db);

	my $last = $db->value('SELECT max(position) FROM es_events');
	is($db->try(sprintf 'UPDATE %s SET type = type', $_->[0])->{sqlstate}, 'SE003', "$name: $_->[0] cannot be changed")
	  for ($db->rows('SELECT inhrelid::regclass FROM pg_inherits WHERE inhparent = \'es_events\'::regclass ORDER BY 1'))[ 0, -1 ];
	is_deeply([ $db->rows(q{SELECT position FROM es_fetch('mailer', 'm', 2)}) ], [ [556], [557] ], "$name: a reader goes on behind its cursor");
	is($db->value(q{SELECT count(*) FROM es_fetch('idle', 'i')}), 0, "$name: and one that has read all has nothing to read");

	my $version = $db->value(q{SELECT es_stream_version('order-7')});
	my ($next) = $db->rows(q{SELECT version, position FROM es_append('order-7', 'Next', '{}')});
	is($next->[0], $version + 1, "$name: the next append has the next version");
	cmp_ok($next->[1], '>', $last, "$name: and a position above all there are");
	is($db->try("SELECT es_append('order-8', 'Again', '{}', 4711)")->{sqlstate}, 'SE001', "$name: a conflict is seen");
	is($db->value(q{SELECT version FROM es_append_batch('order-new', array_fill('E'::text, ARRAY[250]), array_fill('1'::jsonb, ARRAY[250]))}),
		249, "$name: a new stream goes across further chunks");
	is($db->value(q{SELECT count(*) FROM es_fetch('idle', 'i')}), 251, "$name: and readers get it all");
	es_events_sound($db, $name);
	return;
}

# Run a client program of the server's: whether it succeeded, and what it said on standard error.
sub es_client
{
	my ($node, @command) = @_;
	my ($out, $err) = ('', '');
	local %ENV = $node->_get_env;

	my $ok = IPC::Run::run(\@command, '>', \$out, '2>', \$err);
	return ($ok, $err);
}

# The same, which must succeed in silence.
sub es_run
{
	my ($name, $node, @command) = @_;
	my ($ok, $err) = es_client($node, @command);
	ok($ok && $err eq '', $name) or diag($err);
	return;
}

1;
