# EsSession: one connection to a server, for the TAP tests.
#
# Why not psql: these tests hold dozens of connections in forked processes, send without waiting, want the SQLSTATE, the
# backend's pid and the notifications, and must see a killed server as a lost connection and nothing else. That is the
# simple query protocol over a Unix socket, and no more is here. All values are text; NULL is undef.
#
#   my $s = EsSession->new($node, dbname => 'postgres');
#   my @rows = $s->rows('SELECT a, b FROM t');       # array references; dies on an error
#   my $value = $s->value('SELECT 1');               # the first column of the first row
#   my $r = $s->try('SELECT 1/0');                   # { rows, tag, sqlstate, message, lost }; never dies
#   $s->send('COMMIT'); ...; my $r = $s->receive(5); # undef if no answer came in 5 seconds
package EsSession;

use strict;
use warnings;
use IO::Select;
use IO::Socket::UNIX;
use Time::HiRes qw(time);

use constant TIMEOUT => 180;    # seconds after which a silent server is taken for hung

sub new
{
	my ($class, $node, %param) = @_;
	my $self = $class->attempt($node, %param);
	die "connection failed: $self->{message}\n" if $self->{lost};
	return $self;
}

# A connection, or an object with lost set.
sub attempt
{
	my ($class, $node, %param) = @_;
	my $path = $node->host . '/.s.PGSQL.' . $node->port;
	my $self = bless { in => '', notifications => [], lost => 0, message => '' }, $class;

	$self->{socket} = IO::Socket::UNIX->new(Type => SOCK_STREAM, Peer => $path);
	return $self->_lose("no server at $path") if !$self->{socket};

	my %start = (
		user => scalar getpwuid($>),
		database => $param{dbname} // 'postgres',
		application_name => $param{name} // 'es_pg test',
		client_encoding => 'UTF8');
	$start{options} = $param{options} if defined $param{options};
	my $body = pack('N', 196608) . join('', map { "$_\0$start{$_}\0" } sort keys %start) . "\0";
	$self->_write(pack('N', length($body) + 4) . $body);
	my $answer = $self->receive(TIMEOUT);
	if (defined $answer->{sqlstate})
	{
		$self->{message} = $answer->{message};
		$self->{lost} = 1;
	}
	return $self;
}

sub pid { return $_[0]{pid} }
sub lost { return $_[0]{lost} }

# Notifications that have come, as [channel, payload, pid]; forgets them.
sub notifications
{
	my ($self) = @_;
	$self->try('SELECT');
	return splice @{ $self->{notifications} };
}

# Waits, with nothing sent, until a notification comes; false if none does. Forgets those that have come.
sub wait_for_notification
{
	my ($self, $seconds) = @_;
	$self->receive($seconds, 1) if !@{ $self->{notifications} };
	return splice @{ $self->{notifications} };
}

sub send
{
	my ($self, $sql) = @_;
	$self->_write('Q' . pack('N', length($sql) + 5) . "$sql\0") if !$self->{lost};
	return;
}

# The answer to what was sent; undef if it takes longer, or if a notification is wanted and has come.
sub receive
{
	my ($self, $seconds, $notification) = @_;
	my $until = time + $seconds;

	while (1)
	{
		return $self->_end if $self->{lost};
		while (my ($type, $body) = $self->_message)
		{
			return $self->_end if $type eq 'Z';
			$self->_take($type, $body);
		}
		return undef if $notification && @{ $self->{notifications} };
		my $left = $until - time;
		return undef if $left <= 0;
		next if !IO::Select->new($self->{socket})->can_read($left);
		my $n = sysread $self->{socket}, $self->{in}, 65536, length $self->{in};
		$self->_lose('connection lost') if !$n;
	}
}

sub try
{
	my ($self, $sql) = @_;
	$self->send($sql);
	return $self->receive(TIMEOUT) // die 'no answer in ' . TIMEOUT . " s: $sql\n";
}

sub rows
{
	my ($self, $sql) = @_;
	my $answer = $self->try($sql);
	die "$answer->{sqlstate} $answer->{message}: " . substr($sql, 0, 300) . "\n" if defined $answer->{sqlstate};
	return @{ $answer->{rows} };
}

sub value
{
	my ($self, $sql) = @_;
	my ($row) = $self->rows($sql);
	return defined $row ? $row->[0] : undef;
}

sub close
{
	my ($self) = @_;
	$self->_write("X\0\0\0\4") if !$self->{lost};
	close $self->{socket} if $self->{socket};
	$self->{lost} = 1;
	return;
}

# A text, or undef, as a literal.
sub literal
{
	my ($value) = @_;
	return 'NULL' if !defined $value;
	$value =~ s/'/''/g;
	$value =~ s/\\/\\\\/g and return " E'$value'";
	return "'$value'";
}

sub _write
{
	my ($self, $data) = @_;
	local $SIG{PIPE} = 'IGNORE';
	while (length $data)
	{
		my $n = syswrite $self->{socket}, $data;
		return $self->_lose('connection lost') if !defined $n;
		substr $data, 0, $n, '';
	}
	return;
}

# The next whole message of what has come.
sub _message
{
	my ($self) = @_;
	return if length $self->{in} < 5;
	my ($type, $length) = unpack 'aN', $self->{in};
	return if length $self->{in} < $length + 1;
	my $message = substr $self->{in}, 0, $length + 1, '';
	return ($type, substr($message, 5));
}

sub _take
{
	my ($self, $type, $body) = @_;

	if ($type eq 'D')
	{
		my ($n, $at, @row) = (unpack('n', $body), 2);
		for (1 .. $n)
		{
			my $length = unpack 'l>', substr($body, $at, 4);
			$at += 4;
			push @row, $length < 0 ? undef : substr($body, $at, $length);
			$at += $length if $length > 0;
		}
		push @{ $self->{answer}{rows} }, \@row;
	}
	elsif ($type eq 'E')
	{
		my %field = map { substr($_, 0, 1) => substr($_, 1) } grep { length } split /\0/, $body;
		$self->{answer}{sqlstate} = $field{C};
		$self->{answer}{message} = $field{M};
		$self->{answer}{hint} = $field{H};
	}
	elsif ($type eq 'C')
	{
		$self->{answer}{tag} = unpack 'Z*', $body;
	}
	elsif ($type eq 'A')
	{
		push @{ $self->{notifications} }, [ (split /\0/, substr($body, 4), -1)[ 0, 1 ], unpack('N', $body) ];
	}
	elsif ($type eq 'K')
	{
		$self->{pid} = unpack 'N', $body;
	}
	elsif ($type eq 'R' && unpack('N', $body) != 0)
	{
		$self->_lose('the server wants a password');
	}
	return;
}

# Hand the answer out.
sub _end
{
	my ($self) = @_;
	my $answer = delete $self->{answer} // {};
	$answer->{rows} //= [];
	if ($self->{lost})
	{
		$answer->{lost} = 1;
		$answer->{sqlstate} //= '08006';
		$answer->{message} //= $self->{message};
	}
	return $answer;
}

sub _lose
{
	my ($self, $message) = @_;
	$self->{lost} = 1;
	$self->{message} ||= $message;
	return $self;
}

1;
