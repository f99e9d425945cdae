//! IncrementalAlterConfigs (key 44), versions 0 and 1: single steps on configurations (KIP-339), and log levels (KIP-412).
//!
//! v1 is flexible. A step sets a key, deletes its override, or adds words to a list or takes them away. All steps of a
//! resource are done or none; errors are per resource, in Kafka's order. `validate_only` runs every check.

use std::sync::Arc;

use futures_util::future::join_all;
use gracchus_core::{controller::Image, error::ResponseError};
use kafka_protocol::messages::{
    IncrementalAlterConfigsRequest, IncrementalAlterConfigsResponse,
    incremental_alter_configs_request::{AlterConfigsResource, AlterableConfig},
    incremental_alter_configs_response::AlterConfigsResourceResponse,
};

use super::{
    Api, Operation, Resource,
    config_resources::{
        self as resources, Alteration, BROKER, BROKER_LOGGER, CLIENT_METRICS, GROUP, Refused, TOPIC, Wish,
        Wishes, invalid_request,
    },
    exchange::{BadRequest, Reply, Request},
    services::{self, Services},
    shape::{Field, Kind, Message, Structure},
};
use crate::logging::{Level, ROOT};

/// The row of the table.
pub const API: Api = Api {
    key: 44,
    name: "IncrementalAlterConfigs",
    versions: 0..=1,
    advertised_from: 0,
    overlaps: false,
    needs: (Operation::AlterConfigs, Resource::Topic),
    shape: &SHAPE,
    start,
};

/// Structure of the request.
pub static SHAPE: Message = Message {
    flexible_from: 1,
    body: Structure {
        fields: &[Field::new(Kind::Array(&RESOURCE)), Field::new(Kind::Fixed(1))],
        memory: size_of::<IncrementalAlterConfigsRequest>(),
    },
};

static RESOURCE: Structure = Structure {
    fields: &[Field::new(Kind::Fixed(1)), Field::new(Kind::Text), Field::new(Kind::Array(&CONFIG))],
    memory: size_of::<AlterConfigsResource>(),
};

static CONFIG: Structure = Structure {
    fields: &[Field::new(Kind::Text), Field::new(Kind::Fixed(1)), Field::new(Kind::Text)],
    memory: size_of::<AlterableConfig>(),
};

/// Levels as clients name them.
const LEVELS: [&str; 6] = ["DEBUG", "ERROR", "FATAL", "INFO", "TRACE", "WARN"];

/// Checks at once; answers when what passed is committed and in force.
pub fn start(services: &Arc<Services>, request: Request) -> Result<Reply, BadRequest> {
    let body: IncrementalAlterConfigsRequest = request.decode()?;
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
        let response = IncrementalAlterConfigsResponse::default().with_throttle_time_ms(throttle_ms);
        envelope.answer(&response.with_responses(responses))
    })))
}

/// What a request alters.
enum Target {
    /// Configuration overrides, by a command.
    Configs(Alteration),
    /// Loggers with their new levels; `None` gives back the level of the start.
    LogLevels(Vec<(String, Option<Level>)>),
}

fn plan(services: &Services, image: &Image, asked: &AlterConfigsResource) -> Result<Target, Refused> {
    if resources::has_duplicates(asked.configs.iter().map(|config| config.name.as_str())) {
        return Err(invalid_request("Error due to duplicate config keys"));
    }
    let without_value = |config: &&AlterableConfig| config.config_operation != 1 && config.value.is_none();
    let without_value: Vec<&str> =
        asked.configs.iter().filter(without_value).map(|config| config.name.as_str()).collect();
    if !without_value.is_empty() {
        return Err(invalid_request(format!("Null value not supported for : {}", without_value.join(", "))));
    }
    let name = asked.resource_name.as_str();
    match asked.resource_type {
        TOPIC => resources::alter_topic(services, image, name, wishes(asked)?).map(Target::Configs),
        BROKER => resources::alter_broker(services, image, name, wishes(asked)?).map(Target::Configs),
        BROKER_LOGGER => {
            resources::own_node(services, name)?;
            wishes(asked)?
                .wishes
                .into_iter()
                .map(|(logger, wish)| level(services, logger, wish))
                .collect::<Result<_, _>>()
                .map(Target::LogLevels)
        }
        CLIENT_METRICS => Err(invalid_request("Client metrics subscriptions are not served.")),
        GROUP => Err(invalid_request("Configurations of groups are not served yet.")),
        other => Err(invalid_request(format!("Unknown resource type {other}"))),
    }
}

fn wishes(asked: &AlterConfigsResource) -> Result<Wishes, Refused> {
    let wish = |config: &AlterableConfig| {
        let value = || config.value.as_ref().map(|value| value.as_str().to_owned()).unwrap_or_default();
        let wish = match config.config_operation {
            0 => Wish::Set(value()),
            1 => Wish::Delete,
            2 => Wish::Append(value()),
            3 => Wish::Subtract(value()),
            other => return Err(invalid_request(format!("Unknown operations type {other}"))),
        };
        Ok((config.name.as_str().to_owned(), wish))
    };
    Ok(Wishes { wishes: asked.configs.iter().map(wish).collect::<Result<_, _>>()?, replace: false })
}

fn level(services: &Services, logger: String, wish: Wish) -> Result<(String, Option<Level>), Refused> {
    let operation = match wish {
        Wish::Set(_) | Wish::Delete if !services.log_levels.knows(&logger) => {
            return Err((ResponseError::InvalidConfig, format!("Logger {logger} does not exist!")));
        }
        Wish::Set(value) => {
            let level = value.parse().ok().filter(|_| LEVELS.contains(&value.as_str()));
            let message = || {
                let levels = LEVELS.join(", ");
                format!(
                    "Cannot set the log level of {logger} to {value} as it is not a supported log level. Valid log \
                     levels are {levels}"
                )
            };
            let level = level.ok_or_else(|| (ResponseError::InvalidConfig, message()))?;
            return Ok((logger, Some(level)));
        }
        Wish::Delete if logger == ROOT => {
            return Err(invalid_request(format!(
                "Removing the log level of the {ROOT} logger is not allowed"
            )));
        }
        Wish::Delete => return Ok((logger, None)),
        Wish::Append(_) => "APPEND",
        Wish::Subtract(_) => "SUBTRACT",
    };
    Err(invalid_request(format!("{operation} operation is not allowed for the BROKER_LOGGER resource")))
}

async fn carry_out(
    services: &Services,
    asked: &AlterConfigsResource,
    plan: Result<Target, Refused>,
    validate_only: bool,
) -> Result<(), Refused> {
    match plan? {
        _ if validate_only => Ok(()),
        Target::Configs(alteration) => {
            let decide = |image: &Image| match self::plan(services, image, asked)? {
                Target::Configs(alteration) => Ok(alteration),
                Target::LogLevels(_) => unreachable!("a resource keeps its type"),
            };
            resources::commit(services, alteration, decide).await
        }
        Target::LogLevels(levels) => {
            let changed = services.log_levels.change(&levels);
            changed.map_err(|error| (ResponseError::InvalidConfig, error.to_string()))
        }
    }
}
