//! Knobs at their ends: what a simulated minute does not reach with the usual settings is drawn small, or high.
//!
//! Each extreme is drawn for itself, from a stream of its own, once the rest of the plan stands; a seed has a few of them.
//! All of it ends up in the plan: in the broker's properties, in the knobs that no file has, in what clients do. Never: a
//! limit that the plan's own clients cannot live with.

use gracchus_workload::{
    plan::{Delivery, SleeperPlan, Span, Versions},
    scenario::{Fault, Moment},
};
use rand::{Rng, SeedableRng, rngs::SmallRng};

use super::{Plan, aim, pick, scaled, stream_of};

/// The largest request that a drawn client sends: three large batches, with room to spare.
const LARGEST_REQUEST: u64 = 256 << 10;
/// Kafka's `producer.id.expiration.ms`.
const USUAL_EXPIRATION_MS: u64 = 86_400_000;

/// Turns some of `plan`'s knobs to their ends.
pub(super) fn draw(plan: &mut Plan) {
    let random = &mut SmallRng::seed_from_u64(plan.seed ^ 0x6578_7472_656d_6573);
    producers(plan, random);
    sequences(plan, random);
    logs(plan, random);
    defaults(plan, random);
    memory(plan, random);
    topics(plan, random);
    let knobs = &mut plan.knobs;
    knobs.producer_ids_per_block = scaled(random, 1, 1_000) as i32;
    knobs.fetch_session_eviction_ms = scaled(random, 1, 120_000) as i64;
    if random.random_bool(0.25) {
        set(plan, "max.incremental.fetch.session.cache.slots", random.random_range(1..=3));
    }
    if random.random_bool(0.2) {
        plan.knobs.metadata_snapshot_interval = random.random_range(1..=3);
    }
    later_file(plan, random);
    checkpoints(plan, &mut stream_of(plan.seed, "checkpoints"));
}

/// Recovery points that reach the disk as soon as they rise, and power that fails inside rolls: what a recovery takes as it is
/// lies right before what is going on.
fn checkpoints(plan: &mut Plan, random: &mut SmallRng) {
    if !random.random_bool(0.1) {
        return;
    }
    set(plan, "log.flush.offset.checkpoint.interval.ms", random.random_range(1..=20));
    for timed in &mut plan.scenario.faults {
        if matches!(timed.fault, Fault::PowerLoss { .. }) && timed.when.is_none() && random.random_bool(0.5) {
            timed.when = Some(aim::trigger(random, Moment::Roll));
        }
    }
}

fn set(plan: &mut Plan, key: &str, value: impl ToString) {
    plan.scenario.broker.insert(key.to_owned(), value.to_string());
}

/// How long producers are remembered. Where that is short, those who rely on it stay away, and the checker alone judges
/// what is written twice.
fn producers(plan: &mut Plan, random: &mut SmallRng) {
    let versions = *pick(random, &[Versions::Newest, Versions::Drawn, Versions::Oldest]);
    let is_short = random.random_bool(0.2);
    let (expiration_ms, sets_it) = (scaled(random, 200, 20_000), random.random_bool(0.5));
    if random.random_bool(0.6) || is_short {
        set(plan, "producer.id.expiration.check.interval.ms", scaled(random, 50, 2_000));
    }
    let check_ms =
        plan.scenario.broker["producer.id.expiration.check.interval.ms"].parse().unwrap_or(600_000);
    let sleeps = is_short || random.random_bool(0.3);
    let longest = random.random_range(200..=15_000);
    if is_short && !sets_it {
        set(plan, "producer.id.expiration.ms", expiration_ms);
    }
    let workload = plan.scenario.workload.as_mut().expect("a plan always has one");
    if is_short {
        workload.replayers.clear();
        workload.recreators.clear();
        for trespasser in &mut workload.trespassers {
            trespasser.may_be_forgotten = true;
        }
        for producer in &mut workload.producers {
            producer.may_be_forgotten = producer.delivery == Delivery::Idempotent;
        }
    }
    if sleeps {
        workload.sleepers.push(SleeperPlan {
            expiration_ms: if is_short { expiration_ms } else { USUAL_EXPIRATION_MS },
            check_ms,
            sets_it: is_short && sets_it,
            silence_ms: Span(0, longest),
            versions,
        });
    }
}

/// Sequences that are near their wrap.
fn sequences(plan: &mut Plan, random: &mut SmallRng) {
    let workload = plan.scenario.workload.as_mut().expect("a plan always has one");
    let mut first = || match random.random_bool(0.4) {
        true => i32::MAX - random.random_range(0..=60),
        false => 0,
    };
    for producer in workload.producers.iter_mut().filter(|one| one.delivery == Delivery::Idempotent) {
        producer.first_sequence = first();
    }
    for replayer in &mut workload.replayers {
        replayer.first_sequence = first();
    }
}

/// Segments that roll for other reasons than their size, removals that are prompt.
fn logs(plan: &mut Plan, random: &mut SmallRng) {
    if random.random_bool(0.15) {
        set(plan, "log.index.size.max.bytes", scaled(random, 96, 4_096));
        // With an entry for each batch there would be thousands of segments.
        set(plan, "log.index.interval.bytes", scaled(random, 1_024, 8_192));
    }
    if random.random_bool(0.15) {
        let roll = scaled(random, 3_000, 20_000);
        set(plan, "log.roll.ms", roll);
        if random.random_bool(0.6) {
            set(plan, "log.roll.jitter.ms", random.random_range(1..=roll));
        }
    }
    if random.random_bool(0.15) {
        set(plan, "log.segment.delete.delay.ms", 0);
    }
    if random.random_bool(0.1) {
        set(plan, "log.retention.check.interval.ms", scaled(random, 20, 100));
    }
    let workload = plan.scenario.workload.as_mut().expect("a plan always has one");
    for topic in &mut workload.topics {
        let leaves_it = topic.configs.get("flush.messages").is_some_and(|messages| messages != "1");
        if leaves_it && random.random_bool(0.5) && !topic.configs.contains_key("flush.ms") {
            topic.configs.insert("flush.ms".to_owned(), scaled(random, 50, 5_000).to_string());
        }
        if random.random_bool(0.15) {
            let codec = *pick(random, &["uncompressed", "gzip", "snappy", "lz4"]);
            topic.configs.entry("compression.type".to_owned()).or_insert_with(|| codec.to_owned());
        }
        if random.random_bool(0.1) {
            topic.configs.insert("segment.index.bytes".to_owned(), scaled(random, 96, 2_048).to_string());
            topic.configs.insert("index.interval.bytes".to_owned(), scaled(random, 1_024, 4_096).to_string());
        }
    }
}

/// What holds for topics that say nothing.
fn defaults(plan: &mut Plan, random: &mut SmallRng) {
    if random.random_bool(0.2) {
        set(plan, "message.max.bytes", random.random_range(65_000..=200_000));
    }
    if random.random_bool(0.15) {
        set(plan, "compression.type", *pick(random, &["uncompressed", "gzip", "snappy", "lz4"]));
    }
    if random.random_bool(0.15) {
        set(plan, "log.message.timestamp.before.max.ms", 3_600_000);
    }
    if random.random_bool(0.15) {
        set(plan, "log.message.timestamp.after.max.ms", 2_592_000_000u64);
    }
}

/// Topics that are made without a number of partitions.
fn topics(plan: &mut Plan, random: &mut SmallRng) {
    let (partitions, asks) = (random.random_range(1..=4), random.random_bool(0.5));
    set(plan, "num.partitions", partitions);
    let auditor = plan.scenario.workload.as_mut().and_then(|workload| workload.auditor.as_mut());
    // Old versions must say how many.
    if let Some(auditor) = auditor.filter(|auditor| asks && auditor.versions == Versions::Newest) {
        auditor.num_partitions = partitions;
    }
}

/// Little room for requests, for what is read, and for connections that are quiet.
fn memory(plan: &mut Plan, random: &mut SmallRng) {
    if random.random_bool(0.15) {
        let memory = LARGEST_REQUEST * random.random_range(1..=4);
        // Who hoards is judged by how fast others are served, which so little memory cannot promise.
        if plan.workload().hoarders.is_empty() {
            set(plan, "socket.request.max.bytes", LARGEST_REQUEST);
            set(plan, "queued.max.request.bytes", memory);
        }
    }
    if random.random_bool(0.1) {
        set(plan, "connections.max.idle.ms", scaled(random, 1_000, 5_000));
    }
    if random.random_bool(0.1) {
        set(plan, "fetch.max.bytes", 1_024);
    }
}

/// The configuration file is changed while the broker runs; what it says then holds from a later start on.
fn later_file(plan: &mut Plan, random: &mut SmallRng) {
    if !random.random_bool(0.3) {
        return;
    }
    let later = &mut plan.later;
    later.from_start = random.random_range(2..=4);
    let mut say = |key: &str, value: String| later.broker.insert(key.to_owned(), value);
    say("message.max.bytes", random.random_range(65_000..=100_000).to_string());
    if random.random_bool(0.5) {
        say("compression.type", (*pick(random, &["producer", "uncompressed", "gzip", "lz4"])).to_owned());
    }
    if random.random_bool(0.5) {
        let before = *pick(random, &["3600000", "9223372036854775807"]);
        say("log.message.timestamp.before.max.ms", before.to_owned());
    }
    if random.random_bool(0.5) {
        let after = *pick(random, &["3600000", "2592000000"]);
        say("log.message.timestamp.after.max.ms", after.to_owned());
    }
}
