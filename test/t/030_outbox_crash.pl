# 030_outbox_crash: what a crash may not do to the outbox, whatever maintenance is at.
#
# Writers publish, some of it for later; a reader takes what comes and notes how far it is; two sessions maintain
# without a pause, with settings that close and drop chunks at once, and publish what is due. Meanwhile backends and
# workers are killed with -9 and the server is stopped at once, again and again, at random moments. A message whose
# commit was answered is read, or is still there; each has one position for good, so a delayed one is published once;
# a chunk is whole or gone, and no table is left behind that belongs to nothing.
use strict;
use warnings;
use Test::More;
use Time::HiRes qw(time usleep);

use EsTest;

use constant { WRITERS => 3, MAINTAINERS => 2, CRASHES => 6 };

my $seed = es_seed();
my $limit = 150;
my $node = es_cluster('outbox', 'es_pg.outbox_chunk_size = 100', 'es_pg.outbox_retention = 0',
	'es_pg.outbox_chunk_interval = 0', 'restart_after_crash = on', 'max_worker_processes = 16');
my $stop = "$PostgreSQL::Test::Utils::tmp_check/stop";

# An id is noted when the commit of its message was answered.
sub publish
{
	my ($w, $out) = @_;
	my $n = 0;

	srand $seed * 100 + $w;
	es_work($node, $limit, "writer $w", sub {
		my ($session) = @_;
		return 1 if -e $stop;
		my $n = ++$n;
		my $id = sprintf '%08x-0000-4000-8000-%012x', $w, $n;
		my $later = rand() < 0.3 ? sprintf(q{, deliver_after => clock_timestamp() + '%d ms'}, int rand 200) : '';
		my $answer = $session->try("SELECT es_publish('t', 'T', '$n', key => '$w', message_id => '$id'$later)");
		print $out "$id\n" if !defined $answer->{sqlstate};
		return 0;
	});
	return;
}

# All that comes, with its position. The cursor is kept in the database, and only what is durable counts.
sub consume
{
	my ($out) = @_;
	es_work($node, $limit, 'reader', sub {
		my ($session) = @_;
		my $answer = $session->try(q{SELECT position, message_id, lane, epoch FROM es_fetch('reader', 'r', 1000)});
		return 0 if defined $answer->{sqlstate};
		my @rows = @{ $answer->{rows} };
		print $out "$_->[0] $_->[1]\n" for @rows;
		$session->try("SELECT es_ack('reader', $rows[-1][2], $rows[-1][3], $rows[-1][0])") if @rows;
		return !@rows && -e "$stop.reader";
	});
	return;
}

sub maintain
{
	es_work($node, $limit, 'maintainer', sub {
		my ($session) = @_;
		my $answer = $session->try('SELECT es_maintain()');
		die "$answer->{sqlstate} $answer->{message}\n" if defined $answer->{sqlstate} && $answer->{sqlstate} !~ /^(08|57)/;
		return -e $stop;
	});
	return;
}

# Tables of chunks that belong to no parent, and what is there beyond what is expected.
sub check_chunks
{
	my ($db, $when) = @_;
	es_check($db, "$when: every table of chunks is a partition",
		q{SELECT oid::regclass FROM pg_class AS c WHERE relnamespace = 'es_chunks'::regnamespace AND relkind = 'r'
			AND NOT EXISTS (SELECT FROM pg_inherits WHERE inhrelid = c.oid)});
	es_check($db, "$when: every message lies within its chunk",
		q{SELECT position FROM es_outbox AS o JOIN es_chunk_list AS l ON l.chunk = o.tableoid::regclass
		   WHERE position < split_part(bounds, '''', 2)::bigint OR position >= split_part(bounds, '''', 4)::bigint});
	es_check($db, "$when: no position is above the last one drawn, or the durable bound",
		'SELECT max(position) FROM es_outbox HAVING max(position) > es_last_position()
		     OR es_last_position() > (SELECT last_value FROM es_position_bound)');
	return;
}

my $db = es_connect($node);
$db->rows(q{SELECT es_create_subscription('reader', 'beginning', source => 'outbox')});
my @writers = map { my $w = $_; es_fork("writer$w", sub { publish($w, $_[0]) }) } 1 .. WRITERS;
my @maintainers = map { es_fork("maintainer$_", \&maintain) } 1 .. MAINTAINERS;
my $reader = es_fork('reader', sub { consume($_[0]) });

for my $crash (1 .. CRASHES)
{
	my $from = $db->value('SELECT es_last_position()');
	my $more = 500 + int rand 2000;

	ok(es_poll(sub { $db->value('SELECT es_horizon()') > $from + $more }, 60), "$more positions on, crash $crash");
	if ($crash % 2)
	{
		# Whoever maintains at this moment, the worker or the one that waits for it.
		my $backend;
		es_poll(sub {
				$backend = $db->value(q{SELECT pid FROM pg_stat_activity WHERE backend_type = 'es_pg maintenance worker'
					OR application_name = 'maintainer' AND state = 'active' ORDER BY random() LIMIT 1});
				return $backend && kill 'KILL', $backend;
			}, 60) or die 'nobody maintains';
		ok(es_poll(sub { $db->try('SELECT 1')->{lost} }, 60), 'killed who maintains; the server begins anew');
	}
	else
	{
		$node->stop('immediate');
		$node->start;
		pass('stopped the server at once');
	}
	$db = es_connect($node);
	check_chunks($db, "after crash $crash");
}

open my $flag, '>', $stop or die "$stop: $!";
close $flag;
my @told = map { es_reap($_) } @writers;
is(scalar(grep { !$_ } @told), 0, 'the writers came to their end');
is(scalar(grep { !es_reap($_) } @maintainers), 0, 'so did the maintainers');
ok(es_poll(sub { $db->value('SELECT es_publish_due(1000000)'); $db->value('SELECT count(*) FROM es_delayed') == 0 }, 60),
	'what waited is published');
open $flag, '>', "$stop.reader" or die "$stop: $!";
close $flag;
my $read = es_reap($reader);
ok($read, 'and the reader came to its end');

my (%positions, %ids);
for my $line (@{ $read // [] }, map { join ' ', @$_ } $db->rows('SELECT position, message_id FROM es_outbox'))
{
	my ($position, $id) = split / /, $line;
	$positions{$id}{$position} = 1;
	$ids{$position}{$id} = 1;
}
my @kept = map { @{ $_ // [] } } @told;
note(scalar(@kept) . ' commits answered, ' . scalar(keys %positions) . ' messages seen');
cmp_ok(scalar @kept, '>', 500, 'there were many');
is_deeply([ grep { !$positions{$_} } @kept ], [], 'no message is lost whose commit was answered');
is_deeply([ grep { keys %{ $positions{$_} } > 1 } keys %positions ], [], 'none was published twice');
is_deeply([ grep { keys %{ $ids{$_} } > 1 } keys %ids ], [], 'no position was given to two');

check_chunks($db, 'after it all');
ok(es_poll(sub {
			$db->value('SELECT es_retire_chunks()');    # one that autovacuum is at stays for another time
			$db->value(q{SELECT count(*) FROM es_chunk_list
				WHERE of_table = 'es_outbox' AND split_part(bounds, '''', 4)::bigint <= es_horizon()}) == 0;
		}, 60), 'and all chunks go that are over');
$node->stop;
done_testing();
