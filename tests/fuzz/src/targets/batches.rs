//! Produced batches: header, checks, validation, append time, and a look at the records.
//!
//! Holds: a header that parses encodes to its own bytes; what validation accepts is untouched and whole, stands every
//! check again with the header that counts, and has the records that it announces or none. Input: a byte of choices,
//! one for the version of the request, then the batch. One choice repairs length, magic and CRC first, so that what lies
//! behind them is reached.

use std::ops::ControlFlow;

use bytes::Bytes;
use gracchus_core::{
    ProducerEpoch, ProducerId,
    record::{
        Batch, BatchBuilder, BatchError, BatchHeader, Codec, Compression, HEADER_LENGTH, ProduceRules,
        RecordToWrite, TimestampType, batches, recompress, records, scan_records, validate_produce,
        with_log_append_time,
    },
};

use super::seed;
use crate::{Seed, input::Input};

const NOW: i64 = 1_700_000_000_000;
const LIMIT: usize = 1 << 20;
const REPAIR: u8 = 1;
const COMPACTED: u8 = 2;
const APPEND_TIME: u8 = 4;
const BOUND_BEFORE: u8 = 8;
const SMALL: u8 = 16;
/// Of the byte for the version.
const RELAXED: u8 = 128;
const TRANSACTIONAL: u8 = 64;

pub(super) fn run(input: &[u8]) -> bool {
    let mut input = Input(input);
    let (choices, version) = (input.byte(), input.byte());
    let chosen = |choice: u8| choices & choice != 0;
    let mut bytes = input.rest().to_vec();
    if chosen(REPAIR) {
        repair(&mut bytes);
    }
    let bytes = Bytes::from(bytes);
    if let Ok(header) = BatchHeader::parse(&bytes) {
        assert_eq!(header.encode(), bytes[..HEADER_LENGTH]);
        assert!(header.next_offset() > header.base_offset);
        let _ = (header.last_sequence(), header.total_length(), header.codec());
    }
    let walked: usize = batches(bytes.clone()).map_while(Result::ok).map(|(_, bytes)| bytes.len()).sum();
    assert!(walked <= bytes.len());
    let rules = ProduceRules {
        api_version: i16::from(version % 14),
        transactional: version & TRANSACTIONAL != 0,
        max_message_bytes: if chosen(SMALL) { 100 } else { LIMIT },
        compacted: chosen(COMPACTED),
        timestamp_type: if chosen(APPEND_TIME) {
            TimestampType::LogAppendTime
        } else {
            TimestampType::CreateTime
        },
        timestamp_before_max_ms: if chosen(BOUND_BEFORE) { 1000 } else { i64::MAX },
        timestamp_after_max_ms: 3_600_000,
        now_ms: NOW,
        strict: version & RELAXED == 0,
    };
    match validate_produce(Some(bytes.clone()), &rules) {
        Ok(batch) => {
            accepted(&batch, &bytes);
            if rules.strict {
                looked_at(&batch);
            }
            recompressed(&batch, Codec::ALL[usize::from(choices >> 5) % Codec::ALL.len()]);
            true
        }
        Err(rejected) => {
            assert!(rejected.records.len() <= 100, "a refusal that grows with the request");
            false
        }
    }
}

fn accepted(batch: &Batch, bytes: &Bytes) {
    assert_eq!((batch.bytes.as_ptr(), batch.bytes.len()), (bytes.as_ptr(), bytes.len()), "taken as it came");
    let header = &batch.header;
    assert_eq!(header.record_count, header.last_offset_delta + 1);
    let stamped = with_log_append_time(batch, NOW);
    let stamped = Batch::check(stamped.to_bytes()).expect("the new header is as good as the old one");
    assert_eq!(stamped.header.timestamp_type(), TimestampType::LogAppendTime);
    let mut outlines = Vec::new();
    let outline = scan_records(batch, LIMIT, |meta| {
        outlines.push(meta);
        ControlFlow::Continue(())
    });
    if let Ok(records) = records(batch, LIMIT) {
        assert_eq!(outline, Ok(()), "what reads in full reads in outline");
        assert_eq!(records.len(), header.record_count as usize);
        for (record, outline) in records.iter().zip(&outlines) {
            let seen = (record.offset, record.timestamp, record.key.is_some());
            assert_eq!(seen, (outline.offset, outline.timestamp, outline.has_key));
            assert!((header.base_offset..=header.last_offset()).contains(&record.offset));
        }
    }
}

/// What strict validation accepts can be read, and its summary is true.
fn looked_at(batch: &Batch) {
    match records(batch, LIMIT) {
        Ok(records) => {
            assert!((0..).zip(&records).all(|(number, record)| record.offset.0 == number));
            let largest = records.iter().map(|record| record.timestamp).max();
            assert_eq!(largest.map(|largest| largest.max(-1)), Some(batch.header.max_timestamp.max(-1)));
        }
        Err(error) => assert_eq!(error, BatchError::TooLarge(LIMIT)),
    }
}

/// As a topic with another `compression.type` would store it: the same records.
fn recompressed(batch: &Batch, codec: Codec) {
    let Ok(stored) = recompress(batch, Compression { codec, level: None }, LIMIT, LIMIT) else { return };
    let stored = Batch::check(stored.to_bytes()).expect("length and CRC are right");
    assert!(stored.bytes.len() <= LIMIT);
    assert_eq!(stored.header.codec(), Ok(codec));
    if let Ok(before) = records(batch, LIMIT) {
        assert_eq!(records(&stored, LIMIT), Ok(before));
    }
}

/// Makes length, magic and CRC what they should be.
pub(super) fn repair(batch: &mut [u8]) {
    if batch.len() >= HEADER_LENGTH {
        let length = (batch.len() - 12) as i32;
        batch[8..12].copy_from_slice(&length.to_be_bytes());
        batch[16] = 2;
        let crc = crc32c::crc32c(&batch[21..]);
        batch[17..21].copy_from_slice(&crc.to_be_bytes());
    }
}

/// A batch with something in every field.
pub(super) fn sample(codec: Codec) -> BatchBuilder {
    let record = |timestamp, text: &'static str| RecordToWrite {
        timestamp,
        key: Some(Bytes::from_static(b"key")),
        value: Some(Bytes::from_static(text.as_bytes())),
        headers: vec![("name".into(), Some(Bytes::from_static(b"value"))), ("empty".into(), None)],
    };
    BatchBuilder::new()
        .codec(codec)
        .record(record(NOW, "the first of three, with a text that is long enough, enough, enough, enough"))
        .record(record(NOW + 5, "the second"))
        .record(RecordToWrite { timestamp: NOW - 5, ..RecordToWrite::default() })
}

pub(super) fn seeds() -> Vec<Seed> {
    let mut seeds = Vec::new();
    for codec in Codec::ALL {
        let batch = sample(codec).build();
        for (name, choices) in [("plain", 0), ("strict-refused", REPAIR | COMPACTED | BOUND_BEFORE)] {
            seeds.push(seed(format!("{}-{name}", codec.name()), [&[choices, 9], &batch[..]].concat()));
        }
    }
    let idempotent = BatchBuilder::new().producer(ProducerId(7), ProducerEpoch(1), 5).value(NOW, "v");
    let transactional = idempotent.clone().transactional().build();
    seeds.push(seed("idempotent", [&[REPAIR, 9], &idempotent.build()[..]].concat()));
    seeds.push(seed(
        "transactional",
        [&[REPAIR | APPEND_TIME, 9 | TRANSACTIONAL], &transactional[..]].concat(),
    ));
    seeds.push(seed("transactional-without-id-refused", [&[REPAIR, 9], &transactional[..]].concat()));
    let control = BatchBuilder::new().control().value(NOW, "v").build();
    seeds.push(seed("control-refused", [&[REPAIR, 9], &control[..]].concat()));
    let two =
        [BatchBuilder::new().value(NOW, "a").build(), BatchBuilder::new().value(NOW, "b").build()].concat();
    seeds.push(seed("two-refused", [&[0, 9], &two[..]].concat()));
    seeds
}
