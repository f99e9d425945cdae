//! A look at the metadata on disk by somebody who must not touch them yet: whose they are.
//!
//! Never: a write, not even of what a start would put right.

use std::path::Path;

use gracchus_common::METADATA_DIRECTORY;
use gracchus_core::{TopicId, controller::Command};
use gracchus_env::Env;
use openraft::EntryPayload;

use super::{OpenError, frame, state_machine::State, store};

/// The cluster whose metadata lie in `log_dir`, as clients see its id; `None` if there are none yet.
///
/// # Errors
/// [`OpenError`] if they cannot be read: a start would fail over them, too.
pub async fn cluster_of(env: &dyn Env, log_dir: &Path) -> Result<Option<String>, OpenError> {
    let directory = log_dir.join(METADATA_DIRECTORY);
    let (log_path, snapshot_path) = (directory.join("log"), directory.join("snapshot"));
    let mut cluster = None;
    if let Some(bytes) = env.disk().read_all(&snapshot_path).await? {
        let state: State =
            frame::decode(&bytes).map_err(|problem| OpenError::unreadable(&snapshot_path, problem))?;
        cluster = state.image.cluster_id;
    }
    if let Some(bytes) = env.disk().read_all(&log_path).await? {
        let log = store::parse(&bytes).map_err(|problem| OpenError::unreadable(&log_path, problem))?;
        for entry in log.entries.values() {
            if let EntryPayload::Normal(Command::NameCluster { id }) = &entry.payload {
                cluster = cluster.or(Some(*id));
            }
        }
    }
    Ok(cluster.map(|id| TopicId(id).to_string()))
}
