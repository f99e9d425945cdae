//! Compressed batches: the records of a plain one, packed once by the codec and framed as Kafka's clients frame them.
//!
//! Never: at the time of sending; what is measured is the broker.

use std::io::Write;

use bytes::Bytes;
use flate2::write::GzEncoder;

/// Where the records of a batch begin.
const RECORDS: usize = 61;
/// Where its length, its CRC and its attributes stand.
const LENGTH: usize = 8;
const CRC: usize = 17;
const ATTRIBUTES: usize = 21;
/// Bytes in front of what the length counts.
const OVERHEAD: usize = 12;
/// The Java stream's signature with two version numbers, and the size of its blocks.
const XERIAL: &[u8; 16] = b"\x82SNAPPY\0\0\0\0\x01\0\0\0\x01";
const XERIAL_BLOCK: usize = 32 << 10;

/// A codec by Kafka's number for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Codec {
    None = 0,
    Gzip = 1,
    Snappy = 2,
    Lz4 = 3,
    Zstd = 4,
}

impl Codec {
    pub(crate) const ALL: [Codec; 5] = [Codec::None, Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd];

    /// Kafka's name for it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Codec::None => "none",
            Codec::Gzip => "gzip",
            Codec::Snappy => "snappy",
            Codec::Lz4 => "lz4",
            Codec::Zstd => "zstd",
        }
    }

    fn pack(self, plain: &[u8]) -> std::io::Result<Vec<u8>> {
        match self {
            Codec::None => Ok(plain.to_vec()),
            Codec::Gzip => {
                let mut encoder = GzEncoder::new(Vec::new(), flate2::Compression::default());
                encoder.write_all(plain)?;
                encoder.finish()
            }
            Codec::Snappy => {
                let mut out = XERIAL.to_vec();
                for block in plain.chunks(XERIAL_BLOCK) {
                    let packed =
                        snap::raw::Encoder::new().compress_vec(block).map_err(std::io::Error::other)?;
                    out.extend_from_slice(&(packed.len() as u32).to_be_bytes());
                    out.extend_from_slice(&packed);
                }
                Ok(out)
            }
            Codec::Lz4 => {
                let mut encoder = lz4_flex::frame::FrameEncoder::new(Vec::new());
                encoder.write_all(plain)?;
                encoder.finish().map_err(std::io::Error::other)
            }
            Codec::Zstd => zstd::encode_all(plain, zstd::DEFAULT_COMPRESSION_LEVEL),
        }
    }
}

/// The uncompressed `batch` with its records in `codec`.
pub(crate) fn compressed(batch: &Bytes, codec: Codec) -> anyhow::Result<Bytes> {
    let mut bytes = batch[..RECORDS].to_vec();
    bytes.extend(codec.pack(&batch[RECORDS..])?);
    let length = i32::try_from(bytes.len() - OVERHEAD)?;
    bytes[LENGTH..LENGTH + 4].copy_from_slice(&length.to_be_bytes());
    bytes[ATTRIBUTES + 1] |= codec as u8;
    let crc = crc32c::crc32c(&bytes[ATTRIBUTES..]);
    bytes[CRC..CRC + 4].copy_from_slice(&crc.to_be_bytes());
    Ok(bytes.into())
}
