//! What a request asks for, as the history is told of it when its time is judged.
//!
//! Read off the request itself, so that no client has to say it twice. Never: a request whose time nobody judges, such as
//! those that change metadata, or the first one of a connection, which may have to wait until there is room for it.

use std::any::Any;

use gracchus_checker::{Partition, Request as Asked};
use kafka_protocol::messages::{
    FetchRequest, ListOffsetsRequest, MetadataRequest, ProduceRequest, TopicName,
};
use uuid::Uuid;

/// A request, and the partitions that it names.
#[derive(Debug, Clone)]
pub(super) struct Errand {
    pub(super) asked: Asked,
    pub(super) about: Vec<Partition>,
}

impl Errand {
    /// The errand of `request`, if its time is judged.
    pub(super) fn of(request: &dyn Any) -> Option<Self> {
        let (asked, about) = if let Some(request) = request.downcast_ref::<ProduceRequest>() {
            let topics = request.topic_data.iter().flat_map(|topic| {
                let at = |index| partition(&topic.name, topic.topic_id, index);
                topic.partition_data.iter().map(move |partition| at(partition.index))
            });
            (Asked::Produce { timeout_ns: nanoseconds(request.timeout_ms) }, topics.collect())
        } else if let Some(request) = request.downcast_ref::<FetchRequest>() {
            let topics = request.topics.iter().flat_map(|topic| {
                let at = |index| partition(&topic.topic, topic.topic_id, index);
                topic.partitions.iter().map(move |partition| at(partition.partition))
            });
            (Asked::Fetch { max_wait_ns: nanoseconds(request.max_wait_ms) }, topics.collect())
        } else if let Some(request) = request.downcast_ref::<ListOffsetsRequest>() {
            let topics = request.topics.iter().flat_map(|topic| {
                let at = |index| partition(&topic.name, Uuid::nil(), index);
                topic.partitions.iter().map(move |partition| at(partition.partition_index))
            });
            (Asked::ListOffsets, topics.collect())
        } else if request.is::<MetadataRequest>() {
            (Asked::Metadata, Vec::new())
        } else {
            return None;
        };
        Some(Self { asked, about })
    }
}

fn partition(name: &TopicName, id: Uuid, index: i32) -> Partition {
    Partition::of(name.0.as_str(), id.as_u128(), index)
}

fn nanoseconds(milliseconds: i32) -> u64 {
    u64::try_from(milliseconds).unwrap_or(0) * 1_000_000
}
