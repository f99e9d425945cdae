//! The records of a batch in every codec, whatever the payload is.
//!
//! Holds: decompression gives no more than its limit and takes memory by the limit and the input only; reading in full
//! and in outline agree; what was read and is built again reads the same. Input: a byte for the codec, one for the
//! attributes, two for the number of records, then the payload.

use std::ops::ControlFlow;

use bytes::Bytes;
use gracchus_core::{
    LeaderEpoch, Offset, ProducerEpoch, ProducerId,
    record::{
        Batch, BatchBuilder, BatchHeader, Codec, HEADER_LENGTH, RecordToWrite, RecordView, decompress,
        records, scan_records,
    },
};

use super::{batches::sample, seed};
use crate::{Seed, input::Input, memory::peak_of};

const LIMIT: usize = 64 << 10;
/// A codec's own blocks and tables: an LZ4 frame may have blocks of 8 MiB.
const CODEC_MEMORY: usize = 20 << 20;
/// What a header that is two bytes long takes when it is read: two slices.
const READ_PER_BYTE: usize = 64;
/// Bit 3 of the attributes: the timestamps are the broker's.
const LOG_APPEND_TIME: i16 = 8;

pub(super) fn run(input: &[u8]) -> bool {
    let mut input = Input(input);
    let codec = Codec::ALL[usize::from(input.byte()) % Codec::ALL.len()];
    let attributes = i16::from(input.byte()) & LOG_APPEND_TIME | codec as i16;
    let count = i32::from(input.u16());
    let payload = Bytes::copy_from_slice(input.rest());
    let (plain, peak) = peak_of(|| decompress(codec, &payload, LIMIT));
    assert!(peak <= CODEC_MEMORY + 4 * LIMIT + payload.len(), "{codec:?} took {peak} bytes");
    if let Ok(plain) = &plain {
        assert!(plain.len() <= LIMIT, "over the limit");
    }
    let batch = batch(attributes, count, &payload);
    let mut outlines = Vec::new();
    let (outline, peak) = peak_of(|| {
        scan_records(&batch, LIMIT, |meta| {
            outlines.push((meta.offset, meta.timestamp, meta.has_key));
            ControlFlow::Continue(())
        })
    });
    assert!(peak <= CODEC_MEMORY + 4 * LIMIT, "the outline took {peak} bytes");
    let (full, peak) = peak_of(|| records(&batch, LIMIT));
    assert!(peak <= CODEC_MEMORY + READ_PER_BYTE * LIMIT, "the records took {peak} bytes");
    let Ok(full) = full else { return false };
    assert!(plain.is_ok() && outline.is_ok(), "{:?} {outline:?}", plain.err());
    let seen: Vec<_> =
        full.iter().map(|record| (record.offset, record.timestamp, record.key.is_some())).collect();
    assert_eq!(seen, outlines);
    built_again(codec, &full);
    true
}

fn batch(attributes: i16, count: i32, payload: &Bytes) -> Batch {
    let header = BatchHeader {
        base_offset: Offset(1000),
        batch_length: (HEADER_LENGTH - 12 + payload.len()) as i32,
        leader_epoch: LeaderEpoch(0),
        magic: 2,
        crc: 0,
        attributes,
        last_offset_delta: 1 << 20,
        base_timestamp: 1_700_000_000_000,
        max_timestamp: 1_700_000_000_000,
        producer_id: ProducerId(-1),
        producer_epoch: ProducerEpoch(-1),
        base_sequence: -1,
        record_count: count,
    };
    let bytes = [&header.encode()[..], payload].concat();
    Batch { header, bytes: bytes.into() }
}

/// Builds a batch of the records and reads it: the same, but for offsets, which are numbered anew.
fn built_again(codec: Codec, read: &[RecordView]) {
    // The builder takes texts as names, and timestamps whose differences are numbers.
    let named =
        |record: &RecordView| record.headers.iter().all(|(name, _)| std::str::from_utf8(name).is_ok());
    if read.is_empty() || !read.iter().all(|record| named(record) && record.timestamp.abs() < i64::MAX / 4) {
        return;
    }
    let text = |name: &Bytes| String::from_utf8_lossy(name).into_owned();
    let mut builder = BatchBuilder::new().codec(codec);
    for record in read {
        builder = builder.record(RecordToWrite {
            timestamp: record.timestamp,
            key: record.key.clone(),
            value: record.value.clone(),
            headers: record.headers.iter().map(|(name, value)| (text(name), value.clone())).collect(),
        });
    }
    let batch = Batch::check(builder.build()).expect("a whole batch");
    let again = records(&batch, 4 * LIMIT).expect("what was built is read");
    let contents = |record: &RecordView| {
        (record.timestamp, record.key.clone(), record.value.clone(), record.headers.clone())
    };
    assert!(again.iter().map(contents).eq(read.iter().map(contents)));
}

pub(super) fn seeds() -> Vec<Seed> {
    let mut seeds = Vec::new();
    for codec in Codec::ALL {
        let batch = sample(codec).build();
        let input = [&[codec as u8, 0, 0, 3], &batch[HEADER_LENGTH..]].concat();
        seeds.push(seed(codec.name(), input));
        let zeros = BatchBuilder::new().codec(codec).value(0, vec![0; 4000]).build();
        seeds.push(seed(
            format!("{}-zeros", codec.name()),
            [&[codec as u8, 8, 0, 1], &zeros[HEADER_LENGTH..]].concat(),
        ));
    }
    // Raw snappy, as librdkafka sends it: 7 bytes as a literal.
    let raw = [&[Codec::Snappy as u8, 0, 0, 1, 7, 6 << 2][..], &[12, 0, 0, 0, 1, 1, 0]].concat();
    seeds.push(seed("snappy-raw", raw));
    seeds
}
