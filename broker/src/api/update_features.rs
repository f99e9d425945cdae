//! UpdateFeatures (key 57), versions 0 to 2, and the features that ApiVersions shows (KIP-584, KIP-1022).
//!
//! Two features exist here: `metadata.version`, that of the Apache Kafka release whose protocol is served, and
//! `eligible.leader.replicas.version`: of partitions with one replica that replica is always eligible, and
//! `min.insync.replicas` is held as the feature asks. Neither can be changed. Group, transaction, share and streams features stand for coordinators that do not exist yet, so
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
    Api, Operation, Resource,
    exchange::{BadRequest, Reply, Request},
    services::{self, Services},
    shape::{Field, Kind, Message, Structure},
};

/// The row of the table.
pub const API: Api = Api {
    key: 57,
    name: "UpdateFeatures",
    versions: 0..=2,
    advertised_from: 0,
    overlaps: false,
    needs: (Operation::Alter, Resource::Cluster),
    shape: &SHAPE,
    start,
};

/// A feature whose level is `newest` for good.
struct Feature {
    name: &'static str,
    oldest: i16,
    newest: i16,
}

const FEATURES: [Feature; 2] = [
    Feature { name: "eligible.leader.replicas.version", oldest: 0, newest: 1 },
    // From 3.3-IV3, the oldest that Apache Kafka 4.3 knows, to 4.3-IV0.
    Feature { name: "metadata.version", oldest: 7, newest: 30 },
];

/// First version of ApiVersions whose clients understand a feature that may be absent.
const FROM_NOTHING: i16 = 4;

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

/// What ApiVersions says about features in its version `version`; `epoch` grows with the metadata.
pub(super) fn show(response: &mut ApiVersionsResponse, version: i16, epoch: i64) {
    let name = |feature: &Feature| StrBytes::from_static_str(feature.name);
    let supported = |feature: &Feature| {
        let supported = SupportedFeatureKey::default().with_name(name(feature));
        supported.with_min_version(feature.oldest).with_max_version(feature.newest)
    };
    let finalized = |feature: &Feature| {
        let finalized = FinalizedFeatureKey::default().with_name(name(feature));
        finalized.with_min_version_level(feature.newest).with_max_version_level(feature.newest)
    };
    let is_shown = |feature: &&Feature| version >= FROM_NOTHING || feature.oldest > 0;
    response.supported_features = FEATURES.iter().filter(is_shown).map(supported).collect();
    response.finalized_features_epoch = epoch;
    response.finalized_features = FEATURES.iter().map(finalized).collect();
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
    let Some(Feature { oldest, newest, .. }) = FEATURES.iter().find(|known| known.name == feature) else {
        return refuse(match level {
            0 => format!("{invalid}. Feature {feature} not found."),
            _ => format!("{invalid}. Local controller {node} does not support this feature."),
        });
    };
    if level == *newest {
        Ok(())
    } else if (*oldest..*newest).contains(&level) {
        refuse(format!("{invalid}: it is {newest} for good."))
    } else {
        refuse(format!("{invalid}. Local controller {node} only supports versions {oldest}-{newest}"))
    }
}
