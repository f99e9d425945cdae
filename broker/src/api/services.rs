//! What handlers work with: the layers to the right of the api table, and how topics and brokers are named on a wire.

use std::sync::{Arc, Mutex};

use gracchus_core::{BrokerId, TopicId, controller::Image, session::FetchSessions};
use gracchus_env::Env;

use super::fetch_response::NodeEndpoint;
use crate::{config::BrokerConfig, controller::Controller, replica::ReplicaManager};

/// Everything a handler may use. Cheap to share, the same for all listeners.
pub struct Services {
    /// Clock, randomness.
    pub env: Arc<dyn Env>,
    /// The static configuration.
    pub config: Arc<BrokerConfig>,
    /// Cluster metadata, and the way to change them.
    pub controller: Arc<Controller>,
    /// The partitions of this broker.
    pub replicas: Arc<ReplicaManager>,
    /// Fetch sessions of all connections (KIP-227). A session is a cache of one client's own request: the lock is held
    /// for two short sections per fetch and guards no partition state.
    pub sessions: Mutex<FetchSessions>,
}

impl std::fmt::Debug for Services {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Services").field("node", &self.config.node_id).finish_non_exhaustive()
    }
}

/// A string of our own as kafka-protocol wants it.
pub(super) fn text(text: &str) -> kafka_protocol::protocol::StrBytes {
    kafka_protocol::protocol::StrBytes::from_string(text.to_owned())
}

/// An error as a client of that version understands it: old ones do not know KAFKA_STORAGE_ERROR.
pub(super) fn spoken(error: ResponseError, knows_storage_errors: bool) -> ResponseError {
    match error {
        ResponseError::KafkaStorageError if !knows_storage_errors => ResponseError::NotLeaderOrFollower,
        error => error,
    }
}
