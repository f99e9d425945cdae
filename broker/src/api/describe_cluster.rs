//! DescribeCluster (key 60), versions 0 to 2: the cluster's id, its brokers, and whom to ask for changes (KIP-700).
//!
//! v1 says which kind of endpoint is asked (KIP-919), v2 lists fenced brokers on request, of which there are none: a
//! broker that is not up is not registered anew, and one node has no other.

use std::sync::Arc;

use gracchus_core::error::ResponseError;
use kafka_protocol::{
    messages::{
        DescribeClusterRequest, DescribeClusterResponse, describe_cluster_response::DescribeClusterBroker,
    },
    protocol::StrBytes,
};

use super::{
    Api, Operation, Resource,
    exchange::{BadRequest, Reply, Request},
    metadata::ALL_CLUSTER_OPERATIONS,
    services::{self, Services},
    shape::{Field, Kind, Message, Structure},
};

/// The row of the table.
pub const API: Api = Api {
    key: 60,
    name: "DescribeCluster",
    versions: 0..=2,
    advertised_from: 0,
    overlaps: false,
    needs: (Operation::Describe, Resource::Cluster),
    shape: &SHAPE,
    start,
};

/// Endpoint types.
const BROKERS: i8 = 1;
const CONTROLLERS: i8 = 2;

/// Structure of the request.
pub static SHAPE: Message = Message {
    flexible_from: 0,
    body: Structure {
        fields: &[
            Field::new(Kind::Fixed(1)),
            Field::new(Kind::Fixed(1)).from(1),
            Field::new(Kind::Fixed(1)).from(2),
        ],
        memory: size_of::<DescribeClusterRequest>(),
    },
};

/// Answers at once.
pub fn start(services: &Arc<Services>, request: Request) -> Result<Reply, BadRequest> {
    let body: DescribeClusterRequest = request.decode()?;
    let mut response =
        DescribeClusterResponse::default().with_throttle_time_ms(request.context.throttle_ms());
    let version = request.api_version;
    let refusal = match body.endpoint_type {
        _ if version == 0 => None,
        BROKERS => None,
        CONTROLLERS => Some((ResponseError::MismatchedEndpointType, "this is an endpoint of a broker")),
        _ => Some((ResponseError::UnsupportedEndpointType, "unknown endpoint type")),
    };
    if let Some((error, message)) = refusal {
        response.error_code = error.code();
        response.error_message = Some(services::text(message));
        return Ok(Reply::Now(request.envelope.answer(&response)));
    }
    let image = services.controller.image();
    let listener = &request.context.connection.listener;
    let endpoints = services::endpoints(&image, listener, image.brokers.keys().copied());
    response.brokers = endpoints
        .into_iter()
        .map(|endpoint| {
            DescribeClusterBroker::default()
                .with_broker_id(endpoint.node.0.into())
                .with_host(StrBytes::from_string(endpoint.host))
                .with_port(endpoint.port)
                .with_rack(endpoint.rack.map(StrBytes::from_string))
        })
        .collect();
    response.cluster_id = image.cluster_id.map(|id| services::cluster_id(id).into()).unwrap_or_default();
    response.controller_id = services.node().0.into();
    if body.include_cluster_authorized_operations {
        response.cluster_authorized_operations = ALL_CLUSTER_OPERATIONS;
    }
    Ok(Reply::Now(request.envelope.answer(&response)))
}
