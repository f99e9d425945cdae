//! Which log directory holds a partition: the one that the metadata name, the one that its log was moved to by hand, or, where
//! nobody has said, one that has room.
//!
//! Never: a second log of a partition whose first one may lie in a directory that is not there.

use std::{io, sync::Arc};

use gracchus_core::{
    TopicPartition,
    controller::{Command, Located},
};
use gracchus_env::{Env, Open, is_out_of_handles};
use gracchus_log::{LogDirectory, LogId, StorageError, inventory};
use uuid::Uuid;

use super::{
    deletion::{self, Way},
    manager::ReplicaManager,
};

impl ReplicaManager {
    /// Where the log is, or is to be, with nothing else in its place; or why there is no way to it.
    pub(super) async fn place(&self, id: LogId, assigned: Uuid) -> Result<Arc<LogDirectory>, Way> {
        let way = self.deletions.make_way(&self.controller, &id).await;
        if way != Way::Free {
            return Err(way);
        }
        let found = self.directories.iter().find(|directory| directory.directory_id() == assigned);
        let directory = match found {
            Some(directory) => self.moved(&id, directory).await?.unwrap_or(directory).clone(),
            // Nobody has said which.
            None => place(&*self.env, &self.directories, &id.tp).await?,
        };
        match deletion::clear_place(self, &directory, &id).await {
            // Opening the log finds out the same and says it.
            Ok(()) | Err(StorageError::Corrupt(_)) => {}
            Err(error) => tracing::warn!(
                log = %id,
                %error,
                "the place of a log cannot be cleared; the partition is served when it can: check the \
                 rights and the disk"
            ),
        }
        Ok(directory)
    }

    /// Another directory than `assigned` that holds the log: it was moved by hand while the broker was stopped. It takes
    /// the log start along, then the metadata are told, and only then may the log be opened.
    ///
    /// A power loss before the metadata know leaves the checkpoint of `assigned` as it was, and the log as it was: all of
    /// this is done again. One after that leaves at most entries in `assigned` that the next start drops.
    async fn moved(
        &self,
        id: &LogId,
        assigned: &Arc<LogDirectory>,
    ) -> Result<Option<&Arc<LogDirectory>>, Way> {
        if self.directories.len() == 1 || assigned.offline().is_some() || inventory::holds(assigned, id).await
        {
            return Ok(None);
        }
        for other in self.directories.iter().filter(|other| !Arc::ptr_eq(other, assigned)) {
            if other.offline().is_none() && inventory::holds(other, id).await {
                gracchus_env::moment!(LOG_MOVED);
                tracing::info!(log = %id, directory = %other.path().display(), "a log was moved to another directory");
                let directory = other.directory_id();
                let located = vec![Located { topic: id.topic_id, partition: id.tp.partition, directory }];
                // Where this fails, so will the opening of the log.
                if other.take_over(&id.tp, assigned.log_start(id)).await.is_ok() {
                    let locate = Command::Locate { broker: self.node, located };
                    if let Err(error) = self.controller.submit(locate).await {
                        tracing::warn!(
                            log = %id,
                            %error,
                            "the metadata cannot take in where a log was moved to; it is served when the broker was \
                             started anew"
                        );
                        return Err(Way::Stopping);
                    }
                    // Of a directory that is offline by now nobody asks anything.
                    let _ = assigned.disown(&id.tp).await;
                }
                return Ok(Some(other));
            }
        }
        Ok(None)
    }
}

/// The directory that already holds the partition, else the one with the fewest partitions. While it may be in a
/// directory that is offline, that one: a second log elsewhere would give its offsets once more.
async fn place(
    env: &dyn Env,
    directories: &[Arc<LogDirectory>],
    tp: &TopicPartition,
) -> Result<Arc<LogDirectory>, Way> {
    let mut emptiest: Option<(usize, &Arc<LogDirectory>)> = None;
    let mut unknown = None;
    if directories.len() > 1 {
        for directory in directories {
            let metadata = directory.path().join(tp.to_string()).join("partition.metadata");
            // Only a look tells where the log is; without one it could come into being a second time.
            let look = || env.disk().open(&metadata, Open::Existing);
            match directory.handles().patiently("looking for a partition", look).await {
                Ok(_) => return Ok(directory.clone()),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                // Only while the broker stops.
                Err(error) if is_out_of_handles(&error) => return Err(Way::Stopping),
                Err(error) => {
                    drop(directory.fail_of(&error, "looking for a place for", format_args!(" {tp}")))
                }
            }
            if directory.offline().is_some() {
                gracchus_env::moment!(PLACE_UNKNOWN);
                unknown = unknown.or(Some(directory));
                continue;
            }
            let held = env.disk().list(directory.path()).await.map_or(usize::MAX, |names| names.len());
            if emptiest.is_none_or(|(fewest, _)| held < fewest) {
                emptiest = Some((held, directory));
            }
        }
    }
    let emptiest = emptiest.map_or(&directories[0], |(_, directory)| directory);
    Ok(unknown.unwrap_or(emptiest).clone())
}
