//! The broker's settings: Kafka's names and defaults, checked once, before anything starts.
//!
//! Runs on the main thread at start. Later code sees only [`Config`], never text; what a topic
//! inherits (`log.*`) stays text in [`Config::values`] and is parsed by the catalogue.

mod consumer_groups;
mod groups;
mod keys;
mod layers;
mod listeners;
pub(crate) mod states;

use std::collections::BTreeMap;
use std::fmt;
use std::num::NonZeroUsize;
use std::path::PathBuf;

use chronik_protocol::Uuid;

pub use groups::OffsetsTopic;
pub use layers::Layer;
pub use listeners::Listener;

use keys::Values;

/// Where neither the settings nor the data directory name a node.
const DEFAULT_NODE_ID: i32 = 1;
/// Data directory when neither `log.dirs` nor `--data` is given.
const DEFAULT_DATA_DIR: &str = "./data";
/// Bytes of unanswered requests and unread replies a shard holds when
/// `queued.max.request.bytes` is not set: Kafka has no bound there, Chronik always has one.
const DEFAULT_QUEUED_BYTES_PER_SHARD: usize = 128 << 20;
/// Most shards that are ever started, far above the cores of today's machines.
const SHARDS_MAX: usize = 1024;
/// Smallest write-behind ring, bytes: one batch may take a quarter of it.
const WRITE_BEHIND_BYTES_MIN: usize = 1 << 20;
/// Largest write-behind ring, bytes.
const WRITE_BEHIND_BYTES_MAX: usize = 1 << 30;
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
                .text("listeners")
                .unwrap_or(listeners::DEFAULT_LISTENERS),
            advertised: values.text("advertised.listeners"),
            security_protocols: values.text("listener.security.protocol.map"),
            controller_names: values.text("controller.listener.names"),
        })?;
        let shards = values.number("chronik.shards", 1..=SHARDS_MAX, 0)?;
        let sizes = Sizes::read(&values)?;
        let (data_dirs, node_id) = (data_dirs(&values)?, node_id(&values)?);
        check_metadata_dir(&values, &data_dirs.0)?;
        let config = Self {
            listeners,
            node_id: node_id.unwrap_or(DEFAULT_NODE_ID),
            is_node_id_set: node_id.is_some(),
            rack: values.text("broker.rack").map(str::to_owned),
            cluster_id: cluster_id(&values)?,
            shards: NonZeroUsize::new(shards),
            pinned: pinned(&values)?,
            write_behind_bytes: sizes.write_behind,
            auto_create_topics: values.flag("auto.create.topics.enable", true)?,
            delete_topic_enable: values.flag("delete.topic.enable", true)?,
            request_bytes_max: sizes.request,
            queued_bytes_max: sizes.queued,
            connections_idle_ms_max: idle_ms_max(&values)?,
            fetch_bytes_max: sizes.fetch,
            fetch_sessions_max: values.number(
                "max.incremental.fetch.session.cache.slots",
                0..=1_000_000,
                1000,
            )?,
            described_partitions_max: values.number(
                "max.request.partition.size.limit",
                1..=1_000_000,
                2000,
            )?,
            offsets_topic: OffsetsTopic::read(&values)?,
            values: told(&merged, node_id.unwrap_or(DEFAULT_NODE_ID), &data_dirs),
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
            let told = self.values.entry("node.id".to_owned());
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
    told.insert("node.id".to_owned(), node_id.to_string());
    let dirs = [first].into_iter().chain(others);
    let dirs: Vec<String> = dirs.map(|dir| dir.display().to_string()).collect();
    told.insert("log.dirs".to_owned(), dirs.join(","));
    let listeners = told.entry("listeners".to_owned());
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
        const INT_MAX: usize = i32::MAX as usize;
        let request = values.number("socket.request.max.bytes", 1..=INT_MAX, 104_857_600)?;
        let queued = match values.number("queued.max.request.bytes", -1..=i64::MAX, -1)? {
            limit if limit > 0 => usize::try_from(limit).unwrap_or(usize::MAX),
            _ => DEFAULT_QUEUED_BYTES_PER_SHARD,
        };
        let fetch = values.number("fetch.max.bytes", 1024..=INT_MAX, 57_671_680)?;
        Ok(Self {
            request,
            queued,
            fetch,
            write_behind: write_behind_bytes(values)?,
        })
    }
}

fn pinned(values: &Values<'_>) -> Result<Option<bool>, ConfigError> {
    const KEY: &str = "chronik.shards.pinned";
    match values.text(KEY) {
        Some(_) => values.flag(KEY, true).map(Some),
        None => Ok(None),
    }
}

fn write_behind_bytes(values: &Values<'_>) -> Result<usize, ConfigError> {
    const KEY: &str = "chronik.writebehind.bytes";
    let bytes = values.number(KEY, 0..=WRITE_BEHIND_BYTES_MAX, 64 << 20)?;
    if (1..WRITE_BEHIND_BYTES_MIN).contains(&bytes) {
        let accepted =
            format!("0, or {WRITE_BEHIND_BYTES_MIN} to {WRITE_BEHIND_BYTES_MAX} for each shard");
        return Err(ConfigError::invalid(KEY, &bytes.to_string(), accepted));
    }
    Ok(bytes)
}

/// The first, and the others.
fn data_dirs(values: &Values<'_>) -> Result<(PathBuf, Vec<PathBuf>), ConfigError> {
    let key = if values.text("log.dirs").is_some() {
        "log.dirs"
    } else {
        "log.dir"
    };
    let text = values.text(key).unwrap_or(DEFAULT_DATA_DIR);
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
    const KEY: &str = "metadata.log.dir";
    let Some(text) = values.text(KEY) else {
        return Ok(());
    };
    if std::path::absolute(text).is_ok_and(|dir| dir == first) {
        return Ok(());
    }
    let accepted = format!("the first of log.dirs, which is {}", first.display());
    Err(ConfigError::invalid(KEY, text, accepted))
}

fn node_id(values: &Values<'_>) -> Result<Option<i32>, ConfigError> {
    let node = values.number("node.id", 0..=i32::MAX, -1)?;
    let broker = match values.text("broker.id") {
        Some("-1") => -1,
        _ => values.number("broker.id", 0..=i32::MAX, -1)?,
    };
    match (node, broker) {
        (-1, -1) => Ok(None),
        (-1, broker) => Ok(Some(broker)),
        (node, -1) => Ok(Some(node)),
        (node, broker) if node == broker => Ok(Some(node)),
        (node, broker) => Err(ConfigError::invalid(
            "broker.id",
            &broker.to_string(),
            format!("the value of node.id, {node}"),
        )),
    }
}

fn cluster_id(values: &Values<'_>) -> Result<Option<Uuid>, ConfigError> {
    let Some(text) = values.text("chronik.cluster.id") else {
        return Ok(None);
    };
    text.parse().map(Some).map_err(|_| {
        ConfigError::invalid(
            "chronik.cluster.id",
            text,
            "16 bytes in URL-safe base64, 22 characters",
        )
    })
}

fn idle_ms_max(values: &Values<'_>) -> Result<Option<u64>, ConfigError> {
    let idle = values.number("connections.max.idle.ms", -1..=IDLE_MS_MAX, 600_000)?;
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
