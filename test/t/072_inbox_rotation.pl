# 072_inbox_rotation: one message on both sides of a rotation, at the same instant.
#
# The library with debug points holds who has inserted a mark and has not looked for it in other chunks. One session is held in
# the chunk of its second, the clock goes on, others are held in the chunks of later ones: all have inserted the same message,
# and none has looked. Let go, exactly one of them may be told that it is new: nobody waits for somebody who waits for
# him. The same with one that then rolls back: another has it.
use strict;
use warnings;
use Test::More;
use Time::HiRes qw(time usleep);

use EsTest;

my $bin = $ENV{ES_DEBUG_BIN} // '';
die "no debug build: test/run makes it\n" if !-x "$bin/postgres";
$ENV{PATH} = "$bin:$ENV{PATH}";
my $node = es_cluster('rotation', 'es_pg.inbox_chunk_interval = 1', 'es_pg.inbox_retention = -1', 'deadlock_timeout = 20ms');
my $control = es_connect($node);
$control->rows(q{SELECT es_create_consumer('c')});
my $place = $node->data_dir . '/es_debug.inbox_inserted';

sub hold { open my $file, '>', $place or die "$place: $!"; close $file; return }
sub release { unlink $place or die "$place: $!"; return }

sub held
{
	my ($session) = @_;
	my $pid = $session->pid;
	return es_poll(sub { $control->value("SELECT count(*) FROM pg_stat_activity WHERE pid = $pid AND wait_event = 'Extension'") == 1 }, 30);
}

sub next_second
{
	my $second = $control->value('SELECT floor(extract(epoch FROM clock_timestamp()))');
	return es_poll(sub { $control->value("SELECT floor(extract(epoch FROM clock_timestamp())) > $second") eq 't' }, 30);
}

# Sessions that have inserted a mark of one message, each in a later chunk than the one before.
sub sessions_in_chunks
{
	my ($id, $n) = @_;
	my @sessions = map { es_connect($node) } 1 .. $n;

	hold();
	for my $s (@sessions)
	{
		$s->rows(q{SET es_pg.debug_points = 'inbox_inserted'});
		$s->rows('BEGIN');
		next_second();
		$s->send("SELECT es_inbox_accept('c', '$id')");
		held($s) or die "not held\n";
	}
	return @sessions;
}

for my $round (1 .. 4)
{
	my $id = "m$round";
	my @open = sessions_in_chunks($id, $round < 3 ? 2 : 3);
	my $new = 0;
	my @order;
	my $end = $round % 2 ? 'COMMIT' : 'ROLLBACK';
	my %answer;

	release();
	# Whoever has an answer ends; the first that was told "new" as the round says, any later one by a commit.
	my $settled = es_poll(sub {
		for my $s (grep { !exists $answer{$_} } @open)
		{
			my $answer = $s->receive(0.01) or next;
			$answer{$s} = $answer;
			$new++ if ($answer->{rows}[0][0] // '') eq 't';
			$s->rows(($answer->{rows}[0][0] // '') eq 't' && $new == 1 ? $end : 'COMMIT') if !defined $answer->{sqlstate};
			push @order, $answer->{sqlstate} // $answer->{rows}[0][0];
		}
		return keys %answer == @open;
	}, 60);
	ok($settled, "$id: all have an answer");
	is_deeply([ grep { !/^[tf]$/ } @order ], [], "$id: which is no deadlock");
	is($new, $end eq 'COMMIT' ? 1 : 2, "$id: it is new once, and once more where that was rolled back");
	is($control->value("SELECT es_inbox_accept('c', '$id')"), 'f', "$id: and is known");
}
is($control->value('SELECT count(*) FROM es_inbox'), 4, 'of each there is one mark');
cmp_ok($control->value('SELECT count(*) FROM es_chunk_list'), '>', 4, 'in many chunks');
done_testing();
