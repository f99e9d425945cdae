//! A client that asks for what cannot be right, or what only a client with another history has: offsets outside the log,
//! leader epochs that are over or to come, and epochs that its last record would have been of.
//!
//! The model: each question is made of what is known (log start and end, the leader epoch that metadata show, the epochs of
//! records that were read), so that its right answer is known too. Answers by a broker that cannot serve the partition now
//! tell nothing.
//! Never: a verdict on a topic whose acknowledgements may be lost; on an offset that a deletion may have overtaken.

use std::{sync::Arc, time::Duration};

use kafka_protocol::{
    messages::{
        FetchRequest, ListOffsetsRequest,
        fetch_request::{FetchPartition, FetchTopic},
        list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic},
    },
    protocol::StrBytes,
};
use rand::{Rng, seq::IndexedRandom};

use super::{BY_ID, Context, offsets::earliest, until_drain};
use crate::{
    client::{ClientError, Listed, Topic, find_named, list_offsets},
    plan::WandererPlan,
};

/// Law: offsets outside of the log are refused, and no others.
const OUT_OF_RANGE_TOLD: &str = "out_of_range_told";
/// Law: who believes in another leader epoch is told so, and nobody else.
const LEADER_EPOCH_CHECKED: &str = "leader_epoch_checked";
/// Law: whose last epoch ended before its offset is told where (KIP-595), and nobody else.
const DIVERGENCE_TOLD: &str = "divergence_told";

const OFFSET_OUT_OF_RANGE: i16 = 1;
const FENCED_LEADER_EPOCH: i16 = 74;
/// The first version of Fetch that tells who leads.
const LEADER_HINTS: i16 = 16;
const UNKNOWN_LEADER_EPOCH: i16 = 75;
/// First versions of Fetch that name the leader epoch, and the epoch of the last record.
const LEADER_EPOCHS: i16 = 9;
const LAST_EPOCHS: i16 = 12;
/// Further than any log reaches.
const FAR: i64 = 1 << 40;

/// Asks until the drain begins.
pub(crate) async fn wander(mut context: Context, plan: WandererPlan) {
    let phase = context.phase.clone();
    until_drain(phase, async {
        let pause = Duration::from_millis(1_000 / u64::from(plan.rate.max(1)));
        loop {
            context.link.env.sleep(pause).await;
            let topic = *plan.topics.choose(&mut context.random).expect("checked with the plan");
            let topic = Arc::clone(&context.topics[topic]);
            if !topic.synced || topic.passing {
                continue;
            }
            let partition = context.random.random_range(0..context.shared.partitions(&topic));
            let asked = match context.random.random_range(0..10) {
                0..=2 => ask_outside(&mut context, &topic, partition).await,
                3..=5 => ask_in_another_epoch(&mut context, &topic, partition).await,
                _ => ask_after_another_epoch(&mut context, &topic, partition).await,
            };
            match asked {
                Ok(()) => context.recorder.progress(),
                Err(error) => context.link.failed(&error).await,
            }
        }
    })
    .await;
}

/// What a fetch of one partition asks for.
#[derive(Debug, Clone, Copy)]
struct Question {
    offset: i64,
    current_leader_epoch: i32,
    last_fetched_epoch: i32,
}

impl Question {
    fn at(offset: i64) -> Self {
        Self { offset, current_leader_epoch: -1, last_fetched_epoch: -1 }
    }
}

/// What is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Told {
    code: i16,
    /// Epoch and end offset.
    diverging: Option<(i32, i64)>,
    records: bool,
}

impl Told {
    /// The broker has judged the question.
    fn is_verdict(&self) -> bool {
        matches!(self.code, 0 | OFFSET_OUT_OF_RANGE | FENCED_LEADER_EPOCH | UNKNOWN_LEADER_EPOCH)
    }
}

/// Fetches once without waiting; `None` if the version cannot ask that.
async fn fetch(
    context: &mut Context,
    topic: &Topic,
    partition: i32,
    question: Question,
) -> Result<Option<Told>, ClientError> {
    let connection = context.link.connection().await;
    let mut version = connection.version::<FetchRequest>()?;
    if topic.id.is_nil() {
        version = version.min(BY_ID - 1);
    }
    let least = match question {
        Question { last_fetched_epoch: 0.., .. } => LAST_EPOCHS,
        Question { current_leader_epoch, .. } if current_leader_epoch != -1 => LEADER_EPOCHS,
        _ => 0,
    };
    if version < least {
        return Ok(None);
    }
    let asked = FetchPartition::default()
        .with_partition(partition)
        .with_fetch_offset(question.offset)
        .with_current_leader_epoch(question.current_leader_epoch)
        .with_last_fetched_epoch(question.last_fetched_epoch)
        .with_log_start_offset(-1)
        .with_partition_max_bytes(1);
    let asked = FetchTopic::default()
        .with_topic(topic.wire_name())
        .with_topic_id(topic.id)
        .with_partitions(vec![asked]);
    let request = FetchRequest::default()
        .with_max_wait_ms(0)
        .with_min_bytes(0)
        .with_max_bytes(1)
        .with_session_id(0)
        .with_session_epoch(-1)
        .with_topics(vec![asked])
        .with_rack_id(StrBytes::default())
        .with_replica_id((-1).into());
    let timeout = context.link.request_timeout();
    let response = connection.send(&request, version, timeout, true)?.wait().await?;
    let answered = response.responses.first().and_then(|topic| topic.partitions.first());
    let Some(answer) = answered.filter(|answer| answer.partition_index == partition) else {
        return Err(ClientError::Protocol("Fetch left out the partition that was asked for".into()));
    };
    // KIP-951: whoever is behind is told who leads now.
    if version >= LEADER_HINTS && answer.error_code == FENCED_LEADER_EPOCH {
        let leader = answer.current_leader.leader_id;
        let missing = match response.node_endpoints.iter().any(|node| node.node_id == leader) {
            _ if leader.0 < 0 => Some("who leads"),
            false => Some("where the leader is"),
            true => None,
        };
        if let Some(missing) = missing {
            let story = format!("{}-{partition}: FENCED_LEADER_EPOCH does not say {missing}", topic.name);
            context.recorder.complain(LEADER_EPOCH_CHECKED, story);
        }
    }
    let diverging = &answer.diverging_epoch;
    Ok(Some(Told {
        code: answer.error_code,
        diverging: (diverging.end_offset >= 0).then_some((diverging.epoch, diverging.end_offset)),
        records: answer.records.as_ref().is_some_and(|records| !records.is_empty()),
    }))
}

/// Before the beginning, behind the end, and at both.
async fn ask_outside(context: &mut Context, topic: &Topic, partition: i32) -> Result<(), ClientError> {
    let outside = [-1, -2, i64::MIN, FAR, i64::MAX];
    let which = context.random.random_range(0..4);
    let (offset, inside) = match which {
        0 => (*outside.choose(&mut context.random).expect("not empty"), false),
        1 => {
            let Listed { code: 0, offset, .. } =
                list_offsets(&mut context.link, topic, partition, -2, false).await?
            else {
                return Ok(());
            };
            (offset - context.random.random_range(1..=10), false)
        }
        which => {
            let asked = if which == 2 { -1 } else { -2 };
            match list_offsets(&mut context.link, topic, partition, asked, false).await? {
                Listed { code: 0, offset, .. } => (offset, true),
                _ => return Ok(()),
            }
        }
    };
    let Some(told) = fetch(context, topic, partition, Question::at(offset)).await? else { return Ok(()) };
    if !told.is_verdict() {
        return Ok(());
    }
    let right = if inside { 0 } else { OFFSET_OUT_OF_RANGE };
    let overtaken =
        inside && told.code == OFFSET_OUT_OF_RANGE && is_gone(context, topic, partition, offset).await;
    if told.code != right && !overtaken {
        let story = format!("{}-{partition}: offset {offset} is answered {told:?}, not {right}", topic.name);
        context.recorder.complain(OUT_OF_RANGE_TOLD, story);
    }
    Ok(())
}

/// Whether the log begins behind `offset` by now, or nobody says.
async fn is_gone(context: &mut Context, topic: &Topic, partition: i32, offset: i64) -> bool {
    earliest(context, topic, partition).await.is_none_or(|start| start > offset)
}

/// As one that believes in a leader epoch before or behind the one that metadata show, or in that.
async fn ask_in_another_epoch(
    context: &mut Context,
    topic: &Topic,
    partition: i32,
) -> Result<(), ClientError> {
    let shown = |epochs: &[i32]| epochs.get(partition as usize).copied().filter(|epoch| *epoch >= 0);
    let Some(found) = find_named(&mut context.link, &topic.name).await? else { return Ok(()) };
    let Some(epoch) = shown(&found.leader_epochs).filter(|_| found.id == topic.id || found.id.is_nil())
    else {
        return Ok(());
    };
    let (believed, right) = match context.random.random_range(0..3) {
        // −1 says that it believes in none.
        0 => (if epoch == 0 { -2 } else { epoch - 1 }, FENCED_LEADER_EPOCH),
        1 => (epoch + 1_000, UNKNOWN_LEADER_EPOCH),
        _ => (epoch, 0),
    };
    let by_fetch = context.random.random_bool(0.6);
    let code = if by_fetch {
        let question = Question { current_leader_epoch: believed, ..Question::at(0) };
        fetch(context, topic, partition, question).await?.map(|told| told.code)
    } else {
        list_in_epoch(context, topic, partition, believed).await?
    };
    let judged = [0, OFFSET_OUT_OF_RANGE, FENCED_LEADER_EPOCH, UNKNOWN_LEADER_EPOCH];
    let Some(code) = code.filter(|code| judged.contains(code)) else { return Ok(()) };
    let allowed = match (right, code) {
        // The epoch may be over by now.
        (0, FENCED_LEADER_EPOCH) => {
            let now = find_named(&mut context.link, &topic.name).await?;
            now.is_none_or(|now| shown(&now.leader_epochs) != Some(epoch))
        }
        // Offset 0 may be gone.
        (0, code) => code != UNKNOWN_LEADER_EPOCH,
        (right, code) => code == right,
    };
    if !allowed {
        let story = format!(
            "{}-{partition}: leader epoch {believed} where metadata show {epoch} is answered {code}, not {right}",
            topic.name
        );
        context.recorder.complain(LEADER_EPOCH_CHECKED, story);
    }
    Ok(())
}

/// Asks for the latest offset as one that believes in a leader epoch; the error code.
async fn list_in_epoch(
    context: &mut Context,
    topic: &Topic,
    partition: i32,
    believed: i32,
) -> Result<Option<i16>, ClientError> {
    const LEADER_EPOCHS: i16 = 4;
    let connection = context.link.connection().await;
    if connection.version::<ListOffsetsRequest>()? < LEADER_EPOCHS {
        return Ok(None);
    }
    let asked = ListOffsetsPartition::default()
        .with_partition_index(partition)
        .with_current_leader_epoch(believed)
        .with_timestamp(-1);
    let asked = ListOffsetsTopic::default().with_name(topic.wire_name()).with_partitions(vec![asked]);
    let request = ListOffsetsRequest::default().with_replica_id((-1).into()).with_topics(vec![asked]);
    let response = connection.call(&request, context.link.request_timeout()).await?;
    Ok(response.topics.first().and_then(|topic| topic.partitions.first()).map(|answer| answer.error_code))
}

/// As one whose last record was of an epoch that is known, at an offset that fits it or does not.
async fn ask_after_another_epoch(
    context: &mut Context,
    topic: &Topic,
    partition: i32,
) -> Result<(), ClientError> {
    let known: Vec<(i32, (i64, i64))> = context.shared.known_epochs(topic, partition).into_iter().collect();
    if known.is_empty() {
        return Ok(());
    }
    let index = context.random.random_range(0..known.len());
    let (epoch, (_, last)) = known[index];
    let newest = known[known.len() - 1].0;
    let (case, last_fetched_epoch, offset) = match context.random.random_range(0..4) {
        0 => (Case::Agrees, epoch, last + 1),
        1 => (Case::Unknown, newest + 1_000, last + 1),
        2 if index + 1 < known.len() => {
            // Behind the first record of a later epoch: its own ended there at the latest.
            let (_, (first, _)) = known[index + 1];
            (Case::Diverges { last, end_most: first }, epoch, first + context.random.random_range(1..=5))
        }
        _ => (Case::Diverges { last, end_most: FAR }, epoch, FAR),
    };
    let question = Question { last_fetched_epoch, ..Question::at(offset) };
    let Some(told) = fetch(context, topic, partition, question).await? else { return Ok(()) };
    if !told.is_verdict() || case.allows(epoch, told) {
        return Ok(());
    }
    // What is deleted is forgotten, and below the log start there is nothing else to say.
    if !is_gone(context, topic, partition, last.min(offset)).await {
        let story = format!(
            "{}-{partition}: offset {offset} behind a record of epoch {last_fetched_epoch} is answered {told:?}; known of \
             epoch {epoch} are records up to {last}: {case:?}",
            topic.name
        );
        context.recorder.complain(DIVERGENCE_TOLD, story);
    }
    Ok(())
}

/// What is right to answer to a fetch that names the epoch of its last record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Case {
    /// The record before is of that epoch.
    Agrees,
    /// No such epoch ever was.
    Unknown,
    /// The epoch ended before: behind its last known record, and not behind this offset.
    Diverges { last: i64, end_most: i64 },
}

impl Case {
    fn allows(self, epoch: i32, told: Told) -> bool {
        match self {
            Case::Agrees => told.code == 0 && told.diverging.is_none(),
            Case::Unknown => told.code == OFFSET_OUT_OF_RANGE && !told.records,
            Case::Diverges { last, end_most } => {
                let fits = |(found, end): (i32, i64)| found == epoch && end > last && end <= end_most;
                told.code == 0 && !told.records && told.diverging.is_some_and(fits)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_epoch_that_ended_before_is_told_where() {
        let told = |code, diverging| Told { code, diverging, records: false };
        let diverges = Case::Diverges { last: 9, end_most: 20 };
        assert!(diverges.allows(3, told(0, Some((3, 10)))));
        assert!(diverges.allows(3, told(0, Some((3, 20)))));
        assert!(!diverges.allows(3, told(0, Some((3, 9)))), "a record of it stands there");
        assert!(!diverges.allows(3, told(0, Some((3, 21)))), "a later epoch stands there");
        assert!(!diverges.allows(3, told(0, Some((2, 10)))), "the epoch is known");
        assert!(!diverges.allows(3, told(OFFSET_OUT_OF_RANGE, None)), "it would begin anew");
        assert!(!diverges.allows(3, told(0, None)), "it would read on");
        assert!(Case::Agrees.allows(3, told(0, None)));
        assert!(!Case::Agrees.allows(3, told(0, Some((3, 9)))));
        assert!(Case::Unknown.allows(3, told(OFFSET_OUT_OF_RANGE, None)));
        assert!(!Case::Unknown.allows(3, told(0, None)));
    }
}
