//! Measurements of more than one load: reading stored records, a cold reader beside a producer, starts with their
//! memory and idling.
//!
//! Each begins on an empty directory and yields several cells. Never judges a figure.

use std::fs;
use std::io;
use std::net::TcpStream;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use chronik_protocol::ApiKey;
use rustix::fs::Advice;

use crate::compare::cells;
use crate::compare::contestant::{Contestant, Programs, Seat, Server};
use crate::compare::effort::Effort;
use crate::compare::state::Entry;
use crate::compare::tools;
use crate::figures::{self, Figures};
use crate::load::LoadResult;
use crate::row::{self, Limits};
use crate::rpc::{Rpc, invalid};
use crate::target::Target;

/// Partitions of the topic to read.
const PARTITIONS: i32 = 16;
/// Partitions of the restart and idle measurements.
const MANY_PARTITIONS: i32 = 1_000;
/// Silent connections of the idle measurement.
const IDLE_CONNECTIONS: usize = 100;
/// Share of a core used by unrelated processes above which a load is measured again, a bounded number of times.
const DISTURBED_SHARE: f64 = 0.1;
const DISTURBED_TRIES: usize = 3;
/// Connections of the reader.
const READERS: usize = 4;

/// Cells with their results; a failure has its reason.
pub(crate) type Results = Vec<(&'static str, Entry)>;

fn entry(result: io::Result<Figures>) -> Entry {
    match result {
        Ok(figures) => Entry::Measured(figures),
        Err(error) => Entry::Failed(error.to_string()),
    }
}

/// The cells of [`read`].
pub(crate) const READ_CELLS: [&str; 6] = [
    "read/just-written-bench",
    "read/just-written-kcat",
    "read/just-written-consumer-perf",
    "read/cold-bench",
    "read/cold-kcat",
    "read/cold-consumer-perf",
];

/// Fills a topic and reads it with three clients: just written, and with an emptied page cache.
///
/// # Errors
/// When the broker cannot be started or filled.
pub(crate) fn read(
    contestant: Contestant,
    programs: &Programs,
    effort: Effort,
) -> io::Result<Results> {
    let seat = Seat::prepare(contestant, programs)?;
    let server = seat.start()?;
    let target = &server.target;
    warm_up(target, effort.warm_up(contestant))?;
    fill(target, "stored", PARTITIONS, effort.stored_bytes())?;
    rustix::fs::sync();
    let first = tools::read("stored", PARTITIONS, READERS, target)?;
    let (records, bytes) = (first.fetched_records, first.fetched_bytes);
    let has_groups = Rpc::connect(target.address)?.serves(ApiKey::FindCoordinator);
    let consumer_perf = || {
        if !has_groups {
            return Err(invalid("the broker serves no consumer groups"));
        }
        tools::consumer_perf("stored", records, bytes, programs, target)
    };
    let bench = || {
        let outcome = tools::read("stored", PARTITIONS, READERS, target)?;
        whole(&outcome, records).map(|()| figures::of(&outcome))
    };
    let cold = || empty_page_cache(&seat.data());
    let mut results = Results::new();
    let [
        first_bench,
        first_kcat,
        first_perf,
        cold_bench,
        cold_kcat,
        cold_perf,
    ] = READ_CELLS;
    results.push((first_bench, Entry::Measured(figures::of(&first))));
    results.push((
        first_kcat,
        entry(tools::kcat("stored", records, bytes, target)),
    ));
    results.push((first_perf, entry(consumer_perf())));
    results.push((cold_bench, entry(cold().and_then(|()| bench()))));
    let kcat = cold().and_then(|()| tools::kcat("stored", records, bytes, target));
    results.push((cold_kcat, entry(kcat)));
    results.push((cold_perf, entry(cold().and_then(|()| consumer_perf()))));
    Ok(results)
}

/// The cell of [`neighbour`].
pub(crate) const NEIGHBOUR_CELLS: [&str; 1] = ["neighbour/5000-16c"];

/// A fixed rate alone, and beside a reader at full speed from the disk.
///
/// # Errors
/// When the broker cannot be started or filled, or either load fails.
pub(crate) fn neighbour(
    contestant: Contestant,
    programs: &Programs,
    effort: Effort,
) -> io::Result<Results> {
    let seat = Seat::prepare(contestant, programs)?;
    let server = seat.start()?;
    let target = &server.target;
    warm_up(target, effort.warm_up(contestant))?;
    fill(target, "stored", PARTITIONS, effort.stored_bytes())?;
    rustix::fs::sync();
    let load = cells::neighbour();
    let alone = load.measure(target, &effort.long_limits())?;
    let data = seat.data();
    let ended = AtomicBool::new(false);
    let (beside, read) = thread::scope(|scope| {
        let reader = scope.spawn(|| read_until(&ended, &data, target));
        let beside = load.measure(target, &effort.long_limits());
        ended.store(true, Ordering::Relaxed);
        let panicked = |_| Err(io::Error::other("the reader panicked"));
        (beside, reader.join().unwrap_or_else(panicked))
    });
    let (beside, read_mb_per_s) = (beside?, read?);
    let mut figures = figures::of(&beside);
    for (name, quantile) in [("p50", 0.5), ("p99", 0.99), ("p999", 0.999)] {
        let without = alone.latency_us.value_at_quantile(quantile) as f64;
        let with = beside.latency_us.value_at_quantile(quantile) as f64;
        figures.insert(format!("alone_{name}_us"), without);
        figures.insert(format!("disturbed_{name}_ratio"), with / without.max(1.0));
    }
    figures.insert("neighbour_mb_per_s".to_owned(), read_mb_per_s);
    Ok(vec![(NEIGHBOUR_CELLS[0], Entry::Measured(figures))])
}

/// Reads the stored topic from the disk repeatedly; returns the rate.
fn read_until(ended: &AtomicBool, data: &Path, target: &Target) -> io::Result<f64> {
    let (started, mut bytes) = (Instant::now(), 0);
    while !ended.load(Ordering::Relaxed) {
        empty_page_cache(data)?;
        bytes += tools::read("stored", PARTITIONS, 1, target)?.fetched_bytes;
    }
    Ok(bytes as f64 / 1e6 / started.elapsed().as_secs_f64())
}

/// The cells of [`start`].
pub(crate) const START_CELLS: [&str; 4] = [
    "start/empty",
    "start/1000-partitions",
    "start/idle",
    "start/killed",
];

/// Starts: on an empty directory, after a clean stop with 1,000 partitions, after SIGKILL in the
/// middle of a load; and idling with those partitions and 100 connections.
///
/// # Errors
/// When the broker cannot be started or filled.
pub(crate) fn start(
    contestant: Contestant,
    programs: &Programs,
    effort: Effort,
) -> io::Result<Results> {
    let [empty, many, idle, killed] = START_CELLS;
    let seat = Seat::prepare(contestant, programs)?;
    let server = seat.start()?;
    let mut results = vec![(empty, Entry::Measured(started(&server)))];
    fill(
        &server.target,
        "many",
        MANY_PARTITIONS,
        effort.spread_bytes(),
    )?;
    server.stop()?;

    let (server, figures) = restart(&seat)?;
    results.push((many, Entry::Measured(figures)));
    results.push((idle, entry(idling(&server.target, effort))));
    let limits = Limits {
        warm_up: Duration::ZERO,
        measured: Duration::from_secs(2),
        bytes_max: effort.spread_bytes(),
    };
    cells::fill("many", MANY_PARTITIONS).measure(&server.target, &limits)?;
    server.kill();

    let (server, figures) = restart(&seat)?;
    results.push((killed, Entry::Measured(figures)));
    server.kill();
    Ok(results)
}

fn started(server: &Server) -> Figures {
    let resident = server.target.subject.resident_bytes().unwrap_or_default();
    Figures::from([
        (
            "start_ms".to_owned(),
            server.start_up.as_secs_f64() * 1_000.0,
        ),
        ("resident_bytes".to_owned(), resident as f64),
    ])
}

/// Restarts on the many partitions; ready when each of them answers.
fn restart(seat: &Seat) -> io::Result<(Server, Figures)> {
    let began = Instant::now();
    let server = seat.start()?;
    let mut rpc = Rpc::connect(server.target.address)?;
    rpc.await_topic("many", MANY_PARTITIONS)?;
    let ready_ms = began.elapsed().as_secs_f64() * 1_000.0;
    let mut figures = started(&server);
    figures.insert("ready_ms".to_owned(), ready_ms);
    Ok((server, figures))
}

fn idling(target: &Target, effort: Effort) -> io::Result<Figures> {
    let connect = |_| TcpStream::connect(target.address);
    let connections: io::Result<Vec<TcpStream>> = (0..IDLE_CONNECTIONS).map(connect).collect();
    let connections = connections?;
    thread::sleep(effort.settle());
    let before = target.subject.run_time();
    let began = Instant::now();
    thread::sleep(effort.idle());
    let spent = target.subject.run_time().saturating_sub(before);
    let percent = 100.0 * spent.as_secs_f64() / began.elapsed().as_secs_f64();
    drop(connections);
    Ok(Figures::from([
        ("idle_cpu_percent_of_a_core".to_owned(), percent),
        (
            "resident_bytes".to_owned(),
            target.subject.resident_bytes().unwrap_or_default() as f64,
        ),
    ]))
}

/// Loads the broker without measuring, so that a JVM has compiled its hot code.
///
/// # Errors
/// When a load fails.
pub(crate) fn warm_up(target: &Target, length: Duration) -> io::Result<()> {
    let rows = cells::warm_ups();
    for row in &rows {
        let limits = Limits {
            warm_up: Duration::ZERO,
            measured: length / rows.len() as u32,
            bytes_max: 2_000_000_000,
        };
        row.measure(target, &limits)?;
    }
    Ok(())
}

/// Produces about `bytes` into a topic, which stays.
fn fill(target: &Target, topic: &str, partitions: i32, bytes: u64) -> io::Result<()> {
    let limits = Limits {
        warm_up: Duration::ZERO,
        measured: Duration::from_secs(120),
        bytes_max: bytes,
    };
    let outcome = cells::fill(topic, partitions).measure(target, &limits)?;
    if !outcome.is_sound() || outcome.bytes < bytes {
        return Err(invalid(format!(
            "only {} bytes of {topic} were written, {} errors",
            outcome.bytes, outcome.failures
        )));
    }
    Ok(())
}

fn whole(outcome: &LoadResult, records: u64) -> io::Result<()> {
    if outcome.fetched_records == records {
        return Ok(());
    }
    Err(invalid(format!(
        "{} of {records} records were read",
        outcome.fetched_records
    )))
}

/// Drops the files below `folder` from the page cache, as after a restart of the machine.
fn empty_page_cache(folder: &Path) -> io::Result<()> {
    rustix::fs::sync();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        // Folders and files of removed topics may vanish at any moment.
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let Ok(file) = fs::File::open(path) else {
                continue;
            };
            rustix::fs::fadvise(&file, 0, None, Advice::DontNeed)?;
        }
    }
    Ok(())
}

/// Measures a load of `chronik-bench` on a running broker.
///
/// # Errors
/// When the load fails or a request remains unanswered.
pub(crate) fn load(row: &row::Row, target: &Target, limits: &Limits) -> io::Result<Figures> {
    rustix::fs::sync();
    let mut outcome = row.measure(target, limits)?;
    for _ in 0..DISTURBED_TRIES {
        if outcome.others_share() <= DISTURBED_SHARE {
            break;
        }
        outcome = row.measure(target, limits)?;
    }
    if outcome.failures > 0 {
        let code = outcome.first_error.unwrap_or_default();
        return Err(invalid(format!(
            "{} replies with errors, first code {code}",
            outcome.failures
        )));
    }
    Ok(figures::of(&outcome))
}
