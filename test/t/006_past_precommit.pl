# 006_past_precommit: a writer that is past its look at the flag, but not yet through.
#
# A commit first looks whether a reader has armed the flag, and leaves the registry of writers as the last thing. In
# between it is invisible, and will not notify a reader that arms now. That reader must find it in flight, so that it
# knows to look again, and must be handed the event as soon as it is through. A commit that waits for a synchronous
# standby that is not there stands at exactly that place for as long as one likes.
use strict;
use warnings;
use Test::More;

use EsTest;

my $node = es_cluster('past', 'wal_level = replica', 'max_wal_senders = 2');
my ($reader, $fetcher, $other, $control) = map { es_connect($node) } 1 .. 4;
my @probes;

sub hold { my ($names) = @_; $control->rows("ALTER SYSTEM SET synchronous_standby_names = '$names'"); return $node->reload }

# Commits wait only once the checkpointer has taken the setting in, and no view tells when: one that waits does.
sub wait_until_commits_hang
{
	my $probe = es_connect($node);
	my $sent;

	es_poll(sub {
			my ($row) = $control->rows('SELECT wait_event, state FROM pg_stat_activity WHERE pid = ' . $probe->pid);
			return 1 if ($row->[0] // '') eq 'SyncRep';
			return 0 if $row->[1] ne 'idle';
			$probe->receive(30) if $sent;
			$probe->send('INSERT INTO probe VALUES (1)');
			$sent = 1;
			return 0;
		}) or die 'commits do not wait';
	push @probes, $probe;
	return;
}

# A session whose commit of one event has begun and cannot end.
sub hang_in_commit
{
	my ($stream) = @_;
	my $writer = es_connect($node);

	$writer->rows('BEGIN');
	$writer->rows("SELECT es_append('$stream', 'Held', '{}')");
	hold('nobody');
	es_poll(sub { $writer->value('SHOW synchronous_standby_names') eq 'nobody' }) or die 'settings were not reloaded';
	wait_until_commits_hang();
	$writer->send('COMMIT');
	ok(es_poll(sub { ($control->value('SELECT wait_event FROM pg_stat_activity WHERE pid = ' . $writer->pid) // '') eq 'SyncRep' }),
		"the commit of $stream is held between its look at the flag and its end");
	return $writer;
}

sub asleep
{
	my ($session) = @_;
	return es_poll(sub {
			($control->value('SELECT wait_event_type FROM pg_stat_activity WHERE pid = ' . $session->pid) // '') eq 'Extension';
		}, 30);
}

$_->rows('SET synchronous_commit = local') for $reader, $fetcher, $other, $control;
$control->rows('CREATE TABLE probe (n integer)');
$control->rows(q{SELECT es_create_subscription('reader', 'beginning')});
$control->rows(q{SELECT es_append('order-0', 'Before', '{}')});
$reader->rows('LISTEN es_pg');

# A reader that arms while it hangs.
my $writer = hang_in_commit('order-1');
my $held = $reader->value('SELECT es_last_position()');
is_deeply([ $reader->rows("SELECT stream FROM es_read_all(0)") ], [ ['order-0'] ], 'its event is not to be seen');
is_deeply([ $reader->rows("SELECT stream FROM es_read_all($held - 1)") ], [], 'a reader looks for more, and arms');
is($reader->value('SELECT es_horizon() < es_last_position()'), 't', 'and knows that somebody is in flight');
is_deeply([ $reader->rows('SELECT pid, position FROM es_in_flight()') ], [ [ $writer->pid, $held ] ], 'and who');

# Others commit meanwhile, above it; nothing of that may be handed out.
$other->rows(q{SELECT es_append('order-2', 'Above', '{}')});
is_deeply([ $reader->rows("SELECT stream FROM es_read_all($held - 1)") ], [], 'what commits above it waits behind it');
is(scalar(() = $reader->notifications), 1, 'its commit took the flag and notified');
is_deeply([ $reader->rows("SELECT stream FROM es_read_all($held - 1)") ], [], 'the reader looks again in vain, and arms');

# A fetch that sleeps is woken by the end of the commit.
$fetcher->rows("SELECT es_ack('reader', lane, epoch, position) FROM es_fetch('reader', 'f')");
$fetcher->send("SELECT key FROM es_fetch('reader', 'f', 10, '25 s')");
ok(asleep($fetcher), 'a fetch waits');
hold('');
is($writer->receive(30)->{sqlstate}, undef, 'the commit comes to its end');
is_deeply($fetcher->receive(30)->{rows}, [ ['order-1'], ['order-2'] ], 'the fetch has both events');
is_deeply([ $reader->rows("SELECT stream FROM es_read_all($held - 1)") ], [ ['order-1'], ['order-2'] ], 'and so has the reader');
is($reader->value('SELECT es_horizon() = es_last_position()'), 't', 'nothing is in flight');

# The flag that was armed while it hung is still up for the next one.
is(scalar(() = $reader->notifications), 0, 'the held commit did not notify');
$other->rows(q{SELECT es_append('order-2', 'Next', '{}')});
is(scalar(() = $reader->notifications), 1, 'the next commit does');

# A user who cancels the wait has committed all the same; the horizon may have stalled, it did not lie.
$writer = hang_in_commit('order-3');
$held = $reader->value('SELECT es_last_position()');
is($reader->value('SELECT es_horizon()'), $held - 1, 'the horizon is below the held one');
$control->rows('SELECT pg_cancel_backend(' . $writer->pid . ')');
is($writer->receive(30)->{sqlstate}, undef, 'a cancelled wait ends in a commit');
is_deeply([ $reader->rows("SELECT stream, position FROM es_read_all($held - 1)") ], [ [ 'order-3', $held ] ], 'and its event is there');

# The same when its backend is ended.
$writer = hang_in_commit('order-4');
$held = $reader->value('SELECT es_last_position()');
$control->rows('SELECT pg_terminate_backend(' . $writer->pid . ')');
ok($writer->receive(30)->{lost}, 'a backend is ended while it waits');
ok(es_poll(sub { $reader->value('SELECT es_horizon()') == $held }), 'the horizon is free');
is_deeply([ $reader->rows("SELECT stream, position FROM es_read_all($held - 1)") ], [ [ 'order-4', $held ] ], 'and its event is there');

hold('');
es_events_sound($control, 'at the end');
$node->stop;
done_testing();
