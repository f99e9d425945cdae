//! The flusher's task: takes commands, starts submissions, draws the consequences when they end.
//!
//! One task, so nothing here needs a lock. It never waits for a single submission, except to close.
//!
//! Never: anything after the directory went offline but to say so.

use std::{collections::VecDeque, io, sync::Arc};

use futures_util::{FutureExt, StreamExt, stream::FuturesUnordered};
use gracchus_common::Handles;
use gracchus_core::Offset;
use gracchus_env::{BoxFuture, Env, File, Instant, Op, is_out_of_handles};
use tokio::sync::{mpsc, watch};

use super::{
    super::{
        DirectoryOptions, StorageError,
        checkpoint::Checkpoints,
        directory::Health,
        journal::{Journal, NewPart, PartNumber, ReplayedSegment},
    },
    Answer, Command, Forget,
    background::{Background, Timer},
    logs::{Class, Dirty, Item, Logs, Slot, Soiled},
};
use crate::metrics::FlusherMetrics;

/// A cut under way: whose, which, and who waits.
pub(super) type Truncation = (Slot, Forget, Answer);

/// One log's share of a submission.
#[derive(Debug)]
pub(super) struct Member {
    pub(super) slot: Slot,
    pub(super) flight: u64,
    pub(super) soiled: Soiled,
}

/// A sync under way: what it makes clean.
#[derive(Debug)]
pub(super) struct Cleaned {
    pub(super) slot: Slot,
    pub(super) dirty: Vec<Dirty>,
}

/// A submission under way, and all that must be known when it ends.
#[derive(Debug)]
pub(super) enum Job {
    Plain(Vec<Member>),
    Group {
        part: PartNumber,
        sequence: u64,
        members: Vec<Member>,
        cuts: Vec<Truncation>,
    },
    InPlace {
        members: Vec<Member>,
        cleaned: Vec<Cleaned>,
    },
    Roll {
        cleaned: Cleaned,
        end_offset: Offset,
        answer: Answer,
    },
    Truncation(Truncation),
    /// In the background.
    Sync(Vec<Cleaned>),
    /// The same of what a replay has written.
    Replayed(Vec<ReplayedSegment>),
    Recycle,
    Grow {
        part: NewPart,
        file: Option<Arc<dyn File>>,
    },
    Checkpoint,
}

impl Job {
    /// For the reason why the directory is offline.
    fn what(&self) -> &'static str {
        match self {
            Job::Plain(_) => "cannot write segments",
            Job::Group { .. } => "cannot write segments and journal",
            Job::InPlace { .. } => "cannot write and sync segments",
            Job::Roll { .. } => "cannot seal a segment",
            Job::Truncation(_) => "cannot cut a log",
            Job::Sync(_) => "cannot sync segments",
            Job::Replayed(_) => "cannot sync segments that were written from the journal",
            Job::Recycle => "cannot recycle a part of the journal",
            Job::Grow { .. } => "cannot allocate a part of the journal",
            Job::Checkpoint => "cannot write checkpoints",
        }
    }
}

/// Submissions under way, by class.
#[derive(Debug, Default)]
pub(super) struct Counts {
    pub(super) plain: usize,
    pub(super) groups: usize,
    pub(super) in_place: usize,
    pub(super) syncs: usize,
    pub(super) alone: usize,
}

/// What is a submission of its own.
#[derive(Debug)]
pub(super) enum Alone {
    Roll(Slot),
    /// The journal knows of it.
    Truncation(Truncation),
}

/// Logs that could go on if there were a submission to spare.
#[derive(Debug, Default)]
pub(super) struct Waiting {
    pub(super) plain: VecDeque<Slot>,
    pub(super) journal: VecDeque<Slot>,
    pub(super) in_place: VecDeque<Slot>,
    pub(super) alone: VecDeque<Alone>,
}

/// A group of the journal on its way; `Some` once it is there.
type GroupState = (u64, Option<(PartNumber, Vec<Member>, Vec<Truncation>)>);

pub(super) struct Worker {
    pub(super) env: Arc<dyn Env>,
    pub(super) handles: Arc<Handles>,
    pub(super) options: DirectoryOptions,
    pub(super) health: Arc<Health>,
    pub(super) checkpoints: Arc<Checkpoints>,
    pub(super) journal: Journal,
    pub(super) logs: Logs,
    pub(super) waiting: Waiting,
    pub(super) counts: Counts,
    pub(super) background: Background,
    pub(super) now: Instant,
    metrics: Arc<FlusherMetrics>,
    groups: VecDeque<GroupState>,
    jobs: FuturesUnordered<BoxFuture<'static, (Job, io::Result<()>)>>,
    offline: bool,
    /// What had to be given up for want of a file handle, because the broker stops. Nothing is done after that, either.
    lacking: Option<Arc<str>>,
    closing: Option<Answer>,
}

impl Worker {
    pub(super) fn new(
        env: Arc<dyn Env>,
        options: DirectoryOptions,
        health: Arc<Health>,
        checkpoints: Arc<Checkpoints>,
        journal: Journal,
        metrics: Arc<FlusherMetrics>,
    ) -> Self {
        let now = env.now();
        Self {
            background: Background::new(now + options.checkpoint_interval),
            handles: Handles::new(env.clone()),
            env,
            options,
            health,
            checkpoints,
            journal,
            logs: Logs::default(),
            waiting: Waiting::default(),
            counts: Counts::default(),
            now,
            metrics,
            groups: VecDeque::new(),
            jobs: FuturesUnordered::new(),
            offline: false,
            lacking: None,
            closing: None,
        }
    }

    /// Runs until it is told to close, or all handles are gone and nothing is left to do.
    pub(super) async fn run(mut self, mut commands: mpsc::UnboundedReceiver<Command>) {
        let mut health = self.health.watch();
        let mut timer = Timer::default();
        let mut open = true;
        loop {
            self.now = self.env.now();
            self.go_on();
            self.publish();
            if (!open || self.closing.is_some()) && self.jobs.is_empty() && self.is_idle() {
                if let Some(answer) = self.closing.take() {
                    let result = self.finish().await;
                    // What was sent meanwhile is answered by its being dropped.
                    drop(commands);
                    let _ = answer.send(result);
                }
                return;
            }
            let deadline = if self.offline { None } else { self.next_deadline() };
            timer.arm(&*self.env, deadline);
            tokio::select! {
                biased;
                Some((job, result)) = self.jobs.next(), if !self.jobs.is_empty() => self.ended(job, result),
                command = commands.recv(), if open => match command {
                    Some(command) => self.accept(command),
                    None => open = false,
                },
                () = timer.wait(), if timer.is_armed() => {}
                () = changed(&mut health), if !self.offline => self.notice_offline(),
            }
            // All that is there already belongs to the same round.
            self.now = self.env.now();
            while let Some(Some((job, result))) = self.jobs.next().now_or_never() {
                self.ended(job, result);
            }
            while let Ok(command) = commands.try_recv() {
                self.accept(command);
            }
        }
    }

    fn accept(&mut self, command: Command) {
        let item = match command {
            Command::Round(round, answer) => Item::Round(round, answer),
            Command::Roll(roll, answer) => Item::Roll(roll, answer),
            Command::Forget(forget, answer) => Item::Forget(forget, answer),
            Command::Checkpoint(answer) => {
                if let Some(answer) = self.refuse(answer) {
                    self.background.wanted.push(answer);
                }
                return;
            }
            Command::Close(answer) => {
                self.closing = Some(answer);
                return;
            }
        };
        if self.offline || self.closing.is_some() {
            self.refuse(item.into_answer());
            return;
        }
        let slot = self.logs.slot(item.id());
        self.logs.get(slot).push(item);
        self.consider(slot);
    }

    /// Answers at once if the directory is offline or closing, else gives the answer back.
    fn refuse(&self, answer: Answer) -> Option<Answer> {
        let error = match self.check() {
            Ok(()) if self.closing.is_none() => return Some(answer),
            Ok(()) => StorageError::Closed,
            Err(offline) => offline,
        };
        let _ = answer.send(Err(error));
        None
    }

    /// Starts a submission.
    pub(super) fn start(&mut self, ops: Vec<Op>, job: Job) {
        let syncs = ops.iter().any(|op| matches!(op, Op::Sync { .. }));
        let submission = self.env.disk().submit(ops);
        if !syncs {
            return self.start_future(async move { (job, submission.await) });
        }
        let (env, metrics, begun) = (self.env.clone(), self.metrics.clone(), self.now);
        self.start_future(async move {
            let result = submission.await;
            metrics.synced(env.now().since(begun));
            (job, result)
        });
    }

    pub(super) fn start_future(&mut self, job: impl Future<Output = (Job, io::Result<()>)> + Send + 'static) {
        self.jobs.push(Box::pin(job));
    }

    fn ended(&mut self, job: Job, result: io::Result<()>) {
        match &job {
            Job::Plain(_) => self.counts.plain -= 1,
            Job::Group { .. } => self.counts.groups -= 1,
            Job::InPlace { .. } => self.counts.in_place -= 1,
            Job::Sync(_) => self.counts.syncs -= 1,
            Job::Roll { .. } | Job::Truncation(_) => self.counts.alone -= 1,
            Job::Replayed(_) => self.background.replayed_under_way = false,
            Job::Recycle | Job::Grow { .. } | Job::Checkpoint => {}
        }
        if let (Job::Grow { part, .. }, Err(error)) = (&job, &result)
            && error.kind() == io::ErrorKind::StorageFull
            && self.journal.disk_is_full()
        {
            gracchus_env::moment!(NO_ROOM_FOR_PART);
            tracing::warn!(
                path = %part.path().display(),
                "no room for another part of the journal; going on with what there is, more slowly. Make \
                 room on this disk"
            );
            return;
        }
        match &result {
            Err(error) if is_out_of_handles(error) => {
                gracchus_env::moment!(OUT_OF_HANDLES_IN_FLUSHER, job.what());
                self.lacking = Some(job.what().into());
            }
            Err(error) => {
                gracchus_env::moment!(DISK_FAILED_IN_FLUSHER, job.what());
                self.health.fail(error, job.what());
            }
            Ok(()) => {}
        }
        self.notice_offline();
        if self.offline {
            return self.abandon(job);
        }
        match job {
            Job::Plain(members) => members.into_iter().for_each(|member| self.land(member, None)),
            Job::Group { part, sequence, members, cuts } => self.group_ended(part, sequence, members, cuts),
            Job::InPlace { members, cleaned } => {
                cleaned.into_iter().for_each(|cleaned| self.clean(cleaned));
                for Member { slot, flight, .. } in members {
                    self.land_flight(slot, flight);
                }
            }
            Job::Roll { cleaned, end_offset, answer } => {
                let slot = cleaned.slot;
                self.clean(cleaned);
                self.settle(slot, end_offset);
                self.logs.get(slot).rolled(end_offset);
                let _ = answer.send(Ok(()));
                self.consider(slot);
            }
            Job::Truncation(cut) => self.cut_ended(cut),
            Job::Sync(cleaned) => self.sync_ended(cleaned),
            Job::Replayed(segments) => {
                gracchus_env::moment!(REPLAYED_SYNCED);
                segments.iter().for_each(|segment| self.journal.replayed_synced(segment));
            }
            Job::Recycle => {
                gracchus_env::moment!(PART_REUSED);
                self.journal.recycled();
            }
            Job::Grow { part, file } => {
                gracchus_env::moment!(PART_ADDED);
                self.journal.grown(&part, file.expect("it was opened"));
            }
            Job::Checkpoint => self.checkpoint_ended(),
        }
    }

    /// A group counts once all groups before it are there: a replay ends at the first that is missing.
    fn group_ended(&mut self, part: PartNumber, sequence: u64, members: Vec<Member>, cuts: Vec<Truncation>) {
        if self.not_yet_synced() != Some(sequence) {
            gracchus_env::moment!(GROUPS_OUT_OF_ORDER);
        }
        let group = self.groups.iter_mut().find(|group| group.0 == sequence).expect("it was started");
        group.1 = Some((part, members, cuts));
        while let Some((_, there)) = self.groups.front_mut() {
            let Some((part, members, cuts)) = there.take() else { break };
            self.groups.pop_front();
            self.journal.landed(part, members.iter().map(|member| member.slot));
            members.into_iter().for_each(|member| self.land(member, Some(part)));
            self.lower(cuts);
        }
    }

    /// The sequence of the oldest group that is not known to be on disk.
    pub(super) fn not_yet_synced(&self) -> Option<u64> {
        self.groups.front().map(|(sequence, _)| *sequence)
    }

    pub(super) fn group_started(&mut self, sequence: u64) {
        self.groups.push_back((sequence, None));
    }

    /// Written, not synced in place.
    fn land(&mut self, member: Member, part: Option<PartNumber>) {
        let Member { slot, flight, soiled } = member;
        self.soil(slot, &soiled, part);
        self.land_flight(slot, flight);
    }

    fn land_flight(&mut self, slot: Slot, flight: u64) {
        let landed = self.logs.get(slot).land(flight);
        if let Some(offset) = landed.settled {
            self.settle(slot, offset);
        }
        for answer in landed.answers {
            let _ = answer.send(Ok(()));
        }
        self.consider(slot);
    }

    /// Everything of the log below `offset` is synced in place.
    pub(super) fn settle(&mut self, slot: Slot, offset: Offset) {
        let tp = &self.logs.get(slot).id.tp;
        self.checkpoints.raise_recovery_point(tp, offset);
    }

    /// The journal knows of these cuts. Recovery points above them must go before the bytes do.
    fn lower(&mut self, cuts: Vec<Truncation>) {
        for cut in cuts {
            let log = self.logs.get(cut.0);
            let must_write = match cut.1.end_offset {
                Some(end_offset) => {
                    log.cut(end_offset);
                    self.checkpoints.lower_recovery_point(&log.id.tp, end_offset)
                }
                None => self.checkpoints.remove(&log.id.tp),
            };
            if must_write {
                gracchus_env::moment!(CUT_WAITS_FOR_CHECKPOINT);
                self.background.lowered.push(cut);
            } else {
                self.cut(cut);
            }
        }
    }

    /// Carries a cut out when its turn comes.
    pub(super) fn cut(&mut self, cut: Truncation) {
        if cut.1.ops.is_empty() {
            return self.cut_ended(cut);
        }
        self.waiting.alone.push_back(Alone::Truncation(cut));
    }

    pub(super) fn start_cut(&mut self, mut cut: Truncation) {
        let ops = std::mem::take(&mut cut.1.ops);
        self.counts.alone += 1;
        self.start(ops, Job::Truncation(cut));
    }

    fn cut_ended(&mut self, (slot, forget, answer): Truncation) {
        let log = self.logs.get(slot);
        log.blocked = false;
        // What the steps of the cut left of that segment is synced by them.
        let cleaned = match forget.end_offset {
            Some(_) => self.take_dirty_from(slot, forget.segment_base),
            None => self.take_dirty(slot),
        };
        self.clean(cleaned);
        if forget.end_offset.is_none() && self.logs.get(slot).is_idle() {
            self.logs.remove(slot);
        } else {
            self.consider(slot);
        }
        let _ = answer.send(Ok(()));
    }

    /// These bytes are synced in place, or void: the journal need not keep them for this log.
    pub(super) fn clean(&mut self, cleaned: Cleaned) {
        let Cleaned { slot, dirty } = cleaned;
        self.logs.get(slot).sealing -= usize::from(dirty.iter().any(Dirty::is_sealed));
        for part in dirty.into_iter().flat_map(|dirty| dirty.parts) {
            let log = self.logs.get(slot);
            if let Some(at) = log.cleaning.iter().position(|other| *other == part) {
                log.cleaning.swap_remove(at);
            }
            // It may have got more from this log since the sync began; a later sync may be under way for that.
            let dirty_again = log.dirty.as_ref().is_some_and(|dirty| dirty.parts.contains(&part));
            if !dirty_again && !log.cleaning.contains(&part) {
                self.journal.release(part, slot);
            }
        }
    }

    /// Why nothing may be done any more.
    fn check(&self) -> Result<(), StorageError> {
        self.health.check()?;
        self.lacking.clone().map_or(Ok(()), |what| Err(StorageError::Exhausted(what)))
    }

    fn notice_offline(&mut self) {
        let Err(error) = self.check() else { return };
        if std::mem::replace(&mut self.offline, true) {
            return;
        }
        gracchus_env::moment!(FLUSHER_GAVE_UP);
        let waiting = std::mem::take(&mut self.waiting);
        let mut answers: Vec<Answer> = self.logs.iter_mut().flat_map(|(_, log)| log.give_up()).collect();
        let groups = std::mem::take(&mut self.groups).into_iter().filter_map(|(_, there)| there);
        answers.extend(groups.flat_map(|(_, _, cuts)| cuts).map(|(_, _, answer)| answer));
        answers.extend(self.background.give_up());
        answers.extend(waiting.alone.into_iter().filter_map(|alone| match alone {
            Alone::Roll(_) => None,
            Alone::Truncation((_, _, answer)) => Some(answer),
        }));
        for answer in answers {
            let _ = answer.send(Err(error.clone()));
        }
    }

    /// Whatever came of it, nobody may count on it.
    fn abandon(&mut self, job: Job) {
        let answers = match job {
            Job::Roll { answer, .. } | Job::Truncation((_, _, answer)) => vec![answer],
            Job::Group { cuts, .. } => cuts.into_iter().map(|(_, _, answer)| answer).collect(),
            _ => Vec::new(),
        };
        for answer in answers {
            let _ = answer.send(self.check());
        }
    }

    fn go_on(&mut self) {
        if !self.offline {
            self.plan();
            self.tend();
        }
    }

    /// For the metrics.
    fn publish(&self) {
        let bytes = |bytes| usize::try_from(bytes).unwrap_or(usize::MAX);
        let (used, size) = self.journal.usage();
        self.metrics.journal_used.set(bytes(used));
        self.metrics.journal_size.set(bytes(size));
        self.metrics.journal_waiting.set(self.waiting.journal.len());
    }

    fn is_idle(&mut self) -> bool {
        self.offline || (self.background.is_idle() && self.logs.iter_mut().all(|(_, log)| log.is_idle()))
    }

    /// The end of a clean stop: everything synced, then the recovery points, then the journal emptied.
    async fn finish(&mut self) -> Result<(), StorageError> {
        self.check()?;
        let mut settled = Vec::new();
        let mut ops = Vec::new();
        for (_, log) in self.logs.iter_mut() {
            let dirty = log.take_dirty();
            if !dirty.is_empty() {
                ops.extend(dirty.iter().flat_map(Dirty::sync));
                settled.push((log.id.tp.clone(), log.written_end));
            }
        }
        let failed = |error| match is_out_of_handles(&error) {
            true => {
                gracchus_env::moment!(OUT_OF_HANDLES_IN_FLUSHER, "cannot close");
                StorageError::Exhausted("writing checkpoints".into())
            }
            false => {
                gracchus_env::moment!(DISK_FAILED_IN_FLUSHER, "cannot close");
                self.health.fail(&error, "cannot close")
            }
        };
        let disk = self.env.disk();
        disk.submit(ops).await.map_err(failed)?;
        for (tp, offset) in settled {
            self.checkpoints.raise_recovery_point(&tp, offset);
        }
        self.checkpoints.write(&*self.env, &self.handles).await.map_err(failed)?;
        disk.submit(self.journal.empty(|| self.env.random())).await.map_err(failed)?;
        // Somebody else's error, a failed read for example, may have come in meanwhile.
        self.health.check()
    }
}

async fn changed(health: &mut watch::Receiver<Option<Arc<str>>>) {
    // The sender lives as long as the worker.
    let _ = health.changed().await;
}

/// Which submissions of a class there may be.
impl Worker {
    pub(super) fn has_spare(&self, class: Class) -> bool {
        match class {
            Class::Plain => self.counts.plain < self.options.plain_in_flight.max(1),
            Class::Journal => self.counts.groups < self.options.journal_in_flight.max(1),
            Class::InPlace => self.counts.in_place < self.options.in_place_in_flight.max(1),
            Class::Roll => self.counts.alone < self.options.alone_in_flight.max(1),
        }
    }
}
