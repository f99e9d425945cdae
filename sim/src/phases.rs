//! The phases of a run: for as long as the plan says, everything in it breaks; then all is healed for good, the cluster
//! becomes whole and every client gets on, the load drains, the brokers go down once more, and everything is read back.
//!
//! What must come is waited for by name ([`crate::liveness`]). Never: a wait without a bound; not to come to an end is a
//! violation like any other.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use gracchus_env::Task;
use gracchus_workload::{LongSegment, Workload, scenario::Down};

use crate::{
    closed,
    cluster::{Cluster, Order, PATIENCE},
    faults::Injector,
    files_check, frugal,
    judge::Judge,
    liveness::{self, Condition},
    log_format::Place,
    lost_end,
    plan::{ClosedDamage, Ending, Hasty, Plan},
    segment_limits,
    world::{Nanos, NodeId, World, lock},
};

/// How long each step of the second phase may take.
const BOUND: Duration = Duration::from_secs(90);
/// Within this time after the last request a file that was removed is closed.
const CLOSES: Duration = Duration::from_secs(1);
/// Within this time after the heal every client must make progress.
pub(crate) const PROGRESS: Duration = Duration::from_secs(30);
/// The checker has the first word on that.
const LAST_WORD: Duration = Duration::from_secs(2);
/// For so long at least the load goes on in a cluster that is whole.
const CALM: Duration = Duration::from_secs(3);
/// How long a broker is down while its files are looked at.
const DOWN: Duration = Duration::from_millis(500);
/// Law: partitions in healthy log directories are served while another directory is dead.
pub(crate) const HEALTHY: &str = "healthy directories are served";
/// Law: in a cluster that is well, whoever is alone with it is served.
pub(crate) const QUIET: &str = "a quiet cluster serves";
/// Who takes no answers has asked for so long.
const SILENT: Duration = Duration::from_secs(1);
/// Polls are under way for so long when the clocks are set back.
const BACK_AFTER: Duration = Duration::from_millis(1_200);
/// Who gets on though the checker does not know of it; others may have nothing left to do.
const OWING: [&str; 3] = ["replayer", "offset poller", "bell"];

/// All that takes part in a run.
pub(crate) struct Run<'a> {
    pub(crate) world: &'a Arc<World>,
    pub(crate) plan: &'a Plan,
    pub(crate) cluster: &'a Arc<Cluster>,
    pub(crate) judge: &'a Arc<Judge>,
    pub(crate) workload: &'a mut Workload,
    pub(crate) injector: &'a mut Injector,
}

impl Run<'_> {
    /// From the first topic to the last stop.
    pub(crate) async fn through(&mut self) {
        let (world, plan) = (self.world, self.plan);
        bounded(world, "topics can be created", self.workload.ready()).await;
        world.tell("the load begins");
        let duration = Duration::from_millis(plan.scenario.duration_ms);
        self.injector.inject(&plan.scenario.faults, duration).await;
        world.tell("all faults end");
        self.injector.heal();
        self.converge().await;
        if self.workload.has_hoarders() {
            world.tell("an address hoards memory");
            bounded(world, "everybody is served", self.workload.hoard()).await;
        }
        if let Some(directory) = plan.dying_directory() {
            self.lose_directory(&directory).await;
        }
        world.tell("the load drains");
        bounded(world, "the load drains", self.workload.drain()).await;
        // Nobody reads any more.
        world.pass(CLOSES).await;
        self.nothing_is_held();
        self.be_quiet().await;
        match plan.ending {
            Ending::None => {}
            Ending::Restart => self.cluster.cycle(Order::Stop(Duration::from_millis(100))).await,
            Ending::Kill => self.cluster.cycle(Order::Kill(Duration::from_millis(100))).await,
            Ending::PowerLoss => self.cluster.cycle(Order::PowerLoss(Duration::from_millis(100))).await,
        }
        world.tell("everything is read back");
        let read = bounded(world, "everything can be read back", self.workload.final_read()).await;
        if let Some(read) = read {
            world.tell(format!(
                "{} records in {} partitions of {} topics",
                read.records, read.partitions, read.topics
            ));
        }
        self.end().await;
    }

    /// A file that was removed is closed: until then the disk keeps its bytes.
    fn nothing_is_held(&self) {
        for node in self.cluster.nodes() {
            files_check::nothing_is_held(self.world, node);
        }
    }

    /// What is to go by itself goes; the files are looked at, and closed segments damaged, while the brokers are down.
    async fn end(&mut self) {
        let (world, plan, cluster) = (self.world, self.plan, self.cluster);
        let settled = self.outlive_untimed().await;
        if plan.idle {
            world.tell("a broker starts that nobody asks anything");
            let down = Duration::from_millis(100);
            cluster
                .cycle(if plan.seed.is_multiple_of(2) { Order::Stop(down) } else { Order::Kill(down) })
                .await;
            world.pass(plan.longest_age()).await;
        }
        // Whatever is to be removed has time enough.
        let due = |(node, settled_ms): (NodeId, &i64)| files_check::Due::now(world, node, *settled_ms);
        let due: Vec<_> = cluster.nodes().into_iter().zip(&settled).map(due).collect();
        world.pass(plan.removal_time()).await;
        self.nothing_is_held();
        cluster.go_down(Order::Stop(DOWN)).await;
        for (node, due) in cluster.nodes().into_iter().zip(&due) {
            files_check::at_the_end(world, node, plan, &self.workload.gone(), due);
        }
        if let Some(damage) = plan.closed.as_ref().filter(|_| world.violations().is_empty()) {
            self.damage_closed(damage).await;
        }
        cluster.stop().await;
    }

    /// Waits until the cluster is whole, and then until every client has made progress.
    async fn converge(&self) {
        let (world, cluster) = (self.world, self.cluster);
        let within = |duration: Duration| world.now() + duration.as_nanos() as Nanos;
        if !liveness::wait(world, within(PATIENCE), cluster.whole()).await {
            return;
        }
        self.judge.healed();
        let healed = world.now();
        let end = within(PROGRESS + LAST_WORD);
        world.pass(CALM).await;
        let beacons = self.workload.beacons().iter();
        let owing = beacons.filter(|beacon| OWING.iter().any(|kind| beacon.name.starts_with(kind)));
        let mut behind: Vec<_> = owing.collect();
        let unanswered = move || {
            behind.retain(|beacon| beacon.last_ns.load(Ordering::Relaxed) <= healed);
            behind.first().map(|beacon| beacon.name.clone())
        };
        let mut conditions = cluster.whole();
        conditions.push(Condition::new("every client gets on", "progress", || self.judge.stuck()));
        conditions.push(Condition::new(
            "every consumer gets on in every partition",
            "every_partition",
            || self.judge.behind(),
        ));
        conditions.push(Condition::new("whoever asks is answered", liveness::CONVERGES, unanswered));
        liveness::wait(world, end, conditions).await;
    }

    /// One client tries what only somebody else would have set right, and nobody else asks anything.
    async fn be_quiet(&mut self) {
        let (world, quiet) = (self.world, self.plan.quiet);
        if quiet.names > 0 {
            world.tell("names are taken again in a quiet cluster");
            bounded(world, QUIET, self.workload.take_names_again(quiet.names)).await;
        }
        if quiet.narrowed > 0 {
            world.tell("segments become smaller while logs are being opened");
            let narrowed = bounded(world, QUIET, self.workload.narrow(quiet.narrowed)).await;
            for narrowed in narrowed.into_iter().flatten() {
                segment_limits::after_change(world, &self.cluster.nodes(), &narrowed);
            }
        }
        if quiet.grown > 0 {
            world.tell("partitions are added twice at the same time");
            bounded(world, QUIET, self.workload.grow_twice(quiet.grown)).await;
        }
        if quiet.retyped > 0 {
            world.tell("a setting changes, again and again, while workers are busy");
            let changes = bounded(world, QUIET, self.workload.retype(quiet.retyped));
            self.injector.while_busy(changes).await;
        }
        if quiet.back_ms > 0 {
            world.tell("clocks are set back while polls wait");
            let (cluster, judge) = (self.cluster, self.judge);
            let set = |forward: bool| {
                for node in cluster.nodes() {
                    judge.clock(node);
                    world.clock_jump(node, Duration::from_millis(quiet.back_ms), forward);
                    judge.clock(node);
                }
            };
            let back = async {
                world.pass(BACK_AFTER).await;
                set(false);
            };
            let listened = bounded(world, QUIET, self.workload.listen());
            let ((), _) = tokio::join!(biased; back, listened);
            set(true);
        }
        if quiet.search {
            self.search().await;
        }
        if let Some(hasty) = quiet.hasty {
            world.tell("a producer begins while logs cannot be opened");
            let (begins, ends) = (Hasty::BEGINS_MS + 50, hasty.ends_ms());
            let workload = &mut self.workload;
            let hurries = workload.hurry(Duration::from_millis(begins), Duration::from_millis(ends - begins));
            let faults = hasty.faults(self.plan.scenario.nodes);
            let injected = self.injector.inject(&faults, Duration::from_millis(ends + 100));
            tokio::join!(biased; injected, bounded(world, QUIET, hurries));
            self.injector.heal();
        }
        if quiet.silent > 0 {
            world.tell("a client takes no answers while the brokers stop");
            let silent = self.workload.fall_silent(quiet.silent);
            world.pass(SILENT).await;
            self.cluster.cycle(Order::Stop(Duration::from_millis(100))).await;
            silent.iter().for_each(Task::abort);
        }
    }

    /// A long segment is written; after a clean restart one client looks for this and that in it.
    async fn search(&mut self) {
        let world = self.world;
        world.tell("a long segment is searched after a clean restart");
        let Some(long) = bounded(world, QUIET, self.workload.fill()).await.flatten() else { return };
        let (place, node) = (frugal::place(&long, 0), NodeId(0));
        if let Ok(Some(directory)) = place.directory(world, node) {
            world.watch_reads(node, &directory);
        }
        self.cluster.go_down(Order::Stop(Duration::from_millis(100))).await;
        if self.plan.quiet.lost_end {
            lost_end::inflict(world, node, &long);
        }
        self.cluster.serving().await;
        let told = bounded(world, QUIET, self.workload.sizes(&long)).await;
        frugal::judge_sizes(world, node, &long, &told.unwrap_or_default());
        frugal::judge_restart(world, node);
        for question in frugal::questions(&long) {
            let asked = self.workload.survey(place.topic_id, place.partition, vec![question]);
            bounded(world, QUIET, asked).await;
            frugal::judge(world, node, &question);
        }
        let asked = self.workload.survey(place.topic_id, LongSegment::AHEAD, vec![lost_end::question(&long)]);
        if let Some(answers) = bounded(world, QUIET, asked).await {
            lost_end::judge(world, &long, &answers);
        }
        // With less than a batch of room there is one partition in an answer.
        if !self.plan.scenario.broker.contains_key("fetch.max.bytes") {
            bounded(world, QUIET, self.workload.fetch_both(long.clone())).await;
        }
        let told = bounded(world, QUIET, self.workload.sizes(&long)).await;
        frugal::judge_sizes(world, node, &long, &told.unwrap_or_default());
    }

    /// Closed segments are damaged while the broker is down, and a client asks for what they held.
    async fn damage_closed(&mut self, damage: &ClosedDamage) {
        let (world, plan, cluster, judge) = (self.world, self.plan, self.cluster, self.judge);
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
        judge.budget().harm(harmed.place.clone());
        cluster.serving().await;
        let said = |when: &str| {
            let slot = &cluster.slots()[node.0];
            if judge.is_called_damaged(&lock(slot), &harmed.place) == Some(false) {
                world.violate(closed::LAW, format!("not called damaged {when}: {}", harmed.what));
            }
        };
        let (id, partition) = (harmed.place.topic_id, harmed.place.partition);
        // The first one opens the log.
        bounded(world, closed::LAW, self.workload.survey(id, partition, vec![harmed.at_the_end()])).await;
        if harmed.at_once {
            said("when it was opened");
        }
        let questions = harmed.questions(&mut world.random());
        let survey = self.workload.survey(id, partition, questions);
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
    async fn outlive_untimed(&self) -> Vec<i64> {
        let (world, plan, cluster) = (self.world, self.plan, self.cluster);
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
    async fn lose_directory(&self, directory: &str) {
        const SERVES: Duration = Duration::from_secs(8);
        let (world, judge) = (self.world, self.judge);
        let node = NodeId(0);
        world.tell(format!("the device under {directory} dies"));
        world.disk_faults(node, |faults| faults.dead = Some(directory.to_owned()));
        // Producers write to these all the time.
        let written = |data: &str| {
            let mut places = files_check::places_in(world, node, data);
            places.retain(|place| place.topic.starts_with("topic-"));
            places
        };
        let within = || world.now() + SERVES.as_nanos() as Nanos;
        let lost = written(directory);
        if !lost.is_empty() {
            let noticed =
                || self.cluster.uses(node, directory).then(|| format!("{directory} is still in use"));
            let noticed = Condition::new("a dead directory is offline", HEALTHY, noticed);
            // A client that is told of a leader asks it again and again.
            let led = || {
                let led = lost.iter().find(|place| self.cluster.leads(node, place))?;
                Some(format!("{} lies on the dead {directory}, and the metadata name a leader", led.name()))
            };
            let led = Condition::new("nobody leads what is lost", HEALTHY, led);
            liveness::wait(world, within(), vec![noticed, led]).await;
        }
        let begun = world.now();
        let healthy = Plan::data_directories().into_iter().filter(|other| other != directory);
        let mut waiting: Vec<Place> = healthy.flat_map(|data| written(&data)).collect();
        let served = || {
            waiting.retain(|place| judge.acknowledged_ns(place) < begun);
            let place = waiting.first()?;
            Some(format!(
                "nothing was acknowledged in {}-{} within {SERVES:?}, though only {directory} is dead",
                place.topic, place.partition
            ))
        };
        let served = Condition::new("what lies in healthy directories is served", HEALTHY, served);
        liveness::wait(world, within(), vec![served]).await;
        world.disk_faults(node, |faults| faults.dead = None);
        self.cluster.cycle(Order::Kill(Duration::from_millis(100))).await;
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
