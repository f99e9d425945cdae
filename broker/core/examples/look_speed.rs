//! How fast produced batches are looked at: `cargo run --release -p gracchus-core --example look_speed`.
//!
//! One core, batches of the usual sizes again and again; bytes are those of the records, decompressed. What the whole
//! costs a broker stands in the benchmark.
#![allow(clippy::disallowed_methods, clippy::print_stdout, reason = "a measurement")]

use std::time::Instant;

use bytes::Bytes;
use gracchus_core::record::{
    BatchBuilder, BatchHeader, Codec, Look, ProduceRules, RecordToWrite, TimestampType, check_header,
};

const NOW: i64 = 1_700_000_000_000;

/// Values of text, half of which repeats.
fn value(number: usize, size: usize) -> Bytes {
    let mut state = number as u32;
    let text = (0..size).map(|at| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        if at % 16 < 8 { b"gracchus"[at % 8] } else { b'a' + (state >> 28) as u8 }
    });
    text.collect()
}

fn batch(codec: Codec, bytes: usize, size: usize) -> Bytes {
    (0..bytes / size)
        .fold(BatchBuilder::new().codec(codec), |builder, number| {
            let record = RecordToWrite {
                timestamp: NOW,
                value: Some(value(number, size)),
                ..RecordToWrite::default()
            };
            builder.record(record)
        })
        .build()
}

fn main() {
    let rules = |strict| ProduceRules {
        api_version: 9,
        transactional: false,
        max_message_bytes: 1 << 20,
        compacted: false,
        timestamp_type: TimestampType::CreateTime,
        timestamp_before_max_ms: i64::MAX,
        timestamp_after_max_ms: i64::MAX,
        now_ms: NOW,
        strict,
    };
    println!("codec    batch record  packed  relaxed us  strict us  look GB/s");
    for codec in Codec::ALL {
        for (bytes, size) in [(16 << 10, 100), (64 << 10, 100), (16 << 10, 1024), (64 << 10, 1024)] {
            let batch = batch(codec, bytes, size);
            let header = BatchHeader::parse(&batch).expect("a header");
            let once = |strict| {
                let rounds = (400 << 20) / bytes / if codec == Codec::None { 1 } else { 8 };
                let mut best = f64::MAX;
                for _ in 0..3 {
                    let begun = Instant::now();
                    for _ in 0..rounds {
                        let received = check_header(Some(batch.clone()), &rules(strict)).expect("a batch");
                        let Look::Done(Ok(looked)) = received.look(1 << 20) else { panic!("a good batch") };
                        assert_eq!(looked.header, header);
                    }
                    best = best.min(begun.elapsed().as_secs_f64() / rounds as f64);
                }
                best
            };
            let (relaxed, strict) = (once(false), once(true));
            println!(
                "{:<8} {bytes:>5} {size:>6} {:>7} {:>11.2} {:>10.2} {:>10.2}",
                codec.name(),
                batch.len(),
                relaxed * 1e6,
                strict * 1e6,
                bytes as f64 / (strict - relaxed) / 1e9,
            );
        }
    }
}
