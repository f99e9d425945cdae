//! Every key that has an effect, and what would notice its absence: a law of the simulator, or a test elsewhere of what no
//! simulated client can see.
//!
//! The table is held complete by tests: a key that is new fails here until somebody says who sees it. Never: a law or a
//! test that does not exist.

use std::collections::BTreeSet;

use Seen::{Law, Nobody, Test};

use crate::laws;

/// Who would notice.
#[derive(Debug, Clone, Copy)]
enum Seen {
    /// A law, and what makes it see.
    Law(&'static str, &'static str),
    /// A file of the tree and the test in it.
    Test(&'static str, &'static str),
    /// A gap, and why.
    #[allow(dead_code, reason = "a key may come that nobody sees yet")]
    Nobody(&'static str),
}

const AUDITOR: &str = "the auditor's next batch after a change, every producer's batches";
const CONFIG_TESTS: &str = "broker/src/config/tests.rs";
const LIMITS: &str = "tests/limits.rs";
const LIFE: &str = "broker/log/src/tests/life.rs";
const SEGMENTS: &str = "segments and indexes on disk after a clean stop";

/// Topic configurations. The broker keys that set their defaults are seen by the same.
const OF_TOPICS: &[(&str, Seen)] = &[
    ("cleanup.policy", Law("config_in_effect", "the auditor's records without keys; deletion_allowed")),
    ("compression.gzip.level", Test("broker/core/src/record/recompress.rs", "every_level_is_read_back")),
    ("compression.type", Law("segments keep to their limits", SEGMENTS)),
    ("compression.zstd.level", Test("broker/core/src/record/recompress.rs", "every_level_is_read_back")),
    ("file.delete.delay.ms", Law("space is given back", "files that left their logs, at the end")),
    ("flush.messages", Law("recovered_log", "power losses and what recovery finds")),
    ("flush.ms", Law("flush_kept", "power losses after its time")),
    ("index.interval.bytes", Law("segments keep to their limits", SEGMENTS)),
    ("max.message.bytes", Law("config_in_effect", AUDITOR)),
    ("message.timestamp.after.max.ms", Law("config_in_effect", AUDITOR)),
    ("message.timestamp.before.max.ms", Law("config_in_effect", AUDITOR)),
    ("message.timestamp.type", Law("config_in_effect", AUDITOR)),
    ("min.insync.replicas", Test("broker/core/src/replication/high_watermark.rs", "rests_below_min_in_sync")),
    ("retention.bytes", Law("retention happens", "what is left at the end; deletion_allowed")),
    ("retention.ms", Law("retention happens", "what is left at the end; deletion_allowed")),
    ("segment.bytes", Law("segments keep to their limits", SEGMENTS)),
    ("segment.index.bytes", Law("segments keep to their limits", SEGMENTS)),
    ("segment.jitter.ms", Test(LIFE, "segment_ms")),
    ("segment.ms", Test(LIFE, "segment_ms")),
];

/// Topic configurations that Kafka has and that are legal in one value only, or that belong to what is not built.
const NOTHING_TO_SEE: &[&str] = &[
    "follower.replication.throttled.replicas",
    "leader.replication.throttled.replicas",
    "remote.log.copy.disable",
    "remote.log.delete.on.disable",
    "remote.storage.enable",
];

/// The broker's own.
const OF_BROKERS: &[(&str, Seen)] = &[
    ("advertised.listeners", Test(CONFIG_TESTS, "a_listener_on_every_interface_is_advertised_by_host_name")),
    (
        "auto.create.topics.enable",
        Test("broker/src/api/tests/live.rs", "metadata_creates_a_topic_when_all_agree"),
    ),
    ("broker.id", Test(CONFIG_TESTS, "keys_that_contradict_each_other_are_refused")),
    ("broker.rack", Test(CONFIG_TESTS, "an_empty_value_is_what_the_table_says_or_refused")),
    ("connections.max.idle.ms", Test(LIMITS, "an_idle_connection_is_closed_and_an_active_one_is_not")),
    ("controller.listener.names", Test(CONFIG_TESTS, "the_file_of_a_single_kafka_node_is_understood")),
    (
        "controller.quorum.bootstrap.servers",
        Test(CONFIG_TESTS, "the_file_of_a_single_kafka_node_is_understood"),
    ),
    ("controller.quorum.voters", Test("broker/src/config/quorum.rs", "voters")),
    ("default.replication.factor", Test("broker/src/api/create_topics.rs", "default_replication_factor")),
    ("delete.topic.enable", Test("broker/src/api/tests/live/topics.rs", "deletion_can_be_disabled")),
    ("fetch.max.bytes", Law("fetch_limits", "every consumer's answers")),
    ("inter.broker.listener.name", Test(CONFIG_TESTS, "the_file_of_a_single_kafka_node_is_understood")),
    ("listener.security.protocol.map", Test(CONFIG_TESTS, "listeners_have_names_hosts_and_ports")),
    ("listeners", Test(CONFIG_TESTS, "listeners_have_names_hosts_and_ports")),
    ("log.dir", Test(CONFIG_TESTS, "log_dirs_wins_over_log_dir")),
    ("log.dirs", Law("a partition has one place", "drawn directories")),
    ("log.flush.offset.checkpoint.interval.ms", Test("broker/log/src/tests/crash.rs", "recovery_point")),
    ("log.retention.check.interval.ms", Law("retention happens", "what is left two looks later")),
    ("max.connections", Test(LIMITS, "above_max_connections_one_waits_until_another_goes")),
    ("max.connections.per.ip", Test(LIMITS, "an_address_has_no_more_connections_than_it_may")),
    ("max.connections.per.ip.overrides", Test(LIMITS, "an_address_has_no_more_connections_than_it_may")),
    (
        "max.incremental.fetch.session.cache.slots",
        Test("broker/core/src/session.rs", "when_all_slots_are_taken_only_the_idle_or_the_lesser_give_way"),
    ),
    (
        "metadata.log.dir",
        Test("broker/src/broker/tests.rs", "a_metadata_directory_without_a_name_is_taken_over"),
    ),
    ("metrics.listener", Test("tests/metrics/main.rs", "nothing_listens_unless_it_is_configured")),
    ("node.id", Test(CONFIG_TESTS, "keys_that_contradict_each_other_are_refused")),
    ("num.io.threads", Test(CONFIG_TESTS, "the_file_of_a_single_kafka_node_is_understood")),
    (
        "num.network.threads",
        Test("tests/metrics/main.rs", "it_tells_how_partitions_threads_and_connections_are"),
    ),
    ("num.partitions", Law("config_in_effect", "topics that the auditor makes without a number")),
    ("process.roles", Test(CONFIG_TESTS, "the_file_of_a_single_kafka_node_is_understood")),
    ("produce.batch.validation", Law("undecodable_refused", "the forger's batches, under strict")),
    (
        "producer.id.expiration.check.interval.ms",
        Law("producer_expires", "the sleeper's batch that leaves sequences out"),
    ),
    (
        "producer.id.expiration.ms",
        Law("producer_expires", "the sleeper; too early: no_duplicate, original_offset"),
    ),
    (
        "queued.max.request.bytes",
        Test(LIMITS, "an_address_with_many_large_answers_outstanding_gets_all_of_them"),
    ),
    (
        "socket.receive.buffer.bytes",
        Test(CONFIG_TESTS, "the_memory_for_requests_is_always_finite_and_fits_one_request"),
    ),
    (
        "socket.request.max.bytes",
        Test("broker/src/server/budget.rs", "the_longest_request_is_charged_for_as_it_arrives"),
    ),
    (
        "socket.send.buffer.bytes",
        Test(CONFIG_TESTS, "the_memory_for_requests_is_always_finite_and_fits_one_request"),
    ),
];

fn check(seen: Seen) -> Result<(), String> {
    match seen {
        Nobody(why) => {
            if why.is_empty() {
                Err("a gap has a reason".to_owned())
            } else {
                Ok(())
            }
        }
        Law(law, how) => {
            if laws::is_one(law) && !how.is_empty() {
                Ok(())
            } else {
                Err(format!("there is no law {law}"))
            }
        }
        Test(file, name) => {
            let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(file);
            #[allow(clippy::disallowed_methods, reason = "a test reads the tree")]
            let text = std::fs::read_to_string(&path).map_err(|error| format!("{file}: {error}"))?;
            if text.contains(name) { Ok(()) } else { Err(format!("{file} holds no {name}")) }
        }
    }
}

fn names(table: &[(&'static str, Seen)]) -> BTreeSet<&'static str> {
    let names: BTreeSet<_> = table.iter().map(|(name, _)| *name).collect();
    assert_eq!(names.len(), table.len(), "a key stands in the table once");
    names
}

#[test]
fn every_key_with_an_effect_has_somebody_who_would_notice_its_absence() {
    let problems: Vec<_> = OF_TOPICS
        .iter()
        .chain(OF_BROKERS)
        .filter_map(|(name, seen)| check(*seen).err().map(|problem| format!("{name}: {problem}")))
        .collect();
    assert!(problems.is_empty(), "{problems:#?}");
}

#[test]
fn the_table_holds_every_topic_key_that_has_an_effect_and_no_other() {
    let with_effect = gracchus_core::topic::KEYS.iter().map(|key| key.name);
    let with_effect: BTreeSet<_> = with_effect
        .filter(|name| !gracchus::config::has_no_effect(name) && !NOTHING_TO_SEE.contains(name))
        .collect();
    assert_eq!(names(OF_TOPICS), with_effect);
}

#[test]
fn the_table_holds_every_broker_key_that_is_no_topics_default_and_no_other() {
    let of_topics: BTreeSet<_> = gracchus::config::keys::keys()
        .into_iter()
        .filter(|key| !key.doc.starts_with("For topics without "))
        .filter(|key| !gracchus::config::has_no_effect(key.name))
        .map(|key| key.name)
        .collect();
    assert_eq!(names(OF_BROKERS), of_topics);
}
