//! Law: a batch that is sent again is answered with the time that it got when it was appended, and readers find the same.
//!
//! Source: KIP-32 and KIP-98: a duplicate is answered with the original base offset and timestamp. −1 says that the producer's
//! timestamps count; a topic whose `message.timestamp.type` changes may say so later of an older batch.

use super::{Verdict, demand};
use crate::history::{Op, PartitionState};

pub(crate) const LAW: &str = "append_time_kept";

/// The operation is acknowledged at `base_offset`, or a record of the batch there is read, with `time`; −1 for none.
pub(crate) fn told(partition: &PartitionState, op: &Op, base_offset: i64, time: i64) -> Verdict {
    let known = op.append_time.filter(|known| *known >= 0 && time >= 0);
    // Of a plain producer each attempt is a batch of its own; whether another may be one is for `original_offset` to say.
    let is_the_one = op.identity.is_some() && op.places.iter().all(|place| *place == base_offset);
    let known = known.filter(|_| is_the_one);
    demand(known.is_none_or(|known| known == time), LAW, || {
        format!(
            "operation {} of producer {} was appended to {} at {:?}, and is said to have been at {time}",
            op.number, op.producer, partition.name, op.append_time
        )
    })
}

#[cfg(test)]
mod tests {
    use crate::testing::Story;
    use crate::{EventKind, Outcome};

    fn acked_at(story: Story, attempt: u32, log_append_time: i64) -> Story {
        let outcome = Outcome::Acked { base_offset: 0, log_append_time, log_start: 0 };
        story.event(EventKind::ProduceReturned { op: 1, attempt, outcome })
    }

    fn appended() -> Story {
        let configs = [("message.timestamp.type", "LogAppendTime")];
        acked_at(Story::new().configured("t", 1, &configs).idempotent(1, 1, "t", 0, &[1]), 0, 77)
    }

    #[test]
    fn a_repetition_that_is_told_another_time_is_found() {
        acked_at(appended().again(1, 1, 5), 1, 78).broken("append_time_kept");
        acked_at(appended().again(1, 1, 5), 1, 77).holds();
        acked_at(appended().again(1, 1, 5), 1, -1).holds();
    }
}
