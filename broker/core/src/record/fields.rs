//! The fields of records, one record after the other: that each parses and ends where it should, and nothing is behind the
//! last one.
//!
//! A record is its length, then attributes, timestamp delta, offset delta, key, value, headers; lengths and deltas are zigzag
//! varints, null is the length -1 (Kafka's protocol guide, "Record"). What is not compressed is read where it lies;
//! else through a window, record by record where one fits into it. Hot: every produced record passes here. Never: an
//! allocation for a record, a length believed before the bytes are there, a varint that does not fit its type.

use std::{cell::Cell, io::Read, ops::ControlFlow};

use super::{BatchError, BatchHeader, Codec, decompress::damaged, reader::invalid};

/// Decompressed bytes that are looked at together; a zstd frame that fits is decompressed in one pass.
const WINDOW: usize = 128 * 1024;

thread_local! {
    /// The window of this thread, unless a look uses it.
    static SPARE: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// What a look at a record finds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Outline {
    /// Number in the batch.
    pub(crate) index: i32,
    pub(crate) timestamp_delta: i64,
    pub(crate) offset_delta: i32,
    pub(crate) has_key: bool,
}

/// Where fields come from. Ends with the record.
trait Fields {
    fn byte(&mut self) -> Result<u8, BatchError>;
    fn skip(&mut self, count: usize) -> Result<(), BatchError>;
    fn is_empty(&self) -> bool;

    /// A number of up to 32 bits.
    #[inline]
    fn varint(&mut self) -> Result<i32, BatchError> {
        let first = self.byte()?;
        if first < 0x80 {
            return Ok(unzigzag(first.into()) as i32);
        }
        let mut bits = u64::from(first & 0x7f);
        for shift in (7..35).step_by(7) {
            let byte = self.byte()?;
            bits |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return i32::try_from(unzigzag(bits)).map_err(|_| invalid("a number of more than 32 bits"));
            }
        }
        Err(invalid("a number of more than 32 bits"))
    }

    /// A number of up to 64 bits.
    #[inline]
    fn varlong(&mut self) -> Result<i64, BatchError> {
        let mut bits = 0;
        for shift in (0..63).step_by(7) {
            let byte = self.byte()?;
            bits |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(unzigzag(bits));
            }
        }
        match self.byte()? {
            byte @ 0..=1 => Ok(unzigzag(bits | u64::from(byte) << 63)),
            _ => Err(invalid("a number of more than 64 bits")),
        }
    }

    /// Passes over a length and so many bytes. Whether there was something, be it empty.
    #[inline]
    fn pass(&mut self) -> Result<bool, BatchError> {
        match self.varint()? {
            -1 => Ok(false),
            length => {
                let length = usize::try_from(length).map_err(|_| invalid("a length below -1"))?;
                self.skip(length).map(|()| true)
            }
        }
    }
}

#[inline]
fn unzigzag(bits: u64) -> i64 {
    (bits >> 1) as i64 ^ -((bits & 1) as i64)
}

/// The fields of a record, which must be all that is in `fields`.
#[inline]
fn record(index: i32, mut fields: impl Fields) -> Result<Outline, BatchError> {
    let _attributes = fields.byte()?;
    let timestamp_delta = fields.varlong()?;
    let offset_delta = fields.varint()?;
    let has_key = fields.pass()?;
    let _has_value = fields.pass()?;
    let headers = fields.varint()?;
    if headers < 0 {
        return Err(invalid("a negative number of headers"));
    }
    for _ in 0..headers {
        if !fields.pass()? {
            return Err(invalid("a header without a key"));
        }
        let _has_value = fields.pass()?;
    }
    if !fields.is_empty() {
        return Err(invalid("a record longer than its fields"));
    }
    Ok(Outline { index, timestamp_delta, offset_delta, has_key })
}

fn length(fields: &mut impl Fields) -> Result<usize, BatchError> {
    usize::try_from(fields.varint()?).map_err(|_| invalid("a record of negative length"))
}

impl Fields for &[u8] {
    #[inline]
    fn byte(&mut self) -> Result<u8, BatchError> {
        let (byte, rest) = self.split_first().ok_or_else(too_short)?;
        *self = rest;
        Ok(*byte)
    }

    #[inline]
    fn skip(&mut self, count: usize) -> Result<(), BatchError> {
        *self = self.get(count..).ok_or_else(too_short)?;
        Ok(())
    }

    #[inline]
    fn is_empty(&self) -> bool {
        <[u8]>::is_empty(self)
    }
}

#[cold]
fn too_short() -> BatchError {
    invalid("records end too early")
}

/// Visits the records of a batch with this `header` that lie in `plain`, uncompressed, until `visit` breaks.
pub(crate) fn slice(
    mut plain: &[u8],
    header: &BatchHeader,
    mut visit: impl FnMut(Outline) -> ControlFlow<()>,
) -> Result<(), BatchError> {
    for index in 0..header.record_count {
        let length = length(&mut plain)?;
        let (fields, rest) = plain.split_at_checked(length).ok_or_else(too_short)?;
        plain = rest;
        if visit(record(index, fields)?).is_break() {
            return Ok(());
        }
    }
    if plain.is_empty() { Ok(()) } else { Err(invalid("bytes behind the last record")) }
}

/// The same for records that come out of `source`; more than `limit` bytes of it are an error.
pub(crate) fn stream(
    source: &mut dyn Read,
    header: &BatchHeader,
    limit: usize,
    mut visit: impl FnMut(Outline) -> ControlFlow<()>,
) -> Result<(), BatchError> {
    let mut window = Window::new(source, header.codec()?, limit);
    for index in 0..header.record_count {
        let length = length(&mut window)?;
        let outline = if length <= WINDOW {
            let fields = window.whole(length)?;
            let outline = record(index, fields)?;
            window.at += length;
            outline
        } else {
            record(index, Part { window: &mut window, left: length })?
        };
        if visit(outline).is_break() {
            return Ok(());
        }
    }
    if window.at == window.end && !window.fill()? {
        Ok(())
    } else {
        Err(invalid("bytes behind the last record"))
    }
}

/// A piece of what a source gives.
struct Window<'a> {
    source: &'a mut dyn Read,
    codec: Codec,
    bytes: Vec<u8>,
    /// What is in it and has not been looked at.
    at: usize,
    end: usize,
    /// How much the source has given.
    given: usize,
    limit: usize,
}

impl Drop for Window<'_> {
    fn drop(&mut self) {
        SPARE.set(std::mem::take(&mut self.bytes));
    }
}

impl<'a> Window<'a> {
    fn new(source: &'a mut dyn Read, codec: Codec, limit: usize) -> Self {
        let mut bytes = SPARE.take();
        bytes.resize(WINDOW, 0);
        Self { source, codec, bytes, at: 0, end: 0, given: 0, limit }
    }

    /// Puts more behind what is left, which is not a whole window. `false` at the end.
    fn fill(&mut self) -> Result<bool, BatchError> {
        self.bytes.copy_within(self.at..self.end, 0);
        (self.at, self.end) = (0, self.end - self.at);
        let free = &mut self.bytes[self.end..];
        let count = self.source.read(free).map_err(|error| damaged(self.codec, &error))?;
        self.end += count;
        self.given += count;
        if self.given > self.limit { Err(BatchError::TooLarge(self.limit)) } else { Ok(count > 0) }
    }

    /// The next `length` bytes in one piece; they fit into the window.
    #[inline]
    fn whole(&mut self, length: usize) -> Result<&[u8], BatchError> {
        while self.end - self.at < length {
            if !self.fill()? {
                return Err(too_short());
            }
        }
        Ok(&self.bytes[self.at..self.at + length])
    }
}

impl Fields for Window<'_> {
    #[inline]
    fn byte(&mut self) -> Result<u8, BatchError> {
        let byte = self.whole(1)?[0];
        self.at += 1;
        Ok(byte)
    }

    fn skip(&mut self, mut count: usize) -> Result<(), BatchError> {
        while count > 0 {
            self.whole(1)?;
            let some = count.min(self.end - self.at);
            self.at += some;
            count -= some;
        }
        Ok(())
    }

    fn is_empty(&self) -> bool {
        self.at == self.end
    }
}

/// A record that is larger than the window.
struct Part<'a, 'b> {
    window: &'a mut Window<'b>,
    left: usize,
}

impl Fields for Part<'_, '_> {
    fn byte(&mut self) -> Result<u8, BatchError> {
        self.left = self.left.checked_sub(1).ok_or_else(too_short)?;
        self.window.byte()
    }

    fn skip(&mut self, count: usize) -> Result<(), BatchError> {
        self.left = self.left.checked_sub(count).ok_or_else(too_short)?;
        self.window.skip(count)
    }

    fn is_empty(&self) -> bool {
        self.left == 0
    }
}
