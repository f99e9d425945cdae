//! Produce: checks on the connection's task, order and offsets on the owner's.
//!
//! Batches are checked (length, CRC, codec, counts, records) where they arrive, in parallel over connections, and
//! queued before the call returns, also those whose records are still being looked at ([`super::looking`]): that makes
//! consecutive requests of a connection append in order.
//!
//! Who waits longer than its request allows is answered REQUEST_TIMED_OUT: the records are queued and may be kept later.

use std::sync::Arc;

use gracchus_core::{error::ResponseError, record::ProduceRules, topic::TopicConfig};
use gracchus_env::BoxFuture;
use tokio::sync::oneshot;

use super::{
    ProduceOutcome, ProducePartition, ProduceRequest, ReplicaManager,
    looking::Produced,
    purgatory::Waiter,
    replica::{Append, Message, Replica},
};

/// What all partitions of a request have in common.
struct About {
    api_version: i16,
    transactional: bool,
    acks: i16,
    now_ms: i64,
    charge: Option<gracchus_common::Charge>,
}

impl About {
    fn rules(&self, config: &TopicConfig, strict: bool) -> ProduceRules {
        ProduceRules {
            api_version: self.api_version,
            transactional: self.transactional,
            max_message_bytes: config.max_message_bytes,
            compacted: config.cleanup_policy.compact,
            timestamp_type: config.message_timestamp_type,
            timestamp_before_max_ms: config.message_timestamp_before_max_ms,
            timestamp_after_max_ms: config.message_timestamp_after_max_ms,
            now_ms: self.now_ms,
            strict,
        }
    }
}

/// One partition's answer, known at once or when its round is kept.
enum Answer {
    Now(ProduceOutcome),
    Later(Arc<Replica>, oneshot::Receiver<ProduceOutcome>),
}

impl ReplicaManager {
    /// Checks and queues every batch now, in order; the future waits for the acknowledgements. One outcome per
    /// partition, in request order.
    pub fn produce(self: &Arc<Self>, request: ProduceRequest) -> BoxFuture<'static, Vec<ProduceOutcome>> {
        let (acks, timeout) = (request.acks, request.timeout);
        let answers: Vec<Answer> = if matches!(request.acks, -1..=1) {
            let now_ms = self.env.wall_clock_ms();
            let ProduceRequest { api_version, transactional, acks, partitions, charge, .. } = request;
            let about = About { api_version, transactional, acks, now_ms, charge };
            let image = self.image();
            partitions
                .into_iter()
                .map(|partition| {
                    let queued = self.enqueue(&image, partition, &about);
                    queued.unwrap_or_else(|refused| Answer::Now(*refused))
                })
                .collect()
        } else {
            let refused = || Answer::Now(ProduceOutcome::failed(ResponseError::InvalidRequiredAcks));
            request.partitions.iter().map(|_| refused()).collect()
        };
        let waiter = Arc::new(Waiter::default());
        // Without an answer nobody waits. A time of 0 bounds nothing: in Apache Kafka it is one for followers, and a leader
        // that is alone in its in-sync set has answered before it is up.
        if acks != 0 && !timeout.is_zero() && answers.iter().any(|it| matches!(it, Answer::Later(..))) {
            self.purgatory.at(self.env.now() + timeout, &waiter);
        }
        let manager = self.clone();
        Box::pin(async move {
            let mut outcomes = Vec::with_capacity(answers.len());
            let mut timed_out = false;
            for answer in answers {
                outcomes.push(match answer {
                    Answer::Now(outcome) => outcome,
                    Answer::Later(replica, mut reply) => {
                        let _waiting = replica.metrics.waiting_produces.hold();
                        let kept = tokio::select! {
                            biased;
                            // The owner ended without an answer: the broker is stopping.
                            kept = &mut reply => kept.map_err(|_| ResponseError::NotLeaderOrFollower),
                            () = manager.purgatory.wait(&waiter), if !timed_out => {
                                timed_out = true;
                                Err(ResponseError::RequestTimedOut)
                            }
                            () = std::future::ready(()), if timed_out => Err(ResponseError::RequestTimedOut),
                        };
                        kept.unwrap_or_else(|error| {
                            replica.metrics.failed_produce_requests.add(1);
                            ProduceOutcome::failed(error)
                        })
                    }
                });
            }
            outcomes
        })
    }

    fn enqueue(
        self: &Arc<Self>,
        image: &gracchus_core::controller::Image,
        partition: ProducePartition,
        about: &About,
    ) -> Result<Answer, Box<ProduceOutcome>> {
        let leader = self.leader_replica(image, &partition.tp, partition.topic_id).map_err(|not_leader| {
            self.metrics.elsewhere.produce_requests.add(1);
            self.metrics.elsewhere.failed_produce_requests.add(1);
            let current_leader = not_leader.current_leader;
            Box::new(ProduceOutcome { current_leader, ..ProduceOutcome::failed(not_leader.error) })
        })?;
        let resolved = leader.replica.configuration.load();
        let metrics = &leader.replica.metrics;
        metrics.produce_requests.add(1);
        let fixed = self.live.fixed();
        let rules = about.rules(&resolved.config, fixed.strict_batch_validation);
        let batch =
            Produced::check(&*self.env, partition.records, &rules, fixed.looked_at_on_the_spot, metrics)
                .map_err(|rejected| Box::new(ProduceOutcome::rejected(rejected)))?;
        let (reply, answer) = oneshot::channel();
        leader.replica.send(Message::Append(Append {
            batch,
            acks: about.acks,
            reply,
            charge: about.charge.clone(),
        }));
        Ok(Answer::Later(leader.replica, answer))
    }
}
