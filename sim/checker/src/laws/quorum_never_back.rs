//! Law: over all lives of a node its vote in the metadata quorum never goes back, neither to an earlier epoch nor within one,
//! and its image is never an older one than it has shown before: who starts again has caught up before it serves. No epoch
//! is led in two lives.
//!
//! Source: Raft (the current term and the vote are durable before they count; a term has one leader, whose entries are
//! named by term and index for ever); KIP-500 (a node that has not caught up leads nothing and answers nothing from the
//! image).

use super::{Verdict, demand};
use crate::QuorumView;

pub(crate) const LAW: &str = "quorum_never_back";

/// What a node showed of the quorum over all its lives.
#[derive(Debug, Default)]
pub(crate) struct Past {
    last: Option<QuorumView>,
    /// The last epoch that it led, and in which life.
    led: Option<(i32, u64)>,
}

impl Past {
    /// What it shows now, in the life `incarnation`.
    pub(crate) fn shows(&mut self, node: i32, incarnation: u64, now: QuorumView) -> Verdict {
        if let Some(before) = self.last.replace(now) {
            forward(node, before, now)?;
        }
        if !now.leads {
            return Ok(());
        }
        let before = self.led.replace((now.epoch, incarnation));
        let again = before.is_some_and(|(epoch, life)| epoch == now.epoch && life != incarnation);
        demand(!again, LAW, || {
            let epoch = now.epoch;
            format!("node {node} leads the quorum in epoch {epoch}, and did so before it was started again")
        })
    }
}

fn forward(node: i32, before: QuorumView, now: QuorumView) -> Verdict {
    let vote = |view: QuorumView| (view.epoch, view.voted_for);
    let wrong = if vote(now) < vote(before) {
        Some("vote")
    } else if now.image_version < before.image_version {
        Some("image")
    } else {
        None
    };
    demand(wrong.is_none(), LAW, || {
        format!("node {node}: its {} went back, from {before:?} to {now:?}", wrong.unwrap_or_default())
    })
}

#[cfg(test)]
mod tests {
    use crate::QuorumView;
    use crate::testing::Story;

    #[test]
    fn a_vote_or_an_image_that_goes_back_is_found_also_over_a_restart() {
        let first = QuorumView { epoch: 3, voted_for: 2, leads: false, image_version: 40 };
        for wrong in [
            QuorumView { epoch: 2, image_version: 41, ..first },
            QuorumView { voted_for: 1, ..first },
            QuorumView { epoch: 4, image_version: 39, ..first },
        ] {
            for incarnation in [1, 2] {
                let story = Story::new().shows_quorum(1, first);
                story.shows_quorum(incarnation, wrong).broken("quorum_never_back");
            }
        }
        let later = QuorumView { epoch: 4, voted_for: 1, ..first };
        Story::new().shows_quorum(1, first).shows_quorum(2, later).holds();
    }

    #[test]
    fn an_epoch_that_is_led_in_two_lives_is_found() {
        let voted = QuorumView { epoch: 3, voted_for: 1, leads: false, image_version: 40 };
        let leads = QuorumView { leads: true, ..voted };
        let story = || Story::new().shows_quorum(1, voted).shows_quorum(1, leads).shows_quorum(2, voted);
        story().shows_quorum(2, leads).broken("quorum_never_back");
        story().shows_quorum(2, QuorumView { epoch: 4, ..leads }).holds();
    }
}
