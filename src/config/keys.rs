//! Reading one key at a time: type, range, and what to say when it does not fit.
//!
//! Runs on the main thread at start. Never knows where a value came from.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::ops::RangeInclusive;
use std::str::FromStr;

use chronik_protocol::configs;

use super::ConfigError;

/// Keys that Chronik adds to Kafka's and that only mean something at start: with their types and defaults.
pub(super) const AT_START: [(&str, &str, &str); 4] = [
    ("chronik.cluster.id", "string", "a new one"),
    ("chronik.shards", "int", "as the cores and listeners say"),
    ("chronik.shards.pinned", "boolean", "as the listeners say"),
    ("chronik.writebehind.bytes", "int", "67108864"),
];

/// Whether `key` is one of Chronik's that are read at start and by nobody else.
pub(super) fn is_read_at_start(key: &str) -> bool {
    AT_START.iter().any(|(name, ..)| *name == key)
}

/// Whether `key` is one of Chronik's own.
pub(super) fn is_own(key: &str) -> bool {
    is_read_at_start(key) || (key.starts_with("chronik.") && configs::broker(key).is_some())
}

/// Checked access to merged settings.
pub(super) struct Values<'a>(pub(super) &'a BTreeMap<String, String>);

impl Values<'_> {
    /// The text of `key`; an empty value counts as absent, as it does in Kafka for these keys.
    pub(super) fn text(&self, key: &str) -> Option<&str> {
        self.0
            .get(key)
            .map(String::as_str)
            .filter(|value| !value.is_empty())
    }

    /// A number within `range`, or `default` when the key is absent.
    pub(super) fn number<T>(
        &self,
        key: &str,
        range: RangeInclusive<T>,
        default: T,
    ) -> Result<T, ConfigError>
    where
        T: FromStr + PartialOrd + Display,
    {
        let Some(text) = self.text(key) else {
            return Ok(default);
        };
        let number = text
            .parse::<T>()
            .ok()
            .filter(|number| range.contains(number));
        number.ok_or_else(|| {
            let accepted = format!("a whole number from {} to {}", range.start(), range.end());
            ConfigError::invalid(key, text, accepted)
        })
    }

    /// `true` or `false` in any capitals, as Kafka reads them.
    pub(super) fn flag(&self, key: &str, default: bool) -> Result<bool, ConfigError> {
        let Some(text) = self.text(key) else {
            return Ok(default);
        };
        match text.to_ascii_lowercase().as_str() {
            "true" => Ok(true),
            "false" => Ok(false),
            _ => Err(ConfigError::invalid(key, text, "true or false")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with<T>(key: &str, value: &str, read: impl FnOnce(Values<'_>) -> T) -> T {
        read(Values(&BTreeMap::from([(
            key.to_owned(),
            value.to_owned(),
        )])))
    }

    #[test]
    fn numbers_keep_to_their_range_and_the_message_says_which() {
        assert_eq!(
            with("a", "7", |values| values.number("a", 1..=9, 3)).ok(),
            Some(7)
        );
        assert_eq!(
            with("a", "", |values| values.number("a", 1..=9, 3)).ok(),
            Some(3)
        );
        for bad in ["0", "10", "x", "1.5", "99999999999999999999"] {
            let error = with("a", bad, |values| values.number("a", 1..=9, 3)).expect_err("refused");
            let said = error.to_string();
            assert!(
                said.contains("a=") && said.contains(bad) && said.contains("1 to 9"),
                "{said}"
            );
        }
    }

    #[test]
    fn flags_are_true_or_false() {
        assert_eq!(
            with("a", "TRUE", |values| values.flag("a", false)).ok(),
            Some(true)
        );
        assert!(with("a", "yes", |values| values.flag("a", false)).is_err());
    }
}
