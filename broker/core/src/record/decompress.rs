//! Decompression with a hard cap, in the framings that Kafka's clients use.
//!
//! gzip, LZ4 frame and zstd stream; snappy comes raw (librdkafka, Go) or in the blocks of the Java stream. Never:
//! allocate by a length that the input declares, or give out more than the cap.

use std::io::Read;

use bytes::{Buf, Bytes};

use super::{BatchError, Codec};

/// The Java snappy stream's magic, followed by two version numbers of four bytes.
const XERIAL_MAGIC: &[u8] = b"\x82SNAPPY\0";
const XERIAL_HEADER: usize = 16;
/// No snappy element yields more than 64 bytes from 3, so a longer claim is a lie not worth an allocation.
const SNAPPY_MOST_PER_BYTE: usize = 32;
/// The largest zstd window: 128 MiB, which the highest level needs. A frame without a content size reserves its
/// window whatever it holds, but touches no more of it than it fills.
const ZSTD_WINDOW_LOG_MOST: u32 = 27;

/// The decompressed payload, at most `limit` bytes; without a codec the payload itself, uncopied.
pub fn decompress(codec: Codec, payload: &Bytes, limit: usize) -> Result<Bytes, BatchError> {
    if codec == Codec::None {
        return if payload.len() > limit { Err(BatchError::TooLarge(limit)) } else { Ok(payload.clone()) };
    }
    let mut out = Vec::new();
    // One byte over the cap tells "too large" from "just fits".
    let mut source = reader(codec, payload.clone(), limit)?.take(limit as u64 + 1);
    source.read_to_end(&mut out).map_err(|error| damaged(codec, &error))?;
    if out.len() > limit { Err(BatchError::TooLarge(limit)) } else { Ok(Bytes::from(out)) }
}

/// The decompressed payload as a stream. It may go on past `limit` (the caller stops), but holds no more than
/// `limit` bytes or a codec's own window at a time.
pub(crate) fn reader(codec: Codec, payload: Bytes, limit: usize) -> Result<Box<dyn Read + Send>, BatchError> {
    Ok(match codec {
        Codec::None => Box::new(payload.reader()),
        Codec::Gzip => Box::new(flate2::read::MultiGzDecoder::new(payload.reader())),
        Codec::Snappy if payload.starts_with(XERIAL_MAGIC) => {
            Box::new(XerialReader { rest: payload, block: Bytes::new(), limit })
        }
        Codec::Snappy => {
            Box::new(snappy_block(&payload, limit).map_err(|error| damaged(codec, &error))?.reader())
        }
        Codec::Lz4 => Box::new(lz4_flex::frame::FrameDecoder::new(payload.reader())),
        Codec::Zstd => {
            let mut decoder = zstd::stream::read::Decoder::with_buffer(payload.reader())
                .map_err(|error| damaged(codec, &error))?;
            decoder.window_log_max(ZSTD_WINDOW_LOG_MOST).map_err(|error| damaged(codec, &error))?;
            Box::new(decoder)
        }
    })
}

/// A decoder's complaint as ours.
pub(crate) fn damaged(codec: Codec, error: &std::io::Error) -> BatchError {
    BatchError::Invalid(format!("records do not decompress as {}: {error}", codec.name()))
}

/// One raw snappy block.
fn snappy_block(block: &[u8], limit: usize) -> std::io::Result<Bytes> {
    let claimed = snap::raw::decompress_len(block)?;
    if claimed > limit || claimed > block.len().saturating_mul(SNAPPY_MOST_PER_BYTE) {
        return Err(std::io::Error::other(format!(
            "a snappy block of {} bytes claims {claimed}",
            block.len()
        )));
    }
    Ok(Bytes::from(snap::raw::Decoder::new().decompress_vec(block)?))
}

/// Blocks of a four-byte length and a raw snappy block each; a header may come again where streams were joined.
struct XerialReader {
    rest: Bytes,
    block: Bytes,
    limit: usize,
}

impl XerialReader {
    fn next_block(&mut self) -> std::io::Result<()> {
        while self.rest.starts_with(XERIAL_MAGIC) {
            if self.rest.len() < XERIAL_HEADER {
                return Err(std::io::ErrorKind::UnexpectedEof.into());
            }
            self.rest.advance(XERIAL_HEADER);
        }
        if self.rest.is_empty() {
            return Ok(());
        }
        if self.rest.len() < 4 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        let length = self.rest.get_u32() as usize;
        if length > self.rest.len() {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        self.block = snappy_block(&self.rest.split_to(length), self.limit)?;
        Ok(())
    }
}

impl Read for XerialReader {
    fn read(&mut self, out: &mut [u8]) -> std::io::Result<usize> {
        while self.block.is_empty() && !self.rest.is_empty() {
            self.next_block()?;
        }
        let count = out.len().min(self.block.len());
        self.block.copy_to_slice(&mut out[..count]);
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::super::builder::compress;
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn every_codec_gives_back_what_it_was_given(data in proptest::collection::vec(any::<u8>(), 0..5000)) {
            for codec in Codec::ALL {
                let packed = Bytes::from(compress(codec, &data));
                prop_assert_eq!(&decompress(codec, &packed, data.len()).unwrap()[..], &data[..], "{:?}", codec);
            }
        }

        #[test]
        fn garbage_is_an_error_or_bytes_but_never_a_panic(data in proptest::collection::vec(any::<u8>(), 0..300)) {
            for codec in Codec::ALL {
                let _ = decompress(codec, &Bytes::from(data.clone()), 1000);
                let mut xerial = XERIAL_MAGIC.to_vec();
                xerial.extend_from_slice(&data);
                let _ = decompress(codec, &Bytes::from(xerial), 1000);
            }
        }
    }

    #[test]
    fn a_bomb_stops_at_the_cap() {
        let zeros = vec![0u8; 8 << 20];
        for codec in [Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd] {
            let packed = Bytes::from(compress(codec, &zeros));
            assert!(packed.len() < zeros.len() / 15, "{codec:?} packed to {}", packed.len());
            assert!(decompress(codec, &packed, 1 << 20).is_err(), "{codec:?}");
        }
    }

    #[test]
    fn raw_snappy_is_read_like_the_java_stream() {
        let text = b"the same words, the same words, the same words".repeat(50);
        let raw = Bytes::from(snap::raw::Encoder::new().compress_vec(&text).unwrap());
        assert_eq!(&decompress(Codec::Snappy, &raw, 1 << 20).unwrap()[..], &text[..]);
        let mut joined = compress(Codec::Snappy, &text);
        joined.extend(compress(Codec::Snappy, b"and more"));
        let all = decompress(Codec::Snappy, &Bytes::from(joined), 1 << 20).unwrap();
        assert_eq!(&all[..], &[&text[..], b"and more"].concat()[..]);
    }

    #[test]
    fn a_short_snappy_block_cannot_ask_for_gigabytes() {
        // A varint of 2^32 − 1 as the claimed length, then nothing.
        let liar = Bytes::from_static(&[0xff, 0xff, 0xff, 0xff, 0x0f, 0, 0]);
        assert!(decompress(Codec::Snappy, &liar, usize::MAX).is_err());
    }
}
