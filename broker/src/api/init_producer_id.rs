//! InitProducerId (key 22), versions 0 to 5: an identity for an idempotent producer.
//!
//! KIP-98; v3 lets a producer name the id and epoch that it has (KIP-360), v4 and v5 refine errors of transactions.
//! Without a transactional id every request gets a fresh id with epoch 0, whatever it names. With one, a transaction
//! coordinator would have to answer; there is none yet: COORDINATOR_NOT_AVAILABLE, which clients retry, and a line in the log.
//! Version 6 (KIP-939) is unstable and not advertised. Never: the same id twice.

use std::sync::Arc;

use gracchus_core::error::ResponseError;
use kafka_protocol::messages::{InitProducerIdRequest, InitProducerIdResponse};

use super::{
    Api, Operation, Resource,
    exchange::{BadRequest, Reply, Request},
    not_built::{self, Wanted},
    services::Services,
    shape::{Field, Kind, Message, Structure},
};

/// The row of the table.
pub const API: Api = Api {
    key: 22,
    name: "InitProducerId",
    versions: 0..=5,
    advertised_from: 0,
    overlaps: false,
    needs: (Operation::IdempotentWrite, Resource::Cluster),
    shape: &SHAPE,
    start,
};

/// Structure of the request.
pub static SHAPE: Message = Message {
    flexible_from: 2,
    body: Structure {
        fields: &[
            Field::new(Kind::Text),
            Field::new(Kind::Fixed(4)),
            Field::new(Kind::Fixed(8)).from(3),
            Field::new(Kind::Fixed(2)).from(3),
        ],
        memory: size_of::<InitProducerIdRequest>(),
    },
};

/// Answers when the id is this producer's.
pub fn start(services: &Arc<Services>, request: Request) -> Result<Reply, BadRequest> {
    let body: InitProducerIdRequest = request.decode()?;
    let envelope = request.envelope;
    let throttle_ms = request.context.throttle_ms();
    let refused = match body.transactional_id.as_ref() {
        Some(id) if id.is_empty() => Some(ResponseError::InvalidRequest),
        // Names an id without an epoch, or the other way round.
        _ if (body.producer_id.0 == -1) != (body.producer_epoch == -1) => Some(ResponseError::InvalidRequest),
        Some(id) => {
            not_built::say(services, &request.context, Wanted::Transactions(id));
            Some(ResponseError::CoordinatorNotAvailable)
        }
        None => None,
    };
    if let Some(error) = refused {
        return Ok(Reply::Now(envelope.answer(&failed(error, throttle_ms))));
    }
    let services = services.clone();
    Ok(Reply::Later(Box::pin(async move {
        match services.controller.next_producer_id().await {
            Ok(id) => envelope.answer(
                &InitProducerIdResponse::default()
                    .with_throttle_time_ms(throttle_ms)
                    .with_producer_id(id.0.into())
                    .with_producer_epoch(0),
            ),
            Err(error) => {
                tracing::debug!("no producer id: {error}");
                envelope.answer(&failed(ResponseError::CoordinatorLoadInProgress, throttle_ms))
            }
        }
    })))
}

fn failed(error: ResponseError, throttle_ms: i32) -> InitProducerIdResponse {
    InitProducerIdResponse::default()
        .with_throttle_time_ms(throttle_ms)
        .with_error_code(error.code())
        .with_producer_id((-1).into())
        .with_producer_epoch(-1)
}
