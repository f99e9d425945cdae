//! What one replica decides, as a pure machine: it takes what has happened, in its order, and says what to do, in its order.
//!
//! It hears what the metadata say, what clients ask and how far the log is; it says what is to be appended, what readers may see and
//! who is to be answered. Whoever carries that out decides nothing. Here every replica leads and is alone in its in-sync set.
//!
//! Never: I/O, or a look at a clock; an answer before what it speaks of is kept (acks=1) or committed (acks=-1), a duplicate's
//! included; a high watermark that goes back, or lies above what is kept.

use std::{collections::VecDeque, sync::Arc};

use super::{high_watermark, turned_away::TurnedAway};
use crate::{
    BrokerId, LeaderEpoch, Offset,
    error::ResponseError,
    producer::{ProducerStates, Verdict},
    record::{BatchHeader, TimestampType},
    topic::TopicConfig,
};

/// acks: the answer waits for all replicas in sync.
const ACKS_ALL: i16 = -1;
/// DeleteRecords: up to the high watermark, wherever that is.
const TO_HIGH_WATERMARK: i64 = -1;

/// The replica set as the metadata have it, as far as appends depend on it.
#[derive(Debug, Clone)]
pub struct Assignment {
    /// The epoch in which this replica leads.
    pub leader_epoch: LeaderEpoch,
    /// Who keeps the partition.
    pub replicas: Vec<BrokerId>,
    /// Who of them is in sync.
    pub in_sync: Vec<BrokerId>,
}

/// How far the log is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogEnds {
    /// The first offset that can be read.
    pub log_start: Offset,
    /// Everything below is written.
    pub log_end: Offset,
    /// Everything below is on disk.
    pub flushed_end: Offset,
}

/// What has happened. `T` stands for whoever is to be answered.
#[derive(Debug)]
pub enum Input<'a, T> {
    /// The metadata let this replica lead in an epoch.
    Lead(LeaderEpoch),
    /// The topic's configuration from now on.
    Configure(Arc<TopicConfig>),
    /// The log was opened.
    Opened(LogEnds),
    /// The log is further; what was to be done on it so far is done.
    Log(LogEnds),
    /// Nothing is known of the log any more.
    Failed,
    /// A batch, checked, is to go behind all that came before it. `producers` are as all that was appended has left them.
    Produce { asker: T, header: &'a BatchHeader, acks: i16, producers: &'a ProducerStates },
    /// A batch was turned away because the log could not be opened.
    TurnedAway(&'a BatchHeader),
    /// Records below an offset are to go; −1: below the high watermark.
    DeleteRecords(i64),
}

/// What is to be done.
#[derive(Debug, PartialEq, Eq)]
pub enum Output<T> {
    /// The log takes down that the epoch begins at its end.
    BeginEpoch(LeaderEpoch),
    /// The batch of this very input goes into the log, with this header.
    Append(BatchHeader),
    /// The log begins at this offset from now on.
    AdvanceLogStart(Offset),
    /// DeleteRecords is refused.
    RefuseDeletion(ResponseError),
    /// Readers may see the log as it is now, and records below this high watermark.
    Publish { high_watermark: Offset },
    /// The answer to a producer.
    Answer(T, Result<Appended, Refusal>),
}

/// What a producer is told of its batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Appended {
    /// The offset of its first record.
    pub base_offset: Offset,
    /// Milliseconds since the epoch for LogAppendTime topics, else −1.
    pub log_append_time_ms: i64,
    /// It was in the log already.
    pub duplicate: bool,
}

/// Why a batch is not appended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// For a reason that has a code.
    Error(ResponseError),
    /// It comes before one of its producer that was turned away.
    Overtaking,
}

impl Refusal {
    /// The code that the client gets.
    pub fn error(self) -> ResponseError {
        match self {
            Refusal::Error(error) => error,
            Refusal::Overtaking => ResponseError::OutOfOrderSequenceNumber,
        }
    }
}

impl From<ResponseError> for Refusal {
    fn from(error: ResponseError) -> Self {
        Refusal::Error(error)
    }
}

/// An answer that waits until everything below `end` is safe enough.
#[derive(Debug)]
struct Pending<T> {
    asker: T,
    end: Offset,
    appended: Appended,
}

/// See the module.
#[derive(Debug)]
pub struct ReplicaMachine<T> {
    assignment: Assignment,
    config: Arc<TopicConfig>,
    /// `None` until it is opened.
    log: Option<LogEnds>,
    /// The offset that the next record gets.
    next_offset: Offset,
    high_watermark: Offset,
    turned_away: TurnedAway,
    /// Wait until this replica has kept them, in the order in which they came.
    until_kept: VecDeque<Pending<T>>,
    /// Wait until they are committed.
    until_committed: VecDeque<Pending<T>>,
}

impl<T> ReplicaMachine<T> {
    /// A replica whose log is not open yet.
    pub fn new(assignment: Assignment, config: Arc<TopicConfig>) -> Self {
        Self {
            assignment,
            config,
            log: None,
            next_offset: Offset(0),
            high_watermark: Offset(0),
            turned_away: TurnedAway::default(),
            until_kept: VecDeque::new(),
            until_committed: VecDeque::new(),
        }
    }

    /// The epoch it leads in.
    pub fn leader_epoch(&self) -> LeaderEpoch {
        self.assignment.leader_epoch
    }

    /// The configuration that it goes by.
    pub fn config(&self) -> &Arc<TopicConfig> {
        &self.config
    }

    /// Everything below is committed.
    pub fn high_watermark(&self) -> Offset {
        self.high_watermark
    }

    /// Takes in what has happened; says what to do about it.
    pub fn step(&mut self, input: Input<'_, T>) -> Vec<Output<T>> {
        match input {
            Input::Lead(epoch) => self.lead(epoch),
            Input::Configure(config) => {
                self.config = config;
                Vec::new()
            }
            Input::Opened(ends) => {
                self.next_offset = ends.log_end;
                self.log_is_at(ends)
            }
            Input::Log(ends) => self.log_is_at(ends),
            Input::Failed => self.fail(),
            Input::Produce { asker, header, acks, producers } => self.produce(asker, header, acks, producers),
            Input::TurnedAway(header) => {
                self.turned_away.note(header);
                Vec::new()
            }
            Input::DeleteRecords(to) => vec![self.delete_records(to)],
        }
    }

    /// An epoch begins at the log end, also if no record ever follows. Before the log is open there is none: whoever opens it
    /// begins the epoch of that time.
    fn lead(&mut self, epoch: LeaderEpoch) -> Vec<Output<T>> {
        if epoch <= self.assignment.leader_epoch {
            return Vec::new();
        }
        self.assignment.leader_epoch = epoch;
        if self.log.is_some() { vec![Output::BeginEpoch(epoch)] } else { Vec::new() }
    }

    fn log_is_at(&mut self, ends: LogEnds) -> Vec<Output<T>> {
        self.log = Some(ends);
        let kept_end = self.kept_end(ends);
        let current = self.high_watermark.max(ends.log_start);
        self.high_watermark = high_watermark::advance(current, &[kept_end], self.min_in_sync());
        let mut outputs = vec![Output::Publish { high_watermark: self.high_watermark }];
        answer_below(&mut self.until_kept, kept_end, &mut outputs);
        answer_below(&mut self.until_committed, self.high_watermark, &mut outputs);
        outputs
    }

    /// What this replica promises to have. Where flushing is left to the operating system, written is all that an
    /// acknowledgement ever promised.
    fn kept_end(&self, ends: LogEnds) -> Offset {
        if self.config.flush_messages == 1 { ends.flushed_end } else { ends.log_end }
    }

    fn min_in_sync(&self) -> usize {
        let replicas = self.assignment.replicas.len();
        high_watermark::effective_min_in_sync(self.config.min_insync_replicas, replicas)
    }

    fn fail(&mut self) -> Vec<Output<T>> {
        let waiting = self.until_kept.drain(..).chain(self.until_committed.drain(..));
        let failed = |it: Pending<T>| Output::Answer(it.asker, Err(ResponseError::KafkaStorageError.into()));
        waiting.map(failed).collect()
    }

    fn produce(
        &mut self,
        asker: T,
        header: &BatchHeader,
        acks: i16,
        producers: &ProducerStates,
    ) -> Vec<Output<T>> {
        let mut outputs = Vec::new();
        match self.decide(header, acks, producers, &mut outputs) {
            Ok((appended, end)) => {
                let queue = if acks == ACKS_ALL { &mut self.until_committed } else { &mut self.until_kept };
                queue.push_back(Pending { asker, end, appended });
            }
            Err(refusal) => outputs.push(Output::Answer(asker, Err(refusal))),
        }
        outputs
    }

    /// What the producer will be told, and the end of its batch.
    fn decide(
        &mut self,
        header: &BatchHeader,
        acks: i16,
        producers: &ProducerStates,
        outputs: &mut Vec<Output<T>>,
    ) -> Result<(Appended, Offset), Refusal> {
        if acks == ACKS_ALL && self.assignment.in_sync.len() < self.min_in_sync() {
            return Err(ResponseError::NotEnoughReplicas.into());
        }
        let verdict = producers.check(header)?;
        let duplicate = matches!(verdict, Verdict::Duplicate { .. });
        let (base_offset, end, timestamp) = match verdict {
            Verdict::Duplicate { base_offset, last_offset, timestamp } => {
                (base_offset, last_offset.plus(1), timestamp)
            }
            Verdict::Append => {
                let is_new = !self.turned_away.is_empty() && producers.get(header.producer_id).is_none();
                if is_new && self.turned_away.is_overtaken_by(header) {
                    return Err(Refusal::Overtaking);
                }
                let base_offset = self.next_offset;
                let stamped = header.stamp(base_offset, self.assignment.leader_epoch);
                self.next_offset = stamped.next_offset();
                outputs.push(Output::Append(stamped));
                (base_offset, self.next_offset, header.max_timestamp)
            }
        };
        let log_append_time = header.timestamp_type() == TimestampType::LogAppendTime;
        let log_append_time_ms = if log_append_time { timestamp } else { -1 };
        Ok((Appended { base_offset, log_append_time_ms, duplicate }, end))
    }

    fn delete_records(&self, to: i64) -> Output<T> {
        let policy = self.config.cleanup_policy;
        let to = if to == TO_HIGH_WATERMARK { self.high_watermark } else { Offset(to) };
        if policy.compact && !policy.delete {
            Output::RefuseDeletion(ResponseError::PolicyViolation)
        } else if to < Offset(0) || to > self.high_watermark {
            Output::RefuseDeletion(ResponseError::OffsetOutOfRange)
        } else {
            Output::AdvanceLogStart(to)
        }
    }
}

/// Answers who waits for what is below `end`. One that came later waits for those before it, also with a duplicate of long ago.
fn answer_below<T>(waiting: &mut VecDeque<Pending<T>>, end: Offset, outputs: &mut Vec<Output<T>>) {
    while waiting.front().is_some_and(|first| first.end <= end) {
        let Some(first) = waiting.pop_front() else { unreachable!("seen above") };
        outputs.push(Output::Answer(first.asker, Ok(first.appended)));
    }
}
