//! Opening a log: a new one is made, one that was left in order is taken as it is ([`super::resume`]), any other is repaired
//! ([`super::recovery`]).
//!
//! What the directory holds is listed once ([`Found`]); whether it is this log, and what its last process left, decides. A
//! log that begins, also one that begins anew, has every name durable before its first record.
//!
//! Never: another topic's log, a log start that goes back, a segment without its topic's name beside it.

use std::{
    collections::BTreeSet,
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use gracchus_core::{Offset, producer::ProducerStates, replication::epochs::EpochCache, topic::TopicConfig};
use gracchus_env::{DirEntry, Disk, Op};

use super::{
    LogId,
    active::{Active, Files},
    ages::{self, Ages},
    directory::{CleanLog, LogDirectory},
    error::StorageError,
    flusher::Forget,
    inventory,
    log::{Parts, seals_durably},
    names, partition_metadata, resume,
    segment::{Life, Persisted, Segment},
    segment_plan::{self, SegmentPlan},
    segment_view::SegmentView,
};

/// What opening a log took.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Recovered {
    /// It was left in order (or is new): nothing was scanned.
    pub clean: bool,
    /// Bytes whose CRC was computed.
    pub scanned_bytes: u64,
    /// Bytes that were cut off, those of removed segments included.
    pub cut_bytes: u64,
    /// Segments that were removed because something before them was bad.
    pub removed_segments: usize,
    /// Something that had once been synced is gone: the log was cut below its recovery point, before something that the
    /// journal had, or in a segment that was sealed durably; or closed segments lack something; or the journal itself lacked
    /// something, and nobody knows of which log. Good batches behind a bad one say nothing by themselves:
    /// pages that nobody has synced yet reach the disk in any order.
    pub damaged: bool,
}

/// A log being opened.
pub(crate) struct Opening<'a> {
    pub(crate) directory: &'a Arc<LogDirectory>,
    pub(crate) id: &'a LogId,
    pub(crate) config: &'a Arc<TopicConfig>,
    pub(crate) path: &'a Arc<Path>,
    pub(crate) life: Life,
}

/// The files of a log that matter, as the directory lists them.
pub(crate) struct Found {
    /// Base offset and length of each segment, in order.
    pub(crate) segments: Vec<(Offset, u64)>,
    pub(crate) snapshots: BTreeSet<Offset>,
    /// Files that left the log, under their new names or, where a power loss took these back, under their old ones.
    pub(crate) leftovers: Vec<String>,
    /// Files that a crash left half-way.
    pub(crate) temporary: Vec<String>,
    names: BTreeSet<String>,
}

impl Found {
    /// What of `entries` belongs to a log that is known to start at `log_start`.
    pub(crate) fn from(entries: &[DirEntry], log_start: Option<Offset>) -> Self {
        let mut found = Self::new(entries);
        found.retire(log_start);
        found
    }

    fn new(entries: &[DirEntry]) -> Self {
        let files = || entries.iter().filter(|entry| !entry.is_dir);
        let offset = |kind| {
            move |entry: &DirEntry| names::parse(&entry.name, kind).map(|offset| (offset, entry.length))
        };
        Self {
            segments: files().filter_map(offset(names::LOG)).collect(),
            snapshots: files().filter_map(offset(names::SNAPSHOT)).map(|(offset, _)| offset).collect(),
            leftovers: files()
                .map(|entry| entry.name.clone())
                .filter(|name| name.ends_with(names::DELETED_FILE))
                .collect(),
            temporary: files()
                .map(|entry| entry.name.clone())
                .filter(|name| name.ends_with(names::TEMPORARY))
                .collect(),
            names: files().map(|entry| entry.name.clone()).collect(),
        }
    }

    /// Passes over the segments that lie wholly below `log_start`, which is durable: they have left the log, though not
    /// all of their new names may have survived. What remains of some of them would look like a log with a hole.
    fn retire(&mut self, log_start: Option<Offset>) {
        let Some(log_start) = log_start else { return };
        let kept = self.segments.windows(2).position(|pair| pair[1].0 > log_start);
        let kept = kept.unwrap_or(self.segments.len().saturating_sub(1));
        self.segments.drain(..kept);
        let Some((first, _)) = self.segments.first() else { return };
        for name in &self.names {
            for kind in [names::LOG, names::INDEX, names::TIME_INDEX] {
                if names::parse(name, kind).is_some_and(|base| base < *first) {
                    gracchus_env::moment!(SEGMENT_BELOW_START_PASSED);
                    self.leftovers.push(name.clone());
                }
            }
        }
    }

    /// Whether the log keeps the ages of its segments.
    pub(crate) fn has_ages(&self) -> bool {
        self.names.contains(ages::FILE)
    }

    /// Whether segments may have been sealed without a sync.
    pub(crate) fn is_sealed_unsynced(&self) -> bool {
        self.names.contains(names::SEALED_UNSYNCED)
    }
}

/// What a log's directory holds.
enum Ours {
    /// Nothing that was ever a log.
    Nothing,
    /// Its topic id, and no segment.
    Name,
    Log,
}

/// See [`super::Log::open`].
pub(crate) async fn open(
    directory: &Arc<LogDirectory>,
    id: &LogId,
    config: &Arc<TopicConfig>,
    path: &Arc<Path>,
) -> Result<(Parts, Recovered), StorageError> {
    let opening = Opening { directory, id, config, path, life: Life::default() };
    let left = Left { clean: directory.take_clean(id), replayed: directory.take_replayed(id) };
    let opened = opening.open(&left).await;
    if let Err(StorageError::Exhausted(_)) = opened {
        gracchus_env::moment!(OPENING_GIVEN_BACK);
        // Nothing is wrong with the log; the next attempt shall find as much.
        directory.give_back(id, left.clean, left.replayed);
    }
    opened
}

/// What the last process left to make opening cheap.
struct Left {
    clean: Option<CleanLog>,
    /// See [`LogDirectory::take_replayed`].
    replayed: Option<(Offset, u64)>,
}

impl Opening<'_> {
    pub(crate) fn disk(&self) -> &dyn Disk {
        self.directory.env().disk()
    }

    pub(crate) fn fail(&self, what: &'static str) -> impl Fn(io::Error) -> StorageError + use<> {
        let (directory, tp) = (self.directory.clone(), self.id.tp.clone());
        move |error| directory.fail_of(&error, what, format_args!(" of {tp}"))
    }

    /// What there is; `None` if not even the directory.
    pub(crate) async fn list(&self) -> Result<Option<Found>, StorageError> {
        match self.disk().list(self.path).await {
            Ok(entries) => Ok(Some(Found::from(&entries, self.directory.log_start(self.id)))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(self.fail("listing the directory")(error)),
        }
    }

    /// What of this very log the directory holds.
    async fn is_ours(&self, found: &Found) -> Result<Ours, StorageError> {
        let path = partition_metadata::path(self.path);
        let Some(contents) = self.disk().read_all(&path).await.map_err(self.fail("reading the topic id"))?
        else {
            // It is durable before the first record: either there is none, or this is no directory of ours.
            if found.segments.iter().all(|(_, length)| *length == 0) {
                return Ok(Ours::Nothing);
            }
            gracchus_env::moment!(LOG_WITHOUT_TOPIC_ID);
            return Err(StorageError::corrupt(format!(
                "{} has records but no partition.metadata",
                self.path.display()
            )));
        };
        let theirs = partition_metadata::decode(&contents)
            .map_err(|why| StorageError::corrupt(format!("{}: {why}", path.display())))?;
        if theirs != self.id.topic_id {
            gracchus_env::moment!(LOG_OF_ANOTHER_TOPIC);
            return Err(StorageError::corrupt(inventory::of_another(self.path, theirs, self.id)));
        }
        Ok(if found.segments.is_empty() { Ours::Name } else { Ours::Log })
    }

    async fn open(&self, left: &Left) -> Result<(Parts, Recovered), StorageError> {
        let Some(found) = self.list().await? else { return self.create().await };
        match self.is_ours(&found).await? {
            Ours::Nothing => return self.create().await,
            Ours::Name => return self.create_again(&found).await,
            Ours::Log => {}
        }
        let (mut parts, recovered) = self.take_up(found, left).await?;
        if parts.sealed_unsynced && seals_durably(self.config) {
            self.tighten().await?;
            parts.sealed_unsynced = false;
        }
        Ok((parts, recovered))
    }

    /// The log as its clean stop left it, else repaired.
    async fn take_up(&self, found: Found, left: &Left) -> Result<(Parts, Recovered), StorageError> {
        if let Some(clean) = &left.clean {
            if let Some((parts, damaged)) = resume::open_clean(self, &found, clean).await? {
                gracchus_env::moment!(LOG_OPENED_CLEAN);
                return Ok((parts, Recovered { clean: true, damaged, ..Recovered::default() }));
            }
            gracchus_env::moment!(LOG_NOT_AS_LEFT);
            tracing::warn!(
                log = %self.id.tp,
                "the log is not as its clean stop left it; checking it. Leave the files of a broker alone, \
                 also while it is stopped"
            );
        }
        let point = self.directory.recovery_point(self.id);
        self.repair(found, point, left.replayed).await
    }

    /// All there is is synced by now, and what comes will be.
    async fn tighten(&self) -> Result<(), StorageError> {
        gracchus_env::moment!(SEALED_UNSYNCED_ENDED_BY_RECOVERY);
        let remove = vec![Op::RemoveFile { path: self.path.join(names::SEALED_UNSYNCED) }];
        self.disk().submit(remove).await.map_err(self.fail("removing a marker"))
    }

    /// A new log.
    async fn create(&self) -> Result<(Parts, Recovered), StorageError> {
        gracchus_env::moment!(LOG_CREATED);
        self.directory.disown(&self.id.tp).await?;
        self.create_from(Offset(0)).await
    }

    /// The names of the log are there, and none of its segments: it begins where it is known to start.
    async fn create_again(&self, found: &Found) -> Result<(Parts, Recovered), StorageError> {
        gracchus_env::moment!(LOG_WITHOUT_SEGMENTS);
        let base = self.directory.log_start(self.id).unwrap_or(Offset(0));
        let damaged = base > Offset(0) || self.directory.recovery_point(self.id).is_some_and(|it| it > base);
        if damaged {
            gracchus_env::moment!(LOG_LOST_ITS_SEGMENTS);
            tracing::warn!(
                log = %self.id.tp,
                log_start = %base,
                "a log has no segment left: acknowledged records may be missing. It begins anew at its log start; check \
                 the disk, and whether somebody removed files"
            );
            self.forget_all(found, base).await?;
        }
        let (mut parts, recovered) = self.create_from(base).await?;
        (parts.sealed_unsynced, parts.leftovers) = (found.is_sealed_unsynced(), self.leftovers(found));
        parts.ages = Ages::none(found.has_ages());
        Ok((parts, Recovered { damaged, ..recovered }))
    }

    /// The log start, if it is durable and behind `log_end`: then all that is left of the log had left it before.
    pub(crate) fn start_beyond(&self, log_end: Offset) -> Option<Offset> {
        self.directory.log_start(self.id).filter(|start| *start > log_end)
    }

    /// A log that ends below its start begins anew there: its start has been seen, and an offset between the two may have
    /// been given. Only the name of the new segment makes the change: until it is durable the next start finds the same
    /// as this one, from then on it passes over what lies below the log start.
    pub(crate) async fn begin_anew(
        &self,
        found: &Found,
        log_end: Offset,
        log_start: Offset,
    ) -> Result<Parts, StorageError> {
        gracchus_env::moment!(LOG_BEGAN_ANEW);
        tracing::warn!(
            log = %self.id.tp,
            %log_end,
            %log_start,
            "a log ends below its log start: the disk lost what it had confirmed, acknowledged records may be missing. It \
             begins anew at its log start; check the disk, and whether it may keep a volatile write cache"
        );
        self.forget_all(found, log_start).await?;
        let mut parts = self.begin(log_start, EpochCache::new(), BTreeSet::new()).await?;
        parts.sealed_unsynced = found.is_sealed_unsynced();
        parts.ages = Ages::none(found.has_ages());
        let left = |name: &&String| {
            let kinds = [names::LOG, names::INDEX, names::TIME_INDEX];
            let base = kinds.iter().find_map(|kind| names::parse(name, kind));
            base.map_or(name.ends_with(names::DELETED_FILE), |base| base < log_start)
        };
        parts.leftovers = found.names.iter().filter(left).map(|name| self.path.join(name)).collect();
        self.directory.files().forget_directory(self.path);
        Ok(parts)
    }

    /// Nothing of before speaks for a log that begins anew at `base`: neither the journal, nor a recovery point above, nor
    /// what producers had written. In this order, and all of it before the new segment is there: a power loss on the way
    /// leaves a log that begins anew once more.
    async fn forget_all(&self, found: &Found, base: Offset) -> Result<(), StorageError> {
        let snapshot = |offset: &Offset| names::file(self.path, *offset, names::SNAPSHOT);
        let mut ops: Vec<Op> =
            found.snapshots.iter().map(|offset| Op::RemoveFile { path: snapshot(offset) }).collect();
        ops.push(Op::SyncDir { path: self.path.to_path_buf() });
        let forget =
            Forget { id: self.id.clone(), segment_base: Offset(0), position: 0, end_offset: Some(base), ops };
        self.directory.flusher().forget(forget).await
    }

    /// An empty log, every name of it durable.
    async fn create_from(&self, base: Offset) -> Result<(Parts, Recovered), StorageError> {
        let parent = self.directory.path().to_path_buf();
        let made = vec![Op::CreateDir { path: self.path.to_path_buf() }, Op::SyncDir { path: parent }];
        self.disk().submit(made).await.map_err(self.fail("creating the directory"))?;
        let metadata = partition_metadata::encode(self.id.topic_id);
        let written = self.disk().replace(&partition_metadata::path(self.path), metadata).await;
        written.map_err(self.fail("writing the topic id"))?;
        let parts = self.begin(base, EpochCache::new(), BTreeSet::new()).await?;
        Ok((parts, Recovered { clean: true, ..Recovered::default() }))
    }

    /// A log without a record, from `base` on.
    async fn begin(
        &self,
        base: Offset,
        epochs: EpochCache,
        snapshots: BTreeSet<Offset>,
    ) -> Result<Parts, StorageError> {
        let plan = self.plan(base, &Ages::default());
        let files =
            Files::open(self.disk(), self.path, base).await.map_err(self.fail("creating a segment"))?;
        let mut ops = files.clear().map_err(self.fail("creating a segment"))?;
        ops.push(Op::SyncDir { path: self.path.to_path_buf() });
        self.disk().submit(ops).await.map_err(self.fail("creating a segment"))?;
        Ok(Parts {
            life: self.life.clone(),
            log_start: base,
            sealed: Vec::new(),
            active: self.active(files, &plan, imbl::Vector::new()),
            plan,
            producers: ProducerStates::new(),
            epochs,
            ages: Ages::default(),
            snapshots,
            sealed_unsynced: false,
            leftovers: Vec::new(),
            changed: true,
        })
    }

    /// What is known of when the `segments`, each with its size, were written.
    pub(crate) async fn read_ages(
        &self,
        found: &Found,
        segments: &[(Offset, u64)],
    ) -> Result<Ages, StorageError> {
        if !found.has_ages() {
            return Ok(Ages::default());
        }
        let path = self.path.join(ages::FILE);
        let contents =
            self.disk().read_all(&path).await.map_err(self.fail("reading the ages of segments"))?;
        Ok(Ages::read(contents.as_deref(), segments, self.directory.env().wall_clock_ms()))
    }

    /// An empty segment, or one that goes on.
    pub(crate) fn plan(&self, base: Offset, ages: &Ages) -> SegmentPlan {
        let env = self.directory.env();
        let mut plan = SegmentPlan::new(base, self.config, env.wall_clock_ms(), env.random());
        plan.opened_ms = ages.begun_ms(base).unwrap_or(plan.opened_ms);
        plan
    }

    /// The paths of files that left the log.
    pub(crate) fn leftovers(&self, found: &Found) -> Vec<PathBuf> {
        found.leftovers.iter().map(|name| self.path.join(name)).collect()
    }

    pub(crate) fn active(
        &self,
        files: Files,
        plan: &SegmentPlan,
        tail: imbl::Vector<super::segment_view::BatchPosition>,
    ) -> Active {
        Active::new(
            self.directory,
            self.path,
            files,
            plan,
            tail,
            segment_plan::interval(self.config),
            self.life.clone(),
        )
    }

    /// Sealed segments, whose files are opened when needed; each ends where the next begins.
    pub(crate) fn sealed(&self, segments: &[(Offset, u64)], ages: &Ages) -> Vec<SegmentView> {
        let now_ms = self.directory.env().wall_clock_ms();
        let view = |pair: &[(Offset, u64)]| {
            let ((base, size), (next, _)) = (pair[0], pair[1]);
            let interval = segment_plan::interval(self.config);
            let (directory, path, life) = (self.directory.clone(), self.path.clone(), self.life.clone());
            let segment = Segment::new(directory, path, base, interval, Persisted::Whole, None, life);
            let written_ms = ages.written_ms(base, size).unwrap_or(now_ms);
            SegmentView::sealed(Arc::new(segment), size, next, written_ms)
        };
        segments.windows(2).map(view).collect()
    }
}
