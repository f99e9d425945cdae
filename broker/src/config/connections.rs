//! How many connections one address may have: `max.connections.per.ip` and `max.connections.per.ip.overrides`.
//!
//! As in Kafka, an override names a host or an address; here only an address counts, since looking up a name would ask
//! the network at a time when nobody can wait. Never: a limit that was written down and not understood.

use std::{collections::BTreeMap, net::IpAddr, sync::Arc};

use super::{handles::UNLIMITED, settings::Reader};

/// Limits by address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PerAddress {
    /// Of an address that has none of its own.
    most: usize,
    own: Arc<BTreeMap<IpAddr, usize>>,
}

impl Default for PerAddress {
    fn default() -> Self {
        Self { most: UNLIMITED, own: Arc::default() }
    }
}

impl PerAddress {
    /// How many connections `address` may have.
    pub fn limit(&self, address: IpAddr) -> usize {
        self.own.get(&address.to_canonical()).copied().unwrap_or(self.most)
    }
}

pub(super) fn read(reader: &mut Reader<'_>) -> PerAddress {
    const OVERRIDES: &str = "max.connections.per.ip.overrides";
    let most = reader.number("max.connections.per.ip", 0..=i32::MAX as usize).unwrap_or(UNLIMITED);
    let mut own = BTreeMap::new();
    for entry in reader.list(OVERRIDES).unwrap_or_default() {
        // The last colon: an IPv6 address has others.
        let parsed = entry.rsplit_once(':').and_then(|(address, limit)| {
            let address: IpAddr = address.trim().trim_matches(['[', ']']).parse().ok()?;
            let limit = limit.trim().parse::<usize>().ok().filter(|limit| *limit <= UNLIMITED)?;
            Some((address.to_canonical(), limit))
        });
        match parsed {
            Some((address, limit)) => {
                own.insert(address, limit);
            }
            None => {
                reader.problem(OVERRIDES, format!("`{entry}` is not `address:number`, as in `10.0.0.1:200`"))
            }
        }
    }
    if most == 0 && own.is_empty() {
        // As in Kafka: it would lock everybody out, the administrator included.
        reader.problem("max.connections.per.ip", format!("0 is only possible with {OVERRIDES}"));
    }
    PerAddress { most, own: Arc::new(own) }
}

#[cfg(test)]
mod tests {
    use super::super::{BrokerConfig, Settings};

    #[test]
    fn an_address_of_its_own_limit_has_that_one() {
        let load = |most: &str, overrides: &str| {
            let settings = Settings::default()
                .with("max.connections.per.ip", most)
                .with("max.connections.per.ip.overrides", overrides);
            BrokerConfig::load(&settings, "here").map(|(config, _)| config.max_connections_per_ip)
        };
        let limits = load("10", "127.0.0.1:200, ::1:5,[fe80::1]:0").unwrap();
        let limit = |address: &str| limits.limit(address.parse().unwrap());
        assert_eq!((limit("127.0.0.1"), limit("::ffff:127.0.0.1"), limit("10.0.0.1")), (200, 200, 10));
        assert_eq!((limit("::1"), limit("fe80::1")), (5, 0));
        for wrong in ["localhost:3", "127.0.0.1", "127.0.0.1:-1", "127.0.0.1:many"] {
            let error = load("10", wrong).unwrap_err().to_string();
            assert!(error.contains(wrong), "{error}");
        }
        assert!(load("0", "").is_err());
        assert_eq!(load("0", "10.0.0.1:1").unwrap().limit("10.0.0.2".parse().unwrap()), 0);
    }
}
