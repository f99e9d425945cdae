//! How old records without timestamps are outlives the process that wrote them, and so does the age of their segment.

use super::*;
use crate::UnopenedLog;

const SECOND: i64 = 1000;
/// When the story begins.
const BEGIN: i64 = 1_700_000_000 * SECOND;

/// Records go when they are ten seconds old.
fn ten_seconds() -> TopicConfig {
    changed(config(), |config| {
        config.segment_bytes = 1000;
        config.retention_ms = 10 * SECOND;
    })
}

fn untimed() -> Bytes {
    (0..3).fold(BatchBuilder::new(), |builder, _| builder.value(-1, vec![b'x'; 100])).build()
}

/// One look of retention, as the owner of a replica takes it: how many records are left.
async fn left(broker: &mut Broker) -> i64 {
    let view = broker.view();
    let now_ms = broker.log.directory.env().wall_clock_ms();
    if view.may_trim(&broker.log.config, view.log_end, now_ms) {
        let trimmed = broker.log.trim(view.log_end).await.expect("trims");
        let files = broker.log.bury(trimmed).await.expect("buries");
        broker.log.remove_files(files).await.expect("removes");
    }
    let view = broker.view();
    view.log_end.0 - view.log_start.0
}

/// How a process ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Stop,
    Kill,
    PowerLoss,
}

async fn end(machine: &Machine, broker: Broker, how: End) {
    match how {
        End::Stop => broker.stop().await,
        End::Kill => drop(broker),
        End::PowerLoss => {
            drop(broker);
            machine.lose_power();
        }
    }
}

#[tokio::test]
async fn records_grow_old_however_often_the_process_starts() {
    for how in [End::Stop, End::Kill, End::PowerLoss] {
        let machine = Machine::new(3);
        machine.set_clock(BEGIN);
        let mut broker = Broker::start(&machine, &ten_seconds()).await;
        for _ in 0..8 {
            broker.append(untimed()).await.unwrap();
        }
        assert!(broker.view().sealed.len() > 1);
        // As old as they are, or as the first process after theirs.
        for second in [4, 8, 12, 16] {
            end(&machine, broker, how).await;
            machine.set_clock(BEGIN + second * SECOND);
            broker = Broker::start(&machine, &ten_seconds()).await;
            let gone = left(&mut broker).await == 0;
            let latest = if how == End::Stop { 12 } else { 16 };
            assert!(gone || second < latest, "{how:?}: still there after {second} s");
            assert!(!gone || second > 10, "{how:?}: gone after {second} s");
        }
    }
}

#[tokio::test]
async fn what_nobody_writes_to_any_more_has_told_its_age_before_a_crash() {
    for how in [End::Stop, End::Kill, End::PowerLoss] {
        let machine = Machine::new(8);
        machine.set_clock(BEGIN);
        let mut broker = Broker::start(&machine, &ten_seconds()).await;
        broker.append(untimed()).await.unwrap();
        machine.set_clock(BEGIN + 2 * SECOND);
        assert!(left(&mut broker).await > 0);
        let view = broker.view();
        assert!(!view.may_trim(&broker.log.config, view.log_end, BEGIN + 9 * SECOND), "once is enough");
        end(&machine, broker, how).await;
        for (second, gone) in [(9, false), (11, true)] {
            machine.set_clock(BEGIN + second * SECOND);
            broker = Broker::start(&machine, &ten_seconds()).await;
            assert_eq!(left(&mut broker).await == 0, gone, "{how:?}: after {second} s");
            end(&machine, broker, how).await;
        }
    }
}

#[tokio::test]
async fn what_is_written_is_young_again() {
    for how in [End::Stop, End::Kill] {
        let machine = Machine::new(4);
        machine.set_clock(BEGIN);
        let mut broker = Broker::start(&machine, &ten_seconds()).await;
        broker.append(untimed()).await.unwrap();
        for second in [8, 16, 24] {
            end(&machine, broker, how).await;
            machine.set_clock(BEGIN + second * SECOND);
            broker = Broker::start(&machine, &ten_seconds()).await;
            assert!(left(&mut broker).await > 0, "{how:?}: after {second} s");
            // It stays in the first segment until that is full.
            broker.append(untimed()).await.unwrap();
        }
    }
}

#[tokio::test]
async fn a_segment_ends_by_time_however_often_the_process_starts() {
    for how in [End::Stop, End::Kill, End::PowerLoss] {
        let machine = Machine::new(5);
        machine.set_clock(BEGIN);
        let config = changed(config(), |config| config.segment_ms = 10 * SECOND);
        let mut broker = Broker::start(&machine, &config).await;
        for second in [0, 4, 8, 12] {
            machine.set_clock(BEGIN + second * SECOND);
            broker.append(untimed()).await.unwrap();
            assert_eq!(broker.view().sealed.len(), usize::from(second > 10), "{how:?}: after {second} s");
            end(&machine, broker, how).await;
            broker = Broker::start(&machine, &config).await;
        }
    }
}

#[tokio::test]
async fn a_log_of_an_earlier_release_grows_old_from_its_first_look_on() {
    let machine = Machine::new(6);
    machine.set_clock(BEGIN);
    let mut broker = Broker::start(&machine, &ten_seconds()).await;
    for _ in 0..8 {
        broker.append(untimed()).await.unwrap();
    }
    let records = broker.view().log_end.0;
    broker.stop().await;
    machine.remove(&path("segment-ages"));
    machine.set_clock(BEGIN + 20 * SECOND);
    let directory = LogDirectory::open(machine.start(), directory_path(), in_place()).await.unwrap();
    let unopened = UnopenedLog::look(&directory, &id()).await.unwrap().expect("it is there");
    assert!(unopened.is_due(&ten_seconds(), BEGIN + 20 * SECOND), "nobody else would open it");
    drop(directory);
    let mut broker = Broker::start(&machine, &ten_seconds()).await;
    assert_eq!(left(&mut broker).await, records, "nobody knows how old they are");
    for (second, expected) in [(25, records), (31, 0)] {
        broker.stop().await;
        machine.set_clock(BEGIN + second * SECOND);
        broker = Broker::start(&machine, &ten_seconds()).await;
        assert_eq!(left(&mut broker).await, expected, "after {second} s");
    }
}

#[tokio::test]
async fn a_log_that_nobody_opens_is_opened_to_learn_its_age_and_when_it_is_due() {
    let machine = Machine::new(7);
    machine.set_clock(BEGIN);
    let config = ten_seconds();
    let mut broker = Broker::start(&machine, &config).await;
    broker.append(untimed()).await.unwrap();
    drop(broker);
    machine.set_clock(BEGIN + 4 * SECOND);
    let look = async |second: i64| {
        machine.set_clock(BEGIN + second * SECOND);
        let directory = LogDirectory::open(machine.start(), directory_path(), in_place()).await.unwrap();
        let unopened = UnopenedLog::look(&directory, &id()).await.unwrap().expect("it is there");
        unopened.is_due(&config, BEGIN + second * SECOND)
    };
    assert!(look(4).await, "it was killed: how old it is has to be kept");
    let mut broker = Broker::start(&machine, &config).await;
    assert_eq!(left(&mut broker).await, 3);
    drop(broker);
    assert!(!look(13).await);
    assert!(look(15).await);
}
