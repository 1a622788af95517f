# 007_grants_restore: rights outlive what happens to a database and to its roles.
#
# Rights are ACLs of the extension's members, which a dump has as what differs from the extension's own; their limits are
# rows that name roles, and a mark in an ACL. A restore where something of that is missing must never end with a role that
# may do more than before: neither where roles have other OIDs, nor where one is missing, nor without data, nor half way.
use strict;
use warnings;
use Test::More;

use IPC::Run;

use EsTest;

my $node = es_cluster('source');
my $target = es_cluster('target');
my $tmp = $PostgreSQL::Test::Utils::tmp_check;
my @roles = qw(shop clerk mailer auditor chief);

sub database
{
	my ($server, $name) = @_;
	return es_connect($server, dbname => $name);
}

# What the roles of a database may do, as tried.
sub rights
{
	my ($db, @who) = @_;
	my %calls = (
		'append order' => q{SELECT es_append('order-1', 'T', '{}')},
		'append cart' => q{SELECT es_append_json('cart-1', '[{"type": "T", "data": {}}]')},
		'append t1.x' => q{SELECT es_append_batch('t1.x-1', '{T}', '{"{}"}')},
		'read' => 'SELECT * FROM es_read_all()',
		'fetch mails' => q{SELECT * FROM es_fetch('mails', 'me')},
		'ack mails' => q{SELECT es_ack('mails', 0, 0, 1)},
		'ack books' => q{SELECT es_ack('books', 0, 0, 1)},
		'maintain' => 'SELECT es_maintain()',
		'grant' => q{SELECT es_revoke('auditor', 'append')},
		'delete' => 'DELETE FROM es_events');
	my %rights;
	for my $role (@who)
	{
		for my $what (keys %calls)
		{
			$db->rows('BEGIN');
			$db->rows("SET LOCAL ROLE $role");
			my $state = $db->try($calls{$what})->{sqlstate} // '';
			$rights{"$role: $what"} = 1 if $state ne '42501';
			$db->rows('ROLLBACK');
		}
	}
	return \%rights;
}

sub privileges
{
	my ($db) = @_;
	return [ map { join '|', map { $_ // '' } @$_ }
		  $db->rows('SELECT role, privilege, scopes, missing FROM es_privileges ORDER BY role::text COLLATE "C", privilege') ];
}

# Run a client program of the server's; whether it went well, and what it complained of.
sub run
{
	my ($from, @command) = @_;
	my ($out, $err) = ('', '');
	local %ENV = $from->_get_env;
	my $ok = IPC::Run::run(\@command, '>', \$out, '2>', \$err);
	return ($ok && $err eq '', $out . $err);
}

sub restore
{
	my ($server, $name, @command) = @_;
	es_connect($server)->rows("CREATE DATABASE $name");
	return run($server, @command, '-d', $name);
}

# On the target every role has another OID, and the OIDs that the roles have on the source belong to others.
my $admin = es_connect($target);
$admin->rows("CREATE ROLE other_$_") for 1 .. 5;
$admin->rows("CREATE ROLE $_") for reverse @roles;
es_connect($node)->rows("CREATE ROLE $_") for @roles;

es_connect($node)->rows('CREATE DATABASE log');
my $db = database($node, 'log');
$db->rows('CREATE EXTENSION es_pg');
$db->rows(q{SELECT es_append('order-1', 'T', '{}')});
$db->rows(q{SELECT es_create_subscription('mails', 'beginning'), es_create_subscription('books', 'beginning')});
$db->rows(q{SELECT es_grant('shop', 'append', 'order'), es_grant('shop', 'append', 't1.*'), es_grant('shop', 'read'),
	es_grant('clerk', 'append'), es_grant('mailer', 'consume', 'mails'), es_grant('auditor', 'read'), es_grant('chief', 'admin')});
my $expected = rights($db, @roles);
my $shown = privileges($db);
is_deeply([ sort keys %$expected ], [ sort
		'shop: append order', 'shop: append t1.x', 'shop: read', 'clerk: append order', 'clerk: append cart', 'clerk: append t1.x',
		'mailer: fetch mails', 'mailer: ack mails', 'auditor: read', 'chief: maintain', 'chief: grant' ], 'rights are what was granted');

# A role that was dropped, its limits still in the table: whoever gets its OID must get nothing of it.
es_connect($node)->rows('CREATE ROLE gone');
$db->rows(q{SELECT es_grant('gone', 'append', 'order')});
$db->rows('DROP OWNED BY gone');
$db->rows('DROP ROLE gone');
is($db->value(q{SELECT count(*) FROM es_grants WHERE role::text ~ '^[0-9]+$'}), 1, 'a dropped role has left a row');

my ($ok, $said);
for my $format ('plain', 'custom')
{
	($ok, $said) = run($node, 'pg_dump', "--format=$format", "--file=$tmp/log.$format", 'log');
	ok($ok, "pg_dump, $format") or diag($said);
}
my $plain = PostgreSQL::Test::Utils::slurp_file("$tmp/log.plain");
unlike($plain, qr/TO PUBLIC|FROM PUBLIC/, 'a dump says nothing of what the extension itself grants');
cmp_ok(index($plain, 'ON TYPE public.es_append_limit TO shop'), '>', 0, 'it has the mark of a limited role');
cmp_ok(index($plain, 'ON TYPE public.es_append_limit TO shop'), '<', index($plain, 'ON FUNCTION public.es_append('),
	'before its right, so half a restore gives nobody more');

for my $server ($node, $target)
{
	my $where = $server->name;
	for my $format ('plain', 'custom')
	{
		my $name = "log_$format";
		($ok, $said) = restore($server, $name, $format eq 'plain'
			? ('psql', '-X', '-q', '-o', '/dev/null', '-v', 'ON_ERROR_STOP=1', '-f', "$tmp/log.plain")
			: ('pg_restore', '--exit-on-error', "$tmp/log.custom"));
		ok($ok, "$where, $format: restored") or diag($said);
		my $restored = database($server, $name);
		is_deeply(rights($restored, @roles), $expected, "$where, $format: everyone may do what he could");
		is_deeply(privileges($restored), $shown, "$where, $format: es_privileges says so");
		is_deeply(rights($restored, 'other_1', 'other_5'), {}, "$where, $format: and nobody else") if $server == $target;
		is($restored->value(q{SELECT count(*) FROM es_grants WHERE role::text ~ '^[0-9]+$'}), 0, "$where, $format: dropped roles are not restored");
		# What came back can be changed like what was granted here.
		$restored->rows(q{SELECT es_grant('shop', 'append', 'cart'), es_revoke('shop', 'append', 'order'), es_revoke('clerk', 'append'), es_revoke('auditor', 'read')});
		my $changed = rights($restored, 'shop', 'clerk', 'auditor');
		is_deeply([ sort keys %$changed ], [ 'shop: append cart', 'shop: append t1.x', 'shop: read' ], "$where, $format: and it can be changed");
		$restored->close;
	}
}

# Definitions alone: no rows, but the mark is there. What was limited may do nothing; the rest is as it was.
my %closed = map { $_ => 1 } grep { !/^shop: append|^mailer: .* mails/ } keys %$expected;
($ok, $said) = restore($target, 'log_schema', 'pg_restore', '--schema-only', '--exit-on-error', "$tmp/log.custom");
ok($ok, 'definitions alone are restored') or diag($said);
my $bare = database($target, 'log_schema');
is_deeply(rights($bare, @roles), \%closed, 'without data a limited role may do nothing with its limits, not everything without them');
$bare->close;

# A role is missing: no limits are restored at all, and pg_restore says so. Again it is closed, and the rows can be had later.
$admin->rows('DROP OWNED BY mailer');
$admin->rows('CREATE DATABASE scratch');
for my $name (map { $_->[0] } $admin->rows(q{SELECT datname FROM pg_database WHERE datname LIKE 'log%'}))
{
	$admin->rows("DROP DATABASE $name WITH (FORCE)");
}
$admin->rows('DROP ROLE mailer');
($ok, $said) = restore($target, 'log_missing', 'pg_restore', "$tmp/log.custom");
ok(!$ok, 'a restore without one of the roles complains');
like($said, qr/role "mailer" does not exist/, 'and says which');
my $missing = database($target, 'log_missing');
my @present = grep { $_ ne 'mailer' } @roles;
is_deeply(rights($missing, @present), { map { $_ => 1 } grep { !/^mailer/ } keys %closed }, 'and limited roles may do nothing');
$missing->rows('CREATE ROLE mailer');
($ok, $said) = run($target, 'pg_restore', '--exit-on-error', '--data-only', '--table=es_grants', '-d', 'log_missing', "$tmp/log.custom");
ok($ok, 'the limits can be restored once the role is there') or diag($said);
is_deeply(rights($missing, @roles), { map { $_ => 1 } grep { !/^mailer/ } keys %$expected }, 'and then they are back; who was missing is granted anew');
$missing->rows(q{SELECT es_grant('mailer', 'consume', 'mails')});
is_deeply(rights($missing, @roles), $expected, 'like this');
$missing->close;

# The owner: there is no ALTER EXTENSION ... OWNER. An extension that a superuser other than the first one made can be
# reassigned, to somebody who is no superuser, too; then that one is who grants, and is not limited.
my $super = es_connect($node);
$super->rows('CREATE ROLE maker SUPERUSER');
$super->rows('CREATE ROLE keeper');
$super->rows('CREATE DATABASE owned');
my $owned = database($node, 'owned');
is($owned->try('ALTER EXTENSION es_pg OWNER TO keeper')->{sqlstate}, '42601', 'an extension has no other owner by ALTER');
$owned->rows('SET SESSION AUTHORIZATION maker');
$owned->rows('CREATE EXTENSION es_pg');
$owned->rows(q{SELECT es_append('order-1', 'T', '{}')});
$owned->rows(q{SELECT es_create_subscription('mails', 'beginning'), es_create_subscription('books', 'beginning')});
$owned->rows(q{SELECT es_grant('shop', 'append', 'order'), es_grant('chief', 'admin')});
my $before = rights($owned, 'shop', 'chief');
$owned->rows('RESET SESSION AUTHORIZATION');
$owned->rows('REASSIGN OWNED BY maker TO keeper');
is($owned->value(q{SELECT count(*) FROM pg_shdepend WHERE refobjid = 'maker'::regrole AND dbid = (SELECT oid FROM pg_database WHERE datname = 'owned')}), 0,
	'nothing is its maker\'s any more');
is_deeply(rights($owned, 'shop', 'chief'), $before, 'grants stay when the owner changes');
$owned->rows('SET ROLE chief');
$owned->rows(q{SELECT es_grant('mailer', 'consume', 'mails'), es_grant('clerk', 'append', 'cart'), es_revoke('shop', 'append')});
$owned->rows('RESET ROLE');
is_deeply([ sort keys %{ rights($owned, 'shop', 'mailer', 'clerk') } ], [ 'clerk: append cart', 'mailer: ack mails', 'mailer: fetch mails' ],
	'and go on with an owner that is no superuser');
is_deeply([ grep { /append/ } sort keys %{ rights($owned, 'keeper') } ], [ 'keeper: append cart', 'keeper: append order', 'keeper: append t1.x' ],
	'who has no limits');
$owned->rows('SET ROLE keeper');
is($owned->try(q{SELECT es_grant('keeper', 'append', 'order')})->{sqlstate}, '0LP01', 'and can get none');
$owned->rows('RESET ROLE');

# DROP OWNED BY takes it all, and the role can go.
$owned->rows('DROP OWNED BY clerk, mailer, shop, chief');
is_deeply(rights($owned, @roles), {}, 'DROP OWNED BY leaves nobody anything');
$owned->rows('GRANT EXECUTE ON FUNCTION es_append_json TO clerk');
is_deeply([ keys %{ rights($owned, 'clerk') } ], ['clerk: append cart'], 'a right by hand that comes after it has no limits');

$node->stop;
$target->stop;
done_testing();
