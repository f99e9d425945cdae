//! How long an answer took, and answers that only say why not. Never: somebody blamed for what a fault that still lasted, or had
//! only just ended, explains.

use super::Checker;
use crate::laws::answers_in_time::Wait;
use crate::laws::{Verdict, answers_in_time, available, deadline_kept, offline_by_error};
use crate::{EventKind, Part, Partition};

impl Checker {
    /// A request ended.
    pub(super) fn waited(&self, event: &EventKind) -> Verdict {
        let EventKind::Waited { client, machine, request, about, waited_ns, answered } = event else {
            unreachable!("called for waits");
        };
        let wait = Wait { client: *client, request: *request, waited_ns: *waited_ns, answered: *answered };
        let within = self.config.answer_within_ns;
        // Most are answered at once.
        if wait.waited_ns <= within {
            return Ok(());
        }
        let begun = self.now_ns.saturating_sub(wait.waited_ns);
        let opened = |at: &Partition| {
            let Some(index) = self.history.find(at) else { return false };
            let (state, topic) = (&self.history.partitions[index], self.history.topic_of(index));
            // Asked by name, a namesake may have answered, whose log is opened only now.
            let is_the_one = topic.deletion_asked_ns.is_none() && topic.gone_ns.is_none();
            is_the_one && state.opened_ns > 0 && state.opened_ns <= begun
        };
        let opened = about.iter().all(opened);
        let link = |part| !matches!(part, Part::Link(other) if other != *machine);
        if opened {
            let since = self.condition.well_since(|part| link(part) && part != Part::Syncs);
            deadline_kept::ended(wait, since, self.config.deadline_within_ns, self.now_ns)?;
        }
        // A question for a time looks at the ends of all closed segments, and builds rotten indexes anew: once, as an opening.
        let looks_at_all = matches!(request, crate::Request::ListOffsets);
        let within = match opened && !looks_at_all {
            true => within,
            false => within.saturating_add(self.config.open_within_ns),
        };
        let about = || match about.first() {
            Some(at) if about.len() > 1 => format!(" of {at} and {} more", about.len() - 1),
            Some(at) => format!(" of {at}"),
            None => String::new(),
        };
        answers_in_time::ended(wait, self.condition.well_since(link), within, self.now_ns, about)
    }

    /// A partition was answered with an error.
    pub(super) fn not_served(&self, client: u32, at: &Partition, code: i16, invoked_ns: u64) -> Verdict {
        if available::what(code).is_none() || self.condition.is_of_the_past(invoked_ns) {
            return Ok(());
        }
        let Some(index) = self.history.find(at) else { return Ok(()) };
        let state = &self.history.partitions[index];
        let failed = self.condition.has_failed_below(state);
        let topic = self.history.topic_of(index);
        // A namesake may have answered, which lies elsewhere.
        if topic.deletion_asked_ns.is_some() || topic.gone_ns.is_some() {
            return Ok(());
        }
        let failed = failed || self.condition.is_absent(at);
        if code == offline_by_error::CODE {
            let lacking = self.condition.well_since(|part| part == Part::Handles) > invoked_ns;
            return offline_by_error::told(client, at, failed || lacking);
        }
        if failed {
            return Ok(());
        }
        // While it is opened, an error may be all that can be said in time.
        if state.opened_ns == 0 || invoked_ns < state.opened_ns {
            return Ok(());
        }
        let counts = |part| matches!(part, Part::Process | Part::Handles);
        let since = self.condition.well_since(counts).max(topic.created_ns);
        available::refused(client, at, code, since, invoked_ns)
    }
}
