# 018_standby: what a standby can be asked.
#
# Streams are read there like anywhere. The log is read in order up to the newest mark that the primary has left; that an
# event has come over is not enough, for one below it may still be on its way. Whatever writes, or needs to know who is
# writing, says clearly that this is a standby. Promoted, it is a primary like any.
use strict;
use warnings;
use Test::More;

use EsTest;

my $node = es_cluster('primary', 'wal_level = replica', 'max_wal_senders = 8', 'hot_standby = on', 'es_pg.event_chunk_size = 100');
my $db = es_connect($node);
my $slow = es_connect($node);

$db->rows(q{SELECT es_create_subscription('reader', 'beginning')});
$db->rows("SELECT es_append('order-$_', 'E', '{}')") for 1 .. 3;
$node->backup('base');
my $standby = PostgreSQL::Test::Cluster->new('standby');
$standby->init_from_backup($node, 'base', has_streaming => 1);
$standby->start;
my $there = es_connect($standby);

sub catch_up { $node->wait_for_catchup($standby, 'replay', $node->lsn('insert')); return }
sub positions { return [ map { $_->[0] } $there->rows('SELECT position FROM es_read_all(0, 100000)') ] }

catch_up();
is($there->value(q{SELECT count(*) FROM es_read_stream('order-1')}), 1, 'a stream can be read');
is($there->value(q{SELECT es_stream_version('order-3')}), 0, 'its version too');
is($there->value('SELECT count(*) FROM es_read_event((SELECT event_id FROM es_events WHERE position = 2))'), 1, 'and an event by its id');
is_deeply(positions(), [], 'without a mark the log cannot be read in order');
is($there->value('SELECT es_horizon()'), 0, 'and the horizon is below all');

# A mark by an acknowledgement: an event above it is there, and not handed out, for one below may follow.
$slow->rows('BEGIN');
my $held = $slow->value(q{SELECT position FROM es_append('slow-1', 'E', '{}')});
my $above = $db->value(q{SELECT position FROM es_append('order-1', 'E', '{}')});
is($db->try("SELECT es_create_subscription('ahead', '$above')")->{sqlstate}, '22023', 'no cursor can be set above the horizon');
$db->rows(q{SELECT es_ack('reader', lane, epoch, position) FROM es_fetch('reader', 'r')});
catch_up();
is($there->value("SELECT count(*) FROM es_events WHERE position = $above"), 1, 'an event above an open writer has come over');
is_deeply(positions(), [ 1 .. 3 ], 'the log is read up to the acknowledged position');
is($there->value('SELECT es_horizon()'), $held - 1, 'which es_horizon() tells');

# es_maintain() can leave no better one until the slow writer is through, and then does.
$db->rows('SELECT es_maintain()');
catch_up();
is_deeply(positions(), [ 1 .. 3 ], 'maintenance knows of the open writer');
$slow->rows('COMMIT');
catch_up();
is_deeply(positions(), [ 1 .. 3 ], 'its commit alone is no mark');
$db->rows('SELECT es_maintain()');
catch_up();
is_deeply(positions(), [ 1 .. 3, $held, $above ], 'the next maintenance is one, and nothing was skipped');
is($db->value('SELECT count(*) FROM es_marks'), 1, 'old marks are deleted');

# One snapshot serves for the mark and for the events, as old as it may be.
$there->rows('BEGIN ISOLATION LEVEL REPEATABLE READ');
my $before = positions();
$db->rows(q{SELECT es_append_batch('many-1', array_fill('E'::text, ARRAY[350]), array_fill('1'::jsonb, ARRAY[350]))});
$db->rows('SELECT es_maintain()');
catch_up();
is_deeply(positions(), $before, 'a repeatable read stays where it was');
$there->rows('COMMIT');
is(scalar @{ positions() }, 355, 'the next one sees the events of chunks that are new to it');

# The notice says it once a session.
my ($out, $err) = ('', '');
$standby->psql('postgres', 'SELECT count(*) FROM es_read_all(); SELECT count(*) FROM es_read_all()', stdout => \$out, stderr => \$err);
is(scalar(() = $err =~ /NOTICE:  this is a standby: the log is read up to position \d+/g), 1, 'a notice says how far the log is read');

# Clear words for the rest.
my %refused = (
	q{SELECT es_append('order-1', 'E', '{}')} => '25006',
	q{SELECT * FROM es_fetch('reader', 'c')} => '55000',
	q{SELECT es_ack('reader', 0, 0, 1)} => '25006',
	q{SELECT es_adopt('moved')} => '55000',
	q{SELECT es_prepare_chunks()} => '55000',
	q{SELECT es_last_position()} => '55000',
	q{SELECT * FROM es_in_flight()} => '55000');
is($there->try($_)->{sqlstate}, $refused{$_}, $_) for sort keys %refused;

# Promotion, under the sessions that are there.
my $last = $db->value('SELECT es_last_position()');
$standby->promote;
ok(es_poll(sub { $there->value('SELECT pg_is_in_recovery()') eq 'f' }), 'the standby is promoted');
is(scalar @{ positions() }, 355, 'the log is read as on any primary');
my ($row) = $there->rows(q{SELECT version, position FROM es_append('order-1', 'E', '{}')});
is($row->[0], 2, 'the next append has the next version');
cmp_ok($row->[1], '>', $last, 'and a position that the old primary cannot have drawn');
is($there->value('SELECT es_horizon()'), $row->[1], 'the horizon is the real one');
is($there->value(q{SELECT count(*) FROM es_fetch('reader', 'r')}), 353, 'a subscription goes on behind its cursor');
es_events_sound($there, 'promoted');

$node->stop;
$standby->stop;
done_testing();
