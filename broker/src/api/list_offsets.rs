//! ListOffsets (key 2), versions 1 to 11: offsets by timestamp, and the special ones.
//!
//! v2 isolation level, v4 leader epochs (KIP-320), v5 OFFSET_NOT_AVAILABLE (KIP-207), v6 flexible, v7 −3 max timestamp
//! (KIP-734), v8 −4 earliest local (KIP-405), v9 −5 latest tiered (KIP-1005), v10 a timeout (KIP-1075),
//! v11 −6 earliest pending upload (KIP-1023). kafka-protocol ends with v10, which v11 is laid out like. Nothing found is
//! not an error but offset −1; nothing is ever tiered here, nor waits for it.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use gracchus_core::{TopicPartition, error::ResponseError};
use kafka_protocol::messages::{
    ListOffsetsRequest, ListOffsetsResponse, TopicName, list_offsets_request as asked,
    list_offsets_response::{ListOffsetsPartitionResponse, ListOffsetsTopicResponse},
};

use super::{
    Api, Operation, Resource,
    exchange::{BadRequest, Envelope, Reply, Request},
    later,
    services::{self, Services},
    shape::{Field, Kind, Message, Structure},
};
use crate::replica::{ListOffsetsPartition, ListedOffset};

/// The row of the table.
pub const API: Api = Api {
    key: 2,
    name: "ListOffsets",
    versions: 1..=11,
    advertised_from: 1,
    overlaps: false,
    needs: (Operation::Describe, Resource::Topic),
    shape: &SHAPE,
    start,
};

/// Structure of the request.
pub static SHAPE: Message = Message {
    flexible_from: 6,
    body: Structure {
        fields: &[
            Field::new(Kind::Fixed(4)),
            Field::new(Kind::Fixed(1)).from(2),
            Field::new(Kind::Array(&TOPIC)),
            Field::new(Kind::Fixed(4)).from(10),
        ],
        memory: size_of::<ListOffsetsRequest>(),
    },
};

static TOPIC: Structure = Structure {
    fields: &[Field::new(Kind::Text), Field::new(Kind::Array(&PARTITION))],
    memory: size_of::<asked::ListOffsetsTopic>(),
};

static PARTITION: Structure = Structure {
    fields: &[Field::new(Kind::Fixed(4)), Field::new(Kind::Fixed(4)).from(4), Field::new(Kind::Fixed(8))],
    memory: size_of::<asked::ListOffsetsPartition>(),
};

const READ_COMMITTED: i8 = 1;
/// First version that says how long the answer may take.
const TIMEOUT: i16 = 10;

/// Asks the replica manager; a search by time may read the log.
pub fn start(services: &Arc<Services>, request: Request) -> Result<Reply, BadRequest> {
    let body: ListOffsetsRequest = request.decode()?;
    let envelope = request.envelope;
    let throttle_ms = request.context.throttle_ms();
    let Split { topics, partitions } = split(body.topics, request.api_version);
    let read_committed = body.isolation_level == READ_COMMITTED;
    let timeout = (request.api_version >= TIMEOUT).then_some(body.timeout_ms);
    let timeout = timeout.and_then(|ms| u64::try_from(ms).ok()).map(Duration::from_millis);
    let listed = services.replicas.list_offsets(partitions, read_committed, timeout);
    Ok(Reply::Later(Box::pin(async move {
        let mut listed = listed.await.into_iter();
        let topics = topics.into_iter().map(|topic| respond(topic, &mut listed, &envelope)).collect();
        let mut response = ListOffsetsResponse::default().with_topics(topics);
        if envelope.api_version >= 2 {
            response.throttle_time_ms = throttle_ms;
        }
        envelope.answer_as(&response, later::layout(API.key, envelope.api_version))
    })))
}

struct Topic {
    name: Arc<str>,
    /// Index, and why it is not even asked for.
    partitions: Vec<(i32, Option<ResponseError>)>,
}

struct Split {
    topics: Vec<Topic>,
    /// All partitions that are asked for, in request order.
    partitions: Vec<ListOffsetsPartition>,
}

/// Sorts out what this version cannot ask for, and what is asked twice.
fn split(topics: Vec<asked::ListOffsetsTopic>, version: i16) -> Split {
    let mut times: BTreeMap<(&str, i32), usize> = BTreeMap::new();
    for topic in &topics {
        for partition in &topic.partitions {
            *times.entry((topic.name.as_str(), partition.partition_index)).or_default() += 1;
        }
    }
    let mut result = Split { topics: Vec::with_capacity(topics.len()), partitions: Vec::new() };
    for topic in &topics {
        let name: Arc<str> = topic.name.as_str().into();
        let mut partitions = Vec::with_capacity(topic.partitions.len());
        for partition in &topic.partitions {
            let index = partition.partition_index;
            let error = if times[&(&*name, index)] > 1 {
                Some(ResponseError::InvalidRequest)
            } else if partition.timestamp < 0
                && special_since(partition.timestamp).is_none_or(|v| v > version)
            {
                Some(ResponseError::UnsupportedVersion)
            } else {
                None
            };
            if error.is_none() {
                result.partitions.push(ListOffsetsPartition {
                    tp: TopicPartition::new(name.clone(), index),
                    current_leader_epoch: partition.current_leader_epoch,
                    timestamp: partition.timestamp,
                });
            }
            partitions.push((index, error));
        }
        result.topics.push(Topic { name, partitions });
    }
    result
}

/// The first version that knows a special timestamp.
fn special_since(timestamp: i64) -> Option<i16> {
    match timestamp {
        -2 | -1 => Some(1),
        -3 => Some(7),
        -4 => Some(8),
        -5 => Some(9),
        -6 => Some(11),
        _ => None,
    }
}

fn respond(
    topic: Topic,
    listed: &mut impl Iterator<Item = ListedOffset>,
    envelope: &Envelope,
) -> ListOffsetsTopicResponse {
    let partition = |(index, error)| {
        let listed = match error {
            Some(error) => ListedOffset::none(Some(error)),
            None => listed.next().expect("one answer per partition"),
        };
        let mut response = ListOffsetsPartitionResponse::default()
            .with_partition_index(index)
            .with_error_code(listed.error.map_or(0, |error| spoken(error, envelope.api_version).code()))
            .with_timestamp(listed.timestamp)
            .with_offset(listed.offset);
        if envelope.api_version >= 4 {
            response.leader_epoch = listed.leader_epoch;
        }
        response
    };
    ListOffsetsTopicResponse::default()
        .with_name(TopicName(services::text(&topic.name)))
        .with_partitions(topic.partitions.into_iter().map(partition).collect())
}

/// Versions below 5 do not know OFFSET_NOT_AVAILABLE.
fn spoken(error: ResponseError, version: i16) -> ResponseError {
    match error {
        ResponseError::OffsetNotAvailable if version < 5 => ResponseError::LeaderNotAvailable,
        error => error,
    }
}
