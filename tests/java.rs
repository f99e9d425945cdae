//! Kafka's own Java client and tools as they are: what the client sends comes back, the tools make topics, read and
//! write, and the log dumper finds in a directory that has seen kills exactly what clients were told.
#![allow(clippy::disallowed_methods, clippy::print_stdout, reason = "a test works with real files")]

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use gracchus_tests::{
    Broker, Options, Scratch, client,
    java::{Java, expect_success},
    places::real_texts,
};
use kafka_protocol::records::Record;
use rustix::process::Signal;

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The lines that `RoundTrip.java` reads and prints.
fn round_trip_lines() -> Vec<String> {
    let mut lines = Vec::new();
    for (name, contents) in real_texts().into_iter().take(12) {
        for (number, line) in contents.split(|&byte| byte == b'\n').enumerate() {
            let key =
                if number % 3 == 0 { "null".to_owned() } else { hex(format!("{name}:{number}").as_bytes()) };
            let value = if number % 11 == 5 { "null".to_owned() } else { hex(line) };
            let mut fields = vec![key, value];
            for index in 0..number % 4 {
                let value = if index == 1 { "null".to_owned() } else { hex(number.to_string().as_bytes()) };
                fields.push(format!("{}={value}", hex(format!("line-{}", index % 2).as_bytes())));
            }
            lines.push(fields.join("\t"));
        }
    }
    lines
}

#[test]
fn the_java_client_gets_back_what_it_sent() {
    let Some(java) = Java::find("Kafka's Java client") else { return };
    let scratch = Scratch::new("java-client");
    let broker = Broker::start(scratch.path(), Options::default());
    let lines = round_trip_lines();
    let file = scratch.path().join("records");
    fs::write(&file, lines.join("\n")).expect("writes");
    for codec in ["none", "gzip", "snappy", "lz4", "zstd"] {
        let topic = format!("java-{codec}");
        let arguments = [broker.bootstrap(), topic, codec.to_owned(), file.display().to_string()];
        let output = expect_success(codec, &java.program("RoundTrip.java", &arguments));
        let back: Vec<&str> = output.lines().collect();
        assert_eq!(back.len(), lines.len(), "{codec}");
        for (number, (back, sent)) in back.iter().zip(&lines).enumerate() {
            assert_eq!(back, sent, "{codec}: record {number}");
        }
    }
    broker.assert_no_panic();
}

#[test]
fn the_java_tools_work() {
    let Some(java) = Java::find("Kafka's Java tools") else { return };
    let scratch = Scratch::new("java-tools");
    let broker = Broker::start(scratch.path(), Options::default());
    let bootstrap = broker.bootstrap();
    let tool = |name: &str, rest: &[&str], input: &[u8]| {
        let arguments: Vec<&str> =
            ["--bootstrap-server", &bootstrap].into_iter().chain(rest.iter().copied()).collect();
        expect_success(name, &java.tool_with_input(name, &arguments, input))
    };
    let versions = tool("broker-api-versions", &[], b"");
    assert!(versions.contains("Produce(0): ") && versions.contains("ApiVersions(18): "), "{versions}");
    let create = ["--create", "--topic", "tools", "--partitions", "3", "--config", "segment.bytes=1048576"];
    assert!(tool("topics", &create, b"").contains("Created topic tools."));
    assert!(tool("topics", &["--describe"], b"").contains("PartitionCount: 3"));
    assert_eq!(tool("topics", &["--list"], b"").lines().collect::<Vec<_>>(), ["tools"]);
    let text = String::from_utf8(real_texts().remove(0).1).expect("text");
    let lines: Vec<&str> = text.lines().filter(|line| !line.is_empty()).collect();
    // Keys would choose partitions: without them a batch goes where the producer likes.
    let input = lines.join("\n") + "\n";
    let produce = ["--topic", "tools", "--command-property", "acks=all", "--compression-codec", "zstd"];
    tool("console-producer", &produce, input.as_bytes());
    let mut back: Vec<String> = Vec::new();
    for (partition, count) in ends(&tool("get-offsets", &["--topic", "tools"], b"")).into_iter().enumerate() {
        if count == 0 {
            continue;
        }
        let (partition, count) = (partition.to_string(), count.to_string());
        let consume =
            ["--topic", "tools", "--partition", &partition, "--offset", "earliest", "--max-messages", &count];
        let consume = [&consume[..], &["--command-property", "enable.auto.commit=false"]].concat();
        back.extend(tool("console-consumer", &consume, b"").lines().map(str::to_owned));
    }
    let sorted = |mut lines: Vec<String>| {
        lines.sort();
        lines
    };
    assert_eq!(sorted(back), sorted(lines.iter().map(|line| (*line).to_owned()).collect()));
    broker.assert_no_panic();
}

/// The third field of `topic:partition:offset`, by partition.
fn ends(output: &str) -> Vec<i64> {
    let lines = output.lines().filter(|line| line.starts_with("tools:"));
    lines.map(|line| line.rsplit(':').next().and_then(|end| end.parse().ok()).expect("an offset")).collect()
}

/// One batch as the log dumper prints it.
#[derive(Debug)]
struct DumpedBatch {
    base: i64,
    last: i64,
    position: i64,
    fields: BTreeMap<String, String>,
}

#[test]
fn the_log_dumper_agrees_with_the_clients() {
    let Some(java) = Java::find("Kafka's DumpLogSegments") else { return };
    let scratch = Scratch::new("java-dump");
    let mut broker = Broker::start(scratch.path(), Options::default());
    let configs = [("segment.bytes", "131072"), ("index.interval.bytes", "512")];
    broker.connect().create_topic("dumped", 2, &configs).expect("creates");
    let file = scratch.path().join("records");
    fs::write(&file, round_trip_lines().join("\n")).expect("writes");
    for round in 0..4 {
        let mut client = broker.connect();
        client.wait_for_leaders("dumped", 2).expect("leads");
        for number in 0..400 {
            let text =
                |part: i32| format!("round {round} record {number}.{part} {}", "d".repeat(number as usize));
            let values: Vec<String> = (0..number % 5 + 1).map(text).collect();
            client.produce("dumped", number % 2, client::batch(&values)).expect("produces");
        }
        // Batches with producer ids, from a client that knows how.
        let arguments =
            [broker.bootstrap(), format!("java-{round}"), "lz4".into(), file.display().to_string()];
        expect_success("RoundTrip", &java.program("RoundTrip.java", &arguments));
        broker.kill();
        broker.start_again();
    }
    let mut client = broker.connect();
    client.wait_for_leaders("dumped", 2).expect("leads");
    let expected: Vec<Vec<Record>> =
        (0..2).map(|partition| client.read_partition("dumped", partition).expect("reads")).collect();
    for round in 0..4 {
        // Logs open when somebody asks for them, and only an open one has something to write at the stop.
        client.fetch(&format!("java-{round}"), 0, 0, 1_000).expect("reads");
    }
    // A clean stop writes indexes and snapshots whole; what the dumper sees has still been through four kills.
    assert!(broker.stop(Signal::TERM).success());
    for (partition, expected) in expected.iter().enumerate() {
        let directory = broker.data().join(format!("dumped-{partition}"));
        let batches = check_logs(&java, &directory, expected);
        check_indexes(&java, &directory, &batches);
    }
    let partitions: Vec<PathBuf> =
        (0..4).map(|round| broker.data().join(format!("java-{round}-0"))).collect();
    check_snapshots(&java, &partitions);
    broker.assert_no_panic();
}

fn files(directory: &Path, extension: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).unwrap_or_else(|error| panic!("{}: {error}", directory.display()));
    let mut files: Vec<PathBuf> = entries
        .map(|entry| entry.expect("readable").path())
        .filter(|path| path.extension().is_some_and(|found| found == extension))
        .collect();
    files.sort();
    files
}

/// What the dumper says of each file. One run for all: starting Java costs more than dumping.
fn dump(java: &Java, files: &[PathBuf], options: &[&str]) -> BTreeMap<String, String> {
    let names: Vec<String> = files.iter().map(|file| file.display().to_string()).collect();
    let names = names.join(",");
    let arguments: Vec<&str> = ["--files", &names].into_iter().chain(options.iter().copied()).collect();
    let output = expect_success("dump-log", &java.tool("dump-log", &arguments));
    for word in ["Exception", "ismatch", "out of order", "Found "] {
        assert!(!output.contains(word), "the dumper complains ({word}):\n{output}");
    }
    let parts = output
        .split("Dumping ")
        .skip(1)
        .map(|part| part.split_once('\n').expect("a line with the file's name"));
    let parts: BTreeMap<String, String> =
        parts.map(|(name, part)| (name.trim().to_owned(), part.to_owned())).collect();
    assert_eq!(parts.len(), files.len(), "every file is dumped:\n{output}");
    parts
}

/// `name: value` pairs of a line, as the dumper separates them.
fn fields(line: &str) -> BTreeMap<String, String> {
    let words: Vec<&str> = line.split(' ').collect();
    let pairs = words.windows(2).filter(|pair| pair[0].ends_with(':'));
    pairs.map(|pair| (pair[0].trim_end_matches(':').to_owned(), pair[1].to_owned())).collect()
}

fn number(fields: &BTreeMap<String, String>, name: &str) -> i64 {
    let value = fields.get(name).unwrap_or_else(|| panic!("no {name} in {fields:?}"));
    value.parse().unwrap_or_else(|_| panic!("{name} is {value}"))
}

/// Every record of every segment against what a consumer was given. Returns the batches by segment.
fn check_logs(java: &Java, directory: &Path, expected: &[Record]) -> BTreeMap<String, Vec<DumpedBatch>> {
    let logs = files(directory, "log");
    assert!(logs.len() >= 2, "{} has rolled: {logs:?}", directory.display());
    let mut segments = BTreeMap::new();
    let mut records = BTreeMap::new();
    for (log, output) in dump(java, &logs, &["--deep-iteration", "--print-data-log"]) {
        let log = Path::new(&log);
        let mut batches: Vec<DumpedBatch> = Vec::new();
        for line in output.lines() {
            if let Some(record) = line.strip_prefix("| ") {
                let record_fields = fields(record);
                let payload = record.split_once("payload: ").map(|(_, payload)| payload.to_owned());
                let known = records.insert(number(&record_fields, "offset"), payload.expect("a payload"));
                assert_eq!(known, None, "an offset occurs once: {line}");
            } else if line.starts_with("baseOffset: ") {
                let fields = fields(line);
                assert_eq!(fields.get("isvalid").map(String::as_str), Some("true"), "{line}");
                assert_eq!(fields.get("magic").map(String::as_str), Some("2"), "{line}");
                let batch = DumpedBatch {
                    base: number(&fields, "baseOffset"),
                    last: number(&fields, "lastOffset"),
                    position: number(&fields, "position"),
                    fields,
                };
                assert_eq!(number(&batch.fields, "count"), batch.last - batch.base + 1, "{line}");
                batches.push(batch);
            }
        }
        let size: i64 = batches.iter().map(|batch| number(&batch.fields, "size")).sum();
        let length = fs::metadata(log).expect("exists").len() as i64;
        assert_eq!(size, length, "{} holds whole batches and nothing else", log.display());
        let stem = log.file_stem().expect("a name").to_string_lossy().into_owned();
        if let Some(first) = batches.first() {
            assert_eq!(stem, format!("{:020}", first.base), "a segment is named after its first offset");
        }
        segments.insert(stem, batches);
    }
    let all: Vec<&DumpedBatch> = segments.values().flatten().collect();
    assert!(
        all.windows(2).all(|pair| pair[1].base == pair[0].last + 1),
        "batches follow each other without a gap"
    );
    assert_eq!(records.len(), expected.len(), "{}: number of records", directory.display());
    for record in expected {
        let value = String::from_utf8(record.value.clone().expect("a value").to_vec()).expect("text");
        assert_eq!(records.get(&record.offset), Some(&value), "{} at {}", directory.display(), record.offset);
    }
    println!(
        "{}: {} segments, {} batches, {} records",
        directory.display(),
        logs.len(),
        all.len(),
        records.len()
    );
    segments
}

/// Every index entry points at the start of the batch that holds its offset; every time index entry names an offset
/// that is there, with rising times.
fn check_indexes(java: &Java, directory: &Path, segments: &BTreeMap<String, Vec<DumpedBatch>>) {
    let mut entries = 0;
    let name = |stem: &str, extension: &str| directory.join(format!("{stem}.{extension}"));
    let files =
        segments.keys().flat_map(|stem| [name(stem, "index"), name(stem, "timeindex")]).collect::<Vec<_>>();
    let dumped = dump(java, &files, &[]);
    let dumped = |stem: &str, extension: &str| &dumped[&name(stem, extension).display().to_string()];
    for (stem, batches) in segments {
        let output = dumped(stem, "index");
        let positions: BTreeMap<i64, &DumpedBatch> =
            batches.iter().map(|batch| (batch.position, batch)).collect();
        for line in output.lines().filter(|line| line.starts_with("offset: ")) {
            let entry = fields(line);
            let (offset, position) = (number(&entry, "offset"), number(&entry, "position"));
            // A file that was never filled reads as one zero entry.
            if (offset, position) == (stem.parse().expect("a number"), 0) {
                continue;
            }
            let batch = positions.get(&position).unwrap_or_else(|| panic!("{stem}: no batch at {position}"));
            assert!((batch.base..=batch.last).contains(&offset), "{stem}: {line} points at {batch:?}");
            entries += 1;
        }
        let output = dumped(stem, "timeindex");
        let offsets: BTreeSet<i64> = batches.iter().flat_map(|batch| batch.base..=batch.last).collect();
        let mut previous = -1;
        for line in output.lines().filter(|line| line.starts_with("timestamp: ")) {
            let entry = fields(line);
            let (timestamp, offset) = (number(&entry, "timestamp"), number(&entry, "offset"));
            if timestamp == 0 {
                continue;
            }
            assert!(offsets.contains(&offset), "{stem}: {line} is not in the segment");
            assert!(timestamp >= previous, "{stem}: {line} goes back in time");
            previous = timestamp;
        }
    }
    assert!(entries > 100, "only {entries} index entries were compared");
}

/// The newest producer snapshot of a partition that one idempotent Java producer wrote holds that producer's last batch.
fn check_snapshots(java: &Java, partitions: &[PathBuf]) {
    let newest = |directory: &PathBuf, extension| {
        files(directory, extension)
            .pop()
            .unwrap_or_else(|| panic!("no {extension} file in {}", directory.display()))
    };
    let logs: Vec<PathBuf> = partitions.iter().map(|directory| newest(directory, "log")).collect();
    let snapshots: Vec<PathBuf> = partitions.iter().map(|directory| newest(directory, "snapshot")).collect();
    let (dumped_logs, dumped) = (dump(java, &logs, &["--deep-iteration"]), dump(java, &snapshots, &[]));
    for (log, snapshot) in logs.iter().zip(&snapshots) {
        let output = &dumped_logs[&log.display().to_string()];
        let last =
            output.lines().rfind(|line| line.starts_with("baseOffset: ")).map(fields).expect("batches");
        let stem: i64 = snapshot.file_stem().and_then(|stem| stem.to_str()?.parse().ok()).expect("an offset");
        assert_eq!(
            stem,
            number(&last, "lastOffset") + 1,
            "the snapshot of a clean stop is at the end of the log"
        );
        let output = &dumped[&snapshot.display().to_string()];
        let producers: Vec<_> = output.lines().filter(|line| line.contains("producerId: ")).collect();
        assert_eq!(producers.len(), 1, "{output}");
        let line = format!("{} ", producers[0].replace(',', " "));
        for (name, field) in [
            ("producerId", "producerId"),
            ("producerEpoch", "producerEpoch"),
            ("astSequence", "lastSequence"),
        ] {
            let value = number(&last, field);
            assert!(line.contains(&format!("{name}: {value} ")), "{field} is {value}: {line}");
        }
    }
}
