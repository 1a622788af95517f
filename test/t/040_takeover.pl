# 040_takeover: members of a subscription to events are killed and stopped; see EsTakeover.
use strict;
use warnings;
use Test::More;

use FindBin;
use lib "$FindBin::RealBin/..";
use EsTakeover;

es_takeover(events => 100_000);
done_testing();
