//! Faults of the wires: between a broker and all machines of clients, or between two brokers and nobody else.
//!
//! A fault is one of the plan's; here it becomes what is wrong with single directions between machines. Never: a wire that
//! the fault does not name; a fault that [`Struck::mend`] leaves behind.

use gracchus_workload::scenario::{Direction, Fault};
use rand::{Rng, rngs::SmallRng, seq::IndexedRandom};

use crate::world::{LinkFaults, Nanos, NodeId, World};

/// The smallest message that is held: no handshake, no confirmation.
const HELD: usize = 60;

/// One direction between two machines.
pub type Path = (NodeId, NodeId);

/// A fault of wires that lasts.
#[derive(Debug, Clone)]
pub struct Struck {
    what: What,
    paths: Vec<Path>,
}

#[derive(Debug, Clone, Copy)]
enum What {
    Cut,
    /// Microseconds at most.
    Delay(u64),
    /// How often a segment is lost.
    Loss(f64),
}

impl Struck {
    /// It is over.
    pub fn mend(&self, world: &World) {
        for (from, to) in &self.paths {
            world.link_faults(*from, *to, |link| match self.what {
                What::Cut => link.cut = false,
                What::Delay(_) => link.delay_us = 0,
                What::Loss(_) => link.loss = 0.0,
            });
        }
    }
}

/// The machine of broker `number`.
fn broker(number: u32) -> NodeId {
    NodeId(number as usize - 1)
}

/// Both directions between `node` and each machine at the other end: broker `peer`, or all `clients`.
fn paths(node: NodeId, peer: Option<u32>, direction: Direction, clients: &[NodeId]) -> Vec<Path> {
    let peer = peer.map(broker);
    let others = peer.as_ref().map_or(clients, std::slice::from_ref);
    let both = others.iter().flat_map(|other| [(node, *other), (*other, node)]);
    both.filter(|(from, _)| match direction {
        Direction::Both => true,
        Direction::From => *from == node,
        Direction::To => *from != node,
    })
    .collect()
}

/// Does a cut, a delay or a loss to the wires that it names; `None` if `fault` is none of these.
pub fn strike(world: &World, fault: &Fault, clients: &[NodeId]) -> Option<Struck> {
    let (what, node, peer, direction) = match *fault {
        Fault::Cut { node, direction, peer } => (What::Cut, node, peer, direction),
        Fault::Delay { node, extra_ms, direction, peer } => {
            (What::Delay(extra_ms * 1_000), node, peer, direction)
        }
        Fault::Loss { node, per_mille, direction, peer } => {
            (What::Loss(f64::from(per_mille) / 1_000.0), node, peer, direction)
        }
        _ => return None,
    };
    let paths = paths(broker(node), peer, direction, clients);
    for (from, to) in &paths {
        world.link_faults(*from, *to, |link| match what {
            What::Cut => link.cut = true,
            What::Delay(microseconds) => link.delay_us = microseconds,
            What::Loss(share) => link.loss = share,
        });
    }
    Some(Struck { what, paths })
}

/// Holds the next message to the node until then, or now and then the next one from it: of one of `clients`, drawn, or of
/// broker `peer`. Says which machine is at the other end.
pub fn hold(
    world: &World,
    random: &mut SmallRng,
    (node, peer): (u32, Option<u32>),
    clients: &[NodeId],
    until: Nanos,
) -> NodeId {
    let node = broker(node);
    let other = peer.map(broker).unwrap_or_else(|| *clients.choose(random).expect("there are clients"));
    let (from, to) = if random.random_bool(0.75) { (other, node) } else { (node, other) };
    world.link_faults(from, to, |link| link.hold = Some((HELD, until)));
    other
}

/// Nothing is wrong with any wire of `node` to `others` any more.
pub fn heal(world: &World, node: NodeId, others: &[NodeId]) {
    for other in others.iter().filter(|other| **other != node) {
        for (from, to) in [(node, *other), (*other, node)] {
            world.link_faults(from, to, |link| *link = LinkFaults::default());
        }
    }
}
