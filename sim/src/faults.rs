//! What goes wrong and when: the swarm's draw of faults, and how each one is done to the world.
//!
//! The draw is dense in what breaks logs: power losses under load, power losses within the recovery from the one
//! before, failing syncs followed by a power loss. It leaves clients enough time in between to get their
//! acknowledgements. What cannot be rebuilt is damaged only where a broker must notice (see [`crate::damage`]). Never: a
//! fault that a single broker's promises do not cover, such as rot in a log segment.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use gracchus_checker::Part;
use gracchus_workload::scenario::{
    Damaged, Direction, Doing, Down, Fault, FileKind, InItsPlace, TimedFault, Trigger,
};
use rand::{Rng, rngs::SmallRng};
use tokio::sync::mpsc;

use crate::{
    bounds::Bounds,
    cluster::{Cluster, Order},
    judge::Judge,
    plan::{MOST_AWAY, pick},
    world::{Nanos, NodeId, World},
};

/// Files that a broker can rebuild from the segments beside them: rot in them must not cost a record.
pub const INDEXES: [&str; 2] = [".index", ".timeindex"];
/// What a broker can rebuild only from a log that still has its first record.
pub const PRODUCERS: &str = ".snapshot";
/// What has a checksum, or is checked against what it speaks of, and holds nothing that is nowhere else.
pub const CHECKED: [&str; 1] = [".kafka_cleanshutdown"];
/// The same without a checksum, as Kafka's, or with a format that could be a newer one: only what nobody can take for the
/// file must be noticed.
pub const TEXTS: [&str; 3] =
    ["leader-epoch-checkpoint", "recovery-point-offset-checkpoint", "cluster-metadata/log-end"];

/// How long it takes at most until what waits for a file handle tries again, or a broker has been started anew.
const RETRIES: Nanos = 10_000_000_000;
/// A sync takes so much longer at most.
const SLOWEST_SYNC_MS: u64 = 1_000;

/// Draws the faults of one broker over `duration_ms`.
pub fn draw(random: &mut SmallRng, duration_ms: u64) -> Vec<TimedFault> {
    const NODE: u32 = 1;
    let mut faults = Vec::new();
    let mut add =
        |at_ms: u64, for_ms: u64, fault: Fault| faults.push(TimedFault { at_ms, for_ms, fault, when: None });
    let from = 1_500;
    let until = duration_ms - 2_000;
    for _ in 0..random.random_range(4..=7) {
        let mut at = random.random_range(from..until);
        let down = random.random_range(20..=500);
        add(at, down, Fault::PowerLoss { node: NODE });
        // While the background takes long to sync what was replayed, all of it is in the journal alone.
        if random.random_bool(0.3) {
            let (extra_ms, segments) = (random.random_range(20..=300), true);
            add(at, random.random_range(500..=3_000), Fault::SlowSync { node: NODE, extra_ms, segments });
        }
        // Again while it recovers, or right after its first acknowledgements.
        let mut again = 0.5;
        let mut up = at + down;
        while random.random_bool(again) {
            at = up + *pick(random, &[1, 3, 8, 20, 50, 120, 400]) + random.random_range(0..3);
            let down = random.random_range(10..=200);
            add(at, down, Fault::PowerLoss { node: NODE });
            up = at + down;
            again *= 0.6;
        }
    }
    let mut some = |random: &mut SmallRng, most: u32, make: &dyn Fn(&mut SmallRng) -> (u64, Fault)| {
        for _ in 0..random.random_range(0..=most) {
            let at = random.random_range(from..until);
            let (for_ms, fault) = make(random);
            add(at, for_ms, fault);
        }
    };
    let node = NODE;
    some(random, 3, &|random| (random.random_range(20..=400), Fault::Kill { node }));
    some(random, 2, &|random| (random.random_range(10..=300), Fault::Restart { node }));
    some(random, 2, &|random| (random.random_range(50..=2_500), Fault::Pause { node }));
    some(random, 2, &|random| {
        let direction = *pick(random, &[Direction::Both, Direction::From, Direction::To]);
        (random.random_range(100..=3_000), Fault::Cut { node, direction })
    });
    some(random, 2, &|random| {
        let direction = *pick(random, &[Direction::Both, Direction::From, Direction::To]);
        let extra_ms = random.random_range(1..=150);
        (random.random_range(300..=4_000), Fault::Delay { node, extra_ms, direction })
    });
    some(random, 2, &|random| {
        (random.random_range(300..=3_000), Fault::Loss { node, per_mille: random.random_range(5..=200) })
    });
    some(random, 3, &|_| (0, Fault::Reset { node }));
    some(random, 6, &|random| (random.random_range(300..=15_000), Fault::Hold { node }));
    some(random, 2, &|random| {
        (random.random_range(300..=3_000), Fault::SlowDisk { node, extra_ms: random.random_range(1..=8) })
    });
    some(random, 4, &|random| {
        let (extra_ms, segments) = (random.random_range(1..=300), random.random_bool(0.5));
        (random.random_range(300..=3_000), Fault::SlowSync { node, extra_ms, segments })
    });
    some(random, 3, &|random| (random.random_range(50..=1_000), Fault::BitRot { node, down: Down::Kill }));
    some(random, 3, &|random| {
        let of = *pick(random, &[Damaged::Journal, Damaged::Journal, Damaged::Metadata, Damaged::Vote]);
        let damage = Fault::Damage { node, of, power: random.random_bool(0.6), accept: false };
        (random.random_range(20..=300), damage)
    });
    some(random, 2, &|random| (0, Fault::ClockJump { node, by_ms: random.random_range(-30_000..=30_000) }));
    some(random, 1, &|random| {
        (
            random.random_range(3_000..=20_000),
            Fault::ClockDrift { node, ppm: random.random_range(-50_000..=50_000) },
        )
    });
    // Each of these ends with a restart by the operator: rare, so that the rest of the minute is worth something.
    if random.random_bool(0.4) {
        some(random, 2, &|random| match random.random_range(0..3) {
            0 => (0, Fault::FailWrite { node }),
            1 => (random.random_range(10..=300), Fault::FailRead { node }),
            _ => (random.random_range(100..=2_000), Fault::DiskFull { node }),
        });
    }
    if random.random_bool(0.5) {
        // What the kernel dropped is missing only after the power has failed, perhaps two processes later.
        let at = random.random_range(from..until);
        add(at, 0, Fault::FailSync { node, segments: random.random_bool(0.7) });
        let later = at + random.random_range(200..=4_000);
        add(later.min(until), random.random_range(20..=300), Fault::PowerLoss { node });
    }
    if random.random_bool(0.5) {
        // A process ends with syncs on their way; the next one finds in the page cache what no disk has, and the power fails.
        let at = random.random_range(from..until);
        let (extra_ms, lasts) = (random.random_range(50..=300), random.random_range(300..=1_500));
        let mut power = at + random.random_range(50..=lasts);
        let mut kills = Vec::new();
        for _ in 0..random.random_range(1..=2) {
            let down = random.random_range(1..=100);
            kills.push((power, down));
            power += down + random.random_range(5..=600);
        }
        // Near the end all of it comes earlier: the power fails behind the kills.
        let early = power.saturating_sub(until);
        let (at, power) = (at.saturating_sub(early), power - early);
        add(at, lasts, Fault::SlowSync { node, extra_ms, segments: false });
        for (killed, down) in kills {
            add(killed.saturating_sub(early), down, Fault::Kill { node });
        }
        // Until the background has synced them, the segments hold what was replayed in the page cache alone.
        if random.random_bool(0.7) {
            let (extra_ms, segments) = (random.random_range(100..=1_000), true);
            add(at, lasts + 2_000, Fault::SlowSync { node, extra_ms, segments });
        }
        add(power, random.random_range(20..=300), Fault::PowerLoss { node });
    }
    if random.random_bool(0.25) {
        // The run ends with it.
        let at = random.random_range(until / 2..until);
        add(at, 50, Fault::Damage { node, of: Damaged::Journal, power: true, accept: true });
    }
    while faults.len() < 12 {
        let at_ms = random.random_range(from..until);
        let fault =
            pick(random, &[Fault::Kill { node }, Fault::Reset { node }, Fault::Hold { node }]).clone();
        faults.push(TimedFault { at_ms, for_ms: random.random_range(20..=1_000), fault, when: None });
    }
    faults.sort_by_key(|fault| fault.at_ms);
    faults
}

/// Draws what happens to the log directories of a broker that has several: one after the other, so that at most one is not
/// there.
pub fn draw_directories(random: &mut SmallRng, directories: u32, duration_ms: u64) -> Vec<TimedFault> {
    const NODE: u32 = 1;
    let mut faults = Vec::new();
    if directories < 2 {
        return faults;
    }
    let (mut at_ms, mut away) = (random.random_range(1_500..20_000), 0);
    while at_ms < duration_ms - 4_000 {
        let directory = random.random_range(2..=directories);
        let for_ms = random.random_range(500..=15_000).min(duration_ms - at_ms - 2_000);
        let fault = match random.random_range(0..5) {
            0 | 1 => Fault::DirectoryDies { node: NODE, directory },
            2 => Fault::LogsMoved { node: NODE, logs: random.random_range(1..=6) },
            _ if away == MOST_AWAY => Fault::LogsMoved { node: NODE, logs: 3 },
            _ => {
                away += 1;
                let instead = *pick(
                    random,
                    &[InItsPlace::Nothing, InItsPlace::Empty, InItsPlace::Empty, InItsPlace::Formatted],
                );
                let down = *pick(random, &[Down::Stop, Down::Kill, Down::Power]);
                Fault::DirectoryAway { node: NODE, directory, instead, down }
            }
        };
        // While a directory is dead the broker is started now and then: that is another way to find it so.
        if matches!(fault, Fault::DirectoryDies { .. }) && random.random_bool(0.6) {
            let restart = pick(random, &[Fault::Restart { node: NODE }, Fault::Kill { node: NODE }]).clone();
            faults.push(TimedFault {
                when: None,
                at_ms: at_ms + random.random_range(1..for_ms),
                for_ms: 50,
                fault: restart,
            });
        }
        let lasts = if matches!(fault, Fault::LogsMoved { .. }) { 50 } else { for_ms };
        faults.push(TimedFault { when: None, at_ms, for_ms: lasts, fault });
        at_ms += lasts + random.random_range(500..=12_000);
    }
    faults
}

/// Draws faults of single kinds of files, and a lack of file handles.
pub fn draw_kinds(random: &mut SmallRng, duration_ms: u64) -> Vec<TimedFault> {
    const NODE: u32 = 1;
    let mut faults = Vec::new();
    let anywhen = |random: &mut SmallRng| random.random_range(1_500..duration_ms - 2_000);
    for _ in 0..random.random_range(0..=3) {
        let of = *pick(random, &FileKind::ALL);
        let extra_ms = random.random_range(1..=400);
        let for_ms = random.random_range(300..=4_000);
        faults.push(TimedFault {
            when: None,
            at_ms: anywhen(random),
            for_ms,
            fault: Fault::SlowFile { node: NODE, of, extra_ms },
        });
    }
    // Each of these ends with a restart by the operator.
    if random.random_bool(0.4) {
        for _ in 0..random.random_range(1..=2) {
            let of = *pick(random, &FileKind::ALL);
            let doing = *pick(random, &[Doing::Write, Doing::Write, Doing::Sync, Doing::Sync, Doing::Read]);
            let at_ms = anywhen(random);
            faults.push(TimedFault {
                when: None,
                at_ms,
                for_ms: 0,
                fault: Fault::FailFile { node: NODE, of, doing },
            });
            let at_ms = at_ms + random.random_range(20..3_000);
            if random.random_bool(0.5) && at_ms < duration_ms - 2_000 {
                faults.push(TimedFault {
                    when: None,
                    at_ms,
                    for_ms: 100,
                    fault: Fault::PowerLoss { node: NODE },
                });
            }
        }
    }
    for _ in 0..random.random_range(0..=2) {
        let for_ms = random.random_range(20..=300);
        let down = *pick(random, &[Down::Stop, Down::Stop, Down::Power]);
        faults.push(TimedFault {
            when: None,
            at_ms: anywhen(random),
            for_ms,
            fault: Fault::BitRot { node: NODE, down },
        });
    }
    if random.random_bool(0.3) {
        let for_ms = random.random_range(20..=300);
        let power = random.random_bool(0.5);
        faults.push(TimedFault {
            when: None,
            at_ms: anywhen(random),
            for_ms,
            fault: Fault::Damage { node: NODE, of: Damaged::Identity, power, accept: false },
        });
    }
    if random.random_bool(0.4) {
        for _ in 0..random.random_range(1..=2) {
            let (for_ms, spare) = (random.random_range(200..=6_000), random.random_range(0..=12));
            faults.push(TimedFault {
                when: None,
                at_ms: anywhen(random),
                for_ms,
                fault: Fault::LackOfHandles { node: NODE, spare },
            });
        }
    }
    faults
}

/// The name under which a fault is counted.
pub fn kind(fault: &Fault) -> &'static str {
    match fault {
        Fault::PowerLoss { .. } => "power_loss",
        Fault::Kill { .. } => "kill",
        Fault::Restart { .. } => "restart",
        Fault::Pause { .. } => "pause",
        Fault::Cut { .. } => "cut",
        Fault::Delay { .. } => "delay",
        Fault::Loss { .. } => "loss",
        Fault::Reset { .. } => "reset",
        Fault::Hold { .. } => "hold",
        Fault::SlowDisk { .. } => "slow_disk",
        Fault::SlowSync { .. } => "slow_sync",
        Fault::FailSync { .. } => "fail_sync",
        Fault::FailWrite { .. } => "fail_write",
        Fault::FailRead { .. } => "fail_read",
        Fault::DiskFull { .. } => "disk_full",
        Fault::BitRot { .. } => "bit_rot",
        Fault::Damage { .. } => "damage",
        Fault::FailFile { .. } => "fail_file",
        Fault::SlowFile { .. } => "slow_file",
        Fault::LackOfHandles { .. } => "lack_of_handles",
        Fault::DirectoryDies { .. } => "directory_dies",
        Fault::DirectoryAway { .. } => "directory_away",
        Fault::LogsMoved { .. } => "logs_moved",
        Fault::ClockJump { .. } => "clock_jump",
        Fault::ClockDrift { .. } => "clock_drift",
    }
}

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
#[derive(Debug, Clone, Copy)]
enum Undo {
    Resume(NodeId),
    Cut(NodeId, NodeId),
    Delay(NodeId, NodeId),
    Loss(NodeId, NodeId),
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
        self.aimed.clear();
        for node in self.cluster.nodes() {
            self.world.disarm(node);
            self.cluster.put_back(node);
            self.world.disk_faults(node, |faults| *faults = Default::default());
            for client in self.clients.clone() {
                for (from, to) in [(node, client), (client, node)] {
                    self.world.link_faults(from, to, |link| *link = Default::default());
                }
            }
            self.tell_aftermath(node);
            if self.cluster.waits_for_a_directory(node) {
                self.judge.disturbed(node, Part::Disk, self.world.now() + RETRIES);
            }
        }
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
            Fault::Cut { node, .. } | Fault::Loss { node, .. } => {
                (node, self.links(bounds.after_silence()).collect())
            }
            Fault::Delay { node, extra_ms, .. } => {
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
            // What an error of the disk does to the broker is judged; whatever happens to its process tells the operator.
            _ => return,
        };
        for (part, lasts) in parts {
            self.judge.disturbed(broker(node), part, end + lasts);
        }
    }

    fn inflict(&mut self, timed: &TimedFault) {
        self.tell_disturbance(timed);
        let mut counted = kind(&timed.fault).to_owned();
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
            Fault::Cut { node, direction } => self.each_link(broker(node), direction, |this, from, to| {
                this.world.link_faults(from, to, |link| link.cut = true);
                this.later(end, Undo::Cut(from, to));
            }),
            Fault::Delay { node, extra_ms, direction } => {
                self.each_link(broker(node), direction, |this, from, to| {
                    this.world.link_faults(from, to, |link| link.delay_us = extra_ms * 1_000);
                    this.later(end, Undo::Delay(from, to));
                });
            }
            Fault::Loss { node, per_mille } => {
                self.each_link(broker(node), Direction::Both, |this, from, to| {
                    this.world.link_faults(from, to, |link| link.loss = f64::from(per_mille) / 1_000.0);
                    this.later(end, Undo::Loss(from, to));
                });
            }
            Fault::Reset { node } => self.world.reset_connections(broker(node)),
            Fault::Hold { node } => self.hold(broker(node), end),
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
    fn hold(&self, node: NodeId, until: Nanos) {
        let mut random = self.world.random();
        let machine = random.random_range(0..self.clients.len());
        let client = self.clients[machine];
        let felt = until + self.bounds.after_silence();
        self.judge.disturbed(node, Part::Link(machine as u32), felt);
        let (from, to) = if random.random_bool(0.75) { (client, node) } else { (node, client) };
        self.world.link_faults(from, to, |link| link.hold = Some((60, until)));
    }

    fn each_link(&mut self, node: NodeId, direction: Direction, action: impl Fn(&mut Self, NodeId, NodeId)) {
        for client in self.clients.clone() {
            if direction != Direction::To {
                action(self, node, client);
            }
            if direction != Direction::From {
                action(self, client, node);
            }
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
            Undo::Cut(from, to) => world.link_faults(from, to, |link| link.cut = false),
            Undo::Delay(from, to) => world.link_faults(from, to, |link| link.delay_us = 0),
            Undo::Loss(from, to) => world.link_faults(from, to, |link| link.loss = 0.0),
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

#[cfg(test)]
mod tests {
    use rand::SeedableRng;

    use super::*;

    #[test]
    fn a_minute_holds_enough_faults_and_power_losses() {
        let (mut least, mut power, mut kinds) = (usize::MAX, 0, std::collections::BTreeSet::new());
        for seed in 0..300 {
            let faults = draw(&mut SmallRng::seed_from_u64(seed), 60_000);
            least = least.min(faults.len());
            power += faults.iter().filter(|timed| matches!(timed.fault, Fault::PowerLoss { .. })).count();
            kinds.extend(faults.iter().map(|timed| kind(&timed.fault)));
        }
        assert!(least >= 10, "{least}");
        assert!(power >= 300 * 5, "{power}");
        assert_eq!(kinds.len(), 19, "{kinds:?}");
    }
}
