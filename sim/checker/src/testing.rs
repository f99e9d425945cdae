//! Short histories for the laws' own tests: told line by line, judged at the end.

use crate::{
    Checker, CheckerConfig, Event, EventKind, NodeView, Outcome, Partition, PartitionView, QuorumView, Seen,
    Summary, Violation, Written,
};

/// The bytes of a record are told by its value in these histories.
fn hash(value: u64) -> u64 {
    value.wrapping_mul(31)
}

/// A replica of partition 0 of topic `t`.
pub(crate) fn view(high_watermark: i64, flushed_end: i64, log_end: i64) -> PartitionView {
    PartitionView {
        topic: "t".into(),
        partition: 0,
        topic_id: 1,
        leader_epoch: 0,
        log_start: 0,
        log_end,
        flushed_end,
        high_watermark,
        last_stable_offset: high_watermark,
        synced: true,
        assigned: None,
    }
}

enum Line {
    Event(Event),
    View(NodeView),
}

/// A history in the making. A microsecond passes between lines.
pub(crate) struct Story {
    lines: Vec<Line>,
    now_ns: u64,
    views: u64,
}

impl Story {
    pub(crate) fn new() -> Self {
        Self { lines: Vec::new(), now_ns: 1000, views: 0 }
    }

    pub(crate) fn now(&self) -> u64 {
        self.now_ns
    }

    pub(crate) fn event(mut self, kind: EventKind) -> Self {
        self.now_ns += 1000;
        self.lines.push(Line::Event(Event { time_ns: self.now_ns, kind }));
        self
    }

    /// A synced topic of two partitions with one replica each.
    pub(crate) fn topic(self, topic: &str) -> Self {
        self.any_topic(topic, 1, true)
    }

    pub(crate) fn any_topic(self, topic: &str, topic_id: u128, synced: bool) -> Self {
        self.created(topic, topic_id, (synced, 1), &[])
    }

    /// A synced topic with settings of its own.
    pub(crate) fn configured(self, topic: &str, topic_id: u128, configs: &[(&str, &str)]) -> Self {
        self.created(topic, topic_id, (true, 1), configs)
    }

    /// One that leaves flushing to the operating system.
    pub(crate) fn unsynced(self, topic: &str, topic_id: u128, configs: &[(&str, &str)]) -> Self {
        self.replicated_unsynced(topic, topic_id, 1, configs)
    }

    /// The same with so many replicas.
    pub(crate) fn replicated_unsynced(
        self,
        topic: &str,
        topic_id: u128,
        replicas: i16,
        configs: &[(&str, &str)],
    ) -> Self {
        self.created(topic, topic_id, (false, replicas), configs)
    }

    fn created(
        self,
        topic: &str,
        topic_id: u128,
        (synced, replication_factor): (bool, i16),
        configs: &[(&str, &str)],
    ) -> Self {
        let topic = topic.into();
        self.event(EventKind::TopicCreated {
            topic,
            topic_id,
            partitions: 2,
            replication_factor,
            synced,
            dense: true,
            configs: configs.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect(),
        })
    }

    /// A plain producer's operation, sent once over its own connection.
    pub(crate) fn produce(self, producer: u32, op: u64, topic: &str, partition: i32, values: &[u64]) -> Self {
        self.invoke(producer, op, topic, partition, values, -1)
    }

    /// Takes back the last line: an operation that was announced but not sent.
    pub(crate) fn without_last(mut self) -> Self {
        self.lines.pop();
        self
    }

    /// The same by an idempotent producer.
    pub(crate) fn idempotent(
        self,
        producer: u32,
        op: u64,
        topic: &str,
        partition: i32,
        values: &[u64],
    ) -> Self {
        self.invoke(producer, op, topic, partition, values, i64::from(producer))
    }

    fn invoke(
        self,
        producer: u32,
        op: u64,
        topic: &str,
        partition: i32,
        values: &[u64],
        producer_id: i64,
    ) -> Self {
        let written = |value: &u64| Written { value: *value, hash: hash(*value), time: 0 };
        let invoked = EventKind::ProduceInvoked {
            producer,
            op,
            at: Partition::new(topic, partition),
            records: values.iter().map(written).collect(),
            bytes: 100 * values.len() as u32,
            stored_most: 150 * values.len() as u32,
            producer_id,
            producer_epoch: if producer_id < 0 { -1 } else { 0 },
            base_sequence: -1,
            acks: -1,
        };
        let connection = u64::from(producer);
        self.event(invoked).event(EventKind::ProduceSent { op, attempt: 0, connection, by_name: false })
    }

    /// The operation is sent once more.
    pub(crate) fn again(self, op: u64, attempt: u32, connection: u64) -> Self {
        self.event(EventKind::ProduceSent { op, attempt, connection, by_name: false })
    }

    fn returned(self, op: u64, attempt: u32, outcome: Outcome) -> Self {
        self.event(EventKind::ProduceReturned { op, attempt, outcome })
    }

    pub(crate) fn acked(self, op: u64, attempt: u32, base_offset: i64) -> Self {
        self.returned(op, attempt, Outcome::Acked { base_offset, log_append_time: -1, log_start: 0 })
    }

    pub(crate) fn refused(self, op: u64, attempt: u32) -> Self {
        self.returned(op, attempt, Outcome::Failed { code: 45, definite: true })
    }

    pub(crate) fn unknown(self, op: u64, attempt: u32) -> Self {
        self.returned(op, attempt, Outcome::Unknown)
    }

    /// An answer to a fetch, and where the reader goes on.
    pub(crate) fn fetch(
        consumer: u32,
        topic: &str,
        partition: i32,
        from: i64,
        records: &[(i64, u64)],
        high_watermark: i64,
    ) -> EventKind {
        EventKind::Fetched {
            consumer,
            at: Partition::new(topic, partition),
            by_name: false,
            invoked_ns: 0,
            session: 0,
            session_epoch: -1,
            from,
            records: seen(records),
            next: records.last().map_or(from, |(offset, _)| offset + 1),
            high_watermark,
            last_stable_offset: high_watermark,
            log_start: 0,
        }
    }

    /// An answer of partition 0.
    pub(crate) fn fetched(
        self,
        consumer: u32,
        topic: &str,
        from: i64,
        records: &[(i64, u64)],
        high: i64,
    ) -> Self {
        self.event(Self::fetch(consumer, topic, 0, from, records, high))
    }

    pub(crate) fn seeked(self, consumer: u32, topic: &str, to: i64) -> Self {
        self.event(EventKind::Seeked { consumer, at: Partition::new(topic, 0), to })
    }

    /// The whole log of partition 0 after a restart.
    pub(crate) fn recovered(self, topic: &str, log_start: i64, records: &[(i64, u64)]) -> Self {
        self.event(EventKind::RecoveredLog {
            node: 1,
            at: Partition::new(topic, 0),
            log_start,
            log_end: records.last().map_or(log_start, |(offset, _)| offset + 1),
            records: seen(records),
        })
    }

    /// Node 1 shows a replica.
    pub(crate) fn shows(self, incarnation: u64, view: PartitionView) -> Self {
        self.show(incarnation, vec![view], Vec::new(), None)
    }

    /// The same, its first incarnation, with a log directory that is offline.
    pub(crate) fn shows_offline(self, directory: &str, view: PartitionView) -> Self {
        self.show(1, vec![view], vec![directory.into()], None)
    }

    /// Node 1 shows how far it is in the metadata quorum.
    pub(crate) fn shows_quorum(self, incarnation: u64, quorum: QuorumView) -> Self {
        self.show(incarnation, Vec::new(), Vec::new(), Some(quorum))
    }

    fn show(
        mut self,
        incarnation: u64,
        partitions: Vec<PartitionView>,
        offline: Vec<std::sync::Arc<str>>,
        quorum: Option<QuorumView>,
    ) -> Self {
        self.views += 1;
        self.now_ns += 1000;
        let (version, time_ns) = (self.views, self.now_ns);
        self.lines.push(Line::View(NodeView {
            node: 1,
            incarnation,
            version,
            time_ns,
            wall_ms: 0,
            partitions,
            offline,
            quorum,
        }));
        self
    }

    /// Time passes, and something happens that concerns nobody.
    pub(crate) fn after_s(mut self, seconds: u64) -> Self {
        self.now_ns += seconds * 1_000_000_000;
        self.event(EventKind::ClientStopped { client: 4711 })
    }

    fn judge(self) -> Result<Summary, Violation> {
        let mut checker = Checker::new(CheckerConfig::default());
        for line in &self.lines {
            match line {
                Line::Event(event) => checker.observe(event)?,
                Line::View(view) => checker.view(view)?,
            }
        }
        checker.finish()
    }

    /// All laws hold.
    pub(crate) fn holds(self) -> Summary {
        self.judge().unwrap_or_else(|violation| panic!("{violation}"))
    }

    /// The last line breaks `law`, and no line before it breaks any. Returns the story.
    pub(crate) fn broken(mut self, law: &str) -> String {
        let last = self.lines.pop().expect("a history");
        let before = Story { lines: self.lines, ..Story::new() };
        let mut checker = Checker::new(CheckerConfig::default());
        for line in &before.lines {
            let judged = match line {
                Line::Event(event) => checker.observe(event),
                Line::View(view) => checker.view(view),
            };
            judged.unwrap_or_else(|violation| panic!("too early: {violation}"));
        }
        let judged = match &last {
            Line::Event(event) => checker.observe(event),
            Line::View(view) => checker.view(view),
        };
        let violation = judged.expect_err("the law is broken");
        assert_eq!(violation.law, law, "{violation}");
        violation.story
    }
}

fn seen(records: &[(i64, u64)]) -> Vec<Seen> {
    records
        .iter()
        .map(|(offset, value)| Seen {
            offset: *offset,
            value: *value,
            hash: hash(*value),
            time: 0,
            created: true,
            sent_in: 0,
            stored_in: 0,
        })
        .collect()
}
