//! The broker as a whole: what starts in which order, and what stops in which.
//!
//! Start: whose the directories are and whether the ports are free (all of that before the first write), log directories
//! (lock, journal), the controller (metadata), listeners bound so that their ports are known, this node registered with
//! them, replicas, and only then connections accepted. Stop is the mirror, so that
//! nothing is served that could not be kept. A process may start and stop any number of brokers; there are no globals.
//!
//! Never: a connection accepted before the registration, which moves the leader epochs, is committed; a trace of a start
//! that was refused.

use std::{
    fmt::Display,
    io,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use gracchus_common::STOP_PATIENCE;
use gracchus_core::{
    BrokerId,
    controller::{BrokerListener, Command, Response},
};
use gracchus_env::{Env, FileLock, spawn};
use gracchus_log::{self as log, DirectoryOptions, LogDirectory};
use gracchus_quorum::{Controller, ControllerError, ControllerOptions};

use crate::{
    api::{Apis, Services},
    config::{BrokerConfig, Endpoint, LiveConfig, min_isr},
    host::Host,
    metrics::{
        Recent, Sources,
        endpoint::{self, Phase},
    },
    replica::{PartitionProbe, ReplicaManager},
    server::{Bound, ConnectionLimits, ListenerOptions, Server, ServerOptions, ServerView},
};

/// How long a stop waits for requests under way to be answered.
const GRACE: Duration = Duration::from_secs(5);

/// How long a log directory may take to bring all to its segments. Long, for slow disks.
const CLOSE_PATIENCE: Duration = Duration::from_secs(300);

/// Why a broker did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Another broker runs on it.
    #[error("log directory {path} is in use: another process holds its lock", path = .0.display())]
    InUse(PathBuf),
    /// A log directory cannot be used.
    #[error("log directory {path}: {error}", path = path.display())]
    Directory {
        /// Which.
        path: PathBuf,
        /// The cause.
        error: log::OpenError,
    },
    /// The disk of the log directory that holds the cluster metadata failed, and not of any other.
    #[error(
        "log directory {path} holds the cluster metadata, so nothing can be served without it (one of the others may \
         fail, and metadata.log.dir chooses which holds them): {error}",
        path = path.display()
    )]
    WithMetadata {
        /// Which.
        path: PathBuf,
        /// The cause.
        error: log::OpenError,
    },
    /// `metadata.log.dir` cannot be used.
    #[error("metadata.log.dir {path}: {error}", path = path.display())]
    MetadataDirectory {
        /// Which.
        path: PathBuf,
        /// The cause.
        error: log::OpenError,
    },
    /// The controller did not start.
    #[error(transparent)]
    Controller(#[from] gracchus_quorum::StartError),
    /// This broker could not be registered.
    #[error("registration: {0}")]
    Registration(ControllerError),
    /// A listener could not be opened.
    #[error("{0}")]
    Listen(io::Error),
}

/// A running broker. Dropping it without [`Broker::stop`] leaves its tasks running until their Env ends them.
#[derive(Debug)]
pub struct Broker {
    env: Arc<dyn Env>,
    config: Arc<LiveConfig>,
    base: Base,
    controller: Arc<Controller>,
    replicas: Arc<ReplicaManager>,
    server: Server,
    listeners: Vec<(Endpoint, SocketAddr)>,
    endpoint: Option<endpoint::Endpoint>,
}

/// What a broker stands on, as far as it is open.
#[derive(Debug, Default)]
struct Base {
    metadata_lock: Option<FileLock>,
    directories: Vec<Arc<LogDirectory>>,
    /// Those of `log.dirs` that could not be opened.
    missing: Vec<PathBuf>,
    controller: Option<Arc<Controller>>,
}

impl Base {
    /// Leaves everything so that the next start finds it clean; after a start that did not succeed, as it was found.
    async fn close(self, env: &dyn Env, started: bool) {
        if let Some(controller) = self.controller {
            controller.stop().await;
        }
        self.directories.iter().for_each(|directory| directory.give_up_waiting(STOP_PATIENCE));
        for directory in self.directories {
            let close = async {
                match started {
                    true => directory.close().await,
                    false => directory.give_up().await,
                }
            };
            // Without an end it has no clean marker: the next start replays and recovers.
            if env.timeout(CLOSE_PATIENCE, close).await.is_none() {
                tracing::error!(
                    "log directory {} is not closed cleanly within {} s; the next start recovers it",
                    directory.path().display(),
                    CLOSE_PATIENCE.as_secs()
                );
            }
        }
        drop(self.metadata_lock);
    }
}

/// What the simulator's checkers look at, taken from snapshots that the broker publishes anyway.
#[derive(Debug, Clone)]
pub struct BrokerProbe {
    /// By topic id and partition.
    pub partitions: Vec<PartitionProbe>,
    /// Log directories that are offline.
    pub offline: Vec<PathBuf>,
}

impl Broker {
    /// Starts a broker that nobody's process belongs to; see [`Broker::start_in`].
    pub async fn start(env: Arc<dyn Env>, config: BrokerConfig) -> Result<Broker, StartError> {
        Self::start_in(env, config, Host::default()).await
    }

    /// Starts a broker; it serves when this returns. On an error nothing of it is left open.
    pub async fn start_in(env: Arc<dyn Env>, config: BrokerConfig, host: Host) -> Result<Broker, StartError> {
        let config = Arc::new(config);
        let begun = env.now();
        let endpoint = metrics_endpoint(&env, &config, &host).await?;
        let mut base = Base::default();
        let started = async {
            let identities = identities::look(&*env, &config).await?;
            // Who will not get a port must not have touched a directory. It is given back: as long as nothing can be
            // answered, a client is better refused than left waiting.
            drop(bind(&env, &config).await?);
            let controller = directories::open(&env, &config, identities, &mut base).await?;
            let bound = bind(&env, &config).await?;
            let addresses = bound.addresses().into_iter().map(|(_, address)| address);
            let listeners: Vec<_> = config.listeners.iter().cloned().zip(addresses).collect();
            let registered = register(&config, &base, &controller, &listeners).await;
            registered.map_err(StartError::Registration)?;
            Ok((controller, bound, listeners))
        };
        let (controller, bound, listeners) = match started.await {
            Ok(started) => started,
            Err(error) => {
                base.close(&*env, false).await;
                return Err(error);
            }
        };
        let live = LiveConfig::start(&env, config.clone(), controller.clone());
        let replicas = ReplicaManager::start(
            env.clone(),
            config.node_id,
            base.directories.clone(),
            base.missing.clone(),
            controller.clone(),
            live.clone(),
        );
        let log_levels = host.log_levels.clone();
        replicas.tidy().await;
        let services =
            Services::new(env.clone(), live.clone(), controller.clone(), replicas.clone(), log_levels);
        let server = bound.serve(Arc::new(Apis(services.clone())));
        follow_limits(&env, &live, server.view());
        if let Some(endpoint) = &endpoint {
            let server = server.view();
            let sources = Sources {
                recent: Recent::new(&*env, server.metrics()),
                env: env.clone(),
                begun,
                host,
                live: live.clone(),
                controller: controller.clone(),
                directories: base.directories.clone(),
                replicas: replicas.clone(),
                services,
                server,
            };
            endpoint.is(Phase::Serving(Arc::new(sources)));
        }
        Ok(Broker { env, config: live, base, controller, replicas, server, listeners, endpoint })
    }

    /// Each listener with the address that it is bound to.
    pub fn addresses(&self) -> &[(Endpoint, SocketAddr)] {
        &self.listeners
    }

    /// What clients are told to connect to, by listener.
    pub fn advertised(&self) -> Vec<BrokerListener> {
        advertised(self.config(), &self.listeners)
    }

    /// What it was started with.
    pub fn config(&self) -> &Arc<BrokerConfig> {
        self.config.fixed()
    }

    /// Its configuration as it is now.
    pub fn live_config(&self) -> &Arc<LiveConfig> {
        &self.config
    }

    /// The cluster metadata.
    pub fn controller(&self) -> &Arc<Controller> {
        &self.controller
    }

    /// Its replicas: also while it stops, they can be asked what they publish.
    pub fn replicas(&self) -> &Arc<ReplicaManager> {
        &self.replicas
    }

    /// Log directories that it does not use: offline, or missing since the start.
    pub fn offline(&self) -> Vec<PathBuf> {
        let offline = self.base.directories.iter().filter(|directory| directory.offline().is_some());
        offline
            .map(|directory| directory.path().to_owned())
            .chain(self.base.missing.iter().cloned())
            .collect()
    }

    /// A view of its published state.
    pub fn probe(&self) -> BrokerProbe {
        BrokerProbe { partitions: self.replicas.probe(), offline: self.offline() }
    }

    /// Stops in order: no new connections, requests under way answered, logs closed, controller, directories left
    /// clean.
    pub async fn stop(self) {
        if let Some(endpoint) = &self.endpoint {
            endpoint.is(Phase::Stopping);
        }
        self.server.stop(GRACE).await;
        self.replicas.stop().await;
        self.base.close(&*self.env, true).await;
    }
}

async fn bind(env: &Arc<dyn Env>, config: &BrokerConfig) -> Result<Bound, StartError> {
    let listener =
        |endpoint: &Endpoint| ListenerOptions { name: endpoint.name.clone(), address: endpoint.address() };
    let listeners: Vec<_> = config.listeners.iter().map(listener).collect();
    let (limits, unknown) = ConnectionLimits::resolved(&**env, config).await;
    if let Some(problem) = unknown.into_iter().next() {
        return Err(StartError::Listen(io::Error::new(io::ErrorKind::NotFound, problem)));
    }
    let options = ServerOptions { connections: limits, ..ServerOptions::new(config) };
    let named =
        |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", config.name_of("listeners")));
    let bound = Bound::bind(env.clone(), &listeners, options).await;
    bound.map_err(|error| StartError::Listen(named(error)))
}

/// Opens `metrics.listener`, if there is one.
async fn metrics_endpoint(
    env: &Arc<dyn Env>,
    config: &BrokerConfig,
    host: &Host,
) -> Result<Option<endpoint::Endpoint>, StartError> {
    let Some(address) = &config.metrics_listener else { return Ok(None) };
    let listener = env.listen(address).await.map_err(|error| {
        let text = format!("{}: cannot bind {address}: {error}", config.name_of("metrics.listener"));
        StartError::Listen(io::Error::new(error.kind(), text))
    })?;
    tracing::info!("metrics at http://{}/metrics", listener.local_address());
    Ok(Some(endpoint::Endpoint::start(env, listener, host.clone())))
}

/// The limits of connections can change while the broker runs.
fn follow_limits(env: &Arc<dyn Env>, live: &LiveConfig, server: ServerView) {
    let mut watch = live.watch();
    let world = env.clone();
    spawn(&**env, "connection-limits", async move {
        let mut config = watch.seen();
        loop {
            // What needs no name service holds at once.
            if config.max_connections_per_host_overrides.is_empty() {
                server.set_limits(ConnectionLimits::new(&config));
            } else {
                let (limits, unknown) = ConnectionLimits::resolved(&*world, &config).await;
                server.set_limits(limits);
                unknown.iter().for_each(|problem| tracing::warn!("{problem}; it has no limit of its own"));
            }
            let Some(changed) = watch.changed().await else { return };
            config = changed;
        }
    });
}

/// Tells the cluster that this broker is here and where; moves the leader epochs of what it leads.
async fn register(
    config: &BrokerConfig,
    base: &Base,
    controller: &Controller,
    listeners: &[(Endpoint, SocketAddr)],
) -> Result<(), ControllerError> {
    let located = directories::locate(config.node_id, &controller.image(), base).await;
    let command = Command::RegisterBroker {
        id: config.node_id,
        listeners: advertised(config, listeners),
        directories: base.directories.iter().map(|directory| directory.directory_id()).collect(),
        rack: config.rack.clone(),
        located,
    };
    let response = controller.submit(command).await?;
    assert!(matches!(response, Response::Registered { .. }), "RegisterBroker answered {response:?}");
    for command in min_isr::settle(&controller.image(), config) {
        controller.submit(command).await?;
    }
    Ok(())
}

async fn open_directory(
    env: &Arc<dyn Env>,
    config: &BrokerConfig,
    path: &Path,
    cluster_id: Option<String>,
    lock: FileLock,
) -> Result<Arc<LogDirectory>, StartError> {
    let options = DirectoryOptions { cluster_id, ..config.directory.clone() };
    let open = LogDirectory::open_locked(env.clone(), path.to_owned(), options, lock);
    let opened = announced(env, format!("opening log directory {}", path.display()), open).await;
    opened.map_err(|error| identities::refused(config, path, error))
}

async fn start_controller(env: &Arc<dyn Env>, config: &BrokerConfig) -> Result<Arc<Controller>, StartError> {
    let options = ControllerOptions {
        node: config.node_id,
        log_dir: config.metadata_log_dir.clone(),
        snapshot_interval: config.metadata_snapshot_interval,
        producer_ids_per_block: config.producer_ids_per_block,
    };
    let start = Controller::start(env.clone(), options);
    Ok(announced(env, "loading the cluster metadata", start).await?)
}

/// Says every few seconds what a start waits for.
async fn announced<T>(env: &Arc<dyn Env>, what: impl Display, work: impl Future<Output = T>) -> T {
    const PATIENCE: Duration = Duration::from_secs(2);
    let began = env.now();
    tokio::pin!(work);
    loop {
        tokio::select! {
            biased;
            output = &mut work => return output,
            () = env.sleep(PATIENCE) => tracing::info!("still {what}, {} s so far", env.now().since(began).as_secs()),
        }
    }
}

/// Puts into the log what ends a part of the broker for good. The rest serves on: data that can be read is of use.
fn watch_health(
    env: &Arc<dyn Env>,
    node: BrokerId,
    directories: &[Arc<LogDirectory>],
    controller: &Arc<Controller>,
) {
    for directory in directories {
        let (path, mut offline) = (directory.path().to_owned(), directory.watch_offline());
        let (controller, failed) = (controller.clone(), directory.directory_id());
        spawn(&**env, "directory-health", async move {
            let reason = offline.wait_for(Option::is_some).await.ok().and_then(|reason| reason.clone());
            if let Some(reason) = reason {
                tracing::error!(
                    "log directory {} is offline: {reason}; its partitions are served again when the disk is in order \
                     and the broker is started anew",
                    path.display()
                );
                let failed = Command::DirectoryFailed { broker: node, directory: failed };
                if let Err(error) = controller.submit(failed).await {
                    tracing::warn!(
                        %error,
                        "the metadata do not know that log directory {} is offline",
                        path.display()
                    );
                }
            }
        });
    }
    let controller = controller.clone();
    spawn(&**env, "controller-health", async move {
        if let failed @ ControllerError::Failed(_) = controller.failed().await {
            tracing::error!(
                "{failed}; no topic can be created or changed until the disk of metadata.log.dir is in order \
                 and this node is started again"
            );
        }
    });
}

/// What clients are told: port 0 becomes the port that the listener of that name got.
fn advertised(config: &BrokerConfig, bound: &[(Endpoint, SocketAddr)]) -> Vec<BrokerListener> {
    let advertise = |endpoint: &Endpoint| {
        let own = bound.iter().find(|(listener, _)| listener.name == endpoint.name);
        let port =
            if endpoint.port == 0 { own.map_or(0, |(_, address)| address.port()) } else { endpoint.port };
        BrokerListener { name: endpoint.name.clone(), host: endpoint.host.clone(), port }
    };
    config.advertised_listeners.iter().map(advertise).collect()
}

mod directories;
mod identities;
#[cfg(test)]
mod tests;
