//! Law: once everything is healed, a consumer that follows partitions gets on in every one of them: it is given records,
//! or stands where all that was acknowledged is behind it. A fetch session forgets none.
//!
//! Source: KIP-74 (partitions of a fetch take turns), KIP-227. `progress` asks only whether the consumer gets on at all.

use super::{Verdict, demand};
use crate::history::{Client, History};

pub(crate) const LAW: &str = "every_partition";

/// All consumers, at a time when each must have got on since `since_ns` (or since it began to follow).
pub(crate) fn everyone(history: &History, since_ns: u64, within_ns: u64, now_ns: u64) -> Verdict {
    for (number, client) in &history.clients {
        let since = since_ns.max(client.started_ns);
        if !client.alive || now_ns < since.saturating_add(within_ns) {
            continue;
        }
        if let Some(partition) = behind(history, client, since).next() {
            let name = &history.partitions[partition].name;
            let end = history.partitions[partition].acked_end;
            let seconds = (now_ns - since) as f64 / 1e9;
            demand(false, LAW, || {
                format!(
                    "consumer {number} got nothing of {name} for {seconds:.1} s after the heal, though it is \
                     acknowledged up to {end}"
                )
            })?;
        }
    }
    Ok(())
}

/// The followed partitions in which the client has not got on since `since_ns`, though there is something to read.
pub(crate) fn behind(history: &History, client: &Client, since_ns: u64) -> impl Iterator<Item = usize> {
    client.follows.iter().copied().filter(move |partition| {
        let state = &history.partitions[*partition];
        let reading = client.reading.get(partition).copied().unwrap_or_default();
        let read_all = reading.position.unwrap_or(0) >= state.acked_end;
        let deleted = history.topics[state.topic].deletion_asked_ns.is_some();
        !deleted && !read_all && reading.moved_ns < since_ns
    })
}

#[cfg(test)]
mod tests {
    use crate::testing::Story;
    use crate::{ClientKind, EventKind, Partition};

    const BOUND_S: u64 = 30;

    fn follower() -> Story {
        let story =
            Story::new().topic("t").event(EventKind::ClientStarted { client: 9, kind: ClientKind::Consumer });
        let partitions = vec![Partition::new("t", 0), Partition::new("t", 1)];
        let story = story.event(EventKind::Follows { consumer: 9, partitions });
        let story =
            story.produce(1, 1, "t", 0, &[1]).acked(1, 0, 0).produce(1, 2, "t", 1, &[2]).acked(2, 0, 0);
        story.event(EventKind::Healed).fetched(9, "t", 0, &[(0, 1)], 1)
    }

    #[test]
    fn a_partition_that_is_forgotten_is_found() {
        assert!(follower().after_s(BOUND_S).broken("every_partition").contains("t-1"));
        follower().event(Story::fetch(9, "t", 1, 0, &[(0, 2)], 1)).after_s(BOUND_S).holds();
        follower().event(EventKind::ClientStopped { client: 9 }).after_s(BOUND_S).holds();
    }
}
