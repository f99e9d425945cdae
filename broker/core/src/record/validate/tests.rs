//! What is refused, and with which code; what is derived.

use super::super::{BatchBuilder, LOG_OVERHEAD, RecordToWrite, builder::compress, records};
use super::*;
use crate::{Offset, ProducerEpoch, ProducerId};

const NOW: i64 = 1_700_000_000_000;

fn rules() -> ProduceRules {
    ProduceRules {
        api_version: 9,
        transactional: false,
        max_message_bytes: 1_048_588,
        compacted: false,
        timestamp_type: TimestampType::CreateTime,
        timestamp_before_max_ms: i64::MAX,
        timestamp_after_max_ms: 3_600_000,
        now_ms: NOW,
        strict: true,
    }
}

fn relaxed() -> ProduceRules {
    ProduceRules { strict: false, ..rules() }
}

/// The batch with another header, its CRC right.
fn with(bytes: &Bytes, change: impl FnOnce(&mut BatchHeader)) -> Bytes {
    let payload = bytes.slice(HEADER_LENGTH..);
    let mut header = BatchHeader::parse(bytes).unwrap();
    change(&mut header);
    header.crc = header.crc_with(&payload);
    [&header.encode()[..], &payload].concat().into()
}

/// The batch with other contents, length and CRC right.
fn holding(bytes: &Bytes, payload: impl AsRef<[u8]>) -> Bytes {
    let payload = payload.as_ref();
    let mut header = BatchHeader::parse(bytes).unwrap();
    header.batch_length = i32::try_from(HEADER_LENGTH - LOG_OVERHEAD + payload.len()).unwrap();
    header.crc = header.crc_with(payload);
    [&header.encode()[..], payload].concat().into()
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
    assert_eq!(refused(strange, &rules()).error, ResponseError::UnknownServerError);
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
    let transactional = ProduceRules { transactional: true, ..rules() };
    assert_eq!(refused(anonymous.clone(), &transactional).error, ResponseError::InvalidRecord);
    assert_eq!(refused(anonymous, &rules()).error, ResponseError::InvalidTxnState);
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
fn records_are_looked_into_only_as_far_as_the_limit_goes() {
    let zeros = |bytes: usize| {
        let record =
            RecordToWrite { timestamp: NOW, value: Some(vec![0; bytes].into()), ..RecordToWrite::default() };
        BatchBuilder::new().codec(Codec::Zstd).record(record).build()
    };
    assert!(validate_produce(Some(zeros(20 << 20)), &rules()).is_ok());
    let bomb = zeros(LOOK_INSIDE_LIMIT);
    assert_eq!(refused(bomb.clone(), &rules()).error, ResponseError::MessageTooLarge);
    assert!(validate_produce(Some(bomb), &relaxed()).is_ok(), "nobody looks into it");
}

#[test]
fn a_short_look_ends_where_it_was_told_and_can_be_gone_on_with() {
    for codec in Codec::ALL {
        let batch = BatchBuilder::new().codec(codec).value(NOW, vec![b'a'; 50_000]).build();
        let Look::TooLarge(received) = check_header(Some(batch), &rules()).unwrap().look(40_000) else {
            panic!("{codec:?}: 50,000 bytes are more than 40,000");
        };
        assert!(received.look_through().is_ok(), "{codec:?}");
    }
}

#[test]
fn the_largest_timestamp_is_what_the_records_say() {
    for codec in Codec::ALL {
        let good =
            BatchBuilder::new().codec(codec).value(NOW - 5, "a").value(NOW + 7, "b").value(NOW, "c").build();
        let header = BatchHeader::parse(&good).unwrap();
        for said in [NO_TIMESTAMP, NOW - 6, NOW - 1, NOW + 8, NOW + 100_000_000, i64::MIN, i64::MAX] {
            let lie = with(&good, |header| header.max_timestamp = said);
            let stored = validate_produce(Some(lie.clone()), &rules()).unwrap();
            assert_eq!(
                stored.header, header,
                "{codec:?}, {said}: as if nothing had been said wrong, CRC included"
            );
            assert_eq!(Batch::check(stored.to_bytes()).unwrap().header, header);
            let stored = validate_produce(Some(lie), &relaxed()).unwrap();
            let impossible = !(NOW - 5..=NOW + 3_600_000).contains(&said);
            let expected = if impossible { header.max_timestamp } else { said };
            assert_eq!(stored.header.max_timestamp, expected, "relaxed believes what can be: {said}");
        }
        let timeless = BatchBuilder::new().codec(codec).value(NO_TIMESTAMP, "a").build();
        assert_eq!(validate_produce(Some(timeless), &rules()).unwrap().header.max_timestamp, NO_TIMESTAMP);
    }
}

#[test]
fn a_largest_timestamp_of_minus_one_does_not_pass_the_bounds() {
    let future = BatchBuilder::new().value(NOW, "a").value(NOW + 3_600_001, "b").build();
    let hidden = with(&future, |header| header.max_timestamp = NO_TIMESTAMP);
    for rules in [rules(), relaxed()] {
        let late = refused(hidden.clone(), &rules);
        assert_eq!((late.error, late.records[0].0), (ResponseError::InvalidTimestamp, 1));
    }
}

#[test]
fn the_producers_log_append_time_bit_is_what_kafka_makes_of_it() {
    let stamped = BatchBuilder::new().timestamp_type(TimestampType::LogAppendTime).value(NOW, "x").build();
    let append_time = ProduceRules { timestamp_type: TimestampType::LogAppendTime, ..rules() };
    for (create, append) in
        [(rules(), append_time.clone()), (relaxed(), ProduceRules { strict: false, ..append_time })]
    {
        assert_eq!(refused(stamped.clone(), &append).error, ResponseError::InvalidTimestamp);
        for max_timestamp in [NO_TIMESTAMP, NOW + 3_600_001] {
            let liar = with(&stamped, |header| header.max_timestamp = max_timestamp);
            assert_eq!(refused(liar, &create).error, ResponseError::InvalidTimestamp, "{max_timestamp}");
        }
        let liar = with(&stamped, |header| header.max_timestamp = NOW - 1);
        let stored = validate_produce(Some(liar), &create).unwrap().header;
        assert_eq!((stored.timestamp_type(), stored.max_timestamp), (TimestampType::CreateTime, NOW));
    }
}

/// The parts of a record, to be put together wrongly.
fn record(parts: &[&[u8]]) -> Vec<u8> {
    let body = parts.concat();
    [&[u8::try_from(body.len() * 2).unwrap()], &body[..]].concat()
}

#[test]
fn contents_that_no_consumer_could_read_are_refused_in_every_codec() {
    const HEAD: &[u8] = &[0, 0, 0];
    const KEY: &[u8] = &[2, b'k'];
    const VALUE: &[u8] = &[2, b'v'];
    let good = record(&[HEAD, KEY, VALUE, &[0]]);
    let one: &[(&str, Vec<u8>)] = &[
        ("nothing", vec![]),
        ("garbage", vec![0xde, 0xad, 0xbe, 0xef, 0xde, 0xad, 0xbe, 0xef]),
        ("zeros", vec![0; 16]),
        ("one more than the header says", good.repeat(2)),
        ("bytes behind", [&good[..], &[1]].concat()),
        ("cut", good[..good.len() - 1].to_vec()),
        ("negative length", [&[1], &good[1..]].concat()),
        ("too short a length", [&[good[0] - 2], &good[1..]].concat()),
        ("too long a length", [&[good[0] + 2], &good[1..]].concat()),
        ("bytes behind the headers", record(&[HEAD, KEY, VALUE, &[0, 0]])),
        ("a key longer than the record", record(&[HEAD, &[100, b'k'], VALUE, &[0]])),
        ("a key of length -2", record(&[HEAD, &[3], VALUE, &[0]])),
        ("a value longer than the record", record(&[HEAD, KEY, &[100, b'v'], &[0]])),
        ("a negative number of headers", record(&[HEAD, KEY, VALUE, &[1]])),
        ("more headers than there are", record(&[HEAD, KEY, VALUE, &[4, 2, b'n', 2, b'v']])),
        ("a header without a key", record(&[HEAD, KEY, VALUE, &[2, 1, 2, b'v']])),
        ("an offset delta that is not the record's", record(&[&[0, 0, 2], KEY, VALUE, &[0]])),
        ("an offset delta below zero", record(&[&[0, 0, 1], KEY, VALUE, &[0]])),
        ("an offset delta of 35 bits", record(&[&[0, 0, 0x80, 0x80, 0x80, 0x80, 0x70], KEY, VALUE, &[0]])),
        ("an offset delta of 6 bytes", record(&[&[0, 0, 0x80, 0x80, 0x80, 0x80, 0x80, 0], KEY, VALUE, &[0]])),
        ("a timestamp delta of 70 bits", record(&[&[0], &[0x80; 9], &[2, 0], KEY, VALUE, &[0]])),
        ("a timestamp delta of 11 bytes", record(&[&[0], &[0x80; 10], &[0, 0], KEY, VALUE, &[0]])),
    ];
    for codec in Codec::ALL {
        let batch = BatchBuilder::new().codec(codec).value(NOW, "x").build();
        assert!(validate_produce(Some(holding(&batch, compress(codec, &good))), &rules()).is_ok());
        for (what, contents) in one {
            let liar = holding(&batch, compress(codec, contents));
            let refused = refused(liar.clone(), &rules());
            assert_eq!(refused.error, ResponseError::InvalidRecord, "{codec:?}: {what}: {}", refused.message);
            for rules in [
                ProduceRules { compacted: true, ..relaxed() },
                ProduceRules { timestamp_before_max_ms: 1000, ..relaxed() },
                ProduceRules { timestamp_type: TimestampType::LogAppendTime, ..rules() },
            ] {
                assert!(validate_produce(Some(liar.clone()), &rules).is_err(), "{codec:?}: {what}");
            }
        }
        let fewer = with(&holding(&batch, compress(codec, &good)), |header| {
            (header.record_count, header.last_offset_delta) = (2, 1);
        });
        assert_eq!(
            refused(fewer, &rules()).error,
            ResponseError::InvalidRecord,
            "{codec:?}: one record less"
        );
    }
}

#[test]
fn frames_that_are_cut_damaged_or_of_another_codec_are_refused() {
    let text: String = (0..500u32).map(|number| number.to_string()).collect();
    let packed = [Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd];
    for codec in packed {
        let batch = BatchBuilder::new().codec(codec).value(NOW, text.clone()).build();
        let payload = batch.slice(HEADER_LENGTH..);
        for kept in [0, 1, 4, payload.len() / 2, payload.len() - 4, payload.len() - 1] {
            let error = refused(holding(&batch, payload.slice(..kept)), &rules()).error;
            let expected = [ResponseError::UnknownServerError, ResponseError::InvalidRecord];
            assert!(expected.contains(&error), "{codec:?}, {kept}: {error:?}");
        }
        let longer = holding(&batch, [&payload[..], b"xyz"].concat());
        assert_eq!(refused(longer, &rules()).error, ResponseError::UnknownServerError, "{codec:?}");
        let twice = holding(&batch, compress(codec, &payload));
        assert_eq!(refused(twice, &rules()).error, ResponseError::InvalidRecord, "{codec:?} twice");
        for other in Codec::ALL {
            let named = with(&batch, |header| header.attributes = other as i16);
            assert_eq!(
                validate_produce(Some(named), &rules()).is_ok(),
                codec == other,
                "{codec:?} as {other:?}"
            );
        }
    }
}

#[test]
fn a_record_larger_than_what_is_looked_at_together_is_read_like_any_other() {
    let large = |bytes: usize| RecordToWrite {
        timestamp: NOW + 3,
        value: Some(vec![7; bytes].into()),
        headers: vec![("name".to_owned(), Some(vec![8; bytes].into())), ("other".to_owned(), None)],
        ..RecordToWrite::default()
    };
    for bytes in [65_000, 65_530, 131_000, 131_072, 400_000] {
        for codec in Codec::ALL {
            let roomy = ProduceRules { max_message_bytes: 10 << 20, ..rules() };
            let batch =
                BatchBuilder::new().codec(codec).value(NOW, "a").record(large(bytes)).value(NOW, "c").build();
            let liar = with(&batch, |header| header.max_timestamp = NO_TIMESTAMP);
            let stored = validate_produce(Some(liar), &roomy).unwrap();
            assert_eq!(stored.header.max_timestamp, NOW + 3, "{bytes} {codec:?}");
            let one_less = with(&batch, |header| {
                (header.record_count, header.last_offset_delta) = (2, 1);
            });
            assert_eq!(refused(one_less, &roomy).error, ResponseError::InvalidRecord, "{bytes} {codec:?}");
        }
    }
}

#[test]
fn timestamps_keep_within_their_bounds() {
    let future = BatchBuilder::new().value(NOW, "a").value(NOW + 3_600_001, "b").build();
    let late = refused(future.clone(), &rules());
    assert_eq!((late.error, late.records[0].0), (ResponseError::InvalidTimestamp, 1));
    // An old record may hide behind a young first one.
    let hidden = BatchBuilder::new().value(NOW, "a").value(NOW - 2000, "b").value(NO_TIMESTAMP, "c").build();
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
