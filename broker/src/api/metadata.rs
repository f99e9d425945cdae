//! Metadata (key 3), versions 0 to 13: brokers, topics, and who leads which partition.
//!
//! v1 controller and racks, v2 cluster id, v4 the client may forbid auto-creation, v5 offline replicas, v7 leader epochs
//! (KIP-320), v8 authorized operations (KIP-430), v9 flexible, v10 topic ids, v12 lookup by id (KIP-516), v13 an error
//! for the whole request (KIP-1102). Brokers show the endpoint of the listener that the request came in on.
//!
//! A named topic that does not exist is created when broker and client allow it, and then answered as it is: by the time
//! the command is committed there is nothing left for the client to wait for. Coordinators' own topics are not.
//! Never: a leader epoch that goes back for a topic id; it comes from the committed image only.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use futures_util::future::join_all;
use gracchus_core::{
    BrokerId, TopicId,
    controller::{Image, Partition, Topic, assign_replicas},
    error::ResponseError,
    topic::validate_name,
};
use kafka_protocol::{
    messages::{
        MetadataRequest, MetadataResponse, TopicName,
        metadata_request::MetadataRequestTopic,
        metadata_response::{MetadataResponseBroker, MetadataResponsePartition, MetadataResponseTopic},
    },
    protocol::StrBytes,
};

use super::{
    Api, Operation, Resource,
    create_topics::MOST_PARTITIONS,
    exchange::{Answer, BadRequest, Envelope, Reply, Request},
    services::{self, Services, is_internal},
    shape::{Field, Kind, Message, Structure},
};

/// The row of the table.
pub const API: Api = Api {
    key: 3,
    name: "Metadata",
    versions: 0..=13,
    advertised_from: 0,
    overlaps: false,
    needs: (Operation::Describe, Resource::Topic),
    shape: &SHAPE,
    start,
};

/// First version in which a topic can be asked for by id.
const LOOKUP_BY_ID: i16 = 12;
/// What may be done to a topic and to the cluster where nobody is refused anything, as bits of Kafka's operation codes.
pub(super) const ALL_TOPIC_OPERATIONS: i32 = 0b1101_1111_1000;
pub(super) const ALL_CLUSTER_OPERATIONS: i32 = 0b1_1111_1010_0000;

/// Structure of the request.
pub static SHAPE: Message = Message {
    flexible_from: 9,
    body: Structure {
        fields: &[
            Field::new(Kind::Array(&TOPIC)),
            Field::new(Kind::Fixed(1)).from(4),
            Field::new(Kind::Fixed(1)).from(8).to(10),
            Field::new(Kind::Fixed(1)).from(8),
        ],
        memory: size_of::<MetadataRequest>(),
    },
};

static TOPIC: Structure = Structure {
    fields: &[Field::new(Kind::Fixed(16)).from(10), Field::new(Kind::Text)],
    memory: size_of::<MetadataRequestTopic>(),
};

/// Answers from the image; waits only while it creates topics.
pub fn start(services: &Arc<Services>, request: Request) -> Result<Reply, BadRequest> {
    let body: MetadataRequest = request.decode()?;
    let image = services.controller.image();
    let asked = Asked::new(&body, &request, services.config.node_id);
    if asked.version < LOOKUP_BY_ID && body.topics.iter().flatten().any(cannot_be_asked) {
        return Ok(Reply::Now(refuse(body.topics.unwrap_or_default(), &asked)));
    }
    let missing = missing(&body, &image, services);
    if missing.is_empty() {
        return Ok(Reply::Now(asked.answer(&image, body.topics.as_deref())));
    }
    let services = services.clone();
    Ok(Reply::Later(Box::pin(async move {
        let create = |name| auto_create(&services, &image, name);
        let most = most_created(usize::try_from(services.config.num_partitions).unwrap_or(1));
        let created = join_all(missing.into_iter().take(most).map(create)).await;
        let refused: BTreeMap<Arc<str>, ResponseError> = created.into_iter().flatten().collect();
        let image = services.controller.image();
        Asked { refused, ..asked }.answer(&image, body.topics.as_deref())
    })))
}

/// Below version 12 names are needed, and ids are not looked up.
fn cannot_be_asked(topic: &MetadataRequestTopic) -> bool {
    topic.name.is_none() || !topic.topic_id.is_nil()
}

/// The named topics that do not exist and may be created.
fn missing(body: &MetadataRequest, image: &Image, services: &Services) -> BTreeSet<Arc<str>> {
    if !services.config.auto_create_topics_enable || !body.allow_auto_topic_creation {
        return BTreeSet::new();
    }
    let names = body.topics.iter().flatten().filter_map(|topic| topic.name.as_ref());
    let creatable = |name: &&TopicName| {
        image.topic(name.as_str()).is_none() && validate_name(name).is_ok() && !is_internal(name)
    };
    names.filter(creatable).map(|name| Arc::from(name.as_str())).collect()
}

/// How many topics of so many partitions one request may create: no more than CreateTopics. The rest stay unknown, and
/// the client asks again.
fn most_created(partitions: usize) -> usize {
    (MOST_PARTITIONS / partitions.max(1)).max(1)
}

/// Creates `name` with the broker's defaults; the error if that was refused.
async fn auto_create(
    services: &Services,
    image: &Image,
    name: Arc<str>,
) -> Option<(Arc<str>, ResponseError)> {
    let partitions = usize::try_from(services.config.num_partitions).unwrap_or(1);
    let factor = usize::try_from(services.config.default_replication_factor).unwrap_or(0);
    let Some(assignment) = assign_replicas(image, partitions, factor, services.env.random()) else {
        // As Apache Kafka, whose controller refuses later: the client asks again, and finds the topic once there are
        // brokers enough.
        services.complaints.say_about(
            format!("auto create {name}"),
            format_args!(
                "topic {name} is not created for a client that asked for it: default.replication.factor is {factor}, \
                 and that many brokers are not there; set it to what there is, or create the topic with fewer replicas"
            ),
        );
        return Some((name, ResponseError::UnknownTopicOrPartition));
    };
    match services.create_topic(name.clone(), assignment, BTreeMap::new()).await {
        Ok(topic) => {
            tracing::info!("created topic {name} ({}) for a client that asked for it", topic.id);
            None
        }
        Err(rejection) => match rejection.error() {
            // Another client was faster.
            ResponseError::TopicAlreadyExists => None,
            error @ ResponseError::InvalidTopicException => Some((name, error)),
            _ => Some((name, ResponseError::UnknownTopicOrPartition)),
        },
    }
}

/// An answer to a request that its version does not allow: every topic gets the error.
fn refuse(topics: Vec<MetadataRequestTopic>, asked: &Asked) -> Answer {
    let refused = |topic: MetadataRequestTopic| {
        let mut response = MetadataResponseTopic::default()
            .with_error_code(ResponseError::InvalidRequest.code())
            .with_name(Some(topic.name.unwrap_or_default()));
        if asked.version >= 10 {
            response.topic_id = topic.topic_id;
        }
        response
    };
    let mut response = MetadataResponse::default().with_topics(topics.into_iter().map(refused).collect());
    if asked.version >= 3 {
        response.throttle_time_ms = asked.throttle_ms;
    }
    asked.envelope.answer(&response)
}

/// What an answer depends on beside the image.
struct Asked {
    version: i16,
    envelope: Envelope,
    listener: Arc<str>,
    throttle_ms: i32,
    node: BrokerId,
    topic_operations: bool,
    cluster_operations: bool,
    /// Topics whose creation was refused.
    refused: BTreeMap<Arc<str>, ResponseError>,
}

impl Asked {
    fn new(body: &MetadataRequest, request: &Request, node: BrokerId) -> Self {
        Self {
            version: request.api_version,
            envelope: request.envelope,
            listener: request.context.connection.listener.clone(),
            throttle_ms: request.context.throttle_ms(),
            node,
            topic_operations: body.include_topic_authorized_operations,
            cluster_operations: body.include_cluster_authorized_operations,
            refused: BTreeMap::new(),
        }
    }

    fn answer(&self, image: &Image, topics: Option<&[MetadataRequestTopic]>) -> Answer {
        let version = self.version;
        let topics = match topics {
            None => self.all(image),
            // Version 0 had no null: an empty list stood for all.
            Some([]) if version == 0 => self.all(image),
            Some(topics) => {
                // Each topic once, however often it is named: an answer is as long as what it speaks about.
                let mut seen = BTreeSet::new();
                let mut first = Vec::with_capacity(topics.len());
                for topic in topics {
                    if seen.insert((&topic.name, topic.topic_id)) {
                        first.push(self.named(image, topic));
                    }
                }
                first
            }
        };
        let mut response = MetadataResponse::default().with_brokers(self.brokers(image)).with_topics(topics);
        if version >= 1 {
            response.controller_id = self.node.0.into();
        }
        if version >= 2 {
            response.cluster_id = image.cluster_id.map(|id| services::cluster_id(id).into());
        }
        if version >= 3 {
            response.throttle_time_ms = self.throttle_ms;
        }
        if (8..=10).contains(&version) && self.cluster_operations {
            response.cluster_authorized_operations = ALL_CLUSTER_OPERATIONS;
        }
        self.envelope.answer(&response)
    }

    fn all(&self, image: &Image) -> Vec<MetadataResponseTopic> {
        image.topics.values().map(|topic| self.topic(image, topic)).collect()
    }

    /// Those that have the listener.
    fn brokers(&self, image: &Image) -> Vec<MetadataResponseBroker> {
        let ids = image.brokers.keys().copied();
        let broker = |endpoint: super::fetch_response::NodeEndpoint| {
            let broker = MetadataResponseBroker::default()
                .with_node_id(endpoint.node.0.into())
                .with_host(StrBytes::from_string(endpoint.host))
                .with_port(endpoint.port);
            if self.version >= 1 {
                broker.with_rack(endpoint.rack.map(StrBytes::from_string))
            } else {
                broker
            }
        };
        services::endpoints(image, &self.listener, ids).into_iter().map(broker).collect()
    }

    /// A topic that the client asked for.
    fn named(&self, image: &Image, asked: &MetadataRequestTopic) -> MetadataResponseTopic {
        let (topic, error) = match &asked.name {
            Some(name) => (image.topic(name), self.missing(name)),
            None => (image.topic_by_id(TopicId(asked.topic_id)), ResponseError::UnknownTopicId),
        };
        if let Some(topic) = topic {
            return self.topic(image, topic);
        }
        let mut response =
            MetadataResponseTopic::default().with_error_code(error.code()).with_name(asked.name.clone());
        if self.version >= 10 {
            response.topic_id = asked.topic_id;
        }
        response
    }

    /// Why a name leads nowhere.
    fn missing(&self, name: &str) -> ResponseError {
        match self.refused.get(name) {
            Some(error) => *error,
            None if validate_name(name).is_err() => ResponseError::InvalidTopicException,
            None => ResponseError::UnknownTopicOrPartition,
        }
    }

    fn topic(&self, image: &Image, topic: &Topic) -> MetadataResponseTopic {
        let partitions = topic.partitions.iter().enumerate();
        let partitions = partitions.map(|(index, partition)| self.partition(image, index, partition));
        let mut response = MetadataResponseTopic::default()
            .with_name(Some(TopicName(services::text(&topic.name))))
            .with_partitions(partitions.collect());
        if self.version >= 1 {
            response.is_internal = is_internal(&topic.name);
        }
        if self.version >= 8 && self.topic_operations {
            response.topic_authorized_operations = ALL_TOPIC_OPERATIONS;
        }
        if self.version >= 10 {
            response.topic_id = topic.id.0;
        }
        response
    }

    fn partition(&self, image: &Image, index: usize, partition: &Partition) -> MetadataResponsePartition {
        let (leader, error) = self.leader(image, partition);
        let mut response = MetadataResponsePartition::default()
            .with_error_code(error.map_or(0, |error| error.code()))
            .with_partition_index(i32::try_from(index).expect("a partition index"))
            .with_leader_id(leader.0.into())
            .with_replica_nodes(ids(&partition.replicas))
            .with_isr_nodes(ids(&partition.isr));
        if self.version >= 5 {
            response.offline_replicas = ids(&image.offline_replicas(partition));
        }
        if self.version >= 7 {
            response.leader_epoch = partition.leader_epoch.0;
        }
        response
    }

    /// The leader as this client can reach it.
    fn leader(&self, image: &Image, partition: &Partition) -> (BrokerId, Option<ResponseError>) {
        match image.brokers.get(&partition.leader) {
            None => (BrokerId(-1), Some(ResponseError::LeaderNotAvailable)),
            Some(broker) if services::endpoint(broker, &self.listener).is_some() => (partition.leader, None),
            Some(_) if self.version >= 6 => (BrokerId(-1), Some(ResponseError::ListenerNotFound)),
            Some(_) => (BrokerId(-1), Some(ResponseError::LeaderNotAvailable)),
        }
    }
}

pub(super) fn ids(brokers: &[BrokerId]) -> Vec<kafka_protocol::messages::BrokerId> {
    brokers.iter().map(|id| id.0.into()).collect()
}

#[cfg(test)]
mod tests {
    use bytes::Buf;
    use gracchus_core::{
        LeaderEpoch,
        controller::{Broker, BrokerListener, Command, apply},
    };
    use kafka_protocol::protocol::Decodable;
    use uuid::Uuid;

    use super::*;

    fn image() -> Image {
        let mut image = Image::default();
        let listener = |name: &str, port| BrokerListener { name: name.into(), host: "one".into(), port };
        let listeners = vec![listener("PLAINTEXT", 9092), listener("INSIDE", 9093)];
        let broker = Broker {
            id: BrokerId(1),
            epoch: 0,
            listeners,
            directories: vec![],
            failed: vec![],
            rack: Some("r".into()),
        };
        image.brokers.insert(BrokerId(1), Arc::new(broker));
        image.cluster_id = Some(Uuid::from_u128(7));
        for (name, id, leader) in [("a", 1, 1), ("b", 2, 2)] {
            let assignment = vec![vec![BrokerId(leader)]];
            let id = TopicId(Uuid::from_u128(id));
            apply(
                &mut image,
                &Command::CreateTopic { name: name.into(), id, assignment, configs: BTreeMap::new() },
            );
        }
        image
    }

    fn asked(version: i16, listener: &str) -> Asked {
        let response_header_version = i16::from(version >= 9);
        Asked {
            version,
            envelope: Envelope { correlation_id: 5, response_header_version, api_version: version },
            listener: listener.into(),
            throttle_ms: 0,
            node: BrokerId(1),
            topic_operations: true,
            cluster_operations: true,
            refused: BTreeMap::new(),
        }
    }

    fn decode(answer: Answer, version: i16) -> MetadataResponse {
        let Answer::Frame(mut frame) = answer.plain() else { panic!("not a frame") };
        frame.advance(if version >= 9 { 9 } else { 8 });
        MetadataResponse::decode(&mut frame, version).unwrap()
    }

    fn by_name(name: &str) -> MetadataRequestTopic {
        MetadataRequestTopic::default().with_name(Some(TopicName(services::text(name))))
    }

    #[test]
    fn null_is_all_and_empty_is_none_but_in_version_0() {
        for version in 0..=13 {
            let count =
                |topics| decode(asked(version, "PLAINTEXT").answer(&image(), topics), version).topics.len();
            assert_eq!(count(None), 2);
            assert_eq!(count(Some(&[][..])), if version == 0 { 2 } else { 0 });
        }
    }

    #[test]
    fn every_version_names_brokers_leaders_and_errors() {
        let topics = [by_name("a"), by_name("b"), by_name("c"), by_name("not/legal")];
        for version in 0..=13 {
            let response = decode(asked(version, "INSIDE").answer(&image(), Some(&topics)), version);
            assert_eq!((response.brokers.len(), response.brokers[0].port), (1, 9093));
            let errors: Vec<i16> = response.topics.iter().map(|topic| topic.error_code).collect();
            assert_eq!(errors, [0, 0, 3, 17]);
            let partition = &response.topics[0].partitions[0];
            assert_eq!((partition.error_code, partition.leader_id.0), (0, 1));
            // Broker 2 is not registered, but its replica is named all the same.
            let partition = &response.topics[1].partitions[0];
            assert_eq!((partition.error_code, partition.leader_id.0), (5, -1));
            assert_eq!(partition.replica_nodes, [2]);
            if version >= 2 {
                assert_eq!(response.cluster_id.as_deref(), Some("AAAAAAAAAAAAAAAAAAAABw"));
            }
            if version >= 7 {
                assert_eq!(partition.leader_epoch, LeaderEpoch(0).0);
            }
        }
    }

    #[test]
    fn a_leader_without_the_listener_cannot_be_reached() {
        for (version, error) in [(5, 5), (6, 72), (13, 72)] {
            let response = decode(asked(version, "OTHER").answer(&image(), Some(&[by_name("a")])), version);
            assert_eq!(response.brokers, []);
            assert_eq!(response.topics[0].partitions[0].error_code, error);
        }
    }

    #[test]
    fn one_request_creates_no_more_partitions_than_create_topics_would() {
        let most: Vec<usize> = [0, 1, 3, 10_000, 20_000].into_iter().map(most_created).collect();
        assert_eq!(most, [10_000, 10_000, 3_333, 1, 1]);
    }

    #[test]
    fn a_topic_named_a_thousand_times_is_answered_once() {
        let topics: Vec<_> =
            (0..1000).map(|number| by_name(if number % 2 == 0 { "a" } else { "c" })).collect();
        for version in 0..=13 {
            let response = decode(asked(version, "INSIDE").answer(&image(), Some(&topics)), version);
            let errors: Vec<i16> = response.topics.iter().map(|topic| topic.error_code).collect();
            assert_eq!(errors, [0, 3]);
        }
    }

    #[test]
    fn ids_are_looked_up_from_version_12_on() {
        let known = MetadataRequestTopic::default().with_topic_id(Uuid::from_u128(1)).with_name(None);
        let unknown = MetadataRequestTopic::default().with_topic_id(Uuid::from_u128(9)).with_name(None);
        for version in [12, 13] {
            let asked = asked(version, "PLAINTEXT");
            let response = decode(asked.answer(&image(), Some(&[known.clone(), unknown.clone()])), version);
            assert_eq!(response.topics[0].name.as_ref().map(|name| name.as_str()), Some("a"));
            assert_eq!(response.topics[1].error_code, ResponseError::UnknownTopicId.code());
            assert_eq!((&response.topics[1].name, response.topics[1].topic_id), (&None, Uuid::from_u128(9)));
        }
        assert!(cannot_be_asked(&known));
    }
}
