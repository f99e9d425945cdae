//! Law: what an idempotent producer sends stands in the log once, however often it was sent, unless it was silent for
//! `producer.id.expiration.ms`; what a plain producer sends, at most once per attempt.
//!
//! Source: KIP-98; KIP-360 and KAFKA-7190 for ways to break it.

use super::{Verdict, demand};
use crate::history::{History, Op};

pub(crate) const LAW: &str = "no_duplicate";

/// `op` is found at `base_offset`, where it was not known to stand.
pub(crate) fn new_place(history: &History, op: &Op, base_offset: i64) -> Verdict {
    let most = if op.identity.is_some() { 1 } else { op.sent as usize };
    let partition = &history.partitions[op.partition];
    let is_allowed = || {
        let later = op.places.iter().copied().fold(base_offset, i64::max);
        op.identity.is_some() && history.may_be_forgotten(op.partition, op, true, later)
    };
    demand(op.places.len() < most || is_allowed(), LAW, || {
        let kind = if op.identity.is_some() { "an idempotent producer" } else { "a plain producer" };
        format!(
            "operation {} of producer {} ({kind}, {} attempts) stands at {} {:?} and at {base_offset}",
            op.number, op.producer, op.sent, partition.name, op.places
        )
    })
}

#[cfg(test)]
mod tests {
    use crate::testing::Story;

    #[test]
    fn a_retry_that_became_a_second_write_is_found() {
        let story = Story::new().topic("t").idempotent(1, 1, "t", 0, &[1]).acked(1, 0, 0).again(1, 1, 5);
        story.fetched(9, "t", 0, &[(0, 1), (1, 1)], 2).broken("no_duplicate");
    }

    #[test]
    fn who_was_silent_for_a_day_may_have_been_forgotten() {
        let day = 86_400;
        let again = |seconds| {
            let story = Story::new().topic("t").idempotent(1, 1, "t", 0, &[1]).acked(1, 0, 0);
            let story = story.fetched(9, "t", 0, &[(0, 1)], 1).after_s(seconds).again(1, 1, 5);
            story.fetched(9, "t", 1, &[(1, 1)], 2)
        };
        again(day).holds();
        again(day - day / 10).broken("no_duplicate");
        let heard =
            Story::new().topic("t").idempotent(1, 1, "t", 0, &[1]).acked(1, 0, 0).after_s(day - day / 10);
        let heard = heard.idempotent(1, 2, "t", 0, &[2]).acked(2, 0, 1).after_s(day / 2).again(1, 1, 5);
        heard.fetched(9, "t", 0, &[(0, 1), (1, 2), (2, 1)], 3).broken("no_duplicate");
    }

    #[test]
    fn a_plain_producer_may_write_as_often_as_it_sent() {
        let story =
            Story::new().topic("t").produce(1, 1, "t", 0, &[1]).unknown(1, 0).again(1, 1, 5).acked(1, 1, 1);
        let story = story.fetched(9, "t", 0, &[(0, 1), (1, 1)], 2);
        story.fetched(9, "t", 2, &[(2, 1)], 3).broken("no_duplicate");
        let story =
            Story::new().topic("t").produce(1, 1, "t", 0, &[1]).unknown(1, 0).again(1, 1, 5).acked(1, 1, 1);
        story.fetched(9, "t", 0, &[(0, 1), (1, 1)], 2).holds();
    }
}
