//! Every configuration Kafka 4 knows for topics, brokers and groups, and a few of our own.
//!
//! Owns names, types, defaults and valid values (Kafka's `ConfigDef`), from `schema/configs.tsv`, and how far
//! each is supported: it works, it works after a restart, it has no meaning here, or a broker that is given it
//! does not start. Readers take a value by its key from [`keys`], which has all of them by type. Sentences of
//! refusal are Kafka's, which tools and people compare. Pure: it gives no configuration its effect.

mod broker_rules;
mod key;
mod text;

use std::fmt;

pub use broker_rules::{address_limits, check_broker};
pub use key::{Key, Typed};

/// What a configuration belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Scope {
    /// A topic.
    Topic,
    /// One broker, or all of them.
    Broker,
    /// A group.
    Group,
}

/// The type of a value (`ConfigDef.Type`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ConfigType {
    /// `true` or `false`, in any case.
    Boolean,
    /// Text.
    String,
    /// 32 bits.
    Int,
    /// 16 bits.
    Short,
    /// 64 bits.
    Long,
    /// A decimal number.
    Double,
    /// Texts with commas between them.
    List,
    /// The name of a Java class.
    Class,
    /// Text that is never shown.
    Password,
}

/// Which values of the type are allowed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Valid {
    /// All of them.
    Any,
    /// Numbers of at least `min` and, if given, at most `max`; also `or`.
    Range {
        /// Least value.
        min: i64,
        /// Greatest value.
        max: Option<i64>,
        /// A value outside that is allowed too.
        or: Option<i64>,
    },
    /// One of these texts.
    OneOf(&'static [&'static str]),
    /// One of these texts, in any case.
    OneOfAnyCase(&'static [&'static str]),
    /// Any text but the empty one.
    NonEmpty,
    /// `*`, or pairs of numbers such as `0:1`.
    ThrottledReplicas,
    /// `earliest`, `latest` or `by_duration:` and an ISO 8601 duration.
    OffsetReset,
}

/// When Kafka lets a configuration change (`DynamicBrokerConfig`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Update {
    /// A broker's, at its start.
    ReadOnly,
    /// A broker's, at run time; each has its own.
    PerBroker,
    /// A broker's, at run time, and only for one of its listeners.
    PerListener,
    /// A broker's, at run time, for one or for all of them.
    Cluster,
    /// A topic's or group's.
    RunTime,
}

/// How far this broker supports a configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Has its effect in Kafka at the time it has it in Kafka.
    Works,
    /// Has its effect from the next start on: a change at run time, which Kafka would take, is refused.
    Restart,
    /// Is kept and shown without effect, for this reason.
    Meaningless(&'static str),
    /// Would protect the cluster and is not implemented, for this reason: a broker that is given another value than
    /// the default does not start.
    Refused(&'static str),
}

/// One configuration.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ConfigDef {
    /// Kafka's name, for example `retention.ms`; units are part of it.
    pub name: &'static str,
    /// What the configuration belongs to.
    pub scope: Scope,
    /// The type of the value.
    pub kind: ConfigType,
    /// The value when none is given, as text; `None` is null.
    pub default: Option<&'static str>,
    /// The values allowed.
    pub valid: Valid,
    /// When Kafka lets the value change.
    pub update: Update,
    /// How far this broker supports it.
    pub state: State,
    /// The setting in half a sentence; empty where `state` has a reason.
    pub doc: &'static str,
    /// True when the README's table shows it.
    pub is_in_readme: bool,
}

/// A checked value.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// Of type boolean.
    Boolean(bool),
    /// Of type short, int or long.
    Number(i64),
    /// Of type double.
    Decimal(f64),
    /// Of type string, class or password.
    Text(String),
    /// Of type list.
    List(Vec<String>),
}

/// Why a text is not a value of a configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    /// The configuration.
    pub name: &'static str,
    /// The text, or `[hidden]`.
    pub value: String,
    /// Kafka's reason.
    pub reason: String,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ConfigError {
            name,
            value,
            reason,
        } = self;
        // The reason for a whole list names the configuration itself.
        if reason.starts_with("Configuration '") {
            return f.write_str(reason);
        }
        write!(
            f,
            "Invalid value {value} for configuration {name}: {reason}"
        )
    }
}

impl std::error::Error for ConfigError {}

/// The topic configuration called `name`.
pub fn topic(name: &str) -> Option<&'static ConfigDef> {
    find(Scope::Topic, name)
}

/// The broker configuration called `name`.
pub fn broker(name: &str) -> Option<&'static ConfigDef> {
    find(Scope::Broker, name)
}

/// The group configuration called `name`.
pub fn group(name: &str) -> Option<&'static ConfigDef> {
    find(Scope::Group, name)
}

/// The listener and the broker configuration in a name such as
/// `listener.name.internal.max.connections` (`DynamicBrokerConfig#ListenerConfigRegex`).
pub fn of_listener(name: &str) -> Option<(&str, &'static ConfigDef)> {
    let (listener, setting) = name.strip_prefix("listener.name.")?.split_once('.')?;
    Some((listener, broker(setting)?))
}

/// The configuration of `scope` called `name`.
pub fn find(scope: Scope, name: &str) -> Option<&'static ConfigDef> {
    let table = table(scope);
    let index = table
        .binary_search_by(|definition| definition.name.cmp(name))
        .ok()?;
    table.get(index)
}

/// Every configuration of `scope`, ascending by name.
pub fn all(scope: Scope) -> std::slice::Iter<'static, ConfigDef> {
    table(scope).iter()
}

fn table(scope: Scope) -> &'static [ConfigDef] {
    match scope {
        Scope::Topic => &TOPIC,
        Scope::Broker => &BROKER,
        Scope::Group => &GROUP,
    }
}

impl ConfigDef {
    /// True when a broker's value may change at run time, in Kafka and here.
    pub fn is_dynamic(&self) -> bool {
        let is_kept = matches!(self.state, State::Works | State::Meaningless(_));
        is_kept && matches!(self.update, Update::PerBroker | Update::Cluster)
    }

    /// The value as it is shown: parsed and written again (`ConfigDef.convertToString`). A text that is not a
    /// value stays as given.
    pub fn shown_value(&self, value: &str) -> String {
        match self.validate(value) {
            Ok(parsed) => text::of(&parsed),
            Err(_) => value.to_owned(),
        }
    }

    /// True when the text stands for another value than the default.
    pub fn is_changed_by(&self, value: &str) -> bool {
        match self.default {
            Some(default) => self.shown_value(value) != self.shown_value(default),
            None => !value.trim().is_empty(),
        }
    }

    /// Reads and checks a value. As in Kafka, space around the value does not count, and a repeated list entry
    /// counts once.
    ///
    /// # Errors
    /// [`ConfigError`] with Kafka's sentence. Stricter than Kafka in one point: a decimal that is NaN is refused.
    pub fn validate(&self, value: &str) -> Result<Value, ConfigError> {
        let value = value.trim();
        let parsed = self.parse(value)?;
        let checked = match &parsed {
            Value::Number(number) => self.check_range(*number, i64::cmp),
            Value::Decimal(decimal) => {
                self.check_range(*decimal, |a, bound| a.total_cmp(&(*bound as f64)))
            }
            Value::Text(text) => self.check_text(text),
            Value::List(entries) => self.check_list(entries),
            Value::Boolean(_) => Ok(()),
        };
        checked.map_err(|reason| self.error(&self.refused_value(value, &parsed), reason))?;
        Ok(parsed)
    }

    /// A value as Kafka's refusals show it: of a list the first bad entry, else the whole.
    fn refused_value(&self, value: &str, parsed: &Value) -> String {
        match parsed {
            Value::List(entries) => {
                let wrong = entries.iter().find(|entry| self.check_text(entry).is_err());
                wrong
                    .cloned()
                    .unwrap_or_else(|| format!("[{}]", entries.join(", ")))
            }
            Value::Decimal(decimal) => text::of_decimal(*decimal),
            _ => value.to_owned(),
        }
    }

    fn parse(&self, value: &str) -> Result<Value, ConfigError> {
        let whole = |min: i64, max: i64, name: &str| {
            let number = value
                .parse()
                .ok()
                .filter(|number| (min..=max).contains(number));
            number
                .map(Value::Number)
                .ok_or_else(|| format!("Not a number of type {name}"))
        };
        let parsed = match self.kind {
            ConfigType::Boolean if value.eq_ignore_ascii_case("true") => Ok(Value::Boolean(true)),
            ConfigType::Boolean if value.eq_ignore_ascii_case("false") => Ok(Value::Boolean(false)),
            ConfigType::Boolean => Err("Expected value to be either true or false".to_owned()),
            ConfigType::Short => whole(i16::MIN.into(), i16::MAX.into(), "SHORT"),
            ConfigType::Int => whole(i32::MIN.into(), i32::MAX.into(), "INT"),
            ConfigType::Long => whole(i64::MIN, i64::MAX, "LONG"),
            ConfigType::Double => {
                let reason = || "Not a number of type DOUBLE".to_owned();
                text::decimal(value).map(Value::Decimal).ok_or_else(reason)
            }
            ConfigType::List if value.is_empty() => Ok(Value::List(Vec::new())),
            ConfigType::List => {
                let mut entries: Vec<String> = Vec::new();
                let is_set = self.valid != Valid::ThrottledReplicas;
                for entry in value.split(',').map(str::trim) {
                    if !is_set || !entries.iter().any(|known| known == entry) {
                        entries.push(entry.to_owned());
                    }
                }
                Ok(Value::List(entries))
            }
            ConfigType::String | ConfigType::Class | ConfigType::Password => {
                Ok(Value::Text(value.to_owned()))
            }
        };
        parsed.map_err(|reason| self.error(value, reason))
    }

    fn error(&self, value: &str, reason: String) -> ConfigError {
        let value = match self.kind {
            ConfigType::Password => "[hidden]".to_owned(),
            _ => value.to_owned(),
        };
        ConfigError {
            name: self.name,
            value,
            reason,
        }
    }

    fn check_range<N>(
        &self,
        number: N,
        compare: impl Fn(&N, &i64) -> std::cmp::Ordering,
    ) -> Result<(), String> {
        let Valid::Range { min, max, or } = self.valid else {
            return Ok(());
        };
        let below = compare(&number, &min).is_lt();
        let above = max.is_some_and(|max| compare(&number, &max).is_gt());
        if (!below && !above) || or.is_some_and(|or| compare(&number, &or).is_eq()) {
            return Ok(());
        }
        Err(match (max, or) {
            (Some(max), Some(or)) => {
                format!("Value must be between {min} and {max} or equal to {or}")
            }
            (Some(max), None) if above => format!("Value must be no more than {max}"),
            _ => format!("Value must be at least {min}"),
        })
    }

    fn check_text(&self, text: &str) -> Result<(), String> {
        match self.valid {
            Valid::OneOf(names) if !names.contains(&text) => {
                Err(format!("String must be one of: {}", names.join(", ")))
            }
            Valid::OneOfAnyCase(names) if !names.iter().any(|n| n.eq_ignore_ascii_case(text)) => {
                Err(format!(
                    "String must be one of (case insensitive): {}",
                    names.join(", ")
                ))
            }
            Valid::NonEmpty if text.is_empty() => Err("String must be non-empty".to_owned()),
            Valid::OffsetReset if !is_offset_reset(text) => Err(
                "The value must be either 'earliest', 'latest' or of the format \
                 'by_duration:<PnDTnHnMn.nS>'."
                    .to_owned(),
            ),
            _ => Ok(()),
        }
    }

    fn check_list(&self, entries: &[String]) -> Result<(), String> {
        if entries.iter().any(String::is_empty) {
            return Err(format!(
                "Configuration '{}' values must not be empty.",
                self.name
            ));
        }
        match self.valid {
            Valid::NonEmpty if entries.is_empty() => {
                Err(format!("Configuration '{}' must not be empty.", self.name))
            }
            Valid::ThrottledReplicas if !are_throttled_replicas(entries) => Err(format!(
                "{} must be the literal '*' or a list of replicas in the following format: \
                 [partitionId]:[brokerId],[partitionId]:[brokerId],...",
                self.name
            )),
            _ => entries.iter().try_for_each(|entry| self.check_text(entry)),
        }
    }
}

fn are_throttled_replicas(entries: &[String]) -> bool {
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let pair = |entry: &String| {
        entry
            .split_once(':')
            .is_some_and(|(a, b)| digits(a) && digits(b))
    };
    entries == ["*"] || entries.iter().all(pair)
}

fn is_offset_reset(text: &str) -> bool {
    match text.strip_prefix("by_duration:") {
        Some(duration) => is_duration(duration),
        None => matches!(text, "earliest" | "latest"),
    }
}

/// True when the text is an ISO 8601 duration of days and smaller units, not negative
/// (`java.time.Duration#parse`).
fn is_duration(text: &str) -> bool {
    let text = text.to_ascii_uppercase();
    let Some(text) = text.strip_prefix('P') else {
        return false;
    };
    let (days, time) = match text.split_once('T') {
        Some((days, time)) => (days, Some(time)),
        None => (text, None),
    };
    let Some(days) = units(days, "D") else {
        return false;
    };
    let Some(smaller) = units(time.unwrap_or_default(), "HMS") else {
        return false;
    };
    // A "T" promises at least one unit after it.
    days + smaller > 0 && (time.is_none() || smaller > 0)
}

/// The number of amounts with units in the text, in the order of `letters`, each once at most.
fn units(text: &str, letters: &str) -> Option<usize> {
    let mut rest = text;
    let mut count = 0;
    for letter in letters.chars() {
        let Some((amount, tail)) = rest.split_once(letter) else {
            continue;
        };
        let (whole, fraction) = amount.split_once('.').unwrap_or((amount, "0"));
        let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
        let fits = whole.len() <= 12 && fraction.len() <= 9 && !whole.is_empty();
        if !fits || !digits(whole) || !digits(fraction) || (letter != 'S' && amount.contains('.')) {
            return None;
        }
        count += 1;
        rest = tail;
    }
    rest.is_empty().then_some(count)
}

include!(concat!(env!("OUT_DIR"), "/configs.rs"));

#[cfg(test)]
mod tests;
