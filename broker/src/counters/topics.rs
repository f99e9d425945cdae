//! Counters by topic, and of requests that wait in purgatory.
//!
//! A replica resolves its topic's counters when it is made. Those of a topic that is gone are added to a common
//! remainder, so that the broker's totals never go back.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use gracchus_core::{PartitionIndex, TopicId};

use gracchus_common::cells::{Counter, Gauge};

/// Kafka's BrokerTopicMetrics of one topic.
#[derive(Debug, Default)]
pub(crate) struct TopicMetrics {
    pub(crate) messages_in: Counter,
    pub(crate) bytes_in: Counter,
    pub(crate) bytes_out: Counter,
    pub(crate) produce_requests: Counter,
    pub(crate) fetch_requests: Counter,
    pub(crate) failed_produce_requests: Counter,
    pub(crate) failed_fetch_requests: Counter,
    /// Produces that wait for the disk.
    pub(crate) waiting_produces: Gauge,
}

/// The counters of a [`TopicMetrics`] at one moment, in the order of [`TopicMetrics::NAMES`].
pub(crate) type TopicCounts = [u64; 7];

impl TopicMetrics {
    /// Name behind `kafka_server_brokertopicmetrics_`, and help.
    pub(crate) const NAMES: [(&'static str, &'static str); 7] = [
        ("messagesin", "Records that were accepted for appending."),
        ("bytesin", "Bytes of record batches that were accepted for appending."),
        ("bytesout", "Bytes of record batches that were read for consumers."),
        ("totalproducerequests", "Partitions in produce requests."),
        ("totalfetchrequests", "Partitions in fetch requests."),
        ("failedproducerequests", "Partitions in produce requests that were refused."),
        ("failedfetchrequests", "Partitions in fetch requests that ended in an error."),
    ];

    pub(crate) fn read(&self) -> TopicCounts {
        [
            self.messages_in.get(),
            self.bytes_in.get(),
            self.bytes_out.get(),
            self.produce_requests.get(),
            self.fetch_requests.get(),
            self.failed_produce_requests.get(),
            self.failed_fetch_requests.get(),
        ]
    }
}

/// What the replica manager counts.
#[derive(Debug, Default)]
pub(crate) struct ReplicaMetrics {
    topics: Mutex<Topics>,
    /// Fetches that wait for records.
    pub(crate) waiting_fetches: Gauge,
    /// Requests for partitions that are not here.
    pub(crate) elsewhere: TopicMetrics,
    unopened: Mutex<Arc<UnopenedLogSizes>>,
}

/// A log that nobody has opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct UnopenedLogSize {
    pub(crate) bytes: u64,
    pub(crate) segments: usize,
}

/// Logs that nobody has opened, as far as somebody has looked.
pub(crate) type UnopenedLogSizes = BTreeMap<(TopicId, PartitionIndex), UnopenedLogSize>;

#[derive(Debug, Default)]
struct Topics {
    by_name: BTreeMap<Arc<str>, Arc<TopicMetrics>>,
    gone: TopicCounts,
    /// With so many names it is time to look which of them nobody counts for any more.
    most: usize,
}

/// So many names may be forgotten ones.
const FORGOTTEN: usize = 64;

impl Topics {
    /// Lets go of topics that no replica counts for any more.
    fn prune(&mut self) {
        let Self { by_name, gone, most } = self;
        by_name.retain(|_, counters| {
            let kept = Arc::strong_count(counters) > 1;
            if !kept {
                add(gone, counters.read());
            }
            kept
        });
        *most = 2 * by_name.len() + FORGOTTEN;
    }
}

impl ReplicaMetrics {
    /// The counters of `name`, to be kept by who needs them often.
    pub(crate) fn topic(&self, name: &Arc<str>) -> Arc<TopicMetrics> {
        let mut topics = self.locked();
        // Also where nobody ever reads the metrics: topics may come and go without end.
        if topics.by_name.len() >= topics.most {
            topics.prune();
        }
        topics.by_name.entry(name.clone()).or_default().clone()
    }

    /// All topics by name, and the broker's totals. Lets go of topics that no replica counts for any more.
    pub(crate) fn read(&self) -> (Vec<(Arc<str>, TopicCounts)>, TopicCounts) {
        let mut topics = self.locked();
        topics.prune();
        let Topics { by_name, gone, .. } = &mut *topics;
        let topics: Vec<_> = by_name.iter().map(|(name, counters)| (name.clone(), counters.read())).collect();
        let mut total = *gone;
        add(&mut total, self.elsewhere.read());
        topics.iter().for_each(|(_, counts)| add(&mut total, *counts));
        (topics, total)
    }

    /// These are known now, and no others.
    pub(crate) fn rest(&self, logs: UnopenedLogSizes) {
        *self.unopened.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(logs);
    }

    /// Logs that nobody had opened at the last look. Some may be open now.
    pub(crate) fn unopened(&self) -> Arc<UnopenedLogSizes> {
        self.unopened.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Produces that wait for the disk.
    pub(crate) fn waiting_produces(&self) -> usize {
        self.locked().by_name.values().map(|counters| counters.waiting_produces.get()).sum()
    }

    fn locked(&self) -> MutexGuard<'_, Topics> {
        self.topics.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn add(sum: &mut TopicCounts, counts: TopicCounts) {
    sum.iter_mut().zip(counts).for_each(|(sum, count)| *sum += count);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_total_does_not_go_back_when_a_topic_goes() {
        let metrics = ReplicaMetrics::default();
        let name: Arc<str> = "t".into();
        let (one, same) = (metrics.topic(&name), metrics.topic(&name));
        one.messages_in.add(2);
        same.messages_in.add(3);
        metrics.elsewhere.failed_fetch_requests.add(1);
        assert_eq!(metrics.read(), (vec![(name.clone(), [5, 0, 0, 0, 0, 0, 0])], [5, 0, 0, 0, 0, 0, 1]));
        drop((one, same));
        assert_eq!(metrics.read(), (vec![], [5, 0, 0, 0, 0, 0, 1]));
        metrics.topic(&name).messages_in.add(1);
        assert_eq!(metrics.read().1[0], 6);
    }

    #[test]
    fn topics_that_come_and_go_are_let_go_although_nobody_reads() {
        let metrics = ReplicaMetrics::default();
        let kept = metrics.topic(&"kept".into());
        for number in 0..10_000 {
            metrics.topic(&format!("t{number}").into()).messages_in.add(1);
        }
        kept.messages_in.add(1);
        assert!(metrics.locked().by_name.len() <= 2 * FORGOTTEN, "{}", metrics.locked().by_name.len());
        assert_eq!(
            metrics.read(),
            (vec![("kept".into(), [1, 0, 0, 0, 0, 0, 0])], [10_001, 0, 0, 0, 0, 0, 0])
        );
    }
}
