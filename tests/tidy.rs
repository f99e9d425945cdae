//! What the compiler does not check: who may use whom, where locks are, which calls go round the seam, what the pages
//! name. A rule that is broken names the line; a list here that is longer than the truth fails too.
#![allow(clippy::disallowed_methods, reason = "a test reads the sources")]

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use gracchus_tests::places::{SHIPPED, rust_files, workspace};
use regex_lite::Regex;

/// Files of shipped code that hold a lock, an atomic or another cell that threads share, and why that guards no protocol
/// state. Everything else is owned by one task.
const LOCKS: &[(&str, &str)] = &[
    (
        "broker/core/src/record/decompress.rs",
        "a decoder of each thread, which knows nothing of what it was used for",
    ),
    ("broker/core/src/record/fields.rs", "a buffer of each thread, which nobody reads before it is written"),
    ("broker/env/src/contract/tasks.rs", "a check notices that a future was dropped"),
    ("broker/env/src/net.rs", "counts what was sent, for who watches the connection"),
    ("broker/env/src/tokio/disk.rs", "whether a background write-back is queued already"),
    (
        "broker/env/src/tokio/io_threads.rs",
        "the queue between runtime and I/O threads; how long each has worked, for the metrics",
    ),
    ("broker/env/src/tokio/net.rs", "counts what was sent, for who watches the connection"),
    (
        "broker/env/src/tokio/syncs.rs",
        "the handles of a file that no sync uses, and how the first failed one ended",
    ),
    ("broker/src/api/context.rs", "the name of the client's software, set once per connection"),
    ("broker/src/api/services.rs", "fetch sessions: one short step without an await, nothing published"),
    ("broker/common/src/complaints.rs", "how often a complaint was made lately"),
    ("broker/src/config/kafka.rs", "the list of Kafka's keys, read once and never changed"),
    ("broker/quorum/src/producer_ids.rs", "that it stops, before its task has ended"),
    ("broker/quorum/src/runtime.rs", "makes openraft's timers Sync; each has one user"),
    ("broker/quorum/src/state_machine.rs", "publishes the image, an immutable snapshot"),
    ("broker/quorum/src/store.rs", "publishes the raft log's entries, an immutable map, to its readers"),
    ("broker/log/src/checkpoint.rs", "what the next checkpoint of a directory will say"),
    (
        "broker/log/src/directory/mod.rs",
        "the summary of the last clean stop and what the replay wrote, taken entry by entry; the lock file",
    ),
    ("broker/log/src/files.rs", "the bounded cache of open handles"),
    ("broker/common/src/handles.rs", "until when anybody waits for file handles: set once, by a stop"),
    ("broker/log/src/segment.rs", "whether an index was found bad, which any reader may find"),
    ("broker/src/logging.rs", "which loggers were set, for who asks"),
    ("broker/src/counters/requests.rs", "counters by API, made when it is first asked for"),
    ("broker/common/src/cells.rs", "counters for the metrics, which nothing else reads"),
    ("broker/src/metrics/recent.rs", "samples of counters, for who asks"),
    ("broker/src/counters/topics.rs", "the registry of the counters of topics"),
    ("broker/src/replica/configuration.rs", "publishes the configuration, an immutable snapshot"),
    ("broker/src/replica/manager.rs", "the tasks that follow metadata and directories, until the stop"),
    ("broker/src/replica/registry.rs", "the map from partition to its owner's queue"),
    ("broker/src/replica/purgatory.rs", "who waits; woken under it, decided elsewhere"),
    ("broker/src/server/budget.rs", "counts who waits for memory, for the log"),
    ("broker/src/server/buffers.rs", "the pool of recycled receive buffers"),
    ("broker/src/server/lane.rs", "how much request memory is free, and who waits for it in which order"),
    ("broker/src/server/listener.rs", "numbers connections"),
    ("broker/src/server/mod.rs", "numbers connections"),
    ("broker/src/server/slots.rs", "how many connections there are, by address"),
    ("broker/src/server/watch.rs", "when a connection last did something, for its idle timeout"),
];

const LOCK_WORDS: &[&str] = &[
    "Mutex",
    "RwLock",
    "Condvar",
    "ArcSwap",
    "OnceLock",
    "OnceCell",
    "LazyLock",
    "RefCell",
    "AtomicBool",
    "AtomicU8",
    "AtomicU32",
    "AtomicU64",
    "AtomicUsize",
    "AtomicI32",
    "AtomicI64",
    "thread_local!",
    "static mut",
];

/// Calls that go round the seam. The lints of clippy.toml know the most usual ones by their full path; this list also
/// finds whole modules.
const AROUND_THE_SEAM: &[&str] = &[
    "std::fs::",
    "std::net::Tcp",
    "std::net::Udp",
    "std::thread",
    "std::time::Instant",
    "SystemTime",
    "std::process",
    "tokio::time",
    "tokio::net",
    "tokio::fs",
    "tokio::process",
    "tokio::spawn",
    "tokio::task::",
    "tokio::runtime",
    "Runtime::new",
    "Instant::now()",
    "Uuid::new_v4",
    "Uuid::now_v7",
    "rand::",
    "getrandom",
    "RandomState",
];

/// Files that may, and why.
const MAY_GO_ROUND: &[(&str, &str)] = &[
    ("broker/env/src/tokio/", "the production Env is where the real calls live"),
    (
        "broker/src/main.rs",
        "the program makes the Env, waits for signals and reads the configuration before there is one",
    ),
    (
        "broker/src/process.rs",
        "a part of the program: asks the system what this process uses, for the metrics",
    ),
    ("broker/src/report.rs", "a part of the program: last words go past the log"),
    ("broker/src/signals.rs", "a part of the program: asks the system whether a signal is ignored"),
    ("broker/src/cli.rs", "reads the configuration file before there is an Env"),
];

/// The lines of a file that are code and ship: no comments, nothing behind `#[cfg(test)]` at its end.
fn shipped_lines(path: &Path) -> Vec<(usize, String)> {
    let text = fs::read_to_string(path).expect("a source file");
    let mut lines = Vec::new();
    let mut test_next = false;
    for (index, line) in text.lines().enumerate() {
        let code = line.trim_start();
        if test_next && code.contains("mod ") && code.ends_with('{') {
            break;
        }
        test_next = code.starts_with("#[cfg(test)]") || (test_next && code.starts_with("#["));
        if !code.starts_with("//") {
            lines.push((index + 1, line.to_owned()));
        }
    }
    lines
}

fn sources(folders: &[&str]) -> Vec<(String, PathBuf)> {
    let mut files = Vec::new();
    folders.iter().for_each(|folder| rust_files(&workspace().join(folder), &mut files));
    assert!(!files.is_empty());
    files.into_iter().map(|path| (relative(&path), path)).collect()
}

/// Without modules that exist for tests only.
fn shipped() -> Vec<(String, PathBuf)> {
    let all = sources(&SHIPPED);
    let tests: BTreeSet<PathBuf> = all.iter().flat_map(|(_, path)| test_modules(path)).collect();
    let is_test = |path: &Path| path.ancestors().any(|place| tests.contains(&place.with_extension("")));
    all.into_iter().filter(|(_, path)| !is_test(path)).collect()
}

/// Where the modules live that `path` declares for tests only, without `.rs`.
fn test_modules(path: &Path) -> Vec<PathBuf> {
    let text = fs::read_to_string(path).expect("a source file");
    let is_root = ["mod.rs", "lib.rs", "main.rs"].iter().any(|root| path.ends_with(root));
    let home = if is_root { path.parent().expect("a folder").to_owned() } else { path.with_extension("") };
    let mut modules = Vec::new();
    let mut test_next = false;
    for line in text.lines().map(str::trim) {
        let declared = line.split_once("mod ").and_then(|(_, name)| name.strip_suffix(';'));
        if let (true, Some(name)) = (test_next, declared) {
            modules.push(home.join(name));
        }
        test_next = line.starts_with("#[cfg(test)]") || (test_next && line.starts_with("#["));
    }
    modules
}

fn relative(path: &Path) -> String {
    path.strip_prefix(workspace()).expect("inside").to_string_lossy().into_owned()
}

fn has_word(line: &str, word: &str) -> bool {
    line.match_indices(word).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        let after = line[at + word.len()..].chars().next();
        let inside = |character: Option<char>| character.is_some_and(|c| c.is_alphanumeric() || c == '_');
        let goes_on = inside(after) && word.ends_with(char::is_alphanumeric);
        !(inside(before) || goes_on)
    })
}

/// The crates of the workspace, as Cargo describes them.
fn packages() -> Vec<serde_json::Value> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let arguments = ["metadata", "--format-version", "1", "--no-deps", "--offline"];
    let output = Command::new(cargo).current_dir(workspace()).args(arguments).output().expect("cargo runs");
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout).expect("cargo speaks JSON");
    metadata["packages"].as_array().expect("packages").clone()
}

fn report(broken: Vec<String>, rule: &str) {
    assert!(broken.is_empty(), "{rule}\n{}", broken.join("\n"));
}

#[test]
fn crates_use_only_what_they_may() {
    // What may be used, and nothing else.
    let only: BTreeMap<&str, &[&str]> = BTreeMap::from([
        (
            "gracchus-core",
            &[
                "base64",
                "bytes",
                "crc32c",
                "flate2",
                "imbl",
                "kafka-protocol",
                "lz4_flex",
                "serde",
                "snap",
                "thiserror",
                "uuid",
                "zstd",
            ][..],
        ),
        ("gracchus-env", &["bytes", "futures-util", "rustix", "socket2", "tokio", "tracing"]),
        ("gracchus-common", &["gracchus-env", "tracing"]),
        (
            "gracchus-log",
            &[
                "arc-swap",
                "bytes",
                "crc32c",
                "futures-util",
                "gracchus-common",
                "gracchus-core",
                "gracchus-env",
                "imbl",
                "lru",
                "serde",
                "serde_json",
                "thiserror",
                "tokio",
                "tracing",
                "uuid",
            ],
        ),
        (
            "gracchus-quorum",
            &[
                "arc-swap",
                "bytes",
                "crc32c",
                "futures-util",
                "gracchus-common",
                "gracchus-core",
                "gracchus-env",
                "imbl",
                "openraft",
                "rand_core",
                "serde",
                "serde_json",
                "thiserror",
                "tokio",
                "tracing",
                "uuid",
            ],
        ),
        ("gracchus-memory", &["bytes", "gracchus-env", "rand_xoshiro", "tokio"]),
        ("gracchus-checker", &["serde", "serde_json", "thiserror"]),
        ("gracchus-page", &[]),
    ]);
    // What must never be used.
    let never: BTreeMap<&str, &[&str]> = BTreeMap::from([
        (
            "gracchus",
            &["madsim", "openraft", "rand", "gracchus-checker", "gracchus-workload", "gracchus-sim"][..],
        ),
        ("gracchus-workload", &["madsim", "gracchus", "gracchus-core", "gracchus-sim"]),
        ("gracchus-tests", &["madsim", "gracchus", "gracchus-core", "gracchus-sim"]),
        ("gracchus-fuzz", &["madsim", "gracchus-sim", "gracchus-checker", "gracchus-workload"]),
        ("gracchus-jepsen", &["madsim", "gracchus", "gracchus-core", "gracchus-sim"]),
        ("gracchus-sim", &[]),
    ]);
    let mut broken = Vec::new();
    for package in packages() {
        let name = package["name"].as_str().expect("a name");
        assert!(only.contains_key(name) || never.contains_key(name), "{name}: give this crate its rule");
        for dependency in package["dependencies"].as_array().expect("dependencies") {
            let used = dependency["name"].as_str().expect("a name");
            let features = dependency["features"].to_string();
            if features.contains("test-util") {
                broken.push(format!("{name}: test-util of {used} would reach the release by unification"));
            }
            // What only tests use does not ship.
            if dependency["kind"].is_null()
                && (only.get(name).is_some_and(|only| !only.contains(&used))
                    || never.get(name).is_some_and(|never| never.contains(&used)))
            {
                broken.push(format!("{name} uses {used}"));
            }
        }
    }
    report(broken, "a crate uses what it must not (see the layers in broker/ARCHITECTURE.md):");
}

/// A crate that is declared and not used is downloaded, built and looked after for nothing.
#[test]
fn every_dependency_is_used() {
    let packages = packages();
    let folder = |package: &serde_json::Value| {
        let manifest = Path::new(package["manifest_path"].as_str().expect("a path"));
        manifest.parent().expect("a folder").to_owned()
    };
    let folders: Vec<PathBuf> = packages.iter().map(folder).collect();
    let (mut broken, mut declared) = (Vec::new(), BTreeSet::new());
    for (package, home) in packages.iter().zip(&folders) {
        let mut files = Vec::new();
        rust_files(home, &mut files);
        // Not those of a crate that lies further in.
        let nearest = |file: &Path| folders.iter().filter(|folder| file.starts_with(folder)).max();
        files.retain(|file| nearest(file) == Some(home) && !file.starts_with(home.join("target")));
        let code: String = files
            .iter()
            .flat_map(|file| {
                fs::read_to_string(file)
                    .expect("a source file")
                    .lines()
                    .map(str::to_owned)
                    .collect::<Vec<_>>()
            })
            .filter(|line| !line.trim_start().starts_with("//"))
            .fold(String::new(), |code, line| code + &line + "\n");
        for dependency in package["dependencies"].as_array().expect("dependencies") {
            let name = dependency["name"].as_str().expect("a name");
            declared.insert(name.to_owned());
            let word = name.replace('-', "_");
            let used = has_word(&code, &format!("{word}::")) || has_word(&code, &format!("use {word};"));
            if !used {
                broken.push(format!("{}: {name}", package["name"].as_str().expect("a name")));
            }
        }
    }
    report(broken, "a manifest declares what no source of its crate uses:");
    let manifest = fs::read_to_string(workspace().join("Cargo.toml")).expect("the workspace's manifest");
    let section = manifest.split("[workspace.dependencies]").nth(1).expect("the section");
    let section = section.split("\n[").next().expect("its lines");
    let names = section.lines().filter_map(|line| line.split_once('=')).map(|(name, _)| name.trim());
    let idle = names.filter(|name| !declared.contains(*name)).map(str::to_owned).collect();
    report(idle, "the workspace declares what no crate asks for:");
}

/// The parts of the broker's shell, each above those before it.
const LAYERS: [&str; 12] = [
    "process", "signals", "logging", "host", "report", "counters", "config", "replica", "api", "server",
    "metrics", "broker",
];

/// The parts of its own crate that a file uses.
fn parts_used(path: &Path) -> BTreeSet<String> {
    let lines = shipped_lines(path);
    let mut text: String = lines.iter().map(|(_, line)| format!("{line} ")).collect();
    let mut used = BTreeSet::new();
    let first = |path: &str| path.trim().split([':', ' ']).next().unwrap_or_default().to_owned();
    while let Some(at) = text.find("use crate::{") {
        let list = text.split_off(at + "use crate::{".len());
        let (list, rest) = list.split_once("};").expect("an import ends");
        let mut depth = 0;
        let outer = list.chars().filter(|character| {
            depth += i32::from(*character == '{') - i32::from(*character == '}');
            depth == 0
        });
        used.extend(outer.collect::<String>().split(',').map(first));
        text = format!("{} {rest}", &text[..at]);
    }
    used.extend(regex(r"\bcrate::(\w+)").captures_iter(&text).map(|found| found[1].to_owned()));
    used
}

/// Whoever is above may use what is below and never the other way round, so there is no circle.
#[test]
fn the_shell_has_layers() {
    let place = |name: &str| LAYERS.iter().position(|layer| *layer == name);
    let (mut broken, mut seen) = (Vec::new(), 0);
    for (name, path) in shipped() {
        let Some(file) = name.strip_prefix("broker/src/") else { continue };
        let home = file.split(['/', '.']).next().expect("a part");
        // What the program itself is made of stands on top of everything.
        let Some(home) = place(home) else {
            assert!(["main", "cli", "lib"].contains(&home), "{name}: give this part its layer");
            continue;
        };
        for used in parts_used(&path) {
            let Some(below) = place(&used) else { continue };
            seen += 1;
            if below > home {
                broken.push(format!("{name}: {used}"));
            }
        }
    }
    assert!(seen >= 40, "imports are found: {seen}");
    report(broken, "a lower layer of the shell uses a higher one (their order is in this test):");
}

#[test]
fn the_core_is_pure() {
    let words = [
        "std::fs",
        "std::net",
        "std::thread",
        "std::time::Instant",
        "SystemTime",
        "tokio",
        "HashMap",
        "HashSet",
    ];
    let mut broken = Vec::new();
    for (name, path) in sources(&["broker/core/src"]) {
        for (number, line) in shipped_lines(&path) {
            if words.iter().any(|word| has_word(&line, word)) {
                broken.push(format!("{name}:{number}: {}", line.trim()));
            }
        }
    }
    report(broken, "the core knows no outside world and no order that differs from run to run:");
}

#[test]
fn locks_are_on_the_list() {
    let listed: BTreeSet<&str> = LOCKS.iter().map(|(file, _)| *file).collect();
    assert_eq!(listed.len(), LOCKS.len(), "a file is listed twice");
    let (mut found, mut broken) = (BTreeSet::new(), Vec::new());
    for (name, path) in shipped() {
        for (number, line) in shipped_lines(&path) {
            if LOCK_WORDS.iter().any(|word| has_word(&line, word)) {
                if !listed.contains(name.as_str()) {
                    broken.push(format!("{name}:{number}: {}", line.trim()));
                }
                found.insert(name.clone());
            }
        }
    }
    report(broken, "state has one owner each; a lock needs a reason in the list of this test:");
    let gone: Vec<String> =
        listed.iter().filter(|file| !found.contains(**file)).map(|file| (*file).into()).collect();
    report(gone, "these files hold no lock any more:");
}

/// One line of the list of named moments: the file that tells it, and what it may be told of.
struct Named {
    file: String,
    places: BTreeSet<String>,
}

/// The list in `broker/env/src/moments.rs`.
fn named_moments() -> BTreeMap<String, Named> {
    let text = fs::read_to_string(workspace().join("broker/env/src/moments.rs")).expect("the list");
    let entry = regex(r#"(?m)^    ([A-Z_]+) in "([^"]+)"(?: \[([^\]]*)\])?;"#);
    let quoted = regex(r#""([^"]+)""#);
    let named = entry.captures_iter(&text).map(|entry| {
        let places = entry.get(3).map_or("", |places| places.as_str());
        let places = quoted.captures_iter(places).map(|place| place[1].to_owned()).collect();
        (entry[1].to_owned(), Named { file: entry[2].to_owned(), places })
    });
    named.collect()
}

fn regex(pattern: &str) -> Regex {
    Regex::new(pattern).expect("a pattern")
}

/// A moment that nobody tells would look like one that is never reached.
#[test]
fn named_moments_are_told_where_the_list_says() {
    let named = named_moments();
    assert!(named.len() > 100, "the list is read");
    let call = regex(r"moment!\(\s*([A-Z_]+)");
    let mut told: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (name, path) in shipped() {
        for (_, line) in shipped_lines(&path) {
            let calls = call.captures_iter(&line).map(|call| call[1].to_owned());
            calls.for_each(|moment| told.entry(moment).or_default().push(name.clone()));
        }
    }
    let mut broken = Vec::new();
    for (moment, Named { file, places }) in &named {
        let files = told.get(moment).map_or(&[][..], Vec::as_slice);
        let elsewhere = files.iter().any(|name| !name.ends_with(&format!("/{file}")));
        if files.is_empty() || elsewhere || (files.len() > 1 && places.is_empty()) {
            broken.push(format!("{moment} is for {file}, and is told in {files:?}"));
        }
    }
    report(broken, "broker/env/src/moments.rs says where each moment is told, once:");
}

/// Each way in which the disk fails, or file handles lack, is a moment of its own.
#[test]
fn errors_of_the_disk_are_named_moments() {
    let named = named_moments();
    let mut sources = String::new();
    for (_, path) in shipped().into_iter().filter(|(name, _)| name.starts_with("broker/")) {
        shipped_lines(&path).into_iter().for_each(|(_, line)| sources += &(line + "\n"));
    }
    let said = |patterns: &[&str]| -> BTreeSet<String> {
        let found = patterns.iter().flat_map(|pattern| {
            let pattern = regex(pattern);
            let words: Vec<String> =
                pattern.captures_iter(&sources).map(|found| found[1].to_owned()).collect();
            words
        });
        found.collect()
    };
    let flusher = said(&[
        r#"Job::\w+(?:\(_\)| \{ \.\. \})? => "(cannot [^"]+)""#,
        r#"health\.fail\(&error, "([^"]+)""#,
    ]);
    let mut disk = said(&[
        r#"\bfail(?:_of)?\(\s*(?:&?error,\s*)?"([^"]+)""#,
        r#"self\s*\.submit\((?:[^;"]*),\s*"([^"]+)"\)"#,
    ]);
    disk.retain(|place| !flusher.contains(place));
    let handles = said(&[r#"(?:patiently|persistently)\(\s*"([^"]+)""#]);
    for (moment, said) in
        [("DISK_FAILED", disk), ("DISK_FAILED_IN_FLUSHER", flusher), ("HANDLES_AWAITED", handles)]
    {
        assert_eq!(
            named[moment].places, said,
            "the places of {moment} in broker/env/src/moments.rs, and in the sources"
        );
    }
    for (some, of) in [
        ("OUT_OF_HANDLES", "DISK_FAILED"),
        ("OUT_OF_HANDLES_IN_FLUSHER", "DISK_FAILED_IN_FLUSHER"),
        ("HANDLES_GIVEN_UP", "HANDLES_AWAITED"),
    ] {
        let others: Vec<_> = named[some].places.difference(&named[of].places).collect();
        assert!(others.is_empty(), "{some} has places that {of} does not have: {others:?}");
    }
}

#[test]
fn nothing_goes_round_the_seam() {
    let may = |name: &str| MAY_GO_ROUND.iter().any(|(place, _)| name.starts_with(place));
    let mut broken = Vec::new();
    for (name, path) in shipped().into_iter().filter(|(name, _)| !may(name)) {
        for (number, line) in shipped_lines(&path) {
            let around = AROUND_THE_SEAM.iter().any(|word| has_word(&line, word));
            if around || line.contains("allow(clippy::disallowed_methods") {
                broken.push(format!("{name}:{number}: {}", line.trim()));
            }
        }
    }
    report(broken, "time, entropy, tasks, sockets, files and threads come from Env:");
}

#[test]
fn every_select_is_biased() {
    let mut broken = Vec::new();
    for (name, path) in sources(&["broker", "sim"]) {
        let text = fs::read_to_string(&path).expect("a source file");
        let lines: Vec<&str> = text.lines().collect();
        for (index, line) in lines.iter().enumerate() {
            let opens = !line.trim_start().starts_with("//") && line.contains("select! {");
            if opens && lines.get(index + 1).is_none_or(|next| next.trim() != "biased;") {
                broken.push(format!("{name}:{}: {}", index + 1, line.trim()));
            }
        }
    }
    report(broken, "an unbiased select draws from a random source that no seed reaches:");
}

#[test]
fn every_file_says_what_it_is() {
    let mut broken = Vec::new();
    for (name, path) in sources(&["broker", "sim", "tests"]) {
        if !fs::read_to_string(path).expect("a source file").starts_with("//! ") {
            broken.push(name);
        }
    }
    report(broken, "every file begins with what it models and what it must never do:");
}

#[test]
fn scenarios_are_data() {
    fn walk(folder: &Path, broken: &mut Vec<String>) {
        for entry in fs::read_dir(folder).into_iter().flatten() {
            let path = entry.expect("readable").path();
            if path.is_dir() {
                walk(&path, broken);
            } else if path.extension().is_none_or(|extension| extension != "toml") {
                broken.push(relative(&path));
            }
        }
    }
    let mut broken = Vec::new();
    walk(&workspace().join("scenarios"), &mut broken);
    report(broken, "scenarios/ holds TOML only:");
}

/// Whoever may do what is decided in one place, which every request passes.
#[test]
fn what_a_request_needs_is_asked_in_one_place() {
    let reads = |path: &PathBuf| -> usize {
        let text = fs::read_to_string(path).expect("a source file");
        text.lines().filter(|line| line.contains(".needs") || line.contains("(api.start)(")).count()
    };
    let mut found = Vec::new();
    rust_files(&workspace().join("broker/src"), &mut found);
    found.retain(|path| reads(path) > 0);
    let table = workspace().join("broker/src/api/mod.rs");
    assert_eq!(found, std::slice::from_ref(&table), "the api table asks `access::check`, nobody else");
    assert_eq!(reads(&table), 2, "once asked, once started");
}

/// Whatever looks like a path between back quotes must exist, and so must what a link leads to.
#[test]
fn pages_name_only_what_exists() {
    let pages = [
        "README.md",
        "CHANGELOG.md",
        "CONTRIBUTING.md",
        "SECURITY.md",
        "broker/ARCHITECTURE.md",
        "broker/CONFIGURATION.md",
        "broker/OPERATING.md",
        "tests/DASHBOARDS.md",
        "sim/README.md",
        "sim/mutants/RESULTS.md",
        "sim/mutants/DRAWN.md",
        "tests/COMPATIBILITY.md",
        "tests/bench/README.md",
        "tests/bench/RESULTS.md",
        "tests/fuzz/RESULTS.md",
    ];
    let roots = [
        "",
        "broker",
        "broker/src",
        "broker/core/src",
        "broker/env/src",
        "broker/common/src",
        "broker/log/src",
        "broker/quorum/src",
        "sim",
        "sim/src",
        "tests",
    ];
    let mut broken = Vec::new();
    for page in pages {
        let path = workspace().join(page);
        let text = fs::read_to_string(&path).unwrap_or_else(|_| panic!("{page} is missing"));
        let beside = path.parent().expect("a page is in a folder");
        for (index, line) in text.lines().enumerate() {
            for target in line.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
                let file = target.split('#').next().unwrap_or_default();
                if !target.contains("://") && !beside.join(file).exists() {
                    broken.push(format!("{page}:{}: {target}", index + 1));
                }
            }
            // Every second piece stands between back quotes.
            for quoted in line.split('`').skip(1).step_by(2) {
                let path = quoted.trim_end_matches('/');
                let is_file =
                    path.contains('/') && [".rs", ".toml", ".md"].iter().any(|ending| path.ends_with(ending));
                let is_folder = quoted.ends_with('/') && path.contains('/');
                let is_pattern =
                    path.contains(['*', '<', '{', ' ', '$', '…']) || path.starts_with(['.', '/', '~']);
                let exists = || {
                    roots.iter().any(|root| workspace().join(root).join(path).exists())
                        || beside.join(path).exists()
                };
                if (is_file || is_folder) && !is_pattern && !exists() {
                    broken.push(format!("{page}:{}: {quoted}", index + 1));
                }
            }
        }
    }
    report(broken, "a page names files that are not there:");
}
