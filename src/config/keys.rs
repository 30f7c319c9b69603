//! Reading one key at a time: type, range, and what to say when it does not fit.
//!
//! Runs on the main thread at start. Never knows where a value came from, and no default: those are the keys'.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use chronik_protocol::configs::{ConfigDef, ConfigType, Key, Typed, Valid};

use super::ConfigError;

/// Checked access to merged settings.
pub(super) struct Values<'a>(pub(super) &'a BTreeMap<String, String>);

impl Values<'_> {
    /// The text of `key`; an empty value counts as absent, as it does in Kafka for these keys.
    pub(super) fn text<T: Typed>(&self, key: Key<T>) -> Option<&str> {
        self.given(key.definition())
    }

    fn given(&self, definition: &ConfigDef) -> Option<&str> {
        let text = self.0.get(definition.name).map(String::as_str);
        text.filter(|value| !value.is_empty())
    }

    /// A number, or the key's default.
    pub(super) fn number<T: Typed + TryFrom<i64>>(&self, key: Key<T>) -> Result<T, ConfigError> {
        self.bounded(key, i64::MIN..=i64::MAX)
    }

    /// A number that must also be within `range`, or the key's default.
    pub(super) fn bounded<T: Typed + TryFrom<i64>>(
        &self,
        key: Key<T>,
        range: RangeInclusive<i64>,
    ) -> Result<T, ConfigError> {
        let given = self.whole(key.definition(), range)?;
        Ok(given.unwrap_or_else(|| key.default()))
    }

    /// A number of a key that has no default.
    pub(super) fn number_if_set<T: Typed + TryFrom<i64>>(
        &self,
        key: Key<Option<T>>,
    ) -> Result<Option<T>, ConfigError> {
        self.whole(key.definition(), i64::MIN..=i64::MAX)
    }

    fn whole<T: TryFrom<i64>>(
        &self,
        definition: &ConfigDef,
        range: RangeInclusive<i64>,
    ) -> Result<Option<T>, ConfigError> {
        let Some(text) = self.given(definition) else {
            return Ok(None);
        };
        let (min, max, or) = accepted(definition, range);
        let number = text.trim().parse::<i64>().ok();
        let number = number.filter(|number| (min..=max).contains(number) || or == Some(*number));
        match number.and_then(|number| T::try_from(number).ok()) {
            Some(number) => Ok(Some(number)),
            None => {
                let or = or.map_or_else(String::new, |or| format!("{or}, or "));
                let accepted = format!("{or}a whole number from {min} to {max}");
                Err(ConfigError::invalid(definition.name, text, accepted))
            }
        }
    }

    /// `true` or `false` in any capitals, as Kafka reads them.
    pub(super) fn flag(&self, key: Key<bool>) -> Result<bool, ConfigError> {
        let Some(text) = self.text(key) else {
            return Ok(key.default());
        };
        let refused = || ConfigError::invalid(key.name(), text, "true or false");
        key.parse(text).ok_or_else(refused)
    }
}

/// The least and the greatest number of a setting, and one that is taken besides.
fn accepted(definition: &ConfigDef, range: RangeInclusive<i64>) -> (i64, i64, Option<i64>) {
    let of_type = match definition.kind {
        ConfigType::Short => i64::from(i16::MIN)..=i64::from(i16::MAX),
        ConfigType::Int => i64::from(i32::MIN)..=i64::from(i32::MAX),
        _ => i64::MIN..=i64::MAX,
    };
    let (min, max, or) = match definition.valid {
        Valid::Range { min, max, or } => (min, max.unwrap_or(i64::MAX), or),
        _ => (i64::MIN, i64::MAX, None),
    };
    let min = min.max(*range.start()).max(*of_type.start());
    let max = max.min(*range.end()).min(*of_type.end());
    (min, max, or)
}

#[cfg(test)]
mod tests {
    use chronik_protocol::configs::keys::broker;

    use super::*;

    fn with<T>(name: &str, value: &str, read: impl FnOnce(Values<'_>) -> T) -> T {
        read(Values(&BTreeMap::from([(
            name.to_owned(),
            value.to_owned(),
        )])))
    }

    #[test]
    fn numbers_keep_to_their_range_and_the_message_says_which() {
        let key = broker::NUM_PARTITIONS;
        let read = |value: &str| with(key.name(), value, |values| values.bounded(key, 0..=9));
        assert_eq!(read("7").ok(), Some(7));
        assert_eq!(read("").ok(), Some(1));
        for bad in ["0", "10", "x", "1.5", "99999999999999999999"] {
            let said = read(bad).expect_err("refused").to_string();
            assert!(
                said.contains("num.partitions=") && said.contains(bad) && said.contains("1 to 9"),
                "{said}"
            );
        }
        let ring = broker::CHRONIK_WRITEBEHIND_BYTES;
        let read = |value: &str| with(ring.name(), value, |values| values.number(ring));
        assert_eq!(read("0").ok(), Some(0));
        let said = read("5").expect_err("refused").to_string();
        assert!(
            said.contains("0, or a whole number from 1048576 to"),
            "{said}"
        );
    }

    #[test]
    fn flags_are_true_or_false() {
        let key = broker::LOG_CLEANER_ENABLE;
        let read = |value: &str| with(key.name(), value, |values| values.flag(key));
        assert_eq!(read("FALSE").ok(), Some(false));
        assert!(read("yes").is_err());
    }
}
