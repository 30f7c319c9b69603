//! UpdateFeatures (key 57, KIP-584). The controller decides; this module translates.

use chronik_catalog::{ApiError, FeatureUpdate, UpgradeType};
use chronik_io::World;
use chronik_protocol::messages::update_features_request::FeatureUpdateKey;
use chronik_protocol::messages::update_features_response::UpdatableFeatureResult;
use chronik_protocol::messages::{UpdateFeaturesRequest, UpdateFeaturesResponse};
use chronik_protocol::{ErrorCode, Str};
use chronik_shards::questions::UpdateFeatures;

use super::api::{Api, Later, Shape};
use super::call::Call;
use super::context::Context;

/// Before this version the only choice was whether a feature may go down.
const UPGRADE_TYPE_VERSION: i16 = 1;
/// From this version on there is one outcome for all features.
const ONE_OUTCOME_VERSION: i16 = 2;

/// Updates of one request; Kafka has seven features, and more updates than this mean nothing.
const UPDATES_MAX: usize = 1000;

impl Api for UpdateFeaturesRequest {
    const SHAPE: Shape = Shape::Cluster;

    fn settle(&mut self) {}

    fn refused(&self, _: &Call, error: ErrorCode) -> UpdateFeaturesResponse {
        refused(error, None)
    }
}

impl Later for UpdateFeaturesRequest {
    async fn answer<W: World>(
        context: &Context<W>,
        call: &Call,
        request: Self,
    ) -> UpdateFeaturesResponse {
        if request.feature_updates.len() > UPDATES_MAX {
            let message = format!("More than {UPDATES_MAX} updates of features in one request.");
            return refused(ErrorCode::InvalidRequest, Some(Str::from(message)));
        }
        let updates = request.feature_updates.iter();
        let change = UpdateFeatures {
            updates: updates.map(|update| asked(call.version, update)).collect(),
            validate_only: request.validate_only,
        };
        let outcome = match context.router.ask_designated(change).await.await {
            Ok(outcome) => outcome,
            Err(_) => Err(ApiError::new(
                ErrorCode::NotController,
                "The controller is shutting down.",
            )),
        };
        match outcome {
            Err(error) => refused(error.code, Some(error.message)),
            Ok(()) if call.version >= ONE_OUTCOME_VERSION => UpdateFeaturesResponse {
                error_message: None,
                ..UpdateFeaturesResponse::default()
            },
            Ok(()) => {
                let names = request.feature_updates.into_iter();
                let results = names.map(|update| UpdatableFeatureResult {
                    feature: update.feature,
                    error_message: Some(Str::from_static("NONE")),
                    ..UpdatableFeatureResult::default()
                });
                UpdateFeaturesResponse {
                    error_message: None,
                    results: results.collect(),
                    ..UpdateFeaturesResponse::default()
                }
            }
        }
    }
}

fn refused(error: ErrorCode, message: Option<Str>) -> UpdateFeaturesResponse {
    UpdateFeaturesResponse {
        error_code: error.as_i16(),
        error_message: message,
        ..UpdateFeaturesResponse::default()
    }
}

fn asked(version: i16, update: &FeatureUpdateKey) -> FeatureUpdate {
    let kind = match (version, update.upgrade_type) {
        (0..UPGRADE_TYPE_VERSION, _) if update.allow_downgrade => UpgradeType::SafeDowngrade,
        (0..UPGRADE_TYPE_VERSION, _) | (_, 1) => UpgradeType::Upgrade,
        (_, 2) => UpgradeType::SafeDowngrade,
        (_, 3) => UpgradeType::UnsafeDowngrade,
        _ => UpgradeType::Unknown,
    };
    FeatureUpdate {
        name: update.feature.detached(),
        level: update.max_version_level,
        kind,
    }
}
