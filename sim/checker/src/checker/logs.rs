//! What nodes show of logs: as a process found them, as it shows them after a step, and what a stop or a power loss leaves. Never:
//! a log judged by what lies on one disk where there are several replicas.

use super::Checker;
use crate::budget::Entry;
use crate::history::Judged;
use crate::laws::flush_kept::Allowed;
use crate::laws::{
    Verdict, acknowledged_end, answers_in_time, assignment_in_order, deletion_allowed, flush_kept,
    log_start_kept, recovered_log, replica_bounds, replica_never_back,
};
use crate::{NodeView, Part, Partition, PartitionView, Seen};

impl Checker {
    /// The whole log of a partition as a process found it.
    pub(super) fn recovered(&mut self, index: usize, (start, end): (i64, i64), records: &[Seen]) -> Verdict {
        let exposed = self.history.partitions[index].exposed.take();
        let state = &self.history.partitions[index];
        if !state.kept_by_one_disk() {
            return Ok(());
        }
        log_start_kept::reborn(state, start)?;
        self.see_start(index, start)?;
        let state = &self.history.partitions[index];
        match exposed {
            Some(floor) => flush_kept::kept(state, floor, end)?,
            None => recovered_log::complete(state, end)?,
        }
        recovered_log::whole(&self.history, index, start, end, records)?;
        if exposed.is_some() {
            self.history.cut(index, end, self.now_ns);
        }
        let state = &mut self.history.partitions[index];
        state.durable_end = state.durable_end.max(end);
        Ok(())
    }

    /// What clients know of the partitions that the node's process has shown is on disk.
    pub(super) fn stopped_cleanly(&mut self, node: i32) {
        let Some(node) = self.nodes.get(&node).filter(|node| node.seen) else { return };
        for state in &mut self.history.partitions {
            // What could not be written any more was left as it was.
            if self.condition.has_failed_below(state) {
                continue;
            }
            let shown = usize::try_from(state.name.partition)
                .ok()
                .and_then(|number| node.partitions.get(&state.name.topic_id)?.get(number)?.as_ref());
            if shown.is_some_and(|(incarnation, _)| *incarnation == node.incarnation) {
                state.durable_end = state.durable_end.max(state.acked_end).max(state.ends.now());
            }
        }
    }

    /// Of topics that leave flushing to the operating system a part may be gone.
    pub(super) fn power_lost(&mut self) {
        let now = self.now_ns;
        let well_since = self.condition.well_since(|part| !matches!(part, Part::Link(_)));
        let failed = self.condition.has_any_failed();
        for index in 0..self.history.partitions.len() {
            let state = &self.history.partitions[index];
            let excused = Entry::LeftToTheSystem.holds(state.replication_factor);
            if state.synced || state.judged != Judged::Fully || !excused {
                continue;
            }
            let around = self.circumstances();
            let largest = |key| around.numbers(self.history.topic_of(index), key, now).into_iter().max();
            let ms = largest("flush.ms").and_then(|ms| u64::try_from(ms).ok()).unwrap_or(u64::MAX);
            let flushed_within = answers_in_time::by_a_slow_clock(ms.saturating_mul(1_000_000))
                .saturating_add(self.config.sync_within_ns);
            let flushed_before_ns = now.saturating_sub(flushed_within);
            // What an earlier process left to the system is flushed when the log is opened, which need not wait for a request.
            let opened_ns = match state.opened_ns {
                0 => self.condition.started_ns().saturating_add(self.config.open_within_ns),
                opened_ns => opened_ns,
            };
            let judged = well_since.max(opened_ns) <= flushed_before_ns && !failed;
            // A stricter setting counts for a log that is open: what had been written before it is flushed then, or when it is
            // opened.
            let is_open = state.opened_ns > 0 && !self.condition.has_failed_below(state);
            let since = if is_open { now } else { 0 };
            let messages = around.numbers(self.history.topic_of(index), "flush.messages", since);
            let allowed = Allowed {
                messages: messages.into_iter().max().unwrap_or(i64::MAX),
                flushed_before_ns: if judged { flushed_before_ns } else { 0 },
            };
            let floor = flush_kept::floor(state, allowed);
            let state = &mut self.history.partitions[index];
            state.lost_ns = now;
            // Nothing has been acknowledged since a loss before this one, if its log was not seen.
            state.exposed.get_or_insert(floor);
        }
    }

    pub(super) fn see_replica(&mut self, view: &NodeView, replica: &PartitionView) -> Verdict {
        replica_bounds::numbers(view.node, replica)?;
        let at = Partition::of(replica.topic.clone(), replica.topic_id, replica.partition);
        let index = self.history.find(&at);
        let node = self.nodes.entry(view.node).or_default();
        let partition = usize::try_from(replica.partition).unwrap_or(0);
        let shown = node.partitions.entry(replica.topic_id).or_default();
        if shown.len() <= partition {
            shown.resize(partition + 1, None);
        }
        let last = shown[partition].replace((view.incarnation, replica.clone()));
        let reborn = last.as_ref().is_none_or(|(incarnation, _)| *incarnation != view.incarnation);
        let assigned = last.as_ref().and_then(|(_, before)| before.assigned.as_ref());
        assignment_in_order::shown(view.node, assigned, replica)?;
        if let Some((_, before)) = &last {
            replica_never_back::epoch(view.node, before, replica)?;
            if !reborn {
                replica_never_back::forward(view.node, before, replica)?;
            }
        }
        let Some(index) = index else { return Ok(()) };
        let now = self.now_ns;
        let partition = &mut self.history.partitions[index];
        if reborn {
            partition.opened_ns = now;
        }
        if partition.judged == Judged::Fully {
            acknowledged_end::covered(view.node, partition, replica)?;
            partition.latest_end = partition.latest_end.max(replica.log_end);
            partition.latest_high_watermark =
                partition.latest_high_watermark.max(Some(replica.high_watermark));
            if reborn && partition.kept_by_one_disk() {
                log_start_kept::reborn(partition, replica.log_start)?;
            }
            return self.see_start(index, replica.log_start);
        }
        Ok(())
    }

    /// The log of a partition begins at `start`, somebody says.
    pub(super) fn see_start(&mut self, index: usize, start: i64) -> Verdict {
        let partition = &self.history.partitions[index];
        deletion_allowed::up_to(partition, self.history.topic_of(index), start, self.circumstances())?;
        let now = self.now_ns;
        let partition = &mut self.history.partitions[index];
        partition.deletions.judged = partition.deletions.judged.max(start);
        partition.deletions.seen_ns = now;
        partition.starts.learn(now, start);
        Ok(())
    }
}
