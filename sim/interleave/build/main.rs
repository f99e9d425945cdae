//! Makes modules of shipped files: as they are, but that `use std::` leads to `crate::world`, where what threads share is
//! shuttle's; without their own tests. For each planted bug one more, with its change.
//!
//! Never: a change of a shipped file but those; a bug that does not fit its file any more (the build fails).

mod planted;

use std::{env, fs, path::Path};

use planted::PLANTED;

/// The shipped files, by the names of their modules.
const SHIPPED: &[(&str, &str)] = &[
    ("purgatory", "broker/src/replica/purgatory.rs"),
    ("files", "broker/log/src/files.rs"),
    ("lane", "broker/src/server/lane.rs"),
    ("slots", "broker/src/server/slots.rs"),
];

fn main() {
    let root = Path::new(&env::var("CARGO_MANIFEST_DIR").expect("cargo says it")).join("../..");
    let out = env::var("OUT_DIR").expect("cargo says it");
    println!("cargo::rerun-if-changed=build");
    for (module, file) in SHIPPED {
        let path = root.join(file);
        println!("cargo::rerun-if-changed={}", path.display());
        let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let write = |name: &str, text: &str| {
            fs::write(Path::new(&out).join(format!("{name}.rs")), module_text(text))
                .expect("a folder of cargo's");
        };
        write(module, &text);
        for bug in PLANTED.iter().filter(|bug| bug.module == *module) {
            assert_eq!(text.matches(bug.from).count(), 1, "{}: `from` stands in {file} once", bug.name);
            write(bug.name, &text.replace(bug.from, bug.to));
        }
    }
    for bug in PLANTED {
        assert!(SHIPPED.iter().any(|(module, _)| *module == bug.module), "{}: no such module", bug.name);
    }
}

/// What `include!` takes: no documentation of the module, no tests, and `crate::world` for `std`.
fn module_text(text: &str) -> String {
    let shipped = text.split("#[cfg(test)]\nmod tests").next().unwrap_or_default();
    let lines = shipped.lines().filter(|line| !line.starts_with("//!"));
    lines.fold(String::new(), |text, line| text + &line.replace("use std::", "use crate::world::") + "\n")
}
