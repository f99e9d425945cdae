//! What is written of a journal part is read back, and nothing that is only nearly that.

use proptest::prelude::*;

use super::parts::{PART_HEADER, PartHeader};

fn header() -> impl Strategy<Value = PartHeader> {
    (any::<u64>(), PART_HEADER as u64..).prop_map(|(lap, alignment)| PartHeader { lap, alignment })
}

proptest! {
    #[test]
    fn a_part_header_reads_back(header in header()) {
        let sector = header.encode();
        prop_assert_eq!(sector.len(), PART_HEADER);
        prop_assert_eq!(PartHeader::parse(&sector), Some(header));
    }

    #[test]
    fn a_changed_bit_is_noticed(header in header(), bit in 0..24 * 8usize) {
        let mut sector = header.encode().to_vec();
        sector[bit / 8] ^= 1 << (bit % 8);
        prop_assert_eq!(PartHeader::parse(&sector), None);
    }

    #[test]
    fn a_cut_header_is_none(header in header(), length in 0..24usize) {
        prop_assert_eq!(PartHeader::parse(&header.encode()[..length]), None);
    }
}
