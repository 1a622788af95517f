# 002_crash: what a crash may not take back, and may not give out again.
#
# Six writers and three readers work while backends are killed with -9 and the whole server is stopped at once, again
# and again, at random moments. Half of the writers commit with synchronous_commit off, and the WAL writer hardly ever
# flushes, so a crash takes many commits back. It must not take back what a reader was handed, nor a commit that was
# answered to a writer that waited for the flush. And a position that anybody saw, be it only the writer, in a
# transaction that was lost, is never drawn for another event. Versions stay gapless, and the horizon moves on.
use strict;
use warnings;
use Test::More;
use Time::HiRes qw(time usleep);

use EsTest;

use constant WRITERS => 6;
use constant CRASHES => 8;

# First without any load, where nothing flushes WAL but what must: on a server whose WAL writer sleeps.
{
	my $node = es_cluster('still', 'wal_writer_delay = 10s');
	my $db = es_connect($node);
	my $crash = sub { $node->stop('immediate'); $node->start; $db = es_connect($node); $db->rows('SET synchronous_commit = off') };

	# Flushes all WAL, and unlike a checkpoint does not make what follows long.
	my $flush = sub { $db->rows('SET synchronous_commit = on; INSERT INTO flushed VALUES (1); SET synchronous_commit = off') };
	$db->rows('CREATE TABLE flushed (id integer)');

	# A commit that did not wait for its flush is handed to a reader: from then on it must be there.
	$db->rows(q{SELECT es_append('order-1', 'E', '{}'), es_create_subscription('follower', 'end')});
	$crash->();
	for my $read ("es_read_all(%d)", "es_read_category('order', %d)", "es_fetch('follower', 'f')")
	{
		my $at = $db->value('SELECT es_last_position()');
		my $reader = es_connect($node);
		$flush->();
		$db->rows(q{SELECT es_append('order-1', 'E', '{}')});
		my $handed = $reader->value('SELECT max(position) FROM ' . sprintf $read, $at);
		$crash->();
		cmp_ok($handed, '>', $at, "$read hands out an asynchronous commit");
		is($db->value("SELECT count(*) FROM es_events WHERE position = $handed"), 1, 'which is there after a crash');
	}

	# A crash right after a block of positions was reserved: the bound must be durable before any position is told.
	for (1 .. 5)
	{
		my $left = q{SELECT last_value - es_last_position() FROM es_position_bound};
		$db->rows(q{SELECT es_append('order-1', 'E', '{}')}) if !$db->value($left);
		my $n = $db->value($left);
		$db->rows('BEGIN');
		$db->rows("SELECT es_append_batch('order-1', array_fill('E'::text, ARRAY[$n]), array_fill('1'::jsonb, ARRAY[$n]))");
		$db->rows('ROLLBACK');
		is($db->value($left), 0, "all $n positions reserved are drawn");
		$flush->();
		my $told = $db->value(q{SELECT position FROM es_append('order-1', 'E', '{}')});
		$crash->();
		cmp_ok($db->value(q{SELECT position FROM es_append('order-1', 'E', '{}')}), '>', $told,
			'after a crash positions go on above the one that was told');
	}
	es_events_sound($db, 'after crashes at rest');
	$node->stop;
}

my $seed = es_seed();
my $limit = 150;
my $node = es_cluster('crash', 'es_pg.event_chunk_size = 2000', 'restart_after_crash = on', 'wal_writer_delay = 10s',
	'wal_writer_flush_after = 0', 'max_connections = 30');
my $stop = "$PostgreSQL::Test::Utils::tmp_check/stop";

# A session that comes back after a crash.
sub again
{
	my ($session, $name, $until) = @_;
	return $session if !$session->lost;
	while (1)
	{
		$session = EsSession->attempt($node, name => $name);
		return $session if !$session->lost;
		die "no server in time\n" if time > $until;
		usleep(5000);
	}
}

# Every position a writer is told, with the event's id; and "kept", when a commit that waits for the flush was answered.
sub write_until_stopped
{
	my ($w, $out) = @_;
	my $until = time + $limit;
	my $durable = $w % 2;
	my $session = EsSession->attempt($node, name => "writer $w");
	my $n = 0;

	srand $seed * 100 + $w;
	while (!-e $stop)
	{
		die "not stopped in time\n" if time > $until;
		$session = again($session, "writer $w", $until);
		$session->try('SET synchronous_commit = ' . ($durable ? 'on' : 'off'));
		my @mine;
		my $many = rand() < 0.3;
		$session->try('BEGIN') if $many;
		for (1 .. $many ? 1 + int rand 4 : 1)
		{
			my $stream = rand() < 0.2 ? 'shared-1' : "own-$w-" . int rand 20;
			my $answer = $session->try(rand() < 0.8 ? "SELECT position, event_id FROM es_append('$stream', 'E', '$n')"
				: "SELECT position, event_id FROM es_append_batch('$stream', array_fill('E'::text, ARRAY[30]), array_fill('$n'::jsonb, ARRAY[30]))");
			last if defined $answer->{sqlstate};
			push @mine, $answer->{rows}[0];
		}
		my $commit = rand() < 0.9;
		my $end = $many ? $session->try($commit ? 'COMMIT' : 'ROLLBACK') : { tag => 'COMMIT' };
		print $out "told @$_\n" for @mine;
		next if !$durable || ($end->{tag} // '') ne 'COMMIT';
		print $out "kept @$_\n" for @mine;
	}
	continue
	{
		$n++;
	}
	return;
}

# Everything a reader is handed; it goes on from there after a crash, as a reader does.
sub read_until_sentinel
{
	my ($r, $out) = @_;
	my $until = time + $limit;
	my ($session, $seen) = (EsSession->attempt($node, name => "reader $r"), 0);

	while (1)
	{
		die "no sentinel in time\n" if time > $until;
		$session = again($session, "reader $r", $until);
		my $answer = $session->try($r eq 'fetch' ? q{SELECT position, message_id, key FROM es_fetch('follower', 'f', 500)}
			: "SELECT position, event_id, stream FROM es_read_all($seen, 500)");
		my @rows = @{ $answer->{rows} };
		die "$answer->{sqlstate} $answer->{message}\n" if defined $answer->{sqlstate} && $answer->{sqlstate} !~ /^(08|57)/;
		for my $row (@rows)
		{
			print $out "read $row->[0] $row->[1]\n";
			return if $row->[2] eq 'sentinel';
			$seen = $row->[0];
		}
		$session->try("SELECT es_ack('follower', 0, 0, $seen)") if @rows && $r eq 'fetch' && !$session->lost;
		usleep(1000) if !@rows;
	}
}

my $db = es_connect($node);
$db->rows(q{SELECT es_create_subscription('follower', 'beginning')});
my @pids = ((map { my $w = $_; es_fork("writer$w", sub { write_until_stopped($w, $_[0]) }) } 1 .. WRITERS),
	(map { my $r = $_; es_fork("reader_$r", sub { read_until_sentinel($r, $_[0]) }) } 1, 2, 'fetch'));

for my $crash (1 .. CRASHES)
{
	my $from = $db->value('SELECT es_last_position()');
	my $more = 200 + int rand 2000;
	my $backend;

	ok(es_poll(sub { $db->value('SELECT es_horizon()') > $from + $more }, 60), "$more positions on, crash $crash");
	if ($crash % 2)
	{
		es_poll(sub {
				$backend = $db->value(q{SELECT pid FROM pg_stat_activity WHERE application_name ~ '^writer' AND query ~ 'es_append'
					AND state = 'active' ORDER BY random() LIMIT 1});
			}, 60) or die 'no writer at work';
		kill 'KILL', $backend;
		ok(es_poll(sub { $db->try('SELECT 1')->{lost} }, 60), 'killed a backend; the server begins anew');
	}
	else
	{
		$node->stop('immediate');
		$node->start;
		pass('stopped the server at once');
	}
	$db = es_connect($node);
	cmp_ok($db->value('SELECT es_last_position()'), '>=', $from, 'positions do not begin anew');
}

open my $flag, '>', $stop or die "$stop: $!";
close $flag;
my @writers = map { es_reap($_) } splice @pids, 0, WRITERS;
is(scalar(grep { !$_ } @writers), 0, 'the writers came to their end');
ok(es_poll(sub { $db->value('SELECT es_horizon() = es_last_position()') eq 't' }, 30), 'the horizon moves on to the last position');
$db->rows(q{SELECT es_append('sentinel', 'End', '{}')});
my @readers = map { es_reap($_) } @pids;
is(scalar(grep { !$_ } @readers), 0, 'the readers came to the end of the log');

# One crash more, so that what is compared is what a crash leaves.
$db->close;
$node->stop('immediate');
$node->start;
$db = es_connect($node);

my %there = map { $_->[0] => $_->[1] } $db->rows('SELECT position, event_id FROM es_events');
my (%told, @twice, @gone, @changed, %count);
for my $line (map { @{ $_ // [] } } @writers, @readers)
{
	my ($what, $position, $id) = split / /, $line;
	$count{$what}++;
	push @twice, $line if ($told{$position} //= $id) ne $id;
	push @changed, $line if exists $there{$position} && $there{$position} ne $id;
	push @gone, $line if $what ne 'told' && !exists $there{$position};
}
note(join ', ', map { "$_ $count{$_}" } sort keys %count);
note(scalar(grep { !exists $there{$_} } keys %told) . ' positions that a writer was told are gone, by rollback or crash');
is(scalar @twice, 0, 'no position was given out for two events') or diag("@twice[0 .. ($#twice > 5 ? 5 : $#twice)]");
is(scalar @changed, 0, 'none holds another event than it was seen with') or diag("@changed[0 .. ($#changed > 5 ? 5 : $#changed)]");
is(scalar @gone, 0, 'what a reader was handed, or a writer was promised, is there')
  or diag(scalar(@gone) . ": @gone[0 .. ($#gone > 5 ? 5 : $#gone)]");

my @log = map { "read $_->[0] $_->[1]" } $db->rows('SELECT position, event_id FROM es_events ORDER BY position');
is_deeply($readers[$_], \@log, "reader $_ went through all crashes and has each event once, in order") for 0, 1;
my %first;
is_deeply([ grep { !$first{$_}++ } @{ $readers[2] // [] } ], \@log, 'and es_fetch has each at least once, the first time in order');
es_events_sound($db, 'after it all');
my $last = $db->value('SELECT es_last_position()');
cmp_ok($db->value(q{SELECT position FROM es_append('sentinel', 'After', '{}')}), '>', $last, 'the next append goes on');

$node->stop;
done_testing();
