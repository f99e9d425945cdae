//! Removing the directories of deleted logs, later: readers that are still busy with them, and people who change their
//! mind, have `file.delete.delay.ms`.
//!
//! One task for all of them, so that a thousand partitions are no thousand timers, and no more than one I/O thread is
//! ever busy with it. What a stop leaves is found by the next start ([`super::inventory::tidy`]).
//!
//! Never: a name that a log could have; an error that takes a log directory offline, for nothing depends on this.

use std::{collections::BTreeMap, io, path::PathBuf, sync::Arc};

use gracchus_env::{Env, Instant, Op, Task, spawn};
use tokio::sync::mpsc;

/// The handle of the task.
#[derive(Debug)]
pub struct Remover {
    doomed: mpsc::UnboundedSender<(Instant, PathBuf)>,
    task: Task,
}

impl Remover {
    pub fn start(env: &Arc<dyn Env>) -> Self {
        let (doomed, incoming) = mpsc::unbounded_channel();
        let task = spawn(&**env, "remover", run(env.clone(), incoming)).detach();
        Self { doomed, task }
    }

    /// Removes `path` at `due`, or soon after.
    pub fn remove(&self, due: Instant, path: PathBuf) {
        // The task ends with the broker only; then the next start finds the directory.
        let _ = self.doomed.send((due, path));
    }

    pub fn stop(&self) {
        self.task.abort();
    }
}

async fn run(env: Arc<dyn Env>, mut incoming: mpsc::UnboundedReceiver<(Instant, PathBuf)>) {
    let mut waiting: BTreeMap<(Instant, u64), PathBuf> = BTreeMap::new();
    let mut number = 0;
    loop {
        let next = waiting.keys().next().map(|(due, _)| *due);
        let due = async {
            match next {
                Some(due) => env.sleep_until(due).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            doomed = incoming.recv() => {
                let Some((due, path)) = doomed else { return };
                number += 1;
                waiting.insert((due, number), path);
            }
            () = due => {
                if let Some((_, path)) = waiting.pop_first() {
                    remove(&*env, path).await;
                }
            }
        }
    }
}

async fn remove(env: &dyn Env, path: PathBuf) {
    match env.disk().submit(vec![Op::RemoveDir { path: path.clone() }]).await {
        Ok(()) => {
            gracchus_env::moment!(DELETED_LOG_REMOVED);
            tracing::debug!(path = %path.display(), "removed a deleted log");
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => {
            gracchus_env::moment!(DELETED_LOG_NOT_REMOVED);
            tracing::warn!(
                path = %path.display(),
                %error,
                "the directory of a deleted log could not be removed; remove it by hand, or restart the broker to try again"
            );
        }
    }
}
