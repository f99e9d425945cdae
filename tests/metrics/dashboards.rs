//! Whether public dashboards for Kafka find here what they ask for.
//!
//! `tests/dashboards/` has one file per dashboard: the metrics that it queries, with the labels that it selects or groups
//! by. A broker with some work behind it is asked for each. What it does not have must say why, and what says so must not
//! be there. The result is `tests/DASHBOARDS.md`, written anew by
//!
//!     GRACCHUS_WRITE=1 cargo test -p gracchus-tests --test metrics dashboards
//!
//! and compared by every other run. Never: a metric taken for served because its name is.

use std::{collections::BTreeMap, fmt::Write as _, fs};

use gracchus_tests::{Options, Scratch, client, places::workspace};
use serde::Deserialize;

use super::{create, get, start};

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Dashboard {
    name: String,
    source: String,
    query: Vec<Query>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Query {
    panel: String,
    metric: String,
    /// `label`, or `label=value`.
    #[serde(default)]
    labels: Vec<String>,
    /// Why it is not served yet.
    missing: Option<String>,
    /// Why it never will be.
    meaningless: Option<String>,
}

type Labels = BTreeMap<String, String>;

/// All samples by metric.
fn samples(text: &str) -> BTreeMap<String, Vec<Labels>> {
    let mut samples: BTreeMap<String, Vec<Labels>> = BTreeMap::new();
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let (key, _) = line.rsplit_once(' ').expect("a value");
        let (name, labels) = key.split_once('{').unwrap_or((key, "}"));
        let labels = labels.strip_suffix('}').expect("closed");
        let labels = labels.split(',').filter(|label| !label.is_empty()).map(|label| {
            let (name, value) = label.split_once('=').expect("a label");
            (name.to_owned(), value.trim_matches('"').to_owned())
        });
        samples.entry(name.to_owned()).or_default().push(labels.collect());
    }
    samples
}

fn is_served(query: &Query, samples: &BTreeMap<String, Vec<Labels>>) -> bool {
    let fits = |labels: &Labels| {
        query.labels.iter().all(|wanted| match wanted.split_once('=') {
            Some((label, value)) => labels.get(label).is_some_and(|has| has == value),
            None => labels.contains_key(wanted),
        })
    };
    samples.get(&query.metric).is_some_and(|samples| samples.iter().any(fits))
}

fn dashboards() -> Vec<Dashboard> {
    let folder = fs::read_dir(workspace().join("tests/dashboards")).expect("the folder is there");
    let mut files: Vec<_> = folder.map(|entry| entry.expect("readable").path()).collect();
    files.sort();
    let read = |path| toml::from_str(&fs::read_to_string(path).expect("readable"));
    files
        .iter()
        .map(|path| read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display())))
        .collect()
}

#[test]
fn dashboards_find_what_they_ask_for() {
    let scratch = Scratch::new("dashboards");
    let (broker, address) = start(&scratch, Options::default());
    create(&broker, "shown", 2);
    let mut client = broker.connect();
    for value in 0..10u32 {
        client.produce("shown", 1, client::batch(&[value.to_be_bytes()])).expect("an acknowledgement");
    }
    client.read_partition("shown", 1).expect("it reads");
    client.produce("nowhere", 7, client::batch(&[b"x"])).expect_err("there is no such partition");
    let samples = samples(&get(address, "/metrics").1);
    let mut table = "# What public dashboards find here\n\nMade by `GRACCHUS_WRITE=1 cargo test -p gracchus-tests \
                     --test metrics dashboards`: what each dashboard in `tests/dashboards/` asks for is looked for in \
                     the metrics of a running broker. Labels that Prometheus adds itself (job, instance, \u{2026}) are \
                     left out.\n"
        .to_owned();
    let mut wrong = Vec::new();
    for Dashboard { name, source, query } in dashboards() {
        let (mut rows, mut counts) = (String::new(), BTreeMap::<&str, usize>::new());
        for query in &query {
            let served = is_served(query, &samples);
            let (here, why) = match (served, &query.missing, &query.meaningless) {
                (true, None, None) => ("served", String::new()),
                (false, Some(why), None) => ("missing", format!(": {why}")),
                (false, None, Some(why)) => ("meaningless", format!(": {why}")),
                (true, ..) => {
                    wrong.push(format!("{name}: {query:?} is served, and says that it is not"));
                    continue;
                }
                (false, ..) => {
                    wrong.push(format!("{name}: {query:?} is not served, and does not say why"));
                    continue;
                }
            };
            *counts.entry(here).or_default() += 1;
            let labels = query.labels.join(", ");
            let Query { panel, metric, .. } = query;
            writeln!(rows, "| {panel} | `{metric}` | {labels} | {here}{why} |").expect("memory");
        }
        let counts: Vec<_> = counts.iter().rev().map(|(here, count)| format!("{count} {here}")).collect();
        writeln!(
            table,
            "\n## {name}\n\n{source}. {}.\n\n| panel | metric | labels | here |\n|---|---|---|---|\n{}",
            counts.join(", "),
            rows.trim_end()
        )
        .expect("memory");
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    let page = workspace().join("tests/DASHBOARDS.md");
    if std::env::var_os("GRACCHUS_WRITE").is_some() {
        fs::write(&page, &table).expect("it can be written");
    }
    let known = fs::read_to_string(&page).unwrap_or_default();
    assert!(known == table, "tests/DASHBOARDS.md is not what is so now: write it with GRACCHUS_WRITE=1");
}
