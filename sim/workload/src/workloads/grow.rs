//! Partitions added under load: producers write to the new ones and followers read them as soon as they are known.
//!
//! Never: an addition believed before metadata or an answer says so.

use std::{sync::Arc, time::Duration};

use gracchus_checker::EventKind;
use kafka_protocol::messages::CreatePartitionsRequest;
use rand::seq::IndexedRandom;

use super::{Actions, Context, until_drain};
use crate::{
    client::{ClientError, Link, Topic, create_partitions, find_named, is_retriable, serves},
    history::Recorder,
    plan::GrowPlan,
};

const INVALID_PARTITIONS: i16 = 37;
const INVALID_REPLICATION_FACTOR: i16 = 38;

/// Adds partitions until the limit or the drain.
pub(crate) async fn grow(mut context: Context, plan: GrowPlan) {
    let phase = context.phase.clone();
    until_drain(phase, async {
        loop {
            context.link.env.sleep(Duration::from_millis(plan.every_ms)).await;
            if !serves::<CreatePartitionsRequest>(&mut context.link).await {
                return;
            }
            let topic = *plan.topics.choose(&mut context.random).expect("checked with the plan");
            let topic = Arc::clone(&context.topics[topic]);
            if context.shared.partitions(&topic) < plan.limit {
                add(&mut context, &topic).await;
            }
        }
    })
    .await;
}

async fn add(context: &mut Context, topic: &Arc<Topic>) {
    let count = context.shared.partitions(topic) + 1;
    match ask_for(&context.recorder, &mut context.link, topic, count).await {
        Ok(None) => {
            context.recorder.progress();
            Actions::count(&context.shared.actions.grown);
            context.shared.grown(topic, count);
        }
        // It has them: an attempt whose answer was lost.
        Ok(Some(INVALID_PARTITIONS)) => {}
        // A log directory is offline, and there is no room for another partition.
        Ok(Some(INVALID_REPLICATION_FACTOR)) => context.link.back_off().await,
        Ok(Some(code)) if is_retriable(code) => context.link.back_off().await,
        Ok(Some(code)) => {
            let story = format!("{} to {count} partitions: error {code}", topic.name);
            context.recorder.complain("create_partitions_refused", story);
        }
        Err(error) => context.link.failed(&error).await,
    }
    see_metadata(context, topic).await;
}

/// Asks for `count` partitions, and tells that and what came of it; `Some(code)` is the broker's refusal.
pub(super) async fn ask_for(
    recorder: &Recorder,
    link: &mut Link,
    topic: &Topic,
    count: i32,
) -> Result<Option<i16>, ClientError> {
    let (name, topic_id) = (topic.name.clone(), topic.id.as_u128());
    recorder.tell(EventKind::PartitionsAsked { topic: name.clone(), topic_id, count });
    let answered = create_partitions(link, topic, count).await;
    if answered == Ok(None) {
        recorder.tell(EventKind::PartitionsAdded { topic: name, topic_id, count });
    }
    answered
}

/// Asks for the topic's metadata and tells what they show.
pub(super) async fn see_metadata(context: &mut Context, topic: &Arc<Topic>) {
    let invoked_ns = context.recorder.now_ns();
    match find_named(&mut context.link, &topic.name).await {
        Ok(Some(found)) if !found.id.is_nil() => {
            context.recorder.progress();
            context.recorder.tell(EventKind::MetadataSeen {
                client: context.number,
                topic: topic.name.clone(),
                topic_id: found.id.as_u128(),
                partitions: found.leader_epochs.len() as i32,
                invoked_ns,
            });
            if found.id == topic.id {
                context.shared.grown(topic, found.leader_epochs.len() as i32);
            }
        }
        Ok(_) => {}
        Err(error) => context.link.failed(&error).await,
    }
}
