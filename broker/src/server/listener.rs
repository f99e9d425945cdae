//! Accepting connections, and looking after them while they live.
//!
//! Each listener has a task that accepts; one sweeper per server looks at all connections about once a second and ends
//! those that are idle, stalled or read nothing. Never: serve more than `max.connections` (one more waits accepted, the
//! rest in the kernel's queue), or die of a failed accept. Who may connect: [`super::slots`].

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use gracchus_env::{Connection, Instant, Listener, Task};
use tokio::sync::{mpsc, watch};

use super::{
    budget::Share,
    connection::{self, Shared},
    slots::{Slots, TooMany},
    watch::{Fault, Patience, Seen, Shortage, Watch},
};
use crate::{
    api::{ConnectionContext, Principal},
    counters::ListenerMetrics,
};

/// Pause after a failed accept: with no file descriptors left, the next one fails as well.
const ACCEPT_BACKOFF: Duration = Duration::from_millis(100);

/// A connection as the sweeper knows it.
#[derive(Debug)]
pub(super) struct Registered {
    pub(super) context: Arc<ConnectionContext>,
    pub(super) watch: Arc<Watch>,
    /// What its address holds.
    pub(super) share: Arc<Share>,
    pub(super) task: Task,
    pub(super) listener: Arc<ListenerMetrics>,
}

/// What an accepting task needs.
#[derive(Debug)]
pub(super) struct Acceptor {
    pub(super) shared: Arc<Shared>,
    /// Kafka's listener name.
    pub(super) name: Arc<str>,
    /// Of all listeners together.
    pub(super) slots: Arc<Slots>,
    pub(super) metrics: Arc<ListenerMetrics>,
    pub(super) registry: mpsc::UnboundedSender<Registered>,
    pub(super) stopping: watch::Receiver<bool>,
    pub(super) next_id: Arc<std::sync::atomic::AtomicU64>,
}

impl Acceptor {
    /// Accepts until the server stops.
    pub(super) async fn run(self, listener: Box<dyn Listener>) {
        let mut stopping = self.stopping.clone();
        tokio::select! {
            biased;
            _ = stopping.wait_for(|stopping| *stopping) => {}
            () = self.accept(listener) => {}
        }
    }

    async fn accept(&self, mut listener: Box<dyn Listener>) {
        loop {
            let connection = match listener.accept().await {
                Ok(connection) => connection,
                Err(error) => {
                    let name = &self.name;
                    self.shared.complaints.say(format_args!(
                        "listener {name} cannot accept: {error}; if files are lacking, let the process open more, \
                         or lower max.connections"
                    ));
                    self.shared.env.sleep(ACCEPT_BACKOFF).await;
                    continue;
                }
            };
            let context = self.introduce(&connection);
            let slot = match self.slots.take(connection.peer.ip()).await {
                Ok(slot) => slot,
                Err(TooMany(most)) => {
                    self.metrics.refused.add(1);
                    self.shared.complaints.say(format_args!(
                        "closing {context}: its address has {most} connections already; if it needs more, raise \
                         max.connections.per.ip, or name it in max.connections.per.ip.overrides"
                    ));
                    continue;
                }
            };
            self.metrics.accepted.add(1);
            tracing::debug!("{context}: accepted");
            let watch = Arc::new(Watch::default());
            let share = slot.share.clone();
            let stopping = self.stopping.clone();
            let task = connection::start(
                self.shared.clone(),
                context.clone(),
                connection,
                watch.clone(),
                stopping,
                slot,
                self.metrics.clone(),
            );
            let listener = self.metrics.clone();
            let _ = self.registry.send(Registered { context, watch, share, task, listener });
        }
    }

    fn introduce(&self, connection: &Connection) -> Arc<ConnectionContext> {
        let id = self.next_id.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let principal = Principal::anonymous();
        Arc::new(ConnectionContext::new(id, connection.peer, self.name.clone(), principal))
    }
}

/// Looks after connections until it is dropped, which ends all that are left.
pub(super) async fn sweep(
    shared: Arc<Shared>,
    patience: Patience,
    mut registry: mpsc::UnboundedReceiver<Registered>,
) {
    let interval =
        (patience.idle.min(patience.stalled) / 4).clamp(Duration::from_millis(10), Duration::from_secs(1));
    let mut connections = Sweeping::default();
    loop {
        let wake = shared.env.sleep(interval);
        tokio::pin!(wake);
        loop {
            tokio::select! {
                biased;
                Some(new) = registry.recv() => {
                    connections.add(new, shared.env.now());
                }
                () = &mut wake => break,
            }
        }
        connections.look(&shared, shared.env.now(), &patience);
    }
}

/// The live connections, by id.
#[derive(Default)]
pub(super) struct Sweeping(BTreeMap<u64, (Registered, Seen)>);

impl Sweeping {
    pub(super) fn add(&mut self, new: Registered, now: Instant) {
        self.0.insert(new.context.id, (new, Seen::new(now)));
    }

    /// Judges all of them before it ends any, so that none is spared because another has just made room.
    pub(super) fn look(&mut self, shared: &Shared, now: Instant, patience: &Patience) {
        let any = shared.budget.is_short();
        let mut faults: Vec<(u64, Fault)> = Vec::new();
        self.0.retain(|id, (connection, seen)| {
            if connection.watch.has_ended() {
                return false;
            }
            let wanted = |frame| shared.budget.is_wanted(frame, &connection.share);
            let of_this = any && connection.watch.charged_frame().is_some_and(wanted);
            let fault = seen.look(&connection.watch, now, patience, Shortage { any, of_this });
            faults.extend(fault.map(|fault| (*id, fault)));
            true
        });
        for (id, fault) in faults {
            let Some((connection, _)) = self.0.remove(&id) else { continue };
            match fault {
                Fault::Quiet(reason) => tracing::info!("closing {}: {reason}", connection.context),
                Fault::Obstructs(reason) => {
                    shared.complaints.say(format_args!("closing {}: {reason}", connection.context));
                }
            }
            connection.listener.expired.add(1);
            connection.task.abort();
        }
    }
}

impl Drop for Sweeping {
    fn drop(&mut self) {
        self.0.values().for_each(|(connection, _)| connection.task.abort());
    }
}
