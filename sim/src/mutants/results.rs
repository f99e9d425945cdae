//! What was found so far, on disk, so that a long run can be interrupted and resumed. Never: a result that outlives the
//! code or the change that it speaks of; the file's name says of which code it is, each result of which change.

use std::{collections::BTreeMap, fs, path::PathBuf};

use anyhow::Result;
use serde::{Serialize, de::DeserializeOwned};

pub(super) struct Results<T> {
    path: PathBuf,
    pub(super) found: BTreeMap<String, T>,
}

impl<T: Serialize + DeserializeOwned> Results<T> {
    /// What is in the file at `path`, unless all is to be found anew.
    pub(super) fn open(path: PathBuf, fresh: bool) -> Self {
        let known = if fresh { None } else { fs::read(&path).ok() };
        let found = known.and_then(|text| serde_json::from_slice(&text).ok()).unwrap_or_default();
        Self { path, found }
    }

    pub(super) fn add(&mut self, name: &str, found: T) -> Result<()> {
        self.found.insert(name.to_owned(), found);
        // Replaced at once, or an interruption would cost all that is known.
        let new = self.path.with_extension("new");
        fs::write(&new, serde_json::to_vec(&self.found)?)?;
        fs::rename(&new, &self.path)?;
        Ok(())
    }
}
