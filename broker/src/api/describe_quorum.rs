//! DescribeQuorum (key 55), versions 0 to 2: who votes about the metadata and how far they are (KIP-595, KIP-836).
//!
//! The quorum is this node alone. Offsets are positions in the metadata log. v2 adds directory ids and the controllers'
//! listeners (KIP-853); a voter that was not added by KIP-853 has no directory id, as in Kafka.

use std::sync::Arc;

use gracchus_core::error::ResponseError;
use kafka_protocol::{
    messages::{
        DescribeQuorumRequest, DescribeQuorumResponse, TopicName, describe_quorum_request as asked,
        describe_quorum_response::{Listener, Node, PartitionData, ReplicaState, TopicData},
    },
    protocol::StrBytes,
};

use super::{
    Api, Operation, Resource,
    exchange::{BadRequest, Reply, Request},
    services::Services,
    shape::{Field, Kind, Message, Structure},
};

/// The row of the table.
pub const API: Api = Api {
    key: 55,
    name: "DescribeQuorum",
    versions: 0..=2,
    advertised_from: 0,
    overlaps: false,
    needs: (Operation::Describe, Resource::Cluster),
    shape: &SHAPE,
    start,
};

/// The only partition that can be asked for.
const METADATA_TOPIC: &str = "__cluster_metadata";

/// Structure of the request.
pub static SHAPE: Message = Message {
    flexible_from: 0,
    body: Structure {
        fields: &[Field::new(Kind::Array(&TOPIC))],
        memory: size_of::<DescribeQuorumRequest>(),
    },
};

static TOPIC: Structure = Structure {
    fields: &[Field::new(Kind::Text), Field::new(Kind::Array(&PARTITION))],
    memory: size_of::<asked::TopicData>(),
};

static PARTITION: Structure =
    Structure { fields: &[Field::new(Kind::Fixed(4))], memory: size_of::<asked::PartitionData>() };

/// Answers at once.
pub fn start(services: &Arc<Services>, request: Request) -> Result<Reply, BadRequest> {
    let body: DescribeQuorumRequest = request.decode()?;
    let version = request.api_version;
    let valid = matches!(&body.topics[..], [topic] if topic.topic_name.as_str() == METADATA_TOPIC
        && matches!(&topic.partitions[..], [partition] if partition.partition_index == 0));
    let response = if valid { describe(services, version) } else { refuse(body, version) };
    Ok(Reply::Now(request.envelope.answer(&response)))
}

fn describe(services: &Services, version: i16) -> DescribeQuorumResponse {
    let node = kafka_protocol::messages::BrokerId(services.node().0);
    let quorum = services.controller.quorum();
    let now_ms = services.env.wall_clock_ms();
    let mut voter = ReplicaState::default().with_replica_id(node).with_log_end_offset(quorum.log_end);
    if version >= 1 {
        voter = voter.with_last_fetch_timestamp(now_ms).with_last_caught_up_timestamp(now_ms);
    }
    let partition = PartitionData::default()
        .with_leader_id(node)
        .with_leader_epoch(quorum.epoch)
        .with_high_watermark(quorum.high_watermark)
        .with_current_voters(vec![voter])
        .with_error_message(None);
    let topic = TopicData::default()
        .with_topic_name(TopicName(StrBytes::from_static_str(METADATA_TOPIC)))
        .with_partitions(vec![partition]);
    let mut response = DescribeQuorumResponse::default().with_error_message(None).with_topics(vec![topic]);
    if version >= 2 {
        let listeners = services.config.controller_listeners.iter().map(|endpoint| {
            Listener::default()
                .with_name(StrBytes::from_string(endpoint.name.clone()))
                .with_host(StrBytes::from_string(endpoint.host.clone()))
                .with_port(endpoint.port)
        });
        response.nodes = vec![Node::default().with_node_id(node).with_listeners(listeners.collect())];
    }
    response
}

/// Every partition that was asked for is unknown.
fn refuse(body: DescribeQuorumRequest, version: i16) -> DescribeQuorumResponse {
    let error = ResponseError::UnknownTopicOrPartition;
    let partition = |asked: &asked::PartitionData| {
        let partition = PartitionData::default()
            .with_partition_index(asked.partition_index)
            .with_error_code(error.code());
        let message = "This server does not host this topic-partition.";
        partition.with_error_message((version >= 2).then(|| StrBytes::from_static_str(message)))
    };
    let topics = body.topics.into_iter().map(|topic| {
        TopicData::default()
            .with_partitions(topic.partitions.iter().map(partition).collect())
            .with_topic_name(topic.topic_name)
    });
    DescribeQuorumResponse::default().with_error_message(None).with_topics(topics.collect())
}
