# EsChecker: a load of writers and readers, and a comparison at the end: each reader saw exactly the committed events,
# each once, in the order of their positions; what the writers were answered is so; each stream's versions are gapless.
#
# Writers append to shared streams: single events and batches, with exact versions and without, in savepoints that they
# release or roll back, with pauses while they hold positions, aborting one transaction in seven, half of them with
# synchronous_commit off, over chunks so small that every few transactions cross a boundary. Readers remember nothing but
# how far they came: of the log, of one category, in a tight loop within the server, by es_fetch and es_ack, with and
# without a wait, now and then forgetting to acknowledge, and one that only reads on when it is notified. Without crashes
# a transaction that has nothing to do with it stays open all the time, and one backend after the other is stopped for an
# instant, at whatever instruction it is, while the others go on: so a window some nanoseconds wide is wide open. With
# crashes a backend or the postmaster is killed with -9, or the server stopped at once, and all go on where they were.
#
# It asserts nothing itself, because it is also run on code that was broken on purpose. It returns what it found, by kind:
#
#   skipped   a reader did not see an event            phantom   a reader saw what is not there
#   doubled   a reader saw an event twice              answer    a writer was answered what is not so
#   disorder  or after a later one                     reused    a position was told for two events
#   unwoken   or slept while there was something       died      a child ended with an error, or not in time
#   and versions, positions, streams, bound, reads     what es_soundness of EsTest asks
#
# The seed makes the choices repeat, not the timing.
package EsChecker;

use strict;
use warnings;
use Time::HiRes qw(time usleep);

use EsSession;
use EsTest;

use constant STREAMS => 40;
use constant SHOWN => 6;    # violations of one kind that are told in full

# The readers: name => what one selects from, given how far it came and how many it wants. All of them yield position, id, stream, version.
my %readers = (
	'log' => sub { "position, event_id, stream, version FROM es_read_all($_[0], $_[1])" },
	'loop' => sub { "position, event_id, stream, version FROM follow($_[0])" },
	'category' => sub { "position, event_id, stream, version FROM es_read_category('a', $_[0], $_[1])" },
	'listener' => sub { "position, event_id, stream, version FROM es_read_all($_[0], $_[1])" },
	'fetch' => sub { "position, message_id, key, version FROM es_fetch('fetch', 'f', $_[1])" },
	'poll' => sub { "position, message_id, key, version FROM es_fetch('poll', 'p', $_[1], '1 s')" });

# node must be given, and events for a load; the rest has defaults.
sub new
{
	my ($class, %option) = @_;
	my $self = bless {
		dbname => 'postgres', seed => 1, events => 0, writers => 8, crashes => 0, stop_backends => 1, resize_chunks => 1,
		readers => [ sort keys %readers ], async => 0.5, %option, found => {} }, $class;

	$self->{limit} //= 90 + $self->{events} / 1000 + 10 * $self->{crashes};    # seconds; reached only when something hangs
	$self->{done} = "$PostgreSQL::Test::Utils::tmp_check/done_$self->{dbname}";
	unlink $self->{done}, "$self->{done}.crashes", "$self->{done}.over";
	return $self;
}

sub connect
{
	my ($self, $name) = @_;
	return es_connect($self->{node}, dbname => $self->{dbname}, name => $name);
}

sub note { my ($self, $text) = @_; print "# $text\n"; return }

sub found
{
	my ($self, $kind, @what) = @_;
	push @{ $self->{found}{$kind} }, @what if @what;
	return;
}

# What was found, for people; empty when all is well.
sub report
{
	my ($self) = @_;
	my $found = $self->{found};
	return join '', map {
		my $kind = $_;
		my @what = @{ $found->{$kind} };
		"$kind: " . @what . "\n", map { "  $_\n" } @what[ 0 .. ($#what < SHOWN ? $#what : SHOWN - 1) ];
	} sort keys %$found;
}

# ---------------------------------------------------------------- writers

# Half of the streams are of category a.
sub a_stream { return (rand() < 0.5 ? 'a' : 'b') . '-' . int rand STREAMS / 2 }

sub uuid { return sprintf '%08x-%04x-4%03x-8%03x-%012x', map { int rand $_ } 2**32, 2**16, 2**12, 2**12, 2**48 }

# How many events: mostly one, sometimes a few, seldom many, very seldom more than some chunks hold.
sub batch_size
{
	my ($self) = @_;
	my $kind = rand;
	return 1 if $kind < 0.7;
	return 2 + int rand 10 if $kind < 0.95 || $self->{events} < 10_000;
	return 50 + int rand 250 if $kind < 0.98;
	return 300 + int rand 2000;
}

# One append. What it was answered of its last event, "position id stream version", or undef after a conflict.
sub append
{
	my ($self, $session, $stream, $out) = @_;
	my $n = $self->batch_size;
	my @ids = map { uuid() } 1 .. $n;
	my $sql;

	if ($n == 1)
	{
		my $expected = rand() < 0.2 ? "es_stream_version('$stream')" : 'es_any()';
		$sql = "SELECT position, version FROM es_append('$stream', 'Single', '{\"by\": $$}', $expected, event_id => '$ids[0]')";
		$sql .= "; $sql" if rand() < 0.05 && $expected eq 'es_any()';    # sent twice, by a client that was not sure
	}
	else
	{
		$sql = "SELECT position, version FROM es_append_batch('$stream', array_fill('Batch'::text, ARRAY[$n]),
			array_fill('{\"by\": $$}'::jsonb, ARRAY[$n]), event_ids => '{" . join(',', @ids) . "}')";
	}
	my $answer = $session->try($sql);
	return if ($answer->{sqlstate} // '') =~ /^(SE001|40P01)$/;
	die "$answer->{sqlstate} $answer->{message}\n" if defined $answer->{sqlstate};
	my @rows = @{ $answer->{rows} };
	print $out "answer a retry got another answer: @{$rows[0]}, then @{$rows[1]}\n" if @rows == 2 && "@{$rows[0]}" ne "@{$rows[1]}";
	my $got = "$rows[0][0] $ids[-1] $stream $rows[0][1]";
	print $out "told $got\n";
	return $got;
}

# One transaction; the answers that count if it commits, or nothing.
sub transaction
{
	my ($self, $session, $out) = @_;
	my @streams = map { a_stream() } 1 .. 1 + int rand 5;
	my @done;

	@streams = sort @streams if rand() < 0.9;    # the others may deadlock
	$session->rows('BEGIN');
	for my $stream (@streams)
	{
		my $savepoint = rand() < 0.3;
		$session->rows('SAVEPOINT s') if $savepoint;
		my $got = $self->append($session, $stream, $out);
		if ($savepoint && (!$got || rand() < 0.4))
		{
			$session->rows('ROLLBACK TO SAVEPOINT s');
			next if !$got || rand() < 0.5;
			$got = $self->append($session, $stream, $out);
		}
		if (!$got)
		{
			$session->rows('ROLLBACK');
			return;
		}
		push @done, $got;
		$session->rows(sprintf 'SELECT pg_sleep(%f)', 0.001 + rand 0.007) if rand() < 0.1;
	}
	my $end = rand() < 0.15 ? 'ROLLBACK' : 'COMMIT';
	$session->rows($end);
	return $end eq 'COMMIT' ? @done : ();
}

# A writer works until there are events enough, and all crashes are over, or its time is up. It tells every answer
# ("told"), and again when its transaction has committed ("done", or "kept" if a crash must not take it back).
sub write_all
{
	my ($self, $w, $out) = @_;
	my $until = time + $self->{limit};
	my $async = $w / $self->{writers} <= $self->{async};
	my $session;

	srand $self->{seed} * 100 + $w;
	for (my $n = 1;; $n++)
	{
		die "not done in time\n" if time > $until;
		my @done = eval {
			if (!$session || $session->lost)
			{
				$session = $self->connect("writer $w");
				$session->rows('SET synchronous_commit = off') if $async;
			}
			$self->transaction($session, $out);
		};
		die $@ if $@ && !($session && $session->lost && $self->{crashes});
		my $word = $async ? 'done' : 'kept';
		print $out "$word $_\n" for @done;
		next if $n % 20 || $session->lost;
		last if -e "$self->{done}.crashes" && ($session->try('SELECT es_last_position()')->{rows}[0][0] // 0) * 0.6 > $self->{events};
	}
	return;
}

# ---------------------------------------------------------------- readers

# The reader that is notified: when it may sleep. Its last read was empty, and armed the flag. A writer that was past its
# look at the flag then does not notify; so the reader sleeps only if it saw that nobody was in flight and then read
# nothing once more. Returns whether it was woken for something, or for nothing.
sub sleep_until_notified
{
	my ($session, $quiet) = @_;
	my $look = $session->try('SELECT es_horizon(), es_last_position()')->{rows}[0] or return;

	$$quiet = 0, usleep(500), return if $look->[0] < $look->[1];
	return if !$$quiet++;
	$$quiet = 0;
	return if $session->wait_for_notification(20);
	return $session->lost ? undef : 'overslept';
}

# Every reader ends when it has seen a sentinel, which is appended when all writers have ended. It tells every event that
# it is handed; of fetches also from where ("from") and what was acknowledged ("ack", or "maybe" if a crash came between).
sub read_all
{
	my ($self, $name, $out) = @_;
	my ($seen, $until, $quiet) = (0, time + $self->{limit} + 20, 0);
	my $fetches = $name =~ /fetch|poll/;
	my ($session, $overslept);

	srand $self->{seed} * 100 + 50 + unpack '%8C*', $name;
	while (1)
	{
		my $n = rand() < 0.5 ? 1 + int rand 5 : 1 + int rand 1000;
		die "no sentinel in time\n" if time > $until;
		if (!$session || $session->lost)
		{
			$session = $self->connect("reader $name");
			$session->try('LISTEN es_pg') if $name eq 'listener';
		}
		my $answer = $session->try('SELECT ' . $readers{$name}->($seen, $n));
		next if $session->lost && $self->{crashes};
		die "$answer->{sqlstate} $answer->{message}\n" if defined $answer->{sqlstate};
		my @rows = @{ $answer->{rows} };
		print $out "unwoken before $rows[0][0]\n" if $overslept && @rows;
		$overslept = undef;
		print $out "from\n" if $fetches;
		for my $row (@rows)
		{
			return if $row->[2] eq 'a-sentinel';
			print $out "@$row\n";
			$seen = $row->[0];
		}
		$quiet = 0 if @rows;
		if ($fetches && @rows && rand() >= 0.1)
		{
			my $failed = $session->try("SELECT es_ack(s.name, 0, l.epoch, $seen) FROM es_leases AS l JOIN es_subscriptions AS s USING (subscription_id) WHERE s.name = '$name'")->{sqlstate};
			die "es_ack: $failed\n" if defined $failed && !($session->lost && $self->{crashes});
			print $out defined $failed ? 'maybe' : 'ack', " $seen\n";
		}
		$overslept = sleep_until_notified($session, \$quiet) if $name eq 'listener' && !@rows;
		usleep(500) if !@rows && $name !~ /poll|listener/;
	}
}

# A reader in the server: some hundred reads, each after the last position that it saw.
my $follow = q{
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
	END $$};

# ---------------------------------------------------------------- disturbances

# Stops and continues backends until the writers have ended; and changes the size of the next chunks.
sub disturb
{
	my ($self) = @_;
	my $session = $self->connect('stopper');
	my $until = time + $self->{limit};
	my (@pids, $n);

	srand $self->{seed} * 100 + 77;
	while (time < $until && !-e $self->{done})
	{
		if ($n++ % 500 == 0)
		{
			# readers more often than writers
			@pids = map { ($_->[0]) x ($_->[1] =~ /^reader/ ? 6 : 1) } $session->rows(
				q{SELECT pid, application_name FROM pg_stat_activity
				  WHERE application_name ~ '^(reader|writer)' AND datname = current_database()});
			if ($self->{resize_chunks})
			{
				my $size = (100, 250, 1000, 4000)[ rand 4 ];
				$session->rows("ALTER SYSTEM SET es_pg.event_chunk_size = $size");
				$session->rows('SELECT pg_reload_conf()');
			}
		}
		usleep(2000), next if !@pids || !$self->{stop_backends};
		my $pid = $pids[ rand @pids ];
		kill 'STOP', $pid;
		usleep(rand 2000);
		kill 'CONT', $pid;
		usleep(rand 300);
	}
	return;
}

# A process's state and its parent, or nothing when it is gone.
sub process
{
	my ($pid) = @_;
	open my $in, '<', "/proc/$pid/stat" or return;
	my $line = <$in> // return;
	return $line =~ /\) (\S) (\d+)/;
}

# The WAL writer flushes asynchronous commits page by page; stopped, it leaves that to those who must. It is stopped where
# it holds no lock.
sub stop_wal_writer
{
	my ($self, $db) = @_;
	my $writer = q{SELECT pid, wait_event FROM pg_stat_activity WHERE backend_type = 'walwriter'};

	es_poll(sub {
			my ($row) = $db->rows($writer) or return 0;
			my $pid = $row->[0];
			kill 'STOP', $pid;
			es_poll(sub { ((process($pid))[0] // 'T') eq 'T' });
			($row) = $db->rows($writer);
			return $self->{wal_writer} = $pid if $row && $row->[0] == $pid && ($row->[1] // '') eq 'WalWriterMain';
			kill 'CONT', $pid;
			return 0;
		}) or die 'no WAL writer';
	return;
}

# Kill the postmaster and nobody else, wait until its orphans have noticed, and start again.
sub kill_postmaster
{
	my ($self) = @_;
	my $node = $self->{node};
	my $postmaster = (split /\n/, PostgreSQL::Test::Utils::slurp_file($node->data_dir . '/postmaster.pid'))[0];

	kill 'STOP', $postmaster;    # so that it has no more children
	my @orphans = grep { ((process($_))[1] // 0) == $postmaster } map { m{(\d+)$} } glob '/proc/[0-9]*';
	$node->kill9;
	kill 'KILL', $self->{wal_writer};
	es_poll(sub { !kill(0, $postmaster) && !grep { ((process($_))[0] // 'Z') ne 'Z' } @orphans }, 60)
	  or die 'orphans of the postmaster live on';
	$node->start;
	return;
}

# Crashes while the others work: of the postmaster, of a backend or the worker that makes chunks, of all at once.
sub crash
{
	my ($self) = @_;
	my $node = $self->{node};
	my $db = $self->connect('crasher');

	for my $crash (1 .. $self->{crashes})
	{
		my $from = $db->value('SELECT es_last_position()');
		my $more = $self->{events} / ($self->{crashes} + 1) * (0.5 + rand 0.5);
		my $backend;

		$self->stop_wal_writer($db);
		# es_horizon() would flush, and less would be lost
		es_poll(sub { $db->value('SELECT es_last_position()') > $from + $more }, 120) or return $self->found(died => "no way on after $from");
		if ($crash % 3 == 1)
		{
			$self->kill_postmaster;
		}
		elsif ($crash % 3 == 2)
		{
			es_poll(sub {
					$backend = $db->value(q{SELECT pid FROM pg_stat_activity WHERE application_name ~ '^writer' AND query ~ 'es_append'
						AND state = 'active' OR backend_type = 'es_pg chunk worker' ORDER BY backend_type = 'es_pg chunk worker' DESC, random() LIMIT 1});
				}, 60) or return $self->found(died => 'no writer at work');
			kill 'KILL', $backend, $self->{wal_writer};
			es_poll(sub { $db->try('SELECT 1')->{lost} }, 60) or return $self->found(died => 'the server did not begin anew');
		}
		else
		{
			kill 'KILL', $self->{wal_writer};    # it does not hear the postmaster
			$node->stop('immediate');
			$node->start;
		}
		$db = $self->connect('crasher');
		my $now = $db->value('SELECT es_last_position()');
		$self->found(reused => "positions begin anew after $now, where $from was drawn") if $now < $from;
	}
	return;
}

# ---------------------------------------------------------------- the comparison

# One reader's lines against the log: both are "position id stream version".
sub compare
{
	my ($self, $name, $lines, $log) = @_;
	my ($i, @from, %skipped) = (0, 0);
	my %at;
	@at{@$log} = 0 .. $#$log;

	# The place in the log after a position: acknowledgements name positions.
	my $after = sub {
		my ($low, $high) = (0, scalar @$log);
		while ($low < $high)
		{
			my $mid = int(($low + $high) / 2);
			if ((split / /, $log->[$mid], 2)[0] <= $_[0]) { $low = $mid + 1 } else { $high = $mid }
		}
		return $low;
	};
	my $first;    # the next event is the first of a fetch, so it may be at any of the places in @from
	for my $line (@$lines)
	{
		if ($line =~ /^unwoken (.*)/) { $self->found(unwoken => "$name: $1"); next }
		if ($line eq 'from') { $first = 1; next }
		if ($line =~ /^ack (\d+)/) { @from = $after->($1); next }
		if ($line =~ /^maybe (\d+)/) { push @from, $after->($1); next }
		my $there = $at{$line};
		if (!defined $there)
		{
			$self->found(phantom => "$name: $line");
			next;
		}
		if ($first)
		{
			($i) = ((grep { $_ == $there } @from), $from[-1]);
			$first = 0;
		}
		if ($there >= $i)
		{
			$skipped{$_} = 1 for @$log[ $i .. $there - 1 ];
			$i = $there + 1;
		}
		else
		{
			$self->found((delete $skipped{$line} ? 'disorder' : 'doubled') => "$name: $line");
		}
	}
	$skipped{$_} = 1 for @$log[ $i .. $#$log ];
	$self->found(skipped => map { "$name: $_" } sort { (split / /, $a)[0] <=> (split / /, $b)[0] } keys %skipped);
	return;
}

# What the writers were told against the table.
sub compare_answers
{
	my ($self, $lines, $log) = @_;
	my (%told, %there);
	@there{@$log} = ();

	for my $line (@$lines)
	{
		my ($word, $event) = split / /, $line, 2;
		if ($word eq 'answer')
		{
			$self->found(answer => $event);
		}
		elsif ($word eq 'told')
		{
			my ($position, $id) = split / /, $event;
			$self->found(reused => "$position for $told{$position} and $id") if ($told{$position} //= $id) ne $id;
		}
		else
		{
			$self->found(answer => "$word $event") if !exists $there{$event} && ($word eq 'kept' || !$self->{crashes});
		}
	}
	return;
}

# ---------------------------------------------------------------- a run

sub reap
{
	my ($self, $name, $pid, $seconds) = @_;
	my $lines = es_reap($pid, $seconds);
	$self->found(died => $name) if !$lines;
	return $lines // [];
}

# What is true of the events that this load makes, beside what is true of all.
my @soundness = (
	[ doubled => 'ids are unique', 'SELECT event_id FROM es_events GROUP BY 1 HAVING count(*) > 1' ],
	[ reads => 'each stream can be read as it is',
		'SELECT s.name FROM es_streams AS s,
		   LATERAL (SELECT count(*) AS n, max(r.version) AS last FROM es_read_stream(s.name, 0, 100000000) AS r) AS r
		  WHERE r.n <> r.last + 1 OR r.last <> es_stream_version(s.name)' ]);

# The first is what the readers end with. More come, for one that is broken may have skipped it.
sub append_sentinels
{
	my ($self) = @_;
	my $session = $self->connect('sentinel');
	do { $session->rows(q{SELECT es_append('a-sentinel', 'End', '{}')}) } until es_poll(sub { -e "$self->{done}.over" }, 2);
	return;
}

# Everything; returns self.
sub run
{
	my ($self) = @_;
	my $db = $self->connect('checker');
	my $began = time;
	my ($bystander, $disturber);

	srand $self->{seed};
	$db->rows($follow);
	$db->rows("SELECT es_create_subscription('$_', 'beginning')") for 'fetch', 'poll';
	if (!$self->{crashes})
	{
		# An old snapshot with an xid, for the whole time.
		$bystander = $self->connect('bystander');
		$bystander->rows('CREATE TABLE unrelated (id integer)');
		$bystander->rows('BEGIN ISOLATION LEVEL REPEATABLE READ');
		$bystander->rows('INSERT INTO unrelated VALUES (1)');
		$disturber = es_fork('stopper', sub { $self->disturb });
	}
	my %pids = map { my $name = $_; ($name => es_fork("reader_$name", sub { $self->read_all($name, $_[0]) })) } @{ $self->{readers} };
	my @writers = map { my $w = $_; es_fork("writer$w", sub { $self->write_all($w, $_[0]) }) } 1 .. $self->{writers};

	$self->crash;
	$self->touch('.crashes');
	my @answers = map { @{ $self->reap('a writer', $_, $self->{limit} + 20) } } @writers;
	$self->touch('');
	$self->reap('stopper', $disturber) if $disturber;
	$self->note(sprintf 'writers: %.1f s', time - $began);

	$db->close;
	$db = $self->connect('checker');
	es_poll(sub { $db->value('SELECT es_horizon() = es_last_position()') eq 't' }, 30) or $self->found(died => 'something stays in flight');
	my $sentinel = es_fork('sentinel', sub { $self->append_sentinels });
	my %lines = map { $_ => $self->reap("reader $_", $pids{$_}, $self->{limit}) } sort keys %pids;
	$self->touch('.over');
	$self->reap('sentinel', $sentinel);
	if ($self->{crashes})
	{
		# What is compared is what a crash leaves.
		$self->{node}->stop('immediate');
		$self->{node}->start;
		$db = $self->connect('checker');
	}
	my @log = map { "@$_" } $db->rows(q{SELECT e.position, e.event_id, s.name, e.version
		FROM es_events AS e JOIN es_streams AS s USING (stream_id) WHERE s.name <> 'a-sentinel' ORDER BY e.position});
	my @of_a = grep { (split / /)[2] =~ /^a-/ } @log;
	$self->compare($_, $lines{$_}, $_ eq 'category' ? \@of_a : \@log) for sort keys %pids;
	$self->note(sprintf 'readers: %.1f s', time - $began);

	$bystander->rows('COMMIT') if $bystander;
	$self->compare_answers(\@answers, \@log);
	for my $question (es_soundness(), @soundness)
	{
		my ($kind, $name, $sql) = @$question;
		my $answer = $db->try($sql);
		my @rows = defined $answer->{sqlstate} ? [ $answer->{message} ] : @{ $answer->{rows} };
		$self->found($kind => "not true that $name: " . join ' ', map { $_ // 'NULL' } @$_) for @rows;
	}
	$self->{committed} = @log;
	$self->note(@log . ' events committed, ' . $db->value('SELECT es_last_position()') . ' positions drawn, '
		  . $db->value(q{SELECT count(*) FROM es_chunk_list WHERE of_table = 'es_events'}) . ' chunks');
	return $self;
}

sub touch
{
	my ($self, $suffix) = @_;
	open my $file, '>', "$self->{done}$suffix" or die "$self->{done}$suffix: $!";
	close $file;
	return;
}

# ---------------------------------------------------------------- waking up

# A listener and two writers, at rest otherwise: no commit of somebody else mends a notification that was lost. The commits
# are sent while the listener makes up its mind to sleep. What it has not seen by then it must be notified of.
sub wake_ups
{
	my ($self, $rounds) = @_;
	my ($listener, @writers) = map { $self->connect($_) } 'reader listener', 'writer 1', 'writer 2';
	my $seen = $listener->value('SELECT es_horizon()');
	my $slept = 0;

	$listener->rows('LISTEN es_pg');
	for my $round (1 .. $rounds)
	{
		my @idle = @writers;
		my ($quiet, @sent) = (0);
		my $ask = sub {
			$listener->wait_for_notification(0);    # what came before it asks is no news after that
			$listener->send($_[0]);
			if (@idle && rand() < 0.4)
			{
				usleep(rand 500);
				push @sent, shift @idle;
				$sent[-1]->send(q{SELECT es_append('wake-1', 'E', '{}')});
			}
			return @{ ($listener->receive(60) // die 'no answer')->{rows} };
		};

		while (1)
		{
			my @rows = $ask->("SELECT position FROM es_read_all($seen)");
			last if !@rows && $quiet;
			$quiet = 0;
			$seen = $rows[-1][0], next if @rows;
			my ($look) = $ask->('SELECT es_horizon(), es_last_position()');
			$quiet = $look->[0] == $look->[1];
		}
		$_->receive(60) // die 'no answer' for @sent;
		my $last = $writers[0]->value('SELECT es_horizon()');
		next if $last == $seen;
		$slept++;
		$self->found(unwoken => "round $round: seen up to $seen, committed up to $last") if !$listener->notifications;
	}
	$self->note("$rounds rounds, $slept in which a notification was needed");
	return $self;
}

1;
