//! The frames of Kafka's five codecs, filled with stored (incompressible) blocks.
//!
//! The model: every codec has a way to carry bytes as they are. That is enough to send valid compressed batches with
//! unique values, and needs no compression library in the client.
//! A topic may have the broker pack batches anew (`compression.type`), so what is read is unpacked by the codecs'
//! libraries. Never: the broker's code for either.

use std::cell::RefCell;

use bytes::{BufMut, Bytes, BytesMut};
use zstd::{stream::read::Decoder, zstd_safe::DCtx};

use crate::plan::Codec;

thread_local! {
    /// Made once: a new one for every batch takes longer than the batches of a swarm.
    static ZSTD: RefCell<DCtx<'static>> = RefCell::new(DCtx::create());
}

const GZIP_BLOCK: usize = 65_535;
const BLOCK: usize = 32 * 1024;
const SNAPPY_HEADER: [u8; 16] = [0x82, b'S', b'N', b'A', b'P', b'P', b'Y', 0, 0, 0, 0, 1, 0, 0, 0, 1];
/// Version 1, independent blocks, no checksums; blocks of up to 64 KiB; header checksum (second byte of xxh32).
const LZ4_HEADER: [u8; 7] = [0x04, 0x22, 0x4d, 0x18, 0x60, 0x40, 0x82];
const ZSTD_MAGIC: u32 = 0xfd2f_b528;

/// The codec's number in a batch's attributes.
pub(crate) fn attribute(codec: Codec) -> i16 {
    codec as i16
}

/// Wraps `body` in the codec's frame.
pub(crate) fn pack(codec: Codec, body: Bytes) -> Bytes {
    let mut out = BytesMut::with_capacity(body.len() + body.len() / 1024 + 64);
    match codec {
        Codec::None => return body,
        Codec::Gzip => pack_gzip(&mut out, &body),
        Codec::Snappy => pack_snappy(&mut out, &body),
        Codec::Lz4 => pack_lz4(&mut out, &body),
        Codec::Zstd => pack_zstd(&mut out, &body),
    }
    out.freeze()
}

/// The bytes that [`pack`] or a broker wrapped; `None` for what is no frame of the codec.
pub(crate) fn unpack(attributes: i16, body: Bytes) -> Option<Bytes> {
    if attributes & 7 == 0 {
        return Some(body);
    }
    unpack_any(attributes, &body)
}

fn unpack_any(attributes: i16, body: &[u8]) -> Option<Bytes> {
    use std::io::Read;

    let mut out = Vec::new();
    match attributes & 7 {
        1 => drop(flate2::read::MultiGzDecoder::new(body).read_to_end(&mut out).ok()?),
        2 => match body.strip_prefix(&SNAPPY_HEADER[..8]) {
            Some(chunks) => {
                // Two versions, then chunks with their lengths.
                let mut rest = chunks.get(8..)?;
                while let Some((length, behind)) = rest.split_first_chunk::<4>() {
                    let length = u32::from_be_bytes(*length) as usize;
                    out.extend(snap::raw::Decoder::new().decompress_vec(behind.get(..length)?).ok()?);
                    rest = &behind[length..];
                }
            }
            None => out = snap::raw::Decoder::new().decompress_vec(body).ok()?,
        },
        3 if !lz4_has_its_end(body)? => return None,
        3 => drop(lz4_flex::frame::FrameDecoder::new(body).read_to_end(&mut out).ok()?),
        4 => drop(ZSTD.with_borrow_mut(|zstd| Decoder::with_context(body, zstd).read_to_end(&mut out)).ok()?),
        _ => return None,
    }
    Some(out.into())
}

/// Whether the blocks of an LZ4 frame are followed by the end mark, and by nothing else: Java's client asks for it, the
/// library takes any end of the bytes for the end of the frame.
fn lz4_has_its_end(body: &[u8]) -> Option<bool> {
    let flags = *body.get(4)?;
    let has = |bit: u8| usize::from(flags >> bit & 1);
    // Magic, flags, block size, header checksum; content size and dictionary where they are said to be there.
    let mut rest = body.get(7 + 8 * has(3) + 4 * has(0)..)?;
    loop {
        let (length, behind) = rest.split_first_chunk::<4>()?;
        match u32::from_le_bytes(*length) & 0x7fff_ffff {
            0 => return Some(behind.len() == 4 * has(2)),
            length => rest = behind.get(length as usize + 4 * has(4)..)?,
        }
    }
}

/// RFC 1952 around stored blocks of RFC 1951.
fn pack_gzip(out: &mut BytesMut, body: &[u8]) {
    out.put_slice(&[0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255]);
    let blocks = body.len().div_ceil(GZIP_BLOCK);
    for (index, block) in body.chunks(GZIP_BLOCK).enumerate() {
        out.put_u8(u8::from(index + 1 == blocks));
        out.put_u16_le(block.len() as u16);
        out.put_u16_le(!(block.len() as u16));
        out.put_slice(block);
    }
    out.put_u32_le(crc32(body));
    out.put_u32_le(body.len() as u32);
}

/// The polynomial of RFC 1952, by nibbles.
fn crc32(bytes: &[u8]) -> u32 {
    const fn table() -> [u32; 16] {
        let mut table = [0; 16];
        let mut index = 0;
        while index < 16 {
            let mut value = index as u32;
            let mut bit = 0;
            while bit < 4 {
                value = if value & 1 == 1 { value >> 1 ^ 0xedb8_8320 } else { value >> 1 };
                bit += 1;
            }
            table[index] = value;
            index += 1;
        }
        table
    }
    const TABLE: [u32; 16] = table();
    !bytes.iter().fold(!0, |crc, byte| {
        let crc = TABLE[((crc ^ u32::from(*byte)) & 15) as usize] ^ crc >> 4;
        TABLE[((crc ^ u32::from(*byte >> 4)) & 15) as usize] ^ crc >> 4
    })
}

/// The Java client's chunks, each a raw snappy block with one literal.
fn pack_snappy(out: &mut BytesMut, body: &[u8]) {
    out.put_slice(&SNAPPY_HEADER);
    for block in body.chunks(BLOCK) {
        let mut raw = BytesMut::with_capacity(block.len() + 8);
        let mut rest = block.len();
        while rest >= 0x80 {
            raw.put_u8(rest as u8 | 0x80);
            rest >>= 7;
        }
        raw.put_u8(rest as u8);
        // A literal whose length follows in two bytes.
        raw.put_u8(61 << 2);
        raw.put_u16_le((block.len() - 1) as u16);
        raw.put_slice(block);
        out.put_u32(raw.len() as u32);
        out.put_slice(&raw);
    }
}

/// An LZ4 frame of uncompressed blocks.
fn pack_lz4(out: &mut BytesMut, body: &[u8]) {
    out.put_slice(&LZ4_HEADER);
    for block in body.chunks(BLOCK) {
        out.put_u32_le(block.len() as u32 | 1 << 31);
        out.put_slice(block);
    }
    out.put_u32_le(0);
}

/// RFC 8878: one segment with its size, raw blocks.
fn pack_zstd(out: &mut BytesMut, body: &[u8]) {
    out.put_u32_le(ZSTD_MAGIC);
    out.put_u8(0b1010_0000);
    out.put_u32_le(body.len() as u32);
    let blocks = body.len().div_ceil(BLOCK);
    for (index, block) in body.chunks(BLOCK).enumerate() {
        let head = u32::from(index + 1 == blocks) | (block.len() as u32) << 3;
        out.put_slice(&head.to_le_bytes()[..3]);
        out.put_slice(block);
    }
}

#[cfg(test)]
mod tests {
    use bytes::Buf;

    use super::*;

    #[test]
    fn real_decoders_read_the_frames() {
        use std::io::Read;
        for length in [1, 300, BLOCK + 1, 150_000] {
            let body: Bytes = (0..length).map(|index| ((index * 31) >> 3) as u8).collect();
            let mut out = Vec::new();
            flate2::read::GzDecoder::new(&*pack(Codec::Gzip, body.clone())).read_to_end(&mut out).unwrap();
            assert_eq!(out, body);
            out.clear();
            lz4_flex::frame::FrameDecoder::new(&*pack(Codec::Lz4, body.clone()))
                .read_to_end(&mut out)
                .unwrap();
            assert_eq!(out, body);
            assert_eq!(zstd::decode_all(&*pack(Codec::Zstd, body.clone())).unwrap(), body);
            out.clear();
            let mut chunks = pack(Codec::Snappy, body.clone()).slice(16..);
            while !chunks.is_empty() {
                let chunk_length = chunks.get_u32() as usize;
                out.extend(snap::raw::Decoder::new().decompress_vec(&chunks.split_to(chunk_length)).unwrap());
            }
            assert_eq!(out, body);
        }
    }

    #[test]
    fn crc_of_the_standard_check_string() {
        assert_eq!(crc32(b"123456789"), 0xcbf4_3926);
    }

    #[test]
    fn every_length_survives_every_codec() {
        for codec in [Codec::None, Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd] {
            for length in [1, 60, 127, 128, BLOCK - 1, BLOCK, BLOCK + 1, GZIP_BLOCK, GZIP_BLOCK + 1, 200_000]
            {
                let body: Bytes = (0..length).map(|index| (index * 7) as u8).collect();
                let packed = pack(codec, body.clone());
                assert_eq!(
                    unpack(attribute(codec), packed.clone()).as_ref(),
                    Some(&body),
                    "{codec:?} {length}"
                );
            }
        }
    }
    #[test]
    fn what_a_broker_packed_anew_is_read() {
        use std::io::Write;

        let body: Bytes = (0..70_000u32).flat_map(|index| (index / 3).to_be_bytes()).collect();
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        gzip.write_all(&body).unwrap();
        let mut lz4 = lz4_flex::frame::FrameEncoder::new(Vec::new());
        lz4.write_all(&body).unwrap();
        let raw = snap::raw::Encoder::new().compress_vec(&body).unwrap();
        let mut chunked = SNAPPY_HEADER.to_vec();
        for chunk in body.chunks(BLOCK) {
            let packed = snap::raw::Encoder::new().compress_vec(chunk).unwrap();
            chunked.extend((packed.len() as u32).to_be_bytes());
            chunked.extend(packed);
        }
        let all = [
            (1, gzip.finish().unwrap()),
            (2, raw),
            (2, chunked),
            (3, lz4.finish().unwrap()),
            (4, zstd::encode_all(&body[..], 3).unwrap()),
        ];
        for (codec, packed) in all {
            assert_eq!(unpack(codec, packed.into()).as_ref(), Some(&body), "codec {codec}");
        }
    }
}
