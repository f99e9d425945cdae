//! The broker's configuration: Kafka's file, key names, defaults and priorities, resolved at the start, and again when
//! its dynamic part changes ([`live`]).
//!
//! [`Settings`] are text with an origin (file and line, command line, program); [`BrokerConfig::load`] turns them into
//! values, or into every problem at once, each naming its file, line and key. What config providers stand for is replaced
//! before ([`providers`]); what has no effect is a warning that says why ([`without_effect`]). Never: a value read twice, a
//! default elsewhere.

pub mod describe;
mod guards;
mod handles;
pub(crate) mod kafka;
pub mod keys;
mod listeners;
pub mod live;
pub(crate) mod min_isr;
#[cfg(test)]
mod page;
mod providers;
mod quorum;
mod settings;
mod topic_defaults;
mod without_effect;

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::IpAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use gracchus_core::{
    BrokerId,
    session::EVICTION_MS,
    topic::{self, TopicConfig},
};
use gracchus_log::DirectoryOptions;
use gracchus_quorum::{DEFAULT_BLOCK, DEFAULT_SNAPSHOT_INTERVAL};

pub use listeners::Endpoint;
pub use live::{LiveConfig, Watch};
pub use providers::{Nothing, Outside};
use settings::Reader;
pub use settings::{ConfigError, Origin, Settings};

/// Decompressed bytes of a batch that are looked at on the spot: a tenth of a millisecond, one where gzip must be undone.
const LOOKED_AT_ON_THE_SPOT: usize = 256 << 10;

/// Whether `name` is a broker key of Kafka's, whether it has an effect here or not.
pub(crate) fn is_of_kafka(name: &str) -> bool {
    kafka::key(name).is_some() || guards::is_guard(name)
}

/// Whether `name`, a key of a topic or of a broker, is known and nothing acts on it.
pub fn has_no_effect(name: &str) -> bool {
    topic_defaults::has_no_effect(name)
        || keys::key(name).is_none() && topic::key(name).is_none() && is_of_kafka(name)
}

/// Whether the value of `name` must be told to nobody. What nobody knows may be a secret.
pub(crate) fn is_secret(name: &str) -> bool {
    match keys::key(name) {
        Some(key) => key.kind.is_sensitive(),
        None => kafka::key(name).is_none_or(|named| named.key.kind.is_sensitive()),
    }
}

/// A broker's resolved configuration. Names are those of the Kafka keys; units are in the types or the comments.
#[derive(Debug, Clone)]
pub struct BrokerConfig {
    /// `node.id`, or `broker.id` of old files.
    pub node_id: BrokerId,
    /// `broker.rack`.
    pub rack: Option<String>,
    /// `listeners` for clients and brokers.
    pub listeners: Vec<Endpoint>,
    /// `advertised.listeners`: what clients are told. Port 0 stands for the port that the listener of that name got.
    pub advertised_listeners: Vec<Endpoint>,
    /// Listeners named in `controller.listener.names`. Not opened while the quorum is a single voter.
    pub controller_listeners: Vec<Endpoint>,
    /// `log.dirs`, else `log.dir`.
    pub log_dirs: Vec<PathBuf>,
    /// `metadata.log.dir`, else the first of `log_dirs`: holds the cluster metadata log.
    pub metadata_log_dir: PathBuf,
    /// `auto.create.topics.enable`.
    pub auto_create_topics_enable: bool,
    /// `num.partitions` of topics that are created without a number.
    pub num_partitions: i32,
    /// `default.replication.factor`.
    pub default_replication_factor: i16,
    /// `socket.request.max.bytes`: the longest frame.
    pub socket_request_max_bytes: u32,
    /// `socket.send.buffer.bytes` of each connection; `None` (-1) leaves it to the kernel.
    pub socket_send_buffer_bytes: Option<usize>,
    /// `socket.receive.buffer.bytes` of each connection; `None` (-1, the default) leaves it to the kernel.
    pub socket_receive_buffer_bytes: Option<usize>,
    /// `queued.max.request.bytes`: all requests in memory together, always finite.
    pub queued_max_request_bytes: u64,
    /// `connections.max.idle.ms`; `None` when negative: never.
    pub connections_max_idle: Option<Duration>,
    /// `max.connections`.
    pub max_connections: usize,
    /// `max.connections.per.ip`.
    pub max_connections_per_ip: usize,
    /// `max.connections.per.ip.overrides` of addresses.
    pub max_connections_per_ip_overrides: BTreeMap<IpAddr, usize>,
    /// `max.connections.per.ip.overrides` of hosts by name.
    pub max_connections_per_host_overrides: BTreeMap<String, usize>,
    /// `metrics.listener` (not a key of Kafka's): `host:port` of the HTTP endpoint; `None`: there is none.
    pub metrics_listener: Option<String>,
    /// `produce.batch.validation` (not a key of Kafka's) is `strict`: every record of a produced batch is looked at.
    pub strict_batch_validation: bool,
    /// `delete.topic.enable`.
    pub delete_topic_enable: bool,
    /// `log.retention.check.interval.ms`.
    pub log_retention_check_interval: Duration,
    /// `fetch.max.bytes`: the most that one fetch response holds.
    pub fetch_max_bytes: u32,
    /// `max.incremental.fetch.session.cache.slots`.
    pub max_incremental_fetch_session_cache_slots: usize,
    /// `producer.id.expiration.ms`.
    pub producer_id_expiration: Duration,
    /// `producer.id.expiration.check.interval.ms`.
    pub producer_id_expiration_check_interval: Duration,
    /// How log directories are opened and flushed. `node_id` and the checkpoint interval come from the file
    /// (`log.flush.offset.checkpoint.interval.ms`); the rest is for programs that draw unusual knobs.
    pub directory: DirectoryOptions,
    /// Bytes of a produced batch that are looked at where the request is served, see the replicas; for programs as well.
    pub looked_at_on_the_spot: usize,
    /// Commands between two snapshots of the cluster metadata; for programs as well.
    pub metadata_snapshot_interval: u64,
    /// Producer ids that the controller hands out at once; for programs as well.
    pub producer_ids_per_block: i32,
    /// Milliseconds after which a fetch session that is not used gives way to another; for programs as well.
    pub fetch_session_eviction_ms: i64,
    /// `num.io.threads`: threads for calls that may block on a disk.
    pub num_io_threads: usize,
    /// `num.network.threads`: runtime workers; `None`: one per core.
    pub num_network_threads: Option<usize>,
    /// Defaults of the topic configurations (`log.segment.bytes`, …).
    pub topic_defaults: Arc<TopicConfig>,
    /// No more connections than this have file handles, see [`BrokerConfig::share_handles`].
    connections_that_fit: usize,
    /// What all of this was made of.
    source: Source,
}

/// The text behind a configuration, so that it can be resolved again with other values on top.
#[derive(Clone, Default)]
struct Source {
    settings: Settings,
    host_name: String,
}

impl std::fmt::Debug for Source {
    /// Settings may hold secrets.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Source")
    }
}

impl Default for BrokerConfig {
    /// What an empty file gives.
    fn default() -> Self {
        Self::load(&Settings::default(), "localhost").expect("the defaults are valid").0
    }
}

impl BrokerConfig {
    /// Resolves `settings`; beside the configuration comes one warning per key that has no effect.
    /// `host_name` is advertised for listeners on every interface.
    pub fn load(settings: &Settings, host_name: &str) -> Result<(BrokerConfig, Vec<String>), ConfigError> {
        let mut reader = Reader::new(settings);
        let (topic_defaults, without_effect) = topic_defaults::read(&mut reader);
        let mut config = read(&mut reader, host_name, topic_defaults);
        check_others(&mut reader, settings);
        reader.forget(&without_effect);
        let unasked = reader.finish()?;
        config.source = Source { settings: settings.clone(), host_name: host_name.to_owned() };
        config.source.settings.repeat("node.id", "broker.id");
        let warning = |(key, origin): (&str, &Origin)| format!("{origin}: {}", without_effect::reason(key));
        let odd = [named_twice(settings), more_than_one_node(settings, &config)];
        let warnings = unasked.into_iter().map(warning).chain(odd.into_iter().flatten()).collect();
        Ok((config, warnings))
    }

    /// `key`, for messages about its value: with where that was written, if it was.
    pub(crate) fn name_of(&self, key: &str) -> String {
        match self.source.settings.origin(key) {
            Origin::Program => key.to_owned(),
            origin => format!("{origin}: {key}"),
        }
    }

    /// Gives the directories the names that `absolute` makes of them: those that Kafka's tools are shown, and name. What
    /// the file says stays as it is written. `real` follows links, of what exists.
    ///
    /// # Errors
    /// If a directory has no such name, or two are the same.
    pub fn place_directories(
        &mut self,
        absolute: impl Fn(&Path) -> io::Result<PathBuf>,
        real: impl Fn(&Path) -> io::Result<PathBuf>,
    ) -> Result<(), String> {
        let place = |key: &str, directory: &Path, settings: &Settings| {
            let problem =
                |error| format!("{}: {key}: {}: {error}", settings.origin(key), directory.display());
            absolute(directory).map_err(problem)
        };
        let settings = &self.source.settings;
        let is_set = |key: &str| settings.get(key).is_some_and(|value| !value.is_empty());
        let key = if is_set("log.dirs") { "log.dirs" } else { "log.dir" };
        let mut seen = BTreeSet::new();
        for directory in &mut self.log_dirs {
            *directory = place(key, directory, settings)?;
            if !seen.insert(real(directory).unwrap_or_else(|_| directory.clone())) {
                let (origin, name) = (settings.origin(key), directory.display());
                return Err(format!(
                    "{origin}: {key}: {name} is another name of a directory that is named before"
                ));
            }
        }
        let key = if is_set("metadata.log.dir") { "metadata.log.dir" } else { key };
        self.metadata_log_dir = place(key, &self.metadata_log_dir, settings)?;
        Ok(())
    }

    /// This configuration with what can change at run time taken from `new`.
    fn changed_to(&self, new: BrokerConfig) -> BrokerConfig {
        BrokerConfig {
            max_connections: new.max_connections.min(self.connections_that_fit),
            max_connections_per_ip: new.max_connections_per_ip,
            max_connections_per_ip_overrides: new.max_connections_per_ip_overrides,
            max_connections_per_host_overrides: new.max_connections_per_host_overrides,
            producer_id_expiration: new.producer_id_expiration,
            topic_defaults: if *new.topic_defaults == *self.topic_defaults {
                self.topic_defaults.clone()
            } else {
                new.topic_defaults
            },
            ..self.clone()
        }
    }
}

fn read(reader: &mut Reader<'_>, host_name: &str, topic_defaults: TopicConfig) -> BrokerConfig {
    check_roles(reader);
    let node_id = node_id(reader);
    let listeners::Listeners { listeners, advertised, controller, every } =
        listeners::read(reader, host_name);
    let itself = quorum::Itself {
        id: node_id,
        host_name,
        endpoints: &every,
        controllers: &controllers(reader, &every),
    };
    quorum::check(reader, &itself);
    let log_dirs = log_dirs(reader);
    let metadata_log_dir = reader.text("metadata.log.dir").map(PathBuf::from);
    let socket_request_max_bytes = reader.number("socket.request.max.bytes");
    let (max_connections_per_ip_overrides, max_connections_per_host_overrides) = limits_of_hosts(reader);
    BrokerConfig {
        node_id,
        rack: reader.text("broker.rack").map(str::to_owned),
        listeners,
        advertised_listeners: advertised,
        controller_listeners: controller,
        metadata_log_dir: metadata_log_dir.unwrap_or_else(|| log_dirs[0].clone()),
        log_dirs,
        auto_create_topics_enable: reader.boolean("auto.create.topics.enable"),
        delete_topic_enable: reader.boolean("delete.topic.enable"),
        num_partitions: reader.number("num.partitions"),
        default_replication_factor: reader.number("default.replication.factor"),
        socket_request_max_bytes,
        // As Kafka: with what the kernel would allow, fetches from few connections are a third slower.
        socket_send_buffer_bytes: buffer(reader, "socket.send.buffer.bytes"),
        socket_receive_buffer_bytes: buffer(reader, "socket.receive.buffer.bytes"),
        queued_max_request_bytes: queued_max_request_bytes(reader, socket_request_max_bytes),
        connections_max_idle: u64::try_from(reader.number::<i64>("connections.max.idle.ms"))
            .ok()
            .map(Duration::from_millis),
        max_connections: reader.number("max.connections"),
        max_connections_per_ip: limit_of_address(reader),
        max_connections_per_ip_overrides,
        max_connections_per_host_overrides,
        metrics_listener: listeners::metrics(reader),
        strict_batch_validation: strict_batch_validation(reader),
        fetch_max_bytes: reader.number("fetch.max.bytes"),
        max_incremental_fetch_session_cache_slots: reader.number("max.incremental.fetch.session.cache.slots"),
        producer_id_expiration: milliseconds(reader, "producer.id.expiration.ms"),
        producer_id_expiration_check_interval: milliseconds(
            reader,
            "producer.id.expiration.check.interval.ms",
        ),
        log_retention_check_interval: milliseconds(reader, "log.retention.check.interval.ms"),
        directory: DirectoryOptions {
            node_id,
            checkpoint_interval: milliseconds(reader, "log.flush.offset.checkpoint.interval.ms"),
            ..DirectoryOptions::default()
        },
        looked_at_on_the_spot: LOOKED_AT_ON_THE_SPOT,
        metadata_snapshot_interval: DEFAULT_SNAPSHOT_INTERVAL,
        producer_ids_per_block: DEFAULT_BLOCK,
        fetch_session_eviction_ms: EVICTION_MS,
        num_io_threads: reader.number("num.io.threads"),
        num_network_threads: reader.optional_number("num.network.threads"),
        topic_defaults: Arc::new(topic_defaults),
        connections_that_fit: handles::UNLIMITED,
        source: Source::default(),
    }
}

/// `node.id`, or its old name `broker.id`, of which a negative number counts as absent where it stands alone.
fn node_id(reader: &mut Reader<'_>) -> BrokerId {
    let (new, old) = ("node.id", "broker.id");
    let both = reader.is_set(new) && reader.is_set(old);
    let old_id: Option<i32> = reader.optional_number(old);
    let id = match old_id.filter(|id| *id >= 0) {
        Some(id) if !reader.is_set(new) => id,
        _ => reader.number(new),
    };
    if both && old_id.is_some_and(|old_id| old_id != id) {
        reader
            .problem(old, format!("contradicts {new}={id}: both are the number of this node, take one out"));
    }
    BrokerId(id)
}

/// Of `endpoints` those of the listeners for the quorum.
fn controllers(reader: &mut Reader<'_>, endpoints: &[Endpoint]) -> Vec<Endpoint> {
    let names = reader.list("controller.listener.names").unwrap_or_default();
    let is_one = |endpoint: &&Endpoint| names.iter().any(|name| name.eq_ignore_ascii_case(&endpoint.name));
    endpoints.iter().filter(is_one).cloned().collect()
}

/// Kafka's keys that have no effect here: their values are those of Kafka all the same, and none is a guard.
fn check_others(reader: &mut Reader<'_>, settings: &Settings) {
    for (name, value) in settings.iter().filter(|(name, _)| keys::key(name).is_none()) {
        let illegal = kafka::key(name).and_then(|named| named.validate(value).err());
        if let Some(problem) = guards::refuse(name, value).or(illegal) {
            reader.problem(name, problem);
        }
    }
}

/// A node that is only one of the two needs a quorum of several, which does not exist yet.
fn check_roles(reader: &mut Reader<'_>) {
    const KEY: &str = "process.roles";
    let roles = reader.list(KEY).unwrap_or_default();
    for role in &roles {
        if !["broker", "controller"].contains(&role.as_str()) {
            reader.problem(KEY, format!("`{role}` is neither `broker` nor `controller`"));
        }
    }
    if !["broker", "controller"].iter().all(|role| roles.iter().any(|has| has == role)) {
        reader.problem(KEY, "a node with one role only is not served yet, use `broker,controller`");
    }
}

fn log_dirs(reader: &mut Reader<'_>) -> Vec<PathBuf> {
    let one = reader.list("log.dir").unwrap_or_default();
    let many = reader.list("log.dirs").filter(|many| !many.is_empty());
    let key = if many.is_some() { "log.dirs" } else { "log.dir" };
    let mut directories: Vec<PathBuf> = Vec::new();
    for directory in many.unwrap_or(one) {
        let directory = PathBuf::from(directory);
        // As for all of Kafka's lists (KIP-1161), see `named_twice`.
        if !directories.contains(&directory) {
            directories.push(directory);
        }
    }
    if directories.is_empty() {
        reader.problem(key, "names no directory");
        directories.push(PathBuf::from("."));
    }
    directories
}

/// What is said of a list of directories that names one more than once: it counts once.
fn named_twice(settings: &Settings) -> Option<String> {
    let list = settings.get("log.dirs")?;
    let mut seen = BTreeSet::new();
    let twice =
        list.split(',').map(str::trim).find(|directory| !directory.is_empty() && !seen.insert(*directory))?;
    let origin = settings.origin("log.dirs");
    Some(format!("{origin}: log.dirs names {twice} more than once, which counts as once"))
}

/// What is said where topics would get more replicas than there are brokers.
fn more_than_one_node(settings: &Settings, config: &BrokerConfig) -> Option<String> {
    const KEY: &str = "default.replication.factor";
    let (factor, origin) = (config.default_replication_factor, settings.origin(KEY));
    (factor > 1).then(|| {
        format!(
            "{origin}: {KEY} is {factor} and this is one node: topics that clients use for the first time, or create \
             without a number of replicas, are refused; set it to 1"
        )
    })
}

/// −1: the kernel decides.
fn buffer(reader: &mut Reader<'_>, key: &str) -> Option<usize> {
    usize::try_from(reader.number::<i64>(key)).ok()
}

/// Kafka's own default has no limit; a broker that anybody can fill until it is killed is no use, so ours has.
fn queued_max_request_bytes(reader: &mut Reader<'_>, socket_request_max_bytes: u32) -> u64 {
    const KEY: &str = "queued.max.request.bytes";
    let longest = u64::from(socket_request_max_bytes);
    let default = || keys::key(KEY).and_then(|key| key.default?.parse().ok()).expect("a default");
    let is_default = reader.text(KEY).is_none();
    match reader.number::<i64>(KEY) {
        // −1 is Kafka's "no limit"; ours is always finite.
        -1 => longest.max(default()),
        bytes if is_default => longest.max(bytes as u64),
        bytes if (bytes as u64) < longest => {
            reader.problem(KEY, format!("{bytes} is less than socket.request.max.bytes ({longest})"));
            longest
        }
        bytes => bytes as u64,
    }
}

/// Nobody may connect, but for those with a limit of their own.
fn limit_of_address(reader: &mut Reader<'_>) -> usize {
    let (one, others) = ("max.connections.per.ip", "max.connections.per.ip.overrides");
    let limit = reader.number(one);
    if limit == 0 && reader.text(others).is_none_or(str::is_empty) {
        reader.problem(one, format!("0 lets nobody in, unless {others} names some who may"));
    }
    limit
}

fn strict_batch_validation(reader: &mut Reader<'_>) -> bool {
    const KEY: &str = "produce.batch.validation";
    match reader.text(KEY) {
        None | Some("strict") => true,
        Some("relaxed") => false,
        Some(other) => {
            reader.problem(KEY, format!("`{other}` is neither `strict` nor `relaxed`"));
            true
        }
    }
}

/// `host:number` separated by commas: those of addresses, and those of names. An IPv6 address may hold colons: the last
/// one separates.
fn limits_of_hosts(reader: &mut Reader<'_>) -> (BTreeMap<IpAddr, usize>, BTreeMap<String, usize>) {
    const KEY: &str = "max.connections.per.ip.overrides";
    let (mut addresses, mut names) = (BTreeMap::new(), BTreeMap::new());
    let is_name = |host: &str| {
        let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
        !host.is_empty() && host.bytes().all(fits)
    };
    for part in reader.list(KEY).unwrap_or_default() {
        let parsed = part.rsplit_once(':').and_then(|(host, limit)| {
            let limit: i32 = limit.trim().parse().ok()?;
            let host = host.trim().trim_start_matches('[').trim_end_matches(']');
            Some((host, usize::try_from(limit).ok()?))
        });
        match parsed.map(|(host, limit)| (host, host.parse::<IpAddr>(), limit)) {
            Some((_, Ok(address), limit)) => drop(addresses.insert(address.to_canonical(), limit)),
            Some((host, Err(_), limit)) if is_name(host) => drop(names.insert(host.to_owned(), limit)),
            _ => reader.problem(KEY, format!("`{part}` is not `host:number`")),
        }
    }
    (addresses, names)
}

fn milliseconds(reader: &mut Reader<'_>, key: &str) -> Duration {
    Duration::from_millis(reader.number(key))
}

#[cfg(test)]
mod tests;
