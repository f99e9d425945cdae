//! Reading by offset and by time, against the plainest possible reader.

use gracchus_core::record::{Codec, RecordToWrite, TimestampType};

use super::*;
use gracchus_memory::Dice;

use crate::ReadError;

/// What a read must give: base and next offset of each batch, and its length.
#[derive(Debug, Clone, Copy)]
struct Known {
    base: i64,
    next: i64,
    length: usize,
}

fn plain_read(known: &[Known], from: i64, upper: i64, max_bytes: usize, min_one: bool) -> (usize, i64) {
    let (mut total, mut next) = (0, from);
    for batch in known.iter().filter(|batch| batch.next > from) {
        let first = total == 0;
        if batch.next > upper || (total + batch.length > max_bytes && !(first && min_one)) {
            break;
        }
        total += batch.length;
        next = batch.next;
        if total > max_bytes {
            break;
        }
    }
    (total, next)
}

async fn check_reads(view: &LogView, known: &[Known], dice: &mut Dice) {
    let end = view.log_end.0;
    for _ in 0..300 {
        let pick =
            |dice: &mut Dice, below: i64| i64::try_from(dice.roll() % u64::try_from(below).unwrap()).unwrap();
        let from = pick(dice, end + 1);
        let upper = if dice.coin() { end } else { pick(dice, end + 1) };
        let max_bytes = usize::try_from(pick(dice, 9000)).unwrap();
        let min_one = dice.coin();
        let read = view.read(Offset(from), Offset(upper), max_bytes, min_one).await.unwrap();
        let context = format!("from {from} below {upper}, {max_bytes} bytes, min_one {min_one}");
        let (length, next) = plain_read(known, from, upper, max_bytes, min_one);
        assert_eq!((read.bytes, read.next_offset.0), (length, next), "{context}");
        let found = batches(&bytes(&read.ranges).await);
        assert!(found.first().is_none_or(|batch| batch.header.next_offset().0 > from), "{context}");
        assert!(found.last().is_none_or(|batch| batch.header.next_offset().0 == next), "{context}");
    }
}

#[tokio::test]
async fn every_read_gives_the_whole_batches_that_fit() {
    for (seed, segment_bytes, interval) in
        [(1, 4096, 256), (2, 1 << 20, 64), (3, 1 << 20, 100_000), (4, 20_000, 4096)]
    {
        let machine = Machine::new(seed);
        let mut dice = Dice::new(seed);
        let config = changed(TopicConfig::default(), |config| {
            config.segment_bytes = segment_bytes;
            config.index_interval_bytes = interval;
        });
        let mut broker = Broker::start(&machine, &config).await;
        let mut known = Vec::new();
        for number in 0..600 {
            let count = 1 + i64::try_from(dice.roll() % 5).unwrap();
            let size = if dice.roll().is_multiple_of(10) { 1500 } else { 30 };
            let sent = batch(number, count, size);
            let length = sent.len();
            let base = broker.append(sent).await.unwrap().0;
            known.push(Known { base, next: base + count, length });
        }
        assert_eq!(
            known.last().unwrap().base,
            broker.view().log_end.0 - (known.last().unwrap().next - known.last().unwrap().base)
        );
        check_reads(&broker.view(), &known, &mut dice).await;
        broker.stop().await;
        let mut broker = Broker::start(&machine, &config).await;
        check_reads(&broker.view(), &known, &mut dice).await;
        // Old entries from the file, new ones from memory.
        for _ in 0..400 {
            let sent = batch(1000, 1, 40);
            let length = sent.len();
            let base = broker.append(sent).await.unwrap().0;
            known.push(Known { base, next: base + 1, length });
        }
        check_reads(&broker.view(), &known, &mut dice).await;
        machine.lose_power();
        let broker = Broker::start(&machine, &config).await;
        check_reads(&broker.view(), &known, &mut dice).await;
    }
}

#[tokio::test]
async fn the_edges_of_the_log() {
    let mut broker = Broker::start(&Machine::new(5), &config()).await;
    let view = broker.view();
    let read = view.read(Offset(0), Offset(0), 1000, true).await.unwrap();
    assert_eq!((read.bytes, read.next_offset), (0, Offset(0)), "the end is in range and empty");
    broker.append(batch(1, 10, 10)).await.unwrap();
    assert_eq!(view.log_end, Offset(0), "a view does not change");
    let view = broker.view();
    for wanted in [-1, 11] {
        let refused = view.read(Offset(wanted), Offset(10), 1000, true).await;
        assert!(matches!(refused, Err(ReadError::OutOfRange { .. })), "{refused:?}");
    }
    let middle = view.read(Offset(7), Offset(10), 1, true).await.unwrap();
    assert_eq!(batches(&bytes(&middle.ranges).await)[0].header.base_offset, Offset(0), "the whole batch");
    assert_eq!(view.read(Offset(0), Offset(9), 1000, true).await.unwrap().bytes, 0, "never beyond the bound");
    assert_eq!(view.read(Offset(0), Offset(10), 1, false).await.unwrap().bytes, 0);
}

#[tokio::test]
async fn tail_reads_touch_no_file() {
    let machine = Machine::new(6);
    let mut broker = Broker::start(&machine, &config()).await;
    for number in 0..5 {
        broker.append(batch(number, 1, 10)).await.unwrap();
    }
    let view = broker.view();
    // With the power off, every touch would be an error.
    machine.fail_after(0);
    assert_eq!(view.read(Offset(2), Offset(5), 200, true).await.unwrap().next_offset, Offset(4));
}

/// Timestamps go up and down; segments are small; batches are compressed now and then.
#[tokio::test]
async fn the_first_record_of_a_time_is_found() {
    for seed in 10..14 {
        let machine = Machine::new(seed);
        let mut dice = Dice::new(seed);
        let config = changed(config(), |config| {
            config.index_interval_bytes = 200;
            config.segment_bytes = 3000;
        });
        let mut broker = Broker::start(&machine, &config).await;
        let mut records: Vec<i64> = Vec::new();
        for number in 0..200 {
            let mut builder = BatchBuilder::new();
            if dice.coin() {
                builder = builder.codec(Codec::Lz4);
            }
            for _ in 0..=dice.roll() % 4 {
                let timestamp = number * 100 + i64::try_from(dice.roll() % 1000).unwrap() - 500;
                let timestamp = timestamp.max(0);
                records.push(timestamp);
                builder = builder.record(RecordToWrite {
                    timestamp,
                    value: Some("x".into()),
                    ..RecordToWrite::default()
                });
            }
            broker.append(builder.build()).await.unwrap();
        }
        for round in 0..3 {
            let view = broker.view();
            for _ in 0..200 {
                let target = i64::try_from(dice.roll() % 21_000).unwrap();
                let upper = match dice.coin() {
                    true => view.log_end,
                    false => Offset(i64::try_from(dice.roll() % 400).unwrap()).min(view.log_end),
                };
                let below = &records[..usize::try_from(upper.0).unwrap()];
                let expected = below.iter().position(|timestamp| *timestamp >= target);
                let expected = expected
                    .map(|offset| (below[offset], Offset(i64::try_from(offset).unwrap()), LeaderEpoch(0)));
                let found = view.offset_for_timestamp(target, upper).await.unwrap();
                assert_eq!(found, expected, "seed {seed} round {round} target {target} upper {upper}");
                // Of a batch that the bound cuts, nothing can be shown.
                let shown = view.max_timestamp(upper).await.unwrap();
                if upper == view.log_end {
                    let max = records.iter().max().copied().unwrap();
                    assert_eq!(
                        shown.map(|(timestamp, offset, _)| (
                            timestamp,
                            records[usize::try_from(offset.0).unwrap()]
                        )),
                        Some((max, max))
                    );
                } else {
                    assert!(shown.is_none_or(|(_, offset, _)| offset < upper));
                }
            }
            match round {
                0 => broker.stop().await,
                _ => machine.lose_power(),
            }
            broker = Broker::start(&machine, &config).await;
        }
    }
}

#[tokio::test]
async fn with_log_append_time_a_batch_has_one_time() {
    let mut broker = Broker::start(&Machine::new(20), &config()).await;
    for now in [500, 600] {
        let plain =
            Batch::check(builder(1, 3, 10).timestamp_type(TimestampType::CreateTime).build()).unwrap();
        let stamped = gracchus_core::record::with_log_append_time(&plain, now);
        broker.append(stamped.to_bytes()).await.unwrap();
    }
    let view = broker.view();
    let found = view.offset_for_timestamp(501, view.log_end).await.unwrap();
    assert_eq!(found, Some((600, Offset(3), LeaderEpoch(0))));
    assert_eq!(view.max_timestamp(Offset(3)).await.unwrap(), Some((500, Offset(0), LeaderEpoch(0))));
    assert_eq!(view.offset_for_timestamp(601, view.log_end).await.unwrap(), None);
}

#[tokio::test]
async fn the_greatest_timestamp_is_found_also_in_a_batch_that_the_log_start_cuts() {
    let machine = Machine::new(21);
    let newest = async |broker: &Broker, upper: i64| {
        let found = broker.view().max_timestamp(Offset(upper)).await.unwrap();
        found.map(|(timestamp, offset, _)| (timestamp, offset.0))
    };
    let of = |timestamps: &[i64]| {
        let add = |builder: BatchBuilder, timestamp: &i64| builder.value(*timestamp, "value");
        timestamps.iter().fold(BatchBuilder::new(), add).build()
    };
    let mut broker = Broker::start(&machine, &config()).await;
    broker.append(of(&[100, 50, 70, 70])).await.unwrap();
    assert_eq!(newest(&broker, 4).await, Some((100, 0)));
    broker.log.advance_log_start(Offset(1)).await.unwrap();
    assert_eq!(newest(&broker, 4).await, Some((70, 2)));
    broker.append(of(&[60])).await.unwrap();
    assert_eq!(newest(&broker, 5).await, Some((70, 2)), "the batch behind it is older");
    broker.append(of(&[70, 80])).await.unwrap();
    assert_eq!(newest(&broker, 7).await, Some((80, 6)));
    assert_eq!(newest(&broker, 5).await, Some((70, 2)));
    broker.log.advance_log_start(Offset(3)).await.unwrap();
    assert_eq!(newest(&broker, 5).await, Some((70, 3)));
    broker.log.advance_log_start(Offset(4)).await.unwrap();
    assert_eq!(newest(&broker, 5).await, Some((60, 4)));
}
