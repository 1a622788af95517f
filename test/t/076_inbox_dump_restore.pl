# 076_inbox_dump_restore: a dump has durable inboxes and sequences, and their restore goes on where they ended.
#
# Messages wait in an inbox: new ones, some that failed, a dead letter with one behind it, one that waits for an earlier
# sequence; of a source numbers were seen beyond holes, and some were given up. Restored, all of it is there: what was
# seen is known, what waits is handled, in order.
use strict;
use warnings;
use Test::More;

use EsRestore;
use EsTest;

my $node = es_cluster('source');
es_connect($node)->rows('CREATE DATABASE inbox');
my $db = es_connect($node, dbname => 'inbox');
$db->rows($_) for split /;;/, q{
	CREATE EXTENSION es_pg;;
	CREATE TABLE shipped (n bigserial, id text);;
	CREATE FUNCTION ship(m es_inbox_message) RETURNS void LANGUAGE plpgsql AS $$
	BEGIN
		IF m.payload ? 'fail' THEN
			RAISE EXCEPTION 'no luck';
		END IF;
		INSERT INTO shipped (id) VALUES (m.message_id);
	END $$;;
	SELECT es_create_inbox('shipping', lanes => 2, max_attempts => 1, resequence_timeout => '1 day', lease_time => '1 s');;
	SELECT es_create_inbox('patient', lanes => 1, retry_base => '1 day', retry_max => '1 day', lease_time => '1 s');;
	SELECT es_inbox_put('shipping', 'done', 'orders', 'A', 'a', '{}');;
	SELECT es_inbox_put('shipping', 'dead', 'orders', 'A', 'b', '{"fail": 1}');;
	SELECT es_inbox_put('shipping', 'behind', 'orders', 'A', 'b', '{}');;
	SELECT es_inbox_put('patient', 'retry', 'orders', 'A', 'b', '{"fail": 1}');;
	SELECT * FROM es_inbox_run('shipping', 'ship(es_inbox_message)');;
	SELECT * FROM es_inbox_run('patient', 'ship(es_inbox_message)');;
	SELECT es_inbox_put('shipping', 's3', 'orders', 'A', 'c', '{}', "sequence" => 3);;
	SELECT es_inbox_put('shipping', 's1', 'orders', 'A', 'c', '{}', "sequence" => 1);;
	SELECT es_inbox_put('shipping', 'new', 'orders', 'A', 'a', '{}');;
	SELECT es_inbox_accept_sequence('looking', 'source', n) FROM unnest('{0,1,2,5,6,9}'::int[]) AS n;;
	SELECT es_inbox_accept_sequence('looking', 'other', 7, 'life');;
	SELECT es_inbox_close_holes('looking', 'other')};

my %contents = (
	inboxes => 'SELECT i::text FROM es_inboxes AS i ORDER BY consumer_id',
	keys => 'SELECT k::text FROM es_inbox_keys AS k ORDER BY key',
	held => 'SELECT h::text FROM es_inbox_held AS h ORDER BY key',
	parked => 'SELECT p::text FROM es_parked AS p ORDER BY subscription_id, position',
	sequences => 'SELECT s::text FROM es_inbox_sequences AS s ORDER BY sequence_id',
	ranges => 'SELECT r::text FROM es_inbox_ranges AS r ORDER BY sequence_id, low',
	lost => 'SELECT l::text FROM es_inbox_lost AS l ORDER BY sequence_id, low',
	status => 'SELECT consumer, backlog, oldest_waiting, parked, dead, held FROM es_inbox_status ORDER BY consumer');

sub contents
{
	my ($db) = @_;
	return { map { my $what = $_; $what => [ map { join '|', map { $_ // '' } @$_ } $db->rows($contents{$what}) ] } keys %contents };
}

my $expected = contents($db);
is_deeply($expected->{status}[2] =~ s/\|20[^|]*//r, 'shipping|4|1|1|1', 'there is some of each') or diag(explain($expected->{status}));
is(scalar @{ $expected->{ranges} }, 2, 'there are holes');
is(scalar @{ $expected->{lost} }, 1, 'and one that was given up');

my $tmp = $PostgreSQL::Test::Utils::tmp_check;
for my $format ('plain', 'custom')
{
	my $name = "inbox_$format";
	my $dump = "$tmp/$name";

	es_run("$name: pg_dump", $node, 'pg_dump', "--format=$format", "--file=$dump", 'inbox');
	es_connect($node)->rows("CREATE DATABASE $name");
	es_run("$name: restore", $node, $format eq 'plain' ? ('psql', '-X', '-q', '-o', '/dev/null', '-v', 'ON_ERROR_STOP=1', '-d', $name, '-f', $dump)
		: ('pg_restore', '--exit-on-error', '-d', $name, $dump));

	my $restored = es_connect($node, dbname => $name);
	is_deeply(contents($restored), $expected, "$name: all of it is there");
	is($restored->try(q{SELECT es_inbox_put('shipping', 'next', 'orders', 'A', 'a', '{}')})->{sqlstate}, 'SE008',
		"$name: nothing is stored before somebody says whose log this is");
	es_continue($restored);
	is($restored->value(q{SELECT es_inbox_put('shipping', '}. $_ . q{', 'orders', 'A', 'a', '{}')}), 'f', "$name: $_ was seen")
	  for qw(done dead behind s3 s1 new);
	is($restored->value(q{SELECT string_agg(es_inbox_accept_sequence('looking', 'source', n)::text, ',') FROM generate_series(0, 10) AS n}),
		'false,false,false,true,true,false,false,true,true,false,true', "$name: so were its numbers, and not the others");
	is($restored->value(q{SELECT es_inbox_accept_sequence('looking', 'other', 7, 'life')}), 'f', "$name: in their incarnation");
	is($restored->try(q{SELECT es_inbox_accept_sequence('looking', 'other', 7, 'another')})->{sqlstate}, 'SE008', "$name: and no other");
	is($restored->value(q{SELECT es_inbox_put('shipping', 's2', 'orders', 'A', 'c', '{}', "sequence" => 2)}), 't', "$name: what was waited for comes");
	is($restored->value(q{SELECT es_redrive('$inbox/shipping')}), 1, "$name: the dead letter is sent again");
	$restored->rows('UPDATE es_parked SET payload = payload - $$fail$$, next_attempt_at = now() - interval $$1 s$$ WHERE next_attempt_at IS NOT NULL');
	# The lanes are those of a session that may be alive, until its lease is over.
	ok(es_poll(sub {
				$restored->rows("SELECT es_inbox_run('$_', 'ship(es_inbox_message)')") for 'shipping', 'patient';
				$restored->value('SELECT sum(backlog) FROM es_inbox_status') == 0;
			}, 60), "$name: nothing waits any more");
	is_deeply([ sort map { $_->[0] } $restored->rows('SELECT id FROM shipped') ], [ sort qw(done dead behind retry s1 s2 s3 new) ],
		"$name: everything is handled, once");
	es_check($restored, "$name: in order", q{SELECT * FROM (SELECT id, lag(id) OVER (ORDER BY n) AS before FROM shipped WHERE id ~ '^s') AS s WHERE before > id});
	$restored->close;
}

$node->stop;
done_testing();
