//! A log that nobody has opened, as far as retention must know it: sizes, and how old its oldest segment may be.
//!
//! One look at its directory and at the ends of one index file, no handle kept. It may take a log for older than it is
//! (then the log is opened and decides for itself), never for younger.
//!
//! Never: a change of a file; a look at a log while somebody opens it counts for more than a guess.

use std::{io, path::Path};

use gracchus_core::{
    Offset,
    record::{BatchHeader, HEADER_LENGTH},
    topic::TopicConfig,
};
use gracchus_env::Open;

use super::{
    LogId,
    ages::{self, Ages},
    directory::LogDirectory,
    error::StorageError,
    names,
    opening::Found,
    retention::{Facts, Retention, Verdict},
    time_index,
};

/// See the module.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UnopenedLog {
    size: u64,
    first_size: u64,
    segments: usize,
    /// The newest record of the first segment is at least as young. `None`: nobody knows how old it is.
    young_ms: Option<i64>,
    /// Files wait for their removal, or the age of a segment to be kept.
    unfinished: bool,
}

impl UnopenedLog {
    /// Looks at the log in `directory`; `None` if it is not there.
    pub async fn look(directory: &LogDirectory, id: &LogId) -> Result<Option<Self>, StorageError> {
        let path = directory.path().join(id.tp.to_string());
        match look(directory, id, &path).await {
            Ok(found) => Ok(Some(found)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(directory.fail_of(&error, "looking at", format_args!(" {}", id.tp))),
        }
    }

    /// Bytes of its segments.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// How many segments it has.
    pub fn segments(&self) -> usize {
        self.segments
    }

    /// Whether the log must be opened because retention may have something to do.
    pub fn is_due(&self, config: &TopicConfig, now_ms: i64) -> bool {
        let everything = Offset(i64::MAX);
        let retention = Retention::new(config, everything, Offset(0), self.size, now_ms);
        let facts = Facts { next_offset: everything, size: self.first_size, last: self.segments <= 1 };
        let trim = match retention.judge(&facts) {
            Verdict::Goes(_) => true,
            Verdict::Stays => false,
            // Whoever opens it sees to it that the next look finds an age.
            Verdict::ByAge => self.young_ms.is_none_or(|young_ms| retention.is_expired(young_ms)),
        };
        trim || self.unfinished
    }
}

async fn look(directory: &LogDirectory, id: &LogId, path: &Path) -> io::Result<UnopenedLog> {
    let env = directory.env();
    let found = Found::from(&env.disk().list(path).await?, directory.log_start(id));
    let size = found.segments.iter().map(|(_, size)| size).sum();
    let first_size = found.segments.first().map_or(0, |(_, size)| *size);
    let ages = ages(directory, path, &found).await?;
    let young_ms = match found.segments.first() {
        Some((base, size @ 1..)) => {
            let newest = newest_known(directory, path, *base).await?;
            newest.or_else(|| ages.written_ms(*base, *size))
        }
        _ => Some(env.wall_clock_ms()),
    };
    Ok(UnopenedLog {
        size,
        first_size,
        segments: found.segments.len(),
        young_ms,
        unfinished: !found.leftovers.is_empty() || ages.is_changed(),
    })
}

/// What the log has kept of when its segments were written.
async fn ages(directory: &LogDirectory, path: &Path, found: &Found) -> io::Result<Ages> {
    if !found.has_ages() {
        return Ok(Ages::default());
    }
    let env = directory.env();
    let contents = env.disk().read_all(&path.join(ages::FILE)).await?;
    Ok(Ages::read(contents.as_deref(), &found.segments, env.wall_clock_ms()))
}

/// The greater of the last entry of the time index and the first batch's newest timestamp; `None` without timestamps.
async fn newest_known(directory: &LogDirectory, path: &Path, base: Offset) -> io::Result<Option<i64>> {
    let disk = directory.env().disk();
    let log = disk.open(&names::file(path, base, names::LOG), Open::Existing).await?;
    let header = BatchHeader::parse(&log.read_at(0, HEADER_LENGTH).await?);
    let first = header.map_or(-1, |header| header.max_timestamp);
    let indexed = match disk.open(&names::file(path, base, names::TIME_INDEX), Open::Existing).await {
        Ok(index) => {
            let entry = time_index::ENTRY as u64;
            let at = (index.length()? / entry).saturating_sub(1) * entry;
            let bytes = index.read_at(at, 8).await?;
            bytes.first_chunk::<8>().map_or(-1, |bytes| i64::from_be_bytes(*bytes))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => -1,
        Err(error) => return Err(error),
    };
    Ok(Some(first.max(indexed)).filter(|newest| *newest >= 0))
}
