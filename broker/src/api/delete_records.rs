//! DeleteRecords (key 21), versions 0 to 2: moves the start of partitions' logs (KIP-107).
//!
//! v2 flexible. Offset −1 stands for the high watermark. Answers each partition's low watermark once it is durable.
//! Records of a topic whose `cleanup.policy` lacks `delete` stay (POLICY_VIOLATION), as do those of internal topics.
//! Never: a log start above the high watermark.

use std::{sync::Arc, time::Duration};

use gracchus_core::{TopicPartition, error::ResponseError};
use kafka_protocol::messages::{
    DeleteRecordsRequest, DeleteRecordsResponse, TopicName, delete_records_request as asked,
    delete_records_response::{DeleteRecordsPartitionResult, DeleteRecordsTopicResult},
};

use super::{
    exchange::{BadRequest, Reply, Request},
    services::{self, Services},
    shape::{Field, Kind, Message, Structure},
};

/// Number of the API.
pub const KEY: i16 = 21;

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
    let topics =
        body.topics.into_iter().map(|topic| (Arc::<str>::from(topic.name.as_str()), topic.partitions));
    let topics: Vec<_> = topics.collect();
    let wanted =
        topics.iter().filter(|(name, _)| !services::is_internal(name)).flat_map(|(name, partitions)| {
            let wanted = |partition: &asked::DeleteRecordsPartition| {
                (TopicPartition::new(name.clone(), partition.partition_index), partition.offset)
            };
            partitions.iter().map(wanted)
        });
    let deleted = services.replicas.delete_records(wanted.collect(), timeout);
    Ok(Reply::Later(Box::pin(async move {
        let mut deleted = deleted.await.into_iter();
        let topics = topics.into_iter().map(|(name, partitions)| {
            let internal = services::is_internal(&name);
            let partition = |partition: asked::DeleteRecordsPartition| {
                let outcome = if internal {
                    Err(ResponseError::InvalidTopicException)
                } else {
                    deleted.next().expect("one answer per partition")
                };
                let result =
                    DeleteRecordsPartitionResult::default().with_partition_index(partition.partition_index);
                match outcome {
                    Ok(low_watermark) => result.with_low_watermark(low_watermark.0),
                    Err(error) => result.with_low_watermark(-1).with_error_code(error.code()),
                }
            };
            DeleteRecordsTopicResult::default()
                .with_name(TopicName(services::text(&name)))
                .with_partitions(partitions.into_iter().map(partition).collect())
        });
        let response = DeleteRecordsResponse::default().with_throttle_time_ms(throttle_ms);
        envelope.answer(&response.with_topics(topics.collect()))
    })))
}
