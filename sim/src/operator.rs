//! Who keeps a broker running: starts it, stops it as told, and starts it again.
//!
//! The operator restarts a process that ended, and one whose disk gave an error. A broker on a healthy disk must start,
//! whatever it finds there, unless it finds damage that it must not start with: then the operator restores what was, or
//! asks it to start without. A broker that is told to stop must do so within a bound.
//!
//! Never: two processes on one machine, a start before the machine has been down for as long as told.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    time::Duration,
};

use gracchus::{broker::Broker, config::BrokerConfig, replica::Published};
use gracchus_checker::{Entry, Part};
use gracchus_env::Env;
use gracchus_workload::scenario::Down;
use rand::Rng;
use tokio::sync::{mpsc, oneshot, watch};

use crate::{
    bounds::Bounds,
    cluster::{ConfigFile, Order, PATIENCE, ROUND, STARTS, STOPS, Status},
    damage::{self, Answer},
    directories, files_check,
    judge::{Judge, Unreachable},
    plan::{MOST_DIRECTORIES, data_directory},
    slot::Slot,
    world::{Nanos, NodeId, Phase, Process, World, lock},
};

/// What a start and a stop depend on.
const DISKS: &[Part] = &[Part::Disk, Part::Syncs];

/// Keeps one broker running.
pub(crate) struct Operator {
    pub(crate) world: Arc<World>,
    pub(crate) node: NodeId,
    pub(crate) config: ConfigFile,
    pub(crate) slot: Arc<Mutex<Slot>>,
    pub(crate) status: watch::Sender<Status>,
    pub(crate) judge: Arc<Judge>,
    pub(crate) bounds: Bounds,
}

/// A process while it runs.
struct Running {
    process: Arc<Process>,
    stop: Option<oneshot::Sender<()>>,
    /// Whether the stop that was asked for went through to its end.
    stopped: Arc<Mutex<bool>>,
    /// Errors that the disk had given before it started.
    disk_errors: u64,
    /// How many errors there had been in each log directory, also where its device is dead.
    errors_in: BTreeMap<Arc<str>, u64>,
    /// How often handles had lacked before.
    lacks: u64,
}

impl Operator {
    /// Until the run is over.
    pub(crate) async fn run(self, mut orders: mpsc::UnboundedReceiver<Order>) {
        loop {
            let down = {
                let mut running = self.start();
                self.attend(&mut running, &mut orders).await
            };
            {
                let mut slot = lock(&self.slot);
                (slot.broker, slot.replicas, slot.published) = (None, None, None);
            }
            self.status.send_replace(Status::Down);
            if down == Duration::MAX {
                return;
            }
            // Who is down is not hurt by what happens meanwhile.
            self.world.pass(down).await;
            while orders.try_recv().is_ok() {}
            self.repair();
        }
    }

    /// Does what a broker that refused to start has asked for.
    fn repair(&self) {
        let mut slot = lock(&self.slot);
        if std::mem::take(&mut slot.put_back)
            && let Some(away) = slot.away.take()
        {
            let spare = data_directory(MOST_DIRECTORIES + 1 + slot.spares.len() as u32);
            self.world.tell("the log directory that was away is put back");
            if directories::put_back(&self.world, self.node, &away, &spare) {
                self.world.tell(format!("what was in its place is {spare} from now on"));
                slot.spares.push(spare);
            }
        }
        if !std::mem::take(&mut slot.refused) {
            return;
        }
        let Some((damage, accept)) = slot.damage.take() else { return };
        if accept && damage.accept(&self.world, self.node) {
            self.world.tell("the operator starts it without what is damaged");
            self.world.tell(format!("what is missing is excused: {}", Entry::AcceptedDamage.name()));
            self.judge.pardon();
        } else {
            self.world.tell("the operator puts back what was there");
            damage.undo(&self.world, self.node);
        }
    }

    fn start(&self) -> Running {
        let report = self.world.disk_report(self.node);
        let (disk_errors, errors_in) = (report.errors, self.world.errors_in(self.node));
        let (incarnation, spares) = {
            let mut slot = lock(&self.slot);
            slot.incarnation += 1;
            slot.disk_errors = disk_errors;
            let dead = self.world.dead_directory(self.node);
            slot.after_death = dead.is_some();
            let mut unreachable = Unreachable::default();
            if let Some(away) = &slot.away {
                unreachable.directories.push(data_directory(away.number));
                unreachable.places.extend(away.places.iter().cloned());
            }
            if let Some(path) = dead {
                unreachable.places.extend(files_check::places_in(&self.world, self.node, &path));
                unreachable.directories.push(path);
            }
            self.judge.unreachable(self.node, unreachable);
            (slot.incarnation, slot.spares.clone())
        };
        let (stop, stopping) = oneshot::channel();
        let stopped = Arc::new(Mutex::new(false));
        self.judge.disturbed(self.node, Part::Process, Nanos::MAX);
        self.status.send_replace(Status::Starting);
        self.judge.node_started(self.node);
        let mut config = match &self.config.later {
            Some((from_start, later, of_topics)) if incarnation >= *from_start => {
                if incarnation == *from_start {
                    self.world.tell("the operator has changed the configuration file");
                    self.judge.file_changed(of_topics);
                }
                later
            }
            _ => &self.config.config,
        }
        .clone();
        config.log_dirs.extend(spares.iter().map(PathBuf::from));
        self.world.tell(format!("{} starts, incarnation {incarnation}", self.world.name(self.node)));
        let main = Main {
            world: self.world.clone(),
            node: self.node,
            config,
            slot: self.slot.clone(),
            status: self.status.clone(),
            stopped: stopped.clone(),
            disk_errors,
            lacks: report.lacks,
            judge: self.judge.clone(),
            bound: self.bounds.start(self.world.disk_holds(self.node)),
        };
        let process = self.world.start(self.node, |env| main.run(env, stopping));
        Running { process, stop: Some(stop), stopped, disk_errors, errors_in, lacks: report.lacks }
    }

    /// Watches a process to its end; how long to wait before the next one.
    async fn attend(&self, running: &mut Running, orders: &mut mpsc::UnboundedReceiver<Order>) -> Duration {
        loop {
            let order = tokio::select! {
                biased;
                () = running.process.ended() => {
                    self.judge.disturbed(self.node, Part::Process, Nanos::MAX);
                    return self.draw(100, 400);
                }
                order = orders.recv() => match order {
                    Some(order) => Some(order),
                    // The run is over.
                    None => return Duration::MAX,
                },
                () = self.world.pass(ROUND) => self.look_after(running),
            };
            match order {
                None => {}
                // What it says at this start is all that counts.
                Some(_) if self.judge.is_pardoned() => {}
                Some(order) => {
                    let Some(down) = order.stops_for() else {
                        let down = self.fell(&running.process, order);
                        self.judge.disturbed(self.node, Part::Process, Nanos::MAX);
                        return down;
                    };
                    self.judge.disturbed(self.node, Part::Process, Nanos::MAX);
                    let down = self.stop(running, orders, down).await;
                    self.rearrange(order, *lock(&running.stopped));
                    return down;
                }
            }
        }
    }

    /// Restarts a broker whose disk gave an error.
    fn look_after(&self, running: &Running) -> Option<Order> {
        let errors = self.world.disk_report(self.node).errors;
        if errors == running.disk_errors || !self.world.random().random_bool(0.3) {
            return None;
        }
        self.world.tell(format!("the operator sees errors of the disk of {}", self.world.name(self.node)));
        let down = self.draw(50, 300);
        Some(match self.world.random().random_range(0..3) {
            0 => Order::Stop(down),
            1 => Order::Kill(down),
            _ => Order::PowerLoss(down),
        })
    }

    fn fell(&self, process: &Arc<Process>, order: Order) -> Duration {
        match order {
            Order::PowerLoss(down) => {
                let report = self.world.power_loss(self.node);
                self.world.tell(format!(
                    "{} lost power: {} unsynced bytes and {} names dropped, {} writes torn",
                    self.world.name(self.node),
                    report.dropped_bytes,
                    report.dropped_names,
                    report.torn_writes
                ));
                self.judge.power_lost(self.node);
                down
            }
            Order::Kill(down) => {
                self.world.kill(process);
                down
            }
            Order::Damage { down, of, power, accept } => {
                match power {
                    true => _ = self.fell(process, Order::PowerLoss(down)),
                    false => self.world.kill(process),
                }
                let mut slot = lock(&self.slot);
                if slot.damage.is_none() {
                    let damage = damage::inflict(&self.world, self.node, of, &self.judge.budget());
                    let told = damage.as_ref().map_or("nothing that could be damaged", |damage| &damage.what);
                    self.world.tell(format!("damage: {told}"));
                    slot.damage = damage.map(|damage| (damage, accept));
                }
                down
            }
            Order::Rot { down, how } | Order::Away { down, how, .. } => {
                match how {
                    Down::Power => _ = self.fell(process, Order::PowerLoss(down)),
                    Down::Kill | Down::Stop => self.world.kill(process),
                }
                self.rearrange(order, false);
                down
            }
            Order::Stop(down) | Order::Move { down, .. } => down,
        }
    }

    /// Does what is to be done to the directories of a broker that is down.
    fn rearrange(&self, order: Order, stopped: bool) {
        let mut slot = lock(&self.slot);
        if matches!(order, Order::Rot { .. } | Order::Away { .. } | Order::Move { .. }) {
            slot.left_in_order.1.clear();
        }
        let dead = self.world.dead_directory(self.node).is_some();
        match order {
            Order::Rot { .. } => {
                let damaged = slot.damage.is_some();
                let budget = self.judge.budget();
                match self.world.rot(self.node, |path| budget.rots(path, damaged).ok()) {
                    Some(places) => self.world.tell(format!("rot: {places}")),
                    None => self.world.tell("no file that could rot"),
                }
            }
            Order::Away { directory, instead, .. } => {
                let path = data_directory(directory);
                let in_use = directory > 1
                    && self.config.config.log_dirs.iter().any(|other| *other == Path::new(&path));
                if dead || !in_use || slot.away.is_some() || self.world.names_in(self.node, &path).is_empty()
                {
                    return self.world.tell("no log directory that could be taken away");
                }
                self.world.tell(format!("{path} is taken away"));
                slot.away = Some(directories::take_away(&self.world, self.node, directory, instead));
            }
            Order::Move { logs, .. } if stopped && !dead && slot.away.is_none() => {
                let used = self.config.config.log_dirs.iter().map(|path| path.to_string_lossy().into_owned());
                let used: Vec<_> = used.chain(slot.spares.clone()).collect();
                let moved = directories::move_logs(&self.world, self.node, &used, logs);
                for (place, directory) in moved {
                    self.world.tell(format!("{} is moved to {directory} by hand", place.name()));
                    self.judge.moved(self.node, place, directory);
                }
            }
            _ => {}
        }
    }

    /// Asks the broker to stop and waits; other orders may hit it meanwhile.
    async fn stop(
        &self,
        running: &mut Running,
        orders: &mut mpsc::UnboundedReceiver<Order>,
        down: Duration,
    ) -> Duration {
        let name = self.world.name(self.node).to_owned();
        if let Some(stop) = running.stop.take() {
            self.world.set_phase(self.node, Phase::Stopping);
            let _ = stop.send(());
        }
        let bound = self.world.pass(PATIENCE);
        tokio::pin!(bound);
        let begun = self.world.now();
        let opened = self.judge.opened(self.node, lock(&self.slot).incarnation);
        let enough = self.bounds.stop(opened.len() as u64);
        loop {
            tokio::select! {
                biased;
                () = running.process.ended() => {
                    if *lock(&running.stopped) {
                        self.world.tell(format!("{name} stopped cleanly"));
                        let report = self.world.disk_report(self.node);
                        if (report.errors, report.lacks) == (running.disk_errors, running.lacks) {
                            let took = Duration::from_nanos(self.world.now() - begun);
                            if took > enough && self.judge.is_well_since(self.node, DISKS, begun) {
                                let what = format!("{name} took {took:?} to stop; {enough:?} are enough");
                                self.world.violate(STOPS, what);
                            }
                            self.judge.stopped_cleanly(self.node);
                            let mut opened = self.judge.opened(self.node, lock(&self.slot).incarnation);
                            let budget = self.judge.budget();
                            // What lies on a device that has died could not be left in order.
                            let errors_in = self.world.errors_in(self.node);
                            let is_sound = |directory: Arc<str>| {
                                errors_in.get(&directory) == running.errors_in.get(&directory)
                            };
                            opened.retain(|place| {
                                let directory = place.log_directory(&self.world, self.node);
                                !budget.is_harmed(place) && directory.is_none_or(is_sound)
                            });
                            {
                                let mut slot = lock(&self.slot);
                                slot.left_in_order = (slot.incarnation, opened.iter().cloned().collect());
                            }
                            let plan = self.judge.plan();
                            files_check::after_clean_stop(&self.world, self.node, plan, &opened, &budget);
                        }
                    }
                    return down;
                }
                order = orders.recv() => match order {
                    None => return Duration::MAX,
                    Some(order) if order.stops_for().is_some() => {}
                    Some(order) => {
                        let other = self.fell(&running.process, order);
                        return if down == Duration::MAX { down } else { other };
                    }
                },
                () = &mut bound => {
                    if running.process.alive() {
                        self.world.violate(STOPS, format!("{name} is not down {PATIENCE:?} after SIGTERM"));
                        self.world.kill(&running.process);
                    }
                    return down;
                }
            }
        }
    }

    fn draw(&self, low: u64, high: u64) -> Duration {
        Duration::from_millis(self.world.random().random_range(low..=high))
    }
}

/// What runs as the broker's process.
struct Main {
    world: Arc<World>,
    node: NodeId,
    config: BrokerConfig,
    slot: Arc<Mutex<Slot>>,
    status: watch::Sender<Status>,
    stopped: Arc<Mutex<bool>>,
    disk_errors: u64,
    judge: Arc<Judge>,
    /// How long its start may take.
    bound: Duration,
    lacks: u64,
}

impl Main {
    async fn run(self, env: Arc<dyn Env>, stopping: oneshot::Receiver<()>) {
        let name = self.world.name(self.node).to_owned();
        let begun = self.world.now();
        match Broker::start(env, self.config).await {
            Ok(broker) => {
                let took = Duration::from_nanos(self.world.now() - begun);
                let well = self.judge.is_well_since(self.node, DISKS, begun)
                    && self.world.disk_report(self.node).errors == self.disk_errors;
                if took > self.bound && well {
                    let what = format!("{name} serves only after {took:?}; {:?} are enough", self.bound);
                    self.world.violate(STARTS, what);
                }
                let replicas = broker.replicas().clone();
                let mut slot = lock(&self.slot);
                if let Some((damage, _)) = slot.damage.take()
                    && damage.answer == Answer::Refusal
                {
                    let what = format!("{name} started and did not notice: {}", damage.what);
                    self.world.violate(damage::SAID, what);
                }
                slot.published = Some(Published::of(&replicas));
                (slot.broker, slot.replicas) = (Some(broker), Some(replicas));
                self.judge.look_at_hosting(&slot);
                drop(slot);
                self.world.tell(format!("{name} serves"));
                self.world.set_phase(self.node, Phase::Serving);
                self.judge.restored(self.node, Part::Process);
                self.status.send_replace(Status::Serving);
            }
            Err(error) => {
                self.world.tell(format!("{name} did not start: {error}"));
                let mut slot = lock(&self.slot);
                if slot.damage.is_some() && is_about_damage(&error.to_string()) {
                    slot.refused = true;
                    return;
                }
                drop(slot);
                let report = self.world.disk_report(self.node);
                if (report.errors, report.lacks) == (self.disk_errors, self.lacks) {
                    let what = format!("{name} did not start on a disk that gave no error: {error}");
                    self.world.violate(STARTS, what);
                }
                return;
            }
        }
        if stopping.await.is_err() {
            return;
        }
        let broker = lock(&self.slot).broker.take();
        if let Some(broker) = broker {
            broker.stop().await;
            *lock(&self.stopped) = true;
        }
    }
}

/// Whether a refusal says what is wrong and what to do.
fn is_about_damage(refusal: &str) -> bool {
    // So little is left of the metadata log that no cluster is in it.
    if refusal.contains("restore them (the directory cluster-metadata)") {
        return true;
    }
    if refusal.contains("meta.properties") {
        return true;
    }
    let names_a_file = refusal.contains("/journal") || refusal.contains("/cluster-metadata/");
    names_a_file
        && (refusal.contains("Restore it, or make the file") || refusal.contains("put the file back"))
}
