//! The 61 bytes in front of every batch (magic 2, KIP-98), read and written without touching the records.
//!
//! Base offset and leader epoch lie outside the CRC, so that the broker stamps both and leaves the rest as the
//! producer made it. Never: allocate, or believe a length or count that the bytes cannot back.

use super::{BatchError, Codec, HEADER_LENGTH, LOG_OVERHEAD, TimestampType};
use crate::{LeaderEpoch, Offset, ProducerEpoch, ProducerId};

/// Where the bytes that the CRC covers begin: at `attributes`.
pub(crate) const CRC_START: usize = 21;
/// Attribute bits 0–2: codec.
pub(crate) const CODEC_MASK: i16 = 0x07;
/// Attribute bit 3: timestamps are the broker's.
pub(crate) const LOG_APPEND_TIME: i16 = 0x08;
/// Attribute bit 4: part of a transaction.
pub(crate) const TRANSACTIONAL: i16 = 0x10;
/// Attribute bit 5: control records (markers), not data.
pub(crate) const CONTROL: i16 = 0x20;

/// The header of a batch, decoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchHeader {
    pub base_offset: Offset,
    /// Bytes after this field: total length − 12.
    pub batch_length: i32,
    pub leader_epoch: LeaderEpoch,
    pub magic: i8,
    /// CRC-32C of everything from `attributes` on.
    pub crc: u32,
    pub attributes: i16,
    pub last_offset_delta: i32,
    pub base_timestamp: i64,
    pub max_timestamp: i64,
    pub producer_id: ProducerId,
    pub producer_epoch: ProducerEpoch,
    pub base_sequence: i32,
    pub record_count: i32,
}

/// Big-endian fields at fixed places; callers have checked the length.
fn field<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    bytes[at..at + N].try_into().expect("a slice of N bytes")
}

impl BatchHeader {
    /// Reads the header at the front of `bytes`, which may end anywhere after it. Checks what the header alone
    /// can prove: magic, a length that holds a header, offsets and counts that are not negative and do not overflow.
    pub fn parse(bytes: &[u8]) -> Result<BatchHeader, BatchError> {
        if bytes.len() < HEADER_LENGTH {
            return Err(BatchError::Incomplete { have: bytes.len(), need: HEADER_LENGTH });
        }
        let header = BatchHeader {
            base_offset: Offset(i64::from_be_bytes(field(bytes, 0))),
            batch_length: i32::from_be_bytes(field(bytes, 8)),
            leader_epoch: LeaderEpoch(i32::from_be_bytes(field(bytes, 12))),
            magic: bytes[16] as i8,
            crc: u32::from_be_bytes(field(bytes, 17)),
            attributes: i16::from_be_bytes(field(bytes, 21)),
            last_offset_delta: i32::from_be_bytes(field(bytes, 23)),
            base_timestamp: i64::from_be_bytes(field(bytes, 27)),
            max_timestamp: i64::from_be_bytes(field(bytes, 35)),
            producer_id: ProducerId(i64::from_be_bytes(field(bytes, 43))),
            producer_epoch: ProducerEpoch(i16::from_be_bytes(field(bytes, 51))),
            base_sequence: i32::from_be_bytes(field(bytes, 53)),
            record_count: i32::from_be_bytes(field(bytes, 57)),
        };
        if header.magic != 2 {
            return Err(BatchError::Magic(header.magic));
        }
        if header.batch_length < (HEADER_LENGTH - LOG_OVERHEAD) as i32 {
            return Err(BatchError::Length(header.batch_length));
        }
        let end = header.base_offset.0.checked_add(i64::from(header.last_offset_delta) + 1);
        if header.base_offset.0 < 0
            || header.last_offset_delta < 0
            || header.record_count < 0
            || end.is_none()
        {
            return Err(BatchError::Counts {
                base_offset: header.base_offset.0,
                last_offset_delta: header.last_offset_delta,
                record_count: header.record_count,
            });
        }
        Ok(header)
    }

    /// Bytes of the whole batch, header included.
    pub fn total_length(&self) -> usize {
        LOG_OVERHEAD + self.batch_length as usize
    }

    /// Offset of the last record (also where compaction has removed it).
    pub fn last_offset(&self) -> Offset {
        self.base_offset.plus(i64::from(self.last_offset_delta))
    }

    /// The offset after the batch: where the next one begins.
    pub fn next_offset(&self) -> Offset {
        self.last_offset().plus(1)
    }

    /// How the records are compressed; bits that name no codec are an error.
    pub fn codec(&self) -> Result<Codec, BatchError> {
        Codec::from_id((self.attributes & CODEC_MASK) as u8)
    }

    /// Whether the batch belongs to a transaction.
    pub fn is_transactional(&self) -> bool {
        self.attributes & TRANSACTIONAL != 0
    }

    /// Whether the batch holds control records (transaction markers).
    pub fn is_control(&self) -> bool {
        self.attributes & CONTROL != 0
    }

    /// Whose clock the timestamps are.
    pub fn timestamp_type(&self) -> TimestampType {
        if self.attributes & LOG_APPEND_TIME != 0 {
            TimestampType::LogAppendTime
        } else {
            TimestampType::CreateTime
        }
    }

    /// Whether an idempotent or transactional producer sent it.
    pub fn has_producer(&self) -> bool {
        self.producer_id.0 >= 0
    }

    /// Sequence number of the last record; after 2³¹−1 comes 0. −1 without a sequence.
    pub fn last_sequence(&self) -> i32 {
        if self.base_sequence < 0 {
            return self.base_sequence;
        }
        advance_sequence(self.base_sequence, self.last_offset_delta)
    }

    /// The same batch at its place in the log. The CRC covers neither field.
    #[must_use]
    pub fn stamp(mut self, base_offset: Offset, leader_epoch: LeaderEpoch) -> BatchHeader {
        self.base_offset = base_offset;
        self.leader_epoch = leader_epoch;
        self
    }

    /// The header's bytes.
    pub fn encode(&self) -> [u8; HEADER_LENGTH] {
        let mut out = [0; HEADER_LENGTH];
        out[0..8].copy_from_slice(&self.base_offset.0.to_be_bytes());
        out[8..12].copy_from_slice(&self.batch_length.to_be_bytes());
        out[12..16].copy_from_slice(&self.leader_epoch.0.to_be_bytes());
        out[16] = self.magic as u8;
        out[17..21].copy_from_slice(&self.crc.to_be_bytes());
        out[21..23].copy_from_slice(&self.attributes.to_be_bytes());
        out[23..27].copy_from_slice(&self.last_offset_delta.to_be_bytes());
        out[27..35].copy_from_slice(&self.base_timestamp.to_be_bytes());
        out[35..43].copy_from_slice(&self.max_timestamp.to_be_bytes());
        out[43..51].copy_from_slice(&self.producer_id.0.to_be_bytes());
        out[51..53].copy_from_slice(&self.producer_epoch.0.to_be_bytes());
        out[53..57].copy_from_slice(&self.base_sequence.to_be_bytes());
        out[57..61].copy_from_slice(&self.record_count.to_be_bytes());
        out
    }

    /// CRC-32C of this header's covered fields followed by `payload`.
    pub(crate) fn crc_with(&self, payload: &[u8]) -> u32 {
        crc32c::crc32c_append(self.crc_alone(), payload)
    }

    /// The same where `before`, whose CRC is right, stood in front of the same `payload`. What is long is not read again: of
    /// two CRCs over as many bytes, the difference is that of what differs, moved on by the bytes behind it.
    pub(crate) fn crc_in_place_of(&self, before: &BatchHeader, payload: &[u8]) -> u32 {
        /// Moving on takes as long as reading so much.
        const LONG: usize = 128 << 10;
        if payload.len() < LONG {
            return self.crc_with(payload);
        }
        before.crc ^ crc32c::crc32c_combine(before.crc_alone() ^ self.crc_alone(), 0, payload.len())
    }

    fn crc_alone(&self) -> u32 {
        crc32c::crc32c(&self.encode()[CRC_START..])
    }
}

/// The sequence number `count` after `sequence`, or before it if negative; after 2³¹−1 comes 0.
pub(crate) fn advance_sequence(sequence: i32, count: i32) -> i32 {
    ((i64::from(sequence) + i64::from(count)) & i64::from(i32::MAX)) as i32
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn any_header() -> impl Strategy<Value = BatchHeader> {
        (
            (0..i64::MAX / 2, 49..i32::MAX, any::<i32>(), any::<u32>(), any::<i16>(), 0..i32::MAX),
            (any::<i64>(), any::<i64>(), any::<i64>(), any::<i16>(), any::<i32>(), 0..i32::MAX),
        )
            .prop_map(|(a, b)| BatchHeader {
                base_offset: Offset(a.0),
                batch_length: a.1,
                leader_epoch: LeaderEpoch(a.2),
                magic: 2,
                crc: a.3,
                attributes: a.4,
                last_offset_delta: a.5,
                base_timestamp: b.0,
                max_timestamp: b.1,
                producer_id: ProducerId(b.2),
                producer_epoch: ProducerEpoch(b.3),
                base_sequence: b.4,
                record_count: b.5,
            })
    }

    proptest! {
        #[test]
        fn what_is_encoded_is_parsed_back(header in any_header()) {
            prop_assert_eq!(BatchHeader::parse(&header.encode()), Ok(header));
        }

        #[test]
        fn any_bytes_parse_or_fail_without_panic(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            if let Ok(header) = BatchHeader::parse(&bytes) {
                header.next_offset();
                header.last_sequence();
                header.total_length();
            }
        }
    }

    #[test]
    fn another_header_gets_its_crc_without_a_look_at_what_is_behind_it() {
        let payload: Vec<u8> = (0..300_000u32).map(|number| ((number * 7) >> 3) as u8).collect();
        let batch = super::super::BatchBuilder::new().value(5, "a").build();
        let mut before = BatchHeader::parse(&batch).unwrap();
        for length in [0, 1, 1000, 131_071, 131_072, 131_073, 300_000] {
            let payload = &payload[..length];
            before.crc = before.crc_with(payload);
            let after = BatchHeader { max_timestamp: 77, attributes: 8, ..before };
            assert_eq!(after.crc_in_place_of(&before, payload), after.crc_with(payload), "{length}");
        }
    }

    #[test]
    fn after_the_last_sequence_comes_zero() {
        assert_eq!(advance_sequence(i32::MAX, 1), 0);
        assert_eq!(advance_sequence(i32::MAX - 1, 3), 1);
        assert_eq!(advance_sequence(7, 0), 7);
    }
}
