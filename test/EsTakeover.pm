# EsTakeover: members of a subscription that are killed with -9 and stopped, while messages of 1,000 keys flow and a tenth
# of them fail now and then.
#
# Each member fetches, tells of what fails, writes an effect for each of the others and acknowledges in the same
# transaction. What must hold afterwards, whoever was killed when: each message has its effect exactly once; within a key
# the effects came in the order of the messages. A second record is kept outside the database, where a member can only
# write it down: there nothing may be missing, and what was handled twice is counted.
#
# Three messages fail whenever they come, until they are dead letters; what is behind them must have waited, and be done
# in order once they are redriven. Of the outbox's messages some have no key, and while they flow its chunks are dropped
# as soon as all lanes have passed them, under whoever reads there.
#
# ES_SEED=n repeats a run; ES_TAKEOVER_MESSAGES=n makes it shorter or longer.
package EsTakeover;

use strict;
use warnings;
use Exporter 'import';
use IO::Handle;
use List::Util qw(shuffle);
use Test::More;
use Time::HiRes qw(time usleep);

use EsTest;

our @EXPORT = qw(es_takeover);

my $limit = 420;    # seconds; reached only when something hangs
my ($node, $db, $source, $total, $keys, $producer, $maintainer);
my (%members, %names, %stopped, $born, $killed, $paused);    # by pid, but for the names

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
		if (($poison->{ $key // '' } && $version == 3) || fails($position, $attempt))
		{
			my $answer = $session->try("SELECT * FROM es_nack('work', $lane, $epoch, $position, 'it failed')");
			return if $session->lost || ($answer->{sqlstate} // '') eq 'SE007';
			die "nack: $answer->{sqlstate} $answer->{message}\n" if defined $answer->{sqlstate};
			$skip{ $_->[0] } = 1 for @{ $answer->{rows} };
			next;
		}
		print $out "$position\n";
		push @done, sprintf '(%d, %s, %d)', $position, EsSession::literal($key), $session->pid;
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
		my @rows = $session->rows("SELECT lane, epoch, position, key, attempt, coalesce(version, payload::bigint) FROM es_fetch('work', '$name', 200, '1 s')");
		handle($session, $out, \%poison, @rows) if @rows;
		return if $poison{end};
	}
}

# In batches: of events each to one stream, of messages to several keys and to none. The first 30 are of the poisoned keys,
# ten of each, so that each of them has a fourth one.
sub produce
{
	my $session = es_connect($node, name => 'producer');
	my $made = 0;
	my %count;
	while ($made < $total)
	{
		my $n = $made < 30 ? 10 : 1 + int rand 40;
		$n = $total - $made if $n > $total - $made;
		my $key = 'key-' . ($made < 30 ? 1 + $made / 10 : int rand $keys);
		my $mixed = $source eq 'outbox' && $made >= 30;
		my @keys = map { !$mixed ? $key : rand() < 0.05 ? undef : 'key-' . int rand $keys } 1 .. $n;
		my $keys = join ',', map { $_ // 'NULL' } @keys;
		my $payloads = join ',', map { defined $_ ? $count{$_}++ // 0 : -1 } @keys;
		my $batch = $source eq 'outbox'
		  ? "es_publish_batch('t', array_fill('T'::text, ARRAY[$n]), '{$payloads}'::jsonb[], '{$keys}')"
		  : "(es_append_batch('$key', array_fill('E'::text, ARRAY[$n]), array_fill('{}'::jsonb, ARRAY[$n]))).position";
		$session->rows("WITH last AS MATERIALIZED (SELECT $batch AS position)
			INSERT INTO made SELECT position - $n + i, ('{$keys}'::text[])[i] FROM last, generate_series(1, $n) AS i");
		$made += $n;
	}
}

# Drops chunks that all lanes have passed, until it is told to stop.
sub maintain
{
	my $session = es_connect($node, name => 'maintainer');
	while ($session->value(q{SELECT count(*) FROM poison WHERE key = 'end'}) == 0)
	{
		$session->rows('SELECT es_maintain()');
		usleep(100_000);
	}
}

sub start_member
{
	my $name = 'member' . ++$born;
	my $pid = es_fork($name, sub { my ($out) = @_; member($name, $out) });
	$members{$pid} = $name;
	$names{$name} = 1;
	return;
}

sub begin
{
	my $seed = es_seed();
	$node = es_cluster("takeover_$source", 'es_pg.outbox_chunk_size = 3000', 'es_pg.outbox_retention = 0',
		'max_worker_processes = 16');
	$db = es_connect($node);
	$db->rows('CREATE TABLE made (position bigint PRIMARY KEY, key text)');
	$db->rows('CREATE TABLE effects (n bigserial PRIMARY KEY, position bigint, key text, member text)');
	$db->rows(q{CREATE TABLE poison AS SELECT 'key-' || i AS key FROM generate_series(1, 3) AS i});
	$db->rows(qq{SELECT es_create_subscription('work', 'beginning', source => '$source', lanes => 16, lease_time => '1 s',
		max_attempts => 4, retry_base => '20 ms', retry_max => '500 ms')});
	$maintainer = es_fork('maintainer', \&maintain);
	$producer = es_fork('producer', sub { srand $seed; produce() });
	ok(es_poll(sub { $db->value('SELECT count(*) FROM made') > $total / 50 }, 60), 'messages are there');
	start_member() for 1 .. 4;
	return;
}

# Kill one and start another, or stop one for a while.
sub disturb
{
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
	return;
}

# All but the poisoned and what waits behind them.
sub work_is_done
{
	return $db->value(q{SELECT (SELECT count(*) FROM effects) +
		(SELECT count(*) FROM es_parked WHERE key IN (SELECT key FROM es_parked WHERE dead)) >= } . $total) eq 't';
}

# What is in the way, for people.
sub state_of_things
{
	return join "\n", map { join '|', map { $_ // '' } @$_ } $db->rows('SELECT lane, epoch, owner, position FROM es_lane_cursors'),
	  $db->rows('SELECT count(*), count(*) FILTER (WHERE dead), count(next_attempt_at), count(delivered_epoch) FROM es_parked'),
	  $db->rows('SELECT position, key, lane, attempts, next_attempt_at, delivered_epoch, dead, error FROM es_parked LIMIT 20');
}

# Dead letters are there, held their keys up, and are redriven.
sub check_dead_letters
{
	is_deeply([ $db->rows(q{SELECT key, coalesce(version, payload::bigint), attempts, error FROM es_dead_letters WHERE subscription = 'work' ORDER BY key}) ],
		[ map { [ "key-$_", 3, 4, 'it failed' ] } 1 .. 3 ], 'the poisoned ones are dead letters');
	es_check($db, 'nothing behind a dead letter was handled',
		'SELECT e.position FROM effects AS e JOIN es_parked AS p USING (key) WHERE p.dead AND e.position >= p.position');
	$db->rows('DELETE FROM poison');
	is($db->value(q{SELECT es_redrive('work')}), 3, 'they are redriven');
	ok(es_poll(sub { $db->value('SELECT count(*) FROM effects') >= $total }, 90), 'and everything is handled')
	  or diag state_of_things();
	return;
}

sub check_effects
{
	es_check($db, 'each message has its effect, once',
		'SELECT position, count(*) FROM made FULL JOIN effects USING (position) GROUP BY 1 HAVING count(n) <> 1 OR count(made) <> 1');
	es_check($db, 'of its own key',
		'SELECT position, m.key, e.key FROM made AS m JOIN effects AS e USING (position) WHERE m.key IS DISTINCT FROM e.key');
	es_check($db, 'within a key effects came in order',
		'SELECT * FROM (SELECT key, position, lag(position) OVER (PARTITION BY key ORDER BY n) AS before FROM effects WHERE key IS NOT NULL) AS e
		  WHERE before > position');
	es_check($db, 'nothing is left parked', 'SELECT position FROM es_parked');
	return if $source eq 'events';
	my $left = $db->value('SELECT count(*) FROM es_outbox');
	cmp_ok($left, '<', $total / 2, "chunks were dropped meanwhile: $left messages of $total are left");
	return;
}

# What the members wrote down outside the database.
sub check_outside
{
	my (%outside, $handled, $fenced);
	for my $name (keys %names)
	{
		open my $in, '<', "$PostgreSQL::Test::Utils::tmp_check/child_$name" or die $!;
		while (<$in>)
		{
			if (/^fenced/) { $fenced++; next }
			next if !/^(\d+)\n/;
			$handled++;
			$outside{$1}++;
		}
	}
	is(scalar(keys %outside), $total, 'outside the database each message was handled at least once');
	note sprintf '%d killed, %d stopped; %d handled outside, %d of them again; %d transactions fenced',
	  $killed // 0, $paused // 0, $handled // 0, ($handled // 0) - keys %outside, $fenced // 0;
	return;
}

# Everything: so many messages of a source.
sub es_takeover
{
	($source, my $messages) = @_;
	$total = $ENV{ES_TAKEOVER_MESSAGES} // $messages;
	$keys = $total >= 10_000 ? 1000 : 50;
	begin();
	my $until = time + $limit;
	my $done = 0;
	while (!$done && time < $until)
	{
		usleep(100_000 + int rand 700_000);
		disturb();
		$done = work_is_done();
	}
	ok(defined es_reap($producer, 60), 'the producer came to its end');
	ok($done, 'all was handled, but for what waits behind dead letters') or diag state_of_things();
	kill 'CONT', keys %stopped;
	check_dead_letters();
	$db->rows(q{INSERT INTO poison VALUES ('end')});
	ok(defined es_reap($_, 60), "$members{$_} leaves") for keys %members;
	ok(defined es_reap($maintainer, 60), 'so does who maintains');
	check_effects();
	check_outside();
	cmp_ok($killed, '>', 3, 'members were killed');
	$node->stop;
	return;
}

1;
