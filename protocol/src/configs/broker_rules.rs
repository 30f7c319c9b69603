//! Kafka's rules for a broker's settings beyond the range of each: settings that need others, and texts with a
//! form of their own (`KafkaConfig`, `AbstractKafkaConfig`, `GroupCoordinatorConfig`).
//!
//! Applied at start and again when a setting changes at run time. Pure.

use super::keys::broker;

/// Bytes of `log.cleaner.dedupe.buffer.size` that one cleaner thread needs.
const DEDUPE_BYTES_PER_CLEANER: i64 = 1 << 20;
/// Settings with the least value each must have where it is given.
const LEAST: [(&str, i64); 2] = [
    (broker::LOG_ROLL_MS.name(), 1),
    (broker::LOG_ROLL_JITTER_MS.name(), 0),
];
/// The settings of retention time, the strongest first.
const RETENTION: [&str; 3] = [
    broker::LOG_RETENTION_MS.name(),
    broker::LOG_RETENTION_MINUTES.name(),
    broker::LOG_RETENTION_HOURS.name(),
];

/// The setting at fault, and Kafka's sentence.
type Refusal = (&'static str, String);

/// Checks a broker's settings together; `value` looks up a given one by name.
///
/// # Errors
/// The setting at fault and Kafka's sentence.
pub fn check_broker<'a>(value: impl Fn(&str) -> Option<&'a str>) -> Result<(), Refusal> {
    let number = |name: &str| {
        let given = value(name).map(str::trim).filter(|text| !text.is_empty());
        given.or(super::broker(name)?.default)?.parse::<i64>().ok()
    };
    for (name, least) in LEAST {
        if number(name).is_some_and(|given| given < least) {
            let said = "must be greater than or equal to";
            return Err((name, format!("requirement failed: {name} {said} {least}")));
        }
    }
    let kept = RETENTION
        .iter()
        .find_map(|name| Some((*name, number(name)?)));
    if let Some((name, 0)) = kept {
        let said = "requirement failed: log.retention.ms must be unlimited (-1) or, greater than or \
                    equal to 1";
        return Err((name, said.to_owned()));
    }
    let cleaners = number(broker::LOG_CLEANER_THREADS.name())
        .unwrap_or(1)
        .max(1);
    let dedupe = broker::LOG_CLEANER_DEDUPE_BUFFER_SIZE.name();
    if number(dedupe).is_some_and(|bytes| bytes / cleaners <= DEDUPE_BYTES_PER_CLEANER) {
        let said = format!("requirement failed: {dedupe} must be at least 1MB per cleaner thread.");
        return Err((dedupe, said));
    }
    check_connections(&value, number)?;
    let protocols = broker::GROUP_COORDINATOR_REBALANCE_PROTOCOLS.name();
    let has_classic = |set: &str| set.split(',').any(|name| name.trim() == "classic");
    if value(protocols).is_some_and(|set| !has_classic(set)) {
        let said = "Disabling the 'classic' protocol is not supported.";
        return Err((protocols, said.to_owned()));
    }
    let own = broker::GROUP_CONSUMER_ASSIGNMENT_INTERVAL_MS.name();
    let (max, min) = (
        broker::GROUP_CONSUMER_MAX_ASSIGNMENT_INTERVAL_MS.name(),
        broker::GROUP_CONSUMER_MIN_ASSIGNMENT_INTERVAL_MS.name(),
    );
    if number(own) > number(max) {
        return Err((own, format!("{own} must be less than or equal to {max}")));
    }
    if number(own) < number(min) {
        return Err((own, format!("{own} must be greater than or equal to {min}")));
    }
    Ok(())
}

fn check_connections<'a>(
    value: &impl Fn(&str) -> Option<&'a str>,
    number: impl Fn(&str) -> Option<i64>,
) -> Result<(), Refusal> {
    let key = broker::MAX_CONNECTIONS_PER_IP_OVERRIDES.name();
    let overrides = value(key).unwrap_or_default();
    if let Err(reason) = address_limits(overrides) {
        let said = format!("Error parsing configuration property '{key}': {reason}");
        return Err((key, said));
    }
    let each = broker::MAX_CONNECTIONS_PER_IP.name();
    if number(each) == Some(0) && overrides.trim().is_empty() {
        let said =
            format!("requirement failed: {each} can be set to zero only if {key} property is set.");
        return Err((each, said));
    }
    Ok(())
}

/// The entries of `max.connections.per.ip.overrides`: hosts or addresses, each with its greatest number of
/// connections; a negative number allows none. A host is not looked up here.
///
/// # Errors
/// A sentence that names the first malformed entry.
pub fn address_limits(text: &str) -> Result<Vec<(&str, usize)>, String> {
    let entries = text.split(',').map(str::trim);
    let limits = entries.filter(|entry| !entry.is_empty()).map(|entry| {
        let parts = entry.rsplit_once(':');
        let parsed = parts.and_then(|(host, limit)| {
            let limit = limit.trim().parse::<i32>().ok()?;
            Some((host.trim(), usize::try_from(limit).unwrap_or(0)))
        });
        let (host, limit) = parsed.filter(|(host, _)| !host.is_empty()).ok_or_else(|| {
            format!("{entry} is no ADDRESS:COUNT; several are separated by commas")
        })?;
        Ok((host.trim_start_matches('[').trim_end_matches(']'), limit))
    });
    limits.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(given: &[(&str, &'static str)]) -> Option<String> {
        let value = |name: &str| given.iter().find(|(key, _)| *key == name).map(|(_, v)| *v);
        check_broker(value).err().map(|(_, said)| said)
    }

    /// Sentences of Kafka 4.3.1.
    #[test]
    fn settings_are_held_against_each_other() {
        for fine in [
            &[][..],
            &[("log.retention.ms", "-2"), ("log.retention.hours", "0")],
            &[
                ("max.connections.per.ip", "0"),
                ("max.connections.per.ip.overrides", "a:1"),
            ],
        ] {
            assert_eq!(refusal(fine), None);
        }
        for (name, value, said) in [
            ("log.retention.ms", "0", "must be unlimited (-1) or"),
            ("log.retention.hours", "0", "must be unlimited (-1) or"),
            ("log.roll.ms", "0", "must be greater than or equal to 1"),
            (
                "log.roll.jitter.ms",
                "-1",
                "must be greater than or equal to 0",
            ),
            (
                "log.cleaner.dedupe.buffer.size",
                "5",
                "at least 1MB per cleaner thread.",
            ),
            ("max.connections.per.ip", "0", "can be set to zero only if"),
            (
                "max.connections.per.ip.overrides",
                "127.0.0.1",
                "ADDRESS:COUNT",
            ),
            (
                "max.connections.per.ip.overrides",
                "127.0.0.1:x",
                "ADDRESS:COUNT",
            ),
            (
                "group.consumer.assignment.interval.ms",
                "15001",
                "must be less than or equal to",
            ),
        ] {
            let refused = refusal(&[(name, value)]).unwrap_or_else(|| panic!("{name}={value}"));
            assert!(refused.contains(said), "{refused}");
        }
    }

    #[test]
    fn addresses_have_limits() {
        let limits = address_limits("127.0.0.1:5, [::1]:6,host.example:-1").expect("valid");
        assert_eq!(limits, [("127.0.0.1", 5), ("::1", 6), ("host.example", 0)]);
        assert!(address_limits("").expect("valid").is_empty());
    }
}
