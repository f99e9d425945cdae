//! ApiVersions (key 18), versions 0 to 4: which requests in which versions are served. The first thing a client asks.
//!
//! KIP-35; KIP-511 (client software, and the fallback: a version that we do not know is answered in version 0 with
//! UNSUPPORTED_VERSION and our range for this very API, so that the client can ask again); KIP-584 (features, see
//! [`super::update_features`]). The response always has header version 0, for the client cannot know yet.
//! Never: advertise what is not served, except Produce 0–2, which old librdkafka wants to see (KAFKA-18659).

use std::sync::Arc;

use gracchus_core::error::ResponseError;
use kafka_protocol::messages::{ApiVersionsRequest, ApiVersionsResponse, api_versions_response::ApiVersion};

use super::{
    APIS, Api, Operation, Resource,
    context::ClientSoftware,
    exchange::{BadRequest, Envelope, Reply, Request},
    services::Services,
    shape::{Field, Kind, Message, Structure},
    update_features,
};

/// The row of the table.
pub const API: Api = Api {
    key: 18,
    name: "ApiVersions",
    versions: 0..=4,
    advertised_from: 0,
    overlaps: false,
    needs: (Operation::None, Resource::Cluster),
    shape: &SHAPE,
    start,
};

/// Structure of the request.
pub static SHAPE: Message = Message {
    flexible_from: 3,
    body: Structure {
        fields: &[Field::new(Kind::Text).from(3), Field::new(Kind::Text).from(3)],
        memory: size_of::<ApiVersionsRequest>(),
    },
};

/// Answers at once.
pub fn start(services: &Arc<Services>, request: Request) -> Result<Reply, BadRequest> {
    if !API.serves(request.api_version) {
        let envelope = Envelope { api_version: 0, ..request.envelope };
        return Ok(Reply::Now(envelope.answer(&unsupported())));
    }
    let body: ApiVersionsRequest = request.decode()?;
    let throttle_ms = request.context.throttle_ms();
    let mut response = ApiVersionsResponse::default();
    if request.api_version >= 3 {
        let (name, version) = (&*body.client_software_name, &*body.client_software_version);
        if is_plain(name) && is_plain(version) {
            let software = ClientSoftware { name: name.to_owned(), version: version.to_owned() };
            request.context.connection.introduce(software);
        } else {
            response.error_code = ResponseError::InvalidRequest.code();
        }
    }
    if response.error_code == 0 {
        response.api_keys = APIS.iter().map(advertised).collect();
    }
    if request.api_version >= 3 && response.error_code == 0 {
        update_features::show(
            &mut response,
            request.api_version,
            services.controller.quorum().high_watermark,
        );
    }
    if request.api_version >= 1 {
        response.throttle_time_ms = throttle_ms;
    }
    Ok(Reply::Now(request.envelope.answer(&response)))
}

fn unsupported() -> ApiVersionsResponse {
    ApiVersionsResponse::default()
        .with_error_code(ResponseError::UnsupportedVersion.code())
        .with_api_keys(vec![advertised(&API)])
}

fn advertised(api: &Api) -> ApiVersion {
    ApiVersion::default()
        .with_api_key(api.key)
        .with_min_version(api.advertised_from)
        .with_max_version(*api.versions.end())
}

/// The longest name or version that is kept for a connection.
const SOFTWARE_MOST: usize = 256;

/// Letters, digits, `-` and `.`, with a letter or digit at both ends, and not longer than anybody would name software.
fn is_plain(text: &str) -> bool {
    let bytes = text.as_bytes();
    let ends =
        [bytes.first(), bytes.last()].into_iter().all(|end| end.is_some_and(u8::is_ascii_alphanumeric));
    ends && bytes.len() <= SOFTWARE_MOST
        && bytes.iter().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn software_names_are_letters_digits_dots_and_dashes() {
        for good in ["a", "apache-kafka-java", "4.3.1", "librdkafka", "2.10.0-RC1"] {
            assert!(is_plain(good), "{good}");
        }
        for bad in ["", "-a", "a.", "a b", "a_b", "ä", "a\n"] {
            assert!(!is_plain(bad), "{bad}");
        }
        assert!(is_plain(&"a".repeat(SOFTWARE_MOST)));
        assert!(
            !is_plain(&"a".repeat(SOFTWARE_MOST + 1)),
            "it would be kept as long as the connection lives"
        );
    }
}
