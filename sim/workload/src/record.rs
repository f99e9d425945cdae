//! Records that prove themselves: each value names its id, topic and partition and fills the rest from its id.
//!
//! The model: a value is unique over a run (its id is the client's number and a counter) and every byte of it follows
//! from id, topic, partition and length; key and headers follow from the id too. So a reader tells from one record
//! alone whether it was changed, moved to another partition, or never written at all.
//! Never: the broker's own record code, or the judged would be the judge.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use rand_xoshiro::{
    SplitMix64,
    rand_core::{RngCore, SeedableRng},
};

use crate::{packing, plan::Codec};

/// Identity of a record's value: client number in the upper 24 bits, counter below.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ValueId(pub u64);

impl ValueId {
    /// The `count`-th value of client `number`.
    pub fn new(number: u32, count: u64) -> Self {
        assert!(number < 1 << 23 && count < 1 << 40, "value ids are used up");
        Self(u64::from(number) << 40 | count)
    }
}

/// A good mixer of 64 bits.
pub(crate) fn mix(value: u64) -> u64 {
    SplitMix64::seed_from_u64(value).next_u64()
}

const VALUE_MAGIC: u16 = 0x4756;
/// The byte that holds the length of the topic's name holds the codec of its batch above it.
const CODEC_SHIFT: u32 = 5;
const LONGEST_NAME: u8 = (1 << CODEC_SHIFT) - 1;
/// Bytes of a record batch header (format v2).
pub const BATCH_HEADER: usize = 61;

/// A record to write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NewRecord {
    /// Its identity.
    pub id: ValueId,
    /// Create time, milliseconds since the epoch.
    pub timestamp: i64,
    /// Bytes of filler.
    pub filler: u32,
}

/// Producer fields of a batch: id, epoch, first sequence; all −1 for a plain producer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sequenced {
    /// Producer id.
    pub producer_id: i64,
    /// Producer epoch.
    pub epoch: i16,
    /// Sequence of the first record.
    pub sequence: i32,
}

impl Sequenced {
    /// A plain producer.
    pub const NONE: Sequenced = Sequenced { producer_id: -1, epoch: -1, sequence: -1 };
}

/// `sequence` moved on by `count`, from 2³¹−1 to 0.
pub fn sequence_after(sequence: i32, count: i32) -> i32 {
    (i64::from(sequence) + i64::from(count)).rem_euclid(1 << 31) as i32
}

fn encode_records(topic: &str, partition: i32, records: &[NewRecord], sent_in: u8) -> Bytes {
    let base_timestamp = records[0].timestamp;
    let mut body = Vec::with_capacity(records.iter().map(|record| record.filler as usize + 96).sum());
    let mut scratch = Vec::new();
    for (index, record) in records.iter().enumerate() {
        scratch.clear();
        let place = (index as i64, record.timestamp - base_timestamp);
        put_record(&mut scratch, topic, partition, record, sent_in, place);
        put_varint(&mut body, scratch.len() as i64);
        body.extend_from_slice(&scratch);
    }
    body.into()
}

/// The most bytes of a batch whose records take `plain` bytes, whatever codec it is stored in: what cannot be compressed grows by a sixth at
/// most (snappy's own bound, the largest), and a frame.
pub fn stored_at_most(plain: usize) -> usize {
    const FRAME: usize = 64;
    BATCH_HEADER + plain + plain / 6 + FRAME
}

/// Encodes one batch of format v2, offsets from 0.
pub fn encode_batch(
    topic: &str,
    partition: i32,
    records: &[NewRecord],
    codec: Codec,
    sequenced: Sequenced,
) -> Bytes {
    encode_sized(topic, partition, records, codec, sequenced).0
}

/// The same, and the bytes that its records take without a codec.
pub(crate) fn encode_sized(
    topic: &str,
    partition: i32,
    records: &[NewRecord],
    codec: Codec,
    sequenced: Sequenced,
) -> (Bytes, usize) {
    assert!(!records.is_empty(), "a batch holds at least one record");
    let base_timestamp = records[0].timestamp;
    let max_timestamp = records.iter().map(|record| record.timestamp).max().unwrap_or(base_timestamp);
    let plain = encode_records(topic, partition, records, packing::attribute(codec) as u8);
    let plain_bytes = plain.len();
    let body = packing::pack(codec, plain);
    let mut batch = BytesMut::with_capacity(BATCH_HEADER + body.len());
    batch.put_i64(0);
    batch.put_i32((BATCH_HEADER - 12 + body.len()) as i32);
    batch.put_i32(-1);
    batch.put_i8(2);
    batch.put_u32(0);
    batch.put_i16(packing::attribute(codec));
    batch.put_i32(records.len() as i32 - 1);
    batch.put_i64(base_timestamp);
    batch.put_i64(max_timestamp);
    batch.put_i64(sequenced.producer_id);
    batch.put_i16(sequenced.epoch);
    batch.put_i32(sequenced.sequence);
    batch.put_i32(records.len() as i32);
    batch.extend_from_slice(&body);
    (checksummed(batch), plain_bytes)
}

/// The batch with `time_ms` for the largest timestamp in its header, whatever its records say; −1 is none.
pub(crate) fn with_max_timestamp(batch: &[u8], time_ms: i64) -> Bytes {
    let mut batch = BytesMut::from(batch);
    batch[35..43].copy_from_slice(&time_ms.to_be_bytes());
    checksummed(batch)
}

/// What a batch says that nobody could read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Forgery {
    /// One record more than there is.
    OneMore,
    /// One record less.
    OneLess,
    /// A byte behind the last record.
    ByteBehind,
    /// The last record lacks its last byte.
    CutRecord,
    /// Two records with the same offset.
    SameOffset,
    /// The frame lacks its last byte.
    CutFrame,
    /// Packed twice.
    Twice,
    /// The number of another codec.
    OtherCodec,
    /// A bit of the records is not what it was when the checksum was computed.
    FlippedBit,
}

impl Forgery {
    pub(crate) const ALL: [Forgery; 9] = [
        Forgery::OneMore,
        Forgery::OneLess,
        Forgery::ByteBehind,
        Forgery::CutRecord,
        Forgery::SameOffset,
        Forgery::CutFrame,
        Forgery::Twice,
        Forgery::OtherCodec,
        Forgery::FlippedBit,
    ];

    /// A batch of at least two `records` that is forged in this way, its length right, and its checksum too but where that is
    /// the forgery. Without a codec only what is inside can be.
    pub(crate) fn batch(self, topic: &str, partition: i32, records: &[NewRecord], codec: Codec) -> Bytes {
        let mut body = BytesMut::from(&encode_records(topic, partition, records, 0)[..]);
        let mut count = records.len() as i32;
        let packed = codec != Codec::None;
        match self {
            Forgery::OneMore => count += 1,
            Forgery::OneLess => count -= 1,
            Forgery::SameOffset => {
                body = records
                    .iter()
                    .flat_map(|record| encode_records(topic, partition, &[*record], 0))
                    .collect();
            }
            Forgery::CutRecord => body.truncate(body.len() - 1),
            Forgery::CutFrame | Forgery::Twice | Forgery::OtherCodec if packed => {}
            Forgery::FlippedBit => {}
            Forgery::ByteBehind | Forgery::CutFrame | Forgery::Twice | Forgery::OtherCodec => body.put_u8(0),
        }
        let mut frame = packing::pack(codec, body.freeze());
        let mut attribute = packing::attribute(codec);
        match self {
            Forgery::CutFrame if packed => frame.truncate(frame.len() - 1),
            Forgery::Twice if packed => frame = packing::pack(codec, frame),
            Forgery::OtherCodec if packed => attribute = attribute % 4 + 1,
            _ => {}
        }
        let mut batch = BytesMut::from(
            &encode_batch(topic, partition, records, Codec::None, Sequenced::NONE)[..BATCH_HEADER],
        );
        batch[8..12].copy_from_slice(&((BATCH_HEADER - 12 + frame.len()) as i32).to_be_bytes());
        batch[21..23].copy_from_slice(&attribute.to_be_bytes());
        batch[23..27].copy_from_slice(&(count - 1).to_be_bytes());
        batch[57..61].copy_from_slice(&count.to_be_bytes());
        batch.extend_from_slice(&frame);
        let batch = checksummed(batch);
        if self != Forgery::FlippedBit {
            return batch;
        }
        // Any of them, and always the same one of the same batch.
        let mut flipped = BytesMut::from(&batch[..]);
        let at = BATCH_HEADER + records[0].id.0 as usize % frame.len();
        flipped[at] ^= 1 << (records[0].id.0 / 7 % 8);
        flipped.freeze()
    }
}

/// The batch with the checksum that its bytes have.
pub(crate) fn checksummed(mut batch: BytesMut) -> Bytes {
    let crc = crc32c::crc32c(&batch[21..]);
    batch[17..21].copy_from_slice(&crc.to_be_bytes());
    batch.freeze()
}

fn put_record(
    out: &mut Vec<u8>,
    topic: &str,
    partition: i32,
    record: &NewRecord,
    sent_in: u8,
    (offset, time): (i64, i64),
) {
    out.put_i8(0);
    put_varint(out, time);
    put_varint(out, offset);
    let id = record.id.0;
    match key_of(record.id) {
        None => put_varint(out, -1),
        Some(key) => {
            put_varint(out, key.len() as i64);
            out.extend_from_slice(&key);
        }
    }
    put_varint(out, value_length(topic, record.filler) as i64);
    out.put_u16(VALUE_MAGIC);
    out.put_u64(id);
    out.put_i32(partition);
    assert!(topic.len() <= usize::from(LONGEST_NAME), "{topic} is too long a name for records of ours");
    out.put_u8(topic.len() as u8 | sent_in << CODEC_SHIFT);
    out.extend_from_slice(topic.as_bytes());
    put_filler(out, id, record.filler as usize);
    let headers = headers_of(record.id);
    put_varint(out, headers.len() as i64);
    for (name, value) in headers {
        put_varint(out, name.len() as i64);
        out.extend_from_slice(name.as_bytes());
        match value {
            None => put_varint(out, -1),
            Some(value) => {
                put_varint(out, value.len() as i64);
                out.extend_from_slice(&value);
            }
        }
    }
}

fn value_length(topic: &str, filler: u32) -> usize {
    2 + 8 + 4 + 1 + topic.len() + filler as usize
}

/// Whether the record of this value has a key.
pub(crate) fn has_key(id: ValueId) -> bool {
    key_of(id).is_some()
}

/// Two records in three have a key.
fn key_of(id: ValueId) -> Option<[u8; 8]> {
    let drawn = mix(id.0);
    (!drawn.is_multiple_of(3)).then(|| drawn.to_be_bytes())
}

/// One record in eight has headers: two of the same name, one of them null.
fn headers_of(id: ValueId) -> Vec<(&'static str, Option<[u8; 8]>)> {
    let drawn = mix(id.0 ^ 0x4844);
    if drawn.is_multiple_of(8) { vec![("h", Some(drawn.to_be_bytes())), ("h", None)] } else { Vec::new() }
}

fn put_filler(out: &mut Vec<u8>, id: u64, length: usize) {
    let begin = out.len();
    out.resize(begin + length, 0);
    let mut state = id;
    for chunk in out[begin..].chunks_mut(8) {
        state = mix(state);
        chunk.copy_from_slice(&state.to_le_bytes()[..chunk.len()]);
    }
}

fn filler_is_right(bytes: &[u8], id: u64) -> bool {
    let mut state = id;
    let (words, rest) = bytes.as_chunks::<8>();
    let right = words.iter().all(|word| {
        state = mix(state);
        u64::from_le_bytes(*word) == state
    });
    right && *rest == mix(state).to_le_bytes()[..rest.len()]
}

fn put_varint(out: &mut Vec<u8>, value: i64) {
    let mut rest = ((value << 1) ^ (value >> 63)) as u64;
    while rest >= 0x80 {
        out.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    out.push(rest as u8);
}

/// Why bytes that a broker returned cannot be what a client wrote.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Damage {
    /// Not a batch of format v2.
    #[error("not a record batch: {0}")]
    NotABatch(&'static str),
    /// Bytes changed on their way.
    #[error("CRC-32C of the batch at offset {0} is wrong")]
    Checksum(i64),
    /// A record that no client of ours wrote, or one that was changed.
    #[error("record at offset {0}: {1}")]
    Record(i64, &'static str),
}

/// A batch as read back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReadBatch {
    /// Offset of the first record.
    pub base_offset: i64,
    /// Offset of the last record.
    pub last_offset: i64,
    /// Epoch of the leader that appended it.
    pub leader_epoch: i32,
    /// Producer fields as stored.
    pub sequenced: Sequenced,
    /// Whether the broker set the timestamps (LogAppendTime).
    pub log_append_time: bool,
    /// Number of the codec that it is stored in.
    pub codec: u8,
    /// Bytes of the whole batch.
    pub length: usize,
    /// The records, by offset.
    pub records: Vec<ReadRecord>,
}

/// A record as read back, found to be whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReadRecord {
    /// Its offset.
    pub offset: i64,
    /// Its value's identity.
    pub id: ValueId,
    /// Its timestamp, milliseconds.
    pub timestamp: i64,
    /// Bytes of filler in its value.
    pub filler: u32,
    /// Number of the codec that it was sent in.
    pub sent_in: u8,
}

/// Decodes and checks whole batches from fetched bytes; a cut one at the end is left out.
pub fn decode_batches(topic: &str, partition: i32, mut bytes: Bytes) -> Result<Vec<ReadBatch>, Damage> {
    let mut batches = Vec::new();
    while bytes.len() >= BATCH_HEADER {
        let length = i32::from_be_bytes([bytes[8], bytes[9], bytes[10], bytes[11]]);
        let Ok(total) = usize::try_from(i64::from(length) + 12) else {
            return Err(Damage::NotABatch("negative length"));
        };
        if total < BATCH_HEADER {
            return Err(Damage::NotABatch("shorter than its header"));
        }
        if bytes.len() < total {
            break;
        }
        batches.push(decode_batch(topic, partition, bytes.split_to(total))?);
    }
    Ok(batches)
}

fn decode_batch(topic: &str, partition: i32, batch: Bytes) -> Result<ReadBatch, Damage> {
    let length = batch.len();
    let mut header = batch.slice(..BATCH_HEADER);
    let base_offset = header.get_i64();
    header.advance(4);
    let leader_epoch = header.get_i32();
    if header.get_i8() != 2 {
        return Err(Damage::NotABatch("magic is not 2"));
    }
    if header.get_u32() != crc32c::crc32c(&batch[21..]) {
        return Err(Damage::Checksum(base_offset));
    }
    let attributes = header.get_i16();
    let last_offset_delta = header.get_i32();
    let base_timestamp = header.get_i64();
    let max_timestamp = header.get_i64();
    let sequenced =
        Sequenced { producer_id: header.get_i64(), epoch: header.get_i16(), sequence: header.get_i32() };
    let count = header.get_i32();
    let body = packing::unpack(attributes, batch.slice(BATCH_HEADER..))
        .ok_or(Damage::Record(base_offset, "its compression is not what clients of ours write"))?;
    let log_append_time = attributes & 8 != 0;
    let mut body = &body[..];
    let mut records = Vec::with_capacity(count.clamp(0, 10_000) as usize);
    for _ in 0..count {
        let damaged = |what| Damage::Record(base_offset, what);
        let size = get_varint(&mut body).ok_or(damaged("length cut"))?;
        if size < 0 || size as usize > body.len() {
            return Err(damaged("length beyond its batch"));
        }
        let (record, rest) = body.split_at(size as usize);
        body = rest;
        let mut record = decode_record(topic, partition, record, base_offset)?;
        record.timestamp = if log_append_time { max_timestamp } else { base_timestamp + record.timestamp };
        records.push(record);
    }
    if !body.is_empty() {
        return Err(Damage::Record(base_offset, "bytes behind its last record"));
    }
    let last_offset = base_offset + i64::from(last_offset_delta);
    let codec = (attributes & 7) as u8;
    Ok(ReadBatch {
        base_offset,
        last_offset,
        leader_epoch,
        sequenced,
        log_append_time,
        codec,
        length,
        records,
    })
}

/// The record with its timestamp still relative to the batch.
fn decode_record(
    topic: &str,
    partition: i32,
    mut body: &[u8],
    base_offset: i64,
) -> Result<ReadRecord, Damage> {
    let damaged = |what| Damage::Record(base_offset, what);
    if body.is_empty() {
        return Err(damaged("empty"));
    }
    body.advance(1);
    let timestamp = get_varint(&mut body).ok_or(damaged("timestamp cut"))?;
    let offset = base_offset + get_varint(&mut body).ok_or(damaged("offset cut"))?;
    let damaged = |what| Damage::Record(offset, what);
    let key = get_bytes(&mut body).ok_or(damaged("key cut"))?;
    let value = get_bytes(&mut body).ok_or(damaged("value cut"))?.ok_or(damaged("null value"))?;
    let (id, filler, sent_in) = check_value(topic, partition, value).map_err(damaged)?;
    if key != key_of(id).as_ref().map(|key| key.as_slice()) {
        return Err(damaged("another key"));
    }
    let headers = headers_of(id);
    if get_varint(&mut body) != Some(headers.len() as i64) {
        return Err(damaged("another number of headers"));
    }
    for (name, content) in headers {
        let found_name = get_bytes(&mut body).flatten().ok_or(damaged("header cut"))?;
        let found = get_bytes(&mut body).ok_or(damaged("header cut"))?;
        if found_name != name.as_bytes() || found != content.as_ref().map(|content| content.as_slice()) {
            return Err(damaged("another header"));
        }
    }
    Ok(ReadRecord { offset, id, timestamp, filler, sent_in })
}

fn check_value(topic: &str, partition: i32, mut value: &[u8]) -> Result<(ValueId, u32, u8), &'static str> {
    if value.len() < 15 || value.get_u16() != VALUE_MAGIC {
        return Err("not a value of ours");
    }
    let id = value.get_u64();
    if value.get_i32() != partition {
        return Err("written to another partition");
    }
    let tag = value.get_u8();
    let (length, sent_in) = (usize::from(tag & LONGEST_NAME), tag >> CODEC_SHIFT);
    let Some(filler) = value.strip_prefix(topic.as_bytes()).filter(|_| length == topic.len()) else {
        return Err("written to another topic");
    };
    if !filler_is_right(filler, id) {
        return Err("changed bytes");
    }
    Ok((ValueId(id), filler.len() as u32, sent_in))
}

fn get_varint(bytes: &mut &[u8]) -> Option<i64> {
    let mut value = 0u64;
    for shift in (0..64).step_by(7) {
        let byte = *bytes.split_off_first()?;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some((value >> 1) as i64 ^ -((value & 1) as i64));
        }
    }
    None
}

/// A length-prefixed field: outer `None` when cut, inner `None` when null.
fn get_bytes<'a>(bytes: &mut &'a [u8]) -> Option<Option<&'a [u8]>> {
    let length = get_varint(bytes)?;
    if length == -1 {
        return Some(None);
    }
    let length = usize::try_from(length).ok()?;
    bytes.split_off(..length).map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;

    const CODECS: [Codec; 5] = [Codec::None, Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd];

    fn some_records(count: u64) -> Vec<NewRecord> {
        (0..count)
            .map(|index| NewRecord {
                id: ValueId::new(3, index),
                timestamp: 1_700_000_000_000 + index as i64 * 3,
                filler: (mix(index) % 700) as u32,
            })
            .collect()
    }

    #[test]
    fn what_is_written_is_read_back_in_every_codec() {
        let sequenced = Sequenced { producer_id: 9, epoch: 2, sequence: 40 };
        for codec in CODECS {
            for count in [1, 2, 400] {
                let records = some_records(count);
                let bytes = encode_batch("t", 4, &records, codec, sequenced);
                let read = decode_batches("t", 4, bytes).unwrap();
                assert_eq!(read.len(), 1);
                assert_eq!(read[0].sequenced, sequenced);
                assert_eq!(read[0].last_offset, count as i64 - 1);
                let expected: Vec<_> = records
                    .iter()
                    .enumerate()
                    .map(|(index, record)| ReadRecord {
                        offset: index as i64,
                        id: record.id,
                        timestamp: record.timestamp,
                        filler: record.filler,
                        sent_in: codec as u8,
                    })
                    .collect();
                assert_eq!(read[0].records, expected, "{codec:?}");
            }
        }
    }

    #[test]
    fn what_is_forged_cannot_be_read_and_a_missing_timestamp_changes_nothing_else() {
        for codec in CODECS {
            for count in [2, 7] {
                let records = some_records(count);
                for forgery in Forgery::ALL {
                    let read = decode_batches("t", 4, forgery.batch("t", 4, &records, codec));
                    let moved = read.is_ok_and(|read| {
                        read[0].records.iter().zip(0..).all(|(record, offset)| record.offset == offset)
                    });
                    assert!(!moved, "{codec:?} {forgery:?}");
                }
                let bytes = encode_batch("t", 4, &records, codec, Sequenced::NONE);
                let whole = decode_batches("t", 4, bytes.clone()).unwrap();
                assert_eq!(decode_batches("t", 4, with_max_timestamp(&bytes, -1)).unwrap(), whole);
            }
        }
    }

    #[test]
    fn a_changed_byte_is_noticed_even_under_a_right_checksum() {
        let original = encode_batch("t", 0, &some_records(3), Codec::None, Sequenced::NONE);
        let whole = decode_batches("t", 0, original.clone()).unwrap();
        // From the records on; times and offsets of the header are the broker's business.
        for position in BATCH_HEADER..original.len() {
            let mut bytes = BytesMut::from(&original[..]);
            bytes[position] ^= 0x10;
            let changed = bytes.clone().freeze();
            assert!(matches!(decode_batches("t", 0, changed), Err(Damage::Checksum(0))), "byte {position}");
            let crc = crc32c::crc32c(&bytes[21..]);
            bytes[17..21].copy_from_slice(&crc.to_be_bytes());
            match decode_batches("t", 0, bytes.freeze()) {
                Err(_) => {}
                // The record's own attributes are unused, time and offset deltas are judged with the history.
                Ok(read) => {
                    assert!(read != whole || original[position] == 0, "byte {position} of {original:02x?}")
                }
            }
        }
    }

    #[test]
    fn a_record_in_the_wrong_place_is_noticed() {
        let bytes = encode_batch("t", 0, &some_records(1), Codec::None, Sequenced::NONE);
        assert!(matches!(decode_batches("t", 1, bytes.clone()), Err(Damage::Record(0, _))));
        assert!(matches!(decode_batches("u", 0, bytes), Err(Damage::Record(0, _))));
    }

    #[test]
    fn a_cut_batch_at_the_end_is_left_out() {
        let bytes = encode_batch("t", 0, &some_records(2), Codec::None, Sequenced::NONE);
        let mut two = BytesMut::from(&bytes[..]);
        two.extend_from_slice(&bytes[..bytes.len() - 1]);
        assert_eq!(decode_batches("t", 0, two.freeze()).unwrap().len(), 1);
    }

    #[test]
    fn sequences_wrap_to_zero() {
        assert_eq!(sequence_after(i32::MAX, 1), 0);
        assert_eq!(sequence_after(i32::MAX - 1, 4), 2);
        assert_eq!(sequence_after(5, 3), 8);
    }
}
