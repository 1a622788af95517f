# 004_checker: no reader ever skips an event, doubles one or sees one out of order, whatever the writers do.
#
# Eight writers append to shared streams: single events and batches, with exact versions and without, in savepoints that
# they release or roll back, with pauses while they hold positions, aborting one transaction in seven, half of them with
# synchronous_commit off, over chunks so small that every few transactions cross a boundary. A transaction that has
# nothing to do with it stays open all the time. Readers that remember nothing but the last position they saw follow:
# of the log, of one category, and by es_fetch and es_ack, now and then forgetting to acknowledge. Two of them read in a
# tight loop within the server. All the while one backend after the other is stopped for an instant, at whatever
# instruction it is, and the others go on: so a window between two steps that is some nanoseconds wide is wide open.
#
# At the end each reader has seen exactly the committed events, each once, in the order of their positions; what the
# writers were answered is in the table; and each stream's versions are gapless.
#
# ES_SEED repeats a run's choices (not its timing), ES_EVENTS how many events are committed at least (40,000).
use strict;
use warnings;
use Test::More;
use Time::HiRes qw(time usleep);

use EsTest;

use constant WRITERS => 8;
use constant READERS => 3;
use constant STREAMS => 40;

my $seed = es_seed();
my $events = $ENV{ES_EVENTS} // 40_000;
my $limit = 60 + $events / 1000;     # seconds; reached only when something hangs
my $chunk_size = (100, 250, 1000)[ rand 3 ];
my $node = es_cluster('checker', "es_pg.event_chunk_size = $chunk_size", 'deadlock_timeout = 50ms');
my $db = es_connect($node);
my $done = "$PostgreSQL::Test::Utils::tmp_check/done";

note("$events events, chunks of $chunk_size positions");
$db->rows(q{SELECT es_create_subscription('follower', 'beginning')});

# Half of the streams are of category a.
sub a_stream { return (rand() < 0.5 ? 'a' : 'b') . '-' . int rand STREAMS / 2 }

sub uuid { return sprintf '%08x-%04x-4%03x-8%03x-%012x', map { int rand $_ } 2**32, 2**16, 2**12, 2**12, 2**48 }

# One append; the answer of the last event, the ids of all, or an error. Returns [position, stream, version, id], or undef.
sub append
{
	my ($session, $stream) = @_;
	my $kind = rand;
	my ($sql, $id);

	if ($kind < 0.7)
	{
		my $expected = $kind < 0.15 ? "es_stream_version('$stream')" : 'es_any()';
		$id = uuid();
		$sql = "SELECT position, version FROM es_append('$stream', 'Single', '{\"by\": $$}', $expected, event_id => '$id')";
		$sql .= "; $sql" if rand() < 0.05 && $expected eq 'es_any()';    # sent twice, by a client that was not sure
	}
	else
	{
		my $n = $kind < 0.95 ? 2 + int rand 10 : 50 + int rand 250;
		my @ids = map { uuid() } 1 .. $n;
		$id = $ids[-1];
		$sql = "SELECT position, version FROM es_append_batch('$stream', array_fill('Batch'::text, ARRAY[$n]),
			array_fill('{\"by\": $$}'::jsonb, ARRAY[$n]), event_ids => '{" . join(',', @ids) . "}')";
	}
	my $answer = $session->try($sql);
	if (defined $answer->{sqlstate})
	{
		die "$answer->{sqlstate} $answer->{message}\n" if $answer->{sqlstate} !~ /^(SE001|40P01)$/;
		return;
	}
	my @rows = @{ $answer->{rows} };
	die "a retry got another answer: @{$rows[0]}, then @{$rows[1]}\n" if @rows == 2 && "@{$rows[0]}" ne "@{$rows[1]}";
	return [ $rows[0][0], $stream, $rows[0][1], $id ];
}

# One transaction; the appends that count if it commits, or nothing.
sub transaction
{
	my ($session) = @_;
	my @streams = map { a_stream() } 1 .. 1 + int rand 5;
	my @done;

	@streams = sort @streams if rand() < 0.9;    # the others may deadlock
	$session->rows('BEGIN');
	for my $stream (@streams)
	{
		my $savepoint = rand() < 0.3;
		$session->rows('SAVEPOINT s') if $savepoint;
		my $got = append($session, $stream);
		if (!$got)
		{
			if (!$savepoint)
			{
				$session->rows('ROLLBACK');
				return;
			}
			$session->rows('ROLLBACK TO SAVEPOINT s');
		}
		elsif ($savepoint && rand() < 0.4)
		{
			$session->rows('ROLLBACK TO SAVEPOINT s');
			push @done, $got if rand() < 0.5 && ($got = append($session, $stream));
			if (!$got)
			{
				$session->rows('ROLLBACK');
				return;
			}
		}
		else
		{
			push @done, $got;
		}
		$session->rows(sprintf 'SELECT pg_sleep(%f)', 0.001 + rand 0.007) if rand() < 0.1;
	}
	my $end = rand() < 0.15 ? 'ROLLBACK' : 'COMMIT';
	$session->rows($end);
	return $end eq 'COMMIT' ? @done : ();
}

# A writer works until there are events enough, or its time is over.
sub write_all
{
	my ($w, $out) = @_;
	my $session = es_connect($node, name => "writer $w");
	my $until = time + $limit;

	srand $seed * 100 + $w;
	$session->rows('SET synchronous_commit = off') if $w % 2;
	for (my $n = 1;; $n++)
	{
		print $out "@$_\n" for transaction($session);
		last if $n % 20 == 0 && $session->value('SELECT es_last_position()') * 0.6 > $events;
		die "not done in time\n" if time > $until;
	}
	return;
}

# Ends when the writers have. A backend that is stopped is always set going again.
sub stop_and_go
{
	my $session = es_connect($node, name => 'stopper');
	my $until = time + $limit;
	my (@pids, $n);

	srand $seed * 100 + 77;
	while (time < $until && !-e $done)
	{
		# readers three times as often as writers
		@pids = map { ($_->[0]) x ($_->[1] =~ /^reader/ ? 6 : 1) } $session->rows(
			q{SELECT pid, application_name FROM pg_stat_activity WHERE application_name ~ '^(reader|writer|follower)'})
		  if $n++ % 500 == 0;
		next if !@pids;
		my $pid = $pids[ rand @pids ];
		kill 'STOP', $pid;
		usleep(rand 2000);
		kill 'CONT', $pid;
		usleep(rand 300);
	}
	return;
}

# Every reader ends when it has seen the sentinel, which is appended when all writers have ended.
sub read_log
{
	my ($r, $category, $out) = @_;
	my $session = es_connect($node, name => "reader $r");
	my ($seen, $until) = (0, time + $limit);

	srand $seed * 100 + 50 + $r;
	while (1)
	{
		my $n = rand() < 0.5 ? 1 + int rand 5 : 1 + int rand 1000;
		my $from = $category ? "es_read_category('$category', $seen, $n)" : $r > 1 ? "follow($seen)" : "es_read_all($seen, $n)";
		my @rows = $session->rows("SELECT position, event_id, stream, version FROM $from");
		for my $row (@rows)
		{
			return if $row->[2] =~ /sentinel/;
			print $out "@$row\n";
			$seen = $row->[0];
		}
		die "no sentinel in time\n" if time > $until;
		usleep(500) if !@rows;
	}
}

sub fetch_all
{
	my ($out) = @_;
	my $session = es_connect($node, name => 'follower');
	my ($until, @unacknowledged) = (time + $limit);

	srand $seed * 100 + 99;
	while (1)
	{
		my $n = 1 + int rand 500;
		my @rows = $session->rows("SELECT position, message_id, key, version, lane, epoch
			FROM es_fetch('follower', 'f', $n, '1 s')");
		die "no sentinel in time\n" if time > $until;
		next if !@rows;
		for my $i (0 .. ($#rows < $#unacknowledged ? $#rows : $#unacknowledged))
		{
			die "forgotten: $unacknowledged[$i], then handed out: $rows[$i][0]\n" if $rows[$i][0] ne $unacknowledged[$i];
		}
		if (rand() < 0.1)
		{
			@unacknowledged = map { $_->[0] } @rows;
			next;
		}
		$session->rows("SELECT es_ack('follower', $rows[-1][4], $rows[-1][5], $rows[-1][0])");
		@unacknowledged = ();
		for my $row (@rows)
		{
			return if $row->[2] =~ /sentinel/;
			print $out "@$row[0 .. 3]\n";
		}
	}
}

# A reader in the server: some hundred reads, each after the last position that it saw.
$db->rows(q{
	CREATE FUNCTION follow(seen bigint) RETURNS SETOF es_event LANGUAGE plpgsql AS $$
	DECLARE
		e es_event;
	BEGIN
		FOR i IN 1 .. 300 LOOP
			FOR e IN SELECT * FROM es_read_all(seen, 20) LOOP
				seen := e.position;
				RETURN NEXT e;
			END LOOP;
		END LOOP;
	END $$});

# An old snapshot with an xid, for the whole time.
my $bystander = es_connect($node);
$bystander->rows('CREATE TABLE unrelated (id integer)');
$bystander->rows('BEGIN ISOLATION LEVEL REPEATABLE READ');
$bystander->rows('INSERT INTO unrelated VALUES (1)');

my $began = time;
my %readers = map { my $r = $_; ("log $r" => es_fork("reader$r", sub { read_log($r, undef, $_[0]) })) } 1 .. READERS;
$readers{'category a'} = es_fork('reader_a', sub { read_log(0, 'a', $_[0]) });
my $stopper = es_fork('stopper', \&stop_and_go);
$readers{fetch} = es_fork('follower', sub { fetch_all($_[0]) });
my @writers = map { my $w = $_; es_fork("writer$w", sub { write_all($w, $_[0]) }) } 1 .. WRITERS;

my @answers = map { es_reap($_, $limit + 20) } @writers;
is(scalar(grep { !$_ } @answers), 0, 'all writers came to their end');
open my $flag, '>', $done or die "$done: $!";
close $flag;
ok(es_reap($stopper), 'who stopped and continued them came to its end');
note(sprintf 'writers: %.1f s', time - $began);
is($db->value('SELECT es_last_position() - es_horizon()'), 0, 'then nothing is in flight');
$db->rows(q{SELECT es_append('a-sentinel', 'End', '{}')});
my %seen = map { $_ => es_reap($readers{$_}, $limit) } sort keys %readers;
note(sprintf 'readers: %.1f s', time - $began);
is($bystander->try('COMMIT')->{sqlstate}, undef, 'a bystander was open all the time');

my @log = $db->rows(q{SELECT e.position, e.event_id, s.name, e.version FROM es_events AS e JOIN es_streams AS s USING (stream_id)
	WHERE s.name <> 'a-sentinel' ORDER BY e.position});
my $committed = @log;
my @all = map { "@$_" } @log;
my @of_a = map { "@$_" } grep { $_->[2] =~ /^a-/ } @log;
cmp_ok($committed, '>=', $events, "$committed events were committed");
note($db->value('SELECT es_last_position()') . ' positions drawn, '
	  . $db->value(q{SELECT count(*) FROM es_chunk_list WHERE of_table = 'es_events'}) . ' chunks');

# Say what differs, and no more: these lists are long.
sub same
{
	my ($got, $expected, $name) = @_;
	my $i = 0;

	if (!$got)
	{
		fail("$name: died");
		return;
	}
	$i++ while $i < @$got && $i < @$expected && $got->[$i] eq $expected->[$i];
	return ok($i == @$got && $i == @$expected, $name)
	  || diag("at number $i: got " . ($got->[$i] // 'nothing') . ', expected ' . ($expected->[$i] // 'nothing'));
}

same($seen{$_}, $_ eq 'category a' ? \@of_a : \@all, "reader $_ saw each committed event once, in order") for sort keys %seen;

my %there = map { $_->[0] => "$_->[2] $_->[3] $_->[1]" } @log;
my @wrong = grep { my ($position, $rest) = split / /, $_, 2; ($there{$position} // '') ne $rest } map { @{ $_ // [] } } @answers;
is(scalar @wrong, 0, 'what the writers were answered is so') or diag("@wrong[0 .. ($#wrong > 5 ? 5 : $#wrong)]");
es_events_sound($db, 'at the end');
es_check($db, 'ids are unique', 'SELECT event_id FROM es_events GROUP BY 1 HAVING count(*) > 1');
es_check($db, 'each stream can be read as it is',
	q{SELECT s.name FROM es_streams AS s, LATERAL (SELECT count(*) AS n, max(r.version) AS last FROM es_read_stream(s.name, 0, 1000000) AS r) AS r
	  WHERE r.n <> r.last + 1 OR r.last <> es_stream_version(s.name)});

$node->stop;
done_testing();
