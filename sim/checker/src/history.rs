//! What the checker knows of the history so far: partitions with their ledgers, operations, clients.
//!
//! A ledger holds the one value that an offset may have for ever, as acknowledgements and readers have told it. A
//! batch is atomic: who knows the place of one of its records knows the places of all. Never: a judgement (those are
//! the laws'), or a map whose order could reach a verdict.

use std::collections::{BTreeMap, HashMap};
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::Arc;

use crate::configs::Configs;
use crate::forgetting::Forgetting;
use crate::{ClientKind, Partition, Seen, Written};

/// An offset further than this beyond the ledger's end is not a record's place but nonsense.
const LEAP_MOST: i64 = 10_000_000;

/// How much of a partition can be judged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Judged {
    Fully,
    /// The topic is being deleted: what was there may be gone, and answers from before may still arrive. Only that nothing
    /// appears from nowhere is judged.
    WrittenOnly,
    /// Deleted.
    Not,
}

/// What a power loss must leave of a partition, and why.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Floor {
    pub(crate) end: i64,
    pub(crate) why: &'static str,
}

/// What stands at an offset.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Slot {
    pub(crate) value: u64,
    pub(crate) hash: u64,
    /// The record's timestamp as clients know it.
    pub(crate) time: i64,
    /// Whether that is certain: an answer that says nothing of a broker's time may be to a repetition.
    pub(crate) timed: bool,
    /// The earliest that the broker's clock, had it never been set back, can have shown when it was appended.
    pub(crate) appended_ms: i64,
    /// Its share of its batch's bytes, rounded up.
    pub(crate) bytes: u32,
    pub(crate) acked: bool,
    /// A reader has seen it.
    pub(crate) read: bool,
}

impl Slot {
    /// Whether it is the record that was found.
    pub(crate) fn holds(&self, seen: &Seen) -> bool {
        (self.value, self.hash, self.time) == (seen.value, seen.hash, seen.time)
    }
}

/// A number that only grows, with the times at which clients learned it.
#[derive(Debug, Default)]
pub(crate) struct Timeline {
    steps: Vec<(u64, i64)>,
}

impl Timeline {
    /// At `time_ns` a client knew that the number is at least `value`.
    pub(crate) fn learn(&mut self, time_ns: u64, value: i64) {
        if self.steps.last().is_none_or(|(_, last)| *last < value) {
            self.steps.push((time_ns, value));
        }
    }

    /// What was known strictly before `time_ns`; −1 for nothing.
    pub(crate) fn before(&self, time_ns: u64) -> i64 {
        let count = self.steps.partition_point(|(time, _)| *time < time_ns);
        count.checked_sub(1).map_or(-1, |last| self.steps[last].1)
    }

    /// From `time_ns` on the number is at most `value`, whatever was known before.
    pub(crate) fn cut(&mut self, time_ns: u64, value: i64) {
        let known = self.now().min(value);
        self.steps.clear();
        if known >= 0 {
            self.steps.push((time_ns, known));
        }
    }

    /// What is known now.
    pub(crate) fn now(&self) -> i64 {
        self.steps.last().map_or(-1, |(_, value)| *value)
    }
}

/// A topic of one id.
#[derive(Debug)]
pub(crate) struct TopicState {
    pub(crate) name: Arc<str>,
    pub(crate) id: u128,
    pub(crate) created_ns: u64,
    pub(crate) deletion_asked_ns: Option<u64>,
    /// Since then it is known to be deleted.
    pub(crate) gone_ns: Option<u64>,
    /// By number: indexes in [`History::partitions`].
    pub(crate) partitions: Vec<usize>,
    /// How many partitions clients know it to have.
    pub(crate) counts: Timeline,
    /// The most partitions that were ever asked for.
    pub(crate) most_asked: i32,
    pub(crate) configs: Configs,
}

/// A partition of one topic id.
#[derive(Debug)]
pub(crate) struct PartitionState {
    pub(crate) name: Partition,
    /// Index in [`History::topics`].
    pub(crate) topic: usize,
    pub(crate) synced: bool,
    pub(crate) dense: bool,
    pub(crate) replication_factor: i16,
    pub(crate) judged: Judged,
    slots: Vec<Option<Slot>>,
    /// Behind the last acknowledged record; 0 for none.
    pub(crate) acked_end: i64,
    /// When it was.
    pub(crate) acked_ns: u64,
    /// Ends that clients know to be committed: acknowledged, or a high watermark they were told.
    pub(crate) ends: Timeline,
    /// Log starts that clients were told, or that a replica showed.
    pub(crate) starts: Timeline,
    /// What may delete its records.
    pub(crate) deletions: Deletions,
    /// The largest log end that was shown.
    pub(crate) latest_end: i64,
    /// The largest high watermark that a replica showed; `None` where nobody looks at replicas.
    pub(crate) latest_high_watermark: Option<i64>,
    /// The most bytes of a record that was ever sent here.
    pub(crate) largest_bytes: u32,
    /// All below is on disk for good, whatever the topic leaves to the operating system.
    pub(crate) durable_end: i64,
    /// The power failed, and what is left of a topic that leaves flushing to the operating system is not known yet: at
    /// least this.
    pub(crate) exposed: Option<Floor>,
    /// When it failed last: whatever was asked before was answered by a log of which a part may be gone since.
    pub(crate) lost_ns: u64,
    /// When the process that serves it now showed it first.
    pub(crate) opened_ns: u64,
    /// Node and log directory that hold it, as far as was told.
    pub(crate) place: Option<(i32, Arc<str>)>,
    /// The log directory that held it before: until it has been opened where it is now, it may be looked for there.
    pub(crate) moved_from: Option<Arc<str>>,
    /// Where the operations of each (producer id, epoch) begin, by operation number.
    pub(crate) orders: BTreeMap<(i64, i16), BTreeMap<u64, i64>>,
}

impl PartitionState {
    /// What is known to stand at `offset`.
    pub(crate) fn slot(&self, offset: i64) -> Option<&Slot> {
        self.slots.get(usize::try_from(offset).ok()?)?.as_ref()
    }

    pub(crate) fn slot_mut(&mut self, offset: i64) -> Option<&mut Slot> {
        self.slots.get_mut(usize::try_from(offset).ok()?)?.as_mut()
    }

    /// Whether an offset can be a record's place at all.
    pub(crate) fn is_plausible(&self, offset: i64) -> bool {
        (0..=self.slots.len() as i64 + LEAP_MOST).contains(&offset)
    }

    /// Writes down what stands at a plausible `offset`.
    pub(crate) fn set(&mut self, offset: i64, slot: Slot) {
        let index = usize::try_from(offset).expect("a plausible offset");
        if index >= self.slots.len() {
            self.slots.resize(index + 1, None);
        }
        self.slots[index] = Some(slot);
    }

    /// Everything known, with offsets.
    pub(crate) fn known(&self) -> impl Iterator<Item = (i64, &Slot)> {
        self.slots.iter().enumerate().filter_map(|(index, slot)| Some((index as i64, slot.as_ref()?)))
    }

    /// The same, from `offset` on.
    pub(crate) fn known_from(&self, offset: i64) -> impl Iterator<Item = (i64, &Slot)> {
        let from = usize::try_from(offset).unwrap_or(0).min(self.slots.len());
        let slots = self.slots[from..].iter().enumerate();
        slots.filter_map(move |(index, slot)| Some(((from + index) as i64, slot.as_ref()?)))
    }

    /// One replica, whose disk alone keeps what was acknowledged.
    pub(crate) fn kept_by_one_disk(&self) -> bool {
        self.replication_factor == 1 && self.judged == Judged::Fully && self.exposed.is_none()
    }

    /// Whether what was asked at `asked_ns` was answered by a log of which the power has taken a part since, perhaps.
    pub(crate) fn is_of_the_past(&self, asked_ns: u64) -> bool {
        asked_ns < self.lost_ns
    }
}

/// What is known of deletions in a partition.
#[derive(Debug, Default)]
pub(crate) struct Deletions {
    /// DeleteRecords asked to delete all below this.
    pub(crate) asked: i64,
    /// The deletion of everything committed was asked for and has no answer yet.
    pub(crate) everything_asked: bool,
    /// By a request to a process that has ended: what it has not done by the next recovery is not done.
    pub(crate) asked_in_vain: bool,
    /// All below this was judged.
    pub(crate) judged: i64,
    /// When the log start was seen last.
    pub(crate) seen_ns: u64,
}

/// A produce operation: one batch.
#[derive(Debug)]
pub(crate) struct Op {
    pub(crate) number: u64,
    pub(crate) producer: u32,
    /// Index in [`History::partitions`].
    pub(crate) partition: usize,
    pub(crate) records: Vec<Written>,
    /// Of the whole batch.
    pub(crate) bytes: u32,
    /// The most that the batch takes in whatever codec it is stored.
    pub(crate) stored_most: u32,
    /// Producer id and epoch of an idempotent producer.
    pub(crate) identity: Option<(i64, i16)>,
    /// An attempt named the topic: a namesake may have got it.
    pub(crate) by_name: bool,
    /// When the first attempt was sent, and the last.
    pub(crate) first_sent_ns: u64,
    pub(crate) sent_ns: u64,
    /// When each was.
    pub(crate) attempts_ns: Vec<u64>,
    /// The earliest that the broker's clock, had it never been set back, can have shown when it was appended.
    pub(crate) appended_ms: i64,
    /// The time that the broker gave the batch, as far as it was told of: −1 where the producer's counts.
    pub(crate) append_time: Option<i64>,
    pub(crate) sent: u32,
    /// Attempts that ended with an error which says that they wrote nothing.
    pub(crate) refused: u32,
    pub(crate) acked: bool,
    /// Where the first record stands: at most one place for an idempotent producer that was not forgotten.
    pub(crate) places: Vec<i64>,
    /// Connection and position in its sending order, of the first attempt.
    pub(crate) first_send: (u64, u64),
}

impl Op {
    /// The timestamps of its records, where they have some.
    pub(crate) fn times(&self) -> impl Iterator<Item = i64> {
        self.records.iter().map(|record| record.time).filter(|time| *time >= 0)
    }

    /// Whether it is certain that no attempt wrote anything.
    pub(crate) fn wrote_nothing(&self) -> bool {
        self.sent == self.refused
    }
}

/// A client, and how it stands in the partitions that it reads.
#[derive(Debug)]
pub(crate) struct Client {
    pub(crate) kind: ClientKind,
    pub(crate) alive: bool,
    pub(crate) started_ns: u64,
    /// Time of the last progress.
    pub(crate) progressed_ns: Option<u64>,
    /// By index in [`History::partitions`].
    pub(crate) reading: BTreeMap<usize, Reading>,
    /// What it reads to the end all the time.
    pub(crate) follows: Vec<usize>,
}

/// A consumer in a partition.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Reading {
    /// Where its next fetch must begin; `None` after a jump that has no answer yet.
    pub(crate) position: Option<i64>,
    /// As told last; −1 for never.
    pub(crate) high_watermark: i64,
    pub(crate) last_stable_offset: i64,
    pub(crate) log_start: i64,
    /// When it last got records.
    pub(crate) moved_ns: u64,
}

impl Default for Reading {
    fn default() -> Self {
        Self { position: None, high_watermark: -1, last_stable_offset: -1, log_start: -1, moved_ns: 0 }
    }
}

/// Numbers are hashed by one multiplication: they are no enemy's.
#[derive(Debug, Default)]
pub(crate) struct NumberHasher(u64);

impl Hasher for NumberHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u64(u64::from(*byte));
        }
    }

    fn write_u64(&mut self, number: u64) {
        let mixed = (self.0 ^ number).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        self.0 = mixed ^ mixed >> 29;
    }
}

pub(crate) type NumberMap<V> = HashMap<u64, V, BuildHasherDefault<NumberHasher>>;

/// A map from numbers that each client counts up for itself: the upper 24 bits are the client's, the rest is its count.
/// Numbers that come in their turn are kept side by side, others in a map.
#[derive(Debug)]
pub(crate) struct Counted<V> {
    clients: Vec<Vec<V>>,
    others: NumberMap<V>,
}

impl<V> Default for Counted<V> {
    fn default() -> Self {
        Self { clients: Vec::new(), others: NumberMap::default() }
    }
}

impl<V: Copy> Counted<V> {
    const COUNT_BITS: u32 = 40;

    /// Client and index, for counts from 1.
    fn place(number: u64) -> Option<(usize, usize)> {
        let count = number & ((1 << Self::COUNT_BITS) - 1);
        Some(((number >> Self::COUNT_BITS) as usize, usize::try_from(count.checked_sub(1)?).ok()?))
    }

    pub(crate) fn get(&self, number: u64) -> Option<V> {
        let counted = Self::place(number).and_then(|(client, index)| self.clients.get(client)?.get(index));
        counted.or_else(|| self.others.get(&number)).copied()
    }

    /// `false` if the number was used before.
    pub(crate) fn insert(&mut self, number: u64, value: V) -> bool {
        if self.get(number).is_some() {
            return false;
        }
        match Self::place(number) {
            Some((client, index)) if client < 1 << 16 => {
                if client >= self.clients.len() {
                    self.clients.resize_with(client + 1, Vec::new);
                }
                match &mut self.clients[client] {
                    counted if index == counted.len() => counted.push(value),
                    _ => _ = self.others.insert(number, value),
                }
            }
            _ => _ = self.others.insert(number, value),
        }
        true
    }
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct History {
    pub(crate) partitions: Vec<PartitionState>,
    pub(crate) topics: Vec<TopicState>,
    /// The topics of a name by index, newest last.
    names: HashMap<Arc<str>, Vec<usize>>,
    pub(crate) ops: Vec<Op>,
    ops_by_number: Counted<u32>,
    /// Operation and index in it, by value.
    values: Counted<(u32, u32)>,
    pub(crate) clients: BTreeMap<u32, Client>,
    /// Batches handed to each connection so far.
    sends: NumberMap<u64>,
    pub(crate) forgetting: Forgetting,
    pub(crate) now_ns: u64,
}

impl History {
    /// Nothing has happened.
    pub(crate) fn new(forgetting: Forgetting) -> Self {
        Self { forgetting, ..Self::default() }
    }

    /// A topic begins, or is told of once more: its index.
    pub(crate) fn create(&mut self, name: &Arc<str>, id: u128, now_ns: u64, configs: Configs) -> usize {
        let known = self.names.entry(name.clone()).or_default();
        let same = known.iter().copied().find(|topic| {
            let topic = &self.topics[*topic];
            topic.id == id && topic.deletion_asked_ns.is_none()
        });
        if let Some(topic) = same {
            return topic;
        }
        // A name has one topic at a time.
        for earlier in known.iter() {
            self.topics[*earlier].gone_ns.get_or_insert(now_ns);
        }
        let index = self.topics.len();
        known.push(index);
        self.topics.push(TopicState {
            name: name.clone(),
            id,
            created_ns: now_ns,
            deletion_asked_ns: None,
            gone_ns: None,
            partitions: Vec::new(),
            counts: Timeline::default(),
            most_asked: 0,
            configs,
        });
        index
    }

    /// The topic has at least `count` partitions; `template` makes those that are new.
    pub(crate) fn grow(&mut self, topic: usize, count: i32, template: impl Fn(i32) -> PartitionState) {
        for partition in self.topics[topic].partitions.len() as i32..count {
            self.topics[topic].partitions.push(self.partitions.len());
            self.partitions.push(template(partition));
        }
    }

    /// The index of the topic with this id, or for id 0 of the newest one of that name.
    pub(crate) fn topic(&self, name: &str, id: u128) -> Option<usize> {
        let known = self.names.get(name)?;
        match id {
            0 => known.last().copied(),
            // Whoever announced the topic may not have known its id.
            id => known.iter().rev().copied().find(|topic| [id, 0].contains(&self.topics[*topic].id)),
        }
    }

    /// The index of a partition.
    pub(crate) fn find(&self, at: &Partition) -> Option<usize> {
        let topic = &self.topics[self.topic(&at.topic, at.topic_id)?];
        topic.partitions.get(usize::try_from(at.partition).ok()?).copied()
    }

    /// The topic that a partition, by index, belongs to.
    pub(crate) fn topic_of(&self, partition: usize) -> &TopicState {
        &self.topics[self.partitions[partition].topic]
    }

    /// Takes in a new operation. `false` if its number or one of its values was used before.
    pub(crate) fn begin(&mut self, op: Op) -> bool {
        let index = u32::try_from(self.ops.len()).expect("a history of so few operations");
        let mut fresh = self.ops_by_number.insert(op.number, index);
        for (record, place) in op.records.iter().zip(0..) {
            fresh &= self.values.insert(record.value, (index, place));
        }
        self.ops.push(op);
        fresh
    }

    /// The index of an operation.
    pub(crate) fn op(&self, number: u64) -> Option<usize> {
        self.ops_by_number.get(number).map(|index| index as usize)
    }

    /// The operation that wrote `value`, and the record's index in it.
    pub(crate) fn writer(&self, value: u64) -> Option<(usize, u32)> {
        self.values.get(value).map(|(op, index)| (op as usize, index))
    }

    /// Whether the producer of `op` may have been forgotten before what stands at `offset` was appended, after its batches
    /// that stand before it. `op` itself stands before it if `is_before`.
    pub(crate) fn may_be_forgotten(&self, partition: usize, op: &Op, is_before: bool, offset: i64) -> bool {
        let order = op.identity.and_then(|identity| self.partitions[partition].orders.get(&identity));
        let before = order.into_iter().flatten().filter(|(_, place)| **place < offset);
        let sent = before.filter_map(|(number, _)| Some(self.ops[self.op(*number)?].first_sent_ns));
        let own = if is_before { op.first_sent_ns } else { 0 };
        self.forgetting.is_possible(sent.max().unwrap_or(0).max(own), self.now_ns)
    }

    /// Notes an attempt on a connection.
    pub(crate) fn send(&mut self, op: usize, connection: u64, by_name: bool, now_ns: u64) {
        let position = self.sends.entry(connection).or_default();
        *position += 1;
        let op = &mut self.ops[op];
        if op.sent == 0 {
            op.first_send = (connection, *position);
            op.first_sent_ns = now_ns;
        }
        op.sent += 1;
        op.by_name |= by_name;
        op.sent_ns = now_ns;
        op.attempts_ns.push(now_ns);
    }

    /// The log of a partition ends at `end` now: what stood behind it is no more, and its offsets are given anew.
    pub(crate) fn cut(&mut self, partition: usize, end: i64, now_ns: u64) {
        let state = &mut self.partitions[partition];
        let from = usize::try_from(end).unwrap_or(0).min(state.slots.len());
        let gone: Vec<u64> = state.slots.drain(from..).flatten().map(|slot| slot.value).collect();
        state.acked_end = state.acked_end.min(end);
        state.ends.cut(now_ns, end);
        state.latest_end = end;
        for order in state.orders.values_mut() {
            order.retain(|_, base| *base < end);
        }
        for value in gone {
            if let Some((op, _)) = self.values.get(value) {
                let op = &mut self.ops[op as usize];
                op.places.retain(|base| *base < end);
                // Sent once more, it is appended at another time.
                op.append_time = op.append_time.filter(|_| !op.places.is_empty());
            }
        }
        for client in self.clients.values_mut() {
            if let Some(reading) = client.reading.get_mut(&partition) {
                *reading = Reading { moved_ns: reading.moved_ns, ..Reading::default() };
            }
        }
    }

    /// A client, made up if nobody announced it.
    pub(crate) fn client(&mut self, number: u32, kind: ClientKind, time_ns: u64) -> &mut Client {
        self.clients.entry(number).or_insert_with(|| Client {
            kind,
            alive: false,
            started_ns: time_ns,
            progressed_ns: None,
            reading: BTreeMap::new(),
            follows: Vec::new(),
        })
    }
}

impl PartitionState {
    /// A partition that nothing is known of.
    pub(crate) fn new(
        name: Partition,
        topic: usize,
        synced: bool,
        dense: bool,
        replication_factor: i16,
    ) -> Self {
        Self {
            name,
            topic,
            synced,
            dense,
            replication_factor,
            judged: Judged::Fully,
            slots: Vec::new(),
            acked_end: 0,
            acked_ns: 0,
            ends: Timeline::default(),
            starts: Timeline::default(),
            deletions: Deletions::default(),
            latest_end: 0,
            latest_high_watermark: None,
            largest_bytes: 0,
            durable_end: 0,
            exposed: None,
            lost_ns: 0,
            opened_ns: 0,
            place: None,
            moved_from: None,
            orders: BTreeMap::new(),
        }
    }
}
