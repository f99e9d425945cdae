//! DescribeClientQuotas (key 48), versions 0 and 1: the quotas of users, client ids and addresses (KIP-546).
//!
//! v1 is flexible. No quota can be configured yet, so none matches; a filter that means nothing is refused as ever.

use std::{collections::BTreeSet, sync::Arc};

use gracchus_core::error::ResponseError;
use kafka_protocol::messages::{
    DescribeClientQuotasRequest, DescribeClientQuotasResponse, describe_client_quotas_request::ComponentData,
};

use super::{
    Api, Operation, Resource,
    exchange::{BadRequest, Reply, Request},
    services::{self, Services},
    shape::{Field, Kind, Message, Structure},
};

/// The row of the table.
pub const API: Api = Api {
    key: 48,
    name: "DescribeClientQuotas",
    versions: 0..=1,
    advertised_from: 0,
    overlaps: false,
    needs: (Operation::DescribeConfigs, Resource::Cluster),
    shape: &SHAPE,
    start,
};

/// Structure of the request.
pub static SHAPE: Message = Message {
    flexible_from: 1,
    body: Structure {
        fields: &[Field::new(Kind::Array(&COMPONENT)), Field::new(Kind::Fixed(1))],
        memory: size_of::<DescribeClientQuotasRequest>(),
    },
};

static COMPONENT: Structure = Structure {
    fields: &[Field::new(Kind::Text), Field::new(Kind::Fixed(1)), Field::new(Kind::Text)],
    memory: size_of::<ComponentData>(),
};

const EXACT: i8 = 0;
const DEFAULT: i8 = 1;
const SPECIFIED: i8 = 2;

/// Answers at once.
pub fn start(_services: &Arc<Services>, request: Request) -> Result<Reply, BadRequest> {
    let body: DescribeClientQuotasRequest = request.decode()?;
    let response =
        DescribeClientQuotasResponse::default().with_throttle_time_ms(request.context.throttle_ms());
    let response = match check(&body.components) {
        Ok(()) => response.with_error_message(None).with_entries(Some(Vec::new())),
        Err((error, message)) => response
            .with_error_code(error.code())
            .with_error_message(Some(services::message(message)))
            .with_entries(None),
    };
    Ok(Reply::Now(request.envelope.answer(&response)))
}

/// Whether the filter means something.
fn check(components: &[ComponentData]) -> Result<(), (ResponseError, String)> {
    let invalid = |message: String| Err((ResponseError::InvalidRequest, message));
    let mut kinds = BTreeSet::new();
    for component in components {
        let kind = component.entity_type.as_str();
        if kind.is_empty() {
            return invalid("Invalid empty entity type.".to_owned());
        }
        if !kinds.insert(kind) {
            return invalid(format!("Entity type {kind} cannot appear more than once in the filter."));
        }
        if !["ip", "user", "client-id"].contains(&kind) {
            return Err((ResponseError::UnsupportedVersion, format!("Unsupported entity type {kind}")));
        }
        match (component.match_type, &component._match) {
            (EXACT, Some(_)) | (DEFAULT | SPECIFIED, None) => {}
            (EXACT | DEFAULT | SPECIFIED, _) => {
                return invalid("The match string does not go with the match type.".to_owned());
            }
            (other, _) => return invalid(format!("Unknown match type {other}")),
        }
    }
    if kinds.contains("ip") && kinds.len() > 1 {
        return invalid("An address does not go with a user or a client id in one filter.".to_owned());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use kafka_protocol::protocol::StrBytes;

    use super::*;

    #[test]
    fn filters_that_mean_nothing_are_refused() {
        let component = |kind, match_type, word: Option<&'static str>| {
            ComponentData::default()
                .with_entity_type(StrBytes::from_static_str(kind))
                .with_match_type(match_type)
                .with_match(word.map(StrBytes::from_static_str))
        };
        let verdict = |components: &[ComponentData]| check(components).map_err(|(error, _)| error);
        let user = component("user", EXACT, Some("alice"));
        assert_eq!(verdict(&[]), Ok(()));
        assert_eq!(verdict(&[user.clone(), component("client-id", DEFAULT, None)]), Ok(()));
        let invalid = Err(ResponseError::InvalidRequest);
        assert_eq!(verdict(&[user.clone(), user.clone()]), invalid);
        assert_eq!(verdict(&[user, component("ip", SPECIFIED, None)]), invalid);
        assert_eq!(verdict(&[component("user", EXACT, None)]), invalid);
        assert_eq!(verdict(&[component("user", DEFAULT, Some("x"))]), invalid);
        assert_eq!(verdict(&[component("user", 9, None)]), invalid);
        assert_eq!(verdict(&[component("", EXACT, Some("x"))]), invalid);
        assert_eq!(verdict(&[component("group", DEFAULT, None)]), Err(ResponseError::UnsupportedVersion));
    }
}
