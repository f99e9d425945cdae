//! How long things may take where nothing is wrong: derived from the habits of the plan's disks and network.
//!
//! Each bound counts the steps that can stand one behind the other and takes the longest that each may last. A simulated
//! processor takes no time but for what is computed beside the workers, so that waiting is nearly all there is. What a
//! disturbance leaves behind is bounded too: requests are judged from then on.
//!
//! Never: a number that no habit explains, or one that was found by running seeds until none complained.

use std::time::Duration;

use gracchus_workload::plan::LEAST_SEGMENT_BYTES;

use crate::{
    plan::Plan,
    world::{DiskProfile, Nanos, NetworkProfile, SchedulingProfile},
};

const MICROSECOND: Nanos = 1_000;
const MILLISECOND: Nanos = 1_000_000;

/// The simulated TCP sends again after 0.2 s, 0.4 s and 0.8 s: three losses in a row of one segment are as rare as a
/// thousand million requests.
const LOSSES: Nanos = 1_400 * MILLISECOND;
/// The longest pause of the simulated TCP between two attempts, behind a wire that carried nothing.
const RETRANSMISSION: Nanos = 3_000 * MILLISECOND;
/// The largest request or answer of a client, batches beyond its limits included.
const MESSAGE: u64 = 1 << 20;
/// The syncs of a roll, one behind the other: the segment, its two indexes, the producer snapshot with its name, the leader
/// epochs, and the name of the next segment.
const ROLL_SYNCS: u64 = 8;
/// The syncs of a log that is closed: as many, and its share of the checkpoints.
const CLOSE_SYNCS: u64 = 10;
/// Topics that the auditor makes at most.
const MOST_AUDITED: u64 = 8;
/// Partitions of a topic whose name is taken again in the end.
const TAKEN: u64 = 6;
/// Partitions that administrators have made of one topic, and of the one before it, at most.
const MOST_SHARED: u64 = 16;
/// Reads of one partition for a fetch, or for an offset by its time: the index, a block of the segment behind the entry that
/// it names, and its neighbour. An answer that goes on in the next segment costs as many there.
const LOOKUP_READS: u64 = 4;
/// Of a log that is opened, per file: it is listed, opened, read at its end, written anew, synced.
const OPEN_STEPS: u64 = 6;
/// What a recovery reads at once, at least.
const BLOCK: u64 = 64 << 10;
/// What stops the controller and the listeners, and what a start waits for between elections: timers of the broker.
const STOP_TIMERS: Nanos = 1_000 * MILLISECOND;
const START_TIMERS: Nanos = 2_000 * MILLISECOND;
/// A stop lets requests under way end for so long; a client that does not take its answer uses it up.
const STOP_GRACE: Nanos = 5_000 * MILLISECOND;

/// The bounds of a run.
#[derive(Debug, Clone)]
pub(crate) struct Bounds {
    network: NetworkProfile,
    disk: DiskProfile,
    scheduling: SchedulingProfile,
    /// Partitions that the plan's topics may have at most, and those of topics that come and go.
    partitions: u64,
    /// The least `segment.bytes` that a topic can have.
    smallest_segment: u64,
    /// Requests may have to wait for memory.
    short_of_memory: bool,
}

impl Bounds {
    pub(crate) fn of(plan: &Plan) -> Self {
        let workload = plan.workload();
        let grown = workload.grow.as_ref().map_or(0, |grow| grow.limit);
        let planned = workload.topics.iter().map(|topic| topic.partitions.max(grown));
        let churned = workload.churn.as_ref().map_or(0, |churn| churn.limit * churn.partitions.1);
        let made: u32 = workload.recreators.iter().map(|recreator| recreator.partitions.1).sum();
        let audited = workload
            .auditor
            .as_ref()
            .map_or(0, |auditor| MOST_AUDITED * u64::try_from(auditor.num_partitions.max(1)).unwrap_or(1));
        let shared = workload.administrators.as_ref().map_or(0, |_| MOST_SHARED);
        let alone = (workload.bells.len() + workload.sleepers.len()) as u64;
        // Those of two topics of one name, and of the one that is polled, while nobody asks for any other.
        let late = 2 * TAKEN + u64::from(plan.quiet.narrowed) + 1;
        let planned: i32 = planned.sum();
        let planned = u64::try_from(planned).unwrap_or(0);
        let loaded = planned + u64::from(churned + made) + audited + shared + alone;
        Self {
            network: plan.world.network.clone(),
            disk: plan.world.machines[0].disk.clone(),
            scheduling: plan.world.scheduling.clone(),
            partitions: loaded.max(late),
            smallest_segment: smallest_segment(plan),
            short_of_memory: plan.scenario.broker.contains_key("queued.max.request.bytes"),
        }
    }

    fn sync(&self) -> Nanos {
        self.disk.sync_us.1 * MICROSECOND
    }

    fn read(&self) -> Nanos {
        self.disk.read_us * MICROSECOND
    }

    fn write(&self) -> Nanos {
        self.disk.write_us * MICROSECOND
    }

    /// A message there, or back: the window is a fraction of it, and each window costs a round trip.
    fn travel(&self) -> Nanos {
        let NetworkProfile { delay_us, loss, send_buffer, receive_buffer, .. } = &self.network;
        let window = (*send_buffer.min(receive_buffer) as u64).max(1);
        let losses = if *loss > 0.0 { LOSSES } else { 0 };
        (2 * delay_us.1 * MICROSECOND + self.hesitation()) * (1 + MESSAGE / window) + losses
    }

    /// How long a poll, or a call to the disk, is put off at most. One poll in 30 and one call in 20 are, where most are: of
    /// the sixteen steps of a roll, and the polls behind them, hardly two in a whole row of rolls.
    fn hesitation(&self) -> Nanos {
        let SchedulingProfile { polls, calls, longest_us, .. } = self.scheduling;
        if polls + calls == 0 { 0 } else { longest_us * MICROSECOND }
    }

    /// A batch is looked through, and then recompressed.
    fn computed(&self) -> Nanos {
        2 * self.scheduling.compute_us * MICROSECOND
    }

    /// Until a round of one partition is kept: every other one may roll before it, and each roll stands alone.
    pub(crate) fn kept(&self) -> Nanos {
        let roll = ROLL_SYNCS * (self.sync() + self.write()) + 2 * self.hesitation();
        (self.partitions + 1) * (roll + self.computed())
    }

    /// A request that need not wait: there, every partition looked at or kept, in every segment that the largest answer
    /// reaches into, and back.
    pub(crate) fn answer(&self) -> Nanos {
        let segments = self.partitions + MESSAGE / self.smallest_segment;
        let looked = segments * (LOOKUP_READS * (self.read() + self.write()) + self.hesitation());
        2 * self.travel() + looked + self.kept()
    }

    /// The same behind a deadline, while syncs are slow. Where memory is short, what waits for a sync holds what the next
    /// request needs before anybody has read its deadline: there is no bound then.
    pub(crate) fn deadline(&self) -> Nanos {
        if self.short_of_memory { Nanos::MAX } else { self.answer() }
    }

    /// Logs that hold so many files with so many bytes are opened, and checked where that is needed.
    pub(crate) fn open(&self, (files, bytes): (u64, u64)) -> Nanos {
        let each = OPEN_STEPS * (self.read() + self.write() + self.sync()) + self.hesitation();
        files * each + bytes / BLOCK * (self.read() + self.write()) + self.kept()
    }

    /// The same of as much as a run can have written: a segment has four files, and rolls not only when it is full.
    pub(crate) fn open_any(&self) -> Nanos {
        const MOST: u64 = 16 << 20;
        self.open((
            self.partitions * 6 + MOST / self.smallest_segment.min(LEAST_SEGMENT_BYTES.into()) * 4,
            MOST,
        ))
    }

    /// A process serves: the journal is replayed, the metadata read, logs are not opened.
    pub(crate) fn start(&self, holds: (u64, u64)) -> Duration {
        Duration::from_nanos(START_TIMERS + self.open(holds))
    }

    /// A process has ended in order, which had opened so many logs.
    pub(crate) fn stop(&self, logs: u64) -> Duration {
        let closed = (logs + 1) * (CLOSE_SYNCS * (self.sync() + self.write()) + 2 * self.hesitation());
        Duration::from_nanos(STOP_TIMERS + STOP_GRACE + self.travel() + self.kept() + closed)
    }

    /// How long what was written while syncs took `extra` longer keeps the next ones waiting.
    pub(crate) fn after_slow_syncs(&self, extra: Nanos) -> Nanos {
        // One is under way when it ends, one more of each partition was begun with it.
        2 * extra + self.kept()
    }

    /// How long a wire that carried nothing, or lost some, is felt: until the next attempt, and what waited for it.
    pub(crate) fn after_silence(&self) -> Nanos {
        RETRANSMISSION + 2 * self.travel()
    }

    /// How long a wire that took `extra` longer is felt.
    pub(crate) fn after_delay(&self, extra: Nanos) -> Nanos {
        4 * extra + 2 * self.travel()
    }
}

/// What topics set for themselves, what they may be changed to, and what holds for the others, now and later.
fn smallest_segment(plan: &Plan) -> u64 {
    const KEY: &str = "segment.bytes";
    let workload = plan.workload();
    let drawn = !workload.recreators.is_empty()
        || workload.topics.iter().any(|topic| topic.changes.iter().any(|key| key == KEY));
    let of_topics = workload.topics.iter().filter_map(|topic| topic.configs.get(KEY));
    let files = [&plan.scenario.broker, &plan.later.broker];
    let of_brokers = files.into_iter().filter_map(|file| file.get("log.segment.bytes"));
    let set = of_topics.chain(of_brokers).filter_map(|bytes| bytes.parse().ok());
    // Kafka's default.
    let least = set.chain(drawn.then_some(LEAST_SEGMENT_BYTES.into())).min().unwrap_or(1 << 30);
    least.max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bounds_of_drawn_plans_are_worth_something() {
        let mut answers: Vec<Nanos> = (0..200).map(|seed| Bounds::of(&Plan::draw(seed)).answer()).collect();
        answers.sort_unstable();
        assert!(
            answers[100] < 1_250 * MILLISECOND,
            "half of them notice a second or so: {} ns",
            answers[100]
        );
        assert!(answers[199] < 10_000 * MILLISECOND, "{} ns", answers[199]);
    }
}
