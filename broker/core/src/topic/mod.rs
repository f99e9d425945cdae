//! Topics: what they may be called and how they may be configured.

mod config;
mod keys;
mod name;

pub use config::{CleanupPolicy, CompressionType, TopicConfig};
pub use keys::{ConfigKey, ConfigType, KEYS, key};
pub use name::{collides, validate_name};
