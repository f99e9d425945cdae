//! Producer state per partition: what is a duplicate, what is out of order, what may expire.
//!
//! Source: KIP-98, KIP-360, KIP-890. Of every producer the last five batches are remembered, because a client may have
//! five in flight and repeat any of them. The state is a function of the batches in the log: whoever appends, recovers
//! or truncates feeds [`ProducerStates::record`] in log order, and state never runs ahead of the log it came from.
//!
//! A producer is forgotten after a silence, which counts from when this process appended its last batch, by the wall
//! clock. What its records say is no clock: whoever copies records of 1970 is not silent, and one that writes of 2100
//! is not heard for ever. No file says when a batch came in (Kafka's snapshots hold what the newest record says), so for
//! what a process has loaded, from a snapshot or from the log, the count begins anew at its first look: it has heard
//! nothing itself, and would forget too early otherwise. The price is memory for at most one silence more after each start.
//!
//! Never: forget a producer because its records were deleted (only silence does that), nor while a transaction is open.

mod snapshot;

use std::collections::{BTreeMap, VecDeque};

pub use snapshot::SnapshotError;

use crate::{
    Offset, ProducerEpoch, ProducerId,
    error::ResponseError,
    record::{BatchHeader, advance_sequence},
};

/// Batches remembered per producer: `max.in.flight.requests.per.connection` of an idempotent client is at most five.
pub const WINDOW: usize = 5;

/// What to do with a batch of an idempotent producer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Next in order (or no producer id): append it.
    Append,
    /// Already in the log: answer with what was answered then.
    Duplicate { base_offset: Offset, last_offset: Offset, timestamp: i64 },
}

/// A remembered batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchMark {
    pub first_sequence: i32,
    pub last_sequence: i32,
    pub last_offset: Offset,
    /// Last offset − base offset. Equals the sequence span.
    pub offset_delta: i32,
    /// Newest timestamp of the batch.
    pub timestamp: i64,
}

impl BatchMark {
    fn of(header: &BatchHeader) -> BatchMark {
        BatchMark {
            first_sequence: header.base_sequence,
            last_sequence: header.last_sequence(),
            last_offset: header.last_offset(),
            offset_delta: header.last_offset_delta,
            timestamp: header.max_timestamp,
        }
    }

    /// Where the batch begins.
    pub fn base_offset(&self) -> Offset {
        self.last_offset.plus(-i64::from(self.offset_delta))
    }
}

/// What a partition knows of one producer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProducerEntry {
    pub epoch: ProducerEpoch,
    /// Of the present epoch, oldest first, at most [`WINDOW`].
    pub batches: VecDeque<BatchMark>,
    /// Newest timestamp of data or marker. For those who ask, and for Kafka's snapshot: nothing counts from it here.
    pub last_timestamp: i64,
    /// Since when nothing came from it, in milliseconds of the wall clock. `None`: this process has loaded what it knows,
    /// and has not looked yet.
    pub silent_since_ms: Option<i64>,
    /// Epoch of the coordinator that wrote the last marker; −1 for none.
    pub coordinator_epoch: i32,
    /// Where the open transaction begins.
    pub transaction_start: Option<Offset>,
}

impl ProducerEntry {
    fn new(epoch: ProducerEpoch) -> ProducerEntry {
        ProducerEntry {
            epoch,
            batches: VecDeque::with_capacity(WINDOW),
            last_timestamp: -1,
            silent_since_ms: None,
            coordinator_epoch: -1,
            transaction_start: None,
        }
    }

    /// A batch of the window with the same first and last sequence: only that is a duplicate.
    fn duplicate(&self, header: &BatchHeader) -> Option<&BatchMark> {
        let last = header.last_sequence();
        self.batches
            .iter()
            .find(|mark| mark.first_sequence == header.base_sequence && mark.last_sequence == last)
    }

    /// The sequence that must come next; 0 before the first batch of the epoch.
    fn next_sequence(&self) -> i32 {
        self.batches.back().map_or(0, |mark| advance_sequence(mark.last_sequence, 1))
    }

    fn move_to(&mut self, epoch: ProducerEpoch) {
        if self.epoch != epoch {
            self.epoch = epoch;
            self.batches.clear();
        }
    }
}

/// The producers of one partition, by id.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ProducerStates {
    producers: BTreeMap<ProducerId, ProducerEntry>,
}

impl ProducerStates {
    /// A partition that no producer has written to.
    pub fn new() -> Self {
        Self::default()
    }

    /// Judges a client's batch as the leader, before it gets its offsets. Changes nothing.
    pub fn check(&self, header: &BatchHeader) -> Result<Verdict, ResponseError> {
        if !header.has_producer() || header.is_control() {
            return Ok(Verdict::Append);
        }
        // Nothing known (new, expired): whatever comes first is right.
        let Some(entry) = self.producers.get(&header.producer_id) else { return Ok(Verdict::Append) };
        if header.producer_epoch < entry.epoch {
            return Err(ResponseError::InvalidProducerEpoch);
        }
        if header.producer_epoch == entry.epoch
            && let Some(mark) = entry.duplicate(header)
        {
            return Ok(Verdict::Duplicate {
                base_offset: mark.base_offset(),
                last_offset: mark.last_offset,
                timestamp: mark.timestamp,
            });
        }
        if entry.transaction_start.is_some() && !header.is_transactional() {
            return Err(ResponseError::InvalidTxnState);
        }
        let expected = if header.producer_epoch > entry.epoch { 0 } else { entry.next_sequence() };
        if header.base_sequence == expected {
            Ok(Verdict::Append)
        } else {
            Err(ResponseError::OutOfOrderSequenceNumber)
        }
    }

    /// Takes in a batch that is being appended now, by the wall clock; otherwise as [`ProducerStates::record`].
    pub fn append(&mut self, header: &BatchHeader, now_ms: i64) {
        self.record(header);
        if let Some(entry) = self.producers.get_mut(&header.producer_id) {
            entry.silent_since_ms = Some(now_ms);
        }
    }

    /// Takes in a batch that stands in the log, with its real offsets. Judges nothing: leaders have asked
    /// [`ProducerStates::check`], followers and recovery believe the log.
    pub fn record(&mut self, header: &BatchHeader) {
        if !header.has_producer() {
            return;
        }
        let entry = self
            .producers
            .entry(header.producer_id)
            .or_insert_with(|| ProducerEntry::new(header.producer_epoch));
        entry.move_to(header.producer_epoch);
        entry.last_timestamp = header.max_timestamp;
        if header.is_control() {
            entry.transaction_start = None;
            return;
        }
        if entry.batches.len() == WINDOW {
            entry.batches.pop_front();
        }
        entry.batches.push_back(BatchMark::of(header));
        if header.is_transactional() {
            entry.transaction_start.get_or_insert(header.base_offset);
        }
    }

    /// Notes which coordinator wrote the marker that [`ProducerStates::record`] has just taken in.
    pub fn record_coordinator(&mut self, id: ProducerId, coordinator_epoch: i32) {
        if let Some(entry) = self.producers.get_mut(&id) {
            entry.coordinator_epoch = entry.coordinator_epoch.max(coordinator_epoch);
        }
    }

    /// Forgets producers that have been silent for `expiration_ms` (`producer.id.expiration.ms`) and have no open
    /// transaction. Returns how many. Kafka takes the timestamps of records for the time of the last batch: a producer
    /// whose records are old, or have no timestamps, is forgotten at its next look, and its retries are appended twice.
    pub fn expire(&mut self, now_ms: i64, expiration_ms: i64) -> usize {
        let before = self.producers.len();
        self.producers.retain(|_, entry| {
            // Not after now: a clock that was set back must not keep a producer for longer.
            let since = entry.silent_since_ms.map_or(now_ms, |since| since.min(now_ms));
            entry.silent_since_ms = Some(since);
            entry.transaction_start.is_some() || now_ms.saturating_sub(since) < expiration_ms
        });
        before - self.producers.len()
    }

    /// What is known of a producer.
    pub fn get(&self, id: ProducerId) -> Option<&ProducerEntry> {
        self.producers.get(&id)
    }

    /// All producers, by id.
    pub fn iter(&self) -> impl Iterator<Item = (ProducerId, &ProducerEntry)> {
        self.producers.iter().map(|(id, entry)| (*id, entry))
    }

    /// Where the earliest open transaction begins: the last stable offset is not above it.
    pub fn first_open_transaction(&self) -> Option<Offset> {
        self.producers.values().filter_map(|entry| entry.transaction_start).min()
    }

    /// How many producers are known.
    pub fn len(&self) -> usize {
        self.producers.len()
    }

    /// Whether no producer is known.
    pub fn is_empty(&self) -> bool {
        self.producers.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::{Batch, BatchBuilder};
    use proptest::prelude::*;

    /// When batches are appended; what their records say is another matter.
    const APPENDED: i64 = 1_000_000;

    /// A producer and the partition it writes to.
    struct Partition {
        states: ProducerStates,
        log_end: i64,
    }

    impl Partition {
        fn new() -> Self {
            Self { states: ProducerStates::new(), log_end: 0 }
        }

        fn header(&self, epoch: i16, sequence: i32, count: usize) -> BatchHeader {
            let builder = BatchBuilder::new().producer(ProducerId(7), ProducerEpoch(epoch), sequence);
            let bytes =
                (0..count).fold(builder, |builder, _| builder.value(self.log_end + 1000, "v")).build();
            Batch::check(bytes).unwrap().header
        }

        fn send(&mut self, epoch: i16, sequence: i32, count: usize) -> Result<Verdict, ResponseError> {
            let header = self.header(epoch, sequence, count);
            let verdict = self.states.check(&header)?;
            if verdict == Verdict::Append {
                let stamped = header.stamp(Offset(self.log_end), crate::LeaderEpoch(0));
                self.states.append(&stamped, APPENDED);
                self.log_end = stamped.next_offset().0;
            }
            Ok(verdict)
        }
    }

    fn duplicate_at(verdict: Result<Verdict, ResponseError>) -> Option<(i64, i64)> {
        match verdict {
            Ok(Verdict::Duplicate { base_offset, last_offset, .. }) => Some((base_offset.0, last_offset.0)),
            _ => None,
        }
    }

    #[test]
    fn each_of_the_last_five_batches_is_answered_with_its_own_offset() {
        let mut partition = Partition::new();
        for batch in 0..6 {
            assert_eq!(partition.send(0, batch * 3, 3), Ok(Verdict::Append));
        }
        for batch in 1..6 {
            let there = (i64::from(batch) * 3, i64::from(batch) * 3 + 2);
            assert_eq!(duplicate_at(partition.send(0, batch * 3, 3)), Some(there));
        }
        assert_eq!(
            partition.send(0, 0, 3),
            Err(ResponseError::OutOfOrderSequenceNumber),
            "the sixth is forgotten"
        );
    }

    #[test]
    fn only_first_and_last_sequence_together_make_a_duplicate() {
        let mut partition = Partition::new();
        partition.send(0, 0, 5).unwrap();
        assert_eq!(partition.send(0, 0, 4), Err(ResponseError::OutOfOrderSequenceNumber));
        assert_eq!(partition.send(0, 1, 4), Err(ResponseError::OutOfOrderSequenceNumber));
        assert_eq!(partition.send(0, 6, 1), Err(ResponseError::OutOfOrderSequenceNumber));
        assert_eq!(partition.send(0, 5, 1), Ok(Verdict::Append));
    }

    #[test]
    fn sequences_wrap_to_zero() {
        let mut partition = Partition::new();
        assert_eq!(
            partition.send(0, i32::MAX - 1, 3),
            Ok(Verdict::Append),
            "an unknown producer may start anywhere"
        );
        assert_eq!(partition.send(0, 1, 1), Ok(Verdict::Append), "MAX−1, MAX, 0, then 1");
        assert_eq!(duplicate_at(partition.send(0, i32::MAX - 1, 3)), Some((0, 2)));
    }

    #[test]
    fn a_new_epoch_starts_at_zero_and_fences_the_old_one() {
        let mut partition = Partition::new();
        partition.send(3, 0, 2).unwrap();
        assert_eq!(partition.send(4, 2, 1), Err(ResponseError::OutOfOrderSequenceNumber));
        assert_eq!(partition.send(4, 0, 1), Ok(Verdict::Append));
        assert_eq!(
            partition.send(3, 0, 2),
            Err(ResponseError::InvalidProducerEpoch),
            "not even as a duplicate"
        );
        assert_eq!(partition.send(3, 2, 1), Err(ResponseError::InvalidProducerEpoch));
        assert_eq!(partition.send(4, 1, 1), Ok(Verdict::Append));
    }

    #[test]
    fn silence_alone_makes_a_producer_forgotten() {
        let mut partition = Partition::new();
        partition.send(0, 0, 1).unwrap();
        assert_eq!(partition.states.expire(APPENDED + 59, 60), 0);
        assert_eq!(partition.states.expire(APPENDED + 60, 60), 1);
        assert_eq!(partition.send(0, 40, 1), Ok(Verdict::Append));
    }

    #[test]
    fn what_records_say_of_their_time_neither_forgets_a_producer_nor_keeps_it() {
        const FAR_AHEAD: i64 = 4_000_000_000_000;
        for timestamp in [-1, 0, 5, FAR_AHEAD] {
            let mut states = ProducerStates::new();
            let builder = BatchBuilder::new().producer(ProducerId(7), ProducerEpoch(0), 0);
            let header = Batch::check(builder.value(timestamp, "v").build()).unwrap().header;
            assert_eq!(header.max_timestamp, timestamp);
            let stamped = header.stamp(Offset(40), crate::LeaderEpoch(0));
            states.append(&stamped, APPENDED);
            assert_eq!(states.expire(APPENDED + 59, 60), 0, "{timestamp}");
            assert_eq!(duplicate_at(states.check(&header)), Some((40, 40)), "{timestamp}");
            assert_eq!(states.get(ProducerId(7)).unwrap().last_timestamp, timestamp, "as the records say");
            assert_eq!(states.expire(APPENDED + 60, 60), 1, "{timestamp}");
        }
    }

    #[test]
    fn the_silence_of_what_was_loaded_begins_at_the_first_look() {
        const FIRST_LOOK: i64 = APPENDED * 7;
        let header = |sequence| {
            let builder = BatchBuilder::new().producer(ProducerId(7), ProducerEpoch(0), sequence);
            Batch::check(builder.value(5, "v").build()).unwrap().header
        };
        let mut replayed = ProducerStates::new();
        replayed.record(&header(0));
        let mut before = ProducerStates::new();
        before.append(&header(0), APPENDED);
        let decoded = ProducerStates::decode_snapshot(&before.encode_snapshot()).unwrap();
        for mut states in [replayed, decoded] {
            assert_eq!(states.expire(FIRST_LOOK, 60), 0);
            assert!(matches!(states.check(&header(0)), Ok(Verdict::Duplicate { .. })), "its retry is known");
            let mut heard = states.clone();
            assert_eq!(states.expire(FIRST_LOOK + 59, 60), 0);
            assert_eq!(states.expire(FIRST_LOOK + 60, 60), 1);
            heard.append(&header(1), FIRST_LOOK + 50);
            assert_eq!(heard.expire(FIRST_LOOK + 109, 60), 0, "it was heard again");
            assert_eq!(heard.expire(FIRST_LOOK + 110, 60), 1);
        }
    }

    #[test]
    fn a_clock_that_was_set_back_keeps_nobody_for_longer() {
        let mut partition = Partition::new();
        partition.send(0, 0, 1).unwrap();
        assert_eq!(partition.states.expire(500, 60), 0);
        assert_eq!(partition.states.expire(559, 60), 0);
        assert_eq!(partition.states.expire(560, 60), 1);
    }

    #[test]
    fn an_open_transaction_keeps_its_producer_and_refuses_plain_batches() {
        let mut partition = Partition::new();
        let header = |builder: BatchBuilder| Batch::check(builder.value(5, "v").build()).unwrap().header;
        let of = |sequence| BatchBuilder::new().producer(ProducerId(7), ProducerEpoch(1), sequence);
        partition.states.record(&header(of(0).transactional()).stamp(Offset(40), crate::LeaderEpoch(0)));
        assert_eq!(partition.states.first_open_transaction(), Some(Offset(40)));
        assert_eq!(partition.states.expire(i64::MAX, 1), 0);
        assert_eq!(partition.states.check(&header(of(1))), Err(ResponseError::InvalidTxnState));
        assert_eq!(partition.states.check(&header(of(1).transactional())), Ok(Verdict::Append));
        partition
            .states
            .record(&header(of(-1).transactional().control()).stamp(Offset(41), crate::LeaderEpoch(0)));
        assert_eq!(partition.states.first_open_transaction(), None);
        assert_eq!(
            partition.states.check(&header(of(1))),
            Ok(Verdict::Append),
            "the marker used no sequence"
        );
    }

    #[test]
    fn without_a_producer_everything_is_appended() {
        let plain = Batch::check(BatchBuilder::new().value(1, "v").build()).unwrap().header;
        let mut states = ProducerStates::new();
        states.record(&plain);
        assert_eq!(states.check(&plain), Ok(Verdict::Append));
        assert!(states.is_empty());
    }

    proptest! {
        /// A client with up to five batches in flight that resends any of them never writes twice, and is always
        /// told where the batch was first put.
        #[test]
        fn resending_within_the_window_is_harmless(
            sizes in proptest::collection::vec(1..5usize, 1..40),
            resends in proptest::collection::vec(0..5usize, 40),
        ) {
            let mut partition = Partition::new();
            let mut sent: Vec<(i32, usize, i64)> = Vec::new();
            let mut sequence = i32::MAX - 20;
            for (size, back) in sizes.into_iter().zip(resends) {
                let base = partition.log_end;
                prop_assert_eq!(partition.send(0, sequence, size), Ok(Verdict::Append));
                sent.push((sequence, size, base));
                sequence = advance_sequence(sequence, size as i32);
                let again = sent[sent.len().saturating_sub(1 + back)];
                let there = (again.2, again.2 + again.1 as i64 - 1);
                prop_assert_eq!(duplicate_at(partition.send(0, again.0, again.1)), Some(there));
            }
        }
    }
}
