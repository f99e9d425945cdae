//! What leaves a log at its front: records below the log start at once, the files of whole segments later.
//!
//! The log start is durable before anybody can see it, in the directory's checkpoint, and everything written is: a log
//! never ends below its start. Files go after that, under another name first; those that hold a view or a range of one keep
//! it. Never: a log start that goes back; a file removed while its segment is in the log; a segment that a crash brings
//! back (recovery passes over what lies below the log start); a handle of a file that left kept for nobody.

use std::{collections::BTreeSet, path::PathBuf, sync::Arc};

use gracchus_core::Offset;
use gracchus_env::Op;

use super::{
    ages::Ages,
    error::StorageError,
    log::{Log, seals_durably},
    names,
    retention::{Facts, Reason, Retention, Verdict},
    segment_view::SegmentView,
    view::LogView,
};

/// An active segment that nobody has written to for so long rests: its age is worth a file. Retention looks far less often.
const RESTS_MS: i64 = 1_000;

/// Segments that have left the log. Their files are where they were until [`Log::bury`].
#[derive(Debug)]
#[must_use]
pub struct Trimmed {
    segments: Vec<SegmentView>,
}

impl Trimmed {
    /// Whether nothing has left.
    pub fn is_empty(&self) -> bool {
        self.segments.is_empty()
    }
}

impl SegmentView {
    /// Newest timestamp, where that is known without a look at the disk; without timestamps, when it was written.
    fn known_largest_ms(&self) -> Option<i64> {
        if self.size == 0 {
            return Some(self.written_ms);
        }
        let max = self.max.map(Some).or_else(|| self.segment.known_max())?;
        Some(max.map_or(self.written_ms, |max| max.timestamp))
    }

    /// Whether it is known, without a look at the disk, that a batch of it has no timestamp.
    fn is_known_untimed(&self) -> bool {
        self.size > 0 && (self.known_timeless() == Some(true) || self.segment.known_max() == Some(None))
    }

    async fn largest_ms(&self) -> Result<i64, StorageError> {
        let max = self.max_timestamp().await?;
        Ok(max.map_or(self.written_ms, |max| max.timestamp))
    }

    /// Whether retention by age lets it go. A batch whose largest timestamp is unknown was stored before the broker looked for
    /// itself, or has none: it may be as young as the time by which all was written, whatever the others say.
    async fn has_expired(&self, retention: &Retention) -> Result<bool, StorageError> {
        let by_timestamps = retention.is_expired(self.largest_ms().await?);
        Ok(by_timestamps && (retention.is_expired(self.written_ms) || !self.is_timeless().await?))
    }

    /// Whether it may be so, by what is known without a look at the disk.
    fn may_have_expired(&self, retention: &Retention) -> bool {
        self.known_largest_ms().is_none_or(|largest| retention.is_expired(largest))
            && (retention.is_expired(self.written_ms) || self.known_timeless() != Some(true))
    }

    fn facts(&self, last: bool) -> Facts {
        Facts { next_offset: self.next_offset, size: self.size, last }
    }
}

/// See [`LogView::untold_ms`].
pub(crate) fn untold_ms(active: &SegmentView, ages: &Ages) -> Option<i64> {
    let untold = active.is_known_untimed() && ages.written_ms(active.base(), active.size).is_none();
    untold.then_some(active.written_ms)
}

impl LogView {
    /// Whether the active segment rests, and the next process must be told how old it is.
    fn has_untold_age(&self, now_ms: i64) -> bool {
        self.untold_ms.is_some_and(|written_ms| now_ms.saturating_sub(written_ms) >= RESTS_MS)
    }

    /// Whether retention may have something to do, by what is known without a look at the disk. Cheap.
    pub fn may_trim(
        &self,
        config: &gracchus_core::topic::TopicConfig,
        high_watermark: Offset,
        now_ms: i64,
    ) -> bool {
        let retention = Retention::new(config, high_watermark, self.log_start, self.size(), now_ms);
        let (first, last) = match self.sealed.first() {
            Some(first) => (first, false),
            None => (&self.active, true),
        };
        if self.has_untold_age(now_ms) {
            return true;
        }
        match retention.judge(&first.facts(last)) {
            Verdict::Goes(_) => true,
            Verdict::Stays => false,
            Verdict::ByAge => first.may_have_expired(&retention),
        }
    }
}

impl Log {
    /// Records below `to` can no longer be read. Durable when this returns. Does nothing if the log begins there or
    /// behind it already.
    ///
    /// # Panics
    /// If `to` is behind the log end, or batches are staged.
    pub async fn advance_log_start(&mut self, to: Offset) -> Result<Arc<LogView>, StorageError> {
        assert!(to <= self.view.log_end, "{to} is behind the end of {}", self.id);
        if to <= self.view.log_start {
            return Ok(self.view());
        }
        if self.is_unflushed() {
            self.flush().await?;
        }
        self.begin_cut()?;
        gracchus_env::moment!(LOG_START_ADVANCED);
        self.directory.set_log_start(&self.id, to);
        self.directory.flusher().checkpoint().await?;
        self.epochs_changed |= Arc::make_mut(&mut self.epochs).truncate_from_start(to);
        self.changed = true;
        self.publish_from(to);
        self.end_cut();
        Ok(self.view())
    }

    /// Takes the segments out of the log that retention lets go.
    pub async fn trim(&mut self, high_watermark: Offset) -> Result<Trimmed, StorageError> {
        let now_ms = self.directory.env().wall_clock_ms();
        self.keep_unopened_age(now_ms).await?;
        let view = self.view();
        let mut retention = Retention::new(&self.config, high_watermark, view.log_start, view.size(), now_ms);
        let mut below = None;
        for segment in view.segments() {
            let last = segment.base() == view.active.base();
            let facts = segment.facts(last);
            let reason = match retention.judge(&facts) {
                Verdict::Goes(reason) => reason,
                Verdict::ByAge if self.has_expired(&view, segment, &retention).await? => Reason::Time,
                Verdict::ByAge | Verdict::Stays => break,
            };
            match reason {
                Reason::BelowLogStart => gracchus_env::moment!(RETENTION_BELOW_START),
                Reason::Size => gracchus_env::moment!(RETENTION_BY_SIZE),
                Reason::Time => gracchus_env::moment!(RETENTION_BY_TIME),
            }
            tracing::info!(
                log = %self.id.tp, segment = %segment.base(), end = %segment.next_offset, bytes = segment.size,
                why = reason.text(), "a segment leaves the log"
            );
            retention.gone(&facts);
            below = Some(segment.next_offset);
            if last {
                gracchus_env::moment!(ROLL_BY_RETENTION);
                self.stage_roll("retention", now_ms);
                self.commit().await?;
                // Where rolls do not wait for the disk, the new segment must still have its name before the old ones lose
                // theirs: without either the log would end below its start.
                if !seals_durably(&self.config) {
                    self.flush().await?;
                }
            }
        }
        match below {
            Some(below) => self.drop_segments(below).await,
            None => Ok(Trimmed { segments: Vec::new() }),
        }
    }

    /// Whether a segment is too old. Where that cannot be read it stays, and the log goes on.
    async fn has_expired(
        &mut self,
        view: &LogView,
        segment: &SegmentView,
        retention: &Retention,
    ) -> Result<bool, StorageError> {
        match segment.has_expired(retention).await {
            Ok(expired) => {
                self.keep_ages(view, segment).await?;
                Ok(expired)
            }
            Err(StorageError::Exhausted(what)) => {
                gracchus_env::moment!(RETENTION_CANNOT_TELL, "no handle");
                self.directory.handles().complain("retention", &what);
                Ok(false)
            }
            Err(error @ StorageError::Corrupt(_)) => {
                gracchus_env::moment!(RETENTION_CANNOT_TELL, "damaged");
                tracing::warn!(
                    log = %self.id.tp, segment = %segment.base(), %error,
                    "retention cannot tell how old a segment is: it and those behind it stay until that is so. Restore the \
                     file, or delete its records (kafka-delete-records) or let retention.bytes take it"
                );
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }

    /// The age of a segment without timestamps, or with batches that have none, is looked at. Where the next process would
    /// not know it, it learns from now on: of this segment and of all behind it, which would otherwise be young again
    /// whenever a process starts.
    async fn keep_ages(&mut self, view: &LogView, segment: &SegmentView) -> Result<(), StorageError> {
        let counts = segment.is_known_untimed() || segment.max_timestamp().await?.is_none();
        if counts && self.wants_age(view, segment) {
            for other in view.segments().filter(|other| other.size > 0) {
                // One that cannot be read has its warning when it comes first.
                if other.is_known_untimed() || matches!(other.max_timestamp().await, Ok(None)) {
                    self.keep_age(view, other);
                }
            }
        }
        self.write_ages().await
    }

    /// The same of the active segment, once nobody has written to it for a while: a crash must not make it young again.
    async fn keep_unopened_age(&mut self, now_ms: i64) -> Result<(), StorageError> {
        let view = self.view();
        if !view.has_untold_age(now_ms) {
            return Ok(());
        }
        self.tell_age(&view, &view.active);
        self.write_ages().await?;
        self.publish();
        Ok(())
    }

    /// The same when the log is opened, for the segments of which recovery has seen that they have none: nothing else may
    /// look at them before the process ends.
    pub(crate) async fn keep_found_ages(&mut self) -> Result<(), StorageError> {
        let view = self.view();
        for segment in view.segments().filter(|segment| segment.is_known_untimed()) {
            self.keep_age(&view, segment);
        }
        self.write_ages().await
    }

    /// Whether the next process would not know the age of the segment. What still grows is as young as it looks, and an
    /// entry would be out of date at once.
    fn wants_age(&self, view: &LogView, segment: &SegmentView) -> bool {
        let grows = segment.base() == view.active.base() && !self.is_active_as_found();
        !grows && self.ages.written_ms(segment.base(), segment.size).is_none()
    }

    fn keep_age(&mut self, view: &LogView, segment: &SegmentView) {
        if self.wants_age(view, segment) {
            self.tell_age(view, segment);
        }
    }

    fn tell_age(&mut self, view: &LogView, segment: &SegmentView) {
        if segment.base() == view.active.base() && !self.ages.knows(segment.base()) {
            self.ages.begin(segment.base(), self.plan.opened_ms);
        }
        gracchus_env::moment!(AGE_LEARNED);
        self.ages.written(segment.base(), segment.size, segment.written_ms);
    }

    /// Takes the sealed segments that lie wholly below `offset` out of the log.
    async fn drop_segments(&mut self, offset: Offset) -> Result<Trimmed, StorageError> {
        let count = self.sealed.partition_point(|segment| segment.next_offset <= offset);
        let Some(last) = count.checked_sub(1) else { return Ok(Trimmed { segments: Vec::new() }) };
        self.advance_log_start(self.sealed[last].next_offset).await?;
        self.changed = true;
        let segments = Arc::make_mut(&mut self.sealed).drain(..count).collect();
        self.publish();
        Ok(Trimmed { segments })
    }

    /// Gives the files of `trimmed` other names, and returns these: the log forgets them. Older views answer
    /// [`StorageError::Superseded`] from now on where they would have to open one, so the newer one is to be published
    /// before.
    pub async fn bury(&mut self, trimmed: Trimmed) -> Result<Vec<PathBuf>, StorageError> {
        let Some(last) = trimmed.segments.last() else { return Ok(Vec::new()) };
        let first_kept = last.next_offset;
        self.begin_cut()?;
        let there = self.file_names().await?;
        let (mut ops, mut files) = (Vec::new(), Vec::new());
        for segment in trimmed.segments.iter().map(|view| &view.segment) {
            segment.retire();
            self.directory.files().forget(&segment.file_path(names::LOG));
            for kind in [names::LOG, names::INDEX, names::TIME_INDEX] {
                let from = segment.file_path(kind);
                if there.contains(&from) {
                    let to = names::deleted_file(&from);
                    files.push(to.clone());
                    ops.push(Op::Rename { from, to });
                }
            }
        }
        ops.extend(self.drop_snapshots(first_kept));
        self.ages.forget_below(first_kept);
        gracchus_env::moment!(SEGMENTS_BURIED);
        self.submit(ops, "taking segments out").await?;
        // A reader of an older view may have opened one before it had its other name. Nobody asks for it again, and as long
        // as the handle is kept the disk does not get the space back.
        for segment in &trimmed.segments {
            self.directory.files().forget(&segment.segment.file_path(names::LOG));
        }
        self.end_cut();
        Ok(files)
    }

    /// Of the producer snapshots up to where the log now begins on disk, the newest is kept: it knows the producers
    /// whose records are gone.
    fn drop_snapshots(&mut self, first: Offset) -> Vec<Op> {
        let Some(kept) = self.snapshots.range(..=first).next_back().copied() else { return Vec::new() };
        let later = self.snapshots.split_off(&kept);
        let useless = std::mem::replace(&mut self.snapshots, later);
        let path = |offset: Offset| names::file(&self.path, offset, names::SNAPSHOT);
        useless.into_iter().map(|offset| Op::RemoveFile { path: path(offset) }).collect()
    }

    /// Files that left the log before it was opened. Gives them away.
    pub fn take_leftovers(&mut self) -> Vec<PathBuf> {
        std::mem::take(&mut self.leftovers)
    }

    /// Removes files of [`Log::trim`] or [`Log::take_leftovers`], as far as they are still there.
    pub async fn remove_files(&self, files: Vec<PathBuf>) -> Result<(), StorageError> {
        let there = self.file_names().await?;
        let files = files.into_iter().filter(|file| there.contains(file));
        gracchus_env::moment!(BURIED_FILES_REMOVED);
        self.submit(files.map(|path| Op::RemoveFile { path }).collect(), "removing deleted segments").await
    }

    async fn file_names(&self) -> Result<BTreeSet<PathBuf>, StorageError> {
        let env = self.directory.env();
        let list = || env.disk().list(&self.path);
        let entries = self.directory.handles().patiently("retention", list).await;
        let entries = entries.map_err(|error| self.fail(&error, "listing the directory"))?;
        Ok(entries.into_iter().map(|entry| self.path.join(entry.name)).collect())
    }

    async fn submit(&self, ops: Vec<Op>, what: &str) -> Result<(), StorageError> {
        if ops.is_empty() {
            return Ok(());
        }
        let done = self.directory.env().disk().submit(ops).await;
        done.map_err(|error| self.fail(&error, what))
    }
}
