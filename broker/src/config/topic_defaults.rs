//! Broker keys that set the default of a topic configuration, with Kafka's priority of units (ms over minutes over
//! hours). Never: a default of its own; what is not configured is left to [`gracchus_core::topic`].

use std::collections::BTreeMap;

use gracchus_core::topic::{TopicConfig, key};

use super::settings::Reader;

/// Topic key, and the broker keys that set it: the first that is configured wins, multiplied by its unit.
pub(super) const SYNONYMS: &[(&str, &[(&str, i64)])] = &[
    ("cleanup.policy", &[("log.cleanup.policy", 1)]),
    ("compression.gzip.level", &[("compression.gzip.level", 1)]),
    ("compression.lz4.level", &[("compression.lz4.level", 1)]),
    ("compression.type", &[("compression.type", 1)]),
    ("compression.zstd.level", &[("compression.zstd.level", 1)]),
    ("delete.retention.ms", &[("log.cleaner.delete.retention.ms", 1)]),
    ("file.delete.delay.ms", &[("log.segment.delete.delay.ms", 1)]),
    ("flush.messages", &[("log.flush.interval.messages", 1)]),
    ("flush.ms", &[("log.flush.interval.ms", 1), ("log.flush.scheduler.interval.ms", 1)]),
    ("index.interval.bytes", &[("log.index.interval.bytes", 1)]),
    ("local.retention.bytes", &[("log.local.retention.bytes", 1)]),
    ("local.retention.ms", &[("log.local.retention.ms", 1)]),
    ("max.compaction.lag.ms", &[("log.cleaner.max.compaction.lag.ms", 1)]),
    ("max.message.bytes", &[("message.max.bytes", 1)]),
    ("message.timestamp.after.max.ms", &[("log.message.timestamp.after.max.ms", 1)]),
    ("message.timestamp.before.max.ms", &[("log.message.timestamp.before.max.ms", 1)]),
    ("message.timestamp.type", &[("log.message.timestamp.type", 1)]),
    ("min.cleanable.dirty.ratio", &[("log.cleaner.min.cleanable.ratio", 1)]),
    ("min.compaction.lag.ms", &[("log.cleaner.min.compaction.lag.ms", 1)]),
    ("min.insync.replicas", &[("min.insync.replicas", 1)]),
    ("preallocate", &[("log.preallocate", 1)]),
    ("retention.bytes", &[("log.retention.bytes", 1)]),
    (
        "retention.ms",
        &[("log.retention.ms", 1), ("log.retention.minutes", 60_000), ("log.retention.hours", 3_600_000)],
    ),
    ("segment.bytes", &[("log.segment.bytes", 1)]),
    ("segment.index.bytes", &[("log.index.size.max.bytes", 1)]),
    ("segment.jitter.ms", &[("log.roll.jitter.ms", 1), ("log.roll.jitter.hours", 3_600_000)]),
    ("segment.ms", &[("log.roll.ms", 1), ("log.roll.hours", 3_600_000)]),
    ("unclean.leader.election.enable", &[("unclean.leader.election.enable", 1)]),
];

/// Topic keys that are kept and shown but that nothing acts on yet.
const NOT_ACTED_ON: &[&str] = &[
    "compression.lz4.level",
    "delete.retention.ms",
    "local.retention.bytes",
    "local.retention.ms",
    "max.compaction.lag.ms",
    "min.cleanable.dirty.ratio",
    "min.compaction.lag.ms",
    "preallocate",
    "unclean.leader.election.enable",
];

/// Whether nothing acts on `name`, a topic key or a broker key that sets its default.
pub(super) fn has_no_effect(name: &str) -> bool {
    let is_default = |key: &str| {
        SYNONYMS.iter().any(|(topic_key, names)| *topic_key == key && names.iter().any(|(of, _)| *of == name))
    };
    NOT_ACTED_ON.iter().any(|key| *key == name || is_default(key))
}

/// The defaults of topic configurations, and the broker keys that have no effect yet.
pub(super) fn read(reader: &mut Reader<'_>) -> (TopicConfig, Vec<&'static str>) {
    let mut defaults = BTreeMap::new();
    let mut without_effect = Vec::new();
    for (topic_key, synonyms) in SYNONYMS {
        // All are asked for, also those that a stronger one overrides.
        let configured: Vec<_> =
            synonyms.iter().filter_map(|(key, unit)| Some((*key, value(reader, key, *unit)?))).collect();
        if NOT_ACTED_ON.contains(topic_key) {
            without_effect.extend(configured.iter().map(|(key, _)| *key));
        }
        let Some((broker_key, value)) = configured.into_iter().next() else { continue };
        if *topic_key == "retention.ms" && value.trim() == "0" {
            reader.problem(broker_key, "0 would delete everything; use -1 for no limit, or at least 1");
        }
        match key(topic_key).expect("a topic key").validate(&value) {
            Ok(()) => drop(defaults.insert((*topic_key).to_owned(), value)),
            Err(problem) => reader.problem(broker_key, problem),
        }
    }
    let resolved = TopicConfig::resolve(&TopicConfig::default(), &defaults);
    (resolved.expect("every key and value was checked"), without_effect)
}

fn value(reader: &mut Reader<'_>, key: &str, unit: i64) -> Option<String> {
    let text = reader.text(key)?;
    if unit == 1 {
        return Some(text.to_owned());
    }
    // A negative number is no time but Kafka's "no limit", whatever the unit.
    let number: i64 = reader.optional_number(key)?;
    Some(if number < 0 { number } else { number * unit }.to_string())
}
