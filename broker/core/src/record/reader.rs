//! A look inside a batch: its records, one after the other, from memory that is bounded.
//!
//! The search by timestamp, recompression and tools come here; what is produced is looked at by [`super::validate`]. Never:
//! on the way of a fetched byte, and never with a limit taken from the data.

use std::io::Read;
use std::ops::ControlFlow;

use bytes::{Buf, Bytes};

use super::decompress::reader;
use super::fields::{self, Outline};
use super::{Batch, BatchError, TimestampType, decompress};
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
    scan(&mut *reader(batch.header.codec()?, batch.payload(), limit)?, batch, limit, visit)
}

/// The same of records that come out of `source`, decompressed.
pub(crate) fn scan(
    source: &mut dyn Read,
    batch: &Batch,
    limit: usize,
    mut visit: impl FnMut(RecordMeta) -> ControlFlow<()>,
) -> Result<(), BatchError> {
    let mut misplaced = Ok(());
    fields::stream(source, &batch.header, limit, |outline| match place(batch, &outline) {
        Ok(record) => visit(record),
        Err(error) => {
            misplaced = Err(error);
            ControlFlow::Break(())
        }
    })?;
    misplaced
}

/// Offset and timestamp of a record from its deltas.
fn place(batch: &Batch, outline: &Outline) -> Result<RecordMeta, BatchError> {
    let header = &batch.header;
    let Outline { index, timestamp_delta, offset_delta, has_key } = *outline;
    if offset_delta < 0 || offset_delta > header.last_offset_delta {
        return Err(invalid("a record's offset lies outside its batch"));
    }
    let timestamp = match header.timestamp_type() {
        TimestampType::LogAppendTime => header.max_timestamp,
        TimestampType::CreateTime => header.base_timestamp.wrapping_add(timestamp_delta),
    };
    Ok(RecordMeta { index, offset: header.base_offset.plus(offset_delta.into()), timestamp, has_key })
}

/// All records in full, decompressed to at most `limit` bytes.
pub fn records(batch: &Batch, limit: usize) -> Result<Vec<RecordView>, BatchError> {
    let mut input = decompress(batch.header.codec()?, &batch.payload(), limit)?;
    fields::slice(&input, &batch.header, |_| ControlFlow::Continue(()))?;
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
        let offset_delta =
            i32::try_from(offset_delta).map_err(|_| invalid("an offset of more than 32 bits"))?;
        let meta = place(batch, &Outline { index: 0, timestamp_delta, offset_delta, has_key: false })?;
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

pub(crate) fn invalid(what: &str) -> BatchError {
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
    let mut bits: u64 = 0;
    for shift in (0..64).step_by(7) {
        if !input.has_remaining() {
            return Err(invalid("records end too early"));
        }
        let byte = input.get_u8();
        bits |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Ok((bits >> 1) as i64 ^ -((bits & 1) as i64));
        }
    }
    Err(invalid("a variable-length number without an end"))
}

#[cfg(test)]
mod tests {
    use super::super::{BatchBuilder, Codec, RecordToWrite};
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
