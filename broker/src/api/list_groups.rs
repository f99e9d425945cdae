//! ListGroups (key 16), versions 0 to 5: which groups this broker coordinates. v4 filters by state (KIP-518), v5 by type
//! (KIP-848).
//!
//! There is no group coordinator yet, so there are no groups: the list is empty, whatever is asked for.

use std::sync::Arc;

use kafka_protocol::messages::{ListGroupsRequest, ListGroupsResponse};

use super::{
    Api, Operation, Resource,
    exchange::{BadRequest, Reply, Request},
    not_built::{self, Wanted},
    services::Services,
    shape::{Field, Kind, Message, Structure},
};

/// The row of the table.
pub const API: Api = Api {
    key: 16,
    name: "ListGroups",
    versions: 0..=5,
    advertised_from: 0,
    overlaps: false,
    needs: (Operation::Describe, Resource::Coordinated),
    shape: &SHAPE,
    start,
};

/// Structure of the request.
pub static SHAPE: Message = Message {
    flexible_from: 3,
    body: Structure {
        fields: &[Field::new(Kind::Texts).from(4), Field::new(Kind::Texts).from(5)],
        memory: size_of::<ListGroupsRequest>(),
    },
};

/// Answers at once.
pub fn start(services: &Arc<Services>, request: Request) -> Result<Reply, BadRequest> {
    let _: ListGroupsRequest = request.decode()?;
    not_built::say(services, &request.context, Wanted::Groups);
    // v0 has no such field.
    let throttle_ms = if request.api_version >= 1 { request.context.throttle_ms() } else { 0 };
    let response = ListGroupsResponse::default().with_throttle_time_ms(throttle_ms);
    Ok(Reply::Now(request.envelope.answer(&response)))
}
