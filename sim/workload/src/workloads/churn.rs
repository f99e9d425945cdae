//! Topics made under load: each must exist from its acknowledgement on, under the same id, with what was sent to it.
//!
//! Never: judges a topic by one answer; a broker that just started may still be reading its metadata.

use std::{sync::Arc, time::Duration};

use gracchus_checker::{EventKind, Outcome};
use kafka_protocol::messages::ProduceRequest;
use rand::{Rng, seq::IndexedRandom};

use super::{Context, producer::outcome_of};
use crate::{
    client::{Topic, find_named, produce_request},
    plan::{ChurnPlan, Codec, TopicPlan},
    record::Sequenced,
    run::make_topic,
};

/// A topic that is unknown so many times in a row is gone.
const PATIENCE: u32 = 40;

/// Makes topics until the plan's limit or the drain.
pub(crate) async fn churn(mut context: Context, plan: ChurnPlan) {
    let mut phase = context.phase.clone();
    tokio::select! {
        biased;
        _ = phase.wait_for(|phase| *phase >= crate::run::Phase::Drain) => {}
        () = async {
            let mut made: Vec<(TopicPlan, Topic)> = Vec::new();
            loop {
                context.link.env.sleep(Duration::from_millis(plan.every_ms)).await;
                if made.len() < plan.limit as usize {
                    made.push(make_and_fill(&mut context, &plan, made.len()).await);
                }
                if let Some((plan, topic)) = made.choose(&mut context.random).cloned() {
                    check_kept(&mut context, &plan, &topic).await;
                }
            }
        } => {}
    }
}

async fn make_and_fill(context: &mut Context, plan: &ChurnPlan, index: usize) -> (TopicPlan, Topic) {
    let name = format!("churn-{:04x}-{index}", context.random.random::<u16>());
    let described = TopicPlan::plain(name, plan.partitions.draw(&mut context.random).max(1) as i32);
    let topic = make_topic(context, &described).await;
    context.recorder.progress();
    let shared = Arc::new(topic.clone());
    for _ in 0..plan.batches.draw(&mut context.random) {
        let partition = context.random.random_range(0..topic.partitions);
        append_once(context, &shared, partition).await;
    }
    (described, topic)
}

/// One batch, one attempt.
async fn append_once(context: &mut Context, topic: &Arc<Topic>, partition: i32) {
    let connection = context.link.connection().await;
    let Ok(version) = connection.version::<ProduceRequest>() else {
        return;
    };
    let version = topic.version(version);
    let count = context.random.random_range(1..=4);
    let records = context.fresh_records(count, |random| random.random_range(0..200));
    let mut batch = context.begin(topic, partition, records, Codec::None, Sequenced::NONE, -1);
    let timeout = context.link.request_timeout();
    let parts = [(Arc::clone(topic), partition, batch.bytes.clone())];
    let request = produce_request(version, -1, timeout.as_millis() as i32, &parts);
    let attempt = context.tell_sent(&mut batch, connection.id, version);
    let answer = match connection.send(&request, version, timeout, true) {
        Ok(mut pending) => pending.wait().await,
        Err(error) => Err(error),
    };
    match answer {
        Ok(response) => {
            let outcome = outcome_of(&response, &batch, &context.recorder).unwrap_or(Outcome::Unknown);
            context.tell_returned(&batch, attempt, outcome);
        }
        Err(error) => {
            context.tell_returned(&batch, attempt, Outcome::Unknown);
            context.link.failed(&error).await;
        }
    }
}

/// Asks for a topic made earlier until it is there, and how many partitions it has; gone for good and a changed id are
/// complaints.
pub(super) async fn check_kept(context: &mut Context, plan: &TopicPlan, topic: &Topic) -> i32 {
    let mut unknown = 0;
    while unknown < PATIENCE {
        let invoked_ns = context.recorder.now_ns();
        match find_named(&mut context.link, &plan.name).await {
            Ok(Some(found)) => {
                let partitions = found.leader_epochs.len() as i32;
                if !found.id.is_nil() {
                    context.recorder.tell(EventKind::MetadataSeen {
                        client: context.number,
                        topic: topic.name.clone(),
                        topic_id: found.id.as_u128(),
                        partitions,
                        invoked_ns,
                    });
                }
                let same_id = found.id == topic.id || found.id.is_nil() || topic.id.is_nil();
                if !same_id || partitions < topic.partitions {
                    let story = format!("{topic:?} became {found:?}");
                    context.recorder.complain("topic_kept", story);
                }
                return partitions;
            }
            Ok(None) => {
                unknown += 1;
                context.link.back_off().await;
                context.link.env.sleep(Duration::from_millis(100)).await;
            }
            Err(error) => context.link.failed(&error).await,
        }
    }
    context.recorder.complain("topic_kept", format!("{} was created and is gone", topic.name));
    topic.partitions
}
