# Members of a subscription that are killed with -9 and stopped, while 100,000 events of 1,000 streams flow and a tenth
# of them fail now and then.
#
# Each member fetches, tells of what fails, writes an effect for each of the others and acknowledges in the same
# transaction. What must hold afterwards, whoever was killed when: each event has its effect exactly once; within a key
# the effects came in the order of the events. A second record is kept outside the database, where a member can only
# write it down: there nothing may be missing, and what was handled twice is counted.
#
# Three events fail whenever they come, until they are dead letters; what is behind them must have waited, and be done
# in order once they are redriven.
#
# ES_SEED=n repeats a run; ES_TAKEOVER_EVENTS=n makes it shorter or longer.
use strict;
use warnings;
use IO::Handle;
use List::Util qw(shuffle);
use Test::More;
use Time::HiRes qw(time usleep);

use FindBin;
use lib "$FindBin::RealBin/..";
use EsTest;

my $total = $ENV{ES_TAKEOVER_EVENTS} // 100_000;
my $keys = $total >= 10_000 ? 1000 : 50;
my $limit = 420;
my $seed = es_seed();
my $node = es_cluster('takeover', 'jit = off');
my $db = es_connect($node);

$db->rows('CREATE TABLE effects (n bigserial PRIMARY KEY, position bigint, key text, member text)');
$db->rows(q{CREATE TABLE poison AS SELECT 'key-' || i AS key FROM generate_series(1, 3) AS i});
$db->rows(q{SELECT es_create_subscription('work', 'beginning', lanes => 16, lease_time => '1 s', max_attempts => 4,
	retry_base => '20 ms', retry_max => '500 ms')});

# Does an event fail now?  A tenth of them do, the first time or the first two times.
sub fails
{
	my ($position, $attempt) = @_;
	return $position % 10 == 7 && $attempt <= $position % 3 / 2;
}

# Handle the rows of one fetch: what failed is told at once, what waits behind it is left out.
sub handle
{
	my ($session, $out, $poison, @rows) = @_;
	my (%skip, @done, %last);

	for my $row (@rows)
	{
		my ($lane, $epoch, $position, $key, $attempt, $version) = @$row;
		next if $skip{$position};
		$last{$lane} = [ $epoch, $position ];
		if (($poison->{$key} && $version == 3) || fails($position, $attempt))
		{
			my $answer = $session->try("SELECT * FROM es_nack('work', $lane, $epoch, $position, 'it failed')");
			return if $session->lost || ($answer->{sqlstate} // '') eq 'SE007';
			die "nack: $answer->{sqlstate} $answer->{message}\n" if defined $answer->{sqlstate};
			$skip{ $_->[0] } = 1 for @{ $answer->{rows} };
			next;
		}
		print $out "$position $key\n";
		push @done, "($position, '$key', '${\ $session->pid}')";
	}
	my @statements = ('BEGIN');
	push @statements, 'INSERT INTO effects (position, key, member) VALUES ' . join(', ', @done) if @done;
	# What was skipped at the end of a lane is parked: an acknowledgement need not reach that far.
	push @statements, map { "SELECT es_ack('work', $_, $last{$_}[0], $last{$_}[1])" } sort keys %last;
	for my $sql (@statements, 'COMMIT')
	{
		my $answer = $session->try($sql);
		return if $session->lost;
		next if !defined $answer->{sqlstate};
		die "$sql: $answer->{sqlstate} $answer->{message}\n" if $answer->{sqlstate} ne 'SE007';
		$session->rows('ROLLBACK');
		print $out "fenced\n";
		return;
	}
}

sub member
{
	my ($name, $out) = @_;
	my $session = es_connect($node, name => $name);

	$out->autoflush(1);
	while (1)
	{
		my %poison = map { $_->[0] => 1 } $session->rows('SELECT key FROM poison');
		my @rows = $session->rows("SELECT lane, epoch, position, key, attempt, version FROM es_fetch('work', '$name', 200, '1 s')");
		handle($session, $out, \%poison, @rows) if @rows;
		return if $poison{end};
	}
}

# Events in batches, over all streams in turn.
sub produce
{
	my $session = es_connect($node, name => 'producer');
	my $made = 0;
	while ($made < $total)
	{
		my $n = $made < 30 ? 10 : 1 + int rand 40;
		$n = $total - $made if $n > $total - $made;
		my $stream = 'key-' . ($made < 30 ? 1 + $made / 10 : int rand $keys);
		$session->rows("SELECT es_append_batch('$stream', array_fill('E'::text, ARRAY[$n]), array_fill('{}'::jsonb, ARRAY[$n]))");
		$made += $n;
	}
}

my $producer = es_fork('producer', sub { srand $seed; produce() });
ok(es_poll(sub { $db->value('SELECT count(*) FROM es_events') > $total / 50 }, 60), 'events are there');

my (%members, %names, %stopped, $born, $killed, $paused);
sub start_member
{
	my $name = 'member' . ++$born;
	my $pid = es_fork($name, sub { my ($out) = @_; member($name, $out) });
	$members{$pid} = $name;
	$names{$name} = 1;
	return;
}

start_member() for 1 .. 4;
my $until = time + $limit;
my $done = 0;
while (time < $until)
{
	usleep(100_000 + int rand 700_000);
	for my $pid (grep { $stopped{$_} < time } keys %stopped)
	{
		kill 'CONT', $pid;
		delete $stopped{$pid};
	}
	my ($pid) = shuffle grep { !$stopped{$_} } sort keys %members;
	if (defined $pid && rand() < 0.5)
	{
		kill 'KILL', $pid;
		es_reap($pid, 30);
		delete $members{$pid};
		$killed++;
		start_member();
	}
	elsif (defined $pid && keys %stopped < 2)
	{
		kill 'STOP', $pid;
		$stopped{$pid} = time + 1 + rand 2;
		$paused++;
	}
	# All but the poisoned and what waits behind them.
	$done = $db->value(q{SELECT (SELECT count(*) FROM effects) +
		(SELECT count(*) FROM es_parked WHERE key IN (SELECT key FROM es_parked WHERE dead)) >= } . $total);
	last if $done eq 't';
}
ok(defined es_reap($producer, 60), 'the producer came to its end');
is($done, 't', 'all was handled, but for what waits behind dead letters')
  or diag join "\n", map { join '|', map { $_ // '' } @$_ } $db->rows('SELECT lane, epoch, owner, position FROM es_lane_cursors'),
  $db->rows('SELECT count(*), count(*) FILTER (WHERE dead), count(next_attempt_at), count(delivered_epoch) FROM es_parked');
kill 'CONT', keys %stopped;

is_deeply([ $db->rows(q{SELECT key, version, attempts, error FROM es_dead_letters WHERE subscription = 'work' ORDER BY key}) ],
	[ map { [ "key-$_", 3, 4, 'it failed' ] } 1 .. 3 ], 'the poisoned ones are dead letters');
es_check($db, 'nothing behind a dead letter was handled',
	'SELECT e.position FROM effects AS e JOIN es_parked AS p USING (key) WHERE p.dead AND e.position >= p.position');
$db->rows('DELETE FROM poison');
is($db->value(q{SELECT es_redrive('work')}), 3, 'they are redriven');
ok(es_poll(sub { $db->value('SELECT count(*) FROM effects') >= $total }, 90), 'and everything is handled')
  or diag join "\n", map { join '|', map { $_ // '' } @$_ } $db->rows(
	'SELECT position, key, lane, attempts, next_attempt_at, delivered_epoch, dead, error FROM es_parked LIMIT 20'),
  $db->rows('SELECT lane, epoch, owner, position FROM es_lane_cursors');
$db->rows('INSERT INTO poison VALUES (\'end\')');
ok(defined es_reap($_, 60), "$members{$_} leaves") for keys %members;

es_check($db, 'each event has its effect, once',
	'SELECT position, count(*) FROM es_events LEFT JOIN effects USING (position) GROUP BY 1 HAVING count(n) <> 1');
es_check($db, 'within a key effects came in order',
	'SELECT * FROM (SELECT key, position, lag(position) OVER (PARTITION BY key ORDER BY n) AS before FROM effects) AS e WHERE before > position');
es_check($db, 'nothing is left parked', 'SELECT position FROM es_parked');

my (%outside, $handled, $fenced);
for my $name (keys %names)
{
	open my $in, '<', "$PostgreSQL::Test::Utils::tmp_check/child_$name" or die $!;
	while (<$in>)
	{
		if (/^fenced/) { $fenced++; next }
		next if !/^(\d+) (\S+)\n/;
		$handled++;
		$outside{$1}++;
	}
}
is(scalar(keys %outside), $total, 'outside the database each event was handled at least once');
note sprintf '%d killed, %d stopped; %d handled outside, %d of them again; %d transactions fenced',
  $killed // 0, $paused // 0, $handled // 0, ($handled // 0) - keys %outside, $fenced // 0;
cmp_ok($killed, '>', 3, 'members were killed');
done_testing();
