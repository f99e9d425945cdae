//! The topics of an image: by name, by id, and by the brokers that lead their partitions or have replicas of them.
//!
//! Everything here is in structure that images share. Who changes one partition of a topic with 10,000 copies a few nodes
//! on the way to it, and who asks what one broker has (in one directory) looks at nothing else. The indexes are no state of
//! their own: they change with the partitions, in [`Topics::reindex`] only, and are made anew when an image is read.
//!
//! Never: an index that differs from what a look at all partitions would give.

use std::sync::Arc;

use imbl::{OrdMap, OrdSet};
use uuid::Uuid;

use super::{Overrides, Partition, Topic, changes::Itself};
use crate::{BrokerId, PartitionIndex, TopicId, TopicPartition, topic::metric_name};

/// The leader of a partition that has none.
pub(super) const NOBODY: BrokerId = BrokerId(-1);

/// All topics.
#[derive(Debug, Clone, Default)]
pub struct Topics {
    by_name: OrdMap<Arc<str>, Arc<Topic>>,
    pub(super) by_id: OrdMap<TopicId, Itself>,
    /// What metrics call a topic, and its name; only of those that could be taken for another.
    metric_names: OrdSet<(Arc<str>, Arc<str>)>,
    /// By leader; those without one under [`NOBODY`].
    led: OrdMap<BrokerId, OrdSet<TopicPartition>>,
    /// By replica and its log directory.
    replicas: OrdMap<(BrokerId, Uuid), OrdSet<TopicPartition>>,
    partitions: usize,
    preferred_replica_imbalance: usize,
}

impl PartialEq for Topics {
    fn eq(&self, other: &Self) -> bool {
        // The topics by their ids are those by their names.
        self.by_name == other.by_name
            && self.by_id.keys().eq(other.by_id.keys())
            && self.metric_names == other.metric_names
            && self.led == other.led
            && self.replicas == other.replicas
            && self.partitions == other.partitions
            && self.preferred_replica_imbalance == other.preferred_replica_imbalance
    }
}

/// A partition with the topic that it belongs to.
#[derive(Debug, Clone, Copy)]
pub struct PartitionOf<'a> {
    /// The topic.
    pub topic: &'a Arc<Topic>,
    /// The partition's number in it.
    pub index: PartitionIndex,
    /// Its state.
    pub partition: &'a Partition,
}

impl PartitionOf<'_> {
    /// Its name.
    pub fn topic_partition(&self) -> TopicPartition {
        TopicPartition { topic: self.topic.name.clone(), partition: self.index }
    }
}

impl Topics {
    /// How many topics there are.
    pub fn len(&self) -> usize {
        self.by_name.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.by_name.is_empty()
    }

    /// The topic of this name.
    pub fn get(&self, name: &str) -> Option<&Arc<Topic>> {
        self.by_name.get(name)
    }

    /// The topic with this id.
    pub fn by_id(&self, id: TopicId) -> Option<&Arc<Topic>> {
        self.by_id.get(&id).map(|topic| &topic.0)
    }

    /// All names, in order.
    pub fn keys(&self) -> impl Iterator<Item = &Arc<str>> {
        self.by_name.keys()
    }

    /// The names from `first` on, in order.
    pub fn keys_from<'a>(&'a self, first: &str) -> impl Iterator<Item = &'a Arc<str>> + use<'a> {
        self.by_name.range(Arc::<str>::from(first)..).map(|(name, _)| name)
    }

    /// All topics, by name.
    pub fn values(&self) -> impl Iterator<Item = &Arc<Topic>> {
        self.by_name.values()
    }

    /// Another topic that metrics could not tell from one of this name.
    pub fn colliding(&self, name: &str) -> Option<&Arc<str>> {
        let wanted = metric_name(name);
        let of_that_name = self.metric_names.range((Arc::from(&*wanted), Arc::from(""))..);
        let mut of_that_name = of_that_name.take_while(|(metric, _)| **metric == *wanted);
        of_that_name.find(|(_, other)| **other != *name).map(|(_, other)| other)
    }

    /// How many partitions there are.
    pub fn partition_count(&self) -> usize {
        self.partitions
    }

    /// How many of them are not led by their first replica.
    pub fn preferred_replica_imbalance(&self) -> usize {
        self.preferred_replica_imbalance
    }

    /// How many of them nobody leads.
    pub fn leaderless_count(&self) -> usize {
        self.led.get(&NOBODY).map_or(0, OrdSet::len)
    }

    /// The partitions that `broker` leads, by name.
    pub fn led_by(&self, broker: BrokerId) -> impl Iterator<Item = PartitionOf<'_>> {
        self.look_up(self.led.get(&broker).into_iter().flatten())
    }

    /// The partitions that `broker` has a replica of, by directory and name.
    pub fn replicas_of(&self, broker: BrokerId) -> impl Iterator<Item = PartitionOf<'_>> {
        self.look_up(self.by_directory(broker).flat_map(|(_, partitions)| partitions))
    }

    /// How many those are.
    pub fn replica_count(&self, broker: BrokerId) -> usize {
        self.by_directory(broker).map(|(_, partitions)| partitions.len()).sum()
    }

    /// The directories that the replicas of `broker` are in; [`super::directory`] has those that are none.
    pub fn directories_of(&self, broker: BrokerId) -> impl Iterator<Item = Uuid> {
        self.by_directory(broker).map(|(directory, _)| directory)
    }

    /// The partitions with a replica of `broker` in `directory`, by name.
    pub fn replicas_in(&self, broker: BrokerId, directory: Uuid) -> impl Iterator<Item = PartitionOf<'_>> {
        self.look_up(self.replicas.get(&(broker, directory)).into_iter().flatten())
    }

    fn by_directory(&self, broker: BrokerId) -> impl Iterator<Item = (Uuid, &OrdSet<TopicPartition>)> {
        let all = (broker, Uuid::nil())..=(broker, Uuid::max());
        self.replicas.range(all).map(|((_, directory), partitions)| (*directory, partitions))
    }

    fn look_up<'a>(
        &'a self,
        partitions: impl Iterator<Item = &'a TopicPartition>,
    ) -> impl Iterator<Item = PartitionOf<'a>> {
        // Those of a topic follow each other.
        let mut last: Option<&Arc<Topic>> = None;
        partitions.map(move |tp| {
            let topic = last.filter(|topic| topic.name == tp.topic).or_else(|| self.get(&tp.topic));
            last = topic;
            let topic = topic.expect("an index names topics that are there");
            let partition = topic.partition(tp.partition).expect("an index names partitions that are there");
            PartitionOf { topic, index: tp.partition, partition }
        })
    }

    /// Puts a topic in the place of any of its name or id.
    pub(super) fn insert(&mut self, topic: Arc<Topic>) {
        let namesake = self.get(&topic.name).map(|topic| topic.id);
        for id in namesake.into_iter().chain([topic.id]) {
            self.remove(id);
        }
        if is_ambiguous(&topic.name) {
            self.metric_names.insert((metric_name(&topic.name).into(), topic.name.clone()));
        }
        for (index, partition) in topic.numbered() {
            let tp = TopicPartition { topic: topic.name.clone(), partition: index };
            self.reindex(&tp, None, Some(partition));
        }
        self.set(topic);
    }

    /// Takes a topic away.
    pub(super) fn remove(&mut self, id: TopicId) -> Option<Arc<Topic>> {
        let Itself(topic) = self.by_id.remove(&id)?;
        self.by_name.remove(&topic.name);
        if is_ambiguous(&topic.name) {
            self.metric_names.remove(&(metric_name(&topic.name).into(), topic.name.clone()));
        }
        for (index, partition) in topic.numbered() {
            let tp = TopicPartition { topic: topic.name.clone(), partition: index };
            self.reindex(&tp, Some(partition), None);
        }
        Some(topic)
    }

    /// Changes the state of partitions that are there. Costs least where those of a topic follow each other.
    pub(super) fn update(&mut self, changed: &[(TopicPartition, Arc<Partition>)]) {
        for of_topic in changed.chunk_by(|(one, _), (next, _)| one.topic == next.topic) {
            let topic = self.get(&of_topic[0].0.topic).expect("the topic is there");
            let mut topic = Topic::clone(topic);
            for (tp, partition) in of_topic {
                let index = usize::try_from(tp.partition.0).expect("a partition index");
                let before = topic.partitions.set(index, partition.clone());
                self.reindex(tp, Some(&before), Some(partition));
            }
            self.set(Arc::new(topic));
        }
    }

    /// Gives a topic that is there more partitions.
    pub(super) fn grow(&mut self, topic: &Topic, added: Vec<Partition>) -> Arc<Topic> {
        let mut topic = Topic::clone(topic);
        let present = topic.partitions.len();
        topic.partitions.extend(added.into_iter().map(Arc::new));
        for (index, partition) in topic.numbered().skip(present) {
            let tp = TopicPartition { topic: topic.name.clone(), partition: index };
            self.reindex(&tp, None, Some(partition));
        }
        let topic = Arc::new(topic);
        self.set(topic.clone());
        topic
    }

    /// Gives a topic that is there other configuration overrides.
    pub(super) fn configure(&mut self, topic: &Topic, configs: Overrides) {
        self.set(Arc::new(Topic { configs, ..Topic::clone(topic) }));
    }

    /// Without the indexes.
    fn set(&mut self, topic: Arc<Topic>) {
        self.by_id.insert(topic.id, Itself(topic.clone()));
        self.by_name.insert(topic.name.clone(), topic);
    }

    /// Notes what became of a partition; `None`: it was not there before, or is not any more.
    fn reindex(&mut self, tp: &TopicPartition, before: Option<&Partition>, after: Option<&Partition>) {
        self.partitions = self.partitions + usize::from(after.is_some()) - usize::from(before.is_some());
        let is_imbalanced = |partition: &Partition| partition.replicas.first() != Some(&partition.leader);
        self.preferred_replica_imbalance += usize::from(after.is_some_and(is_imbalanced));
        self.preferred_replica_imbalance -= usize::from(before.is_some_and(is_imbalanced));
        let leader = |partition: &Partition| partition.leader;
        if before.map(leader) != after.map(leader) {
            before.into_iter().for_each(|partition| take(&mut self.led, &partition.leader, tp));
            after.into_iter().for_each(|partition| put(&mut self.led, partition.leader, tp));
        }
        let places = |partition: &Partition| -> Vec<(BrokerId, Uuid)> {
            partition.replicas.iter().map(|id| (*id, partition.directory_of(*id))).collect()
        };
        let (before, after) = (before.map(places), after.map(places));
        if before != after {
            before.iter().flatten().for_each(|place| take(&mut self.replicas, place, tp));
            after.into_iter().flatten().for_each(|place| put(&mut self.replicas, place, tp));
        }
    }
}

impl FromIterator<Arc<Topic>> for Topics {
    fn from_iter<I: IntoIterator<Item = Arc<Topic>>>(topics: I) -> Self {
        let mut all = Self::default();
        topics.into_iter().for_each(|topic| all.insert(topic));
        all
    }
}

/// Whether metrics could take a topic of this name for another.
fn is_ambiguous(name: &str) -> bool {
    name.contains(['.', '_'])
}

fn put<K: Ord + Clone>(index: &mut OrdMap<K, OrdSet<TopicPartition>>, key: K, tp: &TopicPartition) {
    index.entry(key).or_default().insert(tp.clone());
}

fn take<K: Ord + Clone>(index: &mut OrdMap<K, OrdSet<TopicPartition>>, key: &K, tp: &TopicPartition) {
    let Some(partitions) = index.get_mut(key) else { return };
    partitions.remove(tp);
    if partitions.is_empty() {
        index.remove(key);
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use proptest::prelude::*;

    use super::{
        super::{Command, Image, Located, Response, apply},
        *,
    };

    const BROKERS: std::ops::Range<i32> = 1..4;

    /// Few of each, so that commands meet what others made.
    fn directory() -> impl Strategy<Value = Uuid> {
        (100..104u128).prop_map(Uuid::from_u128)
    }

    fn id() -> impl Strategy<Value = TopicId> {
        (1..20u128).prop_map(|id| TopicId(Uuid::from_u128(id)))
    }

    fn assignment() -> impl Strategy<Value = Vec<Vec<BrokerId>>> {
        prop::collection::vec(prop::collection::vec(BROKERS.prop_map(BrokerId), 1..3), 1..4)
    }

    fn located() -> impl Strategy<Value = Vec<Located>> {
        let one = (id(), -1..4, directory()).prop_map(|(topic, partition, directory)| Located {
            topic,
            partition: PartitionIndex(partition),
            directory,
        });
        prop::collection::vec(one, 0..6)
    }

    pub(in crate::controller) fn command() -> impl Strategy<Value = Command> {
        let name = prop::sample::select(vec!["a.b", "a_b", "a-b", "a__b", "a._b", "x"]);
        let broker = || BROKERS.prop_map(BrokerId);
        prop_oneof![
            (broker(), prop::collection::vec(directory(), 0..3), located()).prop_map(
                |(id, directories, located)| Command::RegisterBroker {
                    id,
                    listeners: vec![],
                    directories,
                    rack: None,
                    located,
                }
            ),
            (broker(), directory())
                .prop_map(|(broker, directory)| Command::DirectoryFailed { broker, directory }),
            (broker(), located()).prop_map(|(broker, located)| Command::Locate { broker, located }),
            (name, assignment()).prop_map(|(name, assignment)| Command::CreateTopic {
                name: name.into(),
                id: TopicId::default(),
                assignment,
                configs: BTreeMap::new(),
            }),
            id().prop_map(|id| Command::DeleteTopic { id }),
            (id(), 0..4usize, assignment()).prop_map(|(id, present, assignment)| Command::AddPartitions {
                id,
                present,
                assignment
            }),
        ]
    }

    /// The broker registers, with these log directories.
    pub(in crate::controller) fn register(image: &mut Image, id: i32, directories: &[Uuid]) -> Response {
        let command = Command::RegisterBroker {
            id: BrokerId(id),
            listeners: vec![],
            directories: directories.to_vec(),
            rack: None,
            located: vec![],
        };
        apply(image, &command)
    }

    type Names = BTreeSet<TopicPartition>;

    fn names<'a>(partitions: impl Iterator<Item = PartitionOf<'a>>) -> Names {
        partitions.map(|of| of.topic_partition()).collect()
    }

    /// What `is_meant` says of, by a look at all partitions.
    fn scan(topics: &Topics, is_meant: impl Fn(&Partition) -> bool) -> Names {
        let all = topics.values().flat_map(|topic| {
            topic.numbered().map(move |(index, partition)| PartitionOf { topic, index, partition })
        });
        names(all.filter(|of| is_meant(of.partition)))
    }

    fn check_indexes(topics: &Topics) -> Result<(), TestCaseError> {
        let by_id: BTreeSet<_> = topics.by_id.values().map(|topic| &topic.0.name).collect();
        prop_assert_eq!(by_id, topics.keys().collect::<BTreeSet<_>>());
        prop_assert!(topics.values().all(|topic| topics.by_id(topic.id) == Some(topic)));
        for broker in BROKERS.map(BrokerId) {
            let here = |partition: &Partition| partition.replicas.contains(&broker);
            let led = scan(topics, |partition| partition.leader == broker);
            prop_assert_eq!(names(topics.led_by(broker)), led);
            let replicas = scan(topics, here);
            prop_assert_eq!(topics.replica_count(broker), replicas.len());
            prop_assert_eq!(names(topics.replicas_of(broker)), replicas);
            for directory in topics.directories_of(broker).chain((100..104).map(Uuid::from_u128)) {
                let there = scan(topics, |it| here(it) && it.directory_of(broker) == directory);
                prop_assert_eq!(names(topics.replicas_in(broker, directory)), there);
            }
        }
        prop_assert_eq!(topics.partition_count(), scan(topics, |_| true).len());
        prop_assert_eq!(topics.leaderless_count(), scan(topics, |it| it.leader == NOBODY).len());
        let imbalanced = scan(topics, |it| it.leader != it.replicas[0]);
        prop_assert_eq!(topics.preferred_replica_imbalance(), imbalanced.len());
        for name in ["a.b", "a_b", "a-b", "a.-b", "x"] {
            let collides = |other: &&Arc<str>| ***other != *name && metric_name(other) == metric_name(name);
            prop_assert_eq!(topics.colliding(name), topics.keys().find(collides));
        }
        Ok(())
    }

    proptest! {
        #[test]
        fn indexes_say_what_a_look_at_all_partitions_does(commands in prop::collection::vec(command(), 0..60)) {
            let mut image = Image::default();
            for (number, mut command) in (1..).zip(commands) {
                // No two topics ever have the same id.
                if let Command::CreateTopic { id, .. } = &mut command {
                    *id = TopicId(Uuid::from_u128(number));
                }
                let before = image.clone();
                let response = apply(&mut image, &command);
                check_indexes(&image.topics)?;
                if matches!(response, Response::Rejected(_)) {
                    prop_assert_eq!(&image, &before);
                }
                let led_from = |broker: BrokerId, is_meant: &dyn Fn(Uuid) -> bool| {
                    scan(&image.topics, |it| it.leader == broker && is_meant(it.directory_of(broker)))
                };
                match command {
                    Command::DirectoryFailed { broker, directory }
                        if image.brokers.get(&broker).is_some_and(|it| it.failed.contains(&directory)) =>
                    {
                        prop_assert_eq!(led_from(broker, &|it| it == directory), Names::new());
                    }
                    Command::RegisterBroker { id, .. } => {
                        let broker = &image.brokers[&id];
                        prop_assert_eq!(led_from(id, &|it| !broker.is_online(it)), Names::new());
                        let could_lead = scan(&image.topics, |it| {
                            it.leader == NOBODY && it.isr.contains(&id) && broker.is_online(it.directory_of(id))
                        });
                        prop_assert_eq!(could_lead, Names::new());
                        for of in image.topics.led_by(id) {
                            let epoch = of.partition.leader_epoch;
                            prop_assert!(Some(epoch) > before.partition(&of.topic_partition()).map(|it| it.leader_epoch));
                        }
                    }
                    Command::Locate { broker, located } => {
                        for Located { topic, partition, .. } in located {
                            let Some(topic) = image.topic_by_id(topic) else { continue };
                            let Some(found) = topic.partition(partition) else { continue };
                            if let Some(here) = image.brokers.get(&broker) {
                                let led_here = found.leader == broker;
                                let reached = here.is_online(found.directory_of(broker));
                                prop_assert!(!led_here || reached);
                                let waits_for_it = found.leader == NOBODY && found.isr.contains(&broker);
                                prop_assert!(!waits_for_it || !reached);
                            }
                        }
                    }
                    _ => {}
                }
            }
            let read: Topics = image.topics.values().cloned().collect();
            prop_assert_eq!(read, image.topics);
        }
    }

    /// Where the parts of all that `topics` holds are in memory: a part that two images share is at one place.
    fn places(topics: &Topics) -> BTreeSet<*const ()> {
        fn at<T>(part: &T) -> *const () {
            std::ptr::from_ref(part).cast()
        }
        let mut places: BTreeSet<_> = topics.by_name.iter().map(|(name, _)| at(name)).collect();
        places.extend(topics.by_id.iter().map(|(id, _)| at(id)));
        for topic in topics.values() {
            places.insert(Arc::as_ptr(topic).cast());
            for partition in &topic.partitions {
                places.extend([at(partition), Arc::as_ptr(partition).cast()]);
            }
        }
        places.extend(topics.led.values().flatten().map(at));
        places.extend(topics.replicas.values().flatten().map(at));
        places
    }

    #[test]
    fn a_change_of_one_partition_among_100_000_shares_all_else() {
        let (one, other) = (Uuid::from_u128(1001), Uuid::from_u128(1002));
        let mut image = Image::default();
        register(&mut image, 1, &[one, other]);
        for number in 1..=10 {
            let create = Command::CreateTopic {
                name: format!("topic-{number}").into(),
                id: TopicId(Uuid::from_u128(number)),
                assignment: vec![vec![BrokerId(1)]; 10_000],
                configs: BTreeMap::new(),
            };
            apply(&mut image, &create);
        }
        assert_eq!(image.topics.partition_count(), 100_000);
        let before = places(&image.topics);
        let topic = TopicId(Uuid::from_u128(5));
        let partition = PartitionIndex(4_321);
        let directory = image.topic_by_id(topic).unwrap().partition(partition).unwrap().directories[0];
        let elsewhere = if directory == one { other } else { one };
        let mut changed = image.clone();
        let located = vec![Located { topic, partition, directory: elsewhere }];
        apply(&mut changed, &Command::Locate { broker: BrokerId(1), located });
        assert_ne!(changed, image);
        let copied = places(&changed.topics).difference(&before).count();
        assert!(before.len() > 300_000 && (1..1_000).contains(&copied), "{copied} of {}", before.len());
    }
}
