//! UpdateFeatures: levels that go up, down and stay; refusals in Kafka 4.3.1's words.

use std::collections::BTreeMap;

use chronik_protocol::ErrorCode;
use chronik_protocol::messages::update_features_request::FeatureUpdateKey;
use chronik_protocol::messages::{ApiVersionsRequest, UpdateFeaturesRequest};

use crate::support::calls::{code, create_topic, text};
use crate::support::client::Client;
use crate::support::{Broker, Scratch};

const UPGRADE: i8 = 1;
const SAFE_DOWNGRADE: i8 = 2;
const UNSAFE_DOWNGRADE: i8 = 3;

fn request(updates: &[(&str, i16, i8)]) -> UpdateFeaturesRequest {
    let updates = updates.iter().map(|(name, level, kind)| FeatureUpdateKey {
        feature: text(name),
        max_version_level: *level,
        upgrade_type: *kind,
        ..Default::default()
    });
    UpdateFeaturesRequest {
        feature_updates: updates.collect(),
        ..Default::default()
    }
}

fn update(client: &mut Client, updates: &[(&str, i16, i8)]) -> (ErrorCode, String) {
    let response = client.call(&request(updates), 2);
    let message = response.error_message.map(|message| message.to_string());
    (code(response.error_code), message.unwrap_or_default())
}

/// The levels that hold, by name, and the offset at which they do.
fn levels(client: &mut Client) -> (BTreeMap<String, i16>, i64) {
    let request = ApiVersionsRequest {
        client_software_name: text("test"),
        client_software_version: text("1"),
        ..Default::default()
    };
    let response = client.call(&request, 4);
    let features = response.finalized_features.iter();
    let levels = features.map(|feature| (feature.name.to_string(), feature.max_version_level));
    (levels.collect(), response.finalized_features_epoch)
}

#[test]
fn levels_go_down_and_up_and_survive_a_kill() {
    let scratch = Scratch::new();
    let broker = Broker::start(scratch.join("data"));
    let mut client = Client::connect(broker.address());
    assert_eq!(levels(&mut client).0.get("group.version"), Some(&1));

    let validated = UpdateFeaturesRequest {
        validate_only: true,
        ..request(&[("group.version", 0, SAFE_DOWNGRADE)])
    };
    assert_eq!(code(client.call(&validated, 1).error_code), ErrorCode::None);
    assert_eq!(levels(&mut client).0.get("group.version"), Some(&1));

    let down = update(&mut client, &[("group.version", 0, SAFE_DOWNGRADE)]);
    assert_eq!(down, (ErrorCode::None, String::new()));
    let expected = BTreeMap::from([("metadata.version".to_owned(), 30)]);
    assert_eq!(levels(&mut client).0, expected);
    broker.kill();

    let broker = Broker::start(scratch.join("data"));
    let mut client = Client::connect(broker.address());
    assert_eq!(levels(&mut client).0, expected);
    // Of two levels for one feature the later holds.
    let twice = [
        ("group.version", 0, SAFE_DOWNGRADE),
        ("group.version", 1, UPGRADE),
    ];
    assert_eq!(update(&mut client, &twice).0, ErrorCode::None);
    assert_eq!(levels(&mut client).0.get("group.version"), Some(&1));
    create_topic(&mut client, "after", 1, &[]);
    broker.stop();
    let broker = Broker::start(scratch.join("data"));
    let mut client = Client::connect(broker.address());
    assert_eq!(levels(&mut client).0.get("group.version"), Some(&1));
}

/// What cannot be, and why.
fn refusals() -> Vec<((&'static str, i16, i8), String)> {
    let invalid = |level: i16, name: &str, why: &str| {
        format!("Invalid update version {level} for feature {name}. {why}")
    };
    let unknown = "Local controller 1 does not support this feature.";
    let negative = "A feature version cannot be less than 0.";
    let bounds = "Local controller 1 only supports versions 7-30";
    let way = "Can't downgrade the version of this feature without setting the upgrade type to \
               either safe or unsafe downgrade.";
    let (mv, gv) = ("metadata.version", "group.version");
    let forget = "Unsupported metadata.version downgrade from 30 to 29. ";
    vec![
        (("zork", 1, UPGRADE), invalid(1, "zork", unknown)),
        (("", 1, UPGRADE), invalid(1, "", unknown)),
        (
            ("zork", 0, SAFE_DOWNGRADE),
            invalid(0, "zork", "Feature zork not found."),
        ),
        ((mv, -1, UPGRADE), invalid(-1, mv, negative)),
        ((mv, 6, SAFE_DOWNGRADE), invalid(6, mv, bounds)),
        ((mv, 31, UPGRADE), invalid(31, mv, bounds)),
        ((mv, 29, UPGRADE), invalid(29, mv, way)),
        (
            (mv, 29, SAFE_DOWNGRADE),
            format!(
                "{forget}Refusing to perform the requested downgrade because it might delete \
                 metadata information."
            ),
        ),
        (
            (mv, 29, UNSAFE_DOWNGRADE),
            format!("{forget}Unsafe metadata downgrade is not supported in this version."),
        ),
        ((gv, 0, UPGRADE), invalid(0, gv, way)),
        (
            (gv, 1, 0),
            invalid(
                1,
                gv,
                "The controller does not support the given upgrade type.",
            ),
        ),
        (
            ("kraft.version", 1, SAFE_DOWNGRADE),
            invalid(
                1,
                "kraft.version",
                "Local controller 1 only supports versions 0-0",
            ),
        ),
    ]
}

#[test]
fn what_cannot_be_is_refused_as_a_whole_in_kafkas_words() {
    let scratch = Scratch::new();
    let broker = Broker::start(scratch.join("data"));
    let mut client = Client::connect(broker.address());
    let before = levels(&mut client);
    for (case, sentence) in refusals() {
        // The good one beside it is not done either.
        let both = [("group.version", 0, SAFE_DOWNGRADE), case];
        let asked = if case.0 == "group.version" {
            &both[1..]
        } else {
            &both[..]
        };
        let (error, told) = update(&mut client, asked);
        assert_eq!(error, ErrorCode::InvalidUpdateVersion, "{case:?}");
        let prefix =
            "The update failed for all features since the following feature had an error: ";
        assert_eq!(told, format!("{prefix}{sentence}"), "{case:?}");
    }
    assert_eq!(levels(&mut client), before, "a refusal changed something");
    // What is so already is agreed to.
    for same in [
        ("metadata.version", 30, UPGRADE),
        ("group.version", 1, SAFE_DOWNGRADE),
        ("kraft.version", 0, UPGRADE),
    ] {
        assert_eq!(update(&mut client, &[same]).0, ErrorCode::None, "{same:?}");
    }
    assert_eq!(update(&mut client, &[]).0, ErrorCode::None);
    let many = vec![("group.version", 0, SAFE_DOWNGRADE); 100_000];
    assert_eq!(update(&mut client, &many).0, ErrorCode::InvalidRequest);
    assert_eq!(levels(&mut client), before, "too many changed something");
    old_versions(&mut client);
}

/// Before version 1 an update says only whether the level may go down; before version 2 each feature
/// has a result, with the word that Kafka writes for none.
fn old_versions(client: &mut Client) {
    let mut request = request(&[("group.version", 0, UPGRADE)]);
    let refused = client.call(&request, 0);
    assert_eq!(code(refused.error_code), ErrorCode::InvalidUpdateVersion);
    assert!(refused.results.is_empty());
    request.feature_updates[0].allow_downgrade = true;
    let agreed = client.call(&request, 0);
    assert_eq!(code(agreed.error_code), ErrorCode::None);
    assert_eq!(agreed.results.len(), 1);
    assert_eq!(agreed.results[0].error_message.as_deref(), Some("NONE"));
}
