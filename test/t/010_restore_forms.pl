# 010_restore_forms: the restores that people do besides the plain one, into a cluster that is younger than the dump.
#
# The log comes from an old server: its transaction ids, OIDs and WAL are far ahead of the new one's, so whatever took one of
# those for an order would go wrong here. It belongs to a role that the new server does not have. It is restored by
# sections, over a newer state of itself under open sessions, from data alone in a plain file and through the parents, with
# triggers disabled, by schemas, into another schema, and by pg_dumpall. Each time the log is what it was, history cannot
# be changed, and the next append continues. What cannot work fails loudly.
use strict;
use warnings;
use Test::More;

use EsRestore;
use EsTest;

my $tmp = $PostgreSQL::Test::Utils::tmp_check;
my @conf = ('es_pg.event_chunk_size = 100', 'es_pg.outbox_chunk_size = 100');
my $old = es_cluster('old', @conf);
my $young = es_cluster('young', @conf);
my $control = es_connect($young);

# A new database, and a connection that finds the extension in this schema, whether it is there yet or not.
sub database
{
	my ($name, $schema) = @_;

	$control->rows("CREATE DATABASE $name");
	$control->rows("ALTER DATABASE $name SET search_path = $schema, public");
	return es_connect($young, dbname => $name);
}

# The same with an installation that is empty.
sub installation
{
	my ($name, $schema) = @_;
	my $db = database($name, $schema);

	$db->rows("CREATE SCHEMA $schema");
	$db->rows("CREATE EXTENSION es_pg SCHEMA $schema");
	return $db;
}

sub psql
{
	my ($name, $file) = @_;
	return ('psql', '-X', '-q', '-o', '/dev/null', '-v', 'ON_ERROR_STOP=1', '-d', $name, '-f', $file);
}

# As the README has it: the names of the chunks that a dump of data alone copies into.
sub restore_chunks
{
	my ($name, $file, $db) = @_;
	open my $in, '<', $file or die "$file: $!";
	my $names = join ',', map { /^COPY es_chunks\.(\w+)/ ? $1 : () } <$in>;

	cmp_ok($db->value("SELECT es_restore_chunks('{$names}')"), '>', 10, "$name: the chunks are made");
	is($db->value("SELECT es_restore_chunks('{$names}')"), 0, "$name: once");
	return;
}

# What a cluster numbers by.
sub age
{
	my ($node) = @_;
	my ($row) = es_connect($node)->rows(q{SELECT pg_current_xact_id()::text::numeric, pg_current_wal_lsn() - '0/0',
		(SELECT max(oid::bigint) FROM pg_database)});
	return @$row;
}

# A server with a history.
$old->stop;
es_run('the old server ages', $old, 'pg_resetwal', '-e', '7', '-o', '3000000000', '-l', '0000000100000070000000A0', '-D', $old->data_dir);
$old->start;
es_connect($old)->rows('CREATE ROLE shop SUPERUSER');
my $source = es_make_log($old, 'log', 'es', 'shop');
my $expected = es_log_contents($source);
my @old = age($old);
my @young = age($young);
cmp_ok($young[$_], '<', $old[$_] / 10, ('transaction ids', 'WAL positions', 'OIDs')[$_] . ' of the young server are far lower') for 0 .. 2;

my %dump = map { $_ => "$tmp/$_" } qw(custom data root schemas one_schema all);
es_run('pg_dump', $old, 'pg_dump', '--format=custom', "--file=$dump{custom}", 'log');
es_run('pg_dump --data-only', $old, 'pg_dump', '--data-only', "--file=$dump{data}", 'log');
es_run('pg_dump --load-via-partition-root', $old, 'pg_dump', '--data-only', '--load-via-partition-root', "--file=$dump{root}", 'log');
es_run('pg_dump of schemas', $old, 'pg_dump', '--schema=es', '--schema=es_chunks', '--extension=es_pg', '--no-owner', "--file=$dump{schemas}", 'log');
es_run('pg_dump of one schema', $old, 'pg_dump', '--schema=es', '--no-owner', "--file=$dump{one_schema}", 'log');
es_run('pg_dumpall', $old, 'pg_dumpall', "--file=$dump{all}");

# By sections, the data in parallel, where its owner does not exist.
my $db = database('sections', 'es');
for my $section ('pre-data', 'data', 'post-data')
{
	es_run("sections: $section", $young, 'pg_restore', '--exit-on-error', '--no-owner', '--no-privileges', "--section=$section",
		'--jobs=' . ($section eq 'pre-data' ? 1 : 3), '-d', 'sections', $dump{custom});
}
es_check_restored('sections', $db, $expected);
is($db->value(q{SELECT count(DISTINCT relowner) FROM pg_class WHERE oid = 'es_events'::regclass OR relnamespace = 'es_chunks'::regnamespace}), 1,
	'sections: old and new chunks have the owner of their parent');

# Over a newer state of itself. One session has all that there was in its caches, another waits for news.
my $listener = es_connect($young, dbname => 'sections');
$listener->rows('LISTEN es_pg');
$listener->rows('SELECT count(*) FROM es_read_all(0, 100000)');
$db->rows(q{SELECT es_append_batch('order-7', array_fill('Later'::text, ARRAY[1500]), array_fill('1'::jsonb, ARRAY[1500]))});
es_run('over itself: pg_restore --clean', $young, 'pg_restore', '--exit-on-error', '--clean', '--if-exists', '--no-owner', '-d', 'sections', $dump{custom});
es_check_restored('over itself', $db, $expected);
is($listener->value(q{SELECT count(*) FROM es_read_all(0, 100000) WHERE type = 'Later'}), 0, 'over itself: what came later is gone for others too');
is($listener->value('SELECT max(position) = es_horizon() FROM es_read_all(0, 100000)'), 't', 'over itself: and they see what is there');
$db->close;
$listener->close;

# Data alone, from a plain file.
$db = installation('data', 'es');
my ($ok, $error) = es_client($young, psql('data', $dump{data}));
ok(!$ok && $error =~ /relation "es_chunks\.es_events_0" does not exist/, 'data: without chunks it fails');
is($db->value('SELECT count(*) FROM es_streams') . $db->value('SELECT count(*) FROM es_events'),
	$db->value('SELECT count(*) FROM es_streams') . 0, 'data: before any event');
$db->rows('DROP EXTENSION es_pg');
$db->rows('CREATE EXTENSION es_pg SCHEMA es');
restore_chunks('data', $dump{data}, $db);
es_run('data: psql', $young, psql('data', $dump{data}));
es_check_restored('data', $db, $expected);
$db->close;

# Through the parents, into chunks that are larger than the ones it was in.
$db = installation('root', 'es');
$db->rows('SET es_pg.event_chunk_size = 600');
is($db->value(q{SELECT es_restore_chunks('{es_chunks.es_events_0,es_events_1200,es_events_600}')}), 3, 'root: three chunks');
es_run('root: psql', $young, psql('root', $dump{root}));
es_check_restored('root', $db, { map { $_ => $expected->{$_} } grep { !/^(chunks|triggers of chunks|keys and indexes)$/ } keys %$expected });
is($db->value(q{SELECT count(*) FROM es_read_stream('order-0', 0, 100000)}),
	$db->value(q{SELECT count(*) FROM es_events JOIN es_streams USING (stream_id) WHERE name = 'order-0'}), 'root: a stream has each event once');
is($db->value(q{SELECT count(*) FROM es_read_stream('order-0', -1, 100000, true)}),
	$db->value(q{SELECT count(*) FROM es_events JOIN es_streams USING (stream_id) WHERE name = 'order-0'}), 'root: backwards too');
$db->close;

# Data alone, with triggers disabled: that makes ordinary triggers of those that fire always.
$db = installation('disabled', 'es');
restore_chunks('disabled', $dump{data}, $db);
es_run('disabled: pg_restore --data-only --disable-triggers', $young, 'pg_restore', '--exit-on-error', '--data-only', '--disable-triggers',
	'-d', 'disabled', $dump{custom});
my $ordinary = q{SELECT count(*) FROM pg_trigger WHERE tgname = 'es_immutable' AND tgenabled = 'O'};
my $weakened = $db->value($ordinary);
cmp_ok($weakened, '>', 10, 'disabled: the triggers of chunks are ordinary ones');
is($db->value('SELECT es_protect_history()'), $weakened, 'disabled: until es_protect_history');
is($db->value($ordinary), 0, 'disabled: then none is');
$db->rows('SET session_replication_role = replica');
is($db->try('DELETE FROM es_chunks.es_events_0')->{sqlstate}, 'SE003', 'disabled: they fire whatever the role of the session');
$db->rows('RESET session_replication_role');
$db->rows('ALTER TABLE es_chunks.es_events_100 DISABLE TRIGGER es_immutable');
is($db->value('SELECT es_protect_history()'), 0, 'disabled: one that somebody disabled stays so');
$db->rows('ALTER TABLE es_chunks.es_events_100 ENABLE ALWAYS TRIGGER es_immutable');
es_check_restored('disabled', $db, $expected);
$db->close;

# By schemas: both, and the extension.
$control->rows('CREATE DATABASE schemas');
es_run('schemas: psql', $young, psql('schemas', $dump{schemas}));
$db = es_connect($young, dbname => 'schemas', options => '-c search_path=es,public');
es_check_restored('schemas', $db, $expected);
$db->close;
$control->rows('CREATE DATABASE one_schema');
($ok, $error) = es_client($young, psql('one_schema', $dump{one_schema}));
ok(!$ok && $error =~ /relation "es\.es_cursors" does not exist/, 'the schema alone is no dump of the log, and fails');

# Into a schema of another name: the data, with the name changed in it.
$db = installation('elsewhere', 'history');
open my $in, '<', $dump{data} or die "$dump{data}: $!";
open my $out, '>', "$tmp/renamed" or die "$tmp/renamed: $!";
while (<$in>)
{
	s/^COPY es\./COPY history./;
	s/^SELECT pg_catalog\.setval\('es\./SELECT pg_catalog.setval('history./;
	print $out $_;
}
close $out;
restore_chunks('elsewhere', "$tmp/renamed", $db);
es_run('elsewhere: psql', $young, psql('elsewhere', "$tmp/renamed"));
es_check_restored('elsewhere', $db, $expected);
$db->close;

# Somebody who may not create the extension.
$control->rows('CREATE ROLE clerk LOGIN CREATEDB');
$control->rows('CREATE DATABASE clerks OWNER clerk');
($ok, $error) = es_client($young, 'pg_restore', '--exit-on-error', '--no-owner', '--role=clerk', '-d', 'clerks', $dump{custom});
ok(!$ok && $error =~ /permission denied to create extension "es_pg"/, 'who may not create the extension cannot restore');

# The whole server. It says that some roles and databases are there already.
es_client($young, 'psql', '-X', '-q', '-d', 'postgres', '-f', $dump{all});
$db = es_connect($young, dbname => 'log');
es_check_restored('pg_dumpall', $db, $expected);
is($db->value(q{SELECT string_agg(DISTINCT pg_get_userbyid(relowner), ',') FROM pg_class
	WHERE oid IN (SELECT tableoid FROM es_events WHERE type = 'Single')}), 'shop', 'pg_dumpall: chunks keep their owner');

is_deeply(es_log_contents($source), $expected, 'the original is as it was');
$old->stop;
$young->stop;
done_testing();
