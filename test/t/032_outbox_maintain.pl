# 032_outbox_maintain: who maintains where nobody calls es_maintain, and where no worker can be had.
#
# A reader that comes by has a worker publish what is due: after a restart too, when nothing is known of it, after a
# delayed message's commit, after a rollback of one who published. Where the server has no worker to give, es_maintain() does
# all itself, and readers still get their answers.
use strict;
use warnings;
use Test::More;

use EsTest;

my $node = es_cluster('maintain', 'es_pg.outbox_chunk_size = 100');
my $db = es_connect($node);
my $n = 0;

# A message that is due although it was given a time to come, as the passing of that time would make it.
sub due
{
	my ($db) = @_;
	$n++;
	$db->rows("SELECT es_publish('t', 'T', '$n', deliver_after => clock_timestamp() + '20 ms')");
	return $n;
}

sub published { return $_[0]->value("SELECT count(*) FROM es_outbox WHERE payload = '$_[1]'") }

# Come by as a reader does, until it is there.
sub comes_by
{
	my ($db, $what) = @_;
	return es_poll(sub { $db->rows(q{SELECT count(*) FROM es_fetch('reader', 'r')}); published($db, $what) == 1 }, 30);
}

$db->rows(q{SELECT es_create_subscription('reader', 'beginning')});
ok(comes_by($db, due($db)), 'a reader that comes by has a due message published');
ok(comes_by($db, due($db)), 'and the next');

my $other = es_connect($node);
my $held = due($other);
ok(es_poll(sub { $db->value('SELECT count(*) FROM es_delayed WHERE deliver_after < clock_timestamp()') == 1 }, 30), 'one is due');
$other->rows('BEGIN; SELECT es_publish_due()');
$db->rows(q{SELECT count(*) FROM es_fetch('reader', 'r')});
is(published($db, $held), 0, 'not while another publishes it');
$other->rows('ROLLBACK');
ok(comes_by($db, $held), 'but when that is rolled back');

# The commit comes after the time.
$other->rows('BEGIN');
$held = due($other);
ok(es_poll(sub { $other->value('SELECT count(*) FROM es_delayed WHERE deliver_after < clock_timestamp()') == 1 }, 30), 'one is due and not committed');
$db->rows(q{SELECT count(*) FROM es_fetch('reader', 'r')});
$other->rows('COMMIT');
ok(comes_by($db, $held), 'it is published when it is');

$held = due($db);
$node->restart;
$db = es_connect($node);
ok(comes_by($db, $held), 'a restart forgets none');
is($db->value('SELECT count(*) FROM es_outbox'), $n, 'none was published twice');
is($db->value('SELECT count(*) FROM es_delayed'), 0, 'and none waits');

# A chunk that cannot be dropped does not keep the others from it, and says why in the log.
$db->rows('SET es_pg.outbox_retention = 0; SET es_pg.outbox_chunk_interval = 0');
$db->rows(q{SELECT es_publish_batch('t', array_fill('T'::text, ARRAY[250]), array_fill('0'::jsonb, ARRAY[250]))});
my ($second) = map { $_->[0] } $db->rows(q{SELECT DISTINCT tableoid::regclass FROM es_outbox ORDER BY 1 LIMIT 1});
$db->rows("CREATE VIEW depends AS SELECT * FROM $second");
my $at = -s $node->logfile;
cmp_ok($db->value('SELECT es_retire_chunks()'), '>', 0, 'chunks are dropped');
is_deeply([ $db->rows('SELECT DISTINCT tableoid::regclass FROM es_outbox') ], [ [$second] ], 'but for one that a view needs');
like(PostgreSQL::Test::Utils::slurp_file($node->logfile, $at), qr/cannot drop table \Q$second\E because other objects depend on it/, 'which the log says');
$db->rows('DROP VIEW depends');
is($db->value('SELECT es_retire_chunks()'), 1, 'without the view it goes');

# It neither waits for who uses a chunk, nor lets anybody wait for it.
$db->rows(q{SELECT es_publish_batch('t', array_fill('T'::text, ARRAY[250]), array_fill('0'::jsonb, ARRAY[250]))});
($second) = map { $_->[0] } $db->rows(q{SELECT DISTINCT tableoid::regclass FROM es_outbox ORDER BY 1 LIMIT 1});
$other = es_connect($node);
$other->rows("BEGIN; LOCK TABLE $second IN ACCESS SHARE MODE");
$at = -s $node->logfile;
my $third = es_connect($node);
my ($waited, $answer) = (0);
$third->rows("SET lock_timeout = '1ms'");
$db->send('SELECT es_retire_chunks()');
until ($answer = $db->receive(0.01))
{
	$waited++ if defined $third->try("SELECT count(*) FROM $second")->{sqlstate};
}
is($answer->{sqlstate}, undef, 'it comes to its end, although a chunk is in use');
is($waited, 0, 'and no other reader of that waits');
unlike(PostgreSQL::Test::Utils::slurp_file($node->logfile, $at), qr/timeout|deadlock/, 'nor does it wait itself');
$other->rows('COMMIT');

# Without workers.
$node->append_conf('postgresql.conf', "max_worker_processes = 0\n");
$node->restart;
$db = es_connect($node);
$db->rows(q{SELECT es_publish_batch('t', array_fill('T'::text, ARRAY[250]), array_fill('0'::jsonb, ARRAY[250]))});
$db->rows('SET es_pg.outbox_retention = 0; SET es_pg.outbox_chunk_interval = 0');
$held = due($db);
is($db->try(q{SELECT count(*) FROM es_fetch('reader', 'r')})->{sqlstate}, undef, 'no worker: a reader gets its answer');
ok(es_poll(sub { $db->rows('SELECT es_maintain()'); $db->value('SELECT count(*) FROM es_delayed') == 0 }, 30), 'es_maintain() publishes what is due');
$db->rows('SELECT es_maintain()');
is($db->value('SELECT count(*) FROM es_outbox'), 0, 'and drops chunks');
$other = es_connect($node);
$other->rows('BEGIN; LOCK TABLE es_outbox IN ACCESS SHARE MODE');
$db->rows(q{SELECT es_publish('t', 'T', '0')});
is($db->value('SELECT es_retire_chunks()'), 0, 'it does not wait for who uses them');
$other->rows('COMMIT');
is($db->value('SELECT es_retire_chunks()'), 1, 'nor when nobody does');
$node->stop;
done_testing();
