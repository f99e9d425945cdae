//! A produced batch on its way to the owner whose records may still be being looked at.
//!
//! A short look is taken where the request is served. What is larger is looked at where no task waits behind it, while the
//! batch already has its place in the owner's queue: the owner takes batches in that order, and waits for a look that has
//! not ended when its turn comes. Never: a batch that overtakes another because its look was shorter.

use std::sync::Arc;

use futures_util::FutureExt;
use gracchus_core::{
    error::ResponseError,
    record::{Batch, Look, ProduceRules, Received, Rejected, check_header},
};
use gracchus_env::Env;
use tokio::sync::oneshot::{self, error::TryRecvError};

use super::ProduceOutcome;
use crate::counters::TopicMetrics;

/// See the module.
pub(crate) enum Produced {
    Checked(Result<Batch, Rejected>),
    Looking(oneshot::Receiver<Result<Batch, Rejected>>),
}

impl Produced {
    /// Checks what a request holds for one partition, as far as that is quickly done: through `on_the_spot` bytes.
    pub(crate) fn check(
        env: &dyn Env,
        records: Option<bytes::Bytes>,
        rules: &ProduceRules,
        on_the_spot: usize,
        metrics: &Arc<TopicMetrics>,
    ) -> Result<Self, Rejected> {
        let done = match check_header(records, rules).map(|received| received.look(on_the_spot)) {
            Ok(Look::TooLarge(received)) => return Ok(Self::look(env, received, metrics.clone())),
            Ok(Look::Done(done)) => done,
            Err(rejected) => Err(rejected),
        };
        counted(metrics, done).map(|batch| Self::Checked(Ok(batch)))
    }

    fn look(env: &dyn Env, received: Received, metrics: Arc<TopicMetrics>) -> Self {
        let (sender, found) = oneshot::channel();
        let work = move || _ = sender.send(counted(&metrics, received.look_through()));
        // Once begun it runs to its end.
        let _begun = env.compute(Box::new(work)).now_or_never();
        Self::Looking(found)
    }

    /// Whether the batch would have to be waited for.
    pub(crate) fn is_looked_at(&mut self) -> bool {
        let Self::Looking(found) = self else { return false };
        match found.try_recv() {
            Ok(done) => *self = Self::Checked(done),
            Err(TryRecvError::Empty) => return true,
            Err(TryRecvError::Closed) => {}
        }
        false
    }

    /// The batch, or why it is refused.
    pub(crate) async fn checked(self) -> Result<Batch, ProduceOutcome> {
        let done = match self {
            Self::Checked(done) => done,
            Self::Looking(found) => match found.await {
                Ok(done) => done,
                // The look has panicked.
                Err(_) => return Err(ProduceOutcome::failed(ResponseError::UnknownServerError)),
            },
        };
        done.map_err(ProduceOutcome::rejected)
    }
}

fn counted(metrics: &TopicMetrics, checked: Result<Batch, Rejected>) -> Result<Batch, Rejected> {
    match &checked {
        Ok(batch) => {
            metrics.messages_in.add(u64::try_from(batch.header.record_count).unwrap_or(0));
            metrics.bytes_in.add(batch.bytes.len() as u64);
        }
        Err(_) => metrics.failed_produce_requests.add(1),
    }
    checked
}
