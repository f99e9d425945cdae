//! Which lines of the broker run: a build of the simulator with rustc's counters in our own crates, and LLVM's tools to read
//! what they say.
//!
//! The build has a target folder of its own, where the libraries of others are those that are compiled already. Never:
//! counters in any other build.

#![allow(clippy::print_stderr, clippy::disallowed_methods, reason = "a command-line tool")]

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;

use crate::{
    mutants::{share_libraries, target_directory},
    swarm::Child,
};

/// What is looked at: the shipped code but for its production Env, which is not simulated.
const SHIPPED: [&str; 6] = [
    "broker/core/src/",
    "broker/env/src/",
    "broker/common/src/",
    "broker/log/src/",
    "broker/quorum/src/",
    "broker/src/",
];
const NOT_SIMULATED: [&str; 3] = ["broker/env/src/tokio/", "broker/env/src/contract/", "broker/src/main.rs"];

/// A file and its lines.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Lines {
    /// From the root of the repository.
    pub file: String,
    /// Lines with code.
    pub all: u64,
    /// Those that ran.
    pub run: u64,
}

/// A simulator that counts its lines.
#[derive(Debug)]
pub(super) struct Instrumented {
    program: PathBuf,
    /// Where its processes leave what they counted.
    profiles: PathBuf,
    tools: Tools,
}

/// Builds it.
///
/// # Errors
/// Says what to install if LLVM's tools are not there.
pub(super) fn build(root: &Path) -> Result<Instrumented> {
    let tools = Tools::find()?;
    let (target, home) = (target_directory(root), root.join("target/coverage"));
    let profiles = home.join("profiles");
    if profiles.exists() {
        fs::remove_dir_all(&profiles)?;
    }
    fs::create_dir_all(&profiles)?;
    if !home.join("debug").exists() {
        share_libraries(&target, &home)?;
    }
    let wrapper = home.join("rustc");
    fs::write(&wrapper, "#!/bin/sh\nexec \"$@\" -C instrument-coverage\n")?;
    executable(&wrapper)?;
    eprintln!("building the simulator with counters …");
    let status = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
        .args(["build", "--quiet", "--bin", "sim", "--target-dir"])
        .arg(&home)
        .env("RUSTC_WORKSPACE_WRAPPER", &wrapper)
        // Build scripts of ours would leave their counts where they run.
        .env("LLVM_PROFILE_FILE", "/dev/null")
        .current_dir(root)
        .status()?;
    ensure!(status.success(), "the simulator does not build with -C instrument-coverage");
    Ok(Instrumented { program: home.join("debug/sim"), profiles, tools })
}

#[cfg(unix)]
fn executable(path: &Path) -> Result<()> {
    use std::os::unix::fs::PermissionsExt;
    Ok(fs::set_permissions(path, fs::Permissions::from_mode(0o755))?)
}

impl Instrumented {
    /// How its processes are started.
    pub(super) fn child(&self) -> Child {
        // A few files for all processes: each adds its counts to one of them.
        let file = self.profiles.join("%4m.profraw").to_string_lossy().into_owned();
        Child {
            program: Some(self.program.clone()),
            variables: vec![("LLVM_PROFILE_FILE".to_owned(), file)],
            ..Child::default()
        }
    }

    /// What they have counted.
    pub(super) fn lines(&self, root: &Path) -> Result<Vec<Lines>> {
        let merged = self.profiles.join("all.profdata");
        let mut merge = Command::new(&self.tools.profdata);
        merge.args(["merge", "--sparse", "--output"]).arg(&merged);
        for entry in fs::read_dir(&self.profiles)? {
            let path = entry?.path();
            if path.extension().is_some_and(|ending| ending == "profraw") {
                merge.arg(path);
            }
        }
        run(&mut merge)?;
        let mut export = Command::new(&self.tools.cov);
        export.args(["export", "--summary-only", "--instr-profile"]).arg(&merged).arg(&self.program);
        parse(&run(&mut export)?, root)
    }
}

fn run(command: &mut Command) -> Result<Vec<u8>> {
    let output = command.output().with_context(|| format!("{command:?}"))?;
    ensure!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(output.stdout)
}

/// The part of `llvm-cov export` that counts.
#[derive(Deserialize)]
struct Export {
    data: Vec<Data>,
}

#[derive(Deserialize)]
struct Data {
    files: Vec<File>,
}

#[derive(Deserialize)]
struct File {
    filename: PathBuf,
    summary: Summary,
}

#[derive(Deserialize)]
struct Summary {
    lines: Count,
}

#[derive(Deserialize)]
struct Count {
    count: u64,
    covered: u64,
}

fn parse(json: &[u8], root: &Path) -> Result<Vec<Lines>> {
    let export: Export = serde_json::from_slice(json).context("llvm-cov speaks another JSON")?;
    let mut lines = Vec::new();
    for File { filename, summary } in export.data.into_iter().flat_map(|data| data.files) {
        let file = filename.strip_prefix(root).unwrap_or(&filename).to_string_lossy().into_owned();
        let shipped = SHIPPED.iter().any(|place| file.starts_with(place));
        if shipped && !NOT_SIMULATED.iter().any(|place| file.starts_with(place)) {
            lines.push(Lines { file, all: summary.lines.count, run: summary.lines.covered });
        }
    }
    lines.sort_by(|one, other| one.file.cmp(&other.file));
    Ok(lines)
}

/// LLVM's readers of profiles.
#[derive(Debug)]
struct Tools {
    profdata: PathBuf,
    cov: PathBuf,
}

impl Tools {
    /// Those of the toolchain, else those of the system if they are new enough for what rustc writes.
    fn find() -> Result<Self> {
        let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
        let about = String::from_utf8(run(Command::new(&rustc).arg("-vV"))?)?;
        let said = |key: &str| about.lines().find_map(|line| line.strip_prefix(key)).map(str::trim);
        let llvm = said("LLVM version:").and_then(major).context("rustc does not tell its LLVM")?;
        let host = said("host:").context("rustc does not tell its host")?;
        let sysroot = String::from_utf8(run(Command::new(&rustc).args(["--print", "sysroot"]))?)?;
        let own = Path::new(sysroot.trim()).join("lib/rustlib").join(host).join("bin");
        let tool = |name: &str| {
            let candidates = [own.join(name), PathBuf::from(format!("{name}-{llvm}")), PathBuf::from(name)];
            candidates.into_iter().find(|path| version(path).is_some_and(|version| version >= llvm))
        };
        match (tool("llvm-profdata"), tool("llvm-cov")) {
            (Some(profdata), Some(cov)) => Ok(Self { profdata, cov }),
            (profdata, cov) => {
                let missing = [("llvm-profdata", profdata), ("llvm-cov", cov)];
                let missing = missing.iter().filter(|(_, path)| path.is_none()).map(|(name, _)| *name);
                bail!(
                    "{} of LLVM {llvm} or newer cannot be found, which the counts of lines need: `rustup component add \
                     llvm-tools`, or the package llvm-{llvm} of your system. Without --source the moments are counted all \
                     the same",
                    missing.collect::<Vec<_>>().join(" and ")
                )
            }
        }
    }
}

/// The major version that a tool of LLVM tells.
fn version(tool: &Path) -> Option<u32> {
    let output = Command::new(tool).arg("--version").output().ok()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.lines().find_map(|line| major(line.split_once("LLVM version")?.1))
}

fn major(version: &str) -> Option<u32> {
    version.trim().split('.').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_shipped_files_that_the_simulator_runs_are_told() {
        let file = |name: &str| {
            format!(
                r#"{{"filename":"/r/{name}","summary":{{"lines":{{"count":4,"covered":3,"percent":75}}}}}}"#
            )
        };
        let files =
            ["sim/src/a.rs", "broker/log/src/b.rs", "broker/env/src/tokio/c.rs", "broker/core/src/d.rs"];
        let files: Vec<String> = files.iter().map(|name| file(name)).collect();
        let json = format!(r#"{{"data":[{{"files":[{}],"totals":{{}}}}],"type":"llvm"}}"#, files.join(","));
        let lines = parse(json.as_bytes(), Path::new("/r")).unwrap();
        let names: Vec<&str> = lines.iter().map(|lines| lines.file.as_str()).collect();
        assert_eq!(names, ["broker/core/src/d.rs", "broker/log/src/b.rs"]);
        assert_eq!((lines[0].all, lines[0].run), (4, 3));
    }

    #[test]
    fn versions_are_read_as_the_tools_tell_them() {
        assert_eq!(major(" 22.1.2"), Some(22));
        assert_eq!(major("22.1.2-rust-1.95.0-stable"), Some(22));
        assert_eq!(major("none"), None);
    }
}
