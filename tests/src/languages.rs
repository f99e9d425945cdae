//! Client libraries of other languages, installed once into `.peers/`, which Git ignores. Which versions, stands in the
//! usual files of each language under `tests/`.
#![allow(clippy::disallowed_methods, reason = "tests work with real processes and files")]

use std::{
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use super::{places::workspace, toolchain};

/// The start of a command line: a program and its first arguments.
pub type Words = Vec<OsString>;

/// Runs a script of `tests/python` with the packages of its `requirements.txt`. Nothing after a loud notice that `what`
/// was not run.
///
/// # Panics
/// When Python or a package is missing and everything is required; the same below.
pub fn python(script: &str, what: &str) -> Option<Words> {
    let python = toolchain::find("python3", what)?;
    let (home, source) = (peers("python"), workspace().join("tests/python"));
    let requirements = source.join("requirements.txt");
    let installed = once(&home, &requirements, || {
        run(Command::new(python).args(["-m", "venv"]).arg(&home))?;
        let mut pip = Command::new(home.join("bin/python"));
        run(pip
            .args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-r"])
            .arg(&requirements))
    });
    said(installed, what)?;
    Some(vec![home.join("bin/python").into(), source.join(script).into()])
}

/// Runs a script of `tests/node` with the packages of its `package-lock.json`.
pub fn node(script: &str, what: &str) -> Option<Words> {
    let node = toolchain::find("node", what)?;
    let npm = toolchain::find("npm", what)?;
    let (home, source) = (peers("node"), workspace().join("tests/node"));
    let copy =
        |name: &str| fs::copy(source.join(name), home.join(name)).map_err(|error| format!("{name}: {error}"));
    let installed = once(&home, &source.join("package-lock.json"), || {
        copy("package.json")?;
        copy("package-lock.json")?;
        run(Command::new(npm).args(["ci", "--no-audit", "--no-fund"]).current_dir(&home))
    });
    // Packages are looked for beside the script.
    said(installed.and_then(|()| copy(script)), what)?;
    Some(vec![node.into(), home.join(script).into()])
}

/// Builds and runs the Go program in `tests/go`.
pub fn go(what: &str) -> Option<Words> {
    build_go("go", "franz", what)
}

/// Builds and runs the Go program in the folder of its name under `tests`.
pub fn go_program(name: &str, what: &str) -> Option<Words> {
    build_go(name, name, what)
}

fn build_go(folder: &str, name: &str, what: &str) -> Option<Words> {
    let go = toolchain::find("go", what)?;
    let program = peers("go").join(name);
    let mut build = Command::new(go);
    build.args(["build", "-mod=readonly", "-o"]).arg(&program).arg(".");
    said(run(build.current_dir(workspace().join("tests").join(folder))), what)?;
    Some(vec![program.into()])
}

fn peers(name: &str) -> PathBuf {
    workspace().join(".peers").join(name)
}

/// Installs what `list` names into `home`, unless that has been done.
fn once(home: &Path, list: &Path, install: impl FnOnce() -> Result<(), String>) -> Result<(), String> {
    let wanted = fs::read(list).map_err(|error| format!("{}: {error}", list.display()))?;
    let stamp = home.join("installed");
    if fs::read(&stamp).is_ok_and(|found| found == wanted) {
        return Ok(());
    }
    let _ = fs::remove_dir_all(home);
    fs::create_dir_all(home).map_err(|error| error.to_string())?;
    install()?;
    fs::write(&stamp, wanted).map_err(|error| error.to_string())
}

fn run(command: &mut Command) -> Result<(), String> {
    let output = command.output().map_err(|error| error.to_string())?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!("{command:?} failed: {}", String::from_utf8_lossy(&output.stderr).trim()))
}

fn said<T>(installed: Result<T, String>, what: &str) -> Option<T> {
    installed.map_err(|reason| toolchain::not_run(what, &reason)).ok()
}
