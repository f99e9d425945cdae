//! One seed from its first machine to its last verdict.
//!
//! Two phases: for as long as the plan says, everything in it breaks; then all is healed for good, every client must
//! make progress within a bound, the load drains, the broker goes down once more, and everything is read back.
//! Waits are bounded: not to come to an end is a violation like any other.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use gracchus_checker::{CheckerConfig, Summary};
use gracchus_env::Env;
use gracchus_workload::{Beacon, Workload, scenario::Down};

use crate::{
    bounds::Bounds,
    child::processor_time,
    closed,
    cluster::{Cluster, ConfigFile, Order},
    faults::Injector,
    files_check,
    judge::Judge,
    plan::{ClosedDamage, Ending, PORT, Plan},
    report::{Broken, Report},
    swarm::{ENDS, RUNS},
    world::{self, NodeId, World, lock},
};

/// How long each step of the second phase may take.
const BOUND: Duration = Duration::from_secs(90);
/// Within this time after the heal every client must make progress.
const PROGRESS: Duration = Duration::from_secs(30);
/// How long a broker is down while its files are looked at.
const DOWN: Duration = Duration::from_millis(500);
/// Law: partitions in healthy log directories are served while another directory is dead.
pub const HEALTHY: &str = "healthy directories are served";
/// How many lines of the story a violation comes with.
const STORY: usize = 30;

/// Runs `plan` in a thread of its own (std's hasher takes its keys once per thread, here from the seed). A run that
/// takes longer than `patience` of real time is given up as hanging.
pub fn run(plan: Plan, patience: Duration) -> Report {
    let seed = plan.seed;
    let (sender, receiver) = std::sync::mpsc::channel();
    #[allow(clippy::disallowed_methods, reason = "the simulator's own clock and thread")]
    let began = std::time::Instant::now();
    let thread = std::thread::Builder::new().name(format!("seed {seed}")).stack_size(64 << 20);
    let spawned = thread.spawn(move || {
        world::quiet_panics();
        let report = world::run(seed, &plan.world, async |world| story(world, &plan).await);
        let _ = sender.send(report);
    });
    if let Err(error) = spawned {
        return Report::failed(seed, RUNS, format!("no thread: {error}"));
    }
    let mut report = match receiver.recv_timeout(patience) {
        Ok(report) => report,
        Err(std::sync::mpsc::RecvTimeoutError::Timeout) => {
            let what = format!("no end after {patience:?} of real time: a task that never waits?");
            Report::failed(seed, ENDS, what)
        }
        Err(std::sync::mpsc::RecvTimeoutError::Disconnected) => {
            Report::failed(seed, RUNS, world::last_panic().unwrap_or_default())
        }
    };
    report.wall_s = began.elapsed().as_secs_f64();
    // The measure of a run, whatever else the machine does meanwhile.
    report.cpu_s = processor_time("/proc/self/stat").map_or(report.wall_s, |used| used.as_secs_f64());
    report
}

/// Everything that happens in the world, in order.
async fn story(world: Arc<World>, plan: &Plan) -> Report {
    let mut report = Report { seed: plan.seed, ..Report::default() };
    let file = |broker| -> Result<ConfigFile, String> {
        let later = match plan.later.from_start {
            0 => None,
            from_start => Some((from_start, plan.later_config(broker)?, plan.later_defaults())),
        };
        Ok(ConfigFile { config: plan.broker_config(broker)?, later })
    };
    let configs: Result<Vec<_>, String> = (0..plan.brokers()).map(file).collect();
    let configs = match configs {
        Ok(configs) => configs,
        Err(problem) => return Report::failed(plan.seed, "a plan is sound", problem),
    };
    let bounds = Bounds::of(plan);
    let mut checking = CheckerConfig {
        progress_within_ns: PROGRESS.as_nanos() as u64,
        answer_within_ns: bounds.answer(),
        wake_within_ns: bounds.answer(),
        deadline_within_ns: bounds.deadline(),
        open_within_ns: bounds.open_any(),
        sync_within_ns: bounds.kept(),
        ..Default::default()
    };
    checking.topic_defaults.extend(plan.topic_defaults());
    if let Some(expiration_ms) = plan.producer_expiration_ms() {
        checking.producer_expiration_ms = expiration_ms;
    }
    let judge = Judge::new(&world, checking, plan);
    let cluster = Cluster::start(&world, configs, &judge, &bounds);
    judge.watch(cluster.slots());
    judge.listen(plan.brokers());
    let clients: Vec<NodeId> = (plan.brokers()..plan.world.machines.len()).map(NodeId).collect();
    let envs = start_machines(&world, &clients);
    let bootstrap =
        (0..plan.brokers()).map(|broker| format!("{}:{PORT}", world.name(NodeId(broker)))).collect();
    let mut workload = Workload::start(Arc::new(plan.workload().clone()), envs, bootstrap, judge.clone());
    let mut injector = Injector::new(world.clone(), cluster.clone(), judge.clone(), clients, bounds);
    tokio::select! {
        biased;
        () = world.violated() => {}
        () = cluster.pardoned(&judge) => {}
        () = phases(&world, plan, &cluster, &judge, &mut workload, &mut injector) => {}
    }
    let judged = world.violations().is_empty() && !judge.is_pardoned();
    let summary = if judged { judge.finish() } else { Summary::default() };
    report.acknowledged = workload.acknowledged();
    report.actions = workload.actions().into_iter().map(|(name, count)| (name.to_owned(), count)).collect();
    report.calls = workload.calls();
    report.actions.insert("log_starts_moved".to_owned(), judge.log_starts_moved());
    report.actions.insert("acknowledgements_judged".to_owned(), judge.looked());
    workload.abort();
    report.faults = std::mem::take(&mut injector.done);
    fill(&mut report, &world, &cluster, &summary, judge.is_pardoned());
    report
}

async fn phases(
    world: &Arc<World>,
    plan: &Plan,
    cluster: &Arc<Cluster>,
    judge: &Arc<Judge>,
    workload: &mut Workload,
    injector: &mut Injector,
) {
    bounded(world, "topics can be created", workload.ready()).await;
    world.tell("the load begins");
    injector.inject(&plan.scenario.faults, Duration::from_millis(plan.scenario.duration_ms)).await;
    world.tell("all faults end");
    injector.heal();
    cluster.recovered().await;
    judge.healed();
    let healed = world.now();
    world.pass(Duration::from_secs(3)).await;
    converge(world, plan, judge, workload.beacons(), healed).await;
    if workload.has_hoarders() {
        world.tell("an address hoards memory");
        bounded(world, "everybody is served", workload.hoard()).await;
    }
    if let Some(directory) = plan.dying_directory() {
        lose_directory(world, cluster, judge, &directory).await;
    }
    world.tell("the load drains");
    bounded(world, "the load drains", workload.drain()).await;
    match plan.ending {
        Ending::None => {}
        Ending::Restart => cluster.cycle(Order::Stop(Duration::from_millis(100))).await,
        Ending::Kill => cluster.cycle(Order::Kill(Duration::from_millis(100))).await,
        Ending::PowerLoss => cluster.cycle(Order::PowerLoss(Duration::from_millis(100))).await,
    }
    world.tell("everything is read back");
    let read = bounded(world, "everything can be read back", workload.final_read()).await;
    if let Some(read) = read {
        world.tell(format!(
            "{} records in {} partitions of {} topics",
            read.records, read.partitions, read.topics
        ));
    }
    let settled = outlive_untimed(world, plan, cluster).await;
    if plan.idle {
        world.tell("a broker starts that nobody asks anything");
        let down = Duration::from_millis(100);
        cluster.cycle(if plan.seed.is_multiple_of(2) { Order::Stop(down) } else { Order::Kill(down) }).await;
        world.pass(plan.longest_age()).await;
    }
    // Whatever is to be removed has time enough.
    let due = |(node, settled_ms): (NodeId, &i64)| files_check::Due::now(world, node, *settled_ms);
    let due: Vec<_> = cluster.nodes().into_iter().zip(&settled).map(due).collect();
    world.pass(plan.removal_time()).await;
    cluster.go_down(Order::Stop(DOWN)).await;
    for (node, due) in cluster.nodes().into_iter().zip(&due) {
        files_check::at_the_end(world, node, plan, &workload.gone(), due);
    }
    if let Some(damage) = plan.closed.as_ref().filter(|_| world.violations().is_empty()) {
        damage_closed(world, plan, cluster, judge, workload, damage).await;
    }
    cluster.stop().await;
}

/// Closed segments are damaged while the broker is down, and a client asks for what they held.
async fn damage_closed(
    world: &Arc<World>,
    plan: &Plan,
    cluster: &Arc<Cluster>,
    judge: &Arc<Judge>,
    workload: &mut Workload,
    damage: &ClosedDamage,
) {
    let node = NodeId(0);
    match damage.after {
        Down::Stop => {}
        Down::Kill | Down::Power => {
            cluster.serving().await;
            cluster.go_down(Order::Kill(DOWN)).await;
        }
    }
    let opened = judge.opened(node, lock(&cluster.slots()[node.0]).incarnation);
    let Some(harmed) = closed::inflict(world, node, plan, damage, &opened) else {
        return world.tell("no log with closed segments that could be damaged");
    };
    world.tell(format!("closed segments are damaged: {}", harmed.what));
    judge.harmed(harmed.place.clone());
    cluster.serving().await;
    let said = |when: &str| {
        let slot = &cluster.slots()[node.0];
        if judge.is_called_damaged(&lock(slot), &harmed.place) == Some(false) {
            world.violate(closed::LAW, format!("not called damaged {when}: {}", harmed.what));
        }
    };
    let (id, partition) = (harmed.place.topic_id, harmed.place.partition);
    // The first one opens the log.
    bounded(world, closed::LAW, workload.survey(id, partition, vec![harmed.at_the_end()])).await;
    if harmed.at_once {
        said("when it was opened");
    }
    let questions = harmed.questions(&mut world.random());
    let survey = workload.survey(id, partition, questions);
    let Some(answers) = bounded(world, closed::LAW, survey).await else { return };
    if let Err(problem) = harmed.judge(&answers) {
        world.violate(closed::LAW, format!("{problem}; {}", harmed.what));
    }
    if harmed.when_met {
        said("though a client has asked for all that is missing");
    }
}

/// Lets records without timestamps grow too old, over a restart in the middle: since then they are not old enough. Returns
/// the clock of each broker from which on they age.
async fn outlive_untimed(world: &Arc<World>, plan: &Plan, cluster: &Arc<Cluster>) -> Vec<i64> {
    let clocks = || cluster.nodes().into_iter().map(|node| world.wall_ms(node)).collect();
    let Some(age) = plan.untimed_age() else { return clocks() };
    world.tell("records without timestamps grow old");
    // Every log has been looked at once.
    world.pass(plan.removal_time()).await;
    let settled = clocks();
    world.pass(age.mul_f64(0.7)).await;
    let down = Duration::from_millis(100);
    cluster.cycle(if plan.seed.is_multiple_of(2) { Order::Kill(down) } else { Order::Stop(down) }).await;
    world.pass(age.mul_f64(0.4)).await;
    settled
}

/// The device under one log directory dies; what lies in the others is served on. Then it is replaced, with all that was on
/// it, and the broker restarted.
async fn lose_directory(world: &Arc<World>, cluster: &Arc<Cluster>, judge: &Arc<Judge>, directory: &str) {
    const SETTLES: Duration = Duration::from_secs(1);
    const SERVES: Duration = Duration::from_secs(8);
    world.tell(format!("the device under {directory} dies"));
    let node = NodeId(0);
    world.disk_faults(node, |faults| faults.dead = Some(directory.to_owned()));
    world.pass(SETTLES).await;
    let begun = world.now();
    let healthy = Plan::data_directories().into_iter().filter(|other| other != directory);
    let mut waiting: Vec<_> = healthy.flat_map(|data| files_check::places_in(world, node, &data)).collect();
    // Producers write to these all the time.
    waiting.retain(|place| place.topic.starts_with("topic-"));
    while !waiting.is_empty() && world.now() < begun + SERVES.as_nanos() as u64 {
        world.pass(Duration::from_millis(250)).await;
        waiting.retain(|place| judge.acknowledged_ns(place) < begun);
    }
    if let Some(place) = waiting.first() {
        let what = format!(
            "nothing was acknowledged in {}-{} within {SERVES:?}, though only {directory} is dead",
            place.topic, place.partition
        );
        world.violate(HEALTHY, what);
    }
    world.disk_faults(node, |faults| faults.dead = None);
    cluster.cycle(Order::Kill(Duration::from_millis(100))).await;
}

/// Waits until every client has made progress since the heal, or until the checker must have noticed that one has not.
async fn converge(world: &Arc<World>, plan: &Plan, judge: &Arc<Judge>, beacons: &[Arc<Beacon>], healed: u64) {
    // Who wants no acknowledgement gets none, and others may have nothing left to do.
    const OWING: [&str; 5] = ["producer", "replayer", "consumer", "offset poller", "bell"];
    let unanswered: Vec<bool> = plan.workload().producers.iter().map(|producer| producer.acks == 0).collect();
    let answered = |(index, beacon): &(usize, &Arc<Beacon>)| {
        let owes = OWING.iter().any(|kind| beacon.name.starts_with(kind));
        owes && !unanswered.get(*index).copied().unwrap_or(false)
    };
    let mut behind: Vec<_> = beacons.iter().enumerate().filter(answered).map(|(_, beacon)| beacon).collect();
    loop {
        behind.retain(|beacon| beacon.last_ns.load(Ordering::Relaxed) <= healed);
        let all = behind.is_empty() && !judge.is_behind();
        if all || world.now() > healed + PROGRESS.as_nanos() as u64 + 2_000_000_000 {
            break;
        }
        world.pass(Duration::from_millis(250)).await;
    }
    if !behind.is_empty() {
        let names: Vec<&str> = behind.iter().map(|beacon| beacon.name.as_str()).collect();
        world.tell(format!("no progress since the heal: {}", names.join(", ")));
    }
}

async fn bounded<T>(world: &Arc<World>, law: &str, step: impl Future<Output = T>) -> Option<T> {
    tokio::select! {
        biased;
        done = step => Some(done),
        () = world.pass(BOUND) => {
            world.violate(law, format!("not within {BOUND:?} though nothing is wrong any more"));
            None
        }
    }
}

/// Switches the clients' machines on: each runs one process that only lends its Env to clients.
fn start_machines(world: &Arc<World>, clients: &[NodeId]) -> Vec<Arc<dyn Env>> {
    let mut envs = Vec::new();
    for client in clients {
        world.start(*client, |env| {
            envs.push(env);
            std::future::pending()
        });
    }
    envs
}

/// `pardoned`: the run ended where an operator chose to lose records, and what came before was not summed up.
fn fill(report: &mut Report, world: &Arc<World>, cluster: &Cluster, summary: &Summary, pardoned: bool) {
    for slot in cluster.slots() {
        let slot = lock(&slot);
        let disk = world.disk_report(slot.node);
        report.starts += slot.incarnation;
        report.power_losses += disk.power_losses;
        report.dropped += disk.dropping;
        report.torn += disk.tearing;
        report.cuts += disk.cuts;
        report.syncs += disk.syncs;
    }
    report.views = summary.views;
    report.events = summary.events;
    report.records_read = summary.records_read;
    report.records_recovered = summary.records_recovered;
    let unseen = report.acknowledged > 0 && summary.views == 0 && !pardoned;
    if world.violations().is_empty() && unseen {
        world.violate("the simulator looks", "no view of the broker was judged");
    }
    report.simulated_s = world.now() as f64 / 1e9;
    report.steps = world.steps();
    report.hash = world.hash();
    report.violations = world
        .violations()
        .into_iter()
        .map(|violation| Broken { law: violation.law, what: violation.what, at_s: violation.at as f64 / 1e9 })
        .collect();
    if !report.held() {
        let story = world.story();
        let last = story.len().saturating_sub(STORY);
        report.story = story[last..]
            .iter()
            .map(|told| format!("{:>12.6} s  {}", told.at as f64 / 1e9, told.what))
            .collect();
    }
}
