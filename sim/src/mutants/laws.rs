//! Every law can break, and a planted bug says so: each law of the checker, of the simulator and of the clients is named by a
//! bug of `sim/mutants/`, but for those listed here with the reason. Never: a name that breaks a run and is no law.

use std::{collections::BTreeSet, fs, path::Path};

use super::{chosen::read_mutants, is_law, root};
use crate::laws::OWN_LAWS;

/// Laws that no bug of the broker can break, and those for which none is planted yet.
const NAMED_BY_NONE: &[(&str, &str)] = &[
    ("a plan is sound", "judges what the simulator draws, before a broker starts"),
    ("the simulator looks", "judges the judge: that it saw the broker at all"),
    ("the simulator runs", "judges the child process, which a bug of the broker ends only with a full stack"),
];

/// The names that calls of `function` below `folder` give to a law: the argument at `place`, where it is a plain text.
fn names_given_to(folder: &Path, function: &str, place: usize, names: &mut BTreeSet<String>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            names_given_to(&path, function, place, names);
            continue;
        }
        // This file names the functions.
        if path.ends_with("mutants/laws.rs") {
            continue;
        }
        let text = fs::read_to_string(&path).unwrap();
        let text = text.split("#[cfg(test)]\nmod tests").next().unwrap_or_default();
        for call in text.split(function).skip(1) {
            let arguments = call.split_once('(').map_or("", |(_, arguments)| arguments);
            let argument = arguments.split(',').nth(place).unwrap_or_default().trim_start();
            let name = argument.strip_prefix('"').and_then(|name| name.split('"').next());
            names.extend(name.map(str::to_owned));
        }
    }
}

/// A complaint that no mutant may name would make a bug that it finds first look like one that nothing finds.
#[test]
fn what_clients_complain_of_has_a_known_name() {
    let mut names = BTreeSet::new();
    names_given_to(&root().unwrap().join("sim/workload/src"), "complain", 0, &mut names);
    names.retain(|name| name.chars().all(|c| c.is_lowercase() || c == '_'));
    assert!(names.contains("sequence_accepted") && names.contains("record_unchanged"), "{names:?}");
    names.retain(|name| !is_law(name));
    assert!(names.is_empty(), "no law is called {names:?}");
}

/// The same for what the simulator itself finds.
#[test]
fn what_breaks_a_run_has_a_known_name() {
    let mut names = BTreeSet::new();
    for (function, place) in [("violate", 0), ("bounded", 1), ("Report::failed", 1)] {
        names_given_to(&root().unwrap().join("sim/src"), function, place, &mut names);
    }
    assert!(names.contains("no panic") && names.contains("the load drains"), "{names:?}");
    names.retain(|name| !is_law(name));
    assert!(names.is_empty(), "no law is called {names:?}; OWN_LAWS lists them");
}

#[test]
fn every_law_is_named_by_a_planted_bug() {
    let named: BTreeSet<String> =
        read_mutants(&root().unwrap()).unwrap().into_iter().flat_map(|mutant| mutant.laws).collect();
    let all: BTreeSet<&str> = gracchus_checker::laws::NAMES.iter().chain(OWN_LAWS).copied().collect();
    let excused: BTreeSet<&str> = NAMED_BY_NONE.iter().map(|(law, _)| *law).collect();
    let missing: Vec<&&str> =
        all.iter().filter(|law| !named.contains(**law) && !excused.contains(**law)).collect();
    assert!(
        missing.is_empty(),
        "no bug of sim/mutants/ names {missing:?}: plant one, or say here why none can"
    );
    let idle: Vec<&&str> =
        excused.iter().filter(|law| named.contains(**law) || !all.contains(**law)).collect();
    assert!(idle.is_empty(), "named by a bug, or no law: {idle:?}");
}
