# EsKafka: a Kafka cluster for the TAP tests: librdkafka's mock (test/kafka/mock), or a broker of Apache Kafka.
#
#   my $mock = EsKafka->mock(3, 'orders:4');        # brokers, TOPIC:PARTITIONS...
#   $mock->brokers;                                 # for the relay's settings
#   $mock->command('down -1');                      # see test/kafka/mock.c
#   $mock->records;                                 # [topic, partition, offset, key, {headers}, payload]
#   my $kafka = EsKafka->broker('orders:4');        # one process, KRaft; kill_now, start, add_topic
package EsKafka;

use strict;
use warnings;
use FindBin;
use IO::Handle;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;

use EsDelivery;
use EsTest;

sub mock
{
	my ($class, $brokers, @topics) = @_;
	my $dir = $PostgreSQL::Test::Utils::tmp_check;
	my $self = bless { output => "$dir/kafka_mock.out", log => "$dir/kafka_mock.log" }, $class;

	pipe my $in, $self->{commands} or die "pipe: $!";
	pipe $self->{answers}, my $out or die "pipe: $!";
	$self->{commands}->autoflush(1);
	$self->{pid} = es_run($self->{log}, $in, $out, "$FindBin::RealBin/../kafka/mock", $self->{output}, $brokers, @topics);
	close $in;
	close $out;
	chomp($self->{brokers} = readline $self->{answers} // die 'no mock: ' . slurp_file($self->{log}));
	return $self;
}

sub brokers { return $_[0]{brokers} }

sub command
{
	my ($self, $command) = @_;
	$self->{commands}->print("$command\n");
	my $answer = readline $self->{answers};
	die "mock: $command: " . ($answer // 'gone') if ($answer // '') ne "ok\n";
	return;
}

# One broker that is its own controller. Its directory and ports stay the same over kill_now and start.
sub broker
{
	my ($class, @topics) = @_;
	my $dir = "$PostgreSQL::Test::Utils::tmp_check/kafka";
	my ($port, $controller) = map { PostgreSQL::Test::Cluster::get_free_port() } 1 .. 2;
	my $self = bless { dir => $dir, log => "$dir.log", brokers => "127.0.0.1:$port", topics => \@topics }, $class;

	mkdir $dir or die "$dir: $!";
	append_to_file("$dir/server.properties", join "\n", 'process.roles=broker,controller', 'node.id=1',
		"controller.quorum.voters=1\@127.0.0.1:$controller",
		"listeners=PLAINTEXT://127.0.0.1:$port,CONTROLLER://127.0.0.1:$controller",
		"advertised.listeners=PLAINTEXT://127.0.0.1:$port", 'controller.listener.names=CONTROLLER', "log.dirs=$dir/data",
		'auto.create.topics.enable=false', 'offsets.topic.replication.factor=1', 'transaction.state.log.replication.factor=1',
		'transaction.state.log.min.isr=1', 'offsets.topic.num.partitions=1', 'group.initial.rebalance.delay.ms=0', '');
	system_or_bail('java', java(), 'kafka.tools.StorageTool', 'format', '-t', 'MkU3OEVBNTcwNTJENDM2Qg',
		'-c', "$dir/server.properties");
	$self->start;
	$self->add_topic($_) for @topics;
	return $self;
}

# NAME:PARTITIONS, and properties of the topic behind further colons.
sub add_topic
{
	my ($self, $topic) = @_;
	my ($name, $partitions, @properties) = split /:/, $topic;
	system_or_bail('java', java(), 'org.apache.kafka.tools.TopicCommand', '--bootstrap-server', $self->{brokers},
		'--create', '--topic', $name, '--partitions', $partitions, map { ('--config', $_) } @properties);
	return;
}

sub java { return ('-Xmx256m', '-XX:TieredStopAtLevel=1', '-cp', "$ENV{ES_KAFKA_JARS}/*") }

# Returns when it answers.
sub start
{
	my ($self) = @_;
	$self->{pid} = es_run($self->{log}, undef, undef, 'java', java(), 'kafka.Kafka', "$self->{dir}/server.properties");
	es_poll(sub { system("timeout 5 kcat -L -b $self->{brokers} >/dev/null 2>&1") == 0 }, 90)
	  or die 'the broker does not answer: ' . slurp_file($self->{log});
	return;
}

sub kill_now
{
	my ($self) = @_;
	kill 'KILL', $self->{pid};
	EsDelivery::wait_for_end($self->{pid});
	return;
}

# Everything that has arrived, in the order of each partition.
sub records
{
	my ($self, $topic) = @_;
	my $output = $self->{output};

	if (!defined $output)
	{
		$output = "$self->{dir}/consumed";
		my $format = '%t\t%p\t%o\t%k\t%h\t%s\n';
		system("timeout 60 kcat -C -q -e -o beginning -b $self->{brokers} -t $topic -f '$format' >$output 2>>$self->{log}") == 0
		  or die 'kcat: ' . slurp_file($self->{log});
	}
	open my $in, '<', $output or die "$output: $!";
	my @records;
	while (my $line = <$in>)
	{
		last if $line !~ s/\n\z//;
		my ($of, $partition, $offset, $key, $headers, $payload) = split /\t/, $line, -1;
		next if defined $topic && $of ne $topic;
		push @records, [ $of, $partition, $offset, $key, { map { split /=/, $_, 2 } split /,/, $headers }, $payload ];
	}
	return \@records;
}

# The same as es_delivered takes it.
sub deliveries
{
	my ($self, $topic) = @_;
	return [ map { [ $_->[3], @{ $_->[4] }{qw(ce_streamversion ce_id)} ] } @{ $self->records($topic) } ];
}

1;
