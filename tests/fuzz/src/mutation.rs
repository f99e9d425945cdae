//! Changes inputs at random, for runs without coverage: a few edits of the kinds that decoders trip over.
//!
//! Never: a source of chance but the seed.

use rand::{Rng, SeedableRng, rngs::SmallRng, seq::IndexedRandom};

/// Numbers at the edges of what lengths, counts and offsets can be.
const EDGES: [i64; 18] = [
    0,
    1,
    -1,
    2,
    127,
    128,
    255,
    256,
    32_767,
    32_768,
    65_535,
    65_536,
    i32::MAX as i64,
    i32::MIN as i64,
    u32::MAX as i64,
    i64::MAX,
    i64::MIN,
    i64::MAX - 1,
];

/// Makes new inputs of old ones.
#[derive(Debug)]
pub struct Mutator {
    random: SmallRng,
}

impl Mutator {
    /// Everything it makes follows from `seed`.
    pub fn new(seed: u64) -> Self {
        Self { random: SmallRng::seed_from_u64(seed) }
    }

    /// A changed copy of one of `corpus`, at most `longest` bytes.
    pub fn next(&mut self, corpus: &[Vec<u8>], longest: usize) -> Vec<u8> {
        let mut input = corpus.choose(&mut self.random).cloned().unwrap_or_default();
        for _ in 0..1 << self.random.random_range(0..4) {
            self.edit(&mut input, corpus);
        }
        input.truncate(longest);
        input
    }

    fn edit(&mut self, input: &mut Vec<u8>, corpus: &[Vec<u8>]) {
        let at = self.random.random_range(0..=input.len());
        let length = self.random.random_range(0..=(input.len() - at).min(32));
        match self.random.random_range(0..8) {
            0 if at < input.len() => input[at] ^= 1 << self.random.random_range(0..8),
            1 if at < input.len() => input[at] = self.random.random(),
            2 => self.number(input, at),
            3 => drop(input.drain(at..at + length)),
            4 => {
                let again = input[at..at + length].to_vec();
                drop(input.splice(at..at, again));
            }
            5 => {
                let fresh: Vec<u8> = (0..length).map(|_| self.random.random()).collect();
                drop(input.splice(at..at + length, fresh));
            }
            6 => {
                let other = corpus.choose(&mut self.random).map(Vec::as_slice).unwrap_or_default();
                let from = self.random.random_range(0..=other.len());
                let to = self.random.random_range(from..=other.len());
                drop(input.splice(at..at + length, other[from..to].iter().copied()));
            }
            _ => input.truncate(at),
        }
    }

    /// Writes a number over what is there, in any width and either order of bytes.
    fn number(&mut self, input: &mut Vec<u8>, at: usize) {
        let edge = *EDGES.choose(&mut self.random).expect("some");
        let width = 1 << self.random.random_range(0..4);
        let mut bytes = edge.to_be_bytes()[8 - width..].to_vec();
        if self.random.random() {
            bytes.reverse();
        }
        let end = (at + width).min(input.len());
        drop(input.splice(at..end, bytes));
    }
}
