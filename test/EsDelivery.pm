# EsDelivery: relays as processes, a load of events, and what must be true of what a sink got, whoever died when.
#
#   my $relay = EsDelivery->relay('one', $node, <<'END');      # starts it; see log, kill_now, stop, restart
#   [pipeline]
#   ...
#   END
#   my $writer = es_write($node, 'writer', streams => 20, events => 5000);   # in a child: es_reap it
#   es_delivered('kafka', 5000, $records);                     # [key, version, id] in the order of the far side
package EsDelivery;

use strict;
use warnings;
use Exporter 'import';
use POSIX ();
use Test::More;

use PostgreSQL::Test::Utils;

use EsTest;

our @EXPORT = qw(es_write es_delivered es_cloudevents es_run);

my %running;    # pid => 1

# A process with its own log, killed at the end of the test. in, out: file handles; else nothing and the log.
sub es_run
{
	my ($log, $in, $out, @command) = @_;
	my $pid = fork // die "fork: $!";

	if ($pid)
	{
		$running{$pid} = 1;
		return $pid;
	}
	open $in, '<', '/dev/null' or POSIX::_exit(126) if !$in;
	open STDIN, '<&', $in or POSIX::_exit(126);
	open STDERR, '>>', $log or POSIX::_exit(126);
	open STDOUT, '>&', $out // \*STDERR or POSIX::_exit(126);
	exec { $command[0] } @command or POSIX::_exit(127);
}

# The exit code of a process, or -signal; undef if it does not end in time.
sub wait_for_end
{
	my ($pid, $seconds) = @_;
	my $code;

	es_poll(sub { my $got = waitpid $pid, POSIX::WNOHANG(); $code = $? if $got == $pid; $got != 0 }, $seconds // 60)
	  or return undef;
	delete $running{$pid};
	return $code & 127 ? -($code & 127) : $code >> 8;
}

END
{
	my $code = $?;
	kill 'KILL', keys %running;
	waitpid $_, 0 for keys %running;
	$? = $code;
}

# A relay with these settings, beside where the database is.
sub relay
{
	my ($class, $name, $node, $settings) = @_;
	my $conninfo = sprintf 'host=%s port=%s dbname=postgres', $node->host, $node->port;
	my $self = bless {
		name => $name, config => "$PostgreSQL::Test::Utils::tmp_check/relay_$name.conf",
		log => "$PostgreSQL::Test::Utils::log_path/relay_$name.log" }, $class;

	append_to_file($self->{config}, "[database]\nconninfo = $conninfo\n$settings");
	return $self->restart;
}

sub restart
{
	my ($self) = @_;
	$self->{pid} = es_run($self->{log}, undef, undef, $ENV{ES_RELAY}, '--config', $self->{config});
	return $self;
}

sub log { return -e $_[0]{log} ? slurp_file($_[0]{log}) : '' }

# kill -9
sub kill_now
{
	my ($self) = @_;
	kill 'KILL', $self->{pid};
	return wait_for_end($self->{pid});
}

# SIGTERM; the exit code.
sub stop
{
	my ($self, $seconds) = @_;
	kill 'TERM', $self->{pid};
	return wait_for_end($self->{pid}, $seconds);
}

# Whether a pattern appears in the log in time.
sub logged
{
	my ($self, $pattern, $seconds) = @_;
	return es_poll(sub { $self->log =~ $pattern }, $seconds // 60);
}

# Starts a child that appends events to streams "order-1"... in batches, with a short rest after each until the events
# are used up; data has the version in it.
sub es_write
{
	my ($node, $name, %param) = @_;
	my ($streams, $events, $pad) = ($param{streams} // 20, $param{events}, $param{pad} // 0);

	return es_fork($name, sub {
		my $session = es_connect($node);
		for (my $n = 0; $n < $events; $n += $streams)
		{
			$session->rows(qq{SELECT count(es_append('order-' || i, 'OrderNoted',
				jsonb_build_object('n', $n, 'pad', repeat('x', $pad)))) FROM generate_series(1, $streams) AS i});
		}
		$session->close;
	});
}

# The records of a file of CloudEvents, a JSON object a line.
sub es_cloudevents
{
	my ($file) = @_;
	my @records;

	open my $in, '<', $file or return [];
	while (my $line = <$in>)
	{
		push @records, $line =~ /^\{"specversion":"1\.0","id":"([^"]+)".*"subject":"([^"]+)".*"streamversion":"(\d+)".*\}\n\z/
		  ? [ $2, $3, $1 ] : [ undef, undef, $line ];
	}
	return \@records;
}

# What must be true of what arrived: nothing is missing; in each key what arrives for the first time follows what arrived
# before; and after a message that came again all that follows it comes again too, so that the last word on a key is its
# last message. The last is not asked for with late => 1, for it cannot be had where a process that was killed leaves
# words on the wire that are heard after its successor's. Duplicates are counted and reported.
sub es_delivered
{
	my ($name, $expected, $records, %may) = @_;
	my (%seen, %last, %highest, @wrong);
	my $late = 0;

	for my $record (@$records)
	{
		my ($key, $version, $id) = @$record;
		if (!defined $key)
		{
			push @wrong, "no event: $id";
			next;
		}
		my ($highest, $last) = ($highest{$key} // -1, $last{$key} // -1);
		push @wrong, "$key: $version when $highest was the highest" if $version > $highest + 1;
		$late++ if $version > $last + 1;
		$seen{"$key $version"}++;
		$last{$key} = $version;
		$highest{$key} = $version if $version > $highest;
	}
	$late += grep { $last{$_} != $highest{$_} } keys %last;
	push @wrong, "$late times not all that follows came again" if $late && !$may{late};

	is(scalar keys %seen, $expected, "$name: nothing is missing");
	ok(!@wrong, "$name: order by key") or diag(join "\n", @wrong[ 0 .. ($#wrong > 9 ? 9 : $#wrong) ]);
	note(sprintf '%s: %d delivered, of these %d duplicates%s', $name, scalar @$records, @$records - keys %seen,
		$late ? ", $late late" : '');
	return;
}

1;
