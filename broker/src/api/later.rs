//! Versions of requests that Apache Kafka serves and kafka-protocol does not know yet.
//!
//! Clients tell a broker's age by its versions, and some ask for a new one only. Where a new version of a request is laid
//! out like an older one that the crate knows, it is decoded as that; what is new in an answer its handler writes itself.
//! A row goes when the crate has learnt the version (a test of the table says so). Never: a version that is laid out
//! otherwise.

use super::{list_offsets, log_dirs};

/// Key, version, and the version that its request is laid out like.
static LATER: &[(i16, i16, i16)] = &[
    // KIP-1023: one more special timestamp, not one more field.
    (list_offsets::API.key, 11, 10),
    // KIP-1066: a field more in the answer.
    (log_dirs::DESCRIBE.key, 5, 4),
];

/// The version as which the crate reads a request of `version`.
pub(super) fn layout(key: i16, version: i16) -> i16 {
    let row = LATER.iter().find(|(later_key, later, _)| (*later_key, *later) == (key, version));
    row.map_or(version, |(_, _, layout)| *layout)
}
