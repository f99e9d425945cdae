//! DeleteRecords against readers and writers: what lies below an offset goes, and the log start stays where it was put.
//!
//! Never: an offset above the high watermark that a broker has told; it would be refused.

use std::{sync::Arc, time::Duration};

use gracchus_checker::EventKind;
use kafka_protocol::messages::DeleteRecordsRequest;
use rand::{Rng, seq::IndexedRandom};

use super::{Actions, Context, until_drain};
use crate::{
    client::{Topic, delete_records as ask, is_retriable, list_offsets, serves},
    plan::DeleteRecordsPlan,
};

const LATEST: i64 = -1;
const EARLIEST: i64 = -2;

/// Deletes records until the drain begins.
pub(crate) async fn delete_records(mut context: Context, plan: DeleteRecordsPlan) {
    let phase = context.phase.clone();
    until_drain(phase, async {
        loop {
            context.link.env.sleep(Duration::from_millis(plan.every_ms)).await;
            if !serves::<DeleteRecordsRequest>(&mut context.link).await {
                return;
            }
            let topic = *plan.topics.choose(&mut context.random).expect("checked with the plan");
            let topic = Arc::clone(&context.topics[topic]);
            let partition = context.random.random_range(0..context.shared.partitions(&topic));
            // Most of what is there stays, or there would be nothing to read.
            trim(&mut context, &topic, partition, 3).await;
        }
    })
    .await;
}

/// Deletes some records, in general no more than one of `share`; whether it is known that no request to do so is still
/// under way.
pub(super) async fn trim(context: &mut Context, topic: &Arc<Topic>, partition: i32, share: i64) -> bool {
    let (Some(start), Some(end)) =
        (listed(context, topic, partition, EARLIEST).await, listed(context, topic, partition, LATEST).await)
    else {
        return true;
    };
    let before = match context.random.random_range(0..20) {
        0 => -1,
        1 => end,
        _ => start + context.random.random_range(0..=(end - start).max(0) / share),
    };
    let at = topic.at(partition);
    // Whoever is connected to now is asked, and no later process.
    context.link.connection().await;
    context.recorder.tell(EventKind::RecordsDeletionAsked { at: at.clone(), before });
    match ask(&mut context.link, topic, partition, before).await {
        Ok(Ok(low_watermark)) => {
            context.recorder.progress();
            Actions::count(&context.shared.actions.trimmed);
            context.recorder.tell(EventKind::RecordsDeleted { at, before, low_watermark });
        }
        Ok(Err(code)) if is_retriable(code) => context.link.back_off().await,
        Ok(Err(code)) => {
            if topic.synced {
                let story = format!("{at}: all below {before} (of {start} to {end}): error {code}");
                context.recorder.complain("delete_records_refused", story);
            }
        }
        Err(error) => {
            context.link.failed(&error).await;
            return false;
        }
    }
    true
}

async fn listed(context: &mut Context, topic: &Topic, partition: i32, which: i64) -> Option<i64> {
    match list_offsets(&mut context.link, topic, partition, which, false).await {
        Ok(listed) if listed.code == 0 => Some(listed.offset),
        Ok(_) => {
            context.link.back_off().await;
            None
        }
        Err(error) => {
            context.link.failed(&error).await;
            None
        }
    }
}
