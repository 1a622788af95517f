# 012_table_maintenance: what a DBA does to tables and indexes while others write and read.
#
# Writers append single events and batches, to streams of their own and to shared ones, over small chunks; a reader follows.
# Meanwhile chunks and es_pg's other tables are rewritten (VACUUM FULL, CLUSTER, another tablespace), their indexes built anew,
# with and without CONCURRENTLY, and renamed, settings changed and statistics gathered. Everything is done once, in a random
# order. No append fails, but for a deadlock that it can be told of; no event is lost, doubled or handed out in another order.
use strict;
use warnings;
use Test::More;

use EsTest;

use constant WRITERS => 4;

my $seed = es_seed();
my $node = es_cluster('maintenance', 'es_pg.event_chunk_size = 5000', 'allow_in_place_tablespaces = on', 'autovacuum_naptime = 1s');
my $db = es_connect($node);
my $stop = "$PostgreSQL::Test::Utils::tmp_check/stop";
my $limit = 100;

sub write_until_stopped
{
	my ($w, $out) = @_;
	my $session = es_connect($node, name => "writer $w");
	my $until = time + $limit;
	my $n = 0;

	srand $seed * 100 + $w;
	while (!-e $stop)
	{
		die "not stopped in time\n" if time > $until;
		$n++;
		my @streams = rand() < 0.3 ? ("own-$w-$n") : map { 'shared-' . int rand 10 } 1 .. 1 + int rand 3;
		my $answer = $session->try(join '; ', 'BEGIN', map({ rand() < 0.8 ? "SELECT position FROM es_append('$_', 'E', '1')"
			: "SELECT position FROM es_append_batch('$_', array_fill('B'::text, ARRAY[20]), array_fill('1'::jsonb, ARRAY[20]))" } sort @streams), 'COMMIT');
		$session->try('ROLLBACK') if defined $answer->{sqlstate};
		print $out defined $answer->{sqlstate} ? "error $answer->{sqlstate} $answer->{message}\n" : "kept $_->[0]\n" for @{ $answer->{rows} } ? @{ $answer->{rows} } : [];
	}
	return;
}

sub read_until_sentinel
{
	my ($out) = @_;
	my $session = es_connect($node, name => 'reader');
	my $until = time + $limit + 20;
	my $seen = 0;

	while (1)
	{
		die "no sentinel in time\n" if time > $until;
		for my $row ($session->rows("SELECT position, stream FROM es_read_all($seen, 500)"))
		{
			return if $row->[1] eq 'sentinel';
			print $out "$row->[0]\n";
			$seen = $row->[0];
		}
		my ($bad) = $session->rows(q{SELECT count(*), max(version) FROM es_read_stream('shared-1', 0, 1000000) HAVING count(*) <> max(version) + 1});
		die "a stream's read has a gap: @$bad\n" if $bad;
	}
}

# The chunk that is written to now, and one that is full.
sub chunk
{
	my ($which) = @_;
	return $db->value($which eq 'now' ? 'SELECT tableoid::regclass FROM es_events ORDER BY position DESC LIMIT 1'
		: 'SELECT tableoid::regclass FROM es_events ORDER BY position LIMIT 1');
}

my @work = (
	(map { ("VACUUM (FULL) $_", "REINDEX TABLE $_", "REINDEX TABLE CONCURRENTLY $_", "VACUUM (ANALYZE, FREEZE) $_") }
		'NOW', 'FULL', 'es_streams', 'es_stream_chunks', 'es_cursors', 'es_incarnations'),
	(map { ("CLUSTER $_ USING INDEX_OF", "ALTER INDEX INDEX_OF RENAME TO NEW_NAME /* of $_ */", "ALTER TABLE $_ SET TABLESPACE elsewhere",
			"ALTER TABLE $_ SET TABLESPACE pg_default", "ALTER TABLE $_ SET (fillfactor = 50)", "ANALYZE $_",
			"CREATE INDEX CONCURRENTLY ON $_ (type)") } 'NOW', 'FULL'),
	'CLUSTER es_streams USING es_streams_pkey', 'ALTER TABLE es_streams SET TABLESPACE elsewhere', 'ALTER TABLE es_streams SET (fillfactor = 90)',
	'REINDEX INDEX CONCURRENTLY es_streams_name_key', 'REINDEX TABLE CONCURRENTLY es_events',
	'ANALYZE es_events', 'VACUUM es_events');

$db->rows('CREATE SEQUENCE turn');
$db->rows(q{CREATE TABLESPACE elsewhere LOCATION ''});
$db->rows(q{SELECT es_create_subscription('s', 'beginning')});
my @pids = ((map { my $w = $_; es_fork("writer$w", sub { write_until_stopped($w, $_[0]) }) } 1 .. WRITERS), es_fork('reader', \&read_until_sentinel));
ok(es_poll(sub { $db->value('SELECT es_horizon()') > 6000 }, 30), 'writers are at work');

while (@work)
{
	my ($work) = splice @work, int rand @work, 1;
	if ($work =~ /\b(NOW|FULL)\b(?!\))/)
	{
		my $table = chunk(lc $1);
		my $index = $db->value("SELECT indexrelid::regclass FROM pg_index WHERE indrelid = '$table'::regclass AND indnkeyatts = 2 ORDER BY 1 LIMIT 1");
		$index =~ s/.*\.// if $work =~ /^CLUSTER/;
		$work =~ s/\b(NOW|FULL)\b(?!\))/$table/;
		$work =~ s/INDEX_OF/$index/;
		(my $number = $table) =~ s/\D+//;
		$work =~ s/NEW_NAME/renamed_$number/;
	}

	# A deadlock with writers in which this is the victim: again.
	my $answer;
	es_poll(sub { $answer = $db->try($work); ($answer->{sqlstate} // '') ne '40P01' }, 60);
	is($answer->{sqlstate}, undef, $work) or diag($answer->{message});
}

# Sessions that create the same streams at once, while the index that makes them unique is built anew: nobody gets to know.
my @creators = map {
	my $w = $_;
	es_fork("creator$w", sub {
			my $session = es_connect($node, name => "creator $w");
			$session->rows("SELECT es_append('new-' || nextval('turn') / 6, 'E', '1') FROM generate_series(1, 5)") for 1 .. 700;
		});
} 1 .. 6;
do { $db->rows('REINDEX INDEX CONCURRENTLY es_streams_name_key') }
	while $db->value(q{SELECT count(*) FROM pg_stat_activity WHERE application_name ~ '^creator'}) > 0;
is(scalar(grep { !es_reap($_) } @creators), 0, 'no creation of a stream failed while its index was built anew');
my $more = $db->value('SELECT es_horizon()') + 500;
ok(es_poll(sub { $db->value('SELECT es_horizon()') > $more }, 30), 'writers go on afterwards');
open my $flag, '>', $stop or die "$stop: $!";
close $flag;
my $reader = pop @pids;
my @lines = map { @{ es_reap($_) // ['error died'] } } @pids;
$db->rows(q{SELECT es_append('sentinel', 'End', '1')});
my $read = es_reap($reader);

my %errors;
$errors{ s/\d{3,}/N/gr }++ for grep { /^error/ } @lines;
note("$errors{$_} times $_") for sort keys %errors;
is_deeply([ grep { !/^error 40P01/ } sort keys %errors ], [], 'no append failed');
my %there = map { $_->[0] => 1 } $db->rows('SELECT position FROM es_events');
my @kept = map { /^kept (\d+)/ ? $1 : () } @lines;
cmp_ok(scalar @kept, '>', 500, 'the writers had ' . @kept . ' answers');
is_deeply([ grep { !$there{$_} } @kept ], [], 'what was answered is there');
is_deeply($read, [ map { $_->[0] } $db->rows(q{SELECT position FROM es_events WHERE type <> 'End' ORDER BY position}) ], 'the reader had each event once, in order');
es_events_sound($db, 'afterwards');
is($db->value(q{SELECT count(*) FROM pg_index AS i JOIN pg_class AS c ON c.oid = i.indrelid
	WHERE NOT indisvalid AND c.relkind = 'r' AND (c.relname LIKE 'es\_%' OR relnamespace = 'es_chunks'::regnamespace)}), 0, 'no index is half made');
ok($db->value("SELECT bool_and(es_stream_version(name) >= 0) FROM es_streams") eq 't', 'each stream has its head');

$node->stop;
done_testing();
