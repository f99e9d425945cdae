//! The replicated state machine: committed commands applied to the [`Image`], published as immutable snapshots.
//!
//! `snapshot` on disk is one frame: up to where it reaches, the quorum's members, the image. It is replaced atomically
//! and durably before the log that it covers is purged. Never: an image published that holds an uncommitted command; a
//! decision made here (that is [`gracchus_core::controller::apply`]).

use std::{
    io::{self, Cursor},
    path::{Path, PathBuf},
    sync::Arc,
};

use arc_swap::ArcSwap;
use bytes::Bytes;
use gracchus_core::controller::{Image, Response, apply};
use gracchus_env::Env;
use openraft::{
    AnyError, EntryPayload, OptionalSend, RaftSnapshotBuilder, StorageIOError, storage::RaftStateMachine,
};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use super::{
    OpenError, frame,
    raft_types::{Entry, LogId, Snapshot, SnapshotMeta, StorageError, StoredMembership, TypeConfig},
};
use gracchus_common::Handles;

/// The newest image, for everyone to load.
#[derive(Debug)]
pub(super) struct Published {
    image: ArcSwap<Image>,
    version: watch::Sender<u64>,
}

impl Published {
    pub(super) fn image(&self) -> Arc<Image> {
        self.image.load_full()
    }

    pub(super) fn watch(&self) -> watch::Receiver<u64> {
        self.version.subscribe()
    }
}

/// What is kept of the applied entries.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(super) struct State {
    pub(super) last_applied: Option<LogId>,
    pub(super) membership: StoredMembership,
    pub(super) image: Image,
}

/// Applies entries. Only openraft's state machine task has it.
pub(super) struct StateMachine {
    files: SnapshotFile,
    state: State,
    published: Arc<Published>,
}

impl StateMachine {
    /// Loads the snapshot in `directory`, if there is one.
    pub(super) async fn open(
        env: Arc<dyn Env>,
        handles: Arc<Handles>,
        directory: &Path,
    ) -> Result<StateMachine, OpenError> {
        let files = SnapshotFile { env, handles, path: directory.join("snapshot") };
        let state = match files.env.disk().read_all(&files.path).await? {
            Some(bytes) => {
                gracchus_env::moment!(METADATA_SNAPSHOT_READ);
                frame::decode(&bytes).map_err(|problem| OpenError::unreadable(&files.path, problem))?
            }
            None => State::default(),
        };
        let published = Published {
            image: ArcSwap::from_pointee(state.image.clone()),
            version: watch::Sender::new(state.last_applied.map_or(0, |id| id.index)),
        };
        Ok(StateMachine { files, state, published: Arc::new(published) })
    }

    pub(super) fn published(&self) -> Arc<Published> {
        self.published.clone()
    }

    /// The last entry that the state holds.
    pub(super) fn last_applied(&self) -> Option<LogId> {
        self.state.last_applied
    }

    fn publish(&self) {
        self.published.image.store(Arc::new(self.state.image.clone()));
        self.published.version.send_replace(self.state.last_applied.map_or(0, |id| id.index));
    }

    fn apply_entry(&mut self, entry: Entry) -> Option<Response> {
        self.state.last_applied = Some(entry.log_id);
        match entry.payload {
            EntryPayload::Blank => None,
            EntryPayload::Normal(command) => Some(apply(&mut self.state.image, &command)),
            EntryPayload::Membership(membership) => {
                self.state.membership = StoredMembership::new(Some(entry.log_id), membership);
                None
            }
        }
    }
}

impl RaftStateMachine<TypeConfig> for StateMachine {
    type SnapshotBuilder = SnapshotBuilder;

    async fn applied_state(&mut self) -> Result<(Option<LogId>, StoredMembership), StorageError> {
        Ok((self.state.last_applied, self.state.membership.clone()))
    }

    async fn apply<I>(&mut self, entries: I) -> Result<Vec<Option<Response>>, StorageError>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let responses = entries.into_iter().map(|entry| self.apply_entry(entry)).collect();
        // Before the responses leave: who was answered finds its change in the image.
        self.publish();
        Ok(responses)
    }

    async fn get_snapshot_builder(&mut self) -> SnapshotBuilder {
        SnapshotBuilder { files: self.files.clone(), state: self.state.clone() }
    }

    async fn begin_receiving_snapshot(&mut self) -> Result<Box<Cursor<Vec<u8>>>, StorageError> {
        Ok(Box::new(Cursor::new(Vec::new())))
    }

    async fn install_snapshot(
        &mut self,
        meta: &SnapshotMeta,
        snapshot: Box<Cursor<Vec<u8>>>,
    ) -> Result<(), StorageError> {
        let failed = |error: AnyError| StorageIOError::write_snapshot(Some(meta.signature()), error);
        gracchus_env::moment!(METADATA_SNAPSHOT_INSTALLED);
        let bytes = Bytes::from(snapshot.into_inner());
        let state: State = frame::decode(&bytes).map_err(|problem| failed(AnyError::error(problem)))?;
        assert_eq!(state.last_applied, meta.last_log_id, "a snapshot holds what its name says");
        self.files.replace(bytes).await.map_err(|error| failed(AnyError::new(&error)))?;
        self.state = state;
        self.publish();
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<Snapshot>, StorageError> {
        let read = async {
            let Some(bytes) = self.files.env.disk().read_all(&self.files.path).await? else {
                return Ok(None);
            };
            let state: State = frame::decode(&bytes).map_err(io::Error::other)?;
            Ok::<_, io::Error>(Some(snapshot(&state, bytes)))
        };
        read.await.map_err(|error| StorageIOError::read_snapshot(None, &error).into())
    }
}

/// Writes a snapshot of one state, while newer entries are being applied.
pub(super) struct SnapshotBuilder {
    files: SnapshotFile,
    state: State,
}

impl RaftSnapshotBuilder<TypeConfig> for SnapshotBuilder {
    async fn build_snapshot(&mut self) -> Result<Snapshot, StorageError> {
        let written = async {
            let bytes = frame::encode(&self.state)?;
            self.files.replace(bytes.clone()).await?;
            Ok::<_, io::Error>(snapshot(&self.state, bytes))
        };
        let written = written.await.inspect_err(|_| gracchus_env::moment!(METADATA_SNAPSHOT_FAILED));
        gracchus_env::moment!(METADATA_SNAPSHOT_BUILT);
        written.map_err(|error| StorageIOError::write_snapshot(None, &error).into())
    }
}

#[derive(Clone)]
struct SnapshotFile {
    env: Arc<dyn Env>,
    handles: Arc<Handles>,
    path: PathBuf,
}

impl SnapshotFile {
    async fn replace(&self, bytes: Bytes) -> io::Result<()> {
        let replace = || self.env.disk().replace(&self.path, bytes.clone());
        self.handles.patiently("the metadata snapshot", replace).await
    }
}

fn snapshot(state: &State, bytes: Bytes) -> Snapshot {
    let meta = SnapshotMeta {
        last_log_id: state.last_applied,
        last_membership: state.membership.clone(),
        // The state is a function of the log, so its end names the snapshot.
        snapshot_id: state.last_applied.map_or_else(|| "empty".to_owned(), |id| id.to_string()),
    };
    Snapshot { meta, snapshot: Box::new(Cursor::new(bytes.into())) }
}
