//! The configuration as it is now: what the broker was started with, overlaid by the dynamic configuration of the
//! metadata image, own broker over every broker over the file.
//!
//! A snapshot is published whenever the image's broker configurations change; whoever works with a value loads it when it
//! is needed and keeps none. Only keys that can change at run time are taken from the image. Values are checked before
//! they are committed, so one that is not understood was written by another version: it is left out with a warning, and
//! what holds without it holds. Never: a start that fails because of a dynamic value; an older image over a newer one.

use std::{
    collections::BTreeMap,
    sync::{Arc, Weak},
};

use gracchus_core::{BrokerId, controller::Image};
use gracchus_env::{Env, spawn};
use tokio::sync::watch;

use super::{BrokerConfig, ConfigError, Origin, Settings};
use crate::controller::Controller;

/// Overrides by key, as the image holds them.
pub(crate) type Overrides = Arc<BTreeMap<String, String>>;

/// Dynamic configuration as far as one broker looks at it.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Dynamic {
    /// Of this broker alone.
    pub(crate) own: Overrides,
    /// Of every broker.
    pub(crate) every: Overrides,
}

impl Dynamic {
    /// What `image` says for `node`.
    pub(crate) fn of(image: &Image, node: BrokerId) -> Self {
        let held = |of: Option<BrokerId>| image.broker_configs.get(&of).cloned().unwrap_or_default();
        Self { own: held(Some(node)), every: held(None) }
    }

    /// Each key once, the stronger value of two, with where it comes from.
    fn settings(&self) -> BTreeMap<&str, (&str, Origin)> {
        let mut settings = BTreeMap::new();
        for (overrides, origin) in [(&self.every, Origin::EveryBroker), (&self.own, Origin::ThisBroker)] {
            for (key, value) in overrides.iter() {
                settings.insert(key.as_str(), (value.as_str(), origin.clone()));
            }
        }
        settings
    }
}

/// The published configuration of a running broker.
pub struct LiveConfig {
    fixed: Arc<BrokerConfig>,
    controller: Arc<Controller>,
    current: watch::Sender<Current>,
}

/// A configuration and what it was made of.
#[derive(Debug, Clone)]
struct Current {
    dynamic: Dynamic,
    config: Arc<BrokerConfig>,
}

impl std::fmt::Debug for LiveConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LiveConfig").field("node", &self.fixed.node_id).finish_non_exhaustive()
    }
}

impl LiveConfig {
    /// Resolves `fixed` with what `controller` holds, and follows it until the broker ends.
    pub fn start(env: &Arc<dyn Env>, fixed: Arc<BrokerConfig>, controller: Arc<Controller>) -> Arc<Self> {
        let mut version = controller.watch();
        let nothing = Current { dynamic: Dynamic::default(), config: fixed.clone() };
        let live = Arc::new(Self { fixed, controller, current: watch::Sender::new(nothing) });
        live.refresh();
        let followed: Weak<Self> = Arc::downgrade(&live);
        spawn(&**env, "live-config", async move {
            while version.changed().await.is_ok() {
                let Some(live) = followed.upgrade() else { return };
                live.refresh();
            }
        });
        live
    }

    /// The configuration as it is now. Load it when a value is needed, once per request.
    pub fn load(&self) -> Arc<BrokerConfig> {
        self.current.borrow().config.clone()
    }

    /// What the broker was started with, without dynamic configuration.
    pub fn fixed(&self) -> &Arc<BrokerConfig> {
        &self.fixed
    }

    /// Tells of every change of the configuration, and holds the number of changes so far.
    pub fn watch(&self) -> Watch {
        Watch(self.current.subscribe())
    }

    /// Looks at the image now instead of soon: who has just committed a change finds it in force.
    pub fn refresh(&self) {
        self.current.send_if_modified(|current| {
            // Loaded within, so that of two that refresh the later one has the newer image.
            let dynamic = Dynamic::of(&self.controller.image(), self.fixed.node_id);
            if dynamic == current.dynamic {
                return false;
            }
            let (config, warnings) = overlay(&self.fixed, &dynamic);
            for warning in warnings {
                tracing::warn!("{warning}");
            }
            *current = Current { dynamic, config: Arc::new(config) };
            true
        });
    }
}

/// Follows a [`LiveConfig`].
#[derive(Debug, Clone)]
pub struct Watch(watch::Receiver<Current>);

impl Watch {
    /// Waits for a configuration that was not seen yet. `None`: the broker has ended.
    pub async fn changed(&mut self) -> Option<Arc<BrokerConfig>> {
        self.0.changed().await.ok()?;
        Some(self.0.borrow_and_update().config.clone())
    }

    /// The configuration as it is now, which counts as seen.
    pub fn seen(&mut self) -> Arc<BrokerConfig> {
        self.0.borrow_and_update().config.clone()
    }
}

/// `fixed` with all of `dynamic` that is understood; a warning for each key that is not.
pub(crate) fn overlay(fixed: &BrokerConfig, dynamic: &Dynamic) -> (BrokerConfig, Vec<String>) {
    let mut warnings = Vec::new();
    let mut settings = fixed.source.settings.clone();
    // A key at a time, because the check of a whole would not say which one to leave out.
    for (key, (value, origin)) in dynamic.settings() {
        let mut with = settings.clone();
        with.set(key, value, origin);
        match BrokerConfig::load(&with, &fixed.source.host_name) {
            Ok(_) => settings = with,
            Err(error) => warnings.push(format!("{error}; the value is not used")),
        }
    }
    (loaded(fixed, &settings).expect("settings that were just loaded"), warnings)
}

fn loaded(fixed: &BrokerConfig, settings: &Settings) -> Result<BrokerConfig, ConfigError> {
    let (new, _) = BrokerConfig::load(settings, &fixed.source.host_name)?;
    Ok(fixed.changed_to(new))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn overrides(pairs: &[(&str, &str)]) -> Overrides {
        Arc::new(pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect())
    }

    #[test]
    fn the_own_broker_wins_over_every_broker_and_both_over_the_file() {
        let settings = Settings::default().with("log.segment.bytes", 5000).with("log.retention.hours", 1);
        let (fixed, _) = BrokerConfig::load(&settings, "here").unwrap();
        let dynamic = Dynamic {
            own: overrides(&[("log.segment.bytes", "6000")]),
            every: overrides(&[("log.segment.bytes", "7000"), ("log.retention.ms", "8")]),
        };
        let (config, warnings) = overlay(&fixed, &dynamic);
        assert_eq!(warnings, Vec::<String>::new());
        assert_eq!((config.topic_defaults.segment_bytes, config.topic_defaults.retention_ms), (6000, 8));
        let (config, _) = overlay(&fixed, &Dynamic::default());
        assert_eq!(config.topic_defaults, fixed.topic_defaults);
    }

    #[test]
    fn a_value_that_is_not_understood_leaves_what_holds_without_it() {
        let (fixed, _) = BrokerConfig::load(&Settings::default().with("max.connections", 7), "here").unwrap();
        let own = overrides(&[("max.connections", "many"), ("log.segment.bytes", "6000")]);
        let (config, warnings) = overlay(&fixed, &Dynamic { own, ..Dynamic::default() });
        assert_eq!((config.max_connections, config.topic_defaults.segment_bytes), (7, 6000));
        assert!(matches!(&warnings[..], [one] if one.contains("max.connections")), "{warnings:?}");
    }
}
