//! A client that asks for earliest, latest, by-timestamp and maximum-timestamp offsets, and checks the answers
//! against what was acknowledged before it asked.
//!
//! The model: an acknowledged record lies below the high watermark for good, so an answer that overlooks one that fits
//! better is wrong whenever it was asked after the acknowledgement.
//! Never: a verdict on a topic whose acknowledgements may be lost (flushing left to the OS).

use std::{sync::Arc, time::Duration};

use gracchus_checker::{EventKind, OffsetSpec, Partition};
use kafka_protocol::messages::ListOffsetsRequest;
use rand::{Rng, seq::IndexedRandom};

use super::Context;
use crate::{
    client::{Listed, Topic, is_retriable, list_offsets},
    plan::OffsetPollerPlan,
};

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
                let partition = context.random.random_range(0..topic.partitions);
                ask(&mut context, &topic, partition).await;
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
            let at = Partition::new(topic.name.clone(), partition);
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
            judge(context, topic, partition, spec, (offset, timestamp), known);
        }
        Ok(Listed { code, .. }) if is_retriable(code) => context.link.back_off().await,
        Ok(Listed { code, .. }) => {
            let story = format!("{}-{partition}, {spec:?}: error {code}", topic.name);
            context.recorder.complain("list_offsets_refused", story);
        }
        Err(error) => context.link.failed(&error).await,
    }
}

/// `known` records were known to be acknowledged when the question was asked.
fn judge(
    context: &Context,
    topic: &Topic,
    partition: i32,
    spec: OffsetSpec,
    (offset, timestamp): (i64, i64),
    known: usize,
) {
    let complain = |story: String| {
        let story = format!(
            "{}-{partition}, {spec:?} answered offset {offset} timestamp {timestamp}: {story}",
            topic.name
        );
        context.recorder.complain("offset_by_timestamp", story);
    };
    let fits: Box<dyn Fn(i64, i64) -> bool> = match spec {
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
    if let Some((better, time)) = context.shared.find_acked(topic, partition, known, fits) {
        complain(format!("the acknowledged record at offset {better} with timestamp {time} fits better"));
    }
    let recorded = context.shared.find_acked(topic, partition, usize::MAX, |other, _| other == offset);
    if let Some((_, time)) = recorded
        && time != timestamp
    {
        complain(format!("the record there has timestamp {time}"));
    }
}
