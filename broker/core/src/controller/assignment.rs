//! Which brokers hold a new topic's partitions. Never: two replicas of one partition on one broker.

use super::Image;
use crate::BrokerId;

/// Replicas for `partitions` partitions, spread round robin over the registered brokers that have a log directory online, from the `start`th on (any
/// number, drawn by the caller). The first replica of each is its preferred leader; the distance of the followers
/// from it grows with every round, so that the load of a lost broker goes to all others. `None` when there are fewer
/// brokers than `replication_factor`, or it is not positive.
pub fn assign_replicas(
    image: &Image,
    partitions: usize,
    replication_factor: usize,
    start: u64,
) -> Option<Vec<Vec<BrokerId>>> {
    let usable = image.brokers.values().filter(|broker| broker.has_room());
    let mut brokers: Vec<BrokerId> = usable.map(|broker| broker.id).collect();
    if brokers.is_empty() {
        // A topic can still be created: it gets its directories when a broker starts with one.
        brokers = image.brokers.keys().copied().collect();
    }
    let count = brokers.len();
    if replication_factor == 0 || replication_factor > count {
        return None;
    }
    let start = (start % count as u64) as usize;
    let replicas = |partition: usize| {
        let leader = start + partition;
        let shift = if count > 1 { (partition / count) % (count - 1) } else { 0 };
        let follower = |nth: usize| brokers[(leader + 1 + (shift + nth) % (count - 1)) % count];
        let followers = (0..replication_factor - 1).map(follower);
        std::iter::once(brokers[leader % count]).chain(followers).collect()
    };
    Some((0..partitions).map(replicas).collect())
}

#[cfg(test)]
mod tests {
    use std::{
        collections::{BTreeMap, BTreeSet},
        sync::Arc,
    };

    use proptest::prelude::*;

    use super::*;
    use crate::controller::Broker;

    fn cluster(size: usize) -> Image {
        let broker =
            |id| Broker { id, epoch: 0, listeners: vec![], directories: vec![], failed: vec![], rack: None };
        let brokers = (1..=size as i32).map(|id| (BrokerId(id), Arc::new(broker(BrokerId(id))))).collect();
        Image { brokers, ..Image::default() }
    }

    #[test]
    fn a_single_broker_takes_everything() {
        assert_eq!(assign_replicas(&cluster(1), 3, 1, 7), Some(vec![vec![BrokerId(1)]; 3]));
        assert_eq!(assign_replicas(&cluster(1), 3, 2, 7), None);
        assert_eq!(assign_replicas(&cluster(1), 3, 0, 7), None);
        assert_eq!(assign_replicas(&cluster(0), 1, 1, 7), None);
    }

    proptest! {
        #[test]
        fn replicas_differ_and_leaders_are_spread(size in 1usize..9, partitions in 0usize..40, factor in 1usize..9, start: u64) {
            let assignment = assign_replicas(&cluster(size), partitions, factor, start);
            prop_assert_eq!(assignment.is_some(), factor <= size);
            let mut led: BTreeMap<BrokerId, usize> = BTreeMap::new();
            for replicas in assignment.unwrap_or_default() {
                prop_assert_eq!(replicas.len(), factor);
                prop_assert_eq!(replicas.iter().collect::<BTreeSet<_>>().len(), factor);
                *led.entry(replicas[0]).or_default() += 1;
            }
            let most = led.values().max().copied().unwrap_or(0);
            prop_assert!(most <= partitions.div_ceil(size));
        }
    }
}
