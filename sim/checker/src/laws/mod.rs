//! The laws, one per file, each opened by its statement and its source.
//!
//! | law (= file) | judges | source |
//! |---|---|---|
//! | `well_formed` | the history itself | the contract of the history's writers |
//! | `acknowledged_kept` | readers, logs | KIP-98 |
//! | `one_value_per_offset` | acknowledgements, readers, logs | Kafka's log model; KIP-101 |
//! | `record_unchanged` | readers, logs | KIP-98: batches are stored as sent |
//! | `nothing_unwritten` | readers, logs | Jepsen's Kafka workload |
//! | `no_duplicate` | acknowledgements, readers, logs | KIP-98 |
//! | `append_time_kept` | acknowledgements, readers | KIP-32, KIP-98 |
//! | `stored_codec` | readers | `compression.type` |
//! | `original_offset` | acknowledgements | KIP-98 |
//! | `producer_order` | acknowledgements, readers | KIP-98 |
//! | `no_overtaking` | acknowledgements | the protocol: a connection is served in order |
//! | `below_high_watermark` | fetches | Kafka's design, replicated logs |
//! | `no_gap` | fetches | Jepsen's Kafka workload: contiguity |
//! | `reader_never_back` | fetches | KAFKA-2334 |
//! | `valid_offset` | fetches | KIP-320 |
//! | `listed_offsets` | ListOffsets | KIP-79, KIP-207 |
//! | `recovered_log` | logs after a restart | recovery from the recovery point on |
//! | `replica_bounds` | views | our own: what is readable is on disk |
//! | `replica_never_back` | views | KIP-320 |
//! | `acknowledged_end` | views | our own: what is acknowledged is on disk |
//! | `assignment_in_order` | views | KIP-497, KIP-101 |
//! | `quorum_never_back` | views | Raft |
//! | `hosts_the_assigned` | which replicas there are | our own: decided by the metadata |
//! | `progress` | time | liveness |
//! | `log_start_kept` | DeleteRecords, logs, views | KIP-107 |
//! | `deletion_allowed` | all that shows a log start | KIP-107, `retention.*` |
//! | `namesake` | fetches by name | KIP-516 |
//! | `stays_deleted` | whatever is served | KIP-516 |
//! | `stays_created` | whatever is not served | KIP-516 |
//! | `partitions_kept` | metadata | KIP-195 |
//! | `topics_linearizable` | several administrators | Herlihy and Wing |
//! | `config_kept` | DescribeConfigs | KIP-339 |
//! | `config_in_effect` | acknowledgements, refusals | KIP-226, KIP-937 |
//! | `wakes_in_time` | waiting fetches, time | FetchRequest.json |
//! | `every_partition` | consumers, time | KIP-74, KIP-227 |
//! | `answers_in_time` | all requests, time | FetchRequest.json, ProduceRequest.json |
//! | `deadline_kept` | fetches and produces, time | ProduceRequest.json |
//! | `available` | refusals | KIP-112 |
//! | `offline_by_error` | views, refusals | KIP-112 |
//! | `flush_kept` | logs after a power loss | `flush.messages`, `flush.ms` |
//!
//! KIPs are Kafka's improvement proposals, KAFKA-… its issues, names in `.json` its message definitions.

pub(crate) mod acknowledged_end;
pub(crate) mod acknowledged_kept;
pub(crate) mod answers_in_time;
pub(crate) mod append_time_kept;
pub(crate) mod assignment_in_order;
pub(crate) mod available;
pub(crate) mod below_high_watermark;
pub(crate) mod config_in_effect;
pub(crate) mod config_kept;
pub(crate) mod deadline_kept;
pub(crate) mod deletion_allowed;
pub(crate) mod every_partition;
pub(crate) mod flush_kept;
pub(crate) mod hosts_the_assigned;
pub(crate) mod listed_offsets;
pub(crate) mod log_start_kept;
pub(crate) mod namesake;
pub(crate) mod no_duplicate;
pub(crate) mod no_gap;
pub(crate) mod no_overtaking;
pub(crate) mod nothing_unwritten;
pub(crate) mod offline_by_error;
pub(crate) mod one_value_per_offset;
pub(crate) mod original_offset;
pub(crate) mod partitions_kept;
pub(crate) mod producer_order;
pub(crate) mod progress;
pub(crate) mod quorum_never_back;
pub(crate) mod reader_never_back;
pub(crate) mod record_unchanged;
pub(crate) mod recovered_log;
pub(crate) mod replica_bounds;
pub(crate) mod replica_never_back;
pub(crate) mod stays_created;
pub(crate) mod stays_deleted;
pub(crate) mod stored_codec;
pub(crate) mod topics_linearizable;
pub(crate) mod valid_offset;
pub(crate) mod wakes_in_time;
pub(crate) mod well_formed;

/// A broken law: its name and the story.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Broken {
    pub(crate) law: &'static str,
    pub(crate) story: String,
}

/// What a law says.
pub(crate) type Verdict = Result<(), Broken>;

/// Unless `holds`, `law` is broken. The story is told only then.
pub(crate) fn demand(holds: bool, law: &'static str, story: impl FnOnce() -> String) -> Verdict {
    if holds { Ok(()) } else { Err(Broken { law, story: story() }) }
}

/// The names of all laws.
pub const NAMES: &[&str] = &[
    well_formed::LAW,
    acknowledged_kept::LAW,
    one_value_per_offset::LAW,
    record_unchanged::LAW,
    nothing_unwritten::LAW,
    no_duplicate::LAW,
    append_time_kept::LAW,
    stored_codec::LAW,
    original_offset::LAW,
    producer_order::LAW,
    no_overtaking::LAW,
    below_high_watermark::LAW,
    no_gap::LAW,
    reader_never_back::LAW,
    valid_offset::LAW,
    listed_offsets::LAW,
    recovered_log::LAW,
    replica_bounds::LAW,
    replica_never_back::LAW,
    acknowledged_end::LAW,
    assignment_in_order::LAW,
    quorum_never_back::LAW,
    hosts_the_assigned::LAW,
    progress::LAW,
    log_start_kept::LAW,
    deletion_allowed::LAW,
    namesake::LAW,
    stays_deleted::LAW,
    stays_created::LAW,
    partitions_kept::LAW,
    topics_linearizable::LAW,
    config_kept::LAW,
    config_in_effect::LAW,
    wakes_in_time::LAW,
    every_partition::LAW,
    answers_in_time::LAW,
    deadline_kept::LAW,
    available::LAW,
    offline_by_error::LAW,
    flush_kept::LAW,
];
