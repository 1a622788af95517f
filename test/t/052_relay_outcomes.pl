# 052_relay_outcomes: a far side that refuses, fails and is down, seen from the database. A child process (the sink exec) is
# the far side: what it says to a message stands in the message's data, or in files that the test makes.
#
# A message that fails holds up its key and nothing else, comes again until its attempts are used up, and is a dead letter
# then. One that is rejected is one at once. While the far side is down nothing is parked, no attempt is counted, and the
# database is asked for nothing but signs of life; when it is back everything goes on, in order.
use strict;
use warnings;
use Test::More;

use PostgreSQL::Test::Utils;

use FindBin;
use lib "$FindBin::RealBin/..";
use EsDelivery;
use EsTest;

plan skip_all => 'this relay has no sink exec' if `$ENV{ES_RELAY} --help` !~ /type = exec/;

my $node = es_cluster('outcomes', 'jit = off');
my $db = es_connect($node);
my $dir = $PostgreSQL::Test::Utils::tmp_check;
my $output = "$dir/written";

$db->rows(q{SELECT es_create_subscription('outcomes', 'beginning', source => 'outbox', lanes => 2,
	retry_base => '10 ms', retry_max => '50 ms', max_attempts => 3, on_dead => 'skip')});

append_to_file("$dir/child.pl", <<'END');
use strict;
use warnings;
use IO::Handle;
my ($dir) = @ARGV;
STDOUT->autoflush(1);
open my $to, '>>', "$dir/written" or die $!;
while (my $line = <STDIN>)
{
	my ($id) = $line =~ /"id":"([^"]+)"/;
	my ($type) = $line =~ /"type":"([^"]+)"/;
	if (-e "$dir/down") { open my $n, '>>', "$dir/tried"; syswrite $n, '.'; print "down id=$id nobody is there\n"; next }
	if ($type eq 'Never') { print "reject id=$id it is bad\n"; next }
	if ($type eq 'Fails') { print "retry id=$id it fails \xe9\xff \xc3\xa9\n"; next }
	if ($type eq 'Later' && !-e "$dir/now") { print "retry id=$id not yet\n"; next }
	syswrite $to, $line;
	print "ok id=$id\n";
}
END

my $relay = EsDelivery->relay('relay', $node, <<"END");
[pipeline]
subscription = outcomes
ack_interval_ms = 10
[sink]
type = exec
command = perl '$dir/child.pl' '$dir'
END

# What arrived of a key, by its numbers, in order.
sub arrived
{
	my ($key) = @_;
	my $text = -e $output ? slurp_file($output) : '';
	return join ' ', map { /"subject":"$key".*"n": (\d+)/ ? $1 : () } split /\n/, $text;
}

sub publish
{
	my ($key, $type, $n) = @_;
	$db->rows("SELECT es_publish('t', '$type', jsonb_build_object('n', $n), key => '$key')");
	return;
}

sub parked { return $db->value(q{SELECT count(*) FROM es_parked}) }

sub all_acknowledged
{
	return es_poll(sub { $db->value(q{SELECT min(position) >= es_last_position() FROM es_lane_cursors}) eq 't' }, 60);
}

# ---- one key fails, and waits with what follows; others do not

publish('a', $_ == 3 ? 'Later' : 'E', $_) for 1 .. 6;
publish("b$_", 'E', $_) for 1 .. 20;
ok(es_poll(sub { arrived('b20') eq '20' && arrived('b1') eq '1' }), 'other keys arrive');
is(arrived('a'), '1 2', 'the key waits from the message on that fails');
publish('a', 'E', 7);
open my $now, '>', "$dir/now" or die;
close $now;
ok(es_poll(sub { arrived('a') =~ /7$/ }), 'later it does not');
is(arrived('a'), '1 2 3 4 5 6 7', 'and the key has gone on in its order');
ok(es_poll(sub { parked() == 0 }), 'nothing is parked any more');

# ---- dead letters

publish('c', $_ == 1 ? 'Fails' : $_ == 3 ? 'Never' : 'E', $_) for 1 .. 4;
ok(es_poll(sub { arrived('c') eq '2 4' }), 'what cannot be delivered is left out');
is_deeply([ $db->rows(q{SELECT payload ->> 'n', attempts, error FROM es_dead_letters ORDER BY position}) ],
	[ [ '1', '3', "it fails ?? \xc3\xa9" ], [ '3', '1', 'it is bad' ] ], 'and is a dead letter: one after its attempts, one at once');
ok(all_acknowledged(), 'the lanes have gone on');
$db->rows(q{SELECT es_discard('outcomes')});

# ---- down

open my $down, '>', "$dir/down" or die;
close $down;
publish('d', 'E', $_) for 1 .. 50;
publish("e$_", 'E', $_) for 1 .. 50;
ok(es_poll(sub { -e "$dir/tried" && -s "$dir/tried" > 5 }), 'while the far side is down it is tried again');
is(parked(), 0, 'nothing is parked');
is($db->value(q{SELECT bool_and(position < es_last_position()) FROM es_lane_cursors}), 't', 'nor acknowledged');
like($relay->log, qr/the sink is down: nobody is there/, 'the log says so');
unlink "$dir/down";
ok(es_poll(sub { arrived('d') =~ /50$/ && arrived('e50') eq '50' && arrived('e1') eq '1' }, 90), 'when it is back all arrives');
is(arrived('d'), join(' ', 1 .. 50), 'in its order, once');
ok($relay->logged(qr/the sink is back/), 'the log says that, too');
ok(all_acknowledged(), 'and it is acknowledged');
is(parked(), 0, 'no attempt was counted');

# ---- A key waits, and a writer stays open, so that nothing moves the horizon; the relay, which is another one now, looks by
# itself once a minute only. A fetch that has to park what is behind the key hands nothing out, and yet the others do not
# wait for the minute.

is($relay->stop, 0, 'stopped');
like($relay->log, qr/, 1 rejected, /, 'what happened is counted');
unlink "$dir/now";
$db->rows(q{SELECT es_create_subscription('alone', 'end', source => 'outbox', retry_base => '1 day', retry_max => '1 day')});
my $alone = EsDelivery->relay('alone', $node, <<"END");
[pipeline]
subscription = alone
batch_size = 500
poll_interval_ms = 60000
[sink]
type = exec
command = perl '$dir/child.pl' '$dir'
END
publish('f', 'Later', 1);
ok(es_poll(sub { parked() == 1 }), 'a message waits for a day or less');
is($alone->stop, 0, 'stopped');
$db->rows(q{SELECT es_publish('t', 'E', jsonb_build_object('n', i), key => CASE WHEN i % 2 = 1 THEN 'f' ELSE 'g' END)
	FROM generate_series(1, 6000) AS i});
my $writer = es_connect($node);
$writer->rows('BEGIN');
$writer->rows(q{SELECT es_publish('t', 'E', '{}', key => 'h')});
$alone->restart;
ok(es_poll(sub { arrived('g') =~ / 6000$/ }, 50), 'other keys go on beside an open writer');
is(arrived('f'), '', 'the key waits');
$writer->rows('COMMIT');
is($alone->stop, 0, 'stopped');
done_testing();
