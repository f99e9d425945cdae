//! Makes batches, as a producer would. For tests, tools and markers; the log path never builds a batch.

use std::io::Write;

use bytes::{BufMut, Bytes, BytesMut};

use super::{BatchHeader, Codec, HEADER_LENGTH, LOG_OVERHEAD, TimestampType, header};
use crate::{LeaderEpoch, Offset, ProducerEpoch, ProducerId};

/// A record on its way into a batch.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RecordToWrite {
    /// Milliseconds since 1970.
    pub timestamp: i64,
    pub key: Option<Bytes>,
    pub value: Option<Bytes>,
    /// In order; names may repeat.
    pub headers: Vec<(String, Option<Bytes>)>,
}

/// Collects records, then makes one batch of them.
#[derive(Debug, Clone)]
pub struct BatchBuilder {
    records: Vec<RecordToWrite>,
    codec: Codec,
    base_offset: Offset,
    leader_epoch: LeaderEpoch,
    producer: (ProducerId, ProducerEpoch, i32),
    attributes: i16,
}

impl Default for BatchBuilder {
    fn default() -> Self {
        Self::new()
    }
}

impl BatchBuilder {
    /// An uncompressed batch without a producer at offset 0.
    pub fn new() -> Self {
        Self {
            records: Vec::new(),
            codec: Codec::None,
            base_offset: Offset(0),
            leader_epoch: LeaderEpoch::NONE,
            producer: (ProducerId::NONE, ProducerEpoch(-1), -1),
            attributes: 0,
        }
    }

    /// Adds a record.
    #[must_use]
    pub fn record(mut self, record: RecordToWrite) -> Self {
        self.records.push(record);
        self
    }

    /// Adds a record of which only the value matters.
    #[must_use]
    pub fn value(self, timestamp: i64, value: impl Into<Bytes>) -> Self {
        self.record(RecordToWrite { timestamp, value: Some(value.into()), ..RecordToWrite::default() })
    }

    #[must_use]
    pub fn codec(mut self, codec: Codec) -> Self {
        self.codec = codec;
        self
    }

    #[must_use]
    pub fn base_offset(mut self, offset: Offset) -> Self {
        self.base_offset = offset;
        self
    }

    #[must_use]
    pub fn leader_epoch(mut self, epoch: LeaderEpoch) -> Self {
        self.leader_epoch = epoch;
        self
    }

    /// Makes it the batch of an idempotent producer.
    #[must_use]
    pub fn producer(mut self, id: ProducerId, epoch: ProducerEpoch, base_sequence: i32) -> Self {
        self.producer = (id, epoch, base_sequence);
        self
    }

    #[must_use]
    pub fn transactional(mut self) -> Self {
        self.attributes |= header::TRANSACTIONAL;
        self
    }

    #[must_use]
    pub fn control(mut self) -> Self {
        self.attributes |= header::CONTROL;
        self
    }

    #[must_use]
    pub fn timestamp_type(mut self, kind: TimestampType) -> Self {
        if kind == TimestampType::LogAppendTime {
            self.attributes |= header::LOG_APPEND_TIME;
        }
        self
    }

    /// The batch's bytes with lengths and CRC filled in.
    ///
    /// # Panics
    /// Without a record: an empty batch only ever comes from compaction.
    pub fn build(self) -> Bytes {
        assert!(!self.records.is_empty(), "a batch holds at least one record");
        let base_timestamp = self.records[0].timestamp;
        let mut plain = BytesMut::new();
        for (index, record) in self.records.iter().enumerate() {
            put_record(&mut plain, record, index as i64, record.timestamp - base_timestamp);
        }
        let payload = compress(self.codec, &plain);
        let mut header = BatchHeader {
            base_offset: self.base_offset,
            batch_length: (HEADER_LENGTH - LOG_OVERHEAD + payload.len()) as i32,
            leader_epoch: self.leader_epoch,
            magic: 2,
            crc: 0,
            attributes: self.attributes | self.codec as i16,
            last_offset_delta: self.records.len() as i32 - 1,
            base_timestamp,
            max_timestamp: self.records.iter().map(|record| record.timestamp).max().unwrap_or(-1),
            producer_id: self.producer.0,
            producer_epoch: self.producer.1,
            base_sequence: self.producer.2,
            record_count: self.records.len() as i32,
        };
        header.crc = header.crc_with(&payload);
        let mut out = BytesMut::with_capacity(HEADER_LENGTH + payload.len());
        out.extend_from_slice(&header.encode());
        out.extend_from_slice(&payload);
        out.freeze()
    }
}

fn put_record(out: &mut BytesMut, record: &RecordToWrite, offset_delta: i64, timestamp_delta: i64) {
    let mut body = BytesMut::new();
    body.put_u8(0);
    put_varint(&mut body, timestamp_delta);
    put_varint(&mut body, offset_delta);
    put_field(&mut body, record.key.as_deref());
    put_field(&mut body, record.value.as_deref());
    put_varint(&mut body, record.headers.len() as i64);
    for (name, value) in &record.headers {
        put_field(&mut body, Some(name.as_bytes()));
        put_field(&mut body, value.as_deref());
    }
    put_varint(out, body.len() as i64);
    out.extend_from_slice(&body);
}

fn put_field(out: &mut BytesMut, bytes: Option<&[u8]>) {
    match bytes {
        None => put_varint(out, -1),
        Some(bytes) => {
            put_varint(out, bytes.len() as i64);
            out.extend_from_slice(bytes);
        }
    }
}

fn put_varint(out: &mut BytesMut, value: i64) {
    let mut bits = (value << 1 ^ value >> 63) as u64;
    while bits >= 0x80 {
        out.put_u8(bits as u8 | 0x80);
        bits >>= 7;
    }
    out.put_u8(bits as u8);
}

/// Begins a Java snappy stream: magic and two version numbers.
pub(crate) fn put_xerial_header(out: &mut impl Write) -> std::io::Result<()> {
    out.write_all(b"\x82SNAPPY\0\0\0\0\x01\0\0\0\x01")
}

/// Compresses in the framing that the Java client uses.
pub(crate) fn compress(codec: Codec, data: &[u8]) -> Vec<u8> {
    const MEMORY: &str = "compression into memory does not fail";
    /// Block size of the Java snappy stream.
    const SNAPPY_BLOCK: usize = 32 * 1024;
    match codec {
        Codec::None => data.to_vec(),
        Codec::Gzip => {
            let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
            encoder.write_all(data).expect(MEMORY);
            encoder.finish().expect(MEMORY)
        }
        Codec::Snappy => {
            let mut out = Vec::new();
            put_xerial_header(&mut out).expect(MEMORY);
            for block in data.chunks(SNAPPY_BLOCK) {
                let packed = snap::raw::Encoder::new().compress_vec(block).expect(MEMORY);
                out.extend_from_slice(&(packed.len() as u32).to_be_bytes());
                out.extend_from_slice(&packed);
            }
            out
        }
        Codec::Lz4 => {
            let mut encoder = lz4_flex::frame::FrameEncoder::new(Vec::new());
            encoder.write_all(data).expect(MEMORY);
            encoder.finish().expect(MEMORY)
        }
        Codec::Zstd => zstd::stream::encode_all(data, 3).expect(MEMORY),
    }
}
