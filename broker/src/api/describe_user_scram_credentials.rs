//! DescribeUserScramCredentials (key 50), version 0: which users have SCRAM credentials (KIP-554).
//!
//! Nobody can have any yet: all of them are none, and a named one is not found.

use std::{collections::BTreeMap, sync::Arc};

use gracchus_core::error::ResponseError;
use kafka_protocol::messages::{
    DescribeUserScramCredentialsRequest, DescribeUserScramCredentialsResponse,
    describe_user_scram_credentials_request::UserName,
    describe_user_scram_credentials_response::DescribeUserScramCredentialsResult,
};

use super::{
    Api, Operation, Resource,
    exchange::{BadRequest, Reply, Request},
    services::{self, Services},
    shape::{Field, Kind, Message, Structure},
};

/// The row of the table.
pub const API: Api = Api {
    key: 50,
    name: "DescribeUserScramCredentials",
    versions: 0..=0,
    advertised_from: 0,
    overlaps: false,
    needs: (Operation::Describe, Resource::Cluster),
    shape: &SHAPE,
    start,
};

/// Structure of the request.
pub static SHAPE: Message = Message {
    flexible_from: 0,
    body: Structure {
        fields: &[Field::new(Kind::Array(&USER))],
        memory: size_of::<DescribeUserScramCredentialsRequest>(),
    },
};

static USER: Structure = Structure { fields: &[Field::new(Kind::Text)], memory: size_of::<UserName>() };

/// Answers at once.
pub fn start(_services: &Arc<Services>, request: Request) -> Result<Reply, BadRequest> {
    let body: DescribeUserScramCredentialsRequest = request.decode()?;
    let mut named: BTreeMap<&str, usize> = BTreeMap::new();
    for user in body.users.iter().flatten() {
        *named.entry(user.name.as_str()).or_default() += 1;
    }
    let result = |(user, times): (&str, usize)| {
        let (error, message) = match times {
            1 => (
                ResponseError::ResourceNotFound,
                format!("Attempt to describe a user credential that does not exist: {user}"),
            ),
            _ => (
                ResponseError::DuplicateResource,
                format!(
                    "Cannot describe SCRAM credentials for the same user twice in a single request: {user}"
                ),
            ),
        };
        DescribeUserScramCredentialsResult::default()
            .with_user(services::text(user))
            .with_error_code(error.code())
            .with_error_message(Some(services::message(message)))
    };
    let response = DescribeUserScramCredentialsResponse::default()
        .with_throttle_time_ms(request.context.throttle_ms())
        .with_error_message(None)
        .with_results(named.into_iter().map(result).collect());
    Ok(Reply::Now(request.envelope.answer(&response)))
}
