//! AlterPartitionReassignments (key 45), versions 0 and 1, and ListPartitionReassignments (key 46), version 0 (KIP-455).
//!
//! One node has nowhere to move a replica to. What asks for the replicas that a partition has already is done at once;
//! anything else names a broker that is not there and is refused. No reassignment is ever under way.

use std::sync::Arc;

use gracchus_core::{BrokerId, controller::Image, error::ResponseError};
use kafka_protocol::messages::{
    AlterPartitionReassignmentsRequest, AlterPartitionReassignmentsResponse,
    ListPartitionReassignmentsRequest, ListPartitionReassignmentsResponse,
    alter_partition_reassignments_request::{ReassignablePartition, ReassignableTopic},
    alter_partition_reassignments_response::{ReassignablePartitionResponse, ReassignableTopicResponse},
    list_partition_reassignments_request::ListPartitionReassignmentsTopics,
};

use super::{
    Api, Operation, Resource,
    create_topics::check_replicas,
    exchange::{BadRequest, Reply, Request},
    services::{self, Services, shown},
    shape::{Field, Kind, Message, Structure},
};

/// The row of AlterPartitionReassignments.
pub const ALTER: Api = Api {
    key: 45,
    name: "AlterPartitionReassignments",
    versions: 0..=1,
    advertised_from: 0,
    overlaps: false,
    needs: (Operation::Alter, Resource::Cluster),
    shape: &ALTER_SHAPE,
    start: alter,
};

/// The row of ListPartitionReassignments.
pub const LIST: Api = Api {
    key: 46,
    name: "ListPartitionReassignments",
    versions: 0..=0,
    advertised_from: 0,
    overlaps: false,
    needs: (Operation::Describe, Resource::Cluster),
    shape: &LIST_SHAPE,
    start: list,
};

/// Structure of AlterPartitionReassignments.
pub static ALTER_SHAPE: Message = Message {
    flexible_from: 0,
    body: Structure {
        fields: &[
            Field::new(Kind::Fixed(4)),
            Field::new(Kind::Fixed(1)).from(1),
            Field::new(Kind::Array(&TOPIC)),
        ],
        memory: size_of::<AlterPartitionReassignmentsRequest>(),
    },
};

static TOPIC: Structure = Structure {
    fields: &[Field::new(Kind::Text), Field::new(Kind::Array(&PARTITION))],
    memory: size_of::<ReassignableTopic>(),
};

static PARTITION: Structure = Structure {
    fields: &[Field::new(Kind::Fixed(4)), Field::new(Kind::Numbers(4))],
    // Each may be answered with a sentence that names its topic.
    memory: size_of::<ReassignablePartition>() + SENTENCE,
};

/// What a sentence about a partition takes beside what any answer does.
const SENTENCE: usize = 400;

/// Structure of ListPartitionReassignments.
pub static LIST_SHAPE: Message = Message {
    flexible_from: 0,
    body: Structure {
        fields: &[Field::new(Kind::Fixed(4)), Field::new(Kind::Array(&LISTED))],
        memory: size_of::<ListPartitionReassignmentsRequest>(),
    },
};

static LISTED: Structure = Structure {
    fields: &[Field::new(Kind::Text), Field::new(Kind::Numbers(4))],
    memory: size_of::<ListPartitionReassignmentsTopics>(),
};

/// Answers AlterPartitionReassignments at once.
pub fn alter(services: &Arc<Services>, request: Request) -> Result<Reply, BadRequest> {
    let body: AlterPartitionReassignmentsRequest = request.decode()?;
    let image = services.controller.image();
    let topics = body.topics.iter().map(|topic| {
        let partitions = topic.partitions.iter().map(|partition| {
            let outcome = reassign(&image, topic.name.as_str(), partition);
            let response =
                ReassignablePartitionResponse::default().with_partition_index(partition.partition_index);
            match outcome {
                Ok(()) => response.with_error_message(None),
                Err((error, message)) => {
                    response.with_error_code(error.code()).with_error_message(message.map(services::message))
                }
            }
        });
        ReassignableTopicResponse::default()
            .with_name(topic.name.clone())
            .with_partitions(partitions.collect())
    });
    let mut response = AlterPartitionReassignmentsResponse::default()
        .with_throttle_time_ms(request.context.throttle_ms())
        .with_error_message(None)
        .with_responses(topics.collect());
    if request.api_version >= 1 {
        response.allow_replication_factor_change = body.allow_replication_factor_change;
    }
    Ok(Reply::Now(request.envelope.answer(&response)))
}

fn reassign(
    image: &Image,
    topic: &str,
    asked: &ReassignablePartition,
) -> Result<(), (ResponseError, Option<String>)> {
    let index = asked.partition_index;
    let unknown = |what: String| (ResponseError::UnknownTopicOrPartition, Some(what));
    let found = image
        .topic(topic)
        .ok_or_else(|| unknown(format!("Unable to find a topic named {}.", shown(topic))))?;
    let partition = found
        .partition(index.into())
        .ok_or_else(|| unknown(format!("Unable to find partition {}:{index}.", shown(topic))))?;
    let Some(replicas) = &asked.replicas else {
        return Err((ResponseError::NoReassignmentInProgress, None));
    };
    let wanted: Vec<BrokerId> = replicas.iter().map(|id| BrokerId(id.0)).collect();
    check_replicas(&wanted, wanted.len(), image)
        .map_err(|message| (ResponseError::InvalidReplicaAssignment, Some(message)))?;
    if wanted == partition.replicas {
        return Ok(());
    }
    let message = "Partitions cannot be moved between brokers by this version.".to_owned();
    Err((ResponseError::InvalidReplicaAssignment, Some(message)))
}

/// Answers ListPartitionReassignments at once.
pub fn list(_services: &Arc<Services>, request: Request) -> Result<Reply, BadRequest> {
    let _: ListPartitionReassignmentsRequest = request.decode()?;
    let response = ListPartitionReassignmentsResponse::default()
        .with_throttle_time_ms(request.context.throttle_ms())
        .with_error_message(None);
    Ok(Reply::Now(request.envelope.answer(&response)))
}
