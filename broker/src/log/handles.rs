//! Waiting for file handles where nothing else can be done: in the middle of a change, an error would leave the log
//! unusable although the disk is well.
//!
//! Never: on behalf of a reader, who can be told to come again.

use std::{io, time::Duration};

use gracchus_env::{Env, is_out_of_handles};

use super::error::StorageError;

/// The same of a part of a change that can be done again from its beginning.
pub(crate) async fn persistently<T, F>(
    env: &dyn Env,
    what: &str,
    mut attempt: impl FnMut() -> F,
) -> Result<T, StorageError>
where
    F: Future<Output = Result<T, StorageError>>,
{
    loop {
        match attempt().await {
            Err(error @ StorageError::Exhausted(_)) => {
                tracing::error!(%error, "{what} waits");
                env.sleep(PAUSE).await;
            }
            result => return result,
        }
    }
}

const PAUSE: Duration = Duration::from_millis(500);

/// Attempts `what`, which changes nothing when it finds no file handle, until there is one.
pub(crate) async fn patiently<T, F>(
    env: &dyn Env,
    what: &str,
    mut attempt: impl FnMut() -> F,
) -> io::Result<T>
where
    F: Future<Output = io::Result<T>>,
{
    loop {
        match attempt().await {
            Err(error) if is_out_of_handles(&error) => {
                tracing::error!(%error, "{what} waits for a file handle; let the process open more files");
                env.sleep(PAUSE).await;
            }
            result => return result,
        }
    }
}
