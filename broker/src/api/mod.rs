//! What the broker serves: a file per API that is named for it and holds its row, and the table of these rows.
//!
//! The table is data. ApiVersions answers from it, connections decide from it how to read a header and whether requests
//! may overlap, and each row names the operation and resource that a client needs to be allowed. A handler decodes,
//! asks the layer to its right (replicas, controller) and puts the answer together. To add an API: write its file, with its
//! row at the top, and list the row here. Never: protocol state, a lock held across a wait.

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
    produce::API,
    fetch::API,
    list_offsets::API,
    metadata::API,
    find_coordinator::API,
    list_groups::API,
    api_versions::API,
    create_topics::API,
    delete_topics::API,
    delete_records::API,
    init_producer_id::API,
    offset_for_leader_epoch::API,
    describe_configs::API,
    alter_configs::API,
    log_dirs::ALTER,
    log_dirs::DESCRIBE,
    create_partitions::API,
    elect_leaders::API,
    incremental_alter_configs::API,
    reassignments::ALTER,
    reassignments::LIST,
    describe_client_quotas::API,
    describe_user_scram_credentials::API,
    describe_quorum::API,
    update_features::API,
    describe_cluster::API,
    describe_producers::API,
    unregister_broker::API,
    transactions::DESCRIBE,
    transactions::LIST,
    list_config_resources::API,
    describe_topic_partitions::API,
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
        let response_header_version = if self.key == api_versions::API.key { 0 } else { flexible };
        let shape = self.serves(version).then_some(self.shape);
        Route {
            request_header_version: 1 + flexible,
            response_header_version,
            overlaps: self.overlaps,
            // The records of a fetch are sent from their files.
            small_answer: self.overlaps || self.key == fetch::API.key,
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
        (api.serves(api_version) || api_key == api_versions::API.key).then(|| api.route(api_version))
    }

    fn start(&self, request: Request) -> Result<Reply, BadRequest> {
        let api = Api::of(request.api_key).expect("the request was routed");
        match access::check(&request.context, api.needs) {
            Access::Granted => (api.start)(&self.0, request),
            Access::Denied => Err(BadRequest("the client may not do that".into())),
        }
    }
}
