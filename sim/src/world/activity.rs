//! What a disk can be seen doing, step by step, and the faults that are aimed at a moment of it.
//!
//! The model: opens, reads and the steps of submissions show which files are written, synced, cut, renamed and removed;
//! from their names follows what the process is about: a roll, a cut, a replay, … Only who keeps the process running says
//! whether it is starting or stopping. Each armed fault counts its own moments.
//!
//! Never: anything that the broker tells; a count that outlives its process.

use std::collections::BTreeSet;

use gracchus_env::Op;
use gracchus_workload::scenario::{Moment, Trigger};

use super::{files::sim, timeline::Nanos};

/// What a process is about, as who keeps it running knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Phase {
    /// It does not serve yet.
    #[default]
    Starting,
    /// It serves.
    Serving,
    /// It was told to stop.
    Stopping,
}

/// What a disk is doing now and did lately.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Busy {
    /// Syncs under way.
    pub syncs: usize,
    /// Those of parts of the journal among them.
    pub journal_syncs: usize,
    /// When a roll, a cut, a replay or the reuse of a part of the journal was last seen.
    pub changed_at: Option<Nanos>,
}

/// A fault that waits for its moment.
#[derive(Debug)]
struct Armed {
    id: u64,
    trigger: Trigger,
    seen: u32,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Activity {
    /// The process whose steps count.
    process: u64,
    phase: Phase,
    busy: Busy,
    /// Directories of logs with a new segment whose name is not synced yet.
    rolling: BTreeSet<String>,
    replaying: bool,
    armed: Vec<Armed>,
}

/// What belongs together in the steps of a submission.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Purpose {
    truncates: bool,
    reuses: bool,
}

/// Faults to strike, each after so many microseconds.
pub(super) type Due = Vec<(u64, u64)>;

impl Activity {
    /// Another process begins.
    pub(super) fn begin(&mut self, process: u64) {
        let armed = std::mem::take(&mut self.armed);
        let changed_at = self.busy.changed_at;
        *self = Self { process, armed, busy: Busy { changed_at, ..Busy::default() }, ..Self::default() };
    }

    pub(super) fn set_phase(&mut self, phase: Phase) {
        self.phase = phase;
    }

    pub(super) fn busy(&self) -> Busy {
        self.busy
    }

    pub(super) fn arm(&mut self, id: u64, trigger: Trigger) {
        self.armed.push(Armed { id, trigger, seen: 0 });
    }

    pub(super) fn disarm(&mut self) {
        self.armed.clear();
    }

    /// A file is opened; `created`: it was not there.
    pub(super) fn opened(&mut self, now: Nanos, process: u64, path: &str, created: bool) -> Due {
        if process != self.process {
            return Due::new();
        }
        if created && path.ends_with(".log") {
            self.rolling.insert(parent(path).to_owned());
        }
        self.saw(now, path, Purpose::default(), &[])
    }

    /// A file is read.
    pub(super) fn read(&mut self, now: Nanos, process: u64, path: &str) -> Due {
        if process != self.process {
            return Due::new();
        }
        self.replaying |= self.phase == Phase::Starting && is_part(path);
        match self.phase {
            Phase::Starting => self.saw(now, path, Purpose::default(), &[]),
            Phase::Serving | Phase::Stopping => Due::new(),
        }
    }

    /// A step begins.
    pub(super) fn began(&mut self, process: u64, op: &Op) -> Due {
        if process != self.process || !is_sync(op) {
            return Due::new();
        }
        self.busy.syncs += 1;
        self.busy.journal_syncs += usize::from(is_journal_sync(op));
        match self.busy.syncs {
            0 | 1 => Due::new(),
            2 => self.strike(&[Moment::TwoSyncs]),
            _ => self.strike(&[Moment::TwoSyncs, Moment::ThreeSyncs]),
        }
    }

    /// A step has ended, whatever came of it; `last`: none follows. `shortens`: it made a segment shorter.
    pub(super) fn ended(
        &mut self,
        now: Nanos,
        process: u64,
        op: &Op,
        purpose: &mut Purpose,
        (last, shortens): (bool, bool),
    ) -> Due {
        if process != self.process {
            return Due::new();
        }
        if is_sync(op) {
            self.busy.syncs = self.busy.syncs.saturating_sub(1);
            self.busy.journal_syncs =
                self.busy.journal_syncs.saturating_sub(usize::from(is_journal_sync(op)));
        }
        let path = path_of(op);
        purpose.truncates |= shortens
            || match op {
                Op::RemoveFile { path } => path.extension().is_some_and(|extension| extension == "log"),
                Op::Rename { to, .. } => to.extension().is_some_and(|extension| extension == "log"),
                _ => false,
            };
        purpose.reuses |= is_part(&path)
            && matches!(op, Op::WriteAt { offset: 0, .. } | Op::Allocate { .. } | Op::RemoveFile { .. });
        let between: &[Moment] = if last { &[] } else { &[Moment::BetweenSteps] };
        let due = self.saw(now, &path, *purpose, between);
        if let Op::SyncDir { .. } = op {
            self.rolling.remove(&*path);
            self.replaying &= !path.ends_with("/journal");
        }
        due
    }

    /// Something was done with the file or directory at `path`.
    fn saw(&mut self, now: Nanos, path: &str, purpose: Purpose, also: &[Moment]) -> Due {
        let rolls =
            !self.rolling.is_empty() && (self.rolling.contains(path) || self.rolling.contains(parent(path)));
        if rolls || purpose != Purpose::default() || self.replaying {
            self.busy.changed_at = Some(now);
        }
        if self.armed.is_empty() {
            return Due::new();
        }
        let mut moments = also.to_vec();
        let mut add = |is: bool, moment: Moment| moments.extend(is.then_some(moment));
        add(rolls, Moment::Roll);
        add(purpose.truncates, Moment::Truncation);
        add(purpose.reuses, Moment::PartReused);
        add(self.replaying, Moment::Replay);
        add(path.contains("snapshot"), Moment::Snapshot);
        add(path.contains("-checkpoint"), Moment::Checkpoint);
        add(self.phase == Phase::Starting, Moment::Start);
        add(self.phase == Phase::Stopping, Moment::Stop);
        self.strike(&moments)
    }

    fn strike(&mut self, moments: &[Moment]) -> Due {
        let mut due = Due::new();
        self.armed.retain_mut(|armed| {
            armed.seen += u32::from(moments.contains(&armed.trigger.moment));
            let strikes = armed.seen >= armed.trigger.nth.max(1);
            if strikes {
                due.push((armed.id, armed.trigger.after_us));
            }
            !strikes
        });
        due
    }
}

fn is_sync(op: &Op) -> bool {
    matches!(op, Op::Sync { .. } | Op::SyncDir { .. })
}

fn is_journal_sync(op: &Op) -> bool {
    matches!(op, Op::Sync { file } if sim(file).is_ok_and(|file| is_part(&file.path)))
}

fn is_part(path: &str) -> bool {
    path.contains("/journal/part-")
}

fn parent(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(parent, _)| parent)
}

/// What a step is about; of a rename, the new name.
fn path_of(op: &Op) -> std::borrow::Cow<'_, str> {
    match op {
        Op::WriteAt { file, .. }
        | Op::Sync { file }
        | Op::StartWriteback { file, .. }
        | Op::Truncate { file, .. }
        | Op::Allocate { file, .. } => sim(file).map_or("".into(), |file| (&*file.path).into()),
        Op::SyncDir { path }
        | Op::CreateDir { path }
        | Op::RemoveFile { path }
        | Op::RemoveDir { path }
        | Op::Rename { to: path, .. } => path.to_string_lossy(),
    }
}
