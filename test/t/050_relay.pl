# 050_relay: one relay process with several pipelines, and what an operator does to it: settings that it cannot accept, an
# extension that is too old or too new, SIGHUP, a second relay that gets its share, SIGTERM and who has the lanes then.
use strict;
use warnings;
use Test::More;

use PostgreSQL::Test::Utils;

use FindBin;
use lib "$FindBin::RealBin/..";
use EsDelivery;
use EsTest;

my $node = es_cluster('relay', 'jit = off');
my $db = es_connect($node);
my $dir = $PostgreSQL::Test::Utils::tmp_check;

# A relay whose standard output is a file that it appends to.
sub relay
{
	my ($name, $settings) = @_;
	my $relay = bless { name => $name, config => "$dir/$name.conf", log => "$dir/$name.log" }, 'EsDelivery';

	configure($relay, $settings);
	return start($relay);
}

sub configure
{
	my ($relay, $settings) = @_;
	open my $out, '>', $relay->{config} or die "$relay->{config}: $!";
	printf $out "[database]\nconninfo = host=%s port=%s dbname=postgres\n%s", $node->host, $node->port, $settings;
	close $out or die "$relay->{config}: $!";
	return;
}

sub start
{
	my ($relay) = @_;
	open my $out, '>>', "$dir/delivered" or die "$dir/delivered: $!";
	$relay->{pid} = es_run($relay->{log}, undef, $out, $ENV{ES_RELAY}, '--config', $relay->{config});
	return $relay;
}

# The exit code of a relay that ends by itself.
sub ended { return EsDelivery::wait_for_end($_[0]{pid}) }

# How many lines say this.
sub delivered
{
	my ($pattern) = @_;
	my $text = -e "$dir/delivered" ? slurp_file("$dir/delivered") : '';
	return scalar(() = $text =~ /$pattern/g);
}

# ---- what it cannot work with

my $none = relay('none', "[pipeline orders]\nsubscription = nobody\n");
is(ended($none), 1, 'a subscription that does not exist ends it');
like($none->log, qr/ERROR pipeline orders: subscription "nobody" does not exist .*set "create" in section \[pipeline orders\]/,
	'and the way out is named');

for my $case ([ 7, 'update the relay' ], [ -1, 'update the extension' ])
{
	my ($version, $advice) = @$case;
	$db->rows("CREATE OR REPLACE FUNCTION es_protocol_version() RETURNS integer LANGUAGE sql AS 'SELECT $version'");
	my $relay = relay("protocol$version", "[pipeline]\nsubscription = nobody\n");
	is(ended($relay), 1, "protocol version $version ends it");
	like($relay->log, qr/speaks protocol version $version, .*$advice/, 'with clear words');
}
$db->rows(q{CREATE OR REPLACE FUNCTION es_protocol_version() RETURNS integer LANGUAGE sql AS 'SELECT 2'});

# ---- two pipelines, of events and of the outbox, which they create; the neighbouring protocol version

my $settings = <<'END';
[pipeline events]
subscription = events
create = beginning
create_categories = order, bill
create_lanes = 4

[pipeline messages]
subscription = messages
create = beginning
create_source = outbox
create_topics = mail
create_types = Welcome,Bye
batch_size = 100
END
$db->rows(q{SELECT es_append(s || '-' || i, 'E', '{}') FROM generate_series(1, 100) AS i, unnest('{order,bill,other}'::text[]) AS s});
$db->rows(q{SELECT es_publish(t, y, '{}', key => 'k' || i)
	FROM generate_series(1, 100) AS i, unnest('{mail,sms}'::text[]) AS t, unnest('{Welcome,Other,Bye}'::text[]) AS y});
$db->rows(q{SELECT es_publish_binary('mail', 'Bye', '\x00ff61', 'image/png', key => 'picture')});
my $one = relay('one', $settings);
ok(es_poll(sub { delivered(qr/\n/) >= 401 }), 'both pipelines deliver');
is(delivered(qr/"subject":"order-/), 100, 'the categories that were asked for');
is(delivered(qr/"subject":"bill-/), 100, 'both');
is(delivered(qr/"type":"Welcome"/), 100, 'of the outbox the topic and types that were asked for');
is(delivered(qr/"type":"Bye"/), 101, 'both');
is(delivered(qr/"datacontenttype":"image\/png","data_base64":"AP9h"/), 1, 'bytes arrive as they are');
is(delivered(qr/\n/), 401, 'and nothing else');
is($db->value(q{SELECT count(DISTINCT owner) FROM es_leases WHERE owner IS NOT NULL}), 2, 'each is a member of its own');

# ---- SIGHUP

configure($one, $settings =~ s/batch_size = 100/batch_size = 50\nack_interval_ms = 20/r =~ s/create_lanes = 4/create_lanes = 5/r . "[log]\nlevel = debug\n");
kill 'HUP', $one->{pid};
ok($one->logged(qr/"level" in section \[log\] has changed\n/), 'SIGHUP reloads what can be');
like($one->log, qr/"batch_size" in section \[pipeline messages\] has changed\n/, 'of each section');
ok($one->logged(qr/"create_lanes" in section \[pipeline events\] has changed, which needs a restart/), 'and says what cannot');
configure($one, "[pipeline\n");
kill 'HUP', $one->{pid};
ok($one->logged(qr/one\.conf:3: a section is missing its "\]".*nothing was reloaded\n/s), 'a mistake leaves all as it was');
configure($one, "$settings\n[sink other]\ntype = stdout\n");
kill 'HUP', $one->{pid};
ok($one->logged(qr/nothing was reloaded: there are other pipelines or sinks/), 'and so do other sections');
configure($one, $settings);

# ---- a second relay gets its share, and all when the first one leaves. The lease time is longer than this test.

$db->rows(q{SELECT es_alter_subscription('events', lease_time => '1 hour')});
my $two = relay('two', $settings);
my $share = q{SELECT string_agg(n::text, ' ' ORDER BY n) FROM
	(SELECT count(*) AS n FROM es_leases JOIN es_subscriptions USING (subscription_id) WHERE name = 'events' AND owner IS NOT NULL GROUP BY owner) AS s};
ok(es_poll(sub { ($db->value($share) // '') eq '2 2' }), 'a second relay gets half of the lanes');
is($one->stop, 0, 'SIGTERM ends the first');
like($one->log, qr/pipeline events: done: 200 messages delivered, 0 failed/, 'which says what it did');
ok(es_poll(sub { ($db->value($share) // '') eq '4' }), 'and the second has all lanes at once');
$db->rows(q{SELECT es_append('order-' || i, 'Late', '{}') FROM generate_series(1, 40) AS i});
ok(es_poll(sub { delivered(qr/"type":"Late"/) >= 40 }), 'nothing is stuck');
is(delivered(qr/"type":"Late"/), 40, 'nor comes twice');

# ---- killed without a word: its session is gone, and so are its leases, once the server is older than a lease time

$db->rows(q{SELECT es_alter_subscription('events', lease_time => '5 s')});
start($one);
ok(es_poll(sub { ($db->value($share) // '') eq '2 2' }), 'the first is back');
is($two->kill_now, -9, 'the second is killed');
ok(es_poll(sub { ($db->value($share) // '') eq '4' }), 'its lanes are free');

# ---- one pipeline that fails ends them all

$db->rows(q{SELECT es_drop_subscription('messages')});
is(ended($one), 1, 'a subscription that is dropped ends the relay');
like($one->log, qr/WARNING pipeline messages: .*stopping the other pipelines/, 'the others are stopped');
like((split /\n/, $one->log)[-1], qr/ERROR pipeline messages: subscription "messages" does not exist/, 'the last line says why');

# ---- a log that may be a copy

$db->rows(q{SELECT es_seek_subscription('events', 0)});
my $again = relay('again', "[pipeline]\nsubscription = events\n");
ok(es_poll(sub { delivered(qr/"subject":"order-/) >= 240 }), 'a subscription that was set back is delivered again');
$db->rows(q{SELECT setval('es_position_bound', 1)});
$node->restart;
is(ended($again), 1, 'a log that may be a copy ends the relay');
like((split /\n/, $again->log)[-1], qr/ERROR .*\(SQLSTATE SE008\).* HINT: .*es_adopt/, 'which says what to do');

done_testing();
