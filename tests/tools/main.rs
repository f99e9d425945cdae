//! Kafka's own tools against our broker and against the real Apache Kafka: the same calls on both, in the same order,
//! must exit with the same code and print the same. Only what names a cluster, a place or a moment is made equal first
//! (`normal.rs`). Where ours is meant to differ, the step says so with its reason (`steps/`); any other difference
//! fails, and so does a reason that has outlived its difference.
//!
//! Prints the README's table: `cargo test -p gracchus-tests --test tools -- --nocapture`. It, what each broker made the
//! tools print, and the differences without a reason lie in `target/tools*` afterwards.
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
    peer::ApacheKafka,
    places::workspace,
    tools::{Ran, Tools},
};

use crate::{normal::Place, step::Step};

#[test]
fn the_tools_print_what_they_print_for_apache_kafka() {
    let Some(java) = Java::find("the comparison of Kafka's tools with Apache Kafka") else { return };
    let scratch = Scratch::new("tools");
    let theirs = ApacheKafka::start(&java, scratch.path(), &["eligible.leader.replicas.version=0"]);
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
    let [theirs_ran, ours_ran] = thread::scope(|scope| {
        let runs = places.each_ref().map(|place| scope.spawn(|| run_all(&java, place, &steps)));
        runs.map(|run| run.join().expect("all steps run"))
    });
    let results = compare::compare(&steps, &theirs_ran, &ours_ran);
    let table = compare::table(&steps, &results);
    println!("{table}");
    let keep = |name: &str, text: &str| {
        fs::write(workspace().join("target").join(name), text).expect("the target folder can be written");
    };
    keep("tools.md", &table);
    keep("tools-apache-kafka.txt", &compare::transcript(&steps, &theirs_ran));
    keep("tools-gracchus.txt", &compare::transcript(&steps, &ours_ran));
    let failures: Vec<&str> =
        results.iter().flat_map(|result| &result.failures).map(String::as_str).collect();
    keep("tools-differences.txt", &failures.join("\n"));
    assert!(failures.is_empty(), "{} differences:\n{}", failures.len(), failures.join("\n"));
    ours.assert_no_panic();
}

/// Every step against one broker, in order; what was printed is normalised.
fn run_all(java: &Java, place: &Place, steps: &[Step]) -> Vec<Ran> {
    let mut tools = Tools::start(java);
    let run = |step: &Step| {
        let begun = Instant::now();
        let ran = tools.run(step.tool, &step.arguments(place), &step.input, step.seconds);
        if begun.elapsed() > Duration::from_secs(5) {
            println!("{:?} at {}: {}", begun.elapsed(), place.address, step.shown());
        }
        if step.changes() {
            // Apache Kafka answers before its own broker knows of the change.
            thread::sleep(Duration::from_millis(250));
        }
        normal::normal(ran, place, step.figures)
    };
    steps.iter().map(run).collect()
}
