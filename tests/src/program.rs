//! Builds what the tests run. `cargo test` does not build another package's binary, so the harness does, once per test
//! process, in the profile of the test itself.

use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::OnceLock,
};

/// The `gracchus` binary of the test's own profile. `GRACCHUS_BIN` names another program to test: a release, a
/// packaged one, or a script that starts some other broker, to see whether a test asks for what Kafka does.
pub fn gracchus() -> &'static Path {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    PROGRAM.get_or_init(|| match std::env::var_os("GRACCHUS_BIN") {
        Some(program) => program.into(),
        None if profile_directory().ends_with("release") => release(),
        // The whole workspace with a test in it: Cargo then resolves features as it just did for `cargo test`, and
        // nothing that stands compiled is compiled again.
        None => build(&["--workspace", "--bin", "gracchus", "--test", "tidy"]),
    })
}

/// The `gracchus` binary as users build it: what `cargo run --release` runs.
///
/// # Panics
/// With the compiler's messages when it does not build.
pub fn release() -> PathBuf {
    build(&["--bin", "gracchus", "--release"])
}

fn build(arguments: &[&str]) -> PathBuf {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.current_dir(super::places::workspace()).arg("build").args(arguments);
    command.args(["--message-format", "json-render-diagnostics"]);
    // What Cargo sets for this test process is about another package.
    for (name, _) in std::env::vars_os() {
        if name
            .to_str()
            .is_some_and(|name| name.starts_with("CARGO_PKG") || name.starts_with("CARGO_MANIFEST"))
        {
            command.env_remove(name);
        }
    }
    let output = command.stderr(Stdio::piped()).output().expect("cargo runs");
    assert!(output.status.success(), "gracchus does not build:\n{}", String::from_utf8_lossy(&output.stderr));
    let messages = String::from_utf8_lossy(&output.stdout);
    let executable = messages
        .lines()
        .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok())
        .filter(|message| message["target"]["name"] == "gracchus")
        .filter_map(|message| message["executable"].as_str().map(PathBuf::from))
        .next_back();
    executable.expect("cargo names the executable")
}

/// `target/<profile>`, where the running test was built.
fn profile_directory() -> PathBuf {
    let test = std::env::current_exe().expect("a running program knows its file");
    let folder = test.parent().expect("a file is in a folder");
    if folder.ends_with("deps") {
        folder.parent().expect("deps is in a folder").to_owned()
    } else {
        folder.to_owned()
    }
}

/// The folder that Cargo builds in.
pub fn target_directory() -> PathBuf {
    profile_directory().parent().expect("a profile has a folder").to_owned()
}
