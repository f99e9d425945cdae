//! The cluster metadata state machine: `apply(&mut Image, &Command) -> Response`.
//!
//! Every node applies the same committed commands in the same order and holds the same [`Image`]. So nothing here looks
//! at anything but its arguments: ids, assignments and choices that need chance or a clock are part of the command.
//! Images share structure: a clone costs nothing, and a change costs what it changes ([`topics`]).
//!
//! Never: a leader epoch of a topic that goes back; a producer id allocated twice.

mod apply;
mod assignment;
mod changes;
mod deleted;
mod topics;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use imbl::{OrdMap, Vector};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

pub use apply::apply;
pub use assignment::assign_replicas;
pub use changes::{PartitionChange, TopicChange};
pub use deleted::DeletedTopics;
pub use topics::{PartitionOf, Topics};

use crate::{
    BrokerId, LeaderEpoch, PartitionIndex, ProducerId, TopicId, TopicPartition, error::ResponseError, topic,
};

/// So many deleted topics are remembered at most. The logs of one that is forgotten too early are no longer known to
/// belong to nobody, and are kept as strays.
pub const MOST_DELETED: usize = 10_000;

/// The cluster metadata at one position of the metadata log.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(from = "Stored", into = "Stored")]
pub struct Image {
    /// Identity of the cluster; `None` until the first [`Command::NameCluster`].
    pub cluster_id: Option<Uuid>,
    /// Registered brokers.
    pub brokers: OrdMap<BrokerId, Arc<Broker>>,
    /// Topics, and where their partitions are.
    pub topics: Topics,
    /// Topics that were deleted and may still have logs in a log directory. At most [`MOST_DELETED`].
    pub deleted: DeletedTopics,
    /// Dynamic broker configuration: overrides of one broker, and under `None` those of every broker.
    pub broker_configs: OrdMap<Option<BrokerId>, Overrides>,
    /// The first producer id that no block holds yet.
    pub next_producer_id: ProducerId,
    /// The epoch of the next registration of a broker.
    pub next_broker_epoch: i64,
}

/// A broker as it registered last.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Broker {
    /// `node.id`.
    pub id: BrokerId,
    /// Number of this registration, unique in the cluster (KIP-631's broker epoch).
    pub epoch: i64,
    /// What clients and brokers can connect to.
    pub listeners: Vec<BrokerListener>,
    /// Identities of the log directories that it could open, sorted.
    pub directories: Vec<Uuid>,
    /// Those of them that have failed since.
    #[serde(default)]
    pub failed: Vec<Uuid>,
    /// `broker.rack`.
    pub rack: Option<String>,
}

/// An advertised listener.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BrokerListener {
    /// Listener name, upper case.
    pub name: String,
    /// Host name or address.
    pub host: String,
    /// Port.
    pub port: u16,
}

/// A topic with its partitions.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Topic {
    /// Topic name.
    pub name: Arc<str>,
    /// Its identity.
    pub id: TopicId,
    /// By partition index.
    pub partitions: Vector<Arc<Partition>>,
    /// Configuration overrides, by topic key.
    pub configs: Overrides,
}

/// The state of one partition.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Partition {
    /// −1: none.
    pub leader: BrokerId,
    /// Grows with every leadership, also when the same broker takes it again.
    pub leader_epoch: LeaderEpoch,
    /// Grows with every change of this partition's state.
    pub partition_epoch: i32,
    /// The first is the preferred leader.
    pub replicas: Vec<BrokerId>,
    /// In-sync replicas.
    pub isr: Vec<BrokerId>,
    /// The log directory of each replica, in the order of `replicas` ([`directory`] has the values that are none).
    /// Shorter than `replicas` where it was never decided.
    #[serde(default)]
    pub directories: Vec<Uuid>,
}

/// Directory identities that stand for no directory, in Kafka's numbers.
pub mod directory {
    use uuid::Uuid;

    /// Not decided yet.
    pub const UNASSIGNED: Uuid = Uuid::nil();
    /// Somewhere in a directory that could not be opened when it was looked for.
    pub const LOST: Uuid = Uuid::from_u128(1);
}

/// A change of the cluster metadata. One event is one command.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Command {
    /// Gives the cluster its identity, once: the first wins. → [`Response::Cluster`]
    NameCluster { id: Uuid },
    /// A broker has started. Takes every partition that it leads to a new leader epoch; partitions whose directory it
    /// could not open have no leader. → [`Response::Registered`]
    RegisterBroker {
        id: BrokerId,
        listeners: Vec<BrokerListener>,
        directories: Vec<Uuid>,
        rack: Option<String>,
        /// Replicas that it found elsewhere than the metadata say, or that the metadata had no directory for.
        #[serde(default)]
        located: Vec<Located>,
    },
    /// A log directory of a running broker has failed: what was led from it has no leader until the directory is back.
    /// → [`Response::Directories`]
    DirectoryFailed { broker: BrokerId, directory: Uuid },
    /// Replicas of a broker are in other directories than the metadata say. → [`Response::Directories`]
    Locate { broker: BrokerId, located: Vec<Located> },
    /// A new topic; `assignment` has the replicas of each partition, see [`assign_replicas`]. The name and the configs
    /// are checked by who submits; existence and collision are decided here. → [`Response::Topic`]
    CreateTopic {
        name: Arc<str>,
        id: TopicId,
        assignment: Vec<Vec<BrokerId>>,
        configs: BTreeMap<String, String>,
    },
    /// Removes a topic. → [`Response::Topic`], as it was
    DeleteTopic { id: TopicId },
    /// No log directory holds anything of these deleted topics any more. → [`Response::Forgotten`]
    ForgetDeleted { ids: Vec<TopicId> },
    /// Gives a topic more partitions, if it still has `present`. → [`Response::Topic`], as it is now
    AddPartitions { id: TopicId, present: usize, assignment: Vec<Vec<BrokerId>> },
    /// Changes configuration overrides in the given order, all or none. Who submits has checked keys and values, and that
    /// they go together with those of [`fingerprint`] `seen`: if these have changed, nothing is changed.
    /// → [`Response::Configs`] or [`Response::Outdated`]
    AlterConfigs {
        resource: ConfigResource,
        changes: Vec<ConfigChange>,
        /// `None`: whatever they are, as in logs of before.
        #[serde(default)]
        seen: Option<u32>,
    },
    /// A block of producer ids for one broker. → [`Response::ProducerIds`]
    AllocateProducerIds { broker: BrokerId, count: i32 },
}

/// Where a replica is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Located {
    /// The topic.
    pub topic: TopicId,
    /// The partition.
    pub partition: PartitionIndex,
    /// The log directory.
    pub directory: Uuid,
}

/// What a configuration override belongs to.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum ConfigResource {
    /// A topic, by identity: a change never reaches its namesake.
    Topic(TopicId),
    /// One broker.
    Broker(BrokerId),
    /// Every broker that has no override of its own (Kafka's cluster-wide default).
    EveryBroker,
}

/// One step of KIP-339. Lists are comma-separated, each word once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum ConfigChange {
    /// Sets an override.
    Set { key: String, value: String },
    /// Back to what holds without an override; no error if there is none.
    Delete { key: String },
    /// Adds words to a list; `default` is the list where there is no override.
    Append { key: String, default: String, words: Vec<String> },
    /// Takes words from a list; `default` is the list where there is no override.
    Subtract { key: String, default: String, words: Vec<String> },
    /// Removes all overrides: the beginning of a set that replaces another.
    Clear,
}

impl ConfigChange {
    /// The key that is changed, if it is one.
    pub fn key(&self) -> Option<&str> {
        match self {
            Self::Set { key, .. }
            | Self::Delete { key }
            | Self::Append { key, .. }
            | Self::Subtract { key, .. } => Some(key),
            Self::Clear => None,
        }
    }

    /// Applies the change to a set of overrides.
    pub fn apply(&self, overrides: &mut BTreeMap<String, String>) {
        match self {
            Self::Set { key, value } => {
                overrides.insert(key.clone(), value.clone());
            }
            Self::Delete { key } => {
                overrides.remove(key);
            }
            Self::Clear => overrides.clear(),
            Self::Append { key, default, words } => {
                let mut list: Vec<&str> = topic::words(overrides.get(key).unwrap_or(default)).collect();
                let mut seen: BTreeSet<&str> = list.iter().copied().collect();
                list.extend(words.iter().map(String::as_str).filter(|word| seen.insert(*word)));
                let list = list.join(",");
                overrides.insert(key.clone(), list);
            }
            Self::Subtract { key, default, words } => {
                let gone: BTreeSet<&str> = words.iter().map(String::as_str).collect();
                let held = topic::words(overrides.get(key).unwrap_or(default));
                let list = held.filter(|word| !gone.contains(word)).collect::<Vec<_>>().join(",");
                overrides.insert(key.clone(), list);
            }
        }
    }
}

/// Tells a set of overrides from another one. It is part of committed commands: what it gives never changes.
pub fn fingerprint(overrides: &BTreeMap<String, String>) -> u32 {
    overrides.iter().flat_map(|(key, value)| [key, value]).fold(0, |sum, text| {
        let sum = crc32c::crc32c_append(sum, &(text.len() as u64).to_le_bytes());
        crc32c::crc32c_append(sum, text.as_bytes())
    })
}

/// What applying a command gave.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Response {
    /// The cluster's identity.
    Cluster { id: Uuid },
    /// The broker's new epoch.
    Registered { epoch: i64 },
    /// The topic that was created or deleted.
    Topic(Arc<Topic>),
    /// Nothing is known of those topics any more.
    Forgotten,
    /// The directories are noted.
    Directories,
    /// The overrides of a resource after a change.
    Configs(BTreeMap<String, String>),
    /// The overrides of the resource are others than those that were seen; nothing was changed.
    Outdated,
    /// The block `first .. first + count`.
    ProducerIds { first: ProducerId, count: i32 },
    /// Nothing was changed.
    Rejected(Rejection),
}

/// Why a command changed nothing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rejection {
    /// Kafka's error code.
    pub code: i16,
    /// For the client.
    pub message: String,
}

impl Rejection {
    fn new(error: ResponseError, message: impl Into<String>) -> Self {
        Self { code: error.code(), message: message.into() }
    }

    /// Kafka's error.
    pub fn error(&self) -> ResponseError {
        ResponseError::try_from_code(self.code).unwrap_or(ResponseError::UnknownServerError)
    }
}

impl Image {
    /// The topic of this name.
    pub fn topic(&self, name: &str) -> Option<&Arc<Topic>> {
        self.topics.get(name)
    }

    /// The topic with this id.
    pub fn topic_by_id(&self, id: TopicId) -> Option<&Arc<Topic>> {
        self.topics.by_id(id)
    }

    /// The state of one partition.
    pub fn partition(&self, tp: &TopicPartition) -> Option<&Partition> {
        self.topic(&tp.topic)?.partition(tp.partition)
    }

    /// Whether `broker` has a replica of the partition that cannot be reached: the broker is not registered, or the log
    /// directory is offline.
    pub fn is_offline(&self, partition: &Partition, broker: BrokerId) -> bool {
        let directory = partition.directory_of(broker);
        partition.replicas.contains(&broker)
            && !self.brokers.get(&broker).is_some_and(|broker| broker.is_online(directory))
    }

    /// All of those.
    pub fn offline_replicas(&self, partition: &Partition) -> Vec<BrokerId> {
        partition.replicas.iter().copied().filter(|id| self.is_offline(partition, *id)).collect()
    }
}

impl Topic {
    /// The state of one partition.
    pub fn partition(&self, index: PartitionIndex) -> Option<&Partition> {
        self.partitions.get(usize::try_from(index.0).ok()?).map(|partition| &**partition)
    }

    /// All partitions with their numbers.
    pub fn numbered(&self) -> impl Iterator<Item = (PartitionIndex, &Arc<Partition>)> {
        (0..).map(PartitionIndex).zip(&self.partitions)
    }
}

/// Configuration overrides by key.
pub type Overrides = Arc<BTreeMap<String, String>>;

impl Broker {
    /// Whether logs can be kept in `directory`. Of one that was never decided nothing bad is known.
    pub fn is_online(&self, directory: Uuid) -> bool {
        directory == directory::UNASSIGNED
            || (self.directories.contains(&directory) && !self.failed.contains(&directory))
    }

    /// Whether a new replica has a place here. A broker that names no directories has one.
    pub fn has_room(&self) -> bool {
        self.directories.is_empty() || self.online().next().is_some()
    }

    /// The directory for a new replica.
    pub fn directory_for(&self, topic: TopicId, partition: PartitionIndex) -> Uuid {
        choose_directory(&self.online().collect::<Vec<_>>(), topic, partition)
    }

    fn online(&self) -> impl Iterator<Item = Uuid> {
        self.directories.iter().copied().filter(|directory| !self.failed.contains(directory))
    }
}

/// The directory for a new replica among those online: partitions of a topic take turns, topics begin anywhere.
/// [`directory::UNASSIGNED`] if there is none.
pub fn choose_directory(online: &[Uuid], topic: TopicId, partition: PartitionIndex) -> Uuid {
    let count = online.len() as u128;
    if count == 0 {
        return directory::UNASSIGNED;
    }
    let turn = u128::try_from(partition.0).expect("a partition index") % count;
    online[((topic.0.as_u128() % count + turn) % count) as usize]
}

impl Partition {
    /// Where `replica` is; [`directory::UNASSIGNED`] where that was never decided.
    pub fn directory_of(&self, replica: BrokerId) -> Uuid {
        let place = self.replicas.iter().position(|id| *id == replica);
        place.and_then(|place| self.directories.get(place)).copied().unwrap_or(directory::UNASSIGNED)
    }

    /// The same with another leader, or with the same one again.
    fn led_by(&self, leader: BrokerId) -> Self {
        Self {
            leader,
            leader_epoch: LeaderEpoch(self.leader_epoch.0 + 1),
            partition_epoch: self.partition_epoch + 1,
            ..self.clone()
        }
    }

    fn set_directory(&mut self, replica: BrokerId, directory: Uuid) {
        if let Some(place) = self.replicas.iter().position(|id| *id == replica) {
            self.directories.resize(self.replicas.len(), directory::UNASSIGNED);
            self.directories[place] = directory;
        }
    }
}

/// An image as it is written: plain lists, so that its text form has no keys that are not text.
#[derive(Clone, Serialize, Deserialize)]
struct Stored {
    cluster_id: Option<Uuid>,
    brokers: Vec<Arc<Broker>>,
    topics: Vec<Arc<Topic>>,
    #[serde(default)]
    deleted: Vec<Arc<Topic>>,
    #[serde(default)]
    broker_configs: Vec<(Option<BrokerId>, Overrides)>,
    next_producer_id: ProducerId,
    next_broker_epoch: i64,
}

impl From<Image> for Stored {
    fn from(image: Image) -> Self {
        Self {
            cluster_id: image.cluster_id,
            brokers: image.brokers.values().cloned().collect(),
            topics: image.topics.values().cloned().collect(),
            deleted: image.deleted.values().cloned().collect(),
            broker_configs: image.broker_configs.iter().map(|(of, set)| (*of, set.clone())).collect(),
            next_producer_id: image.next_producer_id,
            next_broker_epoch: image.next_broker_epoch,
        }
    }
}

impl From<Stored> for Image {
    fn from(stored: Stored) -> Self {
        Self {
            cluster_id: stored.cluster_id,
            brokers: stored.brokers.into_iter().map(|broker| (broker.id, broker)).collect(),
            topics: stored.topics.into_iter().collect(),
            deleted: stored.deleted.into_iter().collect(),
            broker_configs: stored.broker_configs.into_iter().collect(),
            next_producer_id: stored.next_producer_id,
            next_broker_epoch: stored.next_broker_epoch,
        }
    }
}
