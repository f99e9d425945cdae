//! The test of the tester's ground: a seed is one history, whatever surrounds its process.
//!
//! Each seed runs several times: silent, with every log line written, in another directory and environment, and while
//! other processes keep the machine busy. Equal hashes for a seed, different hashes for different seeds.

#![allow(clippy::print_stdout, reason = "a command-line tool speaks to its user")]

use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicBool, Ordering},
};

use crate::{
    report::Report,
    swarm::{self, Child, Progress, each_seed, now, replay},
};

/// The verb `meta`; whether all held.
pub fn meta(from: u64, seeds: u64, jobs: usize) -> bool {
    let began = now();
    let mut hashes: BTreeMap<u64, Vec<(&'static str, u64)>> = BTreeMap::new();
    let mut total = Report::default();
    let mut broken = 0;
    let variants = variants();
    let mut progress = Progress::new("meta", seeds * variants.len() as u64);
    let mut done = 0;
    for (name, child, busy) in &variants {
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            for _ in 0..if *busy { jobs } else { 0 } {
                scope.spawn(|| {
                    while !stop.load(Ordering::Relaxed) {
                        std::hint::spin_loop();
                    }
                });
            }
            each_seed(swarm::seeds(from, seeds), jobs, child, |report| {
                done += 1;
                if !report.held() {
                    progress.clear();
                    print!("{}", report.verdict(&replay(report.seed)));
                    broken += 1;
                }
                total.add(&report);
                hashes.entry(report.seed).or_default().push((name, report.hash));
                progress.show(done, name);
                true
            });
            stop.store(true, Ordering::Relaxed);
        });
    }
    progress.clear();
    let mut unequal = 0;
    for (seed, runs) in &hashes {
        if runs.iter().any(|(_, hash)| *hash != runs[0].1) {
            unequal += 1;
            let runs: Vec<String> = runs.iter().map(|(name, hash)| format!("{name} {hash:016x}")).collect();
            println!("seed {seed} is not one history: {}", runs.join(", "));
        }
    }
    let different: std::collections::BTreeSet<u64> = hashes.values().map(|runs| runs[0].1).collect();
    println!(
        "meta asked={seeds} runs={done} unequal={unequal} hashes={} {}",
        different.len(),
        total.line(done, broken, began.elapsed().as_secs_f64())
    );
    broken == 0 && unequal == 0 && different.len() as u64 == seeds && hashes.len() as u64 == seeds
}

/// The surroundings: name, child, whether the machine is kept busy.
fn variants() -> Vec<(&'static str, Child, bool)> {
    let logging = Child { arguments: vec!["--log".into(), "trace".into()], ..Child::default() };
    // Which does not count the broker's moments either.
    let elsewhere = Child {
        arguments: vec!["--uncounted".into()],
        directory: Some(std::env::temp_dir()),
        variables: vec![("GRACCHUS_SOMETHING".into(), "else".repeat(1_000)), ("LANG".into(), "C".into())],
        ..Child::default()
    };
    vec![
        ("plain", Child::default(), false),
        ("logging", logging, false),
        ("elsewhere and busy", elsewhere, true),
    ]
}
