//! An idempotent producer that writes, is silent for a while, and then does what tells whether it is still known.
//!
//! The model: a topic of its own, one batch in flight. After the silence the last batch is sent again: whether it may be
//! written twice is the checker's to say, who knows the clocks. Or, after a silence longer than the broker's
//! `producer.id.expiration.ms` and its look, a batch that leaves sequences out: a producer that was forgotten may begin
//! anywhere. A process that has just started counts anew, and a clock that was set back makes a silence longer, so it waits
//! a few times, with the same process. Never: a complaint across a restart.

use std::{sync::Arc, time::Duration};

use gracchus_checker::{EventKind, Level, Outcome, Settled};
use kafka_protocol::messages::{IncrementalAlterConfigsRequest, ProduceRequest};
use rand::Rng;

use super::{Batch, Context, OUT_OF_ORDER_SEQUENCE_NUMBER, producer::attempt_alone, until_drain};
use crate::{
    client::{Alteration, Resource, Topic, alter_configs, is_retriable, serves},
    plan::{Codec, SleeperPlan, TopicPlan},
    record::{Sequenced, ValueId, sequence_after},
    run::make_topic,
};

const EXPIRATION: &str = "producer.id.expiration.ms";
/// Looks that may come to nothing: a clock was set back, a process paused.
const PATIENCE: u32 = 4;
/// A longer wait is not worth it.
const LONGEST_WAIT: Duration = Duration::from_secs(8);

/// Sleeps and wakes until the drain begins.
pub(crate) async fn sleep(mut context: Context, plan: SleeperPlan) {
    let phase = context.phase.clone();
    until_drain(phase, async {
        let described = TopicPlan::plain(format!("sleeper-{}", context.number), 1);
        let topic = Arc::new(make_topic(&mut context, &described).await);
        if plan.sets_it {
            set_expiration(&mut context, plan.expiration_ms).await;
        }
        loop {
            let (producer_id, epoch) = context.producer_id().await;
            let mut sleeper =
                Sleeper { context: &mut context, topic: topic.clone(), producer_id, epoch, sequence: 0 };
            // A new id where something went wrong: what became of a batch is not known.
            if !sleeper.nap(&plan).await {
                context.link.back_off().await;
            }
        }
    })
    .await;
}

/// For every broker, until it is acknowledged.
async fn set_expiration(context: &mut Context, expiration_ms: u64) {
    for change in 1.. {
        if !serves::<IncrementalAlterConfigsRequest>(&mut context.link).await {
            return;
        }
        let (level, change) = (Level::EveryBroker, ValueId::new(context.number, change).0);
        let value = expiration_ms.to_string();
        let configs = vec![(EXPIRATION.to_owned(), Some(value.clone()))];
        context.recorder.tell(EventKind::DefaultsAsked { level, change, configs });
        let changes = [(EXPIRATION.to_owned(), Alteration::Set(value))];
        let answered = alter_configs(&mut context.link, Resource::EveryBroker, &changes).await;
        let outcome = match answered {
            Ok(None) => Settled::Done,
            Ok(Some(code)) if is_retriable(code) => Settled::Unknown,
            Ok(Some(code)) => {
                context.recorder.complain("config_refused", format!("{changes:?}: error {code}"));
                Settled::Refused
            }
            Err(error) => {
                context.link.failed(&error).await;
                Settled::Unknown
            }
        };
        context.recorder.tell(EventKind::DefaultsReturned { level, change, outcome });
        if outcome == Settled::Done {
            return;
        }
        context.link.back_off().await;
    }
}

struct Sleeper<'a> {
    context: &'a mut Context,
    topic: Arc<Topic>,
    producer_id: i64,
    epoch: i16,
    sequence: i32,
}

impl Sleeper<'_> {
    /// Writes, sleeps, looks. `false`: something had no answer.
    async fn nap(&mut self, plan: &SleeperPlan) -> bool {
        let mut last = None;
        for _ in 0..self.context.random.random_range(1..=3) {
            let mut batch = self.next(0);
            let Some((connection, Outcome::Acked { .. })) = self.attempt(&mut batch).await else {
                return false;
            };
            last = Some((batch, connection));
        }
        let (mut batch, connection) = last.expect("at least one");
        let surely = Duration::from_millis((plan.expiration_ms + plan.check_ms) * 6 / 5 + 1_000);
        if surely <= LONGEST_WAIT && self.context.random.random_bool(0.5) {
            return self.be_forgotten(connection, surely).await;
        }
        let silence = plan.silence_ms.draw(&mut self.context.random);
        self.context.link.env.sleep(Duration::from_millis(silence.into())).await;
        matches!(self.attempt(&mut batch).await, Some((_, Outcome::Acked { .. })))
    }

    /// Whoever was silent for so long may begin anywhere.
    async fn be_forgotten(&mut self, connection: u64, surely: Duration) -> bool {
        let mut batch = self.next(1_000);
        for _ in 0..PATIENCE {
            self.context.link.env.sleep(surely).await;
            match self.attempt(&mut batch).await {
                Some((same, Outcome::Failed { code: OUT_OF_ORDER_SEQUENCE_NUMBER, .. }))
                    if same == connection => {}
                // An answer over another connection may be that of another process.
                Some((_, Outcome::Acked { .. })) => return true,
                _ => return false,
            }
        }
        let story = format!(
            "{}-0: producer {} is still known after {PATIENCE} times {surely:?} of silence",
            self.topic.name, self.producer_id
        );
        self.context.recorder.complain("producer_expires", story);
        false
    }

    /// The next batch, with `gap` sequences left out.
    fn next(&mut self, gap: i32) -> Batch {
        let sequence = sequence_after(self.sequence, gap);
        let records = self.context.fresh_records(1, |_| 10);
        self.sequence = sequence_after(sequence, 1);
        let sequenced = Sequenced { producer_id: self.producer_id, epoch: self.epoch, sequence };
        self.context.begin(&self.topic, 0, records, Codec::None, sequenced, -1)
    }

    /// One attempt: over which connection, and how it ended. `None`: there was no connection.
    async fn attempt(&mut self, batch: &mut Batch) -> Option<(u64, Outcome)> {
        let context = &mut *self.context;
        let connection = context.link.connection().await;
        let version = self.topic.version(connection.version::<ProduceRequest>().ok()?);
        let timeout = context.link.request_timeout();
        let outcome = attempt_alone(context, &connection, version, batch, -1, timeout).await;
        Some((connection.id, outcome))
    }
}
