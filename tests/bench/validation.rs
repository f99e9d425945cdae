//! Rows about what it costs to look into the batches that producers send: `produce.batch.validation` strict and relaxed,
//! every codec, beside Apache Kafka, which looks into every batch too.
//!
//! The model: batches are made and compressed once, before anything is measured; throughput is counted in bytes of
//! records before compression, so that codecs can be compared. One kind of batch is one row.
//! Never: a batch that is not valid; the first refusal ends the row.

use std::time::Duration;

use crate::{
    codecs::Codec,
    machine,
    peers::Server,
    requests,
    rows::{Bounds, Figure, Row, RowKind, closed, less, more},
};

const PARTITIONS: usize = 8;
const IN_FLIGHT: usize = 16;
/// No more than this is written in a run: there are many.
const MOST_BYTES: u64 = 800 << 20;

/// A kind of batch.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Batches {
    codec: Codec,
    /// Bytes before compression.
    size: usize,
    /// Bytes of a record's value.
    record: usize,
}

/// All of them.
pub(crate) fn rows() -> Vec<Row> {
    let mut rows = Vec::new();
    for codec in Codec::ALL {
        for (size_name, size) in [("16k", 16 << 10), ("64k", 64 << 10)] {
            for (record_name, record) in [("100b", 100), ("1k", 1 << 10)] {
                let name = format!("validation-{}-{size_name}-{record_name}", codec.name());
                let title = format!("{}, batches of {} KiB, records of {record} B", codec.name(), size >> 10);
                rows.push(Row { name, title, kind: RowKind::Validation(Batches { codec, size, record }) });
            }
        }
    }
    rows
}

/// One run.
pub(crate) fn run(
    batches: Batches,
    server: &Server,
    topic: &str,
    synced: bool,
    bounds: Bounds,
) -> anyhow::Result<Vec<Figure>> {
    let Batches { codec, size, record } = batches;
    let batch = requests::text_batch(size, record, codec)?;
    server.create_topic(topic, PARTITIONS, synced)?;
    let warm = Bounds { duration: Duration::from_millis(200), most_bytes: 100 << 20 };
    closed(server, topic, PARTITIONS, &batch, IN_FLIGHT, warm)?;
    machine::settle();
    let bounds = Bounds { most_bytes: bounds.most_bytes.min(MOST_BYTES), ..bounds };
    let before = machine::cpu_seconds(server.pid())?;
    let measured = closed(server, topic, PARTITIONS, &batch, IN_FLIGHT, bounds)?;
    let cpu = machine::cpu_seconds(server.pid())? - before;
    let bytes = (measured.requests * batch.plain as u64) as f64;
    Ok(vec![
        more("MB/s of records", bytes / 1e6 / measured.elapsed.as_secs_f64()),
        less("broker CPU-s per GB", cpu / (bytes / 1e9)),
        less("p99 ms", measured.percentile(0.99)),
    ])
}
