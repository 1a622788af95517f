# The relay and Kafka, which is librdkafka's mock of it: brokers that go and come while events flow, errors that a broker
# may answer with, a relay that is killed with -9, two that share a subscription.
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

my $node = es_cluster('kafka', 'jit = off');
my $db = es_connect($node);
my $mock = EsKafka->mock(3, 'order:4', 'big:1');
my $total = 0;
my $have = 0;    # what had arrived when a writer began, duplicates included

$db->rows("SELECT es_create_subscription('kafka', 'beginning', lanes => 4)");

# The mock does not look at the numbers that an idempotent producer gives its requests. When one is lost with its connection
# and the next one, on its way by another, is written, a real broker refuses that one; here librdkafka takes both for
# written, as it may. So there is one on its way at a time; the real broker (test/kafka) has five.
sub settings
{
	my ($consumer, @more) = @_;
	return join "\n", '[pipeline]', 'subscription = kafka', "consumer = $consumer", '[sink]', 'type = kafka',
	  'brokers = ' . $mock->brokers, 'kafka.retry.backoff.ms = 20',
	  'kafka.max.in.flight.requests.per.connection = 1', @more, '';
}

sub arrived
{
	my ($name, @may) = @_;
	es_poll(sub { my %ids = map { $_->[2] => 1 } @{ $mock->deliveries('order') }; keys %ids >= $total }, 120);
	es_delivered($name, $total, $mock->deliveries('order'), @may);
	return;
}

# Whether so many have arrived: a moment in the middle of things.
sub midway
{
	my ($count) = @_;
	return es_poll(sub { @{ $mock->records('order') } >= $count }, 60);
}

my $one = EsDelivery->relay('one', $node, settings('one'));

# -- one message, as it looks in Kafka
$db->rows(q{SELECT es_append('order-1', 'OrderPlaced', '{"total": 9.5}', metadata => '{"tenant": "acme"}',
	event_id => '0199e0a0-0000-7000-8000-000000000001', correlation_id => 'c-1',
	occurred_at => '2026-11-21 12:00+00')});
$total = 1;
ok(midway(1), 'a message arrives');
my ($record) = @{ $mock->records('order') };
is($record->[3], 'order-1', 'its key is the stream');
is($record->[5], '{"total": 9.5}', 'its payload is the data as it is');
is_deeply(
	{ map { $_ => $record->[4]{$_} } grep { !/^ce_(position|incarnation)$/ } keys %{ $record->[4] } },
	{
		'content-type' => 'application/json', ce_specversion => '1.0', ce_id => '0199e0a0-0000-7000-8000-000000000001',
		ce_source => '/es_pg/postgres', ce_type => 'OrderPlaced', ce_subject => 'order-1', ce_streamversion => '0',
		ce_time => '2026-11-21T12:00:00.000000Z', ce_correlationid => 'c-1', tenant => 'acme'
	},
	'and its headers are CloudEvents and its own');

# -- all brokers down and up again
$have = scalar @{ $mock->records('order') };
my $writer = es_write($node, 'down', streams => 20, events => 4000);
midway($have + 500);
$mock->command('down -1');
ok($one->logged(qr/no broker can be reached/), 'brokers that are down are logged');
es_reap($writer);
$mock->command('up -1');
$total += 4000;
arrived('brokers down and up');

# -- errors, lost connections, other leaders
$have = scalar @{ $mock->records('order') };
$writer = es_write($node, 'errors', streams => 20, events => 4000);
for my $round (1 .. 5)
{
	midway($have + 600 * $round);
	$mock->command('error 0 19 2');
	$mock->command('error 0 -195 2');
	$mock->command("leader order $_ " . (1 + ($round + $_) % 3)) for 0 .. 3;
	$mock->command('error 0 6 2');
}
es_reap($writer);
$total += 4000;
arrived('errors and other leaders');
is($total, scalar @{ $mock->records('order') }, 'and up to here nothing came twice');

# -- the producer's end
$have = scalar @{ $mock->records('order') };
$writer = es_write($node, 'fatal', streams => 20, events => 4000);
midway($have + 500);
$mock->command('error 0 45');
midway($have + 2000);
$mock->command('error 0 10');
es_reap($writer);
$total += 4000;
arrived('a fatal error, a request refused');
like($one->log, qr/will be given again to a new producer/, 'a new producer was made');

# -- the relay killed
$have = scalar @{ $mock->records('order') };
$writer = es_write($node, 'killed', streams => 20, events => 4000);
for my $round (1 .. 4)
{
	midway($have + 700 * $round);
	is($one->kill_now, -9, 'killed');
	$one->restart;
}
es_reap($writer);
$total += 4000;
arrived('a relay killed with -9', late => 1);

# -- two that share it, each killed in turn
my $two = EsDelivery->relay('two', $node, settings('two'));
$have = scalar @{ $mock->records('order') };
$writer = es_write($node, 'two', streams => 20, events => 8000);
for my $round (1 .. 4)
{
	midway($have + 1500 * $round);
	my $relay = $round % 2 ? $one : $two;
	$relay->kill_now;
	$relay->restart;
}
es_reap($writer);
$total += 8000;
arrived('two relays, killed in turn', late => 1);
is($two->stop, 0, 'one leaves');
is($one->stop, 0, 'and the other');

# -- a far side that is not there at the start
$db->rows("SELECT count(es_append('order-1', 'OrderNoted', '{}')) FROM generate_series(1, 10)");
$total += 10;
$mock->command('down -1');
my $late = EsDelivery->relay('late', $node, settings('late', 'delivery_timeout_s = 1'));
ok($late->logged(qr/no confirmation within 1 s/), 'no broker at the start: it says so, and goes on trying');
$mock->command('up -1');
arrived('no broker at the start', late => 1);
$late->stop;

# -- what Kafka cannot carry
$db->rows(q{SELECT es_append('big-1', 'Big', jsonb_build_object('pad', repeat('x', 5000)))});
$db->rows(q{SELECT es_append('big-2', 'Small', '{}')});
my $small = EsDelivery->relay('small', $node, settings('small', 'kafka.message.max.bytes = 2000'));
ok($small->logged(qr/are more than Kafka's message\.max\.bytes, 2000/), 'a message that is too large: says so');
ok($small->logged(qr/rejected|dead/i), 'and what became of it');
$small->kill_now;

# -- settings
for my $case (
	[ 'kafka.no.such = 1', qr/"kafka\.no\.such": No such configuration property/ ],
	[ 'kafka.acks = 0', qr/"kafka\.acks" cannot be set to 0/ ],
	[ 'topic = {nothing}', qr/unknown field \{nothing\}/ ],
	[ 'kafka.security.protocol = sasl_plaintext', qr/sasl/i ])
{
	my ($line, $expected) = @$case;
	my $bad = EsDelivery->relay('bad', $node, settings('bad', $line));
	isnt(EsDelivery::wait_for_end($bad->{pid}), 0, "$line: refused");
	like($bad->log, $expected, '... and named');
	unlink $bad->{config}, $bad->{log};
}
my $secret = EsDelivery->relay('secret', $node, settings('secret', 'kafka.sasl.password = hunter2', 'kafka.debug = all',
	'kafka.log_level = 7', '[log]', 'level = debug'));
ok($secret->logged(qr/librdkafka: /), 'the log of librdkafka is in the log of the relay');
unlike($secret->log, qr/hunter2/, 'and no secret');
$secret->stop;

done_testing();
