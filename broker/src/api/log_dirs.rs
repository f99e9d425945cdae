//! DescribeLogDirs (key 35), versions 1 to 5, and AlterReplicaLogDirs (key 34), versions 1 and 2 (KIP-113).
//!
//! DescribeLogDirs lists the log directories with the sizes of their logs; v3 has an error for the whole answer, v4 the
//! space of the file system (KIP-827), v5 whether new partitions are kept away from a directory (KIP-1066), which none is
//! here; kafka-protocol ends with v4. A directory that is offline has KAFKA_STORAGE_ERROR and nothing else.
//! AlterReplicaLogDirs would move logs between directories while they are served. That is not possible here: a log is
//! moved by hand while the broker is stopped, and found at the next start. What is where it shall be is fine, anything
//! else is refused, partition by partition.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use bytes::{BufMut, BytesMut};
use gracchus_core::{TopicPartition, error::ResponseError};
use kafka_protocol::{
    messages::{
        AlterReplicaLogDirsRequest, AlterReplicaLogDirsResponse, DescribeLogDirsRequest,
        DescribeLogDirsResponse, TopicName,
        alter_replica_log_dirs_request::{AlterReplicaLogDir, AlterReplicaLogDirTopic},
        alter_replica_log_dirs_response::{AlterReplicaLogDirPartitionResult, AlterReplicaLogDirTopicResult},
        describe_log_dirs_request::DescribableLogDirTopic,
        describe_log_dirs_response::{DescribeLogDirsPartition, DescribeLogDirsResult, DescribeLogDirsTopic},
    },
    protocol::Encodable,
};

use super::{
    Api, Operation, Resource,
    exchange::{BadRequest, Reply, Request},
    services::{self, Services},
    shape::{Field, Kind, Message, Structure},
};
use crate::replica::DirectorySizes;

/// The row of AlterReplicaLogDirs.
pub const ALTER: Api = Api {
    key: 34,
    name: "AlterReplicaLogDirs",
    versions: 1..=2,
    advertised_from: 1,
    overlaps: false,
    needs: (Operation::Alter, Resource::Cluster),
    shape: &ALTER_SHAPE,
    start: alter,
};

/// The row of DescribeLogDirs.
pub const DESCRIBE: Api = Api {
    key: 35,
    name: "DescribeLogDirs",
    versions: 1..=5,
    advertised_from: 1,
    overlaps: false,
    needs: (Operation::Describe, Resource::Cluster),
    shape: &DESCRIBE_SHAPE,
    start: describe,
};

/// The version that says which directories are cordoned.
const CORDONED: i16 = 5;

/// Structure of AlterReplicaLogDirs.
pub static ALTER_SHAPE: Message = Message {
    flexible_from: 2,
    body: Structure {
        fields: &[Field::new(Kind::Array(&DIRECTORY))],
        memory: size_of::<AlterReplicaLogDirsRequest>(),
    },
};

static DIRECTORY: Structure = Structure {
    fields: &[Field::new(Kind::Text), Field::new(Kind::Array(&TOPIC))],
    memory: size_of::<AlterReplicaLogDir>(),
};

static TOPIC: Structure = Structure {
    fields: &[Field::new(Kind::Text), Field::new(Kind::Numbers(4))],
    memory: size_of::<AlterReplicaLogDirTopic>(),
};

/// Structure of DescribeLogDirs.
pub static DESCRIBE_SHAPE: Message = Message {
    flexible_from: 2,
    body: Structure {
        fields: &[Field::new(Kind::Array(&DESCRIBED))],
        memory: size_of::<DescribeLogDirsRequest>(),
    },
};

static DESCRIBED: Structure = Structure {
    fields: &[Field::new(Kind::Text), Field::new(Kind::Numbers(4))],
    memory: size_of::<DescribableLogDirTopic>(),
};

/// Answers DescribeLogDirs when the directories have been looked into.
pub fn describe(services: &Arc<Services>, request: Request) -> Result<Reply, BadRequest> {
    let body: DescribeLogDirsRequest = request.decode()?;
    let envelope = request.envelope;
    let throttle_ms = request.context.throttle_ms();
    let services = services.clone();
    Ok(Reply::Later(Box::pin(async move {
        let asked: Option<BTreeSet<(&str, i32)>> = body.topics.as_ref().map(|topics| {
            topics
                .iter()
                .flat_map(|topic| topic.partitions.iter().map(|index| (topic.topic.as_str(), *index)))
                .collect()
        });
        let wanted = |tp: &TopicPartition| {
            asked.as_ref().is_none_or(|asked| asked.contains(&(&*tp.topic, tp.partition.0)))
        };
        let sizes = services.replicas.sizes(wanted).await;
        let results = sizes.into_iter().map(|sizes| result(sizes, envelope.api_version));
        let response = DescribeLogDirsResponse::default()
            .with_throttle_time_ms(throttle_ms)
            .with_results(results.collect());
        if envelope.api_version < CORDONED {
            return envelope.answer(&response);
        }
        envelope.answer_with(&response, |frame| {
            write_cordoned(&response, frame).map_err(|error| error.to_string())
        })
    })))
}

/// Writes an answer of version 5. It is that of version 4 with one more field in each directory.
fn write_cordoned(response: &DescribeLogDirsResponse, frame: &mut BytesMut) -> anyhow::Result<()> {
    frame.put_i32(response.throttle_time_ms);
    frame.put_i16(response.error_code);
    let mut length = response.results.len() + 1;
    while length >= 0x80 {
        frame.put_u8(length as u8 | 0x80);
        length >>= 7;
    }
    frame.put_u8(length as u8);
    for result in &response.results {
        result.encode(frame, CORDONED - 1)?;
        // Before its tagged fields, of which there are none: not cordoned.
        frame.truncate(frame.len() - 1);
        frame.put_u8(0);
        frame.put_u8(0);
    }
    frame.put_u8(0);
    Ok(())
}

fn result(sizes: DirectorySizes, version: i16) -> DescribeLogDirsResult {
    let mut result = DescribeLogDirsResult::default().with_log_dir(services::text(&sizes.path));
    if let (true, Some((total, usable))) = (version >= 4, sizes.space) {
        result.total_bytes = i64::try_from(total).unwrap_or(i64::MAX);
        result.usable_bytes = i64::try_from(usable).unwrap_or(i64::MAX);
    }
    let Some(logs) = sizes.logs else {
        return result.with_error_code(ResponseError::KafkaStorageError.code());
    };
    let mut topics: BTreeMap<Arc<str>, Vec<DescribeLogDirsPartition>> = BTreeMap::new();
    for (tp, bytes) in logs {
        let partition = DescribeLogDirsPartition::default()
            .with_partition_index(tp.partition.0)
            .with_partition_size(i64::try_from(bytes).unwrap_or(i64::MAX));
        topics.entry(tp.topic).or_default().push(partition);
    }
    let topics = topics.into_iter().map(|(name, partitions)| {
        DescribeLogDirsTopic::default()
            .with_name(TopicName(services::text(&name)))
            .with_partitions(partitions)
    });
    result.with_topics(topics.collect())
}

/// Answers AlterReplicaLogDirs at once.
pub fn alter(services: &Arc<Services>, request: Request) -> Result<Reply, BadRequest> {
    let body: AlterReplicaLogDirsRequest = request.decode()?;
    let mut topics: BTreeMap<TopicName, BTreeMap<i32, ResponseError>> = BTreeMap::new();
    let mut fine: BTreeMap<TopicName, BTreeSet<i32>> = BTreeMap::new();
    for directory in &body.dirs {
        for topic in &directory.topics {
            for index in &topic.partitions {
                match place(services, directory.path.as_str(), topic.name.as_str(), *index) {
                    Ok(()) => _ = fine.entry(topic.name.clone()).or_default().insert(*index),
                    Err(error) => {
                        topics.entry(topic.name.clone()).or_default().insert(*index, error);
                    }
                }
            }
        }
    }
    let names: BTreeSet<TopicName> = topics.keys().chain(fine.keys()).cloned().collect();
    let results = names.into_iter().map(|name| {
        let failed = topics.remove(&name).unwrap_or_default();
        let fine = fine.remove(&name).unwrap_or_default();
        let fine = fine.into_iter().filter(|index| !failed.contains_key(index)).map(|index| (index, 0));
        let codes: BTreeMap<i32, i16> =
            failed.iter().map(|(index, error)| (*index, error.code())).chain(fine).collect();
        let partitions = codes.into_iter().map(|(index, code)| {
            AlterReplicaLogDirPartitionResult::default().with_partition_index(index).with_error_code(code)
        });
        AlterReplicaLogDirTopicResult::default().with_topic_name(name).with_partitions(partitions.collect())
    });
    let results = results.collect();
    let response = AlterReplicaLogDirsResponse::default()
        .with_throttle_time_ms(request.context.throttle_ms())
        .with_results(results);
    Ok(Reply::Now(request.envelope.answer(&response)))
}

/// Whether the partition's log is where it shall be.
fn place(services: &Services, path: &str, topic: &str, index: i32) -> Result<(), ResponseError> {
    let mut missing = services.replicas.missing().iter();
    if missing.any(|missing| missing.display().to_string() == path) {
        return Err(ResponseError::KafkaStorageError);
    }
    let mut directories = services.replicas.directories().iter();
    let directory = directories
        .find(|directory| directory.path().display().to_string() == path)
        .ok_or(ResponseError::LogDirNotFound)?;
    if directory.offline().is_some() {
        return Err(ResponseError::KafkaStorageError);
    }
    let image = services.controller.image();
    let partition = image.topic(topic).and_then(|topic| topic.partition(index.into()));
    let partition = partition.ok_or(ResponseError::UnknownTopicOrPartition)?;
    if partition.directory_of(services.node()) == directory.directory_id() {
        Ok(())
    } else {
        Err(ResponseError::UnsupportedVersion)
    }
}

#[cfg(test)]
pub(super) mod tests {
    use bytes::{Buf, Bytes};
    use kafka_protocol::protocol::Decodable;

    use super::*;

    /// An answer of version 5 without what is new in it.
    pub(in crate::api) fn without_cordoned(mut answer: Bytes) -> Bytes {
        let mut before = BytesMut::from(&answer.split_to(6)[..]);
        let length = answer.get_u8();
        assert!(length < 0x80, "a test has few directories");
        before.put_u8(length);
        for _ in 1..length {
            let whole = answer.clone();
            // The crate takes the new field for the number of tagged fields: 0 in either case.
            DescribeLogDirsResult::decode(&mut answer, CORDONED - 1).expect("as in the version before");
            let used = whole.len() - answer.len();
            assert_eq!(whole[used - 1], 0, "none is cordoned");
            before.put_slice(&whole[..used - 1]);
            before.put_u8(answer.get_u8());
        }
        before.put(answer);
        before.freeze()
    }

    #[test]
    fn the_newest_answer_is_the_one_before_and_one_field_more() {
        let partition = DescribeLogDirsPartition::default().with_partition_index(3).with_partition_size(4711);
        let topic = DescribeLogDirsTopic::default()
            .with_name(TopicName(services::text("topic")))
            .with_partitions(vec![partition; 3]);
        let directory = |topics: usize| {
            DescribeLogDirsResult::default()
                .with_log_dir(services::text("/data"))
                .with_topics(vec![topic.clone(); topics])
                .with_total_bytes(1 << 40)
                .with_usable_bytes(1 << 30)
        };
        for directories in [vec![], vec![directory(0)], (0..5).map(directory).collect()] {
            let count = directories.len();
            let response = DescribeLogDirsResponse::default()
                .with_throttle_time_ms(7)
                .with_error_code(31)
                .with_results(directories);
            let (mut newest, mut before) = (BytesMut::new(), BytesMut::new());
            write_cordoned(&response, &mut newest).unwrap();
            response.encode(&mut before, CORDONED - 1).unwrap();
            assert_eq!(newest.len(), before.len() + count);
            assert_eq!(without_cordoned(newest.freeze()), before.freeze());
        }
        let many = vec![DescribeLogDirsResult::default(); 200];
        let response = DescribeLogDirsResponse::default().with_results(many);
        let (mut newest, mut before) = (BytesMut::new(), BytesMut::new());
        write_cordoned(&response, &mut newest).unwrap();
        response.encode(&mut before, CORDONED - 1).unwrap();
        assert_eq!((newest.len(), &newest[..8]), (before.len() + 200, &before[..8]));
    }
}
