//! What handlers work with: the layers to the right of the api table, and how brokers, topics and errors are told to
//! clients.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use gracchus_common::Complaints;
use gracchus_core::{
    BrokerId, TopicId,
    controller::{Broker, BrokerListener, Command, Image, Rejection, Response, Topic},
    error::ResponseError,
    session::FetchSessions,
    topic::TopicConfig,
};
use gracchus_env::Env;
use gracchus_quorum::{Controller, random_id};
use kafka_protocol::protocol::StrBytes;
use uuid::Uuid;

use super::fetch_response::NodeEndpoint;
use crate::{
    config::{BrokerConfig, LiveConfig},
    logging::LogLevels,
    replica::ReplicaManager,
};

/// Everything a handler may use. Cheap to share, the same for all listeners.
pub struct Services {
    /// Clock, randomness.
    pub(super) env: Arc<dyn Env>,
    /// What cannot change while the broker runs.
    pub(super) config: Arc<BrokerConfig>,
    /// The configuration as it is now: load it once per request. Its `topic_defaults` are what topics start from.
    pub(super) live: Arc<LiveConfig>,
    /// Cluster metadata, and the way to change them.
    pub(super) controller: Arc<Controller>,
    /// The partitions of this broker.
    pub(super) replicas: Arc<ReplicaManager>,
    /// The loggers of this process, for BROKER_LOGGER resources.
    pub(super) log_levels: Arc<LogLevels>,
    /// Fetch sessions of all connections (KIP-227). A session caches one client's own request: the lock is held for two
    /// short steps per fetch and guards no partition state.
    sessions: Mutex<FetchSessions>,
    /// What the log says of requests.
    pub(super) complaints: Complaints,
}

impl std::fmt::Debug for Services {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Services").field("node", &self.config.node_id).finish_non_exhaustive()
    }
}

impl Services {
    /// Services of one broker.
    pub fn new(
        env: Arc<dyn Env>,
        live: Arc<LiveConfig>,
        controller: Arc<Controller>,
        replicas: Arc<ReplicaManager>,
        log_levels: Arc<LogLevels>,
    ) -> Arc<Self> {
        let config = live.fixed().clone();
        let sessions = FetchSessions::new(config.max_incremental_fetch_session_cache_slots)
            .evicting_after(config.fetch_session_eviction_ms);
        let sessions = Mutex::new(sessions);
        let complaints = Complaints::new(env.clone());
        Arc::new(Self { env, config, live, controller, replicas, log_levels, sessions, complaints })
    }

    /// This node.
    pub(super) fn node(&self) -> BrokerId {
        self.config.node_id
    }

    /// The fetch sessions, for one step.
    pub(super) fn sessions(&self) -> MutexGuard<'_, FetchSessions> {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many fetch sessions are kept, and how many had to make room so far.
    pub(crate) fn fetch_sessions(&self) -> (usize, u64) {
        let sessions = self.sessions();
        (sessions.len(), sessions.evicted())
    }

    /// Monotonic milliseconds, for the age of sessions.
    pub(super) fn now_ms(&self) -> i64 {
        i64::try_from(self.env.now().as_nanos() / 1_000_000).unwrap_or(i64::MAX)
    }

    /// Commits a new topic whose name, shape and configuration were checked.
    pub(super) async fn create_topic(
        &self,
        name: Arc<str>,
        assignment: Vec<Vec<BrokerId>>,
        configs: BTreeMap<String, String>,
    ) -> Result<Arc<Topic>, Rejection> {
        let id = TopicId(random_id(&*self.env));
        let command = Command::CreateTopic { name, id, assignment, configs };
        match self.change(command, "created").await? {
            Response::Topic(topic) => {
                self.say_if_compacted(&topic);
                Ok(topic)
            }
            other => unreachable!("CreateTopic answered {other:?}"),
        }
    }

    /// Puts into the log what a compacted topic lacks, when it becomes one.
    pub(super) fn say_if_compacted(&self, topic: &Topic) {
        let (config, _) = TopicConfig::resolve_known(&self.live.load().topic_defaults, &topic.configs);
        if config.cleanup_policy.compact {
            self.complaints.say(format_args!(
                "topic {} has cleanup.policy=compact, but logs are not compacted yet: every record of a key stays, and \
                 the topic grows{}",
                topic.name,
                if config.cleanup_policy.delete { " until retention deletes it" } else { "" }
            ));
        }
    }

    /// Commits a change of a topic; `participle` says what would become of it.
    pub(super) async fn change(&self, command: Command, participle: &str) -> Result<Response, Rejection> {
        match self.controller.submit(command).await {
            Ok(Response::Rejected(rejection)) => Err(rejection),
            Ok(done) => Ok(done),
            Err(error) => {
                tracing::warn!(
                    "a topic could not be {participle}: {error}; see what the log says of the cluster metadata, \
                 then ask again"
                );
                // Whether it is committed after all is not known: clients look again.
                let code = ResponseError::RequestTimedOut.code();
                Err(Rejection {
                    code,
                    message: format!("The topic may not have been {participle}: {error}."),
                })
            }
        }
    }
}

/// Topics that belong to coordinators and are never created on a client's request.
pub(super) fn is_internal(name: &str) -> bool {
    matches!(name, "__consumer_offsets" | "__transaction_state" | "__share_group_state")
}

/// Kafka's text form of a cluster id.
pub(super) fn cluster_id(id: Uuid) -> String {
    TopicId(id).to_string()
}

/// Where `broker` can be reached by who came in on `listener`.
pub(super) fn endpoint<'b>(broker: &'b Broker, listener: &str) -> Option<&'b BrokerListener> {
    broker.listeners.iter().find(|endpoint| endpoint.name.eq_ignore_ascii_case(listener))
}

/// The endpoints of `brokers` for who came in on `listener`, each once, in the order of their ids.
pub(super) fn endpoints(
    image: &Image,
    listener: &str,
    brokers: impl Iterator<Item = BrokerId>,
) -> Vec<NodeEndpoint> {
    let brokers: BTreeSet<BrokerId> = brokers.collect();
    let reachable = |id: BrokerId| {
        let broker = image.brokers.get(&id)?;
        let BrokerListener { host, port, .. } = endpoint(broker, listener)?.clone();
        Some(NodeEndpoint { node: id, host, port: i32::from(port), rack: broker.rack.clone() })
    };
    brokers.into_iter().filter_map(reachable).collect()
}

/// A string of our own as kafka-protocol wants it.
pub(super) fn text(text: &str) -> StrBytes {
    StrBytes::from_string(text.to_owned())
}

/// An error as a client of that version understands it: old ones do not know KAFKA_STORAGE_ERROR.
pub(super) fn spoken(error: ResponseError, knows_storage_errors: bool) -> ResponseError {
    match error {
        ResponseError::KafkaStorageError if !knows_storage_errors => ResponseError::NotLeaderOrFollower,
        error => error,
    }
}

/// A name that a client sent as it stands in a sentence: cut where no topic's name is longer.
pub(super) fn shown(name: &str) -> &str {
    const MOST: usize = 249;
    let end = (0..=MOST.min(name.len())).rev().find(|end| name.is_char_boundary(*end)).unwrap_or(0);
    &name[..end]
}

/// A sentence for people. It may quote what a client sent, which has no bounds: cut where the longest string of old
/// versions would still hold it.
pub(super) fn message(mut message: String) -> StrBytes {
    const MOST: usize = 2000;
    if message.len() > MOST {
        let end = (0..=MOST).rev().find(|end| message.is_char_boundary(*end)).unwrap_or(0);
        message.truncate(end);
        message.push('…');
    }
    StrBytes::from_string(message)
}
