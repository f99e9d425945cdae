//! Where everything that clients and brokers show reaches the laws.
//!
//! Client events arrive as they happen. After each step of a broker's process what it shows that is new is judged
//! ([`crate::views`]). The first time that a started process publishes a partition, the partition's recovered log is read from
//! the simulated disk and judged against the history. Once an operator has started a broker without what was damaged, only that
//! is judged: whatever a log lacks then, the log must be called damaged.
//!
//! Never: a verdict that depends on which task of a broker did what.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicBool, Ordering},
    },
};

use gracchus::replica::PartitionProbe;
use gracchus_checker::{
    Checker, CheckerConfig, Entry, Event, EventKind, Level, Outcome, Part, Partition, Settled, Summary,
    Violation,
};
use gracchus_workload::History;

use crate::{
    ack_judge::{self, AckJudge},
    budget::Budget,
    damage, files_check, hosting, log_format,
    plan::Plan,
    slot::Slot,
    views::{New, Views, number, place},
    world::{Nanos, NodeId, Process, World, lock},
};

/// Law: a log that was left in order, and that nobody has touched since, is opened without being recovered.
pub(crate) const IN_ORDER: &str = "a clean stop is believed";

/// What a process could not find when it began.
#[derive(Debug, Clone, Default)]
pub(crate) struct Unreachable {
    /// Log directories that are away or dead.
    pub(crate) directories: Vec<String>,
    /// Whose logs lie there.
    pub(crate) places: Vec<log_format::Place>,
}

pub(crate) struct Judge {
    world: Arc<World>,
    plan: Plan,
    checker: Mutex<Option<Checker>>,
    /// Topics that leave flushing to the operating system.
    unsynced: Vec<Arc<str>>,
    budget: Mutex<Budget>,
    views: Mutex<Views>,
    known: Mutex<files_check::Known>,
    acknowledgements: Mutex<AckJudge>,
    condition: Mutex<Condition>,
    /// What each node has taken in of the metadata.
    hosting: Mutex<BTreeMap<NodeId, hosting::Followed>>,
    /// An operator has chosen to lose records.
    pardoned: AtomicBool,
    /// Partitions whose directory was away or dead when a node last started.
    unreachable: Mutex<BTreeMap<NodeId, Unreachable>>,
}

/// What is wrong with the nodes, as the checker was told.
#[derive(Default)]
struct Condition {
    /// Until when.
    until: BTreeMap<(NodeId, Part), Nanos>,
    /// Errors that disks have given: in all, and by log directory.
    errors: BTreeMap<NodeId, (u64, BTreeMap<Arc<str>, u64>)>,
}

impl Judge {
    pub(crate) fn new(world: &Arc<World>, config: CheckerConfig, run: &Plan) -> Arc<Self> {
        let plan = run.workload();
        let span = run.scenario.duration_ms * 1_000_000;
        let unsynced = plan.topics.iter().filter(|topic| {
            let set = topic.configs.get("flush.messages").is_some_and(|messages| messages != "1");
            set || topic.changes.iter().any(|key| key == "flush.messages")
        });
        let plan_of_run = run.clone();
        Arc::new(Self {
            world: world.clone(),
            plan: plan_of_run,
            budget: Mutex::new(Budget::of(run)),
            checker: Mutex::new(Some(Checker::new(config))),
            unsynced: unsynced.map(|topic| Arc::from(topic.name.as_str())).collect(),
            views: Mutex::default(),
            known: Mutex::default(),
            acknowledgements: Mutex::new(AckJudge::new(run.acknowledgements, span)),
            condition: Mutex::default(),
            hosting: Mutex::default(),
            pardoned: AtomicBool::new(false),
            unreachable: Mutex::default(),
        })
    }

    /// Looks at `slots` after every step of their processes.
    pub(crate) fn watch(self: &Arc<Self>, slots: Vec<Arc<Mutex<Slot>>>) {
        let judge = self.clone();
        self.world.after_each_step(move |process: &Arc<Process>| {
            if let Some(slot) = slots.get(process.node.0)
                && process.alive()
            {
                judge.look(&mut lock(slot));
            }
        });
    }

    /// Listens to what the first `brokers` machines answer.
    pub(crate) fn listen(self: &Arc<Self>, brokers: usize) {
        let judge = self.clone();
        self.world.watch_wires(brokers, move |node, connection, passed| {
            let at = (&*judge.world, &*judge.budget());
            let verdict = lock(&judge.acknowledgements).passes(at, node, connection, passed);
            if let Err((law, lost)) = verdict
                && !judge.is_pardoned()
            {
                judge.world.violate(law, lost);
            }
        });
    }

    /// How many acknowledgements were looked at when they were given.
    pub(crate) fn looked(&self) -> u64 {
        lock(&self.acknowledgements).looked().into()
    }

    /// Tells the judge of acknowledgements what clients know.
    fn tell_of_acknowledgements(&self, event: &EventKind) {
        self.budget().learn(event);
        let mut acknowledgements = lock(&self.acknowledgements);
        acknowledgements.learn(event);
        if let EventKind::ProduceReturned { op, outcome: Outcome::Acked { base_offset, .. }, .. } = event
            && acknowledgements.waits()
            && let Some((at, written)) = lock(&self.checker).as_ref().and_then(|checker| checker.written(*op))
            && let Err(other) = acknowledgements.confirm(&at.topic, at.partition, *base_offset, written)
        {
            self.world.violate(ack_judge::LAW, other);
        }
    }

    /// What is withheld, and what excuses a loss.
    pub(crate) fn budget(&self) -> MutexGuard<'_, Budget> {
        lock(&self.budget)
    }

    /// Something is wrong with `part` of `node` from now on, and is felt until then.
    pub(crate) fn disturbed(&self, node: NodeId, part: Part, until: Nanos) {
        {
            let mut condition = lock(&self.condition);
            let known = condition.until.entry((node, part)).or_default();
            *known = until.max(*known);
        }
        self.tell(EventKind::Disturbed { node: number(node), part, until_ns: until });
    }

    /// Nothing is wrong with `part` of `node` any more.
    pub(crate) fn restored(&self, node: NodeId, part: Part) {
        let now = self.world.now();
        if let Some(until) = lock(&self.condition).until.get_mut(&(node, part)) {
            *until = now.min(*until);
        }
        self.tell(EventKind::Restored { node: number(node), part });
    }

    /// Whether nothing has been wrong with `parts` of `node` since then, and nothing is.
    pub(crate) fn is_well_since(&self, node: NodeId, parts: &[Part], since: Nanos) -> bool {
        let condition = lock(&self.condition);
        parts.iter().all(|part| condition.until.get(&(node, *part)).is_none_or(|until| *until <= since))
    }

    /// Tells which log directories the disk of `node` has given errors for since the last time.
    fn tell_errors(&self, node: NodeId) {
        let failed: Vec<Arc<str>> = {
            let mut condition = lock(&self.condition);
            let (given, known) = condition.errors.entry(node).or_default();
            let Some((now_given, errors)) = self.world.errors_beyond(node, *given) else { return };
            *given = now_given;
            let before = std::mem::replace(known, errors);
            let more = known.iter().filter(|(directory, count)| before.get(*directory) != Some(count));
            more.map(|(directory, _)| directory.clone()).collect()
        };
        for directory in failed {
            self.tell(EventKind::DiskFailed { node: number(node), directory });
        }
    }

    /// A process of `node` has stopped in order.
    pub(crate) fn stopped_cleanly(&self, node: NodeId) {
        self.tell(EventKind::StoppedCleanly { node: number(node) });
    }

    /// A process of `node` begins.
    pub(crate) fn node_started(&self, node: NodeId) {
        // Of what its disk told the one before it knows nothing.
        self.tell_errors(node);
        self.tell(EventKind::NodeStarted { node: number(node) });
        let absent = lock(&self.unreachable).get(&node).cloned().unwrap_or_default();
        for directory in absent.directories {
            // Of the logs in it that have never been on disk nobody else knows.
            self.tell(EventKind::DiskFailed { node: number(node), directory: directory.into() });
        }
        let harmed = self.budget().harmed().cloned();
        for place in absent.places.into_iter().chain(harmed) {
            let at = Partition::of(place.topic, place.topic_id, place.partition);
            self.tell(EventKind::Absent { node: number(node), at });
        }
    }

    /// The configuration file says something else of topics from now on; nothing of before is running.
    pub(crate) fn file_changed(&self, configs: &BTreeMap<String, String>) {
        let (level, change) = (Level::File, u64::MAX);
        let configs = configs.iter().map(|(key, value)| (key.clone(), Some(value.clone()))).collect();
        self.tell(EventKind::DefaultsAsked { level, change, configs });
        self.tell(EventKind::DefaultsReturned { level, change, outcome: Settled::Done });
    }

    /// What the run was drawn as.
    pub(crate) fn plan(&self) -> &Plan {
        &self.plan
    }

    /// Whether the log is called damaged by the process that runs now.
    pub(crate) fn is_called_damaged(&self, slot: &Slot, wanted: &log_format::Place) -> Option<bool> {
        let probe = slot.probe()?.into_iter().find(|probe| place(probe) == *wanted)?;
        Some(probe.damaged)
    }

    /// A log lies in another directory from now on.
    pub(crate) fn moved(&self, node: NodeId, place: log_format::Place, directory: String) {
        let at = Partition::of(place.topic, place.topic_id, place.partition);
        self.tell(EventKind::Placed { node: number(node), at, directory: directory.into() });
    }

    /// No process of `node` can serve these from now on.
    pub(crate) fn unreachable(&self, node: NodeId, what: Unreachable) {
        lock(&self.unreachable).insert(node, what);
    }

    /// The power of `node` failed.
    pub(crate) fn power_lost(&self, node: NodeId) {
        self.tell(EventKind::PowerLost { node: number(node) });
    }

    /// What the clock of `node` shows now, as far as a broker may have read it.
    pub(crate) fn clock(&self, node: NodeId) {
        self.tell(EventKind::Clock { node: number(node), wall_ms: self.world.wall_ms(node) });
    }

    /// Log starts that moved on without a restart.
    pub(crate) fn log_starts_moved(&self) -> u64 {
        lock(&self.views).log_starts_moved()
    }

    /// When a produce to the partition was last acknowledged.
    pub(crate) fn acknowledged_ns(&self, place: &log_format::Place) -> u64 {
        let at = Partition::of(place.topic.clone(), place.topic_id, place.partition);
        lock(&self.checker).as_ref().map_or(0, |checker| checker.acknowledged_ns(&at))
    }

    /// A client that has made no progress since the heal.
    pub(crate) fn stuck(&self) -> Option<String> {
        lock(&self.checker).as_ref().and_then(Checker::stuck)
    }

    /// A consumer that has not got on since the heal in a partition that it follows.
    pub(crate) fn behind(&self) -> Option<String> {
        lock(&self.checker).as_ref().and_then(Checker::behind)
    }

    /// Records may be missing from now on, if that is said and the budget excuses it.
    pub(crate) fn pardon(&self) {
        let excused = self.budget().excuses_all(Entry::AcceptedDamage);
        self.pardoned.store(excused, Ordering::Relaxed);
    }

    pub(crate) fn is_pardoned(&self) -> bool {
        self.pardoned.load(Ordering::Relaxed)
    }

    /// No further fault will come.
    pub(crate) fn healed(&self) {
        self.tell(EventKind::Healed);
    }

    /// The partitions that `incarnation` of a node has published, with the ids of their topics.
    pub(crate) fn opened(&self, node: NodeId, incarnation: u64) -> Vec<log_format::Place> {
        lock(&self.views).opened(node, incarnation)
    }

    /// Judges what can only be judged at the end.
    pub(crate) fn finish(&self) -> Summary {
        let Some(checker) = lock(&self.checker).take() else { return Summary::default() };
        match checker.finish() {
            Ok(summary) => summary,
            Err(violation) => {
                self.complain(violation);
                Summary::default()
            }
        }
    }

    fn tell(&self, kind: EventKind) {
        let event = Event { time_ns: self.world.now(), kind };
        self.check(|checker| checker.observe(&event));
    }

    fn check(&self, ask: impl FnOnce(&mut Checker) -> Result<(), Violation>) {
        let verdict = match lock(&self.checker).as_mut() {
            Some(checker) => ask(checker),
            None => Ok(()),
        };
        if let Err(violation) = verdict {
            self.complain(violation);
        }
    }

    fn look(&self, slot: &mut Slot) {
        let Some(news) = lock(&self.views).look(&self.world, slot) else { return };
        self.look_at_hosting(slot);
        let Some(news) = news else { return };
        self.tell_errors(slot.node);
        if news.first {
            self.clock(slot.node);
        }
        for New { probe, first, flushed } in &news.partitions {
            let shown = &probe.shown;
            if self.budget().is_harmed(&place(shown)) {
                continue;
            }
            if shown.damaged && !self.is_pardoned() {
                let what = format!("{} of {} is called damaged", shown.tp, self.world.name(slot.node));
                self.world.violate(damage::REAL, what);
            }
            if *first && shown.recovered && slot.was_left_in_order(&place(shown)) {
                let what = format!(
                    "{} of {} was left in order, and recovered",
                    shown.tp,
                    self.world.name(slot.node)
                );
                self.world.violate(IN_ORDER, what);
            }
            if *first {
                self.recovered(slot.node, shown);
            } else if *flushed {
                self.flushed(slot.node, shown);
            }
        }
        if !self.is_pardoned() {
            let synced = |topic: &str| !self.unsynced.iter().any(|unsynced| **unsynced == *topic);
            let judged = |place: &log_format::Place| !self.budget().is_harmed(place);
            let view = news.view(&self.world, (slot.node, slot.incarnation), synced, judged);
            self.check(|checker| checker.view(&view));
        }
    }

    /// A replica calls more flushed than before.
    fn flushed(&self, node: NodeId, probe: &PartitionProbe) {
        if self.is_pardoned() {
            return;
        }
        let at = (&*self.world, &*self.budget());
        let end = probe.flushed_end.0;
        if let Err(lost) = lock(&self.acknowledgements).flushed(at, node, &place(probe), end) {
            self.world.violate(ack_judge::FLUSHED, lost);
        }
    }

    /// The broker may have taken in the metadata, as part of its start too.
    pub(crate) fn look_at_hosting(&self, slot: &Slot) {
        let mut hosting = lock(&self.hosting);
        match hosting::look(hosting.entry(slot.node).or_default(), slot, self.world.now()) {
            Ok(Some(view)) => self.check(|checker| checker.hosting(&view)),
            Ok(None) => {}
            // Who was paused may come to it last.
            Err((since, _)) if !self.is_well_since(slot.node, &[Part::Process], since) => {}
            Err((_, behind)) => self.world.violate(hosting::FOLLOWS, behind),
        }
    }

    /// The log as a process found it, before it takes a produce.
    fn recovered(&self, node: NodeId, probe: &PartitionProbe) {
        let (start, end) = (probe.log_start.0, probe.log_end.0);
        let place = place(probe);
        if lock(&self.unreachable).get(&node).is_some_and(|it| it.places.contains(&place)) {
            let what = format!(
                "{} is served from offset {start} to {end}, but its directory is not there",
                probe.tp
            );
            return self.world.violate(crate::directories::NOT_SERVED, what);
        }
        // Retention may have moved its start already, by a clock that was not told since the last view.
        self.clock(node);
        let read = files_check::read_log(&self.world, &mut lock(&self.known), node, &place, (start, end));
        let records = match read {
            Ok(records) => records,
            Err(problem) => return self.world.violate(files_check::LAW, problem),
        };
        let at = Partition::of(place.topic.clone(), place.topic_id, place.partition);
        if let Some(directory) = place.log_directory(&self.world, node) {
            self.tell(EventKind::Placed { node: number(node), at: at.clone(), directory });
        }
        let kind =
            EventKind::RecoveredLog { node: number(node), at, log_start: start, log_end: end, records };
        if !self.is_pardoned() {
            return self.tell(kind);
        }
        let event = Event { time_ns: self.world.now(), kind };
        let verdict = lock(&self.checker).as_mut().map(|checker| checker.observe(&event));
        if let Some(Err(lost)) = verdict
            && !probe.damaged
        {
            self.world.violate(damage::SAID, format!("{} is not called damaged: {}", probe.tp, lost.story));
        }
    }
}

impl History for Judge {
    fn now_ns(&self) -> u64 {
        self.world.now()
    }

    fn observe(&self, event: Event) {
        tracing::trace!(target: "history", "{:?}", event.kind);
        if let EventKind::Refused { .. } | EventKind::ProduceReturned { .. } = event.kind {
            let nodes = lock(&self.views).nodes();
            nodes.into_iter().for_each(|node| self.tell_errors(node));
        }
        if !self.is_pardoned() {
            self.tell_of_acknowledgements(&event.kind);
            self.check(|checker| checker.observe(&event));
        }
    }

    fn complain(&self, violation: Violation) {
        if !self.is_pardoned() {
            self.world.violate(&violation.law, violation.story);
        }
    }
}
