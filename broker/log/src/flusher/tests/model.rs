//! Logs as plain words, and what must be found of them after a crash.
//!
//! A log is a sequence of words (8 bytes each, every word unique in the story), so offset and position say the same
//! thing and a word tells when it was written.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use bytes::Bytes;
use gracchus_core::{Offset, TopicId, TopicPartition};
use gracchus_env::{Env, File, JoinHandle, Op, Open};
use uuid::Uuid;

use super::{
    super::super::{
        DirectoryOptions, Forget, LogDirectory, LogId, Roll, Round, StorageError, directory::JournalOptions,
    },
    world::World,
};

pub(super) const DIRECTORY: &str = "/data/logs";
const WORD: u64 = 8;

/// So tiny that parts are recycled all the time and every path is taken.
pub(super) fn options() -> DirectoryOptions {
    DirectoryOptions {
        journal: JournalOptions { part_bytes: 8192, min_parts: 2, max_parts: 4, alignment: 512 },
        in_place_bytes: 3000,
        group_bytes: 6000,
        in_place_logs: 2,
        writeback_bytes: 2000,
        dirty_bytes: 6000,
        ..DirectoryOptions::default()
    }
}

/// What the rounds of a log ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Asks {
    Durable,
    Plain,
    /// Now this, now that.
    Either,
}

/// What the story knows of one log.
#[derive(Debug)]
struct Log {
    id: LogId,
    asks: Asks,
    /// All words ever submitted and not cut since, by segment base.
    segments: BTreeMap<i64, Vec<u64>>,
    /// Everything below was acknowledged.
    acknowledged: i64,
    /// Everything below was acknowledged as durable.
    durable: i64,
    /// The power failed since the log was last made to fit.
    lost_power: bool,
    /// A cut that was begun and may have happened.
    cutting: Option<i64>,
    /// Words that a completed cut took away. They must never be seen again.
    void: BTreeSet<u64>,
}

impl Log {
    fn end(&self) -> i64 {
        let (base, words) = self.segments.last_key_value().expect("a log has a segment");
        base + words.len() as i64
    }

    fn directory(&self) -> PathBuf {
        Path::new(DIRECTORY).join(self.id.tp.to_string())
    }

    fn segment(&self, base: i64) -> PathBuf {
        self.directory().join(format!("{base:020}.log"))
    }

    fn cut(&mut self, end: i64) {
        let mut later = self.segments.split_off(&(end + 1));
        let (base, words) =
            self.segments.last_entry().map(|entry| (*entry.key(), entry.into_mut())).expect("one stays");
        self.void.extend(words.drain((end - base) as usize..));
        self.void.extend(later.values_mut().flat_map(|words| words.drain(..)));
        self.acknowledged = self.acknowledged.min(end);
        self.durable = self.durable.min(end);
        self.cutting = None;
    }

    /// Where the segments found on the disk stop to be what was written.
    fn found(&self, world: &World) -> i64 {
        for (base, words) in &self.segments {
            let found = read(world, &self.segment(*base)).unwrap_or_default();
            let same = words.iter().zip(&found).take_while(|(word, found)| word == found).count();
            if same < words.len() {
                return base + same as i64;
            }
        }
        self.end()
    }

    /// The steps that cut the files at `end`, what is left of that segment synced; in a recovery all else too.
    async fn cut_ops(&self, env: &dyn Env, end: i64, recovery: bool) -> (i64, Vec<Op>) {
        let mut ops = Vec::new();
        let base = *self.segments.range(..=end).next_back().expect("one stays").0;
        // A cut that was interrupted may have taken its file.
        open(env, &self.segment(base)).await;
        for entry in env.disk().list(&self.directory()).await.unwrap().iter().rev() {
            let Some(other) = entry.name.strip_suffix(".log").and_then(|base| base.parse::<i64>().ok())
            else {
                continue;
            };
            if other > base {
                ops.push(Op::RemoveFile { path: self.segment(other) });
            } else if recovery || other == base {
                let file = open(env, &self.segment(other)).await;
                let length = (end - base) as u64 * WORD;
                ops.extend((other == base).then(|| Op::Truncate { file: file.clone(), length }));
                ops.push(Op::Sync { file });
            }
        }
        ops.push(Op::SyncDir { path: self.directory() });
        (base, ops)
    }
}

/// Rounds on their way.
type Clients = Vec<JoinHandle<Result<(), StorageError>>>;

async fn all(clients: Clients) -> Result<(), StorageError> {
    for client in clients {
        client.await.expect("not aborted")?;
    }
    Ok(())
}

async fn open(env: &dyn Env, path: &Path) -> Arc<dyn File> {
    env.disk().open(path, Open::OrCreate).await.unwrap()
}

fn read(world: &World, path: &Path) -> Option<Vec<u64>> {
    let contents = world.contents(path)?;
    Some(contents.chunks_exact(8).map(|word| u64::from_le_bytes(word.try_into().unwrap())).collect())
}

/// All logs of a story. It survives the crashes, like a client that remembers what it was told.
#[derive(Clone)]
pub(super) struct Story {
    pub(super) world: World,
    logs: Arc<Mutex<Vec<Log>>>,
    words: Arc<Mutex<u64>>,
}

impl Story {
    /// As many logs as there are `asks`.
    pub(super) fn new(seed: u64, asks: &[Asks]) -> Self {
        let log = |(index, asks): (usize, &Asks)| Log {
            id: LogId {
                tp: TopicPartition::new("story", index as i32),
                topic_id: TopicId(Uuid::from_u128(77 + index as u128)),
            },
            asks: *asks,
            segments: BTreeMap::from([(0, Vec::new())]),
            acknowledged: 0,
            durable: 0,
            lost_power: false,
            cutting: None,
            void: BTreeSet::new(),
        };
        let logs = asks.iter().enumerate().map(log).collect();
        let story = Self { world: World::new(seed), logs: Arc::new(Mutex::new(logs)), words: Arc::default() };
        let env = story.world.env();
        let setup = story.clone();
        story.world.run(async move { setup.create(&*env).await }).expect("the power is on");
        story
    }

    /// Empty logs, every name durable.
    async fn create(&self, env: &dyn Env) {
        for number in 0..self.log_count() {
            let (directory, segment, id) =
                self.with(number, |log| (log.directory(), log.segment(0), log.id.topic_id));
            env.disk().submit(vec![Op::CreateDir { path: directory.clone() }]).await.unwrap();
            let metadata = Bytes::from(format!("version: 0\ntopic_id: {id}\n"));
            env.disk().replace(&directory.join("partition.metadata"), metadata).await.unwrap();
            open(env, &segment).await;
            env.disk().submit(vec![Op::SyncDir { path: directory }]).await.unwrap();
        }
    }

    fn logs(&self) -> MutexGuard<'_, Vec<Log>> {
        self.logs.lock().unwrap()
    }

    pub(super) fn log_count(&self) -> usize {
        self.logs().len()
    }

    fn with<T>(&self, number: usize, act: impl FnOnce(&mut Log) -> T) -> T {
        act(&mut self.logs()[number])
    }

    pub(super) fn id(&self, number: usize) -> LogId {
        self.with(number, |log| log.id.clone())
    }

    pub(super) fn segment_path(&self, number: usize, base: i64) -> PathBuf {
        self.with(number, |log| log.segment(base))
    }

    pub(super) fn end(&self, number: usize) -> i64 {
        self.with(number, |log| log.end())
    }

    /// The next round of a log with `count` new words.
    pub(super) async fn round(&self, env: &dyn Env, number: usize, count: u64) -> Round {
        let words: Vec<u64> = {
            let mut next = self.words.lock().unwrap();
            *next += count;
            (*next - count..*next).map(|word| word + 1).collect()
        };
        let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        let (base, path) = self.with(number, |log| {
            let base = *log.segments.last_key_value().unwrap().0;
            (base, log.segment(base))
        });
        let file = open(env, &path).await;
        let coin = self.world.below(2) == 0;
        self.with(number, |log| {
            let segment = log.segments.get_mut(&base).unwrap();
            let position = segment.len() as u64 * WORD;
            segment.extend(words);
            let middle = bytes.len() / 2;
            let bytes = Bytes::from(bytes);
            Round {
                id: log.id.clone(),
                segment_base: Offset(base),
                file,
                position,
                buffers: vec![bytes.slice(..middle), bytes.slice(middle..)],
                length: bytes.len() as u64,
                end_offset: Offset(log.end()),
                durable: log.asks == Asks::Durable || (log.asks == Asks::Either && coin),
                also: Vec::new(),
            }
        })
    }

    /// Submits `rounds` rounds at once.
    async fn submit(&self, directory: &LogDirectory, number: usize, rounds: &[u64]) -> Clients {
        let env = directory.env();
        let mut clients = Vec::new();
        for count in rounds {
            let round = self.round(&**env, number, *count).await;
            let (end, durable) = (round.end_offset.0, round.durable);
            let acknowledgement = directory.flusher().submit(round);
            // Each is believed as soon as it comes, whatever the others do.
            let story = self.clone();
            clients.push(gracchus_env::spawn(&**env, "client", async move {
                acknowledgement.await?;
                story.with(number, |log| {
                    log.acknowledged = log.acknowledged.max(end);
                    log.durable = log.durable.max(if durable { end } else { 0 });
                });
                Ok(())
            }));
        }
        clients
    }

    /// Appends `rounds` rounds at once and waits for all of them.
    pub(super) async fn append(
        &self,
        directory: &LogDirectory,
        number: usize,
        rounds: &[u64],
    ) -> Result<(), StorageError> {
        all(self.submit(directory, number, rounds).await).await
    }

    /// Begins a new segment, behind `rounds` rounds that nobody has waited for yet.
    pub(super) async fn roll(
        &self,
        directory: &LogDirectory,
        number: usize,
        rounds: &[u64],
    ) -> Result<(), StorageError> {
        let env = directory.env();
        let clients = self.submit(directory, number, rounds).await;
        let (id, end, old, path, new) = self.with(number, |log| {
            let old = *log.segments.last_key_value().unwrap().0;
            let end = log.end();
            (log.id.clone(), end, log.segment(old), log.directory(), log.segment(end))
        });
        if old == new {
            return all(clients).await;
        }
        let (old, new) = (open(&**env, &old).await, open(&**env, &new).await);
        let clear = env.disk().submit(vec![Op::Truncate { file: new, length: 0 }]);
        let asks = self.with(number, |log| log.asks);
        let durable = asks == Asks::Durable || (asks == Asks::Either && self.world.below(2) == 0);
        let roll = Roll { id, sync: vec![old], directory: path, end_offset: Offset(end), durable };
        let rolled = directory.flusher().roll(roll);
        all(clients).await?;
        clear.await.expect("the disk works");
        rolled.await?;
        self.with(number, |log| {
            log.segments.insert(end, Vec::new());
            log.durable = log.durable.max(if durable { end } else { 0 });
        });
        Ok(())
    }

    /// Cuts at `end`, behind `rounds` rounds that nobody has waited for yet.
    pub(super) async fn cut(
        &self,
        directory: &LogDirectory,
        number: usize,
        end: i64,
        rounds: &[u64],
    ) -> Result<(), StorageError> {
        let clients = self.submit(directory, number, rounds).await;
        self.cut_behind(directory, number, end, clients, false).await
    }

    async fn cut_behind(
        &self,
        directory: &LogDirectory,
        number: usize,
        end: i64,
        clients: Clients,
        recovery: bool,
    ) -> Result<(), StorageError> {
        let env = directory.env();
        let log = {
            let mut logs = self.logs();
            // An earlier one that a crash interrupted may have happened just as well.
            let earlier = logs[number].cutting.unwrap_or(i64::MAX);
            logs[number].cutting = Some(end.min(earlier));
            let log = &logs[number];
            Log { segments: log.segments.clone(), id: log.id.clone(), void: BTreeSet::new(), ..*log }
        };
        let (base, ops) = log.cut_ops(&**env, end, recovery).await;
        let forget = Forget {
            id: log.id,
            segment_base: Offset(base),
            position: (end - base) as u64 * WORD,
            end_offset: Some(Offset(end)),
            ops,
        };
        let cut = directory.flusher().forget(forget);
        all(clients).await?;
        cut.await?;
        self.with(number, |log| log.cut(end));
        Ok(())
    }

    /// Opens the directory.
    pub(super) async fn open(&self, options: DirectoryOptions) -> Arc<LogDirectory> {
        LogDirectory::open(self.world.env(), DIRECTORY.into(), options).await.expect("the directory opens")
    }

    /// See [`World::lose_power`].
    pub(super) fn lose_power(&self) {
        self.world.lose_power();
        self.logs().iter_mut().for_each(|log| log.lost_power = true);
    }

    /// Checks what the journal has left, then makes the logs fit it as recovery does.
    pub(super) async fn recover(&self, directory: &LogDirectory) {
        for number in 0..self.log_count() {
            let point = directory.recovery_point(&self.id(number)).map_or(0, |point| point.0);
            let found = self.check(number, point);
            let cut = self.cut_behind(directory, number, found, Clients::new(), true);
            cut.await.expect("the disk works");
            self.with(number, |log| {
                (log.acknowledged, log.durable, log.lost_power) = (found, found, false);
            });
        }
    }

    /// What is found must hold what was acknowledged, and nothing that was cut. Returns where it ends.
    fn check(&self, number: usize, point: i64) -> i64 {
        let logs = self.logs();
        let log = &logs[number];
        let found = log.found(&self.world);
        let promised = if log.lost_power { log.durable } else { log.acknowledged };
        let promised = log.cutting.map_or(promised, |cut| promised.min(cut));
        assert!(found >= promised, "log {number}: {promised} words acknowledged, {found} found");
        assert!(found >= point, "log {number}: recovery point {point}, but only {found} words found");
        for path in self.world.paths(&log.directory()) {
            let words = read(&self.world, &path).unwrap_or_default();
            if path.extension().is_some_and(|extension| extension == "log") {
                let back = words.iter().find(|word| log.void.contains(word));
                assert!(
                    back.is_none(),
                    "log {number}: word {back:?} was cut and is back in {}",
                    path.display()
                );
            }
        }
        found
    }

    /// One log's owner: does this and that, until something goes wrong.
    pub(super) async fn live(
        &self,
        directory: &LogDirectory,
        number: usize,
        actions: u64,
    ) -> Result<(), StorageError> {
        let below = |limit| self.world.below(limit);
        for _ in 0..actions {
            match below(20) {
                0 => self.roll(directory, number, &[]).await?,
                1 => self.roll(directory, number, &[1 + below(60), 1 + below(400)]).await?,
                2 => {
                    let end = below(self.end(number) as u64 + 1) as i64;
                    self.cut(directory, number, end, &[]).await?;
                }
                3 => {
                    let end = below(self.end(number) as u64 + 1) as i64;
                    self.cut(directory, number, end, &[1 + below(60), 1 + below(400)]).await?;
                }
                4 => directory.flusher().checkpoint().await?,
                5 => directory.env().sleep(Duration::from_millis(below(8000))).await,
                6 => self.append(directory, number, &[400 + below(800), 1]).await?,
                _ => {
                    let rounds: Vec<u64> = (0..=below(3)).map(|_| 1 + below(60)).collect();
                    self.append(directory, number, &rounds).await?;
                }
            }
        }
        Ok(())
    }
}
