//! OffsetForLeaderEpoch (key 23), versions 2 to 4: where a leader epoch ends (KIP-101, KIP-279).
//!
//! Consumers find out with it whether what they have read was truncated (KIP-320); v3 names the replica that asks, v4 is
//! flexible. Nothing known of an epoch is not an error but −1. Never: an answer made of the high watermark.

use std::sync::Arc;

use gracchus_core::TopicPartition;
use kafka_protocol::messages::{
    OffsetForLeaderEpochRequest, OffsetForLeaderEpochResponse, TopicName,
    offset_for_leader_epoch_request as asked,
    offset_for_leader_epoch_response::{EpochEndOffset, OffsetForLeaderTopicResult},
};

use super::{
    Api, Operation, Resource,
    exchange::{BadRequest, Reply, Request},
    services::{self, Services},
    shape::{Field, Kind, Message, Structure},
};
use crate::replica::EpochPartition;

/// The row of the table.
pub const API: Api = Api {
    key: 23,
    name: "OffsetForLeaderEpoch",
    versions: 2..=4,
    advertised_from: 2,
    overlaps: false,
    needs: (Operation::Describe, Resource::Topic),
    shape: &SHAPE,
    start,
};

/// Structure of the request.
pub static SHAPE: Message = Message {
    flexible_from: 4,
    body: Structure {
        fields: &[Field::new(Kind::Fixed(4)).from(3), Field::new(Kind::Array(&TOPIC))],
        memory: size_of::<OffsetForLeaderEpochRequest>(),
    },
};

static TOPIC: Structure = Structure {
    fields: &[Field::new(Kind::Text), Field::new(Kind::Array(&PARTITION))],
    memory: size_of::<asked::OffsetForLeaderTopic>(),
};

static PARTITION: Structure = Structure {
    fields: &[Field::new(Kind::Fixed(4)), Field::new(Kind::Fixed(4)), Field::new(Kind::Fixed(4))],
    memory: size_of::<asked::OffsetForLeaderPartition>(),
};

/// Answers from the partitions' views.
pub fn start(services: &Arc<Services>, request: Request) -> Result<Reply, BadRequest> {
    let body: OffsetForLeaderEpochRequest = request.decode()?;
    let envelope = request.envelope;
    let throttle_ms = request.context.throttle_ms();
    let wanted = body.topics.iter().flat_map(|topic| {
        let name: Arc<str> = topic.topic.as_str().into();
        topic.partitions.iter().map(move |partition| EpochPartition {
            tp: TopicPartition::new(name.clone(), partition.partition),
            current_leader_epoch: partition.current_leader_epoch,
            leader_epoch: partition.leader_epoch,
        })
    });
    let ends = services.replicas.epoch_ends(wanted.collect());
    let topics: Vec<(Arc<str>, Vec<i32>)> = body
        .topics
        .iter()
        .map(|topic| {
            let partitions = topic.partitions.iter().map(|partition| partition.partition);
            (Arc::from(topic.topic.as_str()), partitions.collect())
        })
        .collect();
    Ok(Reply::Later(Box::pin(async move {
        let mut ends = ends.await.into_iter();
        let topics = topics.into_iter().map(|(name, partitions)| {
            let partition = |index| {
                let end = EpochEndOffset::default().with_partition(index);
                match ends.next().expect("one answer per partition") {
                    Ok((epoch, offset)) => end.with_leader_epoch(epoch.0).with_end_offset(offset.0),
                    Err(error) => end.with_leader_epoch(-1).with_end_offset(-1).with_error_code(error.code()),
                }
            };
            OffsetForLeaderTopicResult::default()
                .with_topic(TopicName(services::text(&name)))
                .with_partitions(partitions.into_iter().map(partition).collect())
        });
        let response = OffsetForLeaderEpochResponse::default().with_throttle_time_ms(throttle_ms);
        envelope.answer(&response.with_topics(topics.collect()))
    })))
}
