//! The clean marker: written as the very last thing of a clean stop, removed durably as the first thing of a start.
//!
//! It holds what a log needs to be opened without reading it. A log that is not in it is recovered, so one log that
//! did not close costs only itself. An unreadable marker is no marker.
//!
//! Never: believe a marker twice; write one over a directory that is offline.

use std::collections::BTreeMap;

use bytes::Bytes;
use gracchus_core::Offset;
use serde::{Deserialize, Serialize};

use super::super::LogId;

/// Kafka's name, and like Kafka's a small JSON document.
pub(super) const FILE: &str = ".kafka_cleanshutdown";
const VERSION: u32 = 1;

/// A log as its owner left it, everything on disk: enough to open it lazily.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CleanLog {
    /// First offset that can be read.
    pub log_start: Offset,
    /// The offset that the next record gets.
    pub log_end: Offset,
    /// Base offset of the active segment.
    pub active_segment: Offset,
    /// Bytes of its `.log` file.
    pub active_bytes: u64,
    /// The closed segments from the log start on; older markers do not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sealed: Option<SealedSegments>,
    /// The entries of the active segment's index files; older markers do not say, nor where an index was found damaged.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub index_entries: Option<IndexEntries>,
}

/// How many entries index files have: one that lost its end would look whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct IndexEntries {
    /// Of the offset index.
    pub offsets: usize,
    /// Of the time index.
    pub times: usize,
}

/// The closed segments of a log, as little of them as shows that one is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct SealedSegments {
    /// How many.
    pub count: usize,
    /// Bytes of all their `.log` files.
    pub bytes: u64,
}

impl SealedSegments {
    /// Of segments with these sizes.
    pub fn of(sizes: impl Iterator<Item = u64>) -> Self {
        sizes.fold(Self { count: 0, bytes: 0 }, |all, size| Self {
            count: all.count + 1,
            bytes: all.bytes + size,
        })
    }
}

#[derive(Serialize, Deserialize)]
struct Document {
    version: u32,
    logs: Vec<Line>,
}

#[derive(Serialize, Deserialize)]
struct Line {
    topic_id: gracchus_core::TopicId,
    #[serde(flatten)]
    tp: gracchus_core::TopicPartition,
    #[serde(flatten)]
    log: CleanLog,
}

/// All logs of a directory that were closed in order.
pub(super) fn encode(logs: &BTreeMap<LogId, CleanLog>) -> Bytes {
    let logs = logs
        .iter()
        .map(|(id, log)| Line { topic_id: id.topic_id, tp: id.tp.clone(), log: log.clone() })
        .collect();
    serde_json::to_vec(&Document { version: VERSION, logs }).expect("plain data has a JSON form").into()
}

pub(super) fn decode(contents: &[u8]) -> Option<BTreeMap<LogId, CleanLog>> {
    let document: Document = serde_json::from_slice(contents).ok()?;
    let logs = document.logs.into_iter();
    (document.version == VERSION)
        .then(|| logs.map(|line| (LogId { tp: line.tp, topic_id: line.topic_id }, line.log)).collect())
}

#[cfg(test)]
mod tests {
    use gracchus_core::{TopicId, TopicPartition};
    use uuid::Uuid;

    use super::*;

    #[test]
    fn survives_its_own_form_and_nothing_else() {
        let id = LogId { tp: TopicPartition::new("a.b", 4), topic_id: TopicId(Uuid::from_u128(9)) };
        let log = CleanLog {
            log_start: Offset(1),
            log_end: Offset(30),
            active_segment: Offset(20),
            active_bytes: 512,
            sealed: Some(SealedSegments { count: 2, bytes: 900 }),
            index_entries: Some(IndexEntries { offsets: 3, times: 4 }),
        };
        let logs = BTreeMap::from([(id, log)]);
        let contents = encode(&logs);
        assert_eq!(decode(&contents), Some(logs));
        assert_eq!(decode(&contents[..contents.len() - 1]), None);
        assert_eq!(decode(br#"{"version":0,"brokerEpoch":12}"#), None);
        let mut older = String::from_utf8(contents.to_vec()).unwrap();
        for newer in [r#","sealed":{"count":2,"bytes":900}"#, r#","index_entries":{"offsets":3,"times":4}"#] {
            assert!(older.contains(newer), "{older}");
            older = older.replace(newer, "");
        }
        let logs = decode(older.as_bytes()).unwrap().into_values();
        assert_eq!(logs.map(|log| (log.sealed, log.index_entries)).collect::<Vec<_>>(), [(None, None)]);
    }
}
