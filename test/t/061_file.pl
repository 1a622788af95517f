# The relay and a file: lines that outlive crashes of the relay, rotation, files that are taken away, a limit that is
# reached as on a full disk, two relays that share the file.
#
# Whatever happens, each line that is there is whole, nothing is missing, and no message of a key overtakes another.
use strict;
use warnings;
use Test::More;

use PostgreSQL::Test::Utils;

use FindBin;
use lib "$FindBin::RealBin/..";
use EsDelivery;
use EsTest;

my $node = es_cluster('file', 'jit = off');
my $db = es_connect($node);
my $dir = "$PostgreSQL::Test::Utils::tmp_check/out";
my $total = 0;
my $have = 0;    # what had arrived when a writer began, duplicates included

mkdir $dir or die $!;
$db->rows("SELECT es_create_subscription('file', 'beginning', lanes => 4)");

sub settings
{
	my ($consumer, @more) = @_;
	return join "\n", '[pipeline]', 'subscription = file', "consumer = $consumer", '[sink]', 'type = file',
	  "path = $dir/events", @more, '';
}

# All files: those that were renamed, by their time, and then the present one.
sub files { return ((sort glob "$dir/events.*"), glob "$dir/events") }
sub records { return [ map { @{ es_cloudevents($_) } } files() ] }

# What is there while somebody writes: a last line may be half there.
sub count_lines
{
	my $count = 0;
	for my $file (files())
	{
		open my $in, '<', $file or next;
		$count++ while <$in>;
	}
	return $count;
}

sub midway
{
	my ($count) = @_;
	return es_poll(sub { count_lines() >= $count }, 60);
}

sub arrived
{
	my ($name, @may) = @_;
	es_poll(sub { my %ids = map { $_->[2] => 1 } @{ records() }; keys %ids >= $total }, 120);
	es_delivered($name, $total, records(), @may);
	return;
}

# -- killed in the middle, again and again
my $one = EsDelivery->relay('one', $node, settings('one'));
$have = count_lines();
my $writer = es_write($node, 'killed', streams => 20, events => 8000);
for my $round (1 .. 8)
{
	midway($have + 900 * $round);
	is($one->kill_now, -9, 'killed');
	append_to_file("$dir/events", '{"torn":') if $round == 4;
	$one->restart;
}
es_reap($writer);
$total += 8000;
arrived('a relay killed with -9');
like($one->log, qr/ended in a torn line of \d+ bytes, which was cut off/, 'a torn line was cut off');

# -- renamed and removed by others
$have = count_lines();
$writer = es_write($node, 'moved', streams => 20, events => 4000);
for my $round (1 .. 5)
{
	midway($have + 600 * $round);
	rename "$dir/events", "$dir/events.0$round" or die $!;
}
es_reap($writer);
$total += 4000;
arrived('renamed by somebody else');

# -- two relays that rotate the same file
is($one->stop, 0, 'stopped');
rename "$dir/events", "$dir/events.09" or die $!;
my @relays = map { EsDelivery->relay("rotating$_", $node, settings("rotating$_", 'rotate_size = 100kB')) } 1 .. 2;
$have = count_lines();
$writer = es_write($node, 'two', streams => 20, events => 8000);
for my $round (1 .. 4)
{
	midway($have + 1500 * $round);
	$relays[ $round % 2 ]->kill_now;
	$relays[ $round % 2 ]->restart;
}
es_reap($writer);
$total += 8000;
# A lane that changes hands while its messages are with the writer comes again meanwhile.
arrived('two relays that rotate one file', late => 1);
my @rotated = glob "$dir/events.2*";
cmp_ok(scalar @rotated, '>', 10, 'it was rotated');
ok(!(grep { -s $_ > 100 * 1024 } @rotated), 'and no file is larger than asked for');
$_->stop for @relays;

# -- a full disk, by a limit on the size of files
my $size = -s "$dir/events" // 0;
my $config = "$PostgreSQL::Test::Utils::tmp_check/relay_full.conf";
my $conninfo = sprintf 'host=%s port=%s dbname=postgres', $node->host, $node->port;
my $log = "$PostgreSQL::Test::Utils::log_path/relay_full.log";
append_to_file($config, "[database]\nconninfo = $conninfo\n" . settings('full'));
$have = count_lines();
$writer = es_write($node, 'full', streams => 20, events => 2000);
es_reap($writer);
$total += 2000;
my $blocks = int($size / 1024) + 100;
my $pid = es_run($log, undef, undef, 'bash', '-c', "ulimit -f $blocks; exec '$ENV{ES_RELAY}' --config '$config'");
ok(es_poll(sub { -e $log && slurp_file($log) =~ /could not write to ".*": File too large/ }, 60), 'no room: it says so');
kill 'KILL', $pid;
EsDelivery::wait_for_end($pid);
ok(!(grep { !defined $_->[0] } @{ records() }), 'and every line is whole');
my $again = EsDelivery->relay('again', $node, settings('again'));
arrived('with room again', late => 1);
is($again->stop, 0, 'stopped');

# -- a file that cannot be there
my $nowhere = EsDelivery->relay('nowhere', $node, settings('nowhere') =~ s{path = .*}{path = $dir/no/such}r);
$db->rows("SELECT es_append('order-1', 'OrderNoted', '{}')");
$total++;
ok($nowhere->logged(qr/could not open ".*": No such file or directory/), 'no such directory: it says so, and goes on');
$nowhere->kill_now;

done_testing();
