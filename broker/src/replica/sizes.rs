//! How many bytes the logs of a directory take, for those who look after disks.
//!
//! Logs that are open say so themselves; of the others the files are looked at, and none is opened for it.

use std::sync::Arc;

use gracchus_core::{TopicPartition, controller::Image};

use super::{ReplicaManager, view::Status};
use gracchus_log::LogDirectory;

/// A log directory, as an answer to DescribeLogDirs has it.
#[derive(Debug)]
pub struct DirectorySizes {
    /// Where it is.
    pub path: String,
    /// `None`: it is offline.
    pub logs: Option<Vec<(TopicPartition, u64)>>,
    /// Bytes of the file system: all of them and those that are free; `None` where nobody knows.
    pub space: Option<(u64, u64)>,
}

impl ReplicaManager {
    /// All of `log.dirs`, with the logs that `wanted` picks, by topic and partition.
    pub async fn sizes(&self, wanted: impl Fn(&TopicPartition) -> bool) -> Vec<DirectorySizes> {
        let image = self.image();
        let mut sizes = Vec::new();
        for directory in self.directories() {
            let path = directory.path().display().to_string();
            if directory.offline().is_some() {
                sizes.push(DirectorySizes { path, logs: None, space: None });
                continue;
            }
            let usage = directory.env().disk().usage(directory.path()).await;
            let logs = Some(self.sizes_in(&image, directory, &wanted).await);
            sizes.push(DirectorySizes { path, logs, space: usage.ok() });
        }
        let missing = self.missing().iter().map(|path| path.display().to_string());
        sizes.extend(missing.map(|path| DirectorySizes { path, logs: None, space: None }));
        sizes
    }

    async fn sizes_in(
        &self,
        image: &Image,
        directory: &Arc<LogDirectory>,
        wanted: &impl Fn(&TopicPartition) -> bool,
    ) -> Vec<(TopicPartition, u64)> {
        let mut sizes = Vec::new();
        for of in image.topics.replicas_in(self.node(), directory.directory_id()) {
            let tp = of.topic_partition();
            if !wanted(&tp) {
                continue;
            }
            let handle = self.replicas.started(of.topic.id, of.index);
            let open = handle.and_then(|replica| match &*replica.status.borrow() {
                Status::Open(view) => Some(view.log.bytes()),
                _ => None,
            });
            let bytes = match open {
                Some(bytes) => bytes,
                None => closed(directory, &tp).await,
            };
            sizes.push((tp, bytes));
        }
        sizes
    }
}

/// Bytes of the segments of a log that is not open; none if nothing was ever asked of it, for then it is not made yet.
async fn closed(directory: &LogDirectory, tp: &TopicPartition) -> u64 {
    let entries =
        directory.env().disk().list(&directory.path().join(tp.to_string())).await.unwrap_or_default();
    let segments = entries.iter().filter(|entry| !entry.is_dir && entry.name.ends_with(".log"));
    segments.map(|segment| segment.length).sum()
}
