//! The keys of configurations beside the real Apache Kafka: whether the project's list of them is what Kafka says, and
//! whether an empty value of each is taken or refused as there, in the file and of a topic. Where ours differs, a reason
//! stands here, and one that has outlived its difference fails.
#![allow(clippy::disallowed_methods, reason = "a test works with real processes and files")]

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    process::Stdio,
};

use gracchus_tests::{
    Broker, Options, Scratch,
    broker::serve_command,
    java::{Java, expect_success},
    places::workspace,
};

/// Keys whose empty value is judged otherwise in the file.
const OTHERWISE: [(&str, &str); 3] = [
    ("metadata.log.dir", "Kafka would take it for the working directory of the process"),
    (
        "controller.quorum.voters",
        "it is Kafka's default, and refused there only where nothing else names the quorum",
    ),
    ("allow.everyone.if.no.acl.found", "no word of yes or no, and Kafka asks nobody without an authorizer"),
];

/// A key as Kafka describes it: whether an empty value is taken, by name.
fn empties(java: &Java, of: &str) -> (String, BTreeMap<String, bool>) {
    let text = expect_success("Keys.java", &java.program("Keys.java", &[of]));
    let row = |line: &str| {
        let fields: Vec<&str> = line.split('\t').collect();
        (fields[0].to_owned(), fields[4] == "empty")
    };
    let rows = text.lines().map(row).collect();
    (text, rows)
}

#[test]
fn the_list_of_keys_and_their_empty_values_are_those_of_apache_kafka() {
    let Some(java) = Java::find("the comparison of keys with Apache Kafka") else { return };
    let (text, taken) = empties(&java, "keys");
    let ours =
        fs::read_to_string(workspace().join("broker/src/config/kafka_keys.txt")).expect("our own file");
    assert_eq!(ours, text, "kafka_keys.txt is what `Keys.java keys` prints");

    // One file with every key empty: every problem is named at once.
    let scratch = Scratch::new("keys");
    let file = scratch.path().join("empty.properties");
    let lines: String = taken.keys().map(|key| format!("{key}=\n")).collect();
    fs::write(&file, lines + "super.users=\nallow.everyone.if.no.acl.found=\n").expect("writes");
    let mut command = serve_command(&Options::default(), &file);
    let output = command.current_dir(scratch.path()).stdin(Stdio::null()).output().expect("starts");
    assert!(!output.status.success());
    let words = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    let refused: BTreeSet<&str> = words
        .lines()
        .filter_map(|line| line.split_once("empty.properties:"))
        .filter_map(|(_, rest)| rest.split(": ").nth(1))
        .collect();
    for (key, taken) in &taken {
        let differs = *taken == refused.contains(key.as_str());
        let expected = OTHERWISE.iter().any(|(name, _)| name == key);
        assert_eq!(differs, expected, "{key}: Apache Kafka takes an empty value: {taken}\n{words}");
    }
    assert!(
        refused.contains("allow.everyone.if.no.acl.found") && !refused.contains("super.users"),
        "{words}"
    );
}

#[test]
fn an_empty_configuration_of_a_topic_is_taken_as_by_apache_kafka() {
    let Some(java) = Java::find("the comparison of topic keys with Apache Kafka") else { return };
    let (_, taken) = empties(&java, "topic");
    let scratch = Scratch::new("topic-keys");
    let broker = Broker::start(scratch.path(), Options::default());
    for (number, (key, taken)) in taken.iter().enumerate() {
        let created = broker.connect().create_topic(&format!("t{number}"), 1, &[(key, "")]);
        assert_eq!(created.is_ok(), *taken, "{key}: {created:?}");
    }
    broker.assert_no_panic();
}
