//! A bounded cache of open files, least recently used out first, so that history costs no file handles.
//!
//! A handle that somebody still holds stays good after it left the cache. Whoever removes or renames a file says so
//! here, before the name can mean another file.
//!
//! Never: hand out a handle that was opened under a name before that name was forgotten.

use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard},
};

use gracchus_env::{Env, File, Open};

/// Open files by path.
#[derive(Debug)]
pub struct FileCache {
    env: Arc<dyn Env>,
    capacity: usize,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    files: BTreeMap<PathBuf, Entry>,
    /// Tick of last use → path.
    uses: BTreeMap<u64, PathBuf>,
    tick: u64,
    /// Counts calls that forget, so that an open that was under way meanwhile is not cached.
    forgotten: u64,
}

#[derive(Debug)]
struct Entry {
    file: Arc<dyn File>,
    used: u64,
}

impl State {
    fn touch(&mut self, path: &Path) -> Option<Arc<dyn File>> {
        let entry = self.files.get_mut(path)?;
        self.tick += 1;
        let path = self.uses.remove(&entry.used).expect("both maps hold the same files");
        self.uses.insert(self.tick, path);
        entry.used = self.tick;
        Some(entry.file.clone())
    }

    fn insert(&mut self, path: PathBuf, file: Arc<dyn File>, capacity: usize) {
        self.remove(&path);
        self.tick += 1;
        self.uses.insert(self.tick, path.clone());
        self.files.insert(path, Entry { file, used: self.tick });
        while self.files.len() > capacity {
            let (_, oldest) = self.uses.pop_first().expect("both maps hold the same files");
            self.files.remove(&oldest);
        }
    }

    fn remove(&mut self, path: &Path) {
        if let Some(entry) = self.files.remove(path) {
            self.uses.remove(&entry.used);
        }
    }
}

impl FileCache {
    /// A cache that keeps at most `capacity` files open, at least one.
    pub fn new(env: Arc<dyn Env>, capacity: usize) -> Self {
        Self { env, capacity: capacity.max(1), state: Mutex::default() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("nobody panics while holding it")
    }

    /// The file at `path`, if it is open. Costs no hop.
    pub fn get(&self, path: &Path) -> Option<Arc<dyn File>> {
        self.state().touch(path)
    }

    /// The existing file at `path`, opened if need be.
    pub async fn open(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        let forgotten = {
            let mut state = self.state();
            if let Some(file) = state.touch(path) {
                return Ok(file);
            }
            state.forgotten
        };
        let file = self.env.disk().open(path, Open::Existing).await?;
        let mut state = self.state();
        if state.forgotten == forgotten {
            state.insert(path.to_owned(), file.clone(), self.capacity);
        }
        Ok(file)
    }

    /// Keeps a file that the caller opened, for example a segment that was just sealed.
    pub fn insert(&self, path: PathBuf, file: Arc<dyn File>) {
        self.state().insert(path, file, self.capacity);
    }

    /// `path` was, or is about to be, removed or renamed.
    pub fn forget(&self, path: &Path) {
        let mut state = self.state();
        state.forgotten += 1;
        state.remove(path);
    }

    /// The same for everything below `directory`.
    pub fn forget_directory(&self, directory: &Path) {
        let mut state = self.state();
        state.forgotten += 1;
        // Paths sort by component, so what lies below a directory follows it.
        let below = state.files.range(directory.to_owned()..).map(|(path, _)| path);
        let below: Vec<PathBuf> = below.take_while(|path| path.starts_with(directory)).cloned().collect();
        for path in below {
            state.remove(&path);
        }
    }
}
