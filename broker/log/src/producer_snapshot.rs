//! `<offset>.snapshot`: what the producers had written below that offset, in Kafka's form (see
//! [`gracchus_core::producer`]).
//!
//! Written where a segment begins and at a clean close, replaced as a whole, checked by its CRC when read. A snapshot is
//! a shortcut: state is always the newest good one plus the batches behind it. Never: state newer than the log; a
//! snapshot that is believed although the log ends before it.

use std::{collections::BTreeSet, io, path::Path};

use bytes::Bytes;
use gracchus_core::{Offset, producer::ProducerStates};
use gracchus_env::Disk;

use super::names;

/// Makes the snapshot durable under its final name.
pub(crate) async fn write(
    disk: &dyn Disk,
    directory: &Path,
    offset: Offset,
    contents: Bytes,
) -> io::Result<()> {
    gracchus_env::moment!(PRODUCER_SNAPSHOT_WRITTEN);
    disk.replace(&names::file(directory, offset, names::SNAPSHOT), contents).await
}

/// The newest good snapshot at or below `log_end`; nothing known at `first`, where the first segment begins, if there is
/// none. Records below the log start that are still there count: their producers are not forgotten with them.
pub(crate) async fn newest(
    disk: &dyn Disk,
    directory: &Path,
    offsets: &BTreeSet<Offset>,
    first: Offset,
    log_end: Offset,
) -> io::Result<(Offset, ProducerStates)> {
    for offset in offsets.range(..=log_end).rev() {
        let path = names::file(directory, *offset, names::SNAPSHOT);
        let Some(contents) = disk.read_all(&path).await? else { continue };
        match ProducerStates::decode_snapshot(&contents) {
            Ok(states) => {
                gracchus_env::moment!(PRODUCER_SNAPSHOT_READ);
                return Ok((*offset, states));
            }
            Err(error) => {
                gracchus_env::moment!(PRODUCER_SNAPSHOT_DAMAGED);
                tracing::warn!(
                    path = %path.display(),
                    %error,
                    "producer snapshot is damaged; reading more of the log instead, nothing needs to be \
                     done"
                );
            }
        }
    }
    Ok((first, ProducerStates::new()))
}
