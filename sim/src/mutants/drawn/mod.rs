//! Mutants that nobody chose: a tool makes changes of the broker's code by rule, a seed takes some of them, and all that can
//! be a switch are planted in one build. The default swarm runs on each, untold; what it does not find, the unit tests are
//! asked. A tester that is measured by bugs of its own choice is not measured.
//!
//! [`list`] knows the tool and draws, [`place`] makes a switch of a change, [`build`] drops what does not compile, [`hunt`] runs,
//! [`page`] writes `sim/mutants/DRAWN.md`. Never: a drawn mutant left out because it is hard to find.

mod build;
mod hunt;
mod list;
mod page;
mod place;

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Instant,
};

use anyhow::{Result, ensure};

use self::hunt::{Fate, Hunt};
use super::{results::Results, root, scratch::Scratch};

/// What `cargo sim mutants --drawn` was asked.
#[derive(Debug, Clone)]
pub struct Options {
    /// How many each seed draws.
    pub count: usize,
    /// What draws them: one build and one hunt serve several, and each has a section of the page.
    pub draws: Vec<u64>,
    /// The first seed of the swarm.
    pub from: u64,
    /// The most seeds of the swarm that a mutant gets.
    pub seeds: u64,
    /// A mutant that changed nothing in so many runs gets no more.
    pub same_after: u64,
    /// Asks the unit tests also of those that the swarm finds.
    pub unit_tests: bool,
    /// Processes at a time.
    pub jobs: usize,
    /// Forgets the results of an earlier run of the same sources.
    pub fresh: bool,
}

/// The verb `mutants --drawn`: what became of the drawn is on the page.
pub fn drawn(options: &Options) -> Result<()> {
    let began = Instant::now();
    let root = root()?;
    let all = list::all(&root)?;
    let listed = all.len();
    let drawn: Vec<(u64, Vec<list::Mutation>)> =
        options.draws.iter().map(|seed| (*seed, list::draw(all.clone(), options.count, *seed))).collect();
    let mut seen = BTreeSet::new();
    let mutations: Vec<list::Mutation> = drawn
        .iter()
        .flat_map(|(_, mutations)| mutations)
        .filter(|mutation| seen.insert(mutation.name.as_str()))
        .cloned()
        .collect();
    ensure!(mutations.len() <= 8_192, "no more than 8192 at a time");
    let scratch = Scratch::prepare(&root)?;
    let built = build::build(&scratch, &root, &mutations)?;
    eprintln!(
        "{} of {} drawn mutants (of {listed}) are planted",
        mutations.len() - built.dropped.len(),
        mutations.len()
    );
    let kept = format!("drawn-{:08x}-{}.json", scratch.code, options.from);
    let mut results: Results<Fate> = Results::open(scratch.programs.join(kept), options.fresh);
    let hunt = Hunt { scratch: &scratch, built: &built, options, mutations: &mutations };
    hunt.run(&mut results)?;
    let dropped: BTreeMap<&str, &str> =
        built.dropped.iter().map(|(number, why)| (mutations[*number].name.as_str(), why.as_str())).collect();
    for (seed, mutations) in &drawn {
        let drawn = page::Drawn { seed: *seed, mutations, dropped: &dropped, fates: &results.found, listed };
        println!("{}", page::write(&root, options, &drawn)?);
    }
    let wall_s = began.elapsed().as_secs_f64();
    println!("mutants drawn={} seeds={:?} wall_s={wall_s:.0}", mutations.len(), options.draws);
    Ok(())
}
