//! What one thread cannot interleave: the shipped files that several tasks enter at once, under shuttle's scheduler.
//!
//! In the simulator two lock sections without an await between them never interleave; on two cores they do. Here every use of
//! a lock, an atomic, a channel is a scheduling point, and a random scheduler chooses. The modules are the shipped files
//! (`build/main.rs`), beside each of them its planted bugs. Never: a rule of the broker written anew here.

#![allow(dead_code, unused_imports, reason = "shipped files are used in parts")]

pub mod clock;
pub mod world;

/// What the shipped files find around them: only what their types need.
mod budget {
    /// What the connections of an address hold of the request memory.
    #[derive(Debug, Default)]
    pub(crate) struct Share;
}

mod config {
    use std::{collections::BTreeMap, net::IpAddr};

    pub(crate) struct BrokerConfig {
        pub(crate) max_connections: usize,
        pub(crate) max_connections_per_ip: usize,
        pub(crate) max_connections_per_ip_overrides: BTreeMap<IpAddr, usize>,
        pub(crate) max_connections_per_host_overrides: BTreeMap<String, usize>,
    }

    impl BrokerConfig {
        pub(crate) fn name_of<'a>(&self, key: &'a str) -> &'a str {
            key
        }
    }
}

macro_rules! modules {
    ($($name:ident)*) => {
        $( mod $name {
            include!(concat!(env!("OUT_DIR"), "/", stringify!($name), ".rs"));
        } )*
    };
}

modules! {
    purgatory watchers_cleared_after_a_copy wake_up_not_kept earlier_deadline_not_kept
    files forgotten_counted_after_the_open
    lane lane_looked_at_before_the_line
    slots slot_looked_at_before_listening
}

#[cfg(test)]
mod tests;
