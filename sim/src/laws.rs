//! The names of all laws that the simulator itself and the clients judge. Never: a law that no planted bug could break
//! (a test of the planted bugs holds that).

use crate::{
    ack_judge, closed, cluster, damage, directories, files_check, frugal, hosting, judge, liveness, lost_end,
    phases, segment_limits, swarm,
};

/// Where all laws are listed.
pub(crate) const WHERE: &str = "sim/checker/src/laws/mod.rs and OWN_LAWS in sim/src/laws.rs";

/// Whether a law is called so.
pub(crate) fn is_one(name: &str) -> bool {
    gracchus_checker::laws::NAMES.contains(&name) || OWN_LAWS.contains(&name)
}

/// Laws that the simulator itself and the clients judge, beside those of the checker.
pub(crate) const OWN_LAWS: &[&str] = &[
    cluster::STARTS,
    cluster::STOPS,
    "topics can be created",
    "the load drains",
    "everything can be read back",
    "no panic",
    "a plan is sound",
    "the simulator looks",
    swarm::ENDS,
    swarm::RUNS,
    "protocol",
    "advertised_versions",
    "produce_refused",
    "sequence_accepted",
    "fetch_refused",
    "fetch_limits",
    "session_tells_news",
    "session_kept",
    "list_offsets_refused",
    "offset_by_timestamp",
    "undecodable_refused",
    "producer_state_kept",
    "producer_id_unique",
    "producer_expires",
    "topic_kept",
    "create_topics",
    "delete_topics",
    "delete_records_refused",
    "create_partitions_refused",
    "config_refused",
    "epoch_end",
    "out_of_range_told",
    "leader_epoch_checked",
    "divergence_told",
    "served_beside_a_hoarder",
    "everybody is served",
    "errand_answered",
    "form_refused",
    "sequence_begins",
    "frame_refused",
    files_check::LAW,
    files_check::ONE_PLACE,
    files_check::POINTS,
    files_check::CLUSTER,
    files_check::SPACE,
    files_check::RETENTION,
    ack_judge::LAW,
    ack_judge::FLUSHED,
    ack_judge::INDEXES,
    hosting::FOLLOWS,
    segment_limits::LAW,
    files_check::ROLLS,
    phases::HEALTHY,
    phases::QUIET,
    liveness::CONVERGES,
    judge::IN_ORDER,
    frugal::LAW,
    frugal::SIZES,
    lost_end::LAW,
    damage::SAID,
    damage::REAL,
    directories::NOT_SERVED,
    closed::LAW,
];
