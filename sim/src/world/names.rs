//! The directory tree of one simulated disk: names as the kernel shows them, and names as they are on the platter.
//!
//! Each creation, rename and removal is one change that is durable once its directory has been synced. At a power loss
//! every change that is not durable happened or did not, independently of the others; a rename is one change.
//!
//! Never: a name made durable by syncing the file that it leads to.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    path::{Component, Path},
    sync::{Arc, Mutex},
};

use rand::{Rng, rngs::SmallRng};

use super::{
    content::{Content, Harshest},
    lock,
};

/// A file, whatever its names are.
#[derive(Debug)]
pub(crate) struct Inode {
    pub(crate) number: u64,
    pub(crate) content: Mutex<Content>,
}

#[derive(Debug, Clone)]
pub(crate) enum Entry {
    File(Arc<Inode>),
    Directory(u64),
}

#[derive(Debug, Default)]
struct Directory {
    current: BTreeMap<String, Entry>,
    durable: BTreeMap<String, Entry>,
}

/// One change of names that the platter does not have yet.
#[derive(Debug)]
struct Change {
    number: u64,
    remove: Option<(u64, String)>,
    insert: Option<(u64, String, Entry)>,
}

#[derive(Debug)]
pub(crate) struct Names {
    directories: BTreeMap<u64, Directory>,
    pending: Vec<Change>,
    next: u64,
}

const ROOT: u64 = 0;

impl Names {
    pub(crate) fn new() -> Self {
        Self { directories: BTreeMap::from([(ROOT, Directory::default())]), pending: Vec::new(), next: 1 }
    }

    pub(crate) fn find(&self, path: &Path) -> Option<Entry> {
        let mut entry = Entry::Directory(ROOT);
        for name in parts(path) {
            let Entry::Directory(number) = entry else { return None };
            entry = self.directories[&number].current.get(name)?.clone();
        }
        Some(entry)
    }

    /// The names in a directory, sorted.
    pub(crate) fn list(&self, path: &Path) -> io::Result<Vec<(String, Entry)>> {
        let number = self.directory(path)?;
        let names = &self.directories[&number].current;
        Ok(names.iter().map(|(name, entry)| (name.clone(), entry.clone())).collect())
    }

    /// The numbers of all files that have a name.
    pub(crate) fn files(&self) -> BTreeSet<u64> {
        let entries = self.directories.values().flat_map(|directory| directory.current.values());
        let file = |entry: &Entry| match entry {
            Entry::File(inode) => Some(inode.number),
            Entry::Directory(_) => None,
        };
        entries.filter_map(file).collect()
    }

    pub(crate) fn create_file(&mut self, path: &Path) -> io::Result<Arc<Inode>> {
        let (parent, name) = self.parent(path)?;
        let file = Arc::new(Inode { number: self.number(), content: Mutex::default() });
        self.change(None, Some((parent, name, Entry::File(file.clone()))));
        Ok(file)
    }

    /// Creates the directory and those above it.
    pub(crate) fn create_directories(&mut self, path: &Path) -> io::Result<()> {
        let mut at = ROOT;
        for name in parts(path) {
            at = match self.directories[&at].current.get(name) {
                Some(Entry::Directory(number)) => *number,
                Some(Entry::File(_)) => return Err(io::ErrorKind::NotADirectory.into()),
                None => {
                    let number = self.number();
                    self.directories.insert(number, Directory::default());
                    self.change(None, Some((at, name.to_owned(), Entry::Directory(number))));
                    number
                }
            };
        }
        Ok(())
    }

    pub(crate) fn rename(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        let entry = self.find(from).ok_or(io::ErrorKind::NotFound)?;
        let (from_parent, from_name) = self.parent(from)?;
        let (to_parent, to_name) = self.parent(to)?;
        if (from_parent, &from_name) == (to_parent, &to_name) {
            return Ok(());
        }
        match (&entry, self.directories[&to_parent].current.get(&to_name)) {
            (Entry::File(_), Some(Entry::Directory(_))) => return Err(io::ErrorKind::IsADirectory.into()),
            (Entry::Directory(_), Some(Entry::File(_))) => return Err(io::ErrorKind::NotADirectory.into()),
            (Entry::Directory(_), Some(Entry::Directory(number)))
                if !self.directories[number].current.is_empty() =>
            {
                return Err(io::ErrorKind::DirectoryNotEmpty.into());
            }
            _ => {}
        }
        self.change(Some((from_parent, from_name)), Some((to_parent, to_name, entry)));
        Ok(())
    }

    pub(crate) fn remove_file(&mut self, path: &Path) -> io::Result<()> {
        match self.find(path) {
            Some(Entry::File(_)) => {
                let name = self.parent(path)?;
                self.change(Some(name), None);
                Ok(())
            }
            Some(Entry::Directory(_)) => Err(io::ErrorKind::IsADirectory.into()),
            None => Ok(()),
        }
    }

    /// Removes a directory and all that it holds, name by name.
    pub(crate) fn remove_directory(&mut self, path: &Path) -> io::Result<()> {
        for (name, entry) in self.list(path)? {
            match entry {
                Entry::File(_) => self.remove_file(&path.join(name))?,
                Entry::Directory(_) => self.remove_directory(&path.join(name))?,
            }
        }
        let name = self.parent(path)?;
        self.change(Some(name), None);
        Ok(())
    }

    /// A sync of a directory begins; what it covers.
    pub(crate) fn sync_begin(&self, path: &Path) -> io::Result<(u64, u64)> {
        Ok((self.directory(path)?, self.next))
    }

    pub(crate) fn sync_end(&mut self, (directory, covers): (u64, u64)) {
        let (durable, pending) = std::mem::take(&mut self.pending)
            .into_iter()
            .partition(|change| change.number < covers && change.touches(directory));
        self.pending = pending;
        for change in durable {
            self.make_durable(change);
        }
    }

    /// The power fails: each pending change has reached the platter with `probability`. Returns how many had not.
    pub(crate) fn power_loss(&mut self, probability: f64, random: &mut SmallRng) -> u64 {
        let mut lost = 0;
        for change in std::mem::take(&mut self.pending) {
            if random.random_bool(probability) {
                self.make_durable(change);
            } else {
                lost += 1;
            }
        }
        for directory in self.directories.values_mut() {
            directory.current = directory.durable.clone();
        }
        let reachable = self.walk().into_iter().map(|(_, entry)| entry);
        let mut alive: Vec<u64> = reachable
            .filter_map(|entry| match entry {
                Entry::Directory(number) => Some(number),
                Entry::File(_) => None,
            })
            .collect();
        alive.push(ROOT);
        self.directories.retain(|number, _| alive.contains(number));
        lost
    }

    /// The names in a directory as a power loss like `harshest` would leave them; `None`: not even the directory.
    pub(crate) fn remains(&self, path: &Path, harshest: Harshest) -> Option<BTreeMap<String, Entry>> {
        let mut names = self.remaining(ROOT, harshest);
        for part in parts(path) {
            let Some(Entry::Directory(number)) = names.get(part) else { return None };
            names = self.remaining(*number, harshest);
        }
        Some(names)
    }

    fn remaining(&self, directory: u64, harshest: Harshest) -> BTreeMap<String, Entry> {
        let mut names =
            self.directories.get(&directory).map(|names| names.durable.clone()).unwrap_or_default();
        if harshest != Harshest::Taken {
            return names;
        }
        for Change { remove, insert, .. } in self.pending.iter().filter(|change| change.remove.is_some()) {
            if let Some((_, name)) = remove.as_ref().filter(|(number, _)| *number == directory) {
                names.remove(name);
            }
            if let Some((_, name, entry)) = insert.as_ref().filter(|(number, ..)| *number == directory) {
                names.insert(name.clone(), entry.clone());
            }
        }
        names
    }

    /// Everything there is with its path, parents before children, sorted.
    pub(crate) fn walk(&self) -> Vec<(String, Entry)> {
        let mut found = Vec::new();
        let mut open = vec![(String::new(), ROOT)];
        while let Some((prefix, number)) = open.pop() {
            for (name, entry) in &self.directories[&number].current {
                let path = format!("{prefix}/{name}");
                if let Entry::Directory(number) = entry {
                    open.push((path.clone(), *number));
                }
                found.push((path, entry.clone()));
            }
        }
        found.sort_by(|(a, _), (b, _)| a.cmp(b));
        found
    }

    /// Bytes in all files that have a name.
    pub(crate) fn used(&self) -> u64 {
        let length = |entry: &Entry| match entry {
            Entry::File(inode) => lock(&inode.content).length(),
            Entry::Directory(_) => 0,
        };
        self.walk().iter().map(|(_, entry)| length(entry)).sum()
    }

    fn change(&mut self, remove: Option<(u64, String)>, insert: Option<(u64, String, Entry)>) {
        if let Some((directory, name)) = &remove {
            self.entries(*directory).remove(name);
        }
        if let Some((directory, name, entry)) = &insert {
            self.entries(*directory).insert(name.clone(), entry.clone());
        }
        let number = self.number();
        self.pending.push(Change { number, remove, insert });
    }

    fn make_durable(&mut self, change: Change) {
        if let Some((directory, name)) = change.remove
            && let Some(directory) = self.directories.get_mut(&directory)
        {
            directory.durable.remove(&name);
        }
        if let Some((directory, name, entry)) = change.insert
            && let Some(directory) = self.directories.get_mut(&directory)
        {
            directory.durable.insert(name, entry);
        }
    }

    fn entries(&mut self, directory: u64) -> &mut BTreeMap<String, Entry> {
        &mut self.directories.get_mut(&directory).expect("directories are kept while the power lasts").current
    }

    fn directory(&self, path: &Path) -> io::Result<u64> {
        match self.find(path) {
            Some(Entry::Directory(number)) => Ok(number),
            Some(Entry::File(_)) => Err(io::ErrorKind::NotADirectory.into()),
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }

    fn parent(&self, path: &Path) -> io::Result<(u64, String)> {
        let name = parts(path).last().ok_or(io::ErrorKind::InvalidInput)?.to_owned();
        let parent = self.directory(path.parent().unwrap_or(Path::new("")))?;
        Ok((parent, name))
    }

    fn number(&mut self) -> u64 {
        let number = self.next;
        self.next += 1;
        number
    }
}

impl Change {
    fn touches(&self, directory: u64) -> bool {
        self.remove.as_ref().is_some_and(|(number, _)| *number == directory)
            || self.insert.as_ref().is_some_and(|(number, ..)| *number == directory)
    }
}

/// The components of a path; a relative one starts at the root too.
fn parts(path: &Path) -> impl Iterator<Item = &str> {
    path.components().filter_map(|component| match component {
        Component::Normal(name) => name.to_str(),
        Component::Prefix(_) | Component::RootDir | Component::CurDir | Component::ParentDir => None,
    })
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;

    use super::*;

    fn names(names: &Names, path: &str) -> Vec<String> {
        names
            .list(Path::new(path))
            .map(|list| list.into_iter().map(|(name, _)| name).collect())
            .unwrap_or_default()
    }

    fn sync(names: &mut Names, path: &str) {
        let covers = names.sync_begin(Path::new(path)).expect("the directory exists");
        names.sync_end(covers);
    }

    #[test]
    fn a_name_is_durable_only_after_its_directory_was_synced() {
        let mut tree = Names::new();
        tree.create_directories(Path::new("/data/a")).expect("creates");
        sync(&mut tree, "/");
        sync(&mut tree, "/data");
        tree.create_file(Path::new("/data/a/x")).expect("creates");
        let covers = tree.sync_begin(Path::new("/data/a")).expect("begins");
        tree.create_file(Path::new("/data/a/y")).expect("creates");
        tree.sync_end(covers);
        tree.power_loss(0.0, &mut SmallRng::seed_from_u64(0));
        assert_eq!(names(&tree, "/data/a"), ["x"], "y came after the sync had begun");
    }

    #[test]
    fn an_unsynced_rename_leaves_the_old_or_the_new_name_but_never_both() {
        let mut seen = std::collections::BTreeSet::new();
        for seed in 0..40 {
            let mut tree = Names::new();
            tree.create_file(Path::new("/old")).expect("creates");
            sync(&mut tree, "/");
            tree.rename(Path::new("/old"), Path::new("/new")).expect("renames");
            tree.power_loss(0.5, &mut SmallRng::seed_from_u64(seed));
            seen.insert(names(&tree, "/"));
        }
        assert_eq!(seen.into_iter().collect::<Vec<_>>(), [["new"], ["old"]]);
    }

    #[test]
    fn what_a_power_loss_would_leave_is_told_without_one() {
        let mut tree = Names::new();
        for name in ["/a", "/b", "/new.tmp"] {
            tree.create_file(Path::new(name)).expect("creates");
        }
        let left = |tree: &Names, harshest| {
            let names = tree.remains(Path::new("/"), harshest).expect("the root is there");
            names.into_keys().collect::<Vec<_>>()
        };
        assert!(left(&tree, Harshest::Dropped).is_empty());
        sync(&mut tree, "/");
        tree.remove_file(Path::new("/b")).expect("removes");
        tree.create_file(Path::new("/c")).expect("creates");
        tree.rename(Path::new("/new.tmp"), Path::new("/a")).expect("renames");
        assert_eq!(left(&tree, Harshest::Dropped), ["a", "b", "new.tmp"]);
        assert_eq!(left(&tree, Harshest::Taken), ["a"]);
        assert_eq!(names(&tree, "/"), ["a", "c"], "nothing has happened");
        assert!(tree.remains(Path::new("/nowhere"), Harshest::Dropped).is_none());
    }

    #[test]
    fn a_directory_whose_name_is_lost_takes_all_below_it_along() {
        let mut tree = Names::new();
        tree.create_directories(Path::new("/data/a")).expect("creates");
        tree.create_file(Path::new("/data/a/x")).expect("creates");
        sync(&mut tree, "/data/a");
        tree.power_loss(0.0, &mut SmallRng::seed_from_u64(0));
        assert!(names(&tree, "/").is_empty());
    }

    #[test]
    fn removing_a_directory_takes_its_children_first() {
        let mut tree = Names::new();
        tree.create_directories(Path::new("/a/b")).expect("creates");
        tree.create_file(Path::new("/a/b/x")).expect("creates");
        assert!(tree.remove_file(Path::new("/a/b")).is_err());
        tree.remove_directory(Path::new("/a")).expect("removes");
        assert!(tree.find(Path::new("/a")).is_none());
        assert!(tree.find(Path::new("/a/b/x")).is_none());
        assert_eq!(
            tree.rename(Path::new("/a"), Path::new("/c")).unwrap_err().kind(),
            io::ErrorKind::NotFound
        );
    }
}
