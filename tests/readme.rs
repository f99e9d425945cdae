//! The README's shell blocks, as they stand there, run one after the other in a clean clone: a reader's first hour. No
//! line of them can rot, and none is left out but where a program is missing, which is said.
//!
//! - A block ```` ```sh ```` must end with exit code 0, each of its lines too.
//! - A block ```` ```sh background ```` starts a broker that goes on; what follows waits for its `ready`. A second one
//!   takes the place of the first, which is killed with `kill -9`; the last is asked to stop at the end.
//! - Any other language is text and not run.
//!
//! The clone holds the last commit, and what was changed since and not committed. It shares the build folder, so that
//! the libraries of others are not compiled again, and lies outside the repository, whose `.cargo/config.toml` would
//! count beside its own.
//!
//! The block with `cargo test` is run as it stands as well, and would be this very run again. So Cargo is told, in the way
//! it offers (`CARGO_TARGET_…_RUNNER`), how to start the programs that it builds: test programs are started with `--list`,
//! all others as they are. Everything is compiled and every test program is started, but no test runs twice; that none
//! is missing is compared with what the workspace holds. At the end the release that the blocks have built is looked through for
//! the simulator, so that it need not be built once more for that. Never: another command than the README's.
#![allow(clippy::disallowed_methods, reason = "a test works with real files and processes")]
#![allow(clippy::print_stderr, reason = "long steps are told")]

use std::{
    fs,
    hash::{DefaultHasher, Hash, Hasher},
    net::TcpListener,
    os::unix::{fs::PermissionsExt, process::CommandExt},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    thread,
    time::{Duration, Instant},
};

use gracchus_tests::{Scratch, places::workspace, program::target_directory, toolchain};
use rustix::process::{Pid, Signal, kill_process_group};

/// Where the README's broker listens.
const ADDRESS: &str = "127.0.0.1:9092";

/// How long a block may take: a build from nothing on a slow machine.
const PATIENCE: Duration = Duration::from_secs(45 * 60);

/// Programs that a block may need and a machine may lack.
const OPTIONAL: [&str; 1] = ["kcat"];

/// A piece of shell in the README.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Block {
    /// The line of its first command.
    line: usize,
    background: bool,
    text: String,
}

#[test]
fn the_shell_blocks_of_the_readme_run_in_a_clean_clone() {
    let what = "the README's shell blocks";
    let Some(git) = toolchain::find("git", what) else { return };
    if !workspace().join(".git").exists() {
        return toolchain::not_run(what, "this is no clone of the repository");
    }
    if let Err(error) = TcpListener::bind(ADDRESS) {
        return toolchain::not_run(what, &format!("{ADDRESS} is not free: {error}"));
    }
    let readme = fs::read_to_string(workspace().join("README.md")).expect("there is a README");
    let blocks = blocks(&readme);
    for needed in ["cargo run --release", "cargo test", "kcat"] {
        let there = blocks.iter().any(|block| block.text.contains(needed));
        assert!(there, "no block of the README has {needed}: what is tested here?");
    }
    let scratch = Scratch::new("readme");
    let clone = CleanClone::new(&git);
    let runner = list_tests(scratch.path());
    let mut reader = Reader { clone: &clone, runner, output: scratch.path().join("output"), broker: None };
    for block in &blocks {
        reader.run(block);
    }
    reader.stop();
    assert_nothing_of_the_simulator(&target_directory().join("release/gracchus"));
    let changed = clone.git(&["status", "--porcelain", "--untracked-files=no"]);
    assert_eq!(changed, clone.changed_before, "following the README changes files of the repository");
}

/// What `cargo run --release` built is what ships.
fn assert_nothing_of_the_simulator(release: &Path) {
    let what = "the search for simulator symbols in the release binary";
    let Some(nm) = toolchain::find("nm", what) else { return };
    let symbols = said(Command::new(nm).arg("--demangle").arg(release));
    assert!(symbols.contains("gracchus"), "the symbols of the broker are there to be seen");
    for word in ["madsim", "gracchus_sim", "gracchus_checker", "gracchus_workload"] {
        let found: Vec<&str> = symbols.lines().filter(|line| line.contains(word)).take(3).collect();
        assert!(found.is_empty(), "{word} in the release binary: {found:?}");
    }
}

/// All shell of `page`.
fn blocks(page: &str) -> Vec<Block> {
    let mut blocks = Vec::new();
    let mut lines = page.lines().zip(1..);
    while let Some((line, number)) = lines.next() {
        let Some(language) = line.strip_prefix("```") else { continue };
        let text: Vec<&str> =
            lines.by_ref().map(|(line, _)| line).take_while(|line| *line != "```").collect();
        let background = match language {
            "sh" => false,
            "sh background" => true,
            _ => continue,
        };
        blocks.push(Block { line: number + 1, background, text: text.join("\n") });
    }
    blocks
}

/// A fresh clone, removed on drop.
struct CleanClone {
    git: PathBuf,
    root: PathBuf,
    changed_before: String,
}

impl CleanClone {
    fn new(git: &Path) -> Self {
        // Always the same place for the same repository: Cargo tells our crates apart by it, and a new place each time
        // would fill the build folder.
        let mut name = DefaultHasher::new();
        workspace().hash(&mut name);
        let root = std::env::temp_dir().join(format!("gracchus-readme-{:016x}", name.finish()));
        let _ = fs::remove_dir_all(&root);
        let mut clone = Self { git: git.to_owned(), root, changed_before: String::new() };
        let here = |arguments: &[&str]| said(Command::new(git).current_dir(workspace()).args(arguments));
        said(Command::new(git).args(["clone", "--quiet"]).arg(workspace()).arg(&clone.root));
        let commit = here(&["rev-parse", "HEAD"]);
        clone.git(&["checkout", "--quiet", "--detach", commit.trim()]);
        // What the reader of this work tree sees, be it committed or not.
        let patch = clone.root.join(".git/uncommitted.patch");
        fs::write(&patch, here(&["diff", "HEAD", "--binary"])).expect("our own clone");
        if fs::metadata(&patch).expect("our own file").len() > 0 {
            clone.git(&["apply", "--whitespace=nowarn", ".git/uncommitted.patch"]);
        }
        for new in here(&["ls-files", "--others", "--exclude-standard"]).lines() {
            let to = clone.root.join(new);
            fs::create_dir_all(to.parent().expect("a file is in a folder")).expect("our own clone");
            fs::copy(workspace().join(new), to).expect("a file of the work tree");
        }
        clone.changed_before = clone.git(&["status", "--porcelain", "--untracked-files=no"]);
        clone
    }

    fn git(&self, arguments: &[&str]) -> String {
        said(Command::new(&self.git).current_dir(&self.root).args(arguments))
    }
}

impl Drop for CleanClone {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("the clone stays in {}", self.root.display());
        } else {
            let _ = fs::remove_dir_all(&self.root);
        }
    }
}

/// Runs the command, which must succeed; gives its output.
fn said(command: &mut Command) -> String {
    let output = command.output().expect("the program is there");
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("readable output")
}

/// A program that Cargo starts what it built with: tests only say what they hold.
fn list_tests(folder: &Path) -> PathBuf {
    let path = folder.join("list-tests");
    fs::write(&path, "#!/bin/sh\ncase $1 in\n*/deps/*) exec \"$@\" --list ;;\n*) exec \"$@\" ;;\nesac\n")
        .expect("our own folder");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("our own file");
    path
}

/// Who follows the README.
struct Reader<'a> {
    clone: &'a CleanClone,
    runner: PathBuf,
    output: PathBuf,
    broker: Option<Child>,
}

impl Reader<'_> {
    fn run(&mut self, block: &Block) {
        let what = format!("README.md:{}", block.line);
        for program in OPTIONAL {
            if block.text.contains(program) && toolchain::find(program, &what).is_none() {
                return;
            }
        }
        if block.background {
            self.kill();
        }
        eprintln!("{what}:\n{}", block.text);
        let began = Instant::now();
        let mut child = self.start(&block.text);
        let end = || began.elapsed() > PATIENCE;
        if block.background {
            let ready = |text: String| text.lines().any(|line| line == "ready");
            while !ready(self.printed()) {
                let ended = child.try_wait().expect("our own child");
                if ended.is_some() || end() {
                    signal(&child, Signal::KILL);
                    panic!("{what}: no broker gets ready ({ended:?}):\n{}", self.printed());
                }
                thread::sleep(Duration::from_millis(50));
            }
            self.broker = Some(child);
        } else {
            let status = wait(&mut child, PATIENCE).unwrap_or_else(|| {
                signal(&child, Signal::KILL);
                panic!("{what} does not end:\n{}", self.printed())
            });
            assert!(status.success(), "{what} ends with {status}:\n{}", self.printed());
            if block
                .text
                .lines()
                .any(|line| line.split('#').next().unwrap_or_default().trim() == "cargo test")
            {
                self.assert_every_test_program_ran();
            }
        }
        eprintln!("{what} took {:.0} s", began.elapsed().as_secs_f64());
    }

    /// A shell that stops at the first line that fails, in the clone, with the surroundings of a terminal: nothing of what
    /// Cargo sets for this test.
    fn start(&self, text: &str) -> Child {
        let output = fs::File::create(&self.output).expect("our own file");
        let mut command = Command::new("bash");
        for (name, _) in std::env::vars_os() {
            let name = name.to_string_lossy();
            let of_cargo = name.starts_with("CARGO") && name != "CARGO_HOME";
            if of_cargo || ["LD_LIBRARY_PATH", "OUT_DIR", "RUSTUP_TOOLCHAIN"].contains(&&*name) {
                command.env_remove(&*name);
            }
            // No flags of others: the README promises that none are needed.
            if name.starts_with("RUSTFLAGS") || name.starts_with("GRACCHUS_") {
                command.env_remove(&*name);
            }
        }
        command.env("CARGO_TARGET_DIR", target_directory()).env("CARGO_INCREMENTAL", "0");
        // Our crates of the clone are compiled for this test alone: fast rather than optimised.
        command.env("CARGO_PROFILE_DEV_OPT_LEVEL", "0").env("CARGO_PROFILE_DEV_DEBUG", "0");
        command.env(runner_variable(), &self.runner).env("CARGO_TERM_COLOR", "never");
        command.args(["-e", "-o", "pipefail", "-c", text]).current_dir(&self.clone.root).stdin(Stdio::null());
        command.stdout(output.try_clone().expect("our own file")).stderr(output).process_group(0);
        command.spawn().expect("bash is there")
    }

    fn printed(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.output).unwrap_or_default()).into_owned()
    }

    /// `cargo test` must mean every test of every crate, whatever the workspace takes for its default.
    fn assert_every_test_program_ran(&self) {
        let printed = self.printed();
        let arguments = ["metadata", "--format-version", "1", "--no-deps", "--offline"];
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let text = said(Command::new(cargo).current_dir(&self.clone.root).args(arguments));
        let metadata: serde_json::Value = serde_json::from_str(&text).expect("cargo speaks JSON");
        let targets = metadata["packages"].as_array().expect("packages").iter();
        let targets = targets.flat_map(|package| package["targets"].as_array().expect("targets"));
        for target in targets.filter(|target| target["test"] == true) {
            let name = target["name"].as_str().expect("a name").replace('-', "_");
            let ran = format!("/deps/{name}-");
            assert!(printed.contains(&ran), "`cargo test` does not run the tests of {name}:\n{printed}");
        }
        let tests = printed.lines().filter(|line| line.ends_with(": test")).count();
        assert!(tests > 500, "`cargo test` holds only {tests} tests");
        eprintln!("`cargo test` holds {tests} tests");
    }

    /// `kill -9`.
    fn kill(&mut self) {
        if let Some(mut broker) = self.broker.take() {
            signal(&broker, Signal::KILL);
            broker.wait().expect("our own child");
        }
    }

    fn stop(&mut self) {
        let Some(mut broker) = self.broker.take() else { return };
        signal(&broker, Signal::INT);
        let status = wait(&mut broker, Duration::from_secs(30)).expect("Ctrl-C stops the broker");
        assert!(status.success(), "Ctrl-C ends the broker with {status}");
    }
}

impl Drop for Reader<'_> {
    fn drop(&mut self) {
        self.kill();
    }
}

/// To the block's whole process group: what runs may be a child of the shell.
fn signal(child: &Child, signal: Signal) {
    let _ = kill_process_group(Pid::from_child(child), signal);
}

fn wait(child: &mut Child, patience: Duration) -> Option<ExitStatus> {
    let began = Instant::now();
    while began.elapsed() < patience {
        if let Some(status) = child.try_wait().expect("our own child") {
            return Some(status);
        }
        thread::sleep(Duration::from_millis(20));
    }
    None
}

/// By which Cargo learns how to start programs of this machine.
fn runner_variable() -> String {
    let text = said(Command::new("rustc").arg("-vV"));
    let host = text.lines().find_map(|line| line.strip_prefix("host: ")).expect("rustc names its host");
    format!("CARGO_TARGET_{}_RUNNER", host.to_uppercase().replace('-', "_"))
}

#[test]
fn blocks_are_found_with_their_kind_and_place() {
    let page = "a\n```sh background\ncargo run\n```\n\n```text\nnot run\n```\n```sh\nseq 3\nls\n```\n";
    let block = |line, background, text: &str| Block { line, background, text: text.into() };
    assert_eq!(blocks(page), [block(3, true, "cargo run"), block(10, false, "seq 3\nls")]);
}
