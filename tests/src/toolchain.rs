//! Programs that a test needs and a machine may lack. A missing one is said loudly, and is a failure where
//! `GRACCHUS_REQUIRE_ALL=1` asks for everything.

use std::path::PathBuf;

/// The program `name` on the search path, or nothing after a loud notice that `what` was not run.
///
/// # Panics
/// When it is missing and everything is required.
pub fn find(name: &str, what: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found =
        std::env::split_paths(&path).map(|folder| folder.join(name)).find(|program| program.is_file());
    if found.is_none() {
        not_run(what, &format!("{name} is not installed"));
    }
    found
}

/// Says that `what` was not run and why.
///
/// # Panics
/// When everything is required.
#[allow(clippy::print_stderr, reason = "must be seen")]
pub fn not_run(what: &str, reason: &str) {
    assert!(!require_all(), "{what} has to run here (GRACCHUS_REQUIRE_ALL=1), but {reason}");
    eprintln!("\n!!! NOT RUN: {what}, because {reason}.\n");
}

/// Whether absence of a tool is a failure.
pub fn require_all() -> bool {
    std::env::var_os("GRACCHUS_REQUIRE_ALL").is_some_and(|value| value == "1")
}
