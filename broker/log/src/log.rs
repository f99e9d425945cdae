//! A partition's log, as its one owner sees it: stage batches, commit them, roll, cut, close.
//!
//! Offsets and positions are given when a batch is staged, at once and without I/O; a commit writes what is staged as
//! one round per segment and publishes the next [`LogView`] when that round is as durable as the topic asks.
//!
//! Never: a view of anything that is not written; a record's bytes copied; another write after the first error, or
//! after a commit that was dropped half-way (then nobody knows what the file holds: the next start finds out).

use std::{
    collections::BTreeSet,
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use bytes::Bytes;
use gracchus_core::{
    LeaderEpoch, Offset, producer::ProducerStates, record::BatchHeader, replication::epochs::EpochCache,
    topic::TopicConfig,
};
use gracchus_env::{Op, Open};

use super::{
    LogId,
    active::{Active, Files, Indexes, Writing},
    ages::{self, Ages},
    directory::{CleanLog, LogDirectory, SealedSegments},
    error::StorageError,
    flusher::{Roll, Round},
    names,
    opening::{self, Recovered},
    producer_snapshot,
    segment::{Life, Persisted, Segment},
    segment_plan::{self, Ended, Placed, SegmentPlan},
    segment_view::SegmentView,
    trim::untold_ms,
    view::LogView,
};

/// A batch on its way into the log.
#[derive(Debug, Clone)]
pub struct AppendBatch {
    /// With the offset and the leader epoch that it gets.
    pub header: BatchHeader,
    /// As received. The header's bytes are replaced, the records behind them are written as they are.
    pub bytes: Bytes,
}

/// See the module.
#[derive(Debug)]
pub struct Log {
    pub(crate) id: LogId,
    pub(crate) directory: Arc<LogDirectory>,
    pub(crate) config: Arc<TopicConfig>,
    /// The directory of this log.
    pub(crate) path: Arc<Path>,
    /// Until the next cut.
    pub(crate) life: Life,
    pub(crate) view: Arc<LogView>,
    pub(crate) sealed: Arc<Vec<SegmentView>>,
    pub(crate) active: Active,
    pub(crate) plan: SegmentPlan,
    pub(crate) producers: ProducerStates,
    pub(crate) epochs: Arc<EpochCache>,
    /// The epochs in memory are ahead of the file.
    pub(crate) epochs_changed: bool,
    /// Of segments with batches that have no timestamps.
    pub(crate) ages: Ages,
    /// The active segment and its size when the log was opened.
    found_active: (Offset, u64),
    /// At which offsets there are producer snapshots.
    pub(crate) snapshots: BTreeSet<Offset>,
    /// The files differ from what the last clean stop left.
    pub(crate) changed: bool,
    staged: Vec<Staged>,
    /// Records written since the last round that was synced.
    unflushed: i64,
    /// Everything below is on disk.
    pub(crate) flushed_end: Offset,
    /// Files that left the log before it was opened, not removed yet.
    pub(crate) leftovers: Vec<PathBuf>,
    /// Segments may have been sealed without a sync; the directory of the log says so, too.
    sealed_unsynced: bool,
    /// A commit is under way; still set when the next one begins if that one failed or was dropped.
    uncertain: bool,
}

#[derive(Debug)]
enum Staged {
    Batch(AppendBatch, Placed),
    Roll(StagedRoll),
}

#[derive(Debug)]
struct StagedRoll {
    ended: Ended,
    /// The producers as they are at this very offset.
    producers: Bytes,
}

/// What opening found, put together by [`recovery`].
pub(crate) struct Parts {
    pub(crate) life: Life,
    pub(crate) log_start: Offset,
    pub(crate) sealed: Vec<SegmentView>,
    pub(crate) active: Active,
    pub(crate) plan: SegmentPlan,
    pub(crate) producers: ProducerStates,
    pub(crate) epochs: EpochCache,
    pub(crate) ages: Ages,
    pub(crate) snapshots: BTreeSet<Offset>,
    pub(crate) sealed_unsynced: bool,
    /// Files that left the log earlier.
    pub(crate) leftovers: Vec<PathBuf>,
    pub(crate) changed: bool,
}

/// Whether a segment is begun only when those before it are on disk; otherwise flushing is left to the operating system.
/// A compacted log may have holes: a segment that power took would not be missed.
pub(crate) fn seals_durably(config: &TopicConfig) -> bool {
    config.flush_messages != i64::MAX || config.cleanup_policy.compact
}

impl Log {
    /// Opens the log, creating it if it is new and repairing it if it was not left in order.
    ///
    /// # Errors
    /// [`StorageError::Corrupt`] if the directory holds another topic's log.
    pub async fn open(
        directory: Arc<LogDirectory>,
        id: LogId,
        config: Arc<TopicConfig>,
    ) -> Result<(Log, Recovered), StorageError> {
        if let Some(reason) = directory.offline() {
            return Err(StorageError::Offline(reason));
        }
        let path: Arc<Path> = directory.path().join(id.tp.to_string()).into();
        let (parts, recovered) = opening::open(&directory, &id, &config, &path).await?;
        let mut log = Self::assemble(directory, id, config, path, parts);
        log.keep_found_ages().await?;
        Ok((log, recovered))
    }

    pub(crate) fn assemble(
        directory: Arc<LogDirectory>,
        id: LogId,
        config: Arc<TopicConfig>,
        path: Arc<Path>,
        parts: Parts,
    ) -> Self {
        let sealed = Arc::new(parts.sealed);
        let epochs = Arc::new(parts.epochs);
        let log_end = parts.plan.next_offset;
        let view = LogView {
            log_start: parts.log_start,
            log_end,
            flushed_end: log_end,
            epochs: epochs.clone(),
            sealed: sealed.clone(),
            active: parts.active.view(),
            // See `keep_found_ages`.
            untold_ms: None,
        };
        Self {
            id,
            directory,
            config,
            path,
            life: parts.life,
            view: Arc::new(view),
            sealed,
            active: parts.active,
            found_active: (parts.plan.base, parts.plan.position),
            plan: parts.plan,
            ages: parts.ages,
            producers: parts.producers,
            epochs,
            epochs_changed: false,
            snapshots: parts.snapshots,
            changed: parts.changed,
            staged: Vec::new(),
            unflushed: 0,
            flushed_end: log_end,
            leftovers: parts.leftovers,
            sealed_unsynced: parts.sealed_unsynced,
            uncertain: false,
        }
    }

    /// Which log this is.
    pub fn id(&self) -> &LogId {
        &self.id
    }

    /// The log as of the last commit.
    pub fn view(&self) -> Arc<LogView> {
        self.view.clone()
    }

    /// The offset that the next batch to be staged gets.
    pub fn next_offset(&self) -> Offset {
        self.plan.next_offset
    }

    /// The producers after everything that was staged so far.
    pub fn producers(&self) -> &ProducerStates {
        &self.producers
    }

    /// Forgets producers that have been silent for `expiration_ms`; returns how many.
    pub fn expire_producers(&mut self, now_ms: i64, expiration_ms: i64) -> usize {
        self.producers.expire(now_ms, expiration_ms)
    }

    /// The leader epochs after everything that was staged so far.
    pub fn epochs(&self) -> &EpochCache {
        &self.epochs
    }

    /// Another configuration from now on. If it asks for more durability, what is written already is on disk when this
    /// returns: the first acknowledgement under the new rule, also one of a duplicate, speaks for all that is before.
    ///
    /// # Panics
    /// If batches are staged.
    pub async fn set_config(&mut self, config: Arc<TopicConfig>) -> Result<(), StorageError> {
        assert!(self.staged.is_empty(), "the configuration changes between two commits");
        let stricter = seals_durably(&config) && !seals_durably(&self.config);
        self.plan.builder.set_interval(segment_plan::interval(&config));
        self.config = config;
        if stricter || self.unflushed >= self.config.flush_messages {
            gracchus_env::moment!(FLUSHED_BY_CONFIG);
            self.flush().await?;
        }
        Ok(())
    }

    /// Everything that is written is on disk when this returns, and the view says so.
    pub async fn flush(&mut self) -> Result<(), StorageError> {
        self.check_certain()?;
        self.uncertain = true;
        let seal = self.seal(self.active.next_offset(), true).await?;
        self.directory.flusher().roll(seal).await?;
        self.unflushed = 0;
        self.flushed_end = self.active.next_offset();
        if seals_durably(&self.config) && std::mem::take(&mut self.sealed_unsynced) {
            gracchus_env::moment!(SEALED_UNSYNCED_ENDED);
            let remove = vec![Op::RemoveFile { path: self.path.join(names::SEALED_UNSYNCED) }];
            let removed = self.directory.env().disk().submit(remove).await;
            removed.map_err(|error| self.fail(&error, "removing a marker"))?;
        }
        self.uncertain = false;
        self.publish();
        Ok(())
    }

    /// Whether something was written that no sync of ours has covered since.
    pub fn is_unflushed(&self) -> bool {
        self.unflushed > 0
    }

    /// Before the first segment is sealed that may never reach the disk although a later one does: recovery must not
    /// take that for damage, whatever the configuration says by then.
    async fn mark_sealed_unsynced(&mut self) -> Result<(), StorageError> {
        if std::mem::replace(&mut self.sealed_unsynced, true) {
            return Ok(());
        }
        let env = self.directory.env();
        gracchus_env::moment!(SEALED_UNSYNCED_MARKED);
        let marker = self.path.join(names::SEALED_UNSYNCED);
        let create = || env.disk().open(&marker, Open::OrCreate);
        let created = self.directory.handles().patiently("a roll", create).await;
        created.map_err(|error| self.fail(&error, "creating a marker"))?;
        let named = vec![Op::SyncDir { path: self.path.to_path_buf() }];
        env.disk().submit(named).await.map_err(|error| self.fail(&error, "creating a marker"))
    }

    /// This replica leads in `epoch` from now on: the epoch begins at the log end, whether or not a record follows.
    /// Durable when this returns. Does nothing for an epoch that is known already.
    pub async fn assign_epoch(&mut self, epoch: LeaderEpoch) -> Result<(), StorageError> {
        self.learn_epoch(epoch, self.plan.next_offset);
        self.write_epochs().await?;
        self.publish();
        Ok(())
    }

    /// Stages all `batches` and commits them.
    pub async fn append(&mut self, batches: Vec<AppendBatch>) -> Result<Arc<LogView>, StorageError> {
        for batch in batches {
            self.stage(batch);
        }
        self.commit().await
    }

    /// Gives the batch its place, behind everything staged before. It is not in the log before [`Log::commit`].
    ///
    /// # Panics
    /// If its base offset is below [`Log::next_offset`].
    pub fn stage(&mut self, batch: AppendBatch) {
        let header = &batch.header;
        let now_ms = self.directory.env().wall_clock_ms();
        if let Some(why) = self.plan.roll_due(header, &self.config, now_ms) {
            self.stage_roll(why, now_ms);
        }
        let placed = self.plan.place(header);
        self.plan.written_ms = now_ms;
        if header.max_timestamp < 0 && !self.ages.knows(self.plan.base) {
            self.ages.begin(self.plan.base, self.plan.opened_ms);
        }
        self.learn_epoch(header.leader_epoch, header.base_offset);
        if header.has_producer() {
            self.producers.append(header, now_ms);
        }
        self.staged.push(Staged::Batch(batch, placed));
    }

    pub(crate) fn stage_roll(&mut self, why: &'static str, now_ms: i64) {
        let ended = self.plan.end();
        self.remember_age(&ended);
        tracing::debug!(log = %self.id.tp, segment = %self.plan.base, next = %ended.next_offset, why, "rolling");
        let random = self.directory.env().random();
        self.plan = SegmentPlan::new(ended.next_offset, &self.config, now_ms, random);
        let producers = self.producers.encode_snapshot();
        self.staged.push(Staged::Roll(StagedRoll { ended, producers }));
    }

    /// Writes what is staged, rolling where a segment ends. When this returns, the records are as durable as the
    /// topic's configuration asks, and in the view. Must be awaited to its end.
    pub async fn commit(&mut self) -> Result<Arc<LogView>, StorageError> {
        self.check_certain()?;
        if self.staged.is_empty() {
            return Ok(self.view());
        }
        self.uncertain = true;
        self.changed = true;
        self.write_epochs().await?;
        self.write_ages().await?;
        let now_ms = self.directory.env().wall_clock_ms();
        let mut writing = Writing::default();
        for staged in std::mem::take(&mut self.staged) {
            match staged {
                Staged::Batch(batch, placed) => {
                    self.active.written_ms = now_ms;
                    self.active.add(batch, placed, &mut writing);
                }
                Staged::Roll(roll) => {
                    self.write(std::mem::take(&mut writing)).await?;
                    self.roll(roll).await?;
                }
            }
        }
        self.write(writing).await?;
        self.uncertain = false;
        self.publish();
        Ok(self.view())
    }

    /// One round: the batches of one segment.
    async fn write(&mut self, mut writing: Writing) -> Result<(), StorageError> {
        if writing.length == 0 {
            return Ok(());
        }
        self.unflushed += writing.records;
        let durable = self.unflushed >= self.config.flush_messages;
        if durable {
            self.unflushed = 0;
        }
        if writing.has_entries() {
            self.open_indexes().await?;
        }
        let round = Round {
            id: self.id.clone(),
            segment_base: self.active.segment().base(),
            file: self.active.log.clone(),
            position: self.active.position() - writing.length,
            buffers: std::mem::take(&mut writing.buffers),
            length: writing.length,
            end_offset: self.active.next_offset(),
            durable,
            also: self.active.index_writes(writing),
        };
        let end_offset = round.end_offset;
        self.directory.flusher().submit(round).await?;
        if durable {
            // Everything before it too, whatever it was written with.
            self.flushed_end = end_offset;
        }
        Ok(())
    }

    /// Ends the active segment and begins the next. Nothing in the new one is acknowledged before both its name and
    /// the old one's contents are on disk, unless the topic leaves flushing to the operating system.
    async fn roll(&mut self, roll: StagedRoll) -> Result<(), StorageError> {
        let StagedRoll { ended, producers } = roll;
        let base = ended.next_offset;
        self.end_indexes(&ended).await?;
        // Before the segment: where it is found, all before it may count as deleted, and their producers are known here only.
        self.write_snapshot(base, producers).await?;
        let env = self.directory.env();
        let disk = env.disk();
        let open = || Files::open(disk, &self.path, base);
        let files = self
            .directory
            .handles()
            .patiently("a roll", open)
            .await
            .map_err(|error| self.fail(&error, "creating a segment"))?;
        let clear = files.clear().map_err(|error| self.fail(&error, "creating a segment"))?;
        disk.submit(clear).await.map_err(|error| self.fail(&error, "creating a segment"))?;
        let old = self.active.log.clone();
        let durable = seals_durably(&self.config);
        if durable {
            self.unflushed = 0;
        } else {
            self.mark_sealed_unsynced().await?;
        }
        let seal = self.seal(base, durable).await?;
        self.directory.flusher().roll(seal).await?;
        if durable {
            self.flushed_end = base;
        }

        let old_path = self.active.segment().file_path(names::LOG);
        self.directory.files().insert(old_path, old);
        let old = self.active.segment();
        let segment = self.segment(old.base(), old.interval());
        segment.learn_whole(true);
        let sealed = SegmentView {
            max: ended.max,
            timeless: self.active.timeless,
            ..SegmentView::sealed(Arc::new(segment), ended.size, base, self.active.written_ms)
        };
        Arc::make_mut(&mut self.sealed).push(sealed);
        // The plan may be further on already; the new segment begins empty.
        let empty = SegmentPlan::new(base, &self.config, self.active.written_ms, 0);
        let interval = segment_plan::interval(&self.config);
        let tail = imbl::Vector::new();
        self.active =
            Active::new(&self.directory, &self.path, files, &empty, tail, interval, self.life.clone());
        Ok(())
    }

    /// The active segment ends before `end_offset`.
    async fn seal(&mut self, end_offset: Offset, durable: bool) -> Result<Roll, StorageError> {
        let Indexes { offsets, times } = self.open_indexes().await?.clone();
        let (id, directory, log) = (self.id.clone(), self.path.to_path_buf(), self.active.log.clone());
        Ok(Roll { id, sync: vec![log, offsets, times], directory, end_offset, durable })
    }

    /// The index files of the active segment, opened when they are needed first.
    async fn open_indexes(&mut self) -> Result<&Indexes, StorageError> {
        if self.active.indexes.is_none() {
            let (env, base) = (self.directory.env(), self.active.segment().base());
            let open = || Indexes::open(env.disk(), &self.path, base);
            let opened = self.directory.handles().patiently("an index entry", open).await;
            self.active.indexes = Some(opened.map_err(|error| self.fail(&error, "opening an index"))?);
        }
        Ok(self.active.indexes.as_ref().expect("opened just now"))
    }

    /// Completes the index files of the active segment.
    async fn end_indexes(&mut self, ended: &Ended) -> Result<(), StorageError> {
        if ended.time_entry.is_some() {
            self.open_indexes().await?;
        }
        let last = self.active.end(ended);
        let segment = self.active.segment().clone();
        if !segment.is_damaged() {
            let written = self.directory.env().disk().submit(last.into_iter().collect()).await;
            return written.map_err(|error| self.fail(&error, "ending a time index"));
        }
        gracchus_env::moment!(DAMAGED_INDEX_ENDED);
        let (offsets, times) = segment.build_indexes(ended.size, ended.next_offset).await?;
        self.directory
            .handles()
            .persistently("a roll", || segment.replace_index_files(&offsets, &times))
            .await?;
        // The handles are those of the files that were just replaced.
        self.active.indexes = None;
        Ok(())
    }

    /// A segment that nobody appends to.
    fn segment(&self, base: Offset, interval: u64) -> Segment {
        let (directory, path) = (self.directory.clone(), self.path.clone());
        Segment::new(directory, path, base, interval, Persisted::Whole, None, self.life.clone())
    }

    async fn write_snapshot(&mut self, offset: Offset, contents: Bytes) -> Result<(), StorageError> {
        let env = self.directory.env();
        let write = || producer_snapshot::write(env.disk(), &self.path, offset, contents.clone());
        let written = self.directory.handles().patiently("a producer snapshot", write).await;
        written.map_err(|error| self.fail(&error, "writing a producer snapshot"))?;
        self.snapshots.insert(offset);
        Ok(())
    }

    /// An epoch above all known ones begins at `start`.
    fn learn_epoch(&mut self, epoch: LeaderEpoch, start: Offset) {
        if epoch >= LeaderEpoch(0) && self.epochs.latest().is_none_or(|(latest, _)| epoch > latest) {
            Arc::make_mut(&mut self.epochs).assign(epoch, start);
            self.epochs_changed = true;
        }
    }

    async fn write_epochs(&mut self) -> Result<(), StorageError> {
        if !self.epochs_changed {
            return Ok(());
        }
        self.changed = true;
        let path = self.path.join(names::LEADER_EPOCHS);
        let env = self.directory.env();
        let write = || env.disk().replace(&path, self.epochs.encode());
        let replaced = self.directory.handles().patiently("a leader epoch", write).await;
        replaced.map_err(|error| self.fail(&error, "writing the leader epochs"))?;
        self.epochs_changed = false;
        Ok(())
    }

    /// Nothing more comes into the segment that `ended`, for now or for good.
    fn remember_age(&mut self, ended: &Ended) {
        if self.ages.knows(self.plan.base) {
            self.ages.written(self.plan.base, ended.size, self.plan.written_ms);
        }
    }

    /// Makes the ages known to the next process. Before the batches that they speak of are written: what a crash keeps
    /// from being written is not as long as is said, and then nothing is believed of it.
    pub(crate) async fn write_ages(&mut self) -> Result<(), StorageError> {
        let Some(contents) = self.ages.take_changed() else { return Ok(()) };
        gracchus_env::moment!(AGES_WRITTEN);
        let path = self.path.join(ages::FILE);
        let env = self.directory.env();
        let write = || env.disk().replace(&path, contents.clone());
        let replaced = self.directory.handles().patiently("the age of a segment", write).await;
        replaced.map_err(|error| self.fail(&error, "writing the ages of segments"))
    }

    /// Whether the active segment is as it was found when the log was opened.
    pub(crate) fn is_active_as_found(&self) -> bool {
        (self.active.segment().base(), self.active.position()) == self.found_active
    }

    pub(crate) fn publish(&mut self) {
        self.publish_from(self.view.log_start);
    }

    pub(crate) fn publish_from(&mut self, log_start: Offset) {
        let active = self.active.view();
        let log_end = active.next_offset;
        self.view = Arc::new(LogView {
            untold_ms: untold_ms(&active, &self.ages),
            log_start,
            log_end,
            flushed_end: self.flushed_end,
            epochs: self.epochs.clone(),
            sealed: self.sealed.clone(),
            active,
        });
    }

    /// Leaves the log so that the next start need not read it: everything synced, indexes complete, producers saved.
    /// After an error, or a commit that was dropped, it is left as it is, for recovery.
    pub async fn close(mut self) -> Result<(), StorageError> {
        self.commit().await?;
        if self.changed {
            self.write_epochs().await?;
            let ended = self.plan.end();
            self.remember_age(&ended);
            self.write_ages().await?;
            self.end_indexes(&ended).await?;
            self.write_snapshot(ended.next_offset, self.producers.encode_snapshot()).await?;
            let removed = self.directory.env().disk().submit(self.useless_snapshots()).await;
            removed.map_err(|error| self.fail(&error, "closing a log"))?;
            // Older segments may not be synced yet: only the flusher knows.
            let seal = self.seal(ended.next_offset, true).await?;
            self.directory.flusher().roll(seal).await?;
        }
        // What lies below the log start is on its way out, and not counted by the next start either.
        let sealed = self.view.sealed.iter().filter(|segment| segment.next_offset > self.view.log_start);
        let clean = CleanLog {
            sealed: Some(SealedSegments::of(sealed.map(|segment| segment.size))),
            log_start: self.view.log_start,
            log_end: self.view.log_end,
            active_segment: self.plan.base,
            active_bytes: self.plan.position,
            // Damaged ones were made anew, with as many as that took.
            index_entries: (!self.active.segment().is_damaged()).then(|| self.active.index_entries()),
        };
        gracchus_env::moment!(LOG_CLOSED);
        self.directory.closed(&self.id, clean);
        Ok(())
    }

    /// Snapshots are kept where segments begin (a cut there needs them) and at the log end.
    fn useless_snapshots(&self) -> Vec<Op> {
        let mut bases = self.sealed.iter().map(SegmentView::base).chain([self.plan.base]);
        let useful = |offset: &Offset| *offset == self.plan.next_offset || bases.any(|base| base == *offset);
        let mut useful = useful;
        let useless = self.snapshots.iter().filter(|offset| !useful(offset));
        useless
            .map(|offset| Op::RemoveFile { path: names::file(&self.path, *offset, names::SNAPSHOT) })
            .collect()
    }

    /// Nothing may be written behind this before [`Log::end_cut`].
    pub(crate) fn begin_cut(&mut self) -> Result<(), StorageError> {
        assert!(self.staged.is_empty(), "a log is cut between two commits");
        self.check_certain()?;
        self.uncertain = true;
        Ok(())
    }

    /// The cut succeeded.
    pub(crate) fn end_cut(&mut self) {
        self.uncertain = false;
    }

    fn check_certain(&self) -> Result<(), StorageError> {
        match self.directory.offline() {
            Some(reason) => Err(StorageError::Offline(reason)),
            None if self.uncertain => {
                gracchus_env::moment!(LOG_UNCERTAIN);
                Err(StorageError::Closed)
            }
            None => Ok(()),
        }
    }

    pub(crate) fn fail(&self, error: &io::Error, what: &str) -> StorageError {
        self.directory.fail_of(error, what, format_args!(" of {}", self.id.tp))
    }
}
