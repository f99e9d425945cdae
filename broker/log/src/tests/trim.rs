//! What leaves a log at its front stays away, and takes nothing else along.

use gracchus_core::record::records;

use super::*;
use gracchus_memory::Dice;

use crate::{ReadError, UnopenedLog, names};

fn small() -> TopicConfig {
    changed(config(), |config| {
        config.segment_bytes = 2000;
        config.index_interval_bytes = 200;
    })
}

fn directory() -> PathBuf {
    directory_path().join("orders-3")
}

/// What the broker has told: from where to where the log goes.
#[derive(Debug, Default, Clone, Copy)]
struct Told {
    start: i64,
    end: i64,
}

impl Told {
    fn see(&mut self, view: &LogView) {
        assert!(view.log_start.0 >= self.start, "{view:?} after {self:?}");
        assert!(view.log_end.0 >= self.end, "{view:?} after {self:?}");
        *self = Told { start: view.log_start.0, end: view.log_end.0 };
    }

    /// One record a batch, each with its own offset as sequence number: nothing is missing from the log start on.
    async fn check(&mut self, broker: &Broker, context: &str) {
        let view = broker.view();
        assert!(!broker.recovered.damaged, "{context}");
        self.see(&view);
        let found = batches(&broker.contents().await);
        assert_eq!(found.len() as i64, self.end - self.start, "{context}: {self:?}");
        for (offset, batch) in (self.start..).zip(&found) {
            assert_eq!(batch.header.base_offset.0, offset, "{context}");
            assert_eq!(i64::from(batch.header.base_sequence), offset, "{context}");
        }
        let known = broker.log.producers().get(ProducerId(9)).and_then(|entry| entry.batches.back().copied());
        let last = (self.end > 0).then_some(self.end - 1);
        assert_eq!(known.map(|mark| mark.last_offset.0), last, "{context}: also of records that are gone");
        for (_, start) in view.epochs.entries() {
            assert!(self.start <= start.0 && start.0 <= self.end, "{context}: {:?}", view.epochs);
        }
    }
}

/// Something that happens to a log, decided by the dice.
async fn happen(broker: &mut Broker, dice: &mut Dice, told: &mut Told) -> Result<(), StorageError> {
    let view = broker.view();
    let span = u64::try_from(view.log_end.0 - view.log_start.0).unwrap();
    match dice.roll() % 10 {
        0 => {
            let to = view.log_start.plus(i64::try_from(dice.roll() % (span + 1)).unwrap());
            broker.log.advance_log_start(to).await?;
            assert_eq!(broker.view().log_start, to);
        }
        1 => {
            let upper = view.log_start.plus(i64::try_from(dice.roll() % (span + 1)).unwrap());
            let trimmed = broker.log.trim(upper).await?;
            assert!(broker.view().log_start <= upper.max(view.log_start), "never above the high watermark");
            told.see(&broker.view());
            let files = broker.log.bury(trimmed).await?;
            if dice.coin() {
                broker.log.remove_files(files).await?;
            }
        }
        2 => {
            let left = broker.log.take_leftovers();
            broker.log.remove_files(left).await?;
        }
        _ => {
            let sequence = i32::try_from(view.log_end.0).unwrap();
            broker.append(idempotent(9, sequence, usize::try_from(dice.roll() % 500).unwrap())).await?;
        }
    }
    told.see(&broker.view());
    Ok(())
}

#[tokio::test]
async fn no_power_loss_moves_the_log_start_back_or_takes_a_record_behind_it() {
    let (mut moved, mut dropped) = (0, 0);
    for seed in 0..300 {
        let machine = Machine::new(seed);
        let mut dice = Dice::new(seed ^ 0x5eed);
        let mut config =
            changed(small(), |config| config.retention_bytes = if seed % 4 == 0 { 0 } else { 3000 });
        if seed % 5 == 0 {
            config.flush_messages = i64::MAX;
        }
        let mut told = Told::default();
        for life in 0..4u64 {
            let context = format!("seed {seed} life {life}");
            machine.fail_after((seed * 7 + life * 131) % 400);
            let options = if seed % 2 == 0 { journaled() } else { in_place() };
            if let Ok(mut broker) = Broker::try_start_with(&machine, &config, options).await {
                told.check(&broker, &context).await;
                let mut alive = true;
                for _ in 0..40 {
                    if happen(&mut broker, &mut dice, &mut told).await.is_err() {
                        alive = false;
                        break;
                    }
                }
                dropped += broker.view().sealed.len() + 1;
                if alive && seed % 3 == 0 && broker.log.close().await.is_ok() {
                    broker.directory.close().await;
                }
            }
            machine.lose_power();
            if config.flush_messages == i64::MAX {
                // Nobody counts on what was written behind the log start.
                told.end = told.start;
            }
        }
        let mut broker = Broker::start(&machine, &config).await;
        told.check(&broker, &format!("seed {seed} at the end")).await;
        let leftovers = broker.log.take_leftovers();
        broker.log.remove_files(leftovers).await.unwrap();
        moved += told.start;
        broker.stop().await;
        dump(&machine);
    }
    assert!(moved > 300 && dropped > 300, "{moved} {dropped}");
}

#[tokio::test]
async fn names_that_come_back_in_part_are_no_hole() {
    let machine = Machine::new(1);
    let config = changed(small(), |config| config.retention_bytes = 2000);
    let mut broker = Broker::start(&machine, &config).await;
    for sequence in 0..40 {
        broker.append(idempotent(9, sequence, 300)).await.unwrap();
    }
    let before = broker.view();
    assert!(before.sealed.len() > 5);
    let second = before.sealed[1].base();
    let log = |base: Offset| path(&format!("{:020}.log", base.0));
    let bytes = machine.edit(&log(second), |bytes| bytes.clone());
    let trimmed = broker.log.trim(before.log_end).await.unwrap();
    let start = broker.view().log_start;
    assert!(start > second);
    broker.log.bury(trimmed).await.unwrap();
    let contents = broker.contents().await;
    assert!(machine.list(&directory()).iter().any(|name| name.ends_with(".log.deleted")));
    drop(broker);
    // Of all the renames the power took back this one: the segment before and the one behind it are gone.
    for name in machine.list(&directory()) {
        if name.ends_with(".deleted") {
            machine.remove(&path(&name));
        }
    }
    machine.put(&log(second), &bytes);
    let mut broker = Broker::start(&machine, &config).await;
    assert!(!broker.recovered.damaged && broker.recovered.removed_segments == 0);
    assert_eq!((broker.view().log_start, broker.view().log_end), (start, before.log_end));
    assert_eq!(broker.contents().await, contents);
    let leftovers = broker.log.take_leftovers();
    assert_eq!(leftovers, [log(second)]);
    broker.log.remove_files(leftovers).await.unwrap();
    assert!(!machine.list(&directory()).contains(&format!("{:020}.log", second.0)));
}

#[tokio::test]
async fn who_holds_a_range_keeps_its_bytes_and_who_holds_a_view_is_told() {
    let machine = Machine::new(2);
    let config = changed(small(), |config| config.retention_ms = 1);
    let mut broker = Broker::start(&machine, &config).await;
    for sequence in 0..40 {
        broker.append(idempotent(9, sequence, 300)).await.unwrap();
    }
    let view = broker.view();
    let read = view.read(Offset(0), view.log_end, 3000, true).await.unwrap();
    let before = bytes(&read.ranges).await;
    let trimmed = broker.log.trim(view.log_end).await.unwrap();
    assert_eq!((broker.view().log_start, broker.view().log_end), (view.log_end, view.log_end));
    assert!(view.read(Offset(0), view.log_end, 10, true).await.is_ok(), "not yet buried");
    let files = broker.log.bury(trimmed).await.unwrap();
    assert!(files.iter().all(|file| machine.list(&directory()).contains(&name(file))), "they wait");
    broker.log.remove_files(files.clone()).await.unwrap();
    broker.log.remove_files(files).await.unwrap();
    assert_eq!(bytes(&read.ranges).await, before);
    let middle = view.sealed[3].base();
    let superseded = view.read(middle, view.log_end, 10, true).await;
    assert!(
        matches!(superseded, Err(ReadError::Storage(StorageError::Superseded))),
        "{superseded:?}: it must be read anew"
    );
    let gone = broker.view().read(middle, view.log_end, 10, true).await;
    assert!(matches!(gone, Err(ReadError::OutOfRange { .. })), "{gone:?}");
    assert_eq!(broker.directory.offline(), None);
    assert_eq!(broker.append(idempotent(9, 40, 1)).await.unwrap(), view.log_end, "offsets go on");
}

fn name(path: &std::path::Path) -> String {
    path.file_name().unwrap().to_str().unwrap().to_owned()
}

#[tokio::test]
async fn age_is_that_of_the_newest_record_and_without_timestamps_that_of_the_file() {
    const NOW: i64 = 1_700_000_000_000;
    let machine = Machine::new(3);
    let config = changed(config(), |config| {
        config.segment_bytes = 600;
        config.retention_ms = 1000;
    });
    let mut broker = Broker::start(&machine, &config).await;
    // Three batches to a segment; the newest record is not the last one.
    for timestamp in [NOW - 9000, NOW - 500, NOW - 9000, NOW - 9000, NOW - 9000, NOW - 9000, -1, -1, -1, -1] {
        broker.append(batch(timestamp, 1, 100)).await.unwrap();
    }
    let view = broker.view();
    assert_eq!(view.sealed.iter().map(|segment| segment.next_offset.0).collect::<Vec<_>>(), [3, 6, 9]);
    assert!(!view.may_trim(&config, view.log_end, NOW + 500));
    machine.set_clock(NOW + 500);
    assert!(
        broker.log.trim(view.log_end).await.unwrap().is_empty(),
        "500 ms ago plus 500 ms is no more than 1 s"
    );
    machine.set_clock(NOW + 501);
    assert!(view.may_trim(&config, view.log_end, NOW + 501));
    let trimmed = broker.log.trim(view.log_end).await.unwrap();
    assert_eq!(broker.view().log_start, Offset(6), "the third segment was written a moment ago");
    broker.log.bury(trimmed).await.unwrap();
    broker.stop().await;
    // The next process knows it, too.
    let mut broker = Broker::start(&machine, &config).await;
    machine.set_clock(NOW + 1000);
    let view = broker.view();
    assert!(broker.log.trim(view.log_end).await.unwrap().is_empty());
    assert!(
        !view.may_trim(&config, view.log_end, NOW + 1000),
        "that no record has a timestamp is known by now"
    );
    machine.set_clock(NOW + 1001);
    assert!(broker.view().may_trim(&config, view.log_end, NOW + 1001));
    let _ = broker.log.trim(view.log_end).await.unwrap();
    assert_eq!((broker.view().log_start, broker.view().log_end), (Offset(10), Offset(10)));
}

#[tokio::test]
async fn a_batch_whose_largest_timestamp_is_unknown_is_as_young_as_its_segment() {
    const NOW: i64 = 1_700_000_000_000;
    let machine = Machine::new(31);
    let config = changed(config(), |config| {
        config.segment_bytes = 600;
        config.retention_ms = 1000;
    });
    machine.set_clock(NOW);
    let mut broker = Broker::start(&machine, &config).await;
    // Three batches to a segment. What a producer left out, brokers before this one stored as it came.
    let old = NOW - 9000;
    for timestamp in [old, -1, old, old, old, old, -1, old] {
        broker.append(batch(timestamp, 1, 100)).await.unwrap();
    }
    for now in [NOW, NOW + 1000] {
        machine.set_clock(now);
        assert!(broker.log.trim(Offset(8)).await.unwrap().is_empty(), "it was written a second ago");
        let view = broker.view();
        assert!(!view.may_trim(&config, view.log_end, now), "which is known without a look at the disk");
    }
    broker.stop().await;
    // A process that did not write it looks once.
    let mut broker = Broker::start(&machine, &config).await;
    let view = broker.view();
    assert!(view.may_trim(&config, view.log_end, NOW + 1000));
    assert!(broker.log.trim(view.log_end).await.unwrap().is_empty());
    assert!(!view.may_trim(&config, view.log_end, NOW + 1000));
    machine.set_clock(NOW + 1001);
    let trimmed = broker.log.trim(view.log_end).await.unwrap();
    assert_eq!(broker.view().log_start, Offset(8), "all of it is as old as that by now");
    broker.log.bury(trimmed).await.unwrap();
    // Where every batch has its time, it counts at once.
    for timestamp in [old, old, old, old] {
        broker.append(batch(timestamp, 1, 100)).await.unwrap();
    }
    broker.stop().await;
    let mut broker = Broker::start(&machine, &config).await;
    let end = broker.view().log_end;
    let _ = broker.log.trim(end).await.unwrap();
    assert_eq!(broker.view().log_start, Offset(12));
}

#[tokio::test]
async fn a_search_by_time_finds_nothing_below_the_log_start() {
    let machine = Machine::new(4);
    let mut broker = Broker::start(&machine, &config()).await;
    for timestamp in [1000, 9000, 2000, 3000] {
        broker.append(batch(timestamp, 1, 10)).await.unwrap();
    }
    broker.log.advance_log_start(Offset(2)).await.unwrap();
    let view = broker.view();
    let found =
        view.offset_for_timestamp(0, view.log_end).await.unwrap().map(|(time, offset, _)| (time, offset));
    assert_eq!(found, Some((2000, Offset(2))));
    let newest = view.max_timestamp(view.log_end).await.unwrap().map(|(time, offset, _)| (time, offset));
    assert_eq!(newest, Some((3000, Offset(3))));
    let all = batches(&broker.contents().await);
    assert_eq!(records(&all[0], 100).unwrap()[0].timestamp, 2000);
}

#[tokio::test]
async fn a_log_begins_anew_whatever_an_earlier_one_of_its_name_left() {
    let machine = Machine::new(5);
    let mut broker = Broker::start(&machine, &config()).await;
    for sequence in 0..5 {
        broker.append(idempotent(9, sequence, 10)).await.unwrap();
    }
    broker.log.advance_log_start(Offset(5)).await.unwrap();
    drop(broker);
    // Its directory is gone without a word to the checkpoints.
    for file in machine.list(&directory()) {
        machine.remove(&path(&file));
    }
    let mut broker = Broker::start(&machine, &config()).await;
    assert_eq!(broker.view().log_start, Offset(0));
    for sequence in 0..8 {
        broker.append(idempotent(9, sequence, 10)).await.unwrap();
    }
    machine.lose_power();
    let broker = Broker::start(&machine, &config()).await;
    assert_eq!((broker.view().log_start, broker.view().log_end), (Offset(0), Offset(8)));
}

#[tokio::test]
async fn a_log_that_nobody_opens_is_opened_when_its_time_has_come() {
    const NOW: i64 = 1_700_000_000_000;
    let machine = Machine::new(6);
    let config = changed(config(), |config| {
        config.segment_bytes = 600;
        config.retention_ms = 1000;
    });
    let mut broker = Broker::start(&machine, &config).await;
    let due = |unopened: Option<UnopenedLog>, config: &TopicConfig, now| {
        unopened.expect("it is there").is_due(config, now)
    };
    let directory = LogDirectory::open(Machine::new(7).start(), directory_path(), in_place()).await.unwrap();
    assert_eq!(UnopenedLog::look(&directory, &id()).await.unwrap(), None);
    let empty = UnopenedLog::look(&broker.directory, &id()).await.unwrap();
    assert!(!due(empty, &config, i64::MAX), "there is nothing that could go");
    for number in 0..10 {
        broker.append(batch(NOW + number, 1, 100)).await.unwrap();
    }
    broker.stop().await;
    let directory = LogDirectory::open(machine.start(), directory_path(), in_place()).await.unwrap();
    let unopened = UnopenedLog::look(&directory, &id()).await.unwrap();
    // The first segment holds three records.
    assert!(!due(unopened, &config, NOW + 1002));
    assert!(due(unopened, &config, NOW + 1003));
    let kept = changed(config.clone(), |config| config.retention_ms = -1);
    assert!(!due(unopened, &kept, i64::MAX));
    assert!(due(unopened, &changed(kept.clone(), |config| config.retention_bytes = 500), NOW));
    let compacted = changed(config.clone(), |config| {
        config.cleanup_policy.delete = false;
        config.cleanup_policy.compact = true;
    });
    assert!(!due(unopened, &compacted, i64::MAX));
    machine.put(&path("00000000000000000000.log.deleted"), b"gone");
    let unopened = UnopenedLog::look(&directory, &id()).await.unwrap();
    assert!(due(unopened, &compacted, NOW), "files wait for their removal");
}

#[tokio::test]
async fn what_retention_cannot_read_stays_and_the_log_goes_on() {
    const NOW: i64 = 1_700_000_000_000;
    let machine = Machine::new(8);
    let config = changed(config(), |config| {
        config.segment_bytes = 600;
        config.retention_ms = 1000;
    });
    let mut broker = Broker::start(&machine, &config).await;
    for number in 0..10 {
        broker.append(batch(NOW + number, 1, 100)).await.unwrap();
    }
    broker.stop().await;
    // Three batches to a segment: the last header of the second one rots.
    machine.edit(&path("00000000000000000003.log"), |bytes| {
        let last = bytes.len() / 3 * 2;
        bytes[last..last + gracchus_core::record::HEADER_LENGTH].fill(0);
    });
    // Else its time index would say how old it is.
    machine.edit(&path("00000000000000000003.timeindex"), |bytes| bytes.clear());
    let mut broker = Broker::start(&machine, &config).await;
    machine.set_clock(NOW + 5000);
    machine.lack_handles(1);
    let end = broker.view().log_end;
    assert!(broker.log.trim(end).await.unwrap().is_empty(), "without a file handle nothing is known");
    machine.lack_handles(0);
    for start in [3, 3] {
        let trimmed = broker.log.trim(end).await.unwrap();
        broker.log.bury(trimmed).await.unwrap();
        assert_eq!(broker.view().log_start, Offset(start), "what can be read goes, the rest stays");
    }
    assert_eq!(broker.append(batch(NOW + 6000, 1, 10)).await, Ok(end));
    // Whoever no longer wants the damaged records is rid of them.
    broker.log.advance_log_start(Offset(6)).await.unwrap();
    let trimmed = broker.log.trim(end).await.unwrap();
    broker.log.bury(trimmed).await.unwrap();
    assert_eq!(broker.view().log_start, Offset(9));
    assert_eq!(broker.directory.offline(), None);
}

#[tokio::test]
async fn a_log_that_lost_what_was_behind_its_start_begins_anew_there() {
    for whole in [false, true] {
        let machine = Machine::new(10);
        let config = small();
        let mut broker = Broker::start(&machine, &config).await;
        for sequence in 0..20 {
            broker.append(idempotent(9, sequence, 300)).await.unwrap();
        }
        let start = broker.view().sealed[2].base().plus(1);
        broker.log.advance_log_start(start).await.unwrap();
        broker.stop().await;
        // Of all that was synced the disk has nothing from the log start on.
        for name in machine.list(&directory()) {
            let base = [names::LOG, names::INDEX, names::TIME_INDEX]
                .iter()
                .find_map(|kind| names::parse(&name, kind));
            if base.is_some_and(|base| whole || base.0 + 1 >= start.0) {
                machine.remove(&path(&name));
            }
        }
        // The power fails at each step of the way.
        for steps in 0..60 {
            machine.fail_after(steps);
            let _ = Broker::try_start(&machine, &config).await;
            machine.lose_power();
        }
        let mut broker = Broker::start(&machine, &config).await;
        assert_eq!((broker.view().log_start, broker.view().log_end), (start, start), "{whole}");
        assert_eq!(broker.log.producers().len(), 0, "what they had written is gone");
        let left = broker.log.take_leftovers();
        broker.log.remove_files(left).await.unwrap();
        for sequence in 20..30 {
            let told = broker.append(idempotent(9, sequence, 300)).await;
            assert_eq!(told, Ok(start.plus(i64::from(sequence) - 20)), "{whole}");
        }
        let before = broker.contents().await;
        machine.lose_power();
        let broker = Broker::start(&machine, &config).await;
        assert!(!broker.recovered.damaged, "no recovery point of before speaks for it");
        assert_eq!((broker.view().log_start, broker.view().log_end), (start, start.plus(10)), "{whole}");
        assert_eq!(broker.contents().await, before);
        let logs: Vec<_> =
            machine.list(&directory()).into_iter().filter(|name| name.ends_with(".log")).collect();
        assert_eq!(logs[0], format!("{:020}.log", start.0), "what lies below it has gone");
        broker.stop().await;
        dump(&machine);
    }
}
