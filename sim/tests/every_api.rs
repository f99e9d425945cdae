//! Every API that the broker serves is called by the clients of the swarm.
//!
//! Never: an exception without its reason.

use std::{collections::BTreeMap, time::Duration};

use gracchus::api::APIS;
use gracchus_sim::{plan::Plan, run};

/// APIs that no client of the swarm calls, and why.
const NOT_CALLED: &[(&str, &str)] = &[];

#[test]
fn every_api_is_called() {
    let mut calls: BTreeMap<i16, u64> = BTreeMap::new();
    let missing = |calls: &BTreeMap<i16, u64>| -> Vec<&'static str> {
        let called =
            |name: &str, key| calls.contains_key(&key) || NOT_CALLED.iter().any(|(other, _)| *other == name);
        APIS.iter().filter(|api| !called(api.name, api.key)).map(|api| api.name).collect()
    };
    // Not every plan has every client.
    for seed in 0..20 {
        let plan = Plan::draw(seed).without_faults(12_000);
        let report = run::run(plan, Duration::from_secs(120));
        assert!(report.held(), "{}", report.verdict("this test"));
        for (key, count) in report.calls {
            *calls.entry(key).or_default() += count;
        }
        if missing(&calls).is_empty() {
            return;
        }
    }
    panic!("nobody calls {:?}", missing(&calls));
}
