//! The topic configurations of Apache Kafka 4.3, as data: name, broker key that sets the default, type, default, legal
//! values, what an empty value means, meaning. Where our default is safer than Kafka's, the text says so. Those of tiering are here because clients
//! expect them; switching it on is refused, as by a Kafka that has none.

use super::kind::ConfigType;

/// One configuration.
#[derive(Debug, Clone, PartialEq)]
pub struct ConfigKey {
    pub name: &'static str,
    /// The broker configuration that gives the default, empty where there is none.
    pub broker_key: &'static str,
    pub kind: ConfigType,
    pub default: &'static str,
    /// What an empty value means; `None`: it is refused.
    pub empty: Option<&'static str>,
    pub doc: &'static str,
}

impl ConfigKey {
    /// Says why `value` is not legal, in Kafka's words.
    pub fn validate(&self, value: &str) -> Result<(), String> {
        validate(self.name, &self.kind, self.empty.is_some(), value)
    }
}

/// Says why `value` of a key called `name` is not legal, where `empty` tells whether an empty one is.
pub fn validate(name: &str, kind: &ConfigType, empty: bool, value: &str) -> Result<(), String> {
    match value.trim() {
        "" if empty => Ok(()),
        "" => Err(kind.validate(name, value).err().unwrap_or_else(|| {
            format!("Configuration '{name}' must not be empty. Valid values include: any non-empty value")
        })),
        _ => kind.validate(name, value),
    }
}

/// The key called `name`.
pub fn key(name: &str) -> Option<&'static ConfigKey> {
    KEYS.binary_search_by(|key| key.name.cmp(name)).ok().map(|index| &KEYS[index])
}

const INT: i64 = i32::MAX as i64;
const LONG: i64 = i64::MAX;
/// Of an empty value.
const REFUSED: Option<&str> = None;

macro_rules! keys {
    ($($name:literal, $broker_key:literal, $kind:expr, $default:literal, $empty:expr, $doc:literal;)*) => {
        &[$(ConfigKey {
            name: $name, broker_key: $broker_key, kind: $kind, default: $default, empty: $empty, doc: $doc,
        }),*]
    };
}

/// All of them, sorted by name.
pub const KEYS: &[ConfigKey] = keys! {
    "cleanup.policy", "log.cleanup.policy", ConfigType::List(&["compact", "delete"]), "delete", Some("nothing is deleted or compacted"),
        "What happens to old segments: `delete` drops them when they are past retention, `compact` keeps the last record of each key.";
    "compression.gzip.level", "compression.gzip.level", ConfigType::GzipLevel, "-1", REFUSED,
        "Level used when compression.type is gzip.";
    "compression.lz4.level", "compression.lz4.level", ConfigType::Int(1..=17), "9", REFUSED,
        "Level used when compression.type is lz4.";
    "compression.type", "compression.type",
        ConfigType::String(&["uncompressed", "zstd", "lz4", "snappy", "gzip", "producer"]), "producer", REFUSED,
        "How batches are stored; `producer` stores them as they were sent.";
    "compression.zstd.level", "compression.zstd.level", ConfigType::Int(-131_072..=22), "3", REFUSED,
        "Level used when compression.type is zstd.";
    "delete.retention.ms", "log.cleaner.delete.retention.ms", ConfigType::Long(0..=LONG), "86400000", REFUSED,
        "Milliseconds for which a tombstone of a compacted topic can still be read.";
    "file.delete.delay.ms", "log.segment.delete.delay.ms", ConfigType::Long(0..=LONG), "60000", REFUSED,
        "Milliseconds between taking a segment out of the log and removing its file.";
    "flush.messages", "log.flush.interval.messages", ConfigType::Long(1..=LONG), "1", REFUSED,
        "Records after which the log is synced. 1, our default, acknowledges only what is on disk; Kafka's default of 9223372036854775807 leaves syncing to the operating system.";
    "flush.ms", "log.flush.interval.ms", ConfigType::Long(0..=LONG), "9223372036854775807", REFUSED,
        "Milliseconds after which unsynced records are synced.";
    "follower.replication.throttled.replicas", "", ConfigType::ThrottledReplicas, "", Some("none"),
        "Replicas whose replication is throttled on the follower's side, as partition:broker pairs or *.";
    "index.interval.bytes", "log.index.interval.bytes", ConfigType::Int(0..=INT), "4096", REFUSED,
        "Bytes of log between two entries of the offset index.";
    "leader.replication.throttled.replicas", "", ConfigType::ThrottledReplicas, "", Some("none"),
        "Replicas whose replication is throttled on the leader's side, as partition:broker pairs or *.";
    "local.retention.bytes", "log.local.retention.bytes", ConfigType::Long(-2..=LONG), "-2", REFUSED,
        "Bytes of a partition that stay local once its segments are tiered; -2 is retention.bytes. Nothing is tiered here.";
    "local.retention.ms", "log.local.retention.ms", ConfigType::Long(-2..=LONG), "-2", REFUSED,
        "Milliseconds for which tiered segments stay local as well; -2 is retention.ms. Nothing is tiered here.";
    "max.compaction.lag.ms", "log.cleaner.max.compaction.lag.ms", ConfigType::Long(1..=LONG), "9223372036854775807", REFUSED,
        "Milliseconds after which a record must be eligible for compaction.";
    "max.message.bytes", "message.max.bytes", ConfigType::Int(0..=INT), "1048588", REFUSED,
        "The largest batch that is accepted, in bytes as stored.";
    "message.timestamp.after.max.ms", "log.message.timestamp.after.max.ms", ConfigType::Long(0..=LONG), "3600000", REFUSED,
        "Milliseconds by which a record's timestamp may be ahead of the broker's clock.";
    "message.timestamp.before.max.ms", "log.message.timestamp.before.max.ms", ConfigType::Long(0..=LONG), "9223372036854775807", REFUSED,
        "Milliseconds by which a record's timestamp may be behind the broker's clock.";
    "message.timestamp.type", "log.message.timestamp.type", ConfigType::String(&["CreateTime", "LogAppendTime"]), "CreateTime", REFUSED,
        "Whether a record carries the producer's time or the broker's.";
    "min.cleanable.dirty.ratio", "log.cleaner.min.cleanable.ratio", ConfigType::Double(0.0..=1.0), "0.5", REFUSED,
        "Share of uncompacted bytes from which on a log is compacted.";
    "min.compaction.lag.ms", "log.cleaner.min.compaction.lag.ms", ConfigType::Long(0..=LONG), "0", REFUSED,
        "Milliseconds for which a record stays uncompacted.";
    "min.insync.replicas", "min.insync.replicas", ConfigType::Int(1..=INT), "1", REFUSED,
        "In-sync replicas that a produce with acks=all needs.";
    "preallocate", "log.preallocate", ConfigType::Boolean, "false", REFUSED,
        "Whether a new segment's file is allocated at once.";
    "remote.log.copy.disable", "", ConfigType::Boolean, "false", REFUSED,
        "Whether a tiered topic stops to copy segments. Nothing is tiered here.";
    "remote.log.delete.on.disable", "", ConfigType::Boolean, "false", REFUSED,
        "Whether switching tiering off deletes what was tiered. Nothing is tiered here.";
    "remote.storage.enable", "", ConfigType::Boolean, "false", REFUSED,
        "Whether segments are tiered. There is no tiering here: true is refused.";
    "retention.bytes", "log.retention.bytes", ConfigType::Long(-1..=LONG), "-1", REFUSED,
        "Bytes of a partition above which its oldest segments are deleted; -1 is no limit.";
    "retention.ms", "log.retention.ms", ConfigType::Long(-1..=LONG), "604800000", REFUSED,
        "Milliseconds after which a segment is deleted; -1 is no limit.";
    "segment.bytes", "log.segment.bytes", ConfigType::Int(14..=INT), "1073741824", REFUSED,
        "Bytes at which a segment is closed and the next begun.";
    "segment.index.bytes", "log.index.size.max.bytes", ConfigType::Int(4..=INT), "10485760", REFUSED,
        "Bytes at which a segment's offset index is full, which closes the segment.";
    "segment.jitter.ms", "log.roll.jitter.ms", ConfigType::Long(0..=LONG), "0", REFUSED,
        "The most by which segment.ms is shortened at random, so that segments do not all roll at once.";
    "segment.ms", "log.roll.ms", ConfigType::Long(1..=LONG), "604800000", REFUSED,
        "Milliseconds after which a segment is closed although it is not full.";
    "unclean.leader.election.enable", "unclean.leader.election.enable", ConfigType::Boolean, "false", REFUSED,
        "Whether a replica that is not in sync may lead when no other can, at the cost of acknowledged records.";
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_sorted_and_their_defaults_legal() {
        assert!(KEYS.is_sorted_by(|a, b| a.name < b.name));
        for key in KEYS {
            assert_eq!(key.validate(key.default), Ok(()), "{}", key.name);
            assert_eq!(key.validate(" ").is_ok(), key.empty.is_some(), "{}", key.name);
            assert_eq!(key.kind.normalized(key.default), key.default, "{}", key.name);
        }
    }
}
