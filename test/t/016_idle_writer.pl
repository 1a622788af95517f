# 016_idle_writer: a session that has appended and then sits idle in its transaction is ended; others are left alone.
#
# Only such a transaction can hold ordered readers back for long unnoticed. With es_pg.idle_writer_timeout set, the
# server ends it, its events are gone, readers go on, and a reader that sleeps is woken. A transaction that has appended
# nothing may idle for ever, and so may one that took its appends back to a savepoint. The server's own limit stays
# where it is shorter, and is what it was after the transaction. (What must not idle here is sent as one query: a busy
# machine may pause between two.)
use strict;
use warnings;
use Test::More;

use EsTest;

my $node = es_cluster('idle');
my $db = es_connect($node);
my $limit = 'SHOW idle_in_transaction_session_timeout';

sub limited { my ($ms) = @_; my $s = es_connect($node); $s->rows("SET es_pg.idle_writer_timeout = $ms"); return $s }

$db->rows(q{SELECT es_append('order-1', 'First', '{}'), es_create_subscription('reader', 'end')});
$db->rows(q{SELECT es_ack('reader', lane, epoch, position) FROM es_fetch('reader', 'f')});
is($db->value('SHOW es_pg.idle_writer_timeout'), 0, 'it is off by default');

# One that idles after an append; beside it those that it does not concern.
my $bystander = limited(200);
$bystander->rows('BEGIN');
is($bystander->value('SELECT count(*) FROM es_read_all()'), 1, 'one that reads');
my $back = limited(200);
$back->rows(q{BEGIN; SAVEPOINT s; SELECT es_append('order-2', 'Back', '{}'); ROLLBACK TO s});
my $without = es_connect($node);
$without->rows($_) for 'BEGIN', q{SELECT es_append('order-3', 'Unlimited', '{}')};

my $idle = limited(200);
$idle->rows(q{BEGIN; SELECT es_append('order-4', 'Idle', '{}')});
ok(es_poll(sub { !$db->value('SELECT count(*) FROM pg_stat_activity WHERE pid = ' . $idle->pid) }, 30), 'a writer that sits idle is ended');
my $answer = $idle->receive(30);
is_deeply([ @$answer{qw(sqlstate lost)} ], [ '25P03', 1 ], 'by the server, with its own code');
is_deeply([ $db->rows('SELECT pid FROM es_writers()') ], [ [ $without->pid ] ], 'only who has no limit is in the registry');
is($bystander->value('SELECT 1'), 1, 'one that has only read is still there');
is($back->value('SELECT 1'), 1, 'and one that took its append back');
$without->rows('COMMIT');
is($db->value(q{SELECT count(*) FROM es_streams WHERE name IN ('order-2', 'order-4')}), 0, 'nothing of the others was written');

# Who sleeps in a fetch behind it is woken.
my $fetcher = es_connect($node);
$db->rows(q{SELECT es_ack('reader', lane, epoch, position) FROM es_fetch('reader', 'f')});
$idle = limited(1500);
$idle->rows(q{BEGIN; SELECT es_append('order-4', 'Idle', '{}')});
$db->rows(q{SELECT es_append('order-5', 'Above', '{}')});
$fetcher->send(q{SELECT key FROM es_fetch('reader', 'f', 10, '30 s')});
is_deeply(($fetcher->receive(60) // {})->{rows}, [ ['order-5'] ], 'a fetch that waited behind it goes on');
ok($idle->try('SELECT 1')->{lost}, 'since it was ended');

# So is one that sleeps behind a savepoint which is rolled back.
$db->rows(q{SELECT es_ack('reader', lane, epoch, position) FROM es_fetch('reader', 'f')});
$back->rows(q{SELECT es_append('order-2', 'Back', '{}'); SET LOCAL idle_in_transaction_session_timeout = 0});
is($back->value($limit), 0, 'a user may lift the limit again');
$back->rows($_) for 'COMMIT', 'RESET es_pg.idle_writer_timeout', 'BEGIN', 'SAVEPOINT s', q{SELECT es_append('order-2', 'Back', '{}')};
$db->rows(q{SELECT es_ack('reader', lane, epoch, position) FROM es_fetch('reader', 'f')});
$db->rows(q{SELECT es_append('order-5', 'Above', '{}')});
$fetcher->send(q{SELECT key FROM es_fetch('reader', 'f', 10, '30 s')});
ok(es_poll(sub { ($db->value('SELECT wait_event_type FROM pg_stat_activity WHERE pid = ' . $fetcher->pid) // '') eq 'Extension' }, 30), 'a fetch sleeps');
$back->rows('ROLLBACK TO s');
is_deeply(($fetcher->receive(60) // {})->{rows}, [ ['order-5'] ], 'a rollback to a savepoint wakes it');
$back->rows('COMMIT');

# The error of a savepoint leaves an idle one behind that still holds its first append.
$idle = limited(200);
is($idle->try(q{BEGIN; SELECT es_append('order-6', 'Before', '{}'); SAVEPOINT s; SELECT es_append('order-6', 'Wrong', '{}', 17)})->{sqlstate},
	'SE001', 'an error in a savepoint');
ok(es_poll(sub { !$db->value('SELECT count(*) FROM es_writers()') }, 30), 'a writer that then sits idle is ended too');

# Which limit it is: the shorter one, in its transaction alone.
my $s = limited(7000);
my $append = q{SELECT es_append('order-7', 'E', '{}')};
for my $case ([ 0, '7s' ], [ 5000, '5s' ], [ 7000, '7s' ], [ 9000, '7s' ])
{
	my ($own, $then) = @$case;

	$s->rows("SET idle_in_transaction_session_timeout = $own");
	my $was = $s->value($limit);
	$s->rows('BEGIN');
	is($s->value($limit), $was, "$own ms: nothing changes before the append");
	$s->rows($append);
	is($s->value($limit), $then, "$own ms: the append makes it $then");
	$s->rows($append);
	$s->rows('COMMIT');
	is($s->value($limit), $was, "$own ms: afterwards it is as before");
	$s->rows($append);
	is($s->value($limit), $was, "$own ms: a single statement leaves nothing");
}
# A function's own settings take nothing back that the transaction needs.
$s->rows('RESET idle_in_transaction_session_timeout');
$s->rows(q{CREATE FUNCTION deep() RETURNS void LANGUAGE plpgsql SET work_mem = '8MB' AS $$ BEGIN
	BEGIN PERFORM es_append('order-7', 'E', '{}'); EXCEPTION WHEN others THEN NULL; END; END $$});
$s->rows($_) for 'BEGIN', 'SELECT deep()';
is($s->value($limit), '7s', 'an append inside a function with settings and a block');
$s->rows('COMMIT');
is($s->value($limit), 0, 'and its end');
is($s->try('SET es_pg.idle_writer_timeout = -1')->{sqlstate}, '22023', 'it cannot be negative');
is($s->try(q{SET es_pg.idle_writer_timeout = '5 min'})->{sqlstate}, undef, 'it has a unit');

es_events_sound($db, 'at the end');
is($db->value('SELECT es_last_position() - es_horizon()'), 0, 'the horizon is at the last position');
$node->stop;
done_testing();
