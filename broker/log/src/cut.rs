//! Taking things away from a log: its end, when a replica learns that others committed something else; or all of it.
//!
//! A reader that holds a range keeps its bytes: a segment that is cut is replaced by a shorter copy under the same name,
//! a log that is deleted is renamed first. Never: a cut that a replay of the journal could undo.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use gracchus_core::Offset;
use gracchus_env::{File, Op, Open};

use super::{
    LogId, directory::LogDirectory, error::StorageError, flusher::Forget, log::Log, names, opening::Opening,
    segment::Life, view::LogView,
};

/// Bytes copied at a time.
const COPY_BLOCK: usize = 1 << 20;

impl Log {
    /// Cuts the log so that it ends at `offset`, or where the batch begins that holds `offset`; does nothing if it ends
    /// there already. Indexes, leader epochs and producers are cut with it. Durable when this returns.
    ///
    /// # Panics
    /// If batches are staged.
    pub async fn truncate_to(&mut self, offset: Offset) -> Result<Arc<LogView>, StorageError> {
        self.begin_cut()?;
        let view = self.view();
        if offset < view.log_end {
            self.cut_at(&view, offset.max(view.log_start)).await?;
        }
        self.end_cut();
        Ok(self.view())
    }

    async fn cut_at(&mut self, view: &LogView, offset: Offset) -> Result<(), StorageError> {
        let number = view.sealed.partition_point(|segment| segment.next_offset <= offset);
        let segment = view.sealed.get(number).unwrap_or(&view.active);
        let (position, end) = match segment.locate(offset).await? {
            Some(batch) => (batch.position, batch.base.min(offset)),
            None => (segment.size, offset),
        };
        gracchus_env::moment!(LOG_TRUNCATED);
        let path = segment.segment.file_path(names::LOG);
        let copy = names::temporary(&path);
        self.copy_start(&segment.segment.file().await?, &copy, position).await?;
        let mut ops = Vec::new();
        for later in
            view.sealed.iter().skip(number + 1).chain((number < view.sealed.len()).then_some(&view.active))
        {
            // One after the other also on the disk, so that a hole is never the trace of a cut.
            ops.push(Op::SyncDir { path: self.path.to_path_buf() });
            for kind in [names::INDEX, names::TIME_INDEX, names::LOG] {
                ops.push(Op::RemoveFile { path: later.segment.file_path(kind) });
            }
            self.directory.files().forget(&later.segment.file_path(names::LOG));
        }
        // From the last to the first: what a crash leaves has no hole.
        ops.reverse();
        ops.push(Op::Rename { from: copy, to: path.clone() });
        ops.push(Op::SyncDir { path: self.path.to_path_buf() });
        let base = segment.base();
        let id = self.id.clone();
        self.life.end();
        let forget = Forget { id, segment_base: base, position, end_offset: Some(end), ops };
        self.directory.flusher().forget(forget).await?;
        self.directory.files().forget(&path);
        self.reopen(end).await
    }

    /// Copies the first `length` bytes of a segment into a new, synced file.
    async fn copy_start(&self, from: &Arc<dyn File>, to: &Path, length: u64) -> Result<(), StorageError> {
        let failed = |error: io::Error| self.fail(&error, "copying a segment");
        let disk = self.directory.env().disk();
        let open = || disk.open(to, Open::OrCreate);
        let file = self.directory.handles().patiently("a cut", open).await.map_err(failed)?;
        disk.submit(vec![Op::Truncate { file: file.clone(), length: 0 }]).await.map_err(failed)?;
        let mut position = 0;
        while position < length {
            let block = usize::try_from(length - position).unwrap_or(usize::MAX).min(COPY_BLOCK);
            let bytes = from.read_at(position, block).await.map_err(failed)?;
            if bytes.is_empty() {
                return Err(StorageError::corrupt(format!("{} ends at {position}", to.display())));
            }
            let write = Op::WriteAt { file: file.clone(), offset: position, buffers: vec![bytes.clone()] };
            disk.submit(vec![write]).await.map_err(failed)?;
            position += bytes.len() as u64;
        }
        disk.submit(vec![Op::Sync { file }]).await.map_err(failed)
    }

    /// Takes up the log again after its files have been changed, trusting what is left of it.
    async fn reopen(&mut self, end: Offset) -> Result<(), StorageError> {
        let (directory, id, config, path) =
            (self.directory.clone(), self.id.clone(), self.config.clone(), self.path.clone());
        let opening =
            Opening { directory: &directory, id: &id, config: &config, path: &path, life: Life::default() };
        // Half-way through a cut there is no way back.
        let parts = directory.handles().persistently("a cut", || async {
            let gone = || StorageError::corrupt(format!("{} is gone", path.display()));
            let found = opening.list().await?.ok_or_else(gone)?;
            Ok(opening.repair(found, Some(end), None).await?.0)
        });
        let parts = parts.await?;
        let flushed_end = self.flushed_end;
        *self = Self::assemble(directory, id, config, path, parts);
        // What was written and not synced before the cut is no safer behind it.
        self.flushed_end = flushed_end.min(self.flushed_end);
        self.publish();
        Ok(())
    }

    /// Takes the log away, durably: its directory gets the name under which it waits for its removal, which is returned.
    /// Ranges that somebody holds can still be read; views answer [`StorageError::Superseded`] once they would have to
    /// open a file.
    pub async fn retire(self) -> Result<PathBuf, StorageError> {
        self.life.end();
        set_aside(&self.directory, &self.id, Fate::Deleted).await
    }
}

/// What becomes of a directory that no log may have any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// Its topic was deleted: it waits for its removal.
    Deleted,
    /// Nobody knows its topic: it is kept for somebody who does.
    Stray,
}

/// Takes the directory of a log that nobody has open out of the way, durably: what the journal holds of the log is void,
/// nothing speaks for it any more, and its directory has the name that is returned. A later log of the same partition
/// name finds nothing of it.
pub async fn set_aside(directory: &LogDirectory, id: &LogId, fate: Fate) -> Result<PathBuf, StorageError> {
    let env = directory.env();
    let path = directory.path().join(id.tp.to_string());
    let unique = u128::from(env.random()) << 64 | u128::from(env.random());
    let kind = if fate == Fate::Deleted { names::DELETED } else { names::STRAY };
    let aside = directory.path().join(names::set_aside(&id.tp, unique, kind));
    let sync = Op::SyncDir { path: directory.path().to_path_buf() };
    let ops = vec![Op::Rename { from: path.clone(), to: aside.clone() }, sync];
    match fate {
        Fate::Deleted => gracchus_env::moment!(LOG_DELETED),
        Fate::Stray => gracchus_env::moment!(LOG_STRAY),
    }
    if fate == Fate::Stray {
        // It is kept, and the journal will not hold its records any more.
        sync_segments(directory, &path)
            .await
            .map_err(|error| directory.fail(&error, "syncing a stray log"))?;
    }
    let _ = directory.take_clean(id);
    directory.flusher().forget(Forget::log(id.clone(), ops)).await?;
    // Before the name can mean another log.
    directory.files().forget_directory(&path);
    Ok(aside)
}

/// Syncs all segments of a log that nobody has open: what the journal's replay has written may not be on disk yet.
async fn sync_segments(directory: &LogDirectory, path: &Path) -> io::Result<()> {
    let env = directory.env();
    let entries = match env.disk().list(path).await {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    for entry in entries.iter().filter(|entry| names::parse(&entry.name, names::LOG).is_some()) {
        let open = || env.disk().open(&path.join(&entry.name), Open::Existing);
        let file = directory.handles().patiently("a stray log", open).await?;
        env.disk().submit(vec![Op::Sync { file }]).await?;
    }
    Ok(())
}
