//! Histories as a whole: what is excused, what is counted, what it costs.

use std::collections::{BTreeMap, BTreeSet};

use crate::testing::{Story, view};
use crate::{Checker, CheckerConfig, Event, EventKind, Outcome, Partition, Seen, Written, laws};

#[test]
fn every_law_has_a_name_of_its_own() {
    let names: BTreeSet<_> = laws::NAMES.iter().collect();
    assert_eq!(names.len(), laws::NAMES.len());
}

#[test]
fn a_deleted_topic_is_forgotten_and_its_namesake_begins_anew() {
    let story = Story::new().topic("t").produce(1, 1, "t", 0, &[1]).acked(1, 0, 0);
    let story = story.event(EventKind::TopicDeletionAsked { topic: "t".into(), topic_id: 1 });
    let story = story.fetched(9, "t", 0, &[], 0).any_topic("t", 2, true);
    story.produce(1, 2, "t", 0, &[2]).acked(2, 0, 0).fetched(8, "t", 0, &[(0, 2)], 1).holds();
}

#[test]
fn a_topic_that_is_announced_again_keeps_its_history() {
    let story = Story::new().topic("t").produce(1, 1, "t", 0, &[1]).acked(1, 0, 0).topic("t");
    story.produce(1, 2, "t", 0, &[2]).acked(2, 0, 0).broken("one_value_per_offset");
}

#[test]
fn the_summary_counts() {
    let story =
        Story::new().topic("t").produce(1, 1, "t", 0, &[1, 2]).acked(1, 0, 0).produce(1, 2, "t", 0, &[3]);
    let story = story.acked(2, 0, 2).fetched(9, "t", 0, &[(0, 1), (1, 2)], 3).shows(1, view(3, 3, 3));
    let summary = story.recovered("t", 0, &[(0, 1), (1, 2), (2, 3)]).holds();
    assert_eq!((summary.acknowledged, summary.acknowledged_records), (2, 3));
    assert_eq!((summary.records_read, summary.records_recovered, summary.unconfirmed), (2, 3, 1));
    assert_eq!((summary.events, summary.views), (9, 1));
}

/// A history of the size of a seed: 6,000 acknowledged batches of 10 records, each record read six times.
fn of_a_seed() -> Vec<Event> {
    let hash = |value: u64| value.wrapping_mul(0x9e37_79b9);
    let mut events = vec![EventKind::TopicCreated {
        topic: "t".into(),
        topic_id: 1,
        partitions: 4,
        replication_factor: 1,
        synced: true,
        dense: true,
        configs: BTreeMap::new(),
    }];
    for op in 0..6000u64 {
        let at = Partition::new("t", (op % 4) as i32);
        let values = op * 10..op * 10 + 10;
        let records = values.clone().map(|value| Written { value, hash: hash(value), time: 0 }).collect();
        events.push(EventKind::ProduceInvoked {
            producer: 1,
            op,
            at: at.clone(),
            records,
            bytes: 1000,
            stored_most: 1500,
            producer_id: 1,
            producer_epoch: 0,
            base_sequence: 0,
            acks: -1,
        });
        events.push(EventKind::ProduceSent { op, attempt: 0, connection: 1, by_name: false });
        let base_offset = (op / 4 * 10) as i64;
        let outcome = Outcome::Acked { base_offset, log_append_time: -1, log_start: 0 };
        events.push(EventKind::ProduceReturned { op, attempt: 0, outcome });
        for consumer in 0..6 {
            let seen = |(index, value): (usize, u64)| Seen {
                offset: base_offset + index as i64,
                value,
                hash: hash(value),
                time: 0,
                created: true,
                sent_in: 0,
                stored_in: 0,
            };
            events.push(EventKind::Fetched {
                consumer,
                at: at.clone(),
                by_name: false,
                invoked_ns: 0,
                session: 0,
                session_epoch: -1,
                from: base_offset,
                records: values.clone().enumerate().map(seen).collect(),
                next: base_offset + 10,
                high_watermark: base_offset + 10,
                last_stable_offset: base_offset + 10,
                log_start: 0,
            });
        }
    }
    events.into_iter().enumerate().map(|(time, kind)| Event { time_ns: time as u64, kind }).collect()
}

#[test]
#[expect(clippy::disallowed_methods, reason = "measures real time")]
fn a_seed_is_judged_in_less_than_a_tenth_of_a_second() {
    let events = of_a_seed();
    let begun = std::time::Instant::now();
    let mut checker = Checker::new(CheckerConfig::default());
    for event in &events {
        checker.observe(event).unwrap();
    }
    let summary = checker.finish().unwrap();
    let took = begun.elapsed();
    assert_eq!((summary.acknowledged, summary.records_read, summary.unconfirmed), (6000, 360_000, 0));
    // The bar is for an idle machine; a loaded one gets ten times as long.
    assert!(took.as_millis() < 1000, "{} events in {took:?}", events.len());
}
