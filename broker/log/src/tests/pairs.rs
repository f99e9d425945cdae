//! The small files of a log: what is written is read back, what is cut or impossible is refused.

use bytes::{Bytes, BytesMut};
use gracchus_core::{Offset, TopicId};
use proptest::prelude::*;

use crate::{
    index::{self, IndexEntry, OffsetIndex},
    names, partition_metadata,
    time_index::{self, TimeEntry, TimeIndex},
};

/// Steps to rising pairs, and where a segment begins.
fn entries() -> impl Strategy<Value = (i64, Vec<(i64, i64)>)> {
    (0..i64::MAX / 2, prop::collection::vec((1..1000i64, 1..100_000i64), 0..50))
}

proptest! {
    #[test]
    fn an_offset_index_reads_back((base, steps) in entries()) {
        let (mut offset, mut position, mut file) = (base, 0u64, BytesMut::new());
        let mut written = Vec::new();
        for (offsets, bytes) in steps {
            offset += offsets;
            position += bytes.unsigned_abs();
            written.push(IndexEntry { last_offset: Offset(offset), position });
            written.last().unwrap().encode(Offset(base), &mut file);
        }
        let file = file.freeze();
        let index = OffsetIndex::check(Offset(base), file.clone(), position + 1).unwrap();
        let read: Vec<IndexEntry> = (0..index.len()).map(|number| index.entry(number)).collect();
        prop_assert_eq!(&read, &written);
        prop_assert_eq!(index.bytes(), &file);
        for (number, entry) in written.iter().enumerate() {
            prop_assert_eq!(index.last_where(|other| other.position <= entry.position), Some(*entry));
            let before = number.checked_sub(1).map(|number| written[number]);
            prop_assert_eq!(index.last_where(|other| other.last_offset < entry.last_offset), before);
        }
        if !written.is_empty() {
            prop_assert!(OffsetIndex::check(Offset(base), file.clone(), position).is_err(), "beyond the segment");
            prop_assert!(OffsetIndex::check(Offset(base), file.slice(1..), position + 1).is_err(), "torn");
            let twice = [&file[..], &file[file.len() - index::ENTRY..]].concat();
            prop_assert!(OffsetIndex::check(Offset(base), Bytes::from(twice), position + 1).is_err(), "unsorted");
        }
    }

    #[test]
    fn a_time_index_reads_back((base, steps) in entries()) {
        let (mut offset, mut timestamp, mut file) = (base, 0, BytesMut::new());
        let mut written = Vec::new();
        for (offsets, time) in steps {
            offset += offsets;
            timestamp += time;
            written.push(TimeEntry { timestamp, last_offset: Offset(offset) });
            written.last().unwrap().encode(Offset(base), &mut file);
        }
        let file = file.freeze();
        let index = TimeIndex::check(Offset(base), file.clone(), Offset(offset + 1)).unwrap();
        let read: Vec<TimeEntry> = (0..index.len()).map(|number| index.entry(number)).collect();
        prop_assert_eq!(&read, &written);
        prop_assert_eq!((index.bytes(), index.last()), (&file, written.last().copied()));
        for entry in &written {
            prop_assert_eq!(index.last_where(|other| other.timestamp <= entry.timestamp), Some(*entry));
        }
        if !written.is_empty() {
            prop_assert!(TimeIndex::check(Offset(base), file.clone(), Offset(offset)).is_err(), "beyond the segment");
            prop_assert!(TimeIndex::check(Offset(base), file.slice(1..), Offset(offset + 1)).is_err(), "torn");
            let twice = [&file[..], &file[file.len() - time_index::ENTRY..]].concat();
            prop_assert!(TimeIndex::check(Offset(base), Bytes::from(twice), Offset(offset + 1)).is_err(), "unsorted");
        }
    }

    #[test]
    fn partition_metadata_reads_back(id: u128) {
        let id = TopicId(uuid::Uuid::from_u128(id));
        prop_assert_eq!(partition_metadata::decode(&partition_metadata::encode(id)), Ok(id));
    }

    #[test]
    fn the_name_of_a_file_reads_back(offset in 0..i64::MAX / 2) {
        for kind in [names::LOG, names::INDEX, names::TIME_INDEX, names::SNAPSHOT] {
            let path = names::file(std::path::Path::new("/data/a-0"), Offset(offset), kind);
            let name = path.file_name().unwrap().to_str().unwrap();
            prop_assert_eq!(names::parse(name, kind), Some(Offset(offset)));
        }
    }
}
