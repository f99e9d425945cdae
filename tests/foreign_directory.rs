//! A directory that is not ours: that of a real Apache Kafka that was killed. Ours refuses it, in whatever place of its
//! configuration it is named, and leaves every byte, name and time as it was; that Kafka starts again and serves its
//! records.
#![allow(clippy::disallowed_methods, reason = "a test works with real processes and files")]

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    time::SystemTime,
};

use gracchus_tests::{
    Client, Options, Scratch,
    broker::{free_port, serve_command},
    client,
    java::Java,
    peer::ApacheKafka,
};

/// When it was changed, and the contents of a file.
type What = (SystemTime, Option<Vec<u8>>);

/// Everything below `path`.
fn everything(path: &Path) -> BTreeMap<PathBuf, What> {
    let mut found = BTreeMap::new();
    let mut left = vec![path.to_owned()];
    while let Some(path) = left.pop() {
        let metadata = fs::metadata(&path).expect("it is there");
        let contents = if metadata.is_dir() {
            left.extend(fs::read_dir(&path).expect("reads").map(|entry| entry.expect("reads").path()));
            None
        } else {
            Some(fs::read(&path).expect("reads"))
        };
        found.insert(path, (metadata.modified().expect("a time"), contents));
    }
    found
}

/// What `gracchus serve` says before it gives up.
fn refused(scratch: &Path, settings: &[(&str, String)]) -> String {
    let file = scratch.join("refused.properties");
    let lines = settings.iter().map(|(key, value)| format!("{key}={value}\n"));
    let listener = format!("listeners=PLAINTEXT://127.0.0.1:{}\n", free_port());
    fs::write(&file, lines.chain([listener]).collect::<String>()).expect("writes");
    let output = serve_command(&Options::default(), &file).output().expect("runs");
    let words =
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "it refuses to start:\n{words}");
    words
}

#[test]
fn a_killed_apache_kafka_is_left_as_it_is() {
    const VALUES: [&str; 3] = ["one", "two", "three"];
    let Some(java) = Java::find("the directory of a killed Apache Kafka") else { return };
    let scratch = Scratch::new("foreign");
    let mut kafka = ApacheKafka::start(&java, scratch.path(), &[]);
    let mut client = Client::connect(kafka.address()).expect("connects");
    client.create_topic("kept", 2, &[]).expect("creates");
    client.wait_until_served("kept", 2).expect("serves");
    for value in VALUES {
        client.produce("kept", 0, client::batch(&[value])).expect("produces");
    }
    kafka.kill();
    let (data, new) = (kafka.data(), scratch.path().join("new"));
    let before = everything(&data);
    let text = |path: &Path| path.display().to_string();
    let both = |one: &Path, other: &Path| format!("{},{}", one.display(), other.display());
    let ways = [
        vec![("log.dirs", text(&data))],
        // Another node would be refused by a number already.
        vec![("node.id", "7".to_owned()), ("log.dirs", text(&data))],
        vec![("log.dirs", both(&new, &data))],
        vec![("log.dirs", both(&data, &new))],
        vec![("log.dirs", text(&new)), ("metadata.log.dir", text(&data))],
    ];
    for settings in &ways {
        let words = refused(scratch.path(), settings);
        assert!(words.contains("looks like data of Apache Kafka (node.id 1"), "{settings:?}:\n{words}");
        let after = everything(&data);
        let touched: Vec<_> =
            after.keys().chain(before.keys()).filter(|path| before.get(*path) != after.get(*path)).collect();
        assert!(touched.is_empty(), "{settings:?} touched {touched:?}");
        assert!(!new.exists(), "{settings:?}: a refused start makes no directory");
    }
    kafka.start_again();
    let mut client = Client::connect(kafka.address()).expect("connects");
    client.wait_for_leaders("kept", 2).expect("it leads");
    client.wait_until_served("kept", 2).expect("serves");
    let records = client.read_partition("kept", 0).expect("reads");
    let values: Vec<_> = records.iter().map(|record| record.value.clone().expect("a value")).collect();
    assert_eq!(values, VALUES);
}
