//! Knobs of log directories and metadata that no configuration file has, small, so that a minute takes every path.

use std::time::Duration;

use gracchus::config::BrokerConfig;
use rand::{Rng, rngs::SmallRng};
use serde::{Deserialize, Serialize};

use super::{MOST_DIRECTORIES, pick, scaled};

/// See the broker's `DirectoryOptions` and [`BrokerConfig::metadata_snapshot_interval`]; small, so that a minute takes every path.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Knobs {
    pub(super) journal_part_bytes: u64,
    pub(super) journal_min_parts: usize,
    pub(super) journal_max_parts: usize,
    pub(super) journal_alignment: u64,
    pub(super) in_place_bytes: u64,
    pub(super) group_bytes: u64,
    pub(super) journal_in_flight: usize,
    pub(super) in_place_in_flight: usize,
    pub(super) writeback_bytes: u64,
    pub(super) dirty_bytes: u64,
    pub(super) dirty_age_ms: u64,
    pub(super) open_files: usize,
    pub(super) metadata_snapshot_interval: u64,
    /// Producer ids that the controller hands out at once.
    #[serde(default = "thousand")]
    pub(super) producer_ids_per_block: i32,
    /// When a fetch session that is not used gives way.
    #[serde(default = "two_minutes")]
    pub(super) fetch_session_eviction_ms: i64,
    /// Bytes of a produced batch that are looked at on the spot.
    #[serde(default)]
    pub(super) looked_at_on_the_spot: usize,
    /// Log directories.
    #[serde(default = "one")]
    pub(super) directories: u32,
    /// The number of the one that dies in the end, 0 for none.
    #[serde(default)]
    pub(super) dying_directory: u32,
}

fn one() -> u32 {
    1
}

fn thousand() -> i32 {
    1_000
}

fn two_minutes() -> i64 {
    120_000
}

impl Knobs {
    pub(super) fn draw(random: &mut SmallRng) -> Self {
        let min_parts = random.random_range(2..=4);
        let knobs = Self {
            journal_part_bytes: scaled(random, 64 << 10, 2 << 20) / 4_096 * 4_096,
            journal_min_parts: min_parts,
            journal_max_parts: min_parts + random.random_range(0..=4),
            journal_alignment: *pick(random, &[512, 4_096]),
            in_place_bytes: scaled(random, 1 << 10, 256 << 10),
            group_bytes: scaled(random, 4 << 10, 1 << 20),
            journal_in_flight: random.random_range(1..=3),
            in_place_in_flight: random.random_range(1..=3),
            writeback_bytes: scaled(random, 4 << 10, 1 << 20),
            dirty_bytes: scaled(random, 16 << 10, 2 << 20),
            dirty_age_ms: scaled(random, 50, 5_000),
            open_files: random.random_range(4..=64),
            metadata_snapshot_interval: scaled(random, 3, 200),
            producer_ids_per_block: thousand(),
            fetch_session_eviction_ms: two_minutes(),
            looked_at_on_the_spot: scaled(random, 50, 100_000) as usize,
            directories: if random.random_bool(0.3) { random.random_range(2..=MOST_DIRECTORIES) } else { 1 },
            dying_directory: if random.random_bool(0.6) {
                random.random_range(2..=MOST_DIRECTORIES)
            } else {
                0
            },
        };
        if random.random_bool(0.3) { knobs.cramped(random) } else { knobs }
    }

    /// A journal that is short of parts all the time, while segments stay unsynced for as long as it lets them: whether
    /// a part may be used again decides what a power loss takes.
    fn cramped(self, random: &mut SmallRng) -> Self {
        Self {
            journal_part_bytes: scaled(random, 32 << 10, 128 << 10) / 4_096 * 4_096,
            journal_min_parts: 2,
            journal_max_parts: random.random_range(2..=3),
            in_place_bytes: 1 << 20,
            journal_in_flight: 3,
            writeback_bytes: 4 << 20,
            dirty_bytes: scaled(random, 64 << 10, 4 << 20),
            dirty_age_ms: scaled(random, 500, 10_000),
            ..self
        }
    }

    pub(super) fn apply(&self, config: &mut BrokerConfig) {
        config.metadata_snapshot_interval = self.metadata_snapshot_interval;
        config.producer_ids_per_block = self.producer_ids_per_block;
        config.fetch_session_eviction_ms = self.fetch_session_eviction_ms;
        config.looked_at_on_the_spot = self.looked_at_on_the_spot;
        let directory = &mut config.directory;
        directory.journal.part_bytes = self.journal_part_bytes;
        directory.journal.min_parts = self.journal_min_parts;
        directory.journal.max_parts = self.journal_max_parts;
        directory.journal.alignment = self.journal_alignment;
        directory.in_place_bytes = self.in_place_bytes;
        directory.group_bytes = self.group_bytes;
        directory.journal_in_flight = self.journal_in_flight;
        directory.in_place_in_flight = self.in_place_in_flight;
        directory.writeback_bytes = self.writeback_bytes;
        directory.dirty_bytes = self.dirty_bytes;
        directory.dirty_age = Duration::from_millis(self.dirty_age_ms);
        directory.open_files = self.open_files;
    }
}
