//! ListConfigResources (key 74), versions 0 and 1: which resources have a configuration (KIP-714, KIP-1142).
//!
//! v0 knows client metrics subscriptions only, of which there are none. v1 names the types: topics, brokers and their
//! loggers by default and by name; groups and client metrics subscriptions have no configuration here and are not listed.

use std::sync::Arc;

use gracchus_core::error::ResponseError;
use kafka_protocol::messages::{
    ListConfigResourcesRequest, ListConfigResourcesResponse, list_config_resources_response::ConfigResource,
};

use super::{
    Api, Operation, Resource,
    config_resources::{BROKER, BROKER_LOGGER, CLIENT_METRICS, GROUP, TOPIC},
    exchange::{BadRequest, Reply, Request},
    services::{self, Services},
    shape::{Field, Kind, Message, Structure},
};

/// The row of the table.
pub const API: Api = Api {
    key: 74,
    name: "ListConfigResources",
    versions: 0..=1,
    advertised_from: 0,
    overlaps: false,
    needs: (Operation::DescribeConfigs, Resource::Topic),
    shape: &SHAPE,
    start,
};

/// Structure of the request.
pub static SHAPE: Message = Message {
    flexible_from: 0,
    body: Structure {
        fields: &[Field::new(Kind::Numbers(1)).from(1)],
        memory: size_of::<ListConfigResourcesRequest>(),
    },
};

/// Answers at once.
pub fn start(services: &Arc<Services>, request: Request) -> Result<Reply, BadRequest> {
    let body: ListConfigResourcesRequest = request.decode()?;
    let mut response =
        ListConfigResourcesResponse::default().with_throttle_time_ms(request.context.throttle_ms());
    let known = [TOPIC, BROKER, BROKER_LOGGER, CLIENT_METRICS, GROUP];
    let asked: &[i8] = match &body.resource_types[..] {
        _ if request.api_version == 0 => &[],
        [] => &known,
        types => types,
    };
    if asked.iter().any(|asked| !known.contains(asked)) {
        response.error_code = ResponseError::UnsupportedVersion.code();
        return Ok(Reply::Now(request.envelope.answer(&response)));
    }
    let image = services.controller.image();
    // In the order of the known types, so that one named twice is listed once.
    for kind in known.into_iter().filter(|kind| asked.contains(kind)) {
        let resource = |name: &str| {
            ConfigResource::default().with_resource_type(kind).with_resource_name(services::text(name))
        };
        match kind {
            TOPIC => response.config_resources.extend(image.topics.keys().map(|name| resource(name))),
            BROKER | BROKER_LOGGER => {
                response.config_resources.extend(image.brokers.keys().map(|id| resource(&id.to_string())));
            }
            _ => {}
        }
    }
    Ok(Reply::Now(request.envelope.answer(&response)))
}
