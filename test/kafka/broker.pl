# The relay and a broker of Apache Kafka that is killed with -9 and started again while events flow; relays that are
# killed; and what a broker refuses: a message that is too large for its topic, one without a key where keys are needed,
# a topic that is not there yet.
#
# Whatever happens, nothing may be missing, and no message of a key may overtake another. What a relay that is killed has
# on the wire may come late, again.
use strict;
use warnings;
use Test::More;

use FindBin;
use lib "$FindBin::RealBin/..";
use EsDelivery;
use EsKafka;
use EsTest;

my $node = es_cluster('broker', 'jit = off');
my $db = es_connect($node);
my $kafka = EsKafka->broker('order:4', 'small:1:max.message.bytes=3000', 'compacted:1:cleanup.policy=compact');
my $total = 0;

sub settings
{
	my ($subscription, $consumer, @more) = @_;
	return join "\n", '[pipeline]', "subscription = $subscription", "consumer = $consumer", '[sink]', 'type = kafka',
	  'brokers = ' . $kafka->brokers, 'kafka.retry.backoff.ms = 50', @more, '';
}

# Whether the subscription has read everything up to now, but for what is parked.
sub drained
{
	my ($subscription, $seconds) = @_;
	return es_poll(sub {
		$db->value("SELECT lag_messages FROM es_subscription_status WHERE subscription = '$subscription'") == 0
	}, $seconds // 120);
}

# Whether so many have arrived: a moment in the middle of things.
sub midway
{
	my ($count) = @_;
	return es_poll(sub { @{ $kafka->deliveries('order') } >= $count }, 60);
}

sub arrived
{
	my ($name, @may) = @_;
	ok(drained('kafka'), "$name: everything is acknowledged");
	es_delivered($name, $total, $kafka->deliveries('order'), @may);
	return;
}

$db->rows("SELECT es_create_subscription('kafka', 'beginning', categories => '{order}', lanes => 4)");
my $one = EsDelivery->relay('one', $node, settings('kafka', 'one'));

# -- the broker killed
for my $round (1 .. 2)
{
	my $writer = es_write($node, "broker$round", streams => 20, events => 10000);
	midway($total + 1000);
	$kafka->kill_now;
	ok($one->logged(qr/(?:Connection refused(?s:.*)){$round}/), 'the broker is gone');
	$kafka->start;
	es_reap($writer);
	$total += 10000;
	arrived("the broker killed with -9, $round");
}

# -- relays killed, with the broker under them
my $two = EsDelivery->relay('two', $node, settings('kafka', 'two'));
my $writer = es_write($node, 'relays', streams => 20, events => 10000);
my $have = @{ $kafka->deliveries('order') };
for my $round (1 .. 3)
{
	midway($have + 2000 * $round);
	my $relay = $round % 2 ? $one : $two;
	is($relay->kill_now, -9, 'a relay killed');
	$relay->restart;
	$kafka->kill_now if $round == 2;
	$kafka->start if $round == 2;
}
es_reap($writer);
$total += 10000;
arrived('two relays killed in turn, and the broker', late => 1);
is($_->stop, 0, 'stopped') for $one, $two;

# -- a message too large for its topic, in the middle of others
$db->rows("SELECT es_create_subscription('small', 'beginning', categories => '{small}', lanes => 2, retry_base => '10 ms')");
$db->rows(q{SELECT count(es_append('small-' || i % 10, CASE i WHEN 333 THEN 'Big' ELSE 'Small' END,
	jsonb_build_object('pad', repeat('x', CASE i WHEN 333 THEN 5000 ELSE 10 END)))) FROM generate_series(1, 1000) AS i});
my $small = EsDelivery->relay('small', $node, settings('small', 'small', 'kafka.linger.ms = 20'));
ok(es_poll(sub { $db->value('SELECT count(*) FROM es_dead_letters') == 1 }, 120), 'a message that the broker refuses is a dead letter');
is($db->value('SELECT type FROM es_dead_letters'), 'Big', 'it, and not its neighbours');
ok(drained('small'), 'the others go on');
# What is behind it in its stream waits: 100 messages a stream, of which it is the 34th.
es_delivered('a message refused', 1000 - 67, $kafka->deliveries('small'));
is($small->stop, 0, 'stopped');

# -- no key where the topic needs one; a topic that comes later
$db->rows("SELECT es_create_subscription('outbox', 'beginning', source => 'outbox', retry_base => '200 ms', retry_max => '1 s')");
$db->rows(q{SELECT es_publish('compacted', 'Keyed', '{"n": 1}', key => 'a')});
$db->rows(q{SELECT es_publish('compacted', 'Keyless', '{"n": 2}')});
$db->rows(q{SELECT es_publish('compacted', 'Keyed', '{"n": 3}', key => 'a')});
$db->rows(q{SELECT es_publish('later', 'Early', '{"n": 4}', key => 'b')});
my $outbox = EsDelivery->relay('outbox', $node, settings('outbox', 'outbox', 'delivery_timeout_s = 3',
	'kafka.topic.metadata.propagation.max.ms = 500', 'kafka.topic.metadata.refresh.fast.interval.ms = 100'));
ok($outbox->logged(qr/topic "later"/), 'a topic that is not there is named');
$kafka->add_topic('later:1');
ok(es_poll(sub { @{ $kafka->records('later') } == 1 }, 60), 'when it is made its message arrives');
ok(drained('outbox'), 'everything is read');
is_deeply([ map { $_->[5] } @{ $kafka->records('compacted') } ], [ '{"n": 1}', '{"n": 3}' ], 'what has a key is there');
my $why = $db->rows('SELECT type, error, dead FROM es_parked') ? join '|', map { @$_ } $db->rows('SELECT type, error, dead FROM es_parked') : '';
like($why, qr/Keyless/, 'what has none is parked') or diag $why;
note $why;
$outbox->stop;

done_testing();
