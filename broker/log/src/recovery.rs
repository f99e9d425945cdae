//! Repairing a log that was not left in order: walking it, cutting it at the first bad batch.
//!
//! Repair believes the log alone. From the recovery point on every header and CRC is checked and the log is cut at the
//! first bad batch; then indexes, leader epochs and producer state are made to fit what is left ([`super::restore`]). Each step
//! can be repeated after a crash in the middle of it: later segments go before the torn one is cut, everything is synced before
//! the log is served (what a reader saw once must survive a power loss), and a step that finds its work done does nothing.
//!
//! Never: a byte below the recovery point given up silently, state newer than the log, a log start that goes back.

use std::{io, sync::Arc};

use gracchus_core::{LeaderEpoch, Offset};
use gracchus_env::{File, Op, Open};

use super::{
    ages::Ages,
    error::StorageError,
    flusher::Forget,
    log::{Parts, seals_durably},
    names,
    opening::{Found, Opening, Recovered},
    segment_plan,
    segment_view::SegmentView,
    walk::{self, Expect, Walked},
};

impl Opening<'_> {
    /// Makes a log out of what a crash left. Everything below `point`, and before `replayed` (see
    /// [`LogDirectory::take_replayed`]), had been synced.
    pub(crate) async fn repair(
        &self,
        found: Found,
        point: Option<Offset>,
        replayed: Option<(Offset, u64)>,
    ) -> Result<(Parts, Recovered), StorageError> {
        let first = found.segments[0].0;
        let epochs = self.read_epochs().await?;
        let mut checked = self.check(&found, point.unwrap_or(first).max(first)).await?;
        if point.is_some_and(|point| checked.log_end() < point) {
            gracchus_env::moment!(LOG_BELOW_RECOVERY_POINT);
            // Then the recovery point speaks of files that are gone, and nothing it says can be believed.
            tracing::warn!(
                log = %self.id.tp,
                ?point,
                log_end = %checked.log_end(),
                "log ends below its recovery point: the disk lost what it had confirmed. Checking all of \
                 it; check the disk, and whether it may keep a volatile write cache"
            );
            let scanned = checked.recovered.scanned_bytes;
            checked = self.check(&found, first).await?;
            checked.recovered.scanned_bytes += scanned;
            checked.recovered.damaged = true;
        }
        let (_, last) = checked.walked.last().expect("the segment of the recovery point was walked");
        // The log start is durable before the segments below it go.
        if let Some(log_start) = self.directory.log_start(self.id).filter(|start| *start < first) {
            tracing::error!(
                log = %self.id.tp,
                damaged = true,
                %log_start,
                %first,
                "the first segments of a log are gone: acknowledged records are missing. It begins with what is left; restore \
                 the files while the broker is stopped, and check the disk"
            );
            checked.recovered.damaged = true;
        }
        // Below the recovery point nobody has looked, and a segment is never closed empty.
        let mut below = found.segments[..checked.from].iter();
        if let Some((segment, _)) = below.find(|(_, length)| *length == 0) {
            tracing::error!(
                log = %self.id.tp,
                damaged = true,
                %segment,
                "a closed segment is empty: acknowledged records are missing. All others are served, and who asks for these \
                 gets an error; restore the file while the broker is stopped, and check the disk"
            );
            checked.recovered.damaged = true;
        }
        let lost_replayed = replayed.is_some_and(|replayed| (last.base, last.size) < replayed);
        if lost_replayed {
            gracchus_env::moment!(LOG_LOST_REPLAYED);
        }
        checked.recovered.damaged |= lost_replayed || self.directory.is_damaged();
        if point == Some(found.segments[checked.from].0) {
            self.check_indexes_before(&found.segments[..=checked.from]).await?;
        }
        self.cut(&found, &mut checked).await?;
        if let Some(log_start) = self.start_beyond(checked.log_end()) {
            let parts = self.begin_anew(&found, checked.log_end(), log_start).await?;
            return Ok((parts, Recovered { damaged: true, ..checked.recovered }));
        }
        if checked.cut.is_none() && point.is_some_and(|point| checked.log_end() < point) {
            self.lower_recovery_point(&checked).await?;
        }
        self.restore(found, checked, epochs).await
    }

    /// The recovery point is above a log that is not to be cut. It must not speak for what comes next.
    async fn lower_recovery_point(&self, checked: &Checked) -> Result<(), StorageError> {
        let (_, last) = checked.walked.last().expect("the segment of the recovery point was walked");
        gracchus_env::moment!(RECOVERY_POINT_LOWERED);
        // `restore` syncs what was walked, and nothing of this log is in the journal any more.
        let forget = Forget {
            id: self.id.clone(),
            segment_base: last.base,
            position: last.size,
            end_offset: Some(last.next_offset),
            ops: Vec::new(),
        };
        self.directory.flusher().forget(forget).await
    }

    /// A recovery point at the end of a segment says that its records are synced, and only the roll behind it syncs its
    /// indexes. A crash in between may leave the last of `segments`, which begins there, while the indexes of the one before it
    /// lack their ends, or have them in the page cache alone. Nobody else looks at those until they are needed.
    async fn check_indexes_before(&self, segments: &[(Offset, u64)]) -> Result<(), StorageError> {
        let last_two = &segments[segments.len().saturating_sub(2)..];
        let Some(before) = self.sealed(last_two, &Ages::default()).pop() else { return Ok(()) };
        gracchus_env::moment!(INDEXES_BEFORE_CHECKED);
        if self.lost_their_ends(&before).await? {
            gracchus_env::moment!(INDEX_LOST_ITS_END);
            before.segment.rebuild(before.size, before.next_offset, "its end is missing").await?;
        }
        before.segment.offsets(before.size, before.next_offset).await?;
        before.segment.times(before.size, before.next_offset).await?;
        for kind in [names::INDEX, names::TIME_INDEX] {
            let path = names::file(self.path, before.base(), kind);
            let synced = async {
                let file = match self.disk().open(&path, Open::Existing).await {
                    Ok(file) => file,
                    Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
                    Err(error) => return Err(error),
                };
                self.write_again(&file, 0, file.length()?).await?;
                self.disk().submit(vec![Op::Sync { file }]).await
            };
            synced.await.map_err(self.fail("syncing a segment"))?;
        }
        Ok(())
    }

    /// Whether one of a segment's index files is only the beginning of what it should be. The headers tell, where they fit each
    /// other; where they do not, that is damage of another kind.
    async fn lost_their_ends(&self, view: &SegmentView) -> Result<bool, StorageError> {
        let expect = Expect {
            base: view.base(),
            length: view.size,
            interval: segment_plan::interval(self.config),
            trusted: view.next_offset,
            next_offset: view.base(),
            epoch: LeaderEpoch::NONE,
        };
        let log = self.open_log(view.base()).await?;
        let walked = walk::walk(log, &expect).await.map_err(self.fail("reading a segment"))?;
        if walked.bad.is_some() || walked.next_offset != view.next_offset {
            return Ok(false);
        }
        let (offsets, times) = walked.indexes();
        for (kind, whole) in [(names::INDEX, offsets.bytes()), (names::TIME_INDEX, times.bytes())] {
            let path = names::file(self.path, view.base(), kind);
            let there = self.disk().read_all(&path).await.map_err(self.fail("reading an index"))?;
            if there.is_some_and(|there| there.len() < whole.len() && whole.starts_with(&there)) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Walks the segments from the one that holds `point` on.
    async fn check(&self, found: &Found, point: Offset) -> Result<Checked, StorageError> {
        let from = found.segments.partition_point(|(base, _)| *base <= point) - 1;
        let mut checked = Checked { from, walked: Vec::new(), cut: None, recovered: Recovered::default() };
        let mut next_offset = found.segments[from].0;
        let mut epoch = LeaderEpoch::NONE;
        for (number, (base, length)) in found.segments.iter().copied().enumerate().skip(from) {
            // A compacted log may have holes, any other ends where its records do.
            let hole = base > next_offset && next_offset >= point && !self.config.cleanup_policy.compact;
            if base < next_offset || hole {
                gracchus_env::moment!(RECOVERY_HOLE);
                let why = format!("segment {base} does not follow offset {next_offset}");
                checked.cut = Some(Truncated { segments: number, why });
                break;
            }
            let interval = segment_plan::interval(self.config);
            let expect = Expect { base, length, interval, trusted: point, next_offset, epoch };
            let file = self.open_log(base).await?;
            let walked = walk::walk(file.clone(), &expect).await.map_err(self.fail("reading a segment"))?;
            checked.recovered.scanned_bytes += walked.checked_bytes;
            (next_offset, epoch) = (walked.next_offset, walked.epoch);
            let bad = walked.bad.clone().map(|why| format!("byte {} of segment {base}: {why}", walked.size));
            checked.walked.push((file, walked));
            if let Some(why) = bad {
                gracchus_env::moment!(RECOVERY_BAD_BATCH);
                checked.cut = Some(Truncated { segments: number + 1, why });
                break;
            }
        }
        // Then nothing is written to a segment before all those before it are synced.
        let was_sealed = |cut: &Truncated| {
            let durably = seals_durably(self.config) && !found.is_sealed_unsynced();
            durably && found.segments[cut.segments..].iter().any(|(_, length)| *length > 0)
        };
        checked.recovered.damaged =
            checked.cut.as_ref().is_some_and(|cut| next_offset < point || was_sealed(cut));
        if checked.recovered.damaged {
            gracchus_env::moment!(RECOVERY_DAMAGED);
        }
        Ok(checked)
    }

    async fn open_log(&self, base: Offset) -> Result<Arc<dyn File>, StorageError> {
        let path = names::file(self.path, base, names::LOG);
        self.disk().open(&path, Open::Existing).await.map_err(self.fail("opening a segment"))
    }

    /// Takes away what is behind the first bad batch. Later segments first, so that a crash in between leaves the bad
    /// batch in place and this is done again.
    async fn cut(&self, found: &Found, checked: &mut Checked) -> Result<(), StorageError> {
        let Some(cut) = &checked.cut else { return Ok(()) };
        let (file, last) = checked.walked.last().expect("the segment of the recovery point was walked");
        let length = found.segments[checked.from + checked.walked.len() - 1].1;
        let removed = &found.segments[cut.segments..];
        if !removed.is_empty() {
            gracchus_env::moment!(RECOVERY_REMOVED_SEGMENTS);
        }
        let recovered = &mut checked.recovered;
        recovered.removed_segments = removed.len();
        recovered.cut_bytes = length - last.size + removed.iter().map(|(_, length)| length).sum::<u64>();
        tracing::warn!(
            log = %self.id.tp,
            log_end = %last.next_offset,
            cut_bytes = recovered.cut_bytes,
            removed_segments = recovered.removed_segments,
            damaged = recovered.damaged,
            why = cut.why,
            "cutting the log at its first bad batch"
        );
        let mut ops = Vec::new();
        for (base, _) in removed.iter().rev() {
            for kind in [names::INDEX, names::TIME_INDEX, names::LOG] {
                ops.push(Op::RemoveFile { path: names::file(self.path, *base, kind) });
            }
            // One after the other also on the disk: a hole would look like something synced that is gone.
            ops.push(Op::SyncDir { path: self.path.to_path_buf() });
        }
        gracchus_env::moment!(RECOVERY_CUT);
        ops.push(Op::Truncate { file: file.clone(), length: last.size });
        ops.push(Op::Sync { file: file.clone() });
        for (base, _) in removed {
            self.directory.files().forget(&names::file(self.path, *base, names::LOG));
        }
        let forget = Forget {
            id: self.id.clone(),
            segment_base: last.base,
            position: last.size,
            end_offset: Some(last.next_offset),
            ops,
        };
        self.directory.flusher().forget(forget).await
    }
}

/// What the walks found.
pub(crate) struct Checked {
    /// Number of the first segment that was walked.
    pub(crate) from: usize,
    pub(crate) walked: Vec<(Arc<dyn File>, Walked)>,
    cut: Option<Truncated>,
    pub(crate) recovered: Recovered,
}

/// The log ends behind the last good batch.
struct Truncated {
    /// How many segments stay, the last one perhaps shorter.
    segments: usize,
    why: String,
}

impl Checked {
    pub(crate) fn log_end(&self) -> Offset {
        self.walked.last().expect("the segment of the recovery point was walked").1.next_offset
    }
}
