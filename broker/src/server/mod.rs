//! The network side of the broker: listeners, connections, frames. Bytes come in on the left, requests go out on the
//! right to [`crate::api`], answers come back and leave in order.
//!
//! Where to look: [`listener`] accepts, [`connection`] keeps the order of requests, [`writer`] that of responses,
//! [`frame`] reads what strangers send, [`slots`] bounds who may come, [`budget`] the memory they can take, [`lane`] who of
//! them goes first, [`watch`] how long they may dawdle.
//! Never: knowledge of what a request means.

mod budget;
mod buffers;
mod connection;
mod frame;
#[doc(hidden)]
pub mod fuzzing;
pub mod hostile;
mod lane;
mod listener;
mod slots;
mod watch;
mod writer;

#[cfg(test)]
mod tests;

use std::{
    io,
    net::SocketAddr,
    sync::{Arc, atomic::AtomicU64},
    time::Duration,
};

use gracchus_common::Complaints;
use gracchus_env::{Env, Listener, Task, spawn};
use tokio::sync::{mpsc, watch as state};

pub use self::slots::ConnectionLimits;
use self::{
    budget::Budget, buffers::BufferPool, connection::Shared, listener::Acceptor, slots::Slots,
    watch::Patience,
};
use crate::{
    api::{APIS, Service},
    config::BrokerConfig,
    counters::ServerMetrics,
};

/// A listener to be opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListenerOptions {
    /// Kafka's listener name, for example `PLAINTEXT`.
    pub name: String,
    /// `host:port` to bind; port 0 lets the system choose.
    pub address: String,
}

/// Limits, under the names of Kafka's configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerOptions {
    /// `socket.request.max.bytes`.
    pub request_max_bytes: i32,
    /// `queued.max.request.bytes`; unlike Kafka's, always finite.
    pub queued_max_request_bytes: u64,
    /// `connections.max.idle.ms`.
    pub max_idle: Duration,
    /// How many connections there may be at first, see [`Server::set_limits`].
    pub connections: ConnectionLimits,
    /// A peer that goes silent in the middle of a request is cut off after this long.
    pub stall_timeout: Duration,
    /// Receive buffers that are kept for reuse, in bytes.
    pub pooled_bytes: usize,
}

impl Default for ServerOptions {
    fn default() -> Self {
        Self {
            request_max_bytes: gracchus_core::frame::REQUEST_MAX_BYTES,
            queued_max_request_bytes: 512 << 20,
            max_idle: Duration::from_secs(600),
            connections: ConnectionLimits::default(),
            stall_timeout: Duration::from_secs(10),
            pooled_bytes: 64 << 20,
        }
    }
}

impl ServerOptions {
    /// The limits that `config` sets.
    pub fn new(config: &BrokerConfig) -> Self {
        Self {
            request_max_bytes: i32::try_from(config.socket_request_max_bytes).unwrap_or(i32::MAX),
            queued_max_request_bytes: config.queued_max_request_bytes,
            max_idle: config.connections_max_idle.unwrap_or(Duration::MAX),
            connections: ConnectionLimits::new(config),
            ..Self::default()
        }
    }
}

/// Listeners that are bound, so that their addresses are known, and do not accept yet.
#[derive(Debug)]
pub struct Bound {
    env: Arc<dyn Env>,
    options: ServerOptions,
    listeners: Vec<(Arc<str>, Box<dyn Listener>)>,
}

impl Bound {
    /// Binds all `listeners`; an error names the one that failed.
    pub async fn bind(
        env: Arc<dyn Env>,
        listeners: &[ListenerOptions],
        options: ServerOptions,
    ) -> io::Result<Bound> {
        let mut bound = Vec::with_capacity(listeners.len());
        for ListenerOptions { name, address } in listeners {
            let listener = env.listen(address).await.map_err(|error| {
                io::Error::new(error.kind(), format!("listener {name} cannot bind {address}: {error}"))
            })?;
            bound.push((Arc::from(name.as_str()), listener));
        }
        Ok(Bound { env, options, listeners: bound })
    }

    /// Name and real address of each listener, in the order of the configuration.
    pub fn addresses(&self) -> Vec<(Arc<str>, SocketAddr)> {
        self.listeners.iter().map(|(name, listener)| (name.clone(), listener.local_address())).collect()
    }

    /// Starts to accept connections for `service`.
    pub fn serve(self, service: Arc<dyn Service>) -> Server {
        let Bound { env, options, listeners } = self;
        let highest = APIS.last().map_or(0, |api| api.key);
        let metrics = ServerMetrics::new(highest, listeners.iter().map(|(name, _)| name.clone()));
        let shared = Arc::new(Shared {
            env: env.clone(),
            service,
            budget: Budget::for_requests(options.queued_max_request_bytes, options.request_max_bytes),
            pool: BufferPool::new(options.pooled_bytes),
            complaints: Complaints::new(env.clone()),
            metrics: metrics.clone(),
            largest_request: options.request_max_bytes,
        });
        let patience = Patience {
            idle: options.max_idle,
            stalled: options.stall_timeout,
            slow: options.stall_timeout / 2,
            pace: options.stall_timeout * 3 / 10,
        };
        let slots = Slots::new(options.connections);
        let (stop, stopping) = state::channel(false);
        let (registry, registered) = mpsc::unbounded_channel();
        let next_id = Arc::new(AtomicU64::new(1));
        let mut tasks = vec![
            spawn(&*env, "connection-sweeper", listener::sweep(shared.clone(), patience, registered))
                .detach(),
        ];
        for ((name, listener), (_, counted)) in listeners.into_iter().zip(&metrics.listeners) {
            let acceptor = Acceptor {
                shared: shared.clone(),
                name,
                slots: slots.clone(),
                metrics: counted.clone(),
                registry: registry.clone(),
                stopping: stopping.clone(),
                next_id: next_id.clone(),
            };
            tasks.push(spawn(&*env, "acceptor", acceptor.run(listener)).detach());
        }
        Server { env, stop, slots, shared, tasks }
    }
}

/// What the metrics read of a server; sets limits while it runs.
#[derive(Debug, Clone)]
pub(crate) struct ServerView {
    slots: Arc<Slots>,
    shared: Arc<Shared>,
}

impl ServerView {
    /// Its counters.
    pub(crate) fn metrics(&self) -> &ServerMetrics {
        &self.shared.metrics
    }

    /// Request memory: bytes in all, bytes free, connections that wait now, and waits so far.
    pub(crate) fn memory(&self) -> (usize, usize, usize, u64) {
        let (total, free, waits) = self.shared.budget.usage();
        (total, free, self.shared.budget.waiting(), waits)
    }

    /// Bytes of recycled receive buffers that nobody uses now.
    pub(crate) fn idle_buffers(&self) -> usize {
        self.shared.pool.idle_bytes()
    }

    /// See [`Server::set_limits`].
    pub(crate) fn set_limits(&self, limits: ConnectionLimits) {
        self.slots.set_limits(limits);
    }
}

/// The running server. Dropping it without [`Server::stop`] ends its connections where they are.
#[derive(Debug)]
pub struct Server {
    env: Arc<dyn Env>,
    stop: state::Sender<bool>,
    slots: Arc<Slots>,
    shared: Arc<Shared>,
    tasks: Vec<Task>,
}

impl Server {
    /// How many connections there may be from now on.
    pub fn set_limits(&self, limits: ConnectionLimits) {
        self.slots.set_limits(limits);
    }

    /// What it shows of itself.
    pub(crate) fn view(&self) -> ServerView {
        ServerView { slots: self.slots.clone(), shared: self.shared.clone() }
    }

    /// Accepts and reads nothing more, lets requests that were started be answered for up to `grace`, then closes.
    pub async fn stop(self, grace: Duration) {
        let _ = self.stop.send(true);
        let deadline = self.env.now() + grace;
        while self.slots.open() > 0 && self.env.now() < deadline {
            self.env.sleep(Duration::from_millis(10)).await;
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.tasks.iter().for_each(Task::abort);
    }
}
