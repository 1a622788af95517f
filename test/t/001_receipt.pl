# 001_receipt: the main job on real input. The event log of a municipality's permit applications (receipt.csv: 8,577
# events of 1,434 cases) is loaded by 8 writers at once, in the order of its timestamps, while es-relay hands it on to a
# file and is killed with -9 again and again.
#
# What must hold at the end: every event arrived with what the table says, none was lost, each stream's events came in
# its order, positions rose within each run of the relay, and what came twice was the same message with the same id.
# A line that a kill tore apart does not count; its event comes again. Then the same load once more: each append gets
# its first answer, and nothing is written or delivered. At last SIGTERM: the relay ends by itself, and its cursor is at
# the last event.
use strict;
use warnings;
use IO::Select;
use Test::More;

use EsTest;

use constant FIONREAD => 0x541b;    # Linux: bytes waiting in a pipe
use constant WRITERS => 8;
use constant KILLS => 6;
use constant BATCH => 300;      # of the relay; about 200 kB of output, three times what a pipe holds

my $csv = ($ENV{ES_DATA} // '') . '/receipt.csv';
plan skip_all => "no $csv" if !-r $csv;
my $relay = $ENV{ES_RELAY} // '';
plan skip_all => 'no es-relay' if !-x $relay;

es_seed();
my $node = es_cluster('receipt');
my $db = es_connect($node);

# The rows in the order of time. The file has no quotes; its times have one length, but not one zone.
sub read_receipt
{
	open my $in, '<', $csv or die "$csv: $!";
	chomp(my @lines = <$in>);
	my @names = split /,/, shift @lines;
	my @rows;
	for my $line (@lines)
	{
		my %row;
		@row{@names} = split /,/, $line, -1;
		push @rows, \%row;
	}
	for my $row (@rows)
	{
		my ($local, $zone) = $row->{'time:timestamp'} =~ /^(.*)\+(\d\d):00$/ or die "time: $row->{'time:timestamp'}";
		my ($day, $h, $rest) = $local =~ /^(\S+) (\d\d):(.*)$/ or die "time: $local";
		$row->{at} = $h < $zone ? "$day 00:00" : sprintf '%s %02d:%s', $day, $h - $zone, $rest;
	}
	return sort { $a->{at} cmp $b->{at} } @rows;
}

# One append of a row. Its id is made of the activity instance, which is unique in the file.
sub append_sql
{
	my ($row) = @_;
	my @keys = grep { /^(org|lifecycle|case):/ && $_ ne 'case:concept:name' } sort keys %$row;
	my $data = join ', ', map { EsSession::literal($_) } map { ($_, $row->{$_}) } @keys;
	my ($stream, $type, $instance, $time) = map { EsSession::literal($_) } "permit-$row->{'case:concept:name'}",
	  @{$row}{qw(concept:name concept:instance time:timestamp)};

	return "SELECT version, position, event_id FROM es_append($stream, $type, jsonb_build_object($data),
		event_id => es_uuid('receipt', $instance), occurred_at => $time)";
}

# Writer number w: the streams that are its own, in transactions of one to four appends. Reports every answer.
sub write_share
{
	my ($w, $rows, $out) = @_;
	my $session = es_connect($node, name => "writer $w");
	my @mine = grep { unpack('%32C*', $_->{'case:concept:name'}) % WRITERS == $w } @$rows;

	while (@mine)
	{
		my @now = splice @mine, 0, 1 + int rand 4;
		$session->rows('BEGIN');
		for my $row (@now)
		{
			my ($answer) = $session->rows(append_sql($row));
			print $out "$row->{'concept:instance'} @$answer\n";
		}
		$session->rows('COMMIT');
	}
	return;
}

sub load
{
	my ($turn, $rows, $meanwhile) = @_;
	my @pids = map { my $w = $_; es_fork("load${turn}_$w", sub { srand; write_share($w, $rows, $_[0]) }) } 0 .. WRITERS - 1;
	my @lines;
	my $failed = 0;

	$meanwhile->();
	for my $pid (@pids)
	{
		my $got = es_reap($pid);
		$failed++ if !$got;
		push @lines, @{ $got // [] };
	}
	is($failed, 0, "load $turn: all writers came to their end");
	return { map { split / /, $_, 2 } @lines };
}

# The relay. Each run appends to the one file; @runs has where each began.
my $tmp = $PostgreSQL::Test::Utils::tmp_check;
my $file = "$tmp/delivered";
my $config = "$tmp/relay.conf";
my (@runs, $relay_pid);

sub write_file
{
	my ($name, $text) = @_;
	open my $out, '>', $name or die "$name: $!";
	print $out $text;
	close $out or die "$name: $!";
	return;
}

# Into the file, or into a pipe that the caller copies to the file.
sub relay_start
{
	my ($pipe) = @_;

	push @runs, -s $file;
	$relay_pid = fork // die "fork: $!";
	return if $relay_pid;
	delete $ENV{PGAPPNAME};
	open STDOUT, $pipe ? '>&' : '>>', $pipe // $file or POSIX::_exit(126);
	open STDERR, '>>', "$tmp/relay.log" or POSIX::_exit(126);
	{ exec { $relay } $relay, '--config', $config; }
	POSIX::_exit(127);
}

sub relay_end
{
	my ($signal) = @_;
	my $code;

	kill $signal, $relay_pid;
	if (!es_poll(sub { my $got = waitpid($relay_pid, POSIX::WNOHANG()); $code = $? if $got; $got }, 60))
	{
		kill 'KILL', $relay_pid;
		waitpid $relay_pid, 0;
		$code = 'not in time';
	}
	undef $relay_pid;
	return $code;
}

END
{
	my $code = $?;
	kill 'KILL', $relay_pid if $relay_pid;
	$? = $code;
}

# A kill at some moment: the relay writes to the file, as fast as it can.
sub kill_at_some_moment
{
	my ($bytes) = @_;

	relay_start();
	ok(es_poll(sub { -s $file >= $runs[-1] + $bytes }, 60), "a run of the relay delivered $bytes bytes");
	is(relay_end('KILL') & 127, 9, 'and was killed');
	return;
}

# A kill within a batch: it writes to a pipe, and is killed when the pipe is full, so in the middle of its first batch.
# What it had written arrives, as it would at a far side that got it, but for the end of the last line.
sub kill_within_batch
{
	my ($bytes) = @_;
	my $here = es_connect($node);
	my $full = pack 'L', 0;

	# Let there be a batch to fetch.
	ok(es_poll(sub { $here->value(qq{SELECT count(*) FROM es_fetch('receipt', 'test', @{[BATCH]}, session_bound => true)}) == BATCH }, 60),
		'there is a whole batch to deliver');
	$here->close;
	pipe my $from, my $to or die "pipe: $!";
	relay_start($to);
	close $to;
	open my $out, '>>', $file or die "$file: $!";
	while ($bytes > 0 && IO::Select->new($from)->can_read(60))
	{
		my $n = sysread $from, my $data, $bytes or last;
		syswrite $out, $data;
		$bytes -= $n;
	}
	ok(es_poll(sub { ioctl $from, FIONREAD, $full; unpack('L', $full) > 40_000 }, 60), 'the relay is in mid-batch');
	is(relay_end('KILL') & 127, 9, 'and was killed');
	while (sysread $from, my $data, 65536)
	{
		syswrite $out, $data;
	}
	truncate $out, (-s $file) - 10 or die "$file: $!";
	close $out;
	return;
}

# The whole lines of each run, as the database reads them.
sub take_delivered
{
	open my $in, '<', $file or die "$file: $!";
	my $torn = 0;

	$db->rows('CREATE TABLE IF NOT EXISTS delivered (run integer, line integer, event jsonb)');
	$db->rows('TRUNCATE delivered');
	for my $run (0 .. $#runs)
	{
		my $length = ($runs[ $run + 1 ] // -s $file) - $runs[$run];
		my $text = '';
		seek $in, $runs[$run], 0;
		read $in, $text, $length;
		my @lines = split /(?<=\n)/, $text;
		if (@lines && $lines[-1] !~ /\n\z/)
		{
			pop @lines;
			$torn++;
		}
		my $line = 0;
		while (my @now = splice @lines, 0, 500)
		{
			chomp @now;
			@now = grep { length } @now;    # the relay ends a torn line before it writes
			$db->rows('INSERT INTO delivered VALUES ' . join ', ',
				map { sprintf '(%d, %d, %s)', $run, ++$line, EsSession::literal($_) } @now);
		}
	}
	$db->rows('ANALYZE delivered');
	return $torn;
}

sub delivered_all
{
	my ($seconds) = @_;
	my $last = $db->value('SELECT max(position) FROM es_events');
	return es_poll(sub {
			open my $in, '<', $file or return 0;
			seek $in, -s $file > 4000 ? -4000 : 0, 2;
			local $/;
			return (<$in> // '') =~ /"position":"$last".*\n/;
		}, $seconds);
}

my @rows = read_receipt();
my %seen;
is(scalar @rows, 8577, 'the file has its 8,577 events');
is(scalar(grep { $seen{ $_->{'concept:instance'} }++ } @rows), 0, 'the activity instances are unique, and so are the ids');

write_file($file, '');
write_file($config, sprintf <<'END', $node->host, $node->port, BATCH);
[database]
conninfo = host=%s port=%s dbname=postgres

[pipeline]
subscription = receipt
create = beginning
batch_size = %d
END
is(system($relay, '--config', $config, '--check-config'), 0, 'the configuration is accepted');

# The first load, with kills.
relay_start();
ok(es_poll(sub { $db->value("SELECT count(*) FROM es_subscriptions WHERE name = 'receipt'") }, 60), 'the relay makes its subscription');
is(relay_end('TERM'), 0, 'and ends when told to');
my $first = load(1, \@rows, sub {
		for (1 .. KILLS / 2)
		{
			kill_at_some_moment(1 + int rand 200_000);
			kill_within_batch(1 + int rand 100_000);
		}
		relay_start();
	});
is(scalar keys %$first, 8577, 'every append was answered');
is($db->value('SELECT count(*) FROM es_events'), 8577, 'every event is there');
is($db->value("SELECT count(*) FROM es_streams WHERE name LIKE 'permit-case-%'"), 1434, 'in 1,434 streams');
ok(delivered_all(60), 'the last event was delivered');
es_events_sound($db, 'after the load');

my $torn = take_delivered();
my $again = $db->value('SELECT count(*) FROM delivered') - 8577;
cmp_ok($torn, '>=', KILLS / 2, "kills tore a line ($torn of " . KILLS . ')');
cmp_ok($again, '>', 0, "and had messages delivered again ($again)");
es_check($db, 'every event was delivered', q{
	SELECT e.position FROM es_events AS e
	 WHERE NOT EXISTS (SELECT FROM delivered AS d WHERE d.event ->> 'id' = e.event_id::text) ORDER BY 1});
es_check($db, 'each line says what the event says', q{
	SELECT d.run, d.line, d.event FROM delivered AS d
	  LEFT JOIN es_read_all(0, 100000) AS e ON e.event_id = (d.event ->> 'id')::uuid
	 WHERE (d.event ->> 'position', d.event ->> 'subject', d.event ->> 'streamversion', d.event ->> 'type', d.event -> 'data',
			(d.event ->> 'time')::timestamptz, d.event ->> 'incarnation', d.event ->> 'specversion')
		IS DISTINCT FROM
		   (e.position::text, e.stream, e.version::text, e.type, e.data, e.occurred_at, es_incarnation()::text, '1.0')});
es_check($db, 'within a run positions rise', q{
	SELECT * FROM (SELECT run, line, (event ->> 'position')::bigint AS position,
			lag((event ->> 'position')::bigint) OVER (PARTITION BY run ORDER BY line) AS before FROM delivered) AS d
	 WHERE position <= before});
es_check($db, 'a run leaves nothing out between its first line and its last', q{
	SELECT r.run, e.position FROM es_events AS e
	  JOIN (SELECT run, min((event ->> 'position')::bigint) AS first, max((event ->> 'position')::bigint) AS last
			  FROM delivered GROUP BY run) AS r ON e.position BETWEEN r.first AND r.last
	 WHERE NOT EXISTS (SELECT FROM delivered AS d WHERE d.run = r.run AND d.event ->> 'id' = e.event_id::text)});
es_check($db, 'the first deliveries of each stream are in its order', q{
	SELECT * FROM (
		SELECT event ->> 'subject' AS stream, (event ->> 'streamversion')::bigint AS version,
			row_number() OVER (PARTITION BY event ->> 'subject' ORDER BY run, line) - 1 AS due
		  FROM (SELECT DISTINCT ON (event ->> 'id') * FROM delivered ORDER BY event ->> 'id', run, line) AS first) AS d
	 WHERE version <> due});
es_check($db, 'what was delivered twice is the same message, and of different runs', q{
	SELECT event ->> 'id', count(*) FROM delivered GROUP BY 1
	HAVING count(DISTINCT event) > 1 OR count(DISTINCT run) < count(*)});
es_check($db, 'the positions of first deliveries rise, across all runs', q{
	SELECT * FROM (
		SELECT run, line, position, lag(position) OVER (ORDER BY run, line) AS before
		  FROM (SELECT DISTINCT ON (event ->> 'id') run, line, (event ->> 'position')::bigint AS position
				  FROM delivered ORDER BY event ->> 'id', run, line) AS first) AS d
	 WHERE position < before});

# The second load: the same answers, and nothing new.
my $size = -s $file;
my $second = load(2, \@rows, sub { });
is_deeply($second, $first, 'load 2 gets the answers of load 1');
is($db->value('SELECT count(*) FROM es_events'), 8577, 'and writes nothing');
$db->rows(q{SELECT es_append('sentinel', 'After', '{}', es_no_stream())});
ok(delivered_all(60), 'what is appended afterwards is delivered');
take_delivered();
is($db->value(q{SELECT count(*) FROM delivered WHERE run = (SELECT max(run) FROM delivered) AND event ->> 'type' = 'After'}),
	1, 'once');
ok(-s $file < $size + 2000, 'and nothing else');

is(relay_end('TERM'), 0, 'told to end, the relay exits with 0');
is($db->value(q{SELECT max(c.position) FROM es_cursors AS c JOIN es_subscriptions AS s USING (subscription_id)
	WHERE s.name = 'receipt'}), $db->value('SELECT max(position) FROM es_events'), 'and its cursor is at the last event');

# Begun again there is nothing to do; it ends as quietly.
$size = -s $file;
relay_start();
ok(es_poll(sub { $db->value(q{SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE 'es-relay%'}) > 0 }, 30),
	'begun once more it connects');
is(relay_end('TERM'), 0, 'and ends');
is(-s $file, $size, 'without a word');

$db->close;
$node->stop;
done_testing();
