//! Which of the broker's named moments ([`gracchus_env::moments`]) a run reached, and how often.
//!
//! The moments are ordinary tracing events. A process that runs a seed counts them: nothing is formatted, and every other
//! event stays off. Never: a count that changes the run (the test is `meta`, where one variant does not count).

mod unreached;

use std::{collections::BTreeMap, sync::Mutex};

use gracchus_env::moments::{ALL, Moment, TARGET};
use tracing::{
    Event, Level, Metadata, Subscriber,
    field::{Field, Visit},
    level_filters::LevelFilter,
    subscriber::Interest,
};
use tracing_subscriber::layer::{Context, Layer};

pub use unreached::UNREACHED;

use crate::world::lock;

/// How often each was reached, by [`key`].
pub type Counts = BTreeMap<String, u64>;

/// Of this process, which runs one seed.
static COUNTS: Mutex<Counts> = Mutex::new(Counts::new());

/// What was counted so far.
pub fn counts() -> Counts {
    lock(&COUNTS).clone()
}

/// A moment, and where it tells what was being done, that.
fn key(name: &str, place: &str) -> String {
    if place.is_empty() { name.to_owned() } else { format!("{name}: {place}") }
}

/// Every moment of the list by its key; one that has places, by each of them.
pub fn all() -> impl Iterator<Item = (String, &'static Moment)> {
    ALL.iter().flat_map(|moment| {
        let places = if moment.places.is_empty() { &[""][..] } else { moment.places };
        places.iter().map(move |place| (key(moment.name, place), moment))
    })
}

/// Why a moment cannot be reached, if that is known. One entry may speak for all places of a moment.
pub fn excuse(key: &str) -> Option<&'static str> {
    let names = |name: &str| key == name || key.split_once(": ").is_some_and(|(moment, _)| moment == name);
    UNREACHED.iter().find(|(name, _)| names(name)).map(|(_, why)| *why)
}

/// How much of the list was reached, and what was not although nothing is known that stands in the way.
pub fn summary(counts: &Counts) -> String {
    let never: Vec<String> = all().map(|(key, _)| key).filter(|key| !counts.contains_key(key)).collect();
    let listed = all().count();
    let (excused, missing): (Vec<&String>, Vec<&String>) =
        never.iter().partition(|key| excuse(key).is_some());
    let mut text = format!("moments: {} of {listed} reached", listed - never.len());
    if !excused.is_empty() {
        text.push_str(&format!(", {} have their reason not to be", excused.len()));
    }
    if !missing.is_empty() {
        let mut names: BTreeMap<&str, usize> = BTreeMap::new();
        for key in missing {
            *names.entry(key.split_once(": ").map_or(key, |(name, _)| name)).or_default() += 1;
        }
        let told = |(name, count): (&str, usize)| match count {
            1 => name.to_owned(),
            _ => format!("{name} (of {count})"),
        };
        let names: Vec<String> = names.into_iter().map(told).collect();
        text.push_str(&format!("; never: {}", names.join(", ")));
    }
    text
}

/// Counts moments.
#[derive(Debug)]
pub struct Counter;

impl<S: Subscriber> Layer<S> for Counter {
    fn register_callsite(&self, metadata: &'static Metadata<'static>) -> Interest {
        if metadata.target() == TARGET { Interest::always() } else { Interest::never() }
    }

    fn enabled(&self, metadata: &Metadata<'_>, _: Context<'_, S>) -> bool {
        metadata.target() == TARGET
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(Level::DEBUG.into())
    }

    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let name = event.metadata().name();
        let mut place = Place(None);
        if event.metadata().fields().len() > 1 {
            event.record(&mut place);
        }
        let mut counts = lock(&COUNTS);
        match (place.0, counts.get_mut(name)) {
            (None, Some(count)) => *count += 1,
            (place, _) => *counts.entry(key(name, &place.unwrap_or_default())).or_default() += 1,
        }
    }
}

/// The field that tells what was being done.
struct Place(Option<String>);

impl Visit for Place {
    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == "place" {
            self.0 = Some(value.to_owned());
        }
    }

    fn record_debug(&mut self, _: &Field, _: &dyn std::fmt::Debug) {}
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use tracing_subscriber::layer::SubscriberExt;

    use super::*;

    #[test]
    fn moments_are_counted_and_nothing_else_is_even_asked() {
        let subscriber = tracing_subscriber::registry().with(Counter);
        tracing::subscriber::with_default(subscriber, || {
            for _ in 0..3 {
                gracchus_env::moment!(ROLL_BY_OFFSETS);
            }
            gracchus_env::moment!(DISK_FAILED, "a test");
            assert!(!tracing::enabled!(Level::DEBUG) && !tracing::enabled!(Level::ERROR));
        });
        let counts = counts();
        assert_eq!((counts["ROLL_BY_OFFSETS"], counts["DISK_FAILED: a test"]), (3, 1));
        let told = summary(&counts);
        assert!(told.starts_with("moments: 1 of "), "{told}");
        assert!(!told.contains("ROLL_BY_OFFSETS"), "{told}");
    }

    #[test]
    fn every_excuse_is_for_a_moment() {
        let mut known: BTreeSet<String> = all().map(|(key, _)| key).collect();
        known.extend(ALL.iter().map(|moment| moment.name.to_owned()));
        let unknown: Vec<&str> =
            UNREACHED.iter().map(|(name, _)| *name).filter(|name| !known.contains(*name)).collect();
        assert!(unknown.is_empty(), "excuses for what is no moment: {unknown:?}");
    }
}
