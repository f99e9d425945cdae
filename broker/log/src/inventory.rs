//! Which logs a directory holds, before anybody opens one, and what to do with those that nobody should open.
//!
//! Never: a guess. A directory whose name or `partition.metadata` does not read as a log's is left alone, and what its name
//! merely ends like is not removed.

use std::{
    collections::BTreeSet,
    io,
    path::{Path, PathBuf},
};

use gracchus_core::{TopicId, TopicPartition, controller::Image};

use super::{
    Fate, LogId, directory::LogDirectory, error::StorageError, names, partition_metadata, set_aside,
};

/// Whether the directory of the log's name is this very log's, as far as can be found out.
pub async fn holds(directory: &LogDirectory, log: &LogId) -> bool {
    matches!(holder(directory, &log.tp).await, Ok(Some(topic_id)) if topic_id == log.topic_id)
}

/// Whose log the directory of a partition is. `None`: there is none, or it was not finished.
pub async fn holder(directory: &LogDirectory, tp: &TopicPartition) -> Result<Option<TopicId>, StorageError> {
    let path = partition_metadata::path(&directory.path().join(tp.to_string()));
    let read = || directory.env().disk().read_all(&path);
    let contents = directory.handles().patiently("looking for a partition", read).await;
    let contents =
        contents.map_err(|error| directory.fail_of(&error, "looking for", format_args!(" {tp}")))?;
    let Some(contents) = contents else { return Ok(None) };
    partition_metadata::decode(&contents)
        .map(Some)
        .map_err(|why| StorageError::corrupt(format!("{}: {why}", path.display())))
}

/// The logs in `directory`, by their names and topic ids. Empty directories of logs that were being created are not
/// among them.
pub async fn logs(directory: &LogDirectory) -> Result<Vec<LogId>, StorageError> {
    let mut logs = Vec::new();
    for name in directories(directory).await? {
        let Some(tp) = names::partition(&name) else { continue };
        if let Some(topic_id) = understood(directory, &tp).await? {
            logs.push(LogId { tp, topic_id });
        }
    }
    Ok(logs)
}

/// What a start finds beside the logs that it will serve.
#[derive(Debug, Default)]
pub struct Leftovers {
    /// Directories of deleted logs that a stop kept from being removed.
    pub deleted: Vec<PathBuf>,
    /// How many logs of unknown topics were set aside.
    pub strays: usize,
}

/// Sets aside the logs in `directory` that belong to no partition in `image`, and says which deletions are not finished.
/// Deleted topics that the image still knows are not touched, nor are namesakes: whoever opens the log finds those.
/// The checkpoints say nothing more of logs that are neither here nor said to be here.
/// Costs one listing, and a look into each directory without a partition.
pub async fn tidy(directory: &LogDirectory, image: &Image) -> Result<Leftovers, StorageError> {
    let mut leftovers = Leftovers::default();
    let mut there = BTreeSet::new();
    for name in directories(directory).await? {
        if names::is_set_aside(&name, names::DELETED) {
            gracchus_env::moment!(DELETION_FOUND_AT_START);
            leftovers.deleted.push(directory.path().join(&name));
            continue;
        }
        let Some(tp) = names::partition(&name) else { continue };
        there.insert(tp.clone());
        if image.partition(&tp).is_some() {
            continue;
        }
        match understood(directory, &tp).await? {
            Some(topic_id) if !image.deleted.contains_key(&topic_id) => {
                set_aside_stray(directory, LogId { tp, topic_id }).await?;
                leftovers.strays += 1;
            }
            _ => {}
        }
    }
    directory.forget_others(image, &there);
    Ok(leftovers)
}

/// A log whose topic the metadata do not know, nor that it was deleted. It may be all that is left of a topic whose
/// metadata were lost: it is kept, under a name that is in nobody's way.
async fn set_aside_stray(directory: &LogDirectory, id: LogId) -> Result<(), StorageError> {
    let aside = set_aside(directory, &id, Fate::Stray).await?;
    tracing::warn!(
        log = %id,
        kept_as = %aside.display(),
        "a log of a topic that is not in the cluster metadata was set aside; remove it if it is not needed, or restore \
         the metadata that know its topic, and its name"
    );
    Ok(())
}

/// What is said of a log whose place under `path` one of topic `theirs` has. The metadata know nothing of that: most likely
/// the file is damaged and the log is the right one, so neither is touched.
pub fn of_another(path: &Path, theirs: TopicId, id: &LogId) -> String {
    format!(
        "{} belongs to topic id {theirs}, which the metadata do not know, and not to {}; if the log is the right one, put that \
         id into its partition.metadata; if it is not, move the directory away, and the partition begins empty",
        path.display(),
        id.topic_id
    )
}

/// Takes away the log `id` if the directory holds it; says under which name it waits for its removal.
pub async fn retire(directory: &LogDirectory, id: &LogId) -> Result<Option<PathBuf>, StorageError> {
    if holder(directory, &id.tp).await? == Some(id.topic_id) {
        Ok(Some(set_aside(directory, id, Fate::Deleted).await?))
    } else {
        Ok(None)
    }
}

/// The names of the directories in `directory`.
async fn directories(directory: &LogDirectory) -> Result<Vec<String>, StorageError> {
    let failed = |error: io::Error| directory.fail(&error, "listing the logs");
    let entries = directory.env().disk().list(directory.path()).await.map_err(failed)?;
    Ok(entries.into_iter().filter(|entry| entry.is_dir).map(|entry| entry.name).collect())
}

/// Like [`holder`]; a file that cannot be understood is no log of ours.
async fn understood(directory: &LogDirectory, tp: &TopicPartition) -> Result<Option<TopicId>, StorageError> {
    match holder(directory, tp).await {
        Err(StorageError::Corrupt(why)) => {
            gracchus_env::moment!(NO_LOG_OF_OURS);
            tracing::warn!(
                %why,
                "not a log of ours; leaving it alone. Move it out of the log directory to be rid of this \
                 line"
            );
            Ok(None)
        }
        other => other,
    }
}
