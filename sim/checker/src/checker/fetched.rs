//! What readers are told: answers to fetches, record by record. A record that was seen before costs one comparison. Never: an
//! answer by name judged as if no namesake could have given it.

use super::Checker;
use crate::history::{Judged, Reading};
use crate::laws::{
    Broken, Verdict, acknowledged_kept, append_time_kept, below_high_watermark, deletion_allowed, namesake,
    no_gap, nothing_unwritten, reader_never_back, record_unchanged, stays_deleted, stored_codec,
    valid_offset,
};
use crate::{ClientKind, EventKind, Partition, Seen};

impl Checker {
    pub(super) fn reading(&mut self, consumer: u32, at: &Partition) -> Result<&mut Reading, Broken> {
        let partition = self.find(at)?;
        let client = self.history.client(consumer, ClientKind::Consumer, self.now_ns);
        Ok(client.reading.entry(partition).or_default())
    }

    /// A reader at `from` was told OFFSET_OUT_OF_RANGE.
    pub(super) fn refused(&mut self, index: usize, consumer: u32, reading: &Reading, from: i64) -> Verdict {
        let partition = &self.history.partitions[index];
        let covered = deletion_allowed::could_begin_at(
            partition,
            self.history.topic_of(index),
            from + 1,
            self.circumstances(),
        );
        valid_offset::refused(partition, consumer, reading, from, covered)
    }

    pub(super) fn fetched(&mut self, event: &EventKind) -> Verdict {
        let EventKind::Fetched {
            consumer,
            at,
            by_name,
            invoked_ns,
            from,
            records,
            next,
            high_watermark,
            last_stable_offset,
            log_start,
            ..
        } = event
        else {
            unreachable!("called for fetches");
        };
        let index = self.find(at)?;
        self.summary.records_read += records.len() as u64;
        if !records.is_empty() || from == high_watermark {
            self.note_progress(*consumer, ClientKind::Consumer);
        }
        let before = *self.reading(*consumer, at)?;
        if self.is_doubtful(index, *by_name) {
            self.reading(*consumer, at)?.position = None;
            return namesake::one_topic(&self.history, at, records, *invoked_ns);
        }
        if self.history.partitions[index].is_of_the_past(*invoked_ns) {
            return Ok(());
        }
        if !by_name {
            let what = || format!("consumer {consumer} was answered");
            stays_deleted::served(self.history.topic_of(index), *invoked_ns, what)?;
        }
        let after = Reading {
            moved_ns: if records.is_empty() { before.moved_ns } else { self.now_ns },
            position: Some(*next),
            high_watermark: *high_watermark,
            last_stable_offset: *last_stable_offset,
            log_start: *log_start,
        };
        let partition = &self.history.partitions[index];
        let judged = partition.judged;
        if judged != Judged::Not {
            below_high_watermark::answer(
                partition,
                records,
                *high_watermark,
                *last_stable_offset,
                *log_start,
            )?;
            no_gap::within(partition, *from, records, *next)?;
            no_gap::continued(partition, *consumer, before.position, *from)?;
            if judged == Judged::Fully {
                reader_never_back::forward(partition, *consumer, &before, &after)?;
            }
            for seen in records {
                self.read(index, judged, seen)?;
            }
            if judged == Judged::Fully {
                let now = self.now_ns;
                self.history.partitions[index].ends.learn(now, *high_watermark);
                if *log_start >= 0 {
                    self.see_start(index, *log_start)?;
                }
            }
        }
        *self.reading(*consumer, at)? = after;
        Ok(())
    }

    /// One record as a reader found it.
    fn read(&mut self, index: usize, judged: Judged, seen: &Seen) -> Verdict {
        if judged == Judged::Fully
            && let Some(slot) = self.history.partitions[index].slot(seen.offset)
            && slot.read
            && slot.holds(seen)
        {
            return Ok(());
        }
        let partition = &self.history.partitions[index];
        if judged == Judged::Fully
            && let Some(slot) = partition.slot(seen.offset)
            && slot.value != seen.value
        {
            acknowledged_kept::replaced(partition, seen.offset, slot, &format!("record {:#x}", seen.value))?;
        }
        let (op, position) = nothing_unwritten::writer(&self.history, index, seen)?;
        let types = self.circumstances().texts(self.history.topic_of(index), "message.timestamp.type", 0);
        record_unchanged::same(partition, self.history.ops[op].records[position as usize], seen, &types)?;
        let topic = self.history.topic_of(index);
        stored_codec::found(partition, topic, &self.history.ops[op], seen, self.circumstances())?;
        if !seen.created && judged == Judged::Fully {
            let base_offset = seen.offset - position as i64;
            append_time_kept::told(partition, &self.history.ops[op], base_offset, seen.time)?;
            self.history.ops[op].append_time = Some(seen.time);
        }
        let partition = &self.history.partitions[index];
        if self.history.ops[op].partition != index && self.history.ops[op].places.is_empty() {
            // Sent by name, it went to this one.
            self.history.ops[op].partition = index;
        }
        if judged == Judged::Fully {
            let base = seen.offset - i64::from(position);
            acknowledged_kept::has_offset(partition, self.history.ops[op].number, base)?;
            self.place(op, base)?;
            if let Some(slot) = self.history.partitions[index].slot_mut(seen.offset) {
                (slot.read, slot.timed) = (true, true);
                slot.time = seen.time;
            }
        }
        Ok(())
    }
}
