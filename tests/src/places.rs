//! Where tests find the project and put their files. Never anywhere but under the target folder.
#![allow(clippy::disallowed_methods, reason = "tests work with real files")]

use std::{
    path::{Path, PathBuf},
    sync::atomic::{AtomicU32, Ordering},
};

/// The shipped code.
pub const SHIPPED: [&str; 6] = [
    "broker/core/src",
    "broker/env/src",
    "broker/common/src",
    "broker/log/src",
    "broker/quorum/src",
    "broker/src",
];

/// The root of the workspace.
pub fn workspace() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the crate lies one level below the root")
}

/// A new empty directory, removed on drop unless the test panics: then its place is printed and it stays.
#[derive(Debug)]
pub struct Scratch(PathBuf);

impl Scratch {
    /// `name` helps the reader of a failure to find it.
    pub fn new(name: &str) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("{name}-{}-{number}", std::process::id());
        let path = super::program::target_directory().join("tmp").join(name);
        let _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir_all(&path).expect("the target folder can be written");
        Self(path)
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Scratch {
    #[allow(clippy::print_stderr, reason = "for the reader of a failure")]
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the files of this test stay in {}", self.0.display());
        } else {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }
}

/// The project's own prose and source as test data: real text of different lengths, in a fixed order.
pub fn real_texts() -> Vec<(String, Vec<u8>)> {
    let mut files = Vec::new();
    for place in ["README.md", "CHANGELOG.md", "Cargo.lock", "broker/ARCHITECTURE.md"] {
        files.push(workspace().join(place));
    }
    for folder in ["broker/core/src", "broker/env/src", "broker/log/src", "tests/src"] {
        rust_files(&workspace().join(folder), &mut files);
    }
    let mut texts = Vec::new();
    for file in files {
        let Ok(contents) = std::fs::read(&file) else { continue };
        let name = file.strip_prefix(workspace()).expect("inside").to_string_lossy().into_owned();
        texts.push((name, contents));
    }
    let total: usize = texts.iter().map(|(_, contents)| contents.len()).sum();
    assert!(total > 100_000, "only {total} bytes of text were found");
    texts
}

/// All `.rs` files under `folder`, sorted.
pub fn rust_files(folder: &Path, into: &mut Vec<PathBuf>) {
    let Ok(entries) = std::fs::read_dir(folder) else { return };
    let mut paths: Vec<_> = entries.map(|entry| entry.expect("readable").path()).collect();
    paths.sort();
    for path in paths {
        if path.is_dir() {
            rust_files(&path, into);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            into.push(path);
        }
    }
}
