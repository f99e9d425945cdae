//! Logs, and the directories that hold them.
//!
//! Of a log that nobody has opened since the start the size is known once retention has looked at it; until then it is
//! left out, for 0 would be a claim. Never: two values for one partition.

use std::collections::BTreeSet;

use super::{
    super::families::{Families, Family},
    Sources,
};

impl Sources {
    pub(super) fn logs(&self, families: &mut Families) {
        let log = |name: &str| format!("kafka_log_log_{name}");
        let mut size = Family::gauge(&log("size"), "Bytes of a partition's log.");
        let mut segments = Family::gauge(&log("numlogsegments"), "Segments of a partition's log.");
        let mut start = Family::gauge(&log("logstartoffset"), "First offset of a partition's log.");
        let mut end = Family::gauge(&log("logendoffset"), "The offset that the next record gets.");
        let mut open = BTreeSet::new();
        for replica in self.replicas.snapshot() {
            let Some(view) = replica.published() else { continue };
            open.insert((replica.topic_id, replica.tp.partition));
            let partition = replica.tp.partition.to_string();
            let labels = [("topic", &*replica.tp.topic), ("partition", &*partition)];
            size.value(&labels, view.log.size() as f64);
            segments.value(&labels, view.log.segment_count() as f64);
            start.value(&labels, view.log.log_start.0 as f64);
            end.value(&labels, view.log.log_end.0 as f64);
        }
        let image = self.controller.image();
        for (key, unopened) in self.replicas.metrics.unopened().iter().filter(|(key, _)| !open.contains(key))
        {
            let Some(topic) = image.topic_by_id(key.0) else { continue };
            let partition = key.1.to_string();
            let labels = [("topic", &*topic.name), ("partition", &*partition)];
            size.value(&labels, unopened.bytes as f64);
            segments.value(&labels, unopened.segments as f64);
        }
        [size, segments, start, end].into_iter().for_each(|family| families.add(family));
    }

    pub(super) fn directories(&self, families: &mut Families) {
        let offline = self.directories.iter().filter(|directory| directory.offline().is_some()).count();
        families.gauge(
            "kafka_log_logmanager_offlinelogdirectorycount",
            "Log directories that an I/O error has taken offline.",
            offline as f64,
        );
        let mut is_offline =
            Family::gauge("kafka_log_logmanager_logdirectoryoffline", "1 when it is offline.");
        let mut flush = Family::histogram(
            "kafka_log_logflushstats_logflushrateandtimems",
            "Milliseconds of writes that end in a sync.",
        );
        let mut used = Family::gauge(
            "gracchus_journal_used_bytes",
            "Bytes of the journal whose segments are not synced yet.",
        );
        let mut room = Family::gauge("gracchus_journal_size_bytes", "Bytes of the journal.");
        let mut waiting =
            Family::gauge("gracchus_journal_waiting_logs", "Logs that wait for room in the journal.");
        for directory in &self.directories {
            let path = directory.path().to_string_lossy();
            let labels = [("logdirectory", &*path)];
            let metrics = directory.flusher().metrics();
            is_offline.value(&labels, f64::from(u8::from(directory.offline().is_some())));
            flush.times(&labels, &metrics.syncs.read().times());
            used.value(&labels, metrics.journal_used.get() as f64);
            room.value(&labels, metrics.journal_size.get() as f64);
            waiting.value(&labels, metrics.journal_waiting.get() as f64);
        }
        [is_offline, flush, used, room, waiting].into_iter().for_each(|family| families.add(family));
    }
}
