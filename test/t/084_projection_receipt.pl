# 084_projection_receipt: read models of real events, under load. The permit applications of receipt.csv are appended by
# four writers at once while the worker keeps three projections up, is killed with -9 at random (which restarts the
# whole server), and two of them are rebuilt again and again.
#
# At the end each read model says what one SQL statement over the events says, to the row: cases by department and
# status; the throughput time of each activity; and an inline one, how many events each case has. So nothing was left
# out and nothing was applied twice. Readers never saw a live table go back.
use strict;
use warnings;
use Test::More;

use EsTest;

use constant WRITERS => 4;
use constant KILLS => 4;
use constant REBUILDS => 6;

my $csv = ($ENV{ES_DATA} // '') . '/receipt.csv';
plan skip_all => "no $csv" if !-r $csv;

es_seed();
my $node = es_cluster('projection', "shared_preload_libraries = 'es_pg'", 'restart_after_crash = on', 'jit = off');
my $db = es_connect($node);

# The rows in the order of time; a case's first event carries what is the case's.
sub read_receipt
{
	open my $in, '<', $csv or die "$csv: $!";
	chomp(my @lines = <$in>);
	my @names = split /,/, shift @lines;
	my @rows = map { my %row; @row{@names} = split /,/, $_, -1; \%row } @lines;
	return @rows;
}

sub append_sql
{
	my ($row) = @_;
	my ($stream, $type, $instance, $time, $department, $end) = map { EsSession::literal($_) } "permit-$row->{'case:concept:name'}",
	  @{$row}{qw(concept:name concept:instance time:timestamp case:department case:enddate)};
	return "SELECT es_append($stream, $type, jsonb_build_object('department', $department, 'end', nullif($end, '')), "
	  . "event_id => es_uuid('receipt', $instance), occurred_at => $time)";
}

$db->rows(<<'SQL');
CREATE TABLE case_status (stream text PRIMARY KEY, department text NOT NULL, status text NOT NULL, events bigint NOT NULL);
CREATE VIEW cases AS SELECT department, status, count(*) AS n, sum(events) AS events FROM case_status GROUP BY 1, 2;
-- Time from the event before it in the case to the event itself; what the batch before ended with is kept.
CREATE TABLE last_event (stream text PRIMARY KEY, version bigint NOT NULL, at timestamptz NOT NULL);
CREATE TABLE throughput (activity text PRIMARY KEY, n bigint NOT NULL, total interval NOT NULL);
CREATE TABLE case_events (stream text PRIMARY KEY, n bigint NOT NULL);
SELECT es_create_projection('cases', $$
    INSERT INTO case_status AS t
        SELECT stream, max(data->>'department'), CASE WHEN max(data->>'end') IS NULL THEN 'open' ELSE 'closed' END, count(*) FROM es_batch GROUP BY stream
    ON CONFLICT (stream) DO UPDATE SET events = t.events + EXCLUDED.events
$$, categories => '{permit}', batch_size => 500);
SELECT es_create_projection('throughput', $$
    INSERT INTO throughput AS t
        SELECT type, count(*), sum(occurred_at - before)
          FROM (SELECT e.type, e.occurred_at, coalesce(lag(e.occurred_at) OVER (PARTITION BY e.stream ORDER BY e.version), l.at) AS before
                  FROM es_batch AS e LEFT JOIN last_event AS l USING (stream)) AS e
         WHERE before IS NOT NULL GROUP BY type
    ON CONFLICT (activity) DO UPDATE SET n = t.n + EXCLUDED.n, total = t.total + EXCLUDED.total;
    INSERT INTO last_event SELECT DISTINCT ON (stream) stream, version, occurred_at FROM es_batch ORDER BY stream, version DESC
    ON CONFLICT (stream) DO UPDATE SET version = EXCLUDED.version, at = EXCLUDED.at
$$, categories => '{permit}', batch_size => 300);
CREATE FUNCTION count_event(event es_event) RETURNS void LANGUAGE sql AS $$
    INSERT INTO case_events VALUES (event.stream, 1) ON CONFLICT (stream) DO UPDATE SET n = case_events.n + 1
$$;
SELECT es_create_projection('case_events', handler => 'count_event(es_event)', mode => 'inline', categories => '{permit}', tables => '{case_events}');
SELECT es_start_worker()
SQL

my @rows = read_receipt();
my @shares;
push @{ $shares[ $_ % WRITERS ] }, $rows[$_] for 0 .. $#rows;

# A crash takes the connection; the append whose answer did not come is made again: its id makes that harmless. Cases are
# spread over the writers, so a case's order is as they happen to come.
sub write_share
{
	my ($share) = @_;
	my $session = es_connect($node);
	for my $row (@$share)
	{
		while (1)
		{
			my $answer = $session->try(append_sql($row));
			last if !defined $answer->{sqlstate};
			die "$answer->{sqlstate} $answer->{message}" if $answer->{sqlstate} !~ /^(08|57P|40)/;
			$session = es_connect($node) if $answer->{lost} || $answer->{sqlstate} =~ /^(08|57P)/;
		}
	}
	return;
}

# Readers: the number of events behind a live read model never falls.
sub read_on
{
	my ($out) = @_;
	my ($seen, $session) = (0, es_connect($node));
	while (1)
	{
		my $answer = $session->try('SELECT coalesce(sum(events), 0), (SELECT n FROM stop) FROM case_status');
		$session = es_connect($node), next if defined $answer->{sqlstate};
		my ($n, $stop) = @{ $answer->{rows}[0] };
		die "went back from $seen to $n" if $n < $seen;
		$seen = $n;
		last if $stop;
	}
	print $out "$seen\n";
	return;
}

$db->rows('CREATE TABLE stop (n int); INSERT INTO stop VALUES (0)');
my @writers = map { my $share = $shares[$_]; es_fork("writer_$_", sub { write_share($share) }) } 0 .. $#shares;
my $reader = es_fork('reader', \&read_on);

# What is done to it meanwhile: rebuilds, and kills at random times.
my ($kills, $rebuilds) = (0, 0);
my $appended = 0;
while ($kills < KILLS || $rebuilds < REBUILDS)
{
	my $wanted = $appended + 300 + int rand 500;
	es_poll(
		sub {
			my $answer = $db->try('SELECT count(*) FROM es_events');
			$db = es_connect($node), return 0 if defined $answer->{sqlstate};
			$appended = $answer->{rows}[0][0];
			return $appended >= $wanted || $appended == @rows;
		}, 120) or die 'the writers hang';
	if ($kills < KILLS && ($rebuilds >= REBUILDS || rand() < 0.4))
	{
		my $pid;
		es_poll(sub { my $answer = $db->try('SELECT es_worker_pid()'); $db = es_connect($node) if defined $answer->{sqlstate};
				$pid = $answer->{rows}[0][0]; defined $pid }, 60) or die 'no worker';
		kill 'KILL', $pid;
		es_poll(sub { defined $db->try('SELECT 1')->{sqlstate} }, 60);
		$db = es_connect($node);
		$kills++;
	}
	else
	{
		my $name = (qw(cases throughput case_events))[ $rebuilds % 3 ];
		my $answer = $db->try("SELECT es_rebuild_projection('$name')");
		$db = es_connect($node) if $answer->{lost};
		$rebuilds++ if !defined $answer->{sqlstate} || $answer->{sqlstate} eq '55000';
	}
}
is(scalar(grep { defined es_reap($_, 240) } @writers), WRITERS, 'every event was appended, whatever was killed');

# The worker is there again by itself, and ends what was begun.
ok(es_poll(sub { my $answer = $db->try('SELECT count(*) FROM es_projections WHERE NOT live'); ($answer->{rows}[0][0] // 1) == 0 }, 120),
	'rebuilds that were interrupted went on and came to their end');
is($db->value("SELECT string_agg(name, ',') FROM es_projections AS p WHERE NOT es_wait_for(name, (SELECT max(position) FROM es_events), '60 s')"),
	undef, 'every projection passed the last event');
$db->rows('UPDATE stop SET n = 1');
my $seen = es_reap($reader, 60);
is($seen && $seen->[0], scalar @rows, 'readers saw a read model grow to the whole, and never go back');

sub compare
{
	my ($when) = @_;
	es_check($db, "$when: cases by department and status", <<'SQL');
	WITH truth AS (SELECT department, status, count(*) AS n, sum(events)::numeric AS events FROM (
		SELECT stream, max(data->>'department') AS department, CASE WHEN max(data->>'end') IS NULL THEN 'open' ELSE 'closed' END AS status, count(*) AS events
		  FROM es_read_category('permit', 0, 100000) GROUP BY stream) AS c GROUP BY 1, 2)
	(TABLE truth EXCEPT TABLE cases) UNION ALL (TABLE cases EXCEPT TABLE truth)
SQL
	es_check($db, "$when: throughput time of each activity", <<'SQL');
	WITH truth AS (SELECT type, count(*) AS n, sum(occurred_at - before) AS total FROM (
		SELECT type, occurred_at, lag(occurred_at) OVER (PARTITION BY stream ORDER BY version) AS before FROM es_read_category('permit', 0, 100000)) AS e
		WHERE before IS NOT NULL GROUP BY type)
	(TABLE truth EXCEPT TABLE throughput) UNION ALL (TABLE throughput EXCEPT TABLE truth)
SQL
	es_check($db, "$when: events of each case, inline", <<'SQL');
	WITH truth AS (SELECT stream, count(*) AS n FROM es_read_category('permit', 0, 100000) GROUP BY 1)
	(TABLE truth EXCEPT TABLE case_events) UNION ALL (TABLE case_events EXCEPT TABLE truth)
SQL
	return;
}

compare('after the load');
cmp_ok($db->value('SELECT min(version) FROM es_projections'), '>', 1, 'each was rebuilt at least once');
cmp_ok($db->value('SELECT count(*) FROM cases'), '>', 1, 'there are several departments and states');
is($db->value(q{SELECT count(*) FROM es_projection_status WHERE state <> 'active'}), 0, 'and none has stopped');

# A dump, restored elsewhere: bodies and checkpoints come along, and what is appended there is applied.
$db->rows("SELECT es_rebuild_projection('cases', swap => false)");
my $dump = $node->backup_dir . '/dump';
mkdir $node->backup_dir;
$node->command_ok([ 'pg_dump', '-Fc', '-f', $dump, $node->connstr('postgres') ], 'dump');
$db->rows('CREATE DATABASE restored');
$node->command_ok([ 'pg_restore', '-e', '-d', $node->connstr('restored'), $dump ], 'restore');
my $other = es_connect($node, dbname => 'restored');
es_continue($other);
$other->rows(q{SELECT es_append('permit-new', 'Begun', '{"department": "General"}', occurred_at => now())});
1 while $other->value('SELECT es_run_projections()') > 0;
$other->rows(q{SELECT es_swap_projection('cases')});
($db, my $first) = ($other, $db);
compare('in a restored database');
is($db->value(q{SELECT count(*) FROM case_status WHERE stream = 'permit-new'}), 1, 'where what came after the restore is');
$db = $first;
$_->close for $other, $db;
$node->stop;
done_testing();
