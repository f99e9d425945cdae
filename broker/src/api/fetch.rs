//! Fetch (key 1), versions 4 to 18: read batches, or wait until there are some. Consumers and replicas use the same.
//!
//! v4 isolation level (KIP-98), v5 log start, v7 sessions (KIP-227), v9 leader epoch check (KIP-320), v11 rack
//! (KIP-392), v12 flexible and diverging epochs (KIP-595), v13 topic ids (KIP-516), v15 replica state (KIP-903), v16
//! leader hints (KIP-951), v17 directory id (KIP-853), v18 follower high watermark (KIP-1166). A `replica_id` of 0 or more
//! is answered as by an Apache Kafka that does not know the replica, until there are followers.
//!
//! The session turns what was asked into the full list of partitions and decides which of them the answer names; the
//! replica manager reads and waits; [`super::fetch_response`] sends file ranges. While it waits, a request holds
//! neither its frame nor a byte of a log.

use std::{sync::Arc, time::Duration};

use gracchus_core::{
    TopicId, TopicPartition,
    controller::Image,
    error::ResponseError,
    session::{self, Context, PartitionAnswer, PartitionKey, PartitionRequest, SessionRequest, TopicKey},
};
use kafka_protocol::messages::{FetchRequest, fetch_request as asked};

use super::{
    Api, Operation, Resource,
    exchange::{Answer, BadRequest, Envelope, Reply, Request},
    fetch_response::{FetchResponse, FetchedPartition, FetchedTopic},
    services::{self, Services},
    shape::{Field, Kind, Message, Structure},
};
use crate::replica::{self, FetchOutcome};

/// The row of the table.
pub const API: Api = Api {
    key: 1,
    name: "Fetch",
    versions: 4..=18,
    advertised_from: 4,
    overlaps: false,
    needs: (Operation::Read, Resource::Topic),
    shape: &SHAPE,
    start,
};

/// First version that names topics by id.
const TOPIC_IDS: i16 = 13;
/// First version whose clients use a leader hint.
const LEADER_HINTS: i16 = 16;
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
    let replica_id = if version >= 15 { body.replica_state.replica_id.0 } else { body.replica_id.0 };
    let asker = Asker {
        envelope: request.envelope,
        listener: request.context.connection.listener.clone(),
        throttle_ms: request.context.throttle_ms(),
        read_committed: body.isolation_level == READ_COMMITTED,
        is_consumer: replica_id < 0,
    };
    let resolved = services.sessions().resolve(session_request(&body, version), services.now_ms());
    let context = match resolved {
        Ok(context) => context,
        Err(error) => {
            gracchus_env::moment!(FETCH_SESSION_REFUSED);
            return Ok(Reply::Now(asker.refuse(error)));
        }
    };
    let image = services.controller.image();
    let wanted: Vec<Wanted> =
        context.partitions.iter().map(|(key, asked)| wanted(key, asked, &image)).collect();
    let (known, unknown) = separate(wanted);
    let max_bytes = body.max_bytes.min(i32::try_from(services.config.fetch_max_bytes).unwrap_or(i32::MAX));
    let outcomes = services.replicas.fetch(replica::FetchRequest {
        api_version: version,
        replica_id,
        // A partition that is not known is news that must not wait.
        max_wait: if unknown.is_empty() { milliseconds(body.max_wait_ms) } else { Duration::ZERO },
        min_bytes: body.min_bytes.min(max_bytes),
        max_bytes,
        read_committed: asker.read_committed,
        partitions: known,
    });
    let services = services.clone();
    Ok(Reply::Later(Box::pin(async move {
        let outcomes = merge(outcomes.await, unknown);
        let answers: Vec<PartitionAnswer> = outcomes.iter().map(news).collect();
        let (now_ms, random) = (services.now_ms(), services.env.random());
        let (answer, evicted) = {
            let mut sessions = services.sessions();
            let before = sessions.evicted();
            let answer = sessions.answer(&context, &answers, now_ms, random);
            (answer, sessions.evicted() > before)
        };
        if evicted {
            gracchus_env::moment!(FETCH_SESSION_EVICTED);
        }
        match answer.error {
            Some(error) => asker.refuse(error),
            None => asker.answer(&services, context, outcomes, answer),
        }
    })))
}

fn milliseconds(wait: i32) -> Duration {
    Duration::from_millis(u64::try_from(wait).unwrap_or(0))
}

/// What the session needs to know of the request.
fn session_request(body: &FetchRequest, version: i16) -> SessionRequest {
    let by_id = version >= TOPIC_IDS;
    let key = |name: &str, id| if by_id { TopicKey::Id(TopicId(id)) } else { TopicKey::Name(name.into()) };
    let mut partitions = Vec::with_capacity(body.topics.iter().map(|topic| topic.partitions.len()).sum());
    for topic in &body.topics {
        let topic_key = key(&topic.topic, topic.topic_id);
        partitions.extend(topic.partitions.iter().map(|partition| {
            let asked = PartitionRequest {
                current_leader_epoch: partition.current_leader_epoch,
                fetch_offset: partition.fetch_offset,
                last_fetched_epoch: partition.last_fetched_epoch,
                log_start_offset: partition.log_start_offset,
                max_bytes: partition.partition_max_bytes,
            };
            (PartitionKey { topic: topic_key.clone(), partition: partition.partition }, asked)
        }));
    }
    let mut forgotten = Vec::new();
    for topic in &body.forgotten_topics_data {
        let topic_key = key(&topic.topic, topic.topic_id);
        let partitions = topic.partitions.iter();
        forgotten
            .extend(partitions.map(|index| PartitionKey { topic: topic_key.clone(), partition: *index }));
    }
    SessionRequest {
        session_id: body.session_id,
        session_epoch: body.session_epoch,
        by_id,
        // Whoever says so is none, and pushes nobody's session out.
        follower: false,
        partitions,
        forgotten,
    }
}

/// A partition to read, or why there is none.
type Wanted = Result<replica::FetchPartition, ResponseError>;

/// Finds the topic that a key stands for. A name without a topic is the replica manager's to refuse.
fn wanted(key: &PartitionKey, asked: &PartitionRequest, image: &Image) -> Wanted {
    let (name, topic_id) = match &key.topic {
        TopicKey::Name(name) => (name.clone(), TopicId::ZERO),
        TopicKey::Id(id) => {
            let topic = image.topic_by_id(*id).ok_or(ResponseError::UnknownTopicId)?;
            (topic.name.clone(), *id)
        }
    };
    Ok(replica::FetchPartition {
        tp: TopicPartition::new(name, key.partition),
        topic_id,
        current_leader_epoch: asked.current_leader_epoch,
        fetch_offset: asked.fetch_offset,
        last_fetched_epoch: asked.last_fetched_epoch,
        log_start_offset: asked.log_start_offset,
        max_bytes: asked.max_bytes,
    })
}

/// The partitions to read, and the places of those that cannot be.
fn separate(wanted: Vec<Wanted>) -> (Vec<replica::FetchPartition>, Vec<(usize, ResponseError)>) {
    let mut known = Vec::with_capacity(wanted.len());
    let mut unknown = Vec::new();
    for (place, wanted) in wanted.into_iter().enumerate() {
        match wanted {
            Ok(partition) => known.push(partition),
            Err(error) => unknown.push((place, error)),
        }
    }
    (known, unknown)
}

/// The reverse of [`separate`]: one outcome for each partition, in order.
fn merge(outcomes: Vec<FetchOutcome>, unknown: Vec<(usize, ResponseError)>) -> Vec<FetchOutcome> {
    if unknown.is_empty() {
        return outcomes;
    }
    let mut merged = Vec::with_capacity(outcomes.len() + unknown.len());
    let mut read = outcomes.into_iter();
    for (place, error) in unknown {
        let before = place - merged.len();
        merged.extend(read.by_ref().take(before));
        merged.push(FetchOutcome::failed(error));
    }
    merged.extend(read);
    merged
}

/// What decides whether an incremental response holds a partition.
fn news(outcome: &FetchOutcome) -> PartitionAnswer {
    PartitionAnswer {
        failed: outcome.error.is_some(),
        has_records: outcome.bytes > 0,
        high_watermark: outcome.high_watermark,
        log_start_offset: outcome.log_start_offset,
        urgent: outcome.diverging.is_some(),
    }
}

/// What a response depends on beside what was read.
struct Asker {
    envelope: Envelope,
    listener: Arc<str>,
    throttle_ms: i32,
    read_committed: bool,
    /// Not one that says it is a replica: those know where the others are.
    is_consumer: bool,
}

impl Asker {
    /// A response to a request as a whole that cannot be served.
    fn refuse(&self, error: ResponseError) -> Answer {
        let error_code = error.code();
        let response =
            FetchResponse { throttle_time_ms: self.throttle_ms, error_code, ..FetchResponse::default() };
        response.encode(&self.envelope)
    }

    fn answer(
        &self,
        services: &Services,
        context: Context,
        outcomes: Vec<FetchOutcome>,
        answer: session::Answer,
    ) -> Answer {
        let endpoints = if self.envelope.api_version >= LEADER_HINTS && self.is_consumer {
            let leaders = outcomes.iter().filter_map(|outcome| Some(outcome.current_leader?.0));
            services::endpoints(&services.controller.image(), &self.listener, leaders)
        } else {
            Vec::new()
        };
        let mut topics: Vec<FetchedTopic> = Vec::new();
        let mut current: Option<TopicKey> = None;
        let told = context.partitions.into_iter().zip(outcomes).zip(answer.included);
        for ((key, _), outcome) in told.filter_map(|(read, included)| included.then_some(read)) {
            if current.as_ref() != Some(&key.topic) {
                topics.push(topic(&key.topic));
                current = Some(key.topic.clone());
            }
            let partition = self.partition(key.partition, outcome);
            topics.last_mut().expect("just pushed").partitions.push(partition);
        }
        let response = FetchResponse {
            throttle_time_ms: self.throttle_ms,
            error_code: 0,
            session_id: answer.session_id,
            topics,
            endpoints,
        };
        response.encode(&self.envelope)
    }

    fn partition(&self, index: i32, outcome: FetchOutcome) -> FetchedPartition {
        let version = self.envelope.api_version;
        FetchedPartition {
            index,
            error_code: outcome.error.map_or(0, |error| services::spoken(error, version > 5).code()),
            high_watermark: outcome.high_watermark,
            last_stable_offset: outcome.last_stable_offset,
            log_start_offset: outcome.log_start_offset,
            aborted_transactions: self.read_committed.then(Vec::new),
            preferred_read_replica: -1,
            diverging: outcome.diverging,
            current_leader: outcome.current_leader.filter(|_| version >= LEADER_HINTS),
            ranges: outcome.ranges,
        }
    }
}

/// A topic of the response, without partitions yet.
fn topic(key: &TopicKey) -> FetchedTopic {
    let (name, id) = match key {
        TopicKey::Name(name) => (name.clone(), TopicId::ZERO),
        TopicKey::Id(id) => (Arc::default(), *id),
    };
    FetchedTopic { name, id, partitions: Vec::new() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_partitions_keep_their_places() {
        let named = |index| {
            let key = PartitionKey { topic: TopicKey::Name("t".into()), partition: index };
            let asked = PartitionRequest {
                current_leader_epoch: -1,
                fetch_offset: i64::from(index),
                last_fetched_epoch: -1,
                log_start_offset: -1,
                max_bytes: 1,
            };
            wanted(&key, &asked, &Image::default())
        };
        let unknown = || Err(ResponseError::UnknownTopicId);
        for pattern in 0..32u32 {
            let wanted = (0..5).map(|index| if pattern & 1 << index == 0 { named(index) } else { unknown() });
            let (known, unknown) = separate(wanted.collect());
            let read = |partition: &replica::FetchPartition| {
                let high_watermark = i64::from(partition.tp.partition.0);
                FetchOutcome {
                    error: None,
                    high_watermark,
                    ..FetchOutcome::failed(ResponseError::UnknownTopicId)
                }
            };
            let merged = merge(known.iter().map(read).collect(), unknown);
            let found: Vec<i64> = merged.iter().map(|outcome| outcome.high_watermark).collect();
            let expected: Vec<i64> =
                (0..5).map(|index| if pattern & 1 << index == 0 { index } else { -1 }).collect();
            assert_eq!(found, expected);
        }
    }
}
