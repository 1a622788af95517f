# 014_bad_input: whoever reaches past es_append, and with whatever, is refused clearly, and nothing came of it.
#
# After every refusal the tables hold what they held, nobody is in the registry of writers, and the next append gets the
# next version. What is let through (a restore's COPY, hostile names, batches as large as the limit) is there as given.
use strict;
use warnings;
use Test::More;
use Time::HiRes qw(time);

use EsTest;

my $node = es_cluster('input', 'es_pg.event_chunk_size = 1000');
my $db = es_connect($node);
my $stranger = es_connect($node);
my $appended = 0;

# What is stored, as one text.
my $contents = join ' || ', map { "(SELECT coalesce(md5(string_agg(t::text, '|' ORDER BY t::text)), '') FROM $_ AS t)" }
  qw(es_events es_streams es_stream_chunks es_subscriptions es_cursors es_incarnations es_marks es_outbox);

# A statement is refused with this SQLSTATE; the state is left as it was. A hanging one would be a failure too.
sub refused
{
	my ($session, $sqlstate, $sql, $name) = @_;
	my $before = $db->value("SELECT $contents");
	my $answer = $session->try($sql);
	my $got = $answer->{sqlstate} // 'no error';

	$session->try('ROLLBACK') if $sql =~ /^BEGIN/;
	$name //= $sql;
	$got = 'changed' if $db->value("SELECT $contents") ne $before;
	$got = 'in the registry' if $db->value('SELECT count(*) FROM es_writers()');
	is($got, $sqlstate, $name =~ s/\s+/ /gr) or diag($answer->{message});
	return $answer->{message};
}

# The next append works.
sub goes_on
{
	my ($name) = @_;
	my $answer = $db->try('SELECT version, es_horizon() < a.position FROM es_append(\'order-1\', \'Next\', \'{}\') AS a');

	is_deeply([ $answer->{message}, @{ $answer->{rows} } ], [ undef, [ $appended++, 't' ] ], "$name: the next append works");
	return;
}

goes_on('at the beginning');
$db->rows(q{SELECT es_append_batch('other-1', array_fill('E'::text, ARRAY[1500]), array_fill('1'::jsonb, ARRAY[1500]))});
$db->rows(q{SELECT es_create_subscription('mailer', 'beginning')});
$db->rows(q{SELECT es_ack('mailer', lane, epoch, position) FROM es_fetch('mailer', 'm', 1)});
$db->rows('CREATE ROLE stranger');
$db->rows('CREATE ROLE favoured');
$db->rows('GRANT ALL ON es_events, es_chunks.es_events_0 TO favoured; GRANT USAGE ON SCHEMA es_chunks TO favoured, stranger');
$stranger->rows('SET ROLE stranger');

#
# Without privilege
#
refused($stranger, '42501', "SELECT $_") for q{es_append('order-1', 'E', '{}')}, q{es_append_batch('order-1', '{E}', '{1}')},
  q{es_append_json('order-1', '[{"type": "E", "data": 1}]')}, q{es_read_stream('order-1')}, q{es_read_all()},
  q{es_read_category('order')}, q{es_stream_version('order-1')}, q{es_fetch('mailer', 'm')}, q{es_ack('mailer', 0, 0, 1)},
  q{es_create_subscription('mine', 'end')}, q{es_drop_subscription('mailer')}, 'es_maintain()', 'es_prepare_chunks()',
  'es_horizon()', 'es_last_position()', 'es_incarnation()', 'es_writers()', 'es_in_flight()', 'nextval(\'es_position_bound\')',
  'setval(\'es_position_bound\', 99)';
for my $table (qw(es_events es_chunks.es_events_0 es_outbox es_chunks.es_outbox_0 es_streams es_stream_chunks es_subscriptions
	es_cursors es_incarnations es_marks))
{
	$db->rows('SELECT es_prepare_chunks(0)');
	refused($stranger, '42501', $_) for "INSERT INTO $table SELECT", "UPDATE $table SET tableoid = 0" =~ s/tableoid = 0/${\column($table)} = DEFAULT/r,
	  "DELETE FROM $table", "TRUNCATE $table", "SELECT * FROM $table", "COPY $table FROM STDIN", "COPY $table TO STDOUT",
	  "BEGIN; LOCK TABLE $table IN SHARE MODE", "INSERT INTO $table SELECT ON CONFLICT DO NOTHING",
	  "MERGE INTO $table USING (SELECT 1) AS s ON true WHEN MATCHED THEN DELETE";
}
goes_on('after strangers');

sub column
{
	my ($table) = @_;
	return $db->value("SELECT attname FROM pg_attribute WHERE attrelid = '$table'::regclass AND attnum = 1");
}

#
# Past es_append, with every right: the owner, who is a superuser here, and one who was granted all
#
my $row = q{SELECT 77777777, stream_id, version + 1, recorded_at, category_id, event_id, 'Past', data FROM es_events WHERE position = 1};
my $columns = '(position, stream_id, version, recorded_at, category_id, event_id, type, data)';
for my $table ('es_events', 'es_chunks.es_events_0', 'es_chunks.es_events_1000')
{
	my @writes = (
		"INSERT INTO $table $columns $row",
		"INSERT INTO $table $columns $row LIMIT 0",
		"INSERT INTO $table $columns $row ON CONFLICT DO NOTHING",
		"UPDATE $table SET type = 'Other'",
		"UPDATE ONLY $table SET type = 'Other' WHERE false",
		"DELETE FROM $table",
		"DELETE FROM $table WHERE false",
		"TRUNCATE $table",
		"WITH gone AS (DELETE FROM $table RETURNING *) SELECT count(*) FROM gone",
		"MERGE INTO $table AS t USING es_streams AS s ON t.stream_id = s.stream_id WHEN MATCHED THEN DELETE",
		"MERGE INTO $table AS t USING es_streams AS s ON t.stream_id = s.stream_id WHEN MATCHED THEN UPDATE SET type = 'Other'",
		"MERGE INTO $table AS t USING ($row) AS s (p, i, v, r, c, e, t, d) ON t.position = s.p WHEN NOT MATCHED THEN
			INSERT $columns VALUES (p, i, v, r, c, e, s.t, d)",
		"DO \$\$ BEGIN EXECUTE 'COPY $table FROM PROGRAM ''true'''; END \$\$");
	push @writes, "INSERT INTO $table $columns $row ON CONFLICT (position) DO UPDATE SET type = 'Other'" if $table ne 'es_events';

	refused($db, 'SE003', $_) for @writes;
	$db->rows('SET session_replication_role = replica');
	refused($db, 'SE003', $_, "as a replica: $_") for @writes[ 0, 3, 5, 7 ];
	$db->rows('RESET session_replication_role');
	next if $table eq 'es_chunks.es_events_1000';
	$stranger->rows('RESET ROLE');
	$stranger->rows('SET ROLE favoured');
	refused($stranger, 'SE003', $_, "granted: $_") for @writes[ 0, 3, 5, 7 ];
}
$db->rows('CREATE VIEW window_on AS SELECT * FROM es_events; CREATE TABLE loaded (n integer)');
$db->rows("CREATE FUNCTION sneak() RETURNS trigger LANGUAGE plpgsql AS \$\$ BEGIN INSERT INTO es_events $columns $row; RETURN NEW; END \$\$");
$db->rows('CREATE TRIGGER sneak BEFORE INSERT ON loaded FOR EACH ROW EXECUTE FUNCTION sneak()');
refused($db, 'SE003', "INSERT INTO window_on $columns $row");
refused($db, 'SE003', 'DELETE FROM window_on');
refused($db, 'SE003', 'INSERT INTO loaded VALUES (1)', 'by a trigger');
{
	my ($out, $err);
	$node->psql('postgres', "COPY loaded FROM STDIN;\n1\n\\.\n", stderr => \$err, extra_params => [ '-v', 'VERBOSITY=sqlstate' ]);
	like($err, qr/SE003/, 'by a trigger on what a COPY loads');
}
$db->rows("CREATE FUNCTION slip_in() RETURNS integer LANGUAGE plpgsql AS \$\$ BEGIN INSERT INTO es_events $columns $row; RETURN 1; END \$\$");
refused($db, 'SE003', "COPY (INSERT INTO es_events $columns $row RETURNING position) TO STDOUT");
refused($db, 'SE003', 'COPY (SELECT slip_in()) TO STDOUT');
refused($db, 'SE003', $_) for 'DELETE FROM es_streams', q{DELETE FROM es_streams WHERE name = 'order-1'}, 'TRUNCATE es_streams',
  q{UPDATE es_streams SET name = 'order-2' WHERE name = 'order-1'}, 'UPDATE es_streams SET stream_id = stream_id + 1',
  'UPDATE es_streams SET first_chunk = 0', 'UPDATE es_streams SET category_id = 0';
is($db->try(q{UPDATE es_streams SET truncate_before = 0 WHERE name = 'order-1'})->{message}, undef, 'a stream may be limited');
goes_on('after those with every right');

# The column names of what a role may not see are not in the messages of a refused append, nor is it slow to say so.
refused($db, '25006', q{BEGIN READ ONLY; SELECT es_append('order-1', 'E', '{}')});
refused($db, '25006', q{BEGIN READ ONLY; SELECT es_ack('mailer', 0, 0, 2)});

# A restore's COPY is let through, into the parent and into a chunk, and so is a dump that uses INSERT as a whole.
for my $table ('es_events', 'es_chunks.es_events_0')
{
	my ($out, $err) = ('', '');
	my $now = $db->value('SELECT now()');
	$node->psql('postgres', "BEGIN;\nCOPY $table $columns FROM STDIN;\n0\t1\t777\t$now\t0\t00000000-0000-0000-0000-000000000001\tCopied\t{}\n\\.\n"
		. "SELECT count(*) FROM es_events WHERE type = 'Copied';\nROLLBACK;\n", stdout => \$out, stderr => \$err);
	is($out . $err, '1', "COPY into $table");
}
{
	my $dump = "$PostgreSQL::Test::Utils::tmp_check/inserts.sql";
	$node->command_ok([ 'pg_dump', '--inserts', '--file', $dump, 'postgres' ], 'pg_dump --inserts');
	$db->rows('CREATE DATABASE inserted');
	$node->command_ok([ 'psql', '-X', '-q', '-o', '/dev/null', '-v', 'ON_ERROR_STOP=1', '-d', 'inserted', '-f', $dump ], 'and its restore');
	my $copy = es_connect($node, dbname => 'inserted');
	is($copy->value("SELECT $contents"), $db->value("SELECT $contents"), 'has everything');
	$copy->rows(q{SELECT es_adopt('moved')});
	is($copy->value(q{SELECT version FROM es_append('order-1', 'Next', '{}')}), $appended, 'and goes on');
	is($copy->try('INSERT INTO es_events SELECT * FROM es_events')->{sqlstate}, 'SE003', 'and is guarded again');
	$copy->close;
}
goes_on('after a restore');

#
# What an append would pass by: on the parent, on the chunk that is written to, on the registry of streams
#
$db->rows('CREATE FUNCTION nothing() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NEW; END $$');
$db->rows(q{CREATE TABLE types (type text COLLATE "C" PRIMARY KEY); INSERT INTO types SELECT DISTINCT type FROM es_events});
$db->rows(q{CREATE TABLE names (name text COLLATE "C" PRIMARY KEY); INSERT INTO names SELECT name FROM es_streams});
my $leaf = 'es_chunks.es_events_1000';
my @old = (q{es_append('order-1', 'E', '{}')}, q{es_append_batch('order-1', '{E,E}', '{1,2}')},
	q{es_append_json('order-1', '[{"type": "E", "data": 1}]')});
my @new = map { s/order-1/new-1/r } @old;

for my $case (
	(map { my $t = $_;
		([ $t, "CREATE TRIGGER mine BEFORE INSERT ON $t FOR EACH ROW EXECUTE FUNCTION nothing()", "DROP TRIGGER mine ON $t" ],
		[ $t, "CREATE TRIGGER mine AFTER INSERT ON $t FOR EACH ROW EXECUTE FUNCTION nothing()", "DROP TRIGGER mine ON $t" ],
		[ $t, "CREATE TRIGGER mine BEFORE INSERT ON $t FOR EACH STATEMENT EXECUTE FUNCTION nothing()", "DROP TRIGGER mine ON $t" ],
		[ $t, "CREATE TRIGGER mine AFTER INSERT ON $t REFERENCING NEW TABLE AS n FOR EACH STATEMENT EXECUTE FUNCTION nothing()", "DROP TRIGGER mine ON $t" ],
		[ $t, "CREATE TRIGGER mine AFTER INSERT OR UPDATE ON $t EXECUTE FUNCTION nothing()", "DROP TRIGGER mine ON $t" ],
		[ $t, "CREATE CONSTRAINT TRIGGER mine AFTER INSERT ON $t DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION nothing()", "DROP TRIGGER mine ON $t" ],
		[ $t, "ALTER TABLE $t ENABLE ROW LEVEL SECURITY", "ALTER TABLE $t DISABLE ROW LEVEL SECURITY" ],
		[ $t, "ALTER TABLE $t ENABLE ROW LEVEL SECURITY; ALTER TABLE $t FORCE ROW LEVEL SECURITY; CREATE POLICY mine ON $t FOR INSERT WITH CHECK (false)",
			"DROP POLICY mine ON $t; ALTER TABLE $t DISABLE ROW LEVEL SECURITY" ],
		[ $t, "CREATE RULE mine AS ON INSERT TO $t DO ALSO NOTIFY mine", "DROP RULE mine ON $t" ],
		[ $t, "CREATE RULE mine AS ON INSERT TO $t DO INSTEAD NOTHING", "DROP RULE mine ON $t" ]) } 'es_events', $leaf, 'es_streams'),
	(map { my ($t, $c, $f) = @$_;
		([ $t, "ALTER TABLE $t ADD CONSTRAINT mine CHECK ($c <> 'never')", "ALTER TABLE $t DROP CONSTRAINT mine" ],
		[ $t, "ALTER TABLE $t ADD CONSTRAINT mine FOREIGN KEY ($c) REFERENCES $f", "ALTER TABLE $t DROP CONSTRAINT mine" ]) }
		[ 'es_events', 'type', 'types' ], [ $leaf, 'type', 'types' ], [ 'es_streams', 'name', 'names' ]),
	(map { my ($t, $c) = @$_;
		([ $t, "ALTER TABLE $t ADD upper_$c text GENERATED ALWAYS AS (upper($c)) STORED", "ALTER TABLE $t DROP upper_$c" ],
		[ $t, "ALTER TABLE $t ADD mine text DEFAULT 'mine'", "ALTER TABLE $t DROP mine" ],
		[ $t, "ALTER TABLE $t ADD mine text NOT NULL DEFAULT 'mine'", "ALTER TABLE $t DROP mine" ]) }
		[ 'es_events', 'type' ], [ 'es_streams', 'name' ]),
	[ $leaf, "ALTER TABLE $leaf ADD CONSTRAINT mine UNIQUE (position) DEFERRABLE", "ALTER TABLE $leaf DROP CONSTRAINT mine" ],
	[ $leaf, "ALTER TABLE $leaf ADD CONSTRAINT mine EXCLUDE (position WITH =)", "ALTER TABLE $leaf DROP CONSTRAINT mine" ])
{
	my ($table, $do, $undo) = @$case;

	$db->rows($do);
	refused($db, '0A000', "SELECT $_", "$do: $_") for $table eq 'es_streams' ? () : ($old[0], $old[1]), $new[0], $new[2];
	$db->rows($undo);
	goes_on($undo);
}
# In the same transaction too, and the same of the tables that are written on the side.
refused($db, '0A000', "BEGIN; ALTER TABLE es_events ENABLE ROW LEVEL SECURITY; SELECT $old[0]");
$db->rows('CREATE TRIGGER mine BEFORE INSERT ON es_cursors FOR EACH ROW EXECUTE FUNCTION nothing()');
refused($db, '0A000', q{SELECT es_ack('mailer', lane, epoch, position) FROM es_fetch('mailer', 'm', 1)});
$db->rows('DROP TRIGGER mine ON es_cursors');
$db->rows('CREATE TRIGGER mine BEFORE INSERT ON es_stream_chunks FOR EACH ROW EXECUTE FUNCTION nothing()');
refused($db, '0A000', q{SELECT es_append_batch('order-1', array_fill('E'::text, ARRAY[2500]), array_fill('1'::jsonb, ARRAY[2500]))});
$db->rows('DROP TRIGGER mine ON es_stream_chunks');
goes_on('after obstacles on the side');

# Triggers on what never happens are no obstacle, and one that refuses DDL says so itself.
$db->rows('CREATE TRIGGER mine BEFORE UPDATE OR DELETE ON es_events FOR EACH ROW EXECUTE FUNCTION nothing()');
goes_on('a trigger on UPDATE');
$db->rows('DROP TRIGGER mine ON es_events');
$db->rows(q{CREATE FUNCTION no_ddl() RETURNS event_trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'no DDL' USING ERRCODE = 'P0815'; END $$});
$db->rows(q{CREATE EVENT TRIGGER no_ddl ON ddl_command_start WHEN TAG IN ('CREATE TABLE') EXECUTE FUNCTION no_ddl()});
my $ahead = 20000;
refused($db, 'P0815', "SELECT es_append_batch('order-1', array_fill('E'::text, ARRAY[$ahead]), array_fill('1'::jsonb, ARRAY[$ahead]))",
	'an event trigger that refuses CREATE TABLE');
$db->rows('DROP EVENT TRIGGER no_ddl');
$db->rows("SELECT es_append_batch('order-1', array_fill('E'::text, ARRAY[$ahead]), array_fill('1'::jsonb, ARRAY[$ahead]))");
$appended += $ahead;
goes_on('after a refused chunk');

#
# Hostile names
#
my @names = (q{it's-1}, q{"quoted"-"1"}, q{%s%n%d%m%-%s}, q{back\\slash-\\1}, q{; DROP TABLE es_events; --}, q{$1-$2}, q{$$-$$}, q{:name-:'x'},
	'{}', '{"a":1}-[]', 'NULL', 'null-null', '  ', ' -  ', '*', '_-%', '<a>-&amp;', "\x{fc}\x{f1}\x{ef}-\x{2603}", "\x{1f4a9}-\x{1f980}",
	"\x{202e}rtl-\x{200b}", "e\x{301}-1", "\x{e9}-1", "\x{ffff}-\x{10ffff}", 'a' . '-' x 1023, '%' x 1024, "\x{20ac}" x 341 . '-', 'x-' . '"' x 1022);
utf8::encode($_) for @names;
for my $name (@names)
{
	my $text = EsSession::literal($name);
	my $short = length $name > 40 ? substr($name, 0, 20) . '... ' . length($name) . ' bytes' : $name;
	my ($category) = map { EsSession::literal(/^(.+?)-/s ? $1 : $_) } $name;
	my ($position) = map { $_->[1] } $db->rows("SELECT version, position FROM es_append($text, $text, to_jsonb($text\::text), -1,
		to_jsonb($text\::text), correlation_id => $text, causation_id => $text, schema_version => $text)");

	is_deeply([ map { [ $db->rows("SELECT stream, type, data #>> '{}', metadata #>> '{}', schema_version, correlation_id, causation_id, position FROM $_") ] }
			"es_read_stream($text)", "es_read_category($category)", "es_read_all(0, 10, ARRAY[$category], ARRAY[$text])" ],
		[ ([ [ ($name) x 7, $position ] ]) x 3 ], "as a name: $short");
	is($db->value("SELECT es_stream_version($text)"), 0, 'and its version');
	my $answer = $db->try("SELECT es_append($text, 'E', '1', 7)");
	is_deeply([ @$answer{qw(sqlstate message)} ], [ 'SE001', qq{wrong expected version for stream "$name"} ], 'a conflict has it in its message');
	$db->rows("SELECT es_create_subscription($text, 'beginning', categories => ARRAY[$category], types => ARRAY[$text])");
	is_deeply([ $db->rows("SELECT topic, key, type FROM es_fetch($text, $text)") ], [ [ $db->value("SELECT es_category($text)"), $name, $name ] ],
		'a subscription of that name has it');
	$db->rows("SELECT es_ack($text, lane, epoch, position) FROM es_fetch($text, $text)");
	is($db->try("SELECT es_ack($text, 1, 0, $position)")->{message}, qq{subscription "$name" has no lane 1}, 'and says so');
	$db->rows("SELECT es_drop_subscription($text)");
	is($db->try("SELECT es_ack($text, 0, 0, $position)")->{message}, qq{subscription "$name" does not exist}, 'when it is gone');
}
{
	my $hostile = qq{Wei rd%s%n, (\x{2603})};
	utf8::encode($hostile);
	$db->rows(qq{CREATE DATABASE "$hostile"});
	$db->rows(qq{CREATE ROLE "$hostile" SUPERUSER});
	my $other = es_connect($node, dbname => $hostile);
	$other->rows(qq{SET ROLE "$hostile"; SET es_pg.event_chunk_size = 100; CREATE SCHEMA "$hostile"; CREATE EXTENSION es_pg SCHEMA "$hostile"});
	is($other->value(qq{SELECT version FROM "$hostile".es_append_batch('a-1', array_fill('E'::text, ARRAY[250]), array_fill('1'::jsonb, ARRAY[250]))}),
		249, 'database, role and schema have a hostile name');
	is($other->value(qq{SELECT count(*) FROM "$hostile".es_read_all()}), 250, 'and it can be read');
	$other->close;
}
goes_on('after hostile names');

#
# lastval() and currval() are the user's.
#
{
	my $fresh = es_connect($node);
	my $large = q{SELECT es_append_batch('last-1', array_fill('E'::text, ARRAY[40000]), array_fill('1'::jsonb, ARRAY[40000]))};
	$fresh->rows($_) for q{SELECT es_append('last-1', 'E', '{}')}, $large;
	is($fresh->try('SELECT lastval()')->{sqlstate}, '55000', 'lastval() is not defined by an append');
	$fresh->rows('CREATE TABLE own (id integer GENERATED BY DEFAULT AS IDENTITY (START 4711), n integer)');
	$fresh->rows('INSERT INTO own (n) VALUES (1)');
	$fresh->rows($_) for q{SELECT es_append('last-1', 'E', '{}')}, q{SELECT es_append('last-2', 'E', '{}')}, $large,
	  q{INSERT INTO own (n) SELECT version FROM es_append('last-1', 'E', '{}')};
	is_deeply([ $fresh->rows(q{SELECT lastval(), currval('own_id_seq')}) ], [ [ 4712, 4712 ] ], 'nor changed by one');
	$fresh->close;
}
es_events_sound($db, 'after all that');
$_->close for $db, $stranger;
$node->stop;

#
# Large: the largest batch, many streams in one transaction, more chunks than there are locks
#
$node = es_cluster('large', 'max_locks_per_transaction = 20', 'max_connections = 10', 'max_wal_senders = 0', 'autovacuum = off',
	'max_worker_processes = 2');
$db = es_connect($node);

sub memory { my ($what) = @_; open my $in, '<', '/proc/' . $db->pid . '/status' or die; return (map { /^$what:\s+(\d+)/ ? $1 : () } <$in>)[0] }

{
	my $n = 1_000_000;
	my $began = time;
	my $answer = $db->try("SELECT version FROM es_append_batch('large-1', array_fill('Event'::text, ARRAY[$n]), array_fill('{\"a\": 1}'::jsonb, ARRAY[$n]))");
	is_deeply($answer->{rows}, [ [ $n - 1 ] ], 'a million events in a batch');
	note(sprintf 'in %.1f s, %d MB', time - $began, memory('RssAnon') / 1024);
	is($db->value(q{SELECT count(*) FROM es_events}), $n, 'all there');
	is($db->value(q{SELECT es_stream_version('large-1')}), $n - 1, 'in their stream');

	my $after = memory('RssAnon');
	$db->rows(q{SELECT es_append_batch('large-2', array_fill('Event'::text, ARRAY[100000]), array_fill('1'::jsonb, ARRAY[100000]))}) for 1 .. 2;
	cmp_ok(memory('RssAnon'), '<', $after + 50_000, 'further batches need no further memory');
	is($db->try("SELECT es_append_batch('large-1', array_fill('E'::text, ARRAY[$n + 1]), array_fill('1'::jsonb, ARRAY[$n + 1]))")->{sqlstate},
		'54000', 'one event more is too many');
}
{
	my $before = memory('RssAnon');
	my $began = time;
	$db->rows('BEGIN');
	$db->rows(q{SELECT max(a.position) FROM generate_series(1, 10000) AS i, es_append('many-' || i, 'E', '{}', -1) AS a});
	cmp_ok($db->value('SELECT count(*) FROM pg_locks WHERE pid = pg_backend_pid()'), '<', 40, '10,000 streams in a transaction need few locks');
	$db->rows(q{SELECT max(a.position) FROM generate_series(1, 10000) AS i, es_append('many-' || i, 'E', '{}', 0) AS a});
	$db->rows('COMMIT');
	note(sprintf '10,000 streams twice in %.1f s, %d MB more', time - $began, (memory('RssAnon') - $before) / 1024);
	is($db->value(q{SELECT count(*) FROM es_streams WHERE name LIKE 'many-%'}), 10000, 'and are all there');
	cmp_ok(memory('RssAnon'), '<', $before + 50_000, 'with little memory');
}
{
	my $n = 100_000;    # 1,000 chunks: the lock table grows into spare shared memory, and took 250 to 350 here
	$db->rows('CREATE DATABASE chunks');
	my $chunks = es_connect($node, dbname => 'chunks');
	$chunks->rows('CREATE EXTENSION es_pg');
	$chunks->rows(q{SET es_pg.event_chunk_size = 100; SELECT es_append('a-1', 'E', '1')});
	my $answer = $chunks->try("SELECT es_append_batch('a-2', array_fill('E'::text, ARRAY[$n]), array_fill('1'::jsonb, ARRAY[$n]))");
	is_deeply([ @$answer{qw(sqlstate message)} ], [ '53200', 'out of shared memory' ], 'more chunks in a transaction than there are locks');
	is($chunks->value('SELECT count(*) FROM es_writers()'), 0, 'and nobody is in flight');
	is($chunks->value('SELECT es_horizon() = es_last_position()'), 't', 'the horizon moves on');
	is($chunks->value(q{SELECT version FROM es_append('a-2', 'E', '1')}), 0, 'the next append works');
	is_deeply([ $chunks->rows('SELECT stream, version FROM es_read_all()') ], [ [ 'a-1', 0 ], [ 'a-2', 0 ] ],
		'and a read goes through all the chunks with nothing in them');
	$chunks->close;
}

#
# At the end of all positions
#
{
	my $end = '9223372036854775807';
	$db->rows('CREATE DATABASE last');
	my $last = es_connect($node, dbname => 'last');
	$last->rows(q{SET statement_timeout = '60 s'; SET es_pg.event_chunk_size = 100; SET es_pg.outbox_chunk_size = 100; CREATE EXTENSION es_pg});
	$last->rows(q{SELECT es_append('order-1', 'First', '1')});
	$last->rows(qq{SELECT setval('es_position_bound', $end - 260)});

	# The one who finds what was reserved used up finds the sequence elsewhere.
	is($last->try(q{SELECT es_append_batch('order-1', array_fill('E'::text, ARRAY[40000]), array_fill('1'::jsonb, ARRAY[40000]))})->{sqlstate},
		'2200H', 'more than are left');
	is_deeply([ $last->rows(q{SELECT version, position FROM es_append('order-1', 'E', '1')}) ], [ [ 1, '9223372036854775548' ] ], 'one fits');
	$last->rows(q{SELECT es_create_subscription('end', '9223372036854775548')});
	is($last->value('SELECT es_prepare_chunks(5) > 0'), 't', 'chunks can be made up to the end');
	is($last->value('SELECT es_prepare_chunks(5)'), 0, 'and no further');
	is_deeply([ $last->rows(q{SELECT version, position FROM es_append_batch('order-2', array_fill('E'::text, ARRAY[200]), array_fill('1'::jsonb, ARRAY[200]))}) ],
		[ [ 199, '9223372036854775748' ] ], 'a batch across their last chunks');
	is_deeply([ $last->rows(q{SELECT max(position), count(*) FROM es_fetch('end', 'e')}) ], [ [ '9223372036854775748', 200 ] ], 'is fetched');
	$last->rows(q{SELECT es_ack('end', lane, epoch, position) FROM es_fetch('end', 'e')});
	is($last->value(q{SELECT max(position) FROM es_append('order-3', 'E', '1') AS a, generate_series(1, 1)}), '9223372036854775750', 'and acknowledged');
	is($last->value(q{SELECT a.position FROM es_append_batch('order-3', array_fill('E'::text, ARRAY[56]), array_fill('1'::jsonb, ARRAY[56])) AS a}),
		'9223372036854775806', 'up to the very last');
	for my $try (1, 2)
	{
		is($last->try(q{SELECT es_append('order-3', 'E', '1')})->{sqlstate}, '2200H', 'then there are no more');
		is($last->try(q{SELECT es_append('order-4', 'E', '1')})->{sqlstate}, '2200H', 'for a new stream neither');
	}
	is_deeply([ $last->rows('SELECT es_horizon(), es_last_position(), (SELECT count(*) FROM es_writers())') ], [ [ '9223372036854775806', '9223372036854775806', 0 ] ],
		'the horizon is there');
	is($last->value("SELECT count(*) FROM es_read_all($_)"), 0, "nothing is to be read after $_") for '9223372036854775806', $end;
	is($last->value('SELECT es_prepare_chunks(5)'), 0, 'there are no chunks beyond');
	is($last->value(q{SELECT count(*) FROM es_fetch('end', 'e', 1000)}), 57, 'the rest is fetched');
	es_events_sound($last, 'at the end of positions');

	# The highest value a sequence can have.
	$last->rows(qq{SELECT setval('es_position_bound', $end)});
	is($last->try(q{SELECT es_append('order-3', 'E', '1')})->{sqlstate}, '2200H', 'the sequence beyond the end');
	$last->close;
}
$db->close;
$node->stop;
done_testing();
