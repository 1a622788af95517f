# 002_crash: what a crash may not take back, and may not give out again.
#
# First step by step, then under load: the checker (EsChecker) works while backends and the postmaster are killed with -9
# and the whole server is stopped at once, again and again, at random moments. Half of the writers commit with
# synchronous_commit off, and the WAL writer does not flush, so a crash takes many commits back. It must not take back
# what a reader was handed, nor a commit that was answered to a writer that waited for the flush. And a position that
# anybody saw, be it only the writer, in a transaction that was lost, is never drawn for another event. Versions stay
# gapless, the horizon moves on, and of the small chunks every one that is there is whole.
use strict;
use warnings;
use Test::More;

use EsChecker;
use EsTest;

# First without any load, where nothing flushes WAL but what must: on a server whose WAL writer sleeps.
{
	my $node = es_cluster('still', 'wal_writer_delay = 10s');
	my $db = es_connect($node);
	my $crash = sub { $node->stop('immediate'); $node->start; $db = es_connect($node); $db->rows('SET synchronous_commit = off') };

	# Flushes all WAL, and unlike a checkpoint does not make what follows long.
	my $flush = sub { $db->rows('SET synchronous_commit = on; INSERT INTO flushed VALUES (1); SET synchronous_commit = off') };
	$db->rows('CREATE TABLE flushed (id integer)');

	# A commit that did not wait for its flush is handed to a reader: from then on it must be there.
	$db->rows(q{SELECT es_append('order-1', 'E', '{}'), es_create_subscription('follower', 'end')});
	$crash->();
	for my $read ("es_read_all(%d)", "es_read_category('order', %d)", "es_fetch('follower', 'f')")
	{
		my $at = $db->value('SELECT es_last_position()');
		my $reader = es_connect($node);
		$flush->();
		$db->rows(q{SELECT es_append('order-1', 'E', '{}')});
		my $handed = $reader->value('SELECT max(position) FROM ' . sprintf $read, $at);
		$crash->();
		cmp_ok($handed, '>', $at, "$read hands out an asynchronous commit");
		is($db->value("SELECT count(*) FROM es_events WHERE position = $handed"), 1, 'which is there after a crash');
	}

	# A crash right after a block of positions was reserved: the bound must be durable before any position is told.
	for (1 .. 5)
	{
		my $left = q{SELECT last_value - es_last_position() FROM es_position_bound};
		$db->rows(q{SELECT es_append('order-1', 'E', '{}')}) if !$db->value($left);
		my $n = $db->value($left);
		$db->rows('BEGIN');
		$db->rows("SELECT es_append_batch('order-1', array_fill('E'::text, ARRAY[$n]), array_fill('1'::jsonb, ARRAY[$n]))");
		$db->rows('ROLLBACK');
		is($db->value($left), 0, "all $n positions reserved are drawn");
		$flush->();
		my $told = $db->value(q{SELECT position FROM es_append('order-1', 'E', '{}')});
		$crash->();
		cmp_ok($db->value(q{SELECT position FROM es_append('order-1', 'E', '{}')}), '>', $told,
			'after a crash positions go on above the one that was told');
	}
	es_events_sound($db, 'after crashes at rest');
	$node->stop;
}

my $seed = es_seed();
my $node = es_cluster('crash', 'es_pg.event_chunk_size = 250', 'restart_after_crash = on', 'deadlock_timeout = 50ms',
	'wal_writer_delay = 10s');
my $checker = EsChecker->new(node => $node, seed => $seed, events => 12_000, crashes => 9, writers => 6)->run;
is($checker->report, '', 'crashes under load: nothing that was handed out or promised is gone, no position is told twice');

my $db = es_connect($node);
es_check($db, 'each table of es_chunks is a chunk', q{
	SELECT oid::regclass FROM pg_class WHERE relnamespace = 'es_chunks'::regnamespace AND relkind = 'r'
	   AND oid NOT IN (SELECT chunk FROM es_chunk_list)});
es_check($db, 'each chunk of events has its keys, its indexes and its trigger', q{
	SELECT chunk, indexes, triggers FROM es_chunk_list,
		LATERAL (SELECT count(*) AS indexes FROM pg_index WHERE indrelid = chunk AND indisvalid) AS i,
		LATERAL (SELECT count(*) AS triggers FROM pg_trigger WHERE tgrelid = chunk AND tgenabled = 'A') AS t
	 WHERE of_table = 'es_events' AND (indexes, triggers) <> (4, 1)});
my $last = $db->value('SELECT es_last_position()');
cmp_ok($db->value(q{SELECT position FROM es_append('sentinel', 'After', '{}')}), '>', $last, 'the next append goes on');
$node->stop;
done_testing();
