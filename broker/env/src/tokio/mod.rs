//! The production Env: tokio, real sockets, real files, real clocks.
