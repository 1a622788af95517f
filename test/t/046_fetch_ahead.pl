# A consumer that fetches ahead, as a relay does: it always has messages of several fetches at work, finishes them in any
# order that keeps each key's, refuses some, and acknowledges what is finished up to the first that is not.
#
# Alone and undisturbed it must do each event exactly once, in the order of its key, whatever failed. Then two of them
# share the lanes, and lose their sessions with answers on the way: what they had is done again, but nothing is missed,
# and the first time that each event is done is still in the order of its key.
#
# ES_SEED=n repeats a run.
use strict;
use warnings;
use List::Util qw(max shuffle);
use Test::More;

use FindBin;
use lib "$FindBin::RealBin/..";
use EsTest;

my $events = 6_000;
my $keys = 60;
my $seed = es_seed();
my $node = es_cluster('ahead');
my $db = es_connect($node);

srand $seed;

# A consumer: its session, and for each lane the epoch and what it holds, in the order in which it was handed out.
sub consumer
{
	my ($subscription, $name) = @_;

	return { subscription => $subscription, name => $name, session => undef, lanes => {} };
}

# What a consumer says that it holds.
sub held
{
	my ($me) = @_;
	my @held = grep { @{ $_->{messages} } } map { $me->{lanes}{$_} } sort keys %{ $me->{lanes} };
	return '' if !@held;
	my $list = sub { my ($field) = @_; return join ',', map { $_->{$field} } @held };
	return ", held_lanes => '{${\ $list->('lane')}}', held_epochs => '{${\ $list->('epoch')}}', held_positions => '{${\ $list->('last')}}'";
}

sub fetch
{
	my ($me, $lost) = @_;
	my $count = 1 + int rand 40;
	$me->{session} //= es_connect($node, name => $me->{name});
	my @rows = $me->{session}->rows("SELECT lane, epoch, position, key, attempt FROM es_fetch('$me->{subscription}', '$me->{name}', $count, "
		  . "session_bound => true" . held($me) . ')');
	return if $lost;
	for my $row (@rows)
	{
		my ($number, $epoch, $position, $key, $attempt) = @$row;
		my $lane = $me->{lanes}{$number};
		$lane = $me->{lanes}{$number} = { lane => $number, epoch => $epoch, last => 0, messages => [] }
		  if !$lane || $lane->{epoch} != $epoch;
		push @{ $lane->{messages} }, { position => $position, key => $key, attempt => $attempt };
		$lane->{last} = max $lane->{last}, $position;
	}
	return scalar @rows;
}

# The session and its answers are gone: nothing is held any more.
sub lose
{
	my ($me) = @_;
	$me->{session}->close if $me->{session};
	$me->{session} = undef;
	$me->{lanes} = {};
	return;
}

# The lane is someone else's now.
sub inform
{
	my ($me, $lane, $sql) = @_;
	my $answer = $me->{session}->try($sql);
	return $answer->{rows} if !defined $answer->{sqlstate};
	die "$sql: $answer->{sqlstate} $answer->{message}\n" if $answer->{sqlstate} ne 'SE007';
	$lane->{messages} = [];
	return;
}

# Finish some messages of a lane, each the first of its key.
sub work
{
	my ($me, $lane, $done) = @_;
	my $where = "'$me->{subscription}', $lane->{lane}, $lane->{epoch}";
	for my $message (@{ $lane->{messages} })
	{
		next if $message->{done} || rand() < 0.4;
		next if grep { !$_->{done} && $_->{key} eq $message->{key} && $_->{position} < $message->{position} } @{ $lane->{messages} };
		if ($message->{attempt} == 0 && $message->{position} % 10 == 7)
		{
			my $behind = inform($me, $lane, "SELECT * FROM es_nack($where, $message->{position}, 'it failed')") // return;
			my %gone = map { $_->[0] => 1 } @$behind, [ $message->{position} ];
			$lane->{messages} = [ grep { !$gone{ $_->{position} } } @{ $lane->{messages} } ];
			last;
		}
		$message->{done} = 1;
		push @$done, [ $message->{key}, $message->{position} ];
	}
	my $upto;
	$upto = shift(@{ $lane->{messages} })->{position} while @{ $lane->{messages} } && $lane->{messages}[0]{done};
	inform($me, $lane, "SELECT es_ack($where, $upto)") if defined $upto;
	return;
}

# All consumers, turn by turn, until there is nothing left.
sub consume
{
	my ($subscription, $losing, @names) = @_;
	my @consumers = map { consumer($subscription, $_) } @names;
	my (@done, $ahead);
	my $left = 1;

	for (my $turn = 0; $left && $turn < 20_000; $turn++)
	{
		for my $me (shuffle @consumers)
		{
			my $holding = held($me) ne '';
			$ahead++ if fetch($me) && $holding;
			work($me, $_, \@done) for shuffle values %{ $me->{lanes} };
			if (rand() < $losing)
			{
				fetch($me, 1);
				lose($me);
			}
		}
		$left = $db->value("SELECT (SELECT sum(last - position) FROM (SELECT c.position, (SELECT max(position) FROM es_events) AS last
			FROM es_lane_cursors AS c JOIN es_subscriptions USING (subscription_id) WHERE name = '$subscription') AS l) > 0
			OR EXISTS (SELECT FROM es_parked JOIN es_subscriptions USING (subscription_id) WHERE name = '$subscription')") eq 't'
		  if $turn % 20 == 0;
	}
	lose($_) for @consumers;
	ok(!$left, "$subscription: everything is acknowledged");
	cmp_ok($ahead, '>', 20, "$subscription: fetched ahead");
	return @done;
}

# What was done: how often each, and whether the first time was in order.
sub check
{
	my ($subscription, @done) = @_;
	my (%times, %last, @disordered);
	for (@done)
	{
		my ($key, $position) = @$_;
		next if $times{$position}++;
		push @disordered, "$key: $position after $last{$key}" if ($last{$key} // 0) > $position;
		$last{$key} = max $last{$key} // 0, $position;
	}
	is_deeply(\@disordered, [], "$subscription: each key in order");
	my @missing = grep { !$times{$_} } map { $_->[0] } $db->rows('SELECT position FROM es_events');
	is_deeply(\@missing, [], "$subscription: nothing is missing");
	return scalar grep { $_ > 1 } values %times;
}

$db->rows("SELECT es_create_subscription('$_', 'beginning', lanes => 4, retry_base => '1 ms', retry_max => '5 ms')") for 'alone', 'shared';
$db->rows("SELECT es_append('key-' || (random() * $keys)::int, 'E', '{}') FROM generate_series(1, $events)");

my $again = check('alone', consume('alone', 0, 'me'));
is($again, 0, 'alone: nothing is done twice');
$again = check('shared', consume('shared', 0.01, 'one', 'two'));
note "shared: $again events were done again";
done_testing();
