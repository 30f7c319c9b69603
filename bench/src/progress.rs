//! The progress line of a run, on standard error.
//!
//! Never writes when standard error is not a terminal, where thousands of such lines would fill a log.

use std::io::{IsTerminal, Write, stderr};
use std::time::Duration;

use crate::load::LoadResult;

/// The line; empty until it is shown first.
#[derive(Debug)]
pub(crate) struct ProgressLine {
    whole: Duration,
    is_terminal: bool,
    seconds_shown: Option<u64>,
}

impl ProgressLine {
    /// For a run of length `whole`.
    pub(crate) fn new(whole: Duration) -> Self {
        Self {
            whole,
            is_terminal: stderr().is_terminal(),
            seconds_shown: None,
        }
    }

    /// Shows the progress, at most once a second.
    pub(crate) fn show(&mut self, now_ns: u64, outcome: &LoadResult) {
        let seconds = now_ns / 1_000_000_000;
        if !self.is_terminal || self.seconds_shown == Some(seconds) {
            return;
        }
        self.seconds_shown = Some(seconds);
        let line = format!(
            "\r{seconds:>4} of {:.0} s  {:>11} requests  {:>9.1} MB produced  {:>9.1} MB consumed  p50 {} p99 {} us ",
            self.whole.as_secs_f64(),
            outcome.requests,
            outcome.bytes as f64 / 1e6,
            outcome.fetched_bytes as f64 / 1e6,
            outcome.latency_us.value_at_quantile(0.5),
            outcome.latency_us.value_at_quantile(0.99),
        );
        // A closed standard error does not end the measurement.
        let _unshown = stderr().write_all(line.as_bytes());
    }

    /// Erases the line.
    pub(crate) fn finish(&mut self) {
        if self.seconds_shown.take().is_some() {
            let _unshown = stderr().write_all(b"\r\x1b[K");
        }
    }
}
