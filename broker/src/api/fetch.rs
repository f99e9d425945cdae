//! Fetch (key 1), versions 4 to 18: read batches, or wait until there are some. Consumers and replicas use the same.
//!
//! v4 isolation level (KIP-98), v5 log start, v7 sessions (KIP-227), v9 leader epoch check (KIP-320), v11 rack
//! (KIP-392), v12 flexible and diverging epochs (KIP-595), v13 topic ids (KIP-516), v15 replica state (KIP-903), v16
//! leader hints (KIP-951), v17 directory id (KIP-853), v18 follower high watermark (KIP-1166).
//!
//! The session turns what was asked into the full list of partitions and decides which of them the answer names; the
//! replica manager reads and waits; [`super::fetch_response`] sends file ranges. While it waits, a request holds
//! neither its frame nor a byte of a log.

use std::{sync::Arc, time::Duration};

use gracchus_core::{TopicId, TopicPartition, controller::Image, error::ResponseError};
use kafka_protocol::messages::{FetchRequest, fetch_request as asked};

use super::{
    exchange::{Answer, BadRequest, Envelope, Reply, Request},
    fetch_response::{FetchResponse, FetchedPartition, FetchedTopic},
    services::{self, Services},
    shape::{Field, Kind, Message, Structure},
};
use crate::replica::{self, FetchOutcome};

/// Number of the API.
pub const KEY: i16 = 1;

/// First version that names topics by id.
const TOPIC_IDS: i16 = 13;
const READ_COMMITTED: i8 = 1;

/// Structure of the request.
pub static SHAPE: Message = Message {
    flexible_from: 12,
    body: Structure {
        fields: &[
            Field::new(Kind::Text).from(12).tag(0),
            Field::new(Kind::Fixed(4)).to(14),
            Field::new(Kind::Inline(&REPLICA_STATE)).from(15).tag(1),
            Field::new(Kind::Fixed(4)),
            Field::new(Kind::Fixed(4)),
            Field::new(Kind::Fixed(4)),
            Field::new(Kind::Fixed(1)),
            Field::new(Kind::Fixed(4)).from(7),
            Field::new(Kind::Fixed(4)).from(7),
            Field::new(Kind::Array(&TOPIC)),
            Field::new(Kind::Array(&FORGOTTEN)).from(7),
            Field::new(Kind::Text).from(11),
        ],
        memory: size_of::<FetchRequest>(),
    },
};

static REPLICA_STATE: Structure = Structure {
    fields: &[Field::new(Kind::Fixed(4)), Field::new(Kind::Fixed(8))],
    memory: size_of::<asked::ReplicaState>(),
};

static TOPIC: Structure = Structure {
    fields: &[
        Field::new(Kind::Text).to(12),
        Field::new(Kind::Fixed(16)).from(13),
        Field::new(Kind::Array(&PARTITION)),
    ],
    memory: size_of::<asked::FetchTopic>(),
};

static PARTITION: Structure = Structure {
    fields: &[
        Field::new(Kind::Fixed(4)),
        Field::new(Kind::Fixed(4)).from(9),
        Field::new(Kind::Fixed(8)),
        Field::new(Kind::Fixed(4)).from(12),
        Field::new(Kind::Fixed(8)).from(5),
        Field::new(Kind::Fixed(4)),
        Field::new(Kind::Fixed(16)).from(17).tag(0),
        Field::new(Kind::Fixed(8)).from(18).tag(1),
    ],
    memory: size_of::<asked::FetchPartition>(),
};

static FORGOTTEN: Structure = Structure {
    fields: &[
        Field::new(Kind::Text).to(12),
        Field::new(Kind::Fixed(16)).from(13),
        Field::new(Kind::Numbers(4)),
    ],
    memory: size_of::<asked::ForgottenTopic>(),
};

/// Answers when there is enough to read, or the client does not want to wait longer.
pub fn start(services: &Arc<Services>, request: Request) -> Result<Reply, BadRequest> {
    let body: FetchRequest = request.decode()?;
    let version = request.api_version;
    let envelope = request.envelope;
    let throttle_ms = request.context.throttle_ms();
    // There are no sessions: who asks for one is told 0 and goes on without, and one that we gave out cannot come back.
    if body.session_epoch > 0 {
        let response = FetchResponse {
            throttle_time_ms: throttle_ms,
            error_code: ResponseError::FetchSessionIdNotFound.code(),
            ..FetchResponse::default()
        };
        return Ok(Reply::Now(response.encode(&envelope)));
    }
    let read_committed = body.isolation_level == READ_COMMITTED;
    let fetch = |partitions| replica::FetchRequest {
        api_version: version,
        replica_id: if version >= 15 { body.replica_state.replica_id.0 } else { body.replica_id.0 },
        max_wait: Duration::from_millis(u64::try_from(body.max_wait_ms).unwrap_or(0)),
        min_bytes: body.min_bytes.min(body.max_bytes),
        max_bytes: body.max_bytes.min(i32::try_from(services.config.fetch_max_bytes).unwrap_or(i32::MAX)),
        read_committed,
        partitions,
    };
    let Split { topics, partitions } = split(&body.topics, version, &services.controller.image());
    let outcomes = services.replicas.fetch(fetch(partitions));
    let services = services.clone();
    let listener = request.context.connection.listener.clone();
    Ok(Reply::Later(Box::pin(async move {
        let outcomes = outcomes.await;
        respond(topics, outcomes, &services, &listener, read_committed, throttle_ms, &envelope)
    })))
}

/// A topic of the request.
struct Topic {
    name: Arc<str>,
    id: TopicId,
    /// Set when no such topic is known; then its partitions are not asked for.
    error: Option<ResponseError>,
    partitions: Vec<i32>,
}

struct Split {
    topics: Vec<Topic>,
    /// Of all known topics, in request order, which is the order of fairness.
    partitions: Vec<replica::FetchPartition>,
}

/// Finds the topics that ids stand for.
fn split(asked: &[asked::FetchTopic], version: i16, image: &Image) -> Split {
    let mut result = Split { topics: Vec::with_capacity(asked.len()), partitions: Vec::new() };
    for topic in asked {
        let id = TopicId(topic.topic_id);
        let name = if version >= TOPIC_IDS {
            image.topic_by_id(id).map(|topic| topic.name.clone())
        } else {
            Some(Arc::from(topic.topic.as_str()))
        };
        let error = name.is_none().then_some(ResponseError::UnknownTopicId);
        let name = name.unwrap_or_default();
        if error.is_none() {
            let wanted = topic.partitions.iter().map(|partition| replica::FetchPartition {
                tp: TopicPartition::new(name.clone(), partition.partition),
                topic_id: id,
                current_leader_epoch: partition.current_leader_epoch,
                fetch_offset: partition.fetch_offset,
                last_fetched_epoch: partition.last_fetched_epoch,
                log_start_offset: partition.log_start_offset,
                max_bytes: partition.partition_max_bytes,
            });
            result.partitions.extend(wanted);
        }
        let partitions = topic.partitions.iter().map(|partition| partition.partition).collect();
        result.topics.push(Topic { name, id, error, partitions });
    }
    result
}

fn respond(
    topics: Vec<Topic>,
    outcomes: Vec<FetchOutcome>,
    services: &Services,
    listener: &str,
    read_committed: bool,
    throttle_ms: i32,
    envelope: &Envelope,
) -> Answer {
    let version = envelope.api_version;
    let endpoints = if version >= 16 {
        let leaders = outcomes.iter().filter_map(|outcome| outcome.current_leader);
        let leaders: Vec<_> = leaders.map(|(leader, _)| leader).collect();
        services::endpoints(&services.controller.image(), listener, leaders.into_iter())
    } else {
        Vec::new()
    };
    let mut outcomes = outcomes.into_iter();
    let topic = |topic: Topic| {
        let partition = |index| {
            let outcome = match topic.error {
                Some(error) => FetchOutcome::failed(error),
                None => outcomes.next().expect("one outcome per partition"),
            };
            partition(index, outcome, read_committed, version)
        };
        let partitions = topic.partitions.into_iter().map(partition).collect();
        FetchedTopic { name: topic.name, id: topic.id, partitions }
    };
    let topics = topics.into_iter().map(topic).collect();
    FetchResponse { throttle_time_ms: throttle_ms, error_code: 0, session_id: 0, topics, endpoints }
        .encode(envelope)
}

fn partition(index: i32, outcome: FetchOutcome, read_committed: bool, version: i16) -> FetchedPartition {
    FetchedPartition {
        index,
        error_code: outcome.error.map_or(0, |error| services::spoken(error, version > 5).code()),
        high_watermark: outcome.high_watermark,
        last_stable_offset: outcome.last_stable_offset,
        log_start_offset: outcome.log_start_offset,
        aborted_transactions: read_committed.then(Vec::new),
        preferred_read_replica: -1,
        diverging: outcome.diverging,
        current_leader: if version >= 16 { outcome.current_leader } else { None },
        ranges: outcome.ranges,
    }
}
