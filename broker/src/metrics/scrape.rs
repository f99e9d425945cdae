//! Everything that can be counted, gathered when somebody asks: from atomics and published snapshots alone.
//!
//! Never: a message to an owner, a lock across a wait, a look at the disk.

use std::sync::Arc;

use gracchus_core::{
    BrokerId,
    controller::{Image, Partition},
};
use gracchus_env::{Env, Instant};

use super::{
    broker::RequestMetrics,
    cells::milliseconds,
    families::{Families, Family},
    topics::TopicMetrics,
};
use crate::{
    api::{APIS, Services},
    config::LiveConfig,
    controller::Controller,
    host::Host,
    log::LogDirectory,
    replica::ReplicaManager,
    server::ServerView,
};

/// Where a running broker's numbers come from.
#[derive(Debug, Clone)]
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
}

impl Sources {
    /// All metrics in Prometheus' text form.
    pub(crate) fn text(&self) -> String {
        let mut families = Families::default();
        self.broker(&mut families);
        process(&self.host, &mut families);
        self.topics(&mut families);
        self.requests(&mut families);
        self.connections(&mut families);
        self.cluster(&mut families);
        self.logs(&mut families);
        self.directories(&mut families);
        families.text()
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
    }

    fn topics(&self, families: &mut Families) {
        let (topics, total) = self.replicas.metrics.read();
        for (index, (name, help)) in TopicMetrics::NAMES.iter().enumerate() {
            let help = format!("{help} Without a topic: all of this broker, also of topics that are gone.");
            let mut family = Family::counter(&format!("kafka_server_brokertopicmetrics_{name}_total"), &help);
            family.value(&[], total[index] as f64);
            for (topic, counts) in &topics {
                family.value(&[("topic", topic)], counts[index] as f64);
            }
            families.add(family);
        }
    }

    fn requests(&self, families: &mut Families) {
        let name = |name: &str| format!("kafka_network_requestmetrics_{name}");
        let metrics = self.server.metrics();
        let seen: Vec<_> = APIS
            .iter()
            .filter_map(|api| {
                let metrics = metrics.request(api.key)?;
                Some((api.name, metrics, metrics.total.read())).filter(|(_, _, times)| times.count > 0)
            })
            .collect();
        let mut requests = Family::counter(&name("requests_total"), "Requests that were answered.");
        let mut bytes = Family::counter(&name("requestbytes_total"), "Bytes of requests.");
        let mut total = Family::histogram(
            &name("totaltimems"),
            "Milliseconds from the whole request to its answer in the socket.",
        );
        for (api, metrics, times) in &seen {
            requests.value(&[("request", api)], times.count as f64);
            bytes.value(&[("request", api)], metrics.request_bytes.get() as f64);
            total.times(&[("request", api)], times);
        }
        families.add(requests);
        families.add(bytes);
        families.add(total);
        type Phase = (&'static str, &'static str, fn(&RequestMetrics) -> u64);
        let phases: [Phase; 5] = [
            ("requestqueuetimems", "Milliseconds from the whole request to its turn.", |of| of.queue.get()),
            ("localtimems", "Milliseconds in the handler.", |of| of.local.get()),
            ("remotetimems", "Milliseconds of waiting: disk, records, place among the answers.", |of| {
                of.remote.get()
            }),
            ("responsequeuetimems", "Milliseconds from the answer to its write.", |of| {
                of.response_queue.get()
            }),
            ("responsesendtimems", "Milliseconds in the write of the answer.", |of| of.send.get()),
        ];
        for (phase, help, read) in phases {
            let mut family = Family::summary(&name(phase), help);
            for (api, metrics, times) in &seen {
                family.sum(&[("request", api)], times.count, milliseconds(read(metrics)));
            }
            families.add(family);
        }
    }

    fn connections(&self, families: &mut Families) {
        let mut open = Family::gauge("kafka_server_socketservermetrics_connections", "Open connections.");
        let mut accepted = Family::counter(
            "kafka_server_socketservermetrics_connection_creation_total",
            "Connections that were accepted.",
        );
        let mut refused = Family::counter(
            "gracchus_connections_refused_total",
            "Connections that were closed at once: their address had max.connections.per.ip.",
        );
        let mut expired = Family::counter(
            "kafka_network_socketserver_expiredconnectionskilledcount_total",
            "Connections that the broker ended: idle, stalled in a request, not reading.",
        );
        for (name, listener) in &self.server.metrics().listeners {
            let labels = [("listener", &**name)];
            open.value(&labels, listener.open.get() as f64);
            accepted.value(&labels, listener.accepted.get() as f64);
            refused.value(&labels, listener.refused.get() as f64);
            expired.value(&labels, listener.expired.get() as f64);
        }
        [open, accepted, refused, expired].into_iter().for_each(|family| families.add(family));
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

    fn cluster(&self, families: &mut Families) {
        let image = self.controller.image();
        let node = self.live.fixed().node_id;
        let count = Count::of(&image, node);
        let leads = 1.0; // A quorum of one, as long as there is no other.
        let controller = |name: &str| format!("kafka_controller_kafkacontroller_{name}");
        families.gauge(&controller("activecontrollercount"), "Whether this node is the controller.", leads);
        families.gauge(&controller("globaltopiccount"), "Topics.", image.topics.len() as f64);
        families.gauge(&controller("globalpartitioncount"), "Partitions.", count.all as f64);
        families.gauge(
            &controller("offlinepartitionscount"),
            "Partitions without a leader that can serve.",
            self.offline_partitions(count.without_leader) as f64,
        );
        families.gauge(
            &controller("activebrokercount"),
            "Brokers that are registered.",
            image.brokers.len() as f64,
        );
        let manager = |name: &str| format!("kafka_server_replicamanager_{name}");
        families.gauge(&manager("partitioncount"), "Partitions with a replica here.", count.here as f64);
        families.gauge(&manager("leadercount"), "Partitions that are led from here.", count.led as f64);
        families.gauge(
            &manager("underreplicatedpartitions"),
            "Partitions led from here with fewer replicas in sync than they have.",
            count.under_replicated as f64,
        );
        families.gauge(
            &manager("underminisrpartitioncount"),
            "Partitions led from here with fewer replicas in sync than min.insync.replicas.",
            self.under_min_isr(&image, node) as f64,
        );
        let mut purgatory = Family::gauge(
            "kafka_server_delayedoperationpurgatory_purgatorysize",
            "Requests that wait: fetches for records, produces for the disk.",
        );
        let waiting = &self.replicas.metrics;
        purgatory.value(&[("delayedoperation", "Fetch")], waiting.waiting_fetches.get() as f64);
        purgatory.value(&[("delayedoperation", "Produce")], waiting.waiting_produces() as f64);
        families.add(purgatory);
        families.gauge(
            "kafka_server_fetchsessioncache_numincrementalfetchsessions",
            "Fetch sessions that are kept.",
            self.services.fetch_sessions() as f64,
        );
    }

    /// Those whose log failed count, too: nobody else has them.
    fn offline_partitions(&self, without_leader: usize) -> usize {
        without_leader + self.replicas.snapshot().iter().filter(|replica| replica.has_failed()).count()
    }

    fn under_min_isr(&self, image: &Image, node: BrokerId) -> usize {
        let mut under = 0;
        let least_of_broker = self.live.load().topic_defaults.min_insync_replicas;
        for topic in image.topics.values() {
            let own = topic.configs.get("min.insync.replicas").and_then(|value| value.parse().ok());
            let least: i32 = own.unwrap_or(least_of_broker);
            let led = topic.partitions.iter().filter(|partition| partition.leader == node);
            under +=
                led.filter(|partition| partition.isr.len() < usize::try_from(least).unwrap_or(1)).count();
        }
        under
    }

    fn logs(&self, families: &mut Families) {
        let log = |name: &str| format!("kafka_log_log_{name}");
        let mut size = Family::gauge(&log("size"), "Bytes of a partition's log, of logs in use.");
        let mut segments = Family::gauge(&log("numlogsegments"), "Segments of a partition's log.");
        let mut start = Family::gauge(&log("logstartoffset"), "First offset of a partition's log.");
        let mut end = Family::gauge(&log("logendoffset"), "The offset that the next record gets.");
        for replica in self.replicas.snapshot() {
            let Some(view) = replica.published() else { continue };
            let partition = replica.tp.partition.to_string();
            let labels = [("topic", &*replica.tp.topic), ("partition", &*partition)];
            size.value(&labels, view.log.size() as f64);
            segments.value(&labels, view.log.segment_count() as f64);
            start.value(&labels, view.log.log_start.0 as f64);
            end.value(&labels, view.log.log_end.0 as f64);
        }
        [size, segments, start, end].into_iter().for_each(|family| families.add(family));
    }

    fn directories(&self, families: &mut Families) {
        let offline = self.directories.iter().filter(|directory| directory.offline().is_some()).count();
        families.gauge(
            "kafka_log_logmanager_offlinelogdirectorycount",
            "Log directories that an I/O error has taken offline.",
            offline as f64,
        );
        let mut is_offline =
            Family::gauge("kafka_log_logmanager_logdirectoryoffline", "1 when it is offline.");
        let mut flush = Family::histogram(
            "kafka_log_logflushstats_logflushrateandtimems",
            "Milliseconds of writes that end in a sync.",
        );
        let mut used = Family::gauge(
            "gracchus_journal_used_bytes",
            "Bytes of the journal whose segments are not synced yet.",
        );
        let mut room = Family::gauge("gracchus_journal_size_bytes", "Bytes of the journal.");
        let mut waiting =
            Family::gauge("gracchus_journal_waiting_logs", "Logs that wait for room in the journal.");
        for directory in &self.directories {
            let path = directory.path().to_string_lossy();
            let labels = [("logdirectory", &*path)];
            let metrics = directory.flusher().metrics();
            is_offline.value(&labels, f64::from(u8::from(directory.offline().is_some())));
            flush.times(&labels, &metrics.syncs.read());
            used.value(&labels, metrics.journal_used.get() as f64);
            room.value(&labels, metrics.journal_size.get() as f64);
            waiting.value(&labels, metrics.journal_waiting.get() as f64);
        }
        [is_offline, flush, used, room, waiting].into_iter().for_each(|family| families.add(family));
    }
}

/// What the metadata say of partitions.
#[derive(Debug, Default)]
struct Count {
    all: usize,
    here: usize,
    led: usize,
    under_replicated: usize,
    without_leader: usize,
}

impl Count {
    fn of(image: &Image, node: BrokerId) -> Self {
        let mut count = Self::default();
        for partition in image.topics.values().flat_map(|topic| topic.partitions.iter()) {
            let Partition { replicas, isr, leader, .. } = partition;
            count.all += 1;
            count.here += usize::from(replicas.contains(&node));
            count.without_leader += usize::from(leader.0 < 0);
            if *leader == node {
                count.led += 1;
                count.under_replicated += usize::from(isr.len() < replicas.len());
            }
        }
        count
    }
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
    if let Some(seconds) = usage.cpu_seconds {
        families.counter("process_cpu_seconds_total", "Processor time, user and system.", seconds);
    }
}
