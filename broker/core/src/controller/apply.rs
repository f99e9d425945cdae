//! What each command does to the image. Never: half of a command; a command is rejected before it changes anything.

use std::{collections::BTreeMap, sync::Arc};

use uuid::Uuid;

use super::{
    Broker, Command, ConfigChange, ConfigResource, Image, Located, MOST_DELETED, Partition, Rejection,
    Response, Topic, directory, fingerprint, topics::NOBODY,
};
use crate::{BrokerId, LeaderEpoch, PartitionIndex, TopicId, TopicPartition, error::ResponseError};

/// Applies a committed command.
pub fn apply(image: &mut Image, command: &Command) -> Response {
    let outcome = match command {
        Command::NameCluster { id } => Ok(Response::Cluster { id: *image.cluster_id.get_or_insert(*id) }),
        Command::RegisterBroker { id, listeners, directories, rack, located } => {
            let epoch = image.next_broker_epoch;
            image.next_broker_epoch += 1;
            let (listeners, rack) = (listeners.clone(), rack.clone());
            let mut directories = directories.clone();
            directories.sort_unstable();
            let broker = Broker { id: *id, epoch, listeners, directories, failed: Vec::new(), rack };
            image.brokers.insert(*id, Arc::new(broker));
            locate(image, *id, located);
            take_leadership_again(image, *id);
            Ok(Response::Registered { epoch })
        }
        Command::DirectoryFailed { broker, directory } => {
            directory_failed(image, *broker, *directory);
            Ok(Response::Directories)
        }
        Command::Locate { broker, located } => {
            locate(image, *broker, located);
            lead_where_it_is(image, *broker, located);
            Ok(Response::Directories)
        }
        Command::CreateTopic { name, id, assignment, configs } => {
            let (name, configs) = (name.clone(), Arc::new(configs.clone()));
            let partitions = new_partitions(image, *id, 0, assignment).into_iter().map(Arc::new).collect();
            create_topic(image, Topic { name, id: *id, partitions, configs })
        }
        Command::DeleteTopic { id } => delete_topic(image, *id),
        Command::ForgetDeleted { ids } => {
            for id in ids {
                image.deleted.remove(id);
            }
            Ok(Response::Forgotten)
        }
        Command::AddPartitions { id, present, assignment } => {
            add_partitions(image, *id, *present, assignment)
        }
        Command::AlterConfigs { resource, changes, seen } => alter_configs(image, resource, changes, *seen),
        Command::AllocateProducerIds { count, .. } => {
            assert!(*count > 0, "a block holds ids");
            let first = image.next_producer_id;
            image.next_producer_id.0 += i64::from(*count);
            Ok(Response::ProducerIds { first, count: *count })
        }
    };
    outcome.unwrap_or_else(Response::Rejected)
}

/// A leader that was away may have lost what it had not synced and what nobody else counted; a new epoch tells its
/// records from those of before. What it cannot reach any more, it does not lead; what it can reach again, it does.
fn take_leadership_again(image: &mut Image, id: BrokerId) {
    let Some(broker) = image.brokers.get(&id) else { return };
    let changed = image.topics.replicas_of(id).filter_map(|of| {
        let leader = leader_after(broker, of.partition)?;
        Some((of.topic_partition(), Arc::new(of.partition.led_by(leader))))
    });
    let changed: Vec<_> = changed.collect();
    image.topics.update(&changed);
}

/// Who leads the partition, now that it is known what the broker can reach: the broker or nobody. `None`: its leader is
/// none of the broker's business.
fn leader_after(broker: &Broker, partition: &Partition) -> Option<BrokerId> {
    let id = broker.id;
    let may_lead = partition.leader == id || (partition.leader == NOBODY && partition.isr.contains(&id));
    match (may_lead, broker.is_online(partition.directory_of(id))) {
        (true, true) => Some(id),
        (true, false) if partition.leader == id => Some(NOBODY),
        _ => None,
    }
}

/// What the broker led from there, nobody leads. Replicas that were in sync stay so: they have what was acknowledged.
fn directory_failed(image: &mut Image, id: BrokerId, directory: Uuid) {
    let Some(broker) = image.brokers.get(&id) else { return };
    if !broker.directories.contains(&directory) || broker.failed.contains(&directory) {
        return;
    }
    let mut broker = Broker::clone(broker);
    broker.failed.push(directory);
    image.brokers.insert(id, Arc::new(broker));
    let led = image.topics.replicas_in(id, directory).filter(|of| of.partition.leader == id);
    let changed: Vec<_> =
        led.map(|of| (of.topic_partition(), Arc::new(of.partition.led_by(NOBODY)))).collect();
    image.topics.update(&changed);
}

/// Notes where replicas are. Topics that are gone by now are passed over.
fn locate(image: &mut Image, id: BrokerId, located: &[Located]) {
    let changed = located.iter().filter_map(|found| {
        let topic = image.topic_by_id(found.topic)?;
        let mut partition = topic.partition(found.partition)?.clone();
        partition.set_directory(id, found.directory);
        let tp = TopicPartition { topic: topic.name.clone(), partition: found.partition };
        Some((tp, Arc::new(partition)))
    });
    let mut changed: Vec<_> = changed.collect();
    // Of two places for one replica the last is meant: the order of equals stays.
    changed.sort_by(|(one, _), (other, _)| one.cmp(other));
    image.topics.update(&changed);
}

/// Where a replica was found, its directory may have failed already, and where it was meant to be, too: the broker says
/// both as it learns of them.
fn lead_where_it_is(image: &mut Image, id: BrokerId, located: &[Located]) {
    let Some(broker) = image.brokers.get(&id) else { return };
    let changed = located.iter().filter_map(|found| {
        let topic = image.topic_by_id(found.topic)?;
        let partition = topic.partition(found.partition)?;
        let leader = leader_after(broker, partition).filter(|leader| *leader != partition.leader)?;
        let tp = TopicPartition { topic: topic.name.clone(), partition: found.partition };
        Some((tp, Arc::new(partition.led_by(leader))))
    });
    let changed: Vec<_> = changed.collect();
    image.topics.update(&changed);
}

/// Partitions from `first` on, each replica with its log directory.
fn new_partitions(
    image: &Image,
    topic: TopicId,
    first: usize,
    assignment: &[Vec<BrokerId>],
) -> Vec<Partition> {
    let partition = |(index, replicas): (usize, &Vec<BrokerId>)| {
        let index = PartitionIndex(i32::try_from(first + index).expect("a partition index"));
        let directory = |id: &BrokerId| {
            let broker = image.brokers.get(id);
            broker.map_or(directory::UNASSIGNED, |broker| broker.directory_for(topic, index))
        };
        Partition {
            leader: *replicas.first().expect("a partition has a replica"),
            leader_epoch: LeaderEpoch(0),
            partition_epoch: 0,
            replicas: replicas.clone(),
            isr: replicas.clone(),
            directories: replicas.iter().map(directory).collect(),
        }
    };
    assignment.iter().enumerate().map(partition).collect()
}

fn create_topic(image: &mut Image, topic: Topic) -> Result<Response, Rejection> {
    if image.topics.get(&topic.name).is_some() {
        let message = format!("Topic '{}' already exists.", topic.name);
        return Err(Rejection::new(ResponseError::TopicAlreadyExists, message));
    }
    assert!(image.topics.by_id(topic.id).is_none(), "topic ids are drawn at random: {}", topic.id);
    if let Some(other) = image.topics.colliding(&topic.name) {
        let message = format!("Topic '{}' collides with existing topic: {other}", topic.name);
        return Err(Rejection::new(ResponseError::InvalidTopicException, message));
    }
    let topic = Arc::new(topic);
    image.topics.insert(topic.clone());
    Ok(Response::Topic(topic))
}

fn delete_topic(image: &mut Image, id: TopicId) -> Result<Response, Rejection> {
    let topic = image.topics.remove(id).ok_or_else(|| no_such_topic(id))?;
    if image.deleted.len() == MOST_DELETED {
        let other = image.deleted.keys().next().copied();
        other.iter().for_each(|other| image.deleted.remove(other));
    }
    image.deleted.insert(topic.clone());
    Ok(Response::Topic(topic))
}

fn add_partitions(
    image: &mut Image,
    id: TopicId,
    present: usize,
    assignment: &[Vec<BrokerId>],
) -> Result<Response, Rejection> {
    let topic = image.topic_by_id(id).ok_or_else(|| no_such_topic(id))?.clone();
    if topic.partitions.len() != present {
        let message = format!(
            "Topic '{}' has {} partitions by now, not {present}.",
            topic.name,
            topic.partitions.len()
        );
        return Err(Rejection::new(ResponseError::InvalidPartitions, message));
    }
    let added = new_partitions(image, id, present, assignment);
    Ok(Response::Topic(image.topics.grow(&topic, added)))
}

fn alter_configs(
    image: &mut Image,
    resource: &ConfigResource,
    changes: &[ConfigChange],
    seen: Option<u32>,
) -> Result<Response, Rejection> {
    let is_outdated = |held: &BTreeMap<String, String>| seen.is_some_and(|seen| seen != fingerprint(held));
    let altered = |mut overrides: BTreeMap<String, String>| {
        changes.iter().for_each(|change| change.apply(&mut overrides));
        overrides
    };
    let of = match resource {
        ConfigResource::Topic(id) => {
            let topic = image.topic_by_id(*id).ok_or_else(|| no_such_topic(*id))?.clone();
            if is_outdated(&topic.configs) {
                return Ok(Response::Outdated);
            }
            let configs = altered(BTreeMap::clone(&topic.configs));
            image.topics.configure(&topic, Arc::new(configs.clone()));
            return Ok(Response::Configs(configs));
        }
        ConfigResource::Broker(id) => Some(*id),
        ConfigResource::EveryBroker => None,
    };
    let held = image.broker_configs.get(&of).map(|held| BTreeMap::clone(held)).unwrap_or_default();
    if is_outdated(&held) {
        return Ok(Response::Outdated);
    }
    let configs = altered(held);
    if configs.is_empty() {
        image.broker_configs.remove(&of);
    } else {
        image.broker_configs.insert(of, Arc::new(configs.clone()));
    }
    Ok(Response::Configs(configs))
}

fn no_such_topic(id: TopicId) -> Rejection {
    Rejection::new(ResponseError::UnknownTopicId, format!("There is no topic with id {id}."))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use uuid::Uuid;

    use super::{super::topics::tests::register, *};
    use crate::ProducerId;

    fn create(image: &mut Image, name: &str, id: u128, leaders: &[i32]) -> Response {
        let assignment = leaders.iter().map(|leader| vec![BrokerId(*leader)]).collect();
        let id = TopicId(Uuid::from_u128(id));
        apply(image, &Command::CreateTopic { name: name.into(), id, assignment, configs: BTreeMap::new() })
    }

    fn rejected(response: Response) -> ResponseError {
        match response {
            Response::Rejected(rejection) => rejection.error(),
            other => panic!("not rejected: {other:?}"),
        }
    }

    #[test]
    fn a_registration_bumps_the_epochs_of_what_the_broker_leads_and_nothing_else() {
        let mut image = Image::default();
        assert_eq!(register(&mut image, 1, &[]), Response::Registered { epoch: 0 });
        create(&mut image, "a", 1, &[1, 2, 1]);
        let before = image.clone();
        assert_eq!(register(&mut image, 1, &[]), Response::Registered { epoch: 1 });
        let epochs = |image: &Image| -> Vec<(i32, i32)> {
            let of = |partition: &Arc<Partition>| (partition.leader_epoch.0, partition.partition_epoch);
            image.topic("a").unwrap().partitions.iter().map(of).collect()
        };
        assert_eq!(epochs(&image), [(1, 1), (0, 0), (1, 1)]);
        assert_eq!(epochs(&before), [(0, 0); 3], "an older image does not change");
        assert_eq!(image.topic_by_id(TopicId(Uuid::from_u128(1))), image.topic("a"));
    }

    #[test]
    fn names_are_unique_and_do_not_collide() {
        let mut image = Image::default();
        assert!(matches!(create(&mut image, "a.b", 1, &[1]), Response::Topic(_)));
        let before = image.clone();
        assert_eq!(rejected(create(&mut image, "a.b", 2, &[1])), ResponseError::TopicAlreadyExists);
        assert_eq!(rejected(create(&mut image, "a_b", 3, &[1])), ResponseError::InvalidTopicException);
        assert_eq!(image, before);
        assert!(matches!(create(&mut image, "a-b", 4, &[1]), Response::Topic(_)));
    }

    #[test]
    fn a_failed_directory_leaves_its_partitions_without_a_leader_until_it_is_back() {
        let id = |number| Uuid::from_u128(number);
        let (one, other) = (id(11), id(12));
        let seen = |image: &Image, topic: &str| -> Vec<(i32, i32)> {
            let partitions = &image.topic(topic).unwrap().partitions;
            partitions.iter().map(|partition| (partition.leader.0, partition.leader_epoch.0)).collect()
        };
        let mut image = Image::default();
        register(&mut image, 1, &[other, one]);
        create(&mut image, "a", 2, &[1, 1, 1]);
        let places = image.topic("a").unwrap().partitions.iter();
        let places: Vec<Uuid> = places.map(|partition| partition.directory_of(BrokerId(1))).collect();
        assert_eq!(places, [one, other, one], "partitions take turns");

        let fails = Command::DirectoryFailed { broker: BrokerId(1), directory: one };
        apply(&mut image, &fails);
        assert_eq!(seen(&image, "a"), [(-1, 1), (1, 0), (-1, 1)]);
        let partition = &image.topic("a").unwrap().partitions[0];
        assert_eq!(
            (&partition.isr[..], image.offline_replicas(partition)),
            (&[BrokerId(1)][..], vec![BrokerId(1)])
        );
        apply(&mut image, &fails);
        assert_eq!(seen(&image, "a"), [(-1, 1), (1, 0), (-1, 1)], "once");
        create(&mut image, "b", 3, &[1, 1]);
        let places = image.topic("b").unwrap().partitions.iter();
        assert!(
            places.clone().all(|partition| partition.directories == [other]),
            "new ones go to the others"
        );

        // It cannot be opened at the next start either, and then it can.
        register(&mut image, 1, &[other]);
        assert_eq!(seen(&image, "a"), [(-1, 1), (1, 1), (-1, 1)]);
        register(&mut image, 1, &[one, other]);
        assert_eq!(seen(&image, "a"), [(1, 2), (1, 2), (1, 2)]);

        // An empty directory in its place is another one.
        register(&mut image, 1, &[id(13), other]);
        assert_eq!(seen(&image, "a"), [(-1, 3), (1, 3), (-1, 3)]);
        let located = |partition, directory| Located {
            topic: TopicId(id(2)),
            partition: PartitionIndex(partition),
            directory,
        };
        let command = Command::RegisterBroker {
            id: BrokerId(1),
            listeners: vec![],
            directories: vec![id(13), other],
            rack: None,
            located: vec![located(2, id(13)), located(9, other)],
        };
        apply(&mut image, &command);
        assert_eq!(seen(&image, "a"), [(-1, 3), (1, 4), (1, 4)], "what was moved by hand is found");
        let mut nothing = image.clone();
        apply(&mut nothing, &Command::DirectoryFailed { broker: BrokerId(1), directory: other });
        apply(&mut nothing, &Command::DirectoryFailed { broker: BrokerId(1), directory: id(13) });
        assert!(super::super::assign_replicas(&nothing, 1, 1, 0).is_some(), "it is placed by a later start");
        create(&mut nothing, "c", 4, &[1]);
        let partition = &nothing.topic("c").unwrap().partitions[0];
        assert_eq!(partition.directory_of(BrokerId(1)), directory::UNASSIGNED);
    }

    #[test]
    fn what_is_found_in_a_failed_directory_has_no_leader_and_what_is_found_in_another_has_one() {
        let (one, other) = (Uuid::from_u128(11), Uuid::from_u128(12));
        let mut image = Image::default();
        register(&mut image, 1, &[one, other]);
        create(&mut image, "a", 2, &[1, 1]);
        let located = |partition, directory| {
            let partition = PartitionIndex(partition);
            let located = vec![Located { topic: TopicId(Uuid::from_u128(2)), partition, directory }];
            Command::Locate { broker: BrokerId(1), located }
        };
        let led = |image: &Image| -> Vec<(i32, i32)> {
            let partitions = &image.topic("a").unwrap().partitions;
            partitions.iter().map(|it| (it.leader.0, it.leader_epoch.0)).collect()
        };
        apply(&mut image, &Command::DirectoryFailed { broker: BrokerId(1), directory: one });
        assert_eq!(led(&image), [(-1, 1), (1, 0)]);
        apply(&mut image, &located(1, one));
        assert_eq!(led(&image), [(-1, 1), (-1, 1)], "nobody leads what was found in a failed directory");
        apply(&mut image, &located(0, other));
        assert_eq!(led(&image), [(1, 2), (-1, 1)], "what was found elsewhere is led again");
        apply(&mut image, &located(0, other));
        assert_eq!(led(&image), [(1, 2), (-1, 1)], "once");
    }

    #[test]
    fn an_image_of_before_directories_can_still_be_read() {
        let mut image = Image::default();
        register(&mut image, 1, &[]);
        create(&mut image, "a", 1, &[1]);
        let mut stored = serde_json::to_value(&image).unwrap();
        stored.as_object_mut().unwrap().remove("deleted");
        stored["brokers"][0].as_object_mut().unwrap().remove("failed");
        stored["topics"][0]["partitions"][0].as_object_mut().unwrap().remove("directories");
        let read: Image = serde_json::from_value(stored).unwrap();
        let partition = &read.topic("a").unwrap().partitions[0];
        assert_eq!(partition.directory_of(BrokerId(1)), directory::UNASSIGNED);
        assert_eq!(read.offline_replicas(partition), []);
    }

    #[test]
    fn the_stored_form_of_an_image_never_changes() {
        let directory = Uuid::from_u128(7);
        let mut image = Image::default();
        let register = Command::RegisterBroker {
            id: BrokerId(1),
            listeners: vec![],
            directories: vec![directory],
            rack: None,
            located: vec![],
        };
        apply(&mut image, &register);
        create(&mut image, "a", 1, &[1, 1]);
        let partition = r#"{"leader":1,"leader_epoch":0,"partition_epoch":0,"replicas":[1],"isr":[1],"directories":["00000000-0000-0000-0000-000000000007"]}"#;
        let stored = format!(
            "{}{partition},{partition}{}",
            r#"{"cluster_id":null,"brokers":[{"id":1,"epoch":0,"listeners":[],"directories":["00000000-0000-0000-0000-000000000007"],"failed":[],"rack":null}],"topics":[{"name":"a","id":"00000000-0000-0000-0000-000000000001","partitions":["#,
            r#"],"configs":{}}],"deleted":[],"broker_configs":[],"next_producer_id":0,"next_broker_epoch":1}"#
        );
        assert_eq!(serde_json::to_string(&image).unwrap(), stored);
        assert_eq!(serde_json::from_str::<Image>(&stored).unwrap(), image);
    }

    #[test]
    fn a_deleted_topic_is_gone_by_name_and_by_id() {
        let mut image = Image::default();
        create(&mut image, "a", 1, &[1]);
        let id = TopicId(Uuid::from_u128(1));
        assert!(matches!(apply(&mut image, &Command::DeleteTopic { id }), Response::Topic(_)));
        assert_eq!(image.deleted.keys().collect::<Vec<_>>(), [&id], "remembered until its logs are gone");
        assert_eq!(apply(&mut image, &Command::ForgetDeleted { ids: vec![id] }), Response::Forgotten);
        assert_eq!(image, Image::default());
        assert_eq!(rejected(apply(&mut image, &Command::DeleteTopic { id })), ResponseError::UnknownTopicId);
    }

    #[test]
    fn partitions_are_added_once_and_only_to_the_topic_that_was_meant() {
        let mut image = Image::default();
        create(&mut image, "a", 1, &[1]);
        let add = |image: &mut Image, id, present| {
            let assignment = vec![vec![BrokerId(1)]; 2];
            apply(image, &Command::AddPartitions { id: TopicId(Uuid::from_u128(id)), present, assignment })
        };
        assert!(matches!(add(&mut image, 1, 1), Response::Topic(topic) if topic.partitions.len() == 3));
        assert_eq!(rejected(add(&mut image, 1, 1)), ResponseError::InvalidPartitions);
        assert_eq!(rejected(add(&mut image, 2, 1)), ResponseError::UnknownTopicId);
        assert_eq!(image.topic("a").unwrap().partitions.len(), 3);
    }

    #[test]
    fn configs_change_step_by_step() {
        let mut image = Image::default();
        create(&mut image, "a", 1, &[1]);
        let text = str::to_owned;
        let set = ConfigChange::Set { key: text("retention.ms"), value: text("5") };
        let words = |words: &str| words.split(',').map(str::to_owned).collect();
        let append = |list: &str| ConfigChange::Append {
            key: text("cleanup.policy"),
            default: text("delete"),
            words: words(list),
        };
        let subtract = ConfigChange::Subtract {
            key: text("cleanup.policy"),
            default: text("delete"),
            words: words("delete"),
        };
        let mut alter =
            |resource, changes| apply(&mut image, &Command::AlterConfigs { resource, changes, seen: None });
        let topic = ConfigResource::Topic(TopicId(Uuid::from_u128(1)));
        let Response::Configs(configs) = alter(topic.clone(), vec![set.clone(), append("compact,delete")])
        else {
            panic!("rejected");
        };
        assert_eq!(configs["cleanup.policy"], "delete,compact");
        let Response::Configs(configs) = alter(topic.clone(), vec![subtract]) else { panic!("rejected") };
        assert_eq!((&*configs["cleanup.policy"], &*configs["retention.ms"]), ("compact", "5"));
        let Response::Configs(configs) = alter(topic, vec![ConfigChange::Clear, set.clone()]) else {
            panic!("rejected");
        };
        assert_eq!(configs.into_keys().collect::<Vec<_>>(), ["retention.ms"]);
        alter(ConfigResource::EveryBroker, vec![set.clone()]);
        alter(ConfigResource::Broker(BrokerId(1)), vec![set]);
        alter(ConfigResource::EveryBroker, vec![ConfigChange::Delete { key: text("retention.ms") }]);
        let held: Vec<_> = image.broker_configs.keys().copied().collect();
        assert_eq!(held, [Some(BrokerId(1))]);
        let stored = serde_json::to_string(&image).unwrap();
        assert_eq!(serde_json::from_str::<Image>(&stored).unwrap(), image);
    }

    #[test]
    fn a_change_that_was_decided_on_other_overrides_is_none() {
        let mut image = Image::default();
        create(&mut image, "a", 1, &[1]);
        let set = |resource, value: &str, seen| {
            let changes = vec![ConfigChange::Set { key: "retention.ms".to_owned(), value: value.to_owned() }];
            Command::AlterConfigs { resource, changes, seen }
        };
        for resource in [ConfigResource::Topic(TopicId(Uuid::from_u128(1))), ConfigResource::EveryBroker] {
            let nothing = fingerprint(&BTreeMap::new());
            let first = apply(&mut image, &set(resource.clone(), "1", Some(nothing)));
            let Response::Configs(configs) = first else { panic!("{first:?}") };
            let before = image.clone();
            assert_eq!(apply(&mut image, &set(resource.clone(), "2", Some(nothing))), Response::Outdated);
            assert_eq!(image, before);
            let seen = Some(fingerprint(&configs));
            assert!(matches!(apply(&mut image, &set(resource.clone(), "3", seen)), Response::Configs(_)));
            assert!(matches!(apply(&mut image, &set(resource, "4", None)), Response::Configs(_)));
        }
        let mut stored = serde_json::to_value(set(ConfigResource::EveryBroker, "5", None)).unwrap();
        stored["AlterConfigs"].as_object_mut().unwrap().remove("seen").expect("it is written");
        let read: Command = serde_json::from_value(stored).unwrap();
        assert_eq!(read, set(ConfigResource::EveryBroker, "5", None), "as logs of before have it");
    }

    #[test]
    fn a_fingerprint_never_changes() {
        let of = |pairs: &[(&str, &str)]| {
            fingerprint(&pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect())
        };
        assert_eq!(of(&[]), 0);
        assert_ne!(of(&[("ab", "c")]), of(&[("a", "bc")]));
        assert_ne!(of(&[("a", "b"), ("c", "d")]), of(&[("a", "d"), ("c", "b")]));
        assert_eq!(of(&[("retention.ms", "5")]), 0x9b18_c54b);
    }

    #[test]
    fn blocks_of_producer_ids_do_not_overlap_and_the_cluster_is_named_once() {
        let mut image = Image::default();
        let allocate = Command::AllocateProducerIds { broker: BrokerId(1), count: 10 };
        assert_eq!(apply(&mut image, &allocate), Response::ProducerIds { first: ProducerId(0), count: 10 });
        assert_eq!(apply(&mut image, &allocate), Response::ProducerIds { first: ProducerId(10), count: 10 });
        let (one, other) = (Uuid::from_u128(1), Uuid::from_u128(2));
        assert_eq!(apply(&mut image, &Command::NameCluster { id: one }), Response::Cluster { id: one });
        assert_eq!(apply(&mut image, &Command::NameCluster { id: other }), Response::Cluster { id: one });
    }
}
