# 003_dump_restore: a dump has everything, and its restore goes on where it ended.
#
# The log is spread over several chunks, which pg_dump knows as tables of no extension, while their parent is the
# extension's own: so each format, a parallel restore, another server, and an extension in a schema of its own are tried.
# Afterwards positions, versions and ids are what they were, history cannot be changed in any chunk, readers go on behind
# their cursors, and the next append gets the next version and a position above all that there are.
use strict;
use warnings;
use Test::More;

use EsRestore;
use EsTest;

my $node = es_cluster('source', 'es_pg.event_chunk_size = 100');
my $target = es_cluster('target', 'es_pg.event_chunk_size = 100');
my $control = es_connect($node);

my $tmp = $PostgreSQL::Test::Utils::tmp_check;
for my $schema ('public', 'es')
{
	my $source = "log_$schema";
	my $db = es_make_log($node, $source, $schema);
	my $expected = es_log_contents($db);

	cmp_ok(scalar @{ $expected->{chunks} }, '>', 10, "$source: the log has many chunks");
	my %dump = map { $_ => "$tmp/$source.$_" } qw(plain custom directory);
	es_run("$source: pg_dump, $_", $node, 'pg_dump', "--format=$_", "--file=$dump{$_}", $source) for sort keys %dump;

	for my $kind ('plain', 'custom', 'directory', 'elsewhere')
	{
		my $server = $kind eq 'elsewhere' ? $target : $node;
		my $name = "${source}_$kind";
		es_connect($server)->rows("CREATE DATABASE $name");
		if ($kind eq 'plain')
		{
			es_run("$name: psql", $server, 'psql', '-X', '-q', '-o', '/dev/null', '-v', 'ON_ERROR_STOP=1', '-d', $name, '-f', $dump{plain});
		}
		else
		{
			my $format = $kind eq 'elsewhere' ? 'directory' : $kind;
			es_run("$name: pg_restore", $server, 'pg_restore', '--exit-on-error', $format eq 'directory' ? '--jobs=4' : '--jobs=1',
				'-d', $name, $dump{$format});
		}
		my $restored = es_connect($server, dbname => $name, options => "-c search_path=$schema,public");
		es_check_restored($name, $restored, $expected);
		$restored->close;
	}

	# Data alone, into an installation that is empty but for its chunks' definitions.
	my $name = "${source}_data";
	$control->rows("CREATE DATABASE $name");
	my $empty = es_connect($node, dbname => $name, options => "-c search_path=$schema,public");
	$empty->rows("CREATE SCHEMA IF NOT EXISTS $schema");
	$empty->rows("CREATE EXTENSION es_pg SCHEMA $schema");
	$empty->close;
	es_run("$name: definitions of the chunks", $node, 'pg_restore', '--exit-on-error', '--schema=es_chunks', '--schema-only', '-d', $name, $dump{custom});
	es_run("$name: data alone", $node, 'pg_restore', '--exit-on-error', '--data-only', '-d', $name, $dump{custom});
	my $filled = es_connect($node, dbname => $name, options => "-c search_path=$schema,public");
	es_check_restored($name, $filled, $expected);
	$filled->close;

	is_deeply(es_log_contents($db), $expected, "$source: the original is as it was");
	$db->close;
}

$node->stop;
$target->stop;
done_testing();
