//! Which log: a partition by name *and* the topic's id, so that a later topic of the same name never gets its bytes.

use std::fmt;

use gracchus_core::{TopicId, TopicPartition};

/// Identity of one log in a log directory.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LogId {
    /// Names the directory `<topic>-<partition>`.
    pub tp: TopicPartition,
    /// Stands in its `partition.metadata`.
    pub topic_id: TopicId,
}

impl fmt::Display for LogId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.tp, self.topic_id)
    }
}
