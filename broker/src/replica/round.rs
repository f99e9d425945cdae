//! One round of appends: what is queued, up to a bound, goes through the [machine](super::owner) batch by batch and into the log as
//! one.
//!
//! Never: a round that waits for the look at another batch; batches in another order than that of the queue.

use gracchus_core::{
    Offset,
    error::ResponseError,
    producer::Verdict,
    record::{Batch, recompress_produced},
    replication::{Appended, Input, Output, Refusal},
};
use gracchus_log::{AppendBatch, Log, StorageError};
use tokio::sync::oneshot;

use super::{
    ProduceOutcome,
    looking::Produced,
    owner::{Owner, Producer},
    replica::{Append, Message},
};

/// A round takes no more batches than this, so that the first in the queue does not wait for the last.
const ROUND_BATCHES: usize = 1024;
/// Nor more bytes.
const ROUND_BYTES: usize = 16 << 20;

impl Owner {
    /// Takes what is queued, up to the bounds of a round, and makes it one.
    pub(super) async fn append_round(&mut self, log: &mut Log, first: Append) -> Result<(), StorageError> {
        let mut charges = Vec::new();
        let (mut batches, mut bytes) = (0, 0);
        let mut next = Some(first);
        while let Some(mut append) = next.take() {
            if batches > 0 && append.batch.is_looked_at() {
                gracchus_env::moment!(ROUND_ENDED_BY_LOOK);
                // Those before it need not wait for that.
                self.queue.put_back(Message::Append(append));
                break;
            }
            let Append { batch, acks, reply, charge } = append;
            charges.extend(charge);
            batches += 1;
            match self.ready(log, batch).await {
                Ok(batch) => {
                    bytes += batch.bytes.len();
                    self.stage(log, &batch, acks, reply);
                }
                Err(refused) => _ = reply.send(refused),
            }
            if batches < ROUND_BATCHES && bytes < ROUND_BYTES {
                match self.queue.try_recv() {
                    Some(Message::Append(append)) => next = Some(append),
                    Some(other) => self.queue.put_back(other),
                    None => {}
                }
            }
        }
        let kept = self.meanwhile(log.commit()).await;
        drop(charges);
        if let Err(error) = kept {
            gracchus_env::moment!(ROUND_FAILED);
            return Err(error);
        }
        self.scheduled.schedule_flush(&*self.env, log, self.machine.config());
        // Also a round of duplicates only comes here: what they were first is kept by now.
        self.log_is_further(log);
        Ok(())
    }

    /// The batch as it is to be appended: looked at, and with the codec that the topic asks for. Here, so that all batches keep
    /// their order and no more than a round of results is in memory; the work itself is done where nobody waits for a worker.
    async fn ready(&mut self, log: &Log, produced: Produced) -> Result<Batch, ProduceOutcome> {
        let batch = self.meanwhile(produced.checked()).await?;
        let Some(to) = self.machine.config().compression() else { return Ok(batch) };
        if batch.header.codec() == Ok(to.codec)
            || !matches!(log.producers().check(&batch.header), Ok(Verdict::Append))
        {
            return Ok(batch);
        }
        let (sender, result) = oneshot::channel();
        let limit = self.machine.config().max_message_bytes;
        let work = move || _ = sender.send(recompress_produced(&batch, to, limit));
        let computing = self.env.compute(Box::new(work));
        self.meanwhile(computing).await;
        match result.await {
            Ok(recompressed) => recompressed.map_err(ProduceOutcome::rejected),
            Err(_) => Err(ProduceOutcome::failed(ResponseError::UnknownServerError)),
        }
    }

    /// Lets the batch be decided, and stages it if it is new.
    fn stage(&mut self, log: &mut Log, batch: &Batch, acks: i16, asker: Producer) {
        let (header, producers) = (&batch.header, log.producers());
        for output in self.machine.step(Input::Produce { asker, header, acks, producers }) {
            match output {
                Output::Append(header) => log.stage(AppendBatch { header, bytes: batch.bytes.clone() }),
                Output::Answer(asker, answer) => _ = asker.send(outcome(answer, log.view().log_start)),
                _ => {}
            }
        }
    }

    /// The log cannot be opened now: the producer may try again.
    pub(super) async fn turn_away(&mut self, append: Append) {
        let refused = match self.meanwhile(append.batch.checked()).await {
            Ok(batch) => {
                self.machine.step(Input::TurnedAway(&batch.header));
                ProduceOutcome::failed(ResponseError::KafkaStorageError)
            }
            Err(refused) => refused,
        };
        let _ = append.reply.send(refused);
    }
}

/// What a producer is told.
pub(super) fn outcome(answer: Result<Appended, Refusal>, log_start: Offset) -> ProduceOutcome {
    match answer {
        Ok(Appended { base_offset, log_append_time_ms, duplicate }) => {
            if duplicate {
                gracchus_env::moment!(DUPLICATE_ANSWERED);
            }
            ProduceOutcome {
                error: None,
                base_offset: base_offset.0,
                log_append_time_ms,
                log_start_offset: log_start.0,
                message: None,
                record_errors: Vec::new(),
                current_leader: None,
            }
        }
        Err(refusal) => {
            if refusal == Refusal::Overtaking {
                gracchus_env::moment!(TURNED_AWAY_OVERTAKEN);
            }
            ProduceOutcome { log_start_offset: log_start.0, ..ProduceOutcome::failed(refusal.error()) }
        }
    }
}
