# The relay and a child process that writes down what it is told: children that die, keep silent or talk nonsense while
# events flow, a relay that is killed with -9, two that share a subscription, messages that the child refuses.
#
# The child writes before it answers, so what it wrote is what the far side has.  Nothing may be missing, and no message
# of a key may overtake another. What a relay that is killed has in a child's pipe may come late, again.
use strict;
use warnings;
use Test::More;

use PostgreSQL::Test::Utils;

use FindBin;
use lib "$FindBin::RealBin/..";
use EsDelivery;
use EsTest;

my $node = es_cluster('exec', 'jit = off');
my $db = es_connect($node);
my $dir = $PostgreSQL::Test::Utils::tmp_check;
my $output = "$dir/written";
my $total = 0;
my $have = 0;    # what had arrived when a writer began, duplicates included

$db->rows("SELECT es_create_subscription('exec', 'beginning', lanes => 4, retry_base => '10 ms', retry_max => '50 ms',
	max_attempts => 3)");

# Appends each line to the file, in one write, and answers with the id; what it is to do wrong is the second argument.
append_to_file("$dir/child.pl", <<'END');
use strict;
use warnings;
use IO::Handle;
my ($file, $fault) = @ARGV;
open my $to, '>>', $file or die "$file: $!";
STDOUT->autoflush(1);
print STDERR "child $$ is here\n";
my $n = 0;
while (my $line = <STDIN>)
{
	my ($id) = $line =~ /"id":"([^"]+)"/;
	my ($type) = $line =~ /"type":"([^"]+)"/;
	$n++;
	if ($fault eq 'refuse' && $type eq 'Bad') { print "reject id=$id it is bad\n"; next }
	if ($fault eq 'refuse' && $type eq 'Late' && !-e "$file.now") { print "retry id=$id not now\n"; next }
	exit 3 if $fault eq 'die' && $n == 700;
	if ($fault eq 'nonsense' && $n == 700) { print "what?\n"; next }
	if ($fault eq 'silent' && $n == 700) { sleep 600 }
	syswrite $to, $line;
	print "ok id=$id\n";
}
END

sub settings
{
	my ($consumer, $fault, @more) = @_;
	return join "\n", '[pipeline]', 'subscription = exec', "consumer = $consumer", '[sink]', 'type = exec',
	  "command = perl '$dir/child.pl' '$output' $fault", @more, '';
}

sub midway
{
	my ($count) = @_;
	return es_poll(sub { @{ es_cloudevents($output) } >= $count }, 60);
}

sub arrived
{
	my ($name, @may) = @_;
	es_poll(sub { my %ids = map { $_->[2] => 1 } @{ es_cloudevents($output) }; keys %ids >= $total }, 120);
	es_delivered($name, $total, es_cloudevents($output), @may);
	return;
}

# -- children with faults
for my $case (
	[ die => qr/the child ended with exit code 3/ ],
	[ nonsense => qr/it answered "what\?", which is none of ok, retry, reject and down/ ],
	[ silent => qr/it did not answer within 1 s/ ])
{
	my ($fault, $expected) = @$case;
	my $relay = EsDelivery->relay($fault, $node, settings($fault, $fault, 'answer_timeout_s = 1'));
	my $writer = es_write($node, $fault, streams => 20, events => 2000);
	es_reap($writer);
	$total += 2000;
	arrived("children with the fault \"$fault\"");
	like($relay->log, $expected, 'and the log says it');
	like($relay->log, qr/child \d+ is here/, 'as it has what the child complains of');
	is($relay->stop, 0, 'stopped');
}

# -- the relay killed
my $one = EsDelivery->relay('one', $node, settings('one', 'none'));
$have = scalar @{ es_cloudevents($output) };
my $writer = es_write($node, 'killed', streams => 20, events => 4000);
for my $round (1 .. 4)
{
	midway($have + 800 * $round);
	is($one->kill_now, -9, 'killed');
	$one->restart;
}
es_reap($writer);
$total += 4000;
arrived('a relay killed with -9', late => 1);

# -- two that share it, each killed in turn
my $two = EsDelivery->relay('two', $node, settings('two', 'none'));
$have = scalar @{ es_cloudevents($output) };
$writer = es_write($node, 'two', streams => 20, events => 4000);
for my $round (1 .. 4)
{
	midway($have + 800 * $round);
	my $relay = $round % 2 ? $one : $two;
	$relay->kill_now;
	$relay->restart;
}
es_reap($writer);
$total += 4000;
arrived('two relays, killed in turn', late => 1);
is($_->stop, 0, 'stopped') for $one, $two;
is(scalar(grep { $_ } map { m{^/proc/(\d+)/cmdline$} && slurp_cmdline($_) =~ m{\Q$dir\E/child\.pl} } glob '/proc/[0-9]*/cmdline'),
	0, 'no child is left');

sub slurp_cmdline
{
	my ($file) = @_;
	open my $in, '<', $file or return '';
	local $/ = undef;
	return <$in> // '';
}

# -- settings
for my $case (
	[ 'command = no_such_program' => qr/there is no program "no_such_program"/ ],
	[ q{command = echo 'a} => qr/a quote without its partner/ ])
{
	my ($line, $expected) = @$case;
	my $bad = EsDelivery->relay('bad', $node, settings('bad', 'none') =~ s/command = .*/$line/r);
	isnt(EsDelivery::wait_for_end($bad->{pid}), 0, "$line: refused");
	like($bad->log, $expected, '... and named');
	unlink $bad->{config}, $bad->{log};
}

done_testing();
