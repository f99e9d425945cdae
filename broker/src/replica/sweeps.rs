//! What all replicas are told from time to time, or when a log directory fails. Retention has a sweep of its own
//! ([`super::retention`]).
//!
//! Never: a timer for each replica.

use std::{
    sync::{Arc, Weak},
    time::Duration,
};

use gracchus_env::Env;
use tokio::sync::watch;

use super::{
    manager::ReplicaManager,
    replica::{Message, Urgent},
};

/// One timer for all replicas: also a partition that gets no more appends forgets its producers.
pub(super) async fn sweep_producers(env: Arc<dyn Env>, manager: Weak<ReplicaManager>, every: Duration) {
    loop {
        env.sleep(every).await;
        let Some(manager) = manager.upgrade() else { return };
        let after = manager.live.load().producer_id_expiration;
        for replica in manager.snapshot() {
            replica.send(Message::ExpireProducers(after));
        }
    }
}

pub(super) async fn follow_directory(
    manager: Weak<ReplicaManager>,
    mut offline: watch::Receiver<Option<Arc<str>>>,
) {
    if offline.wait_for(Option::is_some).await.is_err() {
        return;
    }
    let Some(manager) = manager.upgrade() else { return };
    for replica in manager.snapshot() {
        replica.tell(Urgent::DirectoryFailed);
    }
}
