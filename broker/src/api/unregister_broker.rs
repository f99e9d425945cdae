//! UnregisterBroker (key 64), version 0: forgets a broker that is gone for good.
//!
//! The only broker of a cluster of one is this very process. Never: it forgets itself while it serves.

use std::sync::Arc;

use gracchus_core::error::ResponseError;
use kafka_protocol::messages::{UnregisterBrokerRequest, UnregisterBrokerResponse};

use super::{
    Api, Operation, Resource,
    exchange::{BadRequest, Reply, Request},
    services::{self, Services},
    shape::{Field, Kind, Message, Structure},
};

/// The row of the table.
pub const API: Api = Api {
    key: 64,
    name: "UnregisterBroker",
    versions: 0..=0,
    advertised_from: 0,
    overlaps: false,
    needs: (Operation::Alter, Resource::Cluster),
    shape: &SHAPE,
    start,
};

/// Structure of the request.
pub static SHAPE: Message = Message {
    flexible_from: 0,
    body: Structure { fields: &[Field::new(Kind::Fixed(4))], memory: size_of::<UnregisterBrokerRequest>() },
};

/// Answers at once.
pub fn start(services: &Arc<Services>, request: Request) -> Result<Reply, BadRequest> {
    let body: UnregisterBrokerRequest = request.decode()?;
    let id = body.broker_id.0;
    let (error, message) = if id == services.node().0 {
        let message = format!("Broker {id} is the one that answers and the only one of its cluster");
        (ResponseError::InvalidRequest, message)
    } else {
        (ResponseError::BrokerIdNotRegistered, format!("Broker ID {id} is not currently registered"))
    };
    let response = UnregisterBrokerResponse::default()
        .with_throttle_time_ms(request.context.throttle_ms())
        .with_error_code(error.code())
        .with_error_message(Some(services::message(message)));
    Ok(Reply::Now(request.envelope.answer(&response)))
}
