//! A replica's topic configuration as it now is: the topic's overrides over the broker's defaults.
//!
//! Whoever checks a batch loads it once per batch; the owner gets it as a message, so that its log changes between two
//! rounds. Never changed by two at once. Never: resolved anew when neither overrides nor defaults have changed.

use std::{collections::BTreeMap, sync::Arc};

use arc_swap::{ArcSwap, Guard};
use gracchus_core::topic::TopicConfig;

/// See the module.
#[derive(Debug)]
pub(crate) struct Configuration(ArcSwap<Resolved>);

#[derive(Debug)]
pub(crate) struct Resolved {
    overrides: BTreeMap<String, String>,
    defaults: Arc<TopicConfig>,
    pub(crate) config: Arc<TopicConfig>,
}

impl Configuration {
    /// `overrides` over `defaults`.
    pub(crate) fn new(
        topic: &str,
        overrides: &BTreeMap<String, String>,
        defaults: &Arc<TopicConfig>,
    ) -> Self {
        let config = resolve(topic, overrides, defaults);
        let resolved = Resolved { overrides: overrides.clone(), defaults: defaults.clone(), config };
        Self(ArcSwap::from_pointee(resolved))
    }

    /// What holds now.
    pub(crate) fn load(&self) -> Guard<Arc<Resolved>> {
        self.0.load()
    }

    /// Takes in other overrides or defaults; returns what holds from now on if that is something else than before.
    pub(crate) fn update(
        &self,
        topic: &str,
        overrides: &BTreeMap<String, String>,
        defaults: &Arc<TopicConfig>,
    ) -> Option<Arc<TopicConfig>> {
        let before = self.0.load();
        if Arc::ptr_eq(&before.defaults, defaults) && before.overrides == *overrides {
            return None;
        }
        let config = resolve(topic, overrides, defaults);
        let resolved =
            Resolved { overrides: overrides.clone(), defaults: defaults.clone(), config: config.clone() };
        self.0.store(Arc::new(resolved));
        (*config != *before.config).then_some(config)
    }
}

/// Overrides were checked when they were set; one that is not understood leaves what holds without it.
pub(crate) fn resolve(
    topic: &str,
    overrides: &BTreeMap<String, String>,
    defaults: &Arc<TopicConfig>,
) -> Arc<TopicConfig> {
    if overrides.is_empty() {
        return defaults.clone();
    }
    let (config, problems) = TopicConfig::resolve_known(defaults, overrides);
    for problem in problems {
        tracing::warn!(topic, "{problem}; the broker's default is used. Set it anew, or delete it");
    }
    Arc::new(config)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn overrides(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn a_change_of_overrides_or_defaults_is_told_once_and_what_is_no_change_is_not() {
        let defaults = Arc::new(TopicConfig::default());
        let configuration = Configuration::new("t", &overrides(&[]), &defaults);
        assert!(Arc::ptr_eq(&configuration.load().config, &defaults), "no override, no copy");
        let short = overrides(&[("retention.ms", "5")]);
        let changed = configuration.update("t", &short, &defaults).expect("a change");
        assert_eq!((changed.retention_ms, configuration.load().config.retention_ms), (5, 5));
        assert_eq!(configuration.update("t", &short, &defaults), None);
        let broker = overrides(&[("retention.ms", "7"), ("segment.bytes", "99")]);
        let others = Arc::new(TopicConfig::resolve(&defaults, &broker).unwrap());
        let changed = configuration.update("t", &short, &others).expect("a change");
        assert_eq!((changed.retention_ms, changed.segment_bytes), (5, 99));
        assert_eq!(configuration.update("t", &short, &Arc::new((*others).clone())), None, "equal defaults");
        let broken = overrides(&[("retention.ms", "soon")]);
        assert_eq!(configuration.update("t", &broken, &others).expect("a change").retention_ms, 7);
    }
}
