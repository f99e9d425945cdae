//! The knobs of a log directory. Defaults suit production; the simulator draws tiny ones, so that every part of the
//! journal is recycled and every path is taken within a short run.

use std::time::Duration;

use gracchus_core::BrokerId;

/// A sector is torn as a whole or not at all.
const LEAST_ALIGNMENT: u64 = 512;

/// How a log directory is opened and flushed.
#[derive(Debug, Clone)]
pub struct DirectoryOptions {
    /// `node.id`; a directory that belongs to another node is refused.
    pub node_id: BrokerId,
    /// Where known: a directory of another cluster is refused, a directory without one gets it.
    pub cluster_id: Option<String>,
    /// The write-ahead journal.
    pub journal: JournalOptions,
    /// A log with at least this many bytes waiting or on their way is synced in place, one with fewer is journaled:
    /// about where writing the bytes twice begins to cost more than one more fdatasync.
    pub in_place_bytes: u64,
    /// Most bytes of one submission.
    pub group_bytes: u64,
    /// Journaled groups on their way to the disk at once. More than one lets copying overlap with syncing.
    pub journal_in_flight: usize,
    /// Submissions with syncs in place on their way at once.
    pub in_place_in_flight: usize,
    /// Submissions of rounds that nobody wants synced on their way at once.
    pub plain_in_flight: usize,
    /// Segments being sealed and logs being cut at once, each a submission with several syncs. When all logs roll at
    /// once, the acknowledgements of the others must not wait behind all of them.
    pub alone_in_flight: usize,
    /// Logs whose rounds share a submission that syncs in place because the journal is full.
    pub in_place_logs: usize,
    /// Bytes of one segment after which the kernel is asked to begin writing them back.
    pub writeback_bytes: u64,
    /// Unsynced bytes of one segment after which it is synced in the background.
    pub dirty_bytes: u64,
    /// Age of the oldest unsynced byte after which a segment is synced in the background.
    pub dirty_age: Duration,
    /// `log.flush.offset.checkpoint.interval.ms`: pause between two checkpoints of recovery points and log starts.
    pub checkpoint_interval: Duration,
    /// Handles of sealed segments kept open.
    pub open_files: usize,
}

/// The shape of the journal.
#[derive(Debug, Clone)]
pub struct JournalOptions {
    /// Bytes of one part.
    pub part_bytes: u64,
    /// Parts made when the directory is first used.
    pub min_parts: usize,
    /// Parts it may grow to while many logs are active: their syncs are spread over more bytes.
    pub max_parts: usize,
    /// Groups begin at multiples of this, at least 512: a torn sector never reaches into an older group.
    pub alignment: u64,
}

impl DirectoryOptions {
    /// Says what cannot work.
    pub(crate) fn check(&self) -> Result<(), String> {
        let JournalOptions { part_bytes, alignment, .. } = self.journal;
        let wrong = |why: String| Err(why);
        if alignment < LEAST_ALIGNMENT {
            return wrong(format!(
                "groups of the journal at multiples of {alignment} bytes: a torn sector of {LEAST_ALIGNMENT} would reach \
                 into an older group"
            ));
        }
        if !part_bytes.is_multiple_of(alignment) || part_bytes / 4 < alignment {
            return wrong(format!(
                "parts of the journal of {part_bytes} bytes: not a multiple of {alignment}, or less than four of them"
            ));
        }
        if self.group_bytes == 0 {
            return wrong("submissions of 0 bytes".to_owned());
        }
        Ok(())
    }
}

impl Default for DirectoryOptions {
    fn default() -> Self {
        Self {
            node_id: BrokerId(0),
            cluster_id: None,
            journal: JournalOptions::default(),
            in_place_bytes: 256 * 1024,
            group_bytes: 4 * 1024 * 1024,
            journal_in_flight: 2,
            in_place_in_flight: 3,
            plain_in_flight: 3,
            alone_in_flight: 1,
            in_place_logs: 16,
            writeback_bytes: 2 * 1024 * 1024,
            dirty_bytes: 8 * 1024 * 1024,
            dirty_age: Duration::from_secs(5),
            checkpoint_interval: Duration::from_secs(60),
            open_files: 4096,
        }
    }
}

impl Default for JournalOptions {
    fn default() -> Self {
        Self { part_bytes: 16 * 1024 * 1024, min_parts: 2, max_parts: 16, alignment: 4096 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_work_is_refused_and_what_just_can_is_not() {
        let options = |part_bytes, alignment, group_bytes| {
            let journal = JournalOptions { part_bytes, alignment, ..JournalOptions::default() };
            DirectoryOptions { journal, group_bytes, ..DirectoryOptions::default() }
        };
        assert_eq!(DirectoryOptions::default().check(), Ok(()));
        assert_eq!(options(2048, 512, 1).check(), Ok(()));
        for impossible in [options(2048, 511, 1), options(2047, 512, 1), options(1536, 512, 1)] {
            assert!(impossible.check().is_err(), "{impossible:?}");
        }
        assert_eq!(options(2048, 512, 0).check(), Err("submissions of 0 bytes".to_owned()));
    }
}
