//! The owner of a replica: one task that alone changes the replica's state.
//!
//! It drains its queue into one round, decides for each batch in order (duplicate, out of order, next offset), hands
//! the round to the log, and only when the log says it is kept publishes the new view and acknowledges. Batches reach
//! the log in the order in which they were queued.
//!
//! Never: an acknowledgement before the round is kept, a duplicate answered before the original is, a retry over a
//! failed write.

use std::{sync::Arc, time::Duration};

use gracchus_core::{
    BrokerId, LeaderEpoch, Offset, TopicId, TopicPartition,
    error::ResponseError,
    producer::Verdict,
    record::{Batch, TimestampType, recompress_produced},
    replication::high_watermark,
    topic::TopicConfig,
};
use gracchus_env::Env;
use tokio::sync::{oneshot, watch};

use super::{
    ProduceOutcome,
    inbox::Inbox,
    looking::Produced,
    purgatory::Watchers,
    replica::{Append, Closed, DeleteReply, Message},
    scheduled::{Next, ScheduledTasks},
    turned_away::TurnedAway,
    view::{ReplicaView, Status},
};
use gracchus_log::{AppendBatch, Log, LogDirectory, LogId, StorageError, inventory};

/// A round takes no more batches than this, so that the first in the queue does not wait for the last.
const ROUND_BATCHES: usize = 1024;
/// How long a log stays unopened for which there was no file handle.
const REOPEN_PAUSE: Duration = Duration::from_secs(1);
/// Nor more bytes.
const ROUND_BYTES: usize = 16 << 20;

/// The replica set as the metadata has it, as far as appends depend on it.
#[derive(Debug, Clone)]
pub(crate) struct Assignment {
    pub(crate) leader_epoch: LeaderEpoch,
    pub(crate) replicas: Vec<BrokerId>,
    pub(crate) in_sync: Vec<BrokerId>,
}

/// Everything an owner begins with.
pub(crate) struct Owner {
    pub(crate) env: Arc<dyn Env>,
    pub(crate) tp: TopicPartition,
    pub(crate) topic_id: TopicId,
    pub(crate) directory: Arc<LogDirectory>,
    pub(crate) config: Arc<TopicConfig>,
    pub(crate) assignment: Assignment,
    pub(crate) queue: Inbox,
    /// Heard of while the log was being opened.
    pub(crate) deletion: Option<DeleteReply>,
    pub(crate) status: watch::Sender<Status>,
    pub(crate) watchers: Arc<Watchers>,
    pub(crate) scheduled: ScheduledTasks,
    /// Something of the log that had been synced was gone when it was opened.
    pub(crate) damaged: bool,
    /// The log was opened once: until it is closed, the next start recovers it.
    pub(crate) begun: bool,
    pub(crate) turned_away: TurnedAway,
}

/// Stands in for the owner of a log whose topic was deleted before the log had a place: answers everybody, until nobody has
/// the handle any more. Whoever carries out the deletion looks for the log wherever it may be.
pub(crate) async fn turn_away(status: &watch::Sender<Status>, watchers: &Watchers, mut queue: Inbox) {
    gracchus_env::moment!(DELETED_BEFORE_PLACED);
    status.send_replace(Status::Deleted);
    watchers.wake_all();
    while let Some(message) = queue.recv().await {
        match message {
            Message::Delete(done) => _ = done.send(Ok(None)),
            message => answer_deleted(message),
        }
    }
}

/// There is no such topic any more.
fn answer_deleted(message: Message) {
    match message {
        Message::Append(append) => {
            let refused = ProduceOutcome::failed(ResponseError::UnknownTopicOrPartition);
            let _ = append.reply.send(refused);
        }
        Message::Close(closed) => _ = closed.send(Closed::Done),
        _ => {}
    }
}

/// DeleteRecords: up to the high watermark, wherever that is.
const TO_HIGH_WATERMARK: i64 = -1;

/// An answer that waits for its round.
struct Pending {
    reply: oneshot::Sender<ProduceOutcome>,
    outcome: ProduceOutcome,
}

impl Owner {
    /// Opens the log and serves until told to close, or until the directory fails.
    pub(crate) async fn run(mut self) {
        loop {
            let opened = self.open().await;
            if let Some(done) = self.deletion.take() {
                return self.delete(opened.ok(), done).await;
            }
            match opened {
                Ok(log) => {
                    let view = self.publish(&log, Offset(0));
                    return self.serve(log, view).await;
                }
                Err(StorageError::Exhausted(what)) => {
                    gracchus_env::moment!(OPENING_PUT_OFF);
                    tracing::debug!(partition = %self.tp, %what, "no file handle left; the log will be opened later");
                    self.directory.handles().complain("a log that is to be opened", &self.tp);
                    if !self.put_off().await {
                        return;
                    }
                }
                Err(error) => return self.refuse(error, None).await,
            }
        }
    }

    /// Answers who asks meanwhile, until it is time to try again. False if there is no need to.
    async fn put_off(&mut self) -> bool {
        let env = self.env.clone();
        let again = env.sleep(REOPEN_PAUSE);
        tokio::pin!(again);
        loop {
            let message = tokio::select! {
                biased;
                () = &mut again => return true,
                message = self.queue.recv() => message,
            };
            match message {
                Some(Message::Append(append)) => {
                    let outcome = append.batch.checked().await.map_or_else(
                        |refused| refused,
                        |batch| {
                            self.turned_away.note(&batch.header);
                            ProduceOutcome::failed(ResponseError::KafkaStorageError)
                        },
                    );
                    let _ = append.reply.send(outcome);
                }
                Some(Message::BecomeLeader(epoch)) => {
                    self.assignment.leader_epoch = self.assignment.leader_epoch.max(epoch);
                }
                Some(Message::Config(config)) => self.config = config,
                Some(Message::DeleteRecords(_, reply)) => {
                    let _ = reply.send(Err(ResponseError::KafkaStorageError));
                }
                // The next attempt finds out.
                Some(
                    Message::DirectoryFailed
                    | Message::ExpireProducers(_)
                    | Message::Trim
                    | Message::DescribeProducers(_),
                ) => {}
                Some(Message::Delete(done)) => {
                    self.delete(None, done).await;
                    return false;
                }
                Some(Message::Close(closed)) => {
                    self.status.send_replace(Status::Closed);
                    self.watchers.wake_all();
                    let _ = closed.send(if self.begun { Closed::ForWantOfHandles } else { Closed::Done });
                    return false;
                }
                None => return false,
            }
        }
    }

    /// Who waits meanwhile for a topic that is deleted is told at once, however long the log takes to open.
    async fn open(&mut self) -> Result<Log, StorageError> {
        let directory = self.directory.clone();
        let _turn = directory.turn().await;
        let opening = Log::open(self.directory.clone(), self.id(), self.config.clone());
        tokio::pin!(opening);
        let (mut log, recovered) = loop {
            tokio::select! {
                biased;
                opened = &mut opening => break opened?,
                Some(deleted) = self.queue.listen() => if deleted || self.deletion.is_some() {
                    self.hear_of_deletion();
                },
            }
        };
        self.damaged = recovered.damaged;
        self.begun = true;
        if self.deletion.is_none() {
            log.assign_epoch(self.assignment.leader_epoch).await?;
        }
        self.scheduled.schedule_removal(&*self.env, log.take_leftovers(), 0);
        Ok(log)
    }

    fn id(&self) -> LogId {
        LogId { tp: self.tp.clone(), topic_id: self.topic_id }
    }

    fn announce(&self, status: Status) {
        self.status.send_replace(status);
        self.watchers.wake_all();
    }

    /// The log will go as soon as it is open.
    fn hear_of_deletion(&mut self) {
        gracchus_env::moment!(DELETED_WHILE_OPENING);
        self.announce(Status::Deleted);
        for message in self.queue.drain() {
            match message {
                Message::Delete(done) => self.deletion = Some(done),
                message => answer_deleted(message),
            }
        }
    }

    /// Takes the log away and answers everybody that there is no such topic.
    async fn delete(&mut self, log: Option<Log>, done: DeleteReply) {
        self.announce(Status::Deleted);
        let aside = match log {
            Some(log) => log.retire().await.map(Some),
            None => inventory::retire(&self.directory, &self.id()).await,
        };
        if let Err(error) = &aside {
            tracing::warn!(
                partition = %self.tp,
                %error,
                "the log of a deleted topic is still there; the next start removes it"
            );
        }
        let _ = done.send(aside);
        // Until nobody has the handle any more.
        while let Some(message) = self.queue.recv().await {
            answer_deleted(message);
        }
    }

    async fn serve(mut self, mut log: Log, mut view: Arc<ReplicaView>) {
        // What a round found behind its last batch.
        let mut found = None;
        loop {
            let message = match found.take() {
                Some(message) => Some(message),
                None => match self.scheduled.next(&*self.env, &mut self.queue).await {
                    Next::Message(message) => message,
                    Next::Task(task) => match task.run(&mut log).await {
                        Ok(()) => continue,
                        Err(error) => return self.refuse(error, None).await,
                    },
                },
            };
            let done = match message {
                Some(Message::Append(first)) => {
                    self.append_round(&mut log, first, view.high_watermark, &mut found).await
                }
                Some(Message::Config(config)) => self.configure(&mut log, config, view.high_watermark).await,
                Some(Message::BecomeLeader(epoch)) => {
                    self.become_leader(&mut log, epoch, view.high_watermark).await
                }
                Some(Message::DeleteRecords(to, reply)) => {
                    self.delete_records(&mut log, to, view.high_watermark, reply).await
                }
                Some(Message::Trim) => self.trim(&mut log, view.high_watermark).await,
                Some(Message::DescribeProducers(reply)) => {
                    let producers = log.producers().iter().map(|(id, entry)| (id, entry.clone()));
                    let _ = reply.send(producers.collect());
                    continue;
                }
                Some(Message::ExpireProducers(after)) => {
                    self.expire_producers(&mut log, after);
                    continue;
                }
                // Told to all; it may be another one's directory.
                Some(Message::DirectoryFailed) => match self.directory.offline() {
                    Some(reason) => Err(StorageError::Offline(reason)),
                    None => continue,
                },
                Some(Message::Delete(done)) => return self.delete(Some(log), done).await,
                Some(Message::Close(closed)) => {
                    let how = self.close(log).await;
                    // The manager may have given up waiting.
                    let _ = closed.send(how);
                    return;
                }
                None => return,
            };
            match done {
                Ok(published) => view = published,
                Err(error) => return self.refuse(error, found).await,
            }
        }
    }

    /// Takes what is queued, up to the bounds of a round, and makes it one.
    async fn append_round(
        &mut self,
        log: &mut Log,
        first: Append,
        high_watermark: Offset,
        found: &mut Option<Message>,
    ) -> Result<Arc<ReplicaView>, StorageError> {
        let mut pending = Vec::new();
        let mut charges = Vec::new();
        let mut bytes = 0;
        let mut next = Some(first);
        while let Some(mut append) = next.take() {
            if !pending.is_empty() && append.batch.is_looked_at() {
                gracchus_env::moment!(ROUND_ENDED_BY_LOOK);
                // Those before it need not wait for that.
                *found = Some(Message::Append(append));
                break;
            }
            let Append { batch, acks, reply, charge } = append;
            charges.extend(charge);
            let outcome = match self.ready(log, batch).await {
                Ok(batch) => {
                    bytes += batch.bytes.len();
                    self.stage(log, &batch, acks).unwrap_or_else(ProduceOutcome::failed)
                }
                Err(outcome) => outcome,
            };
            pending.push(Pending { reply, outcome });
            if pending.len() < ROUND_BATCHES && bytes < ROUND_BYTES {
                match self.queue.try_recv() {
                    Some(Message::Append(append)) => next = Some(append),
                    other => *found = other,
                }
            }
        }
        // Also a round of duplicates only waits here: the original may be in flight no longer, but it must be kept.
        let kept = log.commit().await;
        drop(charges);
        if let Err(error) = kept {
            gracchus_env::moment!(ROUND_FAILED);
            for Pending { reply, .. } in pending {
                let _ = reply.send(ProduceOutcome::failed(ResponseError::KafkaStorageError));
            }
            return Err(error);
        }
        self.scheduled.schedule_flush(&*self.env, log, &self.config);
        let view = self.publish(log, high_watermark);
        for Pending { reply, mut outcome } in pending {
            outcome.log_start_offset = view.log.log_start.0;
            // The asker may be gone; the record stays all the same.
            let _ = reply.send(outcome);
        }
        Ok(view)
    }

    /// The batch as it is to be appended: looked at, and with the codec that the topic asks for. Here, so that all batches keep
    /// their order and no more than a round of results is in memory; the work itself is done where nobody waits for a worker.
    async fn ready(&self, log: &Log, produced: Produced) -> Result<Batch, ProduceOutcome> {
        let batch = produced.checked().await?;
        let Some(to) = self.config.compression() else { return Ok(batch) };
        if batch.header.codec() == Ok(to.codec)
            || !matches!(log.producers().check(&batch.header), Ok(Verdict::Append))
        {
            return Ok(batch);
        }
        let (sender, result) = oneshot::channel();
        let limit = self.config.max_message_bytes;
        let work = move || _ = sender.send(recompress_produced(&batch, to, limit));
        self.env.compute(Box::new(work)).await;
        match result.await {
            Ok(recompressed) => recompressed.map_err(ProduceOutcome::rejected),
            Err(_) => Err(ProduceOutcome::failed(ResponseError::UnknownServerError)),
        }
    }

    /// Between rounds.
    fn expire_producers(&self, log: &mut Log, after: Duration) {
        let after_ms = i64::try_from(after.as_millis()).unwrap_or(i64::MAX);
        let expired = log.expire_producers(self.env.wall_clock_ms(), after_ms);
        if expired > 0 {
            gracchus_env::moment!(PRODUCERS_EXPIRED);
            tracing::debug!(partition = %self.tp, expired, "producers expired");
        }
    }

    /// Decides one batch and stages it if it is new.
    fn stage(&mut self, log: &mut Log, batch: &Batch, acks: i16) -> Result<ProduceOutcome, ResponseError> {
        let min_in_sync = high_watermark::effective_min_in_sync(
            self.config.min_insync_replicas,
            self.assignment.replicas.len(),
        );
        if acks == -1 && self.assignment.in_sync.len() < min_in_sync {
            return Err(ResponseError::NotEnoughReplicas);
        }
        let (base_offset, timestamp) = match log.producers().check(&batch.header)? {
            Verdict::Duplicate { base_offset, timestamp, .. } => {
                gracchus_env::moment!(DUPLICATE_ANSWERED);
                (base_offset, timestamp)
            }
            Verdict::Append => {
                let is_new =
                    !self.turned_away.is_empty() && log.producers().get(batch.header.producer_id).is_none();
                if is_new && self.turned_away.is_overtaken_by(&batch.header) {
                    gracchus_env::moment!(TURNED_AWAY_OVERTAKEN);
                    return Err(ResponseError::OutOfOrderSequenceNumber);
                }
                let base_offset = log.next_offset();
                let header = batch.header.stamp(base_offset, self.assignment.leader_epoch);
                log.stage(AppendBatch { header, bytes: batch.bytes.clone() });
                (base_offset, batch.header.max_timestamp)
            }
        };
        let log_append_time = batch.header.timestamp_type() == TimestampType::LogAppendTime;
        Ok(ProduceOutcome {
            error: None,
            base_offset: base_offset.0,
            log_append_time_ms: if log_append_time { timestamp } else { -1 },
            log_start_offset: -1,
            message: None,
            record_errors: Vec::new(),
            current_leader: None,
        })
    }

    /// Another configuration from the next round on.
    async fn configure(
        &mut self,
        log: &mut Log,
        config: Arc<TopicConfig>,
        high_watermark: Offset,
    ) -> Result<Arc<ReplicaView>, StorageError> {
        self.config = config.clone();
        log.set_config(config).await?;
        self.scheduled.schedule_flush(&*self.env, log, &self.config);
        Ok(self.publish(log, high_watermark))
    }

    /// DeleteRecords: answered when the new log start is durable.
    async fn delete_records(
        &mut self,
        log: &mut Log,
        to: i64,
        high_watermark: Offset,
        reply: oneshot::Sender<Result<Offset, ResponseError>>,
    ) -> Result<Arc<ReplicaView>, StorageError> {
        let to = if to == TO_HIGH_WATERMARK { high_watermark } else { Offset(to) };
        let policy = self.config.cleanup_policy;
        let refused = if reply.is_closed() {
            gracchus_env::moment!(DELETE_RECORDS_TOO_LATE);
            // Nobody waits any more, and each log start costs a write.
            Some(ResponseError::RequestTimedOut)
        } else if policy.compact && !policy.delete {
            Some(ResponseError::PolicyViolation)
        } else if to < Offset(0) || to > high_watermark {
            Some(ResponseError::OffsetOutOfRange)
        } else {
            None
        };
        let moved = if refused.is_none() { log.advance_log_start(to).await } else { Ok(log.view()) };
        let view = match &moved {
            Ok(_) => self.publish(log, high_watermark),
            Err(error) => {
                let _ = reply.send(Err(ResponseError::KafkaStorageError));
                return Err(error.clone());
            }
        };
        let _ = reply.send(refused.map_or(Ok(view.log.log_start), Err));
        Ok(view)
    }

    /// Retention. What has left the log is published before its files get other names.
    async fn trim(
        &mut self,
        log: &mut Log,
        high_watermark: Offset,
    ) -> Result<Arc<ReplicaView>, StorageError> {
        let trimmed = log.trim(high_watermark).await?;
        let view = self.publish(log, high_watermark);
        if !trimmed.is_empty() {
            let files = log.bury(trimmed).await?;
            self.scheduled.schedule_removal(&*self.env, files, self.config.file_delete_delay_ms);
        }
        Ok(view)
    }

    /// Leads in a newer epoch: the epoch begins at the log end, also if no record ever follows.
    async fn become_leader(
        &mut self,
        log: &mut Log,
        epoch: LeaderEpoch,
        high_watermark: Offset,
    ) -> Result<Arc<ReplicaView>, StorageError> {
        if epoch > self.assignment.leader_epoch {
            self.assignment.leader_epoch = epoch;
            log.assign_epoch(epoch).await?;
        }
        Ok(self.publish(log, high_watermark))
    }

    /// Publishes what the log now is and wakes who waits for it.
    fn publish(&self, log: &Log, high_watermark: Offset) -> Arc<ReplicaView> {
        let log_view = log.view();
        // Where flushing is left to the operating system, written is all that an acknowledgement ever promised.
        let kept_end = if self.config.flush_messages == 1 { log_view.flushed_end } else { log_view.log_end };
        let min_in_sync = high_watermark::effective_min_in_sync(
            self.config.min_insync_replicas,
            self.assignment.replicas.len(),
        );
        // The in-sync set is this replica alone until followers exist.
        let high_watermark =
            high_watermark::advance(high_watermark.max(log_view.log_start), &[kept_end], min_in_sync);
        let view = Arc::new(ReplicaView {
            leader_epoch: self.assignment.leader_epoch,
            epoch_start: log.epochs().latest().map_or(Offset(0), |(_, start)| start),
            high_watermark,
            log: log_view,
            damaged: self.damaged,
        });
        self.status.send_replace(Status::Open(view.clone()));
        self.watchers.wake_all();
        view
    }

    async fn close(&mut self, log: Log) -> Closed {
        self.status.send_replace(Status::Closed);
        self.watchers.wake_all();
        let directory = self.directory.clone();
        let _turn = directory.turn().await;
        match log.close().await {
            Ok(()) => Closed::Done,
            Err(StorageError::Exhausted(what)) => {
                gracchus_env::moment!(CLOSED_FOR_WANT_OF_HANDLES);
                tracing::debug!(partition = %self.tp, %what, "no file handle left to close the log with");
                Closed::ForWantOfHandles
            }
            Err(error) => {
                gracchus_env::moment!(NOT_CLOSED_CLEANLY);
                tracing::warn!(
                    partition = %self.tp,
                    %error,
                    "log not closed cleanly; it will be checked at the next start"
                );
                Closed::Done
            }
        }
    }

    /// Answers everything with KAFKA_STORAGE_ERROR, first what was `found` behind the round that failed: what the file
    /// holds is not known any more.
    async fn refuse(mut self, error: StorageError, mut found: Option<Message>) {
        let lacking = matches!(error, StorageError::Exhausted(_)) && self.directory.handles().is_limited();
        if lacking {
            tracing::debug!(partition = %self.tp, %error, "given up, because the broker stops");
        } else {
            tracing::error!(
                partition = %self.tp,
                %error,
                "replica is offline: mend what the error names, then start the broker anew"
            );
        }
        gracchus_env::moment!(REPLICA_OFFLINE);
        self.status.send_replace(Status::Failed);
        self.watchers.wake_all();
        loop {
            let next = match found.take() {
                Some(message) => Some(message),
                None => self.queue.recv().await,
            };
            let Some(message) = next else { return };
            match message {
                Message::Append(append) => {
                    let _ = append.reply.send(ProduceOutcome::failed(ResponseError::KafkaStorageError));
                }
                Message::Delete(done) => return self.delete(None, done).await,
                Message::Close(closed) => {
                    let _ = closed.send(if lacking { Closed::ForWantOfHandles } else { Closed::Done });
                    return;
                }
                Message::DeleteRecords(_, reply) => {
                    let _ = reply.send(Err(ResponseError::KafkaStorageError));
                }
                Message::BecomeLeader(_)
                | Message::Config(_)
                | Message::Trim
                | Message::DescribeProducers(_)
                | Message::ExpireProducers(_)
                | Message::DirectoryFailed => {}
            }
        }
    }
}
