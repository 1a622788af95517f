# EsTest: what the TAP tests share: a cluster made for load, polling with a bound, and child processes.
package EsTest;

use strict;
use warnings;
use Exporter 'import';
use POSIX ();
use Time::HiRes qw(time usleep);

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;

use EsSession;

our @EXPORT = qw(es_cluster es_connect es_poll es_fork es_reap es_kill_all es_work es_seed es_check es_soundness es_events_sound es_continue);

my %children;    # pid => name

# A running cluster with es_pg in database postgres; without JIT, whose code test/stage leaves out. Each further argument is a line of postgresql.conf. In place of a name
# stands a reference to what PostgreSQL::Test::Cluster->new takes.
sub es_cluster
{
	my ($name, @conf) = @_;
	my $node = PostgreSQL::Test::Cluster->new(ref $name ? @$name : $name);

	$node->init(extra => [ '--locale=C', '--encoding=UTF8' ]);
	$node->append_conf('postgresql.conf', join "\n", 'max_connections = 60', 'shared_buffers = 64MB',
		'jit = off', "log_statement = 'none'", 'max_wal_size = 1GB', @conf, '');
	$node->start;
	$node->safe_psql('postgres', 'CREATE EXTENSION es_pg');
	return $node;
}

# A connection, as soon as the server takes one.
sub es_connect
{
	my ($node, %param) = @_;
	my $session;
	es_poll(sub { $session = EsSession->attempt($node, %param); !$session->lost }, 60)
	  or die "cannot connect: $session->{message}\n";
	return $session;
}

# Wait until a condition holds; false if it does not within so many seconds.
sub es_poll
{
	my ($condition, $seconds) = @_;
	my $until = time + ($seconds // 60);

	while (!$condition->())
	{
		return 0 if time > $until;
		usleep(2000);
	}
	return 1;
}

# Run code in a child process; its exit code says whether it died. What it writes to the handle it is given is read back
# by es_reap. The parent's clusters and files are none of its business: it ends without END blocks.
sub es_fork
{
	my ($name, $code) = @_;
	my $file = "$PostgreSQL::Test::Utils::tmp_check/child_$name";
	my $pid = fork // die "fork: $!";

	if ($pid)
	{
		$children{$pid} = { name => $name, file => $file };
		return $pid;
	}
	$SIG{$_} = 'DEFAULT' for qw(TERM INT);
	%children = ();
	my $ok = eval {
		open my $out, '>', $file or die "$file: $!";
		$code->($out);
		close $out or die "$file: $!";
		1;
	};
	print STDERR "# child $name: $@" if !$ok;
	POSIX::_exit($ok ? 0 : 1);
}

# Wait for a child; the lines it wrote, or nothing in scalar context if it failed.
sub es_reap
{
	my ($pid, $seconds) = @_;
	my $child = delete $children{$pid} or die "no child $pid";
	my $code;
	my @lines;

	if (!es_poll(sub { my $got = waitpid($pid, POSIX::WNOHANG()); $code = $? if $got == $pid; $got != 0 }, $seconds // 120))
	{
		print STDERR "# child $child->{name} did not end in time\n";
		kill 'KILL', $pid;
		waitpid $pid, 0;
		$code = -1;
	}
	if (open my $in, '<', $child->{file})
	{
		chomp(@lines = <$in>);
	}
	return ($code // -1) == 0 ? \@lines : undef;
}

sub es_kill_all
{
	kill 'KILL', keys %children;
	waitpid $_, 0 for keys %children;
	%children = ();
	return;
}

END
{
	my $code = $?;
	es_kill_all();
	$? = $code;
}

# Run code with a session, again after each crash, until it says that it is done; at most so many seconds.
sub es_work
{
	my ($node, $limit, $name, $code) = @_;
	my $until = time + $limit;
	my $session = EsSession->attempt($node, name => $name);

	while (1)
	{
		die "not stopped in time\n" if time > $until;
		if ($session->lost)
		{
			usleep(5000);
			$session = EsSession->attempt($node, name => $name);
			next;
		}
		return if $code->($session);
	}
}

# The seed of this run's random numbers: ES_SEED, or a new one.
sub es_seed
{
	my $seed = $ENV{ES_SEED} // int(time * 1000) % 1_000_000;
	srand $seed;
	print "# ES_SEED=$seed\n";
	return $seed;
}

# A query that must return nothing; what it returns is shown.
sub es_check
{
	my ($session, $name, $sql) = @_;
	my $answer = $session->try($sql);
	my @rows = @{ $answer->{rows} };

	@rows = ([ $answer->{sqlstate}, $answer->{message} ]) if defined $answer->{sqlstate};
	Test::More::ok(!@rows, $name)
	  or Test::More::diag(join "\n", map { join '|', map { $_ // 'NULL' } @$_ } @rows[ 0 .. ($#rows > 9 ? 9 : $#rows) ]);
	return !@rows;
}

# A restored log is the log now: what an administrator does before it may be written and fetched from again.
sub es_continue
{
	my ($session) = @_;
	$session->rows(q{SELECT es_adopt('moved')});
	return;
}

# What must be true of es_events whatever has happened: a word for it, a sentence, and a query that must return nothing.
sub es_soundness
{
	return (
		[ positions => 'positions are unique',
			'SELECT position, count(*) FROM es_events GROUP BY 1 HAVING count(*) > 1' ],
		[ versions => 'versions have no gap, and rise with the positions',
			'SELECT * FROM (SELECT stream_id, version, position,
					row_number() OVER (PARTITION BY stream_id ORDER BY position) - 1 AS due FROM es_events) AS e
			  WHERE version <> due' ],
		[ streams => "each event's stream has its row, and each row its events",
			'SELECT s.stream_id, e.stream_id FROM es_streams AS s
			   FULL JOIN (SELECT DISTINCT stream_id FROM es_events) AS e USING (stream_id)
			  WHERE s.stream_id IS NULL OR e.stream_id IS NULL' ],
		[ bound => 'no position is above the last one drawn, or the durable bound',
			'SELECT max(position), es_last_position() FROM es_events
			 HAVING max(position) > es_last_position()
			     OR es_last_position() > (SELECT last_value FROM es_position_bound)' ],
		[ reads => 'the reads of the log find what the table has',
			'SELECT count(*), (SELECT count(*) FROM es_events) FROM es_read_all(0, 100000000) AS r
			 HAVING count(*) <> (SELECT count(*) FROM es_events)' ]);
}

sub es_events_sound
{
	my ($session, $when) = @_;

	es_check($session, "$when: $_->[1]", $_->[2]) for es_soundness();
	return;
}

1;
