//! What becomes of each setting that is given: it works, it has no meaning here, or the start is refused.
//!
//! Runs on the main thread at start, and where settings change at run time. The states themselves stand
//! in `protocol/schema/configs.tsv`. Never reads a setting for its effect.

use std::collections::BTreeMap;

use chronik_catalog::{Image, OF_LISTENERS};
use chronik_protocol::configs::{self, ConfigDef, ConfigType, Scope, State};
use tracing::warn;

use super::ConfigError;

/// Refuses impossible values, and settings that would protect somebody and cannot; names the settings
/// that do nothing.
pub(super) fn check(merged: &BTreeMap<String, String>) -> Result<Vec<String>, ConfigError> {
    let mut warnings = Vec::new();
    let mut meaningless: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for (key, value) in merged {
        let Some(definition) = definition(key) else {
            warnings.push(format!(
                "{key} is not a setting of Kafka or Chronik and does nothing"
            ));
            continue;
        };
        if value.is_empty() {
            continue;
        }
        let shown = match definition.kind {
            ConfigType::Password => "[hidden]",
            _ => value,
        };
        let invalid = |reason: String| ConfigError::Invalid {
            key: key.clone(),
            value: shown.to_owned(),
            reason,
        };
        let checked = definition.validate(value);
        checked.map_err(|error| invalid(for_people(definition.kind, error.reason)))?;
        match definition.state {
            _ if !definition.is_changed_by(value) => {}
            State::Refused(reason) => {
                let said = format!("{reason}; without this setting the broker starts");
                return Err(invalid(said));
            }
            State::Meaningless(reason) => meaningless.entry(reason).or_default().push(key),
            State::Works | State::Restart if is_beside_a_listener(key) => {
                warnings.push(beside_a_listener(key));
            }
            State::Works | State::Restart => {}
        }
    }
    let given = |name: &str| merged.get(name).map(String::as_str);
    configs::check_broker(given).map_err(|(key, reason)| ConfigError::Invalid {
        key: key.to_owned(),
        value: given(key).unwrap_or_default().to_owned(),
        reason,
    })?;
    let groups = meaningless.into_iter();
    warnings.extend(groups.map(|(reason, keys)| no_meaning(&keys.join(", "), reason)));
    Ok(warnings)
}

/// A reason of Kafka's, which administrators' tools are given as it is, for who wrote a file of settings.
fn for_people(kind: ConfigType, reason: String) -> String {
    let whole = |min: i64, max: i64| format!("accepted: a whole number from {min} to {max}");
    match kind {
        _ if !reason.starts_with("Not a number") => reason,
        ConfigType::Short => whole(i16::MIN.into(), i16::MAX.into()),
        ConfigType::Int => whole(i32::MIN.into(), i32::MAX.into()),
        ConfigType::Long => whole(i64::MIN, i64::MAX),
        _ => "accepted: a number".to_owned(),
    }
}

/// The definition of a broker's setting, or of one of its listeners'.
fn definition(key: &str) -> Option<&'static ConfigDef> {
    configs::broker(key).or_else(|| configs::of_listener(key).map(|(_, definition)| definition))
}

fn no_meaning(keys: &str, reason: &str) -> String {
    format!("no meaning here: {keys} ({reason})")
}

/// Whether a key names something of a listener that no listener has.
fn is_beside_a_listener(key: &str) -> bool {
    let setting = configs::of_listener(key).map(|(_, definition)| definition.name);
    setting.is_some_and(|setting| !OF_LISTENERS.contains(&setting))
}

fn beside_a_listener(key: &str) -> String {
    let known = OF_LISTENERS.join(", ");
    format!("{key} does nothing: of its own a listener has {known}")
}

/// What is to be said of a setting that was made at run time; nothing where it works.
pub(crate) fn note(scope: Scope, name: &str, value: &str) -> Option<String> {
    let known = match scope {
        Scope::Broker => definition(name),
        _ => configs::find(scope, name),
    };
    let Some(known) = known else {
        return Some(format!(
            "{name} is not a setting of Kafka or Chronik and does nothing"
        ));
    };
    match known.state {
        _ if !known.is_changed_by(value) => None,
        State::Meaningless(reason) => Some(no_meaning(name, reason)),
        State::Refused(reason) => Some(format!("{name} is not in effect: {reason}")),
        State::Restart => Some(format!(
            "{name} is taken from the broker's own settings only"
        )),
        State::Works if is_beside_a_listener(name) => Some(beside_a_listener(name)),
        State::Works => None,
    }
}

/// Tells of settings that somebody has made at run time, a Kafka perhaps, and that are not in effect.
pub(crate) fn tell_of_run_time(image: &Image) {
    let layers = &image.broker_configs;
    let made = layers.dynamic_default.iter();
    for (name, value) in made.chain(layers.dynamic_broker(image.node_id)) {
        if let Some(note) = note(Scope::Broker, name, value) {
            warn!("set at run time: {note}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checked(pairs: &[(&str, &str)]) -> Result<Vec<String>, String> {
        let text = |(key, value): &(&str, &str)| ((*key).to_owned(), (*value).to_owned());
        check(&pairs.iter().map(text).collect()).map_err(|error| error.to_string())
    }

    /// Each row: its default says nothing, another value does what the state says.
    #[test]
    fn every_setting_does_what_its_state_says() {
        for definition in configs::all(Scope::Broker) {
            let name = definition.name;
            if let Some(default) = definition.default {
                assert_eq!(checked(&[(name, default)]), Ok(vec![]), "{name}");
            }
            let Some(other) = other_value(definition) else {
                continue;
            };
            let said = checked(&[(name, &other)]);
            match definition.state {
                State::Works | State::Restart => assert_eq!(said, Ok(vec![]), "{name}={other}"),
                State::Meaningless(reason) => {
                    assert_eq!(said, Ok(vec![no_meaning(name, reason)]));
                }
                State::Refused(reason) => {
                    let refusal = said.expect_err(name);
                    assert!(
                        refusal.contains(name) && refusal.contains(reason),
                        "{refusal}"
                    );
                    let hidden = definition.kind == ConfigType::Password;
                    assert_eq!(refusal.contains(&other), !hidden, "{refusal}");
                }
            }
        }
    }

    /// A valid value that is not the default.
    fn other_value(definition: &ConfigDef) -> Option<String> {
        let candidates = [
            "true",
            "false",
            "7",
            "6001",
            "46000",
            "2097152",
            "8388608",
            "2100",
            "31000",
            "0.5",
            "0.25",
            "15",
            "150",
            "3",
            "requested",
            "SSL",
            "LogAppendTime",
            "compact",
            "gzip",
            "classic",
            "ES256",
            "UPGRADE",
            "process",
            "latest",
            "127.0.0.1:7",
            "org.example.Other",
            "broker",
        ];
        candidates
            .into_iter()
            .find(|value| {
                let fits = definition.validate(value).is_ok() && definition.is_changed_by(value);
                let given = |name: &str| (name == definition.name).then_some(*value);
                fits && configs::check_broker(given).is_ok()
            })
            .map(str::to_owned)
    }

    #[test]
    fn every_setting_has_another_value() {
        for definition in configs::all(Scope::Broker) {
            assert!(other_value(definition).is_some(), "{definition:?}");
        }
    }

    #[test]
    fn what_is_no_number_is_told_in_words() {
        for (value, accepted) in [("many", "a whole number"), ("99999999999", "2147483647")] {
            let said = checked(&[("num.partitions", value)]).expect_err("refused");
            assert!(said.contains(&format!("num.partitions={value}")), "{said}");
            assert!(
                said.contains(accepted) && !said.contains("type INT"),
                "{said}"
            );
        }
    }

    #[test]
    fn what_a_listener_cannot_have_is_told() {
        let fine = ("listener.name.plaintext.max.connections", "5");
        assert_eq!(checked(&[fine]), Ok(vec![]));
        let odd = ("listener.name.plaintext.num.partitions", "5");
        assert_eq!(checked(&[odd]).expect("a warning").len(), 1);
        assert!(checked(&[("listener.name.x.ssl.keystore.location", "/x")]).is_err());
        assert!(checked(&[("log.retention.hours", "0")]).is_err());
    }

    #[test]
    fn settings_of_one_reason_share_a_line() {
        let said = checked(&[("num.io.threads", "3"), ("background.threads", "3")]);
        let said = said.expect("a warning");
        assert_eq!(said.len(), 1);
        assert!(
            said[0].contains("background.threads, num.io.threads"),
            "{said:?}"
        );
    }
}
