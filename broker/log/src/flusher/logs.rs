//! What the flusher knows about one log: what waits, what is on its way, what is not yet synced in place.
//!
//! Rounds leave the queue in order, as *flights*; flights may land in any order, but are answered in order.
//!
//! Never: I/O; an answer for a flight while an earlier one is in the air.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};

use bytes::Bytes;
use gracchus_core::Offset;
use gracchus_env::{File, Instant, Op};

use super::{
    super::{LogId, journal::PartNumber},
    Answer, Forget, Roll, Round,
};

/// A log by the number that the flusher gave it.
pub(super) type Slot = usize;

/// What a log wants, in order.
#[derive(Debug)]
pub(super) enum Item {
    Round(Round, Answer),
    Roll(Roll, Answer),
    Forget(Forget, Answer),
}

impl Item {
    pub(super) fn id(&self) -> &LogId {
        match self {
            Item::Round(Round { id, .. }, _)
            | Item::Roll(Roll { id, .. }, _)
            | Item::Forget(Forget { id, .. }, _) => id,
        }
    }

    pub(super) fn into_answer(self) -> Answer {
        match self {
            Item::Round(_, answer) | Item::Roll(_, answer) | Item::Forget(_, answer) => answer,
        }
    }
}

/// How the front of a log's queue is to be carried out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Class {
    /// Written; nobody waits for a sync.
    Plain,
    /// Written, and on disk by way of the journal. Also a cut, which only the journal can make safe.
    Journal,
    /// Written and synced in the segment itself.
    InPlace,
    /// A roll: a submission of its own.
    Roll,
}

/// Consecutive rounds of one log as one write.
#[derive(Debug)]
pub(super) struct Write {
    pub(super) file: Arc<dyn File>,
    pub(super) segment_base: Offset,
    pub(super) position: u64,
    pub(super) length: u64,
    pub(super) buffers: Vec<Bytes>,
    pub(super) also: Vec<Op>,
    /// The flight that they have become.
    pub(super) flight: u64,
}

/// Rounds on their way.
#[derive(Debug)]
struct Flight {
    class: Class,
    bytes: u64,
    end_offset: Offset,
    answers: Vec<Answer>,
    landed: bool,
    /// Once this and all before it have landed, everything up to its end is synced in place.
    settles: bool,
}

/// Written, but not synced in place since.
#[derive(Debug)]
pub(super) struct Dirty {
    pub(super) file: Arc<dyn File>,
    pub(super) segment_base: Offset,
    pub(super) since: Instant,
    pub(super) bytes: u64,
    /// Parts of the journal that hold these bytes too, and must until they are synced.
    pub(super) parts: Vec<PartNumber>,
    /// What belongs to a sync of it: of a sealed segment its indexes and the name of the next one.
    pub(super) also: Vec<Op>,
}

impl Dirty {
    fn new(write: &Soiled, since: Instant) -> Self {
        let Soiled { file, segment_base, .. } = write;
        let (file, segment_base) = (file.clone(), *segment_base);
        Self { file, segment_base, since, bytes: 0, parts: Vec::new(), also: Vec::new() }
    }

    /// Its segment was sealed as it was.
    pub(super) fn is_sealed(&self) -> bool {
        !self.also.is_empty()
    }

    /// Makes it clean.
    pub(super) fn sync(&self) -> impl Iterator<Item = Op> {
        std::iter::once(Op::Sync { file: self.file.clone() }).chain(self.also.iter().cloned())
    }
}

/// What landing flights have brought.
#[derive(Debug, Default)]
pub(super) struct Landed {
    /// To be told.
    pub(super) answers: Vec<Answer>,
    /// Everything below is synced in place.
    pub(super) settled: Option<Offset>,
}

/// One log.
#[derive(Debug)]
pub(super) struct LogState {
    pub(super) id: LogId,
    queue: VecDeque<Item>,
    queued_bytes: u64,
    flights: VecDeque<Flight>,
    /// Number of the first of `flights`.
    first_flight: u64,
    flying_bytes: u64,
    flying_plain: usize,
    flying_in_place: usize,
    /// A roll or a cut of it is under way.
    pub(super) blocked: bool,
    /// In which list of the flusher it stands.
    pub(super) waiting: Option<Class>,
    /// It holds bytes that are neither journaled nor surely synced: the next durable round must sync them too.
    exposed: bool,
    /// Everything below is written.
    pub(super) written_end: Offset,
    pub(super) dirty: Option<Dirty>,
    /// The same of segments that were sealed since, oldest first.
    pub(super) sealed: Vec<Dirty>,
    /// So many syncs of sealed segments are under way: no later byte may count as durable before they have ended.
    pub(super) sealing: usize,
    /// Parts of the journal that syncs under way will have made needless: one entry per sync and part.
    pub(super) cleaning: Vec<PartNumber>,
    /// Bytes since the kernel was last asked to write back.
    pub(super) unhinted: u64,
    /// A background sync of it is under way; everything below will be synced in place.
    pub(super) syncing: Option<Offset>,
}

impl LogState {
    pub(super) fn new(id: LogId) -> Self {
        Self {
            id,
            queue: VecDeque::new(),
            queued_bytes: 0,
            flights: VecDeque::new(),
            first_flight: 0,
            flying_bytes: 0,
            flying_plain: 0,
            flying_in_place: 0,
            blocked: false,
            waiting: None,
            exposed: false,
            written_end: Offset::NONE,
            dirty: None,
            sealed: Vec::new(),
            sealing: 0,
            cleaning: Vec::new(),
            unhinted: 0,
            syncing: None,
        }
    }

    pub(super) fn push(&mut self, item: Item) {
        if let Item::Round(round, _) = &item {
            self.queued_bytes += round.length;
        }
        self.queue.push_back(item);
    }

    /// Nothing waits and nothing is on its way.
    pub(super) fn is_idle(&self) -> bool {
        self.queue.is_empty() && self.flights.is_empty() && !self.blocked
    }

    /// How to go on with this log; `None`: not before something of it has landed. From `in_place_bytes` on it pays to
    /// sync in place; a round above `largest` does not fit into the journal.
    pub(super) fn class(&self, in_place_bytes: u64, largest: u64) -> Option<Class> {
        if self.blocked {
            return None;
        }
        let (round, class) = match self.queue.front()? {
            Item::Roll(..) => {
                // It says that all before it is synced.
                let ready = self.flights.is_empty() && (self.sealing == 0 || self.may_seal_as_it_is());
                return ready.then_some(Class::Roll);
            }
            // The number of a log that goes must not be in use.
            Item::Forget(forget, _) => {
                let ready =
                    self.flights.is_empty() && (forget.end_offset.is_some() || self.syncing.is_none());
                return ready.then_some(Class::Journal);
            }
            Item::Round(round, _) if !round.durable => return Some(Class::Plain),
            Item::Round(round, _) => (round, self.durable_class(in_place_bytes)),
        };
        if class == Some(Class::Journal) && round.length > largest { Some(Class::InPlace) } else { class }
    }

    fn durable_class(&self, in_place_bytes: u64) -> Option<Class> {
        if self.exposed {
            // A sync covers only what was written before it began.
            return (self.flying_plain == 0 && self.sealing == 0).then_some(Class::InPlace);
        }
        if self.queued_bytes + self.flying_bytes >= in_place_bytes {
            // A second one only if it is worth its sync by itself: what comes in meanwhile would rather share one.
            let worthwhile = self.flying_in_place == 0
                || (self.flying_in_place == 1 && self.queued_bytes >= in_place_bytes);
            return worthwhile.then_some(Class::InPlace);
        }
        // Behind a sync in place that may be lost, the journal would hold bytes with a gap before them.
        (self.flying_in_place == 0).then_some(Class::Journal)
    }

    pub(super) fn front_round(&self) -> Option<&Round> {
        match self.queue.front()? {
            Item::Round(round, _) => Some(round),
            _ => None,
        }
    }

    /// Takes the roll or cut at the front; nothing else of the log happens until `blocked` is lifted.
    pub(super) fn take_alone(&mut self) -> Item {
        assert!(self.flights.is_empty() && !self.blocked, "rolls and cuts run alone");
        self.blocked = true;
        self.queue.pop_front().expect("it was seen")
    }

    /// Takes the round at the front, and what directly continues it, up to `limit` bytes.
    pub(super) fn take_rounds(&mut self, class: Class, limit: u64) -> Write {
        let Some(Item::Round(first, answer)) = self.queue.pop_front() else { panic!("a round was seen") };
        let durable = first.durable;
        let mut answers = vec![answer];
        let mut end_offset = first.end_offset;
        let mut write = Write {
            file: first.file,
            segment_base: first.segment_base,
            position: first.position,
            length: first.length,
            buffers: first.buffers,
            also: first.also,
            flight: self.first_flight + self.flights.len() as u64,
        };
        while let Some(Item::Round(next, _)) = self.queue.front()
            && next.durable == durable
            && next.segment_base == write.segment_base
            && next.position == write.position + write.length
            && write.length + next.length <= limit
        {
            let Some(Item::Round(next, answer)) = self.queue.pop_front() else { unreachable!("seen above") };
            write.length += next.length;
            write.buffers.extend(next.buffers);
            write.also.extend(next.also);
            end_offset = next.end_offset;
            answers.push(answer);
        }
        if let Some(dirty) = &self.dirty {
            assert!(
                dirty.segment_base == write.segment_base,
                "a segment is sealed by a roll before the next one is written"
            );
        }
        self.take_off(class, write.length, end_offset, answers);
        write
    }

    fn take_off(&mut self, class: Class, bytes: u64, end_offset: Offset, answers: Vec<Answer>) {
        // Only what was synced, or written before this sync begins, is certain.
        let settles = class == Class::InPlace && self.flights.iter().all(|flight| flight.settles);
        self.queued_bytes -= bytes;
        self.flying_bytes += bytes;
        match class {
            Class::Plain => {
                self.flying_plain += 1;
                self.exposed = true;
            }
            Class::InPlace => {
                self.flying_in_place += 1;
                self.exposed = false;
            }
            Class::Journal | Class::Roll => {}
        }
        self.flights.push_back(Flight { class, bytes, end_offset, answers, landed: false, settles });
    }

    /// Flight `number` is written (and synced or journaled, as its class says).
    pub(super) fn land(&mut self, number: u64) -> Landed {
        let index = usize::try_from(number - self.first_flight).expect("flights are few");
        let flight = &mut self.flights[index];
        flight.landed = true;
        self.flying_bytes -= flight.bytes;
        match flight.class {
            Class::Plain => self.flying_plain -= 1,
            Class::InPlace => self.flying_in_place -= 1,
            Class::Journal | Class::Roll => {}
        }
        let mut landed = Landed::default();
        while self.flights.front().is_some_and(|flight| flight.landed) {
            let flight = self.flights.pop_front().expect("seen above");
            self.first_flight += 1;
            self.written_end = flight.end_offset;
            if flight.settles {
                landed.settled = Some(flight.end_offset);
            }
            landed.answers.extend(flight.answers);
        }
        landed
    }

    /// Bytes were written, through the journal if `part` is given.
    pub(super) fn soil(&mut self, write: &Soiled, part: Option<PartNumber>, now: Instant) {
        let dirty = self.dirty.get_or_insert_with(|| Dirty::new(write, now));
        dirty.bytes += write.length;
        if let Some(part) = part
            && !dirty.parts.contains(&part)
        {
            dirty.parts.push(part);
        }
    }

    /// Since when bytes of it are dirty.
    pub(super) fn dirty_since(&self) -> Option<Instant> {
        self.sealed.first().or(self.dirty.as_ref()).map(|dirty| dirty.since)
    }

    /// Whether a roll at the front of the queue need not wait for a sync: nobody has counted on the segment's bytes.
    pub(super) fn may_seal_as_it_is(&self) -> bool {
        let unwanted = matches!(self.queue.front(), Some(Item::Roll(roll, _)) if !roll.durable);
        unwanted && self.exposed && self.dirty.as_ref().is_some_and(|dirty| dirty.parts.is_empty())
    }

    /// Seals the active segment as it is; it will be synced in the background.
    pub(super) fn seal_as_it_is(&mut self) -> Answer {
        let Item::Roll(roll, answer) = self.take_alone() else { panic!("a roll was seen") };
        let mut dirty = self.dirty.take().expect("it may be sealed as it is");
        dirty.also.extend(roll.ops());
        self.sealed.push(dirty);
        self.blocked = false;
        self.unhinted = 0;
        answer
    }

    /// A roll has synced everything.
    pub(super) fn rolled(&mut self, end_offset: Offset) {
        self.blocked = false;
        self.exposed = false;
        self.unhinted = 0;
        self.written_end = end_offset;
    }

    /// What a sync that begins now will have made clean: all of it.
    pub(super) fn take_dirty(&mut self) -> Vec<Dirty> {
        self.sealed.drain(..).chain(self.dirty.take()).collect()
    }

    /// The same of segments from `base` on: they are cut.
    pub(super) fn take_dirty_from(&mut self, base: Offset) -> Vec<Dirty> {
        let kept = self.sealed.partition_point(|dirty| dirty.segment_base < base);
        let cut = self.dirty.take_if(|dirty| dirty.segment_base >= base);
        self.sealed.drain(kept..).chain(cut).collect()
    }

    /// It is being cut at `end_offset`: what is synced above that counts no more.
    pub(super) fn cut(&mut self, end_offset: Offset) {
        self.written_end = self.written_end.min(end_offset);
        self.syncing = self.syncing.map(|end| end.min(end_offset));
        self.unhinted = 0;
    }

    /// Everything that waits or is on its way, unanswered.
    pub(super) fn give_up(&mut self) -> Vec<Answer> {
        self.waiting = None;
        let flying = self.flights.drain(..).flat_map(|flight| flight.answers);
        flying.chain(self.queue.drain(..).map(Item::into_answer)).collect()
    }
}

/// What of a write is remembered until it has landed.
#[derive(Debug)]
pub(super) struct Soiled {
    pub(super) file: Arc<dyn File>,
    pub(super) segment_base: Offset,
    pub(super) length: u64,
}

/// All logs of a directory, by number and by identity.
#[derive(Debug, Default)]
pub(super) struct Logs {
    slots: Vec<Option<LogState>>,
    by_id: BTreeMap<LogId, Slot>,
    free: Vec<Slot>,
}

impl Logs {
    /// The log's number; a new one if need be.
    pub(super) fn slot(&mut self, id: &LogId) -> Slot {
        if let Some(slot) = self.by_id.get(id) {
            return *slot;
        }
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push(None);
            self.slots.len() - 1
        });
        self.slots[slot] = Some(LogState::new(id.clone()));
        self.by_id.insert(id.clone(), slot);
        slot
    }

    pub(super) fn get(&mut self, slot: Slot) -> &mut LogState {
        self.slots[slot].as_mut().expect("the number of a log is used only while it is there")
    }

    /// The same where the log may have gone meanwhile.
    pub(super) fn find(&mut self, slot: Slot) -> Option<&mut LogState> {
        self.slots.get_mut(slot)?.as_mut()
    }

    pub(super) fn remove(&mut self, slot: Slot) -> LogState {
        let log = self.slots[slot].take().expect("it is there");
        self.by_id.remove(&log.id);
        self.free.push(slot);
        log
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = (Slot, &mut LogState)> {
        self.slots.iter_mut().enumerate().filter_map(|(slot, log)| Some((slot, log.as_mut()?)))
    }
}
