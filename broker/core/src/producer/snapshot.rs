//! Producer state as Kafka's `.snapshot` file, format 1, with the window of five behind it.
//!
//! Kafka's part: version (int16), CRC-32C (uint32) of all that follows it in the file, then an array of entries, each
//! with the producer's *last* batch only. Kafka's readers parse the array and ignore what stands behind it, but their
//! CRC covers the whole file; so the older batches of each window follow there, under the same CRC, and one file (one
//! write, one sync, one name) carries everything or nothing. A file that Kafka wrote has no such part: its windows
//! hold one batch. A snapshot named for offset N is the state before N; the opener loads the newest one that is not
//! above the recovered log's end and feeds it the batches from N on, so the window is whole after any restart.
//! Never: accept a file whose CRC, counts or order is wrong; the log can always rebuild it.

use bytes::{Buf, BufMut, Bytes, BytesMut};

use super::{BatchMark, ProducerEntry, ProducerStates, WINDOW};
use crate::{Offset, ProducerEpoch, ProducerId, record::advance_sequence};

const VERSION: i16 = 1;
/// Where the bytes under the CRC begin.
const CRC_END: usize = 6;
/// Bytes of one of Kafka's entries.
const ENTRY_LENGTH: usize = 8 + 2 + 4 + 8 + 4 + 8 + 4 + 8;
/// Bytes of one older batch: first and last sequence, last offset, offset delta, timestamp.
const MARK_LENGTH: usize = 4 + 4 + 8 + 4 + 8;
/// Says that the windows follow Kafka's array: "GWN1".
const WINDOWS_MAGIC: u32 = 0x4757_4e31;

/// Why a snapshot is not believed. The state is then rebuilt from an older one or from the log.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SnapshotError {
    #[error("the file ends too early")]
    Short,
    #[error("version {0} is not 1")]
    Version(i16),
    #[error("CRC is {computed:#010x}, the file says {stored:#010x}")]
    Crc { stored: u32, computed: u32 },
    #[error("{0}")]
    Invalid(&'static str),
}

impl ProducerStates {
    /// The file's bytes.
    pub fn encode_snapshot(&self) -> Bytes {
        let mut out = BytesMut::with_capacity(CRC_END + 4 + self.producers.len() * ENTRY_LENGTH);
        out.put_i16(VERSION);
        out.put_u32(0);
        out.put_i32(self.producers.len() as i32);
        for (id, entry) in &self.producers {
            let last = entry.batches.back();
            out.put_i64(id.0);
            out.put_i16(entry.epoch.0);
            out.put_i32(last.map_or(-1, |mark| mark.last_sequence));
            out.put_i64(last.map_or(-1, |mark| mark.last_offset.0));
            out.put_i32(last.map_or(0, |mark| mark.offset_delta));
            out.put_i64(entry.last_timestamp);
            out.put_i32(entry.coordinator_epoch);
            out.put_i64(entry.transaction_start.map_or(-1, |offset| offset.0));
        }
        out.put_u32(WINDOWS_MAGIC);
        for entry in self.producers.values() {
            out.put_u8(entry.batches.len() as u8);
            for mark in &entry.batches {
                out.put_i32(mark.first_sequence);
                out.put_i32(mark.last_sequence);
                out.put_i64(mark.last_offset.0);
                out.put_i32(mark.offset_delta);
                out.put_i64(mark.timestamp);
            }
        }
        let crc = crc32c::crc32c(&out[CRC_END..]);
        out[2..CRC_END].copy_from_slice(&crc.to_be_bytes());
        out.freeze()
    }

    /// Reads a file of ours or of Kafka's.
    pub fn decode_snapshot(bytes: &[u8]) -> Result<ProducerStates, SnapshotError> {
        let mut input = bytes;
        let version = input.try_get_i16().map_err(|_| SnapshotError::Short)?;
        if version != VERSION {
            return Err(SnapshotError::Version(version));
        }
        let stored = input.try_get_u32().map_err(|_| SnapshotError::Short)?;
        let computed = crc32c::crc32c(input);
        if stored != computed {
            return Err(SnapshotError::Crc { stored, computed });
        }
        let count = input.try_get_i32().map_err(|_| SnapshotError::Short)?;
        let mut states = ProducerStates::new();
        for _ in 0..count {
            let (id, entry) = decode_entry(&mut input)?;
            if states.producers.insert(id, entry).is_some() {
                return Err(SnapshotError::Invalid("a producer id comes twice"));
            }
        }
        if input.remaining() >= 4 && input.get_u32() == WINDOWS_MAGIC {
            for entry in states.producers.values_mut() {
                entry.batches = decode_window(&mut input)?.into();
            }
        }
        Ok(states)
    }
}

fn decode_entry(input: &mut &[u8]) -> Result<(ProducerId, ProducerEntry), SnapshotError> {
    if input.remaining() < ENTRY_LENGTH {
        return Err(SnapshotError::Short);
    }
    let id = ProducerId(input.get_i64());
    let mut entry = ProducerEntry::new(ProducerEpoch(input.get_i16()));
    let last_sequence = input.get_i32();
    let last_offset = Offset(input.get_i64());
    let offset_delta = input.get_i32();
    entry.last_timestamp = input.get_i64();
    entry.coordinator_epoch = input.get_i32();
    let transaction_start = input.get_i64();
    entry.transaction_start = (transaction_start >= 0).then_some(Offset(transaction_start));
    if last_sequence >= 0 && last_offset.0 >= 0 {
        if offset_delta < 0 || i64::from(offset_delta) > last_offset.0 {
            return Err(SnapshotError::Invalid("an impossible offset delta"));
        }
        entry.batches.push_back(BatchMark {
            // The batch's first sequence lies as far back as its first offset, over the wrap if need be.
            first_sequence: advance_sequence(last_sequence, -offset_delta),
            last_sequence,
            last_offset,
            offset_delta,
            timestamp: entry.last_timestamp,
        });
    }
    Ok((id, entry))
}

fn decode_window(input: &mut &[u8]) -> Result<Vec<BatchMark>, SnapshotError> {
    let count = usize::from(input.try_get_u8().map_err(|_| SnapshotError::Short)?);
    if count > WINDOW {
        return Err(SnapshotError::Invalid("a window of more than five batches"));
    }
    if input.remaining() < count * MARK_LENGTH {
        return Err(SnapshotError::Short);
    }
    let mark = |input: &mut &[u8]| BatchMark {
        first_sequence: input.get_i32(),
        last_sequence: input.get_i32(),
        last_offset: Offset(input.get_i64()),
        offset_delta: input.get_i32(),
        timestamp: input.get_i64(),
    };
    let marks: Vec<BatchMark> = (0..count).map(|_| mark(input)).collect();
    if marks.iter().any(|mark| !(0..=mark.last_offset.0).contains(&i64::from(mark.offset_delta))) {
        return Err(SnapshotError::Invalid("an impossible offset delta in a window"));
    }
    Ok(marks)
}

#[cfg(test)]
mod tests {
    use super::super::Verdict;
    use super::*;
    use crate::LeaderEpoch;
    use crate::record::{Batch, BatchBuilder, BatchHeader};
    use proptest::prelude::*;

    fn batch(id: i64, epoch: i16, sequence: i32, count: usize, at: i64) -> BatchHeader {
        let builder = BatchBuilder::new().producer(ProducerId(id), ProducerEpoch(epoch), sequence);
        let bytes = (0..count).fold(builder, |builder, _| builder.value(at * 10, "v")).build();
        Batch::check(bytes).unwrap().header.stamp(Offset(at), LeaderEpoch(0))
    }

    /// Kafka's layout by hand: one producer 7, epoch 2, whose last batch has the sequences 10 to 12.
    fn kafkas_file() -> Vec<u8> {
        let mut entries = vec![0, 0, 0, 1];
        entries.extend(7i64.to_be_bytes());
        entries.extend(2i16.to_be_bytes());
        entries.extend(12i32.to_be_bytes());
        entries.extend(102i64.to_be_bytes());
        entries.extend(2i32.to_be_bytes());
        entries.extend(5000i64.to_be_bytes());
        entries.extend((-1i32).to_be_bytes());
        entries.extend((-1i64).to_be_bytes());
        let mut file = vec![0, 1];
        file.extend(crc32c::crc32c(&entries).to_be_bytes());
        file.extend(entries);
        file
    }

    #[test]
    fn a_file_of_kafkas_tells_the_last_batch() {
        let states = ProducerStates::decode_snapshot(&kafkas_file()).unwrap();
        let again = states.check(&batch(7, 2, 10, 3, 0)).unwrap();
        let there =
            Verdict::Duplicate { base_offset: Offset(100), last_offset: Offset(102), timestamp: 5000 };
        assert_eq!(again, there);
    }

    #[test]
    fn our_file_begins_like_kafkas() {
        let mut states = ProducerStates::new();
        let mut header = batch(7, 2, 10, 3, 100);
        header.max_timestamp = 5000;
        states.record(&header);
        let ours = states.encode_snapshot();
        let kafkas = kafkas_file();
        assert_eq!(ours[..2], kafkas[..2]);
        assert_eq!(ours[6..kafkas.len()], kafkas[6..]);
        assert_eq!(
            u32::from_be_bytes(ours[2..6].try_into().unwrap()),
            crc32c::crc32c(&ours[6..]),
            "over all the rest"
        );
    }

    #[test]
    fn a_damaged_or_cut_file_is_not_believed() {
        let mut states = ProducerStates::new();
        states.record(&batch(7, 2, 10, 3, 100));
        let file = states.encode_snapshot();
        for at in 0..file.len() {
            assert!(ProducerStates::decode_snapshot(&file[..at]).is_err(), "cut at {at}");
            let mut damaged = file.to_vec();
            damaged[at] ^= 1;
            assert!(ProducerStates::decode_snapshot(&damaged).is_err(), "damaged at {at}");
        }
    }

    #[test]
    fn a_batch_across_the_wrap_keeps_its_first_sequence() {
        let mut states = ProducerStates::new();
        states.record(&batch(1, 0, i32::MAX - 1, 4, 50));
        let mut file = states.encode_snapshot().to_vec();
        // As Kafka would have written it: without our part.
        file.truncate(CRC_END + 4 + ENTRY_LENGTH);
        let crc = crc32c::crc32c(&file[CRC_END..]);
        file[2..CRC_END].copy_from_slice(&crc.to_be_bytes());
        assert_eq!(ProducerStates::decode_snapshot(&file), Ok(states));
    }

    proptest! {
        #[test]
        fn what_is_encoded_is_decoded(
            steps in proptest::collection::vec((0..6i64, 0..3i16, 0..i32::MAX, 1..4usize, any::<[bool; 2]>()), 0..60)
        ) {
            let mut states = ProducerStates::new();
            let mut at = 0;
            for (id, epoch, sequence, count, [transactional, control]) in steps {
                let mut header = batch(id, epoch, sequence, count, at);
                header.attributes |= if transactional { 0x10 } else { 0 } | if control { 0x20 } else { 0 };
                at = header.next_offset().0;
                states.record(&header);
                if control {
                    states.record_coordinator(ProducerId(id), at as i32);
                }
            }
            prop_assert_eq!(ProducerStates::decode_snapshot(&states.encode_snapshot()), Ok(states));
        }

        #[test]
        fn any_bytes_decode_or_fail_without_panic(mut bytes in proptest::collection::vec(any::<u8>(), 6..200)) {
            bytes[..2].copy_from_slice(&[0, 1]);
            let crc = crc32c::crc32c(&bytes[CRC_END..]);
            bytes[2..CRC_END].copy_from_slice(&crc.to_be_bytes());
            let _ = ProducerStates::decode_snapshot(&bytes);
        }
    }
}
