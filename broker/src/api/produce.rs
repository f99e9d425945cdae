//! Produce (key 0), versions 3 to 13: append batches to partitions.
//!
//! v3 message format 2 (KIP-98), v5 log start offset, v7 zstd (KIP-110), v8 per-record errors (KIP-467), v9 flexible,
//! v10 leader hints (KIP-951), v12 transactions v2 (KIP-890), v13 topic ids (KIP-516). Versions 0–2 are advertised and
//! not served, see [`super::api_versions`].
//!
//! The records of a request are slices of its receive buffer all the way to the log. The handler hands them to the
//! replica manager before it returns, so that two produces of a connection are enqueued in their order. With acks=0 no
//! response is sent; after an error the connection is closed instead, which is all such a producer can notice.
//! Never: hold the request, or anything sliced from it, while waiting for the acknowledgement.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use gracchus_core::{TopicId, TopicPartition, controller::Image, error::ResponseError};
use kafka_protocol::{
    messages::{
        ProduceRequest, ProduceResponse, TopicName, produce_request as asked,
        produce_response::{
            BatchIndexAndErrorMessage, LeaderIdAndEpoch, NodeEndpoint, PartitionProduceResponse,
            TopicProduceResponse,
        },
    },
    protocol::StrBytes,
};

use super::{
    Api, Operation, Resource,
    exchange::{Answer, BadRequest, Envelope, Reply, Request},
    fetch_response,
    services::{self, Services},
    shape::{Field, Kind, Message, Structure},
};
use crate::replica::{self, ProduceOutcome, ProducePartition};

/// The row of the table.
pub const API: Api = Api {
    key: 0,
    name: "Produce",
    versions: 3..=13,
    advertised_from: 0,
    overlaps: true,
    needs: (Operation::Write, Resource::Topic),
    shape: &SHAPE,
    start,
};

/// First version that names topics by id.
const TOPIC_IDS: i16 = 13;

/// Structure of the request.
pub static SHAPE: Message = Message {
    flexible_from: 9,
    body: Structure {
        fields: &[
            Field::new(Kind::Text),
            Field::new(Kind::Fixed(2)),
            Field::new(Kind::Fixed(4)),
            Field::new(Kind::Array(&TOPIC)),
        ],
        memory: size_of::<ProduceRequest>(),
    },
};

static TOPIC: Structure = Structure {
    fields: &[
        Field::new(Kind::Text).to(12),
        Field::new(Kind::Fixed(16)).from(13),
        Field::new(Kind::Array(&PARTITION)),
    ],
    memory: size_of::<asked::TopicProduceData>(),
};

static PARTITION: Structure = Structure {
    fields: &[Field::new(Kind::Fixed(4)), Field::new(Kind::Blob)],
    memory: size_of::<asked::PartitionProduceData>(),
};

/// Enqueues the batches; answers when they are as durable as `acks` asks.
pub fn start(services: &Arc<Services>, mut request: Request) -> Result<Reply, BadRequest> {
    let body: ProduceRequest = request.decode()?;
    let version = request.api_version;
    let acks = body.acks;
    let image = (version >= TOPIC_IDS).then(|| services.controller.image());
    let Enqueued { topics, partitions } = resolve(once(body.topic_data), image.as_deref());
    let pending = if !(-1..=1).contains(&acks) {
        Err(ResponseError::InvalidRequiredAcks)
    } else if body.transactional_id.is_some() {
        // There is no coordinator that such a transaction could be known to.
        Err(ResponseError::InvalidTxnState)
    } else {
        Ok(services.replicas.produce(replica::ProduceRequest {
            api_version: version,
            transactional: false,
            acks,
            timeout: Duration::from_millis(u64::try_from(body.timeout_ms).unwrap_or(0)),
            partitions,
            charge: request.charge.take(),
        }))
    };
    let envelope = request.envelope;
    let throttle_ms = request.context.throttle_ms();
    let connection = request.context.connection;
    let services = services.clone();
    Ok(Reply::Later(Box::pin(async move {
        let outcomes = match pending {
            Ok(pending) => pending.await.into_iter(),
            Err(error) => {
                let known = topics.iter().map(Topic::enqueued).sum();
                vec![ProduceOutcome::failed(error); known].into_iter()
            }
        };
        let answered = answer(topics, outcomes);
        if acks == 0 {
            return silent(&answered);
        }
        let endpoints = if version >= 10 && hinted(&answered).next().is_some() {
            let image = services.controller.image();
            services::endpoints(&image, &connection.listener, hinted(&answered))
        } else {
            Vec::new()
        };
        respond(answered, endpoints, throttle_ms, &envelope)
    })))
}

/// A topic of the request, without its records.
struct Topic {
    /// Up to version 12.
    name: Arc<str>,
    /// From version 13.
    id: TopicId,
    /// Set when the whole topic is unknown; then nothing of it was enqueued.
    error: Option<ResponseError>,
    partitions: Vec<i32>,
}

impl Topic {
    fn enqueued(&self) -> usize {
        if self.error.is_none() { self.partitions.len() } else { 0 }
    }
}

struct Enqueued {
    topics: Vec<Topic>,
    /// Of all topics without an error, in request order.
    partitions: Vec<ProducePartition>,
}

/// Of a partition that is named more than once the last records count and it is answered once, as in Apache Kafka.
fn once(mut asked: Vec<asked::TopicProduceData>) -> Vec<asked::TopicProduceData> {
    let named = |topic: &asked::TopicProduceData, index| (topic.name.clone(), topic.topic_id, index);
    let mut all = Vec::with_capacity(asked.iter().map(|topic| topic.partition_data.len()).sum());
    for topic in &asked {
        all.extend(topic.partition_data.iter().map(|it| (topic.name.as_str(), topic.topic_id, it.index)));
    }
    all.sort_unstable();
    let each_once = all.windows(2).all(|pair| pair[0] != pair[1]);
    drop(all);
    if each_once {
        return asked;
    }
    let mut last = BTreeMap::new();
    for topic in &asked {
        for partition in &topic.partition_data {
            last.insert(named(topic, partition.index), partition.records.clone());
        }
    }
    for topic in &mut asked {
        let mut kept = Vec::new();
        for partition in std::mem::take(&mut topic.partition_data) {
            if let Some(records) = last.remove(&named(topic, partition.index)) {
                kept.push(partition.with_records(records));
            }
        }
        topic.partition_data = kept;
    }
    asked.retain(|topic| !topic.partition_data.is_empty());
    asked
}

/// Takes the records out of the request. With an image, topics are named by id.
fn resolve(asked: Vec<asked::TopicProduceData>, image: Option<&Image>) -> Enqueued {
    let mut partitions = Vec::with_capacity(asked.iter().map(|topic| topic.partition_data.len()).sum());
    let mut topics = Vec::with_capacity(asked.len());
    for topic in asked {
        let id = TopicId(topic.topic_id);
        let name = match image {
            Some(image) => image.topic_by_id(id).map(|topic| topic.name.clone()),
            None => Some(Arc::from(topic.name.as_str())),
        };
        let known = name.is_some();
        let name = name.unwrap_or_default();
        let indexes = topic.partition_data.iter().map(|partition| partition.index).collect();
        if known {
            partitions.extend(topic.partition_data.into_iter().map(|partition| ProducePartition {
                tp: TopicPartition::new(name.clone(), partition.index),
                topic_id: id,
                records: partition.records,
            }));
        }
        let error = (!known).then_some(ResponseError::UnknownTopicId);
        topics.push(Topic { name, id, error, partitions: indexes });
    }
    Enqueued { topics, partitions }
}

struct AnsweredTopic {
    name: Arc<str>,
    id: TopicId,
    partitions: Vec<(i32, ProduceOutcome)>,
}

/// Puts outcomes to the partitions that they belong to.
fn answer(topics: Vec<Topic>, mut outcomes: impl Iterator<Item = ProduceOutcome>) -> Vec<AnsweredTopic> {
    let answered = topics.into_iter().map(|topic| {
        let outcome = |index| {
            let outcome = match topic.error {
                Some(error) => ProduceOutcome::failed(error),
                None => outcomes.next().expect("one outcome per partition"),
            };
            (index, outcome)
        };
        let partitions = topic.partitions.into_iter().map(outcome).collect();
        AnsweredTopic { name: topic.name, id: topic.id, partitions }
    });
    answered.collect()
}

/// The answer to acks=0.
fn silent(answered: &[AnsweredTopic]) -> Answer {
    let all = answered.iter().flat_map(|topic| topic.partitions.iter().map(move |each| (topic, each)));
    let failed = all.filter_map(|(topic, (index, outcome))| Some((topic, index, outcome.error?))).next();
    match failed {
        Some((topic, index, error)) => {
            // The name is whatever the client sent.
            let name: String = topic.name.chars().take(249).collect();
            Answer::Close(format!("a produce with acks=0 to {name:?}, partition {index}: {error:?}").into())
        }
        None => Answer::Nothing,
    }
}

/// The leaders that the answer names.
fn hinted(answered: &[AnsweredTopic]) -> impl Iterator<Item = gracchus_core::BrokerId> + '_ {
    let outcomes = answered.iter().flat_map(|topic| &topic.partitions);
    outcomes.filter_map(|(_, outcome)| outcome.current_leader.map(|(leader, _)| leader))
}

fn respond(
    answered: Vec<AnsweredTopic>,
    endpoints: Vec<fetch_response::NodeEndpoint>,
    throttle_ms: i32,
    envelope: &Envelope,
) -> Answer {
    let version = envelope.api_version;
    let topic = |topic: AnsweredTopic| {
        let partitions =
            topic.partitions.into_iter().map(|(index, outcome)| partition(index, outcome, version));
        let response = TopicProduceResponse::default().with_partition_responses(partitions.collect());
        if version >= TOPIC_IDS {
            response.with_topic_id(topic.id.0)
        } else {
            response.with_name(TopicName(services::text(&topic.name)))
        }
    };
    let response = ProduceResponse::default()
        .with_responses(answered.into_iter().map(topic).collect())
        .with_throttle_time_ms(throttle_ms)
        .with_node_endpoints(endpoints.into_iter().map(endpoint).collect());
    envelope.answer(&response)
}

fn partition(index: i32, outcome: ProduceOutcome, version: i16) -> PartitionProduceResponse {
    let error = outcome.error.map_or(0, |error| services::spoken(error, version > 3).code());
    let mut response = PartitionProduceResponse::default()
        .with_index(index)
        .with_error_code(error)
        .with_base_offset(outcome.base_offset)
        .with_log_append_time_ms(outcome.log_append_time_ms);
    if version >= 5 {
        response.log_start_offset = outcome.log_start_offset;
    }
    if version >= 8 {
        response.error_message = outcome.message.map(services::message);
        let error = |(index, message)| {
            BatchIndexAndErrorMessage::default()
                .with_batch_index(index)
                .with_batch_index_error_message(Some(services::message(message)))
        };
        response.record_errors = outcome.record_errors.into_iter().map(error).collect();
    }
    if let (10.., Some((leader, epoch))) = (version, outcome.current_leader) {
        response.current_leader =
            LeaderIdAndEpoch::default().with_leader_id(leader.0.into()).with_leader_epoch(epoch.0);
    }
    response
}

fn endpoint(endpoint: fetch_response::NodeEndpoint) -> NodeEndpoint {
    NodeEndpoint::default()
        .with_node_id(endpoint.node.0.into())
        .with_host(StrBytes::from_string(endpoint.host))
        .with_port(endpoint.port)
        .with_rack(endpoint.rack.map(StrBytes::from_string))
}
