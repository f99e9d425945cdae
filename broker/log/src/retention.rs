//! Which segments go, and why: Kafka's rules as a pure decision, oldest segment first.
//!
//! Source: Apache Kafka's UnifiedLog.deleteOldSegments. A segment goes when it lies wholly below the log start (after
//! DeleteRecords), when the log is too large also without it (`retention.bytes`), or when its newest record is too old
//! (`retention.ms`). The first that stays ends it: a log has no holes. Timestamps in the future keep their segment.
//!
//! Never: a segment that reaches above the high watermark; an empty last segment; a deletion by age or size where
//! `cleanup.policy` has no `delete`, however full the disk.

use gracchus_core::{Offset, topic::TopicConfig};

/// Why a segment goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reason {
    BelowLogStart,
    Size,
    Time,
}

impl Reason {
    /// For the log.
    pub(crate) fn text(self) -> &'static str {
        match self {
            Reason::BelowLogStart => "it lies below the log start",
            Reason::Size => "retention.bytes",
            Reason::Time => "retention.ms",
        }
    }
}

/// What a decision about a segment takes, without a look into it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Facts {
    /// All its offsets are below.
    pub(crate) next_offset: Offset,
    /// Bytes of its `.log` file.
    pub(crate) size: u64,
    /// It is the active segment.
    pub(crate) last: bool,
}

/// One pass over the segments of a log.
#[derive(Debug)]
pub(crate) struct Retention {
    deletes: bool,
    retention_ms: i64,
    high_watermark: Offset,
    log_start: Offset,
    now_ms: i64,
    /// Bytes above `retention.bytes`; below zero: none.
    excess: i128,
}

/// What can be said of a segment before its newest timestamp is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    Goes(Reason),
    Stays,
    /// Its age decides, see [`Retention::is_expired`].
    ByAge,
}

impl Retention {
    /// For a log of `size` bytes at wall clock `now_ms`.
    pub(crate) fn new(
        config: &TopicConfig,
        high_watermark: Offset,
        log_start: Offset,
        size: u64,
        now_ms: i64,
    ) -> Self {
        let deletes = config.cleanup_policy.delete;
        let excess = match u64::try_from(config.retention_bytes) {
            Ok(bytes) if deletes => i128::from(size) - i128::from(bytes),
            _ => -1,
        };
        Self { deletes, retention_ms: config.retention_ms, high_watermark, log_start, now_ms, excess }
    }

    /// Judges the next segment; all before it go.
    pub(crate) fn judge(&self, segment: &Facts) -> Verdict {
        if segment.next_offset > self.high_watermark || (segment.last && segment.size == 0) {
            Verdict::Stays
        } else if !segment.last && segment.next_offset <= self.log_start {
            Verdict::Goes(Reason::BelowLogStart)
        } else if self.excess >= i128::from(segment.size) {
            Verdict::Goes(Reason::Size)
        } else if self.deletes && self.retention_ms >= 0 {
            Verdict::ByAge
        } else {
            Verdict::Stays
        }
    }

    /// Whether a segment whose newest record has timestamp `largest_ms` is too old.
    pub(crate) fn is_expired(&self, largest_ms: i64) -> bool {
        self.now_ms.saturating_sub(largest_ms) > self.retention_ms
    }

    /// The segment goes.
    pub(crate) fn gone(&mut self, segment: &Facts) {
        self.excess -= i128::from(segment.size);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: i64 = 1_700_000_000_000;

    fn config(retention_ms: i64, retention_bytes: i64) -> TopicConfig {
        let mut config = TopicConfig::default();
        (config.retention_ms, config.retention_bytes) = (retention_ms, retention_bytes);
        config
    }

    /// (next offset, bytes, newest timestamp) of each segment; how many go from the front.
    fn going(
        config: &TopicConfig,
        high_watermark: i64,
        log_start: i64,
        segments: &[(i64, u64, i64)],
    ) -> Vec<Reason> {
        let size = segments.iter().map(|(_, size, _)| size).sum();
        let mut retention = Retention::new(config, Offset(high_watermark), Offset(log_start), size, NOW);
        let mut reasons = Vec::new();
        for (number, (next_offset, size, largest)) in segments.iter().enumerate() {
            let last = number + 1 == segments.len();
            let facts = Facts { next_offset: Offset(*next_offset), size: *size, last };
            let reason = match retention.judge(&facts) {
                Verdict::Goes(reason) => reason,
                Verdict::ByAge if retention.is_expired(*largest) => Reason::Time,
                Verdict::ByAge | Verdict::Stays => break,
            };
            retention.gone(&facts);
            reasons.push(reason);
        }
        reasons
    }

    #[test]
    fn a_segment_goes_when_its_newest_record_is_too_old_and_only_then() {
        let config = config(1000, -1);
        let segments = [(10, 5, NOW - 1001), (20, 5, NOW - 1000), (30, 5, NOW - 5000)];
        assert_eq!(going(&config, 30, 0, &segments), [Reason::Time], "the first that stays ends it");
        assert_eq!(going(&config, 30, 0, &[(10, 5, NOW + 9000), (20, 5, 0)]), []);
        assert_eq!(
            going(&config, 30, 0, &[(10, 5, 0), (20, 5, 0)]),
            [Reason::Time; 2],
            "the active one, too"
        );
        assert_eq!(going(&config, 30, 0, &[(10, 5, 0), (10, 0, 0)]), [Reason::Time], "an empty one stays");
        assert_eq!(going(&self::config(-1, -1), 30, 0, &[(10, 5, 0), (20, 5, 0)]), []);
    }

    #[test]
    fn the_log_keeps_at_least_retention_bytes() {
        let segments = [(10, 40, NOW), (20, 40, NOW), (30, 40, NOW)];
        for (bytes, gone) in [(121, 0), (120, 0), (81, 0), (80, 1), (41, 1), (40, 2), (1, 2), (0, 3)] {
            assert_eq!(going(&config(-1, bytes), 30, 0, &segments), vec![Reason::Size; gone], "{bytes}");
        }
    }

    #[test]
    fn nothing_above_the_high_watermark_goes() {
        for (high_watermark, gone) in [(9, 0), (10, 1), (19, 1), (20, 2)] {
            let segments = [(10, 5, 0), (20, 5, 0)];
            assert_eq!(going(&config(0, -1), high_watermark, 0, &segments).len(), gone, "{high_watermark}");
            assert_eq!(going(&config(-1, 0), high_watermark, 0, &segments).len(), gone, "{high_watermark}");
        }
    }

    #[test]
    fn without_the_delete_policy_only_what_lies_below_the_log_start_goes() {
        let mut config = config(0, 0);
        config.cleanup_policy.delete = false;
        config.cleanup_policy.compact = true;
        let segments = [(10, 5, 0), (20, 5, 0), (30, 5, 0)];
        assert_eq!(going(&config, 30, 0, &segments), []);
        assert_eq!(going(&config, 30, 15, &segments), [Reason::BelowLogStart]);
        assert_eq!(going(&config, 30, 20, &segments), [Reason::BelowLogStart; 2]);
        assert_eq!(going(&config, 30, 30, &segments), [Reason::BelowLogStart; 2], "the active one stays");
        config.cleanup_policy.delete = true;
        assert_eq!(going(&config, 30, 0, &segments).len(), 3, "compact,delete applies the delete part");
    }
}
