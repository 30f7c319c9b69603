//! The bridge from `log`, which glommio writes to, to `tracing`, where all other lines go.
//!
//! Owns the process's `log` logger unless another one is installed. Never filters: that is the subscriber's
//! part.

use log::{Level, LevelFilter, Log, Metadata, Record};

struct Bridge;

impl Log for Bridge {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.level() <= Level::Info
    }

    fn log(&self, record: &Record<'_>) {
        if !self.enabled(record.metadata()) {
            return;
        }
        // tracing requires targets known at compile time, so the real one is a field.
        let source = record.target();
        match record.level() {
            Level::Error => tracing::error!(target: "log", source, "{}", record.args()),
            Level::Warn => tracing::warn!(target: "log", source, "{}", record.args()),
            _ => tracing::info!(target: "log", source, "{}", record.args()),
        }
    }

    fn flush(&self) {}
}

/// Installs the bridge; a second call changes nothing.
pub(crate) fn install() {
    if log::set_logger(&Bridge).is_ok() {
        log::set_max_level(LevelFilter::Info);
    }
}
