//! Producer state per partition: what is a duplicate, what is out of order, what may expire.

use crate::Offset;

/// What to do with a batch of an idempotent producer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Next in order (or no producer id): append it.
    Append,
    /// Already in the log: answer with what was answered then.
    Duplicate { base_offset: Offset, last_offset: Offset, timestamp: i64 },
}
