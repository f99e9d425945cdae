//! Fetch, with sessions (KIP-227) and without, by topic name and by topic id (KIP-516).
//!
//! The model: the caller says where it stands in each partition, the fetcher sends what the session does not know yet
//! and hands back what was answered, decoded and checked. Checked here too: byte limits, which an answer may exceed only with
//! a single batch; that an error comes with no numbers; that a session tells of a partition only what is new.
//! Never: a position of its own.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use bytes::Bytes;
use gracchus_env::Instant;
use kafka_protocol::{
    messages::{
        FetchRequest, FetchResponse, TopicName,
        fetch_request::{FetchPartition, FetchTopic, ForgottenTopic},
    },
    protocol::StrBytes,
};
use uuid::Uuid;

use super::{ClientError, LAST_BY_NAME, Link, Topic};
use crate::record::{ReadBatch, decode_batches};

/// Where a consumer stands in a partition.
#[derive(Debug, Clone)]
pub struct Position {
    /// The topic.
    pub topic: Arc<Topic>,
    /// The partition.
    pub partition: i32,
    /// The next offset to read.
    pub offset: i64,
}

impl Position {
    fn told(&self) -> Told {
        (self.topic.name.clone(), self.topic.id, self.partition)
    }
}

/// One partition of an answer.
#[derive(Debug)]
pub struct FetchedPartition {
    /// Index into the positions that were given.
    pub position: usize,
    /// Error code, 0 for none.
    pub code: i16,
    /// The answer's numbers.
    pub high_watermark: i64,
    /// −1 unless read_committed.
    pub last_stable_offset: i64,
    /// −1 below version 5.
    pub log_start: i64,
    /// Whole batches.
    pub batches: Vec<ReadBatch>,
    /// Bytes of records as they came.
    pub bytes: usize,
}

/// An answer.
#[derive(Debug)]
pub struct Fetched {
    /// The session's id, 0 for none.
    pub session: i32,
    /// Session epoch of the request, −1 for none.
    pub session_epoch: i32,
    /// Whether the request named topics by name.
    pub by_name: bool,
    /// Partitions in the answer; a session leaves out those with nothing new.
    pub partitions: Vec<FetchedPartition>,
}

/// Limits and manners of a consumer's fetches.
#[derive(Debug, Clone, Copy)]
pub struct FetchLimits {
    /// Longest wait at the broker.
    pub max_wait: Duration,
    /// Bytes that end the wait.
    pub min_bytes: i32,
    /// Bytes of the whole answer.
    pub max_bytes: i32,
    /// Bytes of one partition.
    pub partition_max_bytes: i32,
    /// Isolation level.
    pub read_committed: bool,
}

/// The fetching side of one consumer.
#[derive(Debug)]
pub struct Fetcher {
    limits: FetchLimits,
    wants_session: bool,
    /// Only versions that name topics.
    by_name: bool,
    session: Session,
}

/// A partition that a session knows: the topic's name and id, and its number.
type Told = (Arc<str>, Uuid, i32);

#[derive(Debug, Default)]
struct Session {
    id: i32,
    epoch: i32,
    by_id: bool,
    /// The connection over which it began, and when it was asked for.
    began: Option<(u64, Instant)>,
    /// By topic and partition.
    told: BTreeMap<Told, Known>,
    /// What the last answer told although it was known. That is fine where the session was gone by then, which shows in
    /// the next answer.
    repeated: Option<String>,
}

/// What both sides of a session know of a partition.
#[derive(Debug, Clone, Copy)]
struct Known {
    /// Offset that the broker was last told.
    offset: i64,
    /// High watermark and log start that it told last; `None` after an error, and before it has told any.
    numbers: Option<(i64, i64)>,
}

const FETCH_SESSION_ID_NOT_FOUND: i16 = 70;
const INVALID_FETCH_SESSION_EPOCH: i16 = 71;
const FETCH_SESSION_TOPIC_ID_ERROR: i16 = 106;

impl Fetcher {
    /// A fetcher that keeps a session if `wants_session`.
    pub fn new(limits: FetchLimits, wants_session: bool) -> Self {
        Self { limits, wants_session, by_name: false, session: Session::default() }
    }

    /// A fetcher without a session that asks by name even where ids are known.
    pub fn by_name(limits: FetchLimits) -> Self {
        Self { limits, wants_session: false, by_name: true, session: Session::default() }
    }

    /// Fetches once from `positions`. An empty answer is one without partitions.
    pub async fn fetch(&mut self, link: &mut Link, positions: &[Position]) -> Result<Fetched, ClientError> {
        let connection = link.connection().await;
        let mut version = connection.version::<FetchRequest>()?;
        if self.by_name || positions.iter().any(|position| position.topic.id.is_nil()) {
            version = version.min(LAST_BY_NAME);
        }
        let by_id = version > LAST_BY_NAME;
        if self.session.id != 0 && self.session.by_id != by_id {
            self.forget_session();
        }
        let sessions = self.wants_session && version >= 7;
        let request = self.request(sessions, positions);
        let (session_id, session_epoch) = (request.session_id, request.session_epoch);
        let timeout = link.request_timeout() + self.limits.max_wait;
        let began = (session_id == 0).then(|| (connection.id, link.env.now()));
        let invoked_ns = link.recorder.now_ns();
        let sent = connection.send(&request, version, timeout, true);
        let answer = match sent {
            Ok(mut pending) => pending.wait().await,
            Err(error) => Err(error),
        };
        let response = answer.inspect_err(|_| self.forget_session())?;
        match response.error_code {
            0 => {}
            FETCH_SESSION_ID_NOT_FOUND | INVALID_FETCH_SESSION_EPOCH | FETCH_SESSION_TOPIC_ID_ERROR
                if session_id != 0 =>
            {
                // It is forgotten with every answer that does not come: whoever still has it knows its epoch.
                if response.error_code == INVALID_FETCH_SESSION_EPOCH {
                    let story = format!(
                        "epoch {session_epoch} of session {session_id} was the next one, and refused"
                    );
                    link.recorder.complain("fetch_refused", story);
                }
                if response.error_code == FETCH_SESSION_ID_NOT_FOUND {
                    self.check_end(link, connection.id);
                }
                self.forget_session();
                let (session, session_epoch, partitions) = (0, -1, Vec::new());
                return Ok(Fetched { session, session_epoch, by_name: !by_id, partitions });
            }
            code => return Err(ClientError::Protocol(format!("Fetch answered error {code} as a whole"))),
        }
        if sessions {
            let context = (session_id, session_epoch);
            if response.session_id == 0 && session_id == 0 && link.sessions().for_all {
                link.recorder.complain("session_kept", "a session was asked for, and there is room for it");
            }
            self.accept_session(link, response.session_id, context, by_id, positions)?;
            self.session.began = began.or(self.session.began).filter(|_| self.session.id != 0);
        } else if response.session_id != 0 {
            return Err(ClientError::Protocol("Fetch without a session was answered with one".into()));
        }
        let partitions = self.decode(link, response, positions, version)?;
        if sessions {
            self.take_news(positions, &partitions);
        }
        for refused in partitions.iter().filter(|partition| partition.code != 0) {
            let Position { topic, partition, .. } = &positions[refused.position];
            link.recorder.refused(topic.at(*partition), refused.code, invoked_ns);
        }
        let session = if sessions { self.session.id } else { 0 };
        let session_epoch = if session == 0 { -1 } else { session_epoch };
        Ok(Fetched { session, session_epoch, by_name: !by_id, partitions })
    }

    /// Starts over with a full fetch.
    pub fn forget_session(&mut self) {
        self.session = Session::default();
    }

    fn request(&self, sessions: bool, positions: &[Position]) -> FetchRequest {
        let incremental = sessions && self.session.id != 0;
        let told = |position: &Position| self.session.told.get(&position.told());
        let mut topics: Vec<FetchTopic> = Vec::new();
        for position in positions {
            if incremental && told(position).is_some_and(|known| known.offset == position.offset) {
                continue;
            }
            let partition = FetchPartition::default()
                .with_partition(position.partition)
                .with_fetch_offset(position.offset)
                .with_current_leader_epoch(-1)
                .with_log_start_offset(-1)
                .with_partition_max_bytes(self.limits.partition_max_bytes);
            match topics.last_mut() {
                Some(topic)
                    if topic.topic.0 == *position.topic.name && topic.topic_id == position.topic.id =>
                {
                    topic.partitions.push(partition);
                }
                _ => topics.push(
                    FetchTopic::default()
                        .with_topic(position.topic.wire_name())
                        .with_topic_id(position.topic.id)
                        .with_partitions(vec![partition]),
                ),
            }
        }
        let (session_id, session_epoch) = match (sessions, incremental) {
            (true, true) => (self.session.id, self.session.epoch),
            (true, false) => (0, 0),
            _ => (0, -1),
        };
        FetchRequest::default()
            .with_max_wait_ms(self.limits.max_wait.as_millis() as i32)
            .with_min_bytes(self.limits.min_bytes)
            .with_max_bytes(self.limits.max_bytes)
            .with_isolation_level(i8::from(self.limits.read_committed))
            .with_session_id(session_id)
            .with_session_epoch(session_epoch)
            .with_topics(topics)
            .with_forgotten_topics_data(if incremental { self.forgotten(positions) } else { Vec::new() })
            .with_rack_id(StrBytes::default())
            .with_replica_id((-1).into())
    }

    fn forgotten(&self, positions: &[Position]) -> Vec<ForgottenTopic> {
        self.session
            .told
            .keys()
            .filter(|told| !positions.iter().any(|position| position.told() == **told))
            .map(|(name, id, partition)| {
                ForgottenTopic::default()
                    .with_topic(super::requests::wire_name(name))
                    .with_topic_id(*id)
                    .with_partitions(vec![*partition])
            })
            .collect()
    }

    /// The broker does not know the session any more, which it must for a while if it has not been started since.
    fn check_end(&self, link: &Link, connection: u64) {
        let Some((over, began)) = self.session.began else { return };
        let (age, kept) = (link.env.now().since(began), Duration::from_millis(link.sessions().kept_ms));
        if over == connection && age < kept {
            let story = format!("session {} is gone after {age:?}, {kept:?} are promised", self.session.id);
            link.recorder.complain("session_kept", story);
        }
    }

    fn accept_session(
        &mut self,
        link: &Link,
        answered_in: i32,
        (session_id, session_epoch): (i32, i32),
        by_id: bool,
        positions: &[Position],
    ) -> Result<(), ClientError> {
        if session_id != 0 && answered_in != session_id && answered_in != 0 {
            return Err(ClientError::Protocol(format!(
                "Fetch in session {session_id} was answered in session {answered_in}"
            )));
        }
        if answered_in == 0 {
            if session_id != 0 && !positions.is_empty() {
                let story = format!("session {session_id} ended, and the answer has no error that says so");
                link.recorder.complain("fetch_refused", story);
            }
            self.forget_session();
            return Ok(());
        }
        let epoch = if session_epoch == i32::MAX { 1 } else { session_epoch + 1 };
        let Session { told: before, repeated, began, .. } = std::mem::take(&mut self.session);
        // This answer shows that the session lived on.
        if let Some(repeated) = repeated {
            link.recorder.complain("session_tells_news", repeated);
        }
        let known = |position: &Position| {
            let numbers = before.get(&position.told()).and_then(|known| known.numbers);
            (position.told(), Known { offset: position.offset, numbers })
        };
        let told = positions.iter().map(known).collect();
        self.session = Session { id: answered_in, epoch, by_id, began, told, repeated: None };
        Ok(())
    }

    /// What both sides know now, and what the answer told although both knew it.
    fn take_news(&mut self, positions: &[Position], partitions: &[FetchedPartition]) {
        for answer in partitions {
            let position = &positions[answer.position];
            // The broker gave none.
            let Some(known) = self.session.told.get_mut(&position.told()) else { return };
            let numbers = (answer.code == 0).then_some((answer.high_watermark, answer.log_start));
            if numbers.is_some() && known.numbers == numbers && answer.bytes == 0 {
                let (name, partition) = (&position.topic.name, position.partition);
                self.session.repeated =
                    Some(format!("{name}-{partition} is in the answer with {numbers:?} again"));
            }
            known.numbers = numbers;
        }
    }

    fn decode(
        &self,
        link: &Link,
        response: FetchResponse,
        positions: &[Position],
        version: i16,
    ) -> Result<Vec<FetchedPartition>, ClientError> {
        let mut partitions = Vec::new();
        let (mut bytes, mut batches) = (0, 0);
        for topic in response.responses {
            for answer in topic.partitions {
                let position = find(positions, version, &topic.topic, topic.topic_id, answer.partition_index)
                    .ok_or_else(|| {
                        ClientError::Protocol("Fetch answered a partition nobody asked for".into())
                    })?;
                let Position { topic, partition, offset } = &positions[position];
                let numbers = [answer.high_watermark, answer.last_stable_offset, answer.log_start_offset];
                if answer.error_code != 0 && numbers != [-1; 3] {
                    let story =
                        format!("{}-{partition}: error {} with {numbers:?}", topic.name, answer.error_code);
                    link.recorder.complain("fetch_refused", story);
                }
                if answer.preferred_read_replica.0 != -1 {
                    let (name, replica) = (&topic.name, answer.preferred_read_replica.0);
                    let story = format!("{name}-{partition} shall be read from broker {replica}");
                    return Err(ClientError::Protocol(story));
                }
                let records = answer.records.unwrap_or_else(Bytes::new);
                let length = records.len();
                let decoded = decode_batches(&topic.name, *partition, records).unwrap_or_else(|damage| {
                    link.recorder
                        .complain("record_unchanged", format!("{}-{partition}: {damage}", topic.name));
                    Vec::new()
                });
                if length > self.limits.partition_max_bytes as usize && decoded.len() > 1 {
                    link.recorder.complain(
                        "fetch_limits",
                        format!(
                            "{}-{partition} from {offset}: {length} bytes in {} batches where {} were allowed",
                            topic.name,
                            decoded.len(),
                            self.limits.partition_max_bytes
                        ),
                    );
                }
                bytes += length;
                batches += decoded.len();
                partitions.push(FetchedPartition {
                    position,
                    code: answer.error_code,
                    high_watermark: answer.high_watermark,
                    last_stable_offset: answer.last_stable_offset,
                    log_start: answer.log_start_offset,
                    batches: decoded,
                    bytes: length,
                });
            }
        }
        if bytes > self.limits.max_bytes as usize && batches > 1 {
            let story =
                format!("{bytes} bytes in {batches} batches where {} were allowed", self.limits.max_bytes);
            link.recorder.complain("fetch_limits", story);
        }
        Ok(partitions)
    }
}

fn find(positions: &[Position], version: i16, name: &TopicName, id: Uuid, partition: i32) -> Option<usize> {
    positions.iter().position(|position| {
        let same_topic = if version > LAST_BY_NAME {
            position.topic.id == id
        } else {
            *position.topic.name == *name.0.as_str()
        };
        same_topic && position.partition == partition
    })
}
