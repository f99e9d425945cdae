//! Recovery points and log starts of all logs of a directory, and Kafka's text files that keep them.
//!
//! The files are hints that save work: a missing or damaged one means "read everything", never a failed start. A
//! recovery point in a file may be older than the truth, never newer: whoever cuts a log below it lowers it first, in
//! the file.
//!
//! Never: raise a recovery point above what was synced in place.

use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard},
};

use bytes::Bytes;
use gracchus_core::{Offset, TopicPartition};
use gracchus_env::{Env, Open};

use gracchus_common::Handles;

const RECOVERY_POINTS: &str = "recovery-point-offset-checkpoint";
const LOG_STARTS: &str = "log-start-offset-checkpoint";

/// Offsets by partition, as one checkpoint file holds them.
pub type Offsets = BTreeMap<TopicPartition, Offset>;

/// Kafka's form: a version line (0), a line with the number of entries, then `topic partition offset` lines.
pub fn encode(offsets: &Offsets) -> Bytes {
    use std::fmt::Write as _;
    let mut text = format!("0\n{}\n", offsets.len());
    for (tp, offset) in offsets {
        writeln!(text, "{} {} {offset}", tp.topic, tp.partition).expect("a string takes everything");
    }
    text.into()
}

/// `None` unless every line is what it should be.
pub fn decode(contents: &[u8]) -> Option<Offsets> {
    let mut lines = std::str::from_utf8(contents).ok()?.lines();
    if lines.next()? != "0" {
        return None;
    }
    let count: usize = lines.next()?.parse().ok()?;
    let offsets = lines.map(line).collect::<Option<Offsets>>()?;
    (offsets.len() == count).then_some(offsets)
}

fn line(line: &str) -> Option<(TopicPartition, Offset)> {
    let mut words = line.split(' ');
    let (topic, partition, offset) = (words.next()?, words.next()?, words.next()?);
    let entry = (TopicPartition::new(topic, partition.parse().ok()?), Offset(offset.parse().ok()?));
    words.next().is_none().then_some(entry)
}

/// Both checkpoints of one directory: the state in memory and the writing of the files.
#[derive(Debug)]
pub(crate) struct Checkpoints {
    directory: PathBuf,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    recovery_points: Offsets,
    log_starts: Offsets,
    recovery_points_changed: bool,
    log_starts_changed: bool,
}

impl Checkpoints {
    /// Reads both files. What the last process wrote may not be on the disk yet, and what is may say more: until they are
    /// written again, they count as changed.
    pub(crate) async fn read(env: &dyn Env, directory: &Path) -> io::Result<Self> {
        let recovery_points = read_file(env, &directory.join(RECOVERY_POINTS)).await?;
        let log_starts = read_file(env, &directory.join(LOG_STARTS)).await?;
        let state = State {
            recovery_points_changed: recovery_points.is_some(),
            log_starts_changed: log_starts.is_some(),
            recovery_points: recovery_points.unwrap_or_default(),
            log_starts: log_starts.unwrap_or_default(),
        };
        Ok(Self { directory: directory.to_owned(), state: Mutex::new(state) })
    }

    /// Whether any was ever written.
    pub(crate) async fn exist(env: &dyn Env, directory: &Path) -> io::Result<bool> {
        for name in [RECOVERY_POINTS, LOG_STARTS] {
            match env.disk().open(&directory.join(name), Open::Existing).await {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                opened => return opened.map(|_| true),
            }
        }
        Ok(false)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("nobody panics while holding it")
    }

    pub(crate) fn recovery_point(&self, tp: &TopicPartition) -> Option<Offset> {
        self.state().recovery_points.get(tp).copied()
    }

    pub(crate) fn log_start(&self, tp: &TopicPartition) -> Option<Offset> {
        self.state().log_starts.get(tp).copied()
    }

    /// Everything below `offset` is on disk in its segments. Never lowers.
    pub(crate) fn raise_recovery_point(&self, tp: &TopicPartition, offset: Offset) {
        let mut state = self.state();
        if state.recovery_points.get(tp).is_none_or(|point| *point < offset) {
            state.recovery_points.insert(tp.clone(), offset);
            state.recovery_points_changed = true;
        }
    }

    /// The log is about to be cut at `offset`. The cut must wait for [`Self::write`] if this is true.
    pub(crate) fn lower_recovery_point(&self, tp: &TopicPartition, offset: Offset) -> bool {
        let mut state = self.state();
        let lowered = match state.recovery_points.get_mut(tp) {
            Some(point) if *point > offset => {
                gracchus_env::moment!(RECOVERY_POINT_CUT);
                *point = offset;
                true
            }
            _ => false,
        };
        state.recovery_points_changed |= lowered;
        // A value that was lowered earlier may not have reached the file yet.
        state.recovery_points_changed
    }

    pub(crate) fn set_log_start(&self, tp: &TopicPartition, offset: Offset) {
        let mut state = self.state();
        if state.log_starts.insert(tp.clone(), offset) != Some(offset) {
            state.log_starts_changed = true;
        }
    }

    /// The log is about to go. That must wait for [`Self::write`] if this is true.
    pub(crate) fn remove(&self, tp: &TopicPartition) -> bool {
        let mut state = self.state();
        let state = &mut *state;
        state.recovery_points_changed |= state.recovery_points.remove(tp).is_some();
        state.log_starts_changed |= state.log_starts.remove(tp).is_some();
        state.recovery_points_changed || state.log_starts_changed
    }

    /// Forgets the logs for which `keep` does not hold; the files follow when they are next written.
    pub(crate) fn retain(&self, keep: impl Fn(&TopicPartition) -> bool) {
        let mut state = self.state();
        let state = &mut *state;
        for (offsets, changed) in [
            (&mut state.recovery_points, &mut state.recovery_points_changed),
            (&mut state.log_starts, &mut state.log_starts_changed),
        ] {
            let before = offsets.len();
            offsets.retain(|tp, _| keep(tp));
            *changed |= offsets.len() < before;
        }
    }

    /// Whether the files lag behind.
    pub(crate) fn changed(&self) -> bool {
        let state = self.state();
        state.recovery_points_changed || state.log_starts_changed
    }

    /// Brings the files up to date, durably. One call at a time; none after an error.
    pub(crate) async fn write(&self, env: &dyn Env, handles: &Handles) -> io::Result<()> {
        let (recovery_points, log_starts) = {
            let mut state = self.state();
            let state = &mut *state;
            (
                std::mem::take(&mut state.recovery_points_changed).then(|| encode(&state.recovery_points)),
                std::mem::take(&mut state.log_starts_changed).then(|| encode(&state.log_starts)),
            )
        };
        for (name, contents) in [(RECOVERY_POINTS, recovery_points), (LOG_STARTS, log_starts)] {
            if let Some(contents) = contents {
                let path = self.directory.join(name);
                let replace = || env.disk().replace(&path, contents.clone());
                handles.patiently("a checkpoint", replace).await?;
            }
        }
        Ok(())
    }
}

/// `None` if there is none.
async fn read_file(env: &dyn Env, path: &Path) -> io::Result<Option<Offsets>> {
    let Some(contents) = env.disk().read_all(path).await? else { return Ok(None) };
    Ok(Some(decode(&contents).unwrap_or_else(|| {
        gracchus_env::moment!(CHECKPOINT_DAMAGED);
        tracing::warn!(
            path = %path.display(),
            "checkpoint is damaged and counts as empty; more of the logs is read instead, nothing needs to \
             be done"
        );
        Offsets::new()
    })))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use gracchus_memory::Machine;

    #[test]
    fn writes_what_kafka_writes() {
        let offsets = Offsets::from([
            (TopicPartition::new("b", 10), Offset(7)),
            (TopicPartition::new("b", 2), Offset(1 << 40)),
        ]);
        assert_eq!(encode(&offsets), "0\n2\nb 2 1099511627776\nb 10 7\n");
    }

    #[test]
    fn damage_is_absence() {
        for damaged in
            ["", "0", "0\n", "1\n0\n", "0\n2\na 0 1\n", "0\n1\na 0\n", "0\n1\na 0 1 2\n", "0\n1\na x 1\n"]
        {
            assert_eq!(decode(damaged.as_bytes()), None, "{damaged:?}");
        }
        assert_eq!(decode(b"\xff\xfe"), None);
    }

    #[tokio::test]
    async fn what_was_read_may_not_be_on_the_disk() {
        let machine = Machine::new(1);
        let directory = Path::new("/");
        machine.put(&directory.join(RECOVERY_POINTS), b"0\n0\n");
        let env = machine.start();
        let checkpoints = Checkpoints::read(&*env, directory).await.unwrap();
        let gone = TopicPartition::new("a", 0);
        assert!(checkpoints.remove(&gone), "a version that knows it may come back when the power fails");
        checkpoints.write(&*env, &Handles::new(env.clone())).await.unwrap();
        assert!(!checkpoints.remove(&gone));
        let empty = Checkpoints::read(&*Machine::new(2).start(), directory).await.unwrap();
        assert!(!empty.remove(&gone), "nothing to write where nothing was read");
    }

    proptest! {
        #[test]
        fn reads_back_what_it_wrote(entries in prop::collection::btree_map(("[a-z._-]{1,9}", 0..50i32), 0..i64::MAX, 0..20)) {
            let offsets: Offsets =
                entries.into_iter().map(|((topic, index), offset)| (TopicPartition::new(topic, index), Offset(offset))).collect();
            prop_assert_eq!(decode(&encode(&offsets)), Some(offsets));
        }
    }
}
