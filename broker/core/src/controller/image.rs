//! The metadata of a cluster at one moment. Clones share structure, so that publishing one costs nearly nothing.

use std::{collections::BTreeMap, sync::Arc};

use imbl::OrdMap;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::{BrokerId, LeaderEpoch, ProducerId, TopicId};

/// Everything that all nodes agree on.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(from = "Saved", into = "Saved")]
pub struct Image {
    /// Chosen once; empty until then.
    pub cluster_id: Arc<str>,
    pub brokers: OrdMap<BrokerId, Arc<Broker>>,
    /// By name.
    pub topics: OrdMap<Arc<str>, Arc<Topic>>,
    /// The first producer id that was never given out.
    pub next_producer_id: ProducerId,
    /// The epoch that the next registration of a broker gets.
    pub next_broker_epoch: i64,
    pub(super) by_id: OrdMap<TopicId, Arc<Topic>>,
    /// Names with `.` folded to `_`, where two topics must not meet.
    pub(super) folded: OrdMap<String, Arc<str>>,
}

/// A registered broker.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Broker {
    pub id: BrokerId,
    /// Grows with every registration of any broker.
    pub epoch: i64,
    /// Identity of the process that registered.
    pub incarnation: Uuid,
    pub listeners: Vec<Listener>,
    pub rack: Option<String>,
}

/// Where a broker can be reached, as it advertises it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listener {
    pub name: String,
    pub host: String,
    pub port: u16,
}

/// A topic. Its partitions are numbered from 0 without gaps.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Topic {
    pub name: Arc<str>,
    pub id: TopicId,
    pub partitions: Vec<Partition>,
    /// Overrides only, by Kafka's names.
    pub configs: BTreeMap<String, String>,
}

/// Who holds a partition and who leads it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Partition {
    /// −1: nobody.
    pub leader: BrokerId,
    /// Grows with every change of leadership, also to the same broker.
    pub leader_epoch: LeaderEpoch,
    /// Grows with every change of this record.
    pub partition_epoch: i32,
    /// The first is preferred.
    pub replicas: Vec<BrokerId>,
    pub isr: Vec<BrokerId>,
}

impl Image {
    /// The topic called `name`.
    pub fn topic(&self, name: &str) -> Option<&Arc<Topic>> {
        self.topics.get(name)
    }

    /// The topic with that id.
    pub fn topic_by_id(&self, id: TopicId) -> Option<&Arc<Topic>> {
        self.by_id.get(&id)
    }

    pub(super) fn insert_topic(&mut self, topic: Arc<Topic>) {
        self.by_id.insert(topic.id, topic.clone());
        self.folded.insert(fold(&topic.name), topic.name.clone());
        self.topics.insert(topic.name.clone(), topic);
    }

    pub(super) fn remove_topic(&mut self, id: TopicId) -> Option<Arc<Topic>> {
        let topic = self.by_id.remove(&id)?;
        self.folded.remove(&fold(&topic.name));
        self.topics.remove(&topic.name);
        Some(topic)
    }
}

/// What metrics make of a topic name.
pub(super) fn fold(name: &str) -> String {
    name.replace('.', "_")
}

/// The image without what can be derived.
#[derive(Serialize, Deserialize)]
struct Saved {
    cluster_id: Arc<str>,
    brokers: Vec<Arc<Broker>>,
    topics: Vec<Arc<Topic>>,
    next_producer_id: ProducerId,
    next_broker_epoch: i64,
}

impl From<Image> for Saved {
    fn from(image: Image) -> Self {
        Self {
            cluster_id: image.cluster_id,
            brokers: image.brokers.values().cloned().collect(),
            topics: image.topics.values().cloned().collect(),
            next_producer_id: image.next_producer_id,
            next_broker_epoch: image.next_broker_epoch,
        }
    }
}

impl From<Saved> for Image {
    fn from(saved: Saved) -> Self {
        let mut image = Image {
            cluster_id: saved.cluster_id,
            brokers: saved.brokers.into_iter().map(|broker| (broker.id, broker)).collect(),
            next_producer_id: saved.next_producer_id,
            next_broker_epoch: saved.next_broker_epoch,
            ..Image::default()
        };
        saved.topics.into_iter().for_each(|topic| image.insert_topic(topic));
        image
    }
}
