# 013_library: the library is replaced by another version under running backends.
#
# The other version is this one built with another layout of shared memory, in a private copy of the installation. Backends
# that have the old library go on with it, over chunks whose workers have the new one. Backends that load the new one are
# told to have the server restarted, at each call, and have no registry of their own. After a restart the log goes on. Where
# the library is preloaded every backend has the server's, so nobody notices before the restart.
use strict;
use warnings;
use Test::More;

use Cwd 'abs_path';
use File::Copy;
use PostgreSQL::Test::Utils;

use EsTest;

my $tmp = abs_path($PostgreSQL::Test::Utils::tmp_check);
my $config = $ENV{PG_CONFIG} // 'pg_config';
my $source = '../src';

# A private copy of the installation, for others use the one it comes from.
(my $bin = $ENV{ES_BIN}) =~ s/^\Q$ENV{ES_WORK}\E\/stage//;
system('cp', '-r', "$ENV{ES_WORK}/stage", "$tmp/stage") == 0 or die 'cannot copy the installation';
chomp(my $library = `$tmp/stage$bin/pg_config --pkglibdir`);
$library .= '/es_pg.so';
like($library, qr/^\Q$tmp\E/, 'the copy has a library of its own');

# The same library with another layout.
sub build_other
{
	my ($cc, $cppflags, $cflags, $sl, $include) = map { my $o = `$config --$_`; chomp $o; $o } qw(cc cppflags cflags cflags_sl includedir-server);
	my $objects = join ' ', grep { !/horizon_shmem/ } glob "$source/*.o";
	my $flags = "$cppflags -I$include $cflags $sl -DLAYOUT=4711 -DES_PG_VERSION='\"other\"'";

	return system("$cc $flags -c -o $tmp/horizon_shmem.o $source/horizon_shmem.c && $cc -shared -o $tmp/other.so $objects $tmp/horizon_shmem.o") == 0;
}
ok(build_other(), 'the other version is built');
copy($library, "$tmp/this.so") or die "copy: $!";

# As a package manager does: a new file of the same name.
sub install
{
	my ($which) = @_;
	copy("$tmp/$which.so", "$library.new") or die "copy: $!";
	chmod 0755, "$library.new";
	rename "$library.new", $library or die "rename: $!";
	return;
}

sub append
{
	my ($session, $n) = @_;
	my $answer = $session->try("SELECT version, position FROM es_append_batch('order-1', array_fill('E'::text, ARRAY[$n]), array_fill('1'::jsonb, ARRAY[$n]))");
	return $answer->{rows}[0] // ["$answer->{sqlstate} $answer->{message}"];
}

my $node = es_cluster([ 'library', install_path => "$tmp/stage" . $bin =~ s/\/bin$//r ], 'es_pg.event_chunk_size = 100');
my ($old, $second) = map { es_connect($node) } 1, 2;
my $memory = q{SELECT count(*), sum(allocated_size) FROM pg_shmem_allocations WHERE name LIKE 'es\_pg%'};
is_deeply(append($_->[0], 1), [ $_->[1], $_->[1] + 1 ], 'before: it works') for [ $old, 0 ], [ $second, 1 ];
$old->rows(q{SELECT es_create_subscription('s', 'beginning')});
my ($before) = $old->rows($memory);

install('other');
my $new = es_connect($node);
my $refusal = '55000 another version of the es_pg library is in use in this server';
for (1, 2)
{
	is_deeply(append($new, 1), [$refusal], 'a backend with the new library does not append');
	for my $sql ('SELECT * FROM es_read_all()', 'SELECT es_horizon()', q{SELECT * FROM es_fetch('s', 'c')}, 'SELECT es_prepare_chunks()')
	{
		my $answer = $new->try($sql);
		is("$answer->{sqlstate} $answer->{message}", $refusal, "nor this: $sql");
	}
}
is($new->value('SELECT count(*) FROM es_events'), 2, 'it works otherwise');
is_deeply(append($old, 350), [ 351, 352 ], 'the old backends go on, across chunks');
is_deeply(append($second, 1), [ 352, 353 ], 'all of them');
is($second->value(q{SELECT count(*) FROM es_fetch('s', 'c')}), 353, 'and read');
is_deeply([ $old->rows($memory) ], [$before], 'there is no further registry');
is_deeply(append(es_connect($node), 1), [$refusal], 'each new backend is refused');
es_events_sound($old, 'meanwhile');

$node->restart;
$old = es_connect($node);
is(append($old, 1)->[0], 353, 'after a restart the new library goes on');
cmp_ok($old->value('SELECT es_last_position()'), '>', 353, 'above what the old one had given');
es_events_sound($old, 'after a restart');

# Preloaded.
$node->append_conf('postgresql.conf', "shared_preload_libraries = 'es_pg'");
$node->restart;
$old = es_connect($node);
is(append($old, 1)->[0], 354, 'preloaded: it works');
install('this');
is(append(es_connect($node), 150)->[0], 504, 'a new backend has the library of the server, whatever was installed since');
is(append($old, 1)->[0], 505, 'so have the others');
$node->restart;
$old = es_connect($node);
is(append($old, 1)->[0], 506, 'and after a restart what was installed');
es_events_sound($old, 'at the end');

$node->stop;
done_testing();
