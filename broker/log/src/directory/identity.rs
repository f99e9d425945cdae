//! Whose a directory is, found out before anything in it is touched.
//!
//! Ours is what has our format line in `meta.properties`. New is what is not there yet, or holds nothing that anybody could
//! miss. Everything else is somebody's: it is refused with a sentence that says what it looks like, and left as it is to
//! the byte. One file more can be enough to harm it: an Apache Kafka does not start over a directory that it cannot read
//! as a partition, and skips its recovery where it finds the marker of a clean stop.
//!
//! Never: a write, a lock, a name made; a guess that a directory is ours.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    io,
    path::{Path, PathBuf},
};

use gracchus_common::METADATA_DIRECTORY;
use gracchus_core::properties;
use gracchus_env::Env;
use uuid::Uuid;

use super::{DirectoryOptions, LOCK, OpenError, marker, meta};
use crate::{journal::JOURNAL, names};

/// What a file system or its tools put into a directory that nobody has used yet.
const OF_NOBODY: [&str; 8] =
    ["lost+found", ".snapshot", ".snapshots", ".zfs", ".DS_Store", ".Trashes", "aquota.group", "aquota.user"];

/// Names that only Apache Kafka gives to what lies in a log directory.
const OF_KAFKA: [&str; 5] = [
    "__cluster_metadata-0",
    "bootstrap.checkpoint",
    "cleaner-offset-checkpoint",
    "replication-offset-checkpoint",
    "recovery-point-offset-checkpoint",
];

/// How many names of a stranger's files are told.
const EXAMPLES: usize = 4;

/// A directory that may be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Identity {
    /// It is not there, or empty: it becomes ours.
    New,
    /// Ours.
    Ours {
        /// `directory.id`.
        directory_id: Uuid,
        /// `cluster.id`; it has none until the first start got far enough.
        cluster_id: Option<String>,
    },
    /// A `metadata.log.dir` outside of `log.dirs`, as made by a release that gave it no `meta.properties`.
    Unnamed,
}

impl Identity {
    /// The cluster that it belongs to, as far as it says so itself.
    pub fn cluster_id(&self) -> Option<&str> {
        match self {
            Identity::Ours { cluster_id, .. } => cluster_id.as_deref(),
            Identity::New | Identity::Unnamed => None,
        }
    }
}

/// Looks at the directory `path`, which `options` want to open. What leads to one of `others` (log directories may lie
/// within each other) is no stranger's.
///
/// # Errors
/// [`OpenError::Foreign`] and the like if it is not ours, [`OpenError::Io`] if that cannot be found out.
pub async fn identify(
    env: &dyn Env,
    path: &Path,
    options: &DirectoryOptions,
    others: &[PathBuf],
) -> Result<Identity, OpenError> {
    options.check().map_err(OpenError::Options)?;
    let failed = |what: &str| OpenError::io(format!("{what} {}", path.display()));
    let entries = match env.disk().list(path).await {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Identity::New),
        Err(error) => return Err(failed("cannot list")(error)),
    };
    let file = path.join(meta::FILE);
    let contents = env.disk().read_all(&file).await.map_err(failed("cannot read meta.properties in"))?;
    if let Some(contents) = contents {
        let meta = meta::Meta::parse(&properties::decode(&contents), options)?;
        return Ok(Identity::Ours { directory_id: meta.directory_id, cluster_id: meta.cluster_id });
    }
    let leads_elsewhere =
        |name: &str| others.iter().any(|other| other != path && other.starts_with(path.join(name)));
    // What a first start that was cut short leaves.
    let unfinished = names::temporary(Path::new(meta::FILE));
    let of_nobody = |name: &str| {
        OF_NOBODY.contains(&name) || name == LOCK || Path::new(name) == unfinished || leads_elsewhere(name)
    };
    let names: BTreeSet<&str> =
        entries.iter().map(|entry| &*entry.name).filter(|name| !of_nobody(name)).collect();
    match (names.contains(METADATA_DIRECTORY), names.contains(JOURNAL)) {
        _ if names.is_empty() => Ok(Identity::New),
        (true, false) => Ok(Identity::Unnamed),
        _ => Err(OpenError::Foreign(unnamed(&names))),
    }
}

/// What a directory with these names and without `meta.properties` looks like.
fn unnamed(names: &BTreeSet<&str>) -> String {
    if names.contains(JOURNAL) {
        return "looks like one of Gracchus whose meta.properties is gone: restore that file, its directory.id and \
                cluster.id say whose the logs are"
            .to_owned();
    }
    let log = |name: &&&str| names::partition(name).is_some();
    if names.iter().any(|name| OF_KAFKA.contains(name) || *name == marker::FILE) {
        return "looks like data of Apache Kafka whose meta.properties is gone".to_owned();
    }
    if let Some(example) = names.iter().find(log) {
        return format!(
            "holds what looks like a partition's log ({example}), but no meta.properties that says whose"
        );
    }
    let mut text = String::from("holds files of something else (");
    for (number, name) in names.iter().take(EXAMPLES).enumerate() {
        let comma = if number == 0 { "" } else { ", " };
        write!(text, "{comma}{name}").expect("a string takes everything");
    }
    text.push_str(if names.len() > EXAMPLES { ", …)" } else { ")" });
    text
}

/// What a directory looks like whose `meta.properties` has these keys, and not our format line.
pub(super) fn of_another(keys: &BTreeMap<String, String>) -> Option<String> {
    let (kind, id) = match keys.get("version").map(String::as_str) {
        Some("0") => ("an Apache Kafka of the ZooKeeper era", "broker.id"),
        Some("1") => ("Apache Kafka", "node.id"),
        _ => return None,
    };
    let value = |key: &str| keys.get(key).map_or("unknown", String::as_str);
    Some(format!("looks like data of {kind} ({id} {}, cluster {})", value(id), value("cluster.id")))
}

#[cfg(test)]
mod tests {
    use gracchus_core::BrokerId;
    use gracchus_env::Op;

    use super::*;
    use gracchus_memory::Machine;

    const PATH: &str = "/data/logs";

    async fn look(files: &[(&str, &str)]) -> Result<Identity, String> {
        let machine = Machine::new(1);
        let env = machine.start();
        env.disk().submit(vec![Op::CreateDir { path: PATH.into() }]).await.expect("creates");
        for (name, contents) in files {
            match name.strip_suffix('/') {
                Some(name) => {
                    let path = Path::new(PATH).join(name);
                    env.disk().submit(vec![Op::CreateDir { path }]).await.expect("creates");
                }
                None => machine.put(&Path::new(PATH).join(name), contents.as_bytes()),
            }
        }
        let options = DirectoryOptions { node_id: BrokerId(1), ..DirectoryOptions::default() };
        let others = [PathBuf::from(PATH), PathBuf::from("/data/logs/deep/er")];
        identify(&*env, Path::new(PATH), &options, &others).await.map_err(|error| error.to_string())
    }

    #[tokio::test]
    async fn what_nobody_could_miss_is_new() {
        let env = Machine::new(1).start();
        let missing = identify(&*env, Path::new("/nowhere"), &DirectoryOptions::default(), &[]).await;
        assert_eq!(missing.unwrap(), Identity::New);
        assert_eq!(look(&[]).await, Ok(Identity::New));
        let fresh = [("lost+found/", ""), (".lock", ""), ("meta.properties.tmp", "#\nver"), ("deep/", "")];
        assert_eq!(look(&fresh).await, Ok(Identity::New));
    }

    #[tokio::test]
    async fn strangers_are_told_apart() {
        let kraft = "#\nversion=1\nnode.id=1\ncluster.id=abc\ndirectory.id=AAAAAAAAAAAAAAAAAAAAAQ\n";
        let cases: &[(&[(&str, &str)], &str)] = &[
            (&[("meta.properties", kraft)], "data of Apache Kafka (node.id 1, cluster abc)"),
            (
                &[("meta.properties", "version=0\nbroker.id=7\n")],
                "ZooKeeper era (broker.id 7, cluster unknown)",
            ),
            (&[("meta.properties", "garbage")], "damaged"),
            (
                &[("orders-0/", ""), ("replication-offset-checkpoint", "0\n0\n")],
                "Apache Kafka whose meta.properties",
            ),
            (&[("orders-0/", "")], "a partition's log (orders-0)"),
            (&[("journal/", ""), ("cluster-metadata/", "")], "Gracchus whose meta.properties is gone"),
            (&[("a", ""), ("b/", "")], "something else (a, b)"),
            (&[("a", ""), ("b", ""), ("c", ""), ("d", ""), ("e", "")], "something else (a, b, c, d, …)"),
        ];
        for (files, expected) in cases {
            let refused = look(files).await.expect_err(expected);
            assert!(refused.contains(expected), "{files:?}: {refused}");
        }
    }

    #[tokio::test]
    async fn what_earlier_releases_left_is_ours() {
        assert_eq!(look(&[("cluster-metadata/", ""), (".lock", "")]).await, Ok(Identity::Unnamed));
        let meta =
            "#\nversion=1\nnode.id=1\ndirectory.id=AAAAAAAAAAAAAAAAAAAAAQ\ngracchus.format.version=1\n";
        let ours = Identity::Ours { directory_id: Uuid::from_u128(1), cluster_id: None };
        assert_eq!(look(&[("meta.properties", meta), ("anything", "")]).await, Ok(ours));
    }
}
