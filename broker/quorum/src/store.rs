//! The raft log and vote on Env's disk.
//!
//! `log` is a file of frames: the first says up to where the log was purged, each further one holds the entries of one
//! append, synced before the append is answered. So at most one frame is ever unsynced: a bad frame at the end is a
//! torn tail that nobody was promised and is cut. `log-end`, one sector that is never torn, names the last entry that was
//! synced; it is written and synced before the append is answered, too. A log that ends before that, or has a bad frame
//! with a good one behind it, is damaged, and the node refuses to start rather than forget committed metadata. A log
//! without `log-end` is of an earlier release, or new.
//! `vote` is replaced atomically and durably before it counts, and before the first entry of its term: one that is missing
//! beside such a log, or older than it, is damage like one that cannot be read.
//! Purging and truncating rewrite `log` as a whole, which snapshots keep short.
//!
//! Never: an answer before the sync it depends on; a write over a range that a failed write or sync has touched (the
//! first error ends the raft node).

use std::{
    fmt::Debug,
    io,
    ops::RangeBounds,
    path::{Path, PathBuf},
    sync::Arc,
};

use arc_swap::ArcSwap;
use bytes::Bytes;
use gracchus_env::{Env, File, Op, Open};
use imbl::OrdMap;
use openraft::{
    LogState, OptionalSend, RaftLogReader, StorageIOError,
    storage::{LogFlushed, RaftLogStorage},
};
use serde::{Deserialize, Serialize};

use super::{
    OpenError,
    frame::{self, BadFrame, Unreadable},
    raft_types::{Entry, LogId, StorageError, TypeConfig, Vote},
};
use gracchus_common::Handles;

/// The first frame of `log`.
#[derive(Debug, Serialize, Deserialize)]
struct Start {
    purged: Option<LogId>,
}

/// What `log-end` says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct End {
    last: Option<LogId>,
}

/// Bytes of `log-end`.
const SECTOR: usize = 512;

/// All entries behind the purged part, by index. Shared with readers as immutable snapshots.
pub(super) type Entries = OrdMap<u64, Entry>;

/// The log and the vote of this node.
pub(super) struct LogStore {
    env: Arc<dyn Env>,
    handles: Arc<Handles>,
    log_path: PathBuf,
    vote_path: PathBuf,
    file: Arc<dyn File>,
    end_file: Arc<dyn File>,
    length: u64,
    purged: Option<LogId>,
    vote: Option<Vote>,
    entries: Arc<ArcSwap<Entries>>,
}

/// What [`LogStore::open`] found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Opened {
    /// Bytes of an unfinished append that were cut off.
    pub(super) cut_bytes: u64,
}

impl LogStore {
    /// Opens or creates the log in `directory`, which exists, and cuts a torn tail durably. `snapshot` is where the
    /// snapshot reaches: the log must begin no later.
    pub(super) async fn open(
        env: Arc<dyn Env>,
        handles: Arc<Handles>,
        directory: &Path,
        snapshot: Option<LogId>,
    ) -> Result<(LogStore, Opened), OpenError> {
        let log_path = directory.join("log");
        let vote_path = directory.join("vote");
        let vote = match env.disk().read_all(&vote_path).await? {
            Some(bytes) => {
                Some(frame::decode(&bytes).map_err(|problem| OpenError::unreadable(&vote_path, problem))?)
            }
            None => None,
        };
        let end_path = directory.join("log-end");
        let end = read_end(&*env, &end_path).await?;
        let bytes = match env.disk().read_all(&log_path).await? {
            Some(bytes) => bytes,
            // It is the first file that is ever written here.
            None if vote.is_some() || snapshot.is_some() || end.is_some() => {
                return Err(OpenError::unreadable(
                    &log_path,
                    "it is missing, other files of the same node are not",
                ));
            }
            None => {
                let empty = encode_log(None, &Entries::new())?;
                env.disk().replace(&log_path, empty.clone()).await?;
                empty
            }
        };
        let log = parse(&bytes).map_err(|problem| OpenError::unreadable(&log_path, problem))?;
        if log.purged > snapshot {
            return Err(OpenError::unreadable(&log_path, "it begins behind the end of the snapshot"));
        }
        let last = log.entries.get_max().map(|(_, entry)| entry.log_id).or(log.purged);
        if let Some(End { last: synced }) = end
            && last.map(|id| id.index) < synced.map(|id| id.index)
        {
            gracchus_env::moment!(METADATA_LOG_LOST_ITS_END);
            let problem = format!(
                "it is bad from byte {} on, behind entry {}, but entry {} had been synced",
                log.length,
                told(last),
                told(synced)
            );
            return Err(OpenError::unreadable(&log_path, problem));
        }
        check_vote(vote.as_ref(), last.max(snapshot))
            .map_err(|why| OpenError::unreadable(&vote_path, why))?;
        let cut_bytes = (bytes.len() - log.length) as u64;
        let file = env.disk().open(&log_path, Open::Existing).await?;
        let length = log.length as u64;
        let mut ops = Vec::new();
        if cut_bytes > 0 {
            gracchus_env::moment!(METADATA_TAIL_CUT);
            // Before anything is written behind it: stale bytes must not look like a continuation later.
            ops.push(Op::Truncate { file: file.clone(), length });
        }
        // What is found here counts as committed. After a sync that failed, in an earlier process, the kernel may show
        // pages that it counts as clean and that never reached the disk: only a new write makes a sync cover them.
        ops.push(Op::WriteAt { file: file.clone(), offset: 0, buffers: vec![bytes.slice(..log.length)] });
        ops.push(Op::Sync { file: file.clone() });
        env.disk().submit(ops).await?;
        if end != Some(End { last }) {
            env.disk().replace(&end_path, encode_end(last)?).await?;
        }
        let end_file = env.disk().open(&end_path, Open::Existing).await?;
        let entries = Arc::new(ArcSwap::from_pointee(log.entries));
        let purged = log.purged;
        let store =
            LogStore { env, handles, log_path, vote_path, file, end_file, length, purged, vote, entries };
        Ok((store, Opened { cut_bytes }))
    }

    fn last_log_id(&self) -> Option<LogId> {
        self.entries.load().get_max().map(|(_, entry)| entry.log_id).or(self.purged)
    }

    async fn write_entries(&mut self, entries: &[Entry]) -> io::Result<()> {
        if entries.is_empty() {
            return Ok(());
        }
        let bytes = frame::encode(&entries)?;
        let length = bytes.len() as u64;
        let write = Op::WriteAt { file: self.file.clone(), offset: self.length, buffers: vec![bytes] };
        self.env.disk().submit(vec![write, Op::Sync { file: self.file.clone() }]).await?;
        self.length += length;
        self.write_end(entries.last().map(|entry| entry.log_id)).await
    }

    /// Everything up to `last` is synced, and nothing behind it was promised.
    async fn write_end(&self, last: Option<LogId>) -> io::Result<()> {
        let file = self.end_file.clone();
        let write = Op::WriteAt { file: file.clone(), offset: 0, buffers: vec![encode_end(last)?] };
        self.env.disk().submit(vec![write, Op::Sync { file }]).await
    }

    /// Replaces the whole log durably, on disk first.
    async fn rewrite(&mut self, purged: Option<LogId>, entries: Entries) -> io::Result<()> {
        let bytes = encode_log(purged, &entries)?;
        let length = bytes.len() as u64;
        let disk = self.env.disk();
        let replace = || disk.replace(&self.log_path, bytes.clone());
        self.handles.patiently("the metadata log", replace).await?;
        let open = || disk.open(&self.log_path, Open::Existing);
        self.file = self.handles.patiently("the metadata log", open).await?;
        self.length = length;
        self.purged = purged;
        self.entries.store(Arc::new(entries));
        Ok(())
    }
}

pub(super) fn encode_end(last: Option<LogId>) -> io::Result<Bytes> {
    let mut sector = frame::encode(&End { last })?.to_vec();
    assert!(sector.len() <= SECTOR, "it is written at once");
    sector.resize(SECTOR, 0);
    Ok(sector.into())
}

/// What `log-end` says, `None` if there is none. It holds nothing that is nowhere else: one that is damaged is made anew.
async fn read_end(env: &dyn Env, path: &Path) -> Result<Option<End>, OpenError> {
    let Some(bytes) = env.disk().read_all(path).await? else { return Ok(None) };
    let read = match frame::split(&bytes) {
        Ok((payload, _)) => serde_json::from_slice(payload).map_err(|error| error.to_string()),
        Err(bad @ BadFrame::Newer(_)) => return Err(OpenError::unreadable(path, bad)),
        Err(bad) => Err(bad.to_string()),
    };
    let read = read.inspect_err(|problem| {
        gracchus_env::moment!(METADATA_END_MADE_ANEW);
        tracing::error!(
            path = %path.display(),
            problem,
            "cluster metadata: the file that says how far the log was synced is damaged and made anew; nothing is missing, \
             but check the disk"
        );
    });
    Ok(read.ok())
}

fn told(id: Option<LogId>) -> String {
    id.map_or_else(|| "-1".to_owned(), |id| id.index.to_string())
}

/// What is wrong with `vote` beside a log that ends with `last`.
fn check_vote(vote: Option<&Vote>, last: Option<LogId>) -> Result<(), String> {
    // The first entry of all names the members, before there is a vote.
    let Some(last) = last.filter(|last| last.leader_id.term > 0) else { return Ok(()) };
    match vote {
        None => {
            gracchus_env::moment!(METADATA_VOTE_MISSING);
            Err("it is missing, the log of the same node is not".to_owned())
        }
        Some(vote) if vote.leader_id.term < last.leader_id.term => Err(format!(
            "its term {} is older than that of the log, {}",
            vote.leader_id.term, last.leader_id.term
        )),
        Some(_) => Ok(()),
    }
}

pub(super) fn encode_log(purged: Option<LogId>, entries: &Entries) -> io::Result<Bytes> {
    let mut bytes = frame::encode(&Start { purged })?.to_vec();
    if !entries.is_empty() {
        bytes.extend(frame::encode(&entries.values().collect::<Vec<_>>())?);
    }
    Ok(bytes.into())
}

/// The good part of a log file.
pub(super) struct Parsed {
    pub(super) purged: Option<LogId>,
    pub(super) entries: Entries,
    /// Bytes of it.
    pub(super) length: usize,
}

pub(super) fn parse(bytes: &[u8]) -> Result<Parsed, Unreadable> {
    let (start, mut length) = frame::split(bytes)?;
    let Start { purged } = serde_json::from_slice(start)?;
    let mut entries = Entries::new();
    let mut next_index = purged.map(|id| id.index + 1);
    while length < bytes.len() {
        let rest = &bytes[length..];
        let (payload, frame_length) = match frame::split(rest) {
            Ok(frame) => frame,
            Err(bad @ BadFrame::Newer(_)) => return Err(bad.into()),
            Err(bad) => match frame::find_behind(rest) {
                None => break,
                Some(_) => {
                    gracchus_env::moment!(METADATA_LOG_ROTTEN);
                    return Err(format!("{bad} at byte {length}, but good entries follow").into());
                }
            },
        };
        let appended: Vec<Entry> =
            serde_json::from_slice(payload).map_err(|error| format!("{error} at byte {length}"))?;
        for entry in appended {
            let index = entry.log_id.index;
            if index != next_index.unwrap_or(index) {
                return Err(format!(
                    "entry {index} follows entry {} at byte {length}",
                    next_index.unwrap_or(0) - 1
                )
                .into());
            }
            next_index = Some(index + 1);
            entries.insert(index, entry);
        }
        length += frame_length;
    }
    Ok(Parsed { purged, entries, length })
}

/// Reads entries from memory.
#[derive(Clone)]
pub(super) struct LogReader {
    entries: Arc<ArcSwap<Entries>>,
}

fn read<R: RangeBounds<u64>>(entries: &ArcSwap<Entries>, range: R) -> Vec<Entry> {
    entries.load().range(range).map(|(_, entry)| entry.clone()).collect()
}

impl RaftLogReader<TypeConfig> for LogReader {
    async fn try_get_log_entries<R: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: R,
    ) -> Result<Vec<Entry>, StorageError> {
        Ok(read(&self.entries, range))
    }
}

impl RaftLogReader<TypeConfig> for LogStore {
    async fn try_get_log_entries<R: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: R,
    ) -> Result<Vec<Entry>, StorageError> {
        Ok(read(&self.entries, range))
    }
}

impl RaftLogStorage<TypeConfig> for LogStore {
    type LogReader = LogReader;

    async fn get_log_state(&mut self) -> Result<LogState<TypeConfig>, StorageError> {
        Ok(LogState { last_purged_log_id: self.purged, last_log_id: self.last_log_id() })
    }

    async fn get_log_reader(&mut self) -> LogReader {
        LogReader { entries: self.entries.clone() }
    }

    async fn save_vote(&mut self, vote: &Vote) -> Result<(), StorageError> {
        let saved = async {
            let bytes = frame::encode(vote)?;
            let replace = || self.env.disk().replace(&self.vote_path, bytes.clone());
            self.handles.patiently("the metadata's vote", replace).await
        };
        let saved = saved.await.inspect_err(|_| gracchus_env::moment!(METADATA_VOTE_FAILED));
        saved.map_err(|error| StorageIOError::write_vote(&error))?;
        self.vote = Some(*vote);
        Ok(())
    }

    /// The vote without the leadership that it may have won: who was leader starts as a follower and is elected again
    /// for a new term, so that (term, index) names one entry for ever even if a tail was lost.
    async fn read_vote(&mut self) -> Result<Option<Vote>, StorageError> {
        Ok(self.vote.map(|vote| Vote { committed: false, ..vote }))
    }

    async fn append<I>(&mut self, entries: I, callback: LogFlushed<TypeConfig>) -> Result<(), StorageError>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let appended: Vec<Entry> = entries.into_iter().collect();
        let written = self.write_entries(&appended).await;
        let written = written.inspect_err(|_| gracchus_env::moment!(METADATA_WRITE_FAILED));
        written.map_err(|error| StorageIOError::write_logs(&error))?;
        let mut entries = Entries::clone(&self.entries.load());
        entries.extend(appended.into_iter().map(|entry| (entry.log_id.index, entry)));
        self.entries.store(Arc::new(entries));
        callback.log_io_completed(Ok(()));
        Ok(())
    }

    async fn truncate(&mut self, log_id: LogId) -> Result<(), StorageError> {
        gracchus_env::moment!(METADATA_TRUNCATED);
        let (kept, _) = Entries::clone(&self.entries.load()).split(&log_id.index);
        let last = kept.get_max().map(|(_, entry)| entry.log_id).or(self.purged);
        // Before the entries go: what is to go was never promised.
        self.write_end(last).await.map_err(|error| StorageIOError::write_logs(&error))?;
        self.rewrite(self.purged, kept).await.map_err(|error| StorageIOError::write_logs(&error).into())
    }

    async fn purge(&mut self, log_id: LogId) -> Result<(), StorageError> {
        gracchus_env::moment!(METADATA_PURGED);
        let (_, kept) = Entries::clone(&self.entries.load()).split(&log_id.index);
        let rewritten = self.rewrite(Some(log_id), kept).await;
        let rewritten = rewritten.inspect_err(|_| gracchus_env::moment!(METADATA_PURGE_FAILED));
        rewritten.map_err(|error| StorageIOError::write_logs(&error).into())
    }
}
