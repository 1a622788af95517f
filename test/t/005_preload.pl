# 005_preload: it works as it comes, preloaded, and where no background worker can be had.
#
# Not preloaded, the registry must fit into what the server's shared memory has to spare, for any max_connections; so
# there are many backends, and many databases. With max_worker_processes = 0 the writers make their chunks themselves, each
# in its own transaction, and the others wait for that: so chunks, and the log's first
# incarnation, are made there before transactions stay open.
use strict;
use warnings;
use Test::More;

use EsTest;

use constant BACKENDS => 150;

my %kinds = (
	plain => [],
	preloaded => ["shared_preload_libraries = 'es_pg'"],
	workerless => ['max_worker_processes = 0']);

for my $kind (sort keys %kinds)
{
	es_seed();
	my $node = es_cluster($kind, 'max_connections = 400', 'es_pg.event_chunk_size = 100', @{ $kinds{$kind} });
	my $db = es_connect($node);

	# Many backends at once, each with a position of its own in flight, over several chunks.
	$db->rows(q{SELECT es_prepare_chunks(3), es_adopt('moved')}) if $kind eq 'workerless';
	my @sessions = map { es_connect($node) } 1 .. BACKENDS;
	for my $i (0 .. $#sessions)
	{
		$sessions[$i]->rows('BEGIN');
		$sessions[$i]->rows("SELECT es_append('many-$i', 'First', '{}')");
	}
	my $writing = BACKENDS;
	is($db->value('SELECT count(*) FROM es_in_flight()'), $writing, "$kind: $writing writers are in flight");
	is($db->value('SELECT es_horizon()'), 0, "$kind: and the horizon is below all of them");
	$_->rows('COMMIT') for reverse @sessions[ 1 .. $#sessions ];
	is($db->value('SELECT es_horizon()'), 0, "$kind: the first holds it to the end");
	$sessions[0]->rows('COMMIT');
	is($db->value('SELECT es_horizon()'), $writing, "$kind: then it is at the last");
	is($db->value('SELECT count(*) FROM es_read_all()'), $writing, "$kind: and everything can be read");

	# At once, across chunks; one event a transaction.
	my @pids = map {
		my $w = $_;
		es_fork("$kind$w", sub {
				my $session = es_connect($node);
				$session->rows("SELECT es_append('own-$w', 'E', '{}')") for 1 .. 100;
				$session->rows("SELECT es_append_batch('own-$w', array_fill('B'::text, ARRAY[250]), array_fill('1'::jsonb, ARRAY[250]))");
			});
	} 1 .. 6;
	is(scalar(grep { !es_reap($_) } @pids), 0, "$kind: six writers came to their end");
	is($db->value('SELECT count(*) FROM es_read_all(0, 100000)'), $writing + 6 * 350, "$kind: with all their events");
	es_events_sound($db, $kind);

	# A log of its own in each database.
	my @databases = map { "other$_" } 1 .. 4;
	my @others;
	for my $name (@databases)
	{
		$db->rows("CREATE DATABASE $name");
		my $other = es_connect($node, dbname => $name);
		$other->rows('CREATE EXTENSION es_pg');
		$other->rows('BEGIN');
		is($other->value(q{SELECT position FROM es_append('order-1', 'E', '{}')}), 1, "$kind: $name counts from 1");
		push @others, $other;
	}
	is($db->value('SELECT es_horizon() = es_last_position()'), 't', "$kind: open transactions of other databases hold nobody back");
	is($others[0]->value('SELECT count(*) FROM es_in_flight()'), 1, "$kind: each database knows its own writers");
	$_->rows('COMMIT') for @others;
	$_->close for @others, @sessions;

	# A new installation begins anew; a restart does not.
	my $last = $db->value('SELECT es_last_position()');
	my $other = es_connect($node, dbname => 'other1');
	$other->rows('DROP EXTENSION es_pg CASCADE');
	$other->rows('CREATE EXTENSION es_pg');
	is($other->value(q{SELECT position FROM es_append('order-1', 'E', '{}')}), 1, "$kind: a new installation counts from 1");
	$other->close;
	$db->close;
	$node->restart;
	$db = es_connect($node);
	cmp_ok($db->value(q{SELECT position FROM es_append('order-1', 'E', '{}')}), '>', $last, "$kind: after a restart positions go on");
	is($db->value('SELECT es_horizon() = es_last_position()'), 't', "$kind: and so does the horizon");
	is($db->value("SELECT count(*) FROM es_read_all($last, 1000)"), 1, "$kind: and the readers");
	$node->stop;
}

# With more databases at work than there is memory for, the next one is told so; it can work when another has ended.
# (From 17 on there is memory for 256, which would be too many databases to make here.)
SKIP:
{
	my $node = es_cluster('crowd', 'max_connections = 100');
	if ($node->pg_version >= 17)
	{
		$node->stop;
		skip 'there is memory for 256 logs', 1;
	}
	my $db = es_connect($node);
	my (@sessions, $refused);

	$db->rows(q{UPDATE pg_database SET datistemplate = true WHERE datname = 'postgres'});
	$db->close;
	my $template = es_connect($node, dbname => 'template1');
	for my $i (1 .. 34)
	{
		$template->rows("CREATE DATABASE crowd$i TEMPLATE postgres STRATEGY wal_log");
		my $session = es_connect($node, dbname => "crowd$i");
		my $answer = $session->try(q{SELECT es_append('order-1', 'E', '{}')});
		push @sessions, $session;
		next if !defined $answer->{sqlstate};
		$refused = $answer;
		last;
	}
	is($refused->{sqlstate}, '53400', 'too many databases at once: the next one is refused');
	like($refused->{message}, qr/too many databases/, 'and told why');
	my $last = $sessions[-1];
	is($last->value('SELECT 1'), 1, 'it is as usable as before otherwise');
	shift(@sessions)->close;
	ok(es_poll(sub { !defined $last->try(q{SELECT es_append('order-1', 'E', '{}')})->{sqlstate} }, 30), 'when one has ended it can work');
	my $first = es_connect($node, dbname => 'crowd1');
	is($first->try(q{SELECT es_append('order-1', 'E', '{}')})->{sqlstate}, '53400', 'and then the one that comes back cannot');
	(splice @sessions, 5, 1)->close;
	ok(es_poll(sub { !defined $first->try(q{SELECT es_append('order-1', 'E', '{}')})->{sqlstate} }, 30), 'until another has ended');
	cmp_ok($first->value('SELECT max(position) FROM es_events'), '>', 1, 'its positions go on');
	es_events_sound($first, 'a database that lost its place for a while');
	$node->stop;
}

done_testing();
