//! The file names of a log, as Kafka writes them: `00000000000000000042.log` and its companions.
//!
//! Never: a name that another file of the log could have; anything here that looks at a disk.

use std::path::{Path, PathBuf};

use gracchus_core::{Offset, TopicPartition};

/// Batches, nothing else.
pub(crate) const LOG: &str = "log";
/// Offset index.
pub(crate) const INDEX: &str = "index";
/// Time index.
pub(crate) const TIME_INDEX: &str = "timeindex";
/// Producer state up to the offset in the name.
pub(crate) const SNAPSHOT: &str = "snapshot";
/// The topic's id.
pub(crate) const PARTITION_METADATA: &str = "partition.metadata";
/// Which leader epoch began where.
pub(crate) const LEADER_EPOCHS: &str = "leader-epoch-checkpoint";
/// Segments of this log may have been sealed without a sync, so that a later one can outlive an earlier one.
pub(crate) const SEALED_UNSYNCED: &str = "sealed-unsynced";
/// What the suffix of a directory says that is being deleted.
pub(crate) const DELETED: &str = "-delete";
/// What the names of files end with that left the log.
pub(crate) const DELETED_FILE: &str = ".deleted";
/// The same of one whose topic nobody knows.
pub(crate) const STRAY: &str = "-stray";
/// A file that was being replaced when something stopped us.
pub(crate) const TEMPORARY: &str = ".tmp";

/// No segment begins later: its offsets, which are at most 2³¹ further on, would not fit.
const LAST_BASE: i64 = i64::MAX - (1 << 32);
/// Kafka's limit, and most file systems'.
const LONGEST_NAME: usize = 255;

/// `<directory>/<offset, 20 digits>.<kind>`.
pub(crate) fn file(directory: &Path, offset: Offset, kind: &str) -> PathBuf {
    directory.join(format!("{:020}.{kind}", offset.0))
}

/// Where the successor of `path` is written before it takes its place.
pub(crate) fn temporary(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(TEMPORARY);
    name.into()
}

/// Under which name a file that left the log waits for its removal.
pub(crate) fn deleted_file(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(DELETED_FILE);
    name.into()
}

/// The offset in `name` if it is a file of this `kind`.
pub(crate) fn parse(name: &str, kind: &str) -> Option<Offset> {
    let digits = name.strip_suffix(kind)?.strip_suffix('.')?;
    if digits.len() != 20 || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    digits.parse().ok().filter(|offset| *offset <= LAST_BASE).map(Offset)
}

/// The partition whose log `name` is; `None` for anything else, a directory that is being deleted included.
pub(crate) fn partition(name: &str) -> Option<TopicPartition> {
    let (topic, index) = name.rsplit_once('-')?;
    let index: i32 = index.parse().ok().filter(|index| *index >= 0)?;
    // "+1" and "01" parse as numbers, but no log was ever called that.
    let partition = TopicPartition::new(topic, index);
    (!topic.is_empty() && partition.to_string() == name).then_some(partition)
}

/// Under which name the directory of a log waits for its removal (`kind` is [`DELETED`]) or for somebody who knows it
/// ([`STRAY`]): `<topic>-<partition>.<unique>-delete`, the topic shortened where the name would be too long.
pub(crate) fn set_aside(partition: &TopicPartition, unique: u128, kind: &str) -> String {
    let suffix = format!("-{}.{unique:032x}{kind}", partition.partition);
    let mut topic: &str = &partition.topic;
    while topic.len() + suffix.len() > LONGEST_NAME {
        topic = &topic[..topic.len() - 1];
    }
    format!("{topic}{suffix}")
}

/// Whether `name` is one that [`set_aside`] gives. What else ends like that is somebody's own.
pub(crate) fn is_set_aside(name: &str, kind: &str) -> bool {
    let Some((log, unique)) = name.strip_suffix(kind).and_then(|rest| rest.rsplit_once('.')) else {
        return false;
    };
    let is_unique =
        unique.len() == 32 && unique.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    is_unique && partition(log).is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_kafkas_and_read_back() {
        let path = file(Path::new("/data/orders-3"), Offset(42), LOG);
        assert_eq!(path, Path::new("/data/orders-3/00000000000000000042.log"));
        assert_eq!(parse("00000000000000000042.log", LOG), Some(Offset(42)));
        for strange in [
            "00000000000000000042.index",
            "42.log",
            "0000000000000000004x.log",
            "+0000000000000000042.log",
            ".log",
        ] {
            assert_eq!(parse(strange, LOG), None, "{strange}");
        }
    }

    #[test]
    fn only_directories_of_logs_are_taken_for_logs() {
        assert_eq!(partition("orders-3"), Some(TopicPartition::new("orders", 3)));
        assert_eq!(partition("with-dashes-10"), Some(TopicPartition::new("with-dashes", 10)));
        for strange in [
            "orders",
            "orders-",
            "-3",
            "orders-03",
            "orders-+3",
            "orders-3.00ff-delete",
            "orders-3.00ff-stray",
            "orders--3x",
        ] {
            assert_eq!(partition(strange), None, "{strange}");
        }
        let long = TopicPartition::new("t".repeat(249), 7);
        let name = set_aside(&long, 0xabc, DELETED);
        assert_eq!(name.len(), 255);
        assert!(name.ends_with("-7.00000000000000000000000000000abc-delete"));
        assert_eq!(partition(&name), None);
    }

    #[test]
    fn only_what_was_set_aside_is_taken_for_that() {
        for topic in ["orders", "with.dots-and-dashes", &"t".repeat(249)] {
            for kind in [DELETED, STRAY] {
                let name = set_aside(&TopicPartition::new(topic, 7), u128::MAX / 3, kind);
                assert!(is_set_aside(&name, kind), "{name}");
                assert!(!is_set_aside(&name, if kind == DELETED { STRAY } else { DELETED }), "{name}");
            }
        }
        for strange in [
            "-delete",
            "backup-delete",
            "orders-3-delete",
            "orders-3.00ff-delete",
            "orders.00000000000000000000000000000abc-delete",
            "orders-03.00000000000000000000000000000abc-delete",
            "orders-3.00000000000000000000000000000ABC-delete",
            "orders-3.00000000000000000000000000000xyz-delete",
            "orders-3.00000000000000000000000000000abc-delete-",
            "-3.00000000000000000000000000000abc-delete",
        ] {
            assert!(!is_set_aside(strange, DELETED), "{strange}");
        }
    }
}
