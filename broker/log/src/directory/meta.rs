//! `meta.properties`: who owns a log directory, in Kafka's keys, and the version of our own files beside Kafka's.
//!
//! Never: open a directory without our format line, of another node, of another cluster or of a newer format; forget keys
//! it does not know.

use std::{collections::BTreeMap, fmt::Write as _};

use gracchus_core::{
    BrokerId, TopicId,
    properties::{self, Property},
};
use uuid::Uuid;

use super::{DirectoryOptions, OpenError, identity};

pub(super) const FILE: &str = "meta.properties";
/// The format of what Kafka does not know: journal, clean marker. 2: groups of the journal say what was synced before them; a
/// release that knows only 1 would take them for no groups.
pub(super) const FORMAT_VERSION: u32 = 2;

const FORMAT: &str = "gracchus.format.version";

/// The contents of `meta.properties`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Meta {
    pub(super) directory_id: Uuid,
    pub(super) cluster_id: Option<String>,
    node_id: BrokerId,
    format: u32,
    /// Keys that we do not interpret, kept as they are.
    other: BTreeMap<String, String>,
}

impl Meta {
    pub(super) fn new(options: &DirectoryOptions, directory_id: Uuid) -> Self {
        Self {
            directory_id,
            cluster_id: options.cluster_id.clone(),
            node_id: options.node_id,
            format: FORMAT_VERSION,
            other: BTreeMap::new(),
        }
    }

    /// Reads the file of a directory that `options` wants to open.
    pub(super) fn parse(text: &str, options: &DirectoryOptions) -> Result<Self, OpenError> {
        let entries = properties::parse(text).map_err(|error| OpenError::Meta(error.to_string()))?;
        let trimmed = |entry: Property| (entry.key, entry.value.trim().to_owned());
        let mut keys: BTreeMap<String, String> = entries.into_iter().map(trimmed).collect();
        let broken = |what: &str| OpenError::Meta(what.to_owned());
        let format = match keys.remove(FORMAT).map(|version| version.parse::<u32>()) {
            Some(Ok(version)) if version > FORMAT_VERSION => {
                return Err(OpenError::NewerFormat { found: version, known: FORMAT_VERSION });
            }
            Some(Err(_)) => return Err(broken("format version is not a number")),
            Some(Ok(version)) => version,
            // Whoever wrote it, it was not this program.
            None => {
                let another = identity::of_another(&keys).map(OpenError::Foreign);
                return Err(another.unwrap_or_else(|| broken("neither Gracchus nor Apache Kafka wrote it")));
            }
        };
        if keys.remove("version").is_none_or(|version| version != "1") {
            return Err(broken("version is not 1"));
        }
        let node_id = keys.remove("node.id").and_then(|id| id.parse().ok());
        let node_id = BrokerId(node_id.ok_or_else(|| broken("no node.id"))?);
        if node_id != options.node_id {
            return Err(OpenError::WrongNode { found: node_id, wanted: options.node_id });
        }
        let cluster_id = keys.remove("cluster.id");
        if let (Some(found), Some(wanted)) = (&cluster_id, &options.cluster_id)
            && found != wanted
        {
            return Err(OpenError::WrongCluster { found: found.clone(), wanted: wanted.clone() });
        }
        let directory_id = keys.remove("directory.id").and_then(|id| id.parse::<TopicId>().ok());
        let TopicId(directory_id) = directory_id.ok_or_else(|| broken("no directory.id"))?;
        Ok(Self { directory_id, cluster_id, node_id, format, other: keys })
    }

    /// Whether an earlier release wrote it. What this one writes beside it must not be read by that one.
    pub(super) fn is_of_earlier_format(&self) -> bool {
        self.format < FORMAT_VERSION
    }

    pub(super) fn encode(&self) -> String {
        let mut text = String::from("#\n");
        let mut line = |key: &str, value: &dyn std::fmt::Display| {
            let line = properties::line(key, &value.to_string());
            writeln!(text, "{line}").expect("a string takes everything");
        };
        line("version", &1);
        if let Some(cluster_id) = &self.cluster_id {
            line("cluster.id", cluster_id);
        }
        line("node.id", &self.node_id);
        // Kafka writes directory ids like topic ids.
        line("directory.id", &TopicId(self.directory_id));
        line(FORMAT, &FORMAT_VERSION);
        for (key, value) in &self.other {
            line(key, value);
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(node: i32, cluster: Option<&str>) -> DirectoryOptions {
        DirectoryOptions {
            node_id: BrokerId(node),
            cluster_id: cluster.map(str::to_owned),
            ..DirectoryOptions::default()
        }
    }

    #[test]
    fn reads_back_what_it_wrote_and_keeps_foreign_keys() {
        let text = Meta::new(&options(3, Some("abc")), Uuid::from_u128(7)).encode() + "later.key=x\n";
        let meta = Meta::parse(&text, &options(3, None)).unwrap();
        assert_eq!(meta.cluster_id.as_deref(), Some("abc"));
        assert_eq!(meta.directory_id, Uuid::from_u128(7));
        assert!(meta.encode().contains("later.key=x\n"));
        assert_eq!(Meta::parse(&meta.encode(), &options(3, Some("abc"))).unwrap(), meta);
    }

    #[test]
    fn an_earlier_format_becomes_this_one() {
        let text = Meta::new(&options(3, None), Uuid::from_u128(7)).encode();
        let earlier = text.replace("format.version=2", "format.version=1");
        assert_ne!(earlier, text);
        let meta = Meta::parse(&earlier, &options(3, None)).unwrap();
        assert!(meta.is_of_earlier_format());
        assert_eq!(meta.encode(), text);
        assert!(!Meta::parse(&text, &options(3, None)).unwrap().is_of_earlier_format());
    }

    /// Java's own writer escapes what the syntax has a use for; a cluster id may hold any of it.
    #[test]
    fn what_java_escapes_is_read() {
        let text = "#\n#Fri\ngracchus.format.version=1\ncluster.id=a\\:b\\=\nversion : 1\n\
                    directory.id = AAAAAAAAAAAAAAAAAAAABw\nnode.id=3\n";
        let meta = Meta::parse(text, &options(3, Some("a:b="))).unwrap();
        assert_eq!((meta.cluster_id.as_deref(), meta.directory_id), (Some("a:b="), Uuid::from_u128(7)));
        assert!(meta.encode().contains("cluster.id=a\\:b\\=\n"), "{}", meta.encode());
        assert!(matches!(Meta::parse("version=\\u12", &options(3, None)), Err(OpenError::Meta(_))));
    }

    #[test]
    fn refuses_strangers_and_the_future() {
        let text = Meta::new(&options(3, Some("abc")), Uuid::from_u128(7)).encode();
        let refused = |text: &str, node, cluster| Meta::parse(text, &options(node, cluster)).unwrap_err();
        assert!(matches!(refused(&text, 4, None), OpenError::WrongNode { .. }));
        assert!(matches!(refused(&text, 3, Some("xyz")), OpenError::WrongCluster { .. }));
        let newer = text.replace("format.version=2", "format.version=3");
        assert!(matches!(refused(&newer, 3, None), OpenError::NewerFormat { found: 3, known: 2 }));
        assert!(matches!(refused("garbage", 3, None), OpenError::Meta(_)));
        let kafkas = text.replace("gracchus.format.version=2\n", "");
        assert!(matches!(refused(&kafkas, 3, None), OpenError::Foreign(_)));
    }
}
