//! Topics: what they may be called and how they may be configured.

mod config;
mod keys;
mod kind;
mod name;
#[cfg(test)]
mod pairs;

pub use config::{CleanupPolicy, CompressionType, TopicConfig};
pub use keys::{ConfigKey, KEYS, key, validate};
pub use kind::{ConfigType, words};
pub use name::{metric_name, validate_name};
