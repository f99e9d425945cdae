//! Waiting for what must come: conditions with names, a bound, and a verdict that says which one was not met, and by whom.
//!
//! A wait ends when all of its conditions are met at one look. Never: a fixed time in the place of a condition.

use std::{sync::Arc, time::Duration};

use crate::world::{Nanos, World};

/// Law: a cluster in which nothing is wrong any more becomes whole.
pub(crate) const CONVERGES: &str = "a healed cluster converges";

/// How often is looked.
const ROUND: Duration = Duration::from_millis(250);

/// Something that must come.
pub(crate) struct Condition<'a> {
    name: &'static str,
    /// The law that is broken if it does not come.
    law: &'static str,
    /// Who or what is missing.
    missing: Box<dyn FnMut() -> Option<String> + 'a>,
}

impl<'a> Condition<'a> {
    /// `missing` says who does not meet it, or what is not there yet.
    pub(crate) fn new(
        name: &'static str,
        law: &'static str,
        missing: impl FnMut() -> Option<String> + 'a,
    ) -> Self {
        Self { name, law, missing: Box::new(missing) }
    }
}

/// Waits until all of `conditions` are met, until virtual time `end` at most; breaks the law of the first that is not met
/// then, and says whether all were.
pub(crate) async fn wait(world: &Arc<World>, end: Nanos, mut conditions: Vec<Condition<'_>>) -> bool {
    loop {
        let unmet = conditions.iter_mut().find_map(|it| Some((it.name, it.law, (it.missing)()?)));
        let Some((name, law, missing)) = unmet else { return true };
        if world.now() >= end {
            world.violate(law, format!("it is not so in time that {name}: {missing}"));
            return false;
        }
        world.pass_until((world.now() + ROUND.as_nanos() as Nanos).min(end)).await;
    }
}
