//! Submissions: steps that run one after the other, each an event, until one fails or the process is dead.
//!
//! A power loss, a kill or another task can come between any two steps, and into the middle of a write or a sync.
//!
//! Never: two steps of one submission in one instant; a step on behalf of a dead process, except for the part of a write
//! that was under way when it was killed.

use std::{io, path::Path};

use bytes::Bytes;
use gracchus_env::Op;
use gracchus_workload::scenario::{Doing, FileKind};
use rand::{Rng, rngs::SmallRng};
use tokio::sync::oneshot;

use super::{
    activity::Purpose,
    chronicle::Mark,
    content::SECTOR,
    files::{SimDisk, SimFile, sim},
    kinds::kind_of,
    lock,
    names::Names,
    timeline::Event,
};

pub(super) const OPEN: u64 = 1;
pub(super) const READ: u64 = 2;
const WRITE: u64 = 3;
const SYNC: u64 = 4;
const NAME: u64 = 5;

/// The rest of a submission.
pub(super) struct Submission {
    pub(super) disk: SimDisk,
    pub(super) ops: std::vec::IntoIter<Op>,
    pub(super) purpose: Purpose,
    pub(super) sender: oneshot::Sender<io::Result<()>>,
    pub(super) random: SmallRng,
    /// How often the power had failed when it was submitted.
    pub(super) power_losses: u64,
}

/// What the file that a step concerns is for.
fn kind(op: &Op) -> Option<FileKind> {
    match op {
        Op::WriteAt { file, .. }
        | Op::Sync { file }
        | Op::StartWriteback { file, .. }
        | Op::Truncate { file, .. }
        | Op::Allocate { file, .. } => sim(file).ok()?.kind,
        Op::SyncDir { .. } | Op::CreateDir { .. } | Op::RemoveDir { .. } => Some(FileKind::Directory),
        Op::RemoveFile { path } | Op::Rename { to: path, .. } => kind_of(&path.to_string_lossy()),
    }
}

/// What a step has to remember between its begin and its end.
enum Begun {
    Nothing,
    File(u64),
    Directory((u64, u64)),
}

impl Submission {
    /// Starts the next step.
    pub(super) fn begin(mut self) {
        let Some(op) = self.ops.next() else {
            let _ = self.sender.send(Ok(()));
            return;
        };
        let begun = match self.prepare(&op) {
            Ok(begun) => begun,
            Err(error) => {
                let _ = self.sender.send(Err(error));
                return;
            }
        };
        self.disk.watch(|activity, _, process| activity.began(process, &op));
        let segment = matches!(&op, Op::Sync { file } if sim(file).is_ok_and(|file| file.segment));
        let slow = self.disk.with(|disk| match disk.faults.slow_kinds.is_empty() {
            true => 0,
            false => kind(&op).and_then(|kind| disk.faults.slow_kinds.get(&kind)).copied().unwrap_or(0),
        });
        let (write, (sync_low, sync_high), extra) = self.disk.with(|disk| {
            let faults = &disk.faults;
            let backlog = if segment { faults.segment_sync_delay_us } else { 0 };
            (disk.profile.write_us, disk.profile.sync_us, faults.sync_delay_us + backlog)
        });
        let delay = match &op {
            Op::Sync { .. } | Op::SyncDir { .. } => self.disk.duration(sync_low + extra, sync_high + extra),
            _ => self.disk.duration(1, write),
        } + slow * 1_000;
        let world = self.disk.world.clone();
        let call = Event::Call(Box::new(move || self.end(op, begun)));
        world.timeline.schedule(world.now() + delay, call);
    }

    /// Ends the step and goes on. A step of a killed process ends half done at most.
    fn end(mut self, op: Op, begun: Begun) {
        let disk = self.disk.clone();
        if !disk.process.alive() {
            self.end_of_the_dead(&op);
            return;
        }
        self.show(&op);
        match self.apply(op, begun) {
            Ok(()) => disk.when_running(move || self.begin()),
            Err(error) => {
                let _ = self.sender.send(Err(error));
            }
        }
    }

    /// Shows the disk's watcher the step that ends now.
    fn show(&mut self, op: &Op) {
        let shortens = match op {
            Op::Truncate { file, length } => {
                sim(file).is_ok_and(|file| file.segment && *length < lock(&file.inode.content).length())
            }
            _ => false,
        };
        let (last, mut purpose) = (self.ops.len() == 0, self.purpose);
        self.disk
            .watch(|activity, now, process| activity.ended(now, process, op, &mut purpose, (last, shortens)));
        self.purpose = purpose;
    }

    fn prepare(&self, op: &Op) -> io::Result<Begun> {
        Ok(match op {
            Op::Sync { file } => Begun::File(lock(&sim(file)?.inode.content).sync_begin()),
            Op::SyncDir { path } => Begun::Directory(self.disk.with(|disk| disk.names.sync_begin(path))?),
            _ => Begun::Nothing,
        })
    }

    /// The process was killed in the middle of this step: a write may be cut short, all else had not begun. After a
    /// power loss, or once the next process runs, nothing happens any more.
    fn end_of_the_dead(mut self, op: &Op) {
        let replaced = self.disk.world.process(self.disk.process.node).is_some();
        let power_failed = self.disk.with(|disk| disk.report.power_losses) != self.power_losses;
        let Op::WriteAt { file, offset, buffers } = op else { return };
        let Some(file) = file.as_any().downcast_ref::<SimFile>() else { return };
        if !replaced && !power_failed {
            let length: usize = buffers.iter().map(Bytes::len).sum();
            let some = self.part_of(*offset, length);
            self.write_some(file, *offset, buffers, some);
        }
    }

    fn apply(&mut self, op: Op, begun: Begun) -> io::Result<()> {
        let path = path_of(&op)?;
        self.disk.with(|disk| disk.alive(&path))?;
        let done = self.carry_out(op, begun);
        done.inspect_err(|error| self.disk.with(|disk| disk.gave(&path, error)))
    }

    fn carry_out(&mut self, op: Op, begun: Begun) -> io::Result<()> {
        let doing =
            if matches!(op, Op::Sync { .. } | Op::SyncDir { .. }) { Doing::Sync } else { Doing::Write };
        let failing = self.disk.with(|disk| match disk.faults.fail_kinds.is_empty() {
            true => false,
            false => disk.is_failing(kind(&op), doing),
        });
        if failing {
            self.fail_in_kind(&op, &begun, doing)?;
        }
        match op {
            Op::WriteAt { file, offset, buffers } => self.write(sim(&file)?, offset, &buffers),
            Op::Sync { file } => self.sync(sim(&file)?, begun),
            Op::SyncDir { .. } => self.sync_directory(begun),
            Op::StartWriteback { file, .. } => {
                let mut content = lock(&sim(&file)?.inode.content);
                content.write_back(&mut self.random);
                Ok(())
            }
            Op::Truncate { file, length } => self.truncate(sim(&file)?, length),
            Op::Allocate { file, length } => self.allocate(sim(&file)?, length),
            Op::CreateDir { path } => self.name(&path, |names| names.create_directories(&path)),
            Op::Rename { from, to } => self.name(&to, |names| names.rename(&from, &to)),
            Op::RemoveFile { path } => self.name(&path, |names| names.remove_file(&path)),
            Op::RemoveDir { path } => self.name(&path, |names| names.remove_directory(&path)),
        }
    }

    /// A planned failure of a kind of file: a write perhaps half done, a sync that leaves what it covered in doubt.
    fn fail_in_kind(&mut self, op: &Op, begun: &Begun, doing: Doing) -> io::Result<()> {
        match (op, begun) {
            (Op::WriteAt { file, offset, buffers }, _) => {
                let length: usize = buffers.iter().map(Bytes::len).sum();
                let some = self.part_of(*offset, length);
                self.write_some(sim(file)?, *offset, buffers, some);
            }
            (Op::Sync { file }, Begun::File(covers)) => {
                lock(&sim(file)?.inode.content).sync_failed(*covers, &mut self.random);
            }
            _ => {}
        }
        self.disk.with(|disk| disk.fail_kind(kind(op), doing))
    }

    fn write(&mut self, file: &SimFile, offset: u64, buffers: &[Bytes]) -> io::Result<()> {
        let length: usize = buffers.iter().map(Bytes::len).sum();
        let digest = buffers.iter().fold(0, |digest, buffer| crc32c::crc32c_append(digest, buffer));
        self.disk.world.note(Mark::Disk, WRITE << 56 | file.inode.number, offset);
        self.disk.world.note(Mark::Disk, length as u64, u64::from(digest));
        let more = (offset + length as u64).saturating_sub(lock(&file.inode.content).length());
        let (verdict, write_back) = self.disk.with(|disk| {
            let verdict = disk.room(more).and_then(|()| disk.fail(|faults| &mut faults.fail_writes));
            (verdict, disk.profile.write_back)
        });
        if let Err(error) = verdict {
            let some = self.part_of(offset, length);
            if error.kind() != io::ErrorKind::StorageFull {
                self.write_some(file, offset, buffers, some);
            }
            return Err(error);
        }
        self.write_some(file, offset, buffers, length);
        if self.random.random_bool(write_back) {
            lock(&file.inode.content).write_back(&mut self.random);
        }
        Ok(())
    }

    /// How much of a write of `length` bytes at `offset` was done when it was cut short: the kernel takes a sector as a whole.
    fn part_of(&mut self, offset: u64, length: usize) -> usize {
        let some = self.random.random_range(0..=length);
        let end = offset + some as u64;
        if some == length { length } else { (end / SECTOR * SECTOR).saturating_sub(offset) as usize }
    }

    fn write_some(&self, file: &SimFile, offset: u64, buffers: &[Bytes], mut length: usize) {
        let mut content = lock(&file.inode.content);
        let mut at = offset;
        for buffer in buffers {
            let part = &buffer[..buffer.len().min(length)];
            content.write(at, part);
            at += part.len() as u64;
            length -= part.len();
        }
    }

    fn sync(&mut self, file: &SimFile, begun: Begun) -> io::Result<()> {
        let Begun::File(covers) = begun else { return Ok(()) };
        self.disk.world.note(Mark::Disk, SYNC << 56 | file.inode.number, covers);
        let verdict = self.disk.with(|disk| {
            if file.segment {
                disk.fail(|faults| &mut faults.fail_segment_syncs)?;
            }
            disk.fail(|faults| &mut faults.fail_syncs)
        });
        let mut content = lock(&file.inode.content);
        match verdict {
            Ok(()) => content.sync_end(covers),
            Err(_) => content.sync_failed(covers, &mut self.random),
        }
        drop(content);
        self.disk.with(|disk| disk.report.syncs += 1);
        verdict
    }

    fn sync_directory(&mut self, begun: Begun) -> io::Result<()> {
        let Begun::Directory(covers) = begun else { return Ok(()) };
        self.disk.world.note(Mark::Disk, SYNC << 56 | NAME, covers.0);
        self.disk.with(|disk| {
            disk.fail(|faults| &mut faults.fail_syncs)?;
            disk.names.sync_end(covers);
            disk.report.syncs += 1;
            Ok(())
        })
    }

    fn truncate(&mut self, file: &SimFile, length: u64) -> io::Result<()> {
        self.disk.world.note(Mark::Disk, NAME << 56 | file.inode.number, length);
        let old = lock(&file.inode.content).length();
        self.disk.with(|disk| {
            disk.room(length.saturating_sub(old))?;
            disk.fail(|faults| &mut faults.fail_writes)
        })?;
        self.disk.with(|disk| disk.report.cuts += u64::from(file.segment && length < old));
        lock(&file.inode.content).set_length(length);
        if length == 0 {
            self.disk.with(|disk| disk.rotten.remove(&file.inode.number));
        }
        Ok(())
    }

    fn allocate(&mut self, file: &SimFile, length: u64) -> io::Result<()> {
        let old = lock(&file.inode.content).length();
        self.disk.with(|disk| {
            disk.room(length.saturating_sub(old))?;
            disk.fail(|faults| &mut faults.fail_writes)
        })?;
        lock(&file.inode.content).zero(length);
        Ok(())
    }

    fn name(&mut self, path: &Path, change: impl FnOnce(&mut Names) -> io::Result<()>) -> io::Result<()> {
        self.disk.world.note(
            Mark::Disk,
            NAME,
            u64::from(crc32c::crc32c(path.as_os_str().as_encoded_bytes())),
        );
        self.disk.with(|disk| {
            disk.fail(|faults| &mut faults.fail_writes)?;
            change(&mut disk.names)
        })
    }
}

/// What the step concerns.
fn path_of(op: &Op) -> io::Result<String> {
    Ok(match op {
        Op::WriteAt { file, .. }
        | Op::Sync { file }
        | Op::StartWriteback { file, .. }
        | Op::Truncate { file, .. }
        | Op::Allocate { file, .. } => sim(file)?.path.to_string(),
        Op::SyncDir { path } | Op::CreateDir { path } | Op::RemoveFile { path } | Op::RemoveDir { path } => {
            path.to_string_lossy().into_owned()
        }
        Op::Rename { to, .. } => to.to_string_lossy().into_owned(),
    })
}
