//! Another codec for the records of a batch, where a topic's `compression.type` asks for one.
//!
//! The records are streamed from one codec into the other and checked on their way (counts, offsets, that nothing is
//! behind them); not one byte of them changes, and of the header only codec, length and CRC. Source: Apache Kafka's
//! LogValidator. Never: more memory than the codecs' windows and the result, whose size is limited; a batch that has the
//! right codec already.

use std::{
    io::{self, Read, Write},
    ops::ControlFlow,
};

use bytes::Bytes;

use super::{
    Batch, BatchError, Codec, HEADER_LENGTH, LOG_OVERHEAD, builder::put_xerial_header, decompress::reader,
    header, reader::scan,
};

/// A codec with its level; `None` for the codec's own default.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Compression {
    pub codec: Codec,
    /// gzip 1 to 9, zstd −131072 to 22. LZ4 has one level here.
    pub level: Option<i32>,
}

/// Block size of the Java snappy stream.
const SNAPPY_BLOCK: usize = 32 * 1024;
/// The largest window of a zstd frame of ours, 8 MiB: the highest levels would take a hundred times the batch.
const ZSTD_WINDOW_LOG: u32 = 23;

/// The batch with its records in `to`. The result has at most `limit` bytes, its records at most `expanded` bytes when
/// decompressed.
///
/// # Errors
/// [`BatchError::TooLarge`] if one of the limits does not hold, else what is wrong with the records.
pub fn recompress(
    batch: &Batch,
    to: Compression,
    limit: usize,
    expanded: usize,
) -> Result<Batch, BatchError> {
    let source = reader(batch.header.codec()?, batch.payload(), expanded)?;
    let mut out = Vec::with_capacity(batch.bytes.len().min(limit));
    out.resize(HEADER_LENGTH, 0);
    let encoder = Encoder::new(to, Capped { bytes: out, limit }).map_err(|_| BatchError::TooLarge(limit))?;
    let mut tee = Tee { source, encoder, overflow: false };
    let mut misplaced = None;
    let scanned = scan(&mut tee, batch, expanded, |record| {
        let expected = batch.header.base_offset.plus(i64::from(record.index));
        if record.offset == expected {
            return ControlFlow::Continue(());
        }
        misplaced = Some(format!("record {} has offset {}, not {expected}", record.index, record.offset));
        ControlFlow::Break(())
    });
    if tee.overflow {
        return Err(BatchError::TooLarge(limit));
    }
    scanned?;
    if let Some(why) = misplaced {
        return Err(BatchError::Invalid(why));
    }
    let bytes = tee.encoder.finish().map_err(|_| BatchError::TooLarge(limit))?;
    Ok(finished(batch, to.codec, bytes))
}

/// `bytes` hold room for the header, then the records.
fn finished(batch: &Batch, codec: Codec, mut bytes: Vec<u8>) -> Batch {
    let mut header = batch.header;
    header.attributes = header.attributes & !header::CODEC_MASK | codec as i16;
    header.batch_length =
        i32::try_from(bytes.len() - LOG_OVERHEAD).expect("the limit is that of a batch's length");
    header.crc = header.crc_with(&bytes[HEADER_LENGTH..]);
    bytes[..HEADER_LENGTH].copy_from_slice(&header.encode());
    Batch { header, bytes: Bytes::from(bytes) }
}

/// Hands on what is read, and writes it into the encoder.
struct Tee<R> {
    source: R,
    encoder: Encoder,
    overflow: bool,
}

impl<R: Read> Read for Tee<R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let count = self.source.read(out)?;
        if let Err(error) = self.encoder.write_all(&out[..count]) {
            self.overflow = true;
            return Err(error);
        }
        Ok(count)
    }
}

/// Memory that may grow to a limit.
struct Capped {
    bytes: Vec<u8>,
    limit: usize,
}

impl Write for Capped {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        if self.bytes.len() + data.len() > self.limit {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        self.bytes.extend_from_slice(data);
        Ok(data.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// In the framings that the Java client writes.
enum Encoder {
    None(Capped),
    Gzip(flate2::write::GzEncoder<Capped>),
    Snappy(Capped, Vec<u8>),
    Lz4(Box<lz4_flex::frame::FrameEncoder<Capped>>),
    Zstd(zstd::stream::write::Encoder<'static, Capped>),
}

impl Encoder {
    fn new(to: Compression, mut out: Capped) -> io::Result<Self> {
        Ok(match to.codec {
            Codec::None => Self::None(out),
            Codec::Gzip => {
                let level = to.level.and_then(|level| u32::try_from(level).ok());
                let level = level.map_or_else(flate2::Compression::default, flate2::Compression::new);
                Self::Gzip(flate2::write::GzEncoder::new(out, level))
            }
            Codec::Snappy => {
                put_xerial_header(&mut out)?;
                Self::Snappy(out, Vec::with_capacity(SNAPPY_BLOCK))
            }
            Codec::Lz4 => Self::Lz4(Box::new(lz4_flex::frame::FrameEncoder::new(out))),
            Codec::Zstd => {
                let level = to.level.unwrap_or(zstd::DEFAULT_COMPRESSION_LEVEL);
                let mut encoder = zstd::stream::write::Encoder::new(out, level)?;
                if level > 19 {
                    encoder.window_log(ZSTD_WINDOW_LOG)?;
                }
                Self::Zstd(encoder)
            }
        })
    }

    fn write_all(&mut self, data: &[u8]) -> io::Result<()> {
        match self {
            Self::None(out) => out.write_all(data),
            Self::Gzip(encoder) => encoder.write_all(data),
            Self::Snappy(out, block) => {
                let mut rest = data;
                while !rest.is_empty() {
                    let (now, later) = rest.split_at(rest.len().min(SNAPPY_BLOCK - block.len()));
                    block.extend_from_slice(now);
                    rest = later;
                    if block.len() == SNAPPY_BLOCK {
                        put_snappy_block(out, block)?;
                    }
                }
                Ok(())
            }
            Self::Lz4(encoder) => encoder.write_all(data),
            Self::Zstd(encoder) => encoder.write_all(data),
        }
    }

    fn finish(self) -> io::Result<Vec<u8>> {
        Ok(match self {
            Self::None(out) => out.bytes,
            Self::Gzip(encoder) => encoder.finish()?.bytes,
            Self::Snappy(mut out, mut block) => {
                if !block.is_empty() {
                    put_snappy_block(&mut out, &mut block)?;
                }
                out.bytes
            }
            Self::Lz4(encoder) => encoder.finish().map_err(io::Error::other)?.bytes,
            Self::Zstd(encoder) => encoder.finish()?.bytes,
        })
    }
}

fn put_snappy_block(out: &mut Capped, block: &mut Vec<u8>) -> io::Result<()> {
    let packed = snap::raw::Encoder::new().compress_vec(block).map_err(io::Error::other)?;
    let length = u32::try_from(packed.len()).map_err(io::Error::other)?;
    out.write_all(&length.to_be_bytes())?;
    out.write_all(&packed)?;
    block.clear();
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::{BatchBuilder, RecordToWrite, decompress, records};
    use super::*;
    use crate::{LeaderEpoch, Offset, ProducerEpoch, ProducerId};

    const MUCH: usize = 64 << 20;

    fn to(codec: Codec) -> Compression {
        Compression { codec, level: None }
    }

    fn bytes(most: usize) -> impl Strategy<Value = Option<Vec<u8>>> {
        proptest::option::of(proptest::collection::vec(any::<u8>(), 0..most))
    }

    fn record() -> impl Strategy<Value = RecordToWrite> {
        let headers = proptest::collection::vec(("[a-c]{0,2}", bytes(5)), 0..4);
        (-1..1_000_000i64, bytes(20), bytes(3000), headers).prop_map(|(timestamp, key, value, headers)| {
            RecordToWrite {
                timestamp,
                key: key.map(Bytes::from),
                value: value.map(Bytes::from),
                headers: headers.into_iter().map(|(name, value)| (name, value.map(Bytes::from))).collect(),
            }
        })
    }

    fn batch(records: &[RecordToWrite], codec: Codec) -> Batch {
        let builder = BatchBuilder::new()
            .codec(codec)
            .base_offset(Offset(7))
            .leader_epoch(LeaderEpoch(3))
            .producer(ProducerId(5), ProducerEpoch(2), 11);
        let builder = records.iter().fold(builder, |builder, record| builder.record(record.clone()));
        Batch::check(builder.build()).unwrap()
    }

    proptest! {
        #[test]
        fn records_in_are_records_out_for_every_pair_of_codecs(
            written in proptest::collection::vec(record(), 1..40),
        ) {
            for from in Codec::ALL {
                let before = batch(&written, from);
                let plain = decompress(from, &before.payload(), MUCH).unwrap();
                for codec in Codec::ALL {
                    let after = recompress(&before, to(codec), MUCH, MUCH).unwrap();
                    let stored = Batch::check(after.bytes.clone()).expect("length and CRC are right");
                    prop_assert_eq!(stored.header, after.header);
                    prop_assert_eq!(after.header.codec().unwrap(), codec);
                    prop_assert_eq!(records(&stored, MUCH).unwrap(), records(&before, MUCH).unwrap());
                    prop_assert_eq!(decompress(codec, &stored.payload(), MUCH).unwrap(), plain.clone());
                    let mut header = after.header;
                    (header.attributes, header.batch_length, header.crc) =
                        (before.header.attributes, before.header.batch_length, before.header.crc);
                    prop_assert_eq!(header, before.header, "nothing else changes");
                }
            }
        }

        #[test]
        fn what_does_not_hold_the_records_that_it_claims_is_refused(
            written in proptest::collection::vec(record(), 2..10),
            cut in 1..30usize,
            more in -1..3i32,
        ) {
            let whole = batch(&written, Codec::None);
            let payload = whole.payload();
            let mut shorter = whole.header;
            shorter.record_count += more;
            let kept = payload.len().saturating_sub(if more == 0 { cut } else { 0 });
            let bytes = [&shorter.encode()[..], &payload[..kept]].concat();
            let liar = Batch { header: shorter, bytes: Bytes::from(bytes) };
            for codec in Codec::ALL {
                prop_assert!(recompress(&liar, to(codec), MUCH, MUCH).is_err());
            }
        }
    }

    #[test]
    fn the_result_and_what_it_takes_to_get_there_are_limited() {
        let zeros = RecordToWrite { value: Some(vec![0; 4 << 20].into()), ..RecordToWrite::default() };
        for from in [Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd] {
            let bomb = batch(std::slice::from_ref(&zeros), from);
            let limit = 1 << 20;
            for codec in [Codec::None, Codec::Gzip, Codec::Zstd] {
                let small = recompress(&bomb, to(codec), limit, MUCH);
                assert_eq!(small.is_ok(), codec != Codec::None, "{from:?} to {codec:?}");
                assert!(recompress(&bomb, to(codec), MUCH, limit).is_err(), "{from:?} to {codec:?}");
            }
            let smallest = recompress(&bomb, to(Codec::Zstd), MUCH, MUCH).unwrap().bytes.len();
            assert!(recompress(&bomb, to(Codec::Zstd), smallest, MUCH).is_ok());
            assert_eq!(
                recompress(&bomb, to(Codec::Zstd), smallest - 1, MUCH).unwrap_err(),
                BatchError::TooLarge(smallest - 1)
            );
        }
    }

    #[test]
    fn every_level_is_read_back() {
        let text: Vec<u8> = (0..20_000u32).flat_map(|number| number.to_string().into_bytes()).collect();
        let record = RecordToWrite { value: Some(text.into()), ..RecordToWrite::default() };
        let before = batch(&[record], Codec::None);
        let gzip = [None, Some(-1), Some(1), Some(9)].map(|level| Compression { codec: Codec::Gzip, level });
        let zstd =
            [-131_072, -5, 1, 3, 19, 22].map(|level| Compression { codec: Codec::Zstd, level: Some(level) });
        for compression in gzip.into_iter().chain(zstd) {
            let after = recompress(&before, compression, MUCH, MUCH).unwrap();
            assert_eq!(records(&after, MUCH).unwrap(), records(&before, MUCH).unwrap(), "{compression:?}");
        }
    }

    #[test]
    fn misplaced_records_are_refused() {
        let records = [RecordToWrite::default(), RecordToWrite::default()];
        let good = batch(&records, Codec::None);
        let mut bytes = good.bytes.to_vec();
        // The second record: length, attributes, timestamp delta, offset delta.
        let second = HEADER_LENGTH + (bytes.len() - HEADER_LENGTH) / 2;
        assert_eq!(bytes[second + 3], 2);
        bytes[second + 3] = 0;
        let header = good.header;
        let bad = Batch { header, bytes: Bytes::from(bytes) };
        assert!(matches!(recompress(&bad, to(Codec::Lz4), MUCH, MUCH), Err(BatchError::Invalid(_))));
    }
}
