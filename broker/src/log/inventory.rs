//! Which logs a directory holds, before anybody opens one.
//!
//! Never: a guess. A directory whose name or `partition.metadata` does not read as a log's is left alone.

use std::io;

use gracchus_env::Op;

use super::{LogId, directory::LogDirectory, error::StorageError, names, partition_metadata};

/// The logs in `directory`, by their names and topic ids. Empty directories of logs that were being created are not
/// among them.
pub async fn logs(directory: &LogDirectory) -> Result<Vec<LogId>, StorageError> {
    let failed = |error: io::Error| directory.fail(&error, "listing the logs");
    let disk = directory.env().disk();
    let mut logs = Vec::new();
    for entry in disk.list(directory.path()).await.map_err(failed)? {
        let Some(tp) = names::partition(&entry.name).filter(|_| entry.is_dir) else { continue };
        let path = partition_metadata::path(&directory.path().join(&entry.name));
        match disk
            .read_all(&path)
            .await
            .map_err(failed)?
            .map(|contents| partition_metadata::decode(&contents))
        {
            Some(Ok(topic_id)) => logs.push(LogId { tp, topic_id }),
            Some(Err(why)) => {
                tracing::warn!(path = %path.display(), why, "not a log of ours; leaving it alone")
            }
            None => {}
        }
    }
    Ok(logs)
}

/// Finishes deletions that a stop interrupted; returns how many.
pub async fn finish_deletions(directory: &LogDirectory) -> Result<usize, StorageError> {
    let failed = |error: io::Error| directory.fail(&error, "removing deleted logs");
    let disk = directory.env().disk();
    let entries = disk.list(directory.path()).await.map_err(failed)?;
    let doomed = entries.iter().filter(|entry| entry.is_dir && entry.name.ends_with(names::DELETED));
    let mut ops: Vec<Op> =
        doomed.map(|entry| Op::RemoveDir { path: directory.path().join(&entry.name) }).collect();
    let count = ops.len();
    if count > 0 {
        ops.push(Op::SyncDir { path: directory.path().to_path_buf() });
        disk.submit(ops).await.map_err(failed)?;
    }
    Ok(count)
}
