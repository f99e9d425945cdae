//! When the segments of a log were written, as far as their records do not say it: some have no timestamps.
//!
//! Their age is what `retention.ms` and `segment.ms` go by, so it must not begin anew with every process. Kafka takes the
//! time at which the file system last changed the file; recovery, which writes again what it has checked, would make
//! everything young, and so does a copy. So the log keeps a small file of its own, a line for each segment that holds a
//! batch without timestamps: when it was begun, and by when its first so many bytes had been written. Of a segment that has
//! another size nobody knows when it got it: it counts as written now, and from now on that is what the file says.
//!
//! Form: as Kafka's checkpoints, a version line (0), a line with the number of entries, then
//! `base-offset begun-ms size written-ms` lines. A hint: where it is missing or damaged, ages begin now.
//! Never: an entry that speaks of other bytes than those that are there; a time in the future.

use std::collections::BTreeMap;

use bytes::Bytes;
use gracchus_core::Offset;

/// The name of the file.
pub(crate) const FILE: &str = "segment-ages";

/// What is known of one segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Age {
    /// Wall clock in milliseconds when it was begun.
    begun_ms: i64,
    /// So many bytes …
    size: u64,
    /// … had been written by then.
    written_ms: i64,
}

/// See the module.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Ages {
    of: BTreeMap<Offset, Age>,
    changed: bool,
}

impl Ages {
    /// What the file says of the segments that are there, each with its size, when the clock shows `now_ms`.
    pub(crate) fn read(contents: Option<&[u8]>, segments: &[(Offset, u64)], now_ms: i64) -> Self {
        let Some(contents) = contents else { return Self::default() };
        let Some(mut of) = decode(contents) else { return Self::none(true) };
        let before = of.clone();
        of.retain(|base, age| {
            let size = segments.iter().find(|(other, _)| other == base).map(|(_, size)| *size);
            // Also of one that was cut: what comes in the place of what was there must not be taken for it.
            if let Some(size) = size.filter(|size| *size != age.size) {
                (age.size, age.written_ms) = (size, now_ms);
            }
            (age.begun_ms, age.written_ms) = (age.begun_ms.min(now_ms), age.written_ms.min(now_ms));
            size.is_some()
        });
        Self { changed: of != before, of }
    }

    /// Of a log that begins anew; the file, if there `is_one`, speaks of what was before.
    pub(crate) fn none(is_one: bool) -> Self {
        Self { changed: is_one, ..Self::default() }
    }

    /// The file's contents, if they are no longer what [`Ages::read`] or the last call here gave.
    pub(crate) fn take_changed(&mut self) -> Option<Bytes> {
        use std::fmt::Write as _;
        if !std::mem::take(&mut self.changed) {
            return None;
        }
        let mut text = format!("0\n{}\n", self.of.len());
        for (base, Age { begun_ms, size, written_ms }) in &self.of {
            writeln!(text, "{base} {begun_ms} {size} {written_ms}").expect("a string takes everything");
        }
        Some(text.into())
    }

    /// Whether the file says something else, or less.
    pub(crate) fn is_changed(&self) -> bool {
        self.changed
    }

    /// Whether something is known of the segment: it holds a batch without timestamps.
    pub(crate) fn knows(&self, base: Offset) -> bool {
        self.of.contains_key(&base)
    }

    /// When the segment was begun.
    pub(crate) fn begun_ms(&self, base: Offset) -> Option<i64> {
        self.of.get(&base).map(|age| age.begun_ms)
    }

    /// By when all `size` bytes of the segment had been written.
    pub(crate) fn written_ms(&self, base: Offset, size: u64) -> Option<i64> {
        self.of.get(&base).filter(|age| age.size == size).map(|age| age.written_ms)
    }

    /// The segment, begun at `begun_ms`, gets its first batch without timestamps.
    pub(crate) fn begin(&mut self, base: Offset, begun_ms: i64) {
        self.of.insert(base, Age { begun_ms, size: 0, written_ms: begun_ms });
        self.changed = true;
    }

    /// All `size` bytes of the segment had been written at `written_ms`; it was begun at that time or before.
    pub(crate) fn written(&mut self, base: Offset, size: u64, written_ms: i64) {
        let begun_ms = self.begun_ms(base).unwrap_or(written_ms);
        let age = Age { begun_ms, size, written_ms };
        self.changed |= self.of.insert(base, age) != Some(age);
    }

    /// No segment begins below `first` any more.
    pub(crate) fn forget_below(&mut self, first: Offset) {
        let kept = self.of.split_off(&first);
        self.changed |= !self.of.is_empty();
        self.of = kept;
    }
}

fn decode(contents: &[u8]) -> Option<BTreeMap<Offset, Age>> {
    let mut lines = std::str::from_utf8(contents).ok()?.lines();
    if lines.next()? != "0" {
        return None;
    }
    let count: usize = lines.next()?.parse().ok()?;
    let of = lines.map(line).collect::<Option<BTreeMap<_, _>>>()?;
    (of.len() == count).then_some(of)
}

fn line(line: &str) -> Option<(Offset, Age)> {
    let mut words = line.split(' ');
    let mut word = || words.next();
    let base = Offset(word()?.parse().ok()?);
    let (begun_ms, size, written_ms) = (word()?.parse().ok()?, word()?.parse().ok()?, word()?.parse().ok()?);
    word().is_none().then_some((base, Age { begun_ms, size, written_ms }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn two() -> (Ages, Bytes) {
        let mut ages = Ages::default();
        ages.begin(Offset(0), 100);
        ages.written(Offset(0), 40, 150);
        ages.begin(Offset(7), 160);
        let text = ages.take_changed().expect("it changed");
        (ages, text)
    }

    #[test]
    fn reads_back_what_it_wrote() {
        let (mut ages, text) = two();
        assert_eq!(text, "0\n2\n0 100 40 150\n7 160 0 160\n");
        assert_eq!(ages.take_changed(), None, "nothing changed since");
        assert_eq!(Ages::read(Some(&text), &[(Offset(0), 40), (Offset(7), 0)], 200), ages);
        assert_eq!((ages.written_ms(Offset(0), 40), ages.written_ms(Offset(0), 41)), (Some(150), None));
        assert_eq!(ages.begun_ms(Offset(7)), Some(160));
    }

    #[test]
    fn what_does_not_fit_is_not_believed() {
        let (_, text) = two();
        // The first was cut, or has grown, and the second is gone.
        for size in [0, 39, 41] {
            let mut ages = Ages::read(Some(&text), &[(Offset(0), size)], 200);
            assert_eq!((ages.written_ms(Offset(0), size), ages.written_ms(Offset(0), 40)), (Some(200), None));
            assert_eq!((ages.begun_ms(Offset(0)), ages.knows(Offset(7))), (Some(100), false));
            assert!(ages.take_changed().is_some(), "and the file will say so");
        }
        // The clock was wrong, then or now.
        let ages = Ages::read(Some(&text), &[(Offset(0), 40)], 120);
        assert_eq!((ages.begun_ms(Offset(0)), ages.written_ms(Offset(0), 40)), (Some(100), Some(120)));
        for damaged in
            ["", "1\n0\n", "0\n2\n0 1 2 3\n", "0\n1\n0 1 2\n", "0\n1\n0 1 2 3 4\n", "0\n1\n0 1 -2 3\n"]
        {
            let ages = Ages::read(Some(damaged.as_bytes()), &[(Offset(0), 40)], 200);
            assert!(!ages.knows(Offset(0)), "{damaged:?}");
        }
        assert_eq!(Ages::read(None, &[(Offset(0), 40)], 200), Ages::default());
    }

    #[test]
    fn segments_that_left_are_forgotten() {
        let (mut ages, _) = two();
        ages.forget_below(Offset(0));
        assert_eq!(ages.take_changed(), None);
        ages.forget_below(Offset(7));
        assert_eq!(ages.take_changed().expect("it changed"), "0\n1\n7 160 0 160\n");
    }
}
