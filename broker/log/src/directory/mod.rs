//! One log directory: whose it is, what survived in it, whether it can be trusted, and how it is left.
//!
//! The order of a start is the safety of a start: identity, lock, clean marker read *and durably removed*, journal
//! replayed, checkpoints read; only then may anybody look at a log. The order of a clean stop is its mirror: logs
//! closed, segments synced, checkpoints replaced, journal emptied, marker written last.
//!
//! Never: anything written before it is known whose the directory is; a log looked at before the journal is replayed;
//! anything done after the first I/O error; a marker where there was none, left by a start that failed.

#[doc(hidden)]
pub mod fuzzing;
mod health;
mod identity;
mod marker;
mod meta;
#[cfg(test)]
mod pairs;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Display,
    io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, OnceLock},
    time::Duration,
};

use gracchus_common::{Handles, STOP_PATIENCE};
use gracchus_core::{BrokerId, Offset, TopicId, TopicPartition, controller::Image, properties};
use gracchus_env::{Env, FileLock, Op, is_out_of_handles};
use tokio::sync::{Semaphore, SemaphorePermit, watch};
use uuid::Uuid;

pub(crate) use self::health::Health;
pub use self::{
    identity::{Identity, identify},
    marker::{CleanLog, IndexEntries, SealedSegments},
};
pub use super::options::{DirectoryOptions, JournalOptions};
use super::{
    FileCache, Flusher, LogId, StorageError,
    checkpoint::Checkpoints,
    journal::{Replay, Replayed},
};

const LOCK: &str = ".lock";
/// Logs that are opened or closed at the same time: enough to keep disk and cores busy.
const TURNS: usize = 64;

/// Why a log directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Somebody else holds the lock.
    #[error("another process uses log directory {}", .0.display())]
    Locked(PathBuf),
    /// Written by a later version of this program.
    #[error("the log directory has format {found}; this version of Gracchus knows formats up to {known}")]
    NewerFormat {
        /// The version in the file.
        found: u32,
        /// The newest that we can read.
        known: u32,
    },
    /// It is not one of this program.
    #[error(
        "it {0}. Nothing in it was touched: Gracchus uses only a directory that is empty, or its own. Name another one, and \
         move records with a client"
    )]
    Foreign(String),
    /// The metadata that know its cluster are gone.
    #[error(
        "the log directory belongs to cluster {0}, whose metadata are not in metadata.log.dir. Nothing was touched: restore \
         them (the directory cluster-metadata), or name empty directories for a new cluster"
    )]
    NoMetadata(String),
    /// The same directory under another name, or a copy of it.
    #[error("it has the same directory.id as {}: it is the same directory under another name, or a copy of it", .0.display())]
    Twice(PathBuf),
    /// It belongs to another node.
    #[error("the log directory belongs to node {found}, not to node {wanted}")]
    WrongNode {
        /// `node.id` in the file.
        found: BrokerId,
        /// Ours.
        wanted: BrokerId,
    },
    /// It belongs to another cluster.
    #[error("the log directory belongs to cluster {found}, not to cluster {wanted}")]
    WrongCluster {
        /// `cluster.id` in the file.
        found: String,
        /// Ours.
        wanted: String,
    },
    /// It is to be used in a way that cannot work.
    #[error("the log directory's options cannot work: {0}")]
    Options(String),
    /// `meta.properties` makes no sense.
    #[error("meta.properties is damaged: {0}")]
    Meta(String),
    /// The disk failed.
    #[error("{what}: {error}")]
    Io {
        /// What was being done.
        what: String,
        /// The cause.
        error: io::Error,
    },
}

impl OpenError {
    pub(crate) fn io(what: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let what = what.into();
        move |error| Self::Io { what, error }
    }
}

/// A log directory in use by this process.
#[derive(Debug)]
pub struct LogDirectory {
    env: Arc<dyn Env>,
    path: PathBuf,
    options: DirectoryOptions,
    directory_id: Uuid,
    cluster_id: OnceLock<String>,
    was_clean: bool,
    health: Arc<Health>,
    checkpoints: Arc<Checkpoints>,
    flusher: Flusher,
    files: FileCache,
    handles: Arc<Handles>,
    /// Logs that need no recovery: those in the marker nobody has opened since, and those closed since.
    clean: Mutex<BTreeMap<LogId, CleanLog>>,
    /// Of logs that nobody has opened since.
    replayed: Mutex<Replayed>,
    skipped: Vec<LogId>,
    /// The journal lacked something that had been synced.
    damaged: bool,
    lock: Mutex<Option<FileLock>>,
    /// See [`LogDirectory::turn`].
    turns: Semaphore,
}

impl LogDirectory {
    /// Creates or takes over the directory `path`; see the module for the order of steps.
    pub async fn open(
        env: Arc<dyn Env>,
        path: PathBuf,
        options: DirectoryOptions,
    ) -> Result<Arc<LogDirectory>, OpenError> {
        identify(&*env, &path, &options, &[]).await?;
        let lock = lock(&*env, &path).await?;
        Self::open_locked(env, path, options, lock).await
    }

    /// The same for one that was identified and locked before.
    pub async fn open_locked(
        env: Arc<dyn Env>,
        path: PathBuf,
        options: DirectoryOptions,
        lock: FileLock,
    ) -> Result<Arc<LogDirectory>, OpenError> {
        let failed = |what: &str| OpenError::io(format!("{what} {}", path.display()));
        let meta = settle(&*env, &path, &options).await?;
        let clean = take_marker(&*env, &path).await.map_err(failed("cannot remove clean marker of"))?;
        match &clean {
            Some(_) => gracchus_env::moment!(DIRECTORY_LEFT_CLEAN),
            None => gracchus_env::moment!(DIRECTORY_LEFT_UNCLEAN),
        }
        let checkpoints =
            Checkpoints::read(&*env, &path).await.map_err(failed("cannot read checkpoints of"))?;
        let checkpoints = Arc::new(checkpoints);
        let health = Arc::new(Health::new());
        // Whoever wrote a checkpoint had a journal.
        let used = Checkpoints::exist(&*env, &path).await.map_err(failed("cannot look at checkpoints of"))?;
        let journal_expected = used && clean.is_none();
        let (flusher, Replay { replayed, skipped, damaged }) = Flusher::start(
            env.clone(),
            &path,
            &options,
            health.clone(),
            checkpoints.clone(),
            journal_expected,
        )
        .await?;
        Ok(Arc::new(LogDirectory {
            files: FileCache::new(env.clone(), options.open_files),
            handles: Handles::new(env.clone()),
            env,
            directory_id: meta.directory_id,
            cluster_id: meta.cluster_id.map(OnceLock::from).unwrap_or_default(),
            options: options.clone(),
            was_clean: clean.is_some(),
            health,
            checkpoints,
            flusher,
            replayed: Mutex::new(replayed),
            skipped,
            damaged,
            clean: Mutex::new(clean.unwrap_or_default()),
            lock: Mutex::new(Some(lock)),
            turns: Semaphore::new(TURNS),
            path,
        }))
    }

    /// Waits until a log may be opened or closed, and keeps the turn. Both need more file handles and memory for a moment:
    /// when a request names ten thousand partitions, or the broker stops, it is not done all at once.
    pub async fn turn(&self) -> SemaphorePermit<'_> {
        self.turns.acquire().await.expect("never closed")
    }

    /// The world that the directory lives in.
    pub fn env(&self) -> &Arc<dyn Env> {
        &self.env
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// `directory.id`: new for every directory that was ever created.
    pub fn directory_id(&self) -> Uuid {
        self.directory_id
    }

    /// `cluster.id`, where it is known.
    pub fn cluster_id(&self) -> Option<&str> {
        self.cluster_id.get().map(String::as_str)
    }

    /// It belongs to cluster `id` from now on.
    ///
    /// # Errors
    /// [`OpenError::WrongCluster`] if it belongs to another one.
    pub async fn adopt(&self, id: &str) -> Result<(), OpenError> {
        let options = DirectoryOptions { cluster_id: Some(id.to_owned()), ..self.options.clone() };
        settle(&*self.env, &self.path, &options).await?;
        let _ = self.cluster_id.set(id.to_owned());
        Ok(())
    }

    /// Whether the last stop was clean: nothing that was acknowledged or even written can be missing.
    pub fn was_clean(&self) -> bool {
        self.was_clean
    }

    /// Open handles of sealed segments.
    pub fn files(&self) -> &FileCache {
        &self.files
    }

    /// How long its logs wait for file handles.
    pub fn handles(&self) -> &Handles {
        &self.handles
    }

    /// The broker stops: whatever waits for a file handle waits no longer than `patience` from now on, and the flusher no
    /// longer than twice that: with what the logs let go it may still leave all in order.
    pub fn give_up_waiting(&self, patience: Duration) {
        self.handles.give_up_within(patience);
        self.flusher.handles().give_up_within(patience * 2);
    }

    /// What makes appends durable.
    pub fn flusher(&self) -> &Flusher {
        &self.flusher
    }

    /// Everything below it was synced in place: recovery may begin there. `None`: begin at the log start. May exceed
    /// the log end if the log lost files; then it says nothing.
    pub fn recovery_point(&self, id: &LogId) -> Option<Offset> {
        self.checkpoints.recovery_point(&id.tp)
    }

    /// The log start at the last checkpoint.
    pub fn log_start(&self, id: &LogId) -> Option<Offset> {
        self.checkpoints.log_start(&id.tp)
    }

    /// Remembers the log start for the next checkpoint (see [`Flusher::checkpoint`] for "now").
    pub fn set_log_start(&self, id: &LogId, log_start: Offset) {
        self.checkpoints.set_log_start(&id.tp, log_start);
    }

    /// There is no log of this name here. What the checkpoints say of an earlier one must not be believed of the next:
    /// they say nothing any more when this returns, durably.
    pub async fn disown(&self, tp: &TopicPartition) -> Result<(), StorageError> {
        if self.checkpoints.recovery_point(tp).is_none() && self.checkpoints.log_start(tp).is_none() {
            return Ok(());
        }
        self.checkpoints.remove(tp);
        self.flusher.checkpoint().await
    }

    /// A log whose start was kept elsewhere is here from now on. What the checkpoints here say of its name is of another
    /// log, or of an earlier time; it begins at `log_start` and is to be checked from there on. Durable when this returns;
    /// a power loss before leaves what was, or what is to be.
    pub async fn take_over(
        &self,
        tp: &TopicPartition,
        log_start: Option<Offset>,
    ) -> Result<(), StorageError> {
        self.checkpoints.remove(tp);
        if let Some(log_start) = log_start {
            self.checkpoints.set_log_start(tp, log_start);
        }
        self.flusher.checkpoint().await
    }

    /// Forgets what the checkpoints say of logs that are not `there`, unless the metadata say that they are here: those
    /// were moved by hand, and whoever opens them asks for it.
    pub(crate) fn forget_others(&self, image: &Image, there: &BTreeSet<TopicPartition>) {
        let is_here = |tp: &TopicPartition| {
            let partition = image.partition(tp);
            partition.is_some_and(|it| it.directory_of(self.options.node_id) == self.directory_id)
        };
        self.checkpoints.retain(|tp| there.contains(tp) || is_here(tp));
    }

    /// Logs of which the journal had something, and that were not in the directory any more.
    pub fn skipped(&self) -> &[LogId] {
        &self.skipped
    }

    /// Whether records may be missing from any log that was not closed in order: the journal that held them was damaged,
    /// and the operator wanted to start without.
    pub(crate) fn is_damaged(&self) -> bool {
        self.damaged
    }

    /// Whether the log was closed in order and not touched since.
    pub fn is_left_clean(&self, id: &LogId) -> bool {
        self.clean().contains_key(id)
    }

    /// How the log was left, if it was closed in order and not touched since. Gives it away: from now on the log counts
    /// as open, and needs recovery unless [`Self::closed`] is called.
    pub fn take_clean(&self, id: &LogId) -> Option<CleanLog> {
        self.clean().remove(id)
    }

    /// Up to where (segment and position) everything of the log was on disk when the last process ended, if the journal
    /// knows. Gives it away: nobody but the first to open the log has a use for it.
    pub(crate) fn take_replayed(&self, id: &LogId) -> Option<(Offset, u64)> {
        self.replayed.lock().expect("nobody panics while holding it").remove(id)
    }

    /// What [`Self::take_clean`] and [`Self::take_replayed`] gave away, for a log that was not opened after all.
    pub(crate) fn give_back(&self, id: &LogId, clean: Option<CleanLog>, replayed: Option<(Offset, u64)>) {
        clean.map(|clean| self.clean().insert(id.clone(), clean));
        let mut known = self.replayed.lock().expect("nobody panics while holding it");
        replayed.map(|replayed| known.insert(id.clone(), replayed));
    }

    /// The log was closed in order: all its files are synced.
    pub fn closed(&self, id: &LogId, log: CleanLog) {
        self.checkpoints.set_log_start(&id.tp, log.log_start);
        self.checkpoints.raise_recovery_point(&id.tp, log.log_end);
        self.clean().insert(id.clone(), log);
    }

    fn clean(&self) -> MutexGuard<'_, BTreeMap<LogId, CleanLog>> {
        self.clean.lock().expect("nobody panics while holding it")
    }

    /// Why the directory is offline, if it is.
    pub fn offline(&self) -> Option<Arc<str>> {
        self.health.offline()
    }

    /// Tells when the directory goes offline.
    pub fn watch_offline(&self) -> watch::Receiver<Option<Arc<str>>> {
        self.health.watch()
    }

    /// Takes the directory offline because `what` ended in `error`. The first error stands. Only a lack of file handles
    /// is not the disk's fault and leaves it online.
    pub fn fail(&self, error: &io::Error, what: &str) -> StorageError {
        self.fail_of(error, what, "")
    }

    /// The same where `what` is of something: the log says both.
    pub fn fail_of(&self, error: &io::Error, what: &str, of: impl Display) -> StorageError {
        let whole = format!("{what}{of}");
        if is_out_of_handles(error) {
            gracchus_env::moment!(OUT_OF_HANDLES, what);
            return StorageError::Exhausted(whole.into());
        }
        gracchus_env::moment!(DISK_FAILED, what);
        self.health.fail(error, &whole)
    }

    /// Leaves the directory so that the next start reads nothing but a summary. All logs are closed by now; those that
    /// are not will be recovered. Offline, it only lets go.
    pub async fn close(&self) {
        self.leave(true).await;
    }

    /// Leaves the directory after a start that did not succeed: as clean as it was found, and no cleaner. Nobody has opened
    /// a log.
    pub async fn give_up(&self) {
        self.leave(self.was_clean).await;
    }

    async fn leave(&self, clean: bool) {
        self.give_up_waiting(STOP_PATIENCE);
        let left = match self.flusher.close().await {
            Ok(()) if clean => self.write_marker().await,
            result => result,
        };
        if let Err(StorageError::Exhausted(what)) = left {
            gracchus_env::moment!(DIRECTORY_LEFT_FOR_WANT_OF_HANDLES);
            tracing::warn!(
                "log directory {} is left as it is, for the next start to recover: no file handle was left for {what}; let \
                 the process open more files (ulimit -n, LimitNOFILE)",
                self.path.display()
            );
        }
        *self.lock.lock().expect("nobody panics while holding it") = None;
    }

    async fn write_marker(&self) -> Result<(), StorageError> {
        let (path, contents) = (self.path.join(marker::FILE), marker::encode(&self.clean()));
        let write = || self.env.disk().replace(&path, contents.clone());
        let written = self.flusher.handles().patiently("the marker of a clean stop", write).await;
        written.map_err(|error| self.fail(&error, "cannot write clean marker"))
    }
}

/// Creates `path` with its parents, every new name durable.
async fn create(env: &dyn Env, path: &Path) -> io::Result<()> {
    let mut ops = vec![Op::CreateDir { path: path.to_owned() }];
    for directory in path.ancestors().take_while(|path| !path.as_os_str().is_empty()) {
        let parent = directory.parent().filter(|parent| !parent.as_os_str().is_empty());
        ops.push(Op::SyncDir { path: parent.unwrap_or(Path::new(".")).to_owned() });
        match env.disk().list(directory).await {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            // The name of what exists already may still not be durable, so one more than is missing was synced.
            _ => break,
        }
    }
    env.disk().submit(ops).await
}

/// Makes the directory, durably, and takes its lock. Only for one that was identified.
pub async fn lock(env: &dyn Env, path: &Path) -> Result<FileLock, OpenError> {
    let failed = |what: &str| OpenError::io(format!("{what} {}", path.display()));
    create(env, path).await.map_err(failed("cannot create directory"))?;
    match env.disk().lock(&path.join(LOCK)).await {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Err(OpenError::Locked(path.to_owned())),
        result => result.map_err(failed("cannot lock directory")),
    }
}

/// Says in the directory whose it is, where it does not say so yet. Only for one that was identified and locked.
pub async fn settle(env: &dyn Env, path: &Path, options: &DirectoryOptions) -> Result<Settled, OpenError> {
    let file = path.join(meta::FILE);
    let failed = |what: &str| OpenError::io(format!("{what} {}", file.display()));
    let contents = env.disk().read_all(&file).await.map_err(failed("cannot read"))?;
    let is_new = contents.is_none();
    let (mut meta, mut changed) = match contents {
        Some(contents) => {
            let meta = meta::Meta::parse(&properties::decode(&contents), options)?;
            let earlier = meta.is_of_earlier_format();
            (meta, earlier)
        }
        None => {
            let id = Uuid::from_u64_pair(env.random(), env.random());
            (meta::Meta::new(options, id), true)
        }
    };
    if meta.cluster_id.is_none() && options.cluster_id.is_some() {
        meta.cluster_id.clone_from(&options.cluster_id);
        changed = true;
    }
    if changed {
        env.disk().replace(&file, meta.encode().into()).await.map_err(failed("cannot write"))?;
    }
    if is_new {
        gracchus_env::moment!(DIRECTORY_NEW);
        tracing::info!(path = %path.display(), id = %TopicId(meta.directory_id), "log directory is now ours");
    }
    Ok(Settled { directory_id: meta.directory_id, cluster_id: meta.cluster_id })
}

/// Who a directory is from now on.
#[derive(Debug)]
pub struct Settled {
    directory_id: Uuid,
    cluster_id: Option<String>,
}

/// What the marker says, if there is one; after this it is gone for good. Everything else that is read later is then
/// really there, too: a process that was killed may have left names behind that a power loss would take back, the
/// marker's removal among them.
async fn take_marker(env: &dyn Env, path: &Path) -> io::Result<Option<BTreeMap<LogId, CleanLog>>> {
    let file = path.join(marker::FILE);
    let contents = env.disk().read_all(&file).await?;
    let remove = contents.is_some().then_some(Op::RemoveFile { path: file });
    let sync = Op::SyncDir { path: path.to_owned() };
    env.disk().submit(remove.into_iter().chain([sync]).collect()).await?;
    Ok(contents.and_then(|contents| marker::decode(&contents)))
}
