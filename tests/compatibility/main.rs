//! Every family of client libraries as its users use it, against one broker: an administrator, a producer with every
//! codec, a consumer with assigned partitions; each also reads what Kafka's Java client wrote, and that reads what each
//! of them wrote. What comes back must be what was sent, byte for byte, and no client may complain in its log.
//!
//! What came of it is the first table of `tests/COMPATIBILITY.md`, which it compares, or writes with `GRACCHUS_WRITE=1`.
//!
//! A family is a program with three verbs:
//! - `admin BOOTSTRAP TOPIC` does and prints what [`ADMIN`] says: how many brokers there are; creates TOPIC with three
//!   partitions, and again, and prints the error's code; their number, before and after it makes them five;
//!   `retention.ms` as it is, set, and given up again; the earliest and latest offset of partition 0 with ten records, the
//!   first offset at a time, both again when four records are deleted; and deletes the topic.
//! - `produce BOOTSTRAP TOPIC CODEC FILE` sends record n of FILE to partition n % 3, acks=all, idempotent, and checks
//!   that offsets have no gap.
//! - `consume BOOTSTRAP FOLDER TOPIC/PARTITION/COUNT...` writes what these partitions hold to FOLDER/TOPIC-PARTITION.
//!
//! Records are lines of hexadecimal text: key, value, headers (name=value), separated by tabs; `null` is no bytes at all.
#![allow(
    clippy::disallowed_methods,
    clippy::print_stdout,
    reason = "a test works with real files and processes"
)]

mod families;
mod kcat;
mod librdkafka;
mod records;

use std::{fmt::Write as _, fs, path::Path, time::Instant};

use gracchus_tests::{Broker, Options, Scratch, page, places::workspace};

use crate::{
    families::{Family, families},
    records::{PARTITIONS, Records},
};

/// What `admin` prints.
const ADMIN: &str = "brokers 1
created again 36
partitions 3
partitions 5
retention 604800000
retention 3600000
retention 604800000
offsets 0..10
offset by time 6
offsets 4..10
deleted true
";

pub(crate) const CODECS: [&str; 5] = ["none", "gzip", "snappy", "lz4", "zstd"];

/// What the families do it with.
struct Bench {
    broker: Broker,
    scratch: Scratch,
    all: Records,
    plain: Records,
}

/// What a family could do, or the complaint.
#[derive(Debug)]
struct Row {
    name: &'static str,
    client: String,
    version: String,
    results: Vec<Result<String, String>>,
}

#[test]
fn every_client_family_works() {
    let scratch = Scratch::new("compatibility");
    let broker = Broker::start(scratch.path(), Options::default());
    let all = Records::new(&scratch.path().join("all"), false);
    let plain = Records::new(&scratch.path().join("plain"), true);
    let bench = Bench { broker, scratch, all, plain };
    let only = std::env::var("GRACCHUS_FAMILY").ok();
    let families: Vec<Family> = families()
        .into_iter()
        .filter(|family| only.as_ref().is_none_or(|only| family.name == only))
        .collect();
    // The Java client first: it writes what all others read.
    let shared = families.iter().find(|family| family.name == "java").map(|java| bench.share(java));
    let mut rows: Vec<Row> = families.iter().map(|family| bench.row(family, shared.is_some())).collect();
    rows.extend(kcat::row(&bench));
    let table = table(&rows);
    println!("{table}");
    bench.broker.assert_no_panic();
    let complaints: Vec<String> = rows
        .iter()
        .flat_map(|row| row.results.iter().map(move |result| (row, result)))
        .filter_map(|(row, result)| {
            result.as_ref().err().map(|complaint| format!("{}: {complaint}", row.client))
        })
        .collect();
    assert!(complaints.is_empty(), "{}", complaints.join("\n"));
    if only.is_some() {
        return;
    }
    // kcat comes with the system, in whatever version that has.
    let loose = [("kcat", 3)];
    let command = "cargo test -p gracchus-tests --test compatibility";
    page::keep("tests/COMPATIBILITY.md", "families", &table, &loose, command);
}

impl Bench {
    /// Topics that the Java client fills, for everybody to read.
    fn share(&self, java: &Family) {
        self.fill("shared", java, &self.plain).expect("the Java client writes");
    }

    fn row(&self, family: &Family, shared: bool) -> Row {
        let begun = Instant::now();
        let results = vec![
            self.admin(family),
            self.producer(family),
            self.consumer(family, shared),
            self.read_by_others(family),
        ];
        println!("{}: {:?}", family.name, begun.elapsed());
        Row { name: family.name, client: family.client.clone(), version: family.version.clone(), results }
    }

    fn admin(&self, family: &Family) -> Result<String, String> {
        let printed = family.admin(&self.broker.bootstrap(), &format!("{}-admin", family.name))?;
        if printed == ADMIN {
            Ok("yes".into())
        } else {
            Err(format!("admin printed\n{printed}instead of\n{ADMIN}"))
        }
    }

    fn producer(&self, family: &Family) -> Result<String, String> {
        self.fill(family.name, family, self.records(family)).map(|()| "yes".into())
    }

    /// A topic for each codec, written by `family`.
    fn fill(&self, prefix: &str, family: &Family, records: &Records) -> Result<(), String> {
        let topics: Vec<(String, &str)> = CODECS.map(|codec| (format!("{prefix}-{codec}"), codec)).to_vec();
        for (topic, _) in &topics {
            let mut client = self.broker.connect();
            client.create_topic(topic, PARTITIONS, &[]).map_err(|error| error.to_string())?;
        }
        family.produce(&self.broker.bootstrap(), &records.file, &topics)
    }

    /// Its own records, and the Java client's.
    fn consumer(&self, family: &Family, shared: bool) -> Result<String, String> {
        let own: Vec<String> = CODECS.iter().map(|codec| format!("{}-{codec}", family.name)).collect();
        self.read(family, &own, self.records(family))?;
        if shared {
            let shared: Vec<String> = CODECS.iter().map(|codec| format!("shared-{codec}")).collect();
            self.read(family, &shared, &self.plain)?;
        }
        Ok("yes".into())
    }

    /// Its records with every codec, read by librdkafka, which checks every CRC.
    fn read_by_others(&self, family: &Family) -> Result<String, String> {
        let own: Vec<String> = CODECS.iter().map(|codec| format!("{}-{codec}", family.name)).collect();
        self.read(&families::librdkafka(), &own, self.records(family))?;
        Ok(CODECS.join(", "))
    }

    fn records(&self, family: &Family) -> &Records {
        if family.plain { &self.plain } else { &self.all }
    }

    fn read(&self, family: &Family, topics: &[String], expected: &Records) -> Result<(), String> {
        let folder = self.scratch.path().join("back");
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir(&folder).map_err(|error| error.to_string())?;
        let partitions = |topic: &String| {
            let wanted =
                (0..PARTITIONS).map(|partition| (topic.clone(), partition, expected.count(partition)));
            wanted.collect::<Vec<_>>()
        };
        let wanted: Vec<(String, i32, usize)> = topics.iter().flat_map(partitions).collect();
        family.consume(&self.broker.bootstrap(), &folder, &wanted)?;
        wanted.iter().try_for_each(|(topic, partition, _)| expected.compare(&folder, topic, *partition))
    }
}

fn table(rows: &[Row]) -> String {
    let mut table = "| family | client | version | admin | producer | consumer | codecs |\n".to_owned();
    table.push_str("|---|---|---|---|---|---|---|\n");
    for row in rows {
        let cells = row.results.iter().map(|result| result.as_deref().unwrap_or("**fails**"));
        let cells: Vec<&str> = cells.collect();
        let _ =
            writeln!(table, "| {} | {} | {} | {} |", row.name, row.client, row.version, cells.join(" | "));
    }
    table
}

/// The first line of a text, shortened, for messages.
pub(crate) fn brief(text: &str) -> String {
    text.lines().next().unwrap_or_default().chars().take(160).collect()
}

/// The file that names a version, below `tests/`.
pub(crate) fn pinned(file: &str) -> String {
    fs::read_to_string(workspace().join("tests").join(Path::new(file))).expect("a file of this project")
}
