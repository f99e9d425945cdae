//! A Kafka client that can do as it likes: whole requests through the protocol crate, or bytes of any kind. Blocking, so
//! that a test reads from top to bottom.
#![allow(clippy::disallowed_methods, reason = "tests work with real sockets")]

use std::{
    io::{self, Read, Write},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

use anyhow::Context;
use bytes::{Buf, BufMut, Bytes, BytesMut};
use kafka_protocol::{
    messages::{
        CreateTopicsRequest, FetchRequest, MetadataRequest, ProduceRequest, ProduceResponse, RequestHeader,
        TopicName,
        create_topics_request::CreatableTopic,
        fetch_request::{FetchPartition, FetchTopic},
        metadata_request::MetadataRequestTopic,
        produce_request::{PartitionProduceData, TopicProduceData},
    },
    protocol::{Decodable, Encodable, HeaderVersion, Request, StrBytes},
    records::{
        Compression, NO_PARTITION_LEADER_EPOCH, NO_PRODUCER_EPOCH, NO_PRODUCER_ID, NO_SEQUENCE, Record,
        RecordBatchDecoder, RecordBatchEncoder, RecordEncodeOptions, TimestampType,
    },
};

/// The version in which [`Client::produce`] speaks.
pub const PRODUCE_VERSION: i16 = 9;
/// The version in which [`Client::fetch`] speaks: the last with topic names.
pub const FETCH_VERSION: i16 = 12;

/// One connection.
#[derive(Debug)]
pub struct Client {
    stream: TcpStream,
    correlation: i32,
}

impl Client {
    /// Connects; reads give up after half a minute.
    pub fn connect(address: SocketAddr) -> anyhow::Result<Self> {
        let stream = TcpStream::connect_timeout(&address, Duration::from_secs(10))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(Duration::from_secs(30)))?;
        Ok(Self { stream, correlation: 0 })
    }

    /// Another client on the same connection, for a thread that only reads.
    pub fn from_stream(stream: TcpStream) -> Self {
        Self { stream, correlation: 0 }
    }

    /// The socket.
    pub fn stream(&self) -> &TcpStream {
        &self.stream
    }

    /// Sends `request` and waits for its answer.
    pub fn call<R: Request>(&mut self, request: &R, version: i16) -> anyhow::Result<R::Response> {
        let correlation = self.send(request, version)?;
        let (answered, response) = self.receive::<R>(version)?;
        anyhow::ensure!(answered == correlation, "answer {answered} to request {correlation}");
        Ok(response)
    }

    /// Sends `request` and returns its correlation id.
    pub fn send<R: Request>(&mut self, request: &R, version: i16) -> anyhow::Result<i32> {
        self.correlation = self.correlation.wrapping_add(1);
        let correlation = self.correlation;
        self.send_as(request, version, correlation)?;
        Ok(correlation)
    }

    /// Sends `request` under a correlation id of the caller's choice.
    pub fn send_as<R: Request>(&mut self, request: &R, version: i16, correlation: i32) -> anyhow::Result<()> {
        Ok(self.stream.write_all(&frame(request, version, correlation)?)?)
    }

    /// The next answer with its correlation id.
    pub fn receive<R: Request>(&mut self, version: i16) -> anyhow::Result<(i32, R::Response)> {
        let mut body = self.receive_frame()?;
        let correlation = body.try_get_i32().context("a response without correlation id")?;
        // Answers to ApiVersions keep the old header: the client cannot know yet what the broker speaks.
        if R::Response::header_version(version) >= 1 {
            let tags = body.try_get_u8().context("a response header without tagged fields")?;
            anyhow::ensure!(tags == 0, "{tags} tagged fields in a response header");
        }
        let response = R::Response::decode(&mut body, version)?;
        anyhow::ensure!(body.is_empty(), "{} bytes behind the response", body.len());
        Ok((correlation, response))
    }

    /// The next frame without its length.
    pub fn receive_frame(&mut self) -> io::Result<Bytes> {
        let mut length = [0; 4];
        self.stream.read_exact(&mut length)?;
        let length = usize::try_from(i32::from_be_bytes(length)).map_err(io::Error::other)?;
        let mut body = BytesMut::zeroed(length);
        self.stream.read_exact(&mut body)?;
        Ok(body.freeze())
    }

    /// Creates `topic` and waits until it has leaders.
    pub fn create_topic(
        &mut self,
        topic: &str,
        partitions: i32,
        configs: &[(&str, &str)],
    ) -> anyhow::Result<()> {
        let mut creatable = CreatableTopic::default()
            .with_name(name(topic))
            .with_num_partitions(partitions)
            .with_replication_factor(1);
        for (key, value) in configs {
            let config = kafka_protocol::messages::create_topics_request::CreatableTopicConfig::default()
                .with_name(text(key))
                .with_value(Some(text(value)));
            creatable.configs.push(config);
        }
        let request = CreateTopicsRequest::default().with_topics(vec![creatable]).with_timeout_ms(10_000);
        let response = self.call(&request, 5)?;
        let topic_response = response.topics.first().context("no topic in the answer")?;
        let message = topic_response.error_message.as_ref().map_or("", |message| message.as_str());
        anyhow::ensure!(topic_response.error_code == 0, "error {}: {message}", topic_response.error_code);
        self.wait_for_leaders(topic, partitions)
    }

    /// Waits until all partitions of `topic` have a leader: after a start that may take a moment.
    pub fn wait_for_leaders(&mut self, topic: &str, partitions: i32) -> anyhow::Result<()> {
        for _ in 0..500 {
            let wanted = MetadataRequestTopic::default().with_name(Some(name(topic)));
            let request = MetadataRequest::default().with_topics(Some(vec![wanted]));
            let response = self.call(&request, 9)?;
            let found = response.topics.first().context("no topic in the answer")?;
            let led = found.partitions.iter().filter(|partition| partition.error_code == 0).count();
            if found.error_code == 0 && led == partitions as usize {
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        anyhow::bail!("{topic} gets no leaders")
    }

    /// Waits until all partitions of `topic` can be read: Apache Kafka names leaders before they know that they lead.
    pub fn wait_until_served(&mut self, topic: &str, partitions: i32) -> anyhow::Result<()> {
        for partition in 0..partitions {
            let mut attempts = 0;
            while let Err(error) = self.fetch(topic, partition, 0, 1) {
                attempts += 1;
                anyhow::ensure!(attempts < 1_000, "{error}");
                std::thread::sleep(Duration::from_millis(10));
            }
        }
        Ok(())
    }

    /// Produces one batch with acks=all and returns its base offset.
    pub fn produce(&mut self, topic: &str, partition: i32, batch: Bytes) -> anyhow::Result<i64> {
        let response = self.call(&produce_request(topic, partition, batch, -1), PRODUCE_VERSION)?;
        produced(&response)
    }

    /// The batches of one partition from `offset` on, up to `max_bytes`, with the high watermark.
    pub fn fetch(
        &mut self,
        topic: &str,
        partition: i32,
        offset: i64,
        max_bytes: i32,
    ) -> anyhow::Result<(Bytes, i64)> {
        let request = fetch_request(topic, partition, offset, max_bytes);
        let response = self.call(&request, FETCH_VERSION)?;
        anyhow::ensure!(response.error_code == 0, "fetch: error {}", response.error_code);
        let answer = response.responses.into_iter().next().context("no topic in the answer")?;
        let answer = answer.partitions.into_iter().next().context("no partition in the answer")?;
        anyhow::ensure!(
            answer.error_code == 0,
            "{topic}-{partition} at {offset}: error {}",
            answer.error_code
        );
        Ok((answer.records.unwrap_or_default(), answer.high_watermark))
    }

    /// Every record of a partition to its high watermark. Uncompressed batches only.
    pub fn read_partition(&mut self, topic: &str, partition: i32) -> anyhow::Result<Vec<Record>> {
        self.read_partition_from(topic, partition, 0)
    }

    /// The same from an offset on.
    pub fn read_partition_from(
        &mut self,
        topic: &str,
        partition: i32,
        from: i64,
    ) -> anyhow::Result<Vec<Record>> {
        let mut records: Vec<Record> = Vec::new();
        loop {
            let next = records.last().map_or(from, |record| record.offset + 1);
            let (mut batches, high_watermark) = self.fetch(topic, partition, next, 8 << 20)?;
            if batches.is_empty() {
                anyhow::ensure!(next >= high_watermark, "nothing at {next} of {high_watermark}");
                return Ok(records);
            }
            for set in RecordBatchDecoder::decode_all(&mut batches)? {
                records.extend(set.records.into_iter().filter(|record| record.offset >= next));
            }
        }
    }
}

/// A complete frame: length, header, body.
pub fn frame<R: Request>(request: &R, version: i16, correlation: i32) -> anyhow::Result<Bytes> {
    let mut body = BytesMut::new();
    request.encode(&mut body, version)?;
    Ok(raw_frame(R::KEY, version, R::header_version(version), correlation, &body))
}

/// A frame around a body that is already encoded.
pub fn raw_frame(key: i16, version: i16, header_version: i16, correlation: i32, body: &[u8]) -> Bytes {
    let header = RequestHeader::default()
        .with_request_api_key(key)
        .with_request_api_version(version)
        .with_correlation_id(correlation)
        .with_client_id(Some(StrBytes::from_static_str("gracchus-tests")));
    let mut frame = BytesMut::new();
    frame.put_i32(0);
    header.encode(&mut frame, header_version).expect("a header always encodes");
    frame.put_slice(body);
    let length = i32::try_from(frame.len() - 4).expect("a test frame is short");
    frame[..4].copy_from_slice(&length.to_be_bytes());
    frame.freeze()
}

/// A topic's name as the protocol crate wants it.
pub fn name(topic: &str) -> TopicName {
    TopicName(text(topic))
}

/// A string as the protocol crate wants it.
pub fn text(text: &str) -> StrBytes {
    StrBytes::from_string(text.to_owned())
}

/// A request that produces one batch.
pub fn produce_request(topic: &str, partition: i32, batch: Bytes, acks: i16) -> ProduceRequest {
    let data = PartitionProduceData::default().with_index(partition).with_records(Some(batch));
    let topic = TopicProduceData::default().with_name(name(topic)).with_partition_data(vec![data]);
    ProduceRequest::default().with_acks(acks).with_timeout_ms(30_000).with_topic_data(vec![topic])
}

/// The base offset of the one batch that was produced.
pub fn produced(response: &ProduceResponse) -> anyhow::Result<i64> {
    let topic = response.responses.first().context("no topic in the answer")?;
    let partition = topic.partition_responses.first().context("no partition in the answer")?;
    anyhow::ensure!(partition.error_code == 0, "produce: error {}", partition.error_code);
    Ok(partition.base_offset)
}

/// A request that fetches one partition without a session and without waiting.
pub fn fetch_request(topic: &str, partition: i32, offset: i64, max_bytes: i32) -> FetchRequest {
    let partition = FetchPartition::default()
        .with_partition(partition)
        .with_fetch_offset(offset)
        .with_current_leader_epoch(-1)
        .with_last_fetched_epoch(-1)
        .with_log_start_offset(-1)
        .with_partition_max_bytes(max_bytes);
    let topic = FetchTopic::default().with_topic(name(topic)).with_partitions(vec![partition]);
    FetchRequest::default()
        .with_replica_id((-1).into())
        .with_max_wait_ms(0)
        .with_min_bytes(0)
        .with_max_bytes(max_bytes)
        .with_session_epoch(-1)
        .with_topics(vec![topic])
}

/// An uncompressed batch of one record per value, without a producer id.
pub fn batch<V: AsRef<[u8]>>(values: &[V]) -> Bytes {
    let record = |(index, value): (usize, &V)| Record {
        transactional: false,
        control: false,
        delete_horizon: false,
        partition_leader_epoch: NO_PARTITION_LEADER_EPOCH,
        producer_id: NO_PRODUCER_ID,
        producer_epoch: NO_PRODUCER_EPOCH,
        timestamp_type: TimestampType::Creation,
        offset: index as i64,
        // The encoder starts a new batch where offset and sequence drift apart.
        sequence: NO_SEQUENCE.wrapping_add(index as i32),
        timestamp: 1_700_000_000_000 + index as i64,
        key: None,
        value: Some(Bytes::copy_from_slice(value.as_ref())),
        headers: Default::default(),
    };
    let records: Vec<Record> = values.iter().enumerate().map(record).collect();
    let mut encoded = BytesMut::new();
    let options = RecordEncodeOptions { version: 2, compression: Compression::None };
    RecordBatchEncoder::encode(&mut encoded, &records, &options).expect("plain records encode");
    encoded.freeze()
}
