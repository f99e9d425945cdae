//! A client that breaks the protocol: produces of a form that is not accepted, sequences of producers that nobody knows, and
//! frames that are none.
//!
//! The model: each breach has one right answer, which for a broken frame is none at all. What is to be refused is no operation
//! of the history: whoever reads it reads what nobody wrote. Never: a breach whose answer depends on what others do.

use std::{sync::Arc, time::Duration};

use bytes::{BufMut, Bytes, BytesMut};
use gracchus_checker::Outcome;
use gracchus_env::{Connection, Piece};
use kafka_protocol::messages::ProduceRequest;
use rand::{Rng, seq::IndexedRandom};

use super::{Context, INVALID_TIMESTAMP, OUT_OF_ORDER_SEQUENCE_NUMBER, producer::attempt_alone, until_drain};
use crate::{
    client::{ClientError, Topic, init_producer_id, is_retriable, produce_request},
    plan::{Codec, TrespasserPlan},
    record::{Sequenced, checksummed, encode_batch},
};

/// Law: a produce of a form that is not accepted is refused with Kafka's error.
const FORM_REFUSED: &str = "form_refused";
/// Law: of a producer that a partition does not know any first sequence is right; a new epoch begins with 0.
const SEQUENCE_BEGINS: &str = "sequence_begins";
/// Law: what is no request is not answered, and a version of ApiVersions that is not known is answered in version 0.
const FRAME_REFUSED: &str = "frame_refused";

const CORRUPT_MESSAGE: i16 = 2;
const UNKNOWN_TOPIC_OR_PARTITION: i16 = 3;
const INVALID_REQUIRED_ACKS: i16 = 21;
const UNSUPPORTED_VERSION: i16 = 35;
const INVALID_TXN_STATE: i16 = 48;
const INVALID_RECORD: i16 = 87;
/// So many connections in a row that only ApiVersions was asked on, each closed without an answer, are no accident.
const SUSPICIOUS: u32 = 3;
/// How long an answer to a broken frame is waited for.
const PATIENCE: Duration = Duration::from_millis(800);

/// Trespasses until the drain begins.
pub(crate) async fn trespass(mut context: Context, plan: TrespasserPlan) {
    let phase = context.phase.clone();
    until_drain(phase, async {
        let pause = Duration::from_millis(1_000 / u64::from(plan.rate.max(1)));
        let mut closed = 0;
        loop {
            context.link.env.sleep(pause).await;
            let topic = *plan.topics.choose(&mut context.random).expect("checked with the plan");
            let topic = Arc::clone(&context.topics[topic]);
            let partition = context.random.random_range(0..topic.partitions);
            let done = match context.random.random_range(0..10) {
                0..=4 => produce_oddly(&mut context, &topic, partition).await,
                5..=6 => begin_anywhere(&mut context, &topic, partition, plan.may_be_forgotten).await,
                7 => ask_in_the_future(&mut context, &mut closed).await,
                _ => send_no_frame(&mut context).await,
            };
            match done {
                Ok(()) => context.recorder.progress(),
                Err(error) => context.link.failed(&error).await,
            }
        }
    })
    .await;
}

/// A form that is not accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Oddity {
    TwoAcks,
    TwoBatches,
    NoBatch,
    OldMagic,
    Control,
    Transactional,
    BaseOffset,
    NegativeLength,
    Truncated,
    NoSequence,
    UnknownPartition,
}

impl Oddity {
    const ALL: [Oddity; 11] = [
        Oddity::TwoAcks,
        Oddity::TwoBatches,
        Oddity::NoBatch,
        Oddity::OldMagic,
        Oddity::Control,
        Oddity::Transactional,
        Oddity::BaseOffset,
        Oddity::NegativeLength,
        Oddity::Truncated,
        Oddity::NoSequence,
        Oddity::UnknownPartition,
    ];

    /// The batch in this form.
    fn batch(self, sound: &Bytes) -> Bytes {
        let mut batch = BytesMut::from(&sound[..]);
        match self {
            Oddity::TwoAcks | Oddity::UnknownPartition | Oddity::NoSequence => return sound.clone(),
            Oddity::TwoBatches => batch.extend_from_slice(sound),
            Oddity::NoBatch => batch.clear(),
            Oddity::OldMagic => batch[16] = 1,
            Oddity::Control => batch[22] |= 0x20,
            Oddity::Transactional => batch[22] |= 0x10,
            Oddity::BaseOffset => batch[7] = 7,
            Oddity::NegativeLength => batch[8..12].copy_from_slice(&(-5i32).to_be_bytes()),
            Oddity::Truncated => batch.truncate(sound.len() - 3),
        }
        if matches!(self, Oddity::Control | Oddity::Transactional) {
            checksummed(batch)
        } else {
            batch.freeze()
        }
    }

    fn right(self) -> i16 {
        match self {
            Oddity::TwoAcks => INVALID_REQUIRED_ACKS,
            Oddity::Transactional => INVALID_TXN_STATE,
            Oddity::NegativeLength => CORRUPT_MESSAGE,
            Oddity::UnknownPartition => UNKNOWN_TOPIC_OR_PARTITION,
            _ => INVALID_RECORD,
        }
    }
}

async fn produce_oddly(context: &mut Context, topic: &Arc<Topic>, partition: i32) -> Result<(), ClientError> {
    let oddity = *Oddity::ALL.choose(&mut context.random).expect("not empty");
    let records = context.fresh_records(2, |random| random.random_range(0..=200));
    let sequenced = match oddity {
        Oddity::NoSequence => Sequenced { producer_id: 5, ..Sequenced::NONE },
        _ => Sequenced::NONE,
    };
    let sound = encode_batch(&topic.name, partition, &records, Codec::None, sequenced);
    let (acks, index) = match oddity {
        Oddity::TwoAcks => (2, partition),
        Oddity::UnknownPartition => (-1, 10_000),
        _ => (-1, partition),
    };
    let connection = context.link.connection().await;
    let version = topic.version(connection.version::<ProduceRequest>()?);
    let timeout = context.link.request_timeout();
    let parts = [(Arc::clone(topic), index, oddity.batch(&sound))];
    let request = produce_request(version, acks, timeout.as_millis() as i32, &parts);
    let response = connection.send(&request, version, timeout, true)?.wait().await?;
    let answered = response.responses.first().and_then(|topic| topic.partition_responses.first());
    let code = answered.map(|answer| answer.error_code);
    if code != Some(oddity.right()) && !code.is_some_and(is_retriable) {
        let story =
            format!("{}-{index}: {oddity:?} was answered {code:?}, not {}", topic.name, oddity.right());
        context.recorder.complain(FORM_REFUSED, story);
    }
    Ok(())
}

/// As a producer that nobody knows, and then in a new epoch that does not begin with 0.
async fn begin_anywhere(
    context: &mut Context,
    topic: &Arc<Topic>,
    partition: i32,
    may_be_forgotten: bool,
) -> Result<(), ClientError> {
    let (producer_id, known) = if context.random.random_bool(0.5) {
        // No broker has given this one to anybody.
        (1 << 50 | i64::from(context.number) << 32 | context.ops as i64, false)
    } else {
        match init_producer_id(&mut context.link, None).await? {
            Ok((producer_id, _)) => (producer_id, true),
            Err(_) => return Ok(()),
        }
    };
    let first = if known { 0 } else { context.random.random_range(0..=i32::MAX) };
    let began = send(context, topic, partition, Sequenced { producer_id, epoch: 0, sequence: first }).await?;
    match began {
        Outcome::Acked { .. } => {}
        Outcome::Failed { code: OUT_OF_ORDER_SEQUENCE_NUMBER, .. } => {
            let story = format!(
                "{}-{partition}: the first sequence {first} of producer {producer_id} was refused",
                topic.name
            );
            context.recorder.complain(SEQUENCE_BEGINS, story);
            return Ok(());
        }
        Outcome::Failed { .. } | Outcome::Unknown => return Ok(()),
    }
    if !topic.synced || may_be_forgotten {
        return Ok(());
    }
    let sequence = context.random.random_range(1..=9);
    let next = send(context, topic, partition, Sequenced { producer_id, epoch: 1, sequence }).await?;
    let right = matches!(next, Outcome::Failed { code: OUT_OF_ORDER_SEQUENCE_NUMBER, .. });
    let open = match next {
        Outcome::Failed { code, .. } => is_retriable(code) || code == INVALID_TIMESTAMP,
        Outcome::Unknown => true,
        Outcome::Acked { .. } => false,
    };
    if !right && !open {
        let story = format!(
            "{}-{partition}: epoch 1 of producer {producer_id} began with sequence {sequence} and was answered {next:?}",
            topic.name
        );
        context.recorder.complain(SEQUENCE_BEGINS, story);
    }
    Ok(())
}

/// One record, one attempt.
async fn send(
    context: &mut Context,
    topic: &Arc<Topic>,
    partition: i32,
    sequenced: Sequenced,
) -> Result<Outcome, ClientError> {
    let connection = context.link.connection().await;
    let version = topic.version(connection.version::<ProduceRequest>()?);
    let records = context.fresh_records(1, |_| 20);
    let mut batch = context.begin(topic, partition, records, Codec::None, sequenced, -1);
    let timeout = context.link.request_timeout();
    let outcome = attempt_alone(context, &connection, version, &mut batch, -1, timeout).await;
    Ok(outcome)
}

/// How a connection ended that one thing was sent on.
#[derive(Debug, PartialEq, Eq)]
enum End {
    /// The first bytes of an answer.
    Answered(Bytes),
    /// The broker closed it.
    Closed,
    /// It failed, or nothing happened for a while.
    Unknown,
}

/// Sends `bytes` over a connection of their own; waits for an answer.
async fn send_alone(context: &mut Context, bytes: Bytes) -> End {
    let env = Arc::clone(&context.link.env);
    let deadline = env.now() + Duration::from_secs(1);
    let Ok(connection) = env.connect(context.link.address(), deadline).await else { return End::Unknown };
    let Connection { mut reader, mut writer, .. } = connection;
    if writer.write(vec![Piece::Bytes(bytes)]).await.is_err() {
        return End::Unknown;
    }
    let mut answer = BytesMut::new();
    let deadline = env.now() + PATIENCE;
    loop {
        tokio::select! {
            biased;
            read = reader.read(&mut answer, 64 << 10) => match read {
                Ok(0) if answer.is_empty() => return End::Closed,
                Ok(0) | Err(_) => return End::Unknown,
                Ok(_) => {
                    let whole = answer.len() >= 4
                        && answer.len() - 4 >= i32::from_be_bytes([answer[0], answer[1], answer[2], answer[3]]) as usize;
                    if whole {
                        return End::Answered(answer.freeze());
                    }
                }
            },
            () = env.sleep_until(deadline) => return End::Unknown,
        }
    }
}

/// A frame of a request with this body behind a header of version 2 without a client id.
fn frame(key: i16, version: i16, body: &[u8]) -> Bytes {
    let mut bytes = BytesMut::new();
    bytes.put_i32(11 + body.len() as i32);
    bytes.put_i16(key);
    bytes.put_i16(version);
    bytes.put_i32(CORRELATION);
    bytes.put_i16(-1);
    bytes.put_u8(0);
    bytes.extend_from_slice(body);
    bytes.freeze()
}

const CORRELATION: i32 = 4_711;

/// ApiVersions in a version that will come one day: answered in version 0, so that the client asks again.
async fn ask_in_the_future(context: &mut Context, closed: &mut u32) -> Result<(), ClientError> {
    const API_VERSIONS: i16 = 18;
    let version = context.random.random_range(50..=i16::MAX);
    match send_alone(context, frame(API_VERSIONS, version, b"whatever stands there")).await {
        End::Answered(answer) => {
            *closed = 0;
            let correlation = answer.get(4..8).map(|bytes| bytes == CORRELATION.to_be_bytes());
            let code = answer.get(8..10).map(|bytes| bytes == UNSUPPORTED_VERSION.to_be_bytes());
            if correlation != Some(true) || code != Some(true) {
                let story = format!("ApiVersions in version {version} was answered {:?}", &answer[..]);
                context.recorder.complain(FRAME_REFUSED, story);
            }
        }
        End::Closed => {
            *closed += 1;
            if *closed >= SUSPICIOUS {
                let story =
                    format!("ApiVersions in version {version} is not answered, {closed} times in a row");
                context.recorder.complain(FRAME_REFUSED, story);
            }
        }
        End::Unknown => {}
    }
    Ok(())
}

/// What begins as no request, or ends too early, or is of an API or a version that is not served: no answer.
async fn send_no_frame(context: &mut Context) -> Result<(), ClientError> {
    const PRODUCE: i16 = 0;
    const FETCH: i16 = 1;
    const METADATA: i16 = 3;
    let length = |length: i32| Bytes::copy_from_slice(&length.to_be_bytes());
    let which = context.random.random_range(0..9);
    let bytes = match which {
        0 => length(i32::MAX),
        1 => length(-1),
        2 => Bytes::from_static(&[0, 0, 0, 3, 0, 3, 0]),
        3 => Bytes::from_static(b"GET / HTTP/1.1\r\nHost: here\r\n\r\n"),
        4 => frame(9_999, 0, &[]),
        5 => frame(PRODUCE, *[0, 2, 99].choose(&mut context.random).expect("not empty"), &[0; 40]),
        6 => frame(FETCH, *[0, 3, 99].choose(&mut context.random).expect("not empty"), &[0; 40]),
        7 => frame(METADATA, 9, &[0xff; 30]),
        _ => {
            let whole = frame(METADATA, 9, &[0; 30]);
            whole.slice(..context.random.random_range(5..whole.len()))
        }
    };
    if let End::Answered(answer) = send_alone(context, bytes.clone()).await {
        let story = format!("{:?} ({which}) was answered {:?}", &bytes[..], &answer[..]);
        context.recorder.complain(FRAME_REFUSED, story);
    }
    Ok(())
}
