//! What goes wrong and when: the swarm's draw of faults.
//!
//! The draw is dense in what breaks logs: power losses under load, power losses within the recovery from the one
//! before, failing syncs followed by a power loss. It leaves clients enough time in between to get their
//! acknowledgements. What cannot be rebuilt is damaged only where a broker must notice (see [`crate::damage`]). Never: a
//! fault that a single broker's promises do not cover, such as rot in a log segment.

use gracchus_workload::scenario::{
    Damaged, Direction, Doing, Down, Fault, FileKind, InItsPlace, Moment, TimedFault, Trigger,
};
use rand::{Rng, rngs::SmallRng};

use super::{MOST_AWAY, pick};

/// Draws the faults of one broker over `duration_ms`.
pub(super) fn draw(random: &mut SmallRng, duration_ms: u64) -> Vec<TimedFault> {
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
        (random.random_range(100..=3_000), Fault::Cut { node, direction, peer: None })
    });
    some(random, 2, &|random| {
        let direction = *pick(random, &[Direction::Both, Direction::From, Direction::To]);
        let extra_ms = random.random_range(1..=150);
        (random.random_range(300..=4_000), Fault::Delay { node, extra_ms, direction, peer: None })
    });
    some(random, 2, &|random| {
        let (for_ms, per_mille) = (random.random_range(300..=3_000), random.random_range(5..=200));
        (for_ms, Fault::Loss { node, per_mille, direction: Direction::Both, peer: None })
    });
    some(random, 3, &|_| (0, Fault::Reset { node }));
    some(random, 6, &|random| (random.random_range(300..=15_000), Fault::Hold { node, peer: None }));
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
        let hold = Fault::Hold { node, peer: None };
        let fault = pick(random, &[Fault::Kill { node }, Fault::Reset { node }, hold]).clone();
        faults.push(TimedFault { at_ms, for_ms: random.random_range(20..=1_000), fault, when: None });
    }
    faults.sort_by_key(|fault| fault.at_ms);
    faults
}

/// Draws what happens to the log directories of a broker that has several: one after the other, so that at most one is not
/// there.
pub(super) fn draw_directories(random: &mut SmallRng, directories: u32, duration_ms: u64) -> Vec<TimedFault> {
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

/// Draws a failing sync of one kind of file, and a power loss in the life behind the operator's restart: what the kernel dropped
/// is in the page cache until then, and counts as clean.
pub(super) fn draw_dropped(random: &mut SmallRng, duration_ms: u64) -> Vec<TimedFault> {
    const NODE: u32 = 1;
    if !random.random_bool(0.2) {
        return Vec::new();
    }
    let of = *pick(random, &[FileKind::Index, FileKind::Index, FileKind::Segment, FileKind::Producers]);
    let at_ms = random.random_range(3_000..duration_ms - 8_000);
    let lost_ms = at_ms + random.random_range(1_500..=5_000);
    // Behind a checkpoint nobody looks any more at what lies before the recovery points.
    let behind = Trigger {
        moment: Moment::Checkpoint,
        nth: random.random_range(1..=24),
        after_us: random.random_range(10_000..=200_000),
    };
    let when = random.random_bool(0.6).then_some(behind);
    let fault = Fault::FailFile { node: NODE, of, doing: Doing::Sync };
    let fail = TimedFault { when: None, at_ms, for_ms: 0, fault };
    let lose = TimedFault { when, at_ms: lost_ms, for_ms: 100, fault: Fault::PowerLoss { node: NODE } };
    vec![fail, lose]
}

/// Draws when the workers are busy.
pub(super) fn draw_busy(random: &mut SmallRng, duration_ms: u64) -> Vec<TimedFault> {
    const NODE: u32 = 1;
    let one = |random: &mut SmallRng| TimedFault {
        when: None,
        at_ms: random.random_range(1_500..duration_ms - 2_000),
        for_ms: random.random_range(300..=4_000),
        fault: Fault::Busy { node: NODE, longest_ms: random.random_range(1..=20) },
    };
    (0..random.random_range(0..=2)).map(|_| one(random)).collect()
}

/// Draws faults of single kinds of files, and a lack of file handles.
pub(super) fn draw_kinds(random: &mut SmallRng, duration_ms: u64) -> Vec<TimedFault> {
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

/// Draws a sync that hangs, as on a disk that is about to fail, and comes back: over well before all is healed.
pub(super) fn draw_hangs(random: &mut SmallRng, duration_ms: u64) -> Vec<TimedFault> {
    const NODE: u32 = 1;
    let extra_ms = random.random_range(2_000..=12_000);
    let latest = duration_ms.saturating_sub(3 * extra_ms);
    if !random.random_bool(0.25) || latest <= 1_500 {
        return Vec::new();
    }
    let (at_ms, for_ms) = (random.random_range(1_500..latest), random.random_range(5..=200));
    let fault = Fault::SlowSync { node: NODE, extra_ms, segments: random.random_bool(0.3) };
    vec![TimedFault { when: None, at_ms, for_ms, fault }]
}

/// Draws what goes wrong with the wires between brokers: nothing where there is only one.
pub(super) fn draw_links(random: &mut SmallRng, brokers: u32, duration_ms: u64) -> Vec<TimedFault> {
    let mut faults = Vec::new();
    if brokers < 2 {
        return faults;
    }
    for _ in 0..random.random_range(3 * brokers..=6 * brokers) {
        let node = random.random_range(1..=brokers);
        let other = random.random_range(1..brokers);
        let peer = Some(if other < node { other } else { other + 1 });
        // One way more often than both: each end then believes something else of the other.
        let direction = *pick(random, &[Direction::Both, Direction::From, Direction::To]);
        let fault = match random.random_range(0..4) {
            0 => Fault::Cut { node, direction, peer },
            1 => Fault::Delay { node, extra_ms: random.random_range(1..=500), direction, peer },
            2 => Fault::Loss { node, per_mille: random.random_range(5..=300), direction, peer },
            _ => Fault::Hold { node, peer },
        };
        let at_ms = random.random_range(1_500..duration_ms - 2_000);
        faults.push(TimedFault { when: None, at_ms, for_ms: random.random_range(100..=10_000), fault });
    }
    faults
}

/// The name under which a fault is counted.
pub(crate) fn kind(fault: &Fault) -> &'static str {
    match fault {
        Fault::Cut { peer: Some(_), .. } => "cut_between_brokers",
        Fault::Delay { peer: Some(_), .. } => "delay_between_brokers",
        Fault::Loss { peer: Some(_), .. } => "loss_between_brokers",
        Fault::Hold { peer: Some(_), .. } => "hold_between_brokers",
        Fault::PowerLoss { .. } => "power_loss",
        Fault::Kill { .. } => "kill",
        Fault::Restart { .. } => "restart",
        Fault::Pause { .. } => "pause",
        Fault::Busy { .. } => "busy",
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

    #[test]
    fn wires_between_brokers_go_wrong_in_every_way_and_never_from_a_broker_to_itself() {
        let mut drawn = std::collections::BTreeSet::new();
        for seed in 0..100 {
            let random = &mut SmallRng::seed_from_u64(seed);
            assert_eq!(draw_links(random, 1, 60_000), []);
            for TimedFault { fault, .. } in draw_links(random, 3, 60_000) {
                let (peer, direction) = match fault {
                    Fault::Cut { peer, direction, .. }
                    | Fault::Delay { peer, direction, .. }
                    | Fault::Loss { peer, direction, .. } => (peer, Some(format!("{direction:?}"))),
                    Fault::Hold { peer, .. } => (peer, None),
                    _ => panic!("{fault:?}"),
                };
                assert!(
                    peer.is_some_and(|peer| (1..=3).contains(&peer) && peer != fault.node()),
                    "{fault:?}"
                );
                drawn.insert((kind(&fault), direction));
            }
        }
        assert_eq!(drawn.len(), 10, "{drawn:?}");
    }
}
