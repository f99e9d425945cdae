//! The broker's own configuration file, as the swarm draws it.

use std::collections::BTreeMap;

use rand::{Rng, rngs::SmallRng};

use super::scaled;

/// What the file says besides names and places.
pub(super) fn draw(random: &mut SmallRng) -> BTreeMap<String, String> {
    let mut properties = BTreeMap::new();
    let mut set = |key: &str, value: u64| properties.insert(key.to_owned(), value.to_string());
    set("log.segment.bytes", scaled(random, 32 << 10, 2 << 20));
    set("log.index.interval.bytes", random.random_range(0..=8_192));
    let checkpoints =
        if random.random_bool(0.2) { scaled(random, 50, 500) } else { scaled(random, 500, 30_000) };
    set("log.flush.offset.checkpoint.interval.ms", checkpoints);
    set("log.retention.check.interval.ms", scaled(random, 100, 1_500));
    set("log.segment.delete.delay.ms", scaled(random, 10, 1_500));
    set("producer.id.expiration.check.interval.ms", scaled(random, 100, 20_000));
    if random.random_bool(0.3) {
        set("max.incremental.fetch.session.cache.slots", random.random_range(0..=4));
    }
    if random.random_bool(0.3) {
        let longest = random.random_range(1 << 20..=4 << 20);
        set("socket.request.max.bytes", longest);
        set("queued.max.request.bytes", longest * random.random_range(1..=3));
    }
    if random.random_bool(0.3) {
        set("connections.max.idle.ms", scaled(random, 3_000, 60_000));
    }
    if random.random_bool(0.3) {
        set("fetch.max.bytes", scaled(random, 1_024, 1 << 20));
    }
    properties
}
