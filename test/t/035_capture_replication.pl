# 035_capture_replication: es_capture on a logical subscriber, and in a dump.
#
# Rows that arrive by logical replication fire a trigger only if it is ENABLE REPLICA or ENABLE ALWAYS, for the publisher
# may have captured them already. Then they are captured by the apply worker like anybody's, the initial copy too. A
# dump has the triggers; restoring it publishes nothing, since the rows come before the triggers, and the restored
# triggers fire.
use strict;
use warnings;
use Test::More;

use IPC::Run;

use EsTest;

my $publisher = es_cluster('publisher', 'wal_level = logical', 'max_wal_senders = 10', 'max_replication_slots = 10');
my $subscriber = es_cluster('subscriber', 'max_replication_slots = 10');
my ($from, $to) = map { es_connect($_) } $publisher, $subscriber;
my $messages = q{SELECT topic, type, key, payload->'before', payload->'after', payload->'changed' FROM es_outbox ORDER BY position};

for my $db ($from, $to)
{
	$db->rows('CREATE TABLE plain (id int PRIMARY KEY, v int, large text)');
	$db->rows('ALTER TABLE plain ALTER COLUMN large SET STORAGE EXTERNAL');
	$db->rows('CREATE TABLE asked (LIKE plain INCLUDING ALL)');
}
$to->rows("CREATE TRIGGER capture AFTER INSERT OR UPDATE OR DELETE ON $_ FOR EACH ROW EXECUTE FUNCTION es_capture('$_', 'exclude=large')")
  for 'plain', 'asked';
$to->rows("CREATE TRIGGER cut AFTER TRUNCATE ON asked FOR EACH STATEMENT EXECUTE FUNCTION es_capture('asked')");
$to->rows("ALTER TABLE asked ENABLE ALWAYS TRIGGER $_") for 'capture', 'cut';
$from->rows("INSERT INTO asked VALUES (1, 1, repeat('x', 10000))");
$from->rows('CREATE PUBLICATION p FOR TABLE plain, asked');
my $host = $publisher->host;
my $port = $publisher->port;
$to->rows("CREATE SUBSCRIPTION s CONNECTION 'host=$host port=$port dbname=postgres' PUBLICATION p");
ok(es_poll(sub { $to->value("SELECT bool_and(srsubstate = 'r') FROM pg_subscription_rel") eq 't' }), 'the tables are copied');

$from->rows('INSERT INTO plain VALUES (1, 1), (2, 2)');
$from->rows('INSERT INTO asked VALUES (2, 2)');
$from->rows('UPDATE asked SET v = v + 10');
$from->rows('DELETE FROM asked WHERE id = 2');
$from->rows('TRUNCATE asked');
$from->rows('INSERT INTO asked VALUES (3, 3)');
ok(es_poll(sub { $to->value('SELECT count(*) FROM asked WHERE id = 3') == 1 }), 'rows arrive');
is($to->value('SELECT count(*) FROM plain'), 2, 'of both tables');
is_deeply([ map { join '|', map { $_ // '' } @$_ } $to->rows($messages) ], [
	'asked|asked.created|1|null|{"v": 1, "id": 1}|null',
	'asked|asked.created|2|null|{"v": 2, "id": 2}|null',
	'asked|asked.updated|1|{"v": 1, "id": 1}|{"v": 11, "id": 1}|["v"]',
	'asked|asked.updated|2|{"v": 2, "id": 2}|{"v": 12, "id": 2}|["v"]',
	'asked|asked.deleted|2|{"v": 12, "id": 2}|null|null',
	'asked|asked.truncated||null|null|null',
	'asked|asked.created|3|null|{"v": 3, "id": 3}|null' ], 'and are captured where that was asked for');
ok(es_poll(sub { $to->value('SELECT es_horizon() = es_last_position()') eq 't' }), 'the apply worker holds nobody back');
$to->rows('INSERT INTO plain VALUES (4, 4)');
is($to->value(q{SELECT count(*) FROM es_outbox WHERE topic = 'plain'}), 1, "the subscriber's own changes are captured");

# A dump and its restore.
$to->rows('DROP SUBSCRIPTION s');
my $dump = "$PostgreSQL::Test::Utils::tmp_check/dump";
my $before = $to->value('SELECT count(*) FROM es_outbox');
$to->rows('CREATE DATABASE restored');

sub run
{
	my ($name, @command) = @_;
	my ($out, $err) = ('', '');
	local %ENV = $subscriber->_get_env;
	ok(IPC::Run::run(\@command, '>', \$out, '2>', \$err) && $err eq '', $name) or diag($out . $err);
	return;
}
run('dump', 'pg_dump', '-Fc', '-f', $dump, 'postgres');
run('restore', 'pg_restore', '-d', 'restored', '--exit-on-error', $dump);
my $restored = es_connect($subscriber, dbname => 'restored');
is($restored->value('SELECT count(*) FROM es_outbox'), $before, 'a restore publishes nothing');
is($restored->try('INSERT INTO asked VALUES (9, 9)')->{sqlstate}, 'SE008', 'a restored log publishes nothing before it is adopted');
$restored->rows(q{SELECT es_adopt('copied')});
$restored->rows('INSERT INTO asked VALUES (9, 9)');
is($restored->value(q{SELECT payload->'after' FROM es_outbox ORDER BY position DESC LIMIT 1}), '{"v": 9, "id": 9}', 'its triggers fire');
$subscriber->stop;
$publisher->stop;
done_testing();
