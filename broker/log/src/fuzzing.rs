//! A door for the fuzz targets (`tests/fuzz`) to the small files of a log.
//!
//! Each function reads bytes as the broker would and writes what it understood in the broker's own form: whoever reads
//! that again must understand the same. The broker itself never comes through here.
//! Never: a decision of its own, or anything that another caller would want.

use bytes::{Bytes, BytesMut};
use gracchus_core::Offset;

use super::{index::OffsetIndex, names, partition_metadata, time_index::TimeIndex};

/// The offset index of a segment of `size` bytes that begins at `base`, its entries written anew.
///
/// # Errors
/// Why it is not believed.
pub fn offset_index(base: i64, contents: Bytes, size: u64) -> Result<Bytes, String> {
    let index = OffsetIndex::check(Offset(base), contents, size)?;
    let mut again = BytesMut::new();
    for number in 0..index.len() {
        let entry = index.entry(number);
        let found = index.last_where(|other| other.last_offset <= entry.last_offset);
        assert_eq!(found, Some(entry), "a search finds the entry itself");
        entry.encode(Offset(base), &mut again);
    }
    Ok(again.freeze())
}

/// The time index of a segment with the offsets `base .. next_offset`, its entries written anew.
///
/// # Errors
/// Why it is not believed.
pub fn time_index(base: i64, contents: Bytes, next_offset: i64) -> Result<Bytes, String> {
    let index = TimeIndex::check(Offset(base), contents, Offset(next_offset))?;
    let mut again = BytesMut::new();
    for number in 0..index.len() {
        let entry = index.entry(number);
        let found = index.last_where(|other| other.timestamp <= entry.timestamp);
        assert_eq!(found, Some(entry), "a search finds the entry itself");
        entry.encode(Offset(base), &mut again);
    }
    Ok(again.freeze())
}

/// `partition.metadata`.
///
/// # Errors
/// What is wrong with it.
pub fn partition_metadata(contents: &[u8]) -> Result<Bytes, String> {
    partition_metadata::decode(contents).map(partition_metadata::encode)
}

/// The partition whose directory has this name, as the name that it would be given.
pub fn log_directory_name(name: &str) -> Option<String> {
    names::partition(name).map(|partition| partition.to_string())
}

/// The offset in a file name of `kind`, as the name that it would be given.
pub fn file_name(name: &str, kind: &str) -> Option<String> {
    let path = names::file(std::path::Path::new(""), names::parse(name, kind)?, kind);
    path.into_os_string().into_string().ok()
}
