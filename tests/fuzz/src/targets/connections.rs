//! What a connection receives, cut into frames.
//!
//! Holds: in whatever pieces the bytes arrive, the frames are those that their prefixes announce, the reader ends for the
//! reason that stands in the bytes, and it never waits for memory that it holds itself. Input: one byte for the largest
//! frame, one for the budget, two that choose the pieces, then the stream.

use bytes::{BufMut, Bytes, BytesMut};
use futures_util::FutureExt;
use gracchus::server::fuzzing::frames;
use gracchus_env::{BoxFuture, ReadHalf};

use super::seed;
use crate::{Seed, input::Input};

/// Gives out a stream in pieces.
struct Pieces {
    left: Bytes,
    /// Lengths of the pieces, over and over.
    lengths: [usize; 2],
    turn: usize,
}

impl ReadHalf for Pieces {
    fn read<'a>(
        &'a mut self,
        buffer: &'a mut BytesMut,
        limit: usize,
    ) -> BoxFuture<'a, std::io::Result<usize>> {
        assert!(limit > 0, "a read of nothing would look like the end");
        self.turn += 1;
        let length = self.lengths[self.turn % 2].min(limit).min(self.left.len());
        buffer.put(self.left.split_to(length));
        Box::pin(std::future::ready(Ok(length)))
    }
}

pub(super) fn run(input: &[u8]) -> bool {
    let mut input = Input(input);
    let largest = 8 << (input.byte() % 16);
    let budget = 1 << (input.byte() % 24);
    let lengths = [input.byte(), input.byte()].map(|choice| 1 << (choice % 18));
    let stream = Bytes::copy_from_slice(input.rest());
    let half = Pieces { left: stream.clone(), lengths, turn: 0 };
    let mut seen = Vec::new();
    let ended = frames(Box::new(half), largest, budget, |frame| seen.push(Bytes::copy_from_slice(&frame)))
        .now_or_never()
        .expect("a reader whose bytes are all there never waits");
    let (expected, clean) = split(stream, largest);
    assert_eq!(ended.is_none(), clean, "{ended:?}");
    assert!(seen == expected, "{} frames instead of {}", seen.len(), expected.len());
    clean
}

/// The whole frames in `stream`, and whether it ends behind one of them.
fn split(mut stream: Bytes, largest: i32) -> (Vec<Bytes>, bool) {
    let mut frames = Vec::new();
    while let Some(prefix) = stream.first_chunk::<4>() {
        let size = i32::from_be_bytes(*prefix);
        let whole = usize::try_from(size).ok().filter(|size| (8..=largest).contains(&(*size as i32)));
        let Some(size) = whole.filter(|size| stream.len() >= 4 + size) else { return (frames, false) };
        frames.push(stream.slice(4..4 + size));
        stream = stream.slice(4 + size..);
    }
    (frames, stream.is_empty())
}

pub(super) fn seeds() -> Vec<Seed> {
    let stream = |sizes: &[usize]| {
        let mut stream = Vec::new();
        for size in sizes {
            stream.put_i32(*size as i32);
            stream.put_bytes(b'x', *size);
        }
        stream
    };
    let with = |settings: [u8; 4], sizes: &[usize]| [settings.to_vec(), stream(sizes)].concat();
    vec![
        seed("small", with([15, 20, 0, 3], &[8, 9, 100, 8])),
        seed("large", with([15, 20, 14, 17], &[20_000, 8, 70_000, 500])),
        seed("over-the-limit-refused", with([2, 20, 5, 5], &[32, 33])),
        seed("budget-of-one", with([15, 0, 10, 10], &[3000, 17_000])),
    ]
}
