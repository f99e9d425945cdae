//! Record batches (magic 2, KIP-98): the 61-byte header, its checks, and a bounded look inside.
//!
//! The broker stores batches as sent. Base offset and leader epoch lie outside the CRC, so both are stamped into the
//! header without touching the records. Never: re-encode records, decompress to number offsets, trust a length.

mod builder;
mod decompress;
mod fields;
mod header;
mod reader;
mod recompress;
mod validate;

use bytes::Bytes;

pub use builder::{BatchBuilder, RecordToWrite};
pub use decompress::decompress;
pub use header::BatchHeader;
pub(crate) use header::advance_sequence;
pub use reader::{RecordMeta, RecordView, records, scan_records};
pub use recompress::{Compression, recompress};
pub use validate::{
    LOOK_INSIDE_LIMIT, Look, ProduceRules, Received, Rejected, check_header, recompress_produced,
    validate_produce, with_log_append_time,
};

/// Bytes of a batch header, up to and including the record count.
pub const HEADER_LENGTH: usize = 61;
/// Bytes of base offset and batch length, which `batch_length` does not count.
pub const LOG_OVERHEAD: usize = 12;
/// A timestamp that says "none".
pub const NO_TIMESTAMP: i64 = -1;

/// How the records of a batch are compressed (attributes, bits 0–2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Codec {
    None,
    Gzip,
    Snappy,
    Lz4,
    Zstd,
}

impl Codec {
    /// Every codec, in the order of their numbers.
    pub const ALL: [Codec; 5] = [Codec::None, Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd];

    /// The codec with this number in a batch's attributes.
    pub fn from_id(id: u8) -> Result<Codec, BatchError> {
        Codec::ALL.get(usize::from(id)).copied().ok_or(BatchError::Codec(id))
    }

    /// Kafka's name, as in `compression.type`.
    pub fn name(self) -> &'static str {
        ["none", "gzip", "snappy", "lz4", "zstd"][self as usize]
    }
}

/// `message.timestamp.type`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum TimestampType {
    CreateTime,
    LogAppendTime,
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
    #[error(
        "impossible counts: base offset {base_offset}, last offset delta {last_offset_delta}, {record_count} records"
    )]
    Counts { base_offset: i64, last_offset_delta: i32, record_count: i32 },
    #[error("codec {0} does not exist")]
    Codec(u8),
    /// What the codec's decoder says.
    #[error("{0}")]
    Compression(String),
    #[error("the records are larger than {0} bytes when decompressed")]
    TooLarge(usize),
    #[error("{0}")]
    Invalid(String),
}

/// A whole batch that passed its checks.
#[derive(Debug, Clone)]
pub struct Batch {
    /// The header that counts. Its bytes in `bytes` may be older (see [`with_log_append_time`]).
    pub header: BatchHeader,
    /// Header and records as received.
    pub bytes: Bytes,
}

impl Batch {
    /// One whole batch with nothing behind it, its CRC checked.
    pub fn check(bytes: Bytes) -> Result<Batch, BatchError> {
        let header = BatchHeader::parse(&bytes)?;
        let need = header.total_length();
        if bytes.len() < need {
            return Err(BatchError::Incomplete { have: bytes.len(), need });
        }
        if bytes.len() > need {
            return Err(BatchError::Invalid(format!("{} bytes behind the batch", bytes.len() - need)));
        }
        let computed = crc32c::crc32c(&bytes[header::CRC_START..]);
        if computed != header.crc {
            return Err(BatchError::Crc { stored: header.crc, computed });
        }
        Ok(Batch { header, bytes })
    }

    /// The records, compressed or not, without the header.
    pub fn payload(&self) -> Bytes {
        self.bytes.slice(HEADER_LENGTH..)
    }

    /// The batch in one piece with the header that counts. Copies: for tests and tools.
    pub fn to_bytes(&self) -> Bytes {
        let mut out = Vec::with_capacity(self.bytes.len());
        out.extend_from_slice(&self.header.encode());
        out.extend_from_slice(&self.bytes[HEADER_LENGTH..]);
        Bytes::from(out)
    }
}

/// The batches that `bytes` holds one after the other, uncopied, CRCs not checked. Ends after the first error; a
/// tail too short for its batch is [`BatchError::Incomplete`].
pub fn batches(bytes: Bytes) -> Batches {
    Batches { rest: bytes }
}

/// See [`batches`].
#[derive(Debug, Clone)]
pub struct Batches {
    rest: Bytes,
}

impl Iterator for Batches {
    type Item = Result<(BatchHeader, Bytes), BatchError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let parsed = BatchHeader::parse(&self.rest).and_then(|header| {
            let need = header.total_length();
            if self.rest.len() < need {
                return Err(BatchError::Incomplete { have: self.rest.len(), need });
            }
            Ok(header)
        });
        match parsed {
            Ok(header) => Some(Ok((header, self.rest.split_to(header.total_length())))),
            Err(error) => {
                self.rest.clear();
                Some(Err(error))
            }
        }
    }
}
