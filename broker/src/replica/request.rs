//! What the API handlers ask of the replica manager and what it answers, free of any wire version.
//!
//! Never: a kafka-protocol message. Handlers translate; this layer knows partitions, offsets and epochs only.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use bytes::Bytes;
use gracchus_common::Charge;
use gracchus_core::{
    BrokerId, LeaderEpoch, Offset, PartitionIndex, TopicId, TopicPartition, controller::Image,
    error::ResponseError, record::Rejected,
};
use gracchus_env::FileRange;

use super::replica::Replica;

/// One Produce request. Topics are resolved (name and id) by the handler.
pub struct ProduceRequest {
    /// Decides which codecs are allowed (zstd needs 7).
    pub api_version: i16,
    /// The request has a transactional id.
    pub transactional: bool,
    /// −1 (all in-sync replicas), 1 (leader) or 0 (nobody waits).
    pub acks: i16,
    /// How long acks=−1 may wait for replication.
    pub timeout: Duration,
    /// In request order.
    pub partitions: Vec<ProducePartition>,
    /// Kept until the payload is no longer needed.
    pub charge: Option<Charge>,
}

impl std::fmt::Debug for ProduceRequest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ProduceRequest")
            .field("acks", &self.acks)
            .field("partitions", &self.partitions)
            .finish()
    }
}

/// The records for one partition.
#[derive(Debug)]
pub struct ProducePartition {
    pub tp: TopicPartition,
    /// [`TopicId::ZERO`] when the client named the topic.
    pub topic_id: TopicId,
    /// A slice of the receive buffer, unchecked.
    pub records: Option<Bytes>,
}

/// The answer for one partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProduceOutcome {
    pub error: Option<ResponseError>,
    /// Offset of the first record, −1 on error.
    pub base_offset: i64,
    /// Milliseconds since the epoch for LogAppendTime topics, else −1.
    pub log_append_time_ms: i64,
    /// −1 when unknown.
    pub log_start_offset: i64,
    pub message: Option<String>,
    /// (index of the record in the batch, message), KIP-467.
    pub record_errors: Vec<(i32, String)>,
    /// Set with NOT_LEADER_OR_FOLLOWER, KIP-951.
    pub current_leader: Option<(BrokerId, LeaderEpoch)>,
}

impl ProduceOutcome {
    /// The answer to a batch that was refused.
    pub(super) fn rejected(rejected: Rejected) -> Self {
        Self {
            message: Some(rejected.message),
            record_errors: rejected.records,
            ..Self::failed(rejected.error)
        }
    }

    /// An answer that only says why not.
    pub fn failed(error: ResponseError) -> Self {
        Self {
            error: Some(error),
            base_offset: -1,
            log_append_time_ms: -1,
            log_start_offset: -1,
            message: None,
            record_errors: Vec::new(),
            current_leader: None,
        }
    }
}

/// One Fetch request, its session already resolved to the full list of partitions.
#[derive(Debug, Clone)]
pub struct FetchRequest {
    pub api_version: i16,
    /// Below 0: a consumer. Otherwise a follower's node id, as it says: believed from nobody.
    pub replica_id: i32,
    pub max_wait: Duration,
    pub min_bytes: i32,
    pub max_bytes: i32,
    pub read_committed: bool,
    /// The order is the order of fairness.
    pub partitions: Vec<FetchPartition>,
}

/// What is wanted of one partition.
#[derive(Debug, Clone)]
pub struct FetchPartition {
    pub tp: TopicPartition,
    pub topic_id: TopicId,
    /// −1: do not check.
    pub current_leader_epoch: i32,
    pub fetch_offset: i64,
    /// −1: do not check for divergence (KIP-595).
    pub last_fetched_epoch: i32,
    /// A follower's log start, −1 from consumers.
    pub log_start_offset: i64,
    pub max_bytes: i32,
}

/// What one partition gives.
#[derive(Debug, Clone)]
pub struct FetchOutcome {
    pub error: Option<ResponseError>,
    pub high_watermark: i64,
    pub last_stable_offset: i64,
    pub log_start_offset: i64,
    /// The leader's end of the largest epoch not above the one the fetcher named.
    pub diverging: Option<(LeaderEpoch, Offset)>,
    pub current_leader: Option<(BrokerId, LeaderEpoch)>,
    /// Whole batches, in order.
    pub ranges: Vec<FileRange>,
    /// Sum of the ranges' lengths.
    pub bytes: u64,
    /// Where it was read; `None` if the partition is not here.
    pub(crate) replica: Option<Arc<Replica>>,
}

impl FetchOutcome {
    /// An answer that only says why not.
    pub fn failed(error: ResponseError) -> Self {
        Self {
            error: Some(error),
            high_watermark: -1,
            last_stable_offset: -1,
            log_start_offset: -1,
            diverging: None,
            current_leader: None,
            ranges: Vec::new(),
            bytes: 0,
            replica: None,
        }
    }
}

/// One partition of a ListOffsets request.
#[derive(Debug, Clone)]
pub struct ListOffsetsPartition {
    pub tp: TopicPartition,
    /// −1: do not check.
    pub current_leader_epoch: i32,
    /// Milliseconds since the epoch, or one of the special values (−1 latest, −2 earliest, −3 max timestamp,
    /// −4 earliest local, −5 latest tiered, −6 earliest pending upload).
    pub timestamp: i64,
}

/// Its answer; −1 everywhere when nothing matches, which is not an error.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListedOffset {
    pub error: Option<ResponseError>,
    pub timestamp: i64,
    pub offset: i64,
    pub leader_epoch: i32,
}

impl ListedOffset {
    /// An answer that only says why not, or (without an error) that nothing matches.
    pub fn none(error: Option<ResponseError>) -> Self {
        Self { error, timestamp: -1, offset: -1, leader_epoch: -1 }
    }
}

/// The published state of a partition, for checkers and metrics.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartitionProbe {
    pub tp: TopicPartition,
    pub topic_id: TopicId,
    pub leader_epoch: LeaderEpoch,
    pub log_start: Offset,
    pub log_end: Offset,
    pub flushed_end: Offset,
    pub high_watermark: Offset,
    pub last_stable_offset: Offset,
    /// Something of it that had been synced was gone when it was opened.
    pub damaged: bool,
    /// It had not been left in order when it was opened.
    pub recovered: bool,
}

/// Which replicas a broker has, for checkers.
#[derive(Debug, Clone)]
pub struct HostingProbe {
    /// The newest metadata that were taken in.
    pub image: Arc<Image>,
    /// All of them, in order; also those of deleted topics whose logs are not out of the way yet.
    pub replicas: Vec<(TopicId, PartitionIndex)>,
    /// Deleted topics that the metadata remember, although nothing of them is in the way here.
    pub settled: BTreeSet<TopicId>,
}
