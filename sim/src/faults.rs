//! How each fault of a plan is done to the world, and undone when its time is over.
//!
//! Never: a fault that is not in the plan, or one that lasts beyond [`Injector::heal`].

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use gracchus_checker::Part;
use gracchus_workload::scenario::{Fault, FileKind, TimedFault, Trigger};
use tokio::sync::mpsc;

use crate::{
    bounds::Bounds,
    cluster::{Cluster, Order},
    judge::Judge,
    links::{self, Struck},
    plan,
    world::{Nanos, NodeId, World},
};

/// How long it takes at most until what waits for a file handle tries again, or a broker has been started anew.
const RETRIES: Nanos = 10_000_000_000;
/// In a quiet cluster whose workers are busy a poll waits for so long at most.
const BUSY: Nanos = 20_000_000;
/// A sync takes so much longer at most.
const SLOWEST_SYNC_MS: u64 = 1_000;

/// Does the faults of a plan to the world, one after the other.
pub(crate) struct Injector {
    world: Arc<World>,
    cluster: Arc<Cluster>,
    judge: Arc<Judge>,
    clients: Vec<NodeId>,
    bounds: Bounds,
    /// What is still to be undone, by time.
    undo: BTreeMap<(Nanos, u64), Undo>,
    next: u64,
    /// Wait for their moments, by the number under which they are armed.
    aimed: BTreeMap<u64, TimedFault>,
    struck: mpsc::UnboundedReceiver<u64>,
    /// How many faults of each kind were done.
    pub(crate) done: BTreeMap<String, u64>,
}

/// The end of a fault that lasts.
#[derive(Debug, Clone)]
enum Undo {
    Resume(NodeId),
    Busy(NodeId),
    Wires(Struck),
    SlowDisk(NodeId),
    /// Of segments alone, or of everything.
    SlowSync(NodeId, bool),
    FailRead(NodeId),
    DiskFull(NodeId),
    SlowFile(NodeId, FileKind),
    Handles(NodeId),
    Death(NodeId),
    Away(NodeId),
    Drift(NodeId),
}

impl Injector {
    pub(crate) fn new(
        world: Arc<World>,
        cluster: Arc<Cluster>,
        judge: Arc<Judge>,
        clients: Vec<NodeId>,
        bounds: Bounds,
    ) -> Self {
        let struck = world.struck();
        let (undo, aimed, done) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        Self { world, cluster, judge, clients, bounds, undo, next: 0, aimed, struck, done }
    }

    /// Lets `faults` happen at their times, counted from now, until `duration` has passed.
    pub(crate) async fn inject(&mut self, faults: &[TimedFault], duration: Duration) {
        let begin = self.world.now();
        let end = begin + duration.as_nanos() as Nanos;
        let mut faults: Vec<&TimedFault> = faults.iter().collect();
        faults.sort_by_key(|fault| fault.at_ms);
        let mut faults = faults.into_iter().peekable();
        loop {
            let fault = faults.peek().map(|fault| begin + milliseconds(fault.at_ms));
            let undo = self.undo.first_key_value().map(|((at, _), _)| *at);
            let next = fault.into_iter().chain(undo).min().unwrap_or(end);
            if next >= end {
                break;
            }
            if self.is_struck_before(next).await {
                // It may have an end of its own.
                continue;
            }
            if undo == Some(next) {
                self.undo_first();
            } else if let Some(fault) = faults.next() {
                match fault.when {
                    Some(trigger) => self.aim(fault, trigger),
                    None => self.inflict(fault),
                }
            }
        }
        while self.is_struck_before(end).await {}
    }

    /// Waits, but only until the moment of an aimed fault comes, which then strikes.
    async fn is_struck_before(&mut self, at: Nanos) -> bool {
        tokio::select! {
            biased;
            Some(number) = self.struck.recv() => {
                if let Some(fault) = self.aimed.remove(&number) {
                    self.inflict(&fault);
                }
                true
            }
            () = self.world.pass_until(at) => false,
        }
    }

    fn aim(&mut self, fault: &TimedFault, trigger: Trigger) {
        self.next += 1;
        self.aimed.insert(self.next, fault.clone());
        self.world.arm(broker(fault.fault.node()), self.next, trigger);
    }

    /// Ends every fault that lasts: from now on nothing is wrong with any machine, disk or link.
    pub(crate) fn heal(&mut self) {
        while !self.undo.is_empty() {
            self.undo_first();
        }
        for missed in std::mem::take(&mut self.aimed).into_values() {
            self.world.tell(format!("its moment never came: {}", describe(&missed)));
        }
        for node in self.cluster.nodes() {
            self.world.disarm(node);
            self.cluster.put_back(node);
            self.world.disk_faults(node, |faults| *faults = Default::default());
            links::heal(&self.world, node, &self.clients);
            links::heal(&self.world, node, &self.cluster.nodes());
            self.tell_aftermath(node);
            if self.cluster.waits_for_a_directory(node) {
                self.judge.disturbed(node, Part::Disk, self.world.now() + RETRIES);
            }
        }
    }

    /// Does `what` while the workers of all brokers are busy.
    pub(crate) async fn while_busy<T>(&self, what: impl Future<Output = T>) -> T {
        for node in self.cluster.nodes() {
            self.judge.disturbed(node, Part::Process, Nanos::MAX);
            self.world.keep_busy(node, BUSY);
        }
        let done = what.await;
        for node in self.cluster.nodes() {
            self.world.keep_busy(node, 0);
            self.judge.restored(node, Part::Process);
            self.judge.disturbed(node, Part::Process, self.world.now() + self.bounds.kept() + BUSY);
        }
        done
    }

    /// What was wrong until now is felt for a while.
    fn tell_aftermath(&self, node: NodeId) {
        let now = self.world.now();
        let extra = milliseconds(SLOWEST_SYNC_MS);
        let parts = [(Part::Disk, self.bounds.kept()), (Part::Syncs, self.bounds.after_slow_syncs(extra))];
        for (part, lasts) in parts.into_iter().chain(self.links(self.bounds.after_silence())) {
            self.judge.restored(node, part);
            self.judge.disturbed(node, part, now + lasts);
        }
    }

    /// The wires between a node and all clients' machines, each with `lasts`.
    fn links(&self, lasts: Nanos) -> impl Iterator<Item = (Part, Nanos)> {
        (0..self.clients.len()).map(move |machine| (Part::Link(machine as u32), lasts))
    }

    /// Tells what `timed` disturbs, and for how long that will be felt.
    fn tell_disturbance(&self, timed: &TimedFault) {
        let end = self.world.now() + milliseconds(timed.for_ms);
        let bounds = &self.bounds;
        let (node, parts): (u32, Vec<(Part, Nanos)>) = match timed.fault {
            Fault::Pause { node } => (node, vec![(Part::Process, bounds.kept())]),
            Fault::Busy { node, longest_ms } => {
                (node, vec![(Part::Process, bounds.kept() + milliseconds(longest_ms))])
            }
            Fault::Cut { node, peer: None, .. } | Fault::Loss { node, peer: None, .. } => {
                (node, self.links(bounds.after_silence()).collect())
            }
            Fault::Delay { node, extra_ms, peer: None, .. } => {
                (node, self.links(bounds.after_delay(milliseconds(extra_ms))).collect())
            }
            Fault::SlowDisk { node, extra_ms } => {
                (node, vec![(Part::Disk, bounds.after_slow_syncs(milliseconds(extra_ms)))])
            }
            Fault::SlowSync { node, extra_ms, .. } => {
                (node, vec![(Part::Syncs, bounds.after_slow_syncs(milliseconds(extra_ms)))])
            }
            Fault::SlowFile { node, extra_ms, .. } => {
                let lasts = bounds.after_slow_syncs(milliseconds(extra_ms));
                (node, vec![(Part::Disk, lasts), (Part::Syncs, lasts)])
            }
            // Whoever has no handle waits, and tries again now and then.
            Fault::LackOfHandles { node, .. } => {
                let lasts = bounds.kept() + RETRIES;
                (node, vec![(Part::Disk, lasts), (Part::Process, lasts), (Part::Handles, lasts)])
            }
            // What lies in the directory is not served before the restart that ends it.
            Fault::DirectoryDies { node, .. } | Fault::DirectoryAway { node, .. } => {
                (node, vec![(Part::Disk, bounds.kept() + RETRIES)])
            }
            // What an error of the disk does to the broker is judged; whatever happens to its process tells the operator. Wires
            // between brokers are no client's.
            _ => return,
        };
        for (part, lasts) in parts {
            self.judge.disturbed(broker(node), part, end + lasts);
        }
    }

    fn inflict(&mut self, timed: &TimedFault) {
        self.tell_disturbance(timed);
        let mut counted = plan::kind(&timed.fault).to_owned();
        if let Some(Trigger { moment, .. }) = timed.when {
            counted = format!("{counted}_at_{}", moment.name());
        }
        *self.done.entry(counted).or_default() += 1;
        let lasts = Duration::from_millis(timed.for_ms);
        let end = self.world.now() + milliseconds(timed.for_ms);
        self.world.tell(format!("fault: {}", describe(timed)));
        match timed.fault {
            Fault::PowerLoss { node } => self.order(node, Order::PowerLoss(lasts)),
            Fault::Kill { node } => self.order(node, Order::Kill(lasts)),
            Fault::Restart { node } => self.order(node, Order::Stop(lasts)),
            Fault::BitRot { node, down } => self.order(node, Order::Rot { down: lasts, how: down }),
            Fault::Damage { node, of, power, accept } => {
                self.order(node, Order::Damage { down: lasts, of, power, accept });
            }
            Fault::Pause { node } => self.pause(broker(node), end),
            Fault::Busy { node, longest_ms } => {
                self.world.keep_busy(broker(node), milliseconds(longest_ms));
                self.later(end, Undo::Busy(broker(node)));
            }
            Fault::Cut { .. } | Fault::Delay { .. } | Fault::Loss { .. } => {
                if let Some(struck) = links::strike(&self.world, &timed.fault, &self.clients) {
                    self.later(end, Undo::Wires(struck));
                }
            }
            Fault::Reset { node } => self.world.reset_connections(broker(node)),
            Fault::Hold { node, peer } => self.hold((node, peer), end),
            Fault::ClockJump { node, by_ms } => {
                let by = Duration::from_millis(by_ms.unsigned_abs());
                self.judge.clock(broker(node));
                self.world.clock_jump(broker(node), by, by_ms > 0);
                self.judge.clock(broker(node));
            }
            Fault::ClockDrift { node, ppm } => {
                self.world.clock_drift(broker(node), ppm * 1_000);
                self.later(end, Undo::Drift(broker(node)));
            }
            Fault::SlowDisk { node, extra_ms } => {
                self.world.disk_faults(broker(node), |faults| faults.delay_us = extra_ms * 1_000);
                self.later(end, Undo::SlowDisk(broker(node)));
            }
            Fault::SlowSync { node, extra_ms, segments } => {
                self.world.disk_faults(broker(node), |faults| match segments {
                    true => faults.segment_sync_delay_us = extra_ms * 1_000,
                    false => faults.sync_delay_us = extra_ms * 1_000,
                });
                self.later(end, Undo::SlowSync(broker(node), segments));
            }
            Fault::FailSync { node, segments } => {
                self.world.disk_faults(broker(node), |faults| match segments {
                    true => faults.fail_segment_syncs = 1,
                    false => faults.fail_syncs = 1,
                });
            }
            Fault::FailWrite { node } => {
                self.world.disk_faults(broker(node), |faults| faults.fail_writes = 1)
            }
            Fault::FailRead { node } => {
                self.world.disk_faults(broker(node), |faults| faults.fail_reads = u64::MAX);
                self.later(end, Undo::FailRead(broker(node)));
            }
            Fault::FailFile { node, of, doing } => {
                self.world.disk_faults(broker(node), |faults| _ = faults.fail_kinds.insert((of, doing), 1));
            }
            Fault::SlowFile { node, of, extra_ms } => {
                self.world.disk_faults(broker(node), |faults| {
                    _ = faults.slow_kinds.insert(of, extra_ms * 1_000);
                });
                self.later(end, Undo::SlowFile(broker(node), of));
            }
            Fault::LackOfHandles { node, spare } => {
                let most = self.world.handles(broker(node)) + spare;
                self.world.disk_faults(broker(node), |faults| faults.most_handles = Some(most));
                self.later(end, Undo::Handles(broker(node)));
            }
            Fault::DirectoryDies { node, directory } => {
                if self.cluster.lose_directory(broker(node), directory) {
                    self.later(end, Undo::Death(broker(node)));
                }
            }
            Fault::DirectoryAway { node, directory, instead, down } => {
                let lasts = Duration::from_millis(100);
                self.order(node, Order::Away { down: lasts, directory, instead, how: down });
                self.later(end, Undo::Away(broker(node)));
            }
            Fault::LogsMoved { node, logs } => self.order(node, Order::Move { down: lasts, logs }),
            Fault::DiskFull { node } => {
                let used = self.world.disk_used(broker(node));
                self.world.disk_faults(broker(node), |faults| faults.quota = Some(used));
                self.later(end, Undo::DiskFull(broker(node)));
            }
        }
    }

    fn order(&self, node: u32, order: Order) {
        self.cluster.order(broker(node), order);
    }

    fn pause(&mut self, node: NodeId, end: Nanos) {
        if let Some(process) = self.world.process(node) {
            self.world.pause(&process);
            self.later(end, Undo::Resume(node));
        }
    }

    /// Holds the next request to the node, or now and then the next answer from it.
    fn hold(&self, (node, peer): (u32, Option<u32>), until: Nanos) {
        let random = &mut self.world.random();
        let other = links::hold(&self.world, random, (node, peer), &self.clients, until);
        if let Some(machine) = self.clients.iter().position(|client| *client == other) {
            let felt = until + self.bounds.after_silence();
            self.judge.disturbed(broker(node), Part::Link(machine as u32), felt);
        }
    }

    fn later(&mut self, at: Nanos, undo: Undo) {
        self.next += 1;
        self.undo.insert((at, self.next), undo);
    }

    fn undo_first(&mut self) {
        let Some((_, undo)) = self.undo.pop_first() else { return };
        let world = &self.world;
        match undo {
            Undo::Resume(node) => {
                if let Some(process) = world.process(node) {
                    world.resume(&process);
                }
            }
            Undo::Busy(node) => world.keep_busy(node, 0),
            Undo::Wires(struck) => struck.mend(world),
            Undo::SlowDisk(node) => world.disk_faults(node, |faults| faults.delay_us = 0),
            Undo::SlowSync(node, true) => world.disk_faults(node, |faults| faults.segment_sync_delay_us = 0),
            Undo::SlowSync(node, false) => world.disk_faults(node, |faults| faults.sync_delay_us = 0),
            Undo::FailRead(node) => world.disk_faults(node, |faults| faults.fail_reads = 0),
            Undo::DiskFull(node) => world.disk_faults(node, |faults| faults.quota = None),
            Undo::SlowFile(node, of) => world.disk_faults(node, |faults| _ = faults.slow_kinds.remove(&of)),
            Undo::Handles(node) => world.disk_faults(node, |faults| faults.most_handles = None),
            Undo::Death(node) => self.cluster.revive_directory(node),
            Undo::Away(node) => self.cluster.put_back(node),
            Undo::Drift(node) => world.clock_drift(node, 0),
        }
    }
}

fn broker(number: u32) -> NodeId {
    NodeId(number as usize - 1)
}

fn milliseconds(count: u64) -> Nanos {
    count * 1_000_000
}

fn describe(timed: &TimedFault) -> String {
    let lasting = if timed.for_ms > 0 { format!(" for {} ms", timed.for_ms) } else { String::new() };
    let aimed = timed.when.map_or(String::new(), |when| format!(", aimed: {when:?}"));
    format!("{:?}{lasting}{aimed}", timed.fault)
}
