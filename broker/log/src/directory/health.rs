//! Whether a log directory can be trusted. The first I/O error ends that for the life of the process.
//!
//! Never: a way back online; a second error that replaces the first.

use std::{io, sync::Arc};

use tokio::sync::watch;

use super::super::StorageError;

/// The state of one directory, shared by its logs, its flusher and whoever watches it.
#[derive(Debug)]
pub(crate) struct Health {
    offline: watch::Sender<Option<Arc<str>>>,
}

impl Health {
    pub(crate) fn new() -> Self {
        Self { offline: watch::Sender::new(None) }
    }

    /// Why the directory is offline, if it is.
    pub(crate) fn offline(&self) -> Option<Arc<str>> {
        self.offline.borrow().clone()
    }

    pub(crate) fn check(&self) -> Result<(), StorageError> {
        match &*self.offline.borrow() {
            Some(reason) => Err(StorageError::Offline(reason.clone())),
            None => Ok(()),
        }
    }

    pub(crate) fn watch(&self) -> watch::Receiver<Option<Arc<str>>> {
        self.offline.subscribe()
    }

    /// Takes the directory offline unless it already is; returns the reason that stands.
    pub(crate) fn fail(&self, error: &io::Error, what: &str) -> StorageError {
        self.offline.send_if_modified(|state| {
            if state.is_some() {
                return false;
            }
            gracchus_env::moment!(DIRECTORY_OFFLINE);
            tracing::error!(
                %error,
                what,
                "log directory goes offline: nothing is read from it or written to it until the disk is in \
                 order and the broker is started anew"
            );
            *state = Some(format!("{what}: {error}").into());
            true
        });
        StorageError::Offline(self.offline().expect("set just now or before"))
    }
}
