//! What one thread cannot interleave: builds and runs `sim/interleave`, which is a workspace of its own so that what shuttle
//! needs does not unify its features with what ships. Never: a failure there that is not seen here.
#![allow(
    clippy::disallowed_methods,
    clippy::print_stdout,
    reason = "a test runs a command and shows what it said"
)]

use std::process::Command;

use gracchus_tests::places::workspace;

#[test]
fn shipped_files_hold_under_shuttle_and_planted_races_are_found() {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    // From there, so that its own configuration counts.
    command.current_dir(workspace().join("sim/interleave"));
    command.args(["test", "--locked", "--", "--nocapture", "--test-threads", "2"]);
    let output = command.output().expect("cargo runs");
    let (said, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    println!("{said}");
    assert!(output.status.success(), "{errors}");
    let found = said.lines().filter(|line| line.contains(": found after ")).count();
    let held = said.lines().filter(|line| line.contains(" schedules of seed ")).count() - found;
    assert!(found >= 5 && held >= 5, "{held} stories held, {found} planted bugs were found");
}
