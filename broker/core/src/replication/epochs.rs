//! The leader-epoch cache: which epoch begins at which offset (KIP-101, KIP-279).
//!
//! Epochs and start offsets rise strictly. A leader writes its entry the moment it leads, also if it never appends.
//! Never: an answer made of the high watermark where an epoch is unknown.

use bytes::Bytes;

use crate::{LeaderEpoch, Offset};

/// Epochs with the offsets at which they begin, oldest first.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EpochCache {
    entries: Vec<(LeaderEpoch, Offset)>,
}

impl EpochCache {
    /// No epochs yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// `epoch` begins at `start`. Entries that contradict it (a later epoch, or a start at or behind it) are of a
    /// history that was cut and go. Returns whether anything changed.
    pub fn assign(&mut self, epoch: LeaderEpoch, start: Offset) -> bool {
        if self.latest().is_some_and(|(latest, begun)| latest == epoch && begun <= start) {
            return false;
        }
        self.entries.retain(|(other, begun)| *other < epoch && *begun < start);
        self.entries.push((epoch, start));
        true
    }

    /// The newest epoch and where it begins.
    pub fn latest(&self) -> Option<(LeaderEpoch, Offset)> {
        self.entries.last().copied()
    }

    /// The largest known epoch not above `epoch` and where it ends (where the next begins, or `log_end`).
    /// Older than all known: `epoch` itself and the first known start. Newer than all: (−1, −1).
    pub fn end_offset_for(&self, epoch: LeaderEpoch, log_end: Offset) -> (LeaderEpoch, Offset) {
        let undefined = (LeaderEpoch::NONE, Offset::NONE);
        let Some((latest, _)) = self.latest() else { return undefined };
        if epoch == LeaderEpoch::NONE || epoch > latest {
            return undefined;
        }
        if epoch == latest {
            return (latest, log_end);
        }
        // `epoch` is below the latest, so a next one exists.
        let next = self.entries.partition_point(|(other, _)| *other <= epoch);
        let end = self.entries[next].1;
        match next.checked_sub(1) {
            Some(floor) => (self.entries[floor].0, end),
            None => (epoch, end),
        }
    }

    /// The epoch of the record at `offset`.
    pub fn epoch_at(&self, offset: Offset) -> Option<LeaderEpoch> {
        let next = self.entries.partition_point(|(_, start)| *start <= offset);
        next.checked_sub(1).map(|index| self.entries[index].0)
    }

    /// The log now ends at `log_end`: epochs that begin at or behind it go. Returns whether anything changed.
    pub fn truncate_from_end(&mut self, log_end: Offset) -> bool {
        let before = self.entries.len();
        self.entries.retain(|(_, start)| *start < log_end);
        self.entries.len() != before
    }

    /// The log now starts at `log_start`: epochs that ended before go, the one that spans it begins there.
    pub fn truncate_from_start(&mut self, log_start: Offset) -> bool {
        let next = self.entries.partition_point(|(_, start)| *start <= log_start);
        let Some(floor) = next.checked_sub(1) else { return false };
        if floor == 0 && self.entries[0].1 == log_start {
            return false;
        }
        self.entries.drain(..floor);
        self.entries[0].1 = log_start;
        true
    }

    /// Oldest first.
    pub fn entries(&self) -> &[(LeaderEpoch, Offset)] {
        &self.entries
    }

    /// The text of `leader-epoch-checkpoint`: version 0, the number of entries, then `epoch offset` lines.
    pub fn encode(&self) -> Bytes {
        let mut text = format!("0\n{}\n", self.entries.len());
        for (epoch, start) in &self.entries {
            text.push_str(&format!("{epoch} {start}\n"));
        }
        text.into()
    }

    /// Reads what [`EpochCache::encode`] wrote. Anything else is an error: the caller rebuilds it from the log.
    pub fn decode(text: &[u8]) -> Result<Self, String> {
        let text = std::str::from_utf8(text).map_err(|_| "not text")?;
        let mut lines = text.lines();
        if lines.next() != Some("0") {
            return Err("version is not 0".into());
        }
        let count: usize = lines.next().and_then(|line| line.parse().ok()).ok_or("no number of entries")?;
        let mut entries: Vec<(LeaderEpoch, Offset)> = Vec::new();
        for line in lines {
            let (epoch, start) = line.split_once(' ').ok_or_else(|| format!("`{line}` is not an entry"))?;
            let epoch = LeaderEpoch(epoch.parse().map_err(|_| format!("`{epoch}` is not an epoch"))?);
            let start = Offset(start.parse().map_err(|_| format!("`{start}` is not an offset"))?);
            if epoch.0 < 0
                || start.0 < 0
                || entries.last().is_some_and(|last| last.0 >= epoch || last.1 >= start)
            {
                return Err(format!("`{line}` does not follow the entry before it"));
            }
            entries.push((epoch, start));
        }
        if entries.len() != count || !text.ends_with('\n') {
            return Err(format!("{} entries where {count} were announced", entries.len()));
        }
        Ok(Self { entries })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn cache(entries: &[(i32, i64)]) -> EpochCache {
        let mut cache = EpochCache::new();
        for (epoch, start) in entries {
            cache.assign(LeaderEpoch(*epoch), Offset(*start));
        }
        cache
    }

    fn end(cache: &EpochCache, epoch: i32) -> (i32, i64) {
        let (epoch, offset) = cache.end_offset_for(LeaderEpoch(epoch), Offset(100));
        (epoch.0, offset.0)
    }

    #[test]
    fn an_epoch_ends_where_the_next_begins() {
        let cache = cache(&[(2, 10), (5, 40), (7, 60)]);
        assert_eq!(end(&cache, 1), (1, 10), "older than all known");
        assert_eq!(end(&cache, 2), (2, 40));
        assert_eq!(end(&cache, 4), (2, 40), "a leader nobody here knows");
        assert_eq!(end(&cache, 6), (5, 60));
        assert_eq!(end(&cache, 7), (7, 100));
        assert_eq!(end(&cache, 8), (-1, -1));
        assert_eq!(end(&EpochCache::new(), 0), (-1, -1));
    }

    #[test]
    fn an_epoch_without_records_is_replaced_by_the_next_at_the_same_offset() {
        assert_eq!(cache(&[(1, 0), (2, 8), (3, 8)]).entries(), cache(&[(1, 0), (3, 8)]).entries());
    }

    #[test]
    fn a_cut_takes_the_epochs_behind_it() {
        let mut cache = cache(&[(1, 0), (2, 8), (3, 20)]);
        assert!(cache.truncate_from_end(Offset(20)));
        assert_eq!(cache.latest(), Some((LeaderEpoch(2), Offset(8))));
        assert!(cache.truncate_from_start(Offset(10)));
        assert_eq!(cache.entries(), [(LeaderEpoch(2), Offset(10))]);
    }

    proptest! {
        #[test]
        fn any_history_reads_back(steps in proptest::collection::vec((0..50i32, 0..500i64), 0..30)) {
            let cache = cache(&steps);
            prop_assert_eq!(EpochCache::decode(&cache.encode()), Ok(cache));
        }
    }

    #[test]
    fn text_survives_and_damage_is_noticed() {
        let whole = cache(&[(1, 0), (2, 8)]);
        assert_eq!(EpochCache::decode(&whole.encode()), Ok(whole.clone()));
        for cut in 0..whole.encode().len() {
            assert!(EpochCache::decode(&whole.encode()[..cut]).is_err(), "cut at {cut}");
        }
    }
}
