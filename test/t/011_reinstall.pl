# 011_reinstall: the extension goes and comes again, under sessions that know the old one by heart; and what people do to its
# schema and its tables.
#
# Sessions hold prepared statements, functions with cached plans, open cursors, an open transaction that appended, a
# subscription to notifications. DROP EXTENSION waits for who is using the log and for nobody else; what was handed out
# stays readable; and from the first call after CREATE EXTENSION each of them works on the new log, from position 1. Then
# the same at random moments, under writers. Renaming what es_pg needs is refused, or ends in an error that says what is
# missing, and naming it back mends it. All of it works without es_pg's schema on the search path.
use strict;
use warnings;
use Test::More;

use EsTest;

my $seed = es_seed();
my $node = es_cluster('reinstall', 'es_pg.event_chunk_size = 100', 'es_pg.outbox_chunk_size = 100', 'deadlock_timeout = 100ms');
my $db = es_connect($node);
my ($keeper, $holder, $listener, $waiter) = map { es_connect($node) } 1 .. 4;

sub waits
{
	my ($session, $what) = @_;
	return es_poll(sub { ($db->value('SELECT wait_event_type FROM pg_stat_activity WHERE pid = ' . $session->pid) // '') eq $what }, 30);
}

# Caches of all kinds.
my $append = q{SELECT version, position FROM es_append('order-1', 'E', '{}')};
$db->rows(q{
	CREATE FUNCTION note(stream text) RETURNS bigint LANGUAGE plpgsql AS $$
	DECLARE
		last es_appended;
	BEGIN
		SELECT * INTO last FROM es_append(stream, 'Noted', '{}');
		RETURN last.version;
	END $$});
$db->rows(q{SELECT es_append('big-1', 'Big', jsonb_build_object('a', (SELECT string_agg(md5(i::text), '') FROM generate_series(1, 5000) AS i)))});
$db->rows(q{SELECT es_create_subscription('s', 'beginning')});
for my $session ($db, $keeper)
{
	$session->rows("PREPARE append AS $append");
	$session->rows('PREPARE log AS SELECT position, stream, version FROM es_read_all(0, 100000) ORDER BY position');
	$session->rows('EXECUTE append') for 1 .. 7;
	$session->rows('EXECUTE log') for 1 .. 7;
	$session->rows(q{SELECT note('note-1')}) for 1 .. 7;
}
$keeper->rows('BEGIN');
$keeper->rows('DECLARE kept CURSOR WITH HOLD FOR SELECT stream, length(data::text) FROM es_read_all(0, 100000)');
$keeper->rows('COMMIT');
$listener->rows('LISTEN es_pg');
is($listener->value('SELECT count(*) FROM es_read_all(es_horizon())'), 0, 'a listener has read all there is');

# Who uses the log is waited for; a reader's open cursor, a writer's open transaction, a fetch that sleeps.
$keeper->rows('BEGIN');
$keeper->rows('DECLARE reading CURSOR FOR SELECT stream, length(data::text) FROM es_read_all(0, 100000)');
$keeper->rows('FETCH 1 FROM reading');
$holder->rows('BEGIN');
$holder->rows($append);
for my $who ($keeper, $holder)
{
	$db->rows('BEGIN');
	$db->rows(q{SET LOCAL lock_timeout = '50ms'});
	is($db->try('DROP EXTENSION es_pg')->{sqlstate}, '55P03', 'DROP EXTENSION waits');
	$db->rows('ROLLBACK');
	is($who->rows($who == $holder ? $append : 'FETCH ALL FROM reading') > 0, 1, 'for somebody who uses the log, and who goes on');
	$who->rows('COMMIT');
}
$waiter->send(q{SELECT * FROM es_fetch('s', 'w', 10, '20 s') WHERE position > 100000});
$waiter->receive(30);
$db->rows(q{SELECT es_ack('s', lane, epoch, position) FROM es_fetch('s', 'w', 100000)});
$waiter->send(q{SELECT count(*) FROM es_fetch('s', 'w', 10, '1 s')});
ok(waits($waiter, 'Extension'), 'a fetch sleeps');
$db->rows('DROP EXTENSION es_pg');
is($waiter->receive(30)->{rows}[0][0], 0, 'which DROP EXTENSION lets end');

# Nothing is there, and everybody is told so.
for my $session ($db, $keeper)
{
	like($session->try($_)->{sqlstate}, qr/^42883$/, 'without the extension: no such function') for 'EXECUTE append', q{SELECT note('note-1')}, $append;
}
cmp_ok($keeper->value(q{SELECT count(*) FROM pg_cursors WHERE name = 'kept'}), '==', 1, 'a held cursor is still open');
cmp_ok(($keeper->rows('FETCH 1 FROM kept'))[0][1], '>', 150_000, 'and has its events, the large one too');
is($db->value(q{SELECT count(*) FROM pg_namespace WHERE nspname = 'es_chunks'}), 0, 'the chunks are gone with their schema');

# The next log begins with 1, for all of them.
$db->rows('CREATE EXTENSION es_pg');
my $expected = 0;
for my $session ($keeper, $db, $holder, $waiter)
{
	my $prepared = $session == $keeper || $session == $db;
	is_deeply([ $session->rows($prepared ? 'EXECUTE append' : $append) ], [ [ $expected, $expected + 1 ] ], 'a session that knew the old log appends to the new one');
	$expected++;
	is(scalar(() = $session->rows('EXECUTE log')), $expected, 'and reads it') if $prepared;
}
is($keeper->value(q{SELECT note('note-1')}), 0, 'so does a function with cached plans');
is($listener->value('SELECT count(*) FROM es_read_all()'), 5, 'a listener reads the new log');
is($listener->value('SELECT count(*) FROM es_read_all(es_horizon())'), 0, 'to its end');
$listener->notifications;
$db->rows($append);
is(scalar(() = $listener->notifications), 1, 'and is told of the next commit');
is($db->try(q{SELECT * FROM es_fetch('s', 'w')})->{sqlstate}, '42704', 'the old subscription is gone');
es_events_sound($db, 'after a new installation');

# In one transaction that is given up: nothing has happened.
my $log = join ' ', map { "@$_" } $db->rows('EXECUTE log');
$db->rows('BEGIN');
$db->rows('DROP EXTENSION es_pg');
$db->rows('CREATE EXTENSION es_pg');
is_deeply([ $db->rows($append) ], [ [ 0, 1 ] ], 'a new installation can be used in the transaction that makes it');
$db->rows('ROLLBACK');
is(join(' ', map { "@$_" } $db->rows('EXECUTE log')), $log, 'after a rollback the log is the old one');
is($keeper->value($append), $expected + 1, 'and goes on');
is($db->value($append), $expected + 2, 'for everybody');
$db->rows('BEGIN');
$db->rows($append);
is($db->try('DROP EXTENSION es_pg; CREATE EXTENSION es_pg; SELECT es_append(\'order-1\', \'E\', \'{}\')')->{sqlstate}, '55000',
	'a transaction that wrote to the old log cannot write to a new one');
$db->rows('ROLLBACK');
es_events_sound($db, 'after a rollback');

# At random moments, under writers: they fail while there is nothing to write to, and work as soon as there is.
my $stop = "$PostgreSQL::Test::Utils::tmp_check/stop";
my @writers = map {
	my $w = $_;
	es_fork("writer$w", sub {
			my ($out) = @_;
			my $session = es_connect($node);
			my $until = time + 120;
			srand $seed * 10 + $w;
			while (!-e $stop)
			{
				die "not stopped in time\n" if time > $until;
				my $n = rand() < 0.7 ? 1 : 20 + int rand 100;
				my $answer = $session->try("SELECT position, es_incarnation() FROM es_append_batch('w-$w', array_fill('E'::text, ARRAY[$n]), array_fill('1'::jsonb, ARRAY[$n]))");
				print $out defined $answer->{sqlstate} ? "error $answer->{sqlstate} $answer->{message}\n" : "kept $answer->{rows}[0][0] $answer->{rows}[0][1]\n";
			}
		});
} 1 .. 4;
for my $round (1 .. 12)
{
	my $more = $db->value('SELECT es_last_position()') + 100 + int rand 600;
	ok(es_poll(sub { $db->value('SELECT es_horizon()') > $more }, 15), "writers go on to $more, round $round") or last;
	my $answer;
	ok(es_poll(sub { $answer = $db->try('DROP EXTENSION es_pg'); ($answer->{sqlstate} // '') ne '40P01' }), 'the extension is dropped');
	is($answer->{sqlstate}, undef, 'without error') or diag($answer->{message});
	$db->rows('CREATE EXTENSION es_pg');
}
ok(es_poll(sub { $db->value('SELECT es_horizon()') > 500 }), 'writers go on');
open my $flag, '>', $stop or die "$stop: $!";
close $flag;
my @lines = map { @{ es_reap($_) // ['error died'] } } @writers;
my $incarnation = $db->value('SELECT es_incarnation()');
my %there = map { $_->[0] => 1 } $db->rows('SELECT position FROM es_events');
my %errors;
my $lost = 0;
for (@lines)
{
	if (/^error (\w+) (.*)/)
	{
		my ($code, $message) = ($1, $2);
		$message =~ s/\d+/N/g;
		$errors{"$code $message"}++;
	}
	elsif (/^kept (\d+) (\S+)/ && $2 eq $incarnation)
	{
		$lost++ if !$there{$1};
	}
}
note("$errors{$_} times $_") for sort keys %errors;
is_deeply([ grep { !/^(42883|55000|55006|40P01)/ } sort keys %errors ], [], 'writers met no error but that it was not there');
is($lost, 0, 'what was answered of the last log is there');
es_events_sound($db, 'after new installations under load');
is($db->value(q{SELECT count(*) FROM pg_class AS c WHERE relnamespace = 'es_chunks'::regnamespace AND relkind = 'r'
	AND NOT EXISTS (SELECT FROM es_chunk_list WHERE chunk = c.oid)}), 0, 'there is no chunk without a parent');

# In a schema of its own, which is not on the search path; what is there has the names of what es_pg uses.
$db->rows('CREATE DATABASE apart');
my $apart = es_connect($node, dbname => 'apart');
$apart->rows('CREATE SCHEMA "Event Log"');
$apart->rows('CREATE EXTENSION es_pg SCHEMA "Event Log"');
$apart->rows(q{CREATE SCHEMA bait; SET search_path = bait});
$apart->rows(q{CREATE TABLE es_streams (name text); CREATE TABLE es_events (position bigint); CREATE TABLE es_subscriptions (name text)});
$apart->rows(q{CREATE FUNCTION es_horizon() RETURNS bigint LANGUAGE sql RETURN 4711});
$apart->rows(q{CREATE FUNCTION now() RETURNS timestamptz LANGUAGE sql RETURN '-infinity'::timestamptz});
my $es = '"Event Log".';
my @calls = (
	[ q{SELECT version FROM es.es_append('order-1', 'E', '{}', es.es_no_stream())}, 0 ],
	[ q{SELECT version FROM es.es_append_batch('order-1', array_fill('B'::text, ARRAY[300]), array_fill('1'::jsonb, ARRAY[300]))}, 300 ],
	[ q{SELECT version FROM es.es_append_json('order-1', '[{"type": "J", "data": 1}]', es.es_stream_exists())}, 301 ],
	[ q{SELECT es.es_stream_version('order-1')}, 301 ],
	[ q{SELECT count(*) FROM es.es_read_stream('order-1')}, 302 ],
	[ q{SELECT count(*) FROM es.es_read_category('order')}, 302 ],
	[ q{SELECT count(*) FROM es.es_read_all()}, 302 ],
	[ q{SELECT count(*) FROM es.es_read_all() AS r, LATERAL es.es_read_event(r.event_id) WHERE r.type = 'J'}, 1 ],
	[ q{SELECT es.es_last_position() - es.es_horizon()}, 0 ],
	[ q{SELECT count(*) FROM es.es_in_flight()}, 0 ],
	[ q{SELECT es.es_create_subscription('s', 'beginning') IS NULL}, 'f' ],
	[ q{SELECT count(*) FROM es.es_fetch('s', 'c')}, 302 ],
	[ q{SELECT es.es_ack('s', lane, epoch, position) IS NULL FROM es.es_fetch('s', 'c') WHERE position = 300}, 'f' ],
	[ q{SELECT count(*) FROM es.es_fetch('s', 'c')}, 2 ],
	[ q{SELECT es.es_maintain() IS NULL}, 'f' ],
	[ q{SELECT count(*) FROM es.es_cursors}, 1 ],
	[ q{SELECT es.es_protect_history()}, 0 ],
	[ q{SELECT count(*) > 3 FROM es.es_chunk_list}, 't' ],
	[ q{SELECT created_at > '-infinity' FROM es.es_subscriptions}, 't' ],
	[ q{SELECT es.es_drop_subscription('s') IS NULL}, 'f' ]);
for my $path ('bait', q{''})
{
	$apart->rows("SET search_path = $path");
	for my $call (@calls)
	{
		my ($sql, $due) = @$call;
		(my $show = $sql) =~ s/\s+/ /g;
		$sql =~ s/\bes\./$es/g;
		$sql =~ s/'order-1'/'order-2'/g if $path ne 'bait';
		$due = { 302 => 604, 2 => 304, 1 => 2 }->{$due} // $due if $path ne 'bait' && $sql =~ /count/ && $sql !~ /es_read_stream|es_cursors/;
		my $answer = $apart->try($sql);
		is($answer->{rows}[0][0] // $answer->{message}, $due, "search_path $path: $show");
	}
	is($apart->try("UPDATE ${es}es_events SET type = 'x'")->{sqlstate}, 'SE003', "search_path $path: history stays");
}

# Names that must stay.
$apart->rows('DROP TABLE bait.es_streams, bait.es_events, bait.es_subscriptions');
$apart->rows('SET search_path = "Event Log"');
my $answer = $apart->try('ALTER EXTENSION es_pg SET SCHEMA bait');
is("$answer->{sqlstate} $answer->{message}", '0A000 extension "es_pg" does not support SET SCHEMA', 'SET SCHEMA is refused');
for my $schema ('Event Log', 'es_chunks')
{
	$answer = $apart->try(qq{ALTER SCHEMA "$schema" RENAME TO other});
	is("$answer->{sqlstate} $answer->{message}", qq{0A000 cannot rename schema "$schema" because extension "es_pg" uses it}, "so is renaming $schema");
}
is($apart->try($_)->{sqlstate}, undef, $_) for 'ALTER SCHEMA bait RENAME TO other', 'ALTER SCHEMA other RENAME TO bait', 'ALTER SCHEMA "Event Log" OWNER TO CURRENT_USER';
is($apart->try($_)->{sqlstate}, '2BP01', "refused: $_") for 'DROP SCHEMA es_chunks', 'DROP SCHEMA es_chunks CASCADE', 'DROP TABLE es_streams', 'DROP TABLE es_events CASCADE';

# The owner renames or moves a table: an error that names it, in all sessions, until it has its name again.
my $other = es_connect($node, dbname => 'apart');
$other->rows('SET search_path = "Event Log"');
my $version = $apart->value(q{SELECT es_stream_version('order-1')});
for my $name ('es_streams', 'es_events', 'es_stream_chunks', 'es_outbox', 'es_incarnations', 'es_position_bound')
{
	my $kind = $name eq 'es_position_bound' ? 'SEQUENCE' : 'TABLE';
	for my $way ("RENAME TO gone", 'SET SCHEMA bait')
	{
		my ($back, $now) = $way =~ /RENAME/ ? ("RENAME TO $name", 'gone') : ('SET SCHEMA "Event Log"', "bait.$name");
		$apart->rows("ALTER $kind $name $way");
		for my $session ($apart, $other)
		{
			$answer = $session->try(q{SELECT es_append('order-1', 'E', '{}')});
			is("$answer->{sqlstate} $answer->{message}", qq{42P01 relation "$name" of extension "es_pg" does not exist}, "$name $way: the next append says so");
		}
		$apart->rows("ALTER $kind $now $back");
		is($other->value(q{SELECT version FROM es_append('order-1', 'E', '{}')}), ++$version, 'and named back it goes on');
	}
}
$apart->rows('ALTER INDEX es_streams_name_key RENAME TO gone');
is($other->try(q{SELECT es_append('order-1', 'E', '{}')})->{sqlstate}, '42P01', 'an index that is needed');
$apart->rows('ALTER INDEX gone RENAME TO es_streams_name_key');

# Chunks are known by their OIDs: their names and places are their owner's.
my $leaf = $apart->value(q{SELECT tableoid::regclass FROM es_events ORDER BY position LIMIT 1});
$apart->rows("ALTER TABLE $leaf RENAME TO renamed");
$apart->rows('ALTER TABLE es_chunks.renamed SET SCHEMA bait');
is($other->value(q{SELECT count(*) = es_stream_version('order-1') + 1 FROM es_read_stream('order-1', 0, 100000)}), 't', 'a chunk that was renamed and moved is read');
is($apart->try('DELETE FROM bait.renamed')->{sqlstate}, 'SE003', 'and protected');
is($other->value(q{SELECT version FROM es_append('order-1', 'E', '{}')}), ++$version, 'and appends go on');
$apart->rows('SET search_path = "Event Log", public');
es_events_sound($apart, 'after all the renaming');

# What migration tools see of a user's schema, and drop of it when told to clean it: what is not an extension's, and no
# partition. In a schema of its own es_pg is no part of it; in the user's schema each object is known as an extension's.
my $member = q{SELECT FROM pg_depend WHERE classid = '%s'::regclass AND objid = %s AND deptype = 'e'};
my %cleaned = (
	'views' => q{SELECT format('DROP VIEW %I.%I CASCADE', table_schema, table_name) FROM information_schema.views
		WHERE table_schema = ANY (SCHEMAS) AND NOT EXISTS (} . sprintf($member, 'pg_class', q{format('%I.%I', table_schema, table_name)::regclass}) . ')',
	'tables' => q{SELECT format('DROP TABLE %I.%I CASCADE', table_schema, table_name) FROM information_schema.tables
		WHERE table_schema = ANY (SCHEMAS) AND table_type = 'BASE TABLE'
		  AND NOT EXISTS (SELECT FROM pg_inherits WHERE inhrelid = format('%I.%I', table_schema, table_name)::regclass)
		  AND NOT EXISTS (} . sprintf($member, 'pg_class', q{format('%I.%I', table_schema, table_name)::regclass}) . ')',
	'functions' => q{SELECT format('DROP FUNCTION %s CASCADE', p.oid::regprocedure) FROM pg_proc AS p JOIN pg_namespace AS n ON n.oid = pronamespace
		WHERE nspname = ANY (SCHEMAS) AND NOT EXISTS (} . sprintf($member, 'pg_proc', 'p.oid') . ')',
	'types' => q{SELECT format('DROP TYPE %s CASCADE', t.oid::regtype) FROM pg_type AS t JOIN pg_namespace AS n ON n.oid = typnamespace
		LEFT JOIN pg_class AS c ON c.oid = typrelid
		WHERE nspname = ANY (SCHEMAS) AND typelem = 0 AND coalesce(c.relkind, 'c') = 'c' AND NOT EXISTS (} . sprintf($member, 'pg_type', 't.oid') . ')',
	'sequences' => q{SELECT format('DROP SEQUENCE %s CASCADE', c.oid::regclass) FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = relnamespace
		WHERE nspname = ANY (SCHEMAS) AND relkind = 'S' AND NOT EXISTS (SELECT FROM pg_depend WHERE classid = 'pg_class'::regclass AND objid = c.oid AND deptype IN ('e', 'i'))});
my $introspected = q{SELECT c.relname FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = relnamespace
	WHERE nspname = 'app' AND (relkind IN ('v', 'm') OR relkind IN ('r', 'p') AND NOT relispartition)
	UNION SELECT table_name FROM information_schema.tables WHERE table_schema = 'app' ORDER BY 1};

for my $home ('log', 'app')
{
	$db->rows("CREATE DATABASE tools_$home");
	my $app = es_connect($node, dbname => "tools_$home");
	$app->rows($_) for 'CREATE SCHEMA app', 'CREATE SCHEMA IF NOT EXISTS ' . $home, "CREATE EXTENSION es_pg SCHEMA $home",
		'CREATE TABLE app.orders (id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY, at serial)', 'CREATE VIEW app.recent AS SELECT id FROM app.orders',
		"CREATE TYPE app.state AS ENUM ('new', 'paid')", 'CREATE FUNCTION app.one() RETURNS integer LANGUAGE sql RETURN 1', "SET search_path = app, $home";
	my @before = map { $_->[0] } $app->rows($introspected);
	$app->rows(q{SELECT es_append_batch('order-1', array_fill('E'::text, ARRAY[450]), array_fill('1'::jsonb, ARRAY[450]))});
	cmp_ok($app->value('SELECT count(*) FROM es_chunk_list'), '>', 4, "$home: there are chunks made at run time");
	is_deeply([ map { $_->[0] } $app->rows($introspected) ], \@before, "$home: and the user's schema is as it was before them");
	is_deeply(\@before, [ 'orders', 'recent' ], "$home: with nothing of es_pg's") if $home ne 'app';
	is_deeply([ grep { !/^(es_\w+|orders|recent)$/ } @before ], [], "$home: with nothing that is called otherwise");

	# The user's schema is cleaned, and once more with es_chunks named beside it.
	for my $schemas ("ARRAY['app']", "ARRAY['app', 'es_chunks']")
	{
		for my $what ('views', 'tables', 'functions', 'types', 'sequences')
		{
			$app->rows($_->[0]) for $app->rows($cleaned{$what} =~ s/SCHEMAS/$schemas/r);
		}
		is($app->value(q{SELECT count(*) FROM pg_class WHERE oid = to_regclass('app.orders') OR oid = to_regclass('app.recent')}), 0, "$home: $schemas is cleaned");
		is($app->try(q{SELECT es_append('order-1', 'E', '1', es_stream_version('order-1'))})->{sqlstate}, undef, "$home: and the log goes on");
		is($app->value('SELECT count(*) > 450 AND count(*) = es_stream_version(\'order-1\') + 1 FROM es_read_all(0, 1000)'), 't', "$home: with all it had");
	}
}

$node->stop;
done_testing();
