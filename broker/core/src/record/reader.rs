//! A look inside a batch: its records, one after the other, from memory that is bounded.
//!
//! Only the search by timestamp, the rules that speak about single records, and tools come here. Never: on the way
//! of a produced or fetched byte, and never with a limit taken from the data.

use std::io::Read;
use std::ops::ControlFlow;

use bytes::{Buf, Bytes};

use super::decompress::{damaged, reader};
use super::{Batch, BatchError, Codec, TimestampType, decompress};
use crate::Offset;

/// A record's outline.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RecordMeta {
    /// Index in the batch.
    pub index: i32,
    pub offset: Offset,
    /// Milliseconds; the append time of the whole batch where the broker's clock counts.
    pub timestamp: i64,
    pub has_key: bool,
}

/// A record in full. Names and values are slices of one decompressed buffer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecordView {
    pub offset: Offset,
    pub timestamp: i64,
    pub key: Option<Bytes>,
    pub value: Option<Bytes>,
    /// In order; a name may come more than once.
    pub headers: Vec<(Bytes, Option<Bytes>)>,
}

/// Visits the outline of every record in order until `visit` breaks. Streams: holds a block of the codec, never the
/// records. More than `limit` decompressed bytes, fewer records than the header says, or bytes behind the last one
/// are errors (the last only if the visit is not broken off).
pub fn scan_records(
    batch: &Batch,
    limit: usize,
    visit: impl FnMut(RecordMeta) -> ControlFlow<()>,
) -> Result<(), BatchError> {
    let source = reader(batch.header.codec()?, batch.payload(), limit)?;
    scan(source, batch, limit, visit)
}

/// The same of records that come out of `source`, decompressed.
pub(crate) fn scan(
    source: impl Read,
    batch: &Batch,
    limit: usize,
    mut visit: impl FnMut(RecordMeta) -> ControlFlow<()>,
) -> Result<(), BatchError> {
    let codec = batch.header.codec()?;
    let mut input = Counted { source: std::io::BufReader::new(source), left: limit, limit, codec };
    for index in 0..batch.header.record_count {
        let length = input.varint()?;
        let length = usize::try_from(length).map_err(|_| invalid("a record of negative length"))?;
        let begun = input.left;
        let _attributes = input.byte()?;
        let timestamp_delta = input.varint()?;
        let offset_delta = input.varint()?;
        let has_key = input.varint()? >= 0;
        let consumed = begun - input.left;
        let rest = length.checked_sub(consumed).ok_or_else(|| invalid("a record shorter than its fields"))?;
        input.skip(rest)?;
        let meta = RecordMeta { index, has_key, ..place(batch, timestamp_delta, offset_delta)? };
        if visit(meta).is_break() {
            return Ok(());
        }
    }
    input.ended()
}

/// Offset and timestamp of a record from its deltas.
fn place(batch: &Batch, timestamp_delta: i64, offset_delta: i64) -> Result<RecordMeta, BatchError> {
    let header = &batch.header;
    if offset_delta < 0 || offset_delta > i64::from(header.last_offset_delta) {
        return Err(invalid("a record's offset lies outside its batch"));
    }
    let timestamp = match header.timestamp_type() {
        TimestampType::LogAppendTime => header.max_timestamp,
        TimestampType::CreateTime => header.base_timestamp.wrapping_add(timestamp_delta),
    };
    Ok(RecordMeta { index: 0, offset: header.base_offset.plus(offset_delta), timestamp, has_key: false })
}

/// All records in full, decompressed to at most `limit` bytes.
pub fn records(batch: &Batch, limit: usize) -> Result<Vec<RecordView>, BatchError> {
    let mut input = decompress(batch.header.codec()?, &batch.payload(), limit)?;
    // The smallest record takes 7 bytes: the count cannot ask for more memory than the bytes can fill.
    let mut out = Vec::with_capacity((batch.header.record_count as usize).min(input.len() / 7 + 1));
    for _ in 0..batch.header.record_count {
        let length = length_of(&mut input)?.ok_or_else(|| invalid("a record of negative length"))?;
        let mut record = input.split_to(length);
        if !record.has_remaining() {
            return Err(invalid("a record without attributes"));
        }
        record.advance(1);
        let timestamp_delta = varint(&mut record)?;
        let offset_delta = varint(&mut record)?;
        let meta = place(batch, timestamp_delta, offset_delta)?;
        let key = field(&mut record)?;
        let value = field(&mut record)?;
        let count = varint(&mut record)?;
        if count < 0 || count > record.len() as i64 {
            return Err(invalid("an impossible number of headers"));
        }
        let mut headers = Vec::new();
        for _ in 0..count {
            let name = field(&mut record)?.ok_or_else(|| invalid("a header without a name"))?;
            headers.push((name, field(&mut record)?));
        }
        if record.has_remaining() {
            return Err(invalid("a record longer than its fields"));
        }
        out.push(RecordView { offset: meta.offset, timestamp: meta.timestamp, key, value, headers });
    }
    if input.has_remaining() { Err(invalid("bytes behind the last record")) } else { Ok(out) }
}

fn invalid(what: &str) -> BatchError {
    BatchError::Invalid(what.to_owned())
}

/// A length that fits the rest of the input; `None` for null.
fn length_of(input: &mut Bytes) -> Result<Option<usize>, BatchError> {
    match varint(input)? {
        negative if negative < 0 => Ok(None),
        length if length as u64 <= input.len() as u64 => Ok(Some(length as usize)),
        _ => Err(invalid("a field longer than its record")),
    }
}

fn field(input: &mut Bytes) -> Result<Option<Bytes>, BatchError> {
    Ok(length_of(input)?.map(|length| input.split_to(length)))
}

fn varint(input: &mut Bytes) -> Result<i64, BatchError> {
    zigzag(|| if input.has_remaining() { Ok(input.get_u8()) } else { Err(invalid("records end too early")) })
}

/// A zigzag varint of up to 64 bits.
fn zigzag(mut next: impl FnMut() -> Result<u8, BatchError>) -> Result<i64, BatchError> {
    let mut bits: u64 = 0;
    for shift in (0..64).step_by(7) {
        let byte = next()?;
        bits |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Ok((bits >> 1) as i64 ^ -((bits & 1) as i64));
        }
    }
    Err(invalid("a variable-length number without an end"))
}

/// A stream that may give no more than `limit` bytes.
struct Counted<R> {
    source: R,
    left: usize,
    limit: usize,
    codec: Codec,
}

impl<R: Read> Counted<R> {
    fn byte(&mut self) -> Result<u8, BatchError> {
        self.left = self.left.checked_sub(1).ok_or(BatchError::TooLarge(self.limit))?;
        let mut byte = [0];
        self.source.read_exact(&mut byte).map_err(|error| damaged(self.codec, &error))?;
        Ok(byte[0])
    }

    fn varint(&mut self) -> Result<i64, BatchError> {
        zigzag(|| self.byte())
    }

    fn skip(&mut self, count: usize) -> Result<(), BatchError> {
        self.left = self.left.checked_sub(count).ok_or(BatchError::TooLarge(self.limit))?;
        let skipped = std::io::copy(&mut self.source.by_ref().take(count as u64), &mut std::io::sink())
            .map_err(|error| damaged(self.codec, &error))?;
        if skipped == count as u64 { Ok(()) } else { Err(invalid("records end too early")) }
    }

    fn ended(&mut self) -> Result<(), BatchError> {
        match self.source.read(&mut [0]) {
            Ok(0) => Ok(()),
            Ok(_) => Err(invalid("bytes behind the last record")),
            Err(error) => Err(damaged(self.codec, &error)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{BatchBuilder, RecordToWrite};
    use super::*;
    use proptest::prelude::*;

    fn any_bytes(most: usize) -> impl Strategy<Value = Option<Vec<u8>>> {
        proptest::option::of(proptest::collection::vec(any::<u8>(), 0..most))
    }

    fn any_record() -> impl Strategy<Value = RecordToWrite> {
        (
            0..1_000_000i64,
            any_bytes(20),
            any_bytes(60),
            proptest::collection::vec(("[a-c]{0,2}", any_bytes(5)), 0..4),
        )
            .prop_map(|(timestamp, key, value, headers)| RecordToWrite {
                timestamp,
                key: key.map(Bytes::from),
                value: value.map(Bytes::from),
                headers: headers.into_iter().map(|(name, value)| (name, value.map(Bytes::from))).collect(),
            })
    }

    proptest! {
        #[test]
        fn what_the_builder_writes_is_read_back(
            written in proptest::collection::vec(any_record(), 1..20),
            codec in proptest::sample::select(Codec::ALL.to_vec()),
        ) {
            let mut builder = BatchBuilder::new().codec(codec).base_offset(Offset(100));
            for record in &written {
                builder = builder.record(record.clone());
            }
            let batch = Batch::check(builder.build()).unwrap();
            let seen = records(&batch, 1 << 20).unwrap();
            prop_assert_eq!(seen.len(), written.len());
            let mut outlines = Vec::new();
            scan_records(&batch, 1 << 20, |meta| { outlines.push(meta); ControlFlow::Continue(()) }).unwrap();
            for (index, (seen, written)) in seen.iter().zip(&written).enumerate() {
                prop_assert_eq!(seen.offset, Offset(100 + index as i64));
                prop_assert_eq!(seen.timestamp, written.timestamp);
                prop_assert_eq!(&seen.key, &written.key);
                prop_assert_eq!(&seen.value, &written.value);
                let headers: Vec<_> =
                    written.headers.iter().map(|(n, v)| (Bytes::from(n.clone().into_bytes()), v.clone())).collect();
                prop_assert_eq!(&seen.headers, &headers);
                let outline = RecordMeta {
                    index: index as i32,
                    offset: seen.offset,
                    timestamp: seen.timestamp,
                    has_key: seen.key.is_some(),
                };
                prop_assert_eq!(outlines[index], outline);
            }
            prop_assert!(scan_records(&batch, 3, |_| ControlFlow::Continue(())).is_err());
        }

        #[test]
        fn damaged_records_are_an_error_but_never_a_panic(
            written in proptest::collection::vec(any_record(), 1..5),
            codec in proptest::sample::select(Codec::ALL.to_vec()),
            damage in proptest::collection::vec((any::<proptest::sample::Index>(), any::<u8>()), 1..5),
        ) {
            let mut builder = BatchBuilder::new().codec(codec);
            for record in written {
                builder = builder.record(record);
            }
            let mut bytes = builder.build().to_vec();
            for (at, byte) in damage {
                let at = super::super::HEADER_LENGTH + at.index(bytes.len() - super::super::HEADER_LENGTH);
                bytes[at] = byte;
            }
            let header = super::super::BatchHeader::parse(&bytes).unwrap();
            let batch = Batch { header, bytes: Bytes::from(bytes) };
            let full = records(&batch, 100_000);
            let outline = scan_records(&batch, 100_000, |_| ControlFlow::Continue(()));
            prop_assert!(full.is_err() || outline.is_ok(), "{:?} {:?}", full, outline);
        }
    }
}
