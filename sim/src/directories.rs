//! What happens to the log directories of a broker that has several: one is away for a while and something else is found in
//! its place, or logs are moved by hand from one to another.
//!
//! A directory is known by the id in its `meta.properties`, not by its path. What was away is put back at its old path, and
//! what was found in its place and has been used stays in use at another one, as an operator would mount it. So nothing is
//! lost at any time, and the judge has no partition to excuse: while its directory is away, or dead since before the start,
//! a partition is not served at all.
//!
//! Never: a move of logs that did not come after a clean stop of both directories; the directory with the metadata.

use gracchus_workload::scenario::InItsPlace;
use rand::{Rng, rngs::SmallRng, seq::IndexedRandom};

use crate::{
    files_check,
    log_format::Place,
    plan::data_directory,
    world::{NodeId, World},
};

/// Law: a partition whose directory is away or dead is not served, least of all by an empty log.
pub(crate) const NOT_SERVED: &str = "what is away is not served";

/// Kafka's marker of a clean stop.
const MARKER: &str = ".kafka_cleanshutdown";
const IDENTITY: &str = "meta.properties";

/// A directory that is away.
#[derive(Debug, Clone)]
pub(crate) struct Away {
    pub(crate) number: u32,
    /// Whose logs lie in it.
    pub(crate) places: Vec<Place>,
}

fn away_path(number: u32) -> String {
    format!("/away-{number}")
}

/// Takes log directory `number` away; there is something else in its place when the broker starts.
pub(crate) fn take_away(world: &World, node: NodeId, number: u32, instead: InItsPlace) -> Away {
    let path = data_directory(number);
    let places = files_check::places_in(world, node, &path);
    let identity = world.file(node, &format!("{path}/{IDENTITY}"));
    world.move_directory(node, &path, &away_path(number));
    match instead {
        InItsPlace::Nothing => {}
        InItsPlace::Empty => world.make_directory(node, &path),
        InItsPlace::Formatted => {
            world.make_directory(node, &path);
            let formatted = identity.and_then(|identity| with_new_id(&identity, &mut world.random()));
            world.put_file(node, &format!("{path}/{IDENTITY}"), formatted);
        }
    }
    Away { number, places }
}

/// Puts it back. What was found in its place goes to `spare` if a broker has made it its own; says whether.
pub(crate) fn put_back(world: &World, node: NodeId, away: &Away, spare: &str) -> bool {
    let path = data_directory(away.number);
    let used = world.file(node, &format!("{path}/{IDENTITY}")).is_some();
    match used {
        true => world.move_directory(node, &path, spare),
        // Nothing that anybody could miss.
        false => world.remove_directory(node, &path),
    }
    world.move_directory(node, &away_path(away.number), &path);
    used
}

/// The same file with another `directory.id`; `None` if it has none.
fn with_new_id(identity: &[u8], random: &mut SmallRng) -> Option<Vec<u8>> {
    const DIGITS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";
    const KEY: &str = "directory.id=";
    let text = std::str::from_utf8(identity).ok()?;
    let begin = text.find(KEY)? + KEY.len();
    let mut bytes = identity.to_vec();
    // The last of 22 digits holds two bits only.
    for digit in bytes.get_mut(begin..begin + 21)? {
        *digit = DIGITS[random.random_range(0..DIGITS.len())];
    }
    Some(bytes)
}

/// Moves up to `logs` logs from one of `directories` to another, all of which were stopped cleanly; says which, and to where.
pub(crate) fn move_logs(
    world: &World,
    node: NodeId,
    directories: &[String],
    logs: u32,
) -> Vec<(Place, String)> {
    let random = &mut world.random();
    let clean = |path: &&String| world.file(node, &format!("{path}/{MARKER}")).is_some();
    let clean: Vec<&String> = directories.iter().filter(clean).collect();
    let Some(from) = clean.choose(random) else { return Vec::new() };
    let others: Vec<&&String> = clean.iter().filter(|other| *other != from).collect();
    let Some(to) = others.choose(random) else { return Vec::new() };
    let mut places = files_check::places_in(world, node, from);
    let mut moved = Vec::new();
    for _ in 0..logs.min(u32::try_from(places.len()).unwrap_or(u32::MAX)) {
        let place = places.swap_remove(random.random_range(0..places.len()));
        let name = place.name();
        // A namesake may have been left there.
        if world.names_in(node, to).contains(&name) {
            continue;
        }
        world.move_directory(node, &format!("{from}/{name}"), &format!("{to}/{name}"));
        moved.push((place, to.to_string()));
    }
    moved
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;

    use super::*;

    #[test]
    fn a_formatted_directory_has_an_id_of_its_own_and_all_else_of_the_other() {
        let identity = b"#\nversion=1\ndirectory.id=AAAAAAAAAAAAAAAAAAAAAQ\nnode.id=1\n";
        let random = &mut SmallRng::seed_from_u64(1);
        let formatted = with_new_id(identity, random).expect("it has an id");
        let text = std::str::from_utf8(&formatted).expect("is text");
        assert!(
            text.starts_with("#\nversion=1\ndirectory.id=") && text.ends_with("Q\nnode.id=1\n"),
            "{text}"
        );
        assert_ne!(formatted, identity);
        assert_eq!(with_new_id(b"version=1\n", random), None);
    }
}
