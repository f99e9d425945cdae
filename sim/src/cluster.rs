//! The brokers of a run: what is to happen to each, and how far it is.
//!
//! Each has an operator ([`crate::operator`]), which gets its orders here.
//!
//! Never: a broker that is looked at in another way than the others.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use gracchus::config::BrokerConfig;
use gracchus_core::controller::Image;
use gracchus_workload::scenario::{Damaged, Down, InItsPlace};
use tokio::sync::{mpsc, watch};

use crate::{
    bounds::Bounds,
    damage,
    judge::Judge,
    liveness::{self, Condition},
    log_format::Place,
    operator::Operator,
    plan::data_directory,
    slot::Slot,
    world::{NodeId, World, lock},
};

/// How long a start may take, and a clean stop, whatever else is wrong; where nothing is, [`Bounds`] say less.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);
/// How often the operator looks at the disk.
pub(crate) const ROUND: Duration = Duration::from_millis(250);

/// Law: a broker whose disk gives no error starts, within its bound.
pub(crate) const STARTS: &str = "a broker starts";
/// Law: a stop that was asked for ends, within its bound.
pub(crate) const STOPS: &str = "a clean stop ends";

/// What is to happen to a broker; it stays down for the given time.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Order {
    PowerLoss(Duration),
    Kill(Duration),
    /// Down in some way, and then files that can be rebuilt are damaged.
    Rot {
        down: Duration,
        how: Down,
    },
    /// Killed, or without power, and then files that cannot be rebuilt are damaged.
    Damage {
        down: Duration,
        of: Damaged,
        power: bool,
        accept: bool,
    },
    /// Down in some way, and then a log directory is away.
    Away {
        down: Duration,
        directory: u32,
        instead: InItsPlace,
        how: Down,
    },
    /// A clean stop, and then logs are moved by hand.
    Move {
        down: Duration,
        logs: u32,
    },
    /// A clean stop.
    Stop(Duration),
}

impl Order {
    /// For how long it stops the broker cleanly first, if it does.
    pub(crate) fn stops_for(&self) -> Option<Duration> {
        match *self {
            Order::Stop(down)
            | Order::Move { down, .. }
            | Order::Rot { down, how: Down::Stop }
            | Order::Away { down, how: Down::Stop, .. } => Some(down),
            _ => None,
        }
    }
}

/// Whether a broker serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Status {
    Down,
    Starting,
    Serving,
}

/// A broker's configuration file.
#[derive(Debug, Clone)]
pub(crate) struct ConfigFile {
    pub(crate) config: BrokerConfig,
    /// The start from which on it says something else, what, and what that says of topics.
    pub(crate) later: Option<(u64, BrokerConfig, BTreeMap<String, String>)>,
}

/// All brokers of a run.
pub(crate) struct Cluster {
    world: Arc<World>,
    keepers: Vec<Keeper>,
}

struct Keeper {
    node: NodeId,
    orders: mpsc::UnboundedSender<Order>,
    status: watch::Receiver<Status>,
    slot: Arc<Mutex<Slot>>,
}

impl Cluster {
    /// Starts a broker with each of `configs` on the first machines.
    pub(crate) fn start(
        world: &Arc<World>,
        configs: Vec<ConfigFile>,
        judge: &Arc<Judge>,
        bounds: &Bounds,
    ) -> Arc<Self> {
        let start = |(index, config)| {
            let node = NodeId(index);
            let slot = Arc::new(Mutex::new(Slot {
                node,
                incarnation: 0,
                disk_errors: 0,
                broker: None,
                replicas: None,
                published: None,
                damage: None,
                refused: false,
                away: None,
                put_back: false,
                spares: Vec::new(),
                after_death: false,
                left_in_order: Default::default(),
            }));
            let (orders, incoming) = mpsc::unbounded_channel();
            let (status, reported) = watch::channel(Status::Down);
            let (world, judge) = (world.clone(), judge.clone());
            let (slot_, bounds) = (slot.clone(), bounds.clone());
            let operator =
                Operator { world: world.clone(), node, config, slot: slot_, status, judge, bounds };
            world.spawn_runner(operator.run(incoming));
            Keeper { node, orders, status: reported, slot }
        };
        Arc::new(Self { world: world.clone(), keepers: configs.into_iter().enumerate().map(start).collect() })
    }

    pub(crate) fn nodes(&self) -> Vec<NodeId> {
        self.keepers.iter().map(|keeper| keeper.node).collect()
    }

    pub(crate) fn slots(&self) -> Vec<Arc<Mutex<Slot>>> {
        self.keepers.iter().map(|keeper| keeper.slot.clone()).collect()
    }

    /// Waits until an operator has chosen to start without what was damaged, and then for what the broker shows.
    pub(crate) async fn pardoned(&self, judge: &Judge) {
        const LOOKS: Duration = Duration::from_secs(3);
        while !judge.is_pardoned() {
            self.world.pass(ROUND).await;
        }
        self.serving().await;
        self.world.pass(LOOKS).await;
        for keeper in &self.keepers {
            if let Some(path) = damage::still_accepted(&self.world, keeper.node) {
                self.world.violate(
                    damage::SAID,
                    format!("{path} is still there: the next damage is accepted unasked"),
                );
            }
        }
        self.world.tell("the run ends here: what is missing was said");
    }

    /// Tells the keeper of `node` what to do to it; ignored while it is down.
    pub(crate) fn order(&self, node: NodeId, order: Order) {
        let _ = self.keepers[node.0].orders.send(order);
    }

    /// The device under a log directory that is in use dies; says whether there is one.
    pub(crate) fn lose_directory(&self, node: NodeId, number: u32) -> bool {
        let path = data_directory(number);
        let mut slot = lock(&self.keepers[node.0].slot);
        let away = slot.away.as_ref().is_some_and(|away| away.number == number);
        if number < 2 || away || self.world.names_in(node, &path).is_empty() {
            return false;
        }
        slot.after_death = true;
        self.world.disk_faults(node, |faults| faults.dead = Some(path));
        true
    }

    /// It is replaced with all that was on it; a restart brings it into use.
    pub(crate) fn revive_directory(&self, node: NodeId) {
        self.world.disk_faults(node, |faults| faults.dead = None);
        self.order(node, Order::Stop(Duration::from_millis(50)));
    }

    /// The log directory of `node` that is away is to be put back: the broker is restarted for that.
    pub(crate) fn put_back(&self, node: NodeId) {
        let slot = &self.keepers[node.0].slot;
        let away = {
            let mut slot = lock(slot);
            slot.put_back |= slot.away.is_some();
            slot.put_back
        };
        if away {
            self.order(node, Order::Stop(Duration::from_millis(50)));
        }
    }

    /// Whether the broker of `node` uses a log directory; unknown while it starts or stops.
    pub(crate) fn uses(&self, node: NodeId, directory: &str) -> bool {
        let offline = lock(&self.keepers[node.0].slot).offline();
        offline.is_some_and(|offline| offline.iter().all(|path| **path != *directory))
    }

    /// Whether the broker of `node` leads the partition, as its metadata say; unknown while it starts or stops.
    pub(crate) fn leads(&self, node: NodeId, place: &Place) -> bool {
        let slot = lock(&self.keepers[node.0].slot);
        let Some(broker) = &slot.broker else { return false };
        let (image, id) = (broker.controller().image(), broker.config().node_id);
        let topics = image.topics.values().filter(|topic| topic.id.0.as_u128() == place.topic_id);
        let mut partitions = topics.flat_map(|topic| topic.numbered());
        partitions.any(|(index, partition)| index.0 == place.partition && partition.leader == id)
    }

    /// Whether a log directory of `node` comes back with its next start.
    pub(crate) fn waits_for_a_directory(&self, node: NodeId) -> bool {
        let slot = lock(&self.keepers[node.0].slot);
        slot.put_back || slot.after_death
    }

    /// Waits until every broker serves; breaks a law when that takes too long.
    pub(crate) async fn serving(&self) {
        for keeper in &self.keepers {
            let mut status = keeper.status.clone();
            let serving = status.wait_for(|status| *status == Status::Serving);
            tokio::select! {
                biased;
                _ = serving => {}
                () = self.world.pass(PATIENCE) => {
                    let what = format!("{} does not serve after {PATIENCE:?}", self.world.name(keeper.node));
                    self.world.violate(STARTS, what);
                }
            }
        }
    }

    /// What makes the brokers a cluster that is whole: each condition looks at every node.
    pub(crate) fn whole(&self) -> Vec<Condition<'_>> {
        vec![
            Condition::new("every broker serves", STARTS, || self.sick()),
            Condition::new("every broker has the newest image", liveness::CONVERGES, || self.behind()),
            Condition::new("every partition has a leader", liveness::CONVERGES, || self.leaderless()),
            Condition::new("every replica is in sync", liveness::CONVERGES, || self.out_of_sync()),
        ]
    }

    /// A broker that does not serve, has seen an error of its disk since it started, or waits for a log directory.
    fn sick(&self) -> Option<String> {
        self.keepers.iter().find_map(|keeper| {
            let errors = self.world.disk_report(keeper.node).errors;
            let slot = lock(&keeper.slot);
            let status = *keeper.status.borrow();
            let what = if status != Status::Serving {
                format!("is {status:?}")
            } else if errors != slot.disk_errors {
                "has seen an error of its disk".to_owned()
            } else if slot.put_back || slot.after_death {
                "waits for a log directory".to_owned()
            } else {
                return None;
            };
            Some(format!("{} {what}", self.world.name(keeper.node)))
        })
    }

    /// The images of all brokers that serve, by name.
    fn images(&self) -> Vec<(&str, u64, Arc<Image>)> {
        let image = |keeper: &Keeper| {
            let slot = lock(&keeper.slot);
            let controller = slot.broker.as_ref()?.controller();
            Some((self.world.name(keeper.node), *controller.watch().borrow(), controller.image()))
        };
        self.keepers.iter().filter_map(image).collect()
    }

    fn behind(&self) -> Option<String> {
        let images = self.images();
        let newest = images.iter().map(|(_, version, _)| *version).max()?;
        let (name, version, _) = images.iter().find(|(_, version, _)| *version < newest)?;
        Some(format!("that of {name} is at {version}, the newest at {newest}"))
    }

    fn leaderless(&self) -> Option<String> {
        self.images().into_iter().find_map(|(name, _, image)| match image.topics.leaderless_count() {
            0 => None,
            count => Some(format!("by the image of {name} {count} have none")),
        })
    }

    fn out_of_sync(&self) -> Option<String> {
        self.images().into_iter().find_map(|(name, _, image)| {
            image.topics.values().find_map(|topic| {
                let (index, partition) =
                    topic.numbered().find(|(_, it)| it.replicas.iter().any(|id| !it.isr.contains(id)))?;
                let (topic, index) = (&topic.name, index.0);
                let (replicas, isr) = (&partition.replicas, &partition.isr);
                Some(format!("by the image of {name} {topic}-{index} has {replicas:?}, in sync are {isr:?}"))
            })
        })
    }

    /// Gives every broker `order` and waits until each has gone down and serves again.
    pub(crate) async fn cycle(&self, order: Order) {
        self.go_down(order).await;
        self.serving().await;
    }

    /// Gives every broker `order` and waits until each has gone down.
    pub(crate) async fn go_down(&self, order: Order) {
        for keeper in &self.keepers {
            self.order(keeper.node, order);
            let mut status = keeper.status.clone();
            let _ = status.wait_for(|status| *status == Status::Down).await;
        }
    }

    /// Stops every broker cleanly and leaves it down.
    pub(crate) async fn stop(&self) {
        for keeper in &self.keepers {
            self.order(keeper.node, Order::Stop(Duration::MAX));
            let mut status = keeper.status.clone();
            let _ = status.wait_for(|status| *status == Status::Down).await;
        }
    }
}
