//! The segment that is appended to: its open files, and what the next view shows of it.
//!
//! Index entries go to their files together with the batches but unsynced: what a power loss takes from them, recovery
//! builds again. Never: an entry in a view before the batch it points to is written.

use std::{path::Path, sync::Arc};

use bytes::{Bytes, BytesMut};
use gracchus_core::{Offset, record::HEADER_LENGTH};
use gracchus_env::{Disk, File, Op, Open};
use imbl::Vector;

use super::{
    directory::{IndexEntries, LogDirectory},
    index::{self, IndexEntry},
    log::AppendBatch,
    names,
    segment::{Life, Persisted, Segment},
    segment_plan::{Ended, Placed, SegmentPlan},
    segment_view::{BatchPosition, SegmentView, TAIL_BATCHES},
    time_index::{self, TimeEntry},
};

/// The three files of a segment.
#[derive(Debug, Clone)]
pub(crate) struct Files {
    pub(crate) log: Arc<dyn File>,
    pub(crate) offsets: Arc<dyn File>,
    pub(crate) times: Arc<dyn File>,
}

/// The two index files of a segment.
#[derive(Debug, Clone)]
pub(crate) struct Indexes {
    pub(crate) offsets: Arc<dyn File>,
    pub(crate) times: Arc<dyn File>,
}

impl Indexes {
    /// Opens them, creating what is missing.
    pub(crate) async fn open(disk: &dyn Disk, directory: &Path, base: Offset) -> std::io::Result<Self> {
        let open = |kind| disk.open(&names::file(directory, base, kind), Open::OrCreate);
        let (offsets, times) = futures_util::try_join!(open(names::INDEX), open(names::TIME_INDEX))?;
        Ok(Self { offsets, times })
    }
}

impl Files {
    /// Opens them, creating what is missing.
    pub(crate) async fn open(disk: &dyn Disk, directory: &Path, base: Offset) -> std::io::Result<Self> {
        let open = |kind| disk.open(&names::file(directory, base, kind), Open::OrCreate);
        let (log, offsets, times) =
            futures_util::try_join!(open(names::LOG), open(names::INDEX), open(names::TIME_INDEX))?;
        Ok(Self { log, offsets, times })
    }

    /// Empties those that are not empty.
    pub(crate) fn clear(&self) -> std::io::Result<Vec<Op>> {
        let mut ops = Vec::new();
        for file in [&self.log, &self.offsets, &self.times] {
            if file.length()? > 0 {
                ops.push(Op::Truncate { file: file.clone(), length: 0 });
            }
        }
        Ok(ops)
    }
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Active {
    pub(crate) log: Arc<dyn File>,
    /// Open only once there was an entry to write: thousands of small or idle logs cost one handle each, not three.
    pub(crate) indexes: Option<Indexes>,
    segment: Arc<Segment>,
    persisted: (usize, usize),
    position: u64,
    next_offset: Offset,
    max: Option<TimeEntry>,
    /// See [`SegmentView::timeless`].
    pub(crate) timeless: Option<bool>,
    /// See [`SegmentView::written_ms`].
    pub(crate) written_ms: i64,
    recent_offsets: Vector<IndexEntry>,
    recent_times: Vector<TimeEntry>,
    tail: Vector<BatchPosition>,
}

/// Batches on their way into one segment, to become one round.
#[derive(Debug, Default)]
pub(crate) struct Writing {
    pub(crate) buffers: Vec<Bytes>,
    pub(crate) length: u64,
    pub(crate) records: i64,
    offsets: BytesMut,
    times: BytesMut,
}

impl Writing {
    /// Whether there is something for the index files.
    pub(crate) fn has_entries(&self) -> bool {
        !self.offsets.is_empty() || !self.times.is_empty()
    }
}

impl Active {
    /// Goes on where `plan` says: so many bytes, and index entries that are in the files by now.
    pub(crate) fn new(
        directory: &Arc<LogDirectory>,
        path: &Arc<Path>,
        files: Files,
        plan: &SegmentPlan,
        tail: Vector<BatchPosition>,
        interval: u64,
        life: Life,
    ) -> Self {
        let persisted = Persisted::Entries { offsets: plan.offset_entries, times: plan.time_entries };
        let log = files.log;
        let segment = Segment::new(
            directory.clone(),
            path.clone(),
            plan.base,
            interval,
            persisted,
            Some(log.clone()),
            life,
        );
        Self {
            log,
            indexes: None,
            segment: Arc::new(segment),
            persisted: (plan.offset_entries, plan.time_entries),
            position: plan.position,
            next_offset: plan.next_offset,
            max: plan.builder.max(),
            timeless: plan.builder.timeless(),
            written_ms: plan.written_ms,
            recent_offsets: Vector::new(),
            recent_times: Vector::new(),
            tail,
        }
    }

    /// The segment as readers share it.
    pub(crate) fn segment(&self) -> &Arc<Segment> {
        &self.segment
    }

    /// Bytes so far.
    pub(crate) fn position(&self) -> u64 {
        self.position
    }

    /// The offset after the last record.
    pub(crate) fn next_offset(&self) -> Offset {
        self.next_offset
    }

    /// How many entries its index files have once all of them are written.
    pub(crate) fn index_entries(&self) -> IndexEntries {
        IndexEntries {
            offsets: self.persisted.0 + self.recent_offsets.len(),
            times: self.persisted.1 + self.recent_times.len(),
        }
    }

    /// Adds a batch to what is to be written and to the next view.
    pub(crate) fn add(&mut self, batch: AppendBatch, placed: Placed, writing: &mut Writing) {
        let AppendBatch { header, bytes } = batch;
        assert_eq!(
            placed.position, self.position,
            "batches come in the order in which they got their places"
        );
        writing.buffers.push(Bytes::copy_from_slice(&header.encode()));
        writing.buffers.push(bytes.slice(HEADER_LENGTH..));
        writing.length += bytes.len() as u64;
        writing.records += header.next_offset().0 - header.base_offset.0;
        if let Some(entry) = placed.offset_entry {
            entry.encode(self.segment.base(), &mut writing.offsets);
            self.recent_offsets.push_back(entry);
        }
        if let Some(entry) = placed.time_entry {
            entry.encode(self.segment.base(), &mut writing.times);
            self.recent_times.push_back(entry);
        }
        if header.max_timestamp > self.max.map_or(-1, |max| max.timestamp) {
            self.max = Some(TimeEntry { timestamp: header.max_timestamp, last_offset: header.last_offset() });
        }
        if header.max_timestamp < 0 {
            self.timeless = Some(true);
        }
        self.tail.push_back(BatchPosition::new(&header, placed.position));
        if self.tail.len() > TAIL_BATCHES {
            self.tail.pop_front();
        }
        self.position = placed.position + bytes.len() as u64;
        self.next_offset = header.next_offset();
    }

    /// The writes that bring the index files up to date with `writing`; they are open if it has entries.
    pub(crate) fn index_writes(&self, writing: Writing) -> Vec<Op> {
        if !writing.has_entries() {
            return Vec::new();
        }
        let indexes = self.indexes.as_ref().expect("opened for the first entry");
        let Writing { offsets, times, .. } = writing;
        let offset_entries = self.persisted.0 + self.recent_offsets.len() - offsets.len() / index::ENTRY;
        let time_entries = self.persisted.1 + self.recent_times.len() - times.len() / time_index::ENTRY;
        [
            (&indexes.offsets, offset_entries * index::ENTRY, offsets),
            (&indexes.times, time_entries * time_index::ENTRY, times),
        ]
        .into_iter()
        .filter(|(_, _, bytes)| !bytes.is_empty())
        .map(|(file, at, bytes)| Op::WriteAt {
            file: file.clone(),
            offset: at as u64,
            buffers: vec![bytes.freeze()],
        })
        .collect()
    }

    /// The write of the time index entry that is due at the end of the segment; the index files are open.
    pub(crate) fn end(&mut self, ended: &Ended) -> Option<Op> {
        let mut bytes = BytesMut::new();
        let entry = ended.time_entry?;
        entry.encode(self.segment.base(), &mut bytes);
        let at = (self.persisted.1 + self.recent_times.len()) * time_index::ENTRY;
        self.recent_times.push_back(entry);
        let file = self.indexes.as_ref().expect("opened before the end").times.clone();
        Some(Op::WriteAt { file, offset: at as u64, buffers: vec![bytes.freeze()] })
    }

    /// What readers may see from now on.
    pub(crate) fn view(&self) -> SegmentView {
        SegmentView {
            segment: self.segment.clone(),
            size: self.position,
            next_offset: self.next_offset,
            max: self.max,
            timeless: self.timeless,
            written_ms: self.written_ms,
            recent_offsets: self.recent_offsets.clone(),
            recent_times: self.recent_times.clone(),
            tail: self.tail.clone(),
        }
    }
}
