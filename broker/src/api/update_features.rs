//! UpdateFeatures (key 57), versions 0 to 2, and the features that ApiVersions shows (KIP-584, KIP-1022).
//!
//! `metadata.version` is the only feature that exists here: that of the Apache Kafka release whose protocol is served.
//! It cannot be changed. Group, transaction, share and streams features stand for coordinators that do not exist yet, so
//! they are not shown. v1 has kinds of upgrades and a dry run, v2 answers for all features at once.

use std::sync::Arc;

use gracchus_core::error::ResponseError;
use kafka_protocol::{
    messages::{
        ApiVersionsResponse, UpdateFeaturesRequest, UpdateFeaturesResponse,
        api_versions_response::{FinalizedFeatureKey, SupportedFeatureKey},
        update_features_request::FeatureUpdateKey,
        update_features_response::UpdatableFeatureResult,
    },
    protocol::StrBytes,
};

use super::{
    exchange::{BadRequest, Reply, Request},
    services::{self, Services},
    shape::{Field, Kind, Message, Structure},
};

/// Number of the API.
pub const KEY: i16 = 57;

const METADATA_VERSION: &str = "metadata.version";
/// 3.3-IV3, the oldest that Apache Kafka 4.3 knows.
const OLDEST: i16 = 7;
/// 4.3-IV0.
const NEWEST: i16 = 30;

/// First version with one error for all features.
const ONE_ERROR: i16 = 2;

/// Structure of the request.
pub static SHAPE: Message = Message {
    flexible_from: 0,
    body: Structure {
        fields: &[
            Field::new(Kind::Fixed(4)),
            Field::new(Kind::Array(&FEATURE)),
            Field::new(Kind::Fixed(1)).from(1),
        ],
        memory: size_of::<UpdateFeaturesRequest>(),
    },
};

static FEATURE: Structure = Structure {
    fields: &[
        Field::new(Kind::Text),
        Field::new(Kind::Fixed(2)),
        Field::new(Kind::Fixed(1)).to(0),
        Field::new(Kind::Fixed(1)).from(1),
    ],
    memory: size_of::<FeatureUpdateKey>(),
};

/// What ApiVersions says about features; `epoch` grows with the metadata.
pub(super) fn show(response: &mut ApiVersionsResponse, epoch: i64) {
    let name = StrBytes::from_static_str(METADATA_VERSION);
    let supported = SupportedFeatureKey::default().with_name(name.clone());
    response.supported_features = vec![supported.with_min_version(OLDEST).with_max_version(NEWEST)];
    response.finalized_features_epoch = epoch;
    let finalized = FinalizedFeatureKey::default().with_name(name);
    response.finalized_features =
        vec![finalized.with_min_version_level(NEWEST).with_max_version_level(NEWEST)];
}

/// Answers at once.
pub fn start(services: &Arc<Services>, request: Request) -> Result<Reply, BadRequest> {
    let body: UpdateFeaturesRequest = request.decode()?;
    let node = services.node().0;
    let outcomes = body.feature_updates.iter().map(|update| (update, check(update, node)));
    let mut response = UpdateFeaturesResponse::default()
        .with_throttle_time_ms(request.context.throttle_ms())
        .with_error_message(None);
    if request.api_version >= ONE_ERROR {
        if let Some((error, message)) = outcomes.filter_map(|(_, outcome)| outcome.err()).next() {
            response.error_code = error.code();
            response.error_message = Some(services::message(format!(
                "The update failed for all features since the following feature had an error: {message}"
            )));
        }
    } else {
        let result = |(update, outcome): (&FeatureUpdateKey, Outcome)| {
            let result = UpdatableFeatureResult::default().with_feature(update.feature.clone());
            match outcome {
                Ok(()) => result.with_error_message(None),
                Err((error, message)) => {
                    result.with_error_code(error.code()).with_error_message(Some(services::message(message)))
                }
            }
        };
        response.results = outcomes.map(result).collect();
    }
    Ok(Reply::Now(request.envelope.answer(&response)))
}

type Outcome = Result<(), (ResponseError, String)>;

/// Only what is so already can be asked for.
fn check(update: &FeatureUpdateKey, node: i32) -> Outcome {
    let (feature, level) = (update.feature.as_str(), update.max_version_level);
    let refuse = |why: String| Err((ResponseError::InvalidUpdateVersion, why));
    let invalid = format!("Invalid update version {level} for feature {feature}");
    if feature != METADATA_VERSION {
        return refuse(match level {
            0 => format!("{invalid}. Feature {feature} not found."),
            _ => format!("{invalid}. Local controller {node} does not support this feature."),
        });
    }
    match level {
        NEWEST => Ok(()),
        OLDEST..NEWEST => refuse(format!("{invalid}: it is {NEWEST} for good.")),
        _ => refuse(format!("{invalid}. Local controller {node} only supports versions {OLDEST}-{NEWEST}")),
    }
}
