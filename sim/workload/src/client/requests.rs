//! The questions a workload asks, one function each, over whatever version was agreed on.
//!
//! Never: a retry in here; callers decide what a failure means.

use std::sync::Arc;

use bytes::Bytes;
use gracchus_checker::Partition;
use kafka_protocol::{
    error::ResponseError,
    messages::{
        BrokerId, CreateTopicsRequest, InitProducerIdRequest, ListOffsetsRequest, MetadataRequest,
        ProduceRequest, ProducerId, TopicName,
        create_topics_request::{CreatableTopic, CreatableTopicConfig},
        list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic},
        metadata_request::MetadataRequestTopic,
        produce_request::{PartitionProduceData, TopicProduceData},
    },
    protocol::StrBytes,
};
use uuid::Uuid;

use super::{ClientError, Link};
use crate::plan::TopicPlan;

/// The last version of Produce and of Fetch that names topics by their names (KIP-516).
pub const LAST_BY_NAME: i16 = 12;

/// A topic as clients know it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Topic {
    /// Its name.
    pub name: Arc<str>,
    /// Its id; nil when the metadata version that was spoken has none.
    pub id: Uuid,
    /// Number of partitions.
    pub partitions: i32,
    /// Leader epoch of each partition, −1 where unknown.
    pub leader_epochs: Vec<i32>,
    /// Whether the broker sets timestamps, or may do so later.
    pub log_append_time: bool,
    /// Whether acknowledged means on disk (`flush.messages=1`).
    pub synced: bool,
    /// Whether nothing but produced records takes offsets (no compaction).
    pub dense: bool,
    /// Whether its records have no timestamps.
    pub untimed: bool,
    /// Whether some of its batches have none, and the others old ones.
    pub mixed: bool,
    /// Whether some of its batches are those of a client whose clock is ahead.
    pub ahead: bool,
    /// Whether it is deleted before the run ends.
    pub passing: bool,
}

impl Topic {
    /// The name as the protocol crate wants it.
    pub fn wire_name(&self) -> TopicName {
        wire_name(&self.name)
    }

    /// The version in which to speak of it, in a Produce or Fetch request, to a broker that knows `newest`: those above
    /// [`LAST_BY_NAME`] name topics by their ids.
    pub fn version(&self, newest: i16) -> i16 {
        if self.id.is_nil() { newest.min(LAST_BY_NAME) } else { newest }
    }

    /// A partition of it, as the history names it.
    pub fn at(&self, partition: i32) -> Partition {
        Partition::of(self.name.clone(), self.id.as_u128(), partition)
    }

    fn described(plan: &TopicPlan, id: Uuid, leader_epochs: Vec<i32>) -> Topic {
        let config = |key: &str| plan.configs.get(key).map(String::as_str);
        let changes = |key: &str| plan.changes.iter().any(|change| change == key);
        Topic {
            name: plan.name.as_str().into(),
            id,
            partitions: leader_epochs.len() as i32,
            leader_epochs,
            log_append_time: config("message.timestamp.type") == Some("LogAppendTime")
                || changes("message.timestamp.type"),
            synced: config("flush.messages").is_none_or(|count| count == "1") && !changes("flush.messages"),
            untimed: plan.untimed,
            mixed: plan.mixed,
            ahead: plan.ahead,
            passing: false,
            dense: !config("cleanup.policy").is_some_and(|policy| policy.contains("compact")),
        }
    }
}

pub(super) fn wire_name(name: &str) -> TopicName {
    TopicName(StrBytes::from_string(name.to_owned()))
}

/// Asks to create the topic. `Ok(Some(code))` is the broker's refusal.
pub async fn create_topic(link: &mut Link, plan: &TopicPlan) -> Result<Option<i16>, ClientError> {
    let connection = link.connection().await;
    let version = connection.version::<CreateTopicsRequest>()?;
    // "The broker's default" can be said from version 4 on.
    let replication_factor =
        if version < 4 { plan.replication_factor.max(1) } else { plan.replication_factor };
    let topic = CreatableTopic::default()
        .with_name(wire_name(&plan.name))
        .with_num_partitions(plan.partitions)
        .with_replication_factor(replication_factor)
        .with_configs(
            plan.configs
                .iter()
                .map(|(key, value)| {
                    CreatableTopicConfig::default()
                        .with_name(StrBytes::from_string(key.clone()))
                        .with_value(Some(StrBytes::from_string(value.clone())))
                })
                .collect(),
        );
    let timeout = link.request_timeout();
    let request =
        CreateTopicsRequest::default().with_topics(vec![topic]).with_timeout_ms(timeout.as_millis() as i32);
    let response = connection.call(&request, timeout).await?;
    match response.topics.as_slice() {
        [result] if &*result.name.0 == plan.name.as_str() => {
            Ok((result.error_code != 0).then_some(result.error_code))
        }
        _ => Err(ClientError::Protocol("CreateTopics answered about other topics than asked".into())),
    }
}

/// A topic as metadata show it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// Its id; nil when the version that was spoken has none.
    pub id: Uuid,
    /// Leader epoch of each partition, −1 where unknown.
    pub leader_epochs: Vec<i32>,
    /// Whether every partition has a leader.
    pub ready: bool,
}

/// Asks for the topic of that name; `None` if the broker does not know it.
pub async fn find_named(link: &mut Link, name: &str) -> Result<Option<Found>, ClientError> {
    let connection = link.connection().await;
    let version = connection.version::<MetadataRequest>()?;
    let topic = MetadataRequestTopic::default().with_name(Some(wire_name(name)));
    let request =
        MetadataRequest::default().with_topics(Some(vec![topic])).with_allow_auto_topic_creation(version < 4);
    let response = connection.call(&request, link.request_timeout()).await?;
    let [found] = response.topics.as_slice() else {
        return Err(ClientError::Protocol("Metadata answered about other topics than asked".into()));
    };
    if found.error_code != 0 {
        return Ok(None);
    }
    let ready = found.partitions.iter().all(|partition| partition.error_code == 0);
    let mut partitions: Vec<_> = found
        .partitions
        .iter()
        .map(|partition| (partition.partition_index, partition.leader_epoch))
        .collect();
    partitions.sort_unstable();
    if partitions.iter().enumerate().any(|(index, (partition, _))| index as i32 != *partition) {
        return Err(ClientError::Protocol(format!("Metadata of {name}: partitions {partitions:?}")));
    }
    let known_brokers: Vec<BrokerId> = response.brokers.iter().map(|broker| broker.node_id).collect();
    if ready && found.partitions.iter().any(|partition| !known_brokers.contains(&partition.leader_id)) {
        return Err(ClientError::Protocol(format!("Metadata of {name}: a leader that is no broker")));
    }
    let leader_epochs = partitions.into_iter().map(|(_, epoch)| epoch).collect();
    Ok(Some(Found { id: found.topic_id, leader_epochs, ready }))
}

/// The same, as the topic that `plan` describes; `None` also while it has no leaders.
pub async fn find_topic(link: &mut Link, plan: &TopicPlan) -> Result<Option<Topic>, ClientError> {
    let found = find_named(link, &plan.name).await?;
    Ok(found.filter(|found| found.ready).map(|found| Topic::described(plan, found.id, found.leader_epochs)))
}

/// Asks for a producer id, or with `held` for the next epoch of it (KIP-360).
pub async fn init_producer_id(
    link: &mut Link,
    held: Option<(i64, i16)>,
) -> Result<Result<(i64, i16), i16>, ClientError> {
    let connection = link.connection().await;
    let version = connection.version::<InitProducerIdRequest>()?;
    let mut request =
        InitProducerIdRequest::default().with_transactional_id(None).with_transaction_timeout_ms(1_000);
    if let Some((producer_id, epoch)) = held.filter(|_| version >= 3) {
        request = request.with_producer_id(ProducerId(producer_id)).with_producer_epoch(epoch);
    }
    let response = connection.call(&request, link.request_timeout()).await?;
    Ok(match response.error_code {
        0 => Ok((response.producer_id.0, response.producer_epoch)),
        code => Err(code),
    })
}

/// A produce request for batches of distinct partitions.
pub fn produce_request(
    version: i16,
    acks: i16,
    timeout_ms: i32,
    batches: &[(Arc<Topic>, i32, Bytes)],
) -> ProduceRequest {
    let mut topics: Vec<TopicProduceData> = Vec::new();
    for (topic, partition, bytes) in batches {
        let data = PartitionProduceData::default().with_index(*partition).with_records(Some(bytes.clone()));
        match topics.iter_mut().find(|data| data.name.0 == *topic.name) {
            Some(found) => found.partition_data.push(data),
            None => topics.push(
                TopicProduceData::default()
                    .with_name(topic.wire_name())
                    .with_topic_id(topic.id)
                    .with_partition_data(vec![data]),
            ),
        }
    }
    assert!(version >= 3);
    ProduceRequest::default().with_acks(acks).with_timeout_ms(timeout_ms).with_topic_data(topics)
}

/// Where a partition's offsets are asked for. −1 latest, −2 earliest, −3 maximum timestamp, else by timestamp.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Listed {
    /// Answer's error, 0 for none.
    pub code: i16,
    /// The offset, −1 for none.
    pub offset: i64,
    /// Its timestamp, −1 for none.
    pub timestamp: i64,
    /// Its leader epoch, −1 for none.
    pub leader_epoch: i32,
}

/// Asks for one offset.
pub async fn list_offsets(
    link: &mut Link,
    topic: &Topic,
    partition: i32,
    timestamp: i64,
    read_committed: bool,
) -> Result<Listed, ClientError> {
    let connection = link.connection().await;
    let version = connection.version::<ListOffsetsRequest>()?;
    let asked = ListOffsetsPartition::default().with_partition_index(partition).with_timestamp(timestamp);
    let request = ListOffsetsRequest::default()
        .with_replica_id(BrokerId(-1))
        .with_isolation_level(i8::from(read_committed && version >= 2))
        .with_topics(vec![
            ListOffsetsTopic::default().with_name(topic.wire_name()).with_partitions(vec![asked]),
        ]);
    let invoked_ns = link.recorder.now_ns();
    let response = connection.call(&request, link.request_timeout()).await?;
    let answered = response.topics.first().and_then(|topic| topic.partitions.first());
    match answered {
        Some(found) if found.partition_index == partition => {
            if found.error_code != 0 {
                link.recorder.refused(topic.at(partition), found.error_code, invoked_ns);
            }
            let nothing = found.error_code != 0 || found.offset < 0;
            if nothing && version >= 4 && (found.timestamp, found.offset, found.leader_epoch) != (-1, -1, -1)
            {
                let story =
                    format!("{}-{partition}: nothing at time {timestamp}, told as {found:?}", topic.name);
                link.recorder.complain("list_offsets_refused", story);
            }
            // Whoever finds a record finds the epoch in which it was written.
            if found.error_code == 0
                && timestamp >= 0
                && found.offset >= 0
                && version >= 4
                && found.leader_epoch < 0
            {
                let (name, offset) = (&topic.name, found.offset);
                let story =
                    format!("{name}-{partition}: offset {offset} of time {timestamp} has no leader epoch");
                link.recorder.complain("list_offsets_refused", story);
            }
            // Where a log begins or ends is no matter of time.
            if [-2, -1].contains(&timestamp) && found.error_code == 0 && found.timestamp != -1 {
                let (name, told) = (&topic.name, found.timestamp);
                let story =
                    format!("{name}-{partition}: question {timestamp} is answered with timestamp {told}");
                link.recorder.complain("list_offsets_refused", story);
            }
            Ok(Listed {
                code: found.error_code,
                offset: found.offset,
                timestamp: found.timestamp,
                leader_epoch: found.leader_epoch,
            })
        }
        _ => Err(ClientError::Protocol("ListOffsets answered about another partition than asked".into())),
    }
}

/// Whether `code` asks the client to try the same again.
pub fn is_retriable(code: i16) -> bool {
    ResponseError::try_from_code(code).is_some_and(|error| error.is_retriable())
}
