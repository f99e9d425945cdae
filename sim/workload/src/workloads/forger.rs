//! A client that sends what no consumer could read, its checksum mostly right: a broker that takes it stops every consumer of
//! the partition for ever.
//!
//! The values of such batches are no operations of the history: whoever reads one reads what nobody wrote. Never: a batch
//! that somebody could read.

use std::{sync::Arc, time::Duration};

use kafka_protocol::messages::ProduceRequest;
use rand::{Rng, seq::IndexedRandom};

use super::{Context, INVALID_TIMESTAMP, MESSAGE_TOO_LARGE, until_drain};
use crate::{
    client::{ClientError, Topic, is_retriable, produce_request},
    plan::{Codec, ForgerPlan},
    record::Forgery,
};

const CODECS: [Codec; 5] = [Codec::None, Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd];
const UNKNOWN_SERVER_ERROR: i16 = -1;
const CORRUPT_MESSAGE: i16 = 2;
const INVALID_RECORD: i16 = 87;

/// Forges until the drain begins.
pub(crate) async fn forge(mut context: Context, plan: ForgerPlan) {
    let phase = context.phase.clone();
    until_drain(phase, async {
        let pause = Duration::from_millis(1_000 / u64::from(plan.rate.max(1)));
        loop {
            context.link.env.sleep(pause).await;
            let topic = *plan.topics.choose(&mut context.random).expect("checked with the plan");
            let topic = Arc::clone(&context.topics[topic]);
            let partition = context.random.random_range(0..context.shared.partitions(&topic));
            if let Err(error) = send(&mut context, &topic, partition).await {
                context.link.failed(&error).await;
            }
        }
    })
    .await;
}

async fn send(context: &mut Context, topic: &Arc<Topic>, partition: i32) -> Result<(), ClientError> {
    let forgery = *Forgery::ALL.choose(&mut context.random).expect("not empty");
    let codec = *CODECS.choose(&mut context.random).expect("not empty");
    let count = context.random.random_range(2..=5);
    let records = context.fresh_records(count, |random| random.random_range(0..=200));
    let bytes = forgery.batch(&topic.name, partition, &records, codec);
    let timeout = context.link.request_timeout();
    let connection = context.link.connection().await;
    let mut version = connection.version::<ProduceRequest>()?;
    if bytes[22] & 7 == 4 {
        version = version.max(7);
    }
    version = topic.version(version);
    let parts = [(Arc::clone(topic), partition, bytes)];
    let request = produce_request(version, -1, timeout.as_millis() as i32, &parts);
    let mut pending = connection.send(&request, version, timeout, true)?;
    let response = pending.wait().await?;
    let code = response.responses.first().and_then(|topic| topic.partition_responses.first());
    match code.map(|partition| partition.error_code) {
        Some(CORRUPT_MESSAGE) => context.recorder.progress(),
        // With a wrong checksum nothing else is to be believed, so nothing else can be said.
        Some(UNKNOWN_SERVER_ERROR | INVALID_RECORD) if forgery != Forgery::FlippedBit => {
            context.recorder.progress();
        }
        // The topic or the clock had something against it first.
        Some(MESSAGE_TOO_LARGE | INVALID_TIMESTAMP) => {}
        Some(code) if is_retriable(code) => {}
        code => {
            let name = &topic.name;
            let story = format!("{name}-{partition}: {forgery:?} in {codec:?} was answered {code:?}");
            context.recorder.complain("undecodable_refused", story);
        }
    }
    Ok(())
}
