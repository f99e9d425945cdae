//! Everything that can be counted, gathered when somebody asks: from atomics and published snapshots alone.
//!
//! Here are the broker's own and the topics'; [`requests`] has those of requests and connections, [`cluster`] those of the
//! metadata, [`logs`] those of logs and their directories. What a dashboard of the usual ones asks for under another name
//! is told under both (`tests/DASHBOARDS.md`).
//!
//! Never: a message to an owner, a lock across a wait, a look at the disk.

mod cluster;
mod logs;
mod requests;

use std::sync::Arc;

use gracchus_env::{Env, Instant};
use gracchus_log::LogDirectory;
use gracchus_quorum::Controller;

use self::requests::Requesting;
use super::{
    families::{Families, Family},
    recent::{Recent, Sample},
};
use crate::{
    api::Services, config::LiveConfig, counters::TopicMetrics, host::Host, replica::ReplicaManager,
    server::ServerView,
};

/// Where a running broker's numbers come from.
#[derive(Debug)]
pub(crate) struct Sources {
    pub(crate) env: Arc<dyn Env>,
    pub(crate) begun: Instant,
    pub(crate) host: Host,
    pub(crate) live: Arc<LiveConfig>,
    pub(crate) controller: Arc<Controller>,
    pub(crate) directories: Vec<Arc<LogDirectory>>,
    pub(crate) replicas: Arc<ReplicaManager>,
    pub(crate) services: Arc<Services>,
    pub(crate) server: ServerView,
    pub(crate) recent: Recent,
}

impl Sources {
    /// All metrics in Prometheus' text form.
    pub(crate) fn text(&self) -> String {
        let mut families = Families::default();
        self.broker(&mut families);
        process(&self.host, &mut families);
        self.topics(&mut families);
        let now = Sample::take(&*self.env, self.server.metrics());
        let requesting = Requesting { now: &now, lately: self.recent.until(&now), server: &self.server };
        requesting.tell(&mut families);
        self.limits(&mut families);
        self.cluster(&mut families);
        self.logs(&mut families);
        self.directories(&mut families);
        families.text()
    }

    /// A few seconds have passed.
    pub(super) fn sample(&self) {
        self.recent.keep(Sample::take(&*self.env, self.server.metrics()));
    }

    /// Why it cannot do all that it should, one line each; empty when it can.
    pub(crate) fn troubles(&self) -> Vec<String> {
        let mut troubles = Vec::new();
        let node = self.live.fixed().node_id;
        if !self.controller.image().brokers.contains_key(&node) {
            troubles.push(format!("node {node} is not registered"));
        }
        for directory in &self.directories {
            if let Some(reason) = directory.offline() {
                troubles.push(format!("log directory {} is offline: {reason}", directory.path().display()));
            }
        }
        troubles
    }

    fn broker(&self, families: &mut Families) {
        let mut info = Family::gauge("gracchus_build_info", "The program; always 1.");
        let node = self.live.fixed().node_id.to_string();
        let cluster = self.controller.cluster_id().to_string();
        let version = env!("CARGO_PKG_VERSION");
        info.value(&[("version", version), ("node_id", &node), ("cluster_id", &cluster)], 1.0);
        families.add(info);
        let uptime = self.env.now().since(self.begun).as_secs_f64();
        families.gauge("gracchus_uptime_seconds", "Seconds since the broker began to start.", uptime);
        state(families, RUNNING);
    }

    fn topics(&self, families: &mut Families) {
        let (topics, total) = self.replicas.metrics.read();
        for (index, (name, help)) in TopicMetrics::NAMES.iter().enumerate() {
            let help = format!("{help} Without a topic: all of this broker, also of topics that are gone.");
            let told = format!("kafka_server_brokertopicmetrics_{name}_total");
            let mut family = Family::counter(&told, &help);
            family.value(&[], total[index] as f64);
            for (topic, counts) in &topics {
                family.value(&[("topic", topic)], counts[index] as f64);
            }
            families.add(family);
            families.also(&told, &format!("kafka_server_brokertopicmetrics_{name}persec"));
        }
    }

    fn limits(&self, families: &mut Families) {
        let limit = self.live.load().max_connections as f64;
        families.gauge("gracchus_connections_limit", "max.connections as it is now.", limit);
        let (total, free, waiting, waits) = self.server.memory();
        families.gauge(
            "gracchus_request_memory_limit_bytes",
            "queued.max.request.bytes: what requests may hold.",
            total as f64,
        );
        families.gauge("gracchus_request_memory_free_bytes", "What no request holds.", free as f64);
        families.gauge(
            "gracchus_request_memory_waiting_connections",
            "Connections that wait for memory to read a request.",
            waiting as f64,
        );
        families.counter(
            "gracchus_request_memory_waits_total",
            "How often a connection had to wait for memory to read a request.",
            waits as f64,
        );
        families.gauge(
            "gracchus_receive_buffers_idle_bytes",
            "Recycled receive buffers that no request uses.",
            self.server.idle_buffers() as f64,
        );
    }
}

/// Kafka's numbers of a broker's states.
pub(super) const STARTING: u8 = 1;
const RUNNING: u8 = 3;
pub(super) const STOPPING: u8 = 7;

pub(super) fn state(families: &mut Families, state: u8) {
    families.gauge(
        "kafka_server_kafkaserver_brokerstate",
        "1: it starts, 3: it serves, 7: it stops.",
        f64::from(state),
    );
}

/// Under the names that every Prometheus client uses; what could not be found out is left out, for 0 would be a claim.
pub(super) fn process(host: &Host, families: &mut Families) {
    let Some(usage) = host.process.map(|ask| ask()) else { return };
    let count = |number: Option<u64>| number.map(|number| number as f64);
    for (name, help, value) in [
        ("process_resident_memory_bytes", "Resident memory.", count(usage.resident_bytes)),
        ("process_virtual_memory_bytes", "Virtual memory.", count(usage.virtual_bytes)),
        ("process_open_fds", "Open files and sockets.", count(usage.open_files)),
        ("process_max_fds", "How many of them there may be.", count(usage.most_open_files)),
        ("process_threads", "Threads.", count(usage.threads)),
        (
            "process_start_time_seconds",
            "When the process was started, since the Unix epoch.",
            usage.started_at_seconds,
        ),
    ] {
        if let Some(value) = value {
            families.gauge(name, help, value);
        }
    }
    for (direction, bytes) in [("read", usage.disk_read_bytes), ("write", usage.disk_written_bytes)] {
        if let Some(bytes) = bytes {
            let name = format!("kafka_server_kafkaserver_linux_disk_{direction}_bytes");
            // Kafka counts here, too, under a name without `_total`.
            families.gauge(&name, "Bytes that the process has moved from or to disks, in all.", bytes as f64);
        }
    }
    if let Some(seconds) = usage.cpu_seconds {
        families.counter("process_cpu_seconds_total", "Processor time, user and system.", seconds);
    }
}
