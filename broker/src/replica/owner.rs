//! The owner of a replica: one task that alone changes the replica's state, and decides nothing itself.
//!
//! What is decided is in the [machine](ReplicaMachine): the owner tells it what its queue and its log bring, and carries out what it
//! says. It drains its queue into one round, hands the round to the log, and waits for the log and for what is urgent at once.
//! Batches reach the log in the order in which they were queued.
//!
//! Never: an acknowledgement that the machine has not given, a retry over a failed write, a client left to wait for a log that has
//! gone.

use std::{sync::Arc, time::Duration};

use gracchus_core::{
    Offset, TopicId, TopicPartition,
    error::ResponseError,
    replication::{Input, LogEnds, Output, ReplicaMachine},
};
use gracchus_env::Env;
use tokio::sync::{oneshot, watch};

use super::{
    ProduceOutcome,
    inbox::{Inbox, Received},
    purgatory::Watchers,
    replica::{Closed, DeleteReply, Message, Urgent},
    round,
    scheduled::{Next, ScheduledTasks},
    view::{ReplicaView, Status},
};
use gracchus_log::{Log, LogDirectory, LogId, StorageError, inventory};

/// Who waits for the answer to a batch.
pub(crate) type Producer = oneshot::Sender<ProduceOutcome>;

/// How long a log stays unopened for which there was no file handle.
const REOPEN_PAUSE: Duration = Duration::from_secs(1);

/// Everything an owner begins with.
pub(crate) struct Owner {
    pub(crate) env: Arc<dyn Env>,
    pub(crate) tp: TopicPartition,
    pub(crate) topic_id: TopicId,
    pub(crate) directory: Arc<LogDirectory>,
    pub(crate) machine: ReplicaMachine<Producer>,
    pub(crate) queue: Inbox,
    pub(crate) status: watch::Sender<Status>,
    pub(crate) watchers: Arc<Watchers>,
    pub(crate) scheduled: ScheduledTasks,
    pub(crate) heard: Heard,
    /// Something of the log that had been synced was gone when it was opened.
    pub(crate) damaged: bool,
    /// It had not been left in order.
    pub(crate) recovered: bool,
    /// The log was opened once: until it is closed, the next start recovers it.
    pub(crate) begun: bool,
}

/// What came in while the log was busy.
#[derive(Debug, Default)]
pub(crate) struct Heard {
    /// The topic was deleted; everybody has been told.
    deleted: bool,
    /// Who is to be told when the log is gone.
    deletion: Option<DeleteReply>,
    /// Why the directory is offline.
    offline: Option<Arc<str>>,
}

/// Stands in for the owner of a log whose topic was deleted before the log had a place: answers everybody, until nobody has
/// the handle any more. Whoever carries out the deletion looks for the log wherever it may be.
pub(crate) async fn turn_away(status: &watch::Sender<Status>, watchers: &Watchers, mut queue: Inbox) {
    gracchus_env::moment!(DELETED_BEFORE_PLACED);
    status.send_replace(Status::Deleted);
    watchers.wake_all();
    while let Some(received) = queue.recv().await {
        answer_deleted(received);
    }
}

/// There is no such topic any more, and no log of it here.
fn answer_deleted(received: Received) {
    match received {
        Received::Message(Message::Append(append)) => {
            let refused = ProduceOutcome::failed(ResponseError::UnknownTopicOrPartition);
            let _ = append.reply.send(refused);
        }
        Received::Message(Message::Close(closed)) => _ = closed.send(Closed::Done),
        Received::Urgent(Urgent::Delete(done)) => _ = done.send(Ok(None)),
        _ => {}
    }
}

impl Owner {
    /// Opens the log and serves until told to close, or until the directory fails.
    pub(crate) async fn run(mut self) {
        loop {
            let opened = self.open().await;
            if let Some(done) = self.heard.deletion.take() {
                gracchus_env::moment!(DELETED_WHILE_OPENING);
                return self.delete(opened.ok(), done).await;
            }
            match opened {
                Ok(log) => return self.serve(log).await,
                Err(StorageError::Exhausted(what)) => {
                    gracchus_env::moment!(OPENING_PUT_OFF);
                    tracing::debug!(partition = %self.tp, %what, "no file handle left; the log will be opened later");
                    self.directory.handles().complain("a log that is to be opened", &self.tp);
                    if !self.put_off().await {
                        return;
                    }
                }
                Err(error) => return self.refuse(error).await,
            }
        }
    }

    /// Answers who asks meanwhile, until it is time to try again. False if there is no need to.
    async fn put_off(&mut self) -> bool {
        let env = self.env.clone();
        let again = env.sleep(REOPEN_PAUSE);
        tokio::pin!(again);
        loop {
            let received = tokio::select! {
                biased;
                () = &mut again => return true,
                received = self.queue.recv() => received,
            };
            let message = match received {
                Some(Received::Message(message)) => message,
                Some(Received::Urgent(Urgent::Delete(done))) => {
                    self.delete(None, done).await;
                    return false;
                }
                // The next attempt finds out.
                Some(Received::Urgent(Urgent::DirectoryFailed)) => continue,
                None => return false,
            };
            match message {
                Message::Append(append) => self.turn_away(append).await,
                // There is no log yet that the epoch could begin in.
                Message::BecomeLeader(epoch) => _ = self.machine.step(Input::Lead(epoch)),
                Message::Config(config) => _ = self.machine.step(Input::Configure(config)),
                Message::DeleteRecords(_, reply) => {
                    let _ = reply.send(Err(ResponseError::KafkaStorageError));
                }
                Message::ExpireProducers(_) | Message::Trim | Message::DescribeProducers(_) => {}
                Message::Close(closed) => {
                    self.announce(Status::Closed);
                    let _ = closed.send(if self.begun { Closed::ForWantOfHandles } else { Closed::Done });
                    return false;
                }
            }
        }
    }

    /// Opens the log, in which the epoch of now begins.
    async fn open(&mut self) -> Result<Log, StorageError> {
        let directory = self.directory.clone();
        let _turn = self.meanwhile(directory.turn()).await;
        if self.heard.deleted {
            return Err(StorageError::Closed);
        }
        let opening = Log::open(directory.clone(), self.id(), self.machine.config().clone());
        let (mut log, recovered) = self.meanwhile(opening).await?;
        (self.damaged, self.recovered) = (recovered.damaged, !recovered.clean);
        self.begun = true;
        if !self.heard.deleted {
            let epoch = self.machine.leader_epoch();
            self.meanwhile(log.assign_epoch(epoch)).await?;
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

    /// Waits for what is done with the log, and hears at once what cannot wait for it.
    pub(super) async fn meanwhile<T>(&mut self, work: impl Future<Output = T>) -> T {
        tokio::pin!(work);
        loop {
            tokio::select! {
                biased;
                done = &mut work => return done,
                received = self.queue.notice(self.heard.deleted) => match received {
                    Received::Urgent(urgent) if !self.heard.deleted => self.hear(urgent),
                    received => answer_deleted(received),
                },
            }
        }
    }

    fn hear(&mut self, urgent: Urgent) {
        match urgent {
            Urgent::Delete(done) => {
                // However long the log takes.
                self.heard.deleted = true;
                self.announce(Status::Deleted);
                self.heard.deletion = Some(done);
            }
            // Told to all; it may be another one's directory.
            Urgent::DirectoryFailed => self.heard.offline = self.directory.offline(),
        }
    }

    /// Takes the log away and answers everybody that there is no such topic.
    async fn delete(&mut self, log: Option<Log>, done: DeleteReply) {
        self.heard.deleted = true;
        self.announce(Status::Deleted);
        let (directory, id) = (self.directory.clone(), self.id());
        let aside = match log {
            Some(log) => self.meanwhile(log.retire()).await.map(Some),
            None => self.meanwhile(inventory::retire(&directory, &id)).await,
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
        while let Some(received) = self.queue.recv().await {
            answer_deleted(received);
        }
    }

    async fn serve(mut self, mut log: Log) {
        let opened = self.machine.step(Input::Opened(ends(&log)));
        self.tell(&log, opened);
        loop {
            if let Some(done) = self.heard.deletion.take() {
                return self.delete(Some(log), done).await;
            }
            if let Some(reason) = self.heard.offline.take() {
                return self.refuse(StorageError::Offline(reason)).await;
            }
            let done = match self.scheduled.next(&*self.env, &mut self.queue).await {
                Next::Task(task) => {
                    let done = self.meanwhile(task.run(&mut log)).await;
                    done.map(|()| self.log_is_further(&log))
                }
                Next::Received(Some(Received::Message(Message::Close(closed)))) => {
                    let how = self.close(log).await;
                    // The manager may have given up waiting.
                    let _ = closed.send(how);
                    return;
                }
                Next::Received(Some(Received::Message(message))) => self.deal_with(&mut log, message).await,
                Next::Received(Some(Received::Urgent(urgent))) => {
                    self.hear(urgent);
                    continue;
                }
                Next::Received(None) => return,
            };
            if let Err(error) = done {
                return self.refuse(error).await;
            }
        }
    }

    async fn deal_with(&mut self, log: &mut Log, message: Message) -> Result<(), StorageError> {
        match message {
            Message::Append(first) => self.append_round(log, first).await,
            Message::Config(config) => {
                self.machine.step(Input::Configure(config.clone()));
                self.meanwhile(log.set_config(config)).await?;
                self.scheduled.schedule_flush(&*self.env, log, self.machine.config());
                self.log_is_further(log);
                Ok(())
            }
            Message::BecomeLeader(epoch) => {
                for output in self.machine.step(Input::Lead(epoch)) {
                    if let Output::BeginEpoch(epoch) = output {
                        self.meanwhile(log.assign_epoch(epoch)).await?;
                        self.log_is_further(log);
                    }
                }
                Ok(())
            }
            Message::DeleteRecords(to, reply) => self.delete_records(log, to, reply).await,
            Message::Trim => self.trim(log).await,
            Message::DescribeProducers(reply) => {
                let producers = log.producers().iter().map(|(id, entry)| (id, entry.clone()));
                let _ = reply.send(producers.collect());
                Ok(())
            }
            Message::ExpireProducers(after) => {
                self.expire_producers(log, after);
                Ok(())
            }
            Message::Close(_) => unreachable!("the end of serving"),
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

    /// DeleteRecords: answered when the new log start is durable.
    async fn delete_records(
        &mut self,
        log: &mut Log,
        to: i64,
        reply: oneshot::Sender<Result<Offset, ResponseError>>,
    ) -> Result<(), StorageError> {
        if reply.is_closed() {
            // Nobody waits any more, and each log start costs a write.
            gracchus_env::moment!(DELETE_RECORDS_TOO_LATE);
            return Ok(());
        }
        let mut refused = None;
        for output in self.machine.step(Input::DeleteRecords(to)) {
            match output {
                Output::AdvanceLogStart(to) => {
                    if let Err(error) = self.meanwhile(log.advance_log_start(to)).await {
                        let _ = reply.send(Err(ResponseError::KafkaStorageError));
                        return Err(error);
                    }
                    self.log_is_further(log);
                }
                Output::RefuseDeletion(error) => refused = Some(error),
                _ => {}
            }
        }
        let _ = reply.send(refused.map_or(Ok(log.view().log_start), Err));
        Ok(())
    }

    /// Retention. What has left the log is published before its files get other names.
    async fn trim(&mut self, log: &mut Log) -> Result<(), StorageError> {
        let high_watermark = self.machine.high_watermark();
        let trimmed = self.meanwhile(log.trim(high_watermark)).await?;
        self.log_is_further(log);
        if !trimmed.is_empty() {
            let files = self.meanwhile(log.bury(trimmed)).await?;
            let delay_ms = self.machine.config().file_delete_delay_ms;
            self.scheduled.schedule_removal(&*self.env, files, delay_ms);
        }
        Ok(())
    }

    /// Something was done on the log.
    pub(super) fn log_is_further(&mut self, log: &Log) {
        let outputs = self.machine.step(Input::Log(ends(log)));
        self.tell(log, outputs);
    }

    /// Publishes and answers.
    pub(super) fn tell(&self, log: &Log, outputs: Vec<Output<Producer>>) {
        for output in outputs {
            match output {
                Output::Publish { high_watermark } => self.publish(log, high_watermark),
                Output::Answer(producer, answer) => {
                    // The asker may be gone; the record stays all the same.
                    let _ = producer.send(round::outcome(answer, log.view().log_start));
                }
                Output::BeginEpoch(_)
                | Output::Append(_)
                | Output::AdvanceLogStart(_)
                | Output::RefuseDeletion(_) => {}
            }
        }
    }

    /// Publishes what the log now is, and wakes who waits for it to become something else.
    fn publish(&self, log: &Log, high_watermark: Offset) {
        if self.heard.deleted {
            return;
        }
        let view = Arc::new(ReplicaView {
            leader_epoch: self.machine.leader_epoch(),
            epoch_start: log.epochs().latest().map_or(Offset(0), |(_, start)| start),
            high_watermark,
            log: log.view(),
            damaged: self.damaged,
            recovered: self.recovered,
        });
        let before = self.status.send_replace(Status::Open(view.clone()));
        if !matches!(before, Status::Open(before) if before.reads_like(&view)) {
            self.watchers.wake_all();
        }
    }

    async fn close(&mut self, log: Log) -> Closed {
        self.announce(Status::Closed);
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

    /// Answers everything with KAFKA_STORAGE_ERROR, first what waits for the round that failed: what the file holds is not
    /// known any more.
    async fn refuse(mut self, error: StorageError) {
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
        for output in self.machine.step(Input::Failed) {
            if let Output::Answer(producer, Err(refusal)) = output {
                let _ = producer.send(ProduceOutcome::failed(refusal.error()));
            }
        }
        if let Some(done) = self.heard.deletion.take() {
            return self.delete(None, done).await;
        }
        self.announce(Status::Failed);
        while let Some(received) = self.queue.recv().await {
            match received {
                Received::Message(Message::Append(append)) => {
                    let _ = append.reply.send(ProduceOutcome::failed(ResponseError::KafkaStorageError));
                }
                Received::Urgent(Urgent::Delete(done)) => return self.delete(None, done).await,
                Received::Message(Message::Close(closed)) => {
                    let _ = closed.send(if lacking { Closed::ForWantOfHandles } else { Closed::Done });
                    return;
                }
                Received::Message(Message::DeleteRecords(_, reply)) => {
                    let _ = reply.send(Err(ResponseError::KafkaStorageError));
                }
                Received::Message(
                    Message::BecomeLeader(_)
                    | Message::Config(_)
                    | Message::Trim
                    | Message::DescribeProducers(_)
                    | Message::ExpireProducers(_),
                )
                | Received::Urgent(Urgent::DirectoryFailed) => {}
            }
        }
    }
}

/// How far the log is.
fn ends(log: &Log) -> LogEnds {
    let view = log.view();
    LogEnds { log_start: view.log_start, log_end: view.log_end, flushed_end: view.flushed_end }
}
