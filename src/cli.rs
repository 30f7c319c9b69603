//! The command line: what may be typed, and how it becomes a layer of settings.
//!
//! Runs on the main thread before any shard exists. Never reads a file and never
//! decides whether a value makes sense; `config` does both.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use crate::config::Layer;
use crate::config::pages::own_settings;

/// A Kafka-compatible broker: one process, one thread per core, io_uring.
#[derive(Debug, Parser)]
#[command(
    name = "chronik",
    version,
    about,
    max_term_width = 100,
    arg_required_else_help = true
)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The things `chronik` can do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the broker until SIGTERM or SIGINT.
    #[command(visible_alias = "integrated", after_help = serve_help())]
    Serve(Settings),
    /// Check whether this machine, these settings and what lies in the data directories can run the
    /// broker, and say how to mend what cannot. Changes nothing.
    Doctor(Settings),
}

/// Settings that both commands take.
#[derive(Debug, Default, Args)]
pub struct Settings {
    /// Port to listen on (the listener's address stays what `listeners` says, 127.0.0.1 unless set).
    #[arg(short, long, value_name = "PORT")]
    pub port: Option<u16>,
    /// Data directory; created when missing [default: what `log.dir` says]. Several, separated by commas or given one
    /// by one, for `log.dirs`: the one with the metadata log first.
    #[arg(short, long, value_name = "DIR", value_delimiter = ',')]
    pub data: Vec<PathBuf>,
    /// A Kafka `server.properties` file.
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// One setting by its Kafka name; may be given many times.
    #[arg(long = "override", value_name = "KEY=VALUE")]
    pub overrides: Vec<String>,
    /// Print every setting with its type, its default and what becomes of it here, and end.
    #[arg(long)]
    pub help_config: bool,
}

fn serve_help() -> String {
    format!("{SOURCES}\n{}{MORE}", own_settings())
}

const SOURCES: &str = "\
Settings come from four places; a later one wins:
  1. Kafka's defaults
  2. the file given with --config
  3. the environment: CHRONIK_PORT, CHRONIK_DATA, CHRONIK_CONFIG, and any Kafka key in capitals,
     CHRONIK_LOG_RETENTION_MS=60000 for log.retention.ms, CHRONIK_SHARDS=2 for chronik.shards
  4. the command line
";

const MORE: &str = "
Every setting, Kafka's too: chronik serve --help-config

Logging: CHRONIK_TRACE=debug (or chronik=debug,chronik_shards=trace); the default is info.

Example:
  chronik serve --port 9092 --data ./data --override num.partitions=4";

impl Settings {
    /// The command line as the topmost layer of settings.
    ///
    /// # Errors
    /// One sentence when an `--override` has no `=` or no key.
    pub fn layer(&self) -> Result<Layer, String> {
        let mut layer = Layer::named("the command line");
        layer.port = self.port.map(|port| port.to_string());
        let dirs = self.data.iter().map(|dir| dir.to_string_lossy());
        let dirs: Vec<_> = dirs.collect();
        layer.data = (!dirs.is_empty()).then(|| dirs.join(","));
        for given in &self.overrides {
            let (key, value) = given
                .split_once('=')
                .filter(|(key, _)| !key.trim().is_empty())
                .ok_or_else(|| format!("--override {given}: expected KEY=VALUE"))?;
            layer.set(key.trim(), value.trim());
        }
        Ok(layer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(args: &[&str]) -> Settings {
        let cli = Cli::try_parse_from([&["chronik", "serve"], args].concat()).expect("parses");
        match cli.command {
            Command::Serve(settings) | Command::Doctor(settings) => settings,
        }
    }

    #[test]
    fn overrides_keep_everything_behind_the_first_equals_sign() {
        let layer = settings(&["--override", "a.b=c=d", "--override", "e="])
            .layer()
            .expect("valid");
        assert_eq!(layer.get("a.b"), Some("c=d"));
        assert_eq!(layer.get("e"), Some(""));
    }

    #[test]
    fn an_override_without_a_key_is_refused() {
        for bad in ["=x", "noequals", " =1"] {
            assert!(settings(&["--override", bad]).layer().is_err(), "{bad}");
        }
    }

    #[test]
    fn several_directories_are_named_either_way() {
        for args in [&["-d", "a,b"][..], &["--data", "a", "--data", "b"]] {
            let layer = settings(args).layer().expect("valid");
            assert_eq!(layer.data.as_deref(), Some("a,b"));
        }
    }

    #[test]
    fn integrated_is_serve() {
        let cli = Cli::try_parse_from(["chronik", "integrated", "-p", "1234", "-d", "x"]);
        match cli.expect("parses").command {
            Command::Serve(settings) => {
                assert_eq!(settings.port, Some(1234));
                assert_eq!(settings.data, [PathBuf::from("x")]);
            }
            Command::Doctor(_) => panic!("integrated must mean serve"),
        }
    }

    #[test]
    fn the_definition_is_consistent() {
        use clap::CommandFactory;
        Cli::command().debug_assert();
    }
}
