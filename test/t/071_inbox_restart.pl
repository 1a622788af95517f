# 071_inbox_restart: what the inbox knows outlives a crash, a dump and its restore; and what it may forget.
use strict;
use warnings;
use Test::More;

use EsRestore;
use EsTest;

my $node = es_cluster('inbox', 'max_prepared_transactions = 5');
my $db = es_connect($node);
my $week = 604_800_000_000;
my $this_week = $db->value("SELECT div(extract(epoch FROM now())::numeric - 946684800, 604800)");

sub chunk { my ($weeks) = @_; return 'es_inbox_' . ($this_week + $weeks) * $week }
sub accepts { my ($db, $id) = @_; return $db->value("SELECT es_inbox_accept('c', '$id')") }

# Wait until a session waits for another.
sub waits
{
	my ($pid) = @_;
	return es_poll(sub { es_connect($node)->value("SELECT count(*) FROM pg_locks WHERE pid = $pid AND NOT granted") > 0 }, 30);
}

# A crash.
$db->rows(q{SELECT es_inbox_accept_batch('c', ARRAY(SELECT 'm' || i FROM generate_series(1, 1000) AS i))});
$db->rows(q{BEGIN; SELECT es_command_begin('k', 'h'); SELECT es_command_end('k', '{"a": 1}'); COMMIT});
$db->rows('BEGIN');
accepts($db, 'open');
my $prepared = es_connect($node);
$prepared->rows(q{BEGIN; SELECT es_inbox_accept('c', 'prepared'); PREPARE TRANSACTION 'p'});
es_connect($node)->rows('CHECKPOINT');
$node->stop('immediate');
$node->start;
$db = es_connect($node);
is($db->value(q{SELECT cardinality(es_inbox_accept_batch('c', ARRAY(SELECT 'm' || i FROM generate_series(1, 1000) AS i)))}), 0, 'a crash takes no mark');
is($db->value(q{SELECT es_command_begin('k', 'h')}), '{"a": 1}', 'and no response');
is(accepts($db, 'open'), 't', 'but what was not committed');

# Two-phase commit.
my $other = es_connect($node);
$other->send(q{SELECT es_inbox_accept('c', 'prepared')});
ok(waits($other->pid), 'a twin of what is prepared waits');
$db->rows(q{COMMIT PREPARED 'p'});
is($other->receive(30)->{rows}[0][0], 'f', 'and is told the truth');

# A server whose clock was set back: there are marks in a chunk that is later than the present one.
$db->rows('SELECT es_restore_chunks(ARRAY[' . join(',', map { q{'} . chunk($_) . q{'} } 0 .. 2) . '])');
$db->rows(q{INSERT INTO es_inbox SELECT accepted_at + interval '336 hours', consumer_id, digest FROM es_inbox ORDER BY accepted_at LIMIT 500});
$db->rows(q{DELETE FROM es_inbox AS i USING es_inbox AS later WHERE i.digest = later.digest AND i.accepted_at < later.accepted_at});
$node->restart;
$db = es_connect($node);
is($db->value(q{SELECT cardinality(es_inbox_accept_batch('c', ARRAY(SELECT 'm' || i FROM generate_series(1, 1000) AS i)))}), 0,
	'marks of the future are known after a restart');
$db->rows(sprintf q{DELETE FROM es_inbox WHERE accepted_at > now() + interval '1 day'});

# An index is built anew meanwhile: for a while there are two, and the new one is not complete.
my $table = 'es_chunks.' . chunk(0);
my @open = map { es_connect($node) } 1 .. 2;
$_->rows('BEGIN') for @open;
accepts($open[0], 'before');
$other = es_connect($node);
$other->send("REINDEX TABLE CONCURRENTLY $table");
ok(waits($other->pid), 'REINDEX CONCURRENTLY waits for a writer');
accepts($open[1], 'meanwhile');
$open[0]->rows('COMMIT');
ok(es_poll(sub { $db->value("SELECT count(*) FROM pg_index WHERE indrelid = '$table'::regclass AND indisready AND NOT indisvalid") == 1 }, 30),
	'and then for the next, with an index that is not complete');
$db->rows(q{SET statement_timeout = '20s'});
is(join('', map { accepts($db, $_) } 'm1', 'before', 'during', 'during'), 'fftf', 'what is in the complete one is known, and what is new is new once');
my $twin = es_connect($node);
$twin->rows(q{SET statement_timeout = '30s'});
$twin->send(q{SELECT es_inbox_accept('c', 'meanwhile')});
ok(waits($twin->pid), 'a twin of what the new index does not have waits');
$open[1]->rows('COMMIT');
is($twin->receive(40)->{rows}[0][0], 'f', 'and is told the truth');
my $done = $other->receive(30);
is($done->{message}, undef, 'it is done');
is(join('', map { accepts($db, $_) } 'm1', 'before', 'meanwhile', 'during', 'after'), 'fffft', 'and nothing is lost');

# Retention: a chunk that somebody writes to stays, and so does one that somebody reads.
$db->rows(sprintf q{SELECT es_restore_chunks('{%s,%s,%s}')}, chunk(-3), chunk(-2), chunk(-1));
$db->rows(q{INSERT INTO es_inbox SELECT accepted_at - interval '504 hours', consumer_id, digest FROM es_inbox WHERE response IS NULL});
my $writer = es_connect($node);
$writer->rows(sprintf q{BEGIN; LOCK TABLE ONLY es_chunks.%s IN ROW EXCLUSIVE MODE}, chunk(-3));
is($db->value('SELECT es_retire_chunks()'), 1, 'the chunk that nobody uses is dropped');
is($db->value(sprintf q{SELECT to_regclass('es_chunks.%s') IS NOT NULL}, chunk(-3)), 't', 'one with a writer is not');
$writer->rows('ROLLBACK');
$db->rows("DELETE FROM $table");
is(accepts($db, 'm1'), 'f', 'its marks count');
is($db->value('SELECT es_retire_chunks()'), 1, 'then it is, too');
is(accepts($db, 'm1'), 't', 'and they are forgotten');
is($db->try(q{SELECT es_inbox_accept('c', 'm2', now() - interval '20 days')})->{sqlstate}, 'SE009', 'which is not hidden from whoever says when a message was made');
$db->rows(q{SET es_pg.inbox_retention = -1});
$db->rows(sprintf q{SELECT es_restore_chunks('{%s}')}, chunk(-4));
is($db->value('SELECT es_retire_chunks()'), 0, 'for ever is for ever');
$db->rows(sprintf q{DROP TABLE es_chunks.%s}, chunk(-4));

# Dump and restore.
$db->rows(q{CREATE DATABASE shop});
$db = es_connect($node, dbname => 'shop');
$db->rows('CREATE EXTENSION es_pg');
$db->rows(q{SELECT es_restore_chunks(ARRAY['} . chunk(-1) . q{', '} . chunk(0) . q{'])});
$db->rows(q{SELECT es_create_consumer('c'), es_inbox_accept('other', 'm1')});
$db->rows(q{SELECT es_inbox_accept_batch('c', ARRAY(SELECT 'm' || i FROM generate_series(1, 1000) AS i))});
$db->rows(q{UPDATE es_inbox SET accepted_at = accepted_at - interval '168 hours' WHERE get_byte(uuid_send(digest), 0) < 128});
$db->rows(q{BEGIN; SELECT es_command_begin('k', 'h'); SELECT es_command_end('k', '{"a": 1}'); COMMIT});
$db->rows(q{SELECT es_restore_chunks(ARRAY['} . chunk(-2) . q{'])});
$db->rows('SELECT es_retire_chunks()');

my %contents = (
	marks => 'SELECT i::text FROM es_inbox AS i ORDER BY digest',
	consumers => 'SELECT c::text FROM es_inbox_consumers AS c ORDER BY consumer_id',
	forgotten => 'SELECT f::text FROM es_inbox_forgotten AS f ORDER BY upto',
	chunks => q{SELECT chunk::regclass, bounds FROM es_chunk_list WHERE chunk IN (SELECT tableoid FROM es_inbox) ORDER BY chunk::text COLLATE "C"});

sub contents
{
	my ($db) = @_;
	return { map { my $what = $_; $what => [ map { join '|', @$_ } $db->rows($contents{$what}) ] } keys %contents };
}
my $expected = contents($db);
is(scalar @{ $expected->{chunks} }, 2, 'marks to be dumped lie in two chunks');
is(scalar @{ $expected->{forgotten} }, 1, 'and something is forgotten');

my $tmp = $PostgreSQL::Test::Utils::tmp_check;
for my $form ('plain', 'custom', 'data')
{
	my $name = "shop_$form";
	my $dump = "$tmp/$name";

	es_run("$form: pg_dump", $node, 'pg_dump', $form eq 'custom' ? '--format=custom' : '--format=plain', $form eq 'data' ? '--data-only' : (), "--file=$dump", 'shop');
	$db->rows("CREATE DATABASE $name");
	if ($form eq 'data')
	{
		my $empty = es_connect($node, dbname => $name);
		open my $in, '<', $dump or die $!;
		my $chunks = join ',', map { /^COPY es_chunks\.([a-z_0-9]*) / ? $1 : () } <$in>;
		$empty->rows('CREATE EXTENSION es_pg');
		$empty->rows("SELECT es_restore_chunks('{$chunks}')");
	}
	es_run("$form: restore", $node, $form eq 'custom' ? ('pg_restore', '--exit-on-error', '-d', $name, $dump)
		: ('psql', '-X', '-q', '-o', '/dev/null', '-v', 'ON_ERROR_STOP=1', '-d', $name, '-f', $dump));

	my $restored = es_connect($node, dbname => $name);
	is_deeply(contents($restored), $expected, "$form: marks, consumers and chunks are what they were");
	is($restored->value(q{SELECT cardinality(es_inbox_accept_batch('c', ARRAY(SELECT 'm' || i FROM generate_series(1, 1001) AS i)))}), 1,
		"$form: what was seen is known, what was not is new");
	is($restored->value(q{SELECT es_command_begin('k', 'h')}), '{"a": 1}', "$form: and so are responses");
	is($restored->try(q{SELECT es_inbox_accept('c', 'm2000', now() - interval '40 days')})->{sqlstate}, 'SE009', "$form: and what is not known");
	es_continue($restored);
	is($restored->value(q{SELECT es_inbox_accept('third', 'm1')}), 't', "$form: a new consumer has an id of its own");
	is($restored->value('SELECT count(DISTINCT consumer_id) FROM es_inbox_consumers'), 4, "$form: which nobody had");
}
done_testing();
