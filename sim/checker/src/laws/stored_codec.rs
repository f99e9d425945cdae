//! Law: a batch is stored in the codec that `compression.type` names, or with `producer` in the one that it was sent in.
//!
//! Source: Kafka's documentation of `compression.type`. The record tells in which codec it was sent. A setting counts for as
//! long as it may be in effect.

use super::deletion_allowed::Circumstances;
use super::{Verdict, demand};
use crate::Seen;
use crate::history::{Op, PartitionState, TopicState};

pub(crate) const LAW: &str = "stored_codec";

/// The values of `compression.type` and the numbers of their codecs.
const CODECS: [(&str, u8); 5] = [("uncompressed", 0), ("gzip", 1), ("snappy", 2), ("lz4", 3), ("zstd", 4)];

/// A record of the operation is found.
pub(crate) fn found(
    partition: &PartitionState,
    topic: &TopicState,
    op: &Op,
    seen: &Seen,
    around: Circumstances<'_>,
) -> Verdict {
    // Which attempt was taken is known of a single one only.
    let from_ns = if op.sent == 1 { op.sent_ns } else { 0 };
    let types = around.texts(topic, "compression.type", from_ns);
    let as_sent = |kind: &&str| !CODECS.iter().any(|(name, _)| name == kind);
    let named = |kind: &&str| CODECS.contains(&(*kind, seen.stored_in));
    let right =
        types.iter().any(|kind| if as_sent(kind) { seen.stored_in == seen.sent_in } else { named(kind) });
    demand(right || (types.is_empty() && seen.stored_in == seen.sent_in), LAW, || {
        format!(
            "{}@{}: a batch that was sent in codec {} is stored in codec {}, though compression.type is {types:?}",
            partition.name, seen.offset, seen.sent_in, seen.stored_in
        )
    })
}

#[cfg(test)]
mod tests {
    use crate::testing::Story;
    use crate::{EventKind, Seen};

    fn stored(configs: &[(&str, &str)], sent_in: u8, stored_in: u8) -> Story {
        let story = Story::new().configured("t", 1, configs).produce(1, 1, "t", 0, &[1]).acked(1, 0, 0);
        let mut fetched = Story::fetch(9, "t", 0, 0, &[(0, 1)], 1);
        let EventKind::Fetched { records, .. } = &mut fetched else { unreachable!("a fetch") };
        records[0] = Seen { sent_in, stored_in, ..records[0] };
        story.event(fetched)
    }

    #[test]
    fn a_batch_in_another_codec_is_found() {
        stored(&[], 2, 2).holds();
        stored(&[], 2, 0).broken("stored_codec");
        stored(&[("compression.type", "producer")], 1, 1).holds();
        stored(&[("compression.type", "gzip")], 2, 1).holds();
        stored(&[("compression.type", "gzip")], 2, 2).broken("stored_codec");
        stored(&[("compression.type", "uncompressed")], 4, 0).holds();
        stored(&[("compression.type", "uncompressed")], 0, 3).broken("stored_codec");
    }
}
