//! What a broker hosts beside what the metadata assign to it, for the law about that. The assignment is read from the whole
//! image: whoever follows it by its differences must come to the same. Which task takes in the metadata makes no difference:
//! whenever a broker has taken in what its image is, it is looked at.
//!
//! Never: a look at a broker that stops, whose replicas follow nothing any more.

use std::sync::Arc;

use gracchus::replica::HostingProbe;
use gracchus_checker::{HostingView, Partition};
use gracchus_core::controller::Image;

use crate::{slot::Slot, world::Nanos};

/// Law: what the metadata say is taken in at once.
pub(crate) const FOLLOWS: &str = "the metadata are followed";

/// A broker that is not put off takes them in within the instant; one that is, soon.
const SOON: Nanos = 1_000_000_000;

/// What is remembered of a node between two looks.
#[derive(Debug, Default)]
pub(crate) struct Followed {
    /// What was looked at last: how often the registry had changed, and the image.
    seen: Option<(u64, Arc<Image>)>,
    /// Since when it has not taken in what its image is.
    behind: Option<Nanos>,
}

/// Which replicas the broker has. `None`: there is no broker that serves, nothing has changed, or it is about to take in what the
/// metadata are. `Err`: it does not, since then.
pub(crate) fn look(
    followed: &mut Followed,
    slot: &Slot,
    now: Nanos,
) -> Result<Option<HostingView>, (Nanos, String)> {
    let (Some(broker), Some(published)) = (&slot.broker, &slot.published) else {
        *followed = Followed::default();
        return Ok(None);
    };
    let version = published.hosting_version();
    let (image, node) = (broker.controller().image(), broker.config().node_id);
    // Who does not follow has a new image, and nothing else is new.
    if followed.seen.as_ref().is_some_and(|(seen, of)| *seen == version && Arc::ptr_eq(of, &image)) {
        return Ok(None);
    }
    let hosting = broker.replicas().hosting();
    if !Arc::ptr_eq(&hosting.image, &image) {
        let since = *followed.behind.get_or_insert(now);
        if now - since > SOON {
            let late = (now - since) / 1_000_000;
            return Err((since, format!("node {} has not taken in its metadata for {late} ms", node.0)));
        }
        return Ok(None);
    }
    let HostingProbe { image, replicas, settled } = hosting;
    *followed = Followed { seen: Some((version, image.clone())), behind: None };
    let mut assigned = Vec::new();
    for topic in image.topics.values() {
        let name: Arc<str> = Arc::from(&*topic.name);
        let ours = topic.numbered().filter(|(_, partition)| partition.replicas.contains(&node));
        assigned.extend(ours.map(|(index, _)| Partition::of(name.clone(), topic.id.0.as_u128(), index.0)));
    }
    let leaving = image.deleted.keys().filter(|id| !settled.contains(id));
    Ok(Some(HostingView {
        node: node.0,
        time_ns: now,
        assigned,
        hosted: replicas.iter().map(|(topic, index)| (topic.0.as_u128(), index.0)).collect(),
        leaving: leaving.map(|id| id.0.as_u128()).collect(),
    }))
}
