//! Which batches a leader accepts from a producer, and with which error the others are refused.
//!
//! First the header is checked, and the CRC: cheap, by [`check_header`]. Then the records are looked at, every one of them,
//! by [`Received::look`]: that each parses and ends where it should, that there are as many as the header says, at the
//! offsets that follow, within what the topic allows. The largest timestamp is what the records say; where the header says
//! something else, the header is corrected and gets a new CRC. With `produce.batch.validation=relaxed` records are looked at
//! only where the header cannot be right, or the topic asks for something that it does not show.
//!
//! Source: KIP-98, KIP-467, KIP-937, Apache Kafka's produce request and log validation, whose error codes these are. Never:
//! change a record, believe what a producer says about its records (unless told to), allocate for a record.

use std::ops::ControlFlow;

use bytes::Bytes;

use super::{
    Batch, BatchError, BatchHeader, Codec, Compression, HEADER_LENGTH, NO_TIMESTAMP, TimestampType,
    decompress::reader,
    fields::{self, Outline},
    header, recompress,
};
use crate::error::ResponseError;

/// What a topic asks of a produced batch.
#[derive(Debug, Clone)]
pub struct ProduceRules {
    pub api_version: i16,
    /// The request has a transactional id.
    pub transactional: bool,
    /// `max.message.bytes`, against the batch as sent.
    pub max_message_bytes: usize,
    /// `cleanup.policy` holds `compact`: every record needs a key.
    pub compacted: bool,
    pub timestamp_type: TimestampType,
    /// `message.timestamp.before.max.ms`; `i64::MAX` for no bound.
    pub timestamp_before_max_ms: i64,
    /// `message.timestamp.after.max.ms`; `i64::MAX` for no bound.
    pub timestamp_after_max_ms: i64,
    /// The broker's wall clock.
    pub now_ms: i64,
    /// `produce.batch.validation` is `strict`: records are looked at also where the header may be right.
    pub strict: bool,
}

/// A refused batch: the code, a message, and the records at fault (KIP-467).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejected {
    pub error: ResponseError,
    pub message: String,
    /// (index of the record in the batch, message)
    pub records: Vec<(i32, String)>,
}

/// How far a batch may expand when it is looked at or recompressed. Apache Kafka knows no such limit.
pub const LOOK_INSIDE_LIMIT: usize = 256 << 20;
/// How many records at fault an answer names; more would let a request grow its own answer.
const NAMED_MOST: usize = 100;
/// The first Produce version whose clients know zstd (KIP-110).
const ZSTD_SINCE: i16 = 7;

fn refuse<T>(error: ResponseError, message: impl Into<String>) -> Result<T, Rejected> {
    Err(Rejected { error, message: message.into(), records: Vec::new() })
}

/// Checks the records of one partition of a produce request. They must be exactly one batch.
pub fn validate_produce(records: Option<Bytes>, rules: &ProduceRules) -> Result<Batch, Rejected> {
    check_header(records, rules)?.look_through()
}

/// A batch whose header and CRC are good.
#[derive(Debug)]
pub struct Received {
    batch: Batch,
    rules: ProduceRules,
}

/// What came of a look at the records.
#[derive(Debug)]
pub enum Look {
    Done(Result<Batch, Rejected>),
    /// They are larger than the look was allowed to go.
    TooLarge(Received),
}

/// Checks all that needs no look at the records: there is exactly one batch, of a form and size that is accepted, and its CRC
/// is right.
pub fn check_header(records: Option<Bytes>, rules: &ProduceRules) -> Result<Received, Rejected> {
    let bytes = records.unwrap_or_default();
    let header = one_batch(&bytes)?;
    check_form(&header, rules)?;
    if bytes.len() > rules.max_message_bytes {
        let message =
            format!("the batch has {} bytes, max.message.bytes is {}", bytes.len(), rules.max_message_bytes);
        return refuse(ResponseError::MessageTooLarge, message);
    }
    let batch =
        Batch::check(bytes).or_else(|error| refuse(ResponseError::CorruptMessage, error.to_string()))?;
    Ok(Received { batch, rules: rules.clone() })
}

impl Received {
    /// Looks at the records, as far as the rules ask for it, through at most `most` bytes of them decompressed. What passes
    /// is the batch as the topic stores it, its codec aside.
    pub fn look(self, most: usize) -> Look {
        let Self { batch, rules } = &self;
        let findings = if needs_look(&batch.header, rules) {
            match Findings::of(batch, rules, most) {
                Ok(findings) => Some(findings),
                Err(BatchError::TooLarge(_)) => return Look::TooLarge(self),
                Err(error) => return Look::Done(refuse(refusal(&error), error.to_string())),
            }
        } else {
            None
        };
        Look::Done(self.conclude(findings))
    }

    /// The same with the most that any look goes through. Takes a while.
    pub fn look_through(self) -> Result<Batch, Rejected> {
        // What came uncompressed does not expand.
        let most = LOOK_INSIDE_LIMIT.max(self.batch.bytes.len());
        match self.look(most) {
            Look::Done(done) => done,
            Look::TooLarge(_) => too_large(),
        }
    }

    fn conclude(self, findings: Option<Findings>) -> Result<Batch, Rejected> {
        let Self { batch, rules } = self;
        let mut header = batch.header;
        if let Some(findings) = findings {
            header.max_timestamp = findings.max_timestamp;
            findings.judge()?;
        }
        match rules.timestamp_type {
            TimestampType::CreateTime => header.attributes &= !header::LOG_APPEND_TIME,
            TimestampType::LogAppendTime => {
                header.attributes |= header::LOG_APPEND_TIME;
                header.max_timestamp = rules.now_ms;
            }
        }
        Ok(with_header(batch, header))
    }
}

fn too_large<T>() -> Result<T, Rejected> {
    let message = format!("the batch has more than {} MiB decompressed", LOOK_INSIDE_LIMIT >> 20);
    refuse(ResponseError::MessageTooLarge, message)
}

/// The code for records that cannot be read. What does not decompress ends in an exception that Apache Kafka has no code for,
/// and so does a codec that does not exist.
fn refusal(error: &BatchError) -> ResponseError {
    match error {
        BatchError::Compression(_) => ResponseError::UnknownServerError,
        _ => ResponseError::InvalidRecord,
    }
}

/// The header of the one batch that `bytes` must be.
fn one_batch(bytes: &[u8]) -> Result<BatchHeader, Rejected> {
    const ONE: &str = "a produce request holds exactly one batch per partition";
    // Before magic 2 the byte stood at the same place: say so instead of complaining about a length.
    if let Some(&magic) = bytes.get(16)
        && magic != 2
    {
        let error = match magic {
            0 | 1 => ResponseError::InvalidRecord,
            _ => ResponseError::CorruptMessage,
        };
        return refuse(error, format!("message format {magic} is not accepted, only 2"));
    }
    let header = match BatchHeader::parse(bytes) {
        Ok(header) => header,
        Err(BatchError::Incomplete { .. }) => return refuse(ResponseError::InvalidRecord, ONE),
        Err(error @ BatchError::Length(_)) => {
            return refuse(ResponseError::CorruptMessage, error.to_string());
        }
        Err(error) => return refuse(ResponseError::InvalidRecord, error.to_string()),
    };
    if bytes.len() == header.total_length() { Ok(header) } else { refuse(ResponseError::InvalidRecord, ONE) }
}

/// What the header alone shows to be wrong.
fn check_form(header: &BatchHeader, rules: &ProduceRules) -> Result<(), Rejected> {
    match header.codec() {
        Ok(Codec::Zstd) if rules.api_version < ZSTD_SINCE => {
            return refuse(
                ResponseError::UnsupportedCompressionType,
                "zstd needs Produce version 7 or higher",
            );
        }
        Ok(_) => {}
        Err(error) => return refuse(ResponseError::UnknownServerError, error.to_string()),
    }
    if header.is_transactional() && !rules.transactional {
        let message = "a transactional batch needs a transactional id in its request";
        return refuse(ResponseError::InvalidTxnState, message);
    }
    let invalid = |message: &str| refuse(ResponseError::InvalidRecord, message);
    if header.base_offset.0 != 0 {
        return invalid("the base offset of a produced batch is 0");
    }
    // The largest delta plus one is no i32: counted before the CRC is checked, it can be anything.
    if header.record_count < 1 || header.record_count - 1 != header.last_offset_delta {
        return invalid("the record count does not match the last offset delta");
    }
    if header.is_control() {
        return invalid("clients may not write control records");
    }
    if header.has_producer() && (header.base_sequence < 0 || header.producer_epoch.0 < 0) {
        return invalid("a batch with a producer id needs an epoch and a sequence");
    }
    if header.is_transactional() && !header.has_producer() {
        return invalid("a transactional batch needs a producer id");
    }
    Ok(())
}

/// Whether the header alone cannot decide.
fn needs_look(header: &BatchHeader, rules: &ProduceRules) -> bool {
    if rules.strict || rules.compacted || header.timestamp_type() == TimestampType::LogAppendTime {
        return true;
    }
    if rules.timestamp_type == TimestampType::LogAppendTime {
        return false;
    }
    // Without a bound from below the newest timestamp decides, if it can be the newest. Who is refused is told which records
    // are at fault.
    rules.timestamp_before_max_ms != i64::MAX
        || header.max_timestamp < header.base_timestamp.max(0)
        || rules.is_outside(header.max_timestamp)
}

impl ProduceRules {
    /// Whether a topic with CreateTime refuses this timestamp. Wraps around as Apache Kafka does, which makes the far past
    /// the future.
    fn is_outside(&self, timestamp: i64) -> bool {
        let age = self.now_ms.wrapping_sub(timestamp);
        timestamp != NO_TIMESTAMP
            && (age > self.timestamp_before_max_ms || age.wrapping_neg() > self.timestamp_after_max_ms)
    }
}

/// What the records of a batch say, once all of them have been looked at.
struct Findings {
    /// The largest, [`NO_TIMESTAMP`] if there is none.
    max_timestamp: i64,
    without_key: Vec<i32>,
    bad_timestamp: Vec<i32>,
}

impl Findings {
    fn of(batch: &Batch, rules: &ProduceRules, most: usize) -> Result<Findings, BatchError> {
        let header = &batch.header;
        let mut findings =
            Findings { max_timestamp: NO_TIMESTAMP, without_key: Vec::new(), bad_timestamp: Vec::new() };
        let create_time = rules.timestamp_type == TimestampType::CreateTime;
        // The producer's LogAppendTime bit: all its records have the largest timestamp, says Kafka, which refuses it only if
        // that is none, or the topic has LogAppendTime. What is stored has CreateTime.
        let stamped = header.timestamp_type() == TimestampType::LogAppendTime;
        let all_bad = stamped
            && (!create_time
                || header.max_timestamp == NO_TIMESTAMP
                || rules.is_outside(header.max_timestamp));
        let mut misplaced = None;
        let visit = |outline: Outline| {
            let Outline { index, timestamp_delta, offset_delta, has_key } = outline;
            if offset_delta != index {
                misplaced = Some(outline);
                return ControlFlow::Break(());
            }
            let timestamp = header.base_timestamp.checked_add(timestamp_delta);
            let largest = timestamp.unwrap_or(NO_TIMESTAMP);
            findings.max_timestamp = findings.max_timestamp.max(largest);
            if rules.compacted && !has_key {
                name(&mut findings.without_key, index);
            } else if all_bad || timestamp.is_none_or(|timestamp| create_time && rules.is_outside(timestamp))
            {
                name(&mut findings.bad_timestamp, index);
            }
            ControlFlow::Continue(())
        };
        match header.codec()? {
            Codec::None if batch.bytes.len() - HEADER_LENGTH > most => {
                return Err(BatchError::TooLarge(most));
            }
            Codec::None => fields::slice(&batch.bytes[HEADER_LENGTH..], header, visit)?,
            codec => fields::stream(&mut *reader(codec, batch.payload(), most)?, header, most, visit)?,
        }
        match misplaced {
            None => Ok(findings),
            Some(Outline { index, offset_delta, .. }) => {
                Err(BatchError::Invalid(format!("record {index} has offset delta {offset_delta}")))
            }
        }
    }

    /// Refuses the batch if records are at fault.
    fn judge(self) -> Result<(), Rejected> {
        if self.without_key.is_empty() && self.bad_timestamp.is_empty() {
            return Ok(());
        }
        const KEY: &str = "the topic is compacted: every record needs a key";
        const TIMESTAMP: &str = "the timestamp is not within message.timestamp.before.max.ms and \
                                 message.timestamp.after.max.ms of the broker's clock, or its type is LogAppendTime";
        let named = |records: Vec<i32>, why: &'static str| {
            records.into_iter().map(move |index| (index, why.to_owned()))
        };
        let (error, message) = match self.bad_timestamp.is_empty() {
            true => (ResponseError::InvalidRecord, KEY),
            false => (ResponseError::InvalidTimestamp, TIMESTAMP),
        };
        let mut records: Vec<_> =
            named(self.without_key, KEY).chain(named(self.bad_timestamp, TIMESTAMP)).collect();
        records.sort_unstable();
        records.truncate(NAMED_MOST);
        Err(Rejected { error, message: message.to_owned(), records })
    }
}

fn name(at_fault: &mut Vec<i32>, index: i32) {
    if at_fault.len() < NAMED_MOST {
        at_fault.push(index);
    }
}

/// The batch as a topic with this `compression.type` stores it; for batches that [`validate_produce`] has let pass.
pub fn recompress_produced(
    batch: &Batch,
    to: Compression,
    max_message_bytes: usize,
) -> Result<Batch, Rejected> {
    recompress(batch, to, max_message_bytes, LOOK_INSIDE_LIMIT).or_else(|error| match error {
        BatchError::TooLarge(limit) if limit == max_message_bytes => refuse(
            ResponseError::MessageTooLarge,
            format!(
                "compressed as {}, the batch has more than {limit} bytes (max.message.bytes)",
                to.codec.name()
            ),
        ),
        BatchError::TooLarge(_) => too_large(),
        error => refuse(refusal(&error), error.to_string()),
    })
}

/// The batch as a topic with `message.timestamp.type=LogAppendTime` stores it: type bit and newest timestamp set,
/// CRC made anew. Only the header changes; `bytes` stays the buffer as received.
pub fn with_log_append_time(batch: &Batch, now_ms: i64) -> Batch {
    let mut header = batch.header;
    header.attributes |= header::LOG_APPEND_TIME;
    header.max_timestamp = now_ms;
    with_header(batch.clone(), header)
}

/// The batch with another `header` whose records and length are the same, and the CRC that belongs to it.
fn with_header(batch: Batch, mut header: BatchHeader) -> Batch {
    if header != batch.header {
        header.crc = header.crc_in_place_of(&batch.header, &batch.bytes[HEADER_LENGTH..]);
    }
    Batch { header, bytes: batch.bytes }
}

#[cfg(test)]
mod tests;
