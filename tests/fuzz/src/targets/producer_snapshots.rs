//! Producer snapshots of any content.
//!
//! Holds: what is believed is written to a file that is believed and says the same, and the state answers every batch
//! without a panic. Input: a byte that chooses whether the CRC is made right first, then the file.

use gracchus_core::{
    LeaderEpoch, Offset, ProducerEpoch, ProducerId,
    producer::ProducerStates,
    record::{Batch, BatchBuilder, BatchHeader},
};

use super::seed;
use crate::{Seed, input::Input};

pub(super) fn run(input: &[u8]) -> bool {
    let mut input = Input(input);
    let repair = input.byte() % 2 == 1;
    let mut file = input.rest().to_vec();
    if repair && file.len() >= 6 {
        file[..2].copy_from_slice(&[0, 1]);
        let crc = crc32c::crc32c(&file[6..]);
        file[2..6].copy_from_slice(&crc.to_be_bytes());
    }
    let Ok(mut states) = ProducerStates::decode_snapshot(&file) else { return false };
    let again = ProducerStates::decode_snapshot(&states.encode_snapshot());
    assert_eq!(again.as_ref(), Ok(&states), "written and read");
    for (id, epoch, sequence) in [(7, 2, 13), (7, 2, 10), (8, 0, i32::MAX), (0, 0, 0), (1, 0, 1)] {
        let header = batch(id, epoch, sequence, 2).stamp(Offset(1 << 40), LeaderEpoch(3));
        if states.check(&header).is_ok() {
            states.record(&header);
        }
    }
    let _ = states.encode_snapshot();
    true
}

fn batch(id: i64, epoch: i16, sequence: i32, count: usize) -> BatchHeader {
    let builder = BatchBuilder::new().producer(ProducerId(id), ProducerEpoch(epoch), sequence);
    let bytes = (0..count).fold(builder, |builder, _| builder.value(5, "v")).build();
    Batch::check(bytes).expect("a whole batch").header
}

pub(super) fn seeds() -> Vec<Seed> {
    let mut states = ProducerStates::new();
    let empty = states.encode_snapshot();
    for (id, epoch, sequence, count, at) in
        [(7, 2, 10, 3, 100), (7, 2, 13, 1, 103), (8, 0, i32::MAX - 1, 4, 104), (9, 1, 0, 1, 108)]
    {
        states.record(&batch(id, epoch, sequence, count).stamp(Offset(at), LeaderEpoch(1)));
    }
    let mut open = batch(10, 0, 0, 1).stamp(Offset(109), LeaderEpoch(1));
    open.attributes |= 0x10;
    states.record(&open);
    let ours = states.encode_snapshot();
    // Kafka's file ends with its array: two bytes of version, four of CRC, four of count, 46 for each entry.
    let kafkas = &ours[..6 + 4 + 4 * 46];
    let input = |repair: u8, file: &[u8]| [&[repair], file].concat();
    vec![
        seed("ours", input(0, &ours)),
        seed("ours-repaired", input(1, &ours)),
        seed("kafkas", input(1, kafkas)),
        seed("empty", input(0, &empty)),
    ]
}
