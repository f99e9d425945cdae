//! ElectLeaders (key 43), versions 0 to 2: makes the preferred replica lead, or one that is not in sync (KIP-183, KIP-460).
//!
//! v1 names the kind of election, v2 is flexible. A partition of one replica is led by it or by nobody: where it leads,
//! no election is needed, and where its log directory is gone there is nobody to elect.

use std::sync::Arc;

use gracchus_core::{
    BrokerId,
    controller::{Image, Partition},
    error::ResponseError,
};
use kafka_protocol::messages::{
    ElectLeadersRequest, ElectLeadersResponse, TopicName,
    elect_leaders_request::TopicPartitions,
    elect_leaders_response::{PartitionResult, ReplicaElectionResult},
};

use super::{
    Api, Operation, Resource,
    exchange::{BadRequest, Reply, Request},
    services::{self, Services, shown},
    shape::{Field, Kind, Message, Structure},
};

/// The row of the table.
pub const API: Api = Api {
    key: 43,
    name: "ElectLeaders",
    versions: 0..=2,
    advertised_from: 0,
    overlaps: false,
    needs: (Operation::Alter, Resource::Cluster),
    shape: &SHAPE,
    start,
};

/// Kinds of elections.
const PREFERRED: i8 = 0;
const UNCLEAN: i8 = 1;

/// Structure of the request.
pub static SHAPE: Message = Message {
    flexible_from: 2,
    body: Structure {
        fields: &[
            Field::new(Kind::Fixed(1)).from(1),
            Field::new(Kind::Array(&TOPIC)),
            Field::new(Kind::Fixed(4)),
        ],
        memory: size_of::<ElectLeadersRequest>(),
    },
};

static TOPIC: Structure = Structure {
    fields: &[Field::new(Kind::Text), Field::new(Kind::Numbers(4))],
    memory: size_of::<TopicPartitions>(),
};

/// Answers at once: nothing can come of an election among one.
pub fn start(services: &Arc<Services>, request: Request) -> Result<Reply, BadRequest> {
    let body: ElectLeadersRequest = request.decode()?;
    let image = services.controller.image();
    let mut response = ElectLeadersResponse::default().with_throttle_time_ms(request.context.throttle_ms());
    let kind = if request.api_version == 0 { PREFERRED } else { body.election_type };
    match kind {
        PREFERRED | UNCLEAN => response.replica_election_results = elect(&body, kind, &image),
        _ => response.error_code = ResponseError::InvalidRequest.code(),
    }
    Ok(Reply::Now(request.envelope.answer(&response)))
}

fn elect(body: &ElectLeadersRequest, kind: i8, image: &Image) -> Vec<ReplicaElectionResult> {
    let Some(topics) = &body.topic_partitions else {
        // All partitions: those that need no election are not mentioned.
        let topics = image.topics.values().map(|topic| {
            let indexes = 0..i32::try_from(topic.partitions.len()).expect("partition indexes");
            let outcomes = indexes.map(|index| (index, outcome(image, &topic.name, index, kind)));
            let needed = outcomes.filter(|(_, (error, _))| *error != ResponseError::ElectionNotNeeded);
            result(TopicName(services::text(&topic.name)), needed)
        });
        return topics.filter(|topic| !topic.partition_result.is_empty()).collect();
    };
    let topics = topics.iter().map(|topic| {
        let name = topic.topic.as_str();
        let outcomes = topic.partitions.iter().map(|index| (*index, outcome(image, name, *index, kind)));
        result(topic.topic.clone(), outcomes)
    });
    topics.collect()
}

type Outcome = (ResponseError, Option<String>);

fn result(topic: TopicName, outcomes: impl Iterator<Item = (i32, Outcome)>) -> ReplicaElectionResult {
    let results = outcomes.map(|(index, (error, message))| {
        PartitionResult::default()
            .with_partition_id(index)
            .with_error_code(error.code())
            .with_error_message(message.map(services::message))
    });
    ReplicaElectionResult::default().with_topic(topic).with_partition_result(results.collect())
}

fn outcome(image: &Image, topic: &str, index: i32, kind: i8) -> Outcome {
    let unknown = |what: String| (ResponseError::UnknownTopicOrPartition, Some(what));
    let Some(found) = image.topic(topic) else {
        return unknown(format!("No such topic as {}", shown(topic)));
    };
    match found.partition(index.into()) {
        None => unknown(format!("No such partition as {}-{index}", shown(topic))),
        Some(partition) => (needed(partition, kind), None),
    }
}

fn needed(partition: &Partition, kind: i8) -> ResponseError {
    match (partition.leader, kind) {
        (BrokerId(-1), UNCLEAN) => ResponseError::EligibleLeadersNotAvailable,
        (_, UNCLEAN) => ResponseError::ElectionNotNeeded,
        (leader, _) if partition.replicas.first() == Some(&leader) => ResponseError::ElectionNotNeeded,
        _ => ResponseError::PreferredLeaderNotAvailable,
    }
}
