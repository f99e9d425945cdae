//! A client that asks for earliest, latest, by-timestamp and maximum-timestamp offsets, and checks the answers
//! against what was acknowledged before it asked.
//!
//! The model: an acknowledged record lies below the high watermark for good, so an answer that overlooks one that fits
//! better is wrong whenever it was asked after the acknowledgement.
//! Never: a verdict on a topic whose acknowledgements may be lost (flushing left to the OS).

use std::{sync::Arc, time::Duration};

use gracchus_checker::{EventKind, OffsetSpec};
use kafka_protocol::messages::{ListOffsetsRequest, OffsetForLeaderEpochRequest};
use rand::{Rng, seq::IndexedRandom};

use super::{Context, configure::see_configs, grow::see_metadata};
use crate::{
    client::{Listed, Topic, epoch_end, is_retriable, list_offsets, serves},
    plan::OffsetPollerPlan,
};

const UNKNOWN_TOPIC_OR_PARTITION: i16 = 3;

/// Asks until the drain begins.
pub(crate) async fn poll_offsets(mut context: Context, plan: OffsetPollerPlan) {
    let mut phase = context.phase.clone();
    tokio::select! {
        biased;
        _ = phase.wait_for(|phase| *phase >= crate::run::Phase::Drain) => {}
        () = async {
            let pause = Duration::from_millis(1_000 / u64::from(plan.rate.max(1)));
            loop {
                let topic = *plan.topics.choose(&mut context.random).expect("checked with the plan");
                let topic = Arc::clone(&context.topics[topic]);
                let partition = context.random.random_range(0..context.shared.partitions(&topic));
                match context.random.random_range(0..20) {
                    0..=1 => see_metadata(&mut context, &topic).await,
                    2..=3 => see_configs(&mut context, &topic).await,
                    4..=7 => ask_epoch(&mut context, &topic, partition).await,
                    _ => ask(&mut context, &topic, partition).await,
                }
                context.link.env.sleep(pause).await;
            }
        } => {}
    }
}

async fn ask(context: &mut Context, topic: &Topic, partition: i32) {
    let connection = context.link.connection().await;
    let knows_max_timestamp = connection.version::<ListOffsetsRequest>().is_ok_and(|version| version >= 7);
    drop(connection);
    let (spec, wire) = match context.random.random_range(0..10) {
        0..=1 => (OffsetSpec::Earliest, -2),
        2..=4 => (OffsetSpec::Latest, -1),
        5..=6 if knows_max_timestamp => (OffsetSpec::MaxTimestamp, -3),
        _ => {
            let furthest = if context.random.random_bool(0.5) { 10_000 } else { 70_000 };
            let back = context.random.random_range(-1_000..=furthest);
            let timestamp = (context.link.env.wall_clock_ms() - back).max(0);
            (OffsetSpec::Timestamp(timestamp), timestamp)
        }
    };
    let invoked_ns = context.recorder.now_ns();
    let known = context.shared.acked_count(topic, partition);
    match list_offsets(&mut context.link, topic, partition, wire, false).await {
        Ok(Listed { code: 0, offset, timestamp, leader_epoch }) => {
            context.recorder.progress();
            let at = topic.at(partition);
            let client = context.number;
            context.recorder.tell(EventKind::ListedOffsets {
                client,
                at,
                spec,
                offset,
                timestamp,
                leader_epoch,
                invoked_ns,
            });
            judge(context, topic, partition, spec, (offset, timestamp), known).await;
            if spec != OffsetSpec::Latest {
                judge_epoch(context, topic, partition, (offset, leader_epoch));
            }
        }
        Ok(Listed { code: UNKNOWN_TOPIC_OR_PARTITION, .. }) => {
            let (client, at) = (context.number, topic.at(partition));
            context.recorder.tell(EventKind::Unknown { client, at, invoked_ns });
        }
        Ok(Listed { code, .. }) if is_retriable(code) => context.link.back_off().await,
        Ok(Listed { code, .. }) => {
            let story = format!("{}-{partition}, {spec:?}: error {code}", topic.name);
            context.recorder.complain("list_offsets_refused", story);
        }
        Err(error) => context.link.failed(&error).await,
    }
}

/// The record at an offset has the epoch in which it was read.
fn judge_epoch(context: &Context, topic: &Topic, partition: i32, (offset, told): (i64, i32)) {
    let known = context.shared.known_epochs(topic, partition);
    let read = known.into_iter().find(|(_, (first, last))| (*first..=*last).contains(&offset));
    // The first versions of ListOffsets tell no epoch, and a batch may have none.
    if let Some((read, _)) = read.filter(|(read, _)| ![told, *read].contains(&-1) && *read != told) {
        let name = &topic.name;
        let story =
            format!("{name}-{partition}: offset {offset} was read of epoch {read} and is listed of {told}");
        context.recorder.complain("epoch_end", story);
    }
}

/// Where a leader epoch ends: behind everything that was read of it.
async fn ask_epoch(context: &mut Context, topic: &Topic, partition: i32) {
    let known: Vec<(i32, (i64, i64))> = context.shared.known_epochs(topic, partition).into_iter().collect();
    let Some((epoch, (_, last))) = known.choose(&mut context.random).copied() else { return };
    if !serves::<OffsetForLeaderEpochRequest>(&mut context.link).await {
        return;
    }
    match epoch_end(&mut context.link, topic, partition, epoch).await {
        Ok(Ok((found, end))) => {
            context.recorder.progress();
            // Of an epoch whose records are all deleted nothing is remembered.
            if found > epoch || (found != epoch && found >= 0) || (found == epoch && end <= last) {
                let start = earliest(context, topic, partition).await;
                if start.is_none_or(|start| start <= last) {
                    let story = format!(
                        "{}-{partition}: epoch {epoch} was read up to offset {last}, and is said to end at {end} of \
                         epoch {found}",
                        topic.name
                    );
                    context.recorder.complain("epoch_end", story);
                }
            }
        }
        Ok(Err(_)) => context.link.back_off().await,
        Err(error) => context.link.failed(&error).await,
    }
}

/// Where the log begins by now, if somebody answers.
pub(super) async fn earliest(context: &mut Context, topic: &Topic, partition: i32) -> Option<i64> {
    for _ in 0..20 {
        match list_offsets(&mut context.link, topic, partition, -2, false).await {
            Ok(Listed { code: 0, offset, .. }) => return Some(offset),
            Ok(_) => context.link.back_off().await,
            Err(error) => context.link.failed(&error).await,
        }
    }
    None
}

/// `known` records were known to be acknowledged when the question was asked.
async fn judge(
    context: &mut Context,
    topic: &Topic,
    partition: i32,
    spec: OffsetSpec,
    (offset, timestamp): (i64, i64),
    known: usize,
) {
    let recorder = context.recorder.clone();
    let complain = |story: String| {
        let story = format!(
            "{}-{partition}, {spec:?} answered offset {offset} timestamp {timestamp}: {story}",
            topic.name
        );
        recorder.complain("offset_by_timestamp", story);
    };
    let fits: Box<dyn Fn(i64, i64) -> bool + Send> = match spec {
        OffsetSpec::Earliest | OffsetSpec::Latest => return,
        // The first one at or after the time: none acknowledged may lie before the answer.
        OffsetSpec::Timestamp(asked) => {
            if offset >= 0 && timestamp < asked {
                complain(format!("that is before {asked}"));
            }
            Box::new(move |other, time| time >= asked && (offset < 0 || other < offset))
        }
        OffsetSpec::MaxTimestamp => Box::new(move |_, time| time > timestamp),
    };
    let better = context.shared.find_acked(topic, partition, known, &fits);
    drop(fits);
    // A deletion may have taken it.
    if let Some((better, time)) = better
        && let Some(start) = earliest(context, topic, partition).await
        && start <= better
    {
        complain(format!("the acknowledged record at offset {better} with timestamp {time} fits better"));
    }
    let recorded = context.shared.find_acked(topic, partition, usize::MAX, |other, _| other == offset);
    if let Some((_, time)) = recorded
        && time != timestamp
    {
        complain(format!("the record there has timestamp {time}"));
    }
}
