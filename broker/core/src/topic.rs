//! Topic names, and topic configurations with Kafka's names, types, defaults and limits.
