//! What the metadata say: the cluster's topics and brokers, and the partitions that this broker has.
//!
//! Replicas never leave an ISR and leaders are never elected unclean as long as a partition has one replica: those counts
//! are 0, and a test here stops compiling when a command comes that could change that.
//!
//! Never: a partition that this broker does not lead told as if it did.

use gracchus_core::{
    BrokerId,
    controller::{Image, Partition, PartitionOf, Topic},
    replication::high_watermark::effective_min_in_sync,
};

use super::{
    super::families::{Families, Family},
    Sources,
};

impl Sources {
    pub(super) fn cluster(&self, families: &mut Families) {
        let image = self.controller.image();
        let node = self.live.fixed().node_id;
        let count = Count::of(&image, node, self.live.load().topic_defaults.min_insync_replicas);
        let leads = 1.0; // A quorum of one, as long as there is no other.
        let controller = |name: &str| format!("kafka_controller_kafkacontroller_{name}");
        families.gauge(&controller("activecontrollercount"), "Whether this node is the controller.", leads);
        families.gauge(&controller("globaltopiccount"), "Topics.", image.topics.len() as f64);
        families.gauge(&controller("globalpartitioncount"), "Partitions.", count.all as f64);
        families.gauge(
            &controller("offlinepartitionscount"),
            "Partitions without a leader that can serve.",
            self.offline_partitions(count.without_leader) as f64,
        );
        families.gauge(
            &controller("preferredreplicaimbalancecount"),
            "Partitions that another than their first replica leads.",
            count.not_preferred as f64,
        );
        families.gauge(
            &controller("activebrokercount"),
            "Brokers that are registered.",
            image.brokers.len() as f64,
        );
        let manager = |name: &str| format!("kafka_server_replicamanager_{name}");
        families.gauge(&manager("partitioncount"), "Partitions with a replica here.", count.here as f64);
        families.gauge(&manager("leadercount"), "Partitions that are led from here.", count.led as f64);
        families.gauge(
            &manager("underreplicatedpartitions"),
            "Partitions led from here with fewer replicas in sync than they have.",
            count.under_replicated as f64,
        );
        families.gauge(
            &manager("underminisrpartitioncount"),
            "Partitions led from here with fewer replicas in sync than min.insync.replicas, or than they have.",
            count.under_min_isr as f64,
        );
        families.gauge(
            &manager("atminisrpartitioncount"),
            "Partitions led from here of which no replica may leave: just min.insync.replicas are in sync, or all.",
            count.at_min_isr as f64,
        );
        families.gauge(
            &manager("offlinereplicacount"),
            "Partitions with a replica here in a log directory that has failed.",
            self.failed_replicas() as f64,
        );
        families.gauge(
            &manager("reassigningpartitions"),
            "Partitions led from here that are being moved.",
            0.0,
        );
        for (name, help) in [
            ("isrshrinks", "How often a replica left the in-sync replicas of a partition led from here."),
            ("isrexpands", "How often one came back."),
            ("failedisrupdates", "How often such a change could not be made."),
        ] {
            families.counter(&manager(&format!("{name}_total")), help, 0.0);
            families.also(&manager(&format!("{name}_total")), &manager(&format!("{name}persec")));
        }
        let unclean = "kafka_controller_controllerstats_uncleanleaderelections";
        let help = "Elections of a leader that was not in sync.";
        families.counter(&format!("{unclean}_total"), help, 0.0);
        families.also(&format!("{unclean}_total"), &format!("{unclean}persec"));
        self.partitions(&image, node, families);
        let mut purgatory = Family::gauge(
            "kafka_server_delayedoperationpurgatory_purgatorysize",
            "Requests that wait: fetches for records, produces for the disk.",
        );
        let waiting = &self.replicas.metrics;
        purgatory.value(&[("delayedoperation", "Fetch")], waiting.waiting_fetches.get() as f64);
        purgatory.value(&[("delayedoperation", "Produce")], waiting.waiting_produces() as f64);
        families.add(purgatory);
        let (kept, evicted) = self.services.fetch_sessions();
        let sessions = "kafka_server_fetchsessioncache";
        families.gauge(
            &format!("{sessions}_numincrementalfetchsessions"),
            "Fetch sessions that are kept.",
            kept as f64,
        );
        let told = format!("{sessions}_incrementalfetchsessionevictions_total");
        families.counter(&told, "Fetch sessions that had to make room for others.", evicted as f64);
        families.also(&told, &format!("{sessions}_incrementalfetchsessionevictionspersec"));
    }

    /// One by one, those that are led from here.
    fn partitions(&self, image: &Image, node: BrokerId, families: &mut Families) {
        let of = |name: &str, help: &str| Family::gauge(&format!("kafka_cluster_partition_{name}"), help);
        let mut replicas = of("replicascount", "Replicas of a partition led from here.");
        let mut in_sync = of("insyncreplicascount", "Those of them in sync.");
        let mut under_replicated = of("underreplicated", "1 if fewer are in sync than there are.");
        let mut under_min =
            of("underminisr", "1 if fewer are in sync than min.insync.replicas, or than there are.");
        let mut at_min = of("atminisr", "1 if none may leave: just min.insync.replicas are in sync, or all.");
        let default = self.live.load().topic_defaults.min_insync_replicas;
        for PartitionOf { topic, index, partition } in image.topics.led_by(node) {
            let index = index.to_string();
            let labels = [("topic", &*topic.name), ("partition", &*index)];
            let isr = Isr::of(partition, least_in_sync(topic, default));
            replicas.value(&labels, partition.replicas.len() as f64);
            in_sync.value(&labels, partition.isr.len() as f64);
            under_replicated.value(&labels, f64::from(u8::from(isr.under_replicated)));
            under_min.value(&labels, f64::from(u8::from(isr.under_min)));
            at_min.value(&labels, f64::from(u8::from(isr.at_min)));
        }
        for family in [replicas, in_sync, under_replicated, under_min, at_min] {
            families.add(family);
        }
    }

    /// Those whose log failed count, too: nobody else has them.
    fn offline_partitions(&self, without_leader: usize) -> usize {
        without_leader + self.failed_replicas()
    }

    fn failed_replicas(&self) -> usize {
        self.replicas.snapshot().iter().filter(|replica| replica.has_failed()).count()
    }
}

/// `min.insync.replicas` of a topic.
fn least_in_sync(topic: &Topic, default: i32) -> i32 {
    let own = topic.configs.get("min.insync.replicas").and_then(|value| value.parse().ok());
    own.unwrap_or(default)
}

/// How the in-sync replicas of a partition stand to what is asked of them.
#[derive(Debug, PartialEq, Eq)]
struct Isr {
    under_replicated: bool,
    under_min: bool,
    at_min: bool,
}

impl Isr {
    fn of(partition: &Partition, least: i32) -> Self {
        let (in_sync, replicas) = (partition.isr.len(), partition.replicas.len());
        let least = effective_min_in_sync(least, replicas);
        Self { under_replicated: in_sync < replicas, under_min: in_sync < least, at_min: in_sync == least }
    }
}

/// What the metadata say of partitions.
#[derive(Debug, Default)]
struct Count {
    all: usize,
    here: usize,
    led: usize,
    under_replicated: usize,
    under_min_isr: usize,
    at_min_isr: usize,
    without_leader: usize,
    /// Led by another than the first replica.
    not_preferred: usize,
}

impl Count {
    fn of(image: &Image, node: BrokerId, least_by_default: i32) -> Self {
        let topics = &image.topics;
        let mut count = Self {
            all: topics.partition_count(),
            here: topics.replica_count(node),
            without_leader: topics.leaderless_count(),
            not_preferred: topics.preferred_replica_imbalance(),
            ..Self::default()
        };
        for PartitionOf { topic, partition, .. } in topics.led_by(node) {
            let isr = Isr::of(partition, least_in_sync(topic, least_by_default));
            count.led += 1;
            count.under_replicated += usize::from(isr.under_replicated);
            count.under_min_isr += usize::from(isr.under_min);
            count.at_min_isr += usize::from(isr.at_min);
        }
        count
    }
}

#[cfg(test)]
mod tests {
    use gracchus_core::{LeaderEpoch, controller::Command};

    use super::*;

    /// Whoever adds a command that does must count what it does, in place of the zeros above.
    #[allow(dead_code, reason = "that it compiles is the test")]
    fn changes_an_isr_or_elects_unclean(command: &Command) -> bool {
        match command {
            Command::NameCluster { .. }
            | Command::RegisterBroker { .. }
            | Command::DirectoryFailed { .. }
            | Command::Locate { .. }
            | Command::CreateTopic { .. }
            | Command::DeleteTopic { .. }
            | Command::ForgetDeleted { .. }
            | Command::AddPartitions { .. }
            | Command::AlterConfigs { .. }
            | Command::AllocateProducerIds { .. } => false,
        }
    }

    #[test]
    fn what_is_asked_of_an_isr_is_never_more_than_there_are_replicas() {
        let brokers = |count: i32| (1..=count).map(BrokerId).collect::<Vec<_>>();
        let isr = |replicas, in_sync, least| {
            let partition = Partition {
                leader: BrokerId(1),
                leader_epoch: LeaderEpoch(0),
                partition_epoch: 0,
                replicas: brokers(replicas),
                isr: brokers(in_sync),
                directories: Vec::new(),
            };
            let Isr { under_replicated, under_min, at_min } = Isr::of(&partition, least);
            (under_replicated, under_min, at_min)
        };
        assert_eq!(isr(1, 1, 1), (false, false, true));
        assert_eq!(isr(1, 1, 2), (false, false, true), "no more than there are");
        assert_eq!(isr(3, 3, 2), (false, false, false));
        assert_eq!(isr(3, 2, 2), (true, false, true));
        assert_eq!(isr(3, 1, 2), (true, true, false));
    }
}
