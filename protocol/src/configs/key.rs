//! Typed keys of configurations: a reader names a key and gets a value of its type, never text.
//!
//! Owns the step from a checked [`Value`] to Rust's types. The keys, with their defaults, are generated from
//! `schema/configs.tsv` (`configs::keys`). Pure.

use std::collections::BTreeMap;

use super::{ConfigDef, Value};
use crate::Str;

/// A Rust type of configuration values.
pub trait Typed: Sized {
    /// The form of a default in the generated table.
    type Default: Copy + 'static;

    /// The default as a value.
    fn of_default(default: Self::Default) -> Self;

    /// The parsed value; `None` for another type or a number out of range.
    fn of_value(value: Value) -> Option<Self>;
}

/// A configuration with its type and default.
#[derive(Debug)]
pub struct Key<T: Typed> {
    definition: &'static ConfigDef,
    default: T::Default,
}

impl<T: Typed> Clone for Key<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T: Typed> Copy for Key<T> {}

impl<T: Typed> Key<T> {
    /// The key of a row of the table.
    pub(super) const fn new(definition: &'static ConfigDef, default: T::Default) -> Self {
        Self {
            definition,
            default,
        }
    }

    /// Kafka's name.
    pub const fn name(&self) -> &'static str {
        self.definition.name
    }

    /// The row of the table.
    pub const fn definition(&self) -> &'static ConfigDef {
        self.definition
    }

    /// The default.
    pub fn default(&self) -> T {
        T::of_default(self.default)
    }

    /// Parses a text; `None` for another type. The range was checked when the value was set.
    pub fn parse(&self, text: &str) -> Option<T> {
        T::of_value(self.definition.parse(text.trim()).ok()?)
    }

    /// The value of `given`, else the default. A malformed text, from a log that other software wrote, counts as not
    /// given.
    pub fn read(&self, given: Option<&str>) -> T {
        given
            .and_then(|text| self.parse(text))
            .unwrap_or_else(|| self.default())
    }

    /// The key's value among the settings given by name.
    pub fn among(&self, set: &BTreeMap<Str, Str>) -> T {
        self.read(set.get(self.name()).map(|text| &**text))
    }
}

macro_rules! numbers {
    ($($number:ty),*) => {$(
        impl Typed for $number {
            type Default = $number;

            fn of_default(default: $number) -> $number {
                default
            }

            fn of_value(value: Value) -> Option<$number> {
                match value {
                    Value::Number(number) => number.try_into().ok(),
                    _ => None,
                }
            }
        }
    )*};
}

numbers!(i16, i32, i64);

impl Typed for bool {
    type Default = bool;

    fn of_default(default: bool) -> bool {
        default
    }

    fn of_value(value: Value) -> Option<bool> {
        match value {
            Value::Boolean(flag) => Some(flag),
            _ => None,
        }
    }
}

impl Typed for f64 {
    type Default = f64;

    fn of_default(default: f64) -> f64 {
        default
    }

    fn of_value(value: Value) -> Option<f64> {
        match value {
            Value::Decimal(decimal) => Some(decimal),
            _ => None,
        }
    }
}

impl Typed for String {
    type Default = &'static str;

    fn of_default(default: &'static str) -> String {
        default.to_owned()
    }

    fn of_value(value: Value) -> Option<String> {
        match value {
            Value::Text(text) => Some(text),
            _ => None,
        }
    }
}

impl Typed for Vec<String> {
    type Default = &'static [&'static str];

    fn of_default(default: &'static [&'static str]) -> Vec<String> {
        default.iter().map(|entry| (*entry).to_owned()).collect()
    }

    fn of_value(value: Value) -> Option<Vec<String>> {
        match value {
            Value::List(entries) => Some(entries),
            _ => None,
        }
    }
}

/// The type of a configuration whose default is null.
impl<T: Typed> Typed for Option<T> {
    type Default = ();

    fn of_default((): ()) -> Option<T> {
        None
    }

    fn of_value(value: Value) -> Option<Option<T>> {
        T::of_value(value).map(Some)
    }
}

#[cfg(test)]
mod tests {
    use super::super::keys::{broker, topic};
    use super::*;

    #[test]
    fn values_have_their_types_and_defaults_are_the_tables() {
        assert!(broker::LOG_CLEANER_ENABLE.read(None));
        assert!(!broker::LOG_CLEANER_ENABLE.read(Some(" FALSE ")));
        assert_eq!(broker::LOG_CLEANER_BACKOFF_MS.read(Some("+7")), 7);
        assert_eq!(broker::LOG_CLEANER_BACKOFF_MS.read(Some("soon")), 15_000);
        assert_eq!(broker::LOG_RETENTION_MS.read(None), None);
        assert_eq!(broker::LOG_RETENTION_MS.read(Some("-1")), Some(-1));
        assert_eq!(topic::MIN_CLEANABLE_DIRTY_RATIO.read(None), 0.5);
        assert_eq!(topic::COMPRESSION_TYPE.read(None), "producer");
        let assignors = broker::GROUP_CONSUMER_ASSIGNORS.read(Some("range, uniform,range"));
        assert_eq!(assignors, ["range", "uniform"]);
        let set = BTreeMap::from([(Str::from("num.partitions"), Str::from("3"))]);
        assert_eq!(broker::NUM_PARTITIONS.among(&set), 3);
        assert_eq!(broker::NODE_ID.among(&set), None);
    }
}
