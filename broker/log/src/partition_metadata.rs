//! `partition.metadata`: whose log this directory holds. Kafka's two lines, `version: 0` and `topic_id: <base64>`.
//!
//! Durable before the first record of the log, never changed, and read before anything else is believed: a later topic
//! of the same name must not get the bytes of its namesake.

use std::path::Path;

use bytes::Bytes;
use gracchus_core::TopicId;

use super::names;

/// The file's contents.
pub(crate) fn encode(topic_id: TopicId) -> Bytes {
    Bytes::from(format!("version: 0\ntopic_id: {topic_id}\n"))
}

/// The topic id in the file's contents.
///
/// # Errors
/// What does not read as version 0 of the file.
pub(crate) fn decode(contents: &[u8]) -> Result<TopicId, String> {
    let text = std::str::from_utf8(contents).map_err(|_| "it is no text".to_owned())?;
    let mut lines = text.lines();
    match lines.next() {
        Some("version: 0") => {}
        other => return Err(format!("`version: 0` expected, `{}` found", other.unwrap_or_default())),
    }
    let id = lines.next().and_then(|line| line.strip_prefix("topic_id: ")).ok_or("there is no topic id")?;
    id.trim_end().parse()
}

/// Its path in the directory of a log.
pub(crate) fn path(directory: &Path) -> std::path::PathBuf {
    directory.join(names::PARTITION_METADATA)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_reads_back_and_garbage_is_named() {
        let id = TopicId(uuid::Uuid::from_u128(0x1234_5678_9abc_def0_1234_5678_9abc_def0));
        assert_eq!(decode(&encode(id)), Ok(id));
        // Kafka writes no newline at the end.
        assert_eq!(decode(format!("version: 0\ntopic_id: {id}").as_bytes()), Ok(id));
        assert!(decode(b"").unwrap_err().contains("version: 0"));
        assert!(decode(b"version: 1\ntopic_id: x").unwrap_err().contains("version: 1"));
        assert!(decode(b"version: 0\n").unwrap_err().contains("no topic id"));
        assert!(decode(&[0; 40]).is_err());
    }
}
