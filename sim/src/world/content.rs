//! The bytes of one simulated file: what the page cache shows, and what the platter would show after a power loss.
//!
//! `bytes` is the page cache. For each 512-byte sector that differs from the platter, `dirty` keeps what the platter
//! holds, and every version in between that a sync under way must make durable. A sync covers what was written before
//! it began: bytes written while it runs stay dirty when it ends. At a power loss each dirty sector becomes one of its
//! versions, and the length one of those it had; whatever the last completed sync covers is always there.
//!
//! Never: a sync that makes more durable than it promises, or a crash that takes what a sync has promised.

use std::{borrow::Cow, collections::BTreeMap};

use rand::{Rng, rngs::SmallRng};

/// The unit in which writes tear.
pub(crate) const SECTOR: u64 = 512;

/// How a power loss treats the unsynced sectors of one file.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Survival {
    /// All had reached the platter.
    All,
    /// None had.
    None,
    /// Those in front of some point had.
    Prefix,
    /// Each had with this probability.
    Each(f64),
}

/// A power loss at its harshest, in one of the ways in which it can be: what is kept of what is not durable is what
/// does harm.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Harshest {
    /// Nothing is kept.
    Dropped,
    /// What takes something away: removals, renames, cuts, and the first sector of each file, where a header voids the rest.
    Taken,
    /// What has been written over the old contents, but not the first sector of each file, whose old header then stands
    /// before them.
    Overwritten,
}

/// What a power loss did to one file.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Loss {
    pub(crate) dropped_bytes: u64,
    pub(crate) torn_writes: u64,
}

#[derive(Debug, Default)]
pub(crate) struct Content {
    bytes: Vec<u8>,
    durable_length: u64,
    /// The least length since the durable one was set.
    shortest: u64,
    /// Counts changes; a sync covers those up to the one at which it began.
    generation: u64,
    dirty: BTreeMap<u64, Dirty>,
    /// Lengths that a sync under way may have to make durable, oldest first.
    lengths: Vec<(u64, u64)>,
    /// The generations at which the syncs under way began.
    syncs: Vec<u64>,
    /// Unsynced writes: generation, start, end.
    writes: Vec<(u64, u64, u64)>,
}

#[derive(Debug)]
struct Dirty {
    /// The platter's version; shorter than a sector where the file ended.
    platter: Box<[u8]>,
    /// Versions that a sync under way covers though they have been overwritten since.
    between: Vec<(u64, Box<[u8]>)>,
    /// When the page cache's version was made.
    generation: u64,
    /// A sync failed on it: the kernel calls it clean and will not try again.
    abandoned: bool,
}

impl Content {
    pub(crate) fn length(&self) -> u64 {
        self.bytes.len() as u64
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    pub(crate) fn read(&self, offset: u64, length: usize) -> &[u8] {
        let start = offset.min(self.length()) as usize;
        let end = start.saturating_add(length).min(self.bytes.len());
        &self.bytes[start..end]
    }

    pub(crate) fn write(&mut self, offset: u64, data: &[u8]) {
        if data.is_empty() {
            return;
        }
        self.generation += 1;
        let end = offset + data.len() as u64;
        self.touch(offset, end);
        if end > self.length() {
            self.bytes.resize(end as usize, 0);
            self.length_changed();
        }
        self.bytes[offset as usize..end as usize].copy_from_slice(data);
        self.writes.push((self.generation, offset, end));
    }

    /// Cuts, or extends with zeros.
    pub(crate) fn set_length(&mut self, length: u64) {
        if length == self.length() {
            return;
        }
        self.generation += 1;
        if length < self.length() {
            self.touch(length, self.length());
        }
        self.bytes.resize(length as usize, 0);
        self.length_changed();
    }

    /// Makes the first `length` bytes zeros.
    pub(crate) fn zero(&mut self, length: u64) {
        let old = self.length().min(length);
        if old > 0 {
            self.write(0, &vec![0; old as usize]);
        }
        if length > self.length() {
            self.set_length(length);
        }
    }

    /// A sync begins; hand the result to [`Content::sync_end`] or [`Content::sync_failed`].
    pub(crate) fn sync_begin(&mut self) -> u64 {
        self.syncs.push(self.generation);
        self.generation
    }

    pub(crate) fn sync_end(&mut self, covers: u64) {
        self.forget_sync(covers);
        self.dirty.retain(|_, dirty| !dirty.synced(covers));
        while let Some((_, length)) = self.lengths.first().copied().filter(|(made, _)| *made <= covers) {
            self.durable_length = length;
            self.shortest = length;
            self.lengths.remove(0);
        }
        self.shortest = self.lengths.iter().map(|(_, length)| *length).fold(self.durable_length, u64::min);
        self.writes.retain(|(made, ..)| *made > covers);
    }

    /// The sync failed: some of what it should have covered will never be written back.
    pub(crate) fn sync_failed(&mut self, covers: u64, random: &mut SmallRng) {
        self.forget_sync(covers);
        for dirty in self.dirty.values_mut() {
            if dirty.generation <= covers && random.random_bool(0.5) {
                dirty.abandoned = true;
            }
        }
    }

    /// The kernel writes some dirty sectors back on its own.
    pub(crate) fn write_back(&mut self, random: &mut SmallRng) {
        if random.random_bool(0.5) && self.lengths.len() == 1 && self.length() > self.durable_length {
            self.durable_length = self.length();
            self.shortest = self.length();
            self.lengths.clear();
        }
        self.dirty.retain(|_, dirty| dirty.abandoned || random.random_bool(0.5));
    }

    /// Whether a power loss now would leave the file as the page cache shows it.
    pub(crate) fn is_clean(&self) -> bool {
        self.dirty.is_empty() && self.durable_length == self.length()
    }

    /// Changes whenever the contents do.
    pub(crate) fn generation(&self) -> u64 {
        self.generation
    }

    /// The contents that a power loss like `harshest` would leave.
    pub(crate) fn remains(&self, harshest: Harshest) -> Cow<'_, [u8]> {
        if self.is_clean() {
            return Cow::Borrowed(&self.bytes);
        }
        let length = match harshest {
            Harshest::Dropped | Harshest::Overwritten => self.durable_length,
            Harshest::Taken => self.shortest.min(self.durable_length),
        };
        let mut bytes = self.bytes[..length.min(self.length()) as usize].to_vec();
        bytes.resize(length as usize, 0);
        for (sector, dirty) in &self.dirty {
            let kept = match harshest {
                Harshest::Dropped => false,
                Harshest::Taken => *sector == 0,
                Harshest::Overwritten => *sector > 0,
            };
            if !kept || dirty.abandoned {
                put_version(&mut bytes, *sector, &dirty.platter);
            }
        }
        Cow::Owned(bytes)
    }

    /// The power fails.
    pub(crate) fn power_loss(&mut self, survival: Survival, random: &mut SmallRng) -> Loss {
        if self.is_clean() {
            self.settle();
            return Loss::default();
        }
        let length = self.surviving_length(survival, random);
        let kept = self.surviving_sectors(survival, random);
        let loss = self.loss(length, &kept);
        self.bytes.resize(length as usize, 0);
        for (sector, dirty) in std::mem::take(&mut self.dirty) {
            if kept.get(&sector) == Some(&true) {
                continue;
            }
            let overtaken = !dirty.between.is_empty() && random.random_bool(0.3);
            let version = if overtaken { &dirty.between[dirty.between.len() - 1].1 } else { &dirty.platter };
            put_version(&mut self.bytes, sector, version);
        }
        self.settle();
        loss
    }

    /// The platter and the page cache hold this from now on.
    pub(crate) fn put(&mut self, bytes: Vec<u8>) {
        self.bytes = bytes;
        self.settle();
    }

    /// Flips a bit on the platter and in the page cache.
    pub(crate) fn flip(&mut self, position: u64, bit: u32) {
        self.generation += 1;
        self.bytes[position as usize] ^= 1 << (bit % 8);
    }

    /// Keeps the platter's version of the sectors that `start..end` touches.
    fn touch(&mut self, start: u64, end: u64) {
        let pinned = self.syncs.iter().copied().max();
        for sector in start / SECTOR..end.div_ceil(SECTOR) {
            let from = (sector * SECTOR).min(self.bytes.len() as u64) as usize;
            let to = ((sector + 1) * SECTOR).min(self.bytes.len() as u64) as usize;
            let generation = self.generation;
            let now = &self.bytes[from..to];
            let dirty = self.dirty.entry(sector).or_insert_with(|| Dirty {
                platter: now.into(),
                between: Vec::new(),
                generation,
                abandoned: false,
            });
            if dirty.generation != generation && pinned.is_some_and(|sync| sync >= dirty.generation) {
                dirty.between.push((dirty.generation, now.into()));
            }
            dirty.generation = generation;
            dirty.abandoned = false;
        }
    }

    fn length_changed(&mut self) {
        let length = self.length();
        self.shortest = self.shortest.min(length);
        let pinned = self.syncs.iter().copied().max();
        match self.lengths.last_mut() {
            Some(last) if pinned.is_none_or(|sync| sync < last.0) => *last = (self.generation, length),
            _ => self.lengths.push((self.generation, length)),
        }
    }

    fn forget_sync(&mut self, covers: u64) {
        if let Some(index) = self.syncs.iter().position(|sync| *sync == covers) {
            self.syncs.swap_remove(index);
        }
    }

    fn surviving_length(&self, survival: Survival, random: &mut SmallRng) -> u64 {
        let low = self.shortest.min(self.durable_length);
        let high = self.durable_length.max(self.length());
        match survival {
            Survival::All => self.length(),
            Survival::None => self.durable_length,
            Survival::Prefix | Survival::Each(_) => match random.random_range(0..4) {
                0 => self.length(),
                1 => self.durable_length,
                _ => random.random_range(low..=high),
            },
        }
    }

    fn surviving_sectors(&self, survival: Survival, random: &mut SmallRng) -> BTreeMap<u64, bool> {
        let cut = random.random_range(0..=self.dirty.len());
        let keep = |index: usize, random: &mut SmallRng| match survival {
            Survival::All => true,
            Survival::None => false,
            Survival::Prefix => index < cut,
            Survival::Each(probability) => random.random_bool(probability),
        };
        self.dirty
            .iter()
            .enumerate()
            .map(|(index, (sector, dirty))| (*sector, keep(index, random) && !dirty.abandoned))
            .collect()
    }

    /// Counts what each unsynced write lost.
    fn loss(&self, length: u64, kept: &BTreeMap<u64, bool>) -> Loss {
        let mut loss = Loss::default();
        for (_, start, end) in &self.writes {
            let mut lost = 0;
            for sector in start / SECTOR..end.div_ceil(SECTOR) {
                let from = (*start).max(sector * SECTOR);
                let to = (*end).min((sector + 1) * SECTOR);
                let survives = kept.get(&sector).copied().unwrap_or(true);
                lost += if survives { to.saturating_sub(length.max(from)) } else { to - from };
            }
            loss.dropped_bytes += lost;
            loss.torn_writes += u64::from(lost > 0 && lost < end - start);
        }
        loss
    }

    /// The platter and the page cache agree.
    pub(super) fn settle(&mut self) {
        self.generation += 1;
        self.durable_length = self.length();
        self.shortest = self.length();
        self.dirty.clear();
        self.lengths.clear();
        self.syncs.clear();
        self.writes.clear();
    }
}

/// Gives a sector one of its versions, as far as the file reaches.
fn put_version(bytes: &mut [u8], sector: u64, version: &[u8]) {
    let length = bytes.len() as u64;
    let start = (sector * SECTOR).min(length) as usize;
    let end = ((sector + 1) * SECTOR).min(length) as usize;
    let known = version.len().min(end - start);
    bytes[start..start + known].copy_from_slice(&version[..known]);
    bytes[start + known..end].fill(0);
}

impl Dirty {
    /// A sync that covers `covers` has ended; true when nothing of the sector remains to be written.
    fn synced(&mut self, covers: u64) -> bool {
        if self.abandoned {
            return false;
        }
        if self.generation <= covers {
            return true;
        }
        if let Some(last) = self.between.iter().rposition(|(made, _)| *made <= covers) {
            let (_, version) =
                self.between.drain(..=last).next_back().expect("the drained range is not empty");
            self.platter = version;
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;

    use super::*;

    fn outcomes(content: impl Fn() -> Content) -> std::collections::BTreeSet<Vec<u8>> {
        let mut random = SmallRng::seed_from_u64(7);
        let mut seen = std::collections::BTreeSet::new();
        for round in 0..400 {
            let mut file = content();
            let survival = [Survival::All, Survival::None, Survival::Prefix, Survival::Each(0.5)][round % 4];
            file.power_loss(survival, &mut random);
            assert!(file.is_clean());
            seen.insert(file.bytes().to_vec());
        }
        seen
    }

    #[test]
    fn what_a_sync_covers_survives_and_what_follows_may_tear() {
        let file = || {
            let mut file = Content::default();
            file.write(0, &[1; 700]);
            let sync = file.sync_begin();
            file.sync_end(sync);
            file.write(700, &[2; 1500]);
            file
        };
        let seen = outcomes(file);
        assert!(seen.iter().all(|bytes| bytes.starts_with(&[1; 700])));
        assert!(seen.contains(&vec![1; 700]), "all lost");
        assert!(seen.contains(file().bytes()), "all kept");
        let torn =
            |bytes: &Vec<u8>| bytes.len() == 2200 && bytes[700..].contains(&0) && bytes[700..].contains(&2);
        assert!(seen.iter().any(torn), "a hole in the middle");
    }

    #[test]
    fn a_write_during_a_sync_is_not_covered_but_the_version_before_it_is() {
        let file = || {
            let mut file = Content::default();
            file.write(0, &[1; 100]);
            let sync = file.sync_begin();
            file.write(100, &[2; 100]);
            file.sync_end(sync);
            file
        };
        let seen = outcomes(file);
        assert!(seen.iter().all(|bytes| bytes.len() >= 100 && bytes.starts_with(&[1; 100])), "{seen:?}");
        assert!(seen.contains(&vec![1; 100]), "the later write may be lost");
    }

    #[test]
    fn an_unsynced_cut_may_come_back() {
        let file = || {
            let mut file = Content::default();
            file.write(0, &[1; 1024]);
            let sync = file.sync_begin();
            file.sync_end(sync);
            file.set_length(512);
            file
        };
        let seen = outcomes(file);
        assert!(seen.contains(&vec![1; 1024]));
        assert!(seen.contains(&vec![1; 512]));
        let mut synced = file();
        let sync = synced.sync_begin();
        synced.sync_end(sync);
        synced.power_loss(Survival::None, &mut SmallRng::seed_from_u64(1));
        assert_eq!(synced.bytes(), &[1; 512]);
    }

    #[test]
    fn a_failed_sync_is_not_made_good_by_the_next_one() {
        let mut random = SmallRng::seed_from_u64(3);
        let mut lost = 0;
        for _ in 0..100 {
            let mut file = Content::default();
            file.write(0, &[1; 512]);
            let sync = file.sync_begin();
            file.sync_failed(sync, &mut random);
            let sync = file.sync_begin();
            file.sync_end(sync);
            file.power_loss(Survival::All, &mut random);
            lost += usize::from(file.bytes() != [1; 512]);
        }
        assert!((20..80).contains(&lost), "{lost} of 100");
    }

    #[test]
    fn what_a_power_loss_would_leave_is_told_without_one() {
        let mut file = Content::default();
        file.write(0, &[1; 1024]);
        let sync = file.sync_begin();
        file.sync_end(sync);
        assert!(matches!(file.remains(Harshest::Dropped), Cow::Borrowed(_)));
        file.write(0, &[2; 1024]);
        file.set_length(600);
        file.write(600, &[3; 1400]);
        let platter = [1; 1024];
        assert_eq!(&*file.remains(Harshest::Dropped), &platter);
        assert_eq!(&*file.remains(Harshest::Taken), [&[2; 512][..], &[1; 88]].concat());
        assert_eq!(&*file.remains(Harshest::Overwritten), [&[1; 512][..], &[2; 88], &[3; 424]].concat());
        assert_eq!((file.length(), file.bytes()[1999]), (2000, 3), "nothing has happened");
        file.power_loss(Survival::None, &mut SmallRng::seed_from_u64(1));
        assert_eq!(file.bytes(), &platter);
    }

    #[test]
    fn losses_are_counted_per_write() {
        let mut file = Content::default();
        file.write(0, &[1; 1024]);
        file.write(1024, &[2; 512]);
        let kept = BTreeMap::from([(0, true), (1, false), (2, false)]);
        let loss = file.loss(1536, &kept);
        assert_eq!((loss.dropped_bytes, loss.torn_writes), (1024, 1));
    }
}
