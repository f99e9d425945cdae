//! The licences of what ships: which crates of others are in the program, that each may be there, and that `NOTICE` says
//! what their licences ask to be said.
//!
//! `NOTICE` is written by `GRACCHUS_WRITE=1 cargo test -p gracchus-tests --test licences`; otherwise it must be what would be
//! written, so that a new dependency cannot ship in silence. Where a crate leaves a choice, the licence of the project is
//! chosen (its text is in `LICENSE`), else the first that is allowed. Never: a licence whose terms reach beyond its own
//! files.
#![allow(clippy::disallowed_methods, reason = "a test reads and writes files")]

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use gracchus_tests::{places::workspace, toolchain};

/// What a crate that ships may be under, the best first.
const ALLOWED: [&str; 6] = ["Apache-2.0", "MIT", "BSD-3-Clause", "Zlib", "0BSD", "MPL-2.0+"];

/// Code of somebody else again inside a crate, with its own licence: crate, what it is, licence, file.
const INSIDE: [(&str, &str, &str, &str); 4] = [
    ("regex-syntax", "Unicode's tables", "Unicode-3.0", "src/unicode_tables/LICENSE-UNICODE"),
    ("tikv-jemalloc-sys", "jemalloc", "BSD-2-Clause", "jemalloc/COPYING"),
    ("tracing-core", "a spin lock", "MIT", "src/spin/LICENSE"),
    ("zstd-sys", "zstd", "BSD-3-Clause", "zstd/LICENSE"),
];

const HEAD: &str = "Gracchus
Copyright the authors of Gracchus

Licensed under the Apache License, Version 2.0; the text is in the file LICENSE.

Apache and Apache Kafka are trademarks of the Apache Software Foundation, which has nothing to do with this project. No
code of Apache Kafka is in it.

This file was written by `GRACCHUS_WRITE=1 cargo test -p gracchus-tests --test licences`.

The program contains these libraries, unmodified. Where their authors offer several licences, the one that was chosen is
named; the texts of all but the Apache License 2.0 follow below.

";

const MOZILLA: &str = "The source code of libraries under MPL-2.0+ is available under the terms of the Mozilla Public License, version 2.0, a copy
of which is at https://mozilla.org/MPL/2.0/. It is in the package of that name and version in the registry of Rust packages,
where `cargo` gets it (`cargo vendor` in a clone of this project lays it down).
";

/// A crate of others that ships.
#[derive(Debug)]
struct Shipped {
    name: String,
    version: String,
    licence: &'static str,
    folder: PathBuf,
}

#[test]
fn what_ships_may_ship_and_notice_names_it() {
    let what = "the comparison of NOTICE with what ships";
    let Some(shipped) = shipped(what) else { return };
    assert!(shipped.len() > 50, "only {} crates were found", shipped.len());
    let text = notice(&shipped);
    let path = workspace().join("NOTICE");
    if std::env::var_os("GRACCHUS_WRITE").is_some_and(|value| value == "1") {
        fs::write(&path, &text).expect("the work tree can be written");
    }
    let there = fs::read_to_string(&path).unwrap_or_default();
    let line = there.lines().zip(text.lines()).position(|(there, meant)| there != meant);
    assert!(
        there == text,
        "NOTICE is not what would be written (first at line {:?}): GRACCHUS_WRITE=1 cargo test -p gracchus-tests --test licences",
        line.map(|line| line + 1)
    );
}

/// What the broker is linked with, without what runs at compile time only. The sources lie where Cargo unpacked them.
fn shipped(what: &str) -> Option<Vec<Shipped>> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let arguments = ["tree", "--offline", "--locked", "-p", "gracchus", "-e", "normal,no-proc-macro"];
    let format = ["--prefix", "none", "--format", "{p}|{l}"];
    let output = Command::new(cargo).current_dir(workspace()).args(arguments).args(format).output();
    let output = output.expect("cargo runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).expect("readable output");
    let sources = sources();
    let mut shipped = BTreeMap::new();
    for line in text.lines().map(|line| line.trim_end_matches(" (*)")) {
        let (package, licence) = line.split_once('|').expect("the format asked for");
        let (name, version) = package.split_once(" v").expect("name and version");
        if version.contains('/') {
            continue; // A crate of this workspace, with its folder.
        }
        let chosen = chosen(licence).unwrap_or_else(|| panic!("{package}: {licence} is not allowed to ship"));
        let Some(folder) =
            sources.iter().map(|place| place.join(format!("{name}-{version}"))).find(|place| place.is_dir())
        else {
            toolchain::not_run(
                what,
                &format!("the sources of {package} are not where Cargo usually keeps them"),
            );
            return None;
        };
        let (name, version) = (name.to_owned(), version.to_owned());
        shipped.insert((name.clone(), version.clone()), Shipped { name, version, licence: chosen, folder });
    }
    Some(shipped.into_values().collect())
}

/// Where Cargo keeps unpacked packages.
fn sources() -> Vec<PathBuf> {
    let home = std::env::var_os("CARGO_HOME").map(PathBuf::from);
    let home = home.or_else(|| std::env::home_dir().map(|home| home.join(".cargo"))).unwrap_or_default();
    let registries = fs::read_dir(home.join("registry/src")).into_iter().flatten();
    registries.map(|entry| entry.expect("readable").path()).collect()
}

/// The licence that is taken of `A OR B`, `A/B`, `(A OR B)`; all of `A AND B` must be allowed, which is the case nowhere.
fn chosen(expression: &str) -> Option<&'static str> {
    let expression = expression.trim();
    if expression.contains(" AND ") {
        return None;
    }
    let offered: Vec<&str> =
        expression.split(" OR ").flat_map(|part| part.split('/')).map(str::trim).collect();
    ALLOWED.into_iter().find(|allowed| offered.contains(allowed))
}

fn notice(shipped: &[Shipped]) -> String {
    let mut notice = HEAD.to_owned();
    // Equal texts once, under all whose they are.
    let mut texts: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for Shipped { name, version, licence, folder } in shipped {
        let _ = writeln!(notice, "{name} {version}: {licence}");
        let inside: Vec<_> = INSIDE.iter().filter(|inside| inside.0 == name).collect();
        let strangers = strangers(folder);
        let known: Vec<PathBuf> = inside.iter().map(|inside| folder.join(inside.3)).collect();
        for file in &strangers {
            // zstd's second licence, which is not chosen.
            let other = name == "zstd-sys" && file.ends_with("zstd/COPYING");
            assert!(other || known.contains(file), "{name}: whose licence is {}?", file.display());
        }
        for (_, what, licence, file) in inside {
            let _ = writeln!(notice, "  with {what}: {licence}");
            texts.entry(read(&folder.join(file))).or_default().push(format!("{what} in {name} {version}"));
        }
        match *licence {
            "Apache-2.0" => {}
            "MPL-2.0+" => texts.entry(MOZILLA.to_owned()).or_default().push(format!("{name} {version}")),
            licence => {
                texts
                    .entry(read(&licence_file(folder, licence)))
                    .or_default()
                    .push(format!("{name} {version}"));
            }
        }
        // The Apache License asks for the notices of who is under it.
        for file in files(folder).filter(|file| named(file, &["NOTICE"])) {
            texts.entry(read(&file)).or_default().push(format!("notice of {name} {version}"));
        }
    }
    let mut texts: Vec<(Vec<String>, String)> =
        texts.into_iter().map(|(text, whose)| (whose, text)).collect();
    texts.sort();
    for (whose, text) in texts {
        let _ = write!(notice, "\n{}\n{}\n\n{}\n", "-".repeat(80), whose.join(", "), text.trim());
    }
    notice
}

/// The text of `licence` in a crate that may have several.
fn licence_file(folder: &Path, licence: &str) -> PathBuf {
    let candidates: Vec<PathBuf> =
        files(folder).filter(|file| named(file, &["LICENSE", "LICENCE", "COPYING"])).collect();
    let family = licence.split('-').next().unwrap_or(licence);
    let of_it = |file: &&PathBuf| file.to_string_lossy().ends_with(&format!("-{family}"));
    let found = candidates.iter().find(of_it).or(candidates.first());
    found.unwrap_or_else(|| panic!("{}: no text of its licence", folder.display())).clone()
}

/// Licences further down: of code that is somebody else's again.
fn strangers(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let folders = |place: &Path| -> Vec<PathBuf> {
        let entries = fs::read_dir(place).expect("readable").map(|entry| entry.expect("readable").path());
        entries.filter(|path| path.is_dir()).collect()
    };
    let mut left = folders(folder);
    while let Some(place) = left.pop() {
        found.extend(files(&place).filter(|file| named(file, &["LICENSE", "LICENCE", "COPYING", "NOTICE"])));
        left.extend(folders(&place));
    }
    found
}

fn files(folder: &Path) -> impl Iterator<Item = PathBuf> + use<> {
    let mut files: Vec<PathBuf> =
        fs::read_dir(folder).expect("readable").map(|entry| entry.expect("readable").path()).collect();
    files.retain(|path| path.is_file());
    files.sort();
    files.into_iter()
}

fn named(file: &Path, beginnings: &[&str]) -> bool {
    let name = file.file_name().unwrap_or_default().to_string_lossy().to_uppercase();
    beginnings.iter().any(|beginning| name.starts_with(beginning))
}

fn read(file: &Path) -> String {
    let text = fs::read_to_string(file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    let lines: Vec<&str> = text.lines().map(str::trim_end).collect();
    lines.join("\n").trim().to_owned()
}

#[test]
fn a_licence_is_chosen_of_those_offered() {
    assert_eq!(chosen("MIT OR Apache-2.0"), Some("Apache-2.0"));
    assert_eq!(chosen("Apache-2.0 / MIT"), Some("Apache-2.0"));
    assert_eq!(chosen("Unlicense OR MIT"), Some("MIT"));
    assert_eq!(chosen("Apache-2.0 WITH LLVM-exception OR MIT"), Some("MIT"));
    for refused in ["GPL-3.0-only", "AGPL-3.0", "SSPL-1.0", "", "MIT AND GPL-2.0-only"] {
        assert_eq!(chosen(refused), None, "{refused}");
    }
}
