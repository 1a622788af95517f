# 075_inbox_run_crash: workers of a durable inbox die at random, and every message still has its effect once, in order.
#
# Putters store messages, each until its commit was answered, and some of them again later; workers run the inbox with a
# handler that fails now and then. Another consumer is shown numbers of a source by two sessions, in order but each number
# by both. Meanwhile backends are killed with -9 and the server is stopped at once, again and again. In the end the
# business table has every message once, each key in its order, and the numbers without a gap.
use strict;
use warnings;
use Test::More;
use Time::HiRes qw(time usleep);

use EsTest;

use constant { PUTTERS => 3, WORKERS => 4, READERS => 2, KEYS => 5, CRASHES => 6 };

my $seed = es_seed();
my $limit = 150;
my $node = es_cluster('inbox', 'restart_after_crash = on');
my $stop = "$PostgreSQL::Test::Utils::tmp_check/stop";

# What may happen to a statement while the server crashes and comes back.
sub survive
{
	my ($answer) = @_;
	my $code = $answer->{sqlstate};

	die "$code $answer->{message}\n" if defined $code && $code !~ /^(08|57)/;
	return !defined $code;
}

sub put
{
	my ($p, $out) = @_;
	my $i = 1;

	srand $seed * 100 + $p;
	es_work($node, $limit, "putter $p", sub {
		my ($session) = @_;
		return 1 if -e $stop;
		# The one that is not known to be stored, or one of the last again.
		my $n = rand() < 0.2 && $i > 10 ? $i - 1 - int rand 9 : $i;
		my $key = "$p-" . $n % KEYS;
		if (survive($session->try(qq{SELECT es_inbox_put('shipping', '$p-$n', 'orders', 'A', '$key', '{"n": $n}')})) && $n == $i)
		{
			print $out "$p-$n\n";
			$i++;
		}
		return 0;
	});
	return;
}

sub run_inbox
{
	my ($w, $out) = @_;

	srand $seed * 100 + 50 + $w;
	es_work($node, $limit, "worker $w", sub {
		my ($session) = @_;
		my $answer = $session->try(q{SELECT * FROM es_inbox_run('shipping', 'ship(es_inbox_message)', } . (1 + int rand 60) . ')');
		# Who was away for longer than a lease may find its lanes taken.
		return 0 if ($answer->{sqlstate} // '') eq 'SE007' || !survive($answer);
		my ($handled, $failed) = @{ $answer->{rows}[0] };
		return 0 if $handled + $failed > 0;
		usleep(2000);
		return -e "$stop.workers";
	});
	return;
}

sub read_source
{
	my ($r, $out) = @_;
	my $i = 0;

	es_work($node, $limit, "reader $r", sub {
		my ($session) = @_;
		return 1 if -e $stop;
		my $sql = join ' ', map { "SELECT look($_);" } $i .. $i + 9;
		$i += 10 if survive($session->try("BEGIN; $sql COMMIT"));
		return 0;
	});
	print $out "$i\n";
	return;
}

my $db = es_connect($node);
$db->rows($_) for split /;;/, q{
	CREATE TABLE shipped (n bigserial, id text, key text, i int);;
	CREATE FUNCTION ship(m es_inbox_message) RETURNS void LANGUAGE plpgsql AS $$
	BEGIN
		INSERT INTO shipped (id, key, i) VALUES (m.message_id, m.key, (m.payload->>'n')::int);
		IF random() < 0.02 THEN
			RAISE EXCEPTION 'no luck';
		END IF;
	END $$;;
	CREATE TABLE looked (n bigint);;
	CREATE FUNCTION look(i bigint) RETURNS void LANGUAGE sql AS
		$$INSERT INTO looked SELECT i WHERE es_inbox_accept_sequence('looking', 'source', i)$$;;
	SELECT es_create_inbox('shipping', lanes => 4, max_attempts => 1000, retry_base => '1 ms', retry_max => '5 ms', lease_time => '2 s')};
my @putters = map { my $p = $_; es_fork("putter$p", sub { put($p, $_[0]) }) } 1 .. PUTTERS;
my @workers = map { my $w = $_; es_fork("worker$w", sub { run_inbox($w, $_[0]) }) } 1 .. WORKERS;
my @readers = map { my $r = $_; es_fork("reader$r", sub { read_source($r, $_[0]) }) } 1 .. READERS;

for my $crash (1 .. CRASHES)
{
	my $from = $db->value('SELECT count(*) FROM shipped');
	my $more = 200 + int rand 300;

	ok(es_poll(sub { $db->value('SELECT count(*) FROM shipped') > $from + $more }, 60), "$more messages on, crash $crash");
	if ($crash % 3)
	{
		es_poll(sub {
				my $backend = $db->value(q{SELECT pid FROM pg_stat_activity
					WHERE application_name ~ '^(worker|reader)' AND state <> 'idle' ORDER BY random() LIMIT 1});
				return $backend && kill 'KILL', $backend;
			}, 60) or die 'nobody is at work';
		ok(es_poll(sub { $db->try('SELECT 1')->{lost} }, 60), 'killed one who was at work; the server begins anew');
	}
	else
	{
		$node->stop('immediate');
		$node->start;
		pass('stopped the server at once');
	}
	$db = es_connect($node);
	es_check($db, "after crash $crash: nothing has its effect twice", 'SELECT id, count(*) FROM shipped GROUP BY 1 HAVING count(*) > 1');
	es_check($db, "after crash $crash: no number was taken twice", 'SELECT n, count(*) FROM looked GROUP BY 1 HAVING count(*) > 1');
}

open my $flag, '>', $stop or die "$stop: $!";
close $flag;
my @told = map { es_reap($_) } @putters;
is(scalar(grep { !$_ } @told), 0, 'the putters came to their end');
my @seen = map { es_reap($_) } @readers;
is(scalar(grep { !$_ } @seen), 0, 'so did the readers');
my $waiting = sub { $db->value(q{SELECT backlog FROM es_inbox_status WHERE consumer = 'shipping'}) };
ok(es_poll(sub { $waiting->() == 0 }, 90), 'and everything was handled') or diag('backlog ' . $waiting->());
open $flag, '>', "$stop.workers" or die "$stop: $!";
close $flag;
is(scalar(grep { !es_reap($_) } @workers), 0, 'the workers came to their end');

my %shipped = map { $_->[0] => 1 } $db->rows('SELECT id FROM shipped');
my @kept = map { @{ $_ // [] } } @told;
note(scalar(@kept) . ' messages, ' . $db->value('SELECT count(*) FROM looked') . ' numbers');
cmp_ok(scalar @kept, '>', 500, 'there were many messages');
is_deeply([ grep { !$shipped{$_} } @kept ], [], 'each that was stored had its effect');
es_check($db, 'and none had it twice', 'SELECT id, count(*) FROM shipped GROUP BY 1 HAVING count(*) > 1');
es_check($db, 'each key in its order',
	'SELECT * FROM (SELECT key, i, lag(i) OVER (PARTITION BY key ORDER BY n) AS before FROM shipped) AS s WHERE before >= i');
my ($last) = sort { $b <=> $a } map { $_->[0] } grep { $_ } @seen;
is($db->value('SELECT count(*) FROM looked'), $last, 'every number was taken once');
es_check($db, 'and nothing but a watermark is kept of them',
	qq{SELECT watermark, ranges, (SELECT count(*) FROM es_inbox_ranges) FROM es_inbox_sequences WHERE watermark <> $last - 1 OR ranges <> 0});
$node->stop;
done_testing();
