//! A topic's configuration, resolved: topic override, else the broker's default, else Kafka's (or our safer) default.

use std::collections::BTreeMap;

use super::keys::{ConfigKey, KEYS, key};
use crate::record::{Codec, Compression, TimestampType};

/// `cleanup.policy`; both may hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CleanupPolicy {
    pub compact: bool,
    pub delete: bool,
}

/// `compression.type`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CompressionType {
    /// As sent.
    Producer,
    Uncompressed,
    Gzip,
    Snappy,
    Lz4,
    Zstd,
}

/// Resolved values. Names are Kafka's; units stand in the names.
#[derive(Debug, Clone, PartialEq)]
pub struct TopicConfig {
    pub cleanup_policy: CleanupPolicy,
    pub compression_type: CompressionType,
    /// −1: the codec's own default.
    pub compression_gzip_level: i32,
    pub compression_lz4_level: i32,
    pub compression_zstd_level: i32,
    pub delete_retention_ms: i64,
    pub file_delete_delay_ms: i64,
    /// 1: acknowledged means synced.
    pub flush_messages: i64,
    pub flush_ms: i64,
    pub index_interval_bytes: usize,
    pub max_message_bytes: usize,
    pub message_timestamp_after_max_ms: i64,
    pub message_timestamp_before_max_ms: i64,
    pub message_timestamp_type: TimestampType,
    pub min_insync_replicas: i32,
    /// −1: no limit.
    pub retention_bytes: i64,
    /// −1: no limit.
    pub retention_ms: i64,
    pub segment_bytes: u64,
    pub segment_index_bytes: u64,
    pub segment_jitter_ms: i64,
    pub segment_ms: i64,
    pub unclean_leader_election_enable: bool,
    /// Broker defaults by key, as configured; what DescribeConfigs shows beside the resolved values.
    configured: BTreeMap<String, String>,
}

impl Default for TopicConfig {
    fn default() -> Self {
        read(BTreeMap::new()).expect("the defaults of all keys are legal")
    }
}

impl TopicConfig {
    /// `overrides` over `defaults`. Says which key or value is wrong.
    pub fn resolve(
        defaults: &TopicConfig,
        overrides: &BTreeMap<String, String>,
    ) -> Result<TopicConfig, String> {
        if overrides.is_empty() {
            return Ok(defaults.clone());
        }
        let mut configured = defaults.configured.clone();
        configured.extend(overrides.iter().map(|(name, value)| (name.clone(), value.clone())));
        read(configured)
    }

    /// `overrides` over `defaults` without those that are not understood, and what is wrong with each of these. Overrides
    /// are checked before they are committed, so such a one was written by another version.
    pub fn resolve_known(
        defaults: &TopicConfig,
        overrides: &BTreeMap<String, String>,
    ) -> (TopicConfig, Vec<String>) {
        let mut known = BTreeMap::new();
        let mut problems = Vec::new();
        for (name, value) in overrides {
            match check_one(name, value) {
                Ok(()) => drop(known.insert(name.clone(), value.clone())),
                Err(problem) => problems.push(problem),
            }
        }
        (Self::resolve(defaults, &known).expect("every override was checked"), problems)
    }

    /// What only the whole set can tell: whether its values go together. Holds for sets that are about to be committed;
    /// later changes of the broker's defaults do not make a topic illegal.
    pub fn check_together(&self) -> Result<(), String> {
        let number = |name: &str| -> i64 { self.value(name).parse().expect("a checked number") };
        let (least, most) = (number("min.compaction.lag.ms"), number("max.compaction.lag.ms"));
        if least > most {
            return Err(format!(
                "conflict topic config setting min.compaction.lag.ms ({least}) > max.compaction.lag.ms ({most})"
            ));
        }
        if self.value("remote.storage.enable").eq_ignore_ascii_case("true") {
            let why = "Tiered Storage functionality is disabled in the broker. Topic cannot be configured with remote \
                       log storage.";
            return Err(why.to_owned());
        }
        Ok(())
    }

    /// The value of `key` in Kafka's text form.
    pub fn text(&self, key: &ConfigKey) -> String {
        key.kind.normalized(self.configured.get(key.name).map_or(key.default, String::as_str))
    }

    /// How batches are to be stored, `None`: as they were sent.
    pub fn compression(&self) -> Option<Compression> {
        let level = |name: &str| self.value(name).parse().ok();
        let (codec, level) = match self.compression_type {
            CompressionType::Producer => return None,
            CompressionType::Uncompressed => (Codec::None, None),
            CompressionType::Gzip => {
                (Codec::Gzip, level("compression.gzip.level").filter(|level| *level > 0))
            }
            CompressionType::Snappy => (Codec::Snappy, None),
            CompressionType::Lz4 => (Codec::Lz4, level("compression.lz4.level")),
            CompressionType::Zstd => (Codec::Zstd, level("compression.zstd.level")),
        };
        Some(Compression { codec, level })
    }

    fn value(&self, name: &str) -> &str {
        let default = || key(name).map_or("", |key| key.default);
        self.configured.get(name).map_or_else(default, |value| value.trim())
    }
}

fn check_one(name: &str, value: &str) -> Result<(), String> {
    key(name).ok_or_else(|| format!("Unknown topic config name: {name}"))?.validate(value)
}

fn read(configured: BTreeMap<String, String>) -> Result<TopicConfig, String> {
    configured.iter().try_for_each(|(name, value)| check_one(name, value))?;
    let text = |name: &str| -> &str {
        let default = || KEYS.iter().find(|key| key.name == name).map_or("", |key| key.default);
        configured.get(name).map_or_else(default, |value| value.trim())
    };
    // Every value was checked against its key's type above.
    let number = |name: &str| -> i64 { text(name).parse().expect("a checked number") };
    let count = |name: &str| -> usize { usize::try_from(number(name)).expect("a checked count") };
    let int = |name: &str| -> i32 { i32::try_from(number(name)).expect("a checked int") };
    let boolean = |name: &str| text(name).eq_ignore_ascii_case("true");
    let policies: Vec<&str> = text("cleanup.policy").split(',').map(str::trim).collect();
    Ok(TopicConfig {
        cleanup_policy: CleanupPolicy {
            compact: policies.contains(&"compact"),
            delete: policies.contains(&"delete"),
        },
        compression_type: match text("compression.type") {
            "uncompressed" => CompressionType::Uncompressed,
            "gzip" => CompressionType::Gzip,
            "snappy" => CompressionType::Snappy,
            "lz4" => CompressionType::Lz4,
            "zstd" => CompressionType::Zstd,
            _ => CompressionType::Producer,
        },
        compression_gzip_level: int("compression.gzip.level"),
        compression_lz4_level: int("compression.lz4.level"),
        compression_zstd_level: int("compression.zstd.level"),
        delete_retention_ms: number("delete.retention.ms"),
        file_delete_delay_ms: number("file.delete.delay.ms"),
        flush_messages: number("flush.messages"),
        flush_ms: number("flush.ms"),
        index_interval_bytes: count("index.interval.bytes"),
        max_message_bytes: count("max.message.bytes"),
        message_timestamp_after_max_ms: number("message.timestamp.after.max.ms"),
        message_timestamp_before_max_ms: number("message.timestamp.before.max.ms"),
        message_timestamp_type: match text("message.timestamp.type") {
            "LogAppendTime" => TimestampType::LogAppendTime,
            _ => TimestampType::CreateTime,
        },
        min_insync_replicas: int("min.insync.replicas"),
        retention_bytes: number("retention.bytes"),
        retention_ms: number("retention.ms"),
        segment_bytes: count("segment.bytes") as u64,
        segment_index_bytes: count("segment.index.bytes") as u64,
        segment_jitter_ms: number("segment.jitter.ms"),
        segment_ms: number("segment.ms"),
        unclean_leader_election_enable: boolean("unclean.leader.election.enable"),
        configured,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn overrides(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn an_override_wins_over_the_broker_which_wins_over_the_default() {
        let broker = overrides(&[("segment.bytes", "4096"), ("retention.ms", "5")]);
        let broker = TopicConfig::resolve(&TopicConfig::default(), &broker).unwrap();
        let topic = TopicConfig::resolve(&broker, &overrides(&[("retention.ms", "-1")])).unwrap();
        assert_eq!((topic.segment_bytes, topic.retention_ms, topic.flush_messages), (4096, -1, 1));
    }

    #[test]
    fn an_override_that_is_not_understood_leaves_the_others() {
        let overrides = overrides(&[("segment.bytes", "4096"), ("retention.ms", "soon"), ("new.key", "1")]);
        let (config, problems) = TopicConfig::resolve_known(&TopicConfig::default(), &overrides);
        assert_eq!((config.segment_bytes, config.retention_ms), (4096, 604_800_000));
        assert_eq!(problems.len(), 2);
    }

    #[test]
    fn values_that_do_not_go_together_are_refused() {
        let check = |pairs| {
            TopicConfig::resolve(&TopicConfig::default(), &overrides(pairs)).unwrap().check_together()
        };
        assert_eq!(check(&[("min.compaction.lag.ms", "5")]), Ok(()));
        let conflict = check(&[("min.compaction.lag.ms", "5"), ("max.compaction.lag.ms", "4")]);
        assert!(conflict.unwrap_err().starts_with("conflict topic config setting"));
        assert!(check(&[("remote.storage.enable", "true")]).unwrap_err().contains("Tiered Storage"));
    }

    #[test]
    fn a_wrong_key_or_value_is_named() {
        let resolve =
            |name, value| TopicConfig::resolve(&TopicConfig::default(), &overrides(&[(name, value)]));
        let policy = resolve("cleanup.policy", "").unwrap().cleanup_policy;
        assert!(!policy.delete && !policy.compact, "as in Apache Kafka, nothing is deleted or compacted");
        assert!(resolve("cleanup.policy", "delete,").unwrap_err().contains("must not be empty"));
        assert!(resolve("retention.ms", "").unwrap_err().contains("Not a number"));
        assert!(resolve("segment.bites", "1").unwrap_err().contains("segment.bites"));
        assert!(resolve("cleanup.policy", "compact,shred").unwrap_err().contains("shred"));
        assert!(resolve("min.insync.replicas", "0").unwrap_err().contains("at least 1"));
    }
}
