//! Configuration texts: server.properties, what the broker makes of it, topic configurations, topic names.
//!
//! Holds: what was read and is written with escapes reads the same; a topic configuration resolved from its own texts is
//! itself; an empty value is taken only where the tables of keys say what it means. Input: a byte that chooses, then the text.

use std::{collections::BTreeMap, io, path::Path};

use gracchus::config::{BrokerConfig, Outside, Settings, keys};
use gracchus_core::{
    properties::{self, Property},
    topic::{KEYS, TopicConfig, validate_name},
};

use super::seed;
use crate::{Seed, input::Input};

pub(super) fn run(input: &[u8]) -> bool {
    let mut input = Input(input);
    let kind = input.byte();
    let contents = input.rest();
    if kind % 3 == 0 {
        return file(contents);
    }
    let text = String::from_utf8_lossy(contents);
    match kind % 3 {
        1 => topic(&text),
        _ => {
            let legal = validate_name(&text).is_ok();
            assert!(
                !legal || !text.contains('/') && text.len() < 250,
                "a name that is no name of a directory"
            );
            legal
        }
    }
}

fn file(contents: &[u8]) -> bool {
    let text = properties::decode(contents);
    let Ok(read) = properties::parse(&text) else { return false };
    let written: String =
        read.iter().map(|property| properties::line(&property.key, &property.value) + "\n").collect();
    let again = properties::parse(&written).expect("what was written is in the syntax");
    let pairs = |properties: &[Property]| -> Vec<(String, String)> {
        properties.iter().map(|property| (property.key.clone(), property.value.clone())).collect()
    };
    assert_eq!(pairs(&again), pairs(&read));
    let mut settings = Settings::default();
    settings.add_file("fuzz.properties", contents).expect("it was read above");
    let loaded = settings.resolve(&Anything).and_then(|()| BrokerConfig::load(&settings, "host"));
    match loaded {
        Ok((config, _warnings)) => {
            assert!(!config.log_dirs.is_empty() && !config.listeners.is_empty());
            // The last one of a name holds.
            let last: BTreeMap<&str, &str> =
                read.iter().map(|property| (property.key.as_str(), property.value.trim())).collect();
            for (key, _) in last.into_iter().filter(|(_, value)| value.is_empty()) {
                let legal = keys::key(key).is_none_or(|key| key.empty.is_some());
                assert!(legal, "an empty {key} was taken");
            }
            true
        }
        Err(error) => {
            assert!(!error.to_string().is_empty(), "an error that says nothing");
            false
        }
    }
}

/// Where every variable and file is, and holds its own name.
struct Anything;

impl Outside for Anything {
    fn variable(&self, name: &str) -> Option<String> {
        Some(name.to_owned())
    }

    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        Ok(path.to_string_lossy().into_owned().into_bytes())
    }
}

fn topic(text: &str) -> bool {
    let pairs = text.lines().filter_map(|line| line.split_once('='));
    let overrides: BTreeMap<String, String> =
        pairs.map(|(key, value)| (key.to_owned(), value.to_owned())).collect();
    let Ok(config) = TopicConfig::resolve(&TopicConfig::default(), &overrides) else { return false };
    for (key, _) in overrides.iter().filter(|(_, value)| value.trim().is_empty()) {
        let legal = KEYS.iter().any(|known| known.name == key && known.empty.is_some());
        assert!(legal, "an empty {key} was taken");
    }
    let texts = KEYS.iter().map(|key| (key.name.to_owned(), config.text(key).to_owned())).collect();
    let again = TopicConfig::resolve(&TopicConfig::default(), &texts).expect("its own texts are legal");
    for key in KEYS {
        assert_eq!(again.text(key), config.text(key), "{}", key.name);
    }
    assert_eq!(again.segment_bytes, config.segment_bytes);
    assert_eq!(again.cleanup_policy, config.cleanup_policy);
    true
}

pub(super) fn seeds() -> Vec<Seed> {
    let input = |kind: u8, text: &str| [&[kind], text.as_bytes()].concat();
    let server = "# a broker\nprocess.roles=broker,controller\nnode.id=1\ncontroller.quorum.voters=1@localhost:9093\n\
                  listeners=PLAINTEXT://:9092,CONTROLLER://:9093\nadvertised.listeners=PLAINTEXT://host:9092\n\
                  controller.listener.names=CONTROLLER\n\
                  listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT\nlog.dirs=/tmp/a,\\\n    /tmp/b\nnum.partitions=3\n\
                  log.retention.hours=168\nlog.segment.bytes=1073741824\n";
    let topic: String = KEYS.iter().map(|key| format!("{}={}\n", key.name, key.default)).collect();
    vec![
        seed("server", input(0, server)),
        seed("escapes", input(0, "a\\ b\\=c\\:d=\\t\\n\\u0041\\ud83d\\ude00\n! x\nk v\nl:m\\")),
        seed(
            "providers",
            input(
                0,
                "config.providers=env,file\nlog.dirs=${env:X}/a\nbroker.rack=${file:/a:/a}\nconfig.providers.env.param.allowlist.pattern=X.*",
            ),
        ),
        seed("latin-1", [&input(0, "broker.rack=Z")[..], b"\xfcrich"].concat()),
        seed("topic", input(1, &topic)),
        seed("server-empty", input(0, "log.cleanup.policy=\nbroker.rack=\ncontroller.quorum.voters=\n")),
        seed("server-empty-refused", input(0, "log.dirs=\nlog.retention.ms=\n")),
        seed("topic-empty", input(1, "cleanup.policy=\n")),
        seed("topic-few", input(1, "cleanup.policy=compact,delete\nretention.ms=-1\n")),
        seed("name", input(2, "a.topic_name-1")),
    ]
}
