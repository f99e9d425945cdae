//! Tells the program which commit it was built from, for `--version`.
//!
//! A release build asks git, or takes `GRACCHUS_COMMIT` where there is none (a tarball, a container); without either the
//! version stands alone. Other builds have no commit, because each commit would compile the broker anew. Never: the
//! network; a failure; the commit of a repository that only happens to lie around these sources.

#![allow(clippy::print_stdout, reason = "this is how cargo is told")]

use std::{env, path::Path, process::Command};

fn main() {
    println!("cargo:rerun-if-env-changed=GRACCHUS_COMMIT");
    println!("cargo:rerun-if-changed=build.rs");
    let version = env::var("CARGO_PKG_VERSION").expect("cargo says it");
    let given = env::var("GRACCHUS_COMMIT").ok().map(|commit| commit.trim().to_owned());
    let is_release = env::var("PROFILE").is_ok_and(|profile| profile == "release");
    let asked = || if is_release { commit() } else { None };
    let commit = given.filter(|commit| !commit.is_empty()).or_else(asked);
    let text = commit.map_or(version.clone(), |commit| format!("{version} ({commit})"));
    println!("cargo:rustc-env=GRACCHUS_VERSION={text}");
}

/// The commit that is checked out, and whether the sources differ from it.
fn commit() -> Option<String> {
    let sources = Path::new(&env::var_os("CARGO_MANIFEST_DIR")?).parent()?.canonicalize().ok()?;
    let git = |arguments: &[&str]| {
        let output = Command::new("git").arg("-C").arg(&sources).args(arguments).output().ok()?;
        let text = String::from_utf8(output.stdout).ok()?;
        output.status.success().then(|| text.trim().to_owned())
    };
    let top = git(&["rev-parse", "--show-toplevel"])?;
    if Path::new(&top).canonicalize().ok()? != sources {
        return None;
    }
    // What moves with every commit and checkout, and what a change of the sources touches.
    for place in ["HEAD", "logs/HEAD"] {
        let path = sources.join(git(&["rev-parse", "--git-path", place])?);
        if path.exists() {
            println!("cargo:rerun-if-changed={}", path.display());
        }
    }
    for place in ["Cargo.lock", "Cargo.toml", "broker"] {
        println!("cargo:rerun-if-changed={}", sources.join(place).display());
    }
    let commit = git(&["rev-parse", "--short=12", "HEAD"])?;
    let changed = git(&["status", "--porcelain", "--untracked-files=no"])?;
    Some(if changed.is_empty() { commit } else { format!("{commit}, changed") })
}
