//! The log directories of a start: which of them can be used, and which partitions are in which.
//!
//! As in Kafka one directory of several that cannot be opened does not stop the broker; its partitions are offline. The
//! metadata know the directory of every replica by its identity, so that an empty directory in the place of another one
//! gets none of its partitions: those stay offline until the directory is restored or the topic deleted.
//!
//! Never: an empty log in the place of one that may hold acknowledged records.

use std::{collections::BTreeMap, path::PathBuf, sync::Arc};

use gracchus_core::{
    BrokerId, TopicId, TopicPartition,
    controller::{Image, Located, choose_directory, directory},
};
use gracchus_env::{Env, is_out_of_handles};
use gracchus_log::{self as log, DirectoryOptions, LogId, inventory};
use gracchus_quorum::Controller;
use uuid::Uuid;

use super::{
    Base, StartError,
    identities::{self, Identities},
    open_directory, start_controller, watch_health,
};
use crate::config::BrokerConfig;

/// Opens directories and metadata; what is open is in `base`, also after an error.
pub(super) async fn open(
    env: &Arc<dyn Env>,
    config: &BrokerConfig,
    identities: Identities,
    base: &mut Base,
) -> Result<Arc<Controller>, StartError> {
    let Identities { usable, unreadable, cluster_id } = identities;
    let metadata = &config.metadata_log_dir;
    let mut refused = None;
    for (path, error) in unreadable {
        refused = Some(base.does_without(path, error));
    }
    // All locks before the first write: a directory that another process uses refuses the start.
    let mut locks = BTreeMap::new();
    for path in usable {
        match log::lock(&**env, &path).await {
            Ok(lock) => _ = locks.insert(path, lock),
            Err(error) if is_disk(&error) && path != *metadata => {
                refused = Some(base.does_without(path, error));
            }
            Err(error) => return Err(identities::refused(config, &path, error)),
        }
    }
    // Without the one that holds the metadata nothing can be served; its lock guards them, too.
    let lock = locks.remove(metadata).expect("identified and locked");
    if config.log_dirs.contains(metadata) {
        base.directories.push(open_directory(env, config, metadata, cluster_id, lock).await?);
    } else {
        base.metadata_lock = Some(lock);
        settle_metadata(env, config, cluster_id).await?;
    }
    let controller = start_controller(env, config).await?;
    base.controller = Some(controller.clone());
    let cluster = controller.cluster_id();
    match base.directories.first() {
        Some(directory) => {
            let adopted = directory.adopt(&cluster).await;
            adopted.map_err(|error| identities::refused(config, directory.path(), error))?;
        }
        None => settle_metadata(env, config, Some(cluster.clone())).await?,
    }
    for path in config.log_dirs.iter() {
        let Some(lock) = locks.remove(path) else { continue };
        match open_directory(env, config, path, Some(cluster.clone()), lock).await {
            Ok(directory) => base.directories.push(directory),
            Err(StartError::Directory { path, error }) if is_disk(&error) => {
                refused = Some(base.does_without(path, error));
            }
            Err(error) => return Err(error),
        }
    }
    if let (true, Some(error)) = (base.directories.is_empty(), refused) {
        return Err(error);
    }
    let place = |path: &PathBuf| config.log_dirs.iter().position(|other| other == path);
    base.directories.sort_by_key(|directory| place(&directory.path().to_owned()));
    watch_health(env, config.node_id, &base.directories, &controller);
    Ok(controller)
}

impl Base {
    /// The start goes on without a log directory; the error is for the case that there is no other.
    fn does_without(&mut self, path: PathBuf, error: log::OpenError) -> StartError {
        tracing::error!(
            path = %path.display(),
            %error,
            "log directory cannot be used; its partitions are offline until it can and the broker is started again"
        );
        gracchus_env::moment!(START_WITHOUT_A_DIRECTORY);
        self.missing.push(path.clone());
        StartError::Directory { path, error }
    }
}

/// Says in a metadata directory of its own whose it is.
async fn settle_metadata(
    env: &Arc<dyn Env>,
    config: &BrokerConfig,
    cluster_id: Option<String>,
) -> Result<(), StartError> {
    let path = &config.metadata_log_dir;
    let options = DirectoryOptions { cluster_id, ..config.directory.clone() };
    let settled = log::settle(&**env, path, &options).await;
    settled.map(drop).map_err(|error| identities::refused(config, path, error))
}

/// Whether the disk is to blame, not what is configured.
pub(super) fn is_disk(error: &log::OpenError) -> bool {
    matches!(error, log::OpenError::Io { error, .. } if !is_out_of_handles(error))
}

/// Finds the replicas of `node` whose directory the metadata do not know, or that are not where the metadata say. Costs
/// a look into the open directories for each of those, and nothing for the others.
pub(super) async fn locate(node: BrokerId, image: &Image, base: &Base) -> Vec<Located> {
    let open: Vec<Uuid> = base.directories.iter().map(|directory| directory.directory_id()).collect();
    // Whether every directory is there that a log of this node is known to be in.
    let is_there = |id: Uuid| open.contains(&id) || [directory::UNASSIGNED, directory::LOST].contains(&id);
    let complete = base.missing.is_empty() && image.topics.directories_of(node).all(is_there);
    let mut located = Vec::new();
    let mut lost: BTreeMap<Uuid, Lost> = BTreeMap::new();
    for wanted in image.topics.directories_of(node).filter(|directory| !open.contains(directory)) {
        for of in image.topics.replicas_in(node, wanted) {
            let (topic, index, tp) = (of.topic, of.index, of.topic_partition());
            // Lost is what was undecided while a directory was away: where none is away and none holds it, it never was.
            let undecided = wanted == directory::UNASSIGNED || (wanted == directory::LOST && complete);
            let found = match &open[..] {
                [only] if wanted == directory::UNASSIGNED && base.missing.is_empty() => Some(*only),
                _ => find(base, &tp, topic.id).await,
            };
            let found = found.or_else(|| match undecided {
                // It may be in one of those that cannot be opened.
                true if !base.missing.is_empty() => Some(directory::LOST),
                true => Some(choose_directory(&open, topic.id, index)),
                false => None,
            });
            match found {
                Some(directory) => located.push(Located { topic: topic.id, partition: index, directory }),
                None => {
                    lost.entry(wanted).or_insert_with(|| Lost { example: tp, partitions: 0 }).partitions += 1
                }
            }
        }
    }
    for (directory, Lost { example, partitions }) in lost {
        gracchus_env::moment!(PARTITIONS_OF_A_LOST_DIRECTORY);
        tracing::error!(
            directory = %TopicId(directory),
            partitions,
            %example,
            "partitions are offline: the log directory with this directory.id (see its meta.properties) is not among \
             log.dirs or cannot be opened. Restore it and start again, or delete the topics; an empty directory in its \
             place is not filled with empty logs"
        );
    }
    located
}

/// Partitions whose directory is not there.
struct Lost {
    example: TopicPartition,
    partitions: usize,
}

/// The open directory that holds the log.
async fn find(base: &Base, tp: &TopicPartition, topic_id: TopicId) -> Option<Uuid> {
    let log = LogId { tp: tp.clone(), topic_id };
    for directory in &base.directories {
        if inventory::holds(directory, &log).await {
            return Some(directory.directory_id());
        }
    }
    None
}
