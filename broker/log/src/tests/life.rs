//! The ordinary life of a log.

use futures_util::FutureExt;
use gracchus_core::controller::Image;
use gracchus_env::Op;

use super::*;
use crate::{inventory, names, partition_metadata};

#[tokio::test]
async fn what_was_appended_is_there_after_a_clean_stop() {
    let machine = Machine::new(1);
    let mut broker = Broker::start(&machine, &config()).await;
    assert!(broker.recovered.clean);
    let mut expected = BytesMut::new();
    for number in 0..100 {
        let sent = batch(1000 * number, 1 + number % 4, 60);
        let offset = broker.append(sent.clone()).await.unwrap();
        let header = BatchHeader::parse(&sent).unwrap().stamp(offset, LeaderEpoch(0));
        expected.extend_from_slice(&header.encode());
        expected.extend_from_slice(&sent[gracchus_core::record::HEADER_LENGTH..]);
    }
    let log_end = broker.view().log_end;
    assert_eq!(broker.contents().await, expected);
    assert!(broker.view().sealed.len() > 2, "segments rolled");
    broker.stop().await;
    let (offsets, times) = dump(&machine);
    assert!(offsets > 20 && times > 20, "{offsets} {times}");

    let mut broker = Broker::start(&machine, &config()).await;
    assert_eq!(broker.recovered, Recovered { clean: true, ..Recovered::default() });
    assert_eq!(broker.view().log_end, log_end);
    assert_eq!(broker.contents().await, expected);
    assert_eq!(broker.append(batch(1_000_000, 1, 60)).await, Ok(log_end));
    broker.stop().await;
    dump(&machine);
}

#[tokio::test]
async fn the_files_are_named_as_kafka_names_them() {
    let machine = Machine::new(2);
    let mut broker = Broker::start(&machine, &config()).await;
    broker.log.assign_epoch(LeaderEpoch(4)).await.unwrap();
    broker.append_in(LeaderEpoch(4), batch(7, 3, 10)).await.unwrap();
    broker.stop().await;
    assert_eq!(
        machine.list(&directory_path().join("orders-3")),
        [
            "00000000000000000000.index",
            "00000000000000000000.log",
            "00000000000000000000.timeindex",
            "00000000000000000003.snapshot",
            "leader-epoch-checkpoint",
            "partition.metadata",
        ]
    );
    assert_eq!(machine.edit(&path("leader-epoch-checkpoint"), |bytes| bytes.clone()), b"0\n1\n4 0\n");
    let metadata = machine.edit(&path(names::PARTITION_METADATA), |bytes| bytes.clone());
    assert_eq!(partition_metadata::decode(&metadata), Ok(TOPIC_ID));
}

#[tokio::test]
async fn a_segment_ends_by_size_by_time_and_when_an_index_is_full() {
    let machine = Machine::new(3);
    let by_size = changed(config(), |config| {
        config.segment_bytes = 1000;
    });
    let mut broker = Broker::start(&machine, &by_size).await;
    for _ in 0..6 {
        broker.append(batch(1, 1, 300)).await.unwrap();
    }
    // Batches of 370 bytes: two to a segment, and a batch larger than a segment has one of its own.
    broker.append(batch(1, 1, 3000)).await.unwrap();
    broker.append(batch(1, 1, 3000)).await.unwrap();
    let bases: Vec<i64> = broker.view().sealed.iter().map(|segment| segment.base().0).collect();
    assert_eq!(bases, [0, 2, 4, 6]);

    // From here on by the time between records, which are an hour apart.
    let by_time = changed(config(), |config| {
        config.segment_ms = 3_600_000;
    });
    broker.log.set_config(Arc::new(by_time)).await.unwrap();
    broker.append(batch(1 + 3_600_000, 1, 10)).await.unwrap();
    assert_eq!(broker.view().sealed.len(), 4, "an hour is not more than an hour");
    broker.append(batch(2 + 3_600_000, 1, 10)).await.unwrap();
    assert_eq!(broker.view().sealed.len(), 5);

    // Without timestamps the wall clock counts.
    let machine = Machine::new(4);
    let mut broker = Broker::start(
        &machine,
        &changed(config(), |config| {
            config.segment_ms = 1000;
        }),
    )
    .await;
    broker.append(batch(-1, 1, 10)).await.unwrap();
    machine.set_clock(1_700_000_000_000 + 1001);
    broker.append(batch(-1, 1, 10)).await.unwrap();
    assert_eq!(broker.view().sealed.len(), 1);

    // Each batch earns an index entry, and five fit.
    let full = changed(config(), |config| {
        config.segment_index_bytes = 40;
        config.index_interval_bytes = 1;
        config.segment_bytes = 1 << 20;
    });
    let mut broker = Broker::start(&Machine::new(5), &full).await;
    for _ in 0..7 {
        broker.append(batch(1, 1, 10)).await.unwrap();
    }
    assert_eq!(broker.view().sealed.len(), 1);
    assert_eq!(broker.view().active.base(), Offset(6));
}

#[tokio::test]
async fn a_drain_of_many_batches_may_roll_in_its_middle() {
    let machine = Machine::new(6);
    let mut broker = Broker::start(
        &machine,
        &changed(config(), |config| {
            config.segment_bytes = 1000;
        }),
    )
    .await;
    for sequence in 0..20 {
        broker.stage(LeaderEpoch(0), idempotent(9, sequence, 200));
    }
    assert_eq!(broker.view().log_end, Offset(0), "staged is not in the log");
    let view = broker.log.commit().await.unwrap();
    assert_eq!((view.log_end, view.flushed_end), (Offset(20), Offset(20)));
    assert!(view.sealed.len() > 3);
    // Each snapshot knows exactly what lies below it.
    for offset in &broker.log.snapshots {
        let contents = machine
            .edit(&names::file(&directory_path().join("orders-3"), *offset, "snapshot"), |bytes| {
                bytes.clone()
            });
        let states = gracchus_core::producer::ProducerStates::decode_snapshot(&contents).unwrap();
        let last = states.get(ProducerId(9)).unwrap().batches.back().unwrap().last_offset;
        assert_eq!(last.plus(1), *offset);
    }
    broker.stop().await;
    dump(&machine);
}

/// What is called flushed is what a power loss leaves, also where segments are sealed without a sync.
#[tokio::test]
async fn a_log_that_leaves_flushing_to_the_system_knows_how_much_is_on_disk() {
    let machine = Machine::new(8);
    let left = changed(config(), |config| {
        config.flush_messages = i64::MAX;
        config.segment_bytes = 700;
    });
    let mut broker = Broker::start(&machine, &left).await;
    let ends = |broker: &Broker| (broker.view().log_end.0, broker.view().flushed_end.0);
    for _ in 0..10 {
        broker.append(batch(1, 1, 100)).await.unwrap();
    }
    assert!(broker.view().sealed.len() > 1);
    assert_eq!(ends(&broker), (10, 0));
    broker.log.flush().await.unwrap();
    assert_eq!(ends(&broker), (10, 10), "the view says it at once");
    broker.append(batch(1, 1, 100)).await.unwrap();
    broker.append(batch(1, 1, 100)).await.unwrap();
    assert_eq!(ends(&broker), (12, 10));
    broker.log.truncate_to(Offset(11)).await.unwrap();
    assert_eq!(ends(&broker), (11, 10), "a cut syncs nothing of what stays");
    broker.log.truncate_to(Offset(6)).await.unwrap();
    assert_eq!(ends(&broker), (6, 6));
    // A stricter rule holds for what is there.
    broker.append(batch(1, 1, 100)).await.unwrap();
    broker.log.set_config(Arc::new(config())).await.unwrap();
    assert_eq!(ends(&broker), (7, 7));
    broker.append(batch(1, 1, 100)).await.unwrap();
    assert_eq!(ends(&broker), (8, 8));
    broker.stop().await;
    let broker = Broker::start(&machine, &left).await;
    assert_eq!(ends(&broker), (8, 8));
}

#[tokio::test]
async fn the_window_of_five_survives_stops_and_power_losses() {
    let machine = Machine::new(7);
    for clean in [true, false, true, false] {
        let mut broker = Broker::start(
            &machine,
            &changed(config(), |config| {
                config.segment_bytes = 700;
            }),
        )
        .await;
        let next = broker.view().log_end.0;
        for sequence in (next..next + 7).map(|number| i32::try_from(number).unwrap()) {
            broker.append(idempotent(9, sequence, 100)).await.unwrap();
        }
        match clean {
            true => broker.stop().await,
            false => machine.lose_power(),
        }
        let broker = Broker::start(&machine, &config()).await;
        let end = broker.view().log_end.0;
        assert_eq!(end, next + 7);
        for sequence in end - 5..end {
            let header = BatchHeader::parse(&idempotent(9, i32::try_from(sequence).unwrap(), 100)).unwrap();
            let verdict = broker.log.producers().check(&header);
            let Ok(gracchus_core::producer::Verdict::Duplicate { base_offset, .. }) = verdict else {
                panic!("sequence {sequence}: {verdict:?}")
            };
            assert_eq!(base_offset, Offset(sequence));
        }
        broker.stop().await;
    }
}

#[tokio::test]
async fn an_epoch_begins_at_the_log_end_even_if_nothing_is_written_in_it() {
    let machine = Machine::new(8);
    let mut broker = Broker::start(&machine, &config()).await;
    broker.log.assign_epoch(LeaderEpoch(1)).await.unwrap();
    broker.append_in(LeaderEpoch(1), batch(1, 5, 10)).await.unwrap();
    broker.log.assign_epoch(LeaderEpoch(3)).await.unwrap();
    assert_eq!(broker.view().epochs.entries(), [(LeaderEpoch(1), Offset(0)), (LeaderEpoch(3), Offset(5))]);
    // A follower learns of an epoch from the batches.
    broker.append_in(LeaderEpoch(6), batch(1, 1, 10)).await.unwrap();
    machine.lose_power();
    let broker = Broker::start(&machine, &config()).await;
    assert_eq!(broker.view().epochs.entries(), [(LeaderEpoch(1), Offset(0)), (LeaderEpoch(6), Offset(5))]);
}

#[tokio::test]
async fn a_namesake_gets_nothing() {
    let machine = Machine::new(9);
    let mut broker = Broker::start(&machine, &config()).await;
    broker.append(batch(1, 5, 10)).await.unwrap();
    broker.stop().await;
    let directory = LogDirectory::open(machine.start(), directory_path(), in_place()).await.unwrap();
    let namesake = LogId { topic_id: TopicId(uuid::Uuid::from_u128(5)), ..id() };
    let refused = Log::open(directory.clone(), namesake, Arc::new(config())).await;
    assert!(
        matches!(&refused, Err(StorageError::Corrupt(why)) if why.contains("belongs to topic id")),
        "{refused:?}"
    );
    assert_eq!(directory.offline(), None, "the other logs go on");
}

#[tokio::test]
async fn a_deleted_log_is_gone_but_its_readers_finish() {
    let machine = Machine::new(10);
    let mut broker = Broker::start(&machine, &config()).await;
    for number in 0..50 {
        broker.append(batch(number, 1, 200)).await.unwrap();
    }
    assert_eq!(inventory::logs(&broker.directory).await.unwrap(), [id()]);
    let view = broker.view();
    let read = view.read(Offset(0), view.log_end, usize::MAX / 2, true).await.unwrap();
    let aside = broker.log.retire().await.unwrap();
    assert_eq!(batches(&bytes(&read.ranges).await).len(), 50);
    assert_eq!(inventory::logs(&broker.directory).await.unwrap(), []);
    let left = inventory::tidy(&broker.directory, &Image::default()).await.unwrap();
    assert_eq!((left.deleted, left.strays), (vec![aside], 0));

    let (log, recovered) = Log::open(broker.directory.clone(), id(), Arc::new(config())).await.unwrap();
    assert!(recovered.clean);
    assert_eq!(log.view().log_end, Offset(0), "a new log begins at 0");
}

#[tokio::test]
async fn a_cut_takes_indexes_epochs_and_producers_along_and_leaves_readers_their_bytes() {
    let machine = Machine::new(11);
    let small = changed(config(), |config| {
        config.segment_bytes = 1500;
    });
    let mut broker = Broker::start(&machine, &small).await;
    for sequence in 0..40 {
        broker.append_in(LeaderEpoch(sequence / 10), idempotent(9, sequence, 100)).await.unwrap();
    }
    let before = broker.view();
    let all = contents(&before).await;
    let read = before.read(Offset(0), before.log_end, usize::MAX / 2, true).await.unwrap();

    let view = broker.log.truncate_to(Offset(23)).await.unwrap();
    assert_eq!(view.log_end, Offset(23));
    assert_eq!(bytes(&read.ranges).await, all, "who read before the cut sees what was there");
    let kept = contents(&view).await;
    assert_eq!(kept, all.slice(..kept.len()));
    assert_eq!(view.epochs.latest(), Some((LeaderEpoch(2), Offset(20))));
    let last = broker.log.producers().get(ProducerId(9)).unwrap().batches.back().copied().unwrap();
    assert_eq!(last.last_offset, Offset(22));

    broker.append_in(LeaderEpoch(7), idempotent(9, 23, 50)).await.unwrap();
    assert_eq!(bytes(&read.ranges).await, all);
    // What a view from before the cut has not opened yet, it must not find under the old names.
    let late = before.read(Offset(0), before.log_end, usize::MAX / 2, true).await;
    assert!(matches!(late, Err(crate::ReadError::Storage(StorageError::Superseded))), "{late:?}");
    assert_eq!(broker.directory.offline(), None);
    machine.lose_power();
    let broker = Broker::start(&machine, &small).await;
    assert_eq!(broker.view().log_end, Offset(24));
    assert_eq!(broker.view().epochs.latest(), Some((LeaderEpoch(7), Offset(23))));
    broker.stop().await;
    dump(&machine);
}

#[tokio::test]
async fn a_start_removes_nothing_that_is_merely_called_like_a_deleted_log() {
    let machine = Machine::new(12);
    let broker = Broker::start(&machine, &config()).await;
    let disk = broker.directory.env().disk();
    let strangers =
        ["backup-delete", "orders-delete", "orders-3.00ff-delete", "orders-3-delete", "mine-stray"];
    for name in strangers {
        disk.submit(vec![Op::CreateDir { path: directory_path().join(name) }]).await.unwrap();
    }
    let kafkas = "orders-4.0123456789abcdef0123456789abcdef-delete";
    disk.submit(vec![Op::CreateDir { path: directory_path().join(kafkas) }]).await.unwrap();
    let left = inventory::tidy(&broker.directory, &Image::default()).await.unwrap();
    assert_eq!(left.deleted, [directory_path().join(kafkas)]);
    let there = machine.list(&directory_path());
    assert!(strangers.iter().all(|name| there.iter().any(|found| found == name)), "{there:?}");
}

#[tokio::test]
async fn an_index_that_is_repaired_while_its_log_goes_takes_nothing_offline() {
    let machine = Machine::new(13);
    let mut broker = Broker::start(&machine, &config()).await;
    for number in 0..60 {
        broker.append(batch(number, 1, 300)).await.unwrap();
    }
    broker.stop().await;
    let index = path("00000000000000000000.index");
    let good = machine.edit(&index, |bytes| bytes.clone());
    let mut superseded = 0;
    // The log goes after so many more steps of the reader.
    for steps in 0..40 {
        let broker = Broker::start(&machine, &config()).await;
        machine.edit(&index, |bytes| bytes.fill(0xff));
        let view = broker.view();
        let log = directory_path().join("orders-3");
        let life = broker.log.life.clone();
        let mut read = Box::pin(view.read(Offset(3), view.log_end, 100, true));
        if (0..steps).any(|_| (&mut read).now_or_never().is_some()) {
            break;
        }
        life.end();
        let aside = directory_path().join("aside");
        let rename = |from: &std::path::Path, to: &std::path::Path| {
            vec![Op::Rename { from: from.to_owned(), to: to.to_owned() }]
        };
        let disk = broker.directory.env().disk();
        disk.submit(rename(&log, &aside)).await.unwrap();
        superseded += usize::from(read.await.is_err());
        assert_eq!(broker.directory.offline(), None, "after {steps} steps");
        disk.submit(rename(&aside, &log)).await.unwrap();
        machine.edit(&index, |bytes| bytes.clone_from(&good));
    }
    assert!(superseded > 2, "{superseded}");
}
