//! `min.insync.replicas` while eligible leader replicas are on (KIP-966), as on every fresh Apache Kafka of today: it is a
//! dynamic configuration of every broker, first what the file says, and no single broker has one of its own, so that all
//! judge a partition by the same number. A topic may still have its own.
//!
//! Never: the number taken from a file once it is in the metadata.

use std::collections::BTreeMap;

use gracchus_core::{
    BrokerId,
    controller::{Command, ConfigChange, ConfigResource, Image, fingerprint},
};

use super::BrokerConfig;

const KEY: &str = "min.insync.replicas";

/// Why the configuration of one broker, or of every broker, cannot become `after`, in Kafka's words. `names` tells whether a
/// change names a key.
pub(crate) fn refuse(
    of: Option<BrokerId>,
    names: impl Fn(&str) -> bool,
    before: &BTreeMap<String, String>,
    after: &BTreeMap<String, String>,
) -> Option<&'static str> {
    match of {
        Some(_) if names(KEY) => {
            Some("Broker-level min.insync.replicas cannot be altered while ELR is enabled.")
        }
        None if before.contains_key(KEY) && !after.contains_key(KEY) => {
            Some("Cluster-level min.insync.replicas cannot be removed while ELR is enabled.")
        }
        _ => None,
    }
}

/// What makes it so where it is not yet: in new metadata, and in that of a version that did not know of it.
pub(crate) fn settle(image: &Image, config: &BrokerConfig) -> Vec<Command> {
    let mut commands = Vec::new();
    for (of, set) in &image.broker_configs {
        if let Some(broker) = of.filter(|_| set.contains_key(KEY)) {
            commands.push(Command::AlterConfigs {
                resource: ConfigResource::Broker(broker),
                changes: vec![ConfigChange::Delete { key: KEY.to_owned() }],
                seen: None,
            });
        }
    }
    let held = image.broker_configs.get(&None).cloned().unwrap_or_default();
    if !held.contains_key(KEY) {
        let value = config.topic_defaults.min_insync_replicas.to_string();
        commands.push(Command::AlterConfigs {
            resource: ConfigResource::EveryBroker,
            changes: vec![ConfigChange::Set { key: KEY.to_owned(), value }],
            seen: Some(fingerprint(&held)),
        });
    }
    commands
}

#[cfg(test)]
mod tests {
    use super::{super::Settings, *};

    fn set(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn no_broker_gets_its_own_and_that_of_all_stays() {
        let (one, two, none) = (set(&[(KEY, "1")]), set(&[(KEY, "2")]), set(&[("other", "1")]));
        let broker = Some(BrokerId(1));
        let (named, other) = (|key: &str| key == KEY, |key: &str| key == "other");
        assert!(refuse(broker, named, &none, &one).unwrap().starts_with("Broker-level"));
        assert!(refuse(broker, named, &none, &none).unwrap().starts_with("Broker-level"));
        assert_eq!(refuse(broker, other, &none, &none), None);
        assert!(refuse(None, named, &one, &none).unwrap().starts_with("Cluster-level"));
        assert!(refuse(None, other, &one, &none).unwrap().starts_with("Cluster-level"), "the elder way");
        assert_eq!(refuse(None, named, &one, &two), None);
        assert_eq!(refuse(None, named, &none, &one), None);
    }

    #[test]
    fn the_first_start_takes_it_from_the_file_and_no_later_one() {
        let config =
            |value: i32| BrokerConfig::load(&Settings::default().with(KEY, value), "here").unwrap().0;
        let mut image = Image::default();
        let commands = settle(&image, &config(2));
        let [Command::AlterConfigs { resource: ConfigResource::EveryBroker, changes, .. }] = &commands[..]
        else {
            panic!("{commands:?}")
        };
        assert_eq!(*changes, [ConfigChange::Set { key: KEY.to_owned(), value: "2".to_owned() }]);
        image.broker_configs.insert(None, set(&[(KEY, "2")]).into());
        assert_eq!(settle(&image, &config(3)).len(), 0);
        image.broker_configs.insert(Some(BrokerId(1)), set(&[(KEY, "3"), ("other", "1")]).into());
        assert_eq!(settle(&image, &config(3)).len(), 1, "that of the broker goes");
    }
}
