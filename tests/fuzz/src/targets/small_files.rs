//! The small files of a log directory, and what stands in names.
//!
//! Holds: what is believed is written to a form that is believed and written the same. Input: a byte that chooses the
//! kind, then the contents.

use bytes::Bytes;
use gracchus_core::{LeaderEpoch, Offset, TopicId, TopicPartition, replication::epochs::EpochCache};
use gracchus_log::{checkpoint, directory::fuzzing as directory, fuzzing as log};

use super::seed;
use crate::{Seed, input::Input};

const NODE: i32 = 3;

pub(super) fn run(input: &[u8]) -> bool {
    let mut input = Input(input);
    let kind = input.byte();
    let contents = input.rest();
    let text = String::from_utf8_lossy(contents);
    match kind % 8 {
        0 => stable(contents, |bytes| checkpoint::decode(bytes).map(|offsets| checkpoint::encode(&offsets))),
        1 => epochs(contents),
        2 => stable(contents, |bytes| log::partition_metadata(bytes).ok()),
        3 => stable(contents, directory::clean_marker),
        4 => {
            let read = |bytes: &[u8]| {
                let text = std::str::from_utf8(bytes).expect("a text");
                Some(directory::meta_properties(text, NODE).ok()?.into_bytes().into())
            };
            stable(text.as_bytes(), read)
        }
        5 => same(&text, log::log_directory_name(&text)),
        6 => same(&text, log::file_name(&text, "log")),
        _ => text.parse::<TopicId>().is_ok_and(|id| {
            assert_eq!(id.to_string().parse(), Ok(id));
            true
        }),
    }
}

/// Reads, writes, reads and writes.
fn stable(contents: &[u8], read_and_write: impl Fn(&[u8]) -> Option<Bytes>) -> bool {
    let Some(written) = read_and_write(contents) else { return false };
    assert_eq!(read_and_write(&written), Some(written.clone()), "what was written is not read the same");
    true
}

/// A name that is taken for ours is exactly the one that we would give.
fn same(name: &str, ours: Option<String>) -> bool {
    let Some(ours) = ours else { return false };
    assert_eq!(name, ours);
    true
}

fn epochs(contents: &[u8]) -> bool {
    let Ok(mut cache) = EpochCache::decode(contents) else { return false };
    assert_eq!(EpochCache::decode(&cache.encode()).as_ref(), Ok(&cache));
    for epoch in [-1, 0, 5, i32::MAX] {
        let (found, _) = cache.end_offset_for(LeaderEpoch(epoch), Offset(i64::MAX));
        assert!(found.0 <= epoch, "an epoch above the one that was asked for");
        cache.epoch_at(Offset(i64::from(epoch)));
    }
    cache.truncate_from_start(Offset(5));
    cache.truncate_from_end(Offset(50));
    cache.assign(LeaderEpoch(7), Offset(20));
    assert_eq!(EpochCache::decode(&cache.encode()), Ok(cache));
    true
}

pub(super) fn seeds() -> Vec<Seed> {
    let id = TopicId(uuid::Uuid::from_u128(0x0123_4567_89ab_cdef_0123_4567_89ab_cdef));
    let offsets = checkpoint::Offsets::from(
        [("a", 0, 5), ("a.b", 12, 1 << 40)]
            .map(|(topic, partition, offset)| (TopicPartition::new(topic, partition), Offset(offset))),
    );
    let mut cache = EpochCache::new();
    [(0, 0), (3, 10), (7, 60)].into_iter().for_each(|(epoch, start)| {
        cache.assign(LeaderEpoch(epoch), Offset(start));
    });
    let marker = format!(
        r#"{{"version":1,"logs":[{{"topic_id":"{}","topic":"a.b","partition":4,"log_start":1,"log_end":30,"active_segment":20,"active_bytes":512}}]}}"#,
        id.0
    );
    let meta = format!(
        "#\nversion=1\ncluster.id=abc\nnode.id={NODE}\ndirectory.id={id}\ngracchus.format.version=1\nx=y\n"
    );
    let input = |kind: u8, contents: &[u8]| [&[kind], contents].concat();
    vec![
        seed("offsets", input(0, &checkpoint::encode(&offsets))),
        seed("epochs", input(1, &cache.encode())),
        seed("partition-metadata", input(2, format!("version: 0\ntopic_id: {id}").as_bytes())),
        seed("clean-marker", input(3, marker.as_bytes())),
        seed("meta-properties", input(4, meta.as_bytes())),
        seed("log-directory", input(5, b"with-dashes.and_dots-10")),
        seed("segment", input(6, b"00000000000000000042.log")),
        seed("topic-id", input(7, id.to_string().as_bytes())),
    ]
}
