# 086_projection_lock: an inline projection is created once no transaction that has appended is open; whoever waits for that
# stops nobody else's appends, however long it takes.
use strict;
use warnings;
use Test::More;

use EsTest;

my $node = es_cluster('lock');
my ($old, $creator, $other) = map { es_connect($node) } 1 .. 3;

$old->rows('CREATE TABLE seen (stream text)');
$old->rows(q{BEGIN; SELECT es_append('a-1', 'E', '{}')});
$creator->send(q{SELECT es_create_projection('seen', 'INSERT INTO seen SELECT stream FROM es_batch', mode => 'inline')});
for my $time (1 .. 3)
{
	ok(es_poll(sub { $other->value(q{SELECT count(*) FROM pg_locks WHERE relation = 'es_projections'::regclass AND NOT granted}) == 1 }), 'who creates one waits');
	$other->send(q{SELECT es_append('a-2', 'E', '{}')});
	is(($other->receive(60) // { sqlstate => 'no answer' })->{sqlstate}, undef, 'and others append');
}
is($creator->receive(0), undef, 'it still waits');
$old->rows('COMMIT');
is($creator->receive(60)->{sqlstate}, undef, 'for the transaction that had appended, and no longer');
$other->rows(q{SELECT es_append('a-3', 'E', '{}')});
is($other->value('SELECT string_agg(stream, \',\') FROM seen'), 'a-3', 'what comes then is applied');

$old->rows(q{BEGIN; SELECT es_append('a-1', 'E', '{}')});
is($creator->try(q{SET lock_timeout = '1s'; SELECT es_drop_projection('seen')})->{sqlstate}, '55P03', 'lock_timeout is heeded');
$old->rows('COMMIT');
$_->close for $old, $creator, $other;
$node->stop;
done_testing();
