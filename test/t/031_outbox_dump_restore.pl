# 031_outbox_dump_restore: a dump has the outbox, and its restore goes on where it ended.
#
# Messages lie in several chunks, the first of which were dropped, one of which was closed by its age; others wait for
# their time. Restored, they are what they were; the next message has a position above all; what is due is published,
# once; the retention goes on.
use strict;
use warnings;
use Test::More;

use EsRestore;
use EsTest;

my $node = es_cluster('source', 'es_pg.outbox_chunk_size = 100');
my $db = es_connect($node);

my %contents = (
	messages => 'SELECT o::text FROM es_outbox AS o ORDER BY position',
	delayed => 'SELECT d::text FROM es_delayed AS d ORDER BY delayed_id',
	chunks => q{SELECT chunk::regclass, bounds FROM es_chunk_list WHERE chunk IN (SELECT tableoid FROM es_outbox) ORDER BY chunk::text COLLATE "C"});

sub contents
{
	my ($db) = @_;
	return { map { my $what = $_; $what => [ map { join '|', @$_ } $db->rows($contents{$what}) ] } keys %contents };
}

$db->rows(q{CREATE DATABASE log});
$db = es_connect($node, dbname => 'log');
$db->rows('CREATE EXTENSION es_pg');
$db->rows(q{SELECT es_publish_batch('t', array_fill('T'::text, ARRAY[250]), array_fill('{"a": "\u00e9"}'::jsonb, ARRAY[250]))});
$db->rows('SET es_pg.outbox_retention = 0; SET es_pg.outbox_chunk_interval = 0');
cmp_ok($db->value('SELECT es_retire_chunks()'), '>=', 2, 'chunks were dropped, and one closed');
$db->rows('RESET es_pg.outbox_retention; RESET es_pg.outbox_chunk_interval');
$db->rows(q{SELECT es_publish('t', 'T', to_jsonb(i), key => i::text, headers => '{"h": null}') FROM generate_series(1, 120) AS i});
$db->rows(q{SELECT es_publish_binary('t', 'B', '\x00ff'::bytea, 'application/octet-stream')});
$db->rows(q{SELECT es_publish('t', 'Due', to_jsonb(i), deliver_after => now() + make_interval(hours => 11 - i)) FROM generate_series(1, 10) AS i});
$db->rows(q{SELECT es_publish('t', 'Later', '1', deliver_after => now() + '30 days')});
$db->rows(q{UPDATE es_delayed SET deliver_after = deliver_after - interval '2 days' WHERE type = 'Due'});
my $expected = contents($db);
cmp_ok(scalar @{ $expected->{chunks} }, '>=', 2, 'there are several chunks');
is(scalar @{ $expected->{delayed} }, 11, 'and messages that wait');

my $tmp = $PostgreSQL::Test::Utils::tmp_check;
for my $format ('plain', 'custom')
{
	my $name = "log_$format";
	my $dump = "$tmp/$name";

	es_run("$name: pg_dump", $node, 'pg_dump', "--format=$format", "--file=$dump", 'log');
	$db->rows("CREATE DATABASE $name");
	es_run("$name: restore", $node, $format eq 'plain' ? ('psql', '-X', '-q', '-o', '/dev/null', '-v', 'ON_ERROR_STOP=1', '-d', $name, '-f', $dump)
		: ('pg_restore', '--exit-on-error', '-d', $name, $dump));

	my $restored = es_connect($node, dbname => $name);
	my $last = $restored->value('SELECT max(position) FROM es_outbox');
	is_deeply(contents($restored), $expected, "$name: messages, what waits, and chunks are what they were");
	is($restored->try($_)->{sqlstate}, 'SE008', "$name: nothing is published before somebody says whose log this is: $_")
	  for q{SELECT es_publish('t', 'Next', '1')}, 'SELECT es_publish_due()', q{SELECT es_publish('t', 'Next', '1', deliver_after => now() + '1 h')};
	$restored->rows(q{SELECT es_adopt('copied')});
	cmp_ok($restored->value(q{SELECT es_publish('t', 'Next', '1')}), '>', $last, "$name: the next message has a position above all");
	is($restored->value('SELECT es_publish_due()'), 10, "$name: what is due is published");
	is_deeply([ map { $_->[0] } $restored->rows(q{SELECT payload FROM es_outbox WHERE type = 'Due' ORDER BY position}) ],
		[ reverse 1 .. 10 ], "$name: in the order of its times");
	is($restored->value('SELECT es_publish_due()'), 0, "$name: and only once");
	is($restored->value('SELECT count(*) FROM es_delayed'), 1, "$name: what is not waits on");
	$restored->rows('SET es_pg.outbox_retention = 0; SET es_pg.outbox_chunk_interval = 0');
	cmp_ok($restored->value('SELECT es_retire_chunks()'), '>', 0, "$name: chunks are dropped");
	is($restored->value('SELECT count(*) FROM es_outbox'), 0, "$name: and all messages with them");
	$restored->close;
}

is_deeply(contents($db), $expected, 'the original is as it was');
$db->close;
$node->stop;
done_testing();
