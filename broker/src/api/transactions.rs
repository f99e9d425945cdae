//! ListTransactions (key 66), versions 0 to 2, and DescribeTransactions (key 65), version 0 (KIP-664).
//!
//! There is no transaction coordinator yet, so there are no transactions: the list is empty and no id is known. A pattern
//! that is none is refused all the same (ListTransactions v2, KIP-1152).

use std::sync::Arc;

use gracchus_core::error::ResponseError;
use kafka_protocol::messages::{
    DescribeTransactionsRequest, DescribeTransactionsResponse, ListTransactionsRequest,
    ListTransactionsResponse, describe_transactions_response::TransactionState,
};

use super::{
    Api, Operation, Resource,
    exchange::{BadRequest, Reply, Request},
    not_built::{self, Wanted},
    services::Services,
    shape::{Field, Kind, Message, Structure},
};

/// The row of DescribeTransactions.
pub const DESCRIBE: Api = Api {
    key: 65,
    name: "DescribeTransactions",
    versions: 0..=0,
    advertised_from: 0,
    overlaps: false,
    needs: (Operation::Describe, Resource::Coordinated),
    shape: &DESCRIBE_SHAPE,
    start: describe,
};

/// The row of ListTransactions.
pub const LIST: Api = Api {
    key: 66,
    name: "ListTransactions",
    versions: 0..=2,
    advertised_from: 0,
    overlaps: false,
    needs: (Operation::Describe, Resource::Coordinated),
    shape: &LIST_SHAPE,
    start: list,
};

/// The states that a transaction can be in.
const STATES: [&str; 8] = [
    "Empty",
    "Ongoing",
    "PrepareCommit",
    "PrepareAbort",
    "CompleteCommit",
    "CompleteAbort",
    "Dead",
    "PrepareEpochFence",
];

/// Structure of DescribeTransactions.
pub static DESCRIBE_SHAPE: Message = Message {
    flexible_from: 0,
    body: Structure { fields: &[Field::new(Kind::Texts)], memory: size_of::<DescribeTransactionsRequest>() },
};

/// Structure of ListTransactions.
pub static LIST_SHAPE: Message = Message {
    flexible_from: 0,
    body: Structure {
        fields: &[
            Field::new(Kind::Texts),
            Field::new(Kind::Numbers(8)),
            Field::new(Kind::Fixed(8)).from(1),
            Field::new(Kind::Text).from(2),
        ],
        memory: size_of::<ListTransactionsRequest>(),
    },
};

/// Answers DescribeTransactions at once.
pub fn describe(services: &Arc<Services>, request: Request) -> Result<Reply, BadRequest> {
    let body: DescribeTransactionsRequest = request.decode()?;
    not_built::say(services, &request.context, Wanted::TransactionList);
    let states = body.transactional_ids.into_iter().map(|id| {
        let error = if id.is_empty() {
            ResponseError::InvalidRequest
        } else {
            ResponseError::TransactionalIdNotFound
        };
        TransactionState::default().with_error_code(error.code()).with_transactional_id(id)
    });
    let response = DescribeTransactionsResponse::default()
        .with_throttle_time_ms(request.context.throttle_ms())
        .with_transaction_states(states.collect());
    Ok(Reply::Now(request.envelope.answer(&response)))
}

/// Answers ListTransactions at once.
pub fn list(services: &Arc<Services>, request: Request) -> Result<Reply, BadRequest> {
    let body: ListTransactionsRequest = request.decode()?;
    not_built::say(services, &request.context, Wanted::TransactionList);
    if body.transactional_id_pattern.as_deref().is_some_and(|pattern| !is_pattern(pattern)) {
        let response = ListTransactionsResponse::default()
            .with_throttle_time_ms(request.context.throttle_ms())
            .with_error_code(ResponseError::InvalidRegularExpression.code());
        return Ok(Reply::Now(request.envelope.answer(&response)));
    }
    let unknown = body.state_filters.into_iter().filter(|state| !STATES.contains(&state.as_str()));
    let response = ListTransactionsResponse::default()
        .with_throttle_time_ms(request.context.throttle_ms())
        .with_unknown_state_filters(unknown.collect());
    Ok(Reply::Now(request.envelope.answer(&response)))
}

/// Whether ids can be compared with `pattern`. It is no longer than Kafka's strings, and what it compiles to is bounded.
fn is_pattern(pattern: &str) -> bool {
    pattern.len() <= i16::MAX as usize && regex_lite::Regex::new(pattern).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_compiled_is_no_pattern() {
        for pattern in ["", "a.*", "^(orders|lines)-[0-9]{1,3}$"] {
            assert!(is_pattern(pattern), "{pattern}");
        }
        for pattern in ["(", "[a", "a{2,1}", "*", "(((a{1000}){1000}){1000}){1000}", &"a".repeat(40_000)] {
            assert!(!is_pattern(pattern), "{pattern}");
        }
    }
}
