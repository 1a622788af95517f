# 070_inbox_kill: whatever dies, each message has its effect once.
#
# 100,000 messages are delivered two or three times each, in random order, to four consumers at once. A consumer takes a
# batch of deliveries in one transaction: it writes an effect for each message that es_inbox_accept or its batch calls
# new, some in a savepoint that is rolled back first, some in a transaction that is; it inserts all of them into
# a table that has a guard; it commits, and only then acknowledges. Again and again a consumer is killed with -9 at a
# random moment, and its successor gets what is not acknowledged, though the dead one's session may still be at it; a few times a
# backend is killed, and the server restarts. Meanwhile the inbox moves from chunk to chunk. In the end there is one effect of
# each message, and one row.
use strict;
use warnings;
use Test::More;
use List::Util qw(shuffle);
use Time::HiRes qw(time usleep);

use EsTest;

use constant { MESSAGES => $ENV{ES_MESSAGES} // 100_000, CONSUMERS => 4, BATCH => 100, CLIENT_KILLS => 20, SERVER_KILLS => 3 };

my $seed = es_seed();
my $until = time + 300;
my $node = es_cluster('inbox', 'es_pg.inbox_chunk_interval = 3', 'es_pg.inbox_retention = -1', 'restart_after_crash = on',
	'deadlock_timeout = 50ms');
my $tmp = $PostgreSQL::Test::Utils::tmp_check;
{
	my $db = es_connect($node);
	$db->rows('CREATE TABLE effect (message_id text); CREATE TABLE guarded (message_id text)');
	$db->rows(q{CREATE TRIGGER once BEFORE INSERT ON guarded FOR EACH ROW EXECUTE FUNCTION es_inbox_guard('guarded', 'message_id')});
}

# What each consumer has to take, batch by batch.
my @deliveries = shuffle map { my $id = "evt-$_"; ($id) x (2 + int rand 2) } 1 .. MESSAGES;
my @work = map { [] } 1 .. CONSUMERS;
for (my $b = 0; @deliveries; $b++)
{
	push @{ $work[ $b % CONSUMERS ] }, [ splice @deliveries, 0, BATCH ];
}

my $by_batch = q{INSERT INTO effect SELECT ids[place] FROM (SELECT ids, es_inbox_accept_batch('c', ids) AS places FROM batch) AS b, unnest(places) AS place};
my $one_by_one = q{INSERT INTO effect SELECT id FROM batch, unnest(ids) AS id WHERE es_inbox_accept('c', id)};
my $guarded = q{INSERT INTO guarded SELECT id FROM batch, unnest(ids) AS id ORDER BY id};

# The statements of one transaction.
sub statements
{
	my ($ids) = @_;
	my $accept = rand() < 0.7 ? $by_batch : $one_by_one;
	my $batch = q{WITH batch AS (SELECT ARRAY['} . join(q{','}, @$ids) . q{'] AS ids) };
	my @rolled_back = rand() < 0.2 ? ('SAVEPOINT s', $batch . $accept, 'ROLLBACK TO s') : ();

	return ('BEGIN', @rolled_back, $batch . $accept, $batch . $guarded, rand() < 0.05 ? 'ROLLBACK' : 'COMMIT');
}

# One transaction; true when it is committed, and known to be.
sub take
{
	my ($session, $ids) = @_;
	my $answer;

	for my $sql (statements($ids))
	{
		$answer = $session->try($sql);
		last if defined $answer->{sqlstate} || $session->lost;
	}
	return 1 if !$session->lost && !defined $answer->{sqlstate} && ($answer->{tag} // '') eq 'COMMIT';
	if (!$session->lost)
	{
		die "$answer->{sqlstate} $answer->{message}\n" if defined $answer->{sqlstate} && $answer->{sqlstate} !~ /^(40P01|57P0[123])$/;
		$session->try('ROLLBACK');
	}
	return 0;
}

sub acknowledged { my ($c) = @_; return -s "$tmp/acknowledged.$c" // 0 }

# A consumer goes on behind what is acknowledged: a byte a batch.
sub consume
{
	my ($c) = @_;
	my $session = EsSession->attempt($node, name => "consumer $c");

	srand;
	open my $acknowledge, '>>', "$tmp/acknowledged.$c" or die $!;
	for my $ids (@{ $work[$c] }[ acknowledged($c) .. $#{ $work[$c] } ])
	{
		while (!take($session, $ids))
		{
			die "not done in time\n" if time > $until;
			next if !$session->lost;
			usleep(5000);
			$session = EsSession->attempt($node, name => "consumer $c");
		}
		syswrite $acknowledge, '.' or die $!;
	}
	return;
}

my @pids = map { my $c = $_; es_fork("consumer_$c", sub { consume($c) }) } 0 .. CONSUMERS - 1;
my @kills = shuffle(('client') x CLIENT_KILLS, ('server') x SERVER_KILLS);
my %done = (client => 0, server => 0);
my $all = 0;
$all += @$_ for @work;

# Kills are spread over the work: each at a random place of its share of it.
for my $k (0 .. $#kills)
{
	my $place = ($k + rand) / (@kills + 1) * $all;
	my $taken = sub { my $n = 0; $n += acknowledged($_) for 0 .. CONSUMERS - 1; $n };
	last if !es_poll(sub { $taken->() >= $place }, 120);
	usleep(int rand 20000);
	my $c = int rand CONSUMERS;
	if ($kills[$k] eq 'client')
	{
		next if acknowledged($c) == @{ $work[$c] };
		kill 'KILL', $pids[$c];
		es_reap($pids[$c]);
		$pids[$c] = es_fork("consumer_$c", sub { consume($c) });
	}
	else
	{
		my ($victim) = es_connect($node)->rows(q{SELECT pid FROM pg_stat_activity WHERE query LIKE '%batch%' AND pid <> pg_backend_pid() ORDER BY random() LIMIT 1});
		next if !$victim;
		kill 'KILL', $victim->[0];
	}
	$done{ $kills[$k] }++;
}
ok(defined es_reap($pids[$_], 240), "consumer $_ came to its end") for 0 .. CONSUMERS - 1;
cmp_ok($done{client}, '>', CLIENT_KILLS / 2, 'consumers were killed meanwhile');
cmp_ok($done{server}, '>', 0, 'and the server was');

my $db = es_connect($node);
for my $table ('effect', 'guarded')
{
	is($db->value("SELECT count(*) FROM $table"), MESSAGES, "$table: as many as messages");
	is($db->value("SELECT count(DISTINCT message_id) FROM $table"), MESSAGES, "$table: one of each");
}
is($db->value('SELECT count(*) FROM es_inbox'), 2 * MESSAGES, 'there is a mark of each');
cmp_ok($db->value('SELECT count(DISTINCT tableoid) FROM es_inbox'), '>', 1, 'in several chunks');
is($db->value(q{SELECT cardinality(es_inbox_accept_batch('c', ARRAY(SELECT 'evt-' || i FROM generate_series(1, } . MESSAGES . q{) AS i)))}), 0, 'and none is new');
done_testing();
