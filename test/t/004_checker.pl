# 004_checker: no reader ever skips an event, doubles one or sees one out of order, whatever the writers do (EsChecker says
# what they do), and none sleeps through a commit. That the checker would notice is tested in 020_checker_catches.
#
# ES_SEED repeats a run's choices (not its timing); ES_EVENTS says how many events are committed at least, 200,000 if it
# says nothing. For a long run: ES_EVENTS=2000000 ES_TEST_TIMEOUT=3000 ES_TIMEOUT=3600 make check-tap T=004_checker
use strict;
use warnings;
use Test::More;

use EsChecker;
use EsTest;

my $seed = es_seed();
my $events = $ENV{ES_EVENTS} // 200_000;
my $chunk_size = (100, 250, 1000)[ rand 3 ];
my $node = es_cluster('checker', "es_pg.event_chunk_size = $chunk_size", 'deadlock_timeout = 50ms');

note("$events events, first chunks of $chunk_size positions");
my $checker = EsChecker->new(node => $node, seed => $seed, events => $events)->run;
cmp_ok($checker->{committed}, '>=', $events, "$checker->{committed} events were committed");
is($checker->report, '', 'the load: each reader saw each event once, in order; versions are gapless; answers are so');

$checker = EsChecker->new(node => $node, seed => $seed)->wake_ups(500);
is($checker->report, '', 'at rest: no reader slept through a commit');

$node->stop;
done_testing();
