//! DescribeProducers (key 61), version 0: the producers that partitions remember (KIP-664).
//!
//! Idempotent ones with their last sequence; −1 stands for what only transactions have. Never: a change of state; a
//! partition described twice, or a request could make its answer as long as it likes.

use std::{collections::BTreeSet, sync::Arc};

use gracchus_core::{ProducerId, TopicPartition, error::ResponseError, producer::ProducerEntry};
use kafka_protocol::messages::{
    DescribeProducersRequest, DescribeProducersResponse, TopicName, describe_producers_request as asked,
    describe_producers_response::{PartitionResponse, ProducerState, TopicResponse},
};

use super::{
    Api, Operation, Resource,
    exchange::{BadRequest, Reply, Request},
    services::{self, Services},
    shape::{Field, Kind, Message, Structure},
};

/// The row of the table.
pub const API: Api = Api {
    key: 61,
    name: "DescribeProducers",
    versions: 0..=0,
    advertised_from: 0,
    overlaps: false,
    needs: (Operation::Read, Resource::Topic),
    shape: &SHAPE,
    start,
};

/// Structure of the request.
pub static SHAPE: Message = Message {
    flexible_from: 0,
    body: Structure {
        fields: &[Field::new(Kind::Array(&TOPIC))],
        memory: size_of::<DescribeProducersRequest>(),
    },
};

static TOPIC: Structure = Structure {
    fields: &[Field::new(Kind::Text), Field::new(Kind::Numbers(4))],
    memory: size_of::<asked::TopicRequest>(),
};

/// Asks the owners.
pub fn start(services: &Arc<Services>, request: Request) -> Result<Reply, BadRequest> {
    let body: DescribeProducersRequest = request.decode()?;
    let envelope = request.envelope;
    let throttle_ms = request.context.throttle_ms();
    let topics =
        body.topics.into_iter().map(|topic| (Arc::<str>::from(topic.name.as_str()), topic.partition_indexes));
    let topics: Vec<_> = topics.collect();
    let all = topics
        .iter()
        .flat_map(|(name, indexes)| indexes.iter().map(|index| TopicPartition::new(name.clone(), *index)));
    let mut seen = BTreeSet::new();
    let wanted: Vec<TopicPartition> = all.filter(|tp| seen.insert(tp.clone())).collect();
    let described = services.replicas.describe_producers(wanted);
    Ok(Reply::Later(Box::pin(async move {
        let mut described = described.await.into_iter();
        let mut told = BTreeSet::new();
        let topics = topics.into_iter().map(|(name, indexes)| {
            let partition = |index| {
                let response = PartitionResponse::default().with_partition_index(index);
                let outcome = if told.insert(TopicPartition::new(name.clone(), index)) {
                    described.next().expect("one answer per partition")
                } else {
                    Err(ResponseError::InvalidRequest)
                };
                match outcome {
                    Ok(producers) => response.with_active_producers(producers.iter().map(state).collect()),
                    Err(error) => response.with_error_code(error.code()),
                }
            };
            TopicResponse::default()
                .with_name(TopicName(services::text(&name)))
                .with_partitions(indexes.into_iter().map(partition).collect())
        });
        let response = DescribeProducersResponse::default().with_throttle_time_ms(throttle_ms);
        envelope.answer(&response.with_topics(topics.collect()))
    })))
}

fn state((id, entry): &(ProducerId, ProducerEntry)) -> ProducerState {
    ProducerState::default()
        .with_producer_id(id.0.into())
        .with_producer_epoch(i32::from(entry.epoch.0))
        .with_last_sequence(entry.batches.back().map_or(-1, |batch| batch.last_sequence))
        .with_last_timestamp(entry.last_timestamp)
        .with_coordinator_epoch(entry.coordinator_epoch)
        .with_current_txn_start_offset(entry.transaction_start.map_or(-1, |start| start.0))
}
