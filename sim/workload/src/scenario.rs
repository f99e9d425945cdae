//! Scenario files: one story each, run by the simulator in virtual time and on real processes alike.
//!
//! The model: a scenario is a workload (drawn from a seed, or written out), a list of faults with their times, and what
//! is expected to hold in the end. Times are milliseconds after the load began.
//! Never: anything that only one of the two worlds could understand without saying so.

use serde::{Deserialize, Serialize};

use crate::plan::WorkloadPlan;

/// One file of `scenarios/`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scenario {
    /// Short name, that of the file.
    pub name: String,
    /// The story in Kafka's words, for the reader.
    pub story: String,
    /// Seed of the world, and of the workload where none is written out.
    #[serde(default)]
    pub seed: u64,
    /// Brokers in the cluster.
    #[serde(default = "one")]
    pub nodes: u32,
    /// Length of the load with faults, milliseconds. The heal and the final read come after it.
    pub duration_ms: u64,
    /// What the law checkers must say.
    #[serde(default)]
    pub expect: Expectation,
    /// `server.properties` of every broker, over its defaults.
    #[serde(default)]
    pub broker: std::collections::BTreeMap<String, String>,
    /// Faults in any order.
    #[serde(default)]
    pub faults: Vec<TimedFault>,
    /// The clients; drawn from `seed` when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workload: Option<WorkloadPlan>,
}

fn one() -> u32 {
    1
}

/// What a run of a scenario must end with.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Expectation {
    /// Every law holds.
    #[default]
    Holds,
    /// This law, by its name, is broken: a scenario that tests the tester, or a bug not yet mended.
    Violates(String),
}

/// A fault and when it strikes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TimedFault {
    /// Milliseconds after the load began.
    pub at_ms: u64,
    /// How long it lasts, for those that last; the rest ignore it.
    #[serde(default)]
    pub for_ms: u64,
    /// What happens.
    #[serde(flatten)]
    pub fault: Fault,
    /// Not at that time, but when the disk of the fault's node is next seen doing this. Only the simulator can see that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub when: Option<Trigger>,
}

/// A moment in the life of a disk at which a fault is aimed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Trigger {
    /// What the disk does.
    pub moment: Moment,
    /// It does so for the how manieth time, counted from the fault's own time on, from 1.
    pub nth: u32,
    /// The fault strikes so many microseconds later.
    #[serde(default)]
    pub after_us: u64,
}

/// What a disk can be seen doing, by the files that are opened, read, written, synced, cut, renamed and removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Moment {
    /// A sync begins while another is under way.
    TwoSyncs,
    /// A sync begins while two others are under way.
    ThreeSyncs,
    /// One step of a submission has ended, and another follows.
    BetweenSteps,
    /// A step between the creation of a segment and the sync of its name.
    Roll,
    /// A step of what makes a segment shorter or takes one away.
    Truncation,
    /// A step of a start between its first look into the journal and the end of the journal's replay.
    Replay,
    /// A step that makes a snapshot, of producers or of the metadata.
    Snapshot,
    /// A step of what makes a part of the journal new or ready for use again.
    PartReused,
    /// A step that writes recovery points or log starts.
    Checkpoint,
    /// A step of a process that does not serve yet.
    Start,
    /// A step of a process that was told to stop.
    Stop,
}

impl Moment {
    /// All of them.
    pub const ALL: [Moment; 11] = [
        Moment::TwoSyncs,
        Moment::ThreeSyncs,
        Moment::BetweenSteps,
        Moment::Roll,
        Moment::Truncation,
        Moment::Replay,
        Moment::Snapshot,
        Moment::PartReused,
        Moment::Checkpoint,
        Moment::Start,
        Moment::Stop,
    ];

    /// As in a scenario.
    pub fn name(self) -> &'static str {
        match self {
            Moment::TwoSyncs => "two_syncs",
            Moment::ThreeSyncs => "three_syncs",
            Moment::BetweenSteps => "between_steps",
            Moment::Roll => "roll",
            Moment::Truncation => "truncation",
            Moment::Replay => "replay",
            Moment::Snapshot => "snapshot",
            Moment::PartReused => "part_reused",
            Moment::Checkpoint => "checkpoint",
            Moment::Start => "start",
            Moment::Stop => "stop",
        }
    }
}

/// Which way a network fault works.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Direction {
    /// Both ways.
    #[default]
    Both,
    /// What the node sends.
    From,
    /// What the node is sent.
    To,
}

/// Files of which there is nothing else.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Damaged {
    /// The journal of the first log directory.
    Journal,
    /// The log of the cluster metadata, or their snapshot.
    Metadata,
    /// The vote of the metadata quorum.
    Vote,
    /// What says whose the first log directory is (`meta.properties`).
    Identity,
}

/// What a file in a broker's directories is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FileKind {
    /// `.log`.
    Segment,
    /// `.index` and `.timeindex`.
    Index,
    /// `.snapshot`: the producers of a log.
    Producers,
    /// `leader-epoch-checkpoint`.
    Epochs,
    /// `segment-ages`.
    Ages,
    /// `partition.metadata`.
    PartitionMetadata,
    /// `recovery-point-offset-checkpoint` and `log-start-offset-checkpoint`.
    Checkpoint,
    /// `.kafka_cleanshutdown`.
    CleanMarker,
    /// `meta.properties`.
    Identity,
    /// The parts of the journal.
    Journal,
    /// The log of the cluster metadata, and how far it was synced.
    Metadata,
    /// Their snapshot.
    MetadataSnapshot,
    /// The vote of the metadata quorum.
    Vote,
    /// A directory: creating it, and making its names durable.
    Directory,
}

impl FileKind {
    /// All of them.
    pub const ALL: [FileKind; 14] = [
        FileKind::Segment,
        FileKind::Index,
        FileKind::Producers,
        FileKind::Epochs,
        FileKind::Ages,
        FileKind::PartitionMetadata,
        FileKind::Checkpoint,
        FileKind::CleanMarker,
        FileKind::Identity,
        FileKind::Journal,
        FileKind::Metadata,
        FileKind::MetadataSnapshot,
        FileKind::Vote,
        FileKind::Directory,
    ];
}

/// What is done to a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Doing {
    /// A write, a cut, an allocation, a change of its name.
    Write,
    /// A sync.
    Sync,
    /// A read.
    Read,
}

/// How a broker goes down.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Down {
    /// A clean stop.
    Stop,
    /// `kill -9`.
    #[default]
    Kill,
    /// Without power.
    Power,
}

/// What is found in the place of a log directory that is away.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum InItsPlace {
    /// Nothing: not even the directory.
    Nothing,
    /// An empty directory: a mount point, or a new disk.
    Empty,
    /// A directory that somebody has formatted for this node and cluster: `meta.properties` with a new id.
    Formatted,
}

/// Something that goes wrong. `node` numbers brokers from 1.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Fault {
    /// The machine loses power, unsynced bytes are kept, dropped or torn; it starts again after `for_ms`.
    PowerLoss { node: u32 },
    /// The process is killed (`kill -9`), what it had written is kept; starts again after `for_ms`.
    Kill { node: u32 },
    /// A clean stop; starts again after `for_ms`.
    Restart { node: u32 },
    /// The process stands still for `for_ms`.
    Pause { node: u32 },
    /// Its workers are busy for `for_ms`: every other poll of a task waits for up to `longest_ms`.
    Busy { node: u32, longest_ms: u64 },
    /// Nothing gets through between the node and its clients, or another broker.
    Cut {
        node: u32,
        #[serde(default)]
        direction: Direction,
        /// The broker at the other end; all clients are, where none is named.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        peer: Option<u32>,
    },
    /// Every segment takes `extra_ms` longer.
    Delay {
        node: u32,
        extra_ms: u64,
        #[serde(default)]
        direction: Direction,
        /// The broker at the other end; as for `Cut`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        peer: Option<u32>,
    },
    /// So many segments in a thousand are lost, and sent again by TCP.
    Loss {
        node: u32,
        per_mille: u32,
        #[serde(default)]
        direction: Direction,
        /// The broker at the other end; as for `Cut`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        peer: Option<u32>,
    },
    /// All connections of the node are reset.
    Reset { node: u32 },
    /// The next request (or answer) on some connection of the node is held back for `for_ms`, later ones are not.
    Hold {
        node: u32,
        /// The broker at the other end; as for `Cut`; one client, drawn, is where none is named.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        peer: Option<u32>,
    },
    /// Every disk operation takes `extra_ms` longer.
    SlowDisk { node: u32, extra_ms: u64 },
    /// Syncs alone take `extra_ms` longer; with `segments`, only those of log segments: the backlog lies there.
    SlowSync {
        node: u32,
        extra_ms: u64,
        #[serde(default)]
        segments: bool,
    },
    /// The next sync fails with EIO; with `segments`, the next one of a log segment.
    FailSync {
        node: u32,
        #[serde(default)]
        segments: bool,
    },
    /// The next write fails with EIO.
    FailWrite { node: u32 },
    /// Reads fail with EIO for `for_ms`.
    FailRead { node: u32 },
    /// No space is left for `for_ms`.
    DiskFull { node: u32 },
    /// Files that can be rebuilt (indexes, snapshots) are damaged while the node is down: bits flip, sectors are zeroed
    /// or hold what belongs elsewhere, ends are missing; implies a kill, or what `down` says.
    BitRot {
        node: u32,
        #[serde(default)]
        down: Down,
    },
    /// What cannot be rebuilt is damaged while the node is down; implies a kill, or with `power` a power loss. The broker must
    /// say so; then the operator puts back what was, or with `accept` starts without it where that can be asked for, and the
    /// run ends there.
    Damage {
        node: u32,
        of: Damaged,
        #[serde(default)]
        power: bool,
        #[serde(default)]
        accept: bool,
    },
    /// The next step of this kind on a file of this kind fails with EIO.
    FailFile { node: u32, of: FileKind, doing: Doing },
    /// Writes and syncs of files of this kind take `extra_ms` longer for `for_ms`.
    SlowFile { node: u32, of: FileKind, extra_ms: u64 },
    /// For `for_ms` the process can open no more than `spare` files and sockets besides those that it has open.
    LackOfHandles { node: u32, spare: u64 },
    /// The device under log directory number `directory` is dead for `for_ms`, over all starts in between; a start ends it.
    DirectoryDies { node: u32, directory: u32 },
    /// The node goes down; when it starts again log directory number `directory` is away. After `for_ms` it is put back;
    /// what was found in its place, and has been used, stays in use under another path.
    DirectoryAway { node: u32, directory: u32, instead: InItsPlace, down: Down },
    /// After a clean stop up to `logs` logs are moved by hand from one log directory to another.
    LogsMoved { node: u32, logs: u32 },
    /// The wall clock jumps.
    ClockJump { node: u32, by_ms: i64 },
    /// The wall clock runs fast (positive) or slow, in parts per million, for `for_ms`.
    ClockDrift { node: u32, ppm: i64 },
}

impl Fault {
    /// The number of the broker that it strikes.
    pub fn node(&self) -> u32 {
        match self {
            Fault::PowerLoss { node }
            | Fault::Kill { node }
            | Fault::Restart { node }
            | Fault::Pause { node }
            | Fault::Busy { node, .. }
            | Fault::Cut { node, .. }
            | Fault::Delay { node, .. }
            | Fault::Loss { node, .. }
            | Fault::Reset { node }
            | Fault::Hold { node, .. }
            | Fault::SlowDisk { node, .. }
            | Fault::SlowSync { node, .. }
            | Fault::FailSync { node, .. }
            | Fault::FailWrite { node }
            | Fault::FailRead { node }
            | Fault::DiskFull { node }
            | Fault::BitRot { node, .. }
            | Fault::FailFile { node, .. }
            | Fault::SlowFile { node, .. }
            | Fault::LackOfHandles { node, .. }
            | Fault::DirectoryDies { node, .. }
            | Fault::DirectoryAway { node, .. }
            | Fault::LogsMoved { node, .. }
            | Fault::Damage { node, .. }
            | Fault::ClockJump { node, .. }
            | Fault::ClockDrift { node, .. } => *node,
        }
    }
}

impl Scenario {
    /// The scenario as a file's text.
    pub fn to_text(&self) -> String {
        toml::to_string(self).expect("a scenario is plain data")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_told_story_is_read_and_written_back() {
        let text = r#"
            name = "power-loss-under-load"
            story = "The only broker loses power while producers are in flight; nothing acknowledged is lost."
            duration_ms = 20000
            [[faults]]
            at_ms = 5000
            for_ms = 800
            kind = "power_loss"
            node = 1
            [[faults]]
            at_ms = 9000
            for_ms = 2000
            kind = "cut"
            node = 1
            direction = "from"
            [[faults]]
            at_ms = 9500
            for_ms = 2000
            kind = "loss"
            node = 1
            peer = 2
            per_mille = 20
            [[faults]]
            at_ms = 12000
            kind = "power_loss"
            node = 1
            when = { moment = "roll", nth = 3, after_us = 20 }
        "#;
        let scenario = toml::from_str::<Scenario>(text).unwrap();
        assert_eq!(scenario.expect, Expectation::Holds);
        assert_eq!(scenario.faults[0].fault, Fault::PowerLoss { node: 1 });
        assert_eq!(scenario.faults[1].fault, Fault::Cut { node: 1, direction: Direction::From, peer: None });
        let lost = Fault::Loss { node: 1, per_mille: 20, direction: Direction::Both, peer: Some(2) };
        assert_eq!(scenario.faults[2].fault, lost);
        assert_eq!(scenario.faults[3].when, Some(Trigger { moment: Moment::Roll, nth: 3, after_us: 20 }));
        assert_eq!(toml::from_str::<Scenario>(&scenario.to_text()).unwrap(), scenario);
    }

    #[test]
    fn a_misspelt_key_is_refused() {
        let error =
            toml::from_str::<Scenario>("name='x'\nstory='y'\nduration_ms=1\nexpects='holds'").unwrap_err();
        assert!(error.to_string().contains("expects"), "{error}");
    }
}
