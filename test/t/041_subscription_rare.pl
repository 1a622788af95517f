# 041_subscription_rare: what happens to a subscription once in a million times, made frequent by debug points
# (src/debug_point.h).
use strict;
use warnings;
use Test::More;

use FindBin;
use lib "$FindBin::RealBin/..";
use EsTest;

my $bin = $ENV{ES_DEBUG_BIN} // '';
die "no debug build: test/run makes it\n" if !-x "$bin/postgres";
$ENV{PATH} = "$bin:$ENV{PATH}";
my $node = es_cluster('rare', "es_pg.debug_points = 'small_key_sets'");
my $db = es_connect($node);

# A backend knows the parked keys of its lanes by a set that is bounded. It is emptied when it is full, and not in the
# middle of a fetch: what was loaded for one lane before would be delivered past its parked messages.
$db->rows(q{SELECT es_create_subscription('work', 'beginning', lanes => 8)});
$db->rows(q{SELECT es_append_batch('key-' || i, '{E1,E2}', '{1,2}') FROM generate_series(1, 60) AS i});
my @first = $db->rows(q{SELECT lane, epoch, position FROM es_fetch('work', 'me') WHERE type = 'E1'});
is(scalar @first, 60, 'all keys are handed out');
for my $row (@first)
{
	my ($lane, $epoch, $position) = @$row;
	$db->rows("SELECT es_nack('work', $lane, $epoch, $position, 'not now', '1 h')");
}
es_check($db, 'all of them wait', q{SELECT position FROM es_fetch('work', 'me')});
$db->rows(q{SELECT es_append('key-' || i, 'E3', '3') FROM generate_series(1, 60) AS i});
for my $session ($db, es_connect($node))
{
	es_check($session, 'nothing overtakes what waits', q{SELECT key, type FROM es_fetch('work', 'me')});
}
is($db->value('SELECT count(*) FROM es_parked'), 180, 'it is parked behind');
$db->rows(q{UPDATE es_parked SET next_attempt_at = now() WHERE next_attempt_at IS NOT NULL});
my %last;
while (my @rows = $db->rows(q{SELECT key, type, lane, epoch, position FROM es_fetch('work', 'me')}))
{
	for my $row (@rows)
	{
		my ($key, $type, $lane, $epoch, $position) = @$row;
		push @{ $last{$key} }, $type;
	}
	my %upto;
	$upto{"$_->[2], $_->[3]"} = $_->[4] for sort { $a->[4] <=> $b->[4] } @rows;
	$db->rows("SELECT es_ack('work', $_, $upto{$_})") for keys %upto;
}
is_deeply([ grep { "@{$last{$_}}" ne 'E1 E2 E3' } keys %last ], [], 'and comes in order');
is(scalar keys %last, 60, 'of all keys');

# Two sessions of one consumer pass the same long stretch at once: both want to move the cursor to its end.
sub hold { my ($name) = @_; open my $file, '>', $node->data_dir . "/es_debug.$name" or die "$name: $!"; close $file; return }
sub release { my ($name) = @_; unlink $node->data_dir . "/es_debug.$name" or die "$name: $!"; return }
sub held
{
	my ($session) = @_;
	return es_poll(sub { ($db->value('SELECT wait_event_type FROM pg_stat_activity WHERE pid = ' . $session->pid) // '') eq 'Extension' }, 30);
}
my $slow = es_connect($node);
$db->rows(q{SELECT es_create_subscription('none', 'beginning', categories => '{none}')});
$db->rows(q{SELECT es_fetch('none', 'me')});
$db->rows(q{SELECT es_append_batch('bulk-1', array_fill('T'::text, ARRAY[10100]), array_fill('{}'::jsonb, ARRAY[10100]))});
$slow->rows('SET es_pg.debug_points = fetch_snapshot');
hold('fetch_snapshot');
$slow->send(q{SELECT position FROM es_fetch('none', 'me')});
ok(held($slow), 'one has its snapshot');
$db->rows(q{SELECT position FROM es_fetch('none', 'me')});
release('fetch_snapshot');
is($slow->receive(60)->{message}, undef, 'and does not mind that the other one was first');
is($db->value(q{SELECT c.position = es_horizon() FROM es_lane_cursors AS c JOIN es_subscriptions USING (subscription_id) WHERE name = 'none'}),
	't', 'the cursor is there');

# A fetch that could only park says nothing more of the lane in its transaction; its own commit notifies.
my $listener = es_connect($node);
$listener->rows('LISTEN es_pg');
$listener->rows(q{SELECT es_create_subscription('listens', 'end')});
$listener->rows(q{SELECT es_append('a-1', 'E1', '1')});
my ($failed) = $listener->rows(q{SELECT lane, epoch, position FROM es_fetch('listens', 'me')});
$failed = join ', ', @$failed;
$listener->rows("SELECT es_nack('listens', $failed, 'no', '1 h')");
$listener->rows("SELECT es_ack('listens', $failed)");
$listener->rows(qq{SELECT es_append('$_', 'E2', '2')}) for 'a-1', 'b-1';
$listener->notifications;
es_check($listener, 'what is behind is parked', q{SELECT key FROM es_fetch('listens', 'me')});
ok($listener->wait_for_notification(10), 'and this notifies');
is_deeply([ $listener->rows(q{SELECT key, type FROM es_fetch('listens', 'me')}) ], [ [ 'b-1', 'E2' ] ], 'of what comes after it');

# Notes of lanes that nobody reads any more, of another database and with higher epochs, make room for those in use.
$db->rows(q{CREATE DATABASE other});
my $other = es_connect($node, dbname => 'other');
$db->rows(q{SELECT es_create_subscription('many', 'end', lanes => 800)});
$db->rows(q{SELECT es_fetch('many', 'me')});
$other->rows(q{CREATE EXTENSION es_pg; SELECT es_create_subscription('few', 'beginning', lanes => 24)});
ok(es_poll(sub { $db->value('SELECT extract(epoch FROM now())::bigint') > $db->value(q{SELECT max(extract(epoch FROM since))::bigint + 1 FROM es_leases}) }, 30),
	'a while ago');
$other->rows(q{SELECT es_append('key-' || i, 'E', '{}') FROM generate_series(1, 200) AS i});
$other->rows(q{SELECT es_append('tail-1', 'E', '{}')});
$other->rows(q{CREATE TABLE fetched AS SELECT lane, epoch, max(position) AS position FROM es_fetch('few', 'me') GROUP BY 1, 2});
$other->rows(q{SELECT es_ack('few', lane, epoch, position) FROM fetched});
is($other->value(q{SELECT count(*) FROM es_lane_cursors WHERE position < es_horizon()}), 0, 'what was looked at is known of every lane');
$node->stop;
done_testing();
