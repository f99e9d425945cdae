//! Kafka's own tools against our broker and against the real Apache Kafka: the same calls on both, in the same order,
//! must exit with the same code and print the same. Only what names a cluster, a place or a moment is made equal first
//! (`normal.rs`). Where ours is meant to differ, the step says so with its reason (`steps/`); any other difference
//! fails, and so does a reason that has outlived its difference.
//!
//! What came of it is the second table of `tests/COMPATIBILITY.md`, which it compares, or writes with `GRACCHUS_WRITE=1`.
//! What each broker made the tools print, and the differences without a reason, lie in `target/tools*` afterwards.
#![allow(
    clippy::disallowed_methods,
    clippy::print_stdout,
    reason = "a test works with real files and threads"
)]

mod compare;
mod normal;
mod step;
mod steps;

use std::{
    fs,
    path::Path,
    thread,
    time::{Duration, Instant},
};

use gracchus_tests::{
    Broker, Scratch,
    java::Java,
    page,
    peer::ApacheKafka,
    places::workspace,
    tools::{Ran, Tools},
};

use crate::{compare::Compared, normal::Place, step::Step};

#[test]
fn the_tools_print_what_they_print_for_apache_kafka() {
    let Some(java) = Java::find("the comparison of Kafka's tools with Apache Kafka") else { return };
    let scratch = Scratch::new("tools");
    let theirs = ApacheKafka::start(&java, scratch.path(), &[]);
    let ours = Broker::start(scratch.path(), theirs.options());
    let steps = steps::all();
    let files = scratch.path().join("files");
    fs::create_dir(&files).expect("our own directory");
    steps::write_files(&files);
    let place = |address: String, data: &Path| Place {
        address,
        data: data.to_str().expect("a readable path").to_owned(),
        files: files.to_str().expect("a readable path").to_owned(),
    };
    let places = [place(theirs.bootstrap(), &theirs.data()), place(ours.bootstrap(), &ours.data())];
    let mut pair = Pair { theirs: Side::start(&java, &places[0]), ours: Side::start(&java, &places[1]) };
    let results: Vec<Compared> = steps.iter().map(|step| pair.compare(step)).collect();
    let table = compare::table(&steps, &results);
    println!("{table}");
    let keep = |name: &str, text: &str| {
        fs::write(workspace().join("target").join(name), text).expect("the target folder can be written");
    };
    keep("tools-apache-kafka.txt", &compare::transcript(&steps, results.iter().map(|both| &both.theirs)));
    keep("tools-gracchus.txt", &compare::transcript(&steps, results.iter().map(|both| &both.ours)));
    let failures: Vec<&str> =
        results.iter().flat_map(|both| &both.verdict.failures).map(String::as_str).collect();
    keep("tools-differences.txt", &failures.join("\n"));
    assert!(failures.is_empty(), "{} differences:\n{}", failures.len(), failures.join("\n"));
    ours.assert_no_panic();
    page::keep("tests/COMPATIBILITY.md", "tools", &table, &[], "cargo test -p gracchus-tests --test tools");
}

/// One of the brokers and a machine with the tools for it.
struct Side<'a> {
    place: &'a Place,
    tools: Tools,
}

impl<'a> Side<'a> {
    fn start(java: &Java, place: &'a Place) -> Self {
        Self { place, tools: Tools::start(java) }
    }

    /// What the call prints, normalised.
    fn run(&mut self, step: &Step) -> Ran {
        let begun = Instant::now();
        let ran = self.tools.run(step.tool, &step.arguments(self.place), &step.input, step.seconds);
        if begun.elapsed() > Duration::from_secs(5) {
            println!("{:?} at {}: {}", begun.elapsed(), self.place.address, step.shown());
        }
        normal::normal(ran, self.place, step.figures)
    }
}

struct Pair<'a> {
    theirs: Side<'a>,
    ours: Side<'a>,
}

impl Pair<'_> {
    /// Both sides at the same time. Apache Kafka answers before its own broker knows of a change, so what only asks is
    /// asked again before it counts as different.
    fn compare(&mut self, step: &Step) -> Compared {
        let mut compared = self.once(step);
        for _ in 0..if step.only_asks() { 12 } else { 0 } {
            if compared.verdict.failures.is_empty() {
                break;
            }
            thread::sleep(Duration::from_millis(300));
            compared = self.once(step);
        }
        compared
    }

    fn once(&mut self, step: &Step) -> Compared {
        let (theirs, ours) = (&mut self.theirs, &mut self.ours);
        let (theirs, ours) = thread::scope(|scope| {
            let theirs = scope.spawn(|| theirs.run(step));
            let ours = ours.run(step);
            (theirs.join().expect("the tools run"), ours)
        });
        Compared { verdict: compare::judge(step, &theirs, &ours), theirs, ours }
    }
}
