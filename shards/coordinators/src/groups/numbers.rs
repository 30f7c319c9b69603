//! Numbers of settings as text.
//!
//! Pure.

use std::collections::BTreeMap;

use chronik_protocol::{Str, configs};

/// Reads one number: as set, else Kafka's default.
pub(crate) fn number<T: std::str::FromStr>(set: &BTreeMap<Str, Str>, name: &str) -> Option<T> {
    let given = set.get(name).and_then(|value| value.trim().parse().ok());
    given.or_else(|| configs::broker(name)?.default?.parse().ok())
}
