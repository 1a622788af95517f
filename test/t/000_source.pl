# 000_source: what must hold of the source itself, whatever it does.

use strict;
use warnings;
use Test::More;

# The files below the directories whose names end so.
sub files
{
	my ($suffix, @directories) = @_;

	return grep { -f } map { glob "$_/*$suffix" } @directories;
}

sub lines_of
{
	my ($file) = @_;
	open my $from, '<', $file or die "$file: $!\n";
	return <$from>;
}

# The lines that match, as file:line, comments included: they are where a version is first written.
sub found
{
	my ($pattern, @files) = @_;
	my @found;

	foreach my $file (@files)
	{
		my $number = 0;

		foreach my $line (lines_of($file))
		{
			$number++;
			push @found, "$file:$number" if $line =~ $pattern;
		}
	}
	return @found;
}

my @c = files('.[ch]', qw(../src ../relay ../relay/sinks));
my $version = qr/\bPG_(?:VERSION_NUM|MAJORVERSION(?:_NUM)?)\b/;

cmp_ok(scalar(@c), '>', 20, 'there is source');
isnt(scalar(found($version, '../src/compat.h')), 0, 'compat.h names the versions of PostgreSQL');
is_deeply([ found($version, grep { $_ ne '../src/compat.h' } @c) ], [], 'and no other file does');

done_testing();
