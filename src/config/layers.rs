//! Where settings come from: a properties file, the environment, the command line.
//!
//! Runs on the main thread at start. Never judges a value; it only knows keys and text.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufReader, Read};
use std::path::Path;

use chronik_protocol::configs;
use chronik_protocol::configs::keys::broker;

use super::ConfigError;
use super::listeners::with_port;

/// Longest properties file that is read, bytes: a mistaken path must not fill the memory.
const FILE_BYTES_MAX: u64 = 4 << 20;

/// Environment variables of Chronik that are not settings of the broker.
const ENVIRONMENT_RESERVED: [&str; 4] = [
    "CHRONIK_CONFIG",
    "CHRONIK_PORT",
    "CHRONIK_DATA",
    "CHRONIK_TRACE",
];

/// One source of settings.
#[derive(Clone, Debug, Default)]
pub struct Layer {
    origin: String,
    values: BTreeMap<String, String>,
    /// The port alone; it replaces the port of the first listener of the layers below.
    pub port: Option<String>,
    /// The data directory; it replaces `log.dirs` and `log.dir` of the layers below.
    pub data: Option<String>,
}

impl Layer {
    /// An empty layer; `origin` names it in messages ("the command line").
    pub fn named(origin: impl Into<String>) -> Self {
        Self {
            origin: origin.into(),
            ..Self::default()
        }
    }

    /// Sets one key.
    pub fn set(&mut self, key: impl Into<String>, value: impl Into<String>) {
        self.values.insert(key.into(), value.into());
    }

    /// What this layer says of `key`.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.values.get(key).map(String::as_str)
    }

    /// Where it comes from, for messages.
    pub(super) fn origin(&self) -> &str {
        &self.origin
    }

    /// Whether it says anything of `key`, under whichever name.
    pub(super) fn sets(&self, key: &str) -> bool {
        let is_by_name = self.values.contains_key(key);
        is_by_name
            || (key == broker::LOG_DIRS.name() && self.data.is_some())
            || (key == "port" && self.port.is_some())
    }

    /// Reads a file in Java's properties format.
    ///
    /// # Errors
    /// When the file cannot be read, is longer than 4 MiB, or breaks the format.
    pub fn from_file(path: &Path) -> Result<Self, ConfigError> {
        let unreadable = |reason: String| ConfigError::Unreadable {
            path: path.display().to_string(),
            reason,
        };
        let file = File::open(path).map_err(|error| unreadable(error.to_string()))?;
        let mut layer = Self::named(path.display().to_string());
        let reader = BufReader::new(file.take(FILE_BYTES_MAX));
        let values =
            java_properties::read(reader).map_err(|error| unreadable(error.to_string()))?;
        layer.values = values
            .into_iter()
            .map(|(key, value)| (key, value.trim().to_owned()))
            .collect();
        Ok(layer)
    }

    /// Reads `CHRONIK_*` variables: `CHRONIK_LOG_RETENTION_MS` is `log.retention.ms`, and
    /// `CHRONIK_SHARDS` is `chronik.shards`, for no key of Kafka is named by one of Chronik's own.
    pub fn from_environment(variables: impl IntoIterator<Item = (String, String)>) -> Self {
        let mut layer = Self::named("the environment");
        for (name, value) in variables {
            let value = value.trim().to_owned();
            match name.as_str() {
                "CHRONIK_PORT" => layer.port = Some(value),
                "CHRONIK_DATA" => layer.data = Some(value),
                reserved if ENVIRONMENT_RESERVED.contains(&reserved) => {}
                other => {
                    if let Some(rest) = other.strip_prefix("CHRONIK_") {
                        layer.values.insert(key_of_variable(rest), value);
                    }
                }
            }
        }
        layer
    }
}

fn key_of_variable(rest: &str) -> String {
    let key = rest.to_ascii_lowercase().replace('_', ".");
    let own = format!("chronik.{key}");
    match configs::broker(&own) {
        Some(_) => own,
        None => key,
    }
}

/// Lays `layers` over each other, the last on top.
///
/// # Errors
/// When a port is given that is no port, or no listener exists whose port it could replace.
pub(super) fn merge(layers: &[Layer]) -> Result<BTreeMap<String, String>, ConfigError> {
    let mut merged = BTreeMap::new();
    for layer in layers {
        if layer.get(broker::LOG_DIR.name()).is_some()
            && layer.get(broker::LOG_DIRS.name()).is_none()
        {
            merged.remove(broker::LOG_DIRS.name());
        }
        if layer.get(broker::BROKER_ID.name()).is_some()
            && layer.get(broker::NODE_ID.name()).is_none()
        {
            merged.remove(broker::NODE_ID.name());
        }
        merged.extend(layer.values.clone());
        if let Some(data) = &layer.data {
            merged.remove(broker::LOG_DIR.name());
            merged.insert(broker::LOG_DIRS.name().to_owned(), data.clone());
        }
        if let Some(port) = &layer.port {
            let number = port
                .parse::<u16>()
                .map_err(|_| ConfigError::invalid("port", port, "a number from 1 to 65535"))?;
            let listeners = merged.get(broker::LISTENERS.name()).map(String::as_str);
            merged.insert(
                broker::LISTENERS.name().to_owned(),
                with_port(listeners, number)?,
            );
        }
    }
    Ok(merged)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_become_keys() {
        let layer = Layer::from_environment(
            [
                ("CHRONIK_LOG_RETENTION_MS", "5"),
                ("CHRONIK_SHARDS", " 2 "),
                ("CHRONIK_PORT", "9"),
                ("CHRONIK_TRACE", "debug"),
                ("PATH", "/bin"),
            ]
            .map(|(name, value)| (name.to_owned(), value.to_owned())),
        );
        assert_eq!(layer.get("log.retention.ms"), Some("5"));
        assert_eq!(layer.get("chronik.shards"), Some("2"));
        assert_eq!(layer.port.as_deref(), Some("9"));
        assert_eq!(layer.values.len(), 2);
    }

    #[test]
    fn a_later_layer_wins_and_a_port_replaces_only_the_port() {
        let mut file = Layer::named("file");
        file.set("listeners", "PLAINTEXT://0.0.0.0:9092");
        file.set("log.dirs", "/a");
        file.set("num.partitions", "3");
        let mut line = Layer::named("line");
        line.port = Some("1234".to_owned());
        line.set("log.dir", "/b");
        let merged = merge(&[file, line]).expect("valid");
        assert_eq!(merged["listeners"], "PLAINTEXT://0.0.0.0:1234");
        assert_eq!(merged.get("log.dirs"), None);
        assert_eq!(merged["log.dir"], "/b");
        assert_eq!(merged["num.partitions"], "3");
    }

    #[test]
    fn a_port_that_is_none_is_refused() {
        let mut layer = Layer::named("line");
        layer.port = Some("65536".to_owned());
        assert!(merge(&[layer]).is_err());
    }

    #[test]
    fn a_file_is_read_as_java_reads_it() {
        let dir = std::env::temp_dir().join(format!("chronik-layers-{}", std::process::id()));
        std::fs::create_dir_all(&dir).expect("temporary directory");
        let path = dir.join("server.properties");
        std::fs::write(&path, "# comment\nlog.dirs = /x\\\n  y\nnode.id:7 \n").expect("written");
        let layer = Layer::from_file(&path).expect("read");
        std::fs::remove_dir_all(&dir).expect("removed");
        assert_eq!(layer.get("log.dirs"), Some("/xy"));
        assert_eq!(layer.get("node.id"), Some("7"));
    }
}
