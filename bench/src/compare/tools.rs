//! Third-party clients as loads: `kafka-producer-perf-test`, `kafka-consumer-perf-test` and kcat, with the broker's
//! costs read before and after.
//!
//! Never trusts an exit code alone: the printed output must hold the figures.

use std::collections::BTreeMap;
use std::io;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use chronik_protocol::ErrorCode;

use crate::compare::cells::PerfCell;
use crate::compare::contestant::Programs;
use crate::compare::effort::Effort;
use crate::figures::Figures;
use crate::load::LoadResult;
use crate::rpc::{Rpc, invalid};
use crate::target::Target;
use crate::{figures, row};

/// Runs `kafka-producer-perf-test` on a topic of its own.
///
/// # Errors
/// When the topic cannot be created, or the tool fails or prints no figures.
pub(crate) fn producer_perf(
    cell: &PerfCell,
    programs: &Programs,
    target: &Target,
    effort: Effort,
) -> io::Result<Figures> {
    let topic = cell.id.replace('/', "-");
    let mut rpc = Rpc::connect(target.address)?;
    let created = rpc.create_topic(&topic, cell.partitions, &[])?;
    if created != ErrorCode::None {
        return Err(invalid(format!("{topic}: {created:?}")));
    }
    rpc.await_topic(&topic, cell.partitions)?;
    let records = effort.perf_records(cell.record_bytes);
    let mut command = programs.kafka_tool("kafka-producer-perf-test");
    command
        .args(["--topic", &topic, "--throughput", "-1"])
        .args(["--bootstrap-server", &target.address.to_string()])
        .args(["--num-records", &records.to_string()])
        .args(["--warmup-records", &(records / 5).to_string()])
        .args(["--record-size", &cell.record_bytes.to_string()])
        .arg("--command-property")
        .arg(format!("acks={}", cell.acks))
        .arg(format!("compression.type={}", cell.codec));
    let (output, outcome) = watched(&mut command, target)?;
    let printed = String::from_utf8_lossy(&output.stdout);
    let mut figures = steady_state(&printed).ok_or_else(|| unexpected(&output))?;
    let bytes = (records * cell.record_bytes) as u64;
    figures.extend(costs(outcome, records as u64, bytes));
    rpc.delete_topic(&topic)?;
    Ok(figures)
}

/// The figures in the tool's last line: `600000 records sent, 143000.1 records/sec (139.65 MB/sec),
/// 12.3 ms avg latency, 200.00 ms max latency, 5 ms 50th, 20 ms 95th, 30 ms 99th, 40 ms 99.9th.`
fn steady_state(printed: &str) -> Option<Figures> {
    let mut lines = printed.lines().rev();
    let line = lines.find(|line| line.contains("99.9th"))?;
    let before = |unit: &str| -> Option<f64> {
        let (front, _) = line.split_once(unit)?;
        let number = front.rsplit([' ', '(']).next()?;
        number.parse().ok()
    };
    let mebibytes = before(" MB/sec")?;
    Some(Figures::from([
        ("records_per_s".to_owned(), before(" records/sec")?),
        ("mb_per_s".to_owned(), mebibytes * 1.048_576),
        ("p50_ms".to_owned(), before(" ms 50th")?),
        ("p99_ms".to_owned(), before(" ms 99th")?),
        ("p999_ms".to_owned(), before(" ms 99.9th")?),
    ]))
}

/// Reads a topic with kcat, that is with librdkafka, to its end.
///
/// # Errors
/// When kcat is missing or fails.
pub(crate) fn kcat(topic: &str, records: u64, bytes: u64, target: &Target) -> io::Result<Figures> {
    let mut command = Command::new("kcat");
    command
        .args(["-C", "-b", &target.address.to_string(), "-t", topic])
        .args(["-o", "beginning", "-e", "-q", "-f", ""])
        .stdout(Stdio::null());
    let (output, outcome) = watched(&mut command, target)?;
    if !output.status.success() {
        return Err(unexpected(&output));
    }
    Ok(consumed(outcome, records, bytes))
}

/// Reads a topic with `kafka-consumer-perf-test`.
///
/// # Errors
/// When the tool fails or prints no figures.
pub(crate) fn consumer_perf(
    topic: &str,
    records: u64,
    bytes: u64,
    programs: &Programs,
    target: &Target,
) -> io::Result<Figures> {
    let mut command = programs.kafka_tool("kafka-consumer-perf-test");
    command
        .args(["--topic", topic, "--num-records", &records.to_string()])
        .args(["--bootstrap-server", &target.address.to_string()]);
    let (output, outcome) = watched(&mut command, target)?;
    // start, end, MB, MB/s, records, records/s, rebalance ms, fetch ms, MB/s of fetching, …
    let printed = String::from_utf8_lossy(&output.stdout);
    let fields: Option<Vec<f64>> = printed.lines().rev().find_map(|line| {
        let fields: Vec<&str> = line.split(',').map(str::trim).collect();
        let numbers = fields.get(2..)?.iter().map(|field| field.parse().ok());
        numbers.collect()
    });
    let fields = fields.ok_or_else(|| unexpected(&output))?;
    let (Some(read), Some(mebibytes_per_s)) = (fields.get(2), fields.get(6)) else {
        return Err(unexpected(&output));
    };
    if *read < records as f64 {
        return Err(invalid(format!("{read} of {records} records were read")));
    }
    let mut figures = consumed(outcome, records, bytes);
    figures.insert("fetch_mb_per_s".to_owned(), mebibytes_per_s * 1.048_576);
    Ok(figures)
}

/// Runs the command; the broker's costs are in the outcome, which has no requests yet.
fn watched(command: &mut Command, target: &Target) -> io::Result<(Output, LoadResult)> {
    let mut outcome = LoadResult::empty()?;
    outcome.resident_before_bytes = target.subject.resident_bytes().unwrap_or_default();
    let before = target.subject.usage();
    let started = Instant::now();
    let output = command.stdin(Stdio::null()).output()?;
    outcome.elapsed = started.elapsed();
    outcome.usage = target.subject.usage() - before;
    outcome.resident_bytes_max = target.subject.resident_bytes().unwrap_or_default();
    if output.status.code() == Some(77) {
        return Err(unexpected(&output));
    }
    Ok((output, outcome))
}

fn unexpected(output: &Output) -> io::Error {
    let text = [&output.stdout, &output.stderr].map(|text| String::from_utf8_lossy(text));
    let text = text.join("\n");
    let lines: Vec<&str> = text.lines().filter(|line| !line.is_empty()).collect();
    let end = lines[lines.len().saturating_sub(6)..].join(" | ");
    invalid(format!("{}: {end}", output.status))
}

/// The costs only: the tool's own measurements are not derived from its process's life.
fn costs(outcome: LoadResult, records: u64, bytes: u64) -> Figures {
    let mut figures = figures::of(&LoadResult {
        requests: 1,
        records,
        bytes,
        ..outcome
    });
    figures.retain(|name, _| {
        let is_cost = name.contains("_cpu_") || name.contains("resident") || name.contains("disk_");
        is_cost && !name.ends_with("_us_per_request") && !name.starts_with("client")
    });
    figures
}

fn consumed(outcome: LoadResult, records: u64, bytes: u64) -> Figures {
    let seconds = outcome.elapsed.max(Duration::from_millis(1)).as_secs_f64();
    let mut figures = costs(outcome, records, bytes);
    figures.insert("fetch_mb_per_s".to_owned(), bytes as f64 / 1e6 / seconds);
    figures.insert("fetch_records_per_s".to_owned(), records as f64 / seconds);
    figures
}

/// Counts a topic's records and batch bytes by reading it, which also proves it readable.
///
/// # Errors
/// When it cannot be read.
pub(crate) fn read(
    topic: &str,
    partitions: i32,
    connections: usize,
    target: &Target,
) -> io::Result<LoadResult> {
    let mut rpc = Rpc::connect(target.address)?;
    let consumption = row::stored(&mut rpc, topic, partitions, connections)?;
    row::read(consumption, Duration::from_secs(120), target)
}

/// The versions that the programs print.
///
/// # Errors
/// When a program cannot be started.
pub(crate) fn versions(programs: &Programs) -> io::Result<BTreeMap<&'static str, String>> {
    let first_line = |command: &mut Command| -> io::Result<String> {
        let output = command.stdin(Stdio::null()).output()?;
        let text = [output.stdout, output.stderr].concat();
        let text = String::from_utf8_lossy(&text).into_owned();
        Ok(text.lines().next().unwrap_or_default().trim().to_owned())
    };
    let kcat = first_line(Command::new("sh").args(["-c", "kcat -V 2>&1 | grep -o 'Version.*'"]))?;
    Ok(BTreeMap::from([
        (
            "chronik",
            first_line(Command::new(&programs.chronik).arg("--version"))?,
        ),
        (
            "kafka",
            first_line(programs.kafka_tool("kafka-topics").arg("--version"))?,
        ),
        ("java", first_line(Command::new("java").arg("-version"))?),
        ("kcat", kcat),
    ]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_line_of_the_producer_tool_is_read() {
        let printed = "501 records sent, 100.2 records/sec (0.10 MB/sec), 1 ms avg latency.\n\
            600000 records sent, 143061.5 records/sec (139.71 MB/sec), 12.30 ms avg latency, \
            200.00 ms max latency, 5 ms 50th, 20 ms 95th, 30 ms 99th, 40 ms 99.9th.\n";
        let figures = steady_state(printed).expect("figures");
        assert_eq!(figures["records_per_s"], 143_061.5);
        assert_eq!(figures["p50_ms"], 5.0);
        assert_eq!(figures["p999_ms"], 40.0);
        assert!((figures["mb_per_s"] - 146.496).abs() < 0.01);
        assert_eq!(steady_state("ERROR no broker\n"), None);
    }
}
