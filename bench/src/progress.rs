//! Owns the line on standard error that says how far a run is.
//!
//! Never writes when standard error is not a terminal: a log of thousands of such lines helps nobody.

use std::io::{IsTerminal, Write, stderr};
use std::time::Duration;

use crate::load::Outcome;

/// The line; empty until it is shown first.
#[derive(Debug)]
pub(crate) struct Progress {
    whole: Duration,
    is_terminal: bool,
    seconds_shown: Option<u64>,
}

impl Progress {
    /// For a run of this length.
    pub(crate) fn new(whole: Duration) -> Self {
        Self {
            whole,
            is_terminal: stderr().is_terminal(),
            seconds_shown: None,
        }
    }

    /// Shows where the run is, at most once a second.
    pub(crate) fn show(&mut self, now_ns: u64, outcome: &Outcome) {
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
        // The line is a courtesy: a closed standard error does not end the measurement.
        let _unshown = stderr().write_all(line.as_bytes());
    }

    /// Takes the line away.
    pub(crate) fn finish(&mut self) {
        if self.seconds_shown.take().is_some() {
            let _unshown = stderr().write_all(b"\r\x1b[K");
        }
    }
}
