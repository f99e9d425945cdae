//! Law: segments and their indexes are as their topic's settings ask. A segment of several batches has at most `segment.bytes`,
//! an index at most `segment.index.bytes`; a batch has an entry in the offset index when, and only when, more than
//! `index.interval.bytes` lie between it and the last entry, and is stored in the codec that `compression.type` names.
//!
//! Source: Kafka's topic configurations. Judged after a clean stop, of the plan's topics, by settings that do not change
//! while the run lasts; and at once where `segment.bytes` became less while a log was being opened. Never: a segment whose setting may have been another when it was written.

use gracchus_workload::{Narrowed, plan::TopicPlan};

use crate::{
    log_format::{Batch, Checked, Place, entries, offset_in_name, walk},
    plan::Plan,
    world::{NodeId, World},
};

/// The law.
pub(crate) const LAW: &str = "segments keep to their limits";

/// Settings that hold all the time; `None` of what may change.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    segment_bytes: Option<u64>,
    index_bytes: Option<u64>,
    interval: Option<u64>,
    /// As batches name it.
    codec: Option<u8>,
}

impl Limits {
    /// Those of a topic.
    pub(crate) fn of(plan: &Plan, topic: &TopicPlan) -> Self {
        let text = |key: &str, broker: &str| {
            if topic.changes.iter().any(|changed| changed == key) {
                return None;
            }
            topic.configs.get(key).cloned().or_else(|| {
                let may_change = plan.later.broker.contains_key(broker)
                    || plan.workload().auditor.as_ref().is_some_and(|auditor| auditor.of_all_per_cent > 0);
                // The auditor changes one of those that are asked for here.
                let changes = may_change && broker == "compression.type";
                (!changes).then(|| plan.scenario.broker.get(broker).cloned().unwrap_or_default())
            })
        };
        let setting = |key: &str, broker: &str, otherwise: u64| {
            text(key, broker)
                .and_then(|text| if text.is_empty() { Some(otherwise) } else { text.parse().ok() })
        };
        let codecs = ["uncompressed", "gzip", "snappy", "lz4", "zstd"];
        let codec = text("compression.type", "compression.type");
        let codec = codec.and_then(|name| codecs.iter().position(|codec| *codec == name));
        let interval = setting("index.interval.bytes", "log.index.interval.bytes", 4_096);
        Self {
            segment_bytes: setting("segment.bytes", "log.segment.bytes", 1 << 30),
            // Recovery makes the index of a segment anew, by an interval that may be shorter than when the segment was written.
            index_bytes: setting("segment.index.bytes", "log.index.size.max.bytes", 10 << 20)
                .filter(|_| interval.is_some()),
            interval,
            codec: codec.map(|codec| codec as u8),
        }
    }

    /// A segment that holds `batches` in `bytes`.
    pub(crate) fn check_segment(&self, name: &str, bytes: usize, batches: &[Batch]) -> Checked<()> {
        if let Some(codec) = self.codec
            && let Some(batch) = batches.iter().find(|batch| batch.codec != codec)
        {
            let (offset, found) = (batch.base_offset, batch.codec);
            return Err(format!("{name}: the batch at offset {offset} has codec {found}, not {codec}"));
        }
        match self.segment_bytes {
            Some(most) if batches.len() > 1 && bytes as u64 > most => {
                Err(format!("{name}: {bytes} bytes in {} batches, segment.bytes is {most}", batches.len()))
            }
            _ => Ok(()),
        }
    }

    /// Either index, with entries of `size` bytes.
    pub(crate) fn check_index_size(&self, name: &str, bytes: &[u8], size: u64) -> Checked<()> {
        match self.index_bytes {
            Some(most) if bytes.len() as u64 > (most / size * size).max(size) => {
                Err(format!("{name}: {} bytes, segment.index.bytes is {most}", bytes.len()))
            }
            _ => Ok(()),
        }
    }

    /// The offset index of a segment that holds `batches`.
    pub(crate) fn check_interval(&self, name: &str, bytes: &[u8], batches: &[Batch]) -> Checked<()> {
        let Some(interval) = self.interval else { return Ok(()) };
        let mut indexed = entries(name, bytes, 8)?
            .into_iter()
            .map(|entry| u32::from_be_bytes(entry[4..].try_into().expect("four bytes")) as usize);
        let mut since_entry = 0;
        for batch in batches {
            if since_entry > interval {
                since_entry = 0;
                let entry = indexed.next();
                if entry != Some(batch.position) {
                    return Err(format!(
                        "{name}: an entry for the batch at {} is due, index.interval.bytes is {interval}; found: {entry:?}",
                        batch.position
                    ));
                }
            }
            since_entry += batch.length as u64;
        }
        match indexed.next() {
            // An index without entries may be allocated.
            None | Some(0) => Ok(()),
            Some(position) => {
                Err(format!("{name}: an entry for {position}, index.interval.bytes is {interval}"))
            }
        }
    }
}

/// Judges the files of a log whose `segment.bytes` became less: what was written since the change is bound by it.
pub(crate) fn after_change(world: &World, nodes: &[NodeId], narrowed: &Narrowed) {
    let place = Place { topic: narrowed.topic.clone(), topic_id: narrowed.topic_id, partition: 0 };
    for node in nodes {
        let Ok(Some(directory)) = place.directory(world, *node) else { continue };
        for (path, bytes) in world.files_ending(*node, &directory, ".log") {
            let batches = walk(&path, &bytes, offset_in_name(&path, ".log").unwrap_or(0), None);
            let checked = batches.and_then(|batches| check_since(&path, &batches, narrowed));
            if let Err(problem) = checked {
                world.violate(LAW, problem);
            }
        }
    }
}

fn check_since(path: &str, batches: &[Batch], narrowed: &Narrowed) -> Checked<()> {
    let Narrowed { segment_bytes, since, .. } = narrowed;
    let beyond = |batch: &&Batch| {
        batch.base_offset >= *since
            && batch.position > 0
            && (batch.position + batch.length) as u64 > *segment_bytes
    };
    match batches.iter().find(beyond) {
        Some(batch) => Err(format!(
            "{path}: the batch at offset {} ends at {}, segment.bytes is {segment_bytes} since offset {since}",
            batch.base_offset,
            batch.position + batch.length
        )),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batches(count: usize, length: usize) -> Vec<Batch> {
        let batch = |number| Batch {
            position: number * length,
            length,
            base_offset: number as i64,
            last_offset: number as i64,
            leader_epoch: 0,
            max_timestamp: 0,
            codec: 0,
        };
        (0..count).map(batch).collect()
    }

    #[test]
    fn a_segment_that_goes_on_beyond_a_limit_that_became_less_is_found() {
        let narrowed = |since| Narrowed { topic: "t".into(), topic_id: 1, segment_bytes: 250, since };
        check_since("s", &batches(2, 100), &narrowed(0)).unwrap();
        check_since("s", &batches(1, 5_000), &narrowed(0)).unwrap();
        check_since("s", &batches(3, 100), &narrowed(3)).unwrap();
        check_since("s", &batches(3, 100), &narrowed(2)).unwrap_err();
    }

    fn index(positions: &[u32]) -> Vec<u8> {
        positions.iter().flat_map(|at| [7u32.to_be_bytes(), at.to_be_bytes()].concat()).collect()
    }

    #[test]
    fn what_is_too_large_too_dense_or_too_sparse_is_found() {
        let limits =
            Limits { segment_bytes: Some(300), index_bytes: Some(20), interval: Some(150), codec: Some(0) };
        limits.check_segment("s", 300, &batches(3, 100)).unwrap();
        let other = Limits { codec: Some(1), ..limits };
        other.check_segment("s", 300, &batches(3, 100)).unwrap_err();
        limits.check_segment("s", 301, &batches(3, 100)).unwrap_err();
        limits.check_segment("s", 5_000, &batches(1, 5_000)).unwrap();
        limits.check_index_size("i", &[1; 16], 8).unwrap();
        limits.check_index_size("i", &[1; 24], 8).unwrap_err();
        limits.check_index_size("t", &[1; 12], 12).unwrap();
        limits.check_interval("i", &index(&[200, 400]), &batches(5, 100)).unwrap();
        limits.check_interval("i", &index(&[100, 200, 400]), &batches(5, 100)).unwrap_err();
        limits.check_interval("i", &index(&[400]), &batches(5, 100)).unwrap_err();
        limits.check_interval("i", &index(&[200]), &batches(5, 100)).unwrap_err();
        limits.check_interval("i", &[0; 8], &batches(2, 100)).unwrap();
        let unknown = Limits { segment_bytes: None, index_bytes: None, interval: None, codec: None };
        unknown.check_segment("s", 301, &batches(3, 100)).unwrap();
        unknown.check_interval("i", &index(&[100]), &batches(5, 100)).unwrap();
    }
}
