//! Moments that the swarm does not reach, and why. What is neither reached nor here is a gap: `cargo sim swarm` prints it.
//!
//! Never: an excuse for what a draw could reach; one that stays when that changes.

const NO_FOLLOWER: &str = "only a follower cuts a log that is open, and there is one broker";
const NO_OTHER_NODE: &str = "it takes another node of the quorum, and there is one";

/// A moment, or one of its places, and the reason.
pub const UNREACHED: &[(&str, &str)] = &[
    ("ROLL_BY_OFFSETS", "a segment would have to hold two thousand million offsets"),
    ("LOG_TRUNCATED", NO_FOLLOWER),
    ("DISK_FAILED: copying a segment", NO_FOLLOWER),
    ("HANDLES_AWAITED: a cut", NO_FOLLOWER),
    ("METADATA_TRUNCATED", NO_OTHER_NODE),
    ("METADATA_SNAPSHOT_INSTALLED", NO_OTHER_NODE),
    (
        "LOG_UNCERTAIN",
        "an owner never drops a commit half-way and never uses a log after an error: this is the guard for that",
    ),
];
