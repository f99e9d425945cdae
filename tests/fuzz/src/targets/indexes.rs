//! Offset index and time index files of any content.
//!
//! Holds: what is believed is written anew to the same bytes, and every entry is found by a search for it. Input: a byte
//! that chooses the index, the segment's base, its size or its end, then the file.

use bytes::{BufMut, Bytes};
use gracchus_log::fuzzing::{offset_index, time_index};

use super::seed;
use crate::{Seed, input::Input};

pub(super) fn run(input: &[u8]) -> bool {
    let mut input = Input(input);
    let times = input.byte() % 2 == 1;
    // No segment is larger than 2 GiB, and none begins where its offsets would overflow.
    let base = input.count().min(i64::MAX - (1 << 32));
    let bound = if times { input.count() } else { input.count().min(i64::from(i32::MAX)) };
    let contents = Bytes::copy_from_slice(input.rest());
    let again = if times {
        time_index(base, contents.clone(), bound)
    } else {
        offset_index(base, contents.clone(), bound.unsigned_abs())
    };
    if let Ok(again) = &again {
        assert_eq!(*again, contents);
    }
    again.is_ok()
}

pub(super) fn seeds() -> Vec<Seed> {
    let file = |times: u8, base: i64, bound: i64, entries: &[(i64, i32)]| {
        let mut file = vec![times];
        file.put_i64(base);
        file.put_i64(bound);
        for (first, second) in entries {
            if times == 1 {
                file.put_i64(*first);
            } else {
                file.put_i32(*first as i32);
            }
            file.put_i32(*second);
        }
        file
    };
    vec![
        seed("offsets", file(0, 100, 10_000, &[(9, 0), (20, 4096), (31, 9000)])),
        seed("offsets-torn-refused", [&file(0, 0, 100, &[(9, 0)])[..], &[0, 0]].concat()),
        seed("times", file(1, 100, 140, &[(1_700_000_000_000, 9), (1_700_000_000_500, 39)])),
        seed("empty", file(1, 0, 0, &[])),
    ]
}
