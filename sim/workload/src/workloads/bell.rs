//! A long poll and the record that must wake it, over and over, about as close together as they come.
//!
//! The model: one topic of one partition that nobody else writes to. The ear waits for the next record with a long fetch;
//! meanwhile the hand writes it, over a connection of its own. Nothing else would wake the ear before its time.
//! Never: a second ring before the first was heard or given up.

use std::{sync::Arc, time::Duration};

use gracchus_checker::{EventKind, Outcome};
use rand::Rng;

use super::{Actions, Context, consumer::Asked, consumer::tell_fetched, producer::send_one, until_drain};
use crate::{
    client::{FetchLimits, Fetcher, Position, Topic},
    plan::{BellPlan, TopicPlan},
    run::make_topic,
};

/// Rings until the drain begins.
pub(crate) async fn bell(mut context: Context, plan: BellPlan) {
    let described = TopicPlan::plain(format!("bell-{}", context.number), 1);
    let topic = Arc::new(make_topic(&mut context, &described).await);
    let limits = FetchLimits {
        max_wait: Duration::from_millis(plan.max_wait_ms),
        min_bytes: 1,
        max_bytes: 1 << 20,
        partition_max_bytes: 1 << 20,
        read_committed: false,
    };
    let mut ear = context.link.sibling();
    let mut fetcher = Fetcher::new(limits, plan.session);
    let mut position = Position { topic: Arc::clone(&topic), partition: 0, offset: 0 };
    let (recorder, client) = (context.recorder.clone(), context.number);
    let phase = context.phase.clone();
    until_drain(phase, async {
        loop {
            let pause = context.random.random_range(plan.pause_ms.0..=plan.pause_ms.1);
            context.link.env.sleep(Duration::from_millis(pause.into())).await;
            // Both are connected before it begins: connecting would keep them apart.
            ear.connection().await;
            context.link.connection().await;
            let invoked_ns = recorder.now_ns();
            recorder.tell(EventKind::PollBegun {
                client,
                positions: vec![(topic.at(0), position.offset)],
                max_wait_ns: limits.max_wait.as_nanos() as u64,
            });
            let positions = [position.clone()];
            let heard = {
                let fetch = fetcher.fetch(&mut ear, &positions);
                tokio::pin!(fetch);
                let ring = ring(&mut context, &topic);
                tokio::pin!(ring);
                tokio::select! {
                    biased;
                    heard = &mut fetch => {
                        ring.await;
                        Some(heard)
                    }
                    rung = &mut ring => if rung { Some(fetch.await) } else { None },
                }
            };
            recorder.tell(EventKind::PollEnded { client });
            let Some(Ok(fetched)) = heard else {
                // Nobody knows whether it rang: begin anew.
                fetcher.forget_session();
                ear.disconnect();
                ear.back_off().await;
                continue;
            };
            let by_name = fetched.by_name;
            let asked =
                Asked { session: fetched.session, session_epoch: fetched.session_epoch, by_name, invoked_ns };
            for answer in fetched.partitions.iter().filter(|answer| answer.code == 0) {
                position.offset = tell_fetched(&context, &position, answer, asked);
                if answer.bytes > 0 {
                    Actions::count(&context.shared.actions.woken);
                }
            }
        }
    })
    .await;
    recorder.tell(EventKind::PollEnded { client });
}

/// One record, one attempt; whether it was acknowledged.
async fn ring(context: &mut Context, topic: &Arc<Topic>) -> bool {
    let wait = context.random.random_range(0..=3_000);
    context.link.env.sleep(Duration::from_micros(wait)).await;
    let timeout = context.link.request_timeout();
    matches!(send_one(context, topic, 0, 10, timeout).await, Some(Outcome::Acked { .. }))
}
