//! What a reader may see of one segment, fixed at one moment: how many bytes, up to which offset, and short cuts.
//!
//! Three ways to a batch, fastest first: the positions of the newest batches (no I/O at all), the index entries that
//! were added since the segment was opened, the index file. Whatever the way, only whole batches are handed out. Never:
//! a byte behind `size`, a position from an index that its batch header does not confirm, the end of a closed segment that
//! nobody has looked at.

use std::sync::Arc;

use gracchus_core::{Offset, record::BatchHeader};
use gracchus_env::FileRange;
use imbl::Vector;

use super::{
    error::StorageError,
    index::IndexEntry,
    scan::{BatchScan, LOOKUP_BLOCK, Step},
    segment::Segment,
    time_index::TimeEntry,
};

/// How many batches the tail remembers.
pub(crate) const TAIL_BATCHES: usize = 256;

/// Where a batch lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct BatchPosition {
    pub(crate) base: Offset,
    pub(crate) last: Offset,
    pub(crate) position: u64,
    pub(crate) length: u32,
}

impl BatchPosition {
    /// Of a batch that begins at `position`.
    pub(crate) fn new(header: &BatchHeader, position: u64) -> Self {
        let length = u32::try_from(header.total_length()).expect("a batch is shorter than 4 GiB");
        Self { base: header.base_offset, last: header.last_offset(), position, length }
    }

    /// The byte behind the batch.
    pub(crate) fn end(&self) -> u64 {
        self.position + u64::from(self.length)
    }
}

/// See the module. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct SegmentView {
    pub(crate) segment: Arc<Segment>,
    /// Bytes that may be read.
    pub(crate) size: u64,
    /// All offsets are below.
    pub(crate) next_offset: Offset,
    /// The greatest timestamp, where that is known without a look at the time index.
    pub(crate) max: Option<TimeEntry>,
    /// Whether the largest timestamp of a batch is unknown, so that it may be younger than all others; `None` where nobody has
    /// looked yet.
    pub(crate) timeless: Option<bool>,
    /// Wall clock in milliseconds by which all of it had been written, as far as this process knows: what its age counts
    /// from if no record has a timestamp.
    pub(crate) written_ms: i64,
    /// Index entries that were added since the segment was opened.
    pub(crate) recent_offsets: Vector<IndexEntry>,
    /// Time index entries that were added since the segment was opened.
    pub(crate) recent_times: Vector<TimeEntry>,
    /// The newest batches, without a gap up to `size`.
    pub(crate) tail: Vector<BatchPosition>,
}

/// What a segment had to give.
#[derive(Debug)]
pub(crate) enum SegmentRead {
    /// Whole batches, and the offset behind the last one.
    Batches { range: FileRange, next_offset: Offset },
    /// There is a batch, but it is too large or not below the bound.
    Withheld,
    /// No batch from there on.
    Exhausted,
}

/// A batch boundary to start from.
#[derive(Debug, Clone, Copy)]
struct Hint {
    position: u64,
    /// What the header there must say.
    last_offset: Option<Offset>,
    /// From an index file that may be wrong.
    doubtful: bool,
}

impl Hint {
    const START: Hint = Hint { position: 0, last_offset: None, doubtful: false };
}

/// A walk from a [`Hint`].
struct Way {
    scan: BatchScan,
    hint: Hint,
    /// The next batch begins here or later: no checksum covers a batch's first offset.
    next: Offset,
}

/// How a walk from a [`Hint`] ended.
enum Walk<T> {
    Done(T),
    /// The index does not fit the log, for this reason.
    Stale(String),
}

impl SegmentView {
    /// A sealed segment: everything else is looked up when needed.
    pub(crate) fn sealed(segment: Arc<Segment>, size: u64, next_offset: Offset, written_ms: i64) -> Self {
        Self {
            segment,
            size,
            next_offset,
            max: None,
            timeless: None,
            written_ms,
            recent_offsets: Vector::new(),
            recent_times: Vector::new(),
            tail: Vector::new(),
        }
    }

    /// The first offset that the segment can hold.
    pub(crate) fn base(&self) -> Offset {
        self.segment.base()
    }

    /// Whole batches from the one that holds `from` (or follows it) on, all below `upper`, at most `max_bytes`; with
    /// `min_one` the first one whatever its size.
    pub(crate) async fn read(
        &self,
        from: Offset,
        upper: Offset,
        max_bytes: usize,
        min_one: bool,
    ) -> Result<SegmentRead, StorageError> {
        let Some(first) = self.locate(from).await? else { return Ok(SegmentRead::Exhausted) };
        let fits = first.length as usize <= max_bytes;
        if first.last >= upper || !(fits || min_one) {
            return Ok(SegmentRead::Withheld);
        }
        let limit = first.position.saturating_add(max_bytes as u64);
        let (end, next_offset) = match fits {
            true => self.extend(first, limit, upper).await?,
            false => (first.end(), first.last.plus(1)),
        };
        let file = self.segment.file().await?;
        let range = FileRange { file, offset: first.position, length: end - first.position };
        Ok(SegmentRead::Batches { range, next_offset })
    }

    /// The first batch whose last offset is `target` or higher.
    pub(crate) async fn locate(&self, target: Offset) -> Result<Option<BatchPosition>, StorageError> {
        if target >= self.next_offset {
            return Ok(None);
        }
        if self.tail.front().is_some_and(|front| front.base <= target) {
            let at = partition_point(&self.tail, |batch| batch.last < target);
            return Ok(self.tail.get(at).copied());
        }
        loop {
            let hint = self.hint(|entry| entry.last_offset <= target).await?;
            match self.walk_to(hint, target).await {
                Ok(Walk::Done(found)) => return Ok(found),
                Ok(Walk::Stale(why)) => drop(self.segment.rebuild(self.size, self.next_offset, &why).await?),
                Err(damage @ StorageError::Corrupt(_)) => {
                    return self.behind_damage(hint, target, damage).await;
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// The same where the way from `hint` leads into `damage`: the batch of the next index entry may be the one, since
    /// nothing leads to its first records but what lies before it.
    async fn behind_damage(
        &self,
        hint: Hint,
        target: Offset,
        damage: StorageError,
    ) -> Result<Option<BatchPosition>, StorageError> {
        let loaded = self.segment.offsets(self.size, self.next_offset).await?;
        let entries = (0..loaded.index.len()).map(|number| loaded.index.entry(number));
        let next = { entries }.find(|entry| entry.position > hint.position && entry.last_offset >= target);
        let Some(next) = next else { return Err(damage) };
        let hint = Hint { position: next.position, last_offset: Some(next.last_offset), doubtful: false };
        match self.step(&mut self.way(hint).await?).await {
            Ok(Walk::Done(Some(batch))) if batch.base <= target => Ok(Some(batch)),
            _ => Err(damage),
        }
    }

    /// Whether it ends where the next segment begins: whoever goes on from one to the other would not notice a hole. One that
    /// still grows, or that this process has closed, does.
    pub(crate) async fn is_whole(&self) -> Result<bool, StorageError> {
        if !self.segment.is_sealed() {
            return Ok(true);
        }
        if let Some(known) = self.segment.known_whole() {
            return Ok(known);
        }
        let last = self.next_offset.plus(-1);
        let whole = match self.locate(last).await {
            Ok(found) => found.is_some_and(|batch| (batch.last, batch.end()) == (last, self.size)),
            Err(StorageError::Corrupt(_)) => false,
            Err(error) => return Err(error),
        };
        self.segment.learn_whole(whole);
        Ok(whole)
    }

    /// What is to be said of a closed segment in which nothing is found from `from` on.
    pub(crate) fn missing(&self, from: Offset) -> StorageError {
        self.segment.missing(self.size, from, self.next_offset)
    }

    async fn walk_to(&self, hint: Hint, target: Offset) -> Result<Walk<Option<BatchPosition>>, StorageError> {
        let mut way = self.way(hint).await?;
        loop {
            match self.step(&mut way).await? {
                Walk::Done(Some(batch)) if batch.last >= target => return Ok(Walk::Done(Some(batch))),
                Walk::Done(Some(batch)) => {
                    if let Some(why) = self.overdue(hint, &batch) {
                        return Ok(Walk::Stale(why));
                    }
                }
                Walk::Done(None) => return Ok(Walk::Done(None)),
                Walk::Stale(why) => return Ok(Walk::Stale(why)),
            }
        }
    }

    /// The furthest batch boundary that is not behind `limit`, with all batches from `first` to there below `upper`;
    /// and the offset behind it.
    async fn extend(
        &self,
        first: BatchPosition,
        limit: u64,
        upper: Offset,
    ) -> Result<(u64, Offset), StorageError> {
        if upper >= self.next_offset && limit >= self.size && self.is_whole().await? {
            return Ok((self.size, self.next_offset));
        }
        let fits = |batch: &BatchPosition| batch.end() <= limit && batch.last < upper;
        if self.tail.front().is_some_and(|front| front.position <= first.position) {
            let at = partition_point(&self.tail, fits);
            let last = self.tail[at.checked_sub(1).expect("the first batch fits")];
            return Ok((last.end(), last.last.plus(1)));
        }
        loop {
            let mut hint = self.hint(|entry| entry.position <= limit && entry.last_offset < upper).await?;
            if hint.position < first.end() {
                hint = Hint { position: first.end(), last_offset: None, doubtful: hint.doubtful };
            }
            match self.extend_from(hint, first, fits).await? {
                Walk::Done(end) => return Ok(end),
                Walk::Stale(why) => match self.segment.rebuild(self.size, self.next_offset, &why).await {
                    Err(StorageError::Corrupt(_)) => return Ok((first.end(), first.last.plus(1))),
                    rebuilt => drop(rebuilt?),
                },
            }
        }
    }

    async fn extend_from(
        &self,
        hint: Hint,
        first: BatchPosition,
        fits: impl Fn(&BatchPosition) -> bool,
    ) -> Result<Walk<(u64, Offset)>, StorageError> {
        let mut way = self.way(hint).await?;
        let (mut end, mut next_offset) = (first.end(), first.last.plus(1));
        loop {
            let step = match self.step(&mut way).await {
                // What is before the damage is good; who comes for what is behind it is told.
                Err(StorageError::Corrupt(_)) => return Ok(Walk::Done((end, next_offset))),
                step => step?,
            };
            match step {
                Walk::Done(Some(batch)) => {
                    // What lies before a confirmed boundary fits.
                    if batch.position > end {
                        (end, next_offset) = (batch.position, batch.base);
                    }
                    if !fits(&batch) {
                        return Ok(Walk::Done((end, next_offset)));
                    }
                    if let Some(why) = self.overdue(hint, &batch) {
                        return Ok(Walk::Stale(why));
                    }
                    (end, next_offset) = (batch.end(), batch.last.plus(1));
                }
                Walk::Done(None) => return Ok(Walk::Done((end, next_offset))),
                Walk::Stale(why) => return Ok(Walk::Stale(why)),
            }
        }
    }

    /// A walk over the headers from `position` on.
    pub(crate) async fn scan(&self, position: u64) -> Result<BatchScan, StorageError> {
        Ok(BatchScan::new(self.segment.file().await?, position, self.size, LOOKUP_BLOCK))
    }

    async fn way(&self, hint: Hint) -> Result<Way, StorageError> {
        Ok(Way { scan: self.scan(hint.position).await?, hint, next: self.base() })
    }

    /// The next batch of a walk, checked against what the index promised and what the segment can hold.
    async fn step(&self, way: &mut Way) -> Result<Walk<Option<BatchPosition>>, StorageError> {
        let at = way.scan.position();
        let hint = way.hint;
        let first = at == hint.position;
        let step = way.scan.next().await.map_err(|error| self.segment.fail(&error, "reading a segment"))?;
        let batch = match step {
            Step::Batch(batch) => BatchPosition::new(&batch.header, batch.position),
            Step::End => return Ok(Walk::Done(None)),
            Step::Bad(error) if first && hint.doubtful && hint.last_offset.is_some() => {
                return Ok(Walk::Stale(format!("no batch begins at {at}: {error}")));
            }
            Step::Bad(error) => return Err(self.segment.corrupt(at, &error)),
        };
        if let Some(promised) = hint.last_offset.filter(|promised| first && *promised != batch.last) {
            let why = format!("the batch at {at} ends at offset {}, not {promised}", batch.last);
            return if hint.doubtful { Ok(Walk::Stale(why)) } else { Err(self.segment.corrupt(at, &why)) };
        }
        if batch.base < way.next || batch.last >= self.next_offset {
            let (base, last) = (batch.base, batch.last);
            let expected = format!("offsets from {} to {}", way.next, self.next_offset.plus(-1));
            return Err(self.segment.corrupt(at, &format!("a batch of {base} to {last} among {expected}")));
        }
        way.next = batch.last.plus(1);
        Ok(Walk::Done(Some(batch)))
    }

    /// Why the index cannot be complete, when a walk from `hint` has to go on behind `batch`: an entry for it would
    /// have been the better hint. That costs no correctness, but makes every look-up a long walk.
    fn overdue(&self, hint: Hint, batch: &BatchPosition) -> Option<String> {
        let overdue = hint.doubtful && batch.position - hint.position > 4 * self.segment.interval();
        overdue.then(|| format!("no entry between {} and {}", hint.position, batch.position))
    }

    /// The last index entry for which `fits` holds (it holds for a prefix), else the segment's beginning.
    async fn hint(&self, fits: impl Fn(&IndexEntry) -> bool) -> Result<Hint, StorageError> {
        if self.recent_offsets.front().is_some_and(&fits) {
            let at = partition_point(&self.recent_offsets, fits);
            let entry = self.recent_offsets[at - 1];
            return Ok(Hint {
                position: entry.position,
                last_offset: Some(entry.last_offset),
                doubtful: false,
            });
        }
        let loaded = self.segment.offsets(self.size, self.next_offset).await?;
        // A view that is older than a rebuild must not be led behind its own end.
        let entry = loaded.index.last_where(|entry| fits(entry) && entry.last_offset < self.next_offset);
        let doubtful = !loaded.rebuilt;
        Ok(match entry {
            Some(entry) => Hint { position: entry.position, last_offset: Some(entry.last_offset), doubtful },
            None => Hint { doubtful, ..Hint::START },
        })
    }
}

/// How many elements at the front satisfy `holds`, given that no later one does once one does not.
pub(crate) fn partition_point<T: Clone>(vector: &Vector<T>, holds: impl Fn(&T) -> bool) -> usize {
    let (mut low, mut high) = (0, vector.len());
    while low < high {
        let middle = low + (high - low) / 2;
        if holds(&vector[middle]) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    low
}
