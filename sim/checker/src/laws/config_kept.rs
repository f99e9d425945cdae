//! Law: what a topic has set for itself is what was asked for last: an acknowledged change stays, also across power
//! losses, and a topic never shows settings of a namesake. So is what one broker or every broker has set.
//!
//! Source: KIP-339. A change without an answer may have happened or may happen yet.

use std::collections::{BTreeMap, BTreeSet};

use super::{Verdict, demand};
use crate::configs::Configs;

pub(crate) const LAW: &str = "config_kept";

/// All that DescribeConfigs, asked at `invoked_ns`, told of the settings of `whom` itself.
pub(crate) fn seen(
    known: &Configs,
    configs: &BTreeMap<String, String>,
    invoked_ns: u64,
    whom: impl Fn() -> String,
) -> Verdict {
    let keys: BTreeSet<&String> = known.keys().chain(configs.keys()).collect();
    for key in keys {
        let possible = known.possible(key, invoked_ns, 0);
        let shown = configs.get(key).map(String::as_str);
        demand(possible.contains(&shown), LAW, || {
            format!("{} has {key} set to {shown:?}; it was set to {possible:?} (None: not at all)", whom())
        })?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use crate::testing::Story;
    use crate::{EventKind, Settled};

    fn changed(outcome: Settled) -> Story {
        let story = Story::new().configured("t", 1, &[("retention.ms", "5")]);
        let (topic, topic_id, change) = ("t".into(), 1, 1);
        let configs = vec![("retention.ms".to_owned(), Some("7".to_owned()))];
        let story = story.event(EventKind::ConfigAsked { topic, topic_id, change, configs });
        story.event(EventKind::ConfigReturned { topic: "t".into(), topic_id, change, outcome })
    }

    fn seen(story: Story, configs: &[(&str, &str)]) -> Story {
        let (client, topic, topic_id, invoked_ns) = (9, "t".into(), 1, story.now() + 1);
        let configs = configs.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect();
        story.event(EventKind::ConfigSeen { client, topic, topic_id, configs, invoked_ns })
    }

    #[test]
    fn a_setting_that_is_lost_or_made_up_is_found() {
        seen(changed(Settled::Done), &[("retention.ms", "7")]).holds();
        seen(changed(Settled::Done), &[("retention.ms", "5")]).broken("config_kept");
        seen(changed(Settled::Done), &[]).broken("config_kept");
        seen(changed(Settled::Refused), &[("retention.ms", "7")]).broken("config_kept");
        seen(changed(Settled::Unknown), &[("retention.ms", "5")]).holds();
        seen(changed(Settled::Unknown), &[("retention.ms", "7")]).holds();
        let other = [("retention.ms", "7"), ("segment.ms", "1")];
        seen(changed(Settled::Done), &other).broken("config_kept");
    }
}
