//! What Kafka refuses together among the settings of consumer groups (`GroupCoordinatorConfig`), and
//! assignors that are not there.
//!
//! Runs on the main thread at start. The coordinator reads the values from
//! [`super::Config::values`].

use super::ConfigError;
use super::keys::Values;

/// Server-side assignors, by Kafka's names.
const ASSIGNORS: [&str; 2] = ["uniform", "range"];
/// A setting that has bounds among the settings, and the defaults of itself, `min` and `max`.
const BOUNDED: [(&str, i32, i32, i32); 3] = [
    ("session.timeout.ms", 45_000, 45_000, 60_000),
    ("heartbeat.interval.ms", 5_000, 5_000, 15_000),
    ("assignment.interval.ms", 1_000, 0, 15_000),
];

/// Checks all of them.
pub(super) fn check(values: &Values<'_>) -> Result<(), ConfigError> {
    let mut effective = Vec::with_capacity(BOUNDED.len());
    for (name, own, min, max) in BOUNDED {
        let key = |side: &str| format!("group.consumer.{side}{name}");
        let read = |key: &str, default| values.number(key, 0..=i32::MAX, default);
        let (own_key, min_key, max_key) = (key(""), key("min."), key("max."));
        let (own, min, max) = (
            read(&own_key, own)?,
            read(&min_key, min)?,
            read(&max_key, max)?,
        );
        if max < min {
            let accepted = format!("at least {min_key}, which is {min}");
            return Err(ConfigError::invalid(&max_key, &max.to_string(), accepted));
        }
        if !(min..=max).contains(&own) {
            let accepted = format!("{min} ({min_key}) to {max} ({max_key})");
            return Err(ConfigError::invalid(&own_key, &own.to_string(), accepted));
        }
        effective.push(own);
    }
    if let [session_ms, heartbeat_ms, ..] = effective[..]
        && heartbeat_ms >= session_ms
    {
        return Err(ConfigError::invalid(
            "group.consumer.heartbeat.interval.ms",
            &heartbeat_ms.to_string(),
            format!("less than group.consumer.session.timeout.ms, which is {session_ms}"),
        ));
    }
    check_assignors(values)
}

fn check_assignors(values: &Values<'_>) -> Result<(), ConfigError> {
    let key = "group.consumer.assignors";
    let text = values.text(key).unwrap_or("uniform,range");
    let mut names = text.split(',').map(str::trim);
    if names.all(|name| ASSIGNORS.contains(&name)) {
        return Ok(());
    }
    let accepted = "uniform, range or both, the default one first";
    Err(ConfigError::invalid(key, text, accepted))
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
