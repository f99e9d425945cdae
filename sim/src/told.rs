//! What `run` makes of a file: a story as it is told, or a plan as `replay` prints it.
//!
//! A file is edited by hand, and a fault that is misspelt would be a fault that is missing: every key must be known, also where
//! serde passes over unknown ones (inside of what is flattened), and every fault must be one that can happen. Never: a run of a file
//! that says something which nobody understood.

use gracchus_workload::scenario::{Expectation, Fault, Scenario, TimedFault};
use serde::{Serialize, de::DeserializeOwned};
use toml::{Table, Value};

use crate::{laws, plan::Plan};

/// No run lasts longer than a day of the world.
const LONGEST_MS: u64 = 24 * 3_600_000;
/// So many brokers are simulated today.
const BROKERS: u32 = 1;

/// The plan that `text` is or tells; `seed` takes the place of the file's own.
///
/// # Errors
/// What in `text` is wrong, and where.
pub fn read(text: &str, seed: Option<u64>) -> Result<Plan, String> {
    let table: Table = toml::from_str(text).map_err(|error| error.to_string())?;
    if table.contains_key("scenario") {
        let plan: Plan = known(text, &table)?;
        check(&plan.scenario)?;
        let (machines, brokers) = (plan.world.machines.len(), plan.brokers());
        if machines <= brokers {
            return Err(format!("{machines} machines are too few for {brokers} brokers and a client"));
        }
        Ok(Plan { seed: seed.unwrap_or(plan.seed), ..plan })
    } else if table.contains_key("story") || table.contains_key("duration_ms") {
        let scenario: Scenario = known(text, &table)?;
        check(&scenario)?;
        Ok(Plan::tell(seed.unwrap_or(scenario.seed), scenario))
    } else {
        Err("neither a story (see scenarios/) nor a plan (what `cargo sim replay SEED` prints)".to_owned())
    }
}

/// Reads a `T`, all keys of which are known.
fn known<T: Serialize + DeserializeOwned>(text: &str, table: &Table) -> Result<T, String> {
    let read: T = toml::from_str(text).map_err(|error| error.to_string())?;
    let understood = Value::try_from(&read).map_err(|error| error.to_string())?;
    match unknown(&Value::Table(table.clone()), &understood) {
        None => Ok(read),
        Some(path) => Err(format!("unknown key `{path}`")),
    }
}

/// The first key of `given` that is not in what was understood of it.
fn unknown(given: &Value, understood: &Value) -> Option<String> {
    match (given, understood) {
        (Value::Table(given), Value::Table(understood)) => given.iter().find_map(|(key, value)| {
            let below = |path: String| match path.starts_with('[') {
                true => format!("{key}{path}"),
                false => format!("{key}.{path}"),
            };
            match understood.get(key) {
                Some(known) => unknown(value, known).map(below),
                // Left out where it is written back.
                None if is_empty(value) => None,
                None => Some(key.clone()),
            }
        }),
        (Value::Array(given), Value::Array(understood)) => {
            given.iter().zip(understood).enumerate().find_map(|(index, (value, known))| {
                let path = unknown(value, known)?;
                Some(format!("[{index}].{path}"))
            })
        }
        _ => None,
    }
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Table(table) => table.is_empty(),
        Value::Array(array) => array.is_empty(),
        _ => false,
    }
}

/// Whether a run can do what the scenario says.
fn check(scenario: &Scenario) -> Result<(), String> {
    if let Some(workload) = &scenario.workload {
        workload.check()?;
    }
    if scenario.nodes != BROKERS {
        return Err(format!(
            "nodes = {}: {BROKERS} broker is simulated today, not more and not less",
            scenario.nodes
        ));
    }
    check_length("duration_ms", scenario.duration_ms)?;
    if let Expectation::Violates(law) = &scenario.expect
        && !laws::is_one(law)
    {
        return Err(format!("expect: no law is called “{law}”; {} lists them", laws::WHERE));
    }
    for (index, timed) in scenario.faults.iter().enumerate() {
        check_fault(scenario, timed).map_err(|why| format!("faults[{index}]: {why}"))?;
    }
    Ok(())
}

fn check_fault(scenario: &Scenario, timed: &TimedFault) -> Result<(), String> {
    let TimedFault { at_ms, for_ms, fault, .. } = timed;
    let peer = match fault {
        Fault::Cut { peer, .. }
        | Fault::Delay { peer, .. }
        | Fault::Loss { peer, .. }
        | Fault::Hold { peer, .. } => *peer,
        _ => None,
    };
    for node in [Some(fault.node()), peer].into_iter().flatten() {
        if !(1..=scenario.nodes).contains(&node) {
            return Err(format!("there is no broker {node}; they are numbered from 1 to {}", scenario.nodes));
        }
    }
    if *at_ms >= scenario.duration_ms {
        return Err(format!("at_ms = {at_ms}: the load with its faults ends at {}", scenario.duration_ms));
    }
    check_length("for_ms", *for_ms)
}

fn check_length(key: &str, ms: u64) -> Result<(), String> {
    match ms {
        0..=LONGEST_MS => Ok(()),
        _ => Err(format!("{key} = {ms}: no more than {LONGEST_MS} (a day) is simulated")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STORY: &str = r#"
        name = "one"
        story = "The broker stands still."
        duration_ms = 5000
        [[faults]]
        kind = "pause"
        at_ms = 2000
        for_ms = 100
        node = 1
    "#;

    #[test]
    fn what_replay_prints_is_read() {
        for seed in 0..50 {
            let text = Plan::draw(seed).to_text();
            let plan = read(&text, None).unwrap_or_else(|why| panic!("seed {seed}: {why}"));
            assert_eq!(plan.to_text(), text);
        }
        assert_eq!(read(&Plan::draw(3).to_text(), Some(9)).map(|plan| plan.seed), Ok(9));
        assert_eq!(read(STORY, Some(9)).map(|plan| plan.seed), Ok(9));
    }

    fn edited(from: &str, to: &str, why: &str) {
        assert!(STORY.contains(from), "{from}");
        let found = read(&STORY.replacen(from, to, 1), None).expect_err(to);
        assert!(found.contains(why), "{to}: {found}");
    }

    #[test]
    fn what_nobody_understands_is_refused() {
        edited("for_ms", "fro_ms", "unknown key `faults[0].fro_ms`");
        edited(
            "node = 1",
            "node = 1\n[faults.wenn]\nmoment = \"roll\"\nnth = 1",
            "unknown key `faults[0].wenn`",
        );
        edited("duration_ms", "durationms", "duration_ms");
        edited("\"pause\"", "\"puase\"", "unknown variant `puase`");
        edited("name =", "nodes = 2\nname =", "1 broker is simulated");
        edited("node = 1", "node = 2", "there is no broker 2");
        edited("node = 1", "node = 0", "there is no broker 0");
        edited("at_ms = 2000", "at_ms = 5000", "ends at 5000");
        edited("for_ms = 100", "for_ms = 99999999999", "a day");
        edited("name =", "expect = { violates = \"nonsense\" }\nname =", "no law is called “nonsense”");
        let neither = read("", None).expect_err("an empty file");
        assert!(neither.contains("neither"), "{neither}");
    }

    #[test]
    fn a_mistake_in_a_plan_is_named() {
        let text = Plan::draw(100).to_text();
        for (from, to, named) in [
            ("at_ms", "att_ms", "missing field `at_ms`"),
            ("ending = ", "ennding = ", "missing field `ending`"),
            ("[knobs]\n", "[knobs]\nknob = 1\n", "unknown key `knobs.knob`"),
        ] {
            assert!(text.contains(from), "{from}");
            let found = read(&text.replacen(from, to, 1), None).expect_err(to);
            assert!(found.contains(named), "{to}: {found}");
        }
    }
}
