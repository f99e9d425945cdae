//! What a process that ended without order left to the system, in topics that promise `flush.ms`, reaches the disk although
//! nobody asks for it.
//!
//! To open a log recovers it, and what was recovered is flushed; but a log is opened when somebody needs it. So once at a start
//! the logs of topics with a `flush.ms` are opened that no orderly stop has left: a few at a time, that requests need not wait
//! for them. Apache Kafka opens all logs before it serves.
//!
//! Never: a log opened that was left in order, whose topic promises no time, or whose directory is away.

use std::sync::Arc;

use futures_util::{StreamExt, stream};
use gracchus_log::LogId;

use super::{configuration, manager::ReplicaManager};

/// Logs that are opened side by side.
const AT_ONCE: usize = 2;

/// Ends when all of them are open, or cannot be.
pub(super) async fn open_unflushed(manager: Arc<ReplicaManager>) {
    let image = manager.image();
    let defaults = manager.live.load().topic_defaults.clone();
    // What lies in a directory that is away has no leader.
    let led = image.topics.replicas_of(manager.node()).filter(|of| of.partition.leader == manager.node());
    let promised = led.filter(|of| {
        let config = configuration::resolve(&of.topic.name, &of.topic.configs, &defaults);
        let is_left_clean = || {
            let id = LogId { tp: of.topic_partition(), topic_id: of.topic.id };
            manager.directories().iter().any(|directory| directory.is_left_clean(&id))
        };
        config.flush_ms < i64::MAX && !is_left_clean()
    });
    let keys: Vec<_> = promised.map(|of| (of.topic.id, of.index)).collect();
    if keys.is_empty() {
        return;
    }
    gracchus_env::moment!(UNFLUSHED_LOGS_OPENED);
    let open = |(topic, index)| {
        let replica = manager.replica(topic, index);
        async move {
            if let Some(replica) = replica {
                // Why it cannot be served is for those who ask.
                drop(replica.view().await);
            }
        }
    };
    stream::iter(keys).for_each_concurrent(AT_ONCE, open).await;
}
