//! Moments that the swarm does not reach, and why. What is neither reached nor here is a gap: `cargo sim swarm` prints it.
//!
//! Never: an excuse for what a draw could reach; one that stays when that changes.

/// A moment, or one of its places, and the reason.
pub const UNREACHED: &[(&str, &str)] = &[];
