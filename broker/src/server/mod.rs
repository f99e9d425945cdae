//! The network side of the broker: listeners, connections, frames. Bytes come in on the left, requests go out on the
//! right to [`crate::api`], answers come back and leave in order.
//!
//! Where to look: [`listener`] accepts, [`connection`] keeps the order of requests, [`writer`] that of responses,
//! [`frame`] reads what strangers send, [`budget`] bounds the memory they can take, [`watch`] how long they may dawdle.
//! Never: knowledge of what a request means.

mod budget;
mod buffers;
mod complaints;
mod connection;
mod frame;
#[doc(hidden)]
pub mod fuzzing;
pub mod hostile;
mod listener;
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

use gracchus_env::{Env, Listener, Task, spawn};
use tokio::sync::{Semaphore, mpsc, watch as state};

use self::{
    budget::Budget, buffers::BufferPool, complaints::Complaints, connection::Shared, listener::Acceptor,
    watch::Patience,
};
use crate::{api::Service, config::BrokerConfig};

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
    /// `max.connections`.
    pub max_connections: usize,
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
            max_connections: usize::MAX,
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
            max_connections: config.max_connections,
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
        let shared = Arc::new(Shared {
            env: env.clone(),
            service,
            budget: Budget::new(options.queued_max_request_bytes),
            pool: BufferPool::new(options.pooled_bytes),
            complaints: Complaints::new(env.clone()),
            largest_request: options.request_max_bytes,
        });
        let patience = Patience {
            idle: options.max_idle,
            stalled: options.stall_timeout,
            slow: options.stall_timeout * 3,
        };
        let slots = Arc::new(Semaphore::new(options.max_connections.min(Semaphore::MAX_PERMITS)));
        let (stop, stopping) = state::channel(false);
        let (registry, registered) = mpsc::unbounded_channel();
        let next_id = Arc::new(AtomicU64::new(1));
        let mut tasks = vec![
            spawn(&*env, "connection-sweeper", listener::sweep(shared.clone(), patience, registered))
                .detach(),
        ];
        for (name, listener) in listeners {
            let acceptor = Acceptor {
                shared: shared.clone(),
                name,
                slots: slots.clone(),
                registry: registry.clone(),
                stopping: stopping.clone(),
                next_id: next_id.clone(),
            };
            tasks.push(spawn(&*env, "acceptor", acceptor.run(listener)).detach());
        }
        let connections = Connections { slots, total: options.max_connections.min(Semaphore::MAX_PERMITS) };
        Server { env, stop, connections, tasks }
    }
}

#[derive(Debug)]
struct Connections {
    slots: Arc<Semaphore>,
    total: usize,
}

impl Connections {
    fn any(&self) -> bool {
        self.slots.available_permits() < self.total
    }
}

/// The running server. Dropping it without [`Server::stop`] ends its connections where they are.
#[derive(Debug)]
pub struct Server {
    env: Arc<dyn Env>,
    stop: state::Sender<bool>,
    connections: Connections,
    tasks: Vec<Task>,
}

impl Server {
    /// Accepts and reads nothing more, lets requests that were started be answered for up to `grace`, then closes.
    pub async fn stop(self, grace: Duration) {
        let _ = self.stop.send(true);
        let deadline = self.env.now() + grace;
        while self.connections.any() && self.env.now() < deadline {
            self.env.sleep(Duration::from_millis(10)).await;
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.tasks.iter().for_each(Task::abort);
    }
}
