# 020_checker_catches: the checker would notice.
#
# The library with debug points (src/debug_point.h) is broken in one known way after the other, and each time the checker
# must say so, and of what kind the damage is; with nothing broken, and with the same pauses at the same places, it must
# say nothing. Where a race needs more luck than a short load has, a backend is held at the very place instead, and the
# story is told step by step, on the whole code and on the broken one.
#
# A short load may be lucky on code that is broken, so it is repeated, if need be, up to LOADS times with other seeds; what
# is told step by step is caught at once. ES_TRIES says how often all that is broken shall run; each must be caught
# every time then.
use strict;
use warnings;
use Test::More;

use EsChecker;
use EsTest;

use constant LOADS => 5;

my $bin = $ENV{ES_DEBUG_BIN} // '';
die "no debug build: test/run makes it\n" if !-x "$bin/postgres";
{
	chomp(my $directory = qx("$ENV{ES_BIN}/pg_config" --pkglibdir));
	open my $in, '<:raw', "$directory/es_pg.so" or die "$directory/es_pg.so: $!";
	local $/;
	unlike(<$in>, qr/debug_point|EsDebug/, 'a release has no debug points, not even by name');
}
$ENV{PATH} = "$bin:$ENV{PATH}";

my $seed = es_seed();
my $tries = $ENV{ES_TRIES};
my @conf = ('deadlock_timeout = 50ms', 'es_pg.event_chunk_size = 250');
my $node = es_cluster('debug', @conf);
my $databases = 0;

# A database of its own with these debug points on, for every session that begins after this.
sub database
{
	my ($on, @points) = @_;
	my $name = 'd' . ++$databases;
	my $control = es_connect($on);

	$control->rows("CREATE DATABASE $name");
	es_connect($on, dbname => $name)->rows('CREATE EXTENSION es_pg');
	points($on, $name, @points);
	return $name;
}

sub points
{
	my ($on, $name, @points) = @_;
	es_connect($on)->rows("ALTER DATABASE $name SET es_pg.debug_points = '" . join(',', @points) . "'");
	return;
}

# Backends that come to a place where it is on stay there until it is released.
sub place { my ($name) = @_; return $node->data_dir . "/es_debug.$name" }
sub hold { my ($name) = @_; open my $file, '>', place($name) or die place($name) . ": $!"; close $file; return }
sub release { my ($name) = @_; unlink place($name) or die place($name) . ": $!"; return }

sub waits
{
	my ($session, @types) = @_;
	my $control = es_connect($node);
	my $type;
	es_poll(sub {
			$type = $control->value('SELECT wait_event_type FROM pg_stat_activity WHERE pid = ' . $session->pid) // '';
			return grep { $type eq $_ } @types;
		}, 30);
	$control->close;
	return grep { $type eq $_ } @types;
}

# Run something whole or broken; it returns a checker's report, or says what happened in its words.
sub whole
{
	my ($name, $run) = @_;
	is($run->(0), '', "$name: nothing is found");
	return;
}

sub broken
{
	my ($name, $kind, $run, $loads) = @_;
	my ($caught, $n, @missed) = (0, 0);

	while ($n < ($tries // $loads // 1) && ($tries || !$caught))
	{
		my $report = $run->($n++);
		if ($report =~ /^$kind:/m) { $caught++; note($report) }
		else { push @missed, "\"$report\"" }
	}
	is($caught, $tries // 1, "$name: $kind is found") or diag(join "\n", 'missed:', @missed);
	note("$name: caught $caught of $n");
	return;
}

# ---------------------------------------------------------------- a short load

sub load
{
	my (@points) = @_;
	return sub {
		my ($try) = @_;
		return EsChecker->new(node => $node, dbname => database($node, @points), seed => $seed + $try, events => 2000,
			stop_backends => 0, resize_chunks => 0)->run->report;
	};
}

my @pauses = qw(position_drawn before_stream_lock before_commit committed before_arming);
whole('nothing', load());
whole('pauses alone', load(@pauses));
broken('the horizon is taken after the snapshot', 'skipped', load('horizon_after_snapshot'), LOADS);
broken('the entry is cleared before the commit', 'skipped', load('entry_cleared_early', 'before_commit'), LOADS);
broken("positions are drawn before the stream's lock", 'versions', load('position_before_lock', 'before_stream_lock'), LOADS);

# ---------------------------------------------------------------- a writer that is overtaken

# It stands at a place between its draw and the end of its commit. Another one draws, commits, and may be read or not;
# if it is read, the reader goes on behind it, and never comes back for the first.
sub overtaken
{
	my ($place, @points) = @_;
	return sub {
		my $dbname = database($node);
		my ($other, $reader) = map { es_connect($node, dbname => $dbname) } 1, 2;
		my $seen = 0;
		my $read = sub {
			my @rows = $reader->rows("SELECT position, stream FROM es_read_all($seen)");
			$seen = $rows[-1][0] if @rows;
			return map { $_->[1] } @rows;
		};

		points($node, $dbname, $place, @points);
		my $slow = es_connect($node, dbname => $dbname);
		$other->rows(q{SELECT es_append('before-1', 'E', '{}')});
		hold($place);
		$slow->send(q{SELECT es_append('slow-1', 'E', '{}')});
		die "the writer is not where it should be\n" if !waits($slow, 'Extension');
		$other->rows(q{SELECT es_append('other-1', 'E', '{}')});
		my @streams = $read->();
		release($place);
		$slow->receive(60);
		push @streams, $read->();
		return "@streams" eq 'before-1 slow-1 other-1' ? '' : "skipped: seen were @streams\n";
	};
}

whole('a writer that has drawn is overtaken', overtaken('position_drawn'));
broken('the bound is published after the draw', 'skipped', overtaken('position_drawn', 'bound_after_draw'));
whole('a writer that commits is overtaken', overtaken('before_commit'));
broken('the entry is cleared before the commit', 'skipped', overtaken('before_commit', 'entry_cleared_early'));

# ---------------------------------------------------------------- a commit between an empty look and arming

# The writer looks at the flag before the reader arms it, and so does not notify. A reader that looks once more finds
# the event.
sub arming
{
	my ($read, @points) = @_;
	return sub {
		my $dbname = database($node);
		my $writer = es_connect($node, dbname => $dbname);
		$writer->rows(q{SELECT es_create_subscription('s', 'beginning')});
		points($node, $dbname, 'before_arming', @points);
		my $reader = es_connect($node, dbname => $dbname);

		$reader->rows('LISTEN es_pg');
		hold('before_arming');
		$reader->send("SELECT position FROM $read");
		die "the reader is not where it should be\n" if !waits($reader, 'Extension');
		$writer->rows(q{SELECT es_append('order-1', 'E', '{}')});
		release('before_arming');
		my $rows = $reader->receive(60)->{rows};
		return @$rows || $reader->notifications ? '' : "unwoken: $read\n";
	};
}

for my $read ('es_read_all()', "es_read_category('order')", "es_fetch('s', 'c')")
{
	whole("$read, a commit before it arms", arming($read));
	broken("$read does not look again after it has armed", 'unwoken', arming($read, 'no_look_after_arming'));
}

# A writer that was past its look at the flag does not notify either; it is in flight then. So one who has seen nobody in
# flight reads once more before it sleeps.
whole('a commit that has looked at the flag', sub {
		my $dbname = database($node, 'before_commit');
		my ($writer, $reader) = map { es_connect($node, dbname => $dbname) } 1, 2;
		my $busy = 'SELECT es_horizon() < es_last_position()';
		my @story;

		$reader->rows('LISTEN es_pg');
		hold('before_commit');
		$writer->send(q{SELECT es_append('order-1', 'E', '{}')});
		die "the writer is not where it should be\n" if !waits($writer, 'Extension');
		push @story, 'what is not committed is read' if $reader->rows('SELECT * FROM es_read_all()');
		push @story, 'nobody is in flight' if $reader->value($busy) ne 't';
		release('before_commit');
		$writer->receive(60);
		push @story, 'it has notified all the same' if $reader->notifications;
		push @story, 'somebody is in flight' if $reader->value($busy) ne 'f';
		push @story, 'it is not read' if $reader->rows('SELECT * FROM es_read_all()') != 1;
		return join "\n", @story;
	});
is(EsChecker->new(node => $node, dbname => database($node, @pauses), seed => $seed)->wake_ups(100)->report, '',
	'a reader that goes by this sleeps through no commit');

# ---------------------------------------------------------------- a chunk that is there, and not yet known

# A transaction that made a chunk itself leaves the registry before others are told of the chunk. A fetch that passed it
# by would find nothing up to the horizon, and move its cursor there.
sub new_chunk
{
	my (@points) = @_;
	return sub {
		my $dbname = database($node);
		my @more = map { es_connect($node, dbname => $dbname) } 1, 2;
		my $append = sub {
			my ($session, $n) = @_;
			$session->rows('BEGIN');
			$session->rows('LOCK TABLE es_events IN SHARE UPDATE EXCLUSIVE MODE');    # so it makes its chunks itself
			$session->rows("SELECT es_append_batch('order-1', array_fill('E'::text, ARRAY[$n]), array_fill('1'::jsonb, ARRAY[$n]))");
		};

		$append->($more[0], 249);
		$more[0]->rows('COMMIT');
		$more[0]->rows(q{SELECT es_create_subscription('s', 'end')});
		points($node, $dbname, @points);
		my $reader = es_connect($node, dbname => $dbname);
		$reader->rows(q{SELECT * FROM es_fetch('s', 'c')});
		points($node, $dbname, 'committed');
		my $writer = es_connect($node, dbname => $dbname);
		$writer->rows('SET es_pg.event_chunk_size = 50000');
		$append->($writer, 15000);
		hold('committed');
		$writer->send('COMMIT');
		die "the writer is not where it should be\n" if !waits($writer, 'Extension');
		$reader->send(q{SELECT position FROM es_fetch('s', 'c', 1)});
		waits($reader, 'Client', 'Lock');    # it has ended, or waits for the new chunk
		release('committed');
		$writer->receive(60);
		my @rows = @{ $reader->receive(60)->{rows} };
		@rows = $reader->rows(q{SELECT position FROM es_fetch('s', 'c', 1)}) if !@rows;
		return @rows ? '' : "skipped: a chunk\n";
	};
}

whole('a chunk that nobody was told of', new_chunk());
broken('readers know the chunks that they were told of', 'skipped', new_chunk('chunk_not_covered'));

# ---------------------------------------------------------------- a restore under a log that is in use

# The sequence is set by a restore; the first who comes takes it over. Nobody may draw a position in between.
whole('a restored sequence that is half taken over', sub {
		my $dbname = database($node);
		my ($writer, $restore) = map { es_connect($node, dbname => $dbname) } 1, 2;
		points($node, $dbname, 'adopting');
		my $first = es_connect($node, dbname => $dbname);

		$writer->rows('SELECT es_horizon()');
		$restore->rows(q{SELECT setval('es_position_bound', 5000)});
		hold('adopting');
		$first->send('SELECT es_last_position()');
		die "nobody takes it over\n" if !waits($first, 'Extension');
		$writer->send(q{SELECT position FROM es_append('order-1', 'E', '{}')});
		waits($writer, 'Client', 'Extension');    # it has ended, or waits
		release('adopting');
		$first->receive(60);
		my $position = $writer->receive(60)->{rows}[0][0] // 'nothing';
		return $position eq '5001' ? '' : "reused: $position\n";
	});

# ---------------------------------------------------------------- the first appends of a log

# One looks whether the log is this database's own while another begins it.
whole('a log that is begun meanwhile', sub {
		my $dbname = database($node);
		my $other = es_connect($node, dbname => $dbname);
		my $slow = es_connect($node, dbname => $dbname, options => '-c es_pg.debug_points=judging');

		hold('judging');
		$slow->send(q{SELECT position FROM es_append('slow-1', 'E', '{}')});
		die "the writer is not where it should be\n" if !waits($slow, 'Extension');
		$other->rows(q{SELECT es_append('other-1', 'E', '{}')});
		release('judging');
		my $answer = $slow->receive(60);
		return defined $answer->{sqlstate} ? "refused: $answer->{message}\n" : '';
	});
$node->stop;

# ---------------------------------------------------------------- crashes

$node = es_cluster('debug_crash', @conf, 'restart_after_crash = on', 'wal_writer_delay = 10s', 'wal_writer_flush_after = 0',
	'es_pg.event_chunk_size = 2000');

# A crash takes back what nobody has flushed; so nobody may who does not have to.
sub crashes
{
	my ($readers, @points) = @_;
	return sub {
		my ($try) = @_;
		return EsChecker->new(node => $node, dbname => database($node, @points), seed => $seed + $try,
			events => 2000, crashes => 3, async => 1, readers => $readers)->run->report;
	};
}

whole('crashes', crashes([ 'fetch', 'log', 'poll' ], 'small_blocks'));
broken('positions are drawn before their bound is flushed', 'reused', crashes([], 'small_blocks', 'bound_not_flushed'), LOADS);
broken('commits are handed out before they are flushed', 'phantom', crashes(['log'], 'commit_not_flushed'), LOADS);
$node->stop;
done_testing();
