# 042_takeover_outbox: members of a subscription to the outbox are killed and stopped; see EsTakeover.
use strict;
use warnings;
use Test::More;

use FindBin;
use lib "$FindBin::RealBin/..";
use EsTakeover;

es_takeover(outbox => 100_000);
done_testing();
