//! What the files of a broker are for, by their names: faults can be aimed at one kind.
//!
//! Names are Kafka's, and those that the broker documents as its own. A file that is about to replace another
//! (`….tmp`) is of the other's kind. Never: a type or a constant of the broker.

use gracchus_workload::scenario::FileKind;

/// The kind of the file at `path`, if it has one.
pub(super) fn kind_of(path: &str) -> Option<FileKind> {
    let path = path.strip_suffix(".tmp").unwrap_or(path);
    let (directory, name) = path.rsplit_once('/')?;
    let parent = directory.rsplit('/').next().unwrap_or_default();
    Some(match name {
        "leader-epoch-checkpoint" => FileKind::Epochs,
        "segment-ages" => FileKind::Ages,
        "partition.metadata" => FileKind::PartitionMetadata,
        "recovery-point-offset-checkpoint" | "log-start-offset-checkpoint" => FileKind::Checkpoint,
        ".kafka_cleanshutdown" => FileKind::CleanMarker,
        "meta.properties" => FileKind::Identity,
        "log" | "log-end" if parent == "cluster-metadata" => FileKind::Metadata,
        "snapshot" if parent == "cluster-metadata" => FileKind::MetadataSnapshot,
        "vote" if parent == "cluster-metadata" => FileKind::Vote,
        name if parent == "journal" && name.starts_with("part-") => FileKind::Journal,
        name if name.ends_with(".log") => FileKind::Segment,
        name if name.ends_with(".index") || name.ends_with(".timeindex") => FileKind::Index,
        name if name.ends_with(".snapshot") => FileKind::Producers,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_tell_the_kind() {
        let kinds = [
            ("/data/t-0/00000000000000000000.log", Some(FileKind::Segment)),
            ("/data/t-0/00000000000000000000.timeindex.tmp", Some(FileKind::Index)),
            ("/data/cluster-metadata/snapshot.tmp", Some(FileKind::MetadataSnapshot)),
            ("/data/cluster-metadata/log", Some(FileKind::Metadata)),
            ("/data-2/journal/part-001", Some(FileKind::Journal)),
            ("/data-2/meta.properties.tmp", Some(FileKind::Identity)),
            ("/data/.lock", None),
        ];
        for (path, kind) in kinds {
            assert_eq!(kind_of(path), kind, "{path}");
        }
    }
}
