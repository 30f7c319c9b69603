//! What Kafka refuses together among the settings of consumer groups (`GroupCoordinatorConfig`), and
//! assignors that are not there.
//!
//! Runs on the main thread at start. The coordinator reads the values from
//! [`super::Config::values`].

use chronik_protocol::configs::Key;
use chronik_protocol::configs::keys::broker;

use super::ConfigError;
use super::keys::Values;

/// Server-side assignors, by Kafka's names.
const ASSIGNORS: [&str; 2] = ["uniform", "range"];
/// Settings that have bounds among the settings: each with its `min` and its `max`.
const BOUNDED: [[Key<i32>; 3]; 3] = [
    [
        broker::GROUP_CONSUMER_SESSION_TIMEOUT_MS,
        broker::GROUP_CONSUMER_MIN_SESSION_TIMEOUT_MS,
        broker::GROUP_CONSUMER_MAX_SESSION_TIMEOUT_MS,
    ],
    [
        broker::GROUP_CONSUMER_HEARTBEAT_INTERVAL_MS,
        broker::GROUP_CONSUMER_MIN_HEARTBEAT_INTERVAL_MS,
        broker::GROUP_CONSUMER_MAX_HEARTBEAT_INTERVAL_MS,
    ],
    [
        broker::GROUP_CONSUMER_ASSIGNMENT_INTERVAL_MS,
        broker::GROUP_CONSUMER_MIN_ASSIGNMENT_INTERVAL_MS,
        broker::GROUP_CONSUMER_MAX_ASSIGNMENT_INTERVAL_MS,
    ],
];

/// Checks all of them.
pub(super) fn check(values: &Values<'_>) -> Result<(), ConfigError> {
    let mut effective = Vec::with_capacity(BOUNDED.len());
    for [own_key, min_key, max_key] in BOUNDED {
        let read = |key: Key<i32>| values.bounded(key, 0..=i64::MAX);
        let (own, min, max) = (read(own_key)?, read(min_key)?, read(max_key)?);
        let (own_key, min_key, max_key) = (own_key.name(), min_key.name(), max_key.name());
        if max < min {
            let accepted = format!("at least {min_key}, which is {min}");
            return Err(ConfigError::invalid(max_key, &max.to_string(), accepted));
        }
        if !(min..=max).contains(&own) {
            let accepted = format!("{min} ({min_key}) to {max} ({max_key})");
            return Err(ConfigError::invalid(own_key, &own.to_string(), accepted));
        }
        effective.push(own);
    }
    if let [session_ms, heartbeat_ms, ..] = effective[..]
        && heartbeat_ms >= session_ms
    {
        return Err(ConfigError::invalid(
            broker::GROUP_CONSUMER_HEARTBEAT_INTERVAL_MS.name(),
            &heartbeat_ms.to_string(),
            format!("less than group.consumer.session.timeout.ms, which is {session_ms}"),
        ));
    }
    check_assignors(values)
}

fn check_assignors(values: &Values<'_>) -> Result<(), ConfigError> {
    let key = broker::GROUP_CONSUMER_ASSIGNORS;
    let text = values.text(key);
    let names = key.read(text);
    if names.iter().all(|name| ASSIGNORS.contains(&&**name)) {
        return Ok(());
    }
    let accepted = "uniform, range or both, the default one first";
    let text = text.unwrap_or_default();
    Err(ConfigError::invalid(key.name(), text, accepted))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn refusal(pairs: &[(&str, &str)]) -> Option<String> {
        let text = |(key, value): &(&str, &str)| ((*key).to_owned(), (*value).to_owned());
        let values: BTreeMap<String, String> = pairs.iter().map(text).collect();
        check(&Values(&values)).err().map(|error| error.to_string())
    }

    #[test]
    fn settings_that_contradict_each_other_are_refused() {
        assert_eq!(refusal(&[]), None);
        assert_eq!(refusal(&[("group.consumer.assignors", "range")]), None);
        for (key, value) in [
            ("group.consumer.session.timeout.ms", "44999"),
            ("group.consumer.heartbeat.interval.ms", "15001"),
            ("group.consumer.max.assignment.interval.ms", "999"),
            ("group.consumer.assignors", "uniform,org.example.Mine"),
        ] {
            let said = refusal(&[(key, value)]).expect("refused");
            assert!(said.contains(value), "{said}");
        }
        let close = [
            ("group.consumer.min.session.timeout.ms", "1"),
            ("group.consumer.session.timeout.ms", "5000"),
        ];
        let said = refusal(&close).expect("refused");
        assert!(said.contains("heartbeat.interval.ms"), "{said}");
    }
}
