//! FindCoordinator (key 10), versions 0 to 6: which broker looks after a group or a transactional id.
//!
//! v1 adds the key type, v4 several keys in one request with an error each (KIP-699), v6 share groups (KIP-932).
//! There are no coordinators yet, and the answer says so: COORDINATOR_NOT_AVAILABLE, which clients
//! retry, and a line in the log.

use std::sync::Arc;

use gracchus_core::error::ResponseError;
use kafka_protocol::{
    messages::{FindCoordinatorRequest, FindCoordinatorResponse, find_coordinator_response::Coordinator},
    protocol::StrBytes,
};

use super::{
    Api, Operation, Resource,
    exchange::{BadRequest, Reply, Request},
    not_built::{self, Wanted},
    services::Services,
    shape::{Field, Kind, Message, Structure},
};

/// The row of the table.
pub const API: Api = Api {
    key: 10,
    name: "FindCoordinator",
    versions: 0..=6,
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
        fields: &[
            Field::new(Kind::Text).to(3),
            Field::new(Kind::Fixed(1)).from(1),
            Field::new(Kind::Texts).from(4),
        ],
        memory: size_of::<FindCoordinatorRequest>(),
    },
};

const SHARE: i8 = 2;
/// Of the keys of one request no more go into the log.
const MOST_SAID: usize = 10;

/// Answers at once.
pub fn start(services: &Arc<Services>, request: Request) -> Result<Reply, BadRequest> {
    let body: FindCoordinatorRequest = request.decode()?;
    let version = request.api_version;
    let (error, message) = verdict(body.key_type, version);
    if error == ResponseError::CoordinatorNotAvailable {
        let one = [body.key.clone()];
        let keys = if version >= 4 { &body.coordinator_keys[..] } else { &one[..] };
        for key in keys.iter().take(MOST_SAID) {
            let wanted = match body.key_type {
                1 => Wanted::Transactions(key),
                // `group:topic id:partition`
                SHARE => Wanted::ShareGroup(key.split(':').next().unwrap_or_default()),
                _ => Wanted::Group(key),
            };
            not_built::say(services, &request.context, wanted);
        }
    }
    let message = StrBytes::from_static_str(message);
    let mut response = FindCoordinatorResponse::default();
    if version >= 1 {
        response.throttle_time_ms = request.context.throttle_ms();
    }
    if version >= 4 {
        let nowhere = |key| {
            Coordinator::default()
                .with_key(key)
                .with_node_id((-1).into())
                .with_port(-1)
                .with_error_code(error.code())
                .with_error_message(Some(message.clone()))
        };
        response.coordinators = body.coordinator_keys.into_iter().map(nowhere).collect();
    } else {
        response.error_code = error.code();
        response.node_id = (-1).into();
        response.port = -1;
        if version >= 1 {
            response.error_message = Some(message);
        }
    }
    Ok(Reply::Now(request.envelope.answer(&response)))
}

fn verdict(key_type: i8, version: i16) -> (ResponseError, &'static str) {
    match key_type {
        0 | 1 => (ResponseError::CoordinatorNotAvailable, "This broker has no coordinators yet."),
        SHARE if version >= 6 => {
            (ResponseError::CoordinatorNotAvailable, "This broker has no coordinators yet.")
        }
        _ => (ResponseError::InvalidRequest, "The key type is unknown."),
    }
}
