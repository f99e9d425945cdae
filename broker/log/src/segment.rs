//! One segment: a `.log` file, the name it is under, and what has been learnt of its indexes so far.
//!
//! Shared by the log's owner and by every view that can see the segment. Files and indexes are opened when somebody
//! first needs them. An index that is torn, unsorted or contradicted by the log is built anew from the log, and a line
//! in our own log says so. Where it is the log of a closed segment that is damaged, that is said instead, and what comes
//! before the damage is served. Never: a write to a file that the owner still appends to; an answer that rests on an index
//! alone; a hole in the log passed over.

use std::{
    io,
    path::{Path, PathBuf},
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
};

use arc_swap::ArcSwapOption;
use bytes::Bytes;
use gracchus_core::{Offset, record::Batch};
use gracchus_env::File;

use super::{
    directory::LogDirectory,
    error::StorageError,
    index::{self, BuiltIndexes, OffsetIndex},
    names,
    scan::{BatchScan, Step, WALK_BLOCK},
    time_index::{self, TimeEntry, TimeIndex},
};

/// How much of the index files belongs to the past: entries that were there when the segment was opened. Those that
/// the owner appends later are in its views.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Persisted {
    /// A sealed segment: all of it.
    Whole,
    /// The active segment: so many entries of the offset index and of the time index.
    Entries { offsets: usize, times: usize },
}

/// Ends when the log's files change under their names: what an older view would open by name is no longer what it saw.
/// Until then it knows whether a reader has met damage in them.
#[derive(Debug, Clone, Default)]
pub(crate) struct Life {
    ended: Arc<AtomicBool>,
    damaged: Arc<AtomicBool>,
}

impl Life {
    /// Must come before the first file is renamed, replaced or removed.
    pub(crate) fn end(&self) {
        self.ended.store(true, Ordering::Release);
    }

    fn check(&self) -> Result<(), StorageError> {
        if self.ended.load(Ordering::Acquire) { Err(StorageError::Superseded) } else { Ok(()) }
    }

    /// Whether bytes that had been checked and synced were not as they had been.
    pub(crate) fn is_damaged(&self) -> bool {
        self.damaged.load(Ordering::Acquire)
    }
}

/// See the module.
pub(crate) struct Segment {
    directory: Arc<LogDirectory>,
    /// The directory of the log.
    path: Arc<Path>,
    /// The `.log` file.
    log_path: PathBuf,
    base: Offset,
    /// `index.interval.bytes` for a rebuild.
    interval: u64,
    persisted: Persisted,
    /// The active segment's handle. Those of sealed segments live in the directory's bounded cache.
    file: Option<Arc<dyn File>>,
    life: Life,
    /// Ends when this segment leaves the log.
    place: Life,
    offsets: ArcSwapOption<Loaded<OffsetIndex>>,
    times: ArcSwapOption<Loaded<TimeIndex>>,
    /// The greatest timestamp, found in the log.
    max: OnceLock<Option<TimeEntry>>,
    /// Whether a batch has no time, found in the log.
    timeless: OnceLock<bool>,
    /// Whether a sealed segment ends with the record before the next segment's first.
    whole: OnceLock<bool>,
    /// The index files are known to be wrong. The owner writes them anew when it seals or closes the segment.
    damaged: AtomicBool,
    /// A batch of it may have any time: neither its header nor an index can be believed.
    doubtful: AtomicBool,
    /// Somebody is replacing the index files of a sealed segment.
    repairing: AtomicBool,
}

/// An index in memory.
#[derive(Debug)]
pub(crate) struct Loaded<I> {
    pub(crate) index: I,
    /// Built from the log in this life: if it contradicts the log, then the log has changed.
    pub(crate) rebuilt: bool,
}

/// Indexes that were made anew.
struct Built {
    offsets: OffsetIndex,
    times: TimeIndex,
    /// Why they go no further.
    ended: Option<StorageError>,
    /// The first batch whose checksum does not fit; they pass it over.
    rotten: Option<StorageError>,
}

impl Segment {
    /// A segment whose files are opened when needed.
    pub(crate) fn new(
        directory: Arc<LogDirectory>,
        path: Arc<Path>,
        base: Offset,
        interval: u64,
        persisted: Persisted,
        file: Option<Arc<dyn File>>,
        life: Life,
    ) -> Self {
        Self {
            directory,
            log_path: names::file(&path, base, names::LOG),
            path,
            base,
            interval,
            persisted,
            file,
            life,
            place: Life::default(),
            offsets: ArcSwapOption::empty(),
            times: ArcSwapOption::empty(),
            max: OnceLock::new(),
            timeless: OnceLock::new(),
            whole: OnceLock::new(),
            damaged: AtomicBool::new(false),
            doubtful: AtomicBool::new(false),
            repairing: AtomicBool::new(false),
        }
    }

    /// It leaves the log: older views that would have to open a file are told so. Must come before the files get other
    /// names.
    pub(crate) fn retire(&self) {
        self.place.end();
    }

    fn check_life(&self) -> Result<(), StorageError> {
        self.life.check()?;
        self.place.check()
    }

    /// The first offset that it can hold, which names its files.
    pub(crate) fn base(&self) -> Offset {
        self.base
    }

    /// Bytes between two index entries.
    pub(crate) fn interval(&self) -> u64 {
        self.interval
    }

    /// Whether the index files must be written anew.
    pub(crate) fn is_damaged(&self) -> bool {
        self.damaged.load(Ordering::Acquire)
    }

    /// Nobody knows the times of one of its batches.
    pub(crate) fn learn_doubt(&self) {
        self.doubtful.store(true, Ordering::Release);
    }

    /// The error of whoever asks for a time that may be among those that nobody knows.
    pub(crate) fn doubt(&self) -> Option<StorageError> {
        let doubtful = self.doubtful.load(Ordering::Acquire);
        doubtful.then(|| self.corrupt(0, &"the times of one of its batches cannot be told"))
    }

    /// The path of one of its files.
    pub(crate) fn file_path(&self, kind: &str) -> PathBuf {
        names::file(&self.path, self.base, kind)
    }

    /// The `.log` file.
    pub(crate) async fn file(&self) -> Result<Arc<dyn File>, StorageError> {
        if let Some(file) = &self.file {
            return Ok(file.clone());
        }
        let opened = self.directory.files().open(&self.log_path).await;
        // A file that was opened while the log still lived is the one that was meant.
        self.check_life()?;
        opened.map_err(|error| self.fail(&error, "opening a segment"))
    }

    /// Takes the directory offline over `error`.
    pub(crate) fn fail(&self, error: &io::Error, what: &str) -> StorageError {
        self.directory.fail_of(error, what, format_args!(" of {} at {}", self.path.display(), self.base))
    }

    /// The log contradicts itself within bytes that had been checked.
    pub(crate) fn corrupt(&self, position: u64, what: &dyn std::fmt::Display) -> StorageError {
        gracchus_env::moment!(SEGMENT_CORRUPT);
        self.life.damaged.store(true, Ordering::Release);
        StorageError::corrupt(format!("{} at byte {position}: {what}", self.file_path(names::LOG).display()))
    }

    /// The persisted part of the offset index, for a segment of `size` bytes that ends before `next_offset`.
    pub(crate) async fn offsets(
        &self,
        size: u64,
        next_offset: Offset,
    ) -> Result<Arc<Loaded<OffsetIndex>>, StorageError> {
        if let Some(loaded) = self.offsets.load_full() {
            return Ok(loaded);
        }
        let length = match self.persisted {
            Persisted::Whole => None,
            Persisted::Entries { offsets, .. } => Some(offsets * index::ENTRY),
        };
        let read = self.read_index(names::INDEX, length).await?;
        match read.and_then(|bytes| OffsetIndex::check(self.base, bytes, size)) {
            Ok(index) => {
                let loaded = Arc::new(Loaded { index, rebuilt: false });
                self.offsets.store(Some(loaded.clone()));
                Ok(loaded)
            }
            Err(why) => Ok(self.rebuild(size, next_offset, &why).await?.0),
        }
    }

    /// The persisted part of the time index.
    pub(crate) async fn times(
        &self,
        size: u64,
        next_offset: Offset,
    ) -> Result<Arc<Loaded<TimeIndex>>, StorageError> {
        if let Some(loaded) = self.times.load_full() {
            return Ok(loaded);
        }
        let length = match self.persisted {
            Persisted::Whole => None,
            Persisted::Entries { times, .. } => Some(times * time_index::ENTRY),
        };
        let read = self.read_index(names::TIME_INDEX, length).await?;
        match read.and_then(|bytes| TimeIndex::check(self.base, bytes, next_offset)) {
            Ok(index) => {
                let loaded = Arc::new(Loaded { index, rebuilt: false });
                self.times.store(Some(loaded.clone()));
                Ok(loaded)
            }
            Err(why) => Ok(self.rebuild(size, next_offset, &why).await?.1),
        }
    }

    /// The first `length` bytes of an index file, or all of it; the inner error says why they cannot be used.
    async fn read_index(
        &self,
        kind: &str,
        length: Option<usize>,
    ) -> Result<Result<Bytes, String>, StorageError> {
        if length == Some(0) {
            return Ok(Ok(Bytes::new()));
        }
        let path = self.file_path(kind);
        let whole = self.directory.env().disk().read_all(&path).await;
        self.check_life()?;
        let bytes = match whole.map_err(|error| self.fail(&error, "reading an index"))? {
            Some(bytes) => bytes,
            None => return Ok(Err(format!("there is no {kind} file"))),
        };
        Ok(match length {
            Some(length) if bytes.len() < length => {
                Err(format!("{} bytes where {length} were written", bytes.len()))
            }
            Some(length) => Ok(bytes.slice(..length)),
            None => Ok(bytes),
        })
    }

    /// Builds both indexes from the log and keeps them; the files of a sealed segment are replaced too.
    pub(crate) async fn rebuild(
        &self,
        size: u64,
        next_offset: Offset,
        why: &str,
    ) -> Result<(Arc<Loaded<OffsetIndex>>, Arc<Loaded<TimeIndex>>), StorageError> {
        gracchus_env::moment!(INDEX_REBUILT);
        self.damaged.store(true, Ordering::Release);
        let Built { mut offsets, mut times, ended, rotten } =
            self.index_what_is_sound(size, next_offset).await?;
        if let Some(error) = ended.or(rotten) {
            // The files stay, and are used if they can be: what they say of the way around the damage nobody else knows.
            let read = self.read_index(names::INDEX, None).await?;
            offsets = read.and_then(|bytes| OffsetIndex::check(self.base, bytes, size)).unwrap_or(offsets);
            let read = self.read_index(names::TIME_INDEX, None).await?;
            times = read.and_then(|bytes| TimeIndex::check(self.base, bytes, next_offset)).unwrap_or(times);
            tracing::error!(
                log = %self.path.display(),
                segment = %self.base,
                damaged = true,
                %error,
                why,
                "a closed segment is damaged, or is not what was closed: what is before the damage is served, and who asks \
                 for the rest gets an error. Restore the file while the broker is stopped, or delete its records \
                 (kafka-delete-records)"
            );
        } else {
            tracing::warn!(
                log = %self.path.display(),
                segment = %self.base,
                why,
                "index does not fit its log; rebuilding it, nothing needs to be done. If it comes again, check \
                 the disk"
            );
            if self.is_sealed() && !self.repairing.swap(true, Ordering::AcqRel) {
                let replaced = self.replace_index_files(&offsets, &times).await;
                self.repairing.store(false, Ordering::Release);
                replaced?;
            }
        }
        let offsets = Arc::new(Loaded { index: offsets, rebuilt: true });
        let times = Arc::new(Loaded { index: times, rebuilt: true });
        self.offsets.store(Some(offsets.clone()));
        self.times.store(Some(times.clone()));
        Ok((offsets, times))
    }

    /// Both indexes of the first `size` bytes, which end before `next_offset`, by a walk over the batches. Offsets lie
    /// outside of the CRC: what a disk made of them must not be believed either.
    pub(crate) async fn build_indexes(
        &self,
        size: u64,
        next_offset: Offset,
    ) -> Result<(OffsetIndex, TimeIndex), StorageError> {
        let Built { offsets, times, ended, .. } = self.index_what_is_sound(size, next_offset).await?;
        ended.map_or(Ok((offsets, times)), Err)
    }

    /// Both indexes of what is sound before the first place that leads no further.
    async fn index_what_is_sound(&self, size: u64, next_offset: Offset) -> Result<Built, StorageError> {
        let mut built = BuiltIndexes::new(self.base, self.interval);
        let mut scan = BatchScan::new(self.file().await?, 0, size, WALK_BLOCK);
        let mut begun = self.base;
        // Entries hold 31 bits of an offset.
        let end = next_offset.min(self.base.plus(1 << 31));
        // What a batch with a wrong checksum says of times would hide others for good.
        let mut rotten = None;
        let ended = loop {
            match scan.next().await.map_err(|error| self.fail(&error, "reading a segment"))? {
                Step::Batch(batch) if batch.header.base_offset < begun => {
                    let what = format!("offset {} where {begun} is due", batch.header.base_offset);
                    break Some(self.corrupt(batch.position, &what));
                }
                Step::Batch(batch) if batch.header.last_offset() >= end => {
                    let what = format!("offset {} where all are below {end}", batch.header.last_offset());
                    break Some(self.corrupt(batch.position, &what));
                }
                Step::Batch(batch) => {
                    begun = batch.header.next_offset();
                    let bytes =
                        scan.bytes(&batch).await.map_err(|error| self.fail(&error, "reading a segment"))?;
                    match Batch::check(bytes) {
                        Ok(_) => built.add(&batch.header, batch.position),
                        Err(error) => _ = rotten.get_or_insert_with(|| self.corrupt(batch.position, &error)),
                    }
                }
                Step::End if self.is_sealed() && begun < next_offset => {
                    break Some(self.missing(size, begun, next_offset));
                }
                Step::End => break None,
                Step::Bad(error) => break Some(self.corrupt(scan.position(), &error)),
            }
        };
        let (offsets, times, _) = built.finish();
        Ok(Built { offsets, times, ended, rotten })
    }

    /// A closed segment of `size` bytes lacks the records from `from` to `next_offset`.
    pub(crate) fn missing(&self, size: u64, from: Offset, next_offset: Offset) -> StorageError {
        self.corrupt(size, &format!("the records from {from} to {} are missing", next_offset.plus(-1)))
    }

    /// Whether nobody appends to it.
    pub(crate) fn is_sealed(&self) -> bool {
        self.persisted == Persisted::Whole
    }

    /// The last entry of the time index as it is on disk: of a damaged segment it knows more than the log.
    pub(crate) async fn indexed_max(&self, next_offset: Offset) -> Result<Option<TimeEntry>, StorageError> {
        let bytes = self.read_index(names::TIME_INDEX, None).await?;
        Ok(bytes
            .and_then(|bytes| TimeIndex::check(self.base, bytes, next_offset))
            .ok()
            .and_then(|index| index.last()))
    }

    /// Whether a sealed segment ends where it should, once somebody has looked.
    pub(crate) fn known_whole(&self) -> Option<bool> {
        self.whole.get().copied()
    }

    /// Remembers that.
    pub(crate) fn learn_whole(&self, whole: bool) {
        let _ = self.whole.set(whole);
    }

    /// Whether a reader has met damage in any segment of this log.
    pub(crate) fn has_met_damage(&self) -> bool {
        self.life.is_damaged()
    }

    /// Replaces both index files durably. Only for segments that nobody appends to.
    pub(crate) async fn replace_index_files(
        &self,
        offsets: &OffsetIndex,
        times: &TimeIndex,
    ) -> Result<(), StorageError> {
        let disk = self.directory.env().disk();
        self.check_life()?;
        for (kind, bytes) in [(names::INDEX, offsets.bytes()), (names::TIME_INDEX, times.bytes())] {
            if let Err(error) = disk.replace(&self.file_path(kind), bytes.clone()).await {
                gracchus_env::moment!(INDEX_NOT_REPLACED);
                // Where the log has gone meanwhile, so has the place for its index: nothing is wrong with the disk.
                self.check_life()?;
                return Err(self.fail(&error, "replacing an index"));
            }
        }
        self.damaged.store(false, Ordering::Release);
        Ok(())
    }

    /// The greatest timestamp of a sealed segment, once somebody has looked for it in the log.
    pub(crate) fn known_max(&self) -> Option<Option<TimeEntry>> {
        self.max.get().copied()
    }

    /// Whether a batch has no time, once somebody has looked for one.
    pub(crate) fn known_timeless(&self) -> Option<bool> {
        self.timeless.get().copied()
    }

    /// Remembers that; of a segment which still grows only that there is one.
    pub(crate) fn learn_timeless(&self, timeless: bool) {
        if timeless || self.persisted == Persisted::Whole {
            let _ = self.timeless.set(timeless);
        }
    }

    /// Remembers the greatest timestamp; that of a segment which still grows is nothing to remember.
    pub(crate) fn learn_max(&self, max: Option<TimeEntry>) {
        if self.persisted == Persisted::Whole {
            let _ = self.max.set(max);
        }
    }
}

impl std::fmt::Debug for Segment {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Segment").field("path", &self.file_path(names::LOG)).finish_non_exhaustive()
    }
}
