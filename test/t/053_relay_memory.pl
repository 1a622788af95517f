# 053_relay_memory: whatever the backlog and the mix of payloads, a relay stays below 64 MB: messages of 10 MB, JSON and
# bytes, among many small ones, and a reader that takes nothing for a while.
use strict;
use warnings;
use Test::More;

use PostgreSQL::Test::Utils;

use FindBin;
use lib "$FindBin::RealBin/..";
use EsDelivery;
use EsTest;

use constant LIMIT_KB => 64 * 1024;

my $node = es_cluster('memory', 'jit = off');
my $db = es_connect($node);
my $dir = $PostgreSQL::Test::Utils::tmp_check;

$db->rows(q{SELECT es_create_subscription('memory', 'beginning', source => 'outbox', lanes => 2)});
$db->rows(q{SELECT count(es_publish('t', 'Small', jsonb_build_object('i', i), key => 'k' || i)) FROM generate_series(1, 30000) AS i});
$db->rows(q{SELECT count(es_publish('t', 'Large', jsonb_build_object('p', repeat(md5(i::text), 320000)), key => 'l')) FROM generate_series(1, 4) AS i});
$db->rows(q{SELECT count(es_publish_binary('t', 'Bytes', decode(repeat(md5(i::text), 640000), 'hex'), 'image/png', key => 'b')) FROM generate_series(1, 3) AS i});
$db->rows(q{SELECT count(es_publish('t', 'Medium', jsonb_build_object('p', repeat(md5(i::text), 3200)), key => 'm' || i)) FROM generate_series(1, 300) AS i});
my $count = $db->value('SELECT count(*) FROM es_outbox');

sub peak_kb
{
	my ($relay) = @_;
	return slurp_file("/proc/$relay->{pid}/status") =~ /^VmHWM:\s+(\d+) kB$/m ? $1 : die;
}

my $relay = bless { name => 'relay', config => "$dir/relay.conf", log => "$dir/relay.log" }, 'EsDelivery';
append_to_file($relay->{config}, sprintf <<'END', $node->host, $node->port);
[database]
conninfo = host=%s port=%s dbname=postgres

[pipeline]
subscription = memory
END
pipe my $from, my $to or die "pipe: $!";
$relay->{pid} = es_run($relay->{log}, undef, $to, $ENV{ES_RELAY}, '--config', $relay->{config});
close $to;

# Nobody reads, until the relay has filled what it has room for and asks for no more.
ok(es_poll(sub {
		$db->value(q{SELECT count(*) FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND query LIKE '%es_renew(%' AND state = 'idle'});
	}, 60), 'a reader that takes nothing is waited for, with signs of life');
cmp_ok(peak_kb($relay), '<', LIMIT_KB, 'in little memory');

my ($lines, $bytes) = (0, 0);
while ($lines < $count)
{
	my $n = sysread $from, my $data, 1 << 20;
	last if !$n;
	$bytes += $n;
	$lines += $data =~ tr/\n//;
}
is($lines, $count, 'all arrives');
cmp_ok($bytes, '>', 100_000_000, 'a lot of it');
my $peak = peak_kb($relay);
cmp_ok($peak, '<', LIMIT_KB, "in less than 64 MB ($peak kB)");
is($relay->stop, 0, 'stopped');
done_testing();
