//! CreateTopics (key 19), versions 2 to 7: new topics, by partition count or by manual assignment.
//!
//! v4 lets −1 stand for the broker's defaults (KIP-464), v5 answers with what was created (KIP-525) and is flexible, v7
//! adds the topic id. Errors are per topic, checked in Kafka's order; `validate_only` runs every check and creates
//! nothing. Success means that the command is committed, not that every broker has seen it.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use futures_util::future::join_all;
use gracchus_core::{
    BrokerId, TopicId,
    controller::{Image, assign_replicas},
    error::ResponseError,
    topic::{TopicConfig, validate_name},
};
use kafka_protocol::{
    messages::{
        CreateTopicsRequest, CreateTopicsResponse, TopicName,
        create_topics_request::{CreatableReplicaAssignment, CreatableTopic, CreatableTopicConfig},
        create_topics_response::{CreatableTopicConfigs, CreatableTopicResult},
    },
    protocol::StrBytes,
};

use super::{
    Api, Operation, Resource,
    config_resources::{LONGEST_VALUE, too_long},
    exchange::{BadRequest, Reply, Request},
    services::{self, Services},
    shape::{Field, Kind, Message, Structure},
};
use crate::config::{BrokerConfig, describe::Described, live::Configuration};

/// The row of the table.
pub const API: Api = Api {
    key: 19,
    name: "CreateTopics",
    versions: 2..=7,
    advertised_from: 2,
    overlaps: false,
    needs: (Operation::Create, Resource::Topic),
    shape: &SHAPE,
    start,
};

/// Partitions that one request may create, as in Kafka: they become one command each topic, and memory.
pub(super) const MOST_PARTITIONS: usize = 10_000;

/// Structure of the request.
pub static SHAPE: Message = Message {
    flexible_from: 5,
    body: Structure {
        fields: &[Field::new(Kind::Array(&TOPIC)), Field::new(Kind::Fixed(4)), Field::new(Kind::Fixed(1))],
        memory: size_of::<CreateTopicsRequest>(),
    },
};

static TOPIC: Structure = Structure {
    fields: &[
        Field::new(Kind::Text),
        Field::new(Kind::Fixed(4)),
        Field::new(Kind::Fixed(2)),
        Field::new(Kind::Array(&ASSIGNMENT)),
        Field::new(Kind::Array(&CONFIG)),
    ],
    memory: size_of::<CreatableTopic>(),
};

static ASSIGNMENT: Structure = Structure {
    fields: &[Field::new(Kind::Fixed(4)), Field::new(Kind::Numbers(4))],
    memory: size_of::<CreatableReplicaAssignment>(),
};

static CONFIG: Structure = Structure {
    fields: &[Field::new(Kind::Text), Field::new(Kind::Text)],
    memory: size_of::<CreatableTopicConfig>(),
};

/// Checks at once; answers when everything that passed is committed.
pub fn start(services: &Arc<Services>, request: Request) -> Result<Reply, BadRequest> {
    let body: CreateTopicsRequest = request.decode()?;
    let envelope = request.envelope;
    let throttle_ms = request.context.throttle_ms();
    let image = services.controller.image();
    let config = services.live.describe();
    let plans = plan(&body.topics, &image, services, &config.now);
    let services = services.clone();
    Ok(Reply::Later(Box::pin(async move {
        let create = |(name, plan)| create(&services, name, plan, body.validate_only);
        let results = join_all(plans.into_iter().map(create)).await;
        let version = envelope.api_version;
        let result = |(name, outcome)| respond(name, outcome, &config, version);
        let response = CreateTopicsResponse::default()
            .with_throttle_time_ms(throttle_ms)
            .with_topics(results.into_iter().map(result).collect());
        envelope.answer(&response)
    })))
}

/// A topic that may be created.
struct Planned {
    assignment: Vec<Vec<BrokerId>>,
    configs: BTreeMap<String, String>,
}

/// A topic that was created, or would be.
struct Created {
    id: TopicId,
    partitions: usize,
    replication_factor: usize,
    configs: BTreeMap<String, String>,
}

/// Why not: Kafka's code, and a sentence for people.
pub(super) type Refused = (ResponseError, String);

/// Decides on every topic, in the order of the request; of a name that comes twice nothing is done, once.
fn plan(
    topics: &[CreatableTopic],
    image: &Image,
    services: &Services,
    config: &BrokerConfig,
) -> Vec<(Arc<str>, Result<Planned, Refused>)> {
    let mut seen = BTreeSet::new();
    let mut twice = BTreeSet::new();
    for topic in topics {
        if !seen.insert(topic.name.as_str()) {
            twice.insert(topic.name.as_str());
        }
    }
    let mut defaults = Defaults {
        partitions: config.num_partitions,
        replication_factor: config.default_replication_factor,
        configs: &config.topic_defaults,
        room: MOST_PARTITIONS,
    };
    let mut plans = Vec::with_capacity(topics.len());
    for topic in topics {
        let name = topic.name.as_str();
        let plan = if twice.contains(name) {
            if !seen.remove(name) {
                continue;
            }
            let message = "Found multiple entries for this topic.".to_owned();
            Err((ResponseError::InvalidRequest, message))
        } else {
            plan_one(topic, image, &mut defaults, services.env.random())
        };
        plans.push((Arc::from(name), plan));
    }
    plans
}

/// What the broker's configuration fills in, and how many more partitions this request may ask for.
struct Defaults<'a> {
    partitions: i32,
    replication_factor: i16,
    configs: &'a TopicConfig,
    room: usize,
}

fn plan_one(
    topic: &CreatableTopic,
    image: &Image,
    defaults: &mut Defaults<'_>,
    random: u64,
) -> Result<Planned, Refused> {
    check_name(&topic.name, image)?;
    let configs = check_configs(&topic.configs, defaults.configs)?;
    let assignment = if topic.assignments.is_empty() {
        automatic(topic, image, defaults, random)?
    } else {
        manual(topic, image)?
    };
    defaults.room = defaults.room.checked_sub(assignment.len()).ok_or_else(too_many)?;
    Ok(Planned { assignment, configs })
}

fn check_name(name: &str, image: &Image) -> Result<(), Refused> {
    validate_name(name).map_err(|reason| {
        (ResponseError::InvalidTopicException, format!("Topic name is invalid: {reason}"))
    })?;
    if image.topic(name).is_some() {
        return Err((ResponseError::TopicAlreadyExists, format!("Topic '{name}' already exists.")));
    }
    match image.topics.colliding(name) {
        Some(other) => {
            let message = format!("Topic '{name}' collides with existing topic: {other}");
            Err((ResponseError::InvalidTopicException, message))
        }
        None => Ok(()),
    }
}

fn check_configs(
    asked: &[CreatableTopicConfig],
    defaults: &TopicConfig,
) -> Result<BTreeMap<String, String>, Refused> {
    let mut configs = BTreeMap::new();
    for config in asked {
        let name = config.name.as_str();
        let Some(value) = &config.value else {
            let message = format!("Null value not supported for topic configs: {name}");
            return Err((ResponseError::InvalidConfig, message));
        };
        if value.len() > LONGEST_VALUE {
            return Err(too_long(name));
        }
        configs.insert(name.to_owned(), value.as_str().to_owned());
    }
    match TopicConfig::resolve(defaults, &configs).and_then(|config| config.check_together()) {
        Ok(()) => Ok(configs),
        Err(message) => Err((ResponseError::InvalidConfig, message)),
    }
}

/// Spreads the partitions over the brokers.
fn automatic(
    topic: &CreatableTopic,
    image: &Image,
    defaults: &Defaults<'_>,
    random: u64,
) -> Result<Vec<Vec<BrokerId>>, Refused> {
    let factor = match topic.replication_factor {
        -1 => defaults.replication_factor,
        factor => factor,
    };
    let Some(factor) = usize::try_from(factor).ok().filter(|factor| *factor > 0) else {
        let message = "Replication factor must be larger than 0, or -1 to use the default value.";
        return Err((ResponseError::InvalidReplicationFactor, message.to_owned()));
    };
    let partitions = match topic.num_partitions {
        -1 => defaults.partitions,
        partitions => partitions,
    };
    let Some(partitions) = usize::try_from(partitions).ok().filter(|partitions| *partitions > 0) else {
        let message = "Number of partitions was set to an invalid non-positive value.";
        return Err((ResponseError::InvalidPartitions, message.to_owned()));
    };
    if partitions > defaults.room {
        return Err(too_many());
    }
    assign_replicas(image, partitions, factor, random).ok_or_else(|| {
        let brokers = image.brokers.len();
        let message = format!(
            "Unable to replicate the partition {factor} time(s): The target replication factor of {factor} cannot be \
             reached because only {brokers} broker(s) are registered or some brokers have all their \
             log directories cordoned."
        );
        (ResponseError::InvalidReplicationFactor, message)
    })
}

pub(super) fn too_many() -> Refused {
    (ResponseError::PolicyViolation, "Excessively large number of partitions per request.".to_owned())
}

/// Takes the client's own assignment, if it is a possible one.
fn manual(topic: &CreatableTopic, image: &Image) -> Result<Vec<Vec<BrokerId>>, Refused> {
    let request = |what| {
        let message = format!("A manual partition assignment was specified, but {what} was not set to -1.");
        Err((ResponseError::InvalidRequest, message))
    };
    if topic.replication_factor != -1 {
        return request("replication factor");
    }
    if topic.num_partitions != -1 {
        return request("numPartitions");
    }
    let wrong = |message: String| (ResponseError::InvalidReplicaAssignment, message);
    let mut assignment: BTreeMap<i32, Vec<BrokerId>> = BTreeMap::new();
    for each in &topic.assignments {
        let replicas: Vec<BrokerId> = each.broker_ids.iter().map(|id| BrokerId(id.0)).collect();
        check_replicas(&replicas, topic.assignments[0].broker_ids.len(), image).map_err(wrong)?;
        if assignment.insert(each.partition_index, replicas).is_some() {
            let index = each.partition_index;
            return Err(wrong(format!("Found multiple manual partition assignments for partition {index}")));
        }
    }
    if !assignment.keys().copied().eq(0..i32::try_from(assignment.len()).unwrap_or(i32::MAX)) {
        return Err(wrong("partitions should be a consecutive 0-based integer sequence".to_owned()));
    }
    Ok(assignment.into_values().collect())
}

pub(super) fn check_replicas(replicas: &[BrokerId], expected: usize, image: &Image) -> Result<(), String> {
    if replicas.is_empty() {
        return Err("The manual partition assignment includes an empty replica list.".to_owned());
    }
    let mut seen = BTreeSet::new();
    for id in replicas {
        if !image.brokers.contains_key(id) {
            return Err(format!(
                "The manual partition assignment includes broker {id}, but no such broker is registered."
            ));
        }
        if !seen.insert(*id) {
            return Err(format!("The manual partition assignment includes the broker {id} more than once."));
        }
    }
    if replicas.len() != expected {
        return Err(format!(
            "The manual partition assignment includes a partition with {} replica(s), but this is not consistent with \
             previous partitions, which have {expected} replica(s).",
            replicas.len()
        ));
    }
    Ok(())
}

/// Commits what was planned, unless it was only to be checked.
async fn create(
    services: &Services,
    name: Arc<str>,
    plan: Result<Planned, Refused>,
    validate_only: bool,
) -> (Arc<str>, Result<Created, Refused>) {
    let Planned { assignment, configs } = match plan {
        Ok(planned) => planned,
        Err(refused) => return (name, Err(refused)),
    };
    let mut created = Created {
        id: TopicId::ZERO,
        partitions: assignment.len(),
        replication_factor: assignment.first().map_or(0, Vec::len),
        configs: configs.clone(),
    };
    if validate_only {
        return (name, Ok(created));
    }
    match services.create_topic(name.clone(), assignment, configs).await {
        Ok(topic) => {
            tracing::info!("created topic {name} ({}) with {} partitions", topic.id, created.partitions);
            created.id = topic.id;
            (name, Ok(created))
        }
        Err(rejection) => {
            let error = rejection.error();
            (name, Err((error, rejection.message)))
        }
    }
}

fn respond(
    name: Arc<str>,
    outcome: Result<Created, Refused>,
    configuration: &Configuration,
    version: i16,
) -> CreatableTopicResult {
    let response = CreatableTopicResult::default().with_name(TopicName(services::text(&name)));
    match outcome {
        Err((error, message)) => {
            let mut response =
                response.with_error_code(error.code()).with_error_message(Some(services::message(message)));
            if version >= 5 {
                response =
                    response.with_num_partitions(-1).with_replication_factor(-1).with_configs(Some(vec![]));
            }
            response
        }
        Ok(created) => {
            let mut response = response.with_error_message(None);
            if version >= 5 {
                response = response
                    .with_num_partitions(i32::try_from(created.partitions).expect("a partition count"))
                    .with_replication_factor(i16::try_from(created.replication_factor).unwrap_or(i16::MAX))
                    .with_configs(Some(effective(&created.configs, configuration)));
            }
            if version >= 7 {
                response = response.with_topic_id(created.id.0);
            }
            response
        }
    }
}

/// All configurations of a topic with these overrides, and where each comes from.
fn effective(
    overrides: &BTreeMap<String, String>,
    configuration: &Configuration,
) -> Vec<CreatableTopicConfigs> {
    let one = |described: Described| {
        CreatableTopicConfigs::default()
            .with_is_sensitive(described.is_sensitive())
            .with_name(StrBytes::from_string(described.name.into_owned()))
            .with_value(described.value.map(StrBytes::from_string))
            .with_read_only(described.read_only)
            .with_config_source(described.source as i8)
    };
    configuration.of_topic(overrides).into_iter().map(one).collect()
}

#[cfg(test)]
mod tests {
    use gracchus_core::controller::{Broker, Command, apply};
    use uuid::Uuid;

    use super::*;

    fn image(brokers: i32) -> Image {
        let broker = |id| Broker {
            id: BrokerId(id),
            epoch: 0,
            listeners: vec![],
            directories: vec![],
            failed: vec![],
            rack: None,
        };
        let brokers = (1..=brokers).map(|id| (BrokerId(id), Arc::new(broker(id)))).collect();
        let mut image = Image { brokers, ..Image::default() };
        let id = TopicId(Uuid::from_u128(1));
        let assignment = vec![vec![BrokerId(1)]];
        apply(
            &mut image,
            &Command::CreateTopic { name: "a.b".into(), id, assignment, configs: BTreeMap::new() },
        );
        image
    }

    fn topic(name: &'static str) -> CreatableTopic {
        let name = TopicName(StrBytes::from_static_str(name));
        CreatableTopic::default().with_name(name).with_num_partitions(3).with_replication_factor(1)
    }

    fn manual(assignment: &[(i32, &[i32])]) -> CreatableTopic {
        let one = |(index, brokers): &(i32, &[i32])| {
            CreatableReplicaAssignment::default()
                .with_partition_index(*index)
                .with_broker_ids(brokers.iter().map(|id| (*id).into()).collect())
        };
        topic("m")
            .with_num_partitions(-1)
            .with_replication_factor(-1)
            .with_assignments(assignment.iter().map(one).collect())
    }

    fn config(name: &'static str, value: Option<&'static str>) -> CreatableTopic {
        let config = CreatableTopicConfig::default()
            .with_name(StrBytes::from_static_str(name))
            .with_value(value.map(StrBytes::from_static_str));
        topic("c").with_configs(vec![config])
    }

    fn decide(topic: &CreatableTopic) -> Result<Vec<Vec<BrokerId>>, ResponseError> {
        let configs = TopicConfig::default();
        let mut defaults =
            Defaults { partitions: 2, replication_factor: 1, configs: &configs, room: MOST_PARTITIONS };
        let planned = plan_one(topic, &image(3), &mut defaults, 0);
        planned.map(|planned| planned.assignment).map_err(|(error, _)| error)
    }

    #[test]
    fn counts_and_defaults() {
        assert_eq!(decide(&topic("t")).map(|partitions| partitions.len()), Ok(3));
        assert_eq!(decide(&topic("t").with_num_partitions(-1)).map(|partitions| partitions.len()), Ok(2));
        assert_eq!(decide(&topic("t").with_replication_factor(-1)).map(|replicas| replicas[0].len()), Ok(1));
        for partitions in [0, -2, i32::MIN] {
            assert_eq!(
                decide(&topic("t").with_num_partitions(partitions)),
                Err(ResponseError::InvalidPartitions)
            );
        }
        for factor in [0, -2, 4, i16::MAX] {
            let error = Err(ResponseError::InvalidReplicationFactor);
            assert_eq!(decide(&topic("t").with_replication_factor(factor)), error);
        }
        assert_eq!(decide(&topic("t").with_num_partitions(i32::MAX)), Err(ResponseError::PolicyViolation));
    }

    #[test]
    fn names() {
        for name in ["", ".", "..", "a/b", "ä"] {
            assert_eq!(decide(&topic(name)), Err(ResponseError::InvalidTopicException), "{name}");
        }
        assert_eq!(decide(&topic("a.b")), Err(ResponseError::TopicAlreadyExists));
        assert_eq!(decide(&topic("a_b")), Err(ResponseError::InvalidTopicException));
    }

    #[test]
    fn configs() {
        assert!(decide(&config("retention.ms", Some("1000"))).is_ok());
        for wrong in
            [config("retention.ms", Some("soon")), config("retention.ms", None), config("x", Some("1"))]
        {
            assert_eq!(decide(&wrong), Err(ResponseError::InvalidConfig));
        }
    }

    #[test]
    fn manual_assignments() {
        let assigned = decide(&manual(&[(1, &[2, 3]), (0, &[1, 2])]));
        assert_eq!(assigned, Ok(vec![vec![BrokerId(1), BrokerId(2)], vec![BrokerId(2), BrokerId(3)]]));
        let impossible: [&[(i32, &[i32])]; 7] = [
            &[(0, &[])],
            &[(0, &[9])],
            &[(0, &[1, 1])],
            &[(0, &[1]), (0, &[2])],
            &[(1, &[1])],
            &[(0, &[1]), (2, &[1])],
            &[(0, &[1]), (1, &[1, 2])],
        ];
        for assignment in impossible {
            assert_eq!(
                decide(&manual(assignment)),
                Err(ResponseError::InvalidReplicaAssignment),
                "{assignment:?}"
            );
        }
        let both = manual(&[(0, &[1])]);
        assert_eq!(decide(&both.clone().with_num_partitions(1)), Err(ResponseError::InvalidRequest));
        assert_eq!(decide(&both.with_replication_factor(1)), Err(ResponseError::InvalidRequest));
    }
}
