//! glommio speaks through `log`; this hands its lines to `tracing`, where all others go.
//!
//! Owns the process's `log` logger unless somebody else has set one. Never filters: that is the
//! subscriber's business.

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
        // tracing wants targets that are known when compiling, so the real one is a field.
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
