//! How far records are committed: the high watermark rule.
//!
//! Every replica, the leader too, counts only up to its flushed end: acknowledged means on disk. Never: a high
//! watermark that goes back, or one that moves while fewer replicas are in sync than the topic asks for (KIP-966).

use crate::Offset;

/// The leader's next high watermark, from the flushed ends of the in-sync replicas (its own among them).
pub(super) fn advance(current: Offset, in_sync_flushed_ends: &[Offset], min_in_sync: usize) -> Offset {
    if in_sync_flushed_ends.len() < min_in_sync {
        return current;
    }
    in_sync_flushed_ends.iter().copied().min().map_or(current, |end| end.max(current))
}

/// `min.insync.replicas` as it binds a partition: never more than it has replicas.
pub fn effective_min_in_sync(configured: i32, replicas: usize) -> usize {
    usize::try_from(configured).unwrap_or(1).clamp(1, replicas.max(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_the_slowest_flushed_end() {
        assert_eq!(advance(Offset(3), &[Offset(9), Offset(7)], 2), Offset(7));
    }

    #[test]
    fn never_goes_back() {
        assert_eq!(advance(Offset(8), &[Offset(9), Offset(7)], 1), Offset(8));
    }

    #[test]
    fn rests_below_min_in_sync() {
        assert_eq!(advance(Offset(3), &[Offset(9)], 2), Offset(3));
        assert_eq!(effective_min_in_sync(2, 1), 1, "a topic with one replica cannot ask for two");
    }
}
