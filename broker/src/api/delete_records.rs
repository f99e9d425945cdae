//! DeleteRecords (key 21), versions 0 to 2: moves the start of partitions' logs (KIP-107).
//!
//! v2 flexible. Offset −1 stands for the high watermark. Answers each partition's low watermark once it is durable; of a
//! partition that is named more than once the last offset counts, and it is answered once. Records of a topic that is
//! only compacted stay (POLICY_VIOLATION), as do those of internal topics. Never: a log start above the high watermark.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use gracchus_core::{TopicPartition, error::ResponseError};
use kafka_protocol::messages::{
    DeleteRecordsRequest, DeleteRecordsResponse, TopicName, delete_records_request as asked,
    delete_records_response::{DeleteRecordsPartitionResult, DeleteRecordsTopicResult},
};

use super::{
    Api, Operation, Resource,
    exchange::{BadRequest, Reply, Request},
    services::{self, Services},
    shape::{Field, Kind, Message, Structure},
};

/// The row of the table.
pub const API: Api = Api {
    key: 21,
    name: "DeleteRecords",
    versions: 0..=2,
    advertised_from: 0,
    overlaps: false,
    needs: (Operation::Delete, Resource::Topic),
    shape: &SHAPE,
    start,
};

/// Structure of the request.
pub static SHAPE: Message = Message {
    flexible_from: 2,
    body: Structure {
        fields: &[Field::new(Kind::Array(&TOPIC)), Field::new(Kind::Fixed(4))],
        memory: size_of::<DeleteRecordsRequest>(),
    },
};

static TOPIC: Structure = Structure {
    fields: &[Field::new(Kind::Text), Field::new(Kind::Array(&PARTITION))],
    memory: size_of::<asked::DeleteRecordsTopic>(),
};

static PARTITION: Structure = Structure {
    fields: &[Field::new(Kind::Fixed(4)), Field::new(Kind::Fixed(8))],
    memory: size_of::<asked::DeleteRecordsPartition>(),
};

/// Answers when the new log starts are durable.
pub fn start(services: &Arc<Services>, request: Request) -> Result<Reply, BadRequest> {
    let body: DeleteRecordsRequest = request.decode()?;
    let envelope = request.envelope;
    let throttle_ms = request.context.throttle_ms();
    let timeout = Duration::from_millis(u64::try_from(body.timeout_ms).unwrap_or(0));
    let image = services.controller.image();
    let (mut wanted, mut outcomes) = (Vec::new(), BTreeMap::new());
    for (tp, offset) in offsets(body.topics) {
        // That a partition exists is asked first, as Kafka does.
        if services::is_internal(&tp.topic) && image.partition(&tp).is_some() {
            outcomes.insert(tp, Err(ResponseError::InvalidTopicException));
        } else {
            wanted.push((tp, offset));
        }
    }
    let partitions: Vec<TopicPartition> = wanted.iter().map(|(tp, _)| tp.clone()).collect();
    let deleted = services.replicas.delete_records(wanted, timeout);
    Ok(Reply::Later(Box::pin(async move {
        outcomes.extend(partitions.into_iter().zip(deleted.await));
        let mut topics: BTreeMap<Arc<str>, Vec<DeleteRecordsPartitionResult>> = BTreeMap::new();
        for (tp, outcome) in outcomes {
            let result = DeleteRecordsPartitionResult::default().with_partition_index(tp.partition.0);
            let result = match outcome {
                Ok(low_watermark) => result.with_low_watermark(low_watermark.0),
                Err(error) => result.with_low_watermark(-1).with_error_code(error.code()),
            };
            topics.entry(tp.topic).or_default().push(result);
        }
        let topics = topics.into_iter().map(|(name, partitions)| {
            DeleteRecordsTopicResult::default()
                .with_name(TopicName(services::text(&name)))
                .with_partitions(partitions)
        });
        let response = DeleteRecordsResponse::default().with_throttle_time_ms(throttle_ms);
        envelope.answer(&response.with_topics(topics.collect()))
    })))
}

/// What is asked of each partition. Each log start costs a write to the disk, so a partition has one a request.
fn offsets(topics: Vec<asked::DeleteRecordsTopic>) -> BTreeMap<TopicPartition, i64> {
    let of_topic = |topic: asked::DeleteRecordsTopic| {
        let name = Arc::<str>::from(topic.name.as_str());
        let one = move |partition: asked::DeleteRecordsPartition| {
            (TopicPartition::new(name.clone(), partition.partition_index), partition.offset)
        };
        topic.partitions.into_iter().map(one)
    };
    topics.into_iter().flat_map(of_topic).collect()
}
