//! A door for the fuzz targets (`tests/fuzz`) to the files of the cluster metadata.
//!
//! Read, and written in the broker's own form, as the small files of a log are. The broker itself never comes through here.
//! Never: a decision of its own, or anything that another caller would want.

use bytes::Bytes;

use super::{frame, raft_types::Vote, state_machine::State, store};

/// The metadata log: what of it is good, as a frame for the start and one for all entries.
///
/// # Errors
/// Why the node would refuse to start.
pub fn log(bytes: &[u8]) -> Result<Bytes, String> {
    let log = store::parse(bytes).map_err(|why| why.to_string())?;
    assert!(log.length <= bytes.len(), "the good part is a part");
    store::encode_log(log.purged, &log.entries).map_err(|error| error.to_string())
}

/// A snapshot of the metadata.
///
/// # Errors
/// Why the node would refuse to start.
pub fn snapshot(bytes: &[u8]) -> Result<Bytes, String> {
    let state: State = frame::decode(bytes).map_err(|why| why.to_string())?;
    frame::encode(&state).map_err(|error| error.to_string())
}

/// The vote of the node.
///
/// # Errors
/// Why the node would refuse to start.
pub fn vote(bytes: &[u8]) -> Result<Bytes, String> {
    let vote: Vote = frame::decode(bytes).map_err(|why| why.to_string())?;
    frame::encode(&vote).map_err(|error| error.to_string())
}
