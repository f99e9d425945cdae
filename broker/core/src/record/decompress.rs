//! Decompression with a hard cap, in the framings that Kafka's clients use.
//!
//! gzip, LZ4 frame and zstd stream; snappy comes raw (librdkafka, Go) or in the blocks of the Java stream. A stream that
//! ends before its last frame does is an error, also between two blocks. Making a zstd decoder costs more than most batches,
//! so each thread keeps one. Never: allocate by a length that the input declares, or give out more than the cap; a decoder
//! kept that has grown large.

use std::{
    cell::Cell,
    io::{self, Read},
};

use bytes::{Buf, Bytes, buf::Reader};
use zstd::zstd_safe::{DCtx, DParameter, InBuffer, OutBuffer, ResetDirective, get_error_name};

use super::{BatchError, Codec};

/// The Java snappy stream's magic, followed by two version numbers of four bytes.
const XERIAL_MAGIC: &[u8] = b"\x82SNAPPY\0";
const XERIAL_HEADER: usize = 16;
/// No snappy element yields more than 64 bytes from 3, so a longer claim is a lie not worth an allocation.
const SNAPPY_MOST_PER_BYTE: usize = 32;
/// The largest zstd window: 128 MiB, which the highest level needs. A frame without a content size reserves its
/// window whatever it holds, but touches no more of it than it fills.
const ZSTD_WINDOW_LOG_MOST: u32 = 27;
/// A zstd decoder that has grown larger is not kept.
const ZSTD_KEPT_MOST: usize = 1 << 20;

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
        Codec::Gzip => Box::new(flate2::bufread::MultiGzDecoder::new(payload.reader())),
        Codec::Snappy if payload.starts_with(XERIAL_MAGIC) => {
            Box::new(XerialReader { rest: payload, block: Bytes::new(), limit })
        }
        Codec::Snappy => Box::new(snappy_block(&payload, limit)?.reader()),
        Codec::Lz4 => Box::new(Lz4Reader::new(payload)),
        Codec::Zstd => Box::new(ZstdReader::new(payload).map_err(|error| damaged(codec, &error))?),
    })
}

/// A decoder's complaint as ours.
pub(crate) fn damaged(codec: Codec, error: &io::Error) -> BatchError {
    match error.get_ref().and_then(|inner| inner.downcast_ref::<BatchError>()) {
        Some(own) => own.clone(),
        None => BatchError::Compression(format!("records do not decompress as {}: {error}", codec.name())),
    }
}

/// One raw snappy block.
fn snappy_block(block: &[u8], limit: usize) -> Result<Bytes, BatchError> {
    let wrong = |error: snap::Error| damaged(Codec::Snappy, &error.into());
    let claimed = snap::raw::decompress_len(block).map_err(wrong)?;
    if claimed > block.len().saturating_mul(SNAPPY_MOST_PER_BYTE) {
        let why = format!("a snappy block of {} bytes claims {claimed}", block.len());
        return Err(damaged(Codec::Snappy, &io::Error::other(why)));
    }
    if claimed > limit {
        return Err(BatchError::TooLarge(limit));
    }
    Ok(Bytes::from(snap::raw::Decoder::new().decompress_vec(block).map_err(wrong)?))
}

/// One LZ4 frame. The decoder takes the end of its input for the end of the frame, and goes on with the next one.
struct Lz4Reader {
    decoder: lz4_flex::frame::FrameDecoder<Starving>,
    ended: bool,
}

/// Notices that more was asked for than there was.
struct Starving {
    rest: Reader<Bytes>,
    starved: bool,
}

impl Read for Starving {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let count = self.rest.read(out)?;
        self.starved |= count < out.len();
        Ok(count)
    }
}

impl Lz4Reader {
    fn new(payload: Bytes) -> Self {
        let rest = Starving { rest: payload.reader(), starved: false };
        Self { decoder: lz4_flex::frame::FrameDecoder::new(rest), ended: false }
    }
}

impl Read for Lz4Reader {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        if self.ended || out.is_empty() {
            return Ok(0);
        }
        let count = self.decoder.read(out)?;
        if count > 0 {
            return Ok(count);
        }
        let source = self.decoder.get_ref();
        if source.starved {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if source.rest.get_ref().has_remaining() {
            // No consumer would read them.
            return Err(io::Error::other("bytes behind the frame"));
        }
        self.ended = true;
        Ok(0)
    }
}

thread_local! {
    /// Reset, so that it knows nothing of what it was used for.
    static ZSTD: Cell<Option<DCtx<'static>>> = const { Cell::new(None) };
}

/// zstd frames, one after the other.
struct ZstdReader {
    /// `None` only while it is being dropped.
    decoder: Option<DCtx<'static>>,
    rest: Bytes,
    between_frames: bool,
}

fn zstd_error(code: usize) -> io::Error {
    io::Error::other(get_error_name(code))
}

impl ZstdReader {
    fn new(payload: Bytes) -> io::Result<Self> {
        let decoder = match ZSTD.take() {
            Some(decoder) => decoder,
            None => {
                let mut decoder = DCtx::try_create().ok_or(io::ErrorKind::OutOfMemory)?;
                decoder.set_parameter(DParameter::WindowLogMax(ZSTD_WINDOW_LOG_MOST)).map_err(zstd_error)?;
                decoder
            }
        };
        Ok(Self { decoder: Some(decoder), rest: payload, between_frames: true })
    }
}

impl Drop for ZstdReader {
    fn drop(&mut self) {
        if let Some(mut decoder) = self.decoder.take()
            && decoder.sizeof() <= ZSTD_KEPT_MOST
            && decoder.reset(ResetDirective::SessionOnly).is_ok()
        {
            ZSTD.set(Some(decoder));
        }
    }
}

impl Read for ZstdReader {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let decoder = self.decoder.as_mut().expect("kept until dropped");
        while !(out.is_empty() || self.between_frames && self.rest.is_empty()) {
            let mut input = InBuffer::around(&self.rest);
            let mut output = OutBuffer::around(&mut *out);
            let wanted = decoder.decompress_stream(&mut output, &mut input).map_err(zstd_error)?;
            let (taken, given) = (input.pos(), output.pos());
            self.between_frames = wanted == 0;
            self.rest.advance(taken);
            if given > 0 {
                return Ok(given);
            }
            if taken == 0 && !self.between_frames {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        Ok(0)
    }
}

/// Blocks of a four-byte length and a raw snappy block each; a header may come again where streams were joined.
struct XerialReader {
    rest: Bytes,
    block: Bytes,
    limit: usize,
}

impl XerialReader {
    fn next_block(&mut self) -> io::Result<()> {
        while self.rest.starts_with(XERIAL_MAGIC) {
            if self.rest.len() < XERIAL_HEADER {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            self.rest.advance(XERIAL_HEADER);
        }
        if self.rest.is_empty() {
            return Ok(());
        }
        if self.rest.len() < 4 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let length = self.rest.get_u32() as usize;
        if length > self.rest.len() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.block = snappy_block(&self.rest.split_to(length), self.limit).map_err(io::Error::other)?;
        Ok(())
    }
}

impl Read for XerialReader {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
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
    fn a_stream_that_ends_early_or_goes_on_is_an_error() {
        // Incompressible, so that there are several blocks.
        let mut state = 1u32;
        let mut noise = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 24) as u8
        };
        let data: Vec<u8> = std::iter::repeat_with(&mut noise).take(150_000).collect();
        for codec in [Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd] {
            let packed = compress(codec, &data);
            let whole = decompress(codec, &Bytes::from(packed.clone()), 1 << 20).unwrap();
            assert_eq!(whole.len(), data.len(), "{codec:?}");
            for kept in (1..packed.len()).step_by(997).chain(packed.len() - 12..packed.len()) {
                let cut = decompress(codec, &Bytes::copy_from_slice(&packed[..kept]), 1 << 20);
                // The Java snappy stream has no end: where a block ends, it may end.
                let complete = codec == Codec::Snappy && cut.as_ref().is_ok_and(|cut| data.starts_with(cut));
                assert!(cut.is_err() || complete, "{codec:?}: {kept} of {}", packed.len());
            }
            let mut longer = packed;
            longer.extend_from_slice(b"more");
            assert!(decompress(codec, &Bytes::from(longer), 1 << 20).is_err(), "{codec:?}");
        }
    }

    #[test]
    fn a_short_snappy_block_cannot_ask_for_gigabytes() {
        // A varint of 2^32 − 1 as the claimed length, then nothing.
        let liar = Bytes::from_static(&[0xff, 0xff, 0xff, 0xff, 0x0f, 0, 0]);
        assert!(decompress(Codec::Snappy, &liar, usize::MAX).is_err());
    }
}
