//! Which settings topics and brokers may be given, beyond what each value must look like.
//!
//! Pure; runs on the designated shard. The sentences are Kafka's (`LogConfig#validate`,
//! `ConfigDef`, `DynamicBrokerConfig`).

use std::collections::{BTreeMap, BTreeSet};

use chronik_protocol::configs::keys::{broker, topic};
use chronik_protocol::configs::{self, ConfigType, Scope, Update};
use chronik_protocol::{ErrorCode, Str};

use super::change::ApiError;
use super::image::Image;

/// What each listener may have of its own, as `listener.name.NAME.SETTING`.
pub const OF_LISTENERS: [&str; 2] = [
    broker::MAX_CONNECTIONS.name(),
    broker::MAX_CONNECTION_CREATION_RATE.name(),
];
/// Numbers of threads: Kafka neither doubles nor halves them in one step.
const THREADS: [&str; 10] = [
    broker::BACKGROUND_THREADS.name(),
    broker::LOG_CLEANER_THREADS.name(),
    broker::NUM_IO_THREADS.name(),
    broker::NUM_NETWORK_THREADS.name(),
    broker::NUM_RECOVERY_THREADS_PER_DATA_DIR.name(),
    broker::NUM_REPLICA_FETCHERS.name(),
    broker::REMOTE_LOG_MANAGER_COPIER_THREAD_POOL_SIZE.name(),
    broker::REMOTE_LOG_MANAGER_EXPIRATION_THREAD_POOL_SIZE.name(),
    broker::REMOTE_LOG_MANAGER_FOLLOWER_THREAD_POOL_SIZE.name(),
    broker::REMOTE_LOG_READER_THREADS.name(),
];
const MIN_INSYNC: &str = topic::MIN_INSYNC_REPLICAS.name();

fn invalid_config(message: String) -> ApiError {
    ApiError::new(ErrorCode::InvalidConfig, message)
}

fn invalid_request(message: String) -> ApiError {
    ApiError::new(ErrorCode::InvalidRequest, message)
}

/// Checks all settings of one topic together.
///
/// # Errors
/// `INVALID_CONFIG` for an unknown name, a value out of its range, or values that contradict each
/// other.
pub(super) fn check_topic_configs(configs: &BTreeMap<Str, Str>) -> Result<(), ApiError> {
    for (name, value) in configs {
        let Some(definition) = configs::topic(name) else {
            return Err(invalid_config(format!("Unknown topic config name: {name}")));
        };
        definition
            .validate(value)
            .map_err(|error| invalid_config(error.to_string()))?;
    }
    check_lags(configs)?;
    if configs
        .get(topic::REMOTE_STORAGE_ENABLE.name())
        .is_some_and(|value| value.trim().eq_ignore_ascii_case("true"))
    {
        return Err(invalid_config(
            "Tiered Storage functionality is disabled in the broker. Topic cannot be configured \
             with remote log storage."
                .to_owned(),
        ));
    }
    Ok(())
}

/// A topic never compacts records before it may.
fn check_lags(configs: &BTreeMap<Str, Str>) -> Result<(), ApiError> {
    let least = topic::MIN_COMPACTION_LAG_MS.among(configs);
    let greatest = topic::MAX_COMPACTION_LAG_MS.among(configs);
    if least > greatest {
        return Err(invalid_config(format!(
            "conflict topic config setting min.compaction.lag.ms ({least}) > \
             max.compaction.lag.ms ({greatest})"
        )));
    }
    Ok(())
}

/// Whether a topic's setting is a list, so that values can be appended and subtracted.
pub(super) fn is_list(scope: Scope, name: &str) -> bool {
    configs::find(scope, name).is_some_and(|definition| definition.kind == ConfigType::List)
}

/// The definition behind a broker's setting, or behind that of one of its listeners.
fn definition(name: &str) -> Option<&'static configs::ConfigDef> {
    configs::broker(name).or_else(|| configs::of_listener(name).map(|(_, definition)| definition))
}

/// Whether a broker's setting can change at run time. Names that Kafka does not know are kept as they
/// are, for plug-ins; of listeners only what they can have.
pub fn is_dynamic(name: &str) -> bool {
    match (configs::broker(name), configs::of_listener(name)) {
        (Some(definition), _) => definition.is_dynamic(),
        (None, Some((_, definition))) => OF_LISTENERS.contains(&definition.name),
        (None, None) => !name.starts_with("listener.name."),
    }
}

/// A change of one broker's settings, or of those of all.
pub(super) struct BrokerChange<'a> {
    /// `None` for all brokers.
    pub(super) broker_id: Option<i32>,
    /// What the change sets or unsets.
    pub(super) touched: &'a BTreeSet<Str>,
    /// What is set afterwards.
    pub(super) next: &'a BTreeMap<Str, Str>,
}

impl BrokerChange<'_> {
    /// Only what is set by this change is held against the rules: what was set before may come from a
    /// Kafka that knew more.
    ///
    /// # Errors
    /// `INVALID_REQUEST` for settings that need a restart, that cannot be the same for all, and for
    /// values out of their range (`DynamicBrokerConfig#validate`).
    pub(super) fn check(&self, image: &Image) -> Result<(), ApiError> {
        let given = self.next.iter();
        let given: Vec<_> = given
            .filter(|(name, _)| self.touched.contains(*name))
            .collect();
        let named = |wanted: &dyn Fn(&str) -> bool| {
            let names = given.iter().map(|(name, _)| &***name);
            names
                .filter(|name| wanted(name))
                .collect::<Vec<&str>>()
                .join(", ")
        };
        let is_own = |name: &str| {
            configs::broker(name).is_some_and(|definition| definition.update == Update::PerBroker)
        };
        let of_all = self.broker_id.is_none();
        let fixed = named(&|name| !(is_dynamic(name) || (of_all && is_own(name))));
        if !fixed.is_empty() {
            let said = format!("Cannot update these configs dynamically: [{fixed}]");
            return Err(invalid_request(said));
        }
        let own = named(&is_own);
        if of_all && !own.is_empty() {
            return Err(invalid_request(format!(
                "Cannot update these configs at default cluster level, broker id must be specified: [{own}]"
            )));
        }
        for (name, value) in &given {
            let Some(definition) = definition(name) else {
                continue;
            };
            let checked = definition.validate(value);
            checked.map_err(|error| invalid_request(error.to_string()))?;
            self.check_threads(image, name, value)?;
        }
        if !given.is_empty() {
            self.check_together(image)?;
        }
        self.check_replicas(image)
    }

    /// What holds with this change.
    fn value<'a>(&'a self, image: &'a Image, name: &str) -> Option<&'a str> {
        let layers = &image.broker_configs;
        let default = || layers.dynamic_default.get(name);
        let set = match self.broker_id {
            Some(_) => self.next.get(name).or_else(default),
            None => self.next.get(name),
        };
        set.or_else(|| layers.static_broker.get(name))
            .map(|value| &**value)
    }

    fn check_together(&self, image: &Image) -> Result<(), ApiError> {
        let checked = configs::check_broker(|name| self.value(image, name));
        checked.map_err(|(_, said)| invalid_request(said))?;
        for name in self.touched {
            // A listener's own are held to the same, or nobody would ever come in again.
            let setting = definition(name).map(|definition| definition.name);
            let Some(setting) = setting.filter(|name| OF_LISTENERS.contains(name)) else {
                continue;
            };
            let is_none = |value: &Str| value.trim().parse() == Ok(0);
            if self.next.get(name).is_some_and(is_none) {
                return Err(invalid_request(unchanged(&format!("Invalid {setting} 0"))));
            }
        }
        Ok(())
    }

    fn check_threads(&self, image: &Image, name: &str, value: &str) -> Result<(), ApiError> {
        if !THREADS.contains(&name) {
            return Ok(());
        }
        let layers = &image.broker_configs;
        let current = layers.value(image.node_id, name);
        let current = current.or_else(|| configs::broker(name)?.default.map(Str::from));
        let number = |text: &str| text.trim().parse::<i64>().ok();
        let (Some(current), Some(asked)) = (current.and_then(|text| number(&text)), number(value))
        else {
            return Ok(());
        };
        let bound = match asked {
            _ if asked > current.saturating_mul(2) => "not be greater than double",
            _ if asked < current / 2 => "be at least half",
            _ => return Ok(()),
        };
        Err(invalid_request(unchanged(&format!(
            "Dynamic thread count update validation failed for {name}={asked}, value should {bound} \
             the current value {current}"
        ))))
    }

    /// `ConfigurationControlManager`: with eligible leader replicas there is one value for all.
    fn check_replicas(&self, image: &Image) -> Result<(), ApiError> {
        let level = image.features.get("eligible.leader.replicas.version");
        if !self.touched.contains(MIN_INSYNC) || level.is_none_or(|level| *level < 1) {
            return Ok(());
        }
        match (self.broker_id, self.next.get(MIN_INSYNC)) {
            (Some(_), _) => Err(invalid_config(format!(
                "Broker-level {MIN_INSYNC} cannot be altered while ELR is enabled."
            ))),
            (None, None) => Err(invalid_config(format!(
                "Cluster-level {MIN_INSYNC} cannot be removed while ELR is enabled."
            ))),
            _ => Ok(()),
        }
    }
}

/// As Kafka says that it could not reconfigure itself.
fn unchanged(reason: &str) -> String {
    format!(
        "Invalid value org.apache.kafka.common.config.ConfigException: {reason} for configuration \
         Invalid dynamic configuration"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As Kafka 4.3.1 answers DescribeConfigs of a broker and refuses to alter it, but for what works
    /// here from the next start on.
    #[test]
    fn what_changes_at_run_time() {
        for name in [
            "max.connections",
            "listener.name.x.max.connections",
            "log.retention.ms",
            "num.io.threads",
            "of.a.plug.in",
        ] {
            assert!(is_dynamic(name), "{name}");
        }
        for name in [
            "advertised.listeners",
            "listeners",
            "log.retention.hours",
            "ssl.client.auth",
            "listener.name.x.ssl.client.auth",
            "listener.name.x.no.such",
        ] {
            assert!(!is_dynamic(name), "{name}");
        }
    }

    /// As Kafka 4.3.1, asked with and without a value for all brokers.
    #[test]
    fn eligible_leader_replicas_want_one_value_for_all() {
        let mut image = Image::new(Str::from("cluster"), 1, BTreeMap::new());
        let touched = BTreeSet::from([Str::from(MIN_INSYNC)]);
        let none = BTreeMap::new();
        let one = BTreeMap::from([(Str::from(MIN_INSYNC), Str::from("1"))]);
        let odd = BTreeMap::from([(Str::from(MIN_INSYNC), Str::from("xx"))]);
        let check = |image: &Image, broker_id, next| {
            let touched = &touched;
            let change = BrokerChange {
                broker_id,
                touched,
                next,
            };
            change.check(image).map_err(|refusal| refusal.code)
        };
        assert_eq!(check(&image, None, &none), Ok(()));
        assert_eq!(check(&image, Some(1), &one), Ok(()));
        image
            .features
            .insert(Str::from("eligible.leader.replicas.version"), 1);
        assert_eq!(check(&image, None, &one), Ok(()));
        let refused = Err(ErrorCode::InvalidConfig);
        assert_eq!(check(&image, None, &none), refused, "removed");
        assert_eq!(check(&image, Some(1), &one), refused);
        assert_eq!(check(&image, Some(1), &none), refused);
        let out_of_range = Err(ErrorCode::InvalidRequest);
        assert_eq!(check(&image, Some(1), &odd), out_of_range, "values first");
    }
}
