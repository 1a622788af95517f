# 085_projection_worker: the life of the worker that runs projections. It starts on request and by itself where es_pg is
# preloaded; it applies what commits and wakes who waits for that; it outlives failing bodies, errors that are not the
# event's, pg_terminate_backend and a restart; and it is in nobody's way: not of DROP EXTENSION, DROP DATABASE, RENAME,
# a copy of the database, nor of a shutdown, whatever its body does.
use strict;
use warnings;
use Test::More;

use EsTest;

my $node = es_cluster('worker');
my $db = es_connect($node);

sub worker { my ($session) = @_; return ($session // $db)->value('SELECT es_worker_pid()') }
sub workers { return $db->value(q{SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'es_pg projection worker'}) }
sub projection
{
	my ($session, $name, $body, $options) = @_;
	$session->rows("SET client_min_messages = warning; SELECT es_create_projection('$name', \$\$$body\$\$, categories => '{$name}'" . ($options // '') . ')');
	return;
}
sub append { my ($session, $stream, $data) = @_; return $session->value("SELECT position FROM es_append('$stream', 'E', '" . ($data // '{}') . "')") }
sub passed { my ($session, $name, $position) = @_; return $session->value("SELECT es_wait_for('$name', $position, '60 s')") eq 't' }

$db->rows('CREATE TABLE seen (name text, stream text, version bigint, PRIMARY KEY (name, stream, version)); CREATE TABLE gate (open boolean); INSERT INTO gate VALUES (true)');
my $insert = 'INSERT INTO seen SELECT %s, stream, version FROM es_batch';
projection($db, 'a', sprintf $insert, q('a'));
is(worker(), undef, 'no worker without preloading');
is($db->value('SELECT es_start_worker()'), 't', 'one can be started');
ok(es_poll(sub { defined worker() }), 'and is there');
is($db->value('SELECT es_start_worker()'), 'f', 'there is one and no more');
ok(passed($db, 'a', append($db, 'a-1')), 'what was appended is applied, and who waits is told');
is($db->value(q{SELECT count(*) FROM seen WHERE name = 'a'}), 1, 'once');
is($db->value('SELECT worker = es_worker_pid() FROM es_projection_status'), 't', 'the status names the worker');

# Told of once, however often it moves.
my $listener = es_connect($node);
$listener->rows('LISTEN es_projection');
$listener->rows(q{SELECT es_watch_projection('a')});
passed($db, 'a', append($db, 'a-1')) for 1 .. 3;
my @told = $listener->wait_for_notification(60);
push @told, $listener->notifications;
is_deeply([ map { [ @$_[ 0, 1 ] ] } @told ], [ [ 'es_projection', 'a' ] ], 'who watches is told once');

# A waiter learns at once that what it waits for is gone, or has stopped.
my $waiter = es_connect($node);
projection($db, 'gone', sprintf $insert, q('gone'));
$waiter->send(q{SELECT es_wait_for('gone', 9000000000, '1 hour')});
ok(es_poll(sub { $db->value(q{SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%wait_for(''gone''%' AND state = 'active' AND wait_event_type = 'Extension'}) == 1 }),
	'a position that does not exist is waited for');
$db->rows(q{SELECT es_drop_projection('gone')});
is($waiter->receive(60)->{sqlstate}, '42704', 'until the projection is dropped');

# Bodies that fail stop their own projection only.
projection($db, 'bad', q{INSERT INTO seen SELECT 'bad', stream, 1 / (data->>'n')::int FROM es_batch});
append($db, 'bad-1', '{"n": 1}');
my $bad = append($db, 'bad-1', '{"n": 0}');
is($db->value("SELECT es_wait_for('bad', $bad, '1 hour')"), 'f', 'a failing body stops its projection; who waits for it need not wait');
is(join('|', @{ ($db->rows(q{SELECT state, last_sqlstate, last_error_position FROM es_projection_status WHERE projection = 'bad'}))[0] }),
	"stopped|22012|$bad", 'and the status says where and why');
ok(passed($db, 'a', append($db, 'a-1')), 'others go on');
$db->rows(q{SELECT es_drop_projection('bad')});

# An error that is not the event's is tried again.
$db->rows(<<'SQL');
CREATE FUNCTION check_gate() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NOT (SELECT open FROM gate) THEN RAISE EXCEPTION 'the disk is full' USING ERRCODE = 'disk_full'; END IF;
    RETURN NEW;
END $$;
CREATE TABLE guarded (stream text, version bigint);
CREATE TRIGGER gate BEFORE INSERT ON guarded FOR EACH ROW EXECUTE FUNCTION check_gate();
UPDATE gate SET open = false
SQL
projection($db, 'guarded', 'INSERT INTO guarded SELECT stream, version FROM es_batch');
my $held = append($db, 'guarded-1');
ok(es_poll(sub { ($db->value(q{SELECT last_error FROM es_projection_status WHERE projection = 'guarded' AND state = 'active'}) // '') eq 'the disk is full' }),
	'an error that is not the event\'s is noted');
ok(passed($db, 'a', append($db, 'a-1')), 'others go on');
$db->rows('UPDATE gate SET open = true');
ok(passed($db, 'guarded', $held), 'and it is tried again');

# It comes back after pg_terminate_backend, and stays away after es_stop_worker.
my $pid = worker();
$db->rows("SELECT pg_terminate_backend($pid)");
ok(es_poll(sub { (worker() // $pid) != $pid }), 'terminated, it is started again');
ok(passed($db, 'a', append($db, 'a-1')), 'and works');
is($db->value('SELECT es_stop_worker()'), 't', 'it can be stopped');
ok(es_poll(sub { workers() == 0 }), 'and is gone');
is($db->value('SELECT es_stop_worker()'), 'f', 'a second time there is none');

# A body at work holds up nobody's drop for longer than its batch, and the extension can be made anew.
$db->rows('SELECT es_start_worker()');
ok(es_poll(sub { defined worker() }), 'started again');
my $first = worker();
$db->rows('DROP EXTENSION es_pg CASCADE');
ok(es_poll(sub { workers() == 0 }), 'it ends when the extension is dropped');
$db->rows('CREATE EXTENSION es_pg');
is($db->value('SELECT es_start_worker()'), 't', 'a new installation has a worker of its own');
projection($db, 'b', sprintf $insert, q('b'));
ok(passed($db, 'b', append($db, 'b-1')), 'which works');

# Databases: dropped, renamed, copied, with a worker in them.
$db->rows('CREATE DATABASE one');
my $one = es_connect($node, dbname => 'one');
$one->rows('CREATE EXTENSION es_pg; CREATE TABLE seen (name text, stream text, version bigint)');
projection($one, 'c', sprintf $insert, q('c'));
$one->rows('SELECT es_start_worker()');
ok(passed($one, 'c', append($one, 'c-1')), 'another database has its own worker');
$one->close;
is($db->try('CREATE DATABASE two TEMPLATE one')->{sqlstate}, undef, 'the worker makes way for a copy of its database');
ok(es_poll(sub { workers() == 2 }), 'and comes back');
is($db->try('ALTER DATABASE one RENAME TO three')->{sqlstate}, undef, 'for a new name of it');
ok(es_poll(sub { workers() == 2 }), 'and comes back');
is($db->try('DROP DATABASE three')->{sqlstate}, undef, 'for its end');
ok(es_poll(sub { workers() == 1 }), 'and does not come back');
ok(es_poll(sub { $db->value(q{SELECT count(*) FROM pg_stat_activity WHERE backend_type LIKE 'es_pg%'}) == 1 }), 'nor is anything else of it left');

# A shutdown need not wait for a body.
projection($db, 'slow', q{INSERT INTO seen SELECT 'slow', stream, version FROM es_batch, pg_sleep(3600)});
append($db, 'slow-1');
ok(es_poll(sub { $db->value(q{SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'es_pg projection worker' AND wait_event = 'PgSleep'}) == 1 }), 'a body at work');
$_->close for $db, $listener, $waiter;
$node->stop;
$node->append_conf('postgresql.conf', "shared_preload_libraries = 'es_pg'");
$node->start;
$db = es_connect($node);
ok(es_poll(sub { defined worker() }), 'where it is preloaded, it starts with the server');
$one = es_connect($node, dbname => 'two');
$one->rows(q{SELECT es_adopt('copied')});
ok(es_poll(sub { defined worker($one) }), 'in each database that has projections') or diag $one->value('SELECT count(*) FROM es_projections');
ok(passed($one, 'c', append($one, 'c-1')), 'and works there');
is($db->value(q{SELECT count(*) FROM pg_stat_activity WHERE datname = 'template1'}), 0, 'and in no other');
$one->close;

# Its database is gone by force: the postmaster starts it once more, and not for ever.
$db->rows('CREATE DATABASE forced TEMPLATE template0');
$one = es_connect($node, dbname => 'forced');
$one->rows($_) for 'CREATE EXTENSION es_pg', 'SELECT es_start_worker()';    # which is not there for the worker before its commit
ok(es_poll(sub { defined worker($one) }), 'a worker in a database');
$db->rows("ALTER SYSTEM SET log_min_messages = 'debug1'");
$db->rows('SELECT pg_reload_conf()');
ok(es_poll(sub { $db->value('SHOW log_min_messages') eq 'debug1' }), 'the log says more');
$db->rows('DROP DATABASE forced WITH (FORCE)');
ok($node->wait_for_log(qr/FATAL:.*database \d+ does not exist.*unregistering background worker "es_pg projection worker"/s), 'that is dropped by force');
$db->rows('ALTER SYSTEM RESET log_min_messages');
$db->rows('SELECT pg_reload_conf()');
$one->close;

# Under a body that does not end, waiting for it to be dropped ends when the body is cancelled.
ok(es_poll(sub { $db->value(q{SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'es_pg projection worker' AND wait_event = 'PgSleep'}) == 1 }), 'the body is at work again');
$waiter = es_connect($node);
$waiter->send(q{SELECT es_drop_projection('slow')});
ok(es_poll(sub { $db->value(q{SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%drop_projection%' AND wait_event_type = 'Lock'}) == 1 }), 'a drop waits for the batch');
$db->rows(q{SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE backend_type = 'es_pg projection worker' AND wait_event = 'PgSleep'});
is($waiter->receive(60)->{sqlstate}, undef, 'and goes on when that is cancelled');
ok(passed($db, 'b', append($db, 'b-1')), 'the worker lives');
$_->close for $db, $waiter;
$node->stop;
$node->append_conf('postgresql.conf', "es_pg.start_worker = off");
$node->start;
$db = es_connect($node);
is($db->value('SHOW es_pg.start_worker'), 'off', 'it can be turned off');
is(workers(), 0, 'then none starts');
$db->close;
$node->stop;
done_testing();
