//! What nobody waits for and everybody depends on: short backlogs, free parts of the journal, recovery points.
//!
//! The kernel is asked early and often to write back what is journaled, so that no sync waits behind hundreds of
//! megabytes; bytes that nobody wants synced are left to it, up to [`PATIENCE`] times as many. A segment is synced when
//! it has many unsynced bytes, when the oldest of them is old, or when it holds back the oldest part of a journal that
//! is getting full; a few segments at a time, oldest first. What the journal's replay has written at the start is synced
//! in the same way, right from the start, and frees the parts that were kept for it.
//!
//! Never: a recovery point above what a completed sync covers.

use std::{
    collections::{BTreeSet, VecDeque},
    io,
    time::Duration,
};

use gracchus_common::Handles;
use gracchus_core::Offset;
use gracchus_env::{BoxFuture, Env, Instant, Op, Open};

use super::{
    super::journal::{PartNumber, ReplayedSegment},
    Answer,
    logs::{Class, Dirty, LogState, Slot, Soiled},
    plan::PATIENCE,
    worker::{Cleaned, Job, Truncation, Worker},
};

/// Segments in one background submission: more would keep an I/O thread from others.
const SEGMENTS: usize = 8;

/// The least time between two looks at old segments.
const PAUSE: Duration = Duration::from_millis(10);

/// The state of all this.
#[derive(Debug)]
pub(super) struct Background {
    /// Dirty segments, oldest first.
    dirty: BTreeSet<(Instant, Slot)>,
    /// Logs that have become heavy; may be clean again.
    heavy: VecDeque<Slot>,
    /// When the next checkpoint is due.
    checkpoint_due: Instant,
    /// Wait for a checkpoint that begins from now on.
    pub(super) wanted: Vec<Answer>,
    /// The same: cuts below a recovery point.
    pub(super) lowered: Vec<Truncation>,
    /// A sync of segments that the replay has written is under way.
    pub(super) replayed_under_way: bool,
    /// What waits for the checkpoint under way, if one is.
    writing: Option<(Vec<Answer>, Vec<Truncation>)>,
}

impl Background {
    pub(super) fn new(checkpoint_due: Instant) -> Self {
        Self {
            dirty: BTreeSet::new(),
            heavy: VecDeque::new(),
            checkpoint_due,
            wanted: Vec::new(),
            lowered: Vec::new(),
            replayed_under_way: false,
            writing: None,
        }
    }

    /// Nobody waits for anything here.
    pub(super) fn is_idle(&self) -> bool {
        self.wanted.is_empty() && self.lowered.is_empty() && self.writing.is_none()
    }

    /// The oldest dirty byte of a log has become another one.
    fn aged(&mut self, slot: Slot, before: Option<Instant>, now: Option<Instant>) {
        if before != now {
            before.map(|since| self.dirty.remove(&(since, slot)));
            now.map(|since| self.dirty.insert((since, slot)));
        }
    }

    /// Everybody who waits for a checkpoint.
    pub(super) fn give_up(&mut self) -> Vec<Answer> {
        let (mut answers, mut cuts) = self.writing.take().unwrap_or_default();
        answers.append(&mut self.wanted);
        cuts.append(&mut self.lowered);
        answers.extend(cuts.into_iter().map(|(_, _, answer)| answer));
        answers
    }
}

impl Worker {
    /// Starts what is due.
    pub(super) fn tend(&mut self) {
        let limit = if self.journal.is_pressed() { 2 } else { 1 };
        while self.counts.syncs < limit && self.start_sync() {}
        self.sync_replayed();
        if let Some(ops) = self.journal.recycle(|| self.env.random()) {
            self.start(ops, Job::Recycle);
        }
        self.grow();
        self.start_checkpoint();
    }

    /// When [`Self::tend`] has something to do even if nothing happens; `None`: something will happen.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        let background = &self.background;
        // While one is under way, its end wakes us.
        let checkpoint = background.writing.is_none().then_some(background.checkpoint_due);
        let oldest = background.dirty.first().filter(|_| self.counts.syncs == 0);
        let sync = oldest.map(|(since, _)| {
            // A log that is being cut cannot be synced just now, however old its bytes.
            (*since + self.options.dirty_age).max(self.now + PAUSE)
        });
        checkpoint.into_iter().chain(sync).min()
    }

    /// Bytes of a log were written.
    pub(super) fn soil(&mut self, slot: Slot, soiled: &Soiled, part: Option<PartNumber>) {
        let now = self.now;
        let log = self.logs.get(slot);
        let (since, before) = (log.dirty_since(), log.dirty.as_ref().map_or(0, |dirty| dirty.bytes));
        log.soil(soiled, part, now);
        self.background.aged(slot, since, log.dirty_since());
        let limit = self.options.dirty_bytes * if part.is_some() { 1 } else { PATIENCE };
        if before < limit && before + soiled.length >= limit {
            self.background.heavy.push_back(slot);
        }
    }

    /// What a sync that begins now will have made clean.
    pub(super) fn take_dirty(&mut self, slot: Slot) -> Cleaned {
        self.take(slot, LogState::take_dirty)
    }

    /// The same of what a cut at segment `base` has made void or synced.
    pub(super) fn take_dirty_from(&mut self, slot: Slot, base: Offset) -> Cleaned {
        self.take(slot, |log| log.take_dirty_from(base))
    }

    fn take(&mut self, slot: Slot, what: impl FnOnce(&mut LogState) -> Vec<Dirty>) -> Cleaned {
        let log = self.logs.get(slot);
        let since = log.dirty_since();
        let dirty = what(log);
        log.cleaning.extend(dirty.iter().flat_map(|dirty| &dirty.parts));
        log.sealing += usize::from(dirty.iter().any(Dirty::is_sealed));
        self.background.aged(slot, since, log.dirty_since());
        Cleaned { slot, dirty }
    }

    /// A segment was sealed as it is.
    pub(super) fn sealed_dirty(&mut self, slot: Slot) {
        self.background.heavy.push_back(slot);
    }

    fn start_sync(&mut self) -> bool {
        let slots = self.pick();
        if slots.is_empty() {
            return false;
        }
        let (mut ops, mut cleaned) = (Vec::new(), Vec::new());
        for slot in slots {
            let log = self.logs.get(slot);
            log.syncing = Some(log.written_end);
            log.unhinted = 0;
            let taken = self.take_dirty(slot);
            ops.extend(taken.dirty.iter().flat_map(Dirty::sync));
            // What stood at its front may have to wait for this.
            self.consider(slot);
            cleaned.push(taken);
        }
        self.counts.syncs += 1;
        gracchus_env::moment!(SYNCED_IN_BACKGROUND);
        self.start(ops, Job::Sync(cleaned));
        true
    }

    /// Syncs the next segments that the replay has written. One that is gone was void: it was cut, or its log deleted.
    fn sync_replayed(&mut self) {
        if self.background.replayed_under_way {
            return;
        }
        let segments = self.journal.take_replayed(SEGMENTS);
        if segments.is_empty() {
            return;
        }
        self.background.replayed_under_way = true;
        let (env, handles) = (self.env.clone(), self.handles.clone());
        self.start_future(async move {
            let result = sync_segments(&*env, &handles, &segments).await;
            (Job::Replayed(segments), result)
        });
    }

    /// The logs most in need of a sync.
    pub(super) fn pick(&mut self) -> BTreeSet<Slot> {
        let mut slots = BTreeSet::new();
        let mut not_yet = Vec::new();
        while slots.len() < SEGMENTS
            && let Some(slot) = self.background.heavy.pop_front()
        {
            if self.may_sync(slot, self.options.dirty_bytes) {
                slots.insert(slot);
            } else if self.logs.find(slot).is_some_and(|log| log.syncing.is_some()) {
                // It became heavy again during a sync that does not cover that.
                gracchus_env::moment!(HEAVY_DURING_SYNC);
                not_yet.push(slot);
            }
        }
        self.background.heavy.extend(not_yet);
        if slots.len() < SEGMENTS && self.journal.is_pressed() {
            gracchus_env::moment!(JOURNAL_PRESSED);
            let holding_back: Vec<Slot> = self.journal.holding_back().collect();
            for slot in holding_back {
                if slots.len() < SEGMENTS && self.may_sync(slot, 0) {
                    slots.insert(slot);
                }
            }
        }
        let old = self.background.dirty.iter();
        let old: Vec<Slot> = old
            .take_while(|(since, _)| *since + self.options.dirty_age <= self.now)
            .take(SEGMENTS)
            .map(|(_, slot)| *slot)
            .collect();
        for slot in old {
            if slots.len() < SEGMENTS && self.may_sync(slot, 0) {
                slots.insert(slot);
            }
        }
        slots
    }

    /// Whether it has at least so many dirty bytes and may be synced now.
    fn may_sync(&mut self, slot: Slot, bytes: u64) -> bool {
        let Some(log) = self.logs.find(slot) else { return false };
        let enough = || log.dirty.as_ref().is_some_and(|dirty| dirty.bytes >= bytes);
        // A roll in line syncs all there is.
        let free = log.syncing.is_none() && log.sealing == 0 && !log.blocked;
        free && log.waiting != Some(Class::Roll) && (!log.sealed.is_empty() || enough())
    }

    pub(super) fn sync_ended(&mut self, cleaned: Vec<Cleaned>) {
        for cleaned in cleaned {
            let slot = cleaned.slot;
            self.clean(cleaned);
            let log = self.logs.get(slot);
            if let Some(end_offset) = log.syncing.take()
                && end_offset != Offset::NONE
            {
                self.settle(slot, end_offset);
            }
            self.consider(slot);
        }
    }

    fn grow(&mut self) {
        let Some(part) = self.journal.grow(|| self.env.random()) else { return };
        let (env, handles) = (self.env.clone(), self.handles.clone());
        self.start_future(async move {
            let open = || env.disk().open(&part.path(), Open::OrCreate);
            let file = match handles.patiently("the journal", open).await {
                Ok(file) => file,
                Err(error) => return (Job::Grow { part, file: None }, Err(error)),
            };
            let result = env.disk().submit(part.ops(&file)).await;
            (Job::Grow { part, file: Some(file) }, result)
        });
    }

    fn start_checkpoint(&mut self) {
        let background = &mut self.background;
        let due = self.now >= background.checkpoint_due;
        let wanted = !background.wanted.is_empty() || !background.lowered.is_empty();
        if background.writing.is_some() || !(due || wanted) {
            return;
        }
        background.checkpoint_due = self.now + self.options.checkpoint_interval.max(Duration::from_millis(1));
        if !wanted && !self.checkpoints.changed() {
            return;
        }
        background.writing =
            Some((std::mem::take(&mut background.wanted), std::mem::take(&mut background.lowered)));
        let (env, handles) = (self.env.clone(), self.handles.clone());
        let checkpoints = self.checkpoints.clone();
        self.start_future(async move { (Job::Checkpoint, checkpoints.write(&*env, &handles).await) });
    }

    pub(super) fn checkpoint_ended(&mut self) {
        let (answers, cuts) = self.background.writing.take().expect("one was under way");
        for answer in answers {
            let _ = answer.send(Ok(()));
        }
        cuts.into_iter().for_each(|cut| self.cut(cut));
    }
}

async fn sync_segments(env: &dyn Env, handles: &Handles, segments: &[ReplayedSegment]) -> io::Result<()> {
    let mut ops = Vec::new();
    for segment in segments {
        let open = || env.disk().open(&segment.path, Open::Existing);
        match handles.patiently("a segment that was written from the journal", open).await {
            Ok(file) => ops.push(Op::Sync { file }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                gracchus_env::moment!(REPLAYED_SEGMENT_GONE)
            }
            Err(error) => return Err(error),
        }
    }
    env.disk().submit(ops).await
}

/// One timer that is only replaced when an earlier one is needed.
#[derive(Default)]
pub(super) struct Timer {
    armed: Option<(Instant, BoxFuture<'static, ()>)>,
}

impl Timer {
    pub(super) fn arm(&mut self, env: &dyn Env, deadline: Option<Instant>) {
        let Some(deadline) = deadline else { return };
        if self.armed.as_ref().is_none_or(|(at, _)| *at > deadline) {
            self.armed = Some((deadline, env.sleep_until(deadline)));
        }
    }

    pub(super) fn is_armed(&self) -> bool {
        self.armed.is_some()
    }

    /// Only when armed.
    pub(super) async fn wait(&mut self) {
        if let Some((_, timer)) = &mut self.armed {
            timer.await;
            self.armed = None;
        }
    }
}
