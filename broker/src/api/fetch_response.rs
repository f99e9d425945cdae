//! The Fetch response, versions 4 to 18, encoded by us: the one message that carries ranges of files.
//!
//! kafka-protocol wants records as bytes in memory. Here everything around them becomes [`Piece::Bytes`] and the
//! records stay [`Piece::File`], which the kernel may copy from the page cache to the socket. Flexible from 12 on; topic
//! ids replace names in 13; leader hints and their endpoints (KIP-951) come in 16. A property test compares every
//! version byte for byte with kafka-protocol's encoding. Never: read or copy a record.

use std::sync::Arc;

use bytes::{BufMut, BytesMut};
use gracchus_core::{BrokerId, LeaderEpoch, Offset, ProducerId, TopicId};
use gracchus_env::{FileRange, Piece};

use super::{
    exchange::{Answer, Envelope, TooLong},
    outcome::ErrorCodes,
};

/// First version with compact lengths and tagged fields.
const FLEXIBLE: i16 = 12;

/// A Fetch response.
#[derive(Debug, Default)]
pub struct FetchResponse {
    pub throttle_time_ms: i32,
    /// Concerns the whole request (sessions), version 7+.
    pub error_code: i16,
    /// 0: no session.
    pub session_id: i32,
    pub topics: Vec<FetchedTopic>,
    /// Where the leaders named in partitions are, version 16+.
    pub endpoints: Vec<NodeEndpoint>,
}

/// The partitions of one topic.
#[derive(Debug)]
pub struct FetchedTopic {
    /// On the wire up to version 12.
    pub name: Arc<str>,
    /// On the wire from version 13.
    pub id: TopicId,
    pub partitions: Vec<FetchedPartition>,
}

/// What one partition gives.
#[derive(Debug)]
pub struct FetchedPartition {
    pub index: i32,
    pub error_code: i16,
    pub high_watermark: i64,
    pub last_stable_offset: i64,
    pub log_start_offset: i64,
    /// `None` unless the request is read_committed.
    pub aborted_transactions: Option<Vec<(ProducerId, Offset)>>,
    /// −1: none.
    pub preferred_read_replica: i32,
    /// Version 12+.
    pub diverging: Option<(LeaderEpoch, Offset)>,
    /// Version 12+ on the wire; sent from 16.
    pub current_leader: Option<(BrokerId, LeaderEpoch)>,
    /// Whole batches, in order.
    pub ranges: Vec<FileRange>,
}

/// Address of a broker, on the listener that the request came in on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeEndpoint {
    pub node: BrokerId,
    pub host: String,
    pub port: i32,
    pub rack: Option<String>,
}

impl FetchResponse {
    /// The response frame. Closes the connection if it would be longer than a frame can be.
    pub fn encode(self, envelope: &Envelope) -> Answer {
        let version = envelope.api_version;
        let mut errors = ErrorCodes::default();
        errors.add(self.error_code);
        let fetched = self.topics.iter().flat_map(|topic| &topic.partitions);
        errors.extend(fetched.map(|partition| partition.error_code));
        let partitions: usize = self.topics.iter().map(|topic| topic.partitions.len()).sum();
        let mut out =
            Pieces { head: envelope.open(64 + 80 * partitions), first: None, rest: Vec::new(), more: 0 };
        out.response(self, version);
        match out.finish() {
            Ok(pieces) => Answer::Pieces(pieces).telling(errors),
            Err(TooLong) => Answer::Close("the response is longer than 2 GiB".into()),
        }
    }
}

/// The frame so far. All bytes between ranges share one allocation.
struct Pieces {
    /// Bytes since the last range.
    head: BytesMut,
    /// Bytes before the first range, still to be sealed with the frame's size.
    first: Option<BytesMut>,
    /// What comes after them.
    rest: Vec<Piece>,
    /// Bytes in `rest`.
    more: u64,
}

impl Pieces {
    fn response(&mut self, response: FetchResponse, version: i16) {
        self.head.put_i32(response.throttle_time_ms);
        if version >= 7 {
            self.head.put_i16(response.error_code);
            self.head.put_i32(response.session_id);
        }
        self.count(response.topics.len(), version);
        for topic in response.topics {
            self.topic(topic, version);
        }
        if version >= FLEXIBLE {
            let endpoints = if version >= 16 { response.endpoints } else { Vec::new() };
            put_endpoints(&mut self.head, &endpoints);
        }
    }

    fn topic(&mut self, topic: FetchedTopic, version: i16) {
        match version {
            13.. => self.head.put_slice(topic.id.0.as_bytes()),
            12 => put_compact_string(&mut self.head, &topic.name),
            _ => put_string(&mut self.head, &topic.name),
        }
        self.count(topic.partitions.len(), version);
        for partition in topic.partitions {
            self.partition(partition, version);
        }
        if version >= FLEXIBLE {
            put_varint(&mut self.head, 0);
        }
    }

    fn partition(&mut self, partition: FetchedPartition, version: i16) {
        let head = &mut self.head;
        head.put_i32(partition.index);
        head.put_i16(partition.error_code);
        head.put_i64(partition.high_watermark);
        head.put_i64(partition.last_stable_offset);
        if version >= 5 {
            head.put_i64(partition.log_start_offset);
        }
        put_aborted(head, partition.aborted_transactions.as_deref(), version);
        if version >= 11 {
            head.put_i32(partition.preferred_read_replica);
        }
        self.records(partition.ranges, version);
        if version >= FLEXIBLE {
            let leader = partition.current_leader;
            put_partition_tags(&mut self.head, partition.diverging, leader);
        }
    }

    /// The length of the records, and the ranges that hold them.
    fn records(&mut self, ranges: Vec<FileRange>, version: i16) {
        let length: u64 = ranges.iter().map(|range| range.length).sum();
        let length = u32::try_from(length).unwrap_or(u32::MAX - 1);
        if version >= FLEXIBLE {
            put_varint(&mut self.head, length + 1);
        } else {
            self.head.put_u32(length);
        }
        for range in ranges.into_iter().filter(|range| range.length > 0) {
            self.flush();
            self.more += range.length;
            self.rest.push(Piece::File(range));
        }
    }

    /// Length of an array.
    fn count(&mut self, count: usize, version: i16) {
        let count = u32::try_from(count).expect("fewer elements than were requested");
        if version >= FLEXIBLE {
            put_varint(&mut self.head, count + 1);
        } else {
            self.head.put_u32(count);
        }
    }

    /// The bytes since the last range become a piece of their own.
    fn flush(&mut self) {
        let bytes = self.head.split();
        if self.first.is_none() {
            self.first = Some(bytes);
        } else if !bytes.is_empty() {
            self.more += bytes.len() as u64;
            self.rest.push(Piece::Bytes(bytes.freeze()));
        }
    }

    fn finish(mut self) -> Result<Vec<Piece>, TooLong> {
        self.flush();
        let mut first = self.first.expect("flushed");
        Envelope::seal(&mut first, self.more)?;
        self.rest.insert(0, Piece::Bytes(first.freeze()));
        Ok(self.rest)
    }
}

fn put_aborted(out: &mut BytesMut, aborted: Option<&[(ProducerId, Offset)]>, version: i16) {
    let flexible = version >= FLEXIBLE;
    let Some(aborted) = aborted else {
        return if flexible { put_varint(out, 0) } else { out.put_i32(-1) };
    };
    let count = u32::try_from(aborted.len()).expect("aborted transactions of one fetch");
    if flexible {
        put_varint(out, count + 1)
    } else {
        out.put_u32(count)
    }
    for (producer, first_offset) in aborted {
        out.put_i64(producer.0);
        out.put_i64(first_offset.0);
        if flexible {
            put_varint(out, 0);
        }
    }
}

fn put_partition_tags(
    out: &mut BytesMut,
    diverging: Option<(LeaderEpoch, Offset)>,
    leader: Option<(BrokerId, LeaderEpoch)>,
) {
    put_varint(out, u32::from(diverging.is_some()) + u32::from(leader.is_some()));
    if let Some((epoch, end_offset)) = diverging {
        put_varint(out, 0);
        put_varint(out, 13);
        out.put_i32(epoch.0);
        out.put_i64(end_offset.0);
        put_varint(out, 0);
    }
    if let Some((leader, epoch)) = leader {
        put_varint(out, 1);
        put_varint(out, 9);
        out.put_i32(leader.0);
        out.put_i32(epoch.0);
        put_varint(out, 0);
    }
}

/// The tagged section of the response: the endpoints, when there are any.
fn put_endpoints(out: &mut BytesMut, endpoints: &[NodeEndpoint]) {
    if endpoints.is_empty() {
        return put_varint(out, 0);
    }
    let mut encoded = BytesMut::new();
    put_varint(&mut encoded, u32::try_from(endpoints.len()).expect("brokers of one cluster") + 1);
    for endpoint in endpoints {
        encoded.put_i32(endpoint.node.0);
        put_compact_string(&mut encoded, &endpoint.host);
        encoded.put_i32(endpoint.port);
        match &endpoint.rack {
            Some(rack) => put_compact_string(&mut encoded, rack),
            None => put_varint(&mut encoded, 0),
        }
        put_varint(&mut encoded, 0);
    }
    put_varint(out, 1);
    put_varint(out, 0);
    put_varint(out, u32::try_from(encoded.len()).expect("brokers of one cluster"));
    out.put_slice(&encoded);
}

/// A text that is longer than such a string can be (no name of a topic is) becomes an empty one: whoever sent it, it must
/// not end the process.
fn put_string(out: &mut BytesMut, text: &str) {
    match i16::try_from(text.len()) {
        Ok(length) => {
            out.put_i16(length);
            out.put_slice(text.as_bytes());
        }
        Err(_) => out.put_i16(0),
    }
}

fn put_compact_string(out: &mut BytesMut, text: &str) {
    put_varint(out, u32::try_from(text.len()).expect("a name off the wire") + 1);
    out.put_slice(text.as_bytes());
}

fn put_varint(out: &mut BytesMut, mut value: u32) {
    while value >= 0x80 {
        out.put_u8((value as u8) | 0x80);
        value >>= 7;
    }
    out.put_u8(value as u8);
}

#[cfg(test)]
mod tests {
    use std::{any::Any, io};

    use bytes::Bytes;
    use gracchus_env::{BoxFuture, File};
    use kafka_protocol::{
        messages::{TopicName, fetch_response as theirs},
        protocol::{Encodable, StrBytes},
    };
    use proptest::prelude::*;

    use super::*;

    /// A file of known bytes.
    #[derive(Debug)]
    struct Memory(Bytes);

    impl File for Memory {
        fn length(&self) -> io::Result<u64> {
            Ok(self.0.len() as u64)
        }

        fn read_at(&self, offset: u64, length: usize) -> BoxFuture<'static, io::Result<Bytes>> {
            let bytes = self.0.slice(offset as usize..offset as usize + length);
            Box::pin(async move { Ok(bytes) })
        }

        fn read_cached(&self, offset: u64, length: usize) -> Option<Bytes> {
            Some(self.0.slice(offset as usize..offset as usize + length))
        }

        fn as_any(&self) -> &dyn Any {
            self
        }
    }

    fn sent(answer: Answer) -> Bytes {
        let Answer::Pieces(pieces) = answer.plain() else { panic!("not in pieces") };
        let mut all = BytesMut::new();
        for piece in pieces {
            match piece {
                Piece::Bytes(bytes) => all.put_slice(&bytes),
                Piece::File(range) => {
                    all.put_slice(&range.file.read_cached(range.offset, range.length as usize).unwrap());
                }
            }
        }
        all.freeze()
    }

    fn text(text: &str) -> StrBytes {
        StrBytes::from_string(text.to_owned())
    }

    /// The same response in kafka-protocol's types.
    fn mirror(ours: &FetchResponse, version: i16) -> theirs::FetchResponse {
        let mut response = theirs::FetchResponse::default().with_throttle_time_ms(ours.throttle_time_ms);
        if version >= 7 {
            response = response.with_error_code(ours.error_code).with_session_id(ours.session_id);
        }
        if version >= 16 {
            response = response.with_node_endpoints(ours.endpoints.iter().map(mirror_endpoint).collect());
        }
        response.with_responses(ours.topics.iter().map(|topic| mirror_topic(topic, version)).collect())
    }

    fn mirror_endpoint(ours: &NodeEndpoint) -> theirs::NodeEndpoint {
        theirs::NodeEndpoint::default()
            .with_node_id(ours.node.0.into())
            .with_host(text(&ours.host))
            .with_port(ours.port)
            .with_rack(ours.rack.as_deref().map(text))
    }

    fn mirror_topic(ours: &FetchedTopic, version: i16) -> theirs::FetchableTopicResponse {
        let partitions =
            ours.partitions.iter().map(|partition| mirror_partition(partition, version)).collect();
        let topic = theirs::FetchableTopicResponse::default().with_partitions(partitions);
        if version >= 13 {
            topic.with_topic_id(ours.id.0)
        } else {
            topic.with_topic(TopicName(text(&ours.name)))
        }
    }

    fn mirror_partition(ours: &FetchedPartition, version: i16) -> theirs::PartitionData {
        let mut records = BytesMut::new();
        for range in &ours.ranges {
            records.put_slice(&range.file.read_cached(range.offset, range.length as usize).unwrap());
        }
        let aborted = ours.aborted_transactions.as_ref().map(|aborted| {
            let one = |(producer, first): &(ProducerId, Offset)| {
                theirs::AbortedTransaction::default()
                    .with_producer_id(producer.0.into())
                    .with_first_offset(first.0)
            };
            aborted.iter().map(one).collect()
        });
        let mut partition = theirs::PartitionData::default()
            .with_partition_index(ours.index)
            .with_error_code(ours.error_code)
            .with_high_watermark(ours.high_watermark)
            .with_last_stable_offset(ours.last_stable_offset)
            .with_log_start_offset(ours.log_start_offset)
            .with_aborted_transactions(aborted)
            .with_records(Some(records.freeze()));
        if version >= 11 {
            partition = partition.with_preferred_read_replica(ours.preferred_read_replica.into());
        }
        if let (12.., Some((epoch, end))) = (version, ours.diverging) {
            let diverging = theirs::EpochEndOffset::default().with_epoch(epoch.0).with_end_offset(end.0);
            partition = partition.with_diverging_epoch(diverging);
        }
        if let (12.., Some((leader, epoch))) = (version, ours.current_leader) {
            let leader = theirs::LeaderIdAndEpoch::default()
                .with_leader_id(leader.0.into())
                .with_leader_epoch(epoch.0);
            partition = partition.with_current_leader(leader);
        }
        partition
    }

    prop_compose! {
        fn range()(bytes in proptest::collection::vec(any::<u8>(), 0..300), skip in 0usize..20) -> FileRange {
            let skip = skip.min(bytes.len());
            let length = (bytes.len() - skip) as u64;
            FileRange { file: Arc::new(Memory(bytes.into())), offset: skip as u64, length }
        }
    }

    prop_compose! {
        fn partition()(
            index in any::<i32>(),
            error_code in any::<i16>(),
            offsets in any::<[i64; 3]>(),
            aborted in proptest::option::of(proptest::collection::vec(any::<(i64, i64)>(), 0..3)),
            preferred_read_replica in any::<i32>(),
            diverging in proptest::option::of((0..i32::MAX, any::<i64>())),
            leader in proptest::option::of((0..i32::MAX, any::<i32>())),
            ranges in proptest::collection::vec(range(), 0..4),
        ) -> FetchedPartition {
            FetchedPartition {
                index,
                error_code,
                high_watermark: offsets[0],
                last_stable_offset: offsets[1],
                log_start_offset: offsets[2],
                aborted_transactions: aborted
                    .map(|list| list.into_iter().map(|(id, offset)| (ProducerId(id), Offset(offset))).collect()),
                preferred_read_replica,
                diverging: diverging.map(|(epoch, end)| (LeaderEpoch(epoch), Offset(end))),
                current_leader: leader.map(|(id, epoch)| (BrokerId(id), LeaderEpoch(epoch))),
                ranges,
            }
        }
    }

    prop_compose! {
        fn topic()(
            name in "[a-z]{0,200}",
            id in any::<u128>(),
            partitions in proptest::collection::vec(partition(), 0..4),
        ) -> FetchedTopic {
            FetchedTopic { name: name.into(), id: TopicId(uuid::Uuid::from_u128(id)), partitions }
        }
    }

    prop_compose! {
        fn endpoint()(
            node in any::<i32>(), host in "[a-z.]{0,150}", port in any::<i32>(),
            rack in proptest::option::of("[a-z]{0,9}"),
        ) -> NodeEndpoint {
            NodeEndpoint { node: BrokerId(node), host, port, rack }
        }
    }

    prop_compose! {
        fn response()(
            throttle_time_ms in any::<i32>(),
            error_code in any::<i16>(),
            session_id in any::<i32>(),
            topics in proptest::collection::vec(topic(), 0..4),
            endpoints in proptest::collection::vec(endpoint(), 0..3),
        ) -> FetchResponse {
            FetchResponse { throttle_time_ms, error_code, session_id, topics, endpoints }
        }
    }

    #[test]
    fn a_text_of_any_length_can_be_encoded() {
        for (length, sent) in [(0, 0), (249, 249), (0x7fff, 0x7fff), (0x8000, 0), (70_000, 0)] {
            let mut out = BytesMut::new();
            put_string(&mut out, &"x".repeat(length));
            assert_eq!((out.len(), &out[..2]), (2 + sent, &(sent as i16).to_be_bytes()[..]), "{length}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn equals_the_crates_own_encoding(ours in response(), version in 4i16..=18, correlation_id in any::<i32>()) {
            let response_header_version = i16::from(version >= 12);
            let envelope = Envelope { correlation_id, response_header_version, api_version: version };
            let mut expected = BytesMut::new();
            expected.put_i32(0);
            expected.put_i32(correlation_id);
            if version >= 12 {
                expected.put_u8(0);
            }
            mirror(&ours, version).encode(&mut expected, version).unwrap();
            let size = expected.len() as i32 - 4;
            expected[..4].copy_from_slice(&size.to_be_bytes());
            prop_assert_eq!(sent(ours.encode(&envelope)), expected.freeze());
        }
    }
}
