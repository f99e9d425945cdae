//! A bounded cache of open files, least recently used out first, so that history costs no file handles.
//!
//! A handle that somebody still holds stays good after it left the cache. Whoever removes or renames a file says so
//! here, before the name can mean another file.
//!
//! Never: hand out a handle that was opened under a name before that name was forgotten.

use std::{
    io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard},
};

use gracchus_env::{Env, File, Open};
use lru::LruCache;

/// Open files by path.
#[derive(Debug)]
pub struct FileCache {
    env: Arc<dyn Env>,
    capacity: usize,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// Never more than the capacity, which is not reserved: it may be large.
    files: LruCache<PathBuf, Arc<dyn File>>,
    /// Counts calls that forget, so that an open that was under way meanwhile is not cached.
    forgotten: u64,
}

impl State {
    fn insert(&mut self, path: PathBuf, file: Arc<dyn File>, capacity: usize) {
        self.files.put(path, file);
        while self.files.len() > capacity {
            gracchus_env::moment!(FILE_HANDLE_EVICTED);
            self.files.pop_lru();
        }
    }
}

impl FileCache {
    /// A cache that keeps at most `capacity` files open, at least one.
    pub fn new(env: Arc<dyn Env>, capacity: usize) -> Self {
        let state = State { files: LruCache::unbounded(), forgotten: 0 };
        Self { env, capacity: capacity.max(1), state: Mutex::new(state) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("nobody panics while holding it")
    }

    /// The file at `path`, if it is open. Costs no hop.
    pub fn get(&self, path: &Path) -> Option<Arc<dyn File>> {
        self.state().files.get(path).cloned()
    }

    /// The existing file at `path`, opened if need be.
    pub async fn open(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        let forgotten = {
            let mut state = self.state();
            if let Some(file) = state.files.get(path) {
                return Ok(file.clone());
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
        state.files.pop(path);
    }

    /// The same for everything below `directory`.
    pub fn forget_directory(&self, directory: &Path) {
        let mut state = self.state();
        state.forgotten += 1;
        state.files.retain(|path, _| !path.starts_with(directory));
    }
}
