//! Which record was there at a time (ListOffsets): the time index finds the batch, a look inside finds the record.
//!
//! Search is by the timestamps of records, not of batches. Never: an offset at or above the bound that the caller may
//! show, an unbounded decompression.

use std::ops::ControlFlow;

use gracchus_core::{
    LeaderEpoch, Offset,
    record::{self, Batch, TimestampType},
};

use super::{
    error::StorageError,
    scan::{BatchScan, Located, Step, WALK_BLOCK},
    segment_view::{SegmentView, partition_point},
    time_index::TimeEntry,
};

/// What may come out of one batch when it is unpacked. A batch that holds more is answered for as a whole.
const UNPACK_LIMIT: usize = 64 << 20;

/// A record found by time: its timestamp, its offset and the leader epoch that it was written in.
pub type Found = (i64, Offset, LeaderEpoch);

impl SegmentView {
    /// The greatest timestamp in the segment and the last offset of the first batch that has it.
    pub(crate) async fn max_timestamp(&self) -> Result<Option<TimeEntry>, StorageError> {
        if self.max.is_some() || (self.size == 0 && !self.segment.is_sealed()) {
            return Ok(self.max);
        }
        if let Some(max) = self.segment.known_max() {
            return Ok(max);
        }
        let found = match self.is_whole().await? {
            true => self.confirmed_max().await,
            false => Err(self.missing(self.base())),
        };
        // The last entries may be missing from the file, which the others do not show: the log has the last word. Of what it
        // has lost itself, the file alone knows, and look-ups of other times must go on.
        let max = match found {
            Err(damage @ StorageError::Corrupt(_)) if self.segment.is_sealed() => {
                let indexed = self.segment.indexed_max(self.next_offset).await?;
                return indexed.map_or(Err(damage), |max| Ok(Some(max)));
            }
            found => found?,
        };
        let loaded = self.segment.times(self.size, self.next_offset).await?;
        if !loaded.rebuilt && loaded.index.last() != max {
            let why = format!("the time index ends with {:?}, the segment with {max:?}", loaded.index.last());
            self.segment.rebuild(self.size, self.next_offset, &why).await?;
        }
        self.segment.learn_max(max);
        Ok(max)
    }

    /// The greatest timestamp of what is sound, where the log is damaged and the file that knew more is gone, too: look-ups of
    /// other times must go on, and who asks for one that may have been in the damage is told so.
    async fn sound_max(&self, damage: StorageError) -> Result<Option<TimeEntry>, StorageError> {
        let loaded = self.segment.times(self.size, self.next_offset).await?;
        if !loaded.rebuilt {
            return Err(damage);
        }
        self.segment.learn_doubt();
        Ok(loaded.index.last())
    }

    /// The greatest timestamp by index and headers. What only a header says is believed if its batch is sound: a sector that
    /// has rotted may say anything.
    async fn confirmed_max(&self) -> Result<Option<TimeEntry>, StorageError> {
        let max = self.max_before(self.next_offset).await?;
        if self.segment.is_sealed()
            && self.segment.times(self.size, self.next_offset).await?.index.last() != max
            && let Some(claimed) = max
            && let Some(batch) = self.locate(claimed.last_offset).await?
        {
            let mut scan = self.walk(batch.position).await?;
            if let Some(located) = self.next(&mut scan).await? {
                self.checked(&mut scan, &located).await?;
            }
        }
        Ok(max)
    }

    /// The batch with its records, once its checksum fits.
    async fn checked(&self, scan: &mut BatchScan, located: &Located) -> Result<Batch, StorageError> {
        let bytes =
            scan.bytes(located).await.map_err(|error| self.segment.fail(&error, "reading a segment"))?;
        Batch::check(bytes).map_err(|error| self.segment.corrupt(located.position, &error))
    }

    /// Whether the largest timestamp of a batch is unknown. Walks over all headers where nobody has done so.
    pub(crate) async fn is_timeless(&self) -> Result<bool, StorageError> {
        if let Some(known) = self.known_timeless() {
            return Ok(known);
        }
        let mut scan = self.walk(0).await?;
        let mut timeless = false;
        while let Some(batch) = self.next(&mut scan).await? {
            timeless = batch.header.max_timestamp < 0;
            if timeless {
                break;
            }
        }
        self.segment.learn_timeless(timeless);
        Ok(timeless)
    }

    /// The same, as far as it is known.
    pub(crate) fn known_timeless(&self) -> Option<bool> {
        self.timeless.or_else(|| self.segment.known_timeless())
    }

    /// The greatest timestamp of a batch that lies wholly below `upper`.
    pub(crate) async fn max_timestamp_below(&self, upper: Offset) -> Result<Option<TimeEntry>, StorageError> {
        if upper >= self.next_offset {
            return self.max_timestamp().await;
        }
        self.max_before(upper).await
    }

    /// The same among the batches that hold records from offset `from` on.
    pub(crate) async fn max_timestamp_within(
        &self,
        from: Offset,
        upper: Offset,
    ) -> Result<Option<TimeEntry>, StorageError> {
        let max = self.max_timestamp_below(upper).await?;
        if max.is_none_or(|max| max.last_offset >= from) {
            return Ok(max);
        }
        // It stands below the log start; no index knows the greatest behind that.
        match self.locate(from).await? {
            Some(first) => self.max_since(first.position, None, upper).await,
            None => Ok(None),
        }
    }

    /// The same among the batches behind offset `last`, which ends one.
    pub(crate) async fn max_timestamp_behind(
        &self,
        last: Offset,
        upper: Offset,
    ) -> Result<Option<TimeEntry>, StorageError> {
        match self.locate(last.plus(1)).await? {
            Some(next) => self.max_since(next.position, None, upper).await,
            None => Ok(None),
        }
    }

    /// The same as [`Self::max_timestamp_below`], by the time index and a walk over what it does not cover.
    async fn max_before(&self, upper: Offset) -> Result<Option<TimeEntry>, StorageError> {
        let indexed = self.time_entry(|entry| entry.last_offset < upper).await?;
        match indexed {
            Some((entry, end)) => self.max_since(end, Some(entry), upper).await,
            None => self.max_since(0, None, upper).await,
        }
    }

    /// The greater of `max` and the timestamps of the batches from byte `start` on that lie wholly below `upper`.
    async fn max_since(
        &self,
        start: u64,
        mut max: Option<TimeEntry>,
        upper: Offset,
    ) -> Result<Option<TimeEntry>, StorageError> {
        let mut scan = self.walk(start).await?;
        while let Some(batch) = self.next(&mut scan).await? {
            let (timestamp, last_offset) = (batch.header.max_timestamp, batch.header.last_offset());
            if last_offset >= upper {
                break;
            }
            if timestamp > max.map_or(-1, |max| max.timestamp) {
                max = Some(TimeEntry { timestamp, last_offset });
            }
        }
        Ok(max)
    }

    /// The first record in `from .. upper` whose timestamp is `target` or greater.
    pub(crate) async fn record_since(
        &self,
        target: i64,
        from: Offset,
        upper: Offset,
    ) -> Result<Option<Found>, StorageError> {
        let max = match self.max_timestamp().await {
            Err(damage @ StorageError::Corrupt(_)) if self.segment.is_sealed() => {
                self.sound_max(damage).await?
            }
            max => max?,
        };
        if max.is_none_or(|max| max.timestamp < target) {
            return Ok(None);
        }
        let whole = self.is_whole().await?;
        // Up to the batch of the last entry below the target, nothing is as young.
        let start = self.time_entry(|entry| entry.timestamp < target).await?.map_or(0, |(_, end)| end);
        let mut scan = self.walk(start).await?;
        while let Some(batch) = self.next(&mut scan).await? {
            if batch.header.base_offset >= upper {
                return Ok(None);
            }
            if batch.header.max_timestamp < target || batch.header.last_offset() < from {
                continue;
            }
            if let Some(found) = self.first_record(&mut scan, &batch, target, from).await? {
                return Ok(Some(found).filter(|(_, offset, _)| *offset < upper));
            }
        }
        // It may be among what is missing.
        if whole { Ok(None) } else { Err(self.missing(self.base())) }
    }

    /// The first record from offset `from` on that has the timestamp of `max`, which its batch is known to hold.
    pub(crate) async fn record_with(
        &self,
        max: TimeEntry,
        from: Offset,
    ) -> Result<Option<Found>, StorageError> {
        let Some(batch) = self.locate(max.last_offset).await? else { return Ok(None) };
        let mut scan = self.walk(batch.position).await?;
        match self.next(&mut scan).await? {
            Some(batch) => {
                let from = batch.header.base_offset.max(from);
                self.first_record(&mut scan, &batch, max.timestamp, from).await
            }
            None => Ok(None),
        }
    }

    /// The record with the greatest timestamp from offset `from` on in the batch that ends at offset `last`, the first if
    /// there are several.
    pub(crate) async fn greatest_record(
        &self,
        last: Offset,
        from: Offset,
    ) -> Result<Option<Found>, StorageError> {
        let Some(batch) = self.locate(last).await? else { return Ok(None) };
        let mut scan = self.walk(batch.position).await?;
        let Some(located) = self.next(&mut scan).await? else { return Ok(None) };
        let batch = self.checked(&mut scan, &located).await?;
        let mut greatest: Option<Found> = None;
        let looked = record::scan_records(&batch, UNPACK_LIMIT, |record| {
            let before = greatest.map_or(-1, |(timestamp, ..)| timestamp);
            if record.offset >= from && record.timestamp > before {
                greatest = Some((record.timestamp, record.offset, located.header.leader_epoch));
            }
            ControlFlow::Continue(())
        });
        if let Err(error) = looked {
            let offset = located.header.base_offset;
            tracing::debug!(log = ?self.segment, %offset, %error, "cannot look into all of a batch");
        }
        Ok(greatest)
    }

    /// The last time index entry for which `fits` holds (it holds for a prefix), confirmed by the batch it names, and
    /// the byte behind that batch.
    async fn time_entry(
        &self,
        fits: impl Fn(&TimeEntry) -> bool,
    ) -> Result<Option<(TimeEntry, u64)>, StorageError> {
        if self.recent_times.front().is_some_and(&fits) {
            let entry = self.recent_times[partition_point(&self.recent_times, fits) - 1];
            let batch = self.locate(entry.last_offset).await?;
            return Ok(batch.map(|batch| (entry, batch.end())));
        }
        let fits = |entry: &TimeEntry| fits(entry) && entry.last_offset < self.next_offset;
        let loaded = self.segment.times(self.size, self.next_offset).await?;
        let Some(entry) = loaded.index.last_where(fits) else { return Ok(None) };
        if let Some(end) = self.confirmed(entry).await? {
            return Ok(Some((entry, end)));
        }
        let why = format!("no batch at {} has timestamp {}", entry.last_offset, entry.timestamp);
        let (_, times) = self.segment.rebuild(self.size, self.next_offset, &why).await?;
        let Some(entry) = times.index.last_where(fits) else { return Ok(None) };
        Ok(self.confirmed(entry).await?.map(|end| (entry, end)))
    }

    /// The byte behind the batch that `entry` speaks of, if there is such a batch.
    pub(crate) async fn confirmed(&self, entry: TimeEntry) -> Result<Option<u64>, StorageError> {
        let Some(batch) = self.locate(entry.last_offset).await? else { return Ok(None) };
        let mut scan = self.scan(batch.position).await?;
        let found = self.next(&mut scan).await?.filter(|batch| {
            batch.header.max_timestamp == entry.timestamp && batch.header.last_offset() == entry.last_offset
        });
        Ok(found.map(|batch| batch.end()))
    }

    async fn walk(&self, position: u64) -> Result<BatchScan, StorageError> {
        Ok(BatchScan::new(self.segment.file().await?, position, self.size, WALK_BLOCK))
    }

    async fn next(&self, scan: &mut BatchScan) -> Result<Option<Located>, StorageError> {
        let at = scan.position();
        match scan.next().await.map_err(|error| self.segment.fail(&error, "reading a segment"))? {
            Step::Batch(batch) => Ok(Some(batch)),
            Step::End => Ok(None),
            Step::Bad(error) => Err(self.segment.corrupt(at, &error)),
        }
    }

    /// The first record of the batch from offset `from` on whose timestamp is `target` or greater.
    async fn first_record(
        &self,
        scan: &mut BatchScan,
        located: &Located,
        target: i64,
        from: Offset,
    ) -> Result<Option<Found>, StorageError> {
        let header = &located.header;
        let whole = (header.max_timestamp, header.base_offset.max(from), header.leader_epoch);
        if header.timestamp_type() == TimestampType::LogAppendTime {
            return Ok(Some(whole));
        }
        let batch = self.checked(scan, located).await?;
        // Record by record: a producer decides how many there are and what they would take in full.
        let mut found = None;
        let looked = record::scan_records(&batch, UNPACK_LIMIT, |record| {
            if record.timestamp >= target && record.offset >= from {
                found = Some((record.timestamp, record.offset, header.leader_epoch));
                return ControlFlow::Break(());
            }
            ControlFlow::Continue(())
        });
        if let Err(error) = looked {
            tracing::debug!(log = ?self.segment, offset = %header.base_offset, %error, "cannot look into a batch");
            return Ok(Some(whole));
        }
        Ok(found)
    }
}
