//! What producers are told: outcomes, and where a batch stands. Never: an answer by name judged that a namesake may have given.

use super::Checker;
use crate::history::{Judged, Slot};
use crate::laws::{
    Broken, Verdict, acknowledged_kept, append_time_kept, config_in_effect, no_duplicate, nothing_unwritten,
    one_value_per_offset, original_offset, producer_order, stays_deleted, well_formed,
};
use crate::{ClientKind, Outcome, Written};

impl Checker {
    pub(super) fn find_op(&self, number: u64) -> Result<usize, Broken> {
        well_formed::known(self.history.op(number), || format!("operation {number}"))
    }

    pub(super) fn returned(&mut self, index: usize, attempt: u32, outcome: Outcome) -> Verdict {
        let op = &mut self.history.ops[index];
        match outcome {
            Outcome::Unknown | Outcome::Failed { definite: false, .. } => Ok(()),
            Outcome::Failed { definite: true, code } => {
                op.refused += 1;
                let op = &self.history.ops[index];
                let partition = &self.history.partitions[op.partition];
                let topic = self.history.topic_of(op.partition);
                config_in_effect::refused(topic, partition, op, code, self.circumstances().at_once())?;
                match op.places.first() {
                    Some(place) => nothing_unwritten::not_refused(
                        op,
                        &self.history.partitions[op.partition].name,
                        *place,
                    ),
                    None => Ok(()),
                }
            }
            Outcome::Acked { base_offset, log_append_time, log_start } => {
                let sent_ns = self.history.ops[index].attempts_ns.get(attempt as usize).copied();
                self.acknowledged(index, sent_ns.unwrap_or(0), base_offset, (log_append_time, log_start))
            }
        }
    }

    fn acknowledged(
        &mut self,
        index: usize,
        sent_ns: u64,
        base_offset: i64,
        (log_append_time, log_start): (i64, i64),
    ) -> Verdict {
        let now = self.now_ns;
        let op = &self.history.ops[index];
        self.note_progress(op.producer, ClientKind::Producer);
        let op = &self.history.ops[index];
        let partition = &self.history.partitions[op.partition];
        acknowledged_kept::has_offset(partition, op.number, base_offset)?;
        let topic = self.history.topic_of(op.partition);
        if !op.by_name {
            let number = op.number;
            stays_deleted::served(topic, op.sent_ns, || format!("operation {number} was acknowledged"))?;
        }
        let told = partition.judged == Judged::Fully && !partition.is_of_the_past(sent_ns);
        if told && !self.is_doubtful(op.partition, op.by_name) {
            let around = self.circumstances().at_once();
            config_in_effect::taken(topic, op, log_append_time, around)?;
            original_offset::repeated(&self.history, op, base_offset)?;
            append_time_kept::told(partition, op, base_offset, log_append_time)?;
            self.lanes.acknowledged(partition, op, base_offset)?;
            self.place(index, base_offset)?;
            let op = &mut self.history.ops[index];
            op.append_time = op.append_time.filter(|known| *known >= 0).or(Some(log_append_time));
            let op = &self.history.ops[index];
            let end = base_offset + op.records.len() as i64;
            let timed = log_append_time >= 0 || op.sent == 1;
            let partition = &mut self.history.partitions[op.partition];
            for offset in base_offset..end {
                if let Some(slot) = partition.slot_mut(offset) {
                    slot.acked = true;
                    slot.timed |= timed;
                    if log_append_time >= 0 {
                        slot.time = log_append_time;
                    }
                }
            }
            partition.acked_end = partition.acked_end.max(end);
            partition.ends.learn(now, end);
            let index = op.partition;
            self.polls.acknowledged(index, end, now);
            if log_start >= 0 {
                self.see_start(index, log_start)?;
            }
        }
        let op = &mut self.history.ops[index];
        self.history.partitions[op.partition].acked_ns = now;
        if !op.acked {
            op.acked = true;
            self.summary.acknowledged += 1;
            self.summary.acknowledged_records += op.records.len() as u64;
        }
        Ok(())
    }

    /// The operation's batch stands at `base_offset`, says an acknowledgement or a reader.
    pub(super) fn place(&mut self, index: usize, base_offset: i64) -> Verdict {
        let op = &self.history.ops[index];
        if op.places.contains(&base_offset) {
            return Ok(());
        }
        let partition = &self.history.partitions[op.partition];
        no_duplicate::new_place(&self.history, op, base_offset)?;
        producer_order::in_place(&self.history, op, base_offset)?;
        one_value_per_offset::free(partition, op, base_offset)?;
        let stored =
            config_in_effect::stored_at_most(self.history.topic_of(op.partition), op, self.circumstances());
        let op = &mut self.history.ops[index];
        op.places.push(base_offset);
        let appended_ms = op.appended_ms;
        let partition = &mut self.history.partitions[op.partition];
        let bytes = stored.div_ceil(u32::try_from(op.records.len().max(1)).unwrap_or(u32::MAX));
        for (offset, Written { value, hash, time }) in (base_offset..).zip(op.records.iter().copied()) {
            partition.set(
                offset,
                Slot { value, hash, time, timed: false, appended_ms, bytes, acked: false, read: false },
            );
        }
        if let Some(identity) = op.identity {
            partition.orders.entry(identity).or_default().entry(op.number).or_insert(base_offset);
        }
        Ok(())
    }
}
