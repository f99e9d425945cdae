//! The fault budget: what the contract of this cluster cannot survive is withheld, or it is said here that it excuses what is
//! missing. Whoever damages something, or finds it missing, asks here; each decision names its [`Entry`].
//!
//! Today's clusters have one broker, whose disk alone keeps what is acknowledged. How many replicas a partition has is asked
//! all the same: no entry holds where there are several.
//!
//! Never: a decision of this kind anywhere else in the simulator.

use std::{collections::BTreeMap, sync::Arc};

use gracchus_checker::{Entry, EventKind};
use gracchus_workload::plan::TopicPlan;

use crate::{log_format::Place, plan::Plan, world::Rots};

/// Files that a broker can rebuild from the segments beside them: rot in them must not cost a record.
const INDEXES: [&str; 2] = [".index", ".timeindex"];
/// What a broker can rebuild only from a log that still has its first record.
const PRODUCERS: &str = ".snapshot";
/// What has a checksum, or is checked against what it speaks of, and holds nothing that is nowhere else.
const CHECKED: [&str; 1] = [".kafka_cleanshutdown"];
/// The same without a checksum, as Kafka's, or with a format that could be a newer one: only what nobody can take for the
/// file must be noticed.
const TEXTS: [&str; 3] =
    ["leader-epoch-checkpoint", "recovery-point-offset-checkpoint", "cluster-metadata/log-end"];

/// Says how far the metadata log was synced: where both are damaged, nobody can tell rot from a torn end.
pub(crate) const LOG_END: &str = "cluster-metadata/log-end";

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Budget {
    /// Replicas of the partitions of each topic.
    replicas: BTreeMap<Arc<str>, i16>,
    /// Topics whose logs keep all that was ever in them.
    whole: Vec<Arc<str>>,
    /// The log whose closed segments were damaged: whoever did it judges it.
    harmed: Option<Place>,
}

impl Budget {
    pub(crate) fn of(plan: &Plan) -> Self {
        let workload = plan.workload();
        let name = |(_, topic): (usize, &TopicPlan)| Arc::from(topic.name.as_str());
        let whole = workload.topics.iter().enumerate().filter(|(index, _)| workload.keeps_all_of(*index));
        Self { whole: whole.map(name).collect(), ..Self::default() }
    }

    /// What clients know of topics.
    pub(crate) fn learn(&mut self, event: &EventKind) {
        if let EventKind::TopicCreated { topic, replication_factor, .. } = event {
            self.replicas.insert(topic.clone(), *replication_factor);
        }
    }

    /// Whether `entry` excuses what is missing of a topic. One of which no client has told is taken for one with a single
    /// replica.
    pub(crate) fn excuses(&self, entry: Entry, topic: &str) -> bool {
        entry.holds(self.replicas.get(topic).copied().unwrap_or(1))
    }

    /// Whether `entry` excuses whatever a broker lacks.
    pub(crate) fn excuses_all(&self, entry: Entry) -> bool {
        self.replicas.values().all(|replicas| entry.holds(*replicas))
    }

    /// Whether damage that `entry` stands for is withheld from what all partitions of a broker share.
    pub(crate) fn withholds(&self, entry: Entry) -> bool {
        // One that has nothing else suffices.
        self.replicas.is_empty() || self.replicas.values().any(|replicas| entry.holds(*replicas))
    }

    /// The closed segments of this log were damaged.
    pub(crate) fn harm(&mut self, place: Place) {
        self.harmed = Some(place);
    }

    /// The log of which what is shown is not judged by the laws of all others.
    pub(crate) fn harmed(&self) -> Option<&Place> {
        self.harmed.as_ref().filter(|place| self.excuses(Entry::ClosedSegments, &place.topic))
    }

    /// Whether this is the one.
    pub(crate) fn is_harmed(&self, place: &Place) -> bool {
        self.harmed() == Some(place)
    }

    /// How the file at `path` may rot; `Err`: what it is withheld for. `damaged`: other damage is waiting to be noticed.
    pub(crate) fn rots(&self, path: &str, damaged: bool) -> Result<Rots, Entry> {
        let ends_with = |names: &[&str]| names.iter().any(|name| path.ends_with(name));
        if damaged && path.ends_with(LOG_END) && self.withholds(Entry::LastWitness) {
            return Err(Entry::LastWitness);
        }
        if ends_with(&TEXTS) {
            return Ok(Rots::Unreadable);
        }
        let topic = path.rsplit('/').nth(1).and_then(|log| log.rsplit_once('-')).map(|(topic, _)| topic);
        let is_whole = || topic.is_some_and(|name| self.whole.iter().any(|topic| **topic == *name));
        let rebuilt = ends_with(&INDEXES) || ends_with(&CHECKED) || path.ends_with(PRODUCERS) && is_whole();
        let is_of_a_log = path.ends_with(".log") || path.ends_with(PRODUCERS);
        let elsewhere = is_of_a_log && topic.is_some_and(|topic| !self.excuses(Entry::OnlyCopy, topic));
        if rebuilt || elsewhere { Ok(Rots::Anyhow) } else { Err(Entry::OnlyCopy) }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap as Map;

    use super::*;

    fn told(topics: &[(&str, i16)]) -> Budget {
        let mut budget = Budget { whole: vec!["whole".into()], ..Budget::default() };
        for (topic, replication_factor) in topics {
            budget.learn(&EventKind::TopicCreated {
                topic: (*topic).into(),
                topic_id: 1,
                partitions: 1,
                replication_factor: *replication_factor,
                synced: true,
                dense: true,
                configs: Map::new(),
            });
        }
        budget
    }

    fn place(topic: &str) -> Place {
        Place { topic: topic.into(), topic_id: 1, partition: 0 }
    }

    #[test]
    fn what_is_nowhere_else_is_withheld() {
        let budget = told(&[("alone", 1), ("whole", 1), ("three", 3)]);
        let rots = |path: &str| budget.rots(path, false).map(drop);
        let segment = "00000000000000000000";
        for withheld in [
            format!("/data/alone-0/{segment}.log"),
            format!("/data/alone-0/{segment}.snapshot"),
            format!("/data/whole-0/{segment}.log"),
            "/data/cluster-metadata/vote".to_owned(),
            "/data/journal/part-000".to_owned(),
        ] {
            assert_eq!(rots(&withheld), Err(Entry::OnlyCopy), "{withheld}");
        }
        for spent in [
            format!("/data/alone-0/{segment}.index"),
            format!("/data/whole-0/{segment}.snapshot"),
            // Somebody else has it.
            format!("/data/three-0/{segment}.log"),
            format!("/data/three-0/{segment}.snapshot"),
            "/data/.kafka_cleanshutdown".to_owned(),
            format!("/data/{LOG_END}"),
        ] {
            assert_eq!(rots(&spent), Ok(()), "{spent}");
        }
        assert_eq!(budget.rots(&format!("/data/{LOG_END}"), true).map(drop), Err(Entry::LastWitness));
    }

    #[test]
    fn a_loss_is_excused_only_where_there_is_one_replica() {
        let mut budget = told(&[("alone", 1), ("three", 3)]);
        assert!(budget.excuses(Entry::FlippedBit, "alone") && !budget.excuses(Entry::FlippedBit, "three"));
        assert!(!budget.excuses_all(Entry::AcceptedDamage) && budget.withholds(Entry::TornEnd));
        for topic in ["alone", "three"] {
            budget.harm(place(topic));
            assert_eq!(budget.is_harmed(&place(topic)), topic == "alone");
        }
        let replicated = told(&[("three", 3)]);
        assert!(!replicated.withholds(Entry::TornEnd) && !replicated.withholds(Entry::LastWitness));
        assert!(told(&[]).withholds(Entry::TornEnd), "what was written first is not known of yet");
        assert!(told(&[("alone", 1)]).excuses_all(Entry::AcceptedDamage));
    }
}
