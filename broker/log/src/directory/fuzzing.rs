//! A door for the fuzz targets (`tests/fuzz`) to the files that a log directory begins and ends with.
//!
//! Like [`crate::fuzzing`]: read, and written in the broker's own form. The broker itself never comes through here.
//! Never: a decision of its own, or anything that another caller would want.

use bytes::Bytes;
use gracchus_core::BrokerId;

use super::{DirectoryOptions, marker, meta};

/// `meta.properties` of a directory that `node_id` wants to open.
///
/// # Errors
/// Why it may not.
pub fn meta_properties(text: &str, node_id: i32) -> Result<String, String> {
    let options = DirectoryOptions { node_id: BrokerId(node_id), ..DirectoryOptions::default() };
    meta::Meta::parse(text, &options).map(|meta| meta.encode()).map_err(|error| error.to_string())
}

/// The clean marker.
pub fn clean_marker(contents: &[u8]) -> Option<Bytes> {
    marker::decode(contents).map(|logs| marker::encode(&logs))
}
