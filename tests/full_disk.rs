//! A full disk of the real broker: an error to the producer, never a lie, and whole again after a restart with space.

use gracchus_tests::{
    Broker, Options, Scratch,
    client::{self, PRODUCE_VERSION},
    tmpfs::Tmpfs,
    toolchain,
};

const KAFKA_STORAGE_ERROR: i16 = 56;
const MEGABYTES: u32 = 300;

#[test]
fn a_full_disk_is_an_error_and_heals() {
    let scratch = Scratch::new("full-disk");
    let disk = match Tmpfs::mount(scratch.path(), MEGABYTES) {
        Ok(disk) => disk,
        Err(reason) => {
            return toolchain::not_run(
                "the full disk of a real broker",
                &format!("a tmpfs needs rights: {reason}"),
            );
        }
    };
    let mut broker = Broker::start(scratch.path(), Options::default());
    let mut client = broker.connect();
    client.create_topic("filling", 2, &[]).expect("creates");
    let value = |number: i64| format!("{number} {}", "f".repeat(900_000));
    let mut acknowledged = 0;
    let error = loop {
        assert!(acknowledged < i64::from(2 * MEGABYTES), "more than fits was acknowledged");
        let request = client::produce_request("filling", 0, client::batch(&[value(acknowledged)]), -1);
        let response = client.call(&request, PRODUCE_VERSION).expect("an answer, also on a full disk");
        let partition = &response.responses[0].partition_responses[0];
        if partition.error_code != 0 {
            break partition.error_code;
        }
        assert_eq!(partition.base_offset, acknowledged);
        acknowledged += 1;
    };
    assert_eq!(error, KAFKA_STORAGE_ERROR);
    assert!(acknowledged > 50, "only {acknowledged} fitted");
    assert!(broker.is_running(), "an error, not an end");
    let other = client::produce_request("filling", 1, client::batch(&["small"]), -1);
    let response = client.call(&other, PRODUCE_VERSION).expect("an answer");
    let error = response.responses[0].partition_responses[0].error_code;
    assert_eq!(
        error, KAFKA_STORAGE_ERROR,
        "the directory stays offline: nothing is known about its last write"
    );

    broker.kill();
    disk.resize(2 * MEGABYTES);
    broker.start_again();
    let mut client = broker.connect();
    client.wait_for_leaders("filling", 2).expect("leads");
    let records = client.read_partition("filling", 0).expect("reads");
    assert!(records.len() as i64 >= acknowledged, "{} of {acknowledged} acknowledged records", records.len());
    for (number, record) in records.iter().take(acknowledged as usize).enumerate() {
        let expected = value(number as i64);
        assert!(
            record.value.as_deref() == Some(expected.as_bytes()),
            "record {number} is what was acknowledged"
        );
    }
    let offset = client.produce("filling", 0, client::batch(&["room again"])).expect("writes again");
    assert_eq!(offset, records.len() as i64);
    broker.assert_no_panic();
    drop(broker);
    drop(disk);
}
