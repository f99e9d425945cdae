//! Files that are not what they should be.

use gracchus_env::{Op, Open};
use gracchus_memory::Dice;

use super::*;

/// A log of many small segments, stopped without order; every write has reached the files.
async fn killed(machine: &Machine) -> (Bytes, Offset) {
    let mut broker = Broker::start(machine, &config()).await;
    for number in 0..100 {
        broker.append(batch(number * 10, 2, 100)).await.unwrap();
    }
    (broker.contents().await, broker.view().log_end)
}

#[tokio::test]
async fn a_torn_tail_is_cut_and_the_log_goes_on() {
    let machine = Machine::new(1);
    let (before, log_end) = killed(&machine).await;
    let active = machine.newest(&directory_path().join("orders-3"), ".log");
    let length = machine.edit(&active, |bytes| {
        let at = bytes.len() - 20;
        bytes[at] ^= 1;
        bytes.len() as u64
    });
    let last = batches(&before).pop().unwrap();
    let mut broker = Broker::start(&machine, &config()).await;
    assert_eq!(broker.view().log_end, log_end.plus(-2));
    assert_eq!(broker.recovered.cut_bytes, last.bytes.len() as u64);
    assert!(!broker.recovered.clean && broker.recovered.scanned_bytes > 0);
    assert_eq!(machine.edit(&active, |bytes| bytes.len() as u64), length - last.bytes.len() as u64);
    assert_eq!(broker.contents().await, before.slice(..before.len() - last.bytes.len()));
    assert_eq!(broker.append(batch(5, 1, 10)).await, Ok(log_end.plus(-2)));
    broker.stop().await;
    dump(&machine);
}

#[tokio::test]
async fn every_length_of_torn_tail_leaves_the_whole_batches() {
    let machine = Machine::new(2);
    let mut broker = Broker::start(&machine, &config()).await;
    for number in 0..4 {
        broker.append(batch(number, 1, 50)).await.unwrap();
    }
    let whole = broker.contents().await;
    let ends: Vec<usize> = batches(&whole)
        .iter()
        .scan(0, |end, batch| {
            *end += batch.bytes.len();
            Some(*end)
        })
        .collect();
    for length in 0..=whole.len() {
        machine.start();
        for (name, contents) in [("log", &whole[..length]), ("index", &[][..]), ("timeindex", &[][..])] {
            machine.edit(&path(&format!("00000000000000000000.{name}")), |bytes| *bytes = contents.to_vec());
        }
        let broker = Broker::start(&machine, &config()).await;
        let good = ends.iter().filter(|end| **end <= length).count();
        assert_eq!(broker.view().log_end.0, i64::try_from(good).unwrap(), "{length} bytes");
        assert_eq!(
            broker.recovered.cut_bytes as usize,
            length - good.checked_sub(1).map_or(0, |last| ends[last])
        );
    }
}

#[tokio::test]
async fn rot_in_an_index_costs_a_rebuild_and_no_record() {
    let machine = Machine::new(3);
    let mut broker = Broker::start(&machine, &config()).await;
    for number in 0..200 {
        broker.append(batch(number * 10, 2, 100)).await.unwrap();
    }
    let before = broker.contents().await;
    broker.stop().await;
    let names = machine.list(&directory_path().join("orders-3"));
    let indexes: Vec<&String> = names.iter().filter(|name| name.ends_with("index")).collect();
    assert!(indexes.len() > 6);
    let mut dice = Dice::new(3);
    for round in 0..40 {
        for name in &indexes {
            machine.edit(&path(name), |bytes| match dice.roll() % 5 {
                0 => bytes.truncate(usize::try_from(dice.roll()).unwrap_or(7) % (bytes.len() + 1)),
                1 => bytes.fill(0),
                2 => bytes.extend_from_slice(&[7; 5]),
                _ if bytes.is_empty() => {}
                _ => {
                    let at = usize::try_from(dice.roll() % bytes.len() as u64).unwrap();
                    bytes[at] ^= 1 << (dice.roll() % 8);
                }
            });
        }
        let broker = Broker::start(&machine, &config()).await;
        assert_eq!(broker.contents().await, before, "round {round}");
        let view = broker.view();
        for offset in 0..view.log_end.0 {
            let read = view.read(Offset(offset), view.log_end, 1, true).await.unwrap();
            let header = batches(&bytes(&read.ranges).await)[0].header;
            assert!(header.base_offset.0 <= offset && offset < header.next_offset().0, "round {round}");
            let found = view.offset_for_timestamp(offset / 2 * 10, view.log_end).await.unwrap();
            assert_eq!(found.map(|(_, offset, _)| offset.0), Some(offset / 2 * 2), "round {round}");
        }
        broker.stop().await;
    }
    // Everything has been looked at, so everything has been repaired.
    dump(&machine);
}

#[tokio::test]
async fn a_time_index_without_its_last_entries_hides_no_record() {
    let machine = Machine::new(5);
    let mut broker = Broker::start(&machine, &config()).await;
    for number in 0..100 {
        broker.append(batch(number * 10, 2, 100)).await.unwrap();
    }
    broker.stop().await;
    let name = "00000000000000000000.timeindex";
    let whole = machine.edit(&path(name), |bytes| bytes.clone());
    for left in (0..whole.len()).step_by(12) {
        machine.edit(&path(name), |bytes| bytes.truncate(left));
        let broker = Broker::start(&machine, &config()).await;
        let view = broker.view();
        // From the youngest to the oldest: nothing has looked at the segment yet.
        for offset in (0..view.log_end.0).rev() {
            let found = view.offset_for_timestamp(offset / 2 * 10, view.log_end).await.unwrap();
            assert_eq!(found.map(|(_, offset, _)| offset.0), Some(offset / 2 * 2), "{left} bytes left");
        }
        broker.stop().await;
        assert_eq!(machine.edit(&path(name), |bytes| bytes.clone()), whole, "repaired");
    }
}

#[tokio::test]
async fn rot_in_a_sealed_segment_is_an_error_to_its_readers_and_never_another_record() {
    let machine = Machine::new(4);
    let mut broker = Broker::start(&machine, &config()).await;
    for number in 0..100 {
        broker.append(batch(number * 10, 2, 100)).await.unwrap();
    }
    let before = broker.contents().await;
    broker.stop().await;
    // The header of the third batch: its magic.
    let at = batches(&before)[..2].iter().map(|batch| batch.bytes.len()).sum::<usize>() + 16;
    machine.edit(&path("00000000000000000000.log"), |bytes| bytes[at] = 9);
    // Nobody reads old segments at a clean start …
    let broker = Broker::start(&machine, &config()).await;
    assert!(broker.recovered.clean);
    // … and a reader who meets the batch gets an error.
    let view = broker.view();
    let refused = view.read(Offset(4), view.log_end, 1, true).await;
    assert!(matches!(refused, Err(crate::ReadError::Storage(StorageError::Corrupt(_)))), "{refused:?}");
    assert_eq!(view.read(Offset(2), view.log_end, 1, true).await.unwrap().next_offset, Offset(4));
}

/// Appends 600 records to a log of one segment, dies, finds the magic of record 5 changed. Returns what the next start
/// makes of it.
async fn damage_told(options: DirectoryOptions, checkpoint: bool) -> Recovered {
    let machine = Machine::new(5);
    let config = changed(config(), |config| config.segment_bytes = 1 << 20);
    let mut broker = Broker::try_start_with(&machine, &config, options.clone()).await.unwrap();
    // Until the journal is there, everything is synced in place.
    broker.directory.env().sleep(std::time::Duration::from_secs(1)).await;
    for number in 0..600 {
        broker.append(batch(number, 1, 100)).await.unwrap();
    }
    let at = batches(&broker.contents().await)[..5].iter().map(|batch| batch.bytes.len()).sum::<usize>();
    if checkpoint {
        broker.directory.flusher().checkpoint().await.unwrap();
    }
    machine.start();
    machine.edit(&path("00000000000000000000.log"), |bytes| bytes[at + 16] ^= 4);
    let broker = Broker::try_start_with(&machine, &config, options).await.unwrap();
    assert_eq!(broker.view().log_end.0, 5, "cut, and good batches were behind it");
    broker.recovered
}

#[tokio::test]
async fn a_bad_batch_among_bytes_known_to_be_synced_is_damage() {
    assert!(damage_told(in_place(), true).await.damaged, "it is below the recovery point");
    assert!(damage_told(journaled(), false).await.damaged, "it is before something that the journal had");
    // A power loss can look like this while nothing was acknowledged: pages reach the disk in any order.
    assert!(!damage_told(in_place(), false).await.damaged);
}

#[tokio::test]
async fn a_journal_that_is_gone_is_missed_and_a_log_without_its_records_is_damaged() {
    let machine = Machine::new(9);
    let config = changed(config(), |config| config.segment_bytes = 1 << 20);
    let mut broker = Broker::try_start_with(&machine, &config, journaled()).await.unwrap();
    broker.directory.env().sleep(std::time::Duration::from_secs(1)).await;
    for number in 0..10 {
        broker.append(batch(number, 1, 100)).await.unwrap();
    }
    broker.directory.set_log_start(&id(), Offset(0));
    broker.directory.flusher().checkpoint().await.unwrap();
    machine.start();
    let journal = directory_path().join("journal");
    for part in machine.list(&journal) {
        machine.remove(&journal.join(part));
    }
    machine.remove(&journal);
    let refused = Broker::try_start_with(&machine, &config, journaled()).await.err().unwrap();
    assert!(refused.contains("journal is missing") && refused.contains("accept-damage"), "{refused}");
    let env = machine.start();
    let made = vec![gracchus_env::Op::CreateDir { path: journal.clone() }];
    env.disk().submit(made).await.unwrap();
    machine.put(&journal.join("accept-damage"), b"");
    let broker = Broker::try_start_with(&machine, &config, journaled()).await.unwrap();
    assert!(broker.recovered.damaged, "nobody knows what the journal had");
    broker.stop().await;
    let broker = Broker::try_start_with(&machine, &config, journaled()).await.unwrap();
    assert!(broker.recovered.clean && !broker.recovered.damaged);
}

#[tokio::test]
async fn a_bad_batch_in_a_sealed_segment_is_damage_if_its_roll_was_durable() {
    // Left to the operating system, a segment may be begun before the one before it is on disk.
    for (flush_messages, damaged) in [(1, true), (i64::MAX, false)] {
        sealed_told(flush_messages, damaged).await;
    }
}

async fn sealed_told(flush_messages: i64, damaged: bool) {
    let machine = Machine::new(7);
    let config = changed(config(), |config| config.flush_messages = flush_messages);
    let mut broker = Broker::start(&machine, &config).await;
    for number in 0..60 {
        broker.append(batch(number, 1, 100)).await.unwrap();
    }
    let at = batches(&broker.contents().await)[..5].iter().map(|batch| batch.bytes.len()).sum::<usize>();
    drop(broker);
    machine.start();
    // No recovery point has been written yet.
    machine.edit(&path("00000000000000000000.log"), |bytes| bytes[at + 100] ^= 4);
    let broker = Broker::start(&machine, &config).await;
    assert!(broker.recovered.removed_segments > 0);
    assert_eq!(broker.recovered.damaged, damaged);
    assert_eq!(broker.view().log_end.0, 5);
}

#[tokio::test]
async fn missing_and_strange_files_are_borne() {
    let machine = Machine::new(6);
    let (before, log_end) = killed(&machine).await;
    let directory = directory_path().join("orders-3");
    for name in machine.list(&directory) {
        if name.ends_with("index") || name.ends_with(".snapshot") || name == "leader-epoch-checkpoint" {
            machine.remove(&path(&name));
        }
    }
    machine.put(&path("notes.txt"), b"what is this");
    machine.put(&path("00000000000000000007.log.tmp"), b"half");
    machine.put(&path("99999999999999999999.snapshot"), b"the future");
    machine.put(&path("00000000000000009999.snapshot"), b"the future");
    let broker = Broker::start(&machine, &config()).await;
    assert_eq!(broker.view().log_end, log_end);
    assert_eq!(broker.contents().await, before);
    assert_eq!(broker.view().epochs.entries(), [(LeaderEpoch(0), Offset(0))], "epochs come from the log");
    let names = machine.list(&directory);
    assert!(names.contains(&"notes.txt".to_owned()));
    assert!(!names.iter().any(|name| name.ends_with(".tmp") || name == "00000000000000009999.snapshot"));
}

#[tokio::test]
async fn a_lack_of_file_handles_is_no_failure_of_the_disk() {
    let machine = Machine::new(8);
    let mut broker =
        Broker::try_start_with(&machine, &config(), DirectoryOptions { open_files: 1, ..in_place() })
            .await
            .unwrap();
    for number in 0..60 {
        broker.append(batch(number, 1, 100)).await.unwrap();
    }
    let view = broker.view();
    assert!(view.sealed.len() > 1);
    // A reader is told, and can come again.
    machine.lack_handles(1);
    let refused = view.read(Offset(0), view.log_end, 1, true).await;
    assert!(matches!(refused, Err(crate::ReadError::Storage(StorageError::Exhausted(_)))), "{refused:?}");
    assert_eq!(broker.directory.offline(), None);
    assert_eq!(view.read(Offset(0), view.log_end, 1, true).await.unwrap().next_offset, Offset(1));
    // Who appends waits in the middle of a roll.
    let sealed = view.sealed.len();
    for number in 60.. {
        machine.lack_handles(2);
        broker.append(batch(number, 1, 100)).await.unwrap();
        if broker.view().sealed.len() > sealed {
            break;
        }
    }
    let log_end = broker.view().log_end;
    machine.lack_handles(0);
    broker.stop().await;
    let broker = Broker::start(&machine, &config()).await;
    assert_eq!(broker.view().log_end, log_end);
    // Who opens it and finds no handle can come again, and finds it as clean as it was.
    broker.stop().await;
    let directory = LogDirectory::open(machine.start(), directory_path(), in_place()).await.unwrap();
    for lacking in 1..=3 {
        machine.lack_handles(lacking);
        let refused = Log::open(directory.clone(), id(), Arc::new(config())).await;
        assert!(matches!(refused, Err(StorageError::Exhausted(_))), "{lacking}");
        machine.lack_handles(0);
    }
    let (log, recovered) = Log::open(directory, id(), Arc::new(config())).await.unwrap();
    assert!(recovered.clean);
    assert_eq!(log.view().log_end, log_end);
}

/// A log of closed segments that was stopped cleanly, its batches, and the base offsets of its segments.
async fn stopped(machine: &Machine) -> (Vec<Batch>, Vec<Offset>) {
    let mut broker = Broker::start(machine, &config()).await;
    for number in 0..100 {
        broker.append(batch(number * 10, 2, 100)).await.unwrap();
    }
    let (all, view) = (batches(&broker.contents().await), broker.view());
    broker.stop().await;
    (all, view.segments().map(|segment| segment.base()).collect())
}

/// What can be read of the log, offset by offset: the records that are outside of `lost` must be, and no others.
async fn check_all_but(broker: &Broker, all: &[Batch], lost: std::ops::Range<i64>) {
    let view = broker.view();
    let mut offset = view.log_start;
    while offset < view.log_end {
        let batch = all.iter().find(|batch| batch.header.last_offset() >= offset).expect("there is one");
        for limit in [1, 700, usize::MAX / 2] {
            match view.read(offset, view.log_end, limit, true).await {
                Ok(_) if lost.contains(&offset.0) => panic!("{offset} was read"),
                Ok(read) => {
                    let bytes = bytes(&read.ranges).await;
                    assert!(bytes.starts_with(&batch.bytes), "{offset}");
                    assert!(
                        offset.0 >= lost.end || read.next_offset.0 <= lost.start,
                        "{offset} and over the hole"
                    );
                }
                Err(error) => assert!(lost.contains(&offset.0), "{offset}: {error}"),
            }
        }
        // Of times outside of what is lost the look-up goes on, also behind it.
        let found = view.offset_for_timestamp(offset.0 / 2 * 10, view.log_end).await;
        if !lost.contains(&offset.0) {
            assert_eq!(
                found.map(|found| found.map(|(_, offset, _)| offset)),
                Ok(Some(batch.header.base_offset))
            );
        } else {
            assert!(found.is_err(), "{offset}: {found:?}");
        }
        offset = batch.header.next_offset();
    }
}

#[tokio::test]
async fn a_closed_segment_that_is_gone_or_empty_is_said_after_a_clean_stop() {
    for emptied in [true, false] {
        let machine = Machine::new(11);
        let (all, bases) = stopped(&machine).await;
        let (lost, next) = (bases[1], bases[2]);
        let name = path(&format!("{:020}.log", lost.0));
        let contents = machine.edit(&name, |bytes| bytes.clone());
        match emptied {
            true => machine.edit(&name, |bytes| bytes.clear()),
            false => machine.remove(&name),
        }
        let broker = Broker::start(&machine, &config()).await;
        assert!(broker.recovered.clean && broker.recovered.damaged);
        check_all_but(&broker, &all, lost.0..next.0).await;
        broker.stop().await;
        // Somebody puts it back: then nothing is wrong any more.
        machine.put(&name, &contents);
        let broker = Broker::start(&machine, &config()).await;
        assert!(!broker.recovered.damaged, "emptied: {emptied}");
        check_all_but(&broker, &all, 0..0).await;
        assert!(!broker.view().has_met_damage());
    }
}

#[tokio::test]
async fn the_first_segment_of_a_log_is_missed_after_a_clean_stop() {
    let machine = Machine::new(12);
    let (_, bases) = stopped(&machine).await;
    machine.remove(&path("00000000000000000000.log"));
    let broker = Broker::start(&machine, &config()).await;
    assert!(broker.recovered.damaged);
    assert_eq!(broker.view().log_start, bases[1]);
}

#[tokio::test]
async fn an_empty_closed_segment_is_missed_after_a_kill() {
    let machine = Machine::new(13);
    let (_, bases) = stopped(&machine).await;
    machine.start();
    // The next process opens the log, so that the marker is gone.
    let broker = Broker::start(&machine, &config()).await;
    drop(broker);
    machine.start();
    machine.edit(&path(&format!("{:020}.log", bases[1].0)), |bytes| bytes.clear());
    let broker = Broker::start(&machine, &config()).await;
    assert!(!broker.recovered.clean && broker.recovered.damaged);
}

#[tokio::test]
async fn what_is_before_and_behind_a_damaged_batch_is_served() {
    damaged_batch(|batch| batch[16] = 9).await;
}

#[tokio::test]
async fn a_batch_whose_first_offset_has_rotted_is_damaged() {
    for elsewhere in [0_i64, 1 << 40] {
        damaged_batch(|batch| batch[..8].copy_from_slice(&elsewhere.to_be_bytes())).await;
    }
}

/// Damages the third batch of the second segment.
async fn damaged_batch(damage: impl FnOnce(&mut [u8])) {
    let machine = Machine::new(14);
    let (all, bases) = stopped(&machine).await;
    let first = all.iter().position(|batch| batch.header.base_offset == bases[1]).unwrap();
    let at = all[first..first + 2].iter().map(|batch| batch.bytes.len()).sum::<usize>();
    machine.edit(&path(&format!("{:020}.log", bases[1].0)), |bytes| damage(&mut bytes[at..]));
    let broker = Broker::start(&machine, &config()).await;
    assert!(!broker.recovered.damaged, "nobody reads old segments at a start");
    let (view, bad) = (broker.view(), all[first + 2].header.base_offset);
    assert!(!view.has_met_damage());
    // A range that ends around it ends before it. One that goes further may hold it: who reads it sees what it is.
    for limit in [600, 700] {
        let read = view.read(bases[1], view.log_end, limit, true).await.unwrap();
        assert!(read.bytes > 0 && read.next_offset <= bad, "{limit}: {read:?}");
    }
    assert!(view.read(bad, view.log_end, 700, true).await.is_err());
    assert!(view.has_met_damage(), "and counted");
    // Up to the next index entry nothing leads around it.
    let mut found = 0;
    for batch in &all[first + 3..] {
        if let Ok(read) = view.read(batch.header.base_offset, view.log_end, 1, true).await {
            assert!(bytes(&read.ranges).await.starts_with(&batch.bytes));
            found += 1;
        } else {
            assert_eq!(found, 0, "behind the next entry all is found");
        }
    }
    assert!(found >= all.len() - first - 5, "{found} of {}", all.len());
    let behind = all.iter().find(|batch| batch.header.base_offset == bases[2]).unwrap();
    let time = behind.header.base_offset.0 / 2 * 10;
    let listed = view.offset_for_timestamp(time, view.log_end).await.unwrap();
    assert_eq!(listed.map(|(_, offset, _)| offset), Some(bases[2]), "later segments are found by time");
}

#[tokio::test]
async fn a_time_index_without_its_last_entries_does_not_add_to_damage_before_them() {
    for bad in 1..4 {
        let machine = Machine::new(14);
        let (all, bases) = stopped(&machine).await;
        let first = all.iter().position(|batch| batch.header.base_offset == bases[1]).unwrap();
        let at = all[first..first + bad].iter().map(|batch| batch.bytes.len()).sum::<usize>() + 16;
        machine.edit(&path(&format!("{:020}.log", bases[1].0)), |bytes| bytes[at] = 9);
        machine
            .edit(&path(&format!("{:020}.timeindex", bases[1].0)), |bytes| bytes.truncate(bytes.len() - 12));
        let broker = Broker::start(&machine, &config()).await;
        let view = broker.view();
        let listed = view.offset_for_timestamp(bases[2].0 / 2 * 10, view.log_end).await.unwrap();
        assert_eq!(listed.map(|(_, offset, _)| offset), Some(bases[2]), "later segments are found by time");
    }
}

#[tokio::test]
async fn a_rotten_record_under_a_rotten_index_does_not_keep_its_segment_from_ending() {
    let machine = Machine::new(16);
    let mut broker = Broker::start(&machine, &config()).await;
    for number in 0..110 {
        broker.append(batch(number * 10, 2, 100)).await.unwrap();
    }
    let active = broker.view().segments().last().unwrap().base();
    let rounds = broker.view().segment_count();
    broker.stop().await;
    machine.edit(&path(&format!("{:020}.log", active.0)), |bytes| bytes[100] ^= 1);
    machine.edit(&path(&format!("{:020}.index", active.0)), |bytes| bytes[..8].fill(0xff));
    let mut broker = Broker::start(&machine, &config()).await;
    let view = broker.view();
    for offset in active.0..view.log_end.0 {
        let _ = view.read(Offset(offset), view.log_end, 1, true).await;
    }
    assert!(view.active.segment.is_damaged(), "a reader has found out");
    for number in 110..200 {
        broker.append(batch(number * 10, 2, 100)).await.unwrap();
    }
    assert!(broker.view().segment_count() > rounds + 1, "it rolls");
}

/// The header of a closed segment's last batch says a far later timestamp, and the time index, which knows better, is gone: times
/// of other segments are found, and who asks for what may be in that batch is told so.
#[tokio::test]
async fn a_rotten_timestamp_without_a_time_index_hides_no_time_of_another_segment() {
    let machine = Machine::new(18);
    let (all, bases) = stopped(&machine).await;
    let rotten = all.iter().rfind(|batch| batch.header.base_offset < bases[2]).unwrap().header;
    machine.edit(&path(&format!("{:020}.log", bases[1].0)), |bytes| {
        let at = bytes.len() - rotten.total_length();
        bytes[at + 36] ^= 1;
    });
    machine.remove(&path(&format!("{:020}.timeindex", bases[1].0)));
    let broker = Broker::start(&machine, &config()).await;
    let view = broker.view();
    for batch in &all {
        let base = batch.header.base_offset;
        let found = view.offset_for_timestamp(base.0 / 2 * 10, view.log_end).await;
        let found = found.map(|found| found.map(|(_, offset, _)| offset));
        match base == rotten.base_offset {
            true => assert!(found.is_err(), "{found:?}"),
            false => assert_eq!(found, Ok(Some(base))),
        }
    }
    assert!(view.has_met_damage());
}

/// Wherever junk lies in a closed segment, and in whatever order it is asked, times of other segments are found.
#[tokio::test]
async fn junk_in_a_closed_segment_hides_no_time_of_another_one() {
    let mut dice = Dice::new(8);
    for round in 0..150 {
        let machine = Machine::new(14);
        let (all, bases) = stopped(&machine).await;
        let length = machine.edit(&path(&format!("{:020}.log", bases[1].0)), |bytes| {
            let at = dice.below(bytes.len() as u64) as usize;
            let end = (at + 1 + dice.below(300) as usize).min(bytes.len());
            bytes[at..end].iter_mut().for_each(|byte| *byte = dice.below(256) as u8);
            (at, end)
        });
        // The last entries may not have reached the disk.
        if dice.coin() {
            let lost = 12 * dice.below(3) as usize;
            machine.edit(&path(&format!("{:020}.timeindex", bases[1].0)), |bytes| {
                bytes.truncate(bytes.len() - lost)
            });
        }
        let broker = Broker::start(&machine, &config()).await;
        let view = broker.view();
        for _ in 0..40 {
            let batch = &all[dice.below(all.len() as u64) as usize];
            let base = batch.header.base_offset;
            if dice.below(2) == 0 {
                let _ = view.read(base, view.log_end, 1 + dice.below(2_000) as usize, true).await;
            } else if !(bases[1]..=bases[2]).contains(&base) {
                let listed = view.offset_for_timestamp(base.0 / 2 * 10, view.log_end).await;
                let found = listed.map(|found| found.map(|(_, offset, _)| offset));
                assert_eq!(found, Ok(Some(base)), "round {round}, junk {length:?}");
            }
        }
    }
}

#[tokio::test]
async fn a_torn_index_right_before_the_recovery_point_is_built_anew_after_a_crash() {
    let machine = Machine::new(15);
    let mut broker = Broker::start(&machine, &config()).await;
    for number in 0..60 {
        broker.append(batch(number, 1, 100)).await.unwrap();
    }
    let bases: Vec<Offset> = broker.view().segments().map(|segment| segment.base()).collect();
    drop(broker);
    machine.start();
    // In the middle of a roll: the next segment is there, and all before it is known to be synced.
    let [.., before, last] = bases[..] else { panic!("segments rolled") };
    let point = format!("0\n1\norders 3 {last}\n");
    machine.put(&directory_path().join("recovery-point-offset-checkpoint"), point.as_bytes());
    // What a whole entry less leaves looks like an index.
    for (ending, less) in [("timeindex", 5), ("index", 5), ("timeindex", 12), ("index", 8), ("index", 16)] {
        let torn = path(&format!("{:020}.{ending}", before.0));
        let whole = machine.edit(&torn, |bytes| bytes.clone());
        machine.edit(&torn, |bytes| bytes.truncate(bytes.len() - less));
        // The last life was about to build it anew: this one uses the same name.
        machine.put(&crate::names::temporary(&torn), b"half");
        let broker = Broker::start(&machine, &config()).await;
        assert_eq!(machine.edit(&torn, |bytes| bytes.clone()), whole, "{ending}, {less} bytes less");
        assert_eq!(broker.directory.offline(), None, "{ending}");
        drop(broker);
    }
}

#[tokio::test]
async fn an_index_right_before_the_recovery_point_is_on_disk_once_the_log_is_open() {
    for seed in 0..10 {
        let machine = Machine::new(seed);
        let mut broker = Broker::start(&machine, &config()).await;
        for number in 0..60 {
            broker.append(batch(number, 1, 100)).await.unwrap();
        }
        let bases: Vec<Offset> = broker.view().segments().map(|segment| segment.base()).collect();
        drop(broker);
        // A process is killed in the middle of a roll: the ends of both indexes are in the page cache alone.
        let env = machine.start();
        let [.., before, last] = bases[..] else { panic!("segments rolled") };
        let indexes = ["timeindex", "index"].map(|ending| path(&format!("{:020}.{ending}", before.0)));
        let mut whole = Vec::new();
        for path in &indexes {
            let bytes = machine.edit(path, std::mem::take);
            let file = env.disk().open(path, Open::Existing).await.unwrap();
            let write = Op::WriteAt { file, offset: 0, buffers: vec![bytes.clone().into()] };
            env.disk().submit(vec![write]).await.unwrap();
            whole.push(bytes);
        }
        let point = format!("0\n1\norders 3 {last}\n");
        machine.put(&directory_path().join("recovery-point-offset-checkpoint"), point.as_bytes());
        drop(Broker::start(&machine, &config()).await);
        machine.lose_power();
        let left: Vec<_> = indexes.iter().map(|path| machine.edit(path, |bytes| bytes.clone())).collect();
        assert_eq!(left, whole, "seed {seed}");
    }
}

/// The clocks of the producers went back: what the end of the time index knows lies far behind the end of the log.
#[tokio::test]
async fn a_time_index_that_lost_whole_entries_is_built_anew() {
    let machine = Machine::new(44);
    let every = changed(config(), |config| config.index_interval_bytes = 1);
    let mut broker = Broker::start(&machine, &every).await;
    for timestamp in (1..=20).chain([3, 4, 5, 6]) {
        broker.append(batch(timestamp, 1, 10)).await.unwrap();
    }
    broker.stop().await;
    let index = crate::names::file(&directory_path().join("orders-3"), Offset(0), "timeindex");
    machine.edit(&index, |bytes| bytes.truncate(bytes.len() - 3 * 12));
    let broker = Broker::start(&machine, &every).await;
    let found = broker.view().offset_for_timestamp(20, Offset(24)).await.unwrap();
    assert_eq!(found.map(|found| (found.0, found.1)), Some((20, Offset(19))));
}
