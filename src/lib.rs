//! The broker: settings, connections, handlers, and the way to the shards.
//!
//! Code map: [`cli`] and [`config`] say what is wanted, `doctor` whether that can be; [`broker`] puts everything together and is
//! the only place that does; `server` turns sockets into requests; `handlers` has one module for
//! each API; `router` leads to the shards that own partitions. Never owns the state of a partition.

pub mod broker;
pub mod cli;
pub mod config;
mod cores;
mod doctor;
mod gate;
mod handlers;
mod router;
mod server;

use std::fmt;
use std::io::{self, IsTerminal, Write};
use std::path::Path;
use std::sync::mpsc;

use chronik_io::log_queue::{self, FlushAtEnd};
use tracing::{info, warn};
use tracing_subscriber::EnvFilter;

use broker::Broker;
use cli::{Cli, Command, Settings};
use config::{Config, Layer};

/// Why the command ends without success: one sentence, for people.
#[derive(Debug, PartialEq, Eq)]
pub struct Failure(String);

impl Failure {
    /// A failure that `reason` explains.
    pub fn new(reason: impl fmt::Display) -> Self {
        Self(reason.to_string())
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Failure {}

/// Does what the command line says; returns when that is done.
///
/// # Errors
/// One sentence that says what to mend.
pub fn run(cli: &Cli) -> Result<(), Failure> {
    match &cli.command {
        Command::Serve(settings) | Command::Doctor(settings) if settings.help_config => {
            print(config::pages::table().as_bytes())
        }
        Command::Serve(settings) => serve(settings),
        Command::Doctor(settings) => doctor(settings),
    }
}

/// Prints to standard output. Who closes the pipe has read enough.
fn print(text: &[u8]) -> Result<(), Failure> {
    let mut output = io::stdout().lock();
    match output.write_all(text).and_then(|()| output.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(Failure(format!(
            "what was found cannot be printed: {error}"
        ))),
        _ => Ok(()),
    }
}

fn load(settings: &Settings) -> Result<Config, Failure> {
    let mut layers = Vec::new();
    let named = settings
        .config
        .clone()
        .or_else(|| std::env::var_os("CHRONIK_CONFIG").map(Into::into));
    if let Some(path) = named {
        layers.push(Layer::from_file(Path::new(&path)).map_err(Failure::new)?);
    }
    // A variable that is no UTF-8 cannot be a setting.
    let variables = std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
    layers.push(Layer::from_environment(variables));
    layers.push(settings.layer().map_err(Failure::new)?);
    let config = Config::from_layers(&layers).map_err(Failure::new)?;
    Ok(config.of_directory())
}

fn serve(settings: &Settings) -> Result<(), Failure> {
    let last_lines = begin_logging()?;
    let config = load(settings)?;
    for warning in &config.warnings {
        warn!("{warning}");
    }
    // Before anything is started, so that no signal ends a half-started broker the hard way.
    let (signal, signals) = mpsc::channel();
    let watch = chronik_io::signals::watch(move |name| {
        if signal.send(name).is_err() {
            info!(signal = name, "already stopping");
        }
    });
    let watch = watch.map_err(|error| Failure(format!("signals cannot be watched: {error}")))?;
    let broker = Broker::start(config)?;
    if let Ok(name) = signals.recv() {
        info!(signal = name, "stopping");
    }
    // A second signal changes nothing, and is told so.
    drop(signals);
    let in_order = broker.stop()?;
    drop(watch);
    match in_order {
        true => info!("stopped"),
        false => warn!("stopped, not in order: the next start looks through the logs"),
    }
    drop(last_lines);
    Ok(())
}

fn doctor(settings: &Settings) -> Result<(), Failure> {
    doctor::examine(&load(settings)?)
}

/// How much is logged, as `CHRONIK_TRACE` says: levels, of everything or of one target. A word that is no
/// level would be the name of a target that nobody has, and silence the rest.
fn log_filter(said: &str) -> Result<EnvFilter, Failure> {
    const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];
    let is_level = |word: &str| LEVELS.contains(&word.trim().to_ascii_lowercase().as_str());
    let is_target = |name: &str| {
        let is_of_name = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':';
        !name.trim().is_empty() && name.trim().chars().all(is_of_name)
    };
    let said = if said.trim().is_empty() { "info" } else { said };
    let mut directives = said.split(',');
    let is_sound = directives.all(|directive| match directive.split_once('=') {
        Some((target, level)) => is_target(target) && is_level(level),
        None => is_level(directive),
    });
    let compact: Vec<&str> = said.split(',').map(str::trim).collect();
    let filter = EnvFilter::try_new(compact.join(","))
        .ok()
        .filter(|_| is_sound);
    filter.ok_or_else(|| {
        Failure(format!(
            "CHRONIK_TRACE={said} cannot be used; accepted: {}, or TARGET=LEVEL, separated by commas \
             (info,chronik_shards=debug)",
            LEVELS.join(", ")
        ))
    })
}

/// Logs to standard error; `CHRONIK_TRACE` says how much. Nobody who logs waits for that.
fn begin_logging() -> Result<FlushAtEnd, Failure> {
    let said = std::env::var_os("CHRONIK_TRACE").unwrap_or_default();
    let filter = log_filter(&said.to_string_lossy())?;
    let started = log_queue::start();
    let (queue, last_lines) =
        started.map_err(|error| Failure(format!("the log cannot be written: {error}")))?;
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(move || queue.clone())
        // It would write to standard error itself.
        .log_internal_errors(false)
        .with_ansi(std::io::stderr().is_terminal())
        .with_target(false);
    if subscriber.try_init().is_err() {
        warn!("logging was set up before");
    }
    Ok(last_lines)
}

#[cfg(test)]
mod tests {
    use super::log_filter;

    #[test]
    fn a_word_that_is_no_level_is_refused_with_the_accepted_form() {
        for fine in [
            "",
            "debug",
            "INFO",
            "chronik=debug,chronik_shards=trace",
            "info, a::b=off",
        ] {
            assert!(log_filter(fine).is_ok(), "{fine}");
        }
        for bad in [
            "lots",
            "a=b=c",
            "a=",
            "=debug",
            "debug,",
            "chronik=much",
            "[span]=debug",
        ] {
            let refused = log_filter(bad).expect_err(bad).to_string();
            assert!(
                refused.contains(bad) && refused.contains("TARGET=LEVEL"),
                "{refused}"
            );
        }
    }
}
