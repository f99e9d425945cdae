//! Groups of journal entries as bytes. All numbers are little-endian.
//!
//! ```text
//! header   magic u32 | CRC-32C of all that follows u32 | lap u64 | sequence u64 | synced u64 | length u32 | table length u32
//!          | entries u32
//! table    per entry: kind u8 | topic length u16, topic | partition i32 | topic id u128 | segment base i64 | position u64
//!          | for a write: payload length u32
//! payload  of all writes, in table order
//! padding  zeros up to the next aligned offset, not part of the group
//! ```
//!
//! `synced`: every group with a smaller sequence was on disk when this one was made. It tells a torn end from rot. The form
//! before this one (magic `GJG1`) lacks it and is still read: it proves nothing about other groups.
//!
//! Never: copy a payload; believe a length before the CRC.

use std::sync::Arc;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use gracchus_core::{Offset, PartitionIndex, TopicId, TopicPartition};
use uuid::Uuid;

use super::super::LogId;

const MAGIC: u32 = u32::from_le_bytes(*b"GJG2");
/// Of groups without `synced`.
const MAGIC_1: u32 = u32::from_le_bytes(*b"GJG1");
/// Bytes of a group's header.
pub(super) const HEADER: usize = 44;
/// The same without `synced`.
const HEADER_1: usize = 36;
/// Bytes of magic and CRC, which the CRC does not cover.
const UNCOVERED: usize = 8;
/// Bytes of an entry without its topic name, and …
const ENTRY: usize = 1 + 2 + 4 + 16 + 8 + 8;
/// … what a write has besides.
const PAYLOAD_LENGTH: usize = 4;
const WRITE: u8 = 1;
const FORGET: u8 = 2;
static ZEROS: [u8; 65536] = [0; 65536];

/// A group being gathered.
#[derive(Debug)]
pub(crate) struct GroupBuilder {
    /// Room for the header, then the table.
    head: BytesMut,
    payload: Vec<Bytes>,
    payload_bytes: u64,
    entries: u32,
}

impl GroupBuilder {
    pub(crate) fn new() -> Self {
        let mut head = BytesMut::with_capacity(512);
        head.put_bytes(0, HEADER);
        Self { head, payload: Vec::new(), payload_bytes: 0, entries: 0 }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.entries == 0
    }

    /// Bytes of the group so far, without padding.
    pub(crate) fn length(&self) -> u64 {
        self.head.len() as u64 + self.payload_bytes
    }

    /// Bytes that a write of log `id` adds, beside its payload.
    pub(crate) fn write_overhead(id: &LogId) -> u64 {
        Self::forget_length(id) + PAYLOAD_LENGTH as u64
    }

    /// Bytes that a forget mark of log `id` adds.
    pub(crate) fn forget_length(id: &LogId) -> u64 {
        (ENTRY + id.tp.topic.len()) as u64
    }

    /// Bytes of a group without an entry.
    pub(crate) const fn empty_length() -> u64 {
        HEADER as u64
    }

    /// `buffers` go to `position` of the segment.
    pub(crate) fn write<'a>(
        &mut self,
        id: &LogId,
        segment_base: Offset,
        position: u64,
        buffers: impl IntoIterator<Item = &'a Bytes>,
    ) {
        self.entry(WRITE, id, segment_base, position);
        let before = self.payload_bytes;
        for buffer in buffers {
            self.payload_bytes += buffer.len() as u64;
            self.payload.push(buffer.clone());
        }
        let length = u32::try_from(self.payload_bytes - before).expect("a group is smaller than a part");
        self.head.put_u32_le(length);
    }

    /// Everything earlier from `position` of the segment on is void, in later segments too.
    pub(crate) fn forget(&mut self, id: &LogId, segment_base: Offset, position: u64) {
        self.entry(FORGET, id, segment_base, position);
    }

    fn entry(&mut self, kind: u8, id: &LogId, segment_base: Offset, position: u64) {
        self.entries += 1;
        let topic = id.tp.topic.as_bytes();
        self.head.reserve(ENTRY + PAYLOAD_LENGTH + topic.len());
        self.head.put_u8(kind);
        self.head.put_u16_le(u16::try_from(topic.len()).expect("topic names are short"));
        self.head.put_slice(topic);
        self.head.put_i32_le(id.tp.partition.0);
        self.head.put_u128_le(id.topic_id.0.as_u128());
        self.head.put_i64_le(segment_base.0);
        self.head.put_u64_le(position);
    }

    /// The bytes of the group with its padding. All groups before `synced` are on disk.
    pub(crate) fn seal(self, lap: u64, sequence: u64, synced: u64, alignment: u64) -> Vec<Bytes> {
        let length = self.length();
        let mut head = self.head;
        let table = (head.len() - HEADER) as u32;
        let mut header = &mut head[UNCOVERED..HEADER];
        header.put_u64_le(lap);
        header.put_u64_le(sequence);
        header.put_u64_le(synced);
        header.put_u32_le(u32::try_from(length).expect("a group is smaller than a part"));
        header.put_u32_le(table);
        header.put_u32_le(self.entries);
        let crc = self
            .payload
            .iter()
            .fold(crc32c::crc32c(&head[UNCOVERED..]), |crc, buffer| crc32c::crc32c_append(crc, buffer));
        let mut header = &mut head[..UNCOVERED];
        header.put_u32_le(MAGIC);
        header.put_u32_le(crc);
        let mut buffers = self.payload;
        buffers.insert(0, head.freeze());
        let mut padding =
            usize::try_from(length.next_multiple_of(alignment) - length).expect("alignment is small");
        while padding > 0 {
            let count = padding.min(ZEROS.len());
            buffers.push(Bytes::from_static(&ZEROS[..count]));
            padding -= count;
        }
        buffers
    }
}

/// The fixed part of a group, not yet believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Header {
    crc: u32,
    pub(super) lap: u64,
    pub(super) sequence: u64,
    /// All groups before this sequence were on disk.
    pub(super) synced: u64,
    /// Bytes of the whole group without padding.
    pub(super) length: u64,
    /// Bytes of the header.
    size: usize,
    table: usize,
    entries: u32,
}

impl Header {
    /// `None`: here begins no group.
    pub(super) fn parse(mut bytes: &[u8]) -> Option<Self> {
        let magic = bytes.try_get_u32_le().ok()?;
        let size = match magic {
            MAGIC => HEADER,
            MAGIC_1 => HEADER_1,
            _ => return None,
        };
        let header = Header {
            crc: bytes.try_get_u32_le().ok()?,
            lap: bytes.try_get_u64_le().ok()?,
            sequence: bytes.try_get_u64_le().ok()?,
            synced: if magic == MAGIC { bytes.try_get_u64_le().ok()? } else { 0 },
            length: u64::from(bytes.try_get_u32_le().ok()?),
            size,
            table: usize::try_from(bytes.try_get_u32_le().ok()?).ok()?,
            entries: bytes.try_get_u32_le().ok()?,
        };
        (header.length >= (size + header.table) as u64).then_some(header)
    }

    /// The entries of the whole group `bytes`, `None` if it is torn or its table and its payload do not fill it.
    pub(super) fn entries(&self, bytes: &[u8]) -> Option<Vec<Entry>> {
        if bytes.len() as u64 != self.length || crc32c::crc32c(&bytes[UNCOVERED..]) != self.crc {
            return None;
        }
        let mut table = &bytes[self.size..self.size + self.table];
        let mut payload = (self.size + self.table) as u64;
        let entries = (0..self.entries).map(|_| Entry::parse(&mut table, &mut payload)).collect();
        if table.is_empty() && payload == self.length { entries } else { None }
    }
}

/// What a group says about one log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) id: LogId,
    pub(super) segment_base: Offset,
    pub(super) position: u64,
    pub(super) kind: Kind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// `length` bytes that stand at `at` of the group.
    Write { at: u64, length: u64 },
    /// Everything earlier from here on is void.
    Forget,
}

impl Entry {
    fn parse(table: &mut &[u8], payload: &mut u64) -> Option<Self> {
        let kind = table.try_get_u8().ok()?;
        let topic = usize::from(table.try_get_u16_le().ok()?);
        let topic: Arc<str> = std::str::from_utf8(table.split_off(..topic)?).ok()?.into();
        let partition = PartitionIndex(table.try_get_i32_le().ok()?);
        let topic_id = TopicId(Uuid::from_u128(table.try_get_u128_le().ok()?));
        let segment_base = Offset(table.try_get_i64_le().ok()?);
        let position = table.try_get_u64_le().ok()?;
        let kind = match kind {
            WRITE => {
                let length = u64::from(table.try_get_u32_le().ok()?);
                let at = *payload;
                *payload += length;
                Kind::Write { at, length }
            }
            FORGET => Kind::Forget,
            _ => return None,
        };
        Some(Entry {
            id: LogId { tp: TopicPartition { topic, partition }, topic_id },
            segment_base,
            position,
            kind,
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[derive(Debug, Clone)]
    struct Told {
        id: LogId,
        base: i64,
        position: u64,
        /// `None`: a forget mark.
        write: Option<Vec<Vec<u8>>>,
    }

    fn told() -> impl Strategy<Value = Told> {
        let id = ("[a-zA-Z0-9._-]{1,249}", 0..i32::MAX, any::<u128>()).prop_map(|(topic, index, id)| LogId {
            tp: TopicPartition::new(topic, index),
            topic_id: TopicId(Uuid::from_u128(id)),
        });
        let buffers = prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 0..4);
        (id, 0..i64::MAX, any::<u64>(), prop::option::of(buffers))
            .prop_map(|(id, base, position, write)| Told { id, base, position, write })
    }

    fn build(entries: &[Told], lap: u64, sequence: u64, synced: u64, alignment: u64) -> Vec<u8> {
        let mut group = GroupBuilder::new();
        assert_eq!(group.length(), GroupBuilder::empty_length());
        for entry in entries {
            let before = group.length();
            match &entry.write {
                Some(buffers) => {
                    let buffers: Vec<Bytes> = buffers.iter().cloned().map(Bytes::from).collect();
                    group.write(&entry.id, Offset(entry.base), entry.position, &buffers);
                    let payload: usize = buffers.iter().map(Bytes::len).sum();
                    let added = GroupBuilder::write_overhead(&entry.id) + payload as u64;
                    assert_eq!(group.length(), before + added);
                }
                None => {
                    group.forget(&entry.id, Offset(entry.base), entry.position);
                    assert_eq!(group.length(), before + GroupBuilder::forget_length(&entry.id));
                }
            }
        }
        group.seal(lap, sequence, synced, alignment).concat()
    }

    proptest! {
        #[test]
        fn reads_back_what_it_wrote(
            entries in prop::collection::vec(told(), 0..6), lap: u64, sequence: u64, synced: u64, shift in 9..17u32,
        ) {
            let bytes = build(&entries, lap, sequence, synced, 1 << shift);
            prop_assert_eq!(bytes.len() % (1 << shift), 0);
            let header = Header::parse(&bytes).unwrap();
            prop_assert_eq!((header.lap, header.sequence, header.synced), (lap, sequence, synced));
            let group = &bytes[..header.length as usize];
            let parsed = header.entries(group).unwrap();
            prop_assert_eq!(parsed.len(), entries.len());
            for (parsed, told) in parsed.iter().zip(&entries) {
                prop_assert_eq!(&parsed.id, &told.id);
                prop_assert_eq!((parsed.segment_base, parsed.position), (Offset(told.base), told.position));
                match (parsed.kind, &told.write) {
                    (Kind::Write { at, length }, Some(buffers)) => {
                        prop_assert_eq!(&group[at as usize..(at + length) as usize], &buffers.concat()[..]);
                    }
                    (Kind::Forget, None) => {}
                    (kind, _) => prop_assert!(false, "unexpected {:?}", kind),
                }
            }
        }

        #[test]
        fn any_changed_bit_tears_it(
            entries in prop::collection::vec(told(), 1..4), at: prop::sample::Index, bit in 0..8u32,
        ) {
            let mut bytes = build(&entries, 3, 4, 2, 512);
            let length = Header::parse(&bytes).unwrap().length as usize;
            bytes[at.index(length)] ^= 1 << bit;
            let intact = Header::parse(&bytes).and_then(|header| {
                bytes.get(..header.length as usize).and_then(|group| header.entries(group))
            });
            prop_assert_eq!(intact, None);
        }

        #[test]
        fn the_form_without_synced_is_read(entries in prop::collection::vec(told(), 0..4)) {
            let bytes = build(&entries, 3, 4, 2, 512);
            let header = Header::parse(&bytes).unwrap();
            let mut old = bytes[..header.length as usize].to_vec();
            old.drain(24..32);
            old[..4].copy_from_slice(b"GJG1");
            let length = old.len() as u32;
            old[24..28].copy_from_slice(&length.to_le_bytes());
            let crc = crc32c::crc32c(&old[UNCOVERED..]);
            old[4..8].copy_from_slice(&crc.to_le_bytes());
            let read = Header::parse(&old).unwrap();
            prop_assert_eq!((read.lap, read.sequence, read.synced), (3, 4, 0));
            prop_assert_eq!(read.entries(&old).unwrap().len(), entries.len());
        }

        #[test]
        fn garbage_is_harmless(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let mut bytes = bytes;
            if bytes.len() >= 4 {
                bytes[..4].copy_from_slice(&MAGIC.to_le_bytes());
            }
            if let Some(header) = Header::parse(&bytes) {
                let _ = header.entries(&bytes);
            }
        }
    }
}
