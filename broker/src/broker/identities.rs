//! Whose the directories of a start are. All of them are looked at, and only looked at, before anything is done to one.
//!
//! They must be ours or nobody's yet, and of one cluster: that whose metadata lie in `metadata.log.dir`. A start that
//! finds a single one that is not refuses, and has left no trace in the others either.
//!
//! Never: a write.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use gracchus_env::Env;
use gracchus_log::{self as log, Identity, OpenError};
use uuid::Uuid;

use super::{StartError, directories::is_disk};
use crate::config::BrokerConfig;

/// What the directories of a start are.
pub(super) struct Identities {
    /// Those that can be used, in the order in which they are to be locked: a lock that is held refuses the start, so those
    /// that have been used before come first and the ones that a lock would bring into being last.
    pub(super) usable: Vec<PathBuf>,
    /// Those of `log.dirs` that the disk does not show.
    pub(super) unreadable: Vec<(PathBuf, OpenError)>,
    /// The cluster that `metadata.log.dir` knows.
    pub(super) cluster_id: Option<String>,
}

/// Looks at all directories of `config`.
pub(super) async fn look(env: &dyn Env, config: &BrokerConfig) -> Result<Identities, StartError> {
    let metadata = &config.metadata_log_dir;
    let mut paths = vec![metadata.clone()];
    paths.extend(config.log_dirs.iter().filter(|path| *path != metadata).cloned());
    let mut found = BTreeMap::new();
    let mut unreadable = Vec::new();
    for path in &paths {
        match log::identify(env, path, &config.directory, &paths).await {
            Ok(identity) => _ = found.insert(path.clone(), identity),
            Err(error) if is_disk(&error) && path != metadata => unreadable.push((path.clone(), error)),
            Err(error) => return Err(refused(config, path, error)),
        }
    }
    let cluster =
        gracchus_quorum::cluster_of(env, metadata).await.map_err(gracchus_quorum::StartError::from)?;
    agree(&found, cluster.as_deref()).map_err(|(path, error)| refused(config, &path, error))?;
    let (new, used): (Vec<_>, Vec<_>) = paths
        .into_iter()
        .filter(|path| found.contains_key(path))
        .partition(|path| found[path] == Identity::New);
    Ok(Identities { usable: used.into_iter().chain(new).collect(), unreadable, cluster_id: cluster })
}

/// Whether all are of the cluster that the metadata know, and each is another.
fn agree(found: &BTreeMap<PathBuf, Identity>, cluster: Option<&str>) -> Result<(), (PathBuf, OpenError)> {
    let mut seen: BTreeMap<Uuid, &PathBuf> = BTreeMap::new();
    for (path, identity) in found {
        let problem = match (identity.cluster_id(), cluster) {
            (Some(found), Some(wanted)) if found != wanted => {
                Some(OpenError::WrongCluster { found: found.to_owned(), wanted: wanted.to_owned() })
            }
            (Some(found), None) => Some(OpenError::NoMetadata(found.to_owned())),
            _ => None,
        };
        if let Some(problem) = problem {
            return Err((path.clone(), problem));
        }
        if let Identity::Ours { directory_id, .. } = identity
            && let Some(other) = seen.insert(*directory_id, path)
        {
            return Err((path.clone(), OpenError::Twice(other.clone())));
        }
    }
    Ok(())
}

/// The error of a start that ends at `path`.
pub(super) fn refused(config: &BrokerConfig, path: &Path, error: OpenError) -> StartError {
    let path = path.to_owned();
    match error {
        error if !config.log_dirs.contains(&path) => StartError::MetadataDirectory { path, error },
        OpenError::Locked(path) => StartError::InUse(path),
        error if is_disk(&error) && path == config.metadata_log_dir && config.log_dirs.len() > 1 => {
            StartError::WithMetadata { path, error }
        }
        error => StartError::Directory { path, error },
    }
}
