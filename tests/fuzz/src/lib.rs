//! Fuzz targets: one for every decoder of the broker, each a function of bytes that must hold for *any* bytes.
//!
//! A target reads its input as the broker would and checks more than that nothing panics: what is accepted and written
//! again must mean the same, and the memory that it takes is bounded by its input and by limits, never by a number in
//! the input. The same targets run in two ways: as plain tests on the stable toolchain, over the corpus and over inputs
//! changed at random for a few seconds (`tests/decoders.rs`), and guided by coverage for as long as one likes
//! (`cargo fuzz-decoders run`).
//!
//! Never: a target that knows the broker's code better than its callers do, or one whose outcome depends on anything but
//! its input.

mod corpus;
mod input;
mod memory;
mod mutation;
mod targets;
mod world;

pub use corpus::{Seed, corpus, corpus_directory, write_seeds};
pub use mutation::Mutator;
pub use targets::TARGETS;

/// What is fuzzed.
#[derive(Debug)]
pub struct Target {
    /// Names it on the command line and in `corpus/`.
    pub name: &'static str,
    /// What it reads, in one line.
    pub about: &'static str,
    /// Runs it on an input: whether that was accepted. Panics if something does not hold.
    pub run: fn(&[u8]) -> bool,
    /// Inputs made of valid encodings, accepted unless their name ends with `refused`.
    pub seeds: fn() -> Vec<Seed>,
    /// Whether it reads what brokers of ours have written: what they write today must still be read tomorrow, so its
    /// seeds are kept as files.
    pub ours: bool,
    /// Inputs are no longer, in bytes.
    pub longest: usize,
    /// The most heap that a run may take, in bytes, …
    pub memory: usize,
    /// … and what it may take more for each byte of the input.
    pub memory_per_byte: usize,
}

impl Target {
    /// The target of that name.
    pub fn named(name: &str) -> Option<&'static Target> {
        TARGETS.iter().find(|target| target.name == name)
    }

    /// Runs the target on `input`, no more of it than it takes, and holds its memory against its bound. Whether it was
    /// accepted.
    ///
    /// # Panics
    /// If something does not hold.
    pub fn check(&self, input: &[u8]) -> bool {
        let input = &input[..input.len().min(self.longest)];
        let (accepted, peak) = memory::whole_run(|| (self.run)(input));
        let bound = self.memory + self.memory_per_byte * input.len();
        assert!(
            peak <= bound,
            "{}: {peak} bytes of heap for {} bytes of input, bound {bound}",
            self.name,
            input.len()
        );
        accepted
    }
}
