//! Topics and configurations.

use crate::step::{Lines, Step, step};

const FLUSH: &str = "ours syncs every append by default";
const UNKNOWN: &str = "ours takes no key that it does not know, so that a slip is noticed";

/// Names and partitions of topics.
pub(crate) fn topics() -> Vec<Step> {
    let create = |line| step("topics", "--create", line);
    let alter = |line| step("topics", "--alter", line);
    let describe = |line| step("topics", "--describe", line);
    let list = |line| step("topics", "--list", line);
    vec![
        list("--list"),
        describe("--describe"),
        create("--create --topic orders --partitions 3 --replication-factor 1"),
        create("--create --topic orders --partitions 3 --replication-factor 1"),
        create("--create --topic orders --if-not-exists"),
        create("--create --topic defaults"),
        create(
            "--create --topic configured --partitions 1 --config retention.ms=3600000 --config max.message.bytes=2097152",
        ),
        create("--create --topic dotted.name"),
        create("--create --topic dotted_name"),
        create("--create --topic too-many-copies --replication-factor 3"),
        create("--create --topic no-partitions --partitions 0"),
        create("--create --topic many --partitions 40"),
        create("--create --topic bad!name"),
        create("--create --topic .."),
        create("--create --topic bad-config --config retention.ms=soon"),
        create("--create --topic unknown-config --config no.such.config=1"),
        create("--create --topic bad-list --config cleanup.policy=tidy"),
        create("--create --topic below-bound --config segment.bytes=10"),
        create("--create --topic both --config cleanup.policy=compact,delete"),
        create("--create --topic placed --replica-assignment 1,1"),
        create("--create --topic placed-away --replica-assignment 7"),
        create("--create --topic placed-twice --replica-assignment 1:1"),
        create("--create"),
        list("--list"),
        list("--list --topic d.*"),
        list("--list --topic nothing.*"),
        list("--list --exclude-internal"),
        describe("--describe --topic orders"),
        describe("--describe --topic configured"),
        describe("--describe --topic both"),
        describe("--describe --topic many"),
        describe("--describe --topic nowhere"),
        describe("--describe --topic nowhere --if-exists"),
        describe("--describe --topic-id AAAAAAAAAAAAAAAAAAAABQ"),
        describe("--describe --topics-with-overrides"),
        describe("--describe --under-replicated-partitions"),
        describe("--describe --unavailable-partitions"),
        describe("--describe --under-min-isr-partitions"),
        describe("--describe --at-min-isr-partitions --topic orders"),
        describe("--describe --exclude-internal --topic d.*"),
        alter("--alter --topic orders --partitions 5"),
        alter("--alter --topic orders --partitions 5"),
        alter("--alter --topic orders --partitions 2"),
        alter("--alter --topic nowhere --partitions 2"),
        alter("--alter --topic nowhere --partitions 2 --if-exists"),
        alter("--alter --topic defaults --partitions 5 --replica-assignment 1"),
        alter("--alter --topic defaults --partitions 6 --replica-assignment 1,1,1,1,7,7"),
        describe("--describe --topic orders"),
        describe("--describe"),
        step("log-dirs", "--describe", "--describe --topic-list orders,configured"),
    ]
}

/// Configurations of topics, brokers and loggers.
pub(crate) fn configs() -> Vec<Step> {
    let topics = |line| step("configs", "topics", line);
    let every = |line| topics(line).differs("  flush.messages=", FLUSH);
    let quotas = |line| step("configs", "quotas", line);
    let brokers = |line| step("configs", "brokers", line);
    let defaults = |line| step("configs", "broker defaults", line);
    let loggers = |line| step("configs", "broker-loggers", line);
    vec![
        topics("--describe --entity-type topics --entity-name orders"),
        every("--describe --all --entity-type topics --entity-name orders"),
        every("--describe --all --entity-type topics --entity-name configured"),
        topics(
            "--alter --entity-type topics --entity-name orders --add-config retention.ms=1000,max.message.bytes=2000000",
        ),
        topics("--describe --entity-type topics --entity-name orders"),
        topics(
            "--alter --entity-type topics --entity-name orders --add-config cleanup.policy=[compact,delete]",
        ),
        topics("--describe --entity-type topics --entity-name orders"),
        topics("--alter --entity-type topics --entity-name orders --add-config no.such.config=1"),
        topics("--alter --entity-type topics --entity-name orders --add-config retention.ms=soon"),
        topics("--alter --entity-type topics --entity-name orders --add-config segment.bytes=1").differs(
            "configuration segment.bytes",
            "ours takes segments of any size that Kafka's files can have",
        ),
        topics("--alter --entity-type topics --entity-name orders --add-config cleanup.policy=tidy"),
        topics("--alter --entity-type topics --entity-name orders --add-config compression.type=brotli"),
        topics("--alter --entity-type topics --entity-name orders --add-config min.insync.replicas=0"),
        topics("--alter --entity-type topics --entity-name nowhere --add-config retention.ms=1000"),
        topics(
            "--alter --entity-type topics --entity-name orders --delete-config retention.ms,max.message.bytes,cleanup.policy",
        ),
        topics("--alter --entity-type topics --entity-name orders --delete-config retention.ms"),
        topics("--alter --entity-type topics --entity-name orders --delete-config no.such.config"),
        topics("--describe --entity-type topics --entity-name orders"),
        topics("--describe --entity-type topics --entity-name nowhere"),
        topics("--describe --entity-type topics"),
        topics("--alter --entity-type topics --entity-name orders"),
        brokers("--describe --entity-type brokers --entity-name 1"),
        broker_configs(),
        brokers("--describe --entity-type brokers"),
        brokers("--describe --entity-type brokers --entity-name 7"),
        brokers("--alter --entity-type brokers --entity-name 1 --add-config log.retention.ms=7200000"),
        brokers("--describe --entity-type brokers --entity-name 1"),
        every("--describe --all --entity-type topics --entity-name orders"),
        brokers("--alter --entity-type brokers --entity-name 1 --add-config log.dirs=/elsewhere"),
        brokers("--alter --entity-type brokers --entity-name 1 --add-config log.retention.ms=soon"),
        brokers("--alter --entity-type brokers --entity-name 1 --add-config max.connections=100000"),
        brokers(
            "--alter --entity-type brokers --entity-name 1 --delete-config log.retention.ms,max.connections",
        ),
        brokers("--describe --entity-type brokers --entity-name 1"),
        brokers(
            "--alter --entity-type brokers --entity-name 1 --add-config leader.replication.throttled.rate=1000,follower.replication.throttled.rate=2000",
        ),
        brokers(
            "--alter --entity-type brokers --entity-name 1 --add-config replica.alter.log.dirs.io.max.bytes.per.second=-1",
        ),
        brokers("--describe --entity-type brokers --entity-name 1"),
        brokers(
            "--alter --entity-type brokers --entity-name 1 --delete-config leader.replication.throttled.rate,follower.replication.throttled.rate",
        ),
        defaults("--describe --entity-type brokers --entity-default"),
        defaults(
            "--alter --entity-type brokers --entity-default --add-config log.retention.ms=3600000,message.max.bytes=2000000",
        ),
        defaults("--describe --entity-type brokers --entity-default"),
        brokers("--describe --entity-type brokers --entity-name 1"),
        every("--describe --all --entity-type topics --entity-name orders"),
        defaults(
            "--alter --entity-type brokers --entity-default --delete-config log.retention.ms,message.max.bytes",
        ),
        defaults("--describe --entity-type brokers --entity-default"),
        defaults("--alter --entity-type brokers --entity-default --add-config broker.rack=here"),
        defaults("--alter --entity-type brokers --entity-default --delete-config min.insync.replicas"),
        defaults("--alter --entity-type brokers --entity-default --add-config min.insync.replicas=2"),
        defaults("--alter --entity-type brokers --entity-default --add-config min.insync.replicas="),
        defaults("--describe --entity-type brokers --entity-default"),
        topics("--describe --all --entity-type topics --entity-name defaults")
            .differs("  flush.messages=", FLUSH),
        step("topics", "--describe", "--describe --topic defaults"),
        step("topics", "--describe", "--describe --under-min-isr-partitions"),
        defaults("--alter --entity-type brokers --entity-default --add-config min.insync.replicas=1"),
        brokers("--alter --entity-type brokers --entity-name 1 --add-config min.insync.replicas=1"),
        brokers("--alter --entity-type brokers --entity-name 1 --delete-config min.insync.replicas"),
        brokers("--describe --entity-type brokers --entity-name 1"),
        // What ours does not act on.
        brokers("--alter --entity-type brokers --entity-name 1 --add-config log.cleaner.threads=2"),
        brokers("--describe --entity-type brokers --entity-name 1"),
        brokers("--alter --entity-type brokers --entity-name 1 --add-config log.cleaner.threads=many"),
        brokers("--alter --entity-type brokers --entity-name 1 --add-config log.cleaner.threads="),
        brokers("--alter --entity-type brokers --entity-name 1 --add-config group.max.size=5"),
        brokers("--alter --entity-type brokers --entity-name 1 --add-config ssl.keystore.location=/keys"),
        brokers(
            "--alter --entity-type brokers --entity-name 1 --add-config listener.name.outside.sasl.jaas.config=secret",
        ),
        brokers(
            "--alter --entity-type brokers --entity-name 1 --add-config sasl.enabled.mechanisms=[PLAIN,SCRAM-SHA-256]",
        ),
        brokers("--describe --entity-type brokers --entity-name 1"),
        brokers(
            "--alter --entity-type brokers --entity-name 1 --delete-config log.cleaner.threads,listener.name.outside.sasl.jaas.config,sasl.enabled.mechanisms",
        ),
        defaults("--alter --entity-type brokers --entity-default --add-config log.cleaner.backoff.ms=20000"),
        defaults("--alter --entity-type brokers --entity-default --add-config sasl.enabled.mechanisms=PLAIN"),
        defaults("--describe --entity-type brokers --entity-default"),
        defaults("--alter --entity-type brokers --entity-default --delete-config log.cleaner.backoff.ms"),
        // Empty values.
        brokers("--alter --entity-type brokers --entity-name 1 --add-config log.cleanup.policy="),
        brokers("--describe --entity-type brokers --entity-name 1"),
        every("--describe --all --entity-type topics --entity-name defaults"),
        brokers("--alter --entity-type brokers --entity-name 1 --delete-config log.cleanup.policy"),
        brokers("--alter --entity-type brokers --entity-name 1 --add-config log.retention.ms="),
        brokers("--alter --entity-type brokers --entity-name 1 --add-config compression.type="),
        topics("--alter --entity-type topics --entity-name defaults --add-config cleanup.policy="),
        topics("--describe --entity-type topics --entity-name defaults"),
        topics("--alter --entity-type topics --entity-name defaults --delete-config cleanup.policy"),
        topics("--alter --entity-type topics --entity-name defaults --add-config retention.ms="),
        topics("--alter --entity-type topics --entity-name defaults --add-config preallocate="),
        topics(
            "--alter --entity-type topics --entity-name defaults --add-config leader.replication.throttled.replicas=",
        ),
        topics("--describe --entity-type topics --entity-name defaults"),
        topics(
            "--alter --entity-type topics --entity-name defaults --delete-config leader.replication.throttled.replicas",
        ),
        loggers("--describe --entity-type broker-loggers --entity-name 1")
            .differs("sensitive=false", "the loggers are the programs' own"),
        loggers("--alter --entity-type broker-loggers --entity-name 1 --add-config root=WARN"),
        loggers("--alter --entity-type broker-loggers --entity-name 1 --add-config no.such.logger=DEBUG"),
        loggers("--alter --entity-type broker-loggers --entity-name 1 --add-config root=LOUD"),
        loggers("--alter --entity-type broker-loggers --entity-name 1 --delete-config root"),
        loggers("--describe --entity-type broker-loggers --entity-name 7"),
        step("configs", "groups", "--describe --entity-type groups"),
        step("configs", "client-metrics", "--describe --entity-type client-metrics"),
        quotas("--describe --entity-type users"),
        quotas("--describe --entity-type clients"),
        quotas("--describe --entity-type ips"),
        brokers("--alter --entity-type brokers --entity-name 1 --add-config no.such.config=1")
            .differs("", UNKNOWN),
    ]
}

/// Every key of a broker.
fn broker_configs() -> Step {
    let started = [
        "  advertised.listeners=",
        "  listeners=",
        "  listener.security.protocol.map=",
        "  controller.listener.names=",
        "  controller.quorum.voters=",
        "  process.roles=",
        "  node.id=",
    ];
    step("configs", "brokers", "--describe --all --entity-type brokers --entity-name 1")
        .left_out(
            Lines::KeysNotListed,
            "ours lists no keys of groups, transactions, security, tiering, KRaft and Java",
        )
        .all_differ(&started, "as what and where each was started")
        .differs("  log.dir=", "another default directory")
        .differs("  log.flush.interval.messages=", FLUSH)
        .differs("  num.network.threads=", "ours takes as many threads as there are cores")
        .differs("  queued.max.request.bytes=", "ours bounds the memory of requests by default")
        .differs(
            "  socket.receive.buffer.bytes=",
            "ours leaves the size of receive buffers to the system by default",
        )
        .differs(
            "  produce.batch.validation=",
            "ours lets the operator choose how far batches are looked into",
        )
        .differs("  metrics.listener=", "ours has no JMX but an endpoint for Prometheus")
        .differs("  producer.id.expiration.check.interval.ms=", "Kafka keeps this key to itself")
}

/// The end of topics.
pub(crate) fn deletion() -> Vec<Step> {
    let delete = |line| step("topics", "--delete", line);
    vec![
        delete("--delete --topic nowhere"),
        delete("--delete --topic nowhere --if-exists"),
        delete("--delete --topic orders"),
        delete("--delete --topic dotted.*"),
        delete("--delete"),
        step("topics", "--create", "--create --topic orders --partitions 1"),
        step("topics", "--describe", "--describe --topic orders"),
        step("topics", "--list", "--list"),
        step("get-offsets", "latest", "--topic orders"),
    ]
}
