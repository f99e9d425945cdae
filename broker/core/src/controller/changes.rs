//! What became of topics and their partitions between two images.
//!
//! The model: images share structure, and what two of them share is the same in both. A comparison goes down only where they
//! stand on different nodes: it costs what has changed and a few nodes on the way there, however much there is. Of a topic
//! that has changed, it passes over its partitions by the leaves that hold them.
//!
//! Never: a change that a look at all partitions would find and this one does not.

use std::sync::Arc;

use imbl::ordmap::DiffItem;

use super::{Partition, Topic, Topics};
use crate::PartitionIndex;

/// A topic that is equal to itself only, so that a comparison of maps does not go into topics.
#[derive(Debug, Clone)]
pub(super) struct Itself(pub(super) Arc<Topic>);

impl PartialEq for Itself {
    fn eq(&self, other: &Self) -> bool {
        look();
        Arc::ptr_eq(&self.0, &other.0)
    }
}

/// A topic that is not what it was.
#[derive(Debug, Clone, Copy)]
pub struct TopicChange<'a> {
    /// `None`: it was not there.
    pub before: Option<&'a Arc<Topic>>,
    /// `None`: it is not there any more.
    pub after: Option<&'a Arc<Topic>>,
}

/// A partition that is not what it was.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PartitionChange<'a> {
    /// Its number in its topic.
    pub index: PartitionIndex,
    /// `None`: it was not there.
    pub before: Option<&'a Arc<Partition>>,
    /// `None`: it is not there any more.
    pub after: Option<&'a Arc<Partition>>,
}

impl Topics {
    /// The topics that are not what they were in `old`, by id. One that was written anew as it was may be among them.
    pub fn changes_since<'a>(&'a self, old: &'a Topics) -> impl Iterator<Item = TopicChange<'a>> {
        old.by_id.diff(&self.by_id).map(|change| {
            let (before, after) = match change {
                DiffItem::Add(_, after) => (None, Some(after)),
                DiffItem::Update { old: (_, before), new: (_, after) } => (Some(before), Some(after)),
                DiffItem::Remove(_, before) => (Some(before), None),
            };
            TopicChange { before: before.map(|topic| &topic.0), after: after.map(|topic| &topic.0) }
        })
    }
}

impl<'a> TopicChange<'a> {
    /// Whether it has other configuration overrides than before. One that was not there before had none.
    pub fn is_reconfigured(&self) -> bool {
        match (self.before, self.after) {
            (Some(before), Some(after)) => before.configs != after.configs,
            (None, Some(after)) => !after.configs.is_empty(),
            (_, None) => false,
        }
    }

    /// Its partitions that are not what they were, in order.
    pub fn partitions(&self) -> Vec<PartitionChange<'a>> {
        let leaves = |topic: Option<&'a Arc<Topic>>| topic.into_iter().flat_map(|it| it.partitions.leaves());
        let (mut befores, mut afters) = (leaves(self.before), leaves(self.after));
        // What is left of a leaf of each. Leaves may begin at different places.
        let (mut before, mut after): (&[Arc<Partition>], &[Arc<Partition>]) = (&[], &[]);
        let (mut changes, mut index) = (Vec::new(), PartitionIndex(0));
        loop {
            look();
            if before.is_empty() {
                before = befores.next().unwrap_or_default();
            }
            if after.is_empty() {
                after = afters.next().unwrap_or_default();
            }
            let count = match (before.len(), after.len()) {
                (0, 0) => return changes,
                (0, left) | (left, 0) => left,
                (one, other) => one.min(other),
            };
            let is_shared = !before.is_empty() && std::ptr::eq(before.as_ptr(), after.as_ptr());
            for place in 0..count {
                if !is_shared {
                    look();
                    let (before, after) = (before.get(place), after.get(place));
                    if !is_same(before, after) {
                        changes.push(PartitionChange { index, before, after });
                    }
                }
                index.0 += 1;
            }
            before = before.get(count..).unwrap_or_default();
            after = after.get(count..).unwrap_or_default();
        }
    }
}

fn is_same(before: Option<&Arc<Partition>>, after: Option<&Arc<Partition>>) -> bool {
    match (before, after) {
        (Some(before), Some(after)) => Arc::ptr_eq(before, after) || before == after,
        (before, after) => before.is_none() && after.is_none(),
    }
}

/// The tests count what is looked at.
fn look() {
    #[cfg(test)]
    tests::LOOKS.set(tests::LOOKS.get() + 1);
}

#[cfg(test)]
mod tests {
    use std::{
        cell::Cell,
        collections::{BTreeMap, BTreeSet},
    };

    use proptest::prelude::*;
    use uuid::Uuid;

    use super::*;
    use crate::{
        BrokerId, TopicId,
        controller::{Command, ConfigChange, ConfigResource, Image, Located, apply, topics::tests as random},
    };

    thread_local! {
        pub(super) static LOOKS: Cell<usize> = const { Cell::new(0) };
    }

    type Change = (TopicId, PartitionIndex, Option<Partition>, Option<Partition>);

    /// What is told: partitions, and topics with other overrides.
    fn told(old: &Image, new: &Image) -> (Vec<Change>, Vec<TopicId>) {
        let (mut partitions, mut configs) = (Vec::new(), Vec::new());
        for change in new.topics.changes_since(&old.topics) {
            let id = change.after.or(change.before).expect("one of both").id;
            let whole = |it: Option<&Arc<Partition>>| it.map(|it| Partition::clone(it));
            let changed = change.partitions().into_iter();
            partitions.extend(changed.map(|it| (id, it.index, whole(it.before), whole(it.after))));
            configs.extend(change.is_reconfigured().then_some(id));
        }
        (partitions, configs)
    }

    /// The same by a look at everything.
    fn scanned(old: &Image, new: &Image) -> (Vec<Change>, Vec<TopicId>) {
        let all = |image: &Image| -> BTreeMap<(TopicId, PartitionIndex), Partition> {
            let of = |topic: &Arc<Topic>| {
                let numbered = topic.numbered().map(|(index, it)| ((topic.id, index), Partition::clone(it)));
                numbered.collect::<Vec<_>>()
            };
            image.topics.values().flat_map(of).collect()
        };
        let (before, after) = (all(old), all(new));
        let keys: BTreeSet<_> = before.keys().chain(after.keys()).copied().collect();
        let changed = keys.into_iter().filter(|key| before.get(key) != after.get(key));
        let changed =
            changed.map(|key| (key.0, key.1, before.get(&key).cloned(), after.get(&key).cloned())).collect();
        let configs =
            |image: &Image, id| image.topic_by_id(id).map(|it| it.configs.clone()).unwrap_or_default();
        let mut ids: Vec<_> = new.topics.values().map(|topic| topic.id).collect();
        ids.sort_unstable();
        (changed, ids.into_iter().filter(|id| configs(old, *id) != configs(new, *id)).collect())
    }

    fn id(number: u128) -> TopicId {
        TopicId(Uuid::from_u128(number))
    }

    /// Of large topics.
    fn command() -> impl Strategy<Value = Command> {
        let assignment = prop::collection::vec((1..4).prop_map(|broker| vec![BrokerId(broker)]), 1..300);
        let located = (1..4u128, 0..900, 100..104u128).prop_map(|(topic, partition, directory)| Located {
            topic: id(topic),
            partition: PartitionIndex(partition),
            directory: Uuid::from_u128(directory),
        });
        prop_oneof![
            assignment.clone().prop_map(|assignment| Command::CreateTopic {
                name: "large".into(),
                id: TopicId::default(),
                assignment,
                configs: BTreeMap::new(),
            }),
            (1..4u128, assignment).prop_map(|(topic, assignment)| Command::AddPartitions {
                id: id(topic),
                // Whatever it is.
                present: usize::MAX,
                assignment,
            }),
            (1..4, prop::collection::vec(located, 0..6))
                .prop_map(|(broker, located)| Command::Locate { broker: BrokerId(broker), located }),
        ]
    }

    fn any_command() -> impl Strategy<Value = Command> {
        let alter = (1..20u128, 0..3).prop_map(|(topic, value)| Command::AlterConfigs {
            resource: ConfigResource::Topic(id(topic)),
            changes: vec![match value {
                0 => ConfigChange::Clear,
                value => ConfigChange::Set { key: "retention.ms".into(), value: value.to_string() },
            }],
            seen: None,
        });
        prop_oneof![6 => random::command(), 3 => command(), 2 => alter]
    }

    proptest! {
        #[test]
        fn changes_are_those_that_a_look_at_everything_finds(
            commands in prop::collection::vec(any_command(), 0..25),
        ) {
            let mut image = Image::default();
            let mut images = vec![image.clone()];
            for (number, mut command) in (1..).zip(commands) {
                match &mut command {
                    // No two topics ever have the same id.
                    Command::CreateTopic { id: fresh, .. } => *fresh = id(number),
                    Command::AddPartitions { id, present, .. } if *present == usize::MAX => {
                        *present = image.topic_by_id(*id).map_or(0, |topic| topic.partitions.len());
                    }
                    _ => {}
                }
                apply(&mut image, &command);
                images.push(image.clone());
            }
            for (step, new) in images.iter().enumerate() {
                for old in [step.saturating_sub(1), step / 2, 0].map(|step| &images[step]) {
                    prop_assert_eq!(told(old, new), scanned(old, new));
                    let back = told(new, old).0.into_iter().map(|(id, index, before, after)| (id, index, after, before));
                    prop_assert_eq!(back.collect::<Vec<_>>(), scanned(old, new).0);
                }
            }
            // One that was read from a file shares nothing with any other.
            let read = Image { topics: image.topics.values().cloned().collect(), ..image.clone() };
            prop_assert_eq!(told(&image, &read), (vec![], vec![]));
            let half = &images[images.len() / 2];
            prop_assert_eq!(told(half, &read), scanned(half, &read));
        }
    }

    fn looks(old: &Image, new: &Image) -> (usize, Vec<Change>) {
        LOOKS.set(0);
        let changes = told(old, new).0;
        (LOOKS.get(), changes)
    }

    #[test]
    fn one_change_among_100_000_partitions_is_found_with_few_looks() {
        for (topics, partitions) in [(10, 10_000), (100_000, 1), (300, 333)] {
            let mut image = Image::default();
            for number in 1..=topics {
                let create = Command::CreateTopic {
                    name: format!("topic-{number}").into(),
                    id: id(number),
                    assignment: vec![vec![BrokerId(1)]; partitions],
                    configs: BTreeMap::new(),
                };
                apply(&mut image, &create);
            }
            let (all, found) = looks(&Image::default(), &image);
            assert!(all >= 99_000 && found.len() == image.topics.partition_count(), "{all}");
            assert_eq!(looks(&image, &image.clone()), (0, vec![]), "nothing has changed");
            let (topic, partition) = (id(topics / 2), PartitionIndex(partitions as i32 / 3));
            let located = vec![Located { topic, partition, directory: Uuid::from_u128(99) }];
            let mut changed = image.clone();
            apply(&mut changed, &Command::Locate { broker: BrokerId(1), located });
            let (few, found) = looks(&image, &changed);
            assert_eq!(found.len(), 1);
            assert!((1..1_000).contains(&few), "{topics} topics of {partitions} partitions: {few} looks");
            let mut grown = changed.clone();
            let assignment = vec![vec![BrokerId(1)]; 3];
            apply(&mut grown, &Command::AddPartitions { id: topic, present: partitions, assignment });
            let (few, found) = looks(&changed, &grown);
            assert_eq!(found.len(), 3);
            assert!((1..1_000).contains(&few), "{topics} topics of {partitions} partitions: {few} looks");
        }
    }
}
