//! The second half of a repair: indexes, leader epochs and producer state made to fit a log that has been checked.
//!
//! Never: state from a file that the log does not bear out; a log served before what a reader may see of it is synced.

use std::{collections::BTreeSet, io, sync::Arc};

use bytes::Bytes;
use gracchus_core::{LeaderEpoch, Offset, producer::ProducerStates, replication::epochs::EpochCache};
use gracchus_env::{File, Op};

use super::{
    active::Files,
    error::StorageError,
    log::Parts,
    names,
    opening::{Found, Opening, Recovered},
    producer_snapshot,
    recovery::Checked,
    scan::{BatchScan, Step, WALK_BLOCK},
    segment_plan::SegmentPlan,
    segment_view::SegmentView,
    walk::{Resumed, Walked},
};

impl Opening<'_> {
    /// Makes everything else fit the segments that were checked.
    pub(crate) async fn restore(
        &self,
        found: Found,
        checked: Checked,
        epochs: Option<EpochCache>,
    ) -> Result<(Parts, Recovered), StorageError> {
        let log_end = checked.log_end();
        let Checked { from, walked, recovered, .. } = checked;
        let mut kept = found.segments[..from].to_vec();
        kept.extend(walked.iter().map(|(_, walked)| (walked.base, walked.size)));
        let seen: Vec<_> = walked.iter().flat_map(|(_, walked)| walked.epochs.iter().copied()).collect();
        let ages = self.read_ages(&found, &kept).await?;
        let mut last = None;
        for (log, walked) in walked {
            let empty = self.plan(walked.base, &ages);
            last = Some(self.restore_segment(log, walked, &empty).await?);
        }
        let (files, mut resumed) = last.expect("the segment of the recovery point was walked");
        let plan = &mut resumed.plan;
        plan.written_ms = ages.written_ms(plan.base, plan.position).unwrap_or(plan.written_ms);
        let sealed = self.sealed(&kept, &ages);
        let active = self.active(files, &resumed.plan, resumed.tail);
        let log_start = self.log_start(kept[0].0, log_end);

        // Before the epochs: writing those takes away what an earlier attempt had left unfinished.
        let snapshots = self.tidy(&found, log_end).await?;
        let epochs = self.restore_epochs(epochs, &sealed[..from], &seen, log_start, log_end).await?;
        let (taken_at, producers) =
            producer_snapshot::newest(self.disk(), self.path, &snapshots, kept[0].0, log_end)
                .await
                .map_err(self.fail("reading a producer snapshot"))?;
        let views = sealed.iter().cloned().chain([active.view()]);
        let producers = self.replay_producers(producers, taken_at, views).await?;
        tracing::info!(
            log = %self.id.tp,
            log_start = %log_start,
            log_end = %log_end,
            scanned_bytes = recovered.scanned_bytes,
            cut_bytes = recovered.cut_bytes,
            producers = producers.len(),
            "log recovered"
        );
        let plan = resumed.plan;
        let life = self.life.clone();
        let (sealed_unsynced, leftovers) = (found.is_sealed_unsynced(), self.leftovers(&found));
        let parts = Parts {
            life,
            log_start,
            sealed,
            active,
            plan,
            producers,
            epochs,
            ages,
            snapshots,
            sealed_unsynced,
            leftovers,
            changed: true,
        };
        Ok((parts, recovered))
    }

    /// Syncs a segment that was walked, and makes its indexes fit.
    async fn restore_segment(
        &self,
        log: Arc<dyn File>,
        walked: Walked,
        empty: &SegmentPlan,
    ) -> Result<(Files, Resumed), StorageError> {
        let base = walked.base;
        if let Some(from) = walked.checked_from {
            gracchus_env::moment!(RECOVERY_WROTE_AGAIN);
            self.write_again(&log, from, walked.size).await.map_err(self.fail("writing a segment again"))?;
        }
        let resumed = walked.resume(empty);
        let mut files =
            Files::open(self.disk(), self.path, base).await.map_err(self.fail("opening an index"))?;
        files.log = log;
        let mut ops = vec![Op::Sync { file: files.log.clone() }];
        for (file, wanted) in
            [(&files.offsets, resumed.offsets.bytes()), (&files.times, resumed.times.bytes())]
        {
            let correct = self.holds(file, wanted).await.map_err(self.fail("reading an index"))?;
            if !correct {
                gracchus_env::moment!(RECOVERY_INDEX_REBUILT);
                ops.push(Op::Truncate { file: file.clone(), length: 0 });
            }
            // Also where it is right: see `write_again`. Over itself, so that a power loss leaves what was on disk.
            ops.push(Op::WriteAt { file: file.clone(), offset: 0, buffers: vec![wanted.clone()] });
            ops.push(Op::Sync { file: file.clone() });
        }
        self.disk().submit(ops).await.map_err(self.fail("syncing a segment"))?;
        Ok((files, resumed))
    }

    /// Writes the bytes from `from` to `end` once more. After a sync that failed, in an earlier process, the kernel may
    /// show pages that it counts as clean and that never reached the disk: only a new write makes a sync cover them.
    pub(crate) async fn write_again(&self, file: &Arc<dyn File>, from: u64, end: u64) -> io::Result<()> {
        let mut offset = from;
        while offset < end {
            let length = usize::try_from(end - offset).unwrap_or(usize::MAX).min(WALK_BLOCK);
            let bytes = file.read_at(offset, length).await?;
            let next = offset + bytes.len() as u64;
            if next == offset {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            let write = Op::WriteAt { file: file.clone(), offset, buffers: vec![bytes] };
            self.disk().submit(vec![write]).await?;
            offset = next;
        }
        Ok(())
    }

    async fn holds(&self, file: &Arc<dyn File>, wanted: &Bytes) -> io::Result<bool> {
        let length = file.length()?;
        Ok(length == wanted.len() as u64 && file.read_at(0, wanted.len()).await? == *wanted)
    }

    /// The first offset that can be read, if the log holds `first .. log_end`, which is not below it
    /// ([`Opening::start_beyond`]).
    pub(crate) fn log_start(&self, first: Offset, log_end: Offset) -> Offset {
        self.directory.log_start(self.id).unwrap_or(first).clamp(first, log_end.max(first))
    }

    /// The epochs as the checkpoint has them; `None` if it cannot be read.
    pub(crate) async fn read_epochs(&self) -> Result<Option<EpochCache>, StorageError> {
        let path = self.path.join(names::LEADER_EPOCHS);
        let contents = self.disk().read_all(&path).await.map_err(self.fail("reading the leader epochs"))?;
        let Some(contents) = contents else { return Ok(None) };
        let decoded = EpochCache::decode(&contents);
        Ok(decoded
            .inspect_err(|why| {
                gracchus_env::moment!(EPOCHS_DAMAGED);
                tracing::warn!(
                log = %self.id.tp,
                %why,
                "leader epochs are damaged; reading them from the log, nothing needs to be done",
                )
            })
            .ok())
    }

    /// The checkpoint, or what the older segments say where there is none; plus what was seen in the newer ones; up to
    /// the log end, and from the log start on.
    pub(crate) async fn restore_epochs(
        &self,
        known: Option<EpochCache>,
        older: &[SegmentView],
        seen: &[(LeaderEpoch, Offset)],
        log_start: Offset,
        log_end: Offset,
    ) -> Result<EpochCache, StorageError> {
        let mut epochs = match &known {
            Some(epochs) => epochs.clone(),
            None => {
                gracchus_env::moment!(EPOCHS_FROM_LOG);
                self.epochs_in(older).await?
            }
        };
        for (epoch, start) in seen {
            if epochs.latest().is_none_or(|(latest, _)| *epoch > latest) {
                epochs.assign(*epoch, *start);
            }
        }
        epochs.truncate_from_end(log_end);
        epochs.truncate_from_start(log_start);
        if known.as_ref() != Some(&epochs) {
            let path = self.path.join(names::LEADER_EPOCHS);
            let replaced = self.disk().replace(&path, epochs.encode()).await;
            replaced.map_err(self.fail("writing the leader epochs"))?;
        }
        Ok(epochs)
    }

    /// Where leader epochs begin, by a walk over all headers.
    async fn epochs_in(&self, segments: &[SegmentView]) -> Result<EpochCache, StorageError> {
        let mut epochs = EpochCache::new();
        for segment in segments {
            let mut scan = self.scan(segment, 0).await?;
            while let Step::Batch(batch) = scan.next().await.map_err(self.fail("reading a segment"))? {
                let epoch = batch.header.leader_epoch;
                if epochs.latest().is_none_or(|(latest, _)| epoch > latest) {
                    epochs.assign(epoch, batch.header.base_offset);
                }
            }
        }
        Ok(epochs)
    }

    async fn scan(&self, segment: &SegmentView, position: u64) -> Result<BatchScan, StorageError> {
        Ok(BatchScan::new(segment.segment.file().await?, position, segment.size, WALK_BLOCK))
    }

    /// Removes snapshots of a future that did not happen and files that were never finished, and makes all names
    /// durable: a name that a killed process created may not be. Returns the snapshots that are left.
    async fn tidy(&self, found: &Found, log_end: Offset) -> Result<BTreeSet<Offset>, StorageError> {
        let mut snapshots = found.snapshots.clone();
        let future = snapshots.split_off(&log_end.plus(1));
        if !future.is_empty() {
            gracchus_env::moment!(SNAPSHOT_OF_FUTURE_REMOVED);
        }
        let snapshots_of_future =
            future.iter().map(|offset| names::file(self.path, *offset, names::SNAPSHOT));
        if !found.temporary.is_empty() {
            gracchus_env::moment!(UNFINISHED_FILE_REMOVED);
        }
        let unfinished = found.temporary.iter().map(|name| self.path.join(name));
        let mut ops: Vec<Op> =
            snapshots_of_future.chain(unfinished).map(|path| Op::RemoveFile { path }).collect();
        ops.push(Op::SyncDir { path: self.path.to_path_buf() });
        ops.push(Op::SyncDir { path: self.directory.path().to_path_buf() });
        self.disk().submit(ops).await.map_err(self.fail("tidying the directory"))?;
        Ok(snapshots)
    }

    /// Adds what the batches from `from` on say about their producers.
    pub(crate) async fn replay_producers(
        &self,
        mut producers: ProducerStates,
        from: Offset,
        segments: impl IntoIterator<Item = SegmentView>,
    ) -> Result<ProducerStates, StorageError> {
        for segment in segments {
            let Some(first) = segment.locate(from.max(segment.base())).await? else { continue };
            gracchus_env::moment!(PRODUCERS_REPLAYED);
            let mut scan = self.scan(&segment, first.position).await?;
            loop {
                match scan.next().await.map_err(self.fail("reading a segment"))? {
                    Step::Batch(batch) if batch.header.has_producer() => producers.record(&batch.header),
                    Step::Batch(_) => {}
                    Step::End => break,
                    Step::Bad(error) => return Err(segment.segment.corrupt(scan.position(), &error)),
                }
            }
        }
        Ok(producers)
    }
}
