//! The controller: cluster metadata as commands in a replicated log, applied to one [`Image`] on every node.
//!
//! openraft decides what is committed; this module gives it a clock ([`runtime`]), a disk ([`store`]), the state machine
//! ([`state_machine`]) and messages ([`network`]), and shows the rest of the broker four things only: the newest image,
//! a version to wait on, a way to submit a command, and fresh producer ids. A single node is a quorum of one.
//!
//! Never: an answer before the command is committed and applied; openraft's types outside of this module.

mod frame;
#[doc(hidden)]
pub mod fuzzing;
mod network;
#[cfg(test)]
mod pairs;
mod peek;
mod producer_ids;
mod raft_types;
mod runtime;
mod state_machine;
mod store;
#[cfg(test)]
mod tests;

use std::{
    collections::BTreeMap,
    fmt, io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use gracchus_common::{Handles, METADATA_DIRECTORY, STOP_PATIENCE};
use gracchus_core::{
    BrokerId, ProducerId, TopicId,
    controller::{Command, Image, Response},
};
use gracchus_env::{Env, Op, in_scope};
use openraft::{
    BasicNode, Config, ServerState, SnapshotPolicy,
    error::{ClientWriteError, RaftError},
};
use tokio::sync::watch;
use uuid::Uuid;

use self::{
    frame::Unreadable,
    network::NoPeers,
    producer_ids::ProducerIds,
    raft_types::{NodeId, Raft},
    state_machine::{Published, StateMachine},
    store::LogStore,
};

pub use self::{peek::cluster_of, producer_ids::DEFAULT_BLOCK};

/// How many commands lie between two snapshots: a start replays at most that many, a few milliseconds.
pub const DEFAULT_SNAPSHOT_INTERVAL: u64 = 1000;

/// What a controller needs to know.
#[derive(Debug, Clone)]
pub struct ControllerOptions {
    /// This node.
    pub node: BrokerId,
    /// The log directory that holds [`METADATA_DIRECTORY`].
    pub log_dir: PathBuf,
    /// A snapshot is written, and the log before it dropped, each time so many commands were applied.
    pub snapshot_interval: u64,
    /// Producer ids per block.
    pub producer_ids_per_block: i32,
}

impl ControllerOptions {
    /// Options with the usual snapshot interval and blocks.
    pub fn new(node: BrokerId, log_dir: impl Into<PathBuf>) -> Self {
        Self {
            node,
            log_dir: log_dir.into(),
            snapshot_interval: DEFAULT_SNAPSHOT_INTERVAL,
            producer_ids_per_block: DEFAULT_BLOCK,
        }
    }
}

/// The metadata on disk cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// A file is not what this program wrote, or a newer program wrote it.
    #[error("cluster metadata {path}: {problem}", path = path.display())]
    Unreadable { path: PathBuf, problem: String },
    /// The disk failed.
    #[error("cluster metadata: {0}")]
    Io(#[from] io::Error),
}

impl OpenError {
    /// Going on would forget what was committed.
    fn unreadable(path: &Path, why: impl Into<Unreadable>) -> Self {
        let problem = match why.into() {
            newer @ Unreadable::Newer(_) => newer.to_string(),
            Unreadable::Damaged(problem) => format!(
                "{problem}. Committed metadata (topics, configurations, producer ids) may be nowhere else: put the file back \
                 as it was, or the whole directory from a copy that was made while the broker was stopped"
            ),
        };
        Self::Unreadable { path: path.to_owned(), problem }
    }
}

/// Why the controller did not do what it was asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ControllerError {
    /// It is stopping, or stopped.
    #[error("the controller is stopped")]
    Stopped,
    /// Its disk failed; nothing is committed any more until the node is started again. A command that was under way
    /// may or may not be found committed then.
    #[error("the controller has failed: {0}")]
    Failed(String),
}

/// How far a quorum is: its leader's epoch, and positions in the metadata log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quorum {
    /// Number of the leadership.
    pub epoch: i32,
    /// Whom this node has voted for in it.
    pub voted_for: BrokerId,
    /// Whether it leads in it.
    pub leads: bool,
    /// Behind the last entry.
    pub log_end: i64,
    /// Behind the last committed entry.
    pub high_watermark: i64,
}

/// This node's part of the metadata quorum.
pub struct Controller {
    env: Arc<dyn Env>,
    node: BrokerId,
    raft: Raft,
    published: Arc<Published>,
    producer_ids: ProducerIds,
    handles: Arc<Handles>,
}

impl fmt::Debug for Controller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Controller({})", self.node)
    }
}

impl Controller {
    /// Opens the metadata, wins the election and returns once everything committed is in the image.
    pub async fn start(env: Arc<dyn Env>, options: ControllerOptions) -> Result<Arc<Controller>, StartError> {
        in_scope(env.clone(), start(env, options)).await
    }

    /// The newest image that holds only committed commands. Load it once per request.
    pub fn image(&self) -> Arc<Image> {
        self.published.image()
    }

    /// Changes whenever a new image was published. The number is the position in the metadata log.
    pub fn watch(&self) -> watch::Receiver<u64> {
        self.published.watch()
    }

    /// The cluster's identity, as clients see it (22 characters).
    pub fn cluster_id(&self) -> String {
        TopicId(self.image().cluster_id.expect("named before anybody has the controller")).to_string()
    }

    /// This node.
    pub fn node(&self) -> BrokerId {
        self.node
    }

    /// Commits `command` and answers what applying it gave; the image holds it by then.
    pub async fn submit(&self, command: Command) -> Result<Response, ControllerError> {
        submit(&self.env, &self.raft, command).await
    }

    /// A producer id that was never handed out before and never will be again, also after a restart.
    pub async fn next_producer_id(&self) -> Result<ProducerId, ControllerError> {
        self.producer_ids.next().await
    }

    /// How far the metadata quorum is.
    pub fn quorum(&self) -> Quorum {
        let metrics = self.raft.metrics();
        let seen = metrics.borrow();
        let behind =
            |index: Option<u64>| index.map_or(0, |index| i64::try_from(index + 1).unwrap_or(i64::MAX));
        Quorum {
            epoch: i32::try_from(seen.current_term).unwrap_or(i32::MAX),
            voted_for: BrokerId(seen.vote.leader_id.node_id.try_into().unwrap_or(-1)),
            leads: seen.state.is_leader(),
            log_end: behind(seen.last_log_index),
            high_watermark: behind(seen.last_applied.map(|applied| applied.index)),
        }
    }

    /// Completes when the controller can commit nothing any more, with the reason. Never completes before [`stop`].
    ///
    /// [`stop`]: Controller::stop
    pub async fn failed(&self) -> ControllerError {
        let mut metrics = self.raft.metrics();
        loop {
            if let Err(fatal) = &metrics.borrow_and_update().running_state {
                return failure(fatal);
            }
            if metrics.changed().await.is_err() {
                return ControllerError::Stopped;
            }
        }
    }

    /// Stops. Everything that was answered is on disk already, so there is nothing to save.
    pub async fn stop(&self) {
        self.handles.give_up_within(STOP_PATIENCE);
        self.producer_ids.stop();
        // The tasks run in the scope of the Env; the error would be that they have ended before.
        let _ = in_scope(self.env.clone(), self.raft.shutdown()).await;
    }
}

/// A random id for a topic, a cluster, a directory (UUID version 4). Its text never begins with a dash, which command
/// line tools would take for an option.
pub fn random_id(env: &dyn Env) -> Uuid {
    loop {
        let bits = u128::from(env.random()) << 64 | u128::from(env.random());
        let id = uuid::Builder::from_random_bytes(bits.to_be_bytes()).into_uuid();
        if !TopicId(id).to_string().starts_with('-') {
            return id;
        }
    }
}

/// The controller could not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// What is on disk cannot be used.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The quorum failed before it could serve.
    #[error(transparent)]
    Controller(#[from] ControllerError),
}

async fn start(env: Arc<dyn Env>, options: ControllerOptions) -> Result<Arc<Controller>, StartError> {
    let directory = options.log_dir.join(METADATA_DIRECTORY);
    create(&env, &options.log_dir, &directory).await.map_err(OpenError::from)?;
    let handles = Handles::new(env.clone());
    let state_machine = StateMachine::open(env.clone(), handles.clone(), &directory).await?;
    let applied = state_machine.last_applied();
    let (store, opened) = LogStore::open(env.clone(), handles.clone(), &directory, applied).await?;
    if opened.cut_bytes > 0 {
        tracing::warn!(
            bytes = opened.cut_bytes,
            "cluster metadata: cut an unfinished append off the log, as a crash leaves it; nothing needs \
             to be done"
        );
    }
    let published = state_machine.published();
    let id = NodeId::try_from(options.node.0).expect("node.id is not negative");
    let config = Arc::new(quorum_of_one(options.snapshot_interval));
    let raft = Raft::new(id, config, NoPeers, store, state_machine).await.map_err(|fatal| failure(&fatal))?;
    elect(&raft, id).await?;
    if published.image().cluster_id.is_none() {
        submit(&env, &raft, Command::NameCluster { id: random_id(&*env) }).await?;
    }
    let producer_ids = ProducerIds::start(&env, options.node, options.producer_ids_per_block, raft.clone());
    Ok(Arc::new(Controller { env, node: options.node, raft, published, producer_ids, handles }))
}

/// Makes the directory and its name durable.
async fn create(env: &Arc<dyn Env>, log_dir: &Path, directory: &Path) -> io::Result<()> {
    let create = Op::CreateDir { path: directory.to_owned() };
    env.disk().submit(vec![create, Op::SyncDir { path: log_dir.to_owned() }]).await
}

/// A single voter needs neither heartbeats nor election timeouts: it is elected by request, once. Without ticks an idle
/// controller costs nothing.
fn quorum_of_one(snapshot_interval: u64) -> Config {
    const HOUR_MS: u64 = 3_600_000;
    Config {
        cluster_name: "gracchus".to_owned(),
        enable_tick: false,
        heartbeat_interval: 24 * HOUR_MS,
        election_timeout_min: 48 * HOUR_MS,
        election_timeout_max: 49 * HOUR_MS,
        snapshot_policy: SnapshotPolicy::LogsSinceLast(snapshot_interval),
        max_in_snapshot_log_to_keep: 0,
        ..Config::default()
    }
}

/// Has this node elected and waits until all that was committed before is applied.
async fn elect(raft: &Raft, id: NodeId) -> Result<(), ControllerError> {
    if raft.is_initialized().await.map_err(|fatal| failure(&fatal))? {
        raft.trigger().elect().await.map_err(|fatal| failure(&fatal))?;
    } else {
        let members = BTreeMap::from([(id, BasicNode::default())]);
        if let Err(RaftError::Fatal(fatal)) = raft.initialize(members).await {
            return Err(failure(&fatal));
        }
    }
    let mut metrics = raft.metrics();
    loop {
        {
            let seen = metrics.borrow_and_update();
            if let Err(fatal) = &seen.running_state {
                return Err(failure(fatal));
            }
            // Entries of earlier terms are committed by the blank entry that a new leader appends to its own.
            let applied = seen.last_applied.is_some_and(|applied| {
                applied.leader_id.term == seen.current_term && Some(applied.index) == seen.last_log_index
            });
            if seen.state == ServerState::Leader && applied {
                return Ok(());
            }
        }
        metrics.changed().await.map_err(|_| ControllerError::Stopped)?;
    }
}

/// How long to wait before a command is offered again.
const RETRY: Duration = Duration::from_millis(5);

async fn submit(env: &Arc<dyn Env>, raft: &Raft, command: Command) -> Result<Response, ControllerError> {
    loop {
        // In scope, because openraft sets deadlines of its own when its core has gone.
        match in_scope(env.clone(), raft.client_write(command.clone())).await {
            Ok(written) => return Ok(written.data.expect("a command has a response")),
            Err(RaftError::Fatal(fatal)) => return Err(failure(&fatal)),
            // Not appended, so it can be offered again: leadership is just being taken.
            Err(RaftError::APIError(ClientWriteError::ForwardToLeader(_))) => env.sleep(RETRY).await,
            Err(RaftError::APIError(error @ ClientWriteError::ChangeMembershipError(_))) => {
                unreachable!("a command changes no membership: {error}")
            }
        }
    }
}

fn failure(fatal: &openraft::error::Fatal<NodeId>) -> ControllerError {
    match fatal {
        openraft::error::Fatal::Stopped => ControllerError::Stopped,
        other => ControllerError::Failed(other.to_string()),
    }
}
