//! ApiVersions (key 18): which APIs, versions and features there are.
//!
//! Answered from the version table and the image. A version newer than ours is answered in the
//! format of version 0 with UNSUPPORTED_VERSION, so that any client can read it (KIP-511).

use chronik_io::World;
use chronik_protocol::frame::{RequestHeader, encode_response};
use chronik_protocol::messages::api_versions_response::{
    ApiVersion, FinalizedFeatureKey, SupportedFeatureKey,
};
use chronik_protocol::messages::{ApiVersionsRequest, ApiVersionsResponse};
use chronik_protocol::versions::{ADVERTISED, ApiRange};
use chronik_protocol::{ApiKey, ErrorCode, Str};
use tracing::debug;

use super::api::{Api, Inline, Shape};
use super::call::Call;
use super::closed;
use super::context::Context;
use crate::server::service::{Admitted, Answer, Pace, Reply};

/// From this version on a feature whose least level is 0 can be told: older clients take it for
/// a corrupt answer (KIP-1022).
const FEATURE_LEVEL_ZERO_VERSION: i16 = 4;
/// From this version on clients say what software they are.
const SOFTWARE_VERSION: i16 = 3;

impl Api for ApiVersionsRequest {
    const SHAPE: Shape = Shape::Free;

    fn settle(&mut self) {}

    fn refused(&self, _: &Call, error: ErrorCode) -> ApiVersionsResponse {
        ApiVersionsResponse {
            error_code: error.as_i16(),
            ..ApiVersionsResponse::default()
        }
    }
}

impl Inline for ApiVersionsRequest {
    /// Answers a served version.
    fn answer<W: World>(context: &Context<W>, call: &Call, request: Self) -> ApiVersionsResponse {
        if call.version >= SOFTWARE_VERSION {
            let (name, version) = (
                &request.client_software_name,
                &request.client_software_version,
            );
            if !is_software_word(name) || !is_software_word(version) {
                return request.refused(call, ErrorCode::InvalidRequest);
            }
            debug!(software = %name, version = %version, client = call.client_id.as_deref(), "client");
        }
        let image = context.image();
        let broker = image.brokers.get(&image.node_id);
        let supported_features = broker
            .into_iter()
            .flat_map(|broker| &broker.features)
            .filter(|(_, min, _)| call.version >= FEATURE_LEVEL_ZERO_VERSION || *min > 0)
            .map(|(name, min, max)| SupportedFeatureKey {
                name: name.clone(),
                min_version: *min,
                max_version: *max,
                ..SupportedFeatureKey::default()
            })
            .collect();
        let kraft_version = (Str::from_static("kraft.version"), image.kraft_version());
        let quorum = Some(&kraft_version).filter(|(_, level)| *level > 0);
        let quorum = quorum.map(|(name, level)| (name, level));
        let finalized_features = image
            .features
            .iter()
            .chain(quorum)
            .map(|(name, level)| FinalizedFeatureKey {
                name: name.clone(),
                max_version_level: *level,
                min_version_level: *level,
                ..FinalizedFeatureKey::default()
            })
            .collect();
        ApiVersionsResponse {
            api_keys: ADVERTISED.iter().map(row).collect(),
            supported_features,
            finalized_features_epoch: image.offset,
            finalized_features,
            ..ApiVersionsResponse::default()
        }
    }
}

/// Answers a version that is not served.
pub(super) fn unknown_version(header: &RequestHeader) -> Admitted {
    let response = ApiVersionsResponse {
        error_code: ErrorCode::UnsupportedVersion.as_i16(),
        api_keys: ADVERTISED
            .iter()
            .filter(|range| range.key == ApiKey::ApiVersions)
            .map(row)
            .collect(),
        ..ApiVersionsResponse::default()
    };
    match encode_response(header.correlation_id, 0, &response, 0) {
        Ok(parts) => Admitted {
            pace: Pace::Free,
            answer: Answer::Now(Reply::Send(parts)),
        },
        Err(error) => closed(format!("ApiVersions cannot be answered: {error}")),
    }
}

fn row(range: &ApiRange) -> ApiVersion {
    ApiVersion {
        api_key: range.key.as_i16(),
        min_version: range.min,
        max_version: range.max,
        ..ApiVersion::default()
    }
}

/// Letters and digits, with dots and dashes between them (`ApiVersionsRequest#isValid`).
fn is_software_word(word: &str) -> bool {
    let bytes = word.as_bytes();
    let ends = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_alphanumeric);
    ends(bytes.first())
        && ends(bytes.last())
        && bytes
            .iter()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn software_words_are_judged_as_kafka_judges_them() {
        for good in ["apache-kafka-java", "4.3.1", "a", "A.b-C"] {
            assert!(is_software_word(good), "{good}");
        }
        for bad in ["", "-a", "a.", "a b", "a_b", "ü"] {
            assert!(!is_software_word(bad), "{bad}");
        }
    }
}
