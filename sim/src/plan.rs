//! Everything that a seed decides before its world begins, as data: machines, broker knobs, clients, faults.
//!
//! A plan is drawn from a random stream of its own, so that editing one fault leaves the world's choices as they were.
//! It prints as TOML, can be edited and run again. Never: a decision about a run that is not in its plan or in the
//! world's stream.

mod aim;
mod closed;
mod extremes;
mod faults;
mod knobs;
mod looks;
mod properties;
mod quiet;

use std::{collections::BTreeMap, time::Duration};

use gracchus::config::{BrokerConfig, Settings};
use gracchus_workload::{
    WorkloadPlan,
    plan::{DrawLimits, SessionPromise, TopicPlan},
    scenario::{Expectation, Scenario},
};
use rand::{Rng, SeedableRng, rngs::SmallRng, seq::IndexedRandom};
use serde::{Deserialize, Serialize};

use crate::world::{DiskProfile, Machine, NetworkProfile, SchedulingProfile, WorldPlan};

pub use closed::{ClosedDamage, Harm};
pub(crate) use faults::kind;
pub use knobs::Knobs;
pub use looks::Looks;
pub use quiet::{Hasty, Quiet};

/// The port that every broker listens on.
pub const PORT: u16 = 9092;
/// Log directories that a broker has at most.
pub const MOST_DIRECTORIES: u32 = 3;
/// Times that a log directory is away in a run, at most.
pub const MOST_AWAY: u32 = 2;

/// Where the log directory of this number, from 1, lies on the simulated disk. The first one holds the metadata.
pub fn data_directory(number: u32) -> String {
    if number == 1 { "/data".to_owned() } else { format!("/data-{number}") }
}

/// A whole run.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Plan {
    /// Moves the world: latencies, scheduling, what a power loss leaves.
    pub seed: u64,
    /// How the broker stops and starts once more before everything is read back.
    pub ending: Ending,
    /// Whether in the end a broker runs for a while that nobody asks anything: what is too old has to go all the same.
    #[serde(default)]
    pub idle: bool,
    /// What is done to closed segments once everything else has been judged.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub closed: Option<ClosedDamage>,
    /// Knobs of log directories and metadata that no configuration file has.
    pub knobs: Knobs,
    /// How many acknowledgements are judged by what is on disk when they are given.
    #[serde(default)]
    pub acknowledgements: Looks,
    /// What is tried once the load has drained.
    #[serde(default)]
    pub quiet: Quiet,
    /// The story: broker properties, faults with their times, clients.
    pub scenario: Scenario,
    /// The machines, brokers first, and the network.
    pub world: WorldPlan,
    /// How the configuration file is changed while the run lasts.
    #[serde(default)]
    pub later: Later,
}

/// Broker properties that the operator changes in the file. They hold from a later start on.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Later {
    /// The first start that reads them, counted from 1; 0 for none.
    pub from_start: u64,
    /// What they are from then on, beside the others.
    #[serde(default)]
    pub broker: BTreeMap<String, String>,
}

/// Broker properties that say what holds for topics that do not say otherwise, and the topic configurations.
const TOPIC_DEFAULTS: [(&str, &str); 8] = [
    ("compression.type", "compression.type"),
    ("log.cleanup.policy", "cleanup.policy"),
    ("log.message.timestamp.after.max.ms", "message.timestamp.after.max.ms"),
    ("log.message.timestamp.before.max.ms", "message.timestamp.before.max.ms"),
    ("log.message.timestamp.type", "message.timestamp.type"),
    ("log.retention.bytes", "retention.bytes"),
    ("log.retention.ms", "retention.ms"),
    ("message.max.bytes", "max.message.bytes"),
];

/// What stands between the last produce and the final read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ending {
    /// Nothing.
    None,
    /// A clean stop and a start.
    Restart,
    /// `kill -9` and a start.
    Kill,
    /// A power loss and a start.
    PowerLoss,
}

impl Plan {
    /// Draws the swarm's plan for `seed`.
    pub fn draw(seed: u64) -> Plan {
        let random = &mut stream(seed);
        let scenario = Scenario {
            name: format!("seed {seed}"),
            story: "Drawn by the swarm: everything may break for a minute, then nothing does.".to_owned(),
            seed,
            nodes: 1,
            duration_ms: 60_000,
            expect: Expectation::Holds,
            broker: properties::draw(random),
            faults: faults::draw(random, 60_000),
            workload: Some(draw_workload(random)),
        };
        let mut plan = Self::around(seed, scenario, random);
        aim::draw(&mut stream_of(seed, "aims"), &mut plan.scenario.faults);
        extremes::draw(&mut plan);
        plan.draw_later();
        // From a stream of their own: what else a seed draws stays as it is.
        let random = &mut stream_of(seed, "directories");
        let (directories, length) = (plan.knobs.directories, plan.scenario.duration_ms);
        plan.scenario.faults.extend(faults::draw_directories(random, directories, length));
        plan.scenario.faults.extend(faults::draw_kinds(random, length));
        let dropped = &mut stream_of(seed, "dropped");
        plan.scenario.faults.extend(faults::draw_dropped(dropped, length));
        let busy = &mut stream_of(seed, "busy");
        plan.scenario.faults.extend(faults::draw_busy(busy, length));
        let hangs = &mut stream_of(seed, "hangs");
        plan.scenario.faults.extend(faults::draw_hangs(hangs, length));
        let links = &mut stream_of(seed, "links");
        plan.scenario.faults.extend(faults::draw_links(links, plan.scenario.nodes, length));
        plan.scenario.faults.sort_by_key(|fault| fault.at_ms);
        plan.closed = random.random_bool(0.4).then(|| ClosedDamage::draw(random));
        plan.promise();
        plan
    }

    /// Clients are told what the brokers' settings mean for them, whose clocks may be fast by 5 %.
    fn promise(&mut self) {
        let sessions = SessionPromise {
            kept_ms: self.knobs.fetch_session_eviction_ms as u64 * 95 / 100,
            for_all: !self.scenario.broker.contains_key("max.incremental.fetch.session.cache.slots"),
        };
        if let Some(workload) = &mut self.scenario.workload {
            workload.timing.sessions = sessions;
        }
    }

    /// Draws what came later than everything else, from a stream of its own.
    fn draw_later(&mut self) {
        let random = &mut stream_of(self.seed, "later");
        let Some(workload) = &mut self.scenario.workload else { return };
        for topic in &mut workload.topics {
            let left = topic.configs.contains_key("flush.messages")
                || topic.changes.iter().any(|key| key == "flush.messages");
            if left && random.random_bool(0.5) {
                let milliseconds = scaled(random, 50, 4_000);
                topic.configs.insert("flush.ms".to_owned(), milliseconds.to_string());
            }
        }
        // Some more that leave flushing to the system, with the time alone to bound what is lost.
        if random.random_bool(0.2) {
            let topic = random.random_range(0..workload.topics.len());
            let configs = &mut workload.topics[topic].configs;
            configs.entry("flush.messages".to_owned()).or_insert_with(|| i64::MAX.to_string());
            configs.insert("flush.ms".to_owned(), scaled(random, 50, 1_000).to_string());
        }
        workload.draw_later(random);
    }

    /// Draws what `scenario` leaves open.
    pub fn tell(seed: u64, mut scenario: Scenario) -> Plan {
        let random = &mut stream(seed);
        if scenario.workload.is_none() {
            scenario.workload = Some(draw_workload(random));
        }
        let mut plan = Self::around(seed, scenario, random);
        plan.promise();
        plan
    }

    /// The same plan without faults, and short: what a planted bug must survive unseen. To ask what a power loss would leave
    /// is a fault, too.
    pub fn without_faults(mut self, duration_ms: u64) -> Plan {
        self.acknowledgements.most = 0;
        (self.quiet.back_ms, self.quiet.retyped, self.quiet.hasty) = (0, 0, None);
        self.scenario.faults.clear();
        self.scenario.duration_ms = duration_ms;
        self.ending = Ending::None;
        self.closed = None;
        self
    }

    fn around(seed: u64, mut scenario: Scenario, random: &mut SmallRng) -> Plan {
        let brokers = (1..=scenario.nodes).map(|number| format!("broker-{number}"));
        let clients = (1..=random.random_range(2..=3)).map(|number| format!("client-{number}"));
        let mut machines: Vec<Machine> =
            brokers.chain(clients).map(|name| draw_machine(random, name)).collect();
        let late = &mut late_stream(seed);
        suit_hoarders(&mut scenario, &mut machines, late);
        set_client_clocks(&mut machines, &scenario, late);
        Plan {
            seed,
            ending: *pick(
                random,
                &[Ending::Restart, Ending::Kill, Ending::PowerLoss, Ending::PowerLoss, Ending::None],
            ),
            closed: None,
            knobs: Knobs::draw(random),
            acknowledgements: Looks::draw(&mut stream_of(seed, "looks")),
            quiet: Quiet::draw(&mut stream_of(seed, "quiet")),
            idle: late.random_bool(0.4),
            world: WorldPlan {
                machines,
                network: draw_network(random),
                scheduling: draw_scheduling(&mut stream_of(seed, "scheduling")),
            },
            scenario,
            later: Later::default(),
        }
    }

    /// How many machines are brokers; they come first.
    pub fn brokers(&self) -> usize {
        self.scenario.nodes as usize
    }

    /// The clients' plan.
    pub fn workload(&self) -> &WorkloadPlan {
        self.scenario.workload.as_ref().expect("a plan always has one")
    }

    /// What the broker with index `broker` is started with.
    pub fn broker_config(&self, broker: usize) -> Result<BrokerConfig, String> {
        self.read_file(broker, &BTreeMap::new())
    }

    /// What it is started with once the file was changed.
    pub fn later_config(&self, broker: usize) -> Result<BrokerConfig, String> {
        self.read_file(broker, &self.later.broker)
    }

    fn read_file(&self, broker: usize, later: &BTreeMap<String, String>) -> Result<BrokerConfig, String> {
        let name = &self.world.machines[broker].name;
        let mut settings = Settings::default()
            .with("node.id", broker + 1)
            .with("listeners", format!("PLAINTEXT://0.0.0.0:{PORT}"))
            .with("advertised.listeners", format!("PLAINTEXT://{name}:{PORT}"))
            .with("log.dirs", self.data_directories_in_use().join(","));
        for (key, value) in self.scenario.broker.iter().chain(later) {
            settings = settings.with(key, value);
        }
        let (mut config, warnings) =
            BrokerConfig::load(&settings, name).map_err(|error| error.to_string())?;
        if let Some(warning) = warnings.first() {
            return Err(warning.clone());
        }
        self.knobs.apply(&mut config);
        Ok(config)
    }

    /// What the broker's properties say about topics that do not say otherwise, by the names of topic configurations.
    pub fn topic_defaults(&self) -> BTreeMap<String, String> {
        of_topics(&self.scenario.broker)
    }

    /// The same of what the changed file says.
    pub fn later_defaults(&self) -> BTreeMap<String, String> {
        of_topics(&self.later.broker)
    }

    /// The shortest time after which the broker may forget a producer.
    pub fn producer_expiration_ms(&self) -> Option<u64> {
        let in_file = self.scenario.broker.get("producer.id.expiration.ms");
        let in_file = in_file.and_then(|value| value.parse().ok());
        let set = self.workload().sleepers.iter().filter(|sleeper| sleeper.sets_it);
        set.map(|sleeper| sleeper.expiration_ms).chain(in_file).min()
    }

    /// The plan as text.
    pub fn to_text(&self) -> String {
        toml::to_string(self).expect("a plan is plain data")
    }

    /// The log directory that is lost once everything else is healed.
    pub fn dying_directory(&self) -> Option<String> {
        let knobs = &self.knobs;
        (knobs.dying_directory > 1 && knobs.dying_directory <= knobs.directories)
            .then(|| data_directory(knobs.dying_directory))
    }

    /// How long it takes at most until what retention or a deletion takes is off the disk.
    pub fn removal_time(&self) -> Duration {
        let property = |key: &str, otherwise: u64| {
            self.scenario.broker.get(key).and_then(|value| value.parse().ok()).unwrap_or(otherwise)
        };
        let interval = property("log.retention.check.interval.ms", 30_000);
        let delay = property("log.segment.delete.delay.ms", 60_000);
        Duration::from_millis(2 * interval + delay + 2_000)
    }

    /// How long records without timestamps are kept at most, where there are some.
    pub fn untimed_age(&self) -> Option<Duration> {
        let untimed = self.workload().topics.iter().filter(|topic| topic.untimed || topic.mixed);
        let ages = untimed.filter_map(|topic| topic.configs.get("retention.ms")?.parse().ok());
        ages.max().map(Duration::from_millis)
    }

    /// How long a record is kept at most by its age, where a setting of retention stays as it is.
    pub fn longest_age(&self) -> Duration {
        let fixed = |topic: &&TopicPlan| {
            !topic.changes.iter().any(|key| key == "retention.ms" || key == "cleanup.policy")
        };
        let topics = self.workload().topics.iter().filter(fixed);
        let ages = topics.filter_map(|topic| topic.configs.get("retention.ms")?.parse::<u64>().ok());
        Duration::from_millis(ages.max().unwrap_or(0))
    }

    fn data_directories_in_use(&self) -> Vec<String> {
        (1..=self.knobs.directories.clamp(1, MOST_DIRECTORIES)).map(data_directory).collect()
    }

    /// Where the logs of partitions may lie; what was found in the place of a directory that was away lies at the last ones.
    pub fn data_directories() -> Vec<String> {
        (1..=MOST_DIRECTORIES + MOST_AWAY).map(data_directory).collect()
    }
}

/// The defaults among broker properties, by the names of topic configurations.
fn of_topics(properties: &BTreeMap<String, String>) -> BTreeMap<String, String> {
    let set = |(broker, topic): (&str, &str)| Some((topic.to_owned(), properties.get(broker)?.clone()));
    TOPIC_DEFAULTS.into_iter().filter_map(set).collect()
}

/// The plan's random stream, apart from the world's.
fn stream(seed: u64) -> SmallRng {
    SmallRng::seed_from_u64(seed ^ 0x706c_616e_0000_0000)
}

/// A stream that other draws do not move.
fn stream_of(seed: u64, what: &str) -> SmallRng {
    SmallRng::seed_from_u64(seed ^ u64::from(crc32c::crc32c(what.as_bytes())) << 32)
}

/// For what came to be drawn later: all else stays as it was.
fn late_stream(seed: u64) -> SmallRng {
    SmallRng::seed_from_u64(seed ^ 0x6c61_7465_0000_0000)
}

/// Hoarders have an address of their own, and a broker with so little memory for requests that they can hold it.
fn suit_hoarders(scenario: &mut Scenario, machines: &mut Vec<Machine>, random: &mut SmallRng) {
    if scenario.workload.as_ref().is_none_or(|workload| workload.hoarders.is_empty()) {
        return;
    }
    machines.push(draw_machine(random, "stranger".to_owned()));
    scenario.broker.insert("socket.request.max.bytes".to_owned(), (1 << 20).to_string());
    scenario.broker.insert("queued.max.request.bytes".to_owned(), (3 << 20).to_string());
}

/// Where records go by their age, clients whose clocks are minutes off would make all of them old or all of them young: in
/// most such plans their clocks agree with that of the broker, so that what goes has to be old.
fn set_client_clocks(machines: &mut [Machine], scenario: &Scenario, random: &mut SmallRng) {
    let by_age = |topic: &TopicPlan| {
        topic.configs.contains_key("retention.ms") || topic.changes.iter().any(|key| key == "retention.ms")
    };
    let goes_by_age = scenario.workload.as_ref().is_some_and(|workload| workload.topics.iter().any(by_age));
    if goes_by_age && random.random_bool(0.8) {
        let (brokers, clients) = machines.split_at_mut(scenario.nodes as usize);
        for client in clients {
            client.clock_offset_ms = brokers[0].clock_offset_ms + random.random_range(-50..=50);
        }
    }
}

pub(crate) fn pick<'a, T>(random: &mut SmallRng, from: &'a [T]) -> &'a T {
    from.choose(random).expect("a choice has options")
}

/// Draws between `low` and `high` so that each order of magnitude is as likely as the next.
fn scaled(random: &mut SmallRng, low: u64, high: u64) -> u64 {
    let exponent = random.random_range((low as f64).ln()..=(high as f64).ln());
    (exponent.exp() as u64).clamp(low, high)
}

fn draw_machine(random: &mut SmallRng, name: String) -> Machine {
    let offset = if random.random_bool(0.3) { 60_000 } else { 50 };
    let drift = if random.random_bool(0.2) { 10_000_000 } else { 100_000 };
    Machine {
        name,
        clock_offset_ms: random.random_range(-offset..=offset),
        clock_drift: random.random_range(-drift..=drift),
        disk: DiskProfile {
            write_us: scaled(random, 2, 60),
            read_us: scaled(random, 50, 2_000),
            sync_us: (scaled(random, 20, 200), scaled(random, 300, 5_000)),
            cached: *pick(random, &[1.0, 0.95, 0.8, 0.5, 0.1]),
            write_back: *pick(random, &[0.0, 0.02, 0.2]),
            capacity: i64::MAX as u64,
        },
    }
}

fn draw_network(random: &mut SmallRng) -> NetworkProfile {
    NetworkProfile {
        delay_us: (scaled(random, 10, 100), scaled(random, 150, 2_000)),
        loss: *pick(random, &[0.0, 0.0, 0.0, 0.0005]),
        segment_bytes: *pick(random, &[1_460, 9_000, 65_536]),
        send_buffer: scaled(random, 16 << 10, 512 << 10) as usize,
        receive_buffer: scaled(random, 16 << 10, 512 << 10) as usize,
        short_read: *pick(random, &[0.0, 0.05, 0.3]),
        give_up_ms: random.random_range(20_000..=60_000),
    }
}

/// How quick the processors are; on most machines somebody else wants them, too.
fn draw_scheduling(random: &mut SmallRng) -> SchedulingProfile {
    let quick = SchedulingProfile { compute_us: scaled(random, 20, 5_000), ..SchedulingProfile::default() };
    if random.random_bool(0.4) {
        return quick;
    }
    SchedulingProfile {
        polls: scaled(random, 30, 5_000),
        calls: scaled(random, 20, 1_000),
        longest_us: scaled(random, 20, 3_000),
        ..quick
    }
}

/// The clients; now and then with a topic that leaves flushing to the operating system, as Kafka's users do.
fn draw_workload(random: &mut SmallRng) -> WorkloadPlan {
    let mut workload = WorkloadPlan::draw(random, DrawLimits::default());
    if random.random_bool(0.35) {
        let topic = random.random_range(0..workload.topics.len());
        let messages = pick(random, &["20", "1000", "9223372036854775807"]);
        workload.topics[topic].configs.insert("flush.messages".to_owned(), (*messages).to_owned());
    }
    workload
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn drawn_plans_are_sound_and_survive_toml() {
        for seed in 0..200 {
            let plan = Plan::draw(seed);
            plan.broker_config(0).unwrap_or_else(|problem| panic!("seed {seed}: {problem}"));
            plan.later_config(0).unwrap_or_else(|problem| panic!("seed {seed}: {problem}"));
            plan.workload().check().unwrap_or_else(|problem| panic!("seed {seed}: {problem}"));
            let text = plan.to_text();
            let read: Plan = toml::from_str(&text).unwrap_or_else(|problem| panic!("seed {seed}: {problem}"));
            assert_eq!(read.to_text(), text);
        }
    }

    #[test]
    fn seeds_draw_different_plans_and_one_seed_always_the_same() {
        assert_eq!(Plan::draw(5).to_text(), Plan::draw(5).to_text());
        assert_ne!(Plan::draw(5).to_text(), Plan::draw(6).to_text().replace("seed 6", "seed 5"));
    }
}
