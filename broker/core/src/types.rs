//! Kafka's quantities as types that cannot be mixed up.

use std::{fmt, sync::Arc};

use base64::{
    Engine,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};
use serde::{Deserialize, Serialize};

macro_rules! number {
    ($(#[$doc:meta])* $name:ident($inner:ty)) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub $inner);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl From<$inner> for $name {
            fn from(value: $inner) -> Self {
                Self(value)
            }
        }

        impl From<$name> for $inner {
            fn from(value: $name) -> $inner {
                value.0
            }
        }
    };
}

number! {
    /// Position of a record in a partition. −1 where the protocol says "none".
    Offset(i64)
}
number! {
    /// Number of a partition's leadership; 0 for the first leader, −1 for "unknown".
    LeaderEpoch(i32)
}
number! {
    /// Identity of an idempotent producer; −1 for "none".
    ProducerId(i64)
}
number! {
    /// Incarnation of a producer id; −1 for "none".
    ProducerEpoch(i16)
}
number! {
    /// Index of a partition within its topic.
    PartitionIndex(i32)
}
number! {
    /// `node.id` of a broker; −1 for "none".
    BrokerId(i32)
}

impl Offset {
    /// "No offset" on the wire.
    pub const NONE: Offset = Offset(-1);

    /// The offset `count` further on.
    #[must_use]
    pub fn plus(self, count: i64) -> Offset {
        Offset(self.0 + count)
    }
}

impl LeaderEpoch {
    /// "No epoch" on the wire.
    pub const NONE: LeaderEpoch = LeaderEpoch(-1);
}

impl ProducerId {
    /// "No producer" on the wire.
    pub const NONE: ProducerId = ProducerId(-1);
}

/// The last digit has room for 4 bits more than an id has: Kafka does not look at them.
static TOPIC_ID: GeneralPurpose = GeneralPurpose::new(
    &base64::alphabet::URL_SAFE,
    GeneralPurposeConfig::new()
        .with_encode_padding(false)
        .with_decode_padding_mode(DecodePaddingMode::RequireNone)
        .with_decode_allow_trailing_bits(true),
);

/// Identity of a topic that no later topic of the same name shares (KIP-516).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct TopicId(pub uuid::Uuid);

impl TopicId {
    /// The id that means "none".
    pub const ZERO: TopicId = TopicId(uuid::Uuid::nil());
    /// Characters of its text form.
    const DIGITS: usize = 22;
}

impl fmt::Display for TopicId {
    /// Kafka's text form: URL-safe base64 without padding.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = [0; TopicId::DIGITS];
        let written = TOPIC_ID.encode_slice(self.0, &mut text).expect("16 bytes are 22 digits");
        f.write_str(std::str::from_utf8(&text[..written]).expect("ASCII"))
    }
}

impl std::str::FromStr for TopicId {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.len() != TopicId::DIGITS {
            return Err(format!("`{text}` is not a topic id: {} characters expected", TopicId::DIGITS));
        }
        let mut bytes = [0; 16];
        TOPIC_ID
            .decode_slice(text, &mut bytes)
            .map_err(|error| format!("`{text}` is not a topic id: {error}"))?;
        Ok(TopicId(uuid::Uuid::from_bytes(bytes)))
    }
}

/// A partition by name. Ordered by topic, then index.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct TopicPartition {
    /// Topic name.
    pub topic: Arc<str>,
    /// Partition index.
    pub partition: PartitionIndex,
}

impl TopicPartition {
    /// A partition of `topic`.
    pub fn new(topic: impl Into<Arc<str>>, partition: i32) -> Self {
        Self { topic: topic.into(), partition: PartitionIndex(partition) }
    }
}

impl fmt::Display for TopicPartition {
    /// Kafka's directory name, `topic-partition`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.topic, self.partition)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_topic_id_reads_back(bits: u128) {
            let id = TopicId(uuid::Uuid::from_u128(bits));
            let text = id.to_string();
            prop_assert_eq!(text.len(), 22);
            prop_assert_eq!(text.parse(), Ok(id));
        }
    }
}
