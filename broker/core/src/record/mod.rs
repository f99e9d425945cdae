//! Record batches (magic 2, KIP-98): the 61-byte header, its checks, and a bounded look inside.
//!
//! The broker stores batches as sent. Base offset and leader epoch lie outside the CRC, so both are stamped into the
//! header without touching the records. Never: re-encode records, decompress to number offsets, trust a length.

use bytes::Bytes;

use crate::{LeaderEpoch, Offset, ProducerEpoch, ProducerId, error::ResponseError};

/// Bytes of a batch header, up to and including the record count.
pub const HEADER_LENGTH: usize = 61;
/// Bytes of base offset and batch length, which `batch_length` does not count.
pub const LOG_OVERHEAD: usize = 12;

/// How the records of a batch are compressed (attributes, bits 0–2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Codec {
    None,
    Gzip,
    Snappy,
    Lz4,
    Zstd,
}

/// `message.timestamp.type`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TimestampType {
    CreateTime,
    LogAppendTime,
}

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

/// Why bytes are not a batch.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BatchError {
    #[error("only {have} of {need} bytes")]
    Incomplete { have: usize, need: usize },
    #[error("batch length {0} is impossible")]
    Length(i32),
    #[error("magic {0} is not 2")]
    Magic(i8),
    #[error("CRC is {computed:#010x}, header says {stored:#010x}")]
    Crc { stored: u32, computed: u32 },
    #[error("{0}")]
    Invalid(String),
}

/// A whole batch that passed its checks.
#[derive(Debug, Clone)]
pub struct Batch {
    pub header: BatchHeader,
    /// Header and records as received.
    pub bytes: Bytes,
}

/// What a topic asks of a produced batch.
#[derive(Debug, Clone)]
pub struct ProduceRules {
    pub api_version: i16,
    pub max_message_bytes: usize,
    pub compacted: bool,
    pub timestamp_type: TimestampType,
    pub timestamp_before_max_ms: i64,
    pub timestamp_after_max_ms: i64,
    /// The broker's wall clock.
    pub now_ms: i64,
}

/// A refused batch: the code, a message, and the records at fault (KIP-467).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejected {
    pub error: ResponseError,
    pub message: String,
    /// (index of the record in the batch, message)
    pub records: Vec<(i32, String)>,
}
