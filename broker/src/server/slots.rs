//! Who may connect: `max.connections` for all listeners together, `max.connections.per.ip` with its overrides for each
//! address. Both may change while the broker runs.
//!
//! As in Kafka: above the first, one more connection waits accepted and the rest in the kernel's queue; above the second
//! it is closed at once. A lower limit closes nobody who is there. The connections of an address also share its account of
//! the request memory (see [`super::budget`]). Never: a slot that is not given back.

use std::{
    collections::BTreeMap,
    io,
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::sync::Notify;

use gracchus_env::Env;

use super::budget::Share;
use crate::config::BrokerConfig;

/// How many connections there may be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConnectionLimits {
    /// `max.connections`.
    pub all: usize,
    /// `max.connections.per.ip`.
    pub per_address: usize,
    /// `max.connections.per.ip.overrides`.
    pub overrides: BTreeMap<IpAddr, usize>,
}

/// How long the name service may take for one name.
const PATIENCE: Duration = Duration::from_secs(10);

impl ConnectionLimits {
    /// Those that `config` sets, as far as no name is needed for them.
    pub fn new(config: &BrokerConfig) -> Self {
        Self {
            all: config.max_connections,
            per_address: config.max_connections_per_ip,
            overrides: config.max_connections_per_ip_overrides.clone(),
        }
    }

    /// Those that `config` sets, and a sentence for each host of which nobody knows the address now: it has no limit of its
    /// own. Names are looked up here and not again, as in Kafka. What is set for an address is stronger.
    pub(crate) async fn resolved(env: &dyn Env, config: &BrokerConfig) -> (Self, Vec<String>) {
        let mut limits = Self::new(config);
        let mut unknown = Vec::new();
        for (host, most) in &config.max_connections_per_host_overrides {
            let found = env.timeout(PATIENCE, env.resolve(host)).await;
            match found.unwrap_or_else(|| Err(io::ErrorKind::TimedOut.into())) {
                Ok(addresses) => {
                    for address in addresses {
                        limits.overrides.entry(address.to_canonical()).or_insert(*most);
                    }
                }
                Err(error) => {
                    let key = config.name_of("max.connections.per.ip.overrides");
                    unknown.push(format!("{key}: no address of {host} is known: {error}"));
                }
            }
        }
        (limits, unknown)
    }
}

impl ConnectionLimits {
    fn of(&self, address: IpAddr) -> usize {
        self.overrides.get(&address).copied().unwrap_or(self.per_address)
    }
}

impl Default for ConnectionLimits {
    /// None.
    fn default() -> Self {
        Self { all: usize::MAX, per_address: usize::MAX, overrides: BTreeMap::new() }
    }
}

/// Counts the connections of a server.
#[derive(Debug)]
pub(super) struct Slots {
    state: Mutex<State>,
    /// A slot was given back, or a limit changed.
    changed: Notify,
}

#[derive(Debug)]
struct State {
    limits: ConnectionLimits,
    open: usize,
    by_address: BTreeMap<IpAddr, Address>,
}

#[derive(Debug)]
struct Address {
    open: usize,
    share: Arc<Share>,
}

/// Too many connections from one address; holds how many it may have.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct TooMany(pub(super) usize);

impl Slots {
    pub(super) fn new(limits: ConnectionLimits) -> Arc<Self> {
        let state = Mutex::new(State { limits, open: 0, by_address: BTreeMap::new() });
        Arc::new(Self { state, changed: Notify::new() })
    }

    /// From now on.
    pub(super) fn set_limits(&self, limits: ConnectionLimits) {
        self.locked().limits = limits;
        self.changed.notify_waiters();
    }

    /// Waits until there may be one more connection; none from an address that has as many as it may.
    pub(super) async fn take(self: &Arc<Self>, address: IpAddr) -> Result<Slot, TooMany> {
        let address = address.to_canonical();
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            // From here on no change is missed.
            changed.as_mut().enable();
            if let Some(taken) = self.try_take(address) {
                return taken;
            }
            changed.await;
        }
    }

    fn try_take(self: &Arc<Self>, address: IpAddr) -> Option<Result<Slot, TooMany>> {
        let mut state = self.locked();
        let most = state.limits.of(address);
        if state.by_address.get(&address).map_or(0, |of| of.open) >= most {
            return Some(Err(TooMany(most)));
        }
        if state.open >= state.limits.all {
            return None;
        }
        state.open += 1;
        let of =
            state.by_address.entry(address).or_insert_with(|| Address { open: 0, share: Arc::default() });
        of.open += 1;
        Some(Ok(Slot { slots: self.clone(), address, share: of.share.clone() }))
    }

    /// Connections now.
    pub(super) fn open(&self) -> usize {
        self.locked().open
    }

    fn locked(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A connection's place, given back when it is dropped.
#[derive(Debug)]
pub(super) struct Slot {
    slots: Arc<Slots>,
    address: IpAddr,
    /// What all connections from its address hold of the request memory.
    pub(super) share: Arc<Share>,
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut state = self.slots.locked();
        state.open -= 1;
        if let Some(of) = state.by_address.get_mut(&self.address) {
            of.open -= 1;
            if of.open == 0 {
                state.by_address.remove(&self.address);
            }
        }
        drop(state);
        self.slots.changed.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;
    use crate::config::Settings;

    fn limits(all: usize, per_address: usize, overrides: &str) -> ConnectionLimits {
        let settings = Settings::default()
            .with("max.connections", all)
            .with("max.connections.per.ip", per_address)
            .with("max.connections.per.ip.overrides", overrides);
        let (config, _) = BrokerConfig::load(&settings, "here").unwrap();
        ConnectionLimits::new(&config)
    }

    fn address(last: u8) -> IpAddr {
        [10, 0, 0, last].into()
    }

    fn waits(slots: &Arc<Slots>, from: u8) -> bool {
        slots.take(address(from)).now_or_never().is_none()
    }

    #[tokio::test]
    async fn above_the_limit_of_all_it_waits_above_that_of_an_address_it_is_refused() {
        let slots = Slots::new(limits(3, 2, "10.0.0.9:1"));
        let one = slots.take(address(1)).await.unwrap();
        let _other = slots.take(address(1)).await.unwrap();
        assert_eq!(slots.take(address(1)).await.unwrap_err(), TooMany(2));
        let own = slots.take(address(9)).await.unwrap();
        assert_eq!(slots.take(address(9)).await.unwrap_err(), TooMany(1), "its override");
        assert!(waits(&slots, 2));
        drop(own);
        let _third = slots.take(address(2)).await.unwrap();
        assert!(waits(&slots, 3));
        slots.set_limits(limits(4, 2, ""));
        let _fourth = slots.take(address(3)).await.unwrap();
        assert_eq!(slots.open(), 4);
        drop(one);
        slots.set_limits(limits(2, 1, ""));
        assert!(waits(&slots, 4), "a lower limit closes nobody and lets nobody in");
        assert_eq!(slots.take(address(1)).await.unwrap_err(), TooMany(1));
    }

    #[tokio::test]
    async fn who_waits_gets_the_slot_that_is_given_back() {
        let slots = Slots::new(limits(1, 9, ""));
        let first = slots.take(address(1)).await.unwrap();
        let mut waiting = Box::pin(slots.take(address(2)));
        assert!((&mut waiting).now_or_never().is_none());
        drop(first);
        assert!((&mut waiting).now_or_never().expect("woken").is_ok());
        drop(waiting);
        assert_eq!((slots.open(), slots.locked().by_address.len()), (0, 0));
    }
}
