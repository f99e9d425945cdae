//! The promises of [`crate::Env`] as checks that run against both implementations.
