//! The transition function. Never: a look at anything but its arguments, a panic on any command.

use std::{collections::BTreeSet, sync::Arc};

use super::{Broker, Command, Image, Partition, Response, Topic, image::fold};
use crate::{BrokerId, LeaderEpoch, ProducerId, error::ResponseError, topic::validate_name};

/// Applies one committed command.
pub fn apply(image: &mut Image, command: &Command) -> Response {
    match command {
        Command::NameCluster { cluster_id } => {
            if image.cluster_id.is_empty() {
                image.cluster_id = cluster_id.clone();
            }
            Response::Done
        }
        Command::RegisterBroker { id, incarnation, listeners, rack } => {
            let broker = Broker {
                id: *id,
                epoch: image.next_broker_epoch,
                incarnation: *incarnation,
                listeners: listeners.clone(),
                rack: rack.clone(),
            };
            register_broker(image, broker)
        }
        Command::CreateTopic { name, id, assignment, configs } => {
            if let Err(refused) = check_new_topic(image, name, assignment) {
                return refused;
            }
            let partitions = assignment.iter().map(|replicas| first_partition(replicas)).collect();
            let topic = Topic { name: name.clone(), id: *id, partitions, configs: configs.clone() };
            image.insert_topic(Arc::new(topic));
            Response::Done
        }
        Command::DeleteTopic { id } => match image.remove_topic(*id) {
            Some(_) => Response::Done,
            None => Response::refused(ResponseError::UnknownTopicId, format!("no topic has the id {id}")),
        },
        Command::AllocateProducerIds { count, .. } => allocate_producer_ids(image, *count),
    }
}

fn register_broker(image: &mut Image, broker: Broker) -> Response {
    image.next_broker_epoch += 1;
    let (id, epoch) = (broker.id, broker.epoch);
    image.brokers.insert(id, Arc::new(broker));
    let led: Vec<Arc<Topic>> = image
        .topics
        .values()
        .filter(|topic| topic.partitions.iter().any(|partition| partition.leader == id))
        .cloned()
        .collect();
    for topic in led {
        let mut topic = Arc::unwrap_or_clone(topic);
        for partition in topic.partitions.iter_mut().filter(|partition| partition.leader == id) {
            partition.leader_epoch.0 += 1;
            partition.partition_epoch += 1;
        }
        image.insert_topic(Arc::new(topic));
    }
    Response::BrokerRegistered { epoch }
}

fn check_new_topic(image: &Image, name: &Arc<str>, assignment: &[Vec<BrokerId>]) -> Result<(), Response> {
    if let Err(message) = validate_name(name) {
        return Err(Response::refused(ResponseError::InvalidTopicException, message));
    }
    if image.topic(name).is_some() {
        let message = format!("Topic '{name}' already exists.");
        return Err(Response::refused(ResponseError::TopicAlreadyExists, message));
    }
    if let Some(other) = image.folded.get(&fold(name)) {
        let message = format!("Topic '{name}' collides with existing topic: {other}");
        return Err(Response::refused(ResponseError::InvalidTopicException, message));
    }
    if assignment.is_empty() {
        return Err(Response::refused(
            ResponseError::InvalidPartitions,
            "a topic needs at least one partition",
        ));
    }
    for replicas in assignment {
        let distinct: BTreeSet<_> = replicas.iter().collect();
        if replicas.is_empty() || distinct.len() != replicas.len() {
            let message = "each partition needs replicas, each on another broker";
            return Err(Response::refused(ResponseError::InvalidReplicaAssignment, message));
        }
        if let Some(unknown) = replicas.iter().find(|replica| !image.brokers.contains_key(*replica)) {
            let message = format!("broker {unknown} is not registered");
            return Err(Response::refused(ResponseError::InvalidReplicaAssignment, message));
        }
    }
    Ok(())
}

fn first_partition(replicas: &[BrokerId]) -> Partition {
    Partition {
        leader: replicas[0],
        leader_epoch: LeaderEpoch(0),
        partition_epoch: 0,
        replicas: replicas.to_vec(),
        isr: replicas.to_vec(),
    }
}

fn allocate_producer_ids(image: &mut Image, count: i32) -> Response {
    let first = image.next_producer_id;
    match first.0.checked_add(i64::from(count)) {
        Some(next) if count > 0 => {
            image.next_producer_id = ProducerId(next);
            Response::ProducerIds { first, count }
        }
        _ => Response::refused(ResponseError::UnknownServerError, "no producer ids are left"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::TopicId;

    fn register(image: &mut Image, id: i32) {
        let incarnation = uuid::Uuid::from_u128(7);
        let command =
            Command::RegisterBroker { id: BrokerId(id), incarnation, listeners: Vec::new(), rack: None };
        assert!(apply(image, &command).done().is_ok());
    }

    fn create(image: &mut Image, name: &str, id: u128) -> Result<Response, (ResponseError, String)> {
        let assignment = vec![vec![BrokerId(1)]; 2];
        let id = TopicId(uuid::Uuid::from_u128(id));
        let command = Command::CreateTopic { name: name.into(), id, assignment, configs: Default::default() };
        apply(image, &command).done()
    }

    #[test]
    fn a_topic_is_created_once_and_its_name_collides_with_none() {
        let mut image = Image::default();
        assert_eq!(create(&mut image, "a.b", 1).unwrap_err().0, ResponseError::InvalidReplicaAssignment);
        register(&mut image, 1);
        assert!(create(&mut image, "a.b", 1).is_ok());
        assert_eq!(create(&mut image, "a.b", 2).unwrap_err().0, ResponseError::TopicAlreadyExists);
        assert_eq!(create(&mut image, "a_b", 3).unwrap_err().0, ResponseError::InvalidTopicException);
        let id = TopicId(uuid::Uuid::from_u128(1));
        assert!(apply(&mut image, &Command::DeleteTopic { id }).done().is_ok());
        assert!(create(&mut image, "a_b", 3).is_ok(), "the name is free again");
    }

    #[test]
    fn a_registration_gives_the_partitions_it_leads_a_new_epoch() {
        let mut image = Image::default();
        register(&mut image, 1);
        create(&mut image, "t", 1).unwrap();
        register(&mut image, 2);
        assert_eq!(image.topic("t").unwrap().partitions[1].leader_epoch, LeaderEpoch(0));
        register(&mut image, 1);
        assert_eq!(image.topic("t").unwrap().partitions[1].leader_epoch, LeaderEpoch(1));
        assert_eq!(image.topic("t"), image.topic_by_id(TopicId(uuid::Uuid::from_u128(1))));
    }

    #[test]
    fn producer_ids_are_never_given_twice() {
        let mut image = Image::default();
        let command = Command::AllocateProducerIds { broker: BrokerId(1), count: 1000 };
        assert_eq!(apply(&mut image, &command), Response::ProducerIds { first: ProducerId(0), count: 1000 });
        assert_eq!(
            apply(&mut image, &command),
            Response::ProducerIds { first: ProducerId(1000), count: 1000 }
        );
    }
}
