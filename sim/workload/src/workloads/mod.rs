//! What the clients of a plan do, one file per kind.
//!
//! Every client is one task with a [`Context`]: its link, its random stream, its counters. They share only what
//! [`Shared`] holds, which judges answers and never steers anyone.

mod actions;
mod administrators;
mod auditor;
mod bell;
mod churn;
mod configure;
mod consumer;
mod delete_records;
mod errands;
mod final_read;
mod forger;
mod grow;
mod hoarder;
mod latecomer;
mod long_segment;
mod offsets;
mod producer;
mod recreate;
mod replayer;
mod sleeper;
mod slow_reader;
mod survey;
mod trespasser;
mod wanderer;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicU64, Ordering},
    },
};

use gracchus_checker::{EventKind, Outcome};
use rand::{Rng, rngs::SmallRng};
use tokio::sync::watch;

use crate::{
    client::{Link, Topic, init_producer_id},
    history::{Recorder, written},
    plan::{Codec, TopicPlan},
    record::{NewRecord, Sequenced, ValueId, encode_sized, mix, stored_at_most},
    run::Phase,
};

pub(crate) use actions::Actions;
pub(crate) use administrators::{SharedNames, administer};
pub(crate) use auditor::audit;
pub(crate) use bell::bell;
pub(crate) use churn::churn;
pub(crate) use configure::configure;
pub(crate) use consumer::consume;
pub(crate) use delete_records::delete_records;
pub(crate) use errands::run_errands;
pub use final_read::FinalRead;
pub(crate) use final_read::final_read;
pub(crate) use forger::forge;
pub(crate) use grow::grow;
pub(crate) use hoarder::{hoard, serve_beside};
pub use latecomer::Narrowed;
pub(crate) use latecomer::{grow_twice, listen, narrow, retype, take_names_again};
pub use long_segment::LongSegment;
pub(crate) use long_segment::{fetch_both, fill, sizes};
pub(crate) use offsets::poll_offsets;
pub(crate) use producer::{hurry, produce};
pub(crate) use recreate::{Generations, Part, recreate};
pub(crate) use replayer::replay;
pub(crate) use sleeper::sleep;
pub(crate) use slow_reader::{read_slowly, take_nothing};
pub(crate) use survey::survey;
pub use survey::{Answer, Question};
pub(crate) use trespasser::trespass;
pub(crate) use wanderer::wander;

/// Does `what` until the drain begins.
pub(crate) async fn until_drain(mut phase: watch::Receiver<Phase>, what: impl Future<Output = ()>) {
    tokio::select! {
        biased;
        _ = phase.wait_for(|phase| *phase >= Phase::Drain) => {}
        () = what => {}
    }
}

/// One client.
pub(crate) struct Context {
    pub(crate) number: u32,
    pub(crate) link: Link,
    pub(crate) recorder: Recorder,
    pub(crate) random: SmallRng,
    pub(crate) shared: Arc<Shared>,
    pub(crate) phase: watch::Receiver<Phase>,
    /// The plan's topics.
    pub(crate) topics: Vec<Arc<Topic>>,
    pub(crate) ops: u64,
    pub(crate) values: u64,
}

/// A batch that was born: one operation of the history.
#[derive(Debug, Clone)]
pub(crate) struct Batch {
    pub(crate) op: u64,
    pub(crate) attempts: u32,
    pub(crate) topic: Arc<Topic>,
    pub(crate) partition: i32,
    pub(crate) records: Arc<[NewRecord]>,
    pub(crate) codec: Codec,
    pub(crate) sequenced: Sequenced,
    pub(crate) bytes: bytes::Bytes,
}

impl Context {
    pub(crate) fn draining(&self) -> bool {
        *self.phase.borrow() >= Phase::Drain
    }

    /// A producer id that nobody has had before, with its epoch; asks until there is one.
    pub(crate) async fn producer_id(&mut self) -> (i64, i16) {
        loop {
            match init_producer_id(&mut self.link, None).await {
                Ok(Ok((id, epoch))) => {
                    if !lock(&self.shared.producer_ids).insert(id) {
                        let story = format!("producer id {id} was handed out twice");
                        self.recorder.complain("producer_id_unique", story);
                    }
                    return (id, epoch);
                }
                Ok(Err(_)) => self.link.back_off().await,
                Err(error) => self.link.failed(&error).await,
            }
        }
    }

    /// Records with fresh values, stamped with this client's wall clock.
    pub(crate) fn fresh_records(
        &mut self,
        count: u32,
        filler: impl Fn(&mut SmallRng) -> u32,
    ) -> Arc<[NewRecord]> {
        let now = self.link.env.wall_clock_ms();
        (0..count)
            .map(|_| {
                self.values += 1;
                // Neighbours may differ by a little either way: create times are not sorted in real logs.
                let timestamp = now + self.random.random_range(-3..=3);
                let filler = filler(&mut self.random);
                NewRecord { id: ValueId::new(self.number, self.values), timestamp, filler }
            })
            .collect()
    }

    /// Begins an operation: tells of it and encodes its batch.
    pub(crate) fn begin(
        &mut self,
        topic: &Arc<Topic>,
        partition: i32,
        records: Arc<[NewRecord]>,
        codec: Codec,
        sequenced: Sequenced,
        acks: i16,
    ) -> Batch {
        let records = stamped(topic, records);
        self.ops += 1;
        let op = ValueId::new(self.number, self.ops).0;
        let (bytes, plain) = encode_sized(&topic.name, partition, &records, codec, sequenced);
        self.recorder.tell(EventKind::ProduceInvoked {
            producer: self.number,
            op,
            at: topic.at(partition),
            records: records.iter().map(written).collect(),
            bytes: bytes.len() as u32,
            stored_most: stored_at_most(plain) as u32,
            producer_id: sequenced.producer_id,
            producer_epoch: sequenced.epoch,
            base_sequence: sequenced.sequence,
            acks,
        });
        Batch { op, attempts: 0, topic: Arc::clone(topic), partition, records, codec, sequenced, bytes }
    }

    /// Tells that the next attempt of `batch` is on its way; returns the attempt's number.
    pub(crate) fn tell_sent(&self, batch: &mut Batch, connection: u64, version: i16) -> u32 {
        let by_name = version < BY_ID;
        let attempt = batch.attempts;
        batch.attempts += 1;
        self.recorder.tell(EventKind::ProduceSent { op: batch.op, attempt, connection, by_name });
        attempt
    }

    /// Tells how an attempt ended, and checks what can be checked at once.
    pub(crate) fn tell_returned(&self, batch: &Batch, attempt: u32, outcome: Outcome) {
        self.recorder.tell(EventKind::ProduceReturned { op: batch.op, attempt, outcome });
        let Outcome::Acked { base_offset, .. } = outcome else {
            return;
        };
        self.recorder.progress();
        self.shared.acknowledged.fetch_add(1, Ordering::Relaxed);
        self.shared.remember(batch, base_offset);
    }

    /// Error codes that mean "this attempt wrote nothing".
    pub(crate) fn is_definite(code: i16) -> bool {
        const CORRUPT_MESSAGE: i16 = 2;
        const NOT_ENOUGH_REPLICAS: i16 = 19;
        const INVALID_REQUIRED_ACKS: i16 = 21;
        const UNSUPPORTED_VERSION: i16 = 35;
        const UNSUPPORTED_FOR_MESSAGE_FORMAT: i16 = 43;
        const UNSUPPORTED_COMPRESSION_TYPE: i16 = 76;
        const INVALID_RECORD: i16 = 87;
        matches!(
            code,
            CORRUPT_MESSAGE
                | MESSAGE_TOO_LARGE
                | NOT_ENOUGH_REPLICAS
                | INVALID_REQUIRED_ACKS
                | INVALID_TIMESTAMP
                | UNSUPPORTED_VERSION
                | UNSUPPORTED_FOR_MESSAGE_FORMAT
                | OUT_OF_ORDER_SEQUENCE_NUMBER
                | DUPLICATE_SEQUENCE_NUMBER
                | INVALID_PRODUCER_EPOCH
                | UNSUPPORTED_COMPRESSION_TYPE
                | INVALID_RECORD
        )
    }
}

/// Records with the timestamps that those of the topic have.
fn stamped(topic: &Topic, records: Arc<[NewRecord]>) -> Arc<[NewRecord]> {
    const AN_HOUR_MS: i64 = 3_600_000;
    if topic.ahead {
        return match mix(records[0].id.0 ^ 0x6168_6561_6400) {
            chosen if chosen.is_multiple_of(16) => {
                let ahead = 2_000 + (chosen >> 32) as i64 % 40_000;
                let later = |record: &NewRecord| NewRecord { timestamp: record.timestamp + ahead, ..*record };
                records.iter().map(later).collect()
            }
            _ => records,
        };
    }
    let untimed = topic.untimed || (topic.mixed && mix(records[0].id.0 ^ 0x7469_6d65).is_multiple_of(2));
    if !untimed && !topic.mixed {
        return records;
    }
    let time = |record: &NewRecord| if untimed { -1 } else { record.timestamp - AN_HOUR_MS };
    records.iter().map(|record| NewRecord { timestamp: time(record), ..*record }).collect()
}

/// The first version of Produce and of Fetch that names topics by id.
pub(crate) const BY_ID: i16 = 13;
pub(crate) const MESSAGE_TOO_LARGE: i16 = 10;
/// The client's wall clock is ahead of the broker's by more than the topic allows: a fault of clocks.
pub(crate) const INVALID_TIMESTAMP: i16 = 32;
pub(crate) const OUT_OF_ORDER_SEQUENCE_NUMBER: i16 = 45;
pub(crate) const DUPLICATE_SEQUENCE_NUMBER: i16 = 46;
pub(crate) const INVALID_PRODUCER_EPOCH: i16 = 47;

/// Offset and timestamp of an acknowledged record.
type OffsetAndTime = (i64, i64);
/// The first and the last offset that were read of each leader epoch, by topic and partition.
type Epochs = BTreeMap<(Arc<str>, i32), BTreeMap<i32, (i64, i64)>>;
/// By topic and partition, in the order of the acknowledgements.
type Times = BTreeMap<(Arc<str>, i32), Vec<OffsetAndTime>>;

/// What the clients of a run know together.
#[derive(Debug, Default)]
pub(crate) struct Shared {
    pub(crate) acknowledged: AtomicU64,
    pub(crate) actions: Actions,
    /// Grows whenever a topic gets more partitions.
    pub(crate) growth: AtomicU64,
    counts: Mutex<BTreeMap<Arc<str>, i32>>,
    epochs: Mutex<Epochs>,
    gone: Mutex<BTreeSet<u128>>,
    acked_times: Mutex<Times>,
    topics: Mutex<Vec<(Arc<Topic>, TopicPlan)>>,
    producer_ids: Mutex<BTreeSet<i64>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("no panic while a workload lock is held")
}

impl Shared {
    /// Remembers offset and timestamp of acknowledged records, for questions by timestamp.
    fn remember(&self, batch: &Batch, base_offset: i64) {
        if !batch.topic.synced || batch.topic.log_append_time || batch.topic.passing {
            return;
        }
        let mut times = lock(&self.acked_times);
        let known = times.entry((batch.topic.name.clone(), batch.partition)).or_default();
        known.extend(
            (base_offset..).zip(batch.records.iter()).map(|(offset, record)| (offset, record.timestamp)),
        );
    }

    /// A record among the first `count` known to be acknowledged that fits, as (offset, timestamp).
    pub(crate) fn find_acked(
        &self,
        topic: &Topic,
        partition: i32,
        count: usize,
        fits: impl Fn(i64, i64) -> bool,
    ) -> Option<OffsetAndTime> {
        let times = lock(&self.acked_times);
        let known = times.get(&(topic.name.clone(), partition))?;
        known.iter().take(count).copied().find(|(offset, timestamp)| fits(*offset, *timestamp))
    }

    /// How many records are known to be acknowledged in a partition.
    pub(crate) fn acked_count(&self, topic: &Topic, partition: i32) -> usize {
        lock(&self.acked_times).get(&(topic.name.clone(), partition)).map_or(0, Vec::len)
    }

    /// A topic has so many partitions now.
    pub(crate) fn grown(&self, topic: &Topic, partitions: i32) {
        let mut counts = lock(&self.counts);
        let count = counts.entry(topic.name.clone()).or_insert(topic.partitions);
        if partitions > *count {
            *count = partitions;
            self.growth.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// How many partitions a topic is known to have.
    pub(crate) fn partitions(&self, topic: &Topic) -> i32 {
        lock(&self.counts).get(&topic.name).copied().unwrap_or(topic.partitions).max(topic.partitions)
    }

    /// Batches of this leader epoch were read, the first from offset `first` and the last up to `last`.
    pub(crate) fn read_epoch(&self, topic: &Topic, partition: i32, epoch: i32, (first, last): (i64, i64)) {
        if !topic.synced || topic.passing {
            return;
        }
        let mut epochs = lock(&self.epochs);
        let known = epochs.entry((topic.name.clone(), partition)).or_default();
        let known = known.entry(epoch).or_insert((first, last));
        *known = (first.min(known.0), last.max(known.1));
    }

    /// The leader epochs of a partition with the first and the last offset that were read of each.
    pub(crate) fn known_epochs(&self, topic: &Topic, partition: i32) -> BTreeMap<i32, (i64, i64)> {
        lock(&self.epochs).get(&(topic.name.clone(), partition)).cloned().unwrap_or_default()
    }

    /// A topic was deleted.
    pub(crate) fn deleted(&self, id: u128) {
        lock(&self.gone).insert(id);
    }

    /// The ids of all topics that were deleted.
    pub(crate) fn gone(&self) -> BTreeSet<u128> {
        lock(&self.gone).clone()
    }

    /// A topic exists for good.
    pub(crate) fn created(&self, topic: &Topic, plan: &TopicPlan) {
        lock(&self.topics).push((Arc::new(topic.clone()), plan.clone()));
    }

    /// All topics that were created.
    pub(crate) fn all_topics(&self) -> Vec<(Arc<Topic>, TopicPlan)> {
        lock(&self.topics).clone()
    }
}
