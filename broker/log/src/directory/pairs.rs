//! What a directory writes about itself is read back: `meta.properties` and the clean marker.

use std::collections::BTreeMap;

use gracchus_core::{BrokerId, Offset, TopicId, TopicPartition, properties};
use proptest::prelude::*;
use uuid::Uuid;

use super::{CleanLog, DirectoryOptions, IndexEntries, SealedSegments, marker, meta::Meta};
use crate::LogId;

fn logs() -> impl Strategy<Value = BTreeMap<LogId, CleanLog>> {
    let id = ("[a-zA-Z0-9._-]{1,249}", 0..i32::MAX, any::<u128>()).prop_map(|(topic, index, id)| LogId {
        tp: TopicPartition::new(topic, index),
        topic_id: TopicId(Uuid::from_u128(id)),
    });
    let offset = || (0..i64::MAX).prop_map(Offset);
    let sealed = prop::option::of((any::<usize>(), any::<u64>()));
    let entries = prop::option::of((any::<usize>(), any::<usize>()));
    let log = (offset(), offset(), offset(), any::<u64>(), sealed, entries).prop_map(
        |(log_start, log_end, active_segment, active_bytes, sealed, entries)| CleanLog {
            log_start,
            log_end,
            active_segment,
            active_bytes,
            sealed: sealed.map(|(count, bytes)| SealedSegments { count, bytes }),
            index_entries: entries.map(|(offsets, times)| IndexEntries { offsets, times }),
        },
    );
    prop::collection::btree_map(id, log, 0..20)
}

fn options(node: i32, cluster: Option<String>) -> DirectoryOptions {
    DirectoryOptions { node_id: BrokerId(node), cluster_id: cluster, ..DirectoryOptions::default() }
}

proptest! {
    #[test]
    fn the_clean_marker_reads_back(logs in logs()) {
        prop_assert_eq!(marker::decode(&marker::encode(&logs)), Some(logs));
    }

    #[test]
    fn a_cut_marker_is_none(logs in logs(), at: prop::sample::Index) {
        let contents = marker::encode(&logs);
        prop_assert_eq!(marker::decode(&contents[..at.index(contents.len())]), None);
    }

    #[test]
    fn meta_properties_read_back_with_keys_that_nobody_knows(
        node in 0..i32::MAX,
        cluster in prop::option::of("[a-zA-Z0-9_-]{1,22}"),
        id: u128,
        others in prop::collection::btree_map("[a-z]{1,8}\\.[a-z]{1,8}\\.later", "[!-~]([ -~]{0,20}[!-~])?", 0..4),
    ) {
        let lines: String = others.iter().map(|(key, value)| properties::line(key, value) + "\n").collect();
        let text = Meta::new(&options(node, cluster.clone()), Uuid::from_u128(id)).encode() + &lines;
        let meta = Meta::parse(&text, &options(node, None)).unwrap();
        prop_assert_eq!((meta.directory_id, &meta.cluster_id), (Uuid::from_u128(id), &cluster));
        let again = meta.encode();
        for line in lines.lines() {
            prop_assert!(again.lines().any(|other| other == line), "{line} was forgotten");
        }
        prop_assert_eq!(Meta::parse(&again, &options(node, cluster)).unwrap(), meta);
    }
}
