//! Questions of the simulator about single places of a log, answered as a client gets them: bytes as they came, errors as
//! they are. What they mean is for whoever asks to say; no law of the history hears of them.
//!
//! Never: a question that is dropped for an error which a client would ask again after.

use std::time::Duration;

use bytes::Bytes;
use kafka_protocol::messages::{
    FetchRequest,
    fetch_request::{FetchPartition, FetchTopic},
};

use super::Context;
use crate::client::{ClientError, LAST_BY_NAME, Topic, list_offsets};

/// A question about a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Question {
    /// What is there from this offset on, in so many bytes at most (but one batch at least).
    Fetch { from: i64, max_bytes: i32 },
    /// Which record is the first with this timestamp, or a greater one.
    Timestamp(i64),
}

/// Its answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// Records as they came.
    Records(Bytes),
    /// An offset, −1 for none.
    Offset(i64),
    /// This error.
    Refused(i16),
}

/// Asks every question about `partition` of the topic with that id; the context is there for more.
pub(crate) async fn survey(
    mut context: Context,
    topic_id: u128,
    partition: i32,
    questions: Vec<Question>,
) -> (Context, Vec<(Question, Answer)>) {
    let topics = context.shared.all_topics();
    let Some((topic, _)) = topics.iter().find(|(topic, _)| topic.id.as_u128() == topic_id) else {
        return (context, Vec::new());
    };
    let mut answers = Vec::with_capacity(questions.len());
    for question in questions {
        let answer = loop {
            match ask(&mut context, topic, partition, question).await {
                Ok(Answer::Refused(code)) if is_passing(code) => context.link.back_off().await,
                Ok(answer) => break answer,
                Err(error) => context.link.failed(&error).await,
            }
        };
        answers.push((question, answer));
    }
    (context, answers)
}

/// Whether the same question may have another answer soon: the log is being opened, or its leader is.
fn is_passing(code: i16) -> bool {
    const LEADER_NOT_AVAILABLE: i16 = 5;
    const NOT_LEADER_OR_FOLLOWER: i16 = 6;
    const REQUEST_TIMED_OUT: i16 = 7;
    const OFFSET_NOT_AVAILABLE: i16 = 78;
    [LEADER_NOT_AVAILABLE, NOT_LEADER_OR_FOLLOWER, REQUEST_TIMED_OUT, OFFSET_NOT_AVAILABLE].contains(&code)
}

async fn ask(
    context: &mut Context,
    topic: &Topic,
    partition: i32,
    question: Question,
) -> Result<Answer, ClientError> {
    let (from, max_bytes) = match question {
        Question::Fetch { from, max_bytes } => (from, max_bytes),
        Question::Timestamp(timestamp) => {
            let listed = list_offsets(&mut context.link, topic, partition, timestamp, false).await?;
            return Ok(match listed.code {
                0 => Answer::Offset(listed.offset),
                code => Answer::Refused(code),
            });
        }
    };
    let connection = context.link.connection().await;
    let version = connection.version::<FetchRequest>()?.min(LAST_BY_NAME);
    let wanted = FetchPartition::default()
        .with_partition(partition)
        .with_fetch_offset(from)
        .with_current_leader_epoch(-1)
        .with_log_start_offset(-1)
        .with_partition_max_bytes(max_bytes);
    let request = FetchRequest::default()
        .with_max_wait_ms(0)
        .with_max_bytes(8 << 20)
        .with_session_epoch(-1)
        .with_replica_id((-1).into())
        .with_topics(vec![FetchTopic::default().with_topic(topic.wire_name()).with_partitions(vec![wanted])]);
    let timeout = context.link.request_timeout() + Duration::from_secs(10);
    let response = connection.send(&request, version, timeout, true)?.wait().await?;
    let answer = response.responses.into_iter().next().and_then(|topic| topic.partitions.into_iter().next());
    match answer {
        Some(answer) if answer.error_code == 0 => Ok(Answer::Records(answer.records.unwrap_or_default())),
        Some(answer) => Ok(Answer::Refused(answer.error_code)),
        None => Err(ClientError::Protocol("Fetch answered without the partition that was asked for".into())),
    }
}
