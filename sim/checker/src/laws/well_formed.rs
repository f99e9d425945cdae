//! Law: the history makes sense. Topics are announced before they are used, operations before their attempts, and no
//! value or operation number is used twice.
//!
//! Source: the contract of whoever writes the history. A breach is a bug of the workload, never of the broker; it
//! is reported because every other verdict would be worth nothing.

use super::{Broken, Verdict, demand};

pub(crate) const LAW: &str = "well_formed";

/// The topic or operation that an event names, if it was announced.
pub(crate) fn known<T>(found: Option<T>, what: impl FnOnce() -> String) -> Result<T, Broken> {
    found.ok_or_else(|| Broken {
        law: LAW,
        story: format!("the history names {} before announcing it", what()),
    })
}

/// An operation's number and values are new.
pub(crate) fn fresh(fresh: bool, op: u64) -> Verdict {
    demand(fresh, LAW, || format!("operation {op} or one of its values was used before"))
}

#[cfg(test)]
mod tests {
    use crate::testing::Story;

    #[test]
    fn an_unannounced_topic_is_told() {
        Story::new().produce(1, 1, "nowhere", 0, &[1]).without_last().broken("well_formed");
    }

    #[test]
    fn a_value_that_is_used_twice_is_told() {
        let story = Story::new().topic("t").produce(1, 1, "t", 0, &[7]).produce(1, 2, "t", 0, &[7]);
        story.without_last().broken("well_formed");
    }
}
