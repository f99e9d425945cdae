//! A segment of some length, and what one client asks about it while nobody else asks anything.
//!
//! The model: an idempotent producer writes batches of equal size to one partition, one to another, and to a third some of
//! clients whose clocks are ahead, with others behind them. Afterwards a fetch of the first two has room for both, and a
//! tool is told how large all are. Never: a topic whose settings end a segment early.

use std::{sync::Arc, time::Duration};

use gracchus_checker::Outcome;
use kafka_protocol::messages::{
    DescribeLogDirsRequest, ProduceRequest, describe_log_dirs_request::DescribableLogDirTopic,
};

use super::{Batch, Context, producer::attempt_alone};
use crate::{
    client::{FetchLimits, Fetcher, Position, Topic},
    plan::{Codec, TopicPlan},
    record::{NewRecord, Sequenced},
    run::make_topic,
};

/// So many batches, of one record each.
const BATCHES: usize = 240;
/// The value of each record, in bytes.
const FILLER: u32 = 5_000;
/// By how many milliseconds the records of the third partition are ahead.
const AHEAD_MS: [i64; 6] = [0, 20_000, 40_000, 0, 0, 0];
/// Whatever the brokers' defaults are, one segment holds all, with an index entry for each batch.
const SETTINGS: [(&str, &str); 9] = [
    ("segment.bytes", "4194304"),
    ("segment.ms", "604800000"),
    ("segment.index.bytes", "1048576"),
    ("index.interval.bytes", "4096"),
    ("retention.ms", "-1"),
    ("retention.bytes", "-1"),
    ("compression.type", "producer"),
    ("message.timestamp.type", "CreateTime"),
    ("message.timestamp.after.max.ms", "9223372036854775807"),
];

/// What was written.
#[derive(Debug, Clone)]
pub struct LongSegment {
    /// The topic.
    pub topic: Arc<Topic>,
    /// Offset and timestamp of each record of the first partition.
    pub records: Vec<(i64, i64)>,
    /// Those of the record of the third partition that is furthest ahead; the one before it is ahead, too, those behind it
    /// are not.
    pub ahead: (i64, i64),
}

impl LongSegment {
    /// The partition with records of clients whose clocks are ahead.
    pub const AHEAD: i32 = 2;
}

/// Writes it.
pub(crate) async fn fill(mut context: Context) -> (Context, LongSegment) {
    let mut described = TopicPlan::plain(format!("long-{}", context.number), 3);
    described.configs = SETTINGS.map(|(key, value)| (key.to_owned(), value.to_owned())).into();
    let topic = Arc::new(make_topic(&mut context, &described).await);
    let (producer_id, epoch) = context.producer_id().await;
    let in_time = |batches| vec![0; batches];
    let mut partitions = Vec::new();
    for (partition, ahead) in (0..).zip([in_time(BATCHES), in_time(1), AHEAD_MS.to_vec()]) {
        let mut records = Vec::new();
        for (sequence, ahead) in (0..).zip(ahead) {
            let made = context.fresh_records(1, |_| FILLER);
            let timestamp = made[0].timestamp + ahead;
            let made = [NewRecord { timestamp, ..made[0] }].into();
            let sequenced = Sequenced { producer_id, epoch, sequence };
            let batch = context.begin(&topic, partition, made, Codec::None, sequenced, -1);
            records.push((keep(&mut context, batch).await, timestamp));
        }
        partitions.push(records);
    }
    let furthest =
        partitions[LongSegment::AHEAD as usize].iter().copied().max_by_key(|(_, timestamp)| *timestamp);
    let ahead = furthest.expect("it has records");
    (context, LongSegment { topic, records: partitions.swap_remove(0), ahead })
}

/// Sends a batch until it is acknowledged; its offset.
async fn keep(context: &mut Context, mut batch: Batch) -> i64 {
    loop {
        let connection = context.link.connection().await;
        if let Ok(version) = connection.version::<ProduceRequest>() {
            let (version, timeout) = (batch.topic.version(version), context.link.request_timeout());
            let outcome = attempt_alone(context, &connection, version, &mut batch, -1, timeout).await;
            if let Outcome::Acked { base_offset, .. } = outcome {
                return base_offset;
            }
        }
        context.link.back_off().await;
    }
}

/// A fetch of both partitions that has room for both gives records of both.
pub(crate) async fn fetch_both(mut context: Context, long: LongSegment) -> Context {
    let LongSegment { topic, records, .. } = long;
    let limits = FetchLimits {
        max_wait: Duration::ZERO,
        min_bytes: 0,
        max_bytes: 1 << 20,
        partition_max_bytes: 1 << 20,
        read_committed: false,
    };
    let last = records.last().map_or(0, |(offset, _)| *offset);
    let positions =
        [(0, last), (1, 0)].map(|(partition, offset)| Position { topic: topic.clone(), partition, offset });
    loop {
        match Fetcher::new(limits, false).fetch(&mut context.link, &positions).await {
            Ok(fetched) if fetched.partitions.iter().all(|partition| partition.code == 0) => {
                let with_records = fetched.partitions.iter().filter(|partition| partition.bytes > 0).count();
                if with_records < positions.len() {
                    let name = &topic.name;
                    let story = format!(
                        "a fetch of both partitions of {name} gives records of {with_records} of them"
                    );
                    context.recorder.complain("fetch_limits", story);
                }
                return context;
            }
            Ok(_) => context.link.back_off().await,
            Err(error) => context.link.failed(&error).await,
        }
    }
}

/// How many bytes each partition of `topic` has, as a tool is told.
pub(crate) async fn sizes(mut context: Context, topic: Arc<Topic>) -> (Context, Vec<(i32, i64)>) {
    let asked = DescribableLogDirTopic::default()
        .with_topic(topic.wire_name())
        .with_partitions((0..topic.partitions).collect());
    let request = DescribeLogDirsRequest::default().with_topics(Some(vec![asked]));
    loop {
        let connection = context.link.connection().await;
        match connection.call(&request, context.link.request_timeout()).await {
            Ok(told) => {
                let topics = told.results.iter().flat_map(|directory| &directory.topics);
                let partitions = topics.flat_map(|topic| &topic.partitions);
                let sizes = partitions.map(|told| (told.partition_index, told.partition_size));
                return (context, sizes.collect());
            }
            Err(error) => context.link.failed(&error).await,
        }
    }
}
