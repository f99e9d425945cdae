//! A copy of the sources below `target/mutants` that may be changed, with a target folder of its own. Programs that were built
//! from it are kept under a digest of all that went into them. Never: a change to the repository's own sources.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use anyhow::{Context, Result, bail, ensure};

/// The variable that chooses the bug of `sim/mutants/` in a scratch build, by its name.
pub(super) const CHOICE: &str = "GRACCHUS_MUTANT";
/// The variable that chooses a drawn mutant, by its number.
pub(super) const NUMBER: &str = "GRACCHUS_DRAWN";
/// The variable that names the file in which a run keeps the numbers of the switches that it came by.
pub(super) const REACHED: &str = "GRACCHUS_REACHED";

/// Crates whose code may be mutated get the switches; `board` is where one change of a bug leaves word for another. Lives in
/// scratch copies only.
const SWITCHES: &str = r#"

#[allow(missing_docs)]
pub fn planted(name: &str) -> bool {
    static CHOSEN: std::sync::OnceLock<Option<String>> = std::sync::OnceLock::new();
    CHOSEN.get_or_init(|| std::env::var("GRACCHUS_MUTANT").ok()).as_deref() == Some(name)
}

#[allow(missing_docs)]
pub fn drawn(number: usize) -> bool {
    use std::sync::atomic::{AtomicBool, Ordering};
    static CHOSEN: std::sync::OnceLock<(usize, Option<String>)> = std::sync::OnceLock::new();
    static REACHED: [AtomicBool; 8192] = [const { AtomicBool::new(false) }; 8192];
    let (chosen, file) = CHOSEN.get_or_init(|| {
        let chosen = std::env::var("GRACCHUS_DRAWN").ok().and_then(|number| number.parse().ok());
        (chosen.unwrap_or(usize::MAX), std::env::var("GRACCHUS_REACHED").ok())
    });
    if let Some(file) = file && !REACHED[number].swap(true, Ordering::Relaxed) {
        let file = std::fs::OpenOptions::new().append(true).create(true).open(file);
        let _ = std::io::Write::write_all(&mut file.expect("a file of our own"), format!("{number}\n").as_bytes());
    }
    *chosen == number
}

#[allow(missing_docs)]
pub fn board() -> std::sync::MutexGuard<'static, std::collections::BTreeMap<String, i64>> {
    static BOARD: std::sync::Mutex<std::collections::BTreeMap<String, i64>> =
        std::sync::Mutex::new(std::collections::BTreeMap::new());
    BOARD.lock().expect("nobody panics while holding it")
}
"#;

pub(super) struct Scratch {
    root: PathBuf,
    pub(super) tree: PathBuf,
    target: PathBuf,
    /// Where programs and results are kept.
    pub(super) programs: PathBuf,
    /// Of the code that runs: results are kept for as long as it stays.
    pub(super) code: u32,
}

impl Scratch {
    pub(super) fn prepare(root: &Path) -> Result<Self> {
        let target = target_directory(root);
        // Below the repository, so that cargo finds the repository's own configuration: a copy beside it would count
        // twice, and everything would be compiled anew.
        let home = root.join("target/mutants");
        let (tree, own_target, programs) = (home.join("tree"), home.join("target"), home.join("programs"));
        fs::create_dir_all(&programs)?;
        if !own_target.exists() && target.join("debug").exists() {
            share_libraries(&target, &own_target)?;
        }
        let code = digest(root)?;
        Ok(Self { root: root.to_owned(), tree, target: own_target, programs, code })
    }

    /// Of the code and all that is planted in it: `planted` holds the changed files.
    pub(super) fn digest(&self, planted: &BTreeMap<String, String>) -> u32 {
        let digest = crc32c::crc32c_append(self.code, SWITCHES.as_bytes());
        planted.iter().fold(digest, |all, (file, text)| {
            crc32c::crc32c_append(crc32c::crc32c_append(all, file.as_bytes()), text.as_bytes())
        })
    }

    /// Where the program called `name` with `planted` in it is kept.
    pub(super) fn kept(&self, name: &str, planted: &BTreeMap<String, String>) -> PathBuf {
        self.programs.join(format!("{name}-{:08x}", self.digest(planted)))
    }

    /// Builds the simulator with `planted` in the place of the files of these names.
    pub(super) fn build(&self, name: &str, planted: &BTreeMap<String, String>) -> Result<PathBuf> {
        let program = self.kept(name, planted);
        if program.exists() {
            return Ok(program);
        }
        eprintln!("building {name} …");
        self.lay_out(planted)?;
        let output = self.cargo(&["build", "--quiet", "--package", "gracchus-sim", "--bin", "sim"])?;
        ensure!(
            output.status.success(),
            "the tree with the mutants ({}) does not compile:\n{}",
            self.tree.display(),
            String::from_utf8_lossy(&output.stderr)
        );
        self.keep_simulator(&program)?;
        Ok(program)
    }

    /// Keeps the simulator that was just built as `program`.
    pub(super) fn keep_simulator(&self, program: &Path) -> Result<()> {
        fs::copy(self.target.join("debug/sim"), program)?;
        Ok(())
    }

    /// Runs cargo on the copy.
    pub(super) fn cargo(&self, arguments: &[&str]) -> Result<Output> {
        // The flags of the repository, or everything would be compiled anew. Warnings about mutants are no news.
        let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        command.args(arguments).arg("--target-dir").arg(&self.target);
        Ok(command.current_dir(&self.tree).output()?)
    }

    /// Writes the changed sources; unchanged files keep their times, so that only what differs is compiled. Files that are gone
    /// go: cargo would find them.
    pub(super) fn lay_out(&self, planted: &BTreeMap<String, String>) -> Result<()> {
        let mut wanted = BTreeSet::new();
        for file in sources(&self.root)? {
            let mut contents = match planted.get(&file) {
                Some(text) => text.clone().into_bytes(),
                None => fs::read(self.root.join(&file))?,
            };
            if is_crate_root(&file) {
                contents.extend_from_slice(SWITCHES.as_bytes());
            }
            let path = self.tree.join(&file);
            if fs::read(&path).ok().as_ref() != Some(&contents) {
                fs::create_dir_all(path.parent().context("a file lies in a directory")?)?;
                fs::write(&path, contents)?;
            }
            wanted.insert(file);
        }
        if let Some(file) = planted.keys().find(|file| !wanted.contains(*file)) {
            bail!("there is no file {file}");
        }
        for file in sources(&self.tree)?.into_iter().filter(|file| !wanted.contains(file)) {
            fs::remove_file(self.tree.join(file))?;
        }
        Ok(())
    }
}

/// Crates whose code may be mutated.
fn is_crate_root(file: &str) -> bool {
    file.starts_with("broker/") && file.ends_with("src/lib.rs")
}

/// The files of the workspace, as paths from its root.
fn sources(root: &Path) -> Result<Vec<String>> {
    let mut files = vec!["Cargo.toml".to_owned(), "Cargo.lock".to_owned()];
    for top in ["broker", "sim", "tests"] {
        collect(root, Path::new(top), &mut files)?;
    }
    files.sort();
    Ok(files)
}

fn collect(root: &Path, directory: &Path, files: &mut Vec<String>) -> Result<()> {
    for entry in fs::read_dir(root.join(directory))? {
        let entry = entry?;
        let path = directory.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            collect(root, &path, files)?;
        } else {
            files.push(path.to_string_lossy().into_owned());
        }
    }
    Ok(())
}

/// Of all that a run depends on: no prose, no tests of the real program, no mutants (each has a digest of its own), nor what
/// plants and counts them.
fn digest(root: &Path) -> Result<u32> {
    let mut digest = 0;
    let apart = ["tests/", "sim/mutants/", "sim/src/mutants/"];
    let matters =
        |file: &String| !file.ends_with(".md") && !apart.iter().any(|apart| file.starts_with(apart));
    for file in sources(root)?.into_iter().filter(matters) {
        digest = crc32c::crc32c_append(digest, file.as_bytes());
        digest = crc32c::crc32c_append(digest, &fs::read(root.join(file))?);
    }
    Ok(digest)
}

/// Where cargo builds this workspace.
pub(crate) fn target_directory(root: &Path) -> PathBuf {
    // This program lies in it, two levels down.
    let own = std::env::current_exe().ok().and_then(|program| Some(program.parent()?.parent()?.to_owned()));
    own.unwrap_or_else(|| root.join("target"))
}

/// What does not change (the libraries of others) is compiled already in `target`: into the target folder `other` it comes
/// by links, which cost nothing.
pub(crate) fn share_libraries(target: &Path, other: &Path) -> io::Result<()> {
    for (part, share) in [("deps", Share::Link), ("build", Share::Link), (".fingerprint", Share::Copy)] {
        let part = Path::new("debug").join(part);
        share_all(&target.join(&part), &other.join(&part), share)?;
    }
    Ok(())
}

#[derive(Clone, Copy)]
enum Share {
    Link,
    /// With its time: cargo writes into these where they lie.
    Copy,
}

/// Every file below `from` comes below `to`, but for those of our own crates: they are compiled anew in any case.
fn share_all(from: &Path, to: &Path, share: Share) -> io::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let (from, to) = (entry.path(), to.join(entry.file_name()));
        if entry.file_name().to_string_lossy().contains("gracchus") {
            continue;
        }
        match (entry.file_type()?, share) {
            (kind, _) if kind.is_dir() => share_all(&from, &to, share)?,
            (kind, _) if !kind.is_file() => {}
            (_, Share::Link) => fs::hard_link(&from, &to)?,
            (_, Share::Copy) => {
                fs::copy(&from, &to)?;
                fs::File::options().write(true).open(&to)?.set_modified(entry.metadata()?.modified()?)?;
            }
        }
    }
    Ok(())
}
