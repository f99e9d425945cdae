//! DescribeConfigs (key 32), versions 1 to 4: configurations with their values, where these come from, and what they mean.
//!
//! v1 adds sources and synonyms (KIP-226), v3 types and documentation (KIP-569), v4 is flexible. Topics, this broker, what
//! is configured for every broker (the empty name), and the levels of loggers (KIP-412). Errors are per resource.
//!
//! The answer is written resource by resource: for thousands of topics its decoded form would take many times its size.

use std::{borrow::Cow, collections::BTreeSet, sync::Arc};

use bytes::{BufMut, BytesMut};
use gracchus_core::controller::Image;
use kafka_protocol::{
    messages::{
        DescribeConfigsRequest,
        describe_configs_request::DescribeConfigsResource,
        describe_configs_response::{
            DescribeConfigsResourceResult, DescribeConfigsResult, DescribeConfigsSynonym,
        },
    },
    protocol::{Encodable, StrBytes},
};

use super::{
    Api, Operation, Resource,
    config_resources::{
        BROKER, BROKER_LOGGER, CLIENT_METRICS, GROUP, Refused, TOPIC, invalid_request, own_node, topic,
    },
    exchange::{Answer, BadRequest, Envelope, Reply, Request},
    outcome::ErrorCodes,
    services::{self, Services},
    shape::{Field, Kind, Message, Structure},
};
use crate::config::{
    describe::{Described, Source, Synonym},
    live::Configuration,
};

/// The row of the table.
pub const API: Api = Api {
    key: 32,
    name: "DescribeConfigs",
    versions: 1..=4,
    advertised_from: 1,
    overlaps: false,
    needs: (Operation::DescribeConfigs, Resource::Topic),
    shape: &SHAPE,
    start,
};

/// Structure of the request.
pub static SHAPE: Message = Message {
    flexible_from: 4,
    body: Structure {
        fields: &[
            Field::new(Kind::Array(&RESOURCE)),
            Field::new(Kind::Fixed(1)),
            Field::new(Kind::Fixed(1)).from(3),
        ],
        memory: size_of::<DescribeConfigsRequest>(),
    },
};

static RESOURCE: Structure = Structure {
    fields: &[Field::new(Kind::Fixed(1)), Field::new(Kind::Text), Field::new(Kind::Texts)],
    memory: size_of::<DescribeConfigsResource>(),
};

/// Bytes of an answer from which on resources are refused: ten thousand topics with all that can be asked for fit. What
/// is named twice is refused as well, so that an answer is no longer than what there is.
const LONGEST_ANSWER: usize = 64 << 20;

/// Answers at once.
pub fn start(services: &Arc<Services>, request: Request) -> Result<Reply, BadRequest> {
    let body: DescribeConfigsRequest = request.decode()?;
    let answer = write(services, &body, request.envelope, request.context.throttle_ms());
    Ok(Reply::Now(answer.unwrap_or_else(|problem| Answer::Close(problem.into()))))
}

fn write(
    services: &Services,
    body: &DescribeConfigsRequest,
    envelope: Envelope,
    throttle_ms: i32,
) -> Result<Answer, String> {
    let version = envelope.api_version;
    let flexible = version >= SHAPE.flexible_from;
    let view = View {
        services,
        image: &services.controller.image(),
        configuration: &services.live.describe(),
        with_synonyms: body.include_synonyms,
        with_documentation: body.include_documentation,
    };
    let mut frame = envelope.open(4096);
    frame.put_i32(throttle_ms);
    let count = body.resources.len();
    if flexible {
        put_varint(&mut frame, count + 1);
    } else {
        frame.put_i32(i32::try_from(count).map_err(|_| "too many resources")?);
    }
    let mut errors = ErrorCodes::default();
    let mut seen = BTreeSet::new();
    for asked in &body.resources {
        let described = if !seen.insert((asked.resource_type, asked.resource_name.as_str())) {
            Err(invalid_request("Each resource must appear at most once."))
        } else if frame.len() >= LONGEST_ANSWER {
            Err(invalid_request("The answer would be too long: ask for fewer resources at a time."))
        } else {
            view.describe(asked)
        };
        let result = DescribeConfigsResult::default()
            .with_resource_type(asked.resource_type)
            .with_resource_name(asked.resource_name.clone());
        let result = match described {
            Ok(configs) => result.with_error_message(None).with_configs(configs),
            Err((error, message)) => {
                errors.add(error.code());
                result.with_error_code(error.code()).with_error_message(Some(services::message(message)))
            }
        };
        result
            .encode(&mut frame, version)
            .map_err(|error| format!("the response cannot be encoded: {error}"))?;
    }
    if flexible {
        frame.put_u8(0);
    }
    Envelope::seal(&mut frame, 0).map_err(|_| "the response is longer than 2 GiB")?;
    Ok(Answer::Frame(frame.freeze()).telling(errors))
}

fn put_varint(frame: &mut BytesMut, mut value: usize) {
    while value >= 0x80 {
        frame.put_u8((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    frame.put_u8(value as u8);
}

/// What one request sees: one image and one configuration for all of its resources.
struct View<'a> {
    services: &'a Services,
    image: &'a Image,
    configuration: &'a Configuration,
    with_synonyms: bool,
    with_documentation: bool,
}

impl View<'_> {
    fn describe(
        &self,
        asked: &DescribeConfigsResource,
    ) -> Result<Vec<DescribeConfigsResourceResult>, Refused> {
        let name = asked.resource_name.as_str();
        // An empty list asks for all, too.
        let keys: Option<BTreeSet<&str>> = asked
            .configuration_keys
            .as_ref()
            .filter(|keys| !keys.is_empty())
            .map(|keys| keys.iter().map(StrBytes::as_str).collect());
        let all = match asked.resource_type {
            TOPIC => self.configuration.of_topic(&topic(self.image, name)?.configs),
            BROKER if name.is_empty() => self.configuration.of_every_broker(),
            BROKER => {
                own_node(self.services, name)?;
                self.configuration.of_broker()
            }
            BROKER_LOGGER if name.is_empty() => return Err(invalid_request("Broker id must not be empty")),
            BROKER_LOGGER => {
                own_node(self.services, name)?;
                self.levels()
            }
            CLIENT_METRICS if name.is_empty() => {
                return Err(invalid_request("Client metrics subscription name must not be empty"));
            }
            // What nobody has configured has no configuration, as in Kafka.
            CLIENT_METRICS => Vec::new(),
            GROUP if name.is_empty() => return Err(invalid_request("Group name must not be empty")),
            GROUP => return Err(invalid_request("Configurations of groups are not served yet.")),
            other => {
                return Err(invalid_request(format!("Unexpected resource type {other} for resource {name}")));
            }
        };
        let wanted = |described: &Described| keys.as_ref().is_none_or(|keys| keys.contains(&*described.name));
        Ok(all.into_iter().filter(wanted).map(|described| self.result(described)).collect())
    }

    fn levels(&self) -> Vec<Described> {
        let logger = |(name, level): (String, crate::logging::Level)| Described {
            name: name.into(),
            value: Some(level.to_string()),
            source: Source::Logger,
            synonyms: Vec::new(),
            kind: None,
            read_only: false,
            doc: Cow::Borrowed(""),
        };
        self.services.log_levels.levels().into_iter().map(logger).collect()
    }

    fn result(&self, described: Described) -> DescribeConfigsResourceResult {
        let synonym = |synonym: Synonym| {
            DescribeConfigsSynonym::default()
                .with_name(text(synonym.name))
                .with_value(synonym.value.map(StrBytes::from_string))
                .with_source(synonym.source as i8)
        };
        let is_sensitive = described.is_sensitive();
        let synonyms = if self.with_synonyms { described.synonyms } else { Vec::new() };
        let documentation =
            Some(described.doc).filter(|doc| self.with_documentation && !doc.is_empty()).map(text);
        DescribeConfigsResourceResult::default()
            .with_name(text(described.name))
            .with_value(described.value.map(StrBytes::from_string))
            .with_read_only(described.read_only)
            .with_config_source(described.source as i8)
            .with_is_sensitive(is_sensitive)
            .with_synonyms(synonyms.into_iter().map(synonym).collect())
            .with_config_type(described.kind.map_or(0, |kind| kind.code()))
            .with_documentation(documentation)
    }
}

fn text(text: Cow<'static, str>) -> StrBytes {
    match text {
        Cow::Borrowed(text) => StrBytes::from_static_str(text),
        Cow::Owned(text) => StrBytes::from_string(text),
    }
}
