//! AlterConfigs (key 33), versions 0 to 2: a resource's whole configuration, replaced.
//!
//! The elder of the two ways, kept for old tools: a key that is not named loses its override, so that two clients undo
//! each other's changes. v2 is flexible. Log levels cannot be changed this way (KIP-412).

use std::sync::Arc;

use futures_util::future::join_all;
use gracchus_core::controller::Image;
use kafka_protocol::messages::{
    AlterConfigsRequest, AlterConfigsResponse,
    alter_configs_request::{AlterConfigsResource, AlterableConfig},
    alter_configs_response::AlterConfigsResourceResponse,
};

use super::{
    Api, Operation, Resource,
    config_resources::{
        self as resources, Alteration, BROKER, CLIENT_METRICS, GROUP, Refused, TOPIC, Wish, Wishes,
        invalid_request,
    },
    exchange::{BadRequest, Reply, Request},
    services::{self, Services},
    shape::{Field, Kind, Message, Structure},
};

/// The row of the table.
pub const API: Api = Api {
    key: 33,
    name: "AlterConfigs",
    versions: 0..=2,
    advertised_from: 0,
    overlaps: false,
    needs: (Operation::AlterConfigs, Resource::Topic),
    shape: &SHAPE,
    start,
};

/// Structure of the request.
pub static SHAPE: Message = Message {
    flexible_from: 2,
    body: Structure {
        fields: &[Field::new(Kind::Array(&RESOURCE)), Field::new(Kind::Fixed(1))],
        memory: size_of::<AlterConfigsRequest>(),
    },
};

static RESOURCE: Structure = Structure {
    fields: &[Field::new(Kind::Fixed(1)), Field::new(Kind::Text), Field::new(Kind::Array(&CONFIG))],
    memory: size_of::<AlterConfigsResource>(),
};

static CONFIG: Structure = Structure {
    fields: &[Field::new(Kind::Text), Field::new(Kind::Text)],
    memory: size_of::<AlterableConfig>(),
};

/// Checks at once; answers when what passed is committed and in force.
pub fn start(services: &Arc<Services>, request: Request) -> Result<Reply, BadRequest> {
    let body: AlterConfigsRequest = request.decode()?;
    let envelope = request.envelope;
    let throttle_ms = request.context.throttle_ms();
    let image = services.controller.image();
    let named = body.resources.iter().map(|asked| (asked.resource_type, asked.resource_name.as_str()));
    let repeated = resources::repeated(named);
    let plans: Vec<_> = body
        .resources
        .iter()
        .zip(repeated)
        .map(|(asked, repeated)| {
            if repeated {
                return Err(invalid_request("Each resource must appear at most once."));
            }
            plan(services, &image, asked)
        })
        .collect();
    let services = services.clone();
    Ok(Reply::Later(Box::pin(async move {
        let carry_out = |(asked, plan)| carry_out(&services, asked, plan, body.validate_only);
        let outcomes = join_all(body.resources.iter().zip(plans).map(carry_out)).await;
        if !body.validate_only && outcomes.iter().any(Result::is_ok) {
            resources::in_force(&services);
        }
        let response = |(asked, outcome): (&AlterConfigsResource, Result<(), Refused>)| {
            let response = AlterConfigsResourceResponse::default()
                .with_resource_type(asked.resource_type)
                .with_resource_name(asked.resource_name.clone());
            match outcome {
                Ok(()) => response.with_error_message(None),
                Err((error, message)) => response
                    .with_error_code(error.code())
                    .with_error_message(Some(services::message(message))),
            }
        };
        let responses = body.resources.iter().zip(outcomes).map(response).collect();
        let response = AlterConfigsResponse::default().with_throttle_time_ms(throttle_ms);
        envelope.answer(&response.with_responses(responses))
    })))
}

async fn carry_out(
    services: &Services,
    asked: &AlterConfigsResource,
    plan: Result<Alteration, Refused>,
    validate_only: bool,
) -> Result<(), Refused> {
    let alteration = plan?;
    if validate_only {
        return Ok(());
    }
    resources::commit(services, alteration, |image| self::plan(services, image, asked)).await
}

fn plan(services: &Services, image: &Image, asked: &AlterConfigsResource) -> Result<Alteration, Refused> {
    if resources::has_duplicates(asked.configs.iter().map(|config| config.name.as_str())) {
        return Err(invalid_request("Error due to duplicate config keys"));
    }
    let name = asked.resource_name.as_str();
    match asked.resource_type {
        TOPIC => resources::alter_topic(services, image, name, wishes(asked)?),
        BROKER => resources::alter_broker(services, image, name, wishes(asked)?),
        CLIENT_METRICS => Err(invalid_request("Client metrics subscriptions are not served.")),
        GROUP => Err(invalid_request("Configurations of groups are not served yet.")),
        other => Err(invalid_request(format!("Unknown resource type {other}"))),
    }
}

fn wishes(asked: &AlterConfigsResource) -> Result<Wishes, Refused> {
    let mut wishes = Vec::with_capacity(asked.configs.len());
    let mut without_value = Vec::new();
    for config in &asked.configs {
        match &config.value {
            Some(value) => {
                wishes.push((config.name.as_str().to_owned(), Wish::Set(value.as_str().to_owned())));
            }
            None => without_value.push(config.name.as_str()),
        }
    }
    if !without_value.is_empty() {
        return Err(invalid_request(format!("Null value not supported for : {}", without_value.join(", "))));
    }
    Ok(Wishes { wishes, replace: true })
}
