# 051_relay_failover: two relays share a subscription of four lanes, and everything around them dies while events flow:
# the relays by kill -9, the server by an immediate shutdown, and at last for good, when a standby takes its place.
#
# Both append their lines to one file, which is the far side. Nothing may be missing there, and no event of a stream may
# overtake another; what came twice is counted and reported. The relays find the new primary by themselves.
use strict;
use warnings;
use Test::More;

use PostgreSQL::Test::Utils;

use FindBin;
use lib "$FindBin::RealBin/..";
use EsDelivery;
use EsTest;

use constant EVENTS => 3000;    # a phase
use constant STREAMS => 30;

my $node = es_cluster('first', 'wal_level = replica', 'max_wal_senders = 8', 'hot_standby = on', 'jit = off');
my $dir = $PostgreSQL::Test::Utils::tmp_check;
my $file = "$dir/delivered";
my $total = 0;

$node->safe_psql('postgres', q{SELECT es_create_subscription('shared', 'beginning', lanes => 4, lease_time => '2 s')});
$node->backup('base');
my $standby = PostgreSQL::Test::Cluster->new('second');
$standby->init_from_backup($node, 'base', has_streaming => 1);
$standby->start;

sub start
{
	my ($relay) = @_;
	open my $out, '>>', $file or die "$file: $!";
	$relay->{pid} = es_run($relay->{log}, undef, $out, $ENV{ES_RELAY}, '--config', $relay->{config});
	return $relay;
}

sub relay
{
	my ($name) = @_;
	my $relay = bless { name => $name, config => "$dir/$name.conf", log => "$dir/$name.log" }, 'EsDelivery';

	append_to_file($relay->{config}, sprintf <<'END', $standby->host, $node->host, $standby->port, $node->port);
[database]
conninfo = host=%s,%s port=%s,%s dbname=postgres target_session_attrs=read-write

[pipeline]
subscription = shared
batch_size = 200
window_messages = 500
END
	return start($relay);
}

# The number of events that are there, each counted once.
sub arrived
{
	my %seen = map { $_->[2] => 1 } @{ es_cloudevents($file) };
	return scalar keys %seen;
}

# Something that happens while a writer is at work: after these shares of its events arrived.
sub while_writing
{
	my ($name, $on, @steps) = @_;
	my $have = arrived();
	my $writer = es_write($on, $name, streams => STREAMS, events => EVENTS);

	for my $n (1 .. @steps)
	{
		es_poll(sub { arrived() >= $have + $n * EVENTS / (@steps + 1) / 2 }, 60);
		$steps[ $n - 1 ]->();
	}
	ok(es_reap($writer), "$name: the writer came to its end");
	$total += EVENTS;
	ok(es_poll(sub { arrived() >= $total }, 120), "$name: all arrived");
	return;
}

my ($one, $two) = (relay('one'), relay('two'));

while_writing('relays killed', $node, map { my $relay = $_; sub { $relay->kill_now; start($relay) } } $one, $two, $one, $two);

# The writer's events are there before the server goes, the relays have not got them all.
es_reap(es_write($node, 'before', streams => STREAMS, events => EVENTS));
$node->stop('immediate');
$node->start;
$total += EVENTS;
ok(es_poll(sub { arrived() >= $total }, 120), 'the server was restarted: all arrived');
while_writing('after the restart', $node);

es_reap(es_write($node, 'more', streams => STREAMS, events => EVENTS));
$node->wait_for_catchup($standby, 'replay', $node->lsn('insert'));
$node->stop('immediate');
$standby->promote;
$total += EVENTS;
ok(es_poll(sub { arrived() >= $total }, 120), 'the standby was promoted: all arrived');
while_writing('after the failover', $standby, sub { $one->kill_now; start($one) });

is($one->stop, 0, 'a relay ends when told to');
is($two->stop, 0, 'the other too');
my $port = $standby->port;
like($_->log, qr/connected to \S+ port $port,/, "$_->{name} found the new primary") for $one, $two;
is($standby->safe_psql('postgres', 'SELECT count(*) FROM es_parked'), 0, 'nothing was parked');
es_delivered('all of it', $total, es_cloudevents($file));

done_testing();
