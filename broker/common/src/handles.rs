//! Waiting for file handles where nothing else can be done: in the middle of a change, an error would leave the log
//! unusable although the disk is well.
//!
//! A wait has no end while the broker serves: whoever lets the process open more files finds all as it was. A stop has
//! one. It says for how long anybody may wait from then on, all of them together; who still has no handle by that time
//! gets the error, does nothing more, and leaves what it was about to change to the recovery of the next start.
//!
//! Never: on behalf of a reader, who can be told to come again; a line in the log for every attempt.

use std::{
    io,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use gracchus_env::{Env, Instant, is_out_of_handles};

use crate::Complaints;

/// How long whatever waits for file handles may do so when the broker stops, all logs together.
pub const STOP_PATIENCE: Duration = Duration::from_secs(5);
/// Between two attempts.
const PAUSE: Duration = Duration::from_millis(500);

/// An error that may say that there was no file handle.
pub trait Lacking {
    /// For what there was none, if that is what is wrong.
    fn lacking(&self) -> Option<&str>;
}

/// The patience of those who share it; see the module.
#[derive(Debug)]
pub struct Handles {
    env: Arc<dyn Env>,
    complaints: Complaints,
    /// From when on nobody waits any more.
    deadline: Mutex<Option<Instant>>,
}

impl Handles {
    /// Patience without end.
    pub fn new(env: Arc<dyn Env>) -> Arc<Self> {
        Arc::new(Self { complaints: Complaints::new(env.clone()), env, deadline: Mutex::default() })
    }

    /// Nobody waits for longer than `patience` from now on. Does nothing if it is limited already.
    pub fn give_up_within(&self, patience: Duration) {
        let mut deadline = self.deadline.lock().unwrap_or_else(PoisonError::into_inner);
        deadline.get_or_insert(self.env.now() + patience);
    }

    /// Whether a lack of handles is an end now or soon: the broker stops.
    pub fn is_limited(&self) -> bool {
        self.deadline.lock().unwrap_or_else(PoisonError::into_inner).is_some()
    }

    /// Attempts `what`, which changes nothing when it finds no file handle, until there is one.
    ///
    /// # Errors
    /// Those of the attempt; a lack of handles only when a stop has limited the patience.
    pub async fn patiently<T, F>(&self, what: &str, mut attempt: impl FnMut() -> F) -> io::Result<T>
    where
        F: Future<Output = io::Result<T>>,
    {
        loop {
            match attempt().await {
                Err(error) if is_out_of_handles(&error) && self.pause(what, &error).await => {}
                result => return result,
            }
        }
    }

    /// The same of a part of a change that can be done again from its beginning.
    pub async fn persistently<T, E: Lacking, F>(
        &self,
        what: &str,
        mut attempt: impl FnMut() -> F,
    ) -> Result<T, E>
    where
        F: Future<Output = Result<T, E>>,
    {
        loop {
            let result = attempt().await;
            match result.as_ref().err().and_then(Lacking::lacking) {
                Some(lacking) if self.pause(what, &lacking).await => {}
                _ => return result,
            }
        }
    }

    /// Says that `what` waits, unless that was said a short time ago.
    pub fn complain(&self, what: &str, why: &(dyn std::fmt::Display + Sync)) {
        self.complaints.say_about(
            what.to_owned(),
            format_args!(
                "{what} waits for a file handle ({why}); let the process open more files (ulimit -n, LimitNOFILE)"
            ),
        );
    }

    /// Waits until the next attempt. False if there should be none.
    async fn pause(&self, what: &str, why: &(dyn std::fmt::Display + Sync)) -> bool {
        let deadline = *self.deadline.lock().unwrap_or_else(PoisonError::into_inner);
        let now = self.env.now();
        if deadline.is_some_and(|deadline| deadline <= now) {
            gracchus_env::moment!(HANDLES_GIVEN_UP, what);
            return false;
        }
        gracchus_env::moment!(HANDLES_AWAITED, what);
        self.complain(what, why);
        let next = now + PAUSE;
        self.env.sleep_until(deadline.map_or(next, |deadline| deadline.min(next))).await;
        true
    }
}
