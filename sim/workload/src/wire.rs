//! What passes on one connection, read from beside it: which requests were asked, and what the answers to produces say.
//!
//! The model: bytes of each direction come in order and in any portions. Of a request only its head is read, of an answer
//! the head, and the rest if it answers a produce.
//! Never: a byte kept longer than it is needed, a judgement.

use std::collections::VecDeque;

use bytes::Bytes;
use kafka_protocol::messages::{ApiKey, ProduceResponse, produce_response::TopicProduceResponse};

use crate::client::decode;

/// Length, api key, api version, correlation id.
const REQUEST_HEAD: usize = 12;
/// Length, correlation id.
const ANSWER_HEAD: usize = 8;
/// Bytes of the length itself.
const PREFIX: usize = 4;

/// A partition's share of the answer to a produce, without an error.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Acknowledged {
    /// The topic's name; empty where only its id was said.
    pub topic: String,
    /// The topic's id, 0 where only its name was said.
    pub topic_id: u128,
    /// The partition.
    pub partition: i32,
    /// The offset of the first record.
    pub base_offset: i64,
}

/// An answer to a produce, not decoded yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProduceAnswer {
    version: i16,
    frame: Bytes,
}

impl ProduceAnswer {
    /// What it acknowledges; nothing if it cannot be decoded, of which its client complains.
    pub fn acknowledged(self) -> Vec<Acknowledged> {
        let mut frame = self.frame;
        let Ok(answer) = decode::<ProduceResponse>(&mut frame, self.version) else { return Vec::new() };
        let partitions = |topic: TopicProduceResponse| {
            let (name, id) = (topic.name.0.to_string(), topic.topic_id.as_u128());
            let sound = topic.partition_responses.into_iter().filter(|partition| partition.error_code == 0);
            sound.map(move |partition| Acknowledged {
                topic: name.clone(),
                topic_id: id,
                partition: partition.index,
                base_offset: partition.base_offset,
            })
        };
        answer.responses.into_iter().flat_map(partitions).collect()
    }
}

/// See the module.
#[derive(Debug, Default)]
pub struct Exchange {
    requests: Frames,
    answers: Frames,
    asked: VecDeque<Asked>,
    /// Of the answer that is passing.
    version: i16,
}

/// A request that may get an answer.
#[derive(Debug, Clone, Copy)]
struct Asked {
    key: i16,
    version: i16,
    correlation: i32,
}

/// One direction, cut into frames.
#[derive(Debug, Default)]
struct Frames {
    /// What is kept of the frame that is passing.
    kept: Vec<u8>,
    /// How many bytes are to be kept, once its head says so.
    wanted: Option<usize>,
    /// Bytes that nobody wants.
    skip: usize,
}

/// What a direction has come to.
enum Step {
    /// The head of a frame is there: say by [`Frames::decide`] whether its rest is wanted.
    Head,
    /// A frame that was wanted, prefix included.
    Whole(Vec<u8>),
}

impl Frames {
    /// Takes from `bytes` what comes before the next step; `None`: all of them.
    fn next(&mut self, bytes: &mut &[u8], head: usize) -> Option<Step> {
        let skipped = self.skip.min(bytes.len());
        self.skip -= skipped;
        *bytes = &bytes[skipped..];
        let part = (self.wanted.unwrap_or(head) - self.kept.len()).min(bytes.len());
        self.kept.extend_from_slice(&bytes[..part]);
        *bytes = &bytes[part..];
        if self.wanted.is_none() && self.kept.len() == head {
            return Some(Step::Head);
        }
        if self.wanted == Some(self.kept.len()) {
            self.wanted = None;
            return Some(Step::Whole(std::mem::take(&mut self.kept)));
        }
        None
    }

    fn decide(&mut self, wanted: bool) {
        let all = PREFIX + usize::try_from(int(&self.kept, 0)).unwrap_or(0);
        if wanted {
            self.wanted = Some(all.max(self.kept.len()));
        } else {
            self.skip = all.saturating_sub(self.kept.len());
            self.kept.clear();
        }
    }
}

impl Exchange {
    /// The client's next bytes.
    pub fn requested(&mut self, mut bytes: &[u8]) {
        while self.requests.next(&mut bytes, REQUEST_HEAD).is_some() {
            let head = &self.requests.kept;
            let (key, version) = (short(head, 4), short(head, 6));
            self.asked.push_back(Asked { key, version, correlation: int(head, 8) });
            self.requests.decide(false);
        }
    }

    /// The broker's next bytes: the answers to produces that end in them.
    pub fn answered(&mut self, mut bytes: &[u8]) -> Vec<ProduceAnswer> {
        let mut found = Vec::new();
        while let Some(step) = self.answers.next(&mut bytes, ANSWER_HEAD) {
            match step {
                Step::Head => {
                    let correlation = int(&self.answers.kept, PREFIX);
                    // Whoever wanted no answer got none.
                    while self.asked.front().is_some_and(|asked| asked.correlation != correlation) {
                        self.asked.pop_front();
                    }
                    let asked = self.asked.pop_front();
                    let produce = asked.filter(|asked| asked.key == ApiKey::Produce as i16);
                    self.version = produce.map_or(0, |produce| produce.version);
                    self.answers.decide(produce.is_some());
                }
                Step::Whole(frame) => {
                    let frame = Bytes::from(frame).slice(PREFIX..);
                    found.push(ProduceAnswer { version: self.version, frame });
                }
            }
        }
        found
    }
}

fn short(bytes: &[u8], at: usize) -> i16 {
    i16::from_be_bytes([bytes[at], bytes[at + 1]])
}

fn int(bytes: &[u8], at: usize) -> i32 {
    i32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

#[cfg(test)]
mod tests {
    use bytes::{BufMut, BytesMut};
    use kafka_protocol::{
        messages::{
            ResponseHeader, TopicName,
            produce_response::{PartitionProduceResponse, TopicProduceResponse},
        },
        protocol::{Encodable, HeaderVersion, StrBytes},
    };

    use super::*;

    fn request(key: i16, version: i16, correlation: i32, rest: usize) -> Vec<u8> {
        let mut bytes = BytesMut::new();
        bytes.put_i32((REQUEST_HEAD - PREFIX + rest) as i32);
        bytes.put_i16(key);
        bytes.put_i16(version);
        bytes.put_i32(correlation);
        bytes.put_bytes(7, rest);
        bytes.to_vec()
    }

    fn produced(version: i16, correlation: i32, offsets: &[(i32, i16, i64)]) -> Vec<u8> {
        let partition = |&(index, code, offset): &(i32, i16, i64)| {
            let partition = PartitionProduceResponse::default().with_index(index).with_error_code(code);
            partition.with_base_offset(offset)
        };
        let topic = TopicProduceResponse::default()
            .with_name(TopicName(StrBytes::from_static_str("t")))
            .with_partition_responses(offsets.iter().map(partition).collect());
        let mut body = BytesMut::new();
        let header = ResponseHeader::default().with_correlation_id(correlation);
        header.encode(&mut body, ProduceResponse::header_version(version)).unwrap();
        ProduceResponse::default().with_responses(vec![topic]).encode(&mut body, version).unwrap();
        [&(body.len() as i32).to_be_bytes()[..], &body].concat()
    }

    #[test]
    fn produces_are_found_among_other_answers_in_any_portions() {
        let asked = [request(0, 9, 4, 100), request(0, 9, 5, 0), request(3, 12, 6, 30), request(0, 7, 7, 1)];
        // The first one wanted no answer.
        let other = [&20i32.to_be_bytes()[..], &6i32.to_be_bytes(), &[0; 16]].concat();
        let answers = [produced(9, 5, &[(0, 0, 10), (1, 6, -1)]), other, produced(7, 7, &[(2, 0, 30)])];
        let (asked, answers) = (asked.concat(), answers.concat());
        for portion in 1..40 {
            let mut exchange = Exchange::default();
            asked.chunks(portion).for_each(|bytes| exchange.requested(bytes));
            let found = answers.chunks(portion).flat_map(|bytes| exchange.answered(bytes));
            let found: Vec<_> = found.flat_map(ProduceAnswer::acknowledged).collect();
            let offsets: Vec<_> = found.iter().map(|it| (&*it.topic, it.partition, it.base_offset)).collect();
            assert_eq!(offsets, [("t", 0, 10), ("t", 2, 30)], "portions of {portion}");
        }
    }
}
