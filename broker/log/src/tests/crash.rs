//! The power fails at every single step: of appending, of rolling, of cutting, of repairing.

use super::*;

/// Sends numbered records of an idempotent producer until the disk gives up; returns how many were acknowledged.
async fn append_until_failure(broker: &mut Broker, from: i64, count: i64) -> i64 {
    let mut acknowledged = from;
    for sequence in from..from + count {
        let sent =
            idempotent(9, i32::try_from(sequence).unwrap(), usize::try_from(37 * sequence % 400).unwrap());
        match broker.append(sent).await {
            Ok(offset) => {
                assert_eq!(offset.0, sequence);
                acknowledged = sequence + 1;
            }
            Err(StorageError::Offline(_)) => {
                assert!(broker.directory.offline().is_some());
                let again = broker.append(idempotent(9, 0, 1)).await;
                assert!(again.is_err(), "nothing is done after the first error");
                break;
            }
            Err(other) => panic!("{other}"),
        }
    }
    acknowledged
}

/// The log holds records 0, 1, 2, … and all that were acknowledged; producers know exactly what the log holds.
async fn check(broker: &Broker, acknowledged: i64, context: &str) {
    let found = batches(&broker.contents().await);
    assert!(!broker.recovered.damaged, "{context}: power loss is no damage");
    assert!(
        broker.view().log_end.0 >= acknowledged,
        "{context}: {} of {acknowledged}",
        broker.view().log_end
    );
    for (number, batch) in found.iter().enumerate() {
        let sequence = i32::try_from(number).unwrap();
        assert_eq!(batch.header.base_offset.0, i64::from(sequence), "{context}");
        assert_eq!(batch.header.base_sequence, sequence, "{context}");
    }
    let known = broker.log.producers().get(ProducerId(9)).and_then(|entry| entry.batches.back().copied());
    let expected = found.last().map(|batch| batch.header.last_offset());
    assert_eq!(known.map(|mark| mark.last_offset), expected, "{context}");
    let epochs = broker.view().epochs.entries().iter().map(|(_, start)| start.0).max().unwrap_or(0);
    assert!(epochs <= broker.view().log_end.0, "{context}");
}

fn small() -> TopicConfig {
    changed(config(), |config| {
        config.segment_bytes = 2000;
        config.index_interval_bytes = 200;
    })
}

#[tokio::test]
async fn no_power_loss_takes_an_acknowledged_record() {
    for seed in 0..300 {
        let machine = Machine::new(seed);
        let mut acknowledged = 0;
        for life in 0..4 {
            let context = format!("seed {seed} life {life}");
            // Later lives fail in the middle of recovery as well.
            machine.fail_after((seed * 7 + life * 31) % 160);
            // Every second story by way of the journal.
            let options = if seed % 2 == 0 { journaled() } else { in_place() };
            if let Ok(mut broker) = Broker::try_start_with(&machine, &small(), options).await {
                check(&broker, acknowledged, &context).await;
                let from = broker.view().log_end.0;
                let end = append_until_failure(&mut broker, from, 40).await;
                acknowledged = acknowledged.max(end);
                if seed % 3 == 0 && broker.log.close().await.is_ok() {
                    broker.directory.close().await;
                }
            }
            machine.lose_power();
        }
        let broker = Broker::start(&machine, &small()).await;
        check(&broker, acknowledged, &format!("seed {seed} at the end")).await;
        broker.stop().await;
        dump(&machine);
    }
}

#[tokio::test]
async fn recovery_can_fail_at_each_of_its_steps() {
    // How many steps a recovery takes that has to cut.
    for failing_at in 0.. {
        let machine = Machine::new(77);
        let mut broker = Broker::start(&machine, &small()).await;
        append_until_failure(&mut broker, 0, 30).await;
        machine.start();
        // Everything from the middle of the log on is bad, back to before the last segment.
        let newest = machine.newest(&directory_path().join("orders-3"), ".log");
        machine.edit(&newest, |bytes| bytes[30] ^= 1);
        let before = machine.steps();
        machine.fail_after(failing_at);
        let finished = Broker::try_start(&machine, &small()).await.is_ok();
        let taken = machine.steps() - before;
        machine.lose_power();
        let broker = Broker::start(&machine, &small()).await;
        check(&broker, 0, &format!("failing at {failing_at}")).await;
        assert!(broker.view().log_end.0 > 10, "failing at {failing_at}: only the bad segment goes");
        broker.stop().await;
        dump(&machine);
        if finished {
            assert!(taken > 5, "recovery took steps");
            break;
        }
    }
}

#[tokio::test]
async fn a_cut_can_fail_at_each_of_its_steps() {
    for failing_at in 0.. {
        let machine = Machine::new(1000 + failing_at);
        let mut broker = Broker::start(&machine, &small()).await;
        append_until_failure(&mut broker, 0, 30).await;
        machine.fail_after(failing_at);
        let cut = broker.log.truncate_to(Offset(12)).await.is_ok();
        drop(broker);
        machine.lose_power();
        let broker = Broker::start(&machine, &small()).await;
        let log_end = broker.view().log_end.0;
        check(&broker, 12, &format!("failing at {failing_at}")).await;
        if cut {
            assert_eq!(log_end, 12);
            break;
        }
    }
}

#[tokio::test]
async fn what_a_reader_saw_after_a_kill_stays_after_a_power_loss() {
    let machine = Machine::new(5);
    let unsynced = changed(small(), |config| {
        config.flush_messages = i64::MAX;
    });
    let mut broker = Broker::start(&machine, &unsynced).await;
    append_until_failure(&mut broker, 0, 25).await;
    // Killed: the page cache survives, and whoever reads now sees all of it.
    let broker = Broker::start(&machine, &unsynced).await;
    assert_eq!(broker.view().log_end, Offset(25));
    machine.lose_power();
    let broker = Broker::start(&machine, &unsynced).await;
    check(&broker, 25, "after the power loss").await;
}

#[tokio::test]
async fn left_to_the_operating_system_a_power_loss_leaves_a_prefix() {
    let mut lost = 0;
    for seed in 0..60 {
        let machine = Machine::new(seed);
        let unsynced = changed(small(), |config| {
            config.flush_messages = i64::MAX;
        });
        let mut broker = Broker::start(&machine, &unsynced).await;
        append_until_failure(&mut broker, 0, 25).await;
        machine.lose_power();
        let broker = Broker::start(&machine, &unsynced).await;
        check(&broker, 0, &format!("seed {seed}")).await;
        lost += 25 - broker.view().log_end.0;
    }
    assert!(lost > 0, "this machine loses what nobody synced");
}

#[tokio::test]
async fn recovery_reads_only_what_lies_behind_the_recovery_point() {
    let machine = Machine::new(3);
    let mut broker = Broker::start(&machine, &small()).await;
    append_until_failure(&mut broker, 0, 100).await;
    assert!(broker.view().sealed.len() > 5);
    broker.directory.flusher().checkpoint().await.unwrap();
    append_until_failure(&mut broker, 100, 3).await;
    let size = broker.view().size();
    for _ in 0..2 {
        let killed = Broker::start(&machine, &small()).await;
        check(&killed, 103, "killed").await;
        assert!(!killed.recovered.clean && killed.recovered.cut_bytes == 0);
        let scanned = killed.recovered.scanned_bytes;
        assert!(0 < scanned && scanned < size / 10, "{scanned} of {size}");
    }
}

#[tokio::test]
async fn a_topic_that_turns_to_syncing_keeps_what_was_before_its_first_acknowledgement() {
    let unsynced = changed(small(), |config| {
        config.flush_messages = i64::MAX;
    });
    let mut lost = 0;
    for seed in 0..120 {
        let context = format!("seed {seed}");
        let machine = Machine::new(seed);
        let options = if seed % 2 == 0 { journaled() } else { in_place() };
        let mut broker = Broker::try_start_with(&machine, &unsynced, options).await.unwrap();
        append_until_failure(&mut broker, 0, 25).await;
        machine.fail_after(seed % 40);
        let told = broker.log.set_config(Arc::new(small())).await;
        let acknowledged =
            if told.is_ok() { append_until_failure(&mut broker, 25, 3).await.max(25) } else { 0 };
        machine.lose_power();
        // Whenever the power failed: recovery goes by the new configuration, and calls nothing damaged.
        let broker = Broker::start(&machine, &small()).await;
        check(&broker, acknowledged, &context).await;
        lost += 25 - broker.view().log_end.0.min(25);
        let strict = machine.list(&directory_path().join("orders-3"));
        assert!(
            !strict.contains(&crate::names::SEALED_UNSYNCED.to_owned()),
            "{context}: from now on a loss is damage"
        );
    }
    assert!(lost > 0, "some of them failed before the sync");
}
