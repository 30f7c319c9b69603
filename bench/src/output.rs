//! The optional files of a run: figures as JSON, histograms as an HdrHistogram log for Java's and the web's tools,
//! percentile curves as SVG.
//!
//! Never prints: the table is `row.rs`'s.

use std::fs;
use std::io;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use clap::Args;
use hdrhistogram::Histogram;
use hdrhistogram::serialization::V2DeflateSerializer;
use hdrhistogram::serialization::interval_log::{IntervalLogWriterBuilder, Tag};
use serde_json::json;

use crate::figures;
use crate::load::LoadResult;
use crate::svg;

/// Which files, and where.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct Output {
    /// Write the figures to this file as JSON
    #[arg(long)]
    json: Option<PathBuf>,
    /// Write the latencies to this file as an HdrHistogram log, µs
    #[arg(long)]
    hlog: Option<PathBuf>,
    /// Plot the percentile curves to this file
    #[arg(long)]
    svg: Option<PathBuf>,
}

impl Output {
    /// Writes the files asked for; `title` names the load.
    ///
    /// # Errors
    /// The file system's.
    pub(crate) fn write(&self, title: &str, outcome: &LoadResult) -> io::Result<()> {
        let curves = [
            ("produce", &outcome.latency_us),
            ("end-to-end", &outcome.end_to_end_us),
            ("fetch", &outcome.fetch_us),
        ];
        if let Some(path) = &self.json {
            let figures = json!({ "load": title, "figures": figures::of(outcome) });
            fs::write(path, format!("{figures:#}\n"))?;
        }
        if let Some(path) = &self.hlog {
            fs::write(path, histogram_log(title, outcome.elapsed, &curves)?)?;
        }
        if let Some(path) = &self.svg {
            fs::write(path, svg::percentile_plot(title, &curves))?;
        }
        Ok(())
    }
}

fn histogram_log(
    title: &str,
    elapsed: Duration,
    curves: &[(&str, &Histogram<u64>)],
) -> io::Result<Vec<u8>> {
    let mut log = Vec::new();
    let mut serializer = V2DeflateSerializer::new();
    let started = SystemTime::now().checked_sub(elapsed);
    let mut writer = IntervalLogWriterBuilder::new()
        .add_comment(&format!(
            "chronik-bench: {title}; latencies in microseconds"
        ))
        .with_start_time(started.unwrap_or(SystemTime::UNIX_EPOCH))
        .begin_log_with(&mut log, &mut serializer)?;
    for (name, histogram) in curves.iter().filter(|curve| !curve.1.is_empty()) {
        writer
            .write_histogram(histogram, Duration::ZERO, elapsed, Tag::new(name))
            .map_err(|error| io::Error::other(format!("{error:?}")))?;
    }
    Ok(log)
}

#[cfg(test)]
mod tests {
    use super::*;
    use hdrhistogram::serialization::interval_log::{IntervalLogIterator, LogEntry};

    #[test]
    fn a_log_holds_what_was_measured() {
        let mut outcome = LoadResult::empty().expect("histograms");
        outcome.latency_us.record(1_234).expect("in range");
        let curves = [
            ("produce", &outcome.latency_us),
            ("fetch", &outcome.fetch_us),
        ];
        let log = histogram_log("a load", Duration::from_secs(5), &curves).expect("a log");
        let intervals: Vec<_> = IntervalLogIterator::new(&log)
            .filter_map(|entry| match entry {
                Ok(LogEntry::Interval(interval)) => Some(interval),
                _ => None,
            })
            .collect();
        assert_eq!(intervals.len(), 1, "only what has values is written");
        let tag = intervals[0].tag().map(|tag| tag.as_str().to_owned());
        assert_eq!(tag.as_deref(), Some("produce"));
    }
}
