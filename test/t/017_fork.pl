# 017_fork: the same positions never stand for two things.
#
# A log gets a second life where a recovery ends early, a standby that was behind is promoted, a cluster or a database is
# copied, or a dump is restored. Each is made here for real. Where the server can know that the old life is over for it,
# a new incarnation begins by itself, far beyond anything the old one can have drawn. Where only a person can know,
# appends and fetches are refused with SE008 until that person has said what became of the original.
use strict;
use warnings;
use Test::More;

use IPC::Run;

use EsTest;

my $gap = 4294967296;
my $tmp = $PostgreSQL::Test::Utils::tmp_check;
my $node = es_cluster('original', 'wal_level = logical', 'max_wal_senders = 8', 'max_replication_slots = 8',
	'hot_standby = on', 'es_pg.event_chunk_size = 1000');
$node->enable_archiving;
$node->restart;
my $db = es_connect($node);

sub append { my ($session, $stream) = @_; return $session->try("SELECT position FROM es_append('$stream', 'E', '{}')") }
sub appended { my ($session, $stream) = @_; return append($session, $stream)->{rows}[0][0] }
sub life { my ($session) = @_; return $session->value('SELECT es_incarnation()') }

# A subscriber has to be told what it gets in which life.
sub lives { my ($session) = @_; return { map { @$_ } $session->rows(q{SELECT position, incarnation FROM es_fetch('all', 'c', 1000000)}) } }

sub refused
{
	my ($session, $name) = @_;
	my $last = $session->value('SELECT max(position) FROM es_events');
	for my $sql ("SELECT es_append('order-1', 'E', '{}')", "SELECT * FROM es_fetch('all', 'c')")
	{
		my $answer = $session->try($sql);
		is($answer->{sqlstate}, 'SE008', "$name: refused: $sql");
		like($answer->{hint} // '', qr/es_adopt\('moved'\).*es_adopt\('copied'\)/, "$name: with advice");
	}
	is($session->value('SELECT max(position) FROM es_read_all(0, 1000000)'), $last, "$name: the log can be read");
	return;
}

# The number above which nobody here can have seen one, then go on as a copy or as the original.
sub adopt
{
	my ($session, $how, $name, $above) = @_;
	my $before = life($session);
	my $first = $session->value('SELECT incarnation FROM es_incarnations ORDER BY ordinal LIMIT 1');

	$session->rows('BEGIN');
	my $after = $session->value("SELECT es_adopt('$how')");
	$session->rows('ROLLBACK');
	is($after, life($session), "$name: es_adopt('$how') returns what is in force, even if its caller rolls back");
	($how eq 'moved' ? \&is : \&isnt)->($after, $before, "$name: the incarnation is " . ($how eq 'moved' ? 'kept' : 'a new one'));
	my $position = appended($session, 'order-1');
	cmp_ok($position, '>', $above, "$name: the next position is beyond the original's");
	my $lives = lives($session);
	is($lives->{$position}, $after, "$name: what comes now belongs to it");
	is($lives->{1}, $first, "$name: what was there belongs where it belonged");
	es_events_sound($session, $name);
	return;
}

$db->rows("SELECT es_create_subscription('all', 'beginning')");
appended($db, "order-$_") for 1 .. 5;
my $first_life = life($db);
is_deeply({ map { $_ => 1 } values %{ lives($db) } }, { $first_life => 1 }, 'one life so far');
like($db->try("SELECT es_adopt('moved')")->{rows}[0][0], qr/^\Q$first_life\E$/, 'nothing to adopt where nothing happened');
is($db->try('SELECT es_adopt(NULL)')->{sqlstate}, '22004', 'es_adopt(NULL)');
is($db->try("SELECT es_adopt('Moved')")->{sqlstate}, '22023', 'an answer that is none');

# Stops, crashes and a new name are no second life.
$db->rows('CREATE DATABASE renamed');
{
	my $other = es_connect($node, dbname => 'renamed');
	$other->rows('CREATE EXTENSION es_pg');
	appended($other, 'a-1');
	$other->close;
	$db->rows('ALTER DATABASE renamed RENAME TO anew');
	$db->close;
	$node->restart;
	$node->stop('immediate');
	$node->start;
	$db = es_connect($node);
	$other = es_connect($node, dbname => 'anew');
	is(append($_, 'a-1')->{sqlstate}, undef, 'restart, crash and a new name: goes on') for $db, $other;
	is($other->value('SELECT count(*) FROM es_incarnations'), 1, 'in its one life');
	$other->close;
}

# A backup of this moment; then the original goes on: behind a standby's back, and past a recovery's target.
$node->backup('base');
my $standby = PostgreSQL::Test::Cluster->new('standby');
$standby->init_from_backup($node, 'base', has_streaming => 1);
$standby->append_conf('postgresql.conf', 'archive_mode = off');
$standby->start;
$node->wait_for_catchup($standby);
my $old = $db->value('SELECT es_last_position()');
$db->rows(q{SELECT pg_create_restore_point('here')});
$standby->append_conf('postgresql.conf', "primary_conninfo = ''");
$standby->reload;
es_poll(sub { $standby->safe_psql('postgres', 'SELECT count(*) FROM pg_stat_wal_receiver') eq '0' }) or die 'the standby still receives';
$db->rows(q{SELECT es_append_batch('lost-1', array_fill('E'::text, ARRAY[40000]), array_fill('1'::jsonb, ARRAY[40000]))});
my $drawn = $db->value('SELECT es_last_position()');
my $wal = $db->value('SELECT pg_walfile_name(pg_switch_wal())');
es_poll(sub { ($db->value('SELECT last_archived_wal FROM pg_stat_archiver') // '') ge $wal }) or die 'WAL is not archived';

# Promotion of a standby that was behind.
$standby->promote;
{
	my $new = es_connect($standby);
	is($new->value('SELECT max(position) FROM es_events'), $old, 'standby: it was behind');
	is_deeply({ map { $_ => 1 } values %{ lives($new) } }, { $first_life => 1 }, 'standby: what it has is of the old life, and is handed out');
	my $position = appended($new, 'order-1');
	cmp_ok($position, '>', $drawn, 'standby: the next position is beyond all that the old primary drew');
	isnt(life($new), $first_life, 'standby: in a new incarnation');
	is(lives($new)->{$position}, life($new), 'standby: and is handed out as such');
	is($new->value('SELECT count(*) FROM es_incarnations'), 2, 'standby: one more life');
	appended($new, "order-$_") for 1 .. 3;
	$new->close;
	$standby->restart;
	$new = es_connect($standby);
	appended($new, 'order-1');
	is($new->value('SELECT count(*) FROM es_incarnations'), 2, 'standby: a restart begins none');
	es_events_sound($new, 'standby');
	$new->close;
}
is(life($db), $first_life, 'the old primary lives on in the first one');
appended($db, 'order-1');
$standby->stop;

# Recovery to an earlier point in time.
my $pitr = PostgreSQL::Test::Cluster->new('pitr');
$pitr->init_from_backup($node, 'base', has_restoring => 1, standby => 0);
$pitr->append_conf('postgresql.conf', "recovery_target_name = 'here'\nrecovery_target_action = promote\narchive_mode = off");
$pitr->start;
es_poll(sub { $pitr->safe_psql('postgres', 'SELECT pg_is_in_recovery()') eq 'f' }) or die 'recovery does not end';
{
	my @writers = map { es_connect($pitr) } 1 .. 4;
	$writers[$_]->send("SELECT position FROM es_append('order-$_', 'E', '{}')") for 0 .. 3;
	my @positions = map { $_->receive(60)->{rows}[0][0] } @writers;
	cmp_ok($_, '>', $drawn, 'recovery: a position beyond all that were drawn later') for @positions;
	is($writers[0]->value('SELECT count(*) FROM es_incarnations'), 2, 'recovery: four writers at once begin one new life');
	isnt(life($writers[0]), $first_life, 'recovery: it is another one');
	es_events_sound($writers[0], 'recovery');
	$_->close for @writers;
}
$pitr->stop;

# A clone of the cluster's files, started beside the original.
sub clone
{
	my ($name) = @_;
	my $clone = PostgreSQL::Test::Cluster->new($name);
	$node->backup($name);
	$clone->init_from_backup($node, $name);
	$clone->append_conf('postgresql.conf', 'archive_mode = off');
	$clone->start;
	return $clone;
}
SKIP:
{
	skip 'this file system does not tell when a file was born', 1
	  if $db->value('SELECT directory FROM es_incarnations ORDER BY ordinal DESC LIMIT 1') eq '0';
	for my $how ('copied', 'moved')
	{
		my $clone = clone("clone_$how");
		my $session = es_connect($clone);
		refused($session, "clone, $how");
		adopt($session, $how, "clone, $how", $db->value('SELECT es_last_position()'));
		$session->close;
		$clone->restart;
		$session = es_connect($clone);
		is(append($session, 'order-1')->{sqlstate}, undef, "clone, $how: adopted once is enough");
		$session->close;
		$clone->stop;
	}
}

# A database made after another's template.
$db->close;
$node->safe_psql('template1', 'CREATE DATABASE twin TEMPLATE postgres');
$db = es_connect($node);
{
	my $twin = es_connect($node, dbname => 'twin');
	refused($twin, 'template');
	adopt($twin, 'copied', 'template', $db->value('SELECT es_last_position()'));
	is($twin->try("SELECT es_adopt('moved')")->{sqlstate}, undef, 'template: nothing more to say');
	$twin->close;
	is(append($db, 'order-1')->{sqlstate}, undef, 'template: the original goes on');
}

# A dump, restored beside its original, and in its original's place.
sub client
{
	my ($server, @command) = @_;
	local %ENV = $server->_get_env;
	my ($out, $err) = ('', '');
	IPC::Run::run(\@command, '>', \$out, '2>', \$err) or die "@command: $err";
	return;
}
client($node, 'pg_dump', '-Fc', '-f', "$tmp/dump", 'postgres');
my $dumped = $db->value('SELECT es_last_position()');
appended($db, 'late-1') for 1 .. 3;
for my $case ([ 'beside', $node, 'beside', 'copied' ], [ 'elsewhere', $standby, 'elsewhere', 'moved' ])
{
	my ($name, $server, $dbname, $how) = @$case;
	$server->start if $server != $node;
	$server->safe_psql('postgres', "CREATE DATABASE $dbname");
	client($server, 'pg_restore', '--exit-on-error', '-d', $dbname, "$tmp/dump");
	my $session = es_connect($server, dbname => $dbname);
	refused($session, "dump, $name");
	adopt($session, $how, "dump, $name", $db->value('SELECT es_last_position()'));
	$session->close;
}
{
	$node->safe_psql('postgres', 'CREATE DATABASE place');
	client($node, 'pg_restore', '--exit-on-error', '-d', 'place', "$tmp/dump");
	my $session = es_connect($node, dbname => 'place');
	$session->rows("SELECT es_adopt('copied')");
	client($node, 'pg_dump', '-Fc', '-f', "$tmp/second", 'place');
	appended($session, 'gone-1') for 1 .. 3;
	my $above = $session->value('SELECT es_last_position()');
	$session->close;
	client($node, 'pg_restore', '--exit-on-error', '--clean', '-d', 'place', "$tmp/second");
	$session = es_connect($node, dbname => 'place');
	refused($session, 'dump, in place');
	adopt($session, 'moved', 'dump, in place', $above);
	$session->close;
}

# A logical subscriber has the rows, and neither the sequence nor a life of its own.
my $subscriber = es_cluster('subscriber', 'max_logical_replication_workers = 4', 'es_pg.event_chunk_size = 1000000');
{
	my $session = es_connect($subscriber);
	my $connection = $node->connstr('postgres');
	$connection =~ s/'/''/g;
	$session->rows("SELECT es_create_subscription('all', 'beginning')");
	$session->rows('SELECT es_prepare_chunks()');
	$db->rows('CREATE PUBLICATION log FOR TABLE es_events, es_streams, es_stream_chunks WITH (publish_via_partition_root)');
	$session->rows("CREATE SUBSCRIPTION log CONNECTION '$connection' PUBLICATION log");
	my $last = $db->value('SELECT max(position) FROM es_events');
	ok(es_poll(sub { $session->value(q{SELECT count(*) FROM pg_subscription_rel WHERE srsubstate = 'r'}) == 3 }, 120), 'subscriber: the tables came over');
	my $version = $db->value("SELECT es_stream_version('order-1')");
	my $answer = append($session, 'order-1');
	is($answer->{sqlstate}, 'SE008', 'subscriber: refused');
	is($session->try("SELECT * FROM es_fetch('all', 'c')")->{sqlstate}, 'SE008', 'subscriber: fetch too');
	is($session->try("SELECT es_adopt('moved')")->{sqlstate}, '55000', 'subscriber: there is no incarnation to keep');
	$session->rows('DROP SUBSCRIPTION log');
	isnt($session->value("SELECT es_adopt('copied')"), $first_life, 'subscriber: a life of its own');
	my ($row) = $session->rows("SELECT version, position FROM es_append('order-1', 'E', '{}')");
	is($row->[0], $version + 1, 'subscriber: versions go on');
	cmp_ok($row->[1], '>', $last, 'subscriber: and positions beyond those it got');
	es_events_sound($session, 'subscriber');
	$session->close;
}
$subscriber->stop;

# Two adopt at once: the second finds it done, or does it once more; nobody is left out.
$db->close;
$node->safe_psql('template1', 'CREATE DATABASE third TEMPLATE postgres');
{
	my ($one, $two) = map { es_connect($node, dbname => 'third') } 1 .. 2;
	$_->send("SELECT es_adopt('moved')") for $one, $two;
	my @ids = map { $_->receive(60)->{rows}[0][0] } $one, $two;
	is($ids[0], $ids[1], 'two adopt: one incarnation');
	is(append($_, 'order-1')->{sqlstate}, undef, 'two adopt: both may append') for $one, $two;
	is($two->value('SELECT count(*) - count(DISTINCT ordinal) FROM es_incarnations'), 0, 'two adopt: no ordinal twice');

	# Said of a log at work, it holds for whatever is drawn from then on, and each position keeps its life.
	my @writers = map {
		my $w = $_;
		es_fork("writer$w", sub {
				my $session = es_connect($node, dbname => 'third');
				$session->rows("SELECT es_append_batch('busy-$w', array_fill('E'::text, ARRAY[11000]), array_fill('1'::jsonb, ARRAY[11000]))") for 1 .. 30;
			});
	} 1 .. 3;
	my %life;
	my $wrong = 0;
	for (1 .. 8)
	{
		my $id = $one->value("SELECT es_adopt('copied')");
		my $after = $one->value('SELECT max(after_position) FROM es_incarnations');
		$wrong++ if appended($two, 'order-2') <= $after;
		for my $row ($one->rows("SELECT position, incarnation FROM es_fetch('all', 'c', 1000000) WHERE position % 100 = 0"))
		{
			$wrong++ if ($life{ $row->[0] } //= $row->[1]) ne $row->[1];
		}
	}
	is(scalar(grep { !es_reap($_) } @writers), 0, 'adopted at work: the writers came to their end');
	is($wrong, 0, 'adopted at work: nothing is drawn below, and no position changes its life');
	cmp_ok(scalar keys %life, '>', 100, 'adopted at work: that was looked at');
	es_events_sound($two, 'adopted at work');
}

$standby->stop;
$node->stop;
done_testing();
