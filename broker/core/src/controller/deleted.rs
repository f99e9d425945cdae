//! Topics that were deleted and may still have logs in a log directory. What they are known for: whose a directory on disk
//! is, so that it can go, and that a namesake's log must wait for it.
//!
//! Never: a look at all of them for one.

use std::sync::Arc;

use imbl::{OrdMap, OrdSet, ordmap::DiffItem};

use super::{Topic, changes::Itself};
use crate::TopicId;

/// See the module. Names may be there several times.
#[derive(Debug, Clone, Default)]
pub struct DeletedTopics {
    by_id: OrdMap<TopicId, Itself>,
    by_name: OrdSet<(Arc<str>, TopicId)>,
}

impl DeletedTopics {
    /// How many there are.
    pub fn len(&self) -> usize {
        self.by_id.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.by_id.is_empty()
    }

    /// Whether the topic with this id is one.
    pub fn contains_key(&self, id: &TopicId) -> bool {
        self.by_id.contains_key(id)
    }

    /// Their ids, in order.
    pub fn keys(&self) -> impl Iterator<Item = &TopicId> {
        self.by_id.keys()
    }

    /// All of them, by id.
    pub fn values(&self) -> impl Iterator<Item = &Arc<Topic>> {
        self.by_id.values().map(|topic| &topic.0)
    }

    /// Those that had this name.
    pub fn named(&self, name: &str) -> impl Iterator<Item = TopicId> {
        let first = (Arc::<str>::from(name), TopicId::ZERO);
        let name = first.0.clone();
        self.by_name.range(first..).take_while(move |(other, _)| *other == name).map(|(_, id)| *id)
    }

    /// Those that were not among `old`, by id.
    pub fn since<'a>(&'a self, old: &'a Self) -> impl Iterator<Item = &'a Arc<Topic>> {
        old.by_id.diff(&self.by_id).filter_map(|change| match change {
            DiffItem::Add(_, topic) => Some(&topic.0),
            DiffItem::Update { .. } | DiffItem::Remove(..) => None,
        })
    }

    pub(super) fn insert(&mut self, topic: Arc<Topic>) {
        self.remove(&topic.id);
        self.by_name.insert((topic.name.clone(), topic.id));
        self.by_id.insert(topic.id, Itself(topic));
    }

    pub(super) fn remove(&mut self, id: &TopicId) {
        if let Some(Itself(topic)) = self.by_id.remove(id) {
            self.by_name.remove(&(topic.name.clone(), *id));
        }
    }
}

impl PartialEq for DeletedTopics {
    fn eq(&self, other: &Self) -> bool {
        // The names follow from them.
        self.values().eq(other.values())
    }
}

impl FromIterator<Arc<Topic>> for DeletedTopics {
    fn from_iter<I: IntoIterator<Item = Arc<Topic>>>(topics: I) -> Self {
        let mut all = Self::default();
        topics.into_iter().for_each(|topic| all.insert(topic));
        all
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    #[test]
    fn namesakes_are_told_apart_and_what_is_new_is_found() {
        let id = |number| TopicId(Uuid::from_u128(number));
        let topic = |number, name: &str| {
            Arc::new(Topic {
                name: name.into(),
                id: id(number),
                partitions: Default::default(),
                configs: Default::default(),
            })
        };
        let old: DeletedTopics = [topic(1, "a"), topic(2, "b"), topic(3, "a")].into_iter().collect();
        let mut new = old.clone();
        new.remove(&id(1));
        new.insert(topic(5, "aa"));
        new.insert(topic(4, "a"));
        let named = |of: &DeletedTopics, name| of.named(name).collect::<Vec<_>>();
        assert_eq!((named(&old, "a"), named(&old, "c")), (vec![id(1), id(3)], vec![]));
        assert_eq!((named(&new, "a"), named(&new, "aa")), (vec![id(3), id(4)], vec![id(5)]));
        let ids = |topics: &mut dyn Iterator<Item = &Arc<Topic>>| topics.map(|it| it.id).collect::<Vec<_>>();
        assert_eq!(ids(&mut new.since(&old)), [id(4), id(5)]);
        assert_eq!(ids(&mut new.since(&DeletedTopics::default())), ids(&mut new.values()));
        assert_eq!(ids(&mut new.since(&new.clone())), []);
        let read: DeletedTopics = new.values().cloned().collect();
        assert!(read == new && new != old);
    }
}
