//! Power losses that are aimed at what a disk is doing, not at a time: between two steps of one submission, while several
//! syncs are under way, inside a roll, a cut, a replay, a snapshot, a start, a stop.
//!
//! The draw takes some of the power losses and kills that a plan has anyway and gives them a moment, so that a run has no more of
//! them than before; it has a random stream of its own. What is aimed at strikes at the next such moment behind its time,
//! and not at all if there is none.
//!
//! Never: a moment that the broker tells.

use gracchus_workload::scenario::{Fault, Moment, TimedFault, Trigger};
use rand::{Rng, rngs::SmallRng};

use super::pick;

/// How often each moment is drawn.
const MOMENTS: [(Moment, u32); 10] = [
    (Moment::TwoSyncs, 4),
    (Moment::ThreeSyncs, 2),
    (Moment::BetweenSteps, 4),
    (Moment::Roll, 3),
    (Moment::Truncation, 2),
    (Moment::Replay, 3),
    (Moment::Snapshot, 2),
    (Moment::PartReused, 2),
    (Moment::Checkpoint, 1),
    (Moment::Start, 2),
];

/// Gives some of `faults` a moment.
pub(super) fn draw(random: &mut SmallRng, faults: &mut Vec<TimedFault>) {
    for timed in faults.iter_mut() {
        let chance = match timed.fault {
            Fault::PowerLoss { .. } => 0.4,
            Fault::Kill { .. } => 0.15,
            _ => continue,
        };
        if random.random_bool(chance) {
            let moment = moment(random);
            timed.when = Some(trigger(random, moment));
        }
    }
    // A stop lasts for some steps only: whoever is to meet one comes with it.
    let stops: Vec<(u64, u32)> = faults
        .iter()
        .filter(|timed| matches!(timed.fault, Fault::Restart { .. }))
        .map(|timed| (timed.at_ms, timed.fault.node()))
        .collect();
    for (at_ms, node) in stops {
        if random.random_bool(0.6) {
            let fault = *pick(random, &[true, true, false]);
            let fault = if fault { Fault::PowerLoss { node } } else { Fault::Kill { node } };
            let when = Some(trigger(random, Moment::Stop));
            faults.push(TimedFault { at_ms, for_ms: random.random_range(10..=200), fault, when });
        }
    }
    faults.sort_by_key(|timed| timed.at_ms);
}

fn moment(random: &mut SmallRng) -> Moment {
    let mut drawn = random.random_range(0..MOMENTS.iter().map(|(_, weight)| weight).sum());
    for (moment, weight) in MOMENTS {
        if drawn < weight {
            return moment;
        }
        drawn -= weight;
    }
    Moment::BetweenSteps
}

pub(super) fn trigger(random: &mut SmallRng, moment: Moment) -> Trigger {
    // About as many as there are of them in one go, or in a second or two.
    let most = match moment {
        Moment::TwoSyncs | Moment::ThreeSyncs => 30,
        Moment::BetweenSteps => 1_000,
        Moment::Roll | Moment::Snapshot => 40,
        Moment::Truncation | Moment::Checkpoint | Moment::PartReused => 12,
        Moment::Replay | Moment::Stop => 60,
        Moment::Start => 300,
    };
    let after_us = *pick(random, &[0, 0, 0, 10, 100, 1_000]);
    Trigger { moment, nth: random.random_range(1..=most), after_us }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use rand::SeedableRng;

    use super::*;
    use crate::plan::faults;

    #[test]
    fn every_moment_is_drawn_and_no_power_loss_is_added_but_for_stops() {
        let mut moments = BTreeSet::new();
        for seed in 0..100 {
            let before = faults::draw(&mut SmallRng::seed_from_u64(seed), 60_000);
            let mut after = before.clone();
            draw(&mut SmallRng::seed_from_u64(seed), &mut after);
            let stops =
                after.iter().filter(|timed| timed.when.is_some_and(|when| when.moment == Moment::Stop));
            assert_eq!(after.len(), before.len() + stops.count());
            moments.extend(after.iter().filter_map(|timed| Some(timed.when?.moment)));
        }
        assert_eq!(moments, BTreeSet::from(Moment::ALL));
    }
}
