//! Named moments: branches that few runs take and that must work all the same. Each is an ordinary tracing event (target
//! `moment`, level DEBUG) that anybody may switch on; while it is off it costs what any other event costs that is off.
//!
//! The list says where each is told and why it is worth a name. Whoever tests the broker counts them: what was never reached
//! was never tested. A test holds that the list and the sources agree; a name that is not on it does not compile.
//!
//! Never: a moment on the way of every record or request; a decision that depends on one.

#[doc(hidden)]
pub use tracing;

/// The target of all of them.
pub const TARGET: &str = "moment";

/// One of the list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Moment {
    /// As the code writes it.
    pub name: &'static str,
    /// The end of the path of the one file that tells it.
    pub file: &'static str,
    /// What it is, and why somebody should have seen it happen.
    pub why: &'static str,
    /// Where it tells what was being done: the words for that, each a moment of its own.
    pub places: &'static [&'static str],
}

/// This is the moment `NAME`; where the list has places for it, `moment!(NAME, place)`.
#[macro_export]
macro_rules! moment {
    ($name:ident) => {
        $crate::moments::tracing::event!(
            name: $crate::moments::$name,
            target: $crate::moments::TARGET,
            $crate::moments::tracing::Level::DEBUG,
            "{}",
            $crate::moments::$name
        )
    };
    ($name:ident, $place:expr) => {
        $crate::moments::tracing::event!(
            name: $crate::moments::$name,
            target: $crate::moments::TARGET,
            $crate::moments::tracing::Level::DEBUG,
            place = $place,
            "{}",
            $crate::moments::$name
        )
    };
}

macro_rules! moments {
    ($( $(#[doc = $why:literal])+ $name:ident in $file:literal $([ $($place:literal)* ])?; )*) => {
        $( $(#[doc = $why])+ pub const $name: &str = stringify!($name); )*

        /// The list.
        pub const ALL: &[Moment] = &[
            $( Moment {
                name: $name,
                file: $file,
                why: concat!($($why),+),
                places: &[$( $($place),* )?],
            } ),*
        ];
    };
}

moments! {
    // Rolls.

    /// A segment ends because the next batch does not fit.
    ROLL_BY_SIZE in "segment_plan.rs";
    /// A segment ends because of `segment.ms`.
    ROLL_BY_TIME in "segment_plan.rs";
    /// A segment ends because an index is full: its last entries must find their place.
    ROLL_BY_FULL_INDEX in "segment_plan.rs";
    /// A segment ends because an offset would not fit into the indexes' 32 bits.
    ROLL_BY_OFFSETS in "segment_plan.rs";
    /// The active segment ends because retention takes all there is: the log must not end below its start.
    ROLL_BY_RETENTION in "trim.rs";
    /// A roll finds all bytes of the segment synced.
    ROLL_OF_CLEAN_SEGMENT in "flusher/plan.rs";
    /// A roll syncs what only the journal had.
    ROLL_SYNCED_DIRTY in "flusher/plan.rs";
    /// A roll leaves the old segment to a later sync: the recovery point must wait for that.
    ROLL_WITHOUT_SYNC in "flusher/plan.rs";
    /// The first segment of a log that is sealed without a sync: recovery must not take a gap behind it for damage.
    SEALED_UNSYNCED_MARKED in "log.rs";
    /// A flush ends that: from now on a gap is damage again.
    SEALED_UNSYNCED_ENDED in "log.rs";
    /// The same when a log is opened.
    SEALED_UNSYNCED_ENDED_BY_RECOVERY in "opening.rs";

    // How rounds become durable.

    /// Rounds go to the disk by a group of the journal.
    GROUP_JOURNALED in "flusher/plan.rs";
    /// A group of the journal can take no more: what is left waits, in its order.
    GROUP_FULL in "flusher/plan.rs";
    /// The journal has no room for the next group at all.
    JOURNAL_FULL in "flusher/plan.rs";
    /// Rounds that the journal has no room for are synced in place.
    CROWDED_OUT_OF_JOURNAL in "flusher/plan.rs";
    /// A cut, which has no other way, waits for room in the journal.
    CUT_WAITS_FOR_ROOM in "flusher/plan.rs";
    /// Rounds are synced in their segments.
    SYNCED_IN_PLACE in "flusher/plan.rs";
    /// Rounds are written that nobody wants synced.
    WRITTEN_WITHOUT_SYNC in "flusher/plan.rs";
    /// The kernel is asked for its write-back early.
    WRITEBACK_ASKED in "flusher/plan.rs";
    /// Groups end in another order than they began: nothing may be acknowledged before the earlier one.
    GROUPS_OUT_OF_ORDER in "flusher/worker.rs";
    /// Segments are synced behind the scenes: only then may a part of the journal go.
    SYNCED_IN_BACKGROUND in "flusher/background.rs";
    /// The oldest part of the journal is wanted back: the logs that hold it are synced first.
    JOURNAL_PRESSED in "flusher/background.rs";
    /// A log has many new bytes while a sync of it is under way that does not cover them.
    HEAVY_DURING_SYNC in "flusher/background.rs";
    /// A part of the journal is used again, in another lap.
    PART_REUSED in "flusher/worker.rs";
    /// The journal gets one more part.
    PART_ADDED in "flusher/worker.rs";
    /// A part that is one too many, or of another size, goes.
    PART_REMOVED in "parts.rs";
    /// The rest of a part is given up because nothing fits into it.
    PART_CLOSED_EARLY in "parts.rs";
    /// `flush.ms` is up.
    FLUSHED_BY_TIME in "scheduled.rs";
    /// A stricter configuration syncs what is written.
    FLUSHED_BY_CONFIG in "log.rs";
    /// A round ends before a batch that is still being looked at.
    ROUND_ENDED_BY_LOOK in "round.rs";
    /// A batch is known already and is answered with the offset that it has.
    DUPLICATE_ANSWERED in "round.rs";

    // Cuts and deletions.

    /// A cut goes through the journal, so that no replay brings back what it takes.
    CUT_JOURNALED in "flusher/plan.rs";
    /// A recovery point lies above a cut and is lowered in memory.
    RECOVERY_POINT_CUT in "checkpoint.rs";
    /// A cut waits until the file with the recovery points is lowered.
    CUT_WAITS_FOR_CHECKPOINT in "flusher/worker.rs";
    /// The end of a log that is open is cut off.
    LOG_TRUNCATED in "cut.rs";
    /// The log start moves, durably, before anybody hears of it.
    LOG_START_ADVANCED in "trim.rs";
    /// A DeleteRecords request is served when nobody waits for it any more.
    DELETE_RECORDS_TOO_LATE in "owner.rs";
    /// The log of a deleted topic gets the name under which it waits for its removal.
    LOG_DELETED in "cut.rs";
    /// A log of a topic that the metadata do not know is set aside, synced.
    LOG_STRAY in "cut.rs";
    /// An owner takes its log away.
    DELETED_BY_OWNER in "deletion.rs";
    /// A log that nobody has opened is taken away.
    DELETED_UNOPENED in "deletion.rs";
    /// A topic is deleted while a log of it is being opened.
    DELETED_WHILE_OPENING in "owner.rs";
    /// A topic is deleted before its log has a place.
    DELETED_BEFORE_PLACED in "owner.rs";
    /// A log waits for the deletion of a topic of the same name.
    NAMESAKE_IN_THE_WAY in "deletion.rs";
    /// A deleted log is still in the place of a new one.
    DELETED_NAMESAKE_CLEARED in "deletion.rs";
    /// A log that nobody knows is in the place of one that is known: no empty log may be served there.
    PLACE_OF_ANOTHER_TOPIC in "deletion.rs";
    /// A deletion ends without the log having been taken away.
    DELETION_FAILED in "deletion.rs";
    /// A directory cannot be looked into for the log of a deleted topic.
    DELETION_PUT_OFF in "deletion.rs";
    /// A start finds a deleted log that a stop kept from being removed.
    DELETION_FOUND_AT_START in "inventory.rs";
    /// The directory of a deleted log is removed.
    DELETED_LOG_REMOVED in "removal.rs";
    /// The directory of a deleted log cannot be removed.
    DELETED_LOG_NOT_REMOVED in "removal.rs";
    /// A directory looks like a log and is none: it is left alone.
    NO_LOG_OF_OURS in "inventory.rs";

    // Retention.

    /// A segment goes because it lies below the log start.
    RETENTION_BELOW_START in "trim.rs";
    /// A segment goes because of `retention.bytes`.
    RETENTION_BY_SIZE in "trim.rs";
    /// A segment goes because of `retention.ms`.
    RETENTION_BY_TIME in "trim.rs";
    /// A segment stays because nobody can tell how old it is.
    RETENTION_CANNOT_TELL in "trim.rs" ["no handle" "damaged"];
    /// The files of segments that left the log get other names.
    SEGMENTS_BURIED in "trim.rs";
    /// Those files are removed.
    BURIED_FILES_REMOVED in "trim.rs";
    /// A log that nobody has opened is opened because retention wants it.
    RESTING_LOG_DUE in "retention.rs";
    /// The age of a segment without timestamps is learned, so that the next process knows it.
    AGE_LEARNED in "trim.rs";
    /// The ages of segments without timestamps are written.
    AGES_WRITTEN in "log.rs";

    // Producers.

    /// Producers are forgotten because they were silent.
    PRODUCERS_EXPIRED in "owner.rs";
    /// A snapshot of the producers is written.
    PRODUCER_SNAPSHOT_WRITTEN in "producer_snapshot.rs";
    /// The newest snapshot of the producers is read.
    PRODUCER_SNAPSHOT_READ in "producer_snapshot.rs";
    /// A snapshot of the producers is damaged: an older one and more of the log are read.
    PRODUCER_SNAPSHOT_DAMAGED in "producer_snapshot.rs";
    /// Producers are learned from batches behind the snapshot.
    PRODUCERS_REPLAYED in "restore.rs";
    /// A snapshot is above the end of the log, and must not speak for what comes next.
    SNAPSHOT_OF_FUTURE_REMOVED in "restore.rs";
    /// A block of producer ids is asked for.
    PRODUCER_IDS_ALLOCATED in "producer_ids.rs";

    // The start: directories and the journal.

    /// A directory becomes ours.
    DIRECTORY_NEW in "directory/mod.rs";
    /// A directory was left in order.
    DIRECTORY_LEFT_CLEAN in "directory/mod.rs";
    /// A directory was not left in order.
    DIRECTORY_LEFT_UNCLEAN in "directory/mod.rs";
    /// A start goes on without a directory that cannot be used.
    START_WITHOUT_A_DIRECTORY in "directories.rs";
    /// Partitions are in a directory that is not among those configured.
    PARTITIONS_OF_A_LOST_DIRECTORY in "directories.rs";
    /// A checkpoint is damaged and counts as empty.
    CHECKPOINT_DAMAGED in "checkpoint.rs";
    /// A journal has groups to replay.
    JOURNAL_REPLAYED in "replay.rs";
    /// A sound group stands behind something that is none, or out of its order.
    JOURNAL_GROUP_BEHIND_GAP in "chain.rs";
    /// Bytes of the journal are void because the log was cut later.
    REPLAY_VOID_BY_CUT in "replay.rs";
    /// The journal speaks of a log that is gone.
    REPLAY_LOG_GONE in "replay.rs";
    /// The journal speaks of a segment that is gone.
    REPLAY_SEGMENT_GONE in "replay.rs";
    /// Groups are written again that only the page cache may have.
    GROUPS_WRITTEN_AGAIN in "chain.rs";
    /// A part is kept until what was replayed from it is synced.
    PART_KEPT_FOR_REPLAYED in "replay.rs";
    /// What was replayed is synced.
    REPLAYED_SYNCED in "flusher/worker.rs";
    /// A segment that was replayed is gone by the time of its sync.
    REPLAYED_SEGMENT_GONE in "flusher/background.rs";
    /// The header of a part is damaged.
    PART_HEADER_DAMAGED in "chain.rs";
    /// A part was never made ready.
    PART_NEVER_READY in "chain.rs";
    /// A directory in use has no journal.
    JOURNAL_MISSING in "replay.rs";
    /// A damaged journal stops the start.
    JOURNAL_DAMAGE_REFUSED in "replay.rs";
    /// A damaged journal is accepted by the operator.
    JOURNAL_DAMAGE_ACCEPTED in "replay.rs";
    /// The journal had records of a log whose topic exists and whose directory does not.
    JOURNAL_OF_A_LOST_LOG in "manager.rs";

    // The start: logs.

    /// A new log.
    LOG_CREATED in "opening.rs";
    /// A log is opened as its clean stop left it.
    LOG_OPENED_CLEAN in "opening.rs";
    /// A log is not as its clean stop left it.
    LOG_NOT_AS_LEFT in "opening.rs";
    /// The log was left in order and its indexes do not fit.
    CLEAN_INDEX_REBUILT in "resume.rs";
    /// A log has its name and no segment.
    LOG_WITHOUT_SEGMENTS in "opening.rs";
    /// It had some.
    LOG_LOST_ITS_SEGMENTS in "opening.rs";
    /// A log ends below its start and begins anew there.
    LOG_BEGAN_ANEW in "opening.rs";
    /// A log ends below its recovery point, so all of it is checked.
    LOG_BELOW_RECOVERY_POINT in "recovery.rs";
    /// A recovery point is above a log that is not to be cut.
    RECOVERY_POINT_LOWERED in "recovery.rs";
    /// Recovery ends before something that the journal had.
    LOG_LOST_REPLAYED in "recovery.rs";
    /// Recovery begins where a segment begins, and looks at the indexes of the one before.
    INDEXES_BEFORE_CHECKED in "recovery.rs";
    /// One of them is only the beginning of what it should be.
    INDEX_LOST_ITS_END in "recovery.rs";
    /// A segment does not begin where the one before it ends.
    RECOVERY_HOLE in "recovery.rs";
    /// Recovery finds a bad batch.
    RECOVERY_BAD_BATCH in "recovery.rs";
    /// Recovery cuts a log.
    RECOVERY_CUT in "recovery.rs";
    /// Recovery removes segments behind the cut.
    RECOVERY_REMOVED_SEGMENTS in "recovery.rs";
    /// What recovery cuts had been synced.
    RECOVERY_DAMAGED in "recovery.rs";
    /// Segments below the log start are still under their names and are passed over.
    SEGMENT_BELOW_START_PASSED in "opening.rs";
    /// A log has records and no topic id.
    LOG_WITHOUT_TOPIC_ID in "opening.rs";
    /// A log has another topic's id.
    LOG_OF_ANOTHER_TOPIC in "opening.rs";
    /// Recovery writes again what only the page cache may have.
    RECOVERY_WROTE_AGAIN in "restore.rs";
    /// Recovery makes an index fit.
    RECOVERY_INDEX_REBUILT in "restore.rs";
    /// The leader epochs are damaged.
    EPOCHS_DAMAGED in "restore.rs";
    /// The leader epochs are read from the log.
    EPOCHS_FROM_LOG in "restore.rs";
    /// Files that a crash left half-way are removed.
    UNFINISHED_FILE_REMOVED in "restore.rs";
    /// A log was moved to another directory by hand.
    LOG_MOVED in "placement.rs";
    /// A log may be in a directory that is offline: it gets no other place.
    PLACE_UNKNOWN in "placement.rs";
    /// A log takes longer to open than a client waits.
    OPENING_TOOK_TOO_LONG in "replica/replica.rs";

    // The stop.

    /// A log is left in order.
    LOG_CLOSED in "log.rs";
    /// A log cannot be left in order.
    NOT_CLOSED_CLEANLY in "owner.rs";
    /// A stop gives up waiting for logs.
    STOP_WITHOUT_PATIENCE in "manager.rs";

    // Indexes and reading.

    /// A reader finds that an index does not fit and builds it anew.
    INDEX_REBUILT in "segment.rs";
    /// A rebuilt index cannot be kept.
    INDEX_NOT_REPLACED in "segment.rs";
    /// The active segment ends with an index that was rebuilt in memory only.
    DAMAGED_INDEX_ENDED in "log.rs";
    /// A segment contradicts itself where it had been checked.
    SEGMENT_CORRUPT in "segment.rs";
    /// The cache of open files is full.
    FILE_HANDLE_EVICTED in "files.rs";

    // Fetches.

    /// A fetch that waited is answered because there is enough.
    FETCH_WOKEN in "fetch.rs";
    /// A fetch that waited is answered because its time is up.
    FETCH_EXPIRED in "fetch.rs";
    /// The purgatory's timer wakes a request.
    PURGATORY_DEADLINE in "purgatory.rs";
    /// A list of waiting requests drops those that are gone.
    WATCHERS_SWEPT in "purgatory.rs";
    /// What a fetch was reading left the log meanwhile.
    FETCH_SUPERSEDED in "fetch.rs";
    /// A fetch asks below the log start.
    FETCH_BELOW_START in "fetch.rs";
    /// A fetch asks above the log end.
    FETCH_ABOVE_END in "fetch.rs";
    /// A fetch is told where its history differs.
    FETCH_DIVERGED in "fetch.rs";
    /// A fetch cannot read.
    FETCH_READ_FAILED in "fetch.rs";
    /// A fetch session makes room for another.
    FETCH_SESSION_EVICTED in "api/fetch.rs";
    /// A fetch session is not known, or not at that epoch.
    FETCH_SESSION_REFUSED in "api/fetch.rs";

    // Cluster metadata.

    /// An append that was not finished is cut off the metadata log.
    METADATA_TAIL_CUT in "store.rs";
    /// The metadata log ends before what had been synced: the start is refused.
    METADATA_LOG_LOST_ITS_END in "store.rs";
    /// The metadata log is bad in its middle: the start is refused.
    METADATA_LOG_ROTTEN in "store.rs";
    /// The file that says how far the metadata log was synced is damaged.
    METADATA_END_MADE_ANEW in "store.rs";
    /// The vote is missing beside a log: the start is refused.
    METADATA_VOTE_MISSING in "store.rs";
    /// The metadata log is cut because another leader knows better.
    METADATA_TRUNCATED in "store.rs";
    /// The metadata log drops what a snapshot holds.
    METADATA_PURGED in "store.rs";
    /// A metadata snapshot is written.
    METADATA_SNAPSHOT_BUILT in "state_machine.rs";
    /// A start reads a metadata snapshot.
    METADATA_SNAPSHOT_READ in "state_machine.rs";
    /// A metadata snapshot comes from another node.
    METADATA_SNAPSHOT_INSTALLED in "state_machine.rs";
    /// The disk fails under the metadata log.
    METADATA_WRITE_FAILED in "store.rs";
    /// The disk fails under the metadata log while it is rewritten.
    METADATA_PURGE_FAILED in "store.rs";
    /// The disk fails under the vote.
    METADATA_VOTE_FAILED in "store.rs";
    /// The disk fails under a metadata snapshot.
    METADATA_SNAPSHOT_FAILED in "state_machine.rs";

    // Errors of the disk, and what lacks.

    /// A log directory goes offline.
    DIRECTORY_OFFLINE in "health.rs";
    /// The flusher of a directory does nothing any more.
    FLUSHER_GAVE_UP in "flusher/worker.rs";
    /// A replica refuses everything from now on.
    REPLICA_OFFLINE in "owner.rs";
    /// A round fails: none of its batches may be acknowledged.
    ROUND_FAILED in "round.rs";
    /// A log is used again after a change of it that did not end.
    LOG_UNCERTAIN in "log.rs";
    /// There is no room on the disk for one more part of the journal: the broker goes on without.
    NO_ROOM_FOR_PART in "flusher/worker.rs";
    /// An error of the disk takes a directory offline, by what was being done.
    DISK_FAILED in "directory/mod.rs" [
        "cannot write clean marker" "closing a log" "copying a segment" "creating a marker" "creating a segment"
        "creating the directory" "ending a time index" "listing the directory" "listing the logs" "looking at"
        "looking for" "looking for a place for" "opening a segment" "opening an index" "reading a producer snapshot"
        "reading a segment" "reading an index" "reading the ages of segments" "reading the end of a segment"
        "reading the leader epochs" "reading the topic id" "removing a marker" "removing deleted segments"
        "replacing an index" "rewriting the indexes" "syncing a segment" "syncing a stray log" "taking segments out"
        "tidying the directory" "writing a producer snapshot" "writing a segment again" "writing the ages of segments"
        "writing the leader epochs" "writing the topic id"
    ];
    /// The same of the flusher.
    DISK_FAILED_IN_FLUSHER in "flusher/worker.rs" [
        "cannot allocate a part of the journal" "cannot close" "cannot cut a log" "cannot recycle a part of the journal"
        "cannot seal a segment" "cannot sync segments" "cannot sync segments that were written from the journal"
        "cannot write and sync segments" "cannot write checkpoints" "cannot write segments"
        "cannot write segments and journal"
    ];
    /// A lack of file handles refuses what could be asked again, by what was being done.
    OUT_OF_HANDLES in "directory/mod.rs" [
        "creating a segment" "creating the directory" "listing the directory" "listing the logs" "looking at"
        "looking for" "looking for a place for" "opening a segment" "opening an index" "reading a producer snapshot"
        "reading an index" "reading the ages of segments" "reading the leader epochs" "reading the topic id"
        "replacing an index" "tidying the directory" "writing the leader epochs" "writing the topic id"
    ];
    /// A lack of file handles ends the flusher of a broker that stops.
    OUT_OF_HANDLES_IN_FLUSHER in "flusher/worker.rs" [
        "cannot allocate a part of the journal" "cannot close"
        "cannot sync segments that were written from the journal" "cannot write checkpoints"
    ];
    /// Something that must not end half-way waits for a file handle.
    HANDLES_AWAITED in "handles.rs" [
        "a checkpoint" "a cut" "a leader epoch" "a producer snapshot" "a roll"
        "a segment that was written from the journal" "a stray log" "an index entry" "looking for a partition"
        "retention" "the age of a segment" "the journal" "the marker of a clean stop" "the metadata log"
        "the metadata snapshot" "the metadata's vote"
    ];
    /// A stop ends that wait.
    HANDLES_GIVEN_UP in "handles.rs" [
        "a checkpoint" "a leader epoch" "a producer snapshot" "a roll" "a segment that was written from the journal"
        "an index entry" "looking for a partition" "retention" "the age of a segment" "the journal"
        "the marker of a clean stop"
    ];
    /// A log is not opened for want of file handles, and what it was given to be opened cheaply is given back.
    OPENING_GIVEN_BACK in "opening.rs";
    /// An owner opens its log later.
    OPENING_PUT_OFF in "owner.rs";
    /// Logs are opened because their topics promise `flush.ms` and no orderly stop has left them.
    UNFLUSHED_LOGS_OPENED in "unflushed.rs";
    /// The log opened before a producer came again that was turned away, but after its next batch.
    TURNED_AWAY_OVERTAKEN in "round.rs";
    /// A log is left to recovery for want of file handles.
    CLOSED_FOR_WANT_OF_HANDLES in "owner.rs";
    /// A directory is left to recovery for want of file handles.
    DIRECTORY_LEFT_FOR_WANT_OF_HANDLES in "directory/mod.rs";
}
