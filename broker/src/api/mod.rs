//! What the broker serves: a table with one row per API, and a file per API that is named for it.
//!
//! The table is data. ApiVersions answers from it, connections decide from it how to read a header and whether requests
//! may overlap, and each row names the operation and resource that a client needs to be allowed. A handler decodes,
//! asks the layer to its right (replicas, controller) and puts the answer together. To add an API: write its file with
//! `KEY`, `SHAPE` and `start`, and add its row. Never: protocol state, a lock held across a wait.

pub mod access;
pub mod alter_configs;
pub mod api_versions;
mod config_resources;
pub mod context;
pub mod create_partitions;
pub mod create_topics;
pub mod delete_records;
pub mod delete_topics;
pub mod describe_client_quotas;
pub mod describe_cluster;
pub mod describe_configs;
pub mod describe_producers;
pub mod describe_quorum;
pub mod describe_topic_partitions;
pub mod describe_user_scram_credentials;
pub mod elect_leaders;
mod exchange;
pub mod fetch;
pub mod fetch_response;
pub mod find_coordinator;
#[doc(hidden)]
pub mod fuzzing;
pub mod incremental_alter_configs;
pub mod init_producer_id;
mod later;
pub mod list_config_resources;
pub mod list_groups;
pub mod list_offsets;
pub mod log_dirs;
pub mod metadata;
mod not_built;
pub mod offset_for_leader_epoch;
mod outcome;
pub mod produce;
pub mod reassignments;
mod services;
pub mod shape;
pub mod transactions;
pub mod unregister_broker;
pub mod update_features;

#[cfg(test)]
mod tests;

use std::{ops::RangeInclusive, sync::Arc};

pub use access::Access;
pub use context::{ClientSoftware, ConnectionContext, Operation, Principal, RequestContext, Resource};
pub use exchange::{Answer, BadRequest, Envelope, Reply, Request, Route, Service, TooLong};
pub use outcome::{ErrorCodes, Outcome};
pub use services::Services;

/// One API.
#[derive(Debug)]
pub struct Api {
    /// Number on the wire.
    pub key: i16,
    /// Kafka's name.
    pub name: &'static str,
    /// Versions that are served.
    pub versions: RangeInclusive<i16>,
    /// First version that ApiVersions shows.
    pub advertised_from: i16,
    /// Whether consecutive requests of a connection may be in flight together; they still start in order.
    pub overlaps: bool,
    /// What a client must be allowed to do; read by [`access::check`] alone.
    pub needs: (Operation, Resource),
    /// What a request looks like.
    pub shape: &'static shape::Message,
    /// The handler.
    pub start: fn(&Arc<Services>, Request) -> Result<Reply, BadRequest>,
}

/// All APIs, by key.
pub static APIS: &[Api] = &[
    Api {
        key: produce::KEY,
        name: "Produce",
        versions: 3..=13,
        advertised_from: 0,
        overlaps: true,
        needs: (Operation::Write, Resource::Topic),
        shape: &produce::SHAPE,
        start: produce::start,
    },
    Api {
        key: fetch::KEY,
        name: "Fetch",
        versions: 4..=18,
        advertised_from: 4,
        overlaps: false,
        needs: (Operation::Read, Resource::Topic),
        shape: &fetch::SHAPE,
        start: fetch::start,
    },
    Api {
        key: list_offsets::KEY,
        name: "ListOffsets",
        versions: 1..=11,
        advertised_from: 1,
        overlaps: false,
        needs: (Operation::Describe, Resource::Topic),
        shape: &list_offsets::SHAPE,
        start: list_offsets::start,
    },
    Api {
        key: metadata::KEY,
        name: "Metadata",
        versions: 0..=13,
        advertised_from: 0,
        overlaps: false,
        needs: (Operation::Describe, Resource::Topic),
        shape: &metadata::SHAPE,
        start: metadata::start,
    },
    Api {
        key: find_coordinator::KEY,
        name: "FindCoordinator",
        versions: 0..=6,
        advertised_from: 0,
        overlaps: false,
        needs: (Operation::Describe, Resource::Coordinated),
        shape: &find_coordinator::SHAPE,
        start: find_coordinator::start,
    },
    Api {
        key: list_groups::KEY,
        name: "ListGroups",
        versions: 0..=5,
        advertised_from: 0,
        overlaps: false,
        needs: (Operation::Describe, Resource::Coordinated),
        shape: &list_groups::SHAPE,
        start: list_groups::start,
    },
    Api {
        key: api_versions::KEY,
        name: "ApiVersions",
        versions: 0..=4,
        advertised_from: 0,
        overlaps: false,
        needs: (Operation::None, Resource::Cluster),
        shape: &api_versions::SHAPE,
        start: api_versions::start,
    },
    Api {
        key: create_topics::KEY,
        name: "CreateTopics",
        versions: 2..=7,
        advertised_from: 2,
        overlaps: false,
        needs: (Operation::Create, Resource::Topic),
        shape: &create_topics::SHAPE,
        start: create_topics::start,
    },
    Api {
        key: delete_topics::KEY,
        name: "DeleteTopics",
        versions: 1..=6,
        advertised_from: 1,
        overlaps: false,
        needs: (Operation::Delete, Resource::Topic),
        shape: &delete_topics::SHAPE,
        start: delete_topics::start,
    },
    Api {
        key: delete_records::KEY,
        name: "DeleteRecords",
        versions: 0..=2,
        advertised_from: 0,
        overlaps: false,
        needs: (Operation::Delete, Resource::Topic),
        shape: &delete_records::SHAPE,
        start: delete_records::start,
    },
    Api {
        key: init_producer_id::KEY,
        name: "InitProducerId",
        versions: 0..=5,
        advertised_from: 0,
        overlaps: false,
        needs: (Operation::IdempotentWrite, Resource::Cluster),
        shape: &init_producer_id::SHAPE,
        start: init_producer_id::start,
    },
    Api {
        key: offset_for_leader_epoch::KEY,
        name: "OffsetForLeaderEpoch",
        versions: 2..=4,
        advertised_from: 2,
        overlaps: false,
        needs: (Operation::Describe, Resource::Topic),
        shape: &offset_for_leader_epoch::SHAPE,
        start: offset_for_leader_epoch::start,
    },
    Api {
        key: describe_configs::KEY,
        name: "DescribeConfigs",
        versions: 1..=4,
        advertised_from: 1,
        overlaps: false,
        needs: (Operation::DescribeConfigs, Resource::Topic),
        shape: &describe_configs::SHAPE,
        start: describe_configs::start,
    },
    Api {
        key: alter_configs::KEY,
        name: "AlterConfigs",
        versions: 0..=2,
        advertised_from: 0,
        overlaps: false,
        needs: (Operation::AlterConfigs, Resource::Topic),
        shape: &alter_configs::SHAPE,
        start: alter_configs::start,
    },
    Api {
        key: log_dirs::ALTER,
        name: "AlterReplicaLogDirs",
        versions: 1..=2,
        advertised_from: 1,
        overlaps: false,
        needs: (Operation::Alter, Resource::Cluster),
        shape: &log_dirs::ALTER_SHAPE,
        start: log_dirs::alter,
    },
    Api {
        key: log_dirs::DESCRIBE,
        name: "DescribeLogDirs",
        versions: 1..=5,
        advertised_from: 1,
        overlaps: false,
        needs: (Operation::Describe, Resource::Cluster),
        shape: &log_dirs::DESCRIBE_SHAPE,
        start: log_dirs::describe,
    },
    Api {
        key: create_partitions::KEY,
        name: "CreatePartitions",
        versions: 0..=3,
        advertised_from: 0,
        overlaps: false,
        needs: (Operation::Alter, Resource::Topic),
        shape: &create_partitions::SHAPE,
        start: create_partitions::start,
    },
    Api {
        key: elect_leaders::KEY,
        name: "ElectLeaders",
        versions: 0..=2,
        advertised_from: 0,
        overlaps: false,
        needs: (Operation::Alter, Resource::Cluster),
        shape: &elect_leaders::SHAPE,
        start: elect_leaders::start,
    },
    Api {
        key: incremental_alter_configs::KEY,
        name: "IncrementalAlterConfigs",
        versions: 0..=1,
        advertised_from: 0,
        overlaps: false,
        needs: (Operation::AlterConfigs, Resource::Topic),
        shape: &incremental_alter_configs::SHAPE,
        start: incremental_alter_configs::start,
    },
    Api {
        key: reassignments::ALTER,
        name: "AlterPartitionReassignments",
        versions: 0..=1,
        advertised_from: 0,
        overlaps: false,
        needs: (Operation::Alter, Resource::Cluster),
        shape: &reassignments::ALTER_SHAPE,
        start: reassignments::alter,
    },
    Api {
        key: reassignments::LIST,
        name: "ListPartitionReassignments",
        versions: 0..=0,
        advertised_from: 0,
        overlaps: false,
        needs: (Operation::Describe, Resource::Cluster),
        shape: &reassignments::LIST_SHAPE,
        start: reassignments::list,
    },
    Api {
        key: describe_client_quotas::KEY,
        name: "DescribeClientQuotas",
        versions: 0..=1,
        advertised_from: 0,
        overlaps: false,
        needs: (Operation::DescribeConfigs, Resource::Cluster),
        shape: &describe_client_quotas::SHAPE,
        start: describe_client_quotas::start,
    },
    Api {
        key: describe_user_scram_credentials::KEY,
        name: "DescribeUserScramCredentials",
        versions: 0..=0,
        advertised_from: 0,
        overlaps: false,
        needs: (Operation::Describe, Resource::Cluster),
        shape: &describe_user_scram_credentials::SHAPE,
        start: describe_user_scram_credentials::start,
    },
    Api {
        key: describe_quorum::KEY,
        name: "DescribeQuorum",
        versions: 0..=2,
        advertised_from: 0,
        overlaps: false,
        needs: (Operation::Describe, Resource::Cluster),
        shape: &describe_quorum::SHAPE,
        start: describe_quorum::start,
    },
    Api {
        key: update_features::KEY,
        name: "UpdateFeatures",
        versions: 0..=2,
        advertised_from: 0,
        overlaps: false,
        needs: (Operation::Alter, Resource::Cluster),
        shape: &update_features::SHAPE,
        start: update_features::start,
    },
    Api {
        key: describe_cluster::KEY,
        name: "DescribeCluster",
        versions: 0..=2,
        advertised_from: 0,
        overlaps: false,
        needs: (Operation::Describe, Resource::Cluster),
        shape: &describe_cluster::SHAPE,
        start: describe_cluster::start,
    },
    Api {
        key: describe_producers::KEY,
        name: "DescribeProducers",
        versions: 0..=0,
        advertised_from: 0,
        overlaps: false,
        needs: (Operation::Read, Resource::Topic),
        shape: &describe_producers::SHAPE,
        start: describe_producers::start,
    },
    Api {
        key: unregister_broker::KEY,
        name: "UnregisterBroker",
        versions: 0..=0,
        advertised_from: 0,
        overlaps: false,
        needs: (Operation::Alter, Resource::Cluster),
        shape: &unregister_broker::SHAPE,
        start: unregister_broker::start,
    },
    Api {
        key: transactions::DESCRIBE,
        name: "DescribeTransactions",
        versions: 0..=0,
        advertised_from: 0,
        overlaps: false,
        needs: (Operation::Describe, Resource::Coordinated),
        shape: &transactions::DESCRIBE_SHAPE,
        start: transactions::describe,
    },
    Api {
        key: transactions::LIST,
        name: "ListTransactions",
        versions: 0..=2,
        advertised_from: 0,
        overlaps: false,
        needs: (Operation::Describe, Resource::Coordinated),
        shape: &transactions::LIST_SHAPE,
        start: transactions::list,
    },
    Api {
        key: list_config_resources::KEY,
        name: "ListConfigResources",
        versions: 0..=1,
        advertised_from: 0,
        overlaps: false,
        needs: (Operation::DescribeConfigs, Resource::Topic),
        shape: &list_config_resources::SHAPE,
        start: list_config_resources::start,
    },
    Api {
        key: describe_topic_partitions::KEY,
        name: "DescribeTopicPartitions",
        versions: 0..=0,
        advertised_from: 0,
        overlaps: false,
        needs: (Operation::Describe, Resource::Topic),
        shape: &describe_topic_partitions::SHAPE,
        start: describe_topic_partitions::start,
    },
];

impl Api {
    /// The row of `key`.
    pub fn of(key: i16) -> Option<&'static Api> {
        let row = APIS.binary_search_by_key(&key, |api| api.key).ok()?;
        Some(&APIS[row])
    }

    /// Whether requests of `version` are served.
    pub fn serves(&self, version: i16) -> bool {
        self.versions.contains(&version)
    }

    /// The version as which kafka-protocol reads a request of `version`: its own, unless the crate does not know that.
    pub fn layout(&self, version: i16) -> i16 {
        later::layout(self.key, version)
    }

    fn route(&'static self, version: i16) -> Route {
        let flexible = i16::from(version >= self.shape.flexible_from);
        // The client does not know yet what header the broker would use.
        let response_header_version = if self.key == api_versions::KEY { 0 } else { flexible };
        let shape = self.serves(version).then_some(self.shape);
        Route {
            request_header_version: 1 + flexible,
            response_header_version,
            overlaps: self.overlaps,
            // The records of a fetch are sent from their files.
            small_answer: self.overlaps || self.key == fetch::KEY,
            shape,
        }
    }
}

/// The api layer as connections see it.
#[derive(Debug)]
pub struct Apis(pub Arc<Services>);

impl Service for Apis {
    fn route(&self, api_key: i16, api_version: i16) -> Option<Route> {
        let api = Api::of(api_key)?;
        // ApiVersions is answered in any version, else a newer client could not find out what to speak.
        (api.serves(api_version) || api_key == api_versions::KEY).then(|| api.route(api_version))
    }

    fn start(&self, request: Request) -> Result<Reply, BadRequest> {
        let api = Api::of(request.api_key).expect("the request was routed");
        match access::check(&request.context, api.needs) {
            Access::Granted => (api.start)(&self.0, request),
            Access::Denied => Err(BadRequest("the client may not do that".into())),
        }
    }
}
