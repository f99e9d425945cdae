//! A door for the fuzz targets (`tests/fuzz`) to the journal's groups and part headers.
//!
//! Like [`crate::fuzzing`]: read, and written in the broker's own form. The broker itself never comes through here.
//! Never: a decision of its own, or anything that another caller would want.

use bytes::Bytes;

use super::{
    entry::{GroupBuilder, Header, Kind},
    parts::PartHeader,
};

/// The group that `bytes` begins with: its bytes made anew from what its table says, without padding.
pub fn group(bytes: &[u8]) -> Option<Vec<u8>> {
    let header = Header::parse(bytes)?;
    let group = bytes.get(..usize::try_from(header.length).ok()?)?;
    let mut builder = GroupBuilder::new();
    for entry in header.entries(group)? {
        match entry.kind {
            Kind::Write { at, length } => {
                let payload = Bytes::copy_from_slice(&group[at as usize..(at + length) as usize]);
                builder.write(&entry.id, entry.segment_base, entry.position, [&payload]);
            }
            Kind::Forget => builder.forget(&entry.id, entry.segment_base, entry.position),
        }
    }
    let length = usize::try_from(builder.length()).expect("no longer than what it was made of");
    let mut again = builder.seal(header.lap, header.sequence, header.synced, 1).concat();
    again.truncate(length);
    Some(again)
}

/// A part's first sector.
pub fn part_header(bytes: &[u8]) -> Option<Bytes> {
    PartHeader::parse(bytes).map(PartHeader::encode)
}
