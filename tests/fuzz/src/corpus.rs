//! The inputs that every run begins with: made of valid encodings by the targets, and kept in `corpus/<target>/`.
//!
//! `seed-…` files are written by `cargo fuzz-decoders seeds` and hold what the encoders of that day made: formats of ours
//! that must still be read. Everything else there was found by fuzzing and once broke something. Never: an input that
//! only one machine has.
#![allow(clippy::disallowed_methods, reason = "a tool that keeps files")]

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use crate::Target;

/// A valid input and what it is.
pub type Seed = (String, Vec<u8>);

/// Where the inputs of `target` are kept.
pub fn corpus_directory(target: &Target) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target.name)
}

/// All inputs of `target`, those in its directory first, by name.
pub fn corpus(target: &Target) -> Vec<Seed> {
    let mut paths: Vec<PathBuf> = fs::read_dir(corpus_directory(target))
        .map(|entries| entries.map(|entry| entry.expect("readable").path()).collect())
        .unwrap_or_default();
    paths.sort();
    let mut inputs: Vec<Seed> =
        paths.iter().map(|path| (name(path), fs::read(path).expect("a readable file"))).collect();
    inputs.extend((target.seeds)());
    inputs
}

fn name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// Writes the seeds of `target` in place of those that are there, if they are worth keeping. How many.
///
/// # Errors
/// The file system's.
pub fn write_seeds(target: &Target) -> io::Result<usize> {
    if !target.ours {
        return Ok(0);
    }
    let directory = corpus_directory(target);
    fs::create_dir_all(&directory)?;
    for entry in fs::read_dir(&directory)? {
        let path = entry?.path();
        if name(&path).starts_with("seed-") {
            fs::remove_file(path)?;
        }
    }
    let seeds = (target.seeds)();
    for (name, input) in &seeds {
        fs::write(directory.join(format!("seed-{name}")), input)?;
    }
    Ok(seeds.len())
}
