# 015_interrupts: whoever is cancelled or ended while it waits leaves nothing behind.
#
# An append waits for a stream's lock, for another's creation of the same stream, for the sequence of the durable bound,
# for whoever reserves a block of positions, for the worker that makes a chunk, for whoever waits for that worker, for
# the parent's lock where it makes the chunk itself, and at its commit for a standby; others wait for a subscription's row or for
# events. At each place one is cancelled and one is ended. Then nobody is left in the registry of writers, the horizon is at the
# last position, what was waited for is not damaged, and the next append gets the next version. The same when there are no
# connections or no worker slots left, and a commit whose wait for a standby was cancelled survives kill -9.
use strict;
use warnings;
use Test::More;

use EsTest;

my $node = es_cluster('interrupts', 'es_pg.event_chunk_size = 1000', 'wal_level = replica', 'max_wal_senders = 2', 'fsync = on',
	'max_connections = 20', 'wal_writer_delay = 10s', 'wal_writer_flush_after = 0',
	'deadlock_timeout = 60s');
my $db = es_connect($node);
my $blocker = es_connect($node);
my $version = -1;

sub waits { my ($session) = @_; return ($db->rows('SELECT wait_event_type, wait_event FROM pg_stat_activity WHERE pid = ' . $session->pid))[0] // [] }

sub is_waiting
{
	my ($session, $type, $event) = @_;
	return es_poll(sub { my ($t, $e) = @{ waits($session) }; ($t // '') eq $type && (!defined $event || ($e // '') =~ $event) }, 30);
}

# How this server shows a wait of es_pg's own: before 17 they have no names.
sub own { my ($name) = @_; return ('Extension', $node->pg_version >= 17 ? qr/^$name$/ : undef) }

sub append { my ($n) = @_; return "SELECT version FROM es_append_batch('order-1', array_fill('E'::text, ARRAY[$n]), array_fill('1'::jsonb, ARRAY[$n]))" }

# Nobody is in flight, and the next append works.
sub clean
{
	my ($name) = @_;

	ok(es_poll(sub { !$db->value('SELECT count(*) FROM es_writers()') }, 30), "$name: the registry is empty");
	is($db->value('SELECT es_last_position() - es_horizon()'), 0, "$name: the horizon is at the last position");
	is($db->try(append(1))->{rows}[0][0], ++$version, "$name: the next append works");
	is($db->value('SELECT es_last_position() - es_horizon()'), 0, "$name: and readers see it");
	return;
}

# Cancel and then end one that waits.  hold: sets up what is waited for; sql: what waits; release: the opposite of hold.
sub interrupt
{
	my ($name, %case) = @_;

	for my $how ('pg_cancel_backend', 'pg_terminate_backend')
	{
		my $before = $db->value('SELECT count(*) FROM es_events');
		my $session = es_connect($node);
		$case{hold}->();
		$session->rows('BEGIN');
		$session->rows($_) for @{ $case{before} // [] };
		$session->send(ref $case{sql} ? $case{sql}->() : $case{sql});
		ok(is_waiting($session, @{ $case{wait} }), "$name: waits") or diag(join ' ', map { $_ // 'NULL' } @{ waits($session) });
		is($db->value('SELECT count(*) FROM es_writers() WHERE pid = ' . $session->pid), $case{registered}, "$name: in the registry or not")
		  if defined $case{registered};
		$db->rows("SELECT $how(" . $session->pid . ')');
		my $answer = $session->receive(30) // {};
		is($answer->{sqlstate}, $how =~ /cancel/ ? '57014' : '57P01', "$name: $how");
		is($db->value('SELECT count(*) FROM es_writers() WHERE pid = ' . $session->pid), 0, "$name: it has left the registry")
		  if $how =~ /cancel/ && !$case{stays};
		$case{release}->();
		$session->try('ROLLBACK');
		$session->close;
		is($db->value('SELECT count(*) FROM es_events'), $before, "$name: nothing was written by it");
		clean("$name, $how");
	}
	return;
}

my $rollback = sub { $blocker->rows('ROLLBACK') };
sub begin { my (@sql) = @_; return sub { $blocker->rows($_) for 'BEGIN', @sql } }

clean('at the beginning');
$db->rows(q{SELECT es_create_subscription('reader', 'end'), es_create_subscription('other', 'beginning')});
$db->rows(q{SELECT * FROM es_fetch('other', 'o')});
my $ack = q{SELECT es_ack(s.name, 0, l.epoch, 1) FROM es_leases AS l JOIN es_subscriptions AS s USING (subscription_id) WHERE s.name = 'other'};

interrupt('the lock of a stream', wait => [ 'Lock', qr/transactionid|tuple/ ], registered => 0,
	hold => begin(q{SELECT es_append('order-1', 'Held', '{}')}), release => $rollback, sql => append(1));
# It could still go back to its savepoint and commit what it appended before: so it stays in the registry until it ends.
interrupt('the lock of a stream, in a savepoint after other appends', wait => [ 'Lock', qr/transactionid|tuple/ ], registered => 1, stays => 1,
	before => [ q{SELECT es_append('aside-1', 'E', '{}')}, 'SAVEPOINT s', q{SELECT es_append('aside-2', 'E', '{}')} ],
	hold => begin(q{SELECT es_append('order-1', 'Held', '{}')}), release => $rollback, sql => append(1));
interrupt('the lock of a stream, after other appends in a savepoint', wait => [ 'Lock', qr/transactionid|tuple/ ], registered => 1,
	before => [ 'SAVEPOINT s', q{SELECT es_append('aside-2', 'E', '{}')} ],
	hold => begin(q{SELECT es_append('order-1', 'Held', '{}')}), release => $rollback, sql => append(1));
interrupt('the creation of the same stream', wait => [ 'Lock', qr/transactionid|spectoken/ ], registered => 1,
	hold => begin(q{SELECT es_append('twin-1', 'Held', '{}')}), release => $rollback, sql => q{SELECT es_append('twin-1', 'E', '{}')});
interrupt('a subscription', wait => [ 'Lock', qr/transactionid|tuple/ ],
	hold => begin($ack), release => $rollback, sql => $ack);
interrupt('the drop of a subscription', wait => [ 'Lock', qr/transactionid|tuple/ ],
	hold => begin($ack), release => $rollback, sql => q{SELECT es_drop_subscription('other')});
interrupt('events', wait => [ own('EsHorizonWait') ], hold => sub { $db->rows(q{SELECT es_ack('reader', lane, epoch, position) FROM es_fetch('reader', 'r', 100000)}) },
	release => sub { }, sql => q{SELECT * FROM es_fetch('reader', 'r', 10, '30 s')});

#
# Positions: the block that is reserved is used up first.
#
sub use_up_positions
{
	my $left = $db->value('SELECT last_value - es_last_position() FROM es_position_bound');
	$db->rows('SELECT es_prepare_chunks(1)');
	return if $left < 1;
	$db->rows(append($left));
	$version += $left;
	return;
}
for my $how ('pg_cancel_backend', 'pg_terminate_backend')
{
	use_up_positions();
	$blocker->rows('BEGIN');
	$blocker->rows('ALTER SEQUENCE es_position_bound CACHE 1');
	my $session = es_connect($node);
	$session->send(append(1));
	ok(is_waiting($session, 'Lock', qr/relation/), 'the sequence: waits');
	is($db->value('SELECT count(*) FROM es_writers()'), 1, 'the sequence: in the registry');
	$db->rows("SELECT $how(" . $session->pid . ')');
	is($session->receive(30)->{sqlstate}, $how =~ /cancel/ ? '57014' : '57P01', "the sequence: $how");
	$blocker->rows('ROLLBACK');
	$session->close;
	clean("the sequence, $how");
}

# One that reserves a block is stopped on the way, as slow storage would; the next one waits for it. Its flush lasts
# 100 ms, which is enough to catch it sooner or later.
my $reserver = es_connect($node);
$reserver->rows('SET commit_delay = 100000; SET commit_siblings = 0');
sub wait_for_reserver
{
	for my $try (1 .. 50)
	{
		use_up_positions();
		my $session = es_connect($node);
		$reserver->send(q{SELECT es_append('reserver-1', 'E', '{}')});
		$session->send(q{SELECT es_append('waiter-1', 'E', '{}')});
		my $caught = es_poll(sub { (waits($session)->[0] // '') eq 'Extension' }, 0.05);
		kill 'STOP', $reserver->pid if $caught;
		return $session if $caught && es_poll(sub { (waits($session)->[0] // '') eq 'Extension' }, 0);
		kill 'CONT', $reserver->pid;
		$_->receive(30) for $reserver, $session;
		$session->close;
	}
	return;
}
for my $how ('pg_cancel_backend', 'pg_terminate_backend')
{
	my $session = wait_for_reserver();
	ok($session, 'a block of positions: waits') or next;
	is_waiting($session, own('EsPositionReserve'));
	is($db->value('SELECT count(*) FROM es_writers() WHERE pid = ' . $session->pid), 1, 'a block of positions: in the registry');
	$db->rows("SELECT $how(" . $session->pid . ')');
	is($session->receive(30)->{sqlstate}, $how =~ /cancel/ ? '57014' : '57P01', "a block of positions: $how");
	is($db->value('SELECT count(*) FROM es_writers() WHERE pid = ' . $session->pid), 0, 'a block of positions: it has left the registry')
	  if $how =~ /cancel/;
	kill 'CONT', $reserver->pid;
	is($reserver->receive(30)->{sqlstate}, undef, 'a block of positions: the one who reserved goes on');
	$session->close;
	clean("a block of positions, $how");
}
# The one who reserves is ended itself: the next one reserves.
{
	my $session = wait_for_reserver();
	ok($session, 'a block of positions: waits') or last;
	$db->rows('SELECT pg_terminate_backend(' . $reserver->pid . ')');
	kill 'CONT', $reserver->pid;
	ok($reserver->receive(30)->{lost}, 'the one who reserves is ended');
	is($session->receive(30)->{sqlstate}, undef, 'and the one who waited for it goes on');
	$session->close;
	clean('a reserver is ended');
}

#
# Chunks: a batch that needs one more than there are, while somebody has the parent locked.
#
sub beyond_chunks
{
	my $n = $db->value(q{SELECT max(split_part(bounds, '''', 4)::bigint) - es_last_position() FROM es_chunk_list WHERE of_table = 'es_events'});
	return append($n + 10);
}
my $lock_parent = begin('LOCK TABLE es_events IN SHARE UPDATE EXCLUSIVE MODE');

interrupt('a chunk', wait => [ 'IPC', qr/BgWorker/i ], registered => 1, hold => $lock_parent, release => $rollback, sql => \&beyond_chunks);
{
	my $first;
	interrupt('whoever waits for a chunk', wait => [ own('EsChunkWorker') ], registered => 1,
		hold => sub {
			$lock_parent->();
			$first = es_connect($node);
			$first->send(beyond_chunks() =~ s/order-1/first-1/r);
			is_waiting($first, 'IPC', qr/BgWorker/i) or die 'does not wait';
		},
		release => sub {
			$db->rows('SELECT pg_cancel_backend(' . $first->pid . ')');
			is($first->receive(30)->{sqlstate}, '57014', 'the first one is cancelled too');
			$first->close;
			$rollback->();
		},
		sql => append(10));
}

#
# No connection is left: a clear error, and those who have one make their chunks.
#
{
	my (@sessions, $refused);
	while (!$refused)
	{
		my $session = EsSession->attempt($node);
		push @sessions, $session if !$session->lost;
		$refused = $session if $session->lost;
		last if @sessions > 30;
	}
	like($refused->{message}, qr/too many clients/, 'no connection is left');
	is($sessions[$_]->try(q{SELECT version FROM es_append('crowd-1', 'E', '{}')})->{rows}[0][0], $_, 'those who have one go on') for 0 .. $#sessions;
	is($sessions[0]->try(beyond_chunks() =~ s/order-1/crowd-2/r)->{sqlstate}, undef, 'a chunk can be made');
	$_->close for @sessions;
	es_connect($node)->close;
	clean('after too many connections');
}

#
# What a reader was handed survives kill -9: an asynchronous commit, and one whose wait for a standby was cancelled.
#
sub kill_server
{
	$_->close for $db, $blocker, $reserver;
	my $postmaster = $node->{_pid};
	$node->kill9;
	es_poll(sub { !kill 0, $postmaster }) or die 'it is still there';
	ok(es_poll(sub { $node->start(fail_ok => 1) }, 60), 'killed with -9 and started again');
	($db, $blocker, $reserver) = map { es_connect($node) } 1 .. 3;
	return;
}
for my $kind ('asynchronous', 'cancelled')
{
	my $writer = es_connect($node);

	$db->rows(q{SELECT es_ack('reader', lane, epoch, position) FROM es_fetch('reader', 'r', 100000)});
	$db->rows('SET synchronous_commit = local');
	if ($kind eq 'asynchronous')
	{
		$writer->rows('SET synchronous_commit = off');
		$writer->rows(append(1));
	}
	else
	{
		$db->rows(q{ALTER SYSTEM SET synchronous_standby_names = 'nobody'});
		$node->reload;
		es_poll(sub { $writer->value('SHOW synchronous_standby_names') eq 'nobody' }) or die 'not reloaded';

		# Commits wait only once the checkpointer has taken the setting in.
		es_poll(sub {
				$writer->send(append(1));
				$version++;
				return 1 if es_poll(sub { (waits($writer)->[1] // '') eq 'SyncRep' }, 0.5);
				$writer->receive(30);
				return 0;
			}) or die 'commits do not wait';
		$version--;
		is($db->value('SELECT es_last_position() - es_horizon()'), 1, 'a commit that waits for a standby holds readers');
		$db->rows('SELECT pg_cancel_backend(' . $writer->pid . ')');
		is($writer->receive(30)->{sqlstate}, undef, 'its wait is cancelled, and it has committed');
		$db->rows(q{ALTER SYSTEM RESET synchronous_standby_names});
	}
	$version++;
	my ($handed) = ($db->rows(q{SELECT version, position, message_id FROM es_fetch('reader', 'r', 100000)}))[-1];
	is($handed->[0], $version, "$kind: it is handed out");
	$writer->close;
	kill_server();
	is_deeply([ $db->rows("SELECT version, position, event_id FROM es_events WHERE position = $handed->[1]") ], [$handed], "$kind: it is there after kill -9");
	clean("$kind, killed");
}
es_events_sound($db, 'at the end');
$_->close for $db, $blocker, $reserver;
$node->stop;

#
# No worker slot is left: the one there is belongs to the launcher of logical replication. After a while of waiting for it,
# an append makes its chunk itself.
#
$node = es_cluster('slots', 'es_pg.event_chunk_size = 1000', 'max_worker_processes = 1', 'max_connections = 20', 'deadlock_timeout = 60s');
($db, $blocker) = map { es_connect($node) } 1, 2;
$version = -1;
clean('with no worker slot');
interrupt('a worker slot', wait => [ own('EsChunkWorker') ], registered => 1, hold => sub { }, release => sub { }, sql => \&beyond_chunks);
$_->close for $db, $blocker;
$node->append_conf('postgresql.conf', 'max_worker_processes = 0');
$node->restart;
($db, $blocker) = map { es_connect($node) } 1, 2;
clean('without workers');
interrupt('the lock of the parent', wait => [ 'Lock', qr/relation/ ], registered => 1, hold => $lock_parent, release => $rollback, sql => \&beyond_chunks);
# Made inside a transaction that stays open: whoever needs it waits for that, and may be interrupted.
interrupt('a chunk that another transaction makes', wait => [ 'Lock', qr/relation/ ], registered => 1,
	hold => sub { $blocker->rows('BEGIN'); $blocker->rows(beyond_chunks() =~ s/order-1/inline-2/r) }, release => $rollback, sql => append(10));
es_events_sound($db, 'with no workers');
$_->close for $db, $blocker;
$node->stop;
done_testing();
