//! Law: once everything is healed, every client gets on within a bound: a producer has a batch acknowledged, a consumer
//! is given records, or stands where all that was acknowledged is behind it.
//!
//! Source: whoever serves clients serves them again once nothing is wrong: the property of liveness.

use super::{Verdict, demand};
use crate::ClientKind;
use crate::history::{Client, History};

pub(crate) const LAW: &str = "progress";

/// All clients, at a time when each of them must have got on since `since_ns` (or since it was born).
pub(crate) fn everyone(history: &History, since_ns: u64, within_ns: u64, now_ns: u64) -> Verdict {
    for (number, client) in &history.clients {
        let since = since_ns.max(client.started_ns);
        let due = now_ns >= since.saturating_add(within_ns);
        demand(!due || !is_stuck(history, client, since), LAW, || {
            let seconds = (now_ns - since) as f64 / 1e9;
            format!("{} made no progress for {seconds:.1} s after the heal", name(*number, client))
        })?;
    }
    Ok(())
}

/// Clients from before `since_ns` that have not got on since then.
pub(crate) fn stuck(history: &History, since_ns: u64) -> impl Iterator<Item = String> {
    let old = history.clients.iter().filter(move |(_, client)| client.started_ns <= since_ns);
    old.filter(move |(_, client)| is_stuck(history, client, since_ns))
        .map(|(number, client)| name(*number, client))
}

fn name(number: u32, client: &Client) -> String {
    let kind = if client.kind == ClientKind::Producer { "producer" } else { "consumer" };
    format!("{kind} {number}")
}

fn is_stuck(history: &History, client: &Client, since_ns: u64) -> bool {
    let got_on = client.progressed_ns.is_some_and(|last| last >= since_ns);
    client.alive && !got_on && !has_read_all(history, client)
}

/// A consumer with nothing left to read: a session tells it nothing more.
fn has_read_all(history: &History, client: &Client) -> bool {
    client.kind == ClientKind::Consumer
        && client.reading.iter().all(|(partition, reading)| {
            reading.position.is_some_and(|position| position >= history.partitions[*partition].acked_end)
        })
}

#[cfg(test)]
mod tests {
    use crate::testing::Story;
    use crate::{ClientKind, EventKind};

    const BOUND_S: u64 = 30;

    fn healed() -> Story {
        let story =
            Story::new().topic("t").event(EventKind::ClientStarted { client: 1, kind: ClientKind::Producer });
        let story = story.event(EventKind::ClientStarted { client: 9, kind: ClientKind::Consumer });
        let story = story.produce(1, 1, "t", 0, &[1]).acked(1, 0, 0).fetched(9, "t", 0, &[], 1);
        story.event(EventKind::Healed).produce(1, 2, "t", 0, &[2])
    }

    #[test]
    fn who_stands_still_after_the_heal_is_found() {
        let story = healed().fetched(9, "t", 0, &[(0, 1)], 1).after_s(BOUND_S);
        assert!(story.broken("progress").contains("producer 1"));
        let story = healed().acked(2, 0, 1).after_s(BOUND_S);
        assert!(story.broken("progress").contains("consumer 9"));
    }

    #[test]
    fn who_gets_on_has_read_all_or_has_stopped_is_right() {
        healed().acked(2, 0, 1).fetched(9, "t", 0, &[(0, 1)], 1).after_s(BOUND_S).holds();
        healed().after_s(BOUND_S - 1).holds();
        let stopped = healed().event(EventKind::ClientStopped { client: 9 });
        stopped.event(EventKind::ClientStopped { client: 1 }).after_s(BOUND_S).holds();
    }
}
