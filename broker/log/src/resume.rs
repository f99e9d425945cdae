//! Opening a log that was left in order, at a price that does not grow with it: a look at both ends of the active
//! segment, the newest producer snapshot, the leader epochs.
//!
//! Never: believe the clean marker alone. What it says is checked against the end of the log; if that does not fit, the
//! log is repaired like any other.

use std::{io, sync::Arc};

use bytes::Bytes;
use gracchus_core::{LeaderEpoch, Offset};
use gracchus_env::{File, Op};
use imbl::Vector;

use super::{
    active::Files,
    directory::{CleanLog, IndexEntries, SealedSegments},
    error::StorageError,
    index::{self, IndexBuilder, IndexEntry, OffsetIndex},
    log::Parts,
    opening::{Found, Opening},
    producer_snapshot,
    scan::{BatchScan, LOOKUP_BLOCK, Located, Step},
    segment_plan::{self, SegmentPlan},
    segment_view::{BatchPosition, SegmentView},
    time_index::{self, TimeEntry, TimeIndex},
    walk::{self, Expect},
};

/// The log as `clean` describes it, and whether closed segments of it are damaged; `None` if it is not so.
pub(crate) async fn open_clean(
    opening: &Opening<'_>,
    found: &Found,
    clean: &CleanLog,
) -> Result<Option<(Parts, bool)>, StorageError> {
    let active = (clean.active_segment, clean.active_bytes);
    if found.segments.last() != Some(&active) || !found.snapshots.contains(&clean.log_end) {
        return Ok(None);
    }
    if opening.start_beyond(clean.log_end).is_some() {
        return Ok(None);
    }
    let files = Files::open(opening.disk(), opening.path, active.0)
        .await
        .map_err(opening.fail("opening a segment"))?;
    let ages = opening.read_ages(found, &found.segments).await?;
    let plan = opening.plan(active.0, &ages);
    let Some((mut plan, tail)) = resume(opening, &files, clean, plan).await? else { return Ok(None) };
    plan.written_ms = ages.written_ms(active.0, active.1).unwrap_or(plan.written_ms);
    let sealed = opening.sealed(&found.segments, &ages);
    let Some(epochs) = opening.read_epochs().await? else { return Ok(None) };
    let first = found.segments[0].0;
    let log_start = opening.log_start(first, clean.log_end);
    let read =
        producer_snapshot::newest(opening.disk(), opening.path, &found.snapshots, first, clean.log_end).await;
    let (taken_at, producers) = read.map_err(opening.fail("reading a producer snapshot"))?;
    let active = opening.active(files, &plan, tail);
    let views = sealed.iter().cloned().chain([active.view()]);
    // Nothing to replay, unless the snapshot has been damaged since.
    let producers = opening.replay_producers(producers, taken_at, views).await?;
    let snapshots = found.snapshots.clone();
    let damaged = look_over(opening, found, clean, &sealed).await?;
    let parts = Parts {
        life: opening.life.clone(),
        log_start,
        sealed,
        active,
        plan,
        producers,
        epochs,
        ages,
        snapshots,
        sealed_unsynced: found.is_sealed_unsynced(),
        leftovers: opening.leftovers(found),
        changed: false,
    };
    Ok(Some((parts, damaged)))
}

/// Whether closed segments lack something. Nobody reads them at a start; but where they are not as many, or as large, as
/// they were left, each is looked at: one that was put back meanwhile is no damage.
async fn look_over(
    opening: &Opening<'_>,
    found: &Found,
    clean: &CleanLog,
    sealed: &[SegmentView],
) -> Result<bool, StorageError> {
    let now = SealedSegments::of(sealed.iter().map(|segment| segment.size));
    let first = found.segments[0].0;
    let mut damaged = first > clean.log_start;
    if damaged {
        tracing::error!(
            log = %opening.id.tp,
            damaged,
            log_start = %clean.log_start,
            first = %first,
            "the first segments of a log are gone since its clean stop: acknowledged records are missing. It begins with \
             what is left; restore the files while the broker is stopped, and check the disk"
        );
    }
    let emptied = sealed.iter().any(|segment| segment.size == 0);
    if !emptied && clean.sealed.is_none_or(|left| left == now) {
        return Ok(damaged);
    }
    for segment in sealed {
        if !segment.is_whole().await? {
            damaged = true;
            tracing::error!(
                log = %opening.id.tp,
                damaged,
                segment = %segment.base(),
                next_segment = %segment.next_offset,
                bytes = segment.size,
                "a closed segment does not reach to the next one any more: acknowledged records are missing. All others are \
                 served, and who asks for these gets an error; restore the files while the broker is stopped, and check the \
                 disk"
            );
        }
    }
    Ok(damaged)
}

/// Where the active segment goes on.
async fn resume(
    opening: &Opening<'_>,
    files: &Files,
    clean: &CleanLog,
    plan: SegmentPlan,
) -> Result<Option<(SegmentPlan, Vector<BatchPosition>)>, StorageError> {
    if clean.active_bytes == 0 {
        return Ok((clean.log_end == plan.base).then_some((plan, Vector::new())));
    }
    if let Some(resumed) = resume_by_index(opening, files, clean, plan.clone()).await? {
        return Ok(Some(resumed));
    }
    gracchus_env::moment!(CLEAN_INDEX_REBUILT);
    tracing::warn!(
        log = %opening.id.tp,
        segment = %plan.base,
        "indexes do not fit the log; rebuilding them, nothing needs to be done"
    );
    let expect = Expect {
        base: plan.base,
        length: clean.active_bytes,
        interval: segment_plan::interval(opening.config),
        trusted: clean.log_end,
        next_offset: plan.base,
        epoch: LeaderEpoch::NONE,
    };
    let walked = walk::walk(files.log.clone(), &expect).await.map_err(opening.fail("reading a segment"))?;
    if walked.bad.is_some() || walked.next_offset != clean.log_end {
        return Ok(None);
    }
    let resumed = walked.resume(&plan);
    let mut ops = Vec::new();
    for (file, bytes) in [(&files.offsets, resumed.offsets.bytes()), (&files.times, resumed.times.bytes())] {
        ops.push(Op::Truncate { file: file.clone(), length: 0 });
        ops.push(Op::WriteAt { file: file.clone(), offset: 0, buffers: vec![bytes.clone()] });
        ops.push(Op::Sync { file: file.clone() });
    }
    opening.disk().submit(ops).await.map_err(opening.fail("rewriting the indexes"))?;
    Ok(Some((resumed.plan, resumed.tail)))
}

/// The same by the last entries of both indexes; `None` if they do not fit the log.
async fn resume_by_index(
    opening: &Opening<'_>,
    files: &Files,
    clean: &CleanLog,
    plan: SegmentPlan,
) -> Result<Option<(SegmentPlan, Vector<BatchPosition>)>, StorageError> {
    let failed = opening.fail("reading the end of a segment");
    let Some(ends) = Ends::read(files, &plan, clean).await.map_err(&failed)? else { return Ok(None) };
    let there = IndexEntries { offsets: ends.offset_entries, times: ends.time_entries };
    // Nothing else shows that a time index lost its end: the greatest timestamp may lie far back.
    if clean.index_entries.is_some_and(|left| left != there) {
        return Ok(None);
    }
    let start = ends.offset.map_or(0, |entry| entry.position);
    let limit = start + 4 * segment_plan::interval(opening.config);
    let Some(batches) = batches_at_end(files, start, clean.active_bytes, limit).await.map_err(&failed)?
    else {
        return Ok(None);
    };
    if !ends.fit(&batches, clean.log_end) {
        return Ok(None);
    }
    let Step::Batch(first) = scan(files, 0, clean.active_bytes).next().await.map_err(&failed)? else {
        return Ok(None);
    };
    let since_entry = clean.active_bytes - start;
    let indexed_max = ends.time.map(|time| time.timestamp);
    let plan = SegmentPlan {
        position: clean.active_bytes,
        next_offset: clean.log_end,
        builder: IndexBuilder::resume(
            segment_plan::interval(opening.config),
            since_entry,
            ends.time,
            indexed_max,
        ),
        offset_entries: ends.offset_entries,
        time_entries: ends.time_entries,
        first_timestamp: Some(first.header.max_timestamp),
        ..plan
    };
    let tail: Vector<_> =
        batches.iter().map(|batch| BatchPosition::new(&batch.header, batch.position)).collect();
    // The greatest timestamp need not be near the end.
    let in_tail =
        |time: &TimeEntry| batches.iter().any(|batch| batch.header.last_offset() == time.last_offset);
    if let Some(time) = ends.time.filter(|time| !in_tail(time)) {
        let view = opening.active(files.clone(), &plan, tail.clone()).view();
        if view.confirmed(time).await?.is_none() {
            return Ok(None);
        }
    }
    Ok(Some((plan, tail)))
}

/// How the two index files end.
struct Ends {
    offset_entries: usize,
    offset: Option<IndexEntry>,
    time_entries: usize,
    time: Option<TimeEntry>,
}

impl Ends {
    async fn read(files: &Files, plan: &SegmentPlan, clean: &CleanLog) -> io::Result<Option<Self>> {
        let Some((offset_entries, offset)) = last_entry(&files.offsets, index::ENTRY).await? else {
            return Ok(None);
        };
        let Some((time_entries, time)) = last_entry(&files.times, time_index::ENTRY).await? else {
            return Ok(None);
        };
        let offset = OffsetIndex::check(plan.base, offset, clean.active_bytes);
        let time = TimeIndex::check(plan.base, time, clean.log_end);
        let (Ok(offset), Ok(time)) = (offset, time) else { return Ok(None) };
        Ok(Some(Self {
            offset_entries,
            offset: offset.last_where(|_| true),
            time_entries,
            time: time.last(),
        }))
    }

    /// Whether the batches from the last offset entry to the end of the segment say the same.
    fn fit(&self, batches: &[Located], log_end: Offset) -> bool {
        let first = batches.first().map(|batch| batch.header.last_offset());
        let last = batches.last().map(|batch| batch.header.next_offset());
        let max = self.time.map_or(-1, |time| time.timestamp);
        // A clean close leaves the greatest timestamp in the time index.
        let times_fit = batches.iter().all(|batch| {
            let here = self.time.is_some_and(|time| time.last_offset == batch.header.last_offset());
            batch.header.max_timestamp <= max && (!here || batch.header.max_timestamp == max)
        });
        last == Some(log_end) && times_fit && self.offset.is_none_or(|entry| first == Some(entry.last_offset))
    }
}

/// How many entries the file holds, and the bytes of the last one; `None` if it is torn.
async fn last_entry(file: &Arc<dyn File>, entry: usize) -> io::Result<Option<(usize, Bytes)>> {
    let length = usize::try_from(file.length()?).unwrap_or(usize::MAX);
    if length % entry != 0 {
        return Ok(None);
    }
    let at = length.saturating_sub(entry);
    Ok(Some((length / entry, file.read_at(at as u64, entry.min(length)).await?)))
}

/// The batches from `start` to the end of the segment; `None` if there is something else, or if one begins behind
/// `limit` and is not the last: then the index misses entries.
async fn batches_at_end(
    files: &Files,
    start: u64,
    size: u64,
    limit: u64,
) -> io::Result<Option<Vec<Located>>> {
    let mut scan = scan(files, start, size);
    let mut batches = Vec::new();
    loop {
        match scan.next().await? {
            Step::Batch(batch) if batch.position > limit && scan.position() < size => return Ok(None),
            Step::Batch(batch) => batches.push(batch),
            Step::End => return Ok(Some(batches)),
            Step::Bad(_) => return Ok(None),
        }
    }
}

fn scan(files: &Files, position: u64, end: u64) -> BatchScan {
    BatchScan::new(files.log.clone(), position, end, LOOKUP_BLOCK)
}
