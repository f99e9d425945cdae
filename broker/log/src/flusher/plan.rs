//! Which rounds go together, and how they are made durable.
//!
//! Every log that has something to do stands in the list of its class; whenever a submission of a class is to spare,
//! all that waits there, up to a limit, becomes one.
//!
//! Never: an order that a log did not ask for.

use gracchus_env::Op;

use super::{
    super::journal::GroupBuilder,
    logs::{Class, Dirty, Item, Slot, Soiled, Write},
    worker::{Alone, Cleaned, Job, Member, Truncation, Worker},
};

/// So many times more bytes may be dirty of a log whose rounds nobody wants synced, and the kernel is not asked to write
/// them back: nobody waits for them, and write-back in small portions costs a fifth of the throughput.
pub(super) const PATIENCE: u64 = 32;

impl Worker {
    /// Puts the log where it belongs after something of it has changed.
    pub(super) fn consider(&mut self, slot: Slot) {
        let (in_place_bytes, largest) = (self.options.in_place_bytes, self.largest_payload(slot));
        let log = self.logs.get(slot);
        let class = log.class(in_place_bytes, largest);
        if class == log.waiting {
            return;
        }
        log.waiting = class;
        match class {
            Some(Class::Plain) => self.waiting.plain.push_back(slot),
            Some(Class::Journal) => self.waiting.journal.push_back(slot),
            Some(Class::InPlace) => self.waiting.in_place.push_back(slot),
            Some(Class::Roll) if self.logs.get(slot).may_seal_as_it_is() => self.seal_as_it_is(slot),
            Some(Class::Roll) => self.waiting.alone.push_back(Alone::Roll(slot)),
            None => {}
        }
    }

    /// Most bytes of a round of this log that the journal can take.
    fn largest_payload(&mut self, slot: Slot) -> u64 {
        let largest = self.journal.largest_group().min(self.options.group_bytes);
        let overhead = GroupBuilder::empty_length() + GroupBuilder::write_overhead(&self.logs.get(slot).id);
        largest.saturating_sub(overhead)
    }

    /// Starts all that can be started.
    pub(super) fn plan(&mut self) {
        while self.has_spare(Class::Roll) && self.start_alone() {}
        while self.has_spare(Class::Plain) && self.start_plain() {}
        while self.has_spare(Class::Journal) && self.start_group() {}
        while self.has_spare(Class::InPlace) && self.start_in_place() {}
    }

    /// The next log that waits in the list of `class`.
    fn next(&mut self, class: Class) -> Option<Slot> {
        loop {
            let list = match class {
                Class::Plain => &mut self.waiting.plain,
                Class::Journal => &mut self.waiting.journal,
                Class::InPlace => &mut self.waiting.in_place,
                Class::Roll => unreachable!("rolls wait among the cuts"),
            };
            let slot = list.pop_front()?;
            // It may have moved to another list, or gone, since it was put here.
            if let Some(log) = self.logs.find(slot)
                && log.waiting == Some(class)
            {
                log.waiting = None;
                return Some(slot);
            }
        }
    }

    /// The roll or cut that has waited longest. False if there is none.
    fn start_alone(&mut self) -> bool {
        match self.waiting.alone.pop_front() {
            Some(Alone::Roll(slot)) => self.roll(slot),
            Some(Alone::Truncation(cut)) => self.start_cut(cut),
            None => return false,
        }
        true
    }

    fn roll(&mut self, slot: Slot) {
        let log = self.logs.get(slot);
        // Nothing of a log moves while a roll stands at its front.
        assert_eq!(log.waiting.take(), Some(Class::Roll), "it was put in line");
        let Item::Roll(roll, answer) = log.take_alone() else { panic!("a roll was seen") };
        let cleaned = self.take_dirty(slot);
        match cleaned.dirty.is_empty() {
            true => gracchus_env::moment!(ROLL_OF_CLEAN_SEGMENT),
            false => gracchus_env::moment!(ROLL_SYNCED_DIRTY),
        }
        // Whatever the caller lists: what is dirty must be clean before the next segment begins.
        let mut ops: Vec<Op> = cleaned.dirty.iter().flat_map(Dirty::sync).collect();
        let end_offset = roll.end_offset;
        ops.extend(roll.ops());
        self.counts.alone += 1;
        self.start(ops, Job::Roll { cleaned, end_offset, answer });
    }

    /// A roll that waits for no sync, and so for no other log either.
    fn seal_as_it_is(&mut self, slot: Slot) {
        let log = self.logs.get(slot);
        log.waiting = None;
        gracchus_env::moment!(ROLL_WITHOUT_SYNC);
        let answer = log.seal_as_it_is();
        self.sealed_dirty(slot);
        let _ = answer.send(Ok(()));
        self.consider(slot);
    }

    /// One submission of writes that nobody wants synced. False if there are none.
    fn start_plain(&mut self) -> bool {
        let (mut ops, mut members, mut bytes) = (Vec::new(), Vec::new(), 0);
        while bytes < self.options.group_bytes
            && let Some(slot) = self.next(Class::Plain)
        {
            let write = self.logs.get(slot).take_rounds(Class::Plain, self.options.group_bytes);
            bytes += write.length;
            members.push(add(slot, write, &mut ops));
            self.consider(slot);
        }
        if members.is_empty() {
            return false;
        }
        gracchus_env::moment!(WRITTEN_WITHOUT_SYNC);
        self.counts.plain += 1;
        self.start(ops, Job::Plain(members));
        true
    }

    /// One submission with the writes of many logs and one group of the journal. False if there is nothing to do or
    /// no room in the journal.
    fn start_group(&mut self) -> bool {
        let mut group = GroupBuilder::new();
        let (mut ops, mut hints) = (Vec::new(), Vec::new());
        let (mut members, mut cuts): (Vec<Member>, Vec<Truncation>) = (Vec::new(), Vec::new());
        let mut room = 0;
        while let Some(slot) = self.next(Class::Journal) {
            let log = self.logs.get(slot);
            let overhead = GroupBuilder::write_overhead(&log.id);
            let needed = match log.front_round() {
                Some(round) => overhead + round.length,
                None => GroupBuilder::forget_length(&log.id),
            };
            if group.is_empty() {
                // A cut has no other way, however small groups are to be.
                let alone = group.length() + needed;
                room = self.journal.room(alone).min(self.options.group_bytes.max(alone));
            }
            let left = room.saturating_sub(group.length());
            if needed > left {
                match group.is_empty() {
                    true => gracchus_env::moment!(JOURNAL_FULL),
                    false => gracchus_env::moment!(GROUP_FULL),
                }
                self.put_back(slot);
                break;
            }
            let log = self.logs.get(slot);
            if log.front_round().is_none() {
                let Item::Forget(forget, answer) = log.take_alone() else { panic!("a cut was seen") };
                gracchus_env::moment!(CUT_JOURNALED);
                group.forget(&forget.id, forget.segment_base, forget.position);
                cuts.push((slot, forget, answer));
                continue;
            }
            let write = log.take_rounds(Class::Journal, left - overhead);
            group.write(&log.id, write.segment_base, write.position, &write.buffers);
            self.hint(slot, &write, &mut hints);
            members.push(add(slot, write, &mut ops));
            self.consider(slot);
        }
        if group.is_empty() {
            return false;
        }
        gracchus_env::moment!(GROUP_JOURNALED);
        let place = self.journal.place(group, self.not_yet_synced());
        ops.extend(place.ops);
        ops.append(&mut hints);
        self.group_started(place.sequence);
        self.counts.groups += 1;
        self.start(ops, Job::Group { part: place.part, sequence: place.sequence, members, cuts });
        true
    }

    /// It did not fit: first in the list again.
    fn put_back(&mut self, slot: Slot) {
        self.logs.get(slot).waiting = Some(Class::Journal);
        self.waiting.journal.push_front(slot);
    }

    /// One submission that syncs segments: of one log with much to write, or of several because the journal is full.
    /// False if there is nothing to do.
    fn start_in_place(&mut self) -> bool {
        let (mut ops, mut members, mut cleaned) = (Vec::new(), Vec::new(), Vec::new());
        if let Some(slot) = self.next(Class::InPlace) {
            self.add_in_place(slot, &mut ops, &mut members, &mut cleaned);
        } else if self.has_spare(Class::Journal) {
            // They wait although a group could start: there is no room.
            self.add_crowded_out(&mut ops, &mut members, &mut cleaned);
            if !members.is_empty() {
                gracchus_env::moment!(CROWDED_OUT_OF_JOURNAL);
            }
        }
        if members.is_empty() {
            return false;
        }
        ops.extend(members.iter().map(|member: &Member| Op::Sync { file: member.soiled.file.clone() }));
        // Whoever is durable needs what is before, also in segments that were sealed as they were.
        let before = cleaned.iter().flat_map(|cleaned| &cleaned.dirty).filter(|dirty| dirty.is_sealed());
        ops.extend(before.flat_map(Dirty::sync));
        gracchus_env::moment!(SYNCED_IN_PLACE);
        self.counts.in_place += 1;
        self.start(ops, Job::InPlace { members, cleaned });
        true
    }

    fn add_crowded_out(&mut self, ops: &mut Vec<Op>, members: &mut Vec<Member>, cleaned: &mut Vec<Cleaned>) {
        let mut cuts = Vec::new();
        let mut bytes = 0;
        while members.len() < self.options.in_place_logs.max(1)
            && bytes < self.options.group_bytes
            && let Some(slot) = self.next(Class::Journal)
        {
            // Cuts have no other way.
            if self.logs.get(slot).front_round().is_none() {
                gracchus_env::moment!(CUT_WAITS_FOR_ROOM);
                cuts.push(slot);
                continue;
            }
            self.add_in_place(slot, ops, members, cleaned);
            bytes += members.last().map_or(0, |member| member.soiled.length);
        }
        cuts.into_iter().rev().for_each(|slot| self.put_back(slot));
    }

    fn add_in_place(
        &mut self,
        slot: Slot,
        ops: &mut Vec<Op>,
        members: &mut Vec<Member>,
        cleaned: &mut Vec<Cleaned>,
    ) {
        let limit = self.options.group_bytes;
        let log = self.logs.get(slot);
        log.unhinted = 0;
        let write = log.take_rounds(Class::InPlace, limit);
        members.push(add(slot, write, ops));
        cleaned.push(self.take_dirty(slot));
        self.consider(slot);
    }

    /// Asks for write-back once enough bytes have come together.
    fn hint(&mut self, slot: Slot, write: &Write, hints: &mut Vec<Op>) {
        let enough = self.options.writeback_bytes;
        let log = self.logs.get(slot);
        log.unhinted += write.length;
        if log.unhinted >= enough {
            let end = write.position + write.length;
            let length = std::mem::take(&mut log.unhinted).min(end);
            gracchus_env::moment!(WRITEBACK_ASKED);
            hints.push(Op::StartWriteback { file: write.file.clone(), offset: end - length, length });
        }
    }
}

/// Adds the steps of one log's write.
fn add(slot: Slot, write: Write, ops: &mut Vec<Op>) -> Member {
    let Write { file, segment_base, position, length, buffers, also, flight } = write;
    ops.push(Op::WriteAt { file: file.clone(), offset: position, buffers });
    ops.extend(also);
    Member { slot, flight, soiled: Soiled { file, segment_base, length } }
}
