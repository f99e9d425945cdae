//! Every fuzz target on its corpus and, for a few seconds, on inputs changed at random. No tool and no nightly compiler.
//!
//! `GRACCHUS_FUZZ_SECONDS` sets the time per target (default 2), `GRACCHUS_FUZZ_SEED` repeats a run. An input that
//! breaks something is written to a file whose path is printed; put it into `corpus/<target>/` when it is mended.
//! Never: two targets at once, which would spoil the measure of memory.
#![allow(clippy::disallowed_methods, reason = "a test keeps files and looks at the clock")]
#![allow(clippy::print_stderr, reason = "says where the input is")]

use std::{
    env, fs,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    path::Path,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use gracchus_fuzz::{Mutator, TARGETS, Target, corpus};

static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

fn number(variable: &str) -> Option<u64> {
    env::var(variable)
        .ok()
        .map(|text| text.parse().unwrap_or_else(|_| panic!("{variable}={text} is no number")))
}

fn fuzz(name: &str) {
    let _alone = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let target = Target::named(name).expect("it is in the table");
    let corpus = corpus(target);
    assert!(!corpus.is_empty(), "a target without a valid input tests nothing");
    for (input_name, input) in &corpus {
        check(target, input, input_name);
    }
    let kept = corpus
        .iter()
        .filter_map(|(name, input)| Some((name.strip_prefix("seed-")?.to_owned(), input.clone())));
    for (seed, input) in kept.chain((target.seeds)()) {
        assert!(input.len() <= target.longest, "{name}: {seed} is too long");
        assert_eq!((target.run)(&input), !seed.ends_with("refused"), "{name}: whether {seed} is accepted");
    }
    let inputs: Vec<Vec<u8>> = corpus.into_iter().map(|(_, input)| input).collect();
    let clock = || SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_nanos() as u64;
    let seed = number("GRACCHUS_FUZZ_SEED").unwrap_or_else(clock);
    let mut mutator = Mutator::new(seed);
    let seconds = Duration::from_secs(number("GRACCHUS_FUZZ_SECONDS").unwrap_or(2));
    let begun = Instant::now();
    let mut runs = 0u64;
    while begun.elapsed() < seconds {
        check(target, &mutator.next(&inputs, target.longest), "changed");
        runs += 1;
    }
    println_runs(name, inputs.len(), runs, seed);
}

fn println_runs(name: &str, corpus: usize, runs: u64, seed: u64) {
    eprintln!("{name}: {corpus} inputs of the corpus, {runs} changed ones, GRACCHUS_FUZZ_SEED={seed}");
}

fn check(target: &Target, input: &[u8], what: &str) {
    let result = catch_unwind(AssertUnwindSafe(|| target.check(input)));
    if let Err(panic) = result {
        let directory = Path::new(env!("CARGO_TARGET_TMPDIR"));
        let path = directory.join(format!("{}-{:08x}", target.name, crc32c::crc32c(input)));
        fs::write(&path, input).expect("the file can be written");
        eprintln!("{} breaks on an input ({what}): {}", target.name, path.display());
        resume_unwind(panic);
    }
}

macro_rules! decoders {
    ($($name:ident)*) => {
        $(
            #[test]
            fn $name() {
                fuzz(stringify!($name));
            }
        )*

        #[test]
        fn every_target_is_tested() {
            let tested = [$(stringify!($name)),*];
            let named: Vec<&str> = TARGETS.iter().map(|target| target.name).collect();
            assert_eq!(named, tested);
        }
    };
}

decoders! {
    requests
    connections
    batches
    records
    indexes
    producer_snapshots
    small_files
    configurations
    journal
    metadata
    directories
}
