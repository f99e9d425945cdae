//! Producers whose batches were turned away while their log could not be opened for want of file handles.
//!
//! The model: a log that knows nothing of a producer takes whatever comes first. If the first of several batches on their way
//! is turned away, and the log opens before the next one comes, that one would be taken and the first be out of order for
//! good. So a producer that was turned away begins where it was, or with a new epoch.
//! Never: more of them than [`MOST`]; a word about a producer that the log knows.

use std::collections::BTreeMap;

use crate::{ProducerEpoch, ProducerId, record::BatchHeader};

/// So many are remembered, those that came first.
const MOST: usize = 10_000;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct TurnedAway {
    /// The first sequence number that each was turned away with.
    first: BTreeMap<(ProducerId, ProducerEpoch), i32>,
}

impl TurnedAway {
    /// Whether nobody was, as nearly always.
    pub(super) fn is_empty(&self) -> bool {
        self.first.is_empty()
    }

    /// The batch is turned away.
    pub(super) fn note(&mut self, header: &BatchHeader) {
        if header.has_producer() && self.first.len() < MOST {
            let producer = (header.producer_id, header.producer_epoch);
            self.first.entry(producer).or_insert(header.base_sequence);
        }
    }

    /// Whether the batch, the first of its producer in this log, comes before one that was turned away.
    pub(super) fn is_overtaken_by(&mut self, header: &BatchHeader) -> bool {
        let producer = (header.producer_id, header.producer_epoch);
        match self.first.get(&producer) {
            Some(first) if *first != header.base_sequence => true,
            Some(_) => {
                self.first.remove(&producer);
                false
            }
            None => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::record::BatchBuilder;

    use super::*;

    fn batch(producer: i64, epoch: i16, sequence: i32) -> BatchHeader {
        let built = BatchBuilder::new().producer(ProducerId(producer), ProducerEpoch(epoch), sequence);
        BatchHeader::parse(&built.value(0, "x").build()).unwrap()
    }

    #[test]
    fn who_was_turned_away_begins_where_it_was() {
        let mut away = TurnedAway::default();
        assert!(!away.is_overtaken_by(&batch(1, 0, 7)), "nobody was");
        away.note(&batch(1, 0, 0));
        away.note(&batch(1, 0, 5));
        assert!(away.is_overtaken_by(&batch(1, 0, 5)));
        assert!(!away.is_overtaken_by(&batch(2, 0, 5)), "another producer");
        assert!(!away.is_overtaken_by(&batch(1, 1, 0)), "a new epoch");
        assert!(!away.is_overtaken_by(&batch(1, 0, 0)));
        assert!(!away.is_overtaken_by(&batch(1, 0, 5)), "from here on the log knows better");
    }
}
