//! Which batches a leader accepts from a producer, and with which error the others are refused.
//!
//! Source: KIP-98, KIP-467, KIP-937, Apache Kafka's produce request and log validation. Decided from the header
//! wherever it can be: records are looked at only if the topic is compacted, bounds timestamps from below, or a
//! refusal must name the records at fault. Never: change the batch.

use std::ops::ControlFlow;

use bytes::Bytes;

use super::{
    Batch, BatchError, BatchHeader, Codec, Compression, HEADER_LENGTH, NO_TIMESTAMP, RecordMeta,
    TimestampType, header, recompress, scan_records,
};
use crate::error::ResponseError;

/// What a topic asks of a produced batch.
#[derive(Debug, Clone)]
pub struct ProduceRules {
    pub api_version: i16,
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
}

/// A refused batch: the code, a message, and the records at fault (KIP-467).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejected {
    pub error: ResponseError,
    pub message: String,
    /// (index of the record in the batch, message)
    pub records: Vec<(i32, String)>,
}

/// How far a batch may expand while it is recompressed, which keeps nobody else waiting.
const LOOK_INSIDE_LIMIT: usize = 256 << 20;
/// How far a batch may expand while its records are checked one by one, which happens where requests are served: so many
/// times what the topic lets it have compressed, within these bounds. Apache Kafka knows no such limit.
const EXPANSION_MOST: usize = 16;
const EXPANDED_LEAST: usize = 16 << 20;
/// How many records at fault an answer names; more would let a request grow its own answer.
const NAMED_MOST: usize = 100;
/// The first Produce version whose clients know zstd (KIP-110).
const ZSTD_SINCE: i16 = 7;

fn refuse<T>(error: ResponseError, message: impl Into<String>) -> Result<T, Rejected> {
    Err(Rejected { error, message: message.into(), records: Vec::new() })
}

/// Checks the records of one partition of a produce request. They must be exactly one batch.
pub fn validate_produce(records: Option<Bytes>, rules: &ProduceRules) -> Result<Batch, Rejected> {
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
    check_timestamps(&batch, rules)?;
    if rules.compacted {
        check_each(
            &batch,
            rules,
            ResponseError::InvalidRecord,
            "the topic is compacted: every record needs a key",
            |record| record.has_key,
        )?;
    }
    Ok(batch)
}

/// The header of the one batch that `bytes` must be.
fn one_batch(bytes: &[u8]) -> Result<BatchHeader, Rejected> {
    const ONE: &str = "a produce request holds exactly one batch per partition";
    // Before magic 2 the byte stood at the same place: say so instead of complaining about a length.
    if let Some(&magic) = bytes.get(16)
        && magic != 2
    {
        return refuse(
            ResponseError::InvalidRecord,
            format!("message format {magic} is not accepted, only 2"),
        );
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
        Err(error) => return refuse(ResponseError::UnsupportedCompressionType, error.to_string()),
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

/// `message.timestamp.type` and its bounds. The newest timestamp stands in the header; the oldest does not.
fn check_timestamps(batch: &Batch, rules: &ProduceRules) -> Result<(), Rejected> {
    if batch.header.timestamp_type() == TimestampType::LogAppendTime {
        return refuse(
            ResponseError::InvalidTimestamp,
            "a producer may not set the timestamp type LogAppendTime",
        );
    }
    if rules.timestamp_type == TimestampType::LogAppendTime {
        return Ok(());
    }
    let oldest = match rules.timestamp_before_max_ms {
        i64::MAX => i64::MIN,
        before => rules.now_ms.saturating_sub(before),
    };
    let newest = rules.now_ms.saturating_add(rules.timestamp_after_max_ms);
    if oldest == i64::MIN && batch.header.max_timestamp <= newest {
        return Ok(());
    }
    let message = format!("the timestamp is not within [{oldest}, {newest}]");
    check_each(batch, rules, ResponseError::InvalidTimestamp, &message, |record| {
        record.timestamp == NO_TIMESTAMP || (oldest..=newest).contains(&record.timestamp)
    })?;
    if batch.header.max_timestamp > newest {
        // No record is that young, so the header lies.
        return refuse(ResponseError::InvalidTimestamp, message);
    }
    Ok(())
}

/// Looks at every record; those that are not `good` are named in the refusal.
fn check_each(
    batch: &Batch,
    rules: &ProduceRules,
    error: ResponseError,
    message: &str,
    good: impl Fn(&RecordMeta) -> bool,
) -> Result<(), Rejected> {
    let mut at_fault = Vec::new();
    let limit = rules.max_message_bytes.saturating_mul(EXPANSION_MOST);
    let limit = limit.clamp(EXPANDED_LEAST, LOOK_INSIDE_LIMIT);
    let looked = scan_records(batch, limit, |record| {
        if !good(&record) {
            at_fault.push((record.index, message.to_owned()));
        }
        if at_fault.len() < NAMED_MOST { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    });
    match looked {
        Ok(()) => {}
        Err(BatchError::TooLarge(_)) => {
            let message = format!(
                "the batch is looked into record by record, and has more than {limit} bytes decompressed: \
                 {EXPANSION_MOST} times max.message.bytes, or {} MiB",
                EXPANDED_LEAST >> 20
            );
            return refuse(ResponseError::InvalidRecord, message);
        }
        Err(error) => return refuse(ResponseError::InvalidRecord, error.to_string()),
    }
    if at_fault.is_empty() {
        return Ok(());
    }
    Err(Rejected { error, message: message.to_owned(), records: at_fault })
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
        error => refuse(ResponseError::InvalidRecord, error.to_string()),
    })
}

/// The batch as a topic with `message.timestamp.type=LogAppendTime` stores it: type bit and newest timestamp set,
/// CRC made anew. Only the header changes; `bytes` stays the buffer as received.
pub fn with_log_append_time(batch: &Batch, now_ms: i64) -> Batch {
    let mut header = batch.header;
    header.attributes |= header::LOG_APPEND_TIME;
    header.max_timestamp = now_ms;
    header.crc = header.crc_with(&batch.bytes[HEADER_LENGTH..]);
    Batch { header, bytes: batch.bytes.clone() }
}

#[cfg(test)]
mod tests {
    use super::super::{BatchBuilder, RecordToWrite, records};
    use super::*;
    use crate::{Offset, ProducerEpoch, ProducerId};

    const NOW: i64 = 1_700_000_000_000;

    fn rules() -> ProduceRules {
        ProduceRules {
            api_version: 9,
            max_message_bytes: 1_048_588,
            compacted: false,
            timestamp_type: TimestampType::CreateTime,
            timestamp_before_max_ms: i64::MAX,
            timestamp_after_max_ms: 3_600_000,
            now_ms: NOW,
        }
    }

    fn refused(bytes: impl Into<Bytes>, rules: &ProduceRules) -> Rejected {
        validate_produce(Some(bytes.into()), rules).unwrap_err()
    }

    #[test]
    fn a_plain_batch_passes_untouched() {
        let bytes = BatchBuilder::new().value(NOW, "a").value(NOW + 1, "b").build();
        let batch = validate_produce(Some(bytes.clone()), &rules()).unwrap();
        assert_eq!(batch.bytes.as_ptr(), bytes.as_ptr());
        assert_eq!(batch.header.record_count, 2);
    }

    #[test]
    fn there_is_exactly_one_batch() {
        let one = BatchBuilder::new().value(NOW, "a").build();
        assert_eq!(validate_produce(None, &rules()).unwrap_err().error, ResponseError::InvalidRecord);
        assert_eq!(refused("", &rules()).error, ResponseError::InvalidRecord);
        assert_eq!(refused([&one[..], &one[..]].concat(), &rules()).error, ResponseError::InvalidRecord);
        assert_eq!(refused(one.slice(..one.len() - 1), &rules()).error, ResponseError::InvalidRecord);
    }

    #[test]
    fn a_flipped_bit_is_a_corrupt_message() {
        let bytes = BatchBuilder::new().value(NOW, "hello").build();
        // Base offset and leader epoch are outside the CRC; a changed length, magic or count is told apart.
        for at in (17..21).chain(27..43).chain(61..bytes.len()) {
            let mut damaged = bytes.to_vec();
            damaged[at] ^= 0x10;
            assert_eq!(refused(damaged, &rules()).error, ResponseError::CorruptMessage, "byte {at}");
        }
    }

    #[test]
    fn the_largest_numbers_are_refused_like_any_other() {
        let bytes = BatchBuilder::new().value(NOW, "x").build();
        for at in [0, 23, 27, 35, 43, 51, 53, 57] {
            for largest in [[0x7f, 0xff, 0xff, 0xff], [0x80, 0, 0, 0], [0xff; 4]] {
                let mut damaged = bytes.to_vec();
                damaged[at..at + 4].copy_from_slice(&largest);
                // Where it stands for nothing (no producer id), it may even be the number that was there.
                if damaged != bytes {
                    refused(damaged, &rules());
                }
            }
        }
    }

    #[test]
    fn old_formats_and_strange_codecs_are_refused() {
        let bytes = BatchBuilder::new().value(NOW, "x").build();
        let mut old = bytes.to_vec();
        old[16] = 1;
        assert_eq!(refused(old, &rules()).error, ResponseError::InvalidRecord);
        let mut strange = bytes.to_vec();
        strange[22] = 6;
        assert_eq!(refused(strange, &rules()).error, ResponseError::UnsupportedCompressionType);
        let zstd = BatchBuilder::new().codec(Codec::Zstd).value(NOW, "x").build();
        assert!(validate_produce(Some(zstd.clone()), &rules()).is_ok());
        let old_client = ProduceRules { api_version: 6, ..rules() };
        assert_eq!(refused(zstd, &old_client).error, ResponseError::UnsupportedCompressionType);
    }

    #[test]
    fn what_only_brokers_may_write_is_refused() {
        let control = BatchBuilder::new().control().value(NOW, "x").build();
        assert_eq!(refused(control, &rules()).error, ResponseError::InvalidRecord);
        let elsewhere = BatchBuilder::new().base_offset(Offset(7)).value(NOW, "x").build();
        assert_eq!(refused(elsewhere, &rules()).error, ResponseError::InvalidRecord);
        let unnumbered =
            BatchBuilder::new().producer(ProducerId(1), ProducerEpoch(0), -1).value(NOW, "x").build();
        assert_eq!(refused(unnumbered, &rules()).error, ResponseError::InvalidRecord);
        let anonymous = BatchBuilder::new().transactional().value(NOW, "x").build();
        assert_eq!(refused(anonymous, &rules()).error, ResponseError::InvalidRecord);
        let stamped =
            BatchBuilder::new().timestamp_type(TimestampType::LogAppendTime).value(NOW, "x").build();
        assert_eq!(refused(stamped, &rules()).error, ResponseError::InvalidTimestamp);
    }

    #[test]
    fn the_size_limit_is_on_the_batch_as_sent() {
        let text = vec![b'a'; 10_000];
        let plain = BatchBuilder::new().value(NOW, text.clone()).build();
        let packed = BatchBuilder::new().codec(Codec::Gzip).value(NOW, text).build();
        let small = ProduceRules { max_message_bytes: 1000, ..rules() };
        assert_eq!(refused(plain, &small).error, ResponseError::MessageTooLarge);
        assert!(validate_produce(Some(packed), &small).is_ok());
    }

    #[test]
    fn a_compacted_topic_names_the_records_without_key() {
        let keyed = RecordToWrite { timestamp: NOW, key: Some("k".into()), ..RecordToWrite::default() };
        let bytes =
            BatchBuilder::new().record(keyed.clone()).value(NOW, "x").record(keyed).value(NOW, "y").build();
        let refused = refused(bytes, &ProduceRules { compacted: true, ..rules() });
        assert_eq!(refused.error, ResponseError::InvalidRecord);
        assert_eq!(refused.records.iter().map(|(index, _)| *index).collect::<Vec<_>>(), [1, 3]);
    }

    #[test]
    fn records_are_looked_into_only_as_far_as_the_topics_limit_goes() {
        let keyed = |bytes: usize| {
            let value = Some(vec![0; bytes].into());
            RecordToWrite { timestamp: NOW, key: Some("k".into()), value, ..RecordToWrite::default() }
        };
        let of = |bytes| BatchBuilder::new().codec(Codec::Zstd).record(keyed(bytes)).build();
        let compacted = ProduceRules { compacted: true, ..rules() };
        let bounded = ProduceRules { timestamp_before_max_ms: 1000, ..rules() };
        assert!(validate_produce(Some(of(15 << 20)), &compacted).is_ok(), "the least that every topic takes");
        let bomb = of(17 << 20);
        for rules in [&compacted, &bounded] {
            let refused = refused(bomb.clone(), rules);
            assert_eq!(refused.error, ResponseError::InvalidRecord);
            assert!(refused.message.contains("16 times max.message.bytes"), "{}", refused.message);
        }
        assert!(validate_produce(Some(bomb.clone()), &rules()).is_ok(), "nobody looks into it");
        let roomy = ProduceRules { max_message_bytes: 2 << 20, ..compacted };
        assert!(validate_produce(Some(bomb), &roomy).is_ok());
    }

    #[test]
    fn timestamps_keep_within_their_bounds() {
        let future = BatchBuilder::new().value(NOW, "a").value(NOW + 3_600_001, "b").build();
        let late = refused(future.clone(), &rules());
        assert_eq!((late.error, late.records[0].0), (ResponseError::InvalidTimestamp, 1));
        // An old record may hide behind a young first one.
        let hidden =
            BatchBuilder::new().value(NOW, "a").value(NOW - 2000, "b").value(NO_TIMESTAMP, "c").build();
        assert!(validate_produce(Some(hidden.clone()), &rules()).is_ok());
        let strict = ProduceRules { timestamp_before_max_ms: 1000, ..rules() };
        let early = refused(hidden, &strict);
        assert_eq!(early.records.iter().map(|(index, _)| *index).collect::<Vec<_>>(), [1]);
        let append_time = ProduceRules { timestamp_type: TimestampType::LogAppendTime, ..rules() };
        assert!(validate_produce(Some(future), &append_time).is_ok());
    }

    #[test]
    fn append_time_is_set_without_touching_the_records() {
        let bytes = BatchBuilder::new().codec(Codec::Lz4).value(5, "a").value(6, "b").build();
        let batch = validate_produce(Some(bytes.clone()), &rules()).unwrap();
        let stamped = with_log_append_time(&batch, NOW);
        assert_eq!(stamped.bytes.as_ptr(), bytes.as_ptr());
        let stored = Batch::check(stamped.to_bytes()).expect("the new CRC holds");
        assert_eq!(stored.header.timestamp_type(), TimestampType::LogAppendTime);
        assert!(records(&stored, 1000).unwrap().iter().all(|record| record.timestamp == NOW));
    }
}
