//! One seed from its first machine to its last verdict.
//!
//! What happens in it is in [`crate::phases`]. Here the world is made, and what came of it reported.

use std::{sync::Arc, time::Duration};

use gracchus_checker::{CheckerConfig, Summary};
use gracchus_env::Env;
use gracchus_workload::Workload;

use crate::{
    bounds::Bounds,
    child::processor_time,
    cluster::{Cluster, ConfigFile},
    faults::Injector,
    judge::Judge,
    phases::{PROGRESS, Run},
    plan::{PORT, Plan},
    report::{Broken, Report},
    swarm::{ENDS, RUNS},
    world::{self, NodeId, World, lock},
};

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
    let mut run = Run {
        world: &world,
        plan,
        cluster: &cluster,
        judge: &judge,
        workload: &mut workload,
        injector: &mut injector,
    };
    tokio::select! {
        biased;
        () = world.violated() => {}
        () = cluster.pardoned(&judge) => {}
        () = run.through() => {}
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
