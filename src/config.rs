//! The broker's settings: Kafka's names and defaults, checked once, before anything starts.
//!
//! Runs on the main thread at start. Later code sees only [`Config`], never text; what a topic
//! inherits (`log.*`) stays text in [`Config::values`] and is parsed by the catalogue.

mod consumer_groups;
mod groups;
mod keys;
mod layers;
mod listeners;
pub(crate) mod pages;
pub(crate) mod states;

use std::collections::BTreeMap;
use std::fmt;
use std::num::NonZeroUsize;
use std::ops::RangeInclusive;
use std::path::PathBuf;

use chronik_protocol::Uuid;
use chronik_protocol::configs::keys::broker;

pub use groups::OffsetsTopic;
pub use layers::Layer;
pub use listeners::Listener;

use keys::Values;

/// Where neither the settings nor the data directory name a node.
const NODE_ID_OF_NEW: i32 = 1;
/// Bytes of unanswered requests and unread replies a shard holds where
/// `queued.max.request.bytes` is no number above 0: Kafka has no bound there, Chronik always has one.
const QUEUED_BYTES_PER_SHARD: usize = 128 << 20;
/// Slots and partitions that a setting may name, far above what is of use.
const SLOTS: RangeInclusive<i64> = 0..=1_000_000;
/// Longest `connections.max.idle.ms`, ms: a hundred years, so that sums cannot overflow.
const IDLE_MS_MAX: i64 = 100 * 365 * 86_400_000;

/// Why the broker does not start with these settings.
#[derive(Debug, PartialEq, Eq)]
pub enum ConfigError {
    /// A value that cannot be.
    Invalid {
        /// The key, by Kafka's name.
        key: String,
        /// What was given.
        value: String,
        /// What would have been accepted, or what is wrong with it.
        reason: String,
    },
    /// The file of settings cannot be read.
    Unreadable {
        /// The file.
        path: String,
        /// What the system or the parser says.
        reason: String,
    },
}

impl ConfigError {
    pub(crate) fn invalid(key: &str, value: &str, accepted: impl Into<String>) -> Self {
        let reason = format!("accepted: {}", accepted.into());
        Self::Invalid {
            key: key.to_owned(),
            value: value.to_owned(),
            reason,
        }
    }

    /// With the place where the value comes from, if one of these layers has set it.
    fn told_from(mut self, layers: &[Layer]) -> Self {
        if let Self::Invalid { key, reason, .. } = &mut self {
            let setter = layers.iter().rev().find(|layer| layer.sets(key));
            if let Some(layer) = setter {
                reason.push_str(&format!(" (from {})", layer.origin()));
            }
        }
        self
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Invalid { key, value, reason } => {
                write!(f, "{key}={value} cannot be used; {reason}")
            }
            Self::Unreadable { path, reason } => {
                write!(f, "the settings in {path} cannot be read: {reason}")
            }
        }
    }
}

impl std::error::Error for ConfigError {}

/// Checked settings.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where to listen and what to tell clients; at least one.
    pub listeners: Vec<Listener>,
    /// The first data directory, as an absolute path.
    pub data_dir: PathBuf,
    /// The other ones, where `log.dirs` names several.
    pub more_data_dirs: Vec<PathBuf>,
    /// This broker's id (`node.id`, else `broker.id`, else that of the data directory, else 1).
    pub node_id: i32,
    is_node_id_set: bool,
    /// Rack, told to clients.
    pub rack: Option<String>,
    /// Cluster id for a new data directory; `None` takes a random one.
    pub cluster_id: Option<Uuid>,
    /// Executors; `None` means as many as suit the cores and the listeners.
    pub shards: Option<NonZeroUsize>,
    /// Whether each keeps to a core of its own; `None` means what suits the listeners.
    pub pinned: Option<bool>,
    /// Bytes of each shard's write-behind ring; 0 for none.
    pub write_behind_bytes: usize,
    /// Whether Metadata and Produce may create topics.
    pub auto_create_topics: bool,
    /// Whether DeleteTopics is allowed.
    pub delete_topic_enable: bool,
    /// Longest request frame, bytes (`socket.request.max.bytes`).
    pub request_bytes_max: usize,
    /// Request and reply bytes in flight on one shard.
    pub queued_bytes_max: usize,
    /// Idle time after which a connection is closed, ms; `None` never.
    pub connections_idle_ms_max: Option<u64>,
    /// Most bytes of one fetch reply (`fetch.max.bytes`).
    pub fetch_bytes_max: usize,
    /// Incremental fetch sessions kept, over all shards (`max.incremental.fetch.session.cache.slots`).
    pub fetch_sessions_max: usize,
    /// Most partitions in one DescribeTopicPartitions reply (`max.request.partition.size.limit`).
    pub described_partitions_max: usize,
    /// Whether groups of the new protocol are coordinated (`group.coordinator.rebalance.protocols`).
    pub serves_consumer_groups: bool,
    /// How the topic of the group coordinator is created.
    pub offsets_topic: OffsetsTopic,
    /// Every key that was set, as text, under the name it is effective by.
    pub values: BTreeMap<String, String>,
    /// Sentences for the log: settings that do nothing, addresses that may not be reachable.
    pub warnings: Vec<String>,
}

impl Config {
    /// Merges `layers`, the last on top, and checks every value.
    ///
    /// # Errors
    /// The first value that cannot be: its key, the value, and what would be accepted.
    pub fn from_layers(layers: &[Layer]) -> Result<Self, ConfigError> {
        Self::merged(layers).map_err(|error| error.told_from(layers))
    }

    fn merged(layers: &[Layer]) -> Result<Self, ConfigError> {
        let merged = layers::merge(layers)?;
        let values = Values(&merged);
        let (listeners, mut warnings) = listeners::resolve(&listeners::ListenerKeys {
            listeners: values
                .text(broker::LISTENERS)
                .unwrap_or(listeners::DEFAULT_LISTENERS),
            advertised: values.text(broker::ADVERTISED_LISTENERS),
            security_protocols: values.text(broker::LISTENER_SECURITY_PROTOCOL_MAP),
            controller_names: values.text(broker::CONTROLLER_LISTENER_NAMES),
        })?;
        let shards = values.number_if_set(broker::CHRONIK_SHARDS)?;
        let sizes = Sizes::read(&values)?;
        let (data_dirs, node_id) = (data_dirs(&values)?, node_id(&values)?);
        check_metadata_dir(&values, &data_dirs.0)?;
        let config = Self {
            listeners,
            node_id: node_id.unwrap_or(NODE_ID_OF_NEW),
            is_node_id_set: node_id.is_some(),
            rack: values.text(broker::BROKER_RACK).map(str::to_owned),
            cluster_id: cluster_id(&values)?,
            shards: shards.and_then(|count| NonZeroUsize::new(size(count))),
            pinned: pinned(&values)?,
            write_behind_bytes: sizes.write_behind,
            auto_create_topics: values.flag(broker::AUTO_CREATE_TOPICS_ENABLE)?,
            delete_topic_enable: values.flag(broker::DELETE_TOPIC_ENABLE)?,
            request_bytes_max: sizes.request,
            queued_bytes_max: sizes.queued,
            connections_idle_ms_max: idle_ms_max(&values)?,
            fetch_bytes_max: sizes.fetch,
            fetch_sessions_max: size(
                values.bounded(broker::MAX_INCREMENTAL_FETCH_SESSION_CACHE_SLOTS, SLOTS)?,
            ),
            described_partitions_max: size(
                values.bounded(broker::MAX_REQUEST_PARTITION_SIZE_LIMIT, SLOTS)?,
            ),
            serves_consumer_groups: serves_consumer_groups(&values),
            offsets_topic: OffsetsTopic::read(&values)?,
            values: told(&merged, node_id.unwrap_or(NODE_ID_OF_NEW), &data_dirs),
            data_dir: data_dirs.0,
            more_data_dirs: data_dirs.1,
            warnings: Vec::new(),
        };
        // The rules of Kafka for the rest come last: what is read above knows better what to say.
        warnings.extend(states::check(&merged)?);
        Ok(Self { warnings, ..config })
    }

    /// The same for a data directory that may belong to a node already: its id holds where none was
    /// set. Whether it is sound, a start judges.
    #[must_use]
    pub fn of_directory(mut self) -> Self {
        let found = chronik_shards::node_id_of(&self.data_dir);
        if let Some(node_id) = found.filter(|_| !self.is_node_id_set) {
            self.node_id = node_id;
            let told = self.values.entry(broker::NODE_ID.name().to_owned());
            told.insert_entry(node_id.to_string());
        }
        self
    }
}

/// What was set, and what follows from it whether it was set or not.
fn told(
    merged: &BTreeMap<String, String>,
    node_id: i32,
    (first, others): &(PathBuf, Vec<PathBuf>),
) -> BTreeMap<String, String> {
    let mut told = merged.clone();
    told.insert(broker::NODE_ID.name().to_owned(), node_id.to_string());
    let dirs = [first].into_iter().chain(others);
    let dirs: Vec<String> = dirs.map(|dir| dir.display().to_string()).collect();
    told.insert(broker::LOG_DIRS.name().to_owned(), dirs.join(","));
    let listeners = told.entry(broker::LISTENERS.name().to_owned());
    listeners.or_insert_with(|| listeners::DEFAULT_LISTENERS.to_owned());
    told
}

struct Sizes {
    request: usize,
    queued: usize,
    fetch: usize,
    write_behind: usize,
}

impl Sizes {
    fn read(values: &Values<'_>) -> Result<Self, ConfigError> {
        let queued = match values.bounded(broker::QUEUED_MAX_REQUEST_BYTES, -1..=i64::MAX)? {
            limit if limit > 0 => usize::try_from(limit).unwrap_or(usize::MAX),
            _ => QUEUED_BYTES_PER_SHARD,
        };
        Ok(Self {
            request: size(values.number(broker::SOCKET_REQUEST_MAX_BYTES)?),
            queued,
            fetch: size(values.number(broker::FETCH_MAX_BYTES)?),
            write_behind: size(values.number(broker::CHRONIK_WRITEBEHIND_BYTES)?),
        })
    }
}

/// A number that is not negative, as its range says.
fn size(number: i32) -> usize {
    usize::try_from(number).unwrap_or(0)
}

fn serves_consumer_groups(values: &Values<'_>) -> bool {
    let key = broker::GROUP_COORDINATOR_REBALANCE_PROTOCOLS;
    let protocols = key.read(values.text(key));
    protocols.iter().any(|name| name == "consumer")
}

fn pinned(values: &Values<'_>) -> Result<Option<bool>, ConfigError> {
    let key = broker::CHRONIK_SHARDS_PINNED;
    let Some(text) = values.text(key) else {
        return Ok(None);
    };
    let pinned = key.parse(text);
    pinned.ok_or_else(|| ConfigError::invalid(key.name(), text, "true or false"))
}

/// The first, and the others.
fn data_dirs(values: &Values<'_>) -> Result<(PathBuf, Vec<PathBuf>), ConfigError> {
    let one = values
        .text(broker::LOG_DIR)
        .or(broker::LOG_DIR.definition().default);
    let (key, text) = match values.text(broker::LOG_DIRS) {
        Some(several) => (broker::LOG_DIRS.name(), several),
        None => (broker::LOG_DIR.name(), one.unwrap_or_default()),
    };
    let mut dirs: Vec<PathBuf> = Vec::new();
    for dir in text.split(',').map(str::trim).filter(|dir| !dir.is_empty()) {
        let dir = std::path::absolute(dir)
            .map_err(|error| ConfigError::invalid(key, dir, format!("a directory ({error})")))?;
        if dirs.contains(&dir) {
            return Err(ConfigError::invalid(key, text, "each directory once"));
        }
        dirs.push(dir);
    }
    if dirs.is_empty() {
        return Err(ConfigError::invalid(key, text, "at least one directory"));
    }
    let others = dirs.split_off(1);
    match dirs.pop() {
        Some(first) => Ok((first, others)),
        None => Err(ConfigError::invalid(key, text, "at least one directory")),
    }
}

/// The metadata log is in the first directory; one that is elsewhere would be overlooked.
fn check_metadata_dir(values: &Values<'_>, first: &std::path::Path) -> Result<(), ConfigError> {
    let key = broker::METADATA_LOG_DIR;
    let Some(text) = values.text(key) else {
        return Ok(());
    };
    if std::path::absolute(text).is_ok_and(|dir| dir == first) {
        return Ok(());
    }
    let accepted = format!("the first of log.dirs, which is {}", first.display());
    Err(ConfigError::invalid(key.name(), text, accepted))
}

fn node_id(values: &Values<'_>) -> Result<Option<i32>, ConfigError> {
    let (new, old) = (broker::NODE_ID, broker::BROKER_ID);
    let node = values.number_if_set(new)?;
    let broker = match values.text(old) {
        None | Some("-1") => None,
        Some(_) => Some(values.bounded(old, 0..=i64::MAX)?),
    };
    match (node, broker) {
        (Some(node), Some(broker)) if node != broker => Err(ConfigError::invalid(
            old.name(),
            &broker.to_string(),
            format!("the value of {}, {node}", new.name()),
        )),
        (node, broker) => Ok(node.or(broker)),
    }
}

fn cluster_id(values: &Values<'_>) -> Result<Option<Uuid>, ConfigError> {
    let key = broker::CHRONIK_CLUSTER_ID;
    let Some(text) = values.text(key) else {
        return Ok(None);
    };
    text.parse().map(Some).map_err(|_| {
        ConfigError::invalid(
            key.name(),
            text,
            "16 bytes in URL-safe base64, 22 characters",
        )
    })
}

fn idle_ms_max(values: &Values<'_>) -> Result<Option<u64>, ConfigError> {
    let idle = values.bounded(broker::CONNECTIONS_MAX_IDLE_MS, -1..=IDLE_MS_MAX)?;
    Ok(u64::try_from(idle).ok().filter(|idle| *idle > 0))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(values: &[(&str, &str)]) -> Result<Config, ConfigError> {
        let mut layer = Layer::named("test");
        values
            .iter()
            .for_each(|(key, value)| layer.set(*key, *value));
        Config::from_layers(&[layer])
    }

    #[test]
    fn nothing_said_is_kafkas_default_on_loopback() {
        let config = config(&[]).expect("valid");
        assert_eq!(
            config.listeners[0].bind,
            "127.0.0.1:9092"
                .parse::<std::net::SocketAddr>()
                .expect("an address")
        );
        assert!(config.data_dir.is_absolute() && config.data_dir.ends_with("data"));
        assert_eq!(
            (config.node_id, config.shards, config.cluster_id),
            (1, None, None)
        );
        assert!(config.auto_create_topics && config.delete_topic_enable);
        assert_eq!(config.request_bytes_max, 104_857_600);
        assert_eq!(config.connections_idle_ms_max, Some(600_000));
        assert_eq!(config.fetch_sessions_max, 1000);
        assert!(config.warnings.is_empty());
    }

    #[test]
    fn a_refused_value_is_told_with_its_source() {
        let mut file = Layer::named("server.properties");
        file.set("num.partitions", "many");
        file.set("chronik.shards", "two");
        let mut line = Layer::named("the command line");
        line.set("chronik.shards", "1.5");
        let said = |layers: &[Layer]| {
            Config::from_layers(layers)
                .expect_err("refused")
                .to_string()
        };
        let of_line = said(&[file.clone(), line]);
        for words in [
            "chronik.shards=1.5",
            "a whole number",
            "(from the command line)",
        ] {
            assert!(of_line.contains(words), "{of_line}");
        }
        file.set("chronik.shards", "1");
        let of_file = said(&[file]);
        for words in [
            "num.partitions=many",
            "a whole number",
            "(from server.properties)",
        ] {
            assert!(of_file.contains(words), "{of_file}");
        }
    }

    #[test]
    fn what_is_said_holds() {
        let config = config(&[
            ("broker.id", "7"),
            ("log.dir", "/a"),
            ("chronik.shards", "3"),
            ("chronik.durability", "process"),
            ("connections.max.idle.ms", "-1"),
            ("auto.create.topics.enable", "FALSE"),
            ("max.connections.per.ip.overrides", "127.0.0.1:5,[::1]:6"),
            ("num.partitions", "4"),
            ("no.such.key", "1"),
        ])
        .expect("valid");
        assert_eq!(
            (config.node_id, config.shards.map(NonZeroUsize::get)),
            (7, Some(3))
        );
        assert_eq!(config.data_dir, PathBuf::from("/a"));
        assert_eq!(config.connections_idle_ms_max, None);
        assert!(!config.auto_create_topics);
        assert_eq!(config.values["num.partitions"], "4");
        assert_eq!(config.values["node.id"], "7");
        assert_eq!(config.warnings.len(), 1);
        assert!(config.warnings[0].contains("no.such.key"));
    }

    #[test]
    fn what_cannot_be_is_refused_with_key_and_value() {
        for (key, value) in [
            ("node.id", "-2"),
            ("node.id", "x"),
            ("log.dirs", "/a,/a"),
            ("chronik.shards", "0"),
            ("chronik.shards", "1025"),
            ("chronik.durability", "perhaps"),
            ("chronik.cluster.id", "short"),
            ("num.partitions", "0"),
            ("log.segment.bytes", "5"),
            ("log.message.timestamp.type", "Never"),
            ("socket.request.max.bytes", "0"),
            ("socket.request.max.bytes", "99999999999"),
            ("auto.create.topics.enable", "yes"),
            ("max.connections.per.ip.overrides", "host"),
            ("authorizer.class.name", "org.example.Authorizer"),
            ("metadata.log.dir", "/elsewhere"),
            ("listeners", "SASL_SSL://:9092"),
        ] {
            let said = config(&[(key, value)]).expect_err(key).to_string();
            assert!(said.contains(&format!("{key}={value}")), "{said}");
        }
        assert!(config(&[("node.id", "1"), ("broker.id", "2")]).is_err());
        assert!(config(&[("node.id", "2"), ("broker.id", "2")]).is_ok());
    }
}
