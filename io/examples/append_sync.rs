//! Speed of durable appends: `O_DSYNC` against `fdatasync`, one file and sixteen.
//!
//! `cargo run --release -p chronik-io --example append_sync [directory] [seconds]`. Prints appends
//! per second, latency percentiles and this process's CPU per append. Kernel workers that act for a
//! write count to the process only in part; compare with the system's figures under load.

use chronik_io::append::{AppendFile, AppendOptions, SyncMethod, SyncMode};
use chronik_io::world::World;
use chronik_io::{DirectFile, DirectWorld, ExecutorOptions, ShardSeat, executor, process};
use std::cell::RefCell;
use std::io;
use std::path::PathBuf;
use std::rc::Rc;

/// Bytes of one append: a produce request of one 1 KiB record.
const APPEND_BYTES: usize = 1_100;

/// Appends by one writer that are grouped into one write.
const GROUPS: [u64; 2] = [1, 16];

async fn write_for(
    world: DirectWorld,
    mut file: AppendFile<DirectFile>,
    group: u64,
    until_ns: u64,
    latencies_ns: Rc<RefCell<Vec<u64>>>,
) -> io::Result<()> {
    let bytes = [7; APPEND_BYTES];
    while world.monotonic_ns() < until_ns {
        let needed = APPEND_BYTES as u64 * group;
        if file.room() < needed {
            file.reserve(needed);
        }
        if let Some(zeroing) = file.take_zero() {
            let result = zeroing.perform().await;
            file.complete(result).map_err(io::Error::other)?;
        }
        let started_ns = world.monotonic_ns();
        for _ in 0..group {
            file.append(&[&bytes]).map_err(io::Error::other)?;
        }
        let Some(job) = file.take_write() else {
            continue;
        };
        let result = job.perform().await;
        file.complete(result).map_err(io::Error::other)?;
        let took_ns = world.monotonic_ns() - started_ns;
        latencies_ns.borrow_mut().push(took_ns);
    }
    file.seal().await.map_err(io::Error::other)?;
    Ok(())
}

async fn measure(
    world: &DirectWorld,
    dir: &std::path::Path,
    seconds: u64,
    files: usize,
    group: u64,
    (sync, method): (SyncMode, SyncMethod),
) -> io::Result<()> {
    let latencies_ns = Rc::new(RefCell::new(Vec::new()));
    let done = Rc::new(std::cell::Cell::new(0));
    let options = AppendOptions {
        sync,
        method,
        ..AppendOptions::default()
    };
    let mut opened = Vec::new();
    for number in 0..files {
        let path = dir.join(format!("append-{number}"));
        opened.push(AppendFile::open(world, &path, 0, options).await?);
    }
    let before = process::figures()?;
    let started_ns = world.monotonic_ns();
    let until_ns = started_ns + seconds * 1_000_000_000;
    for file in opened {
        let write = write_for(
            world.clone(),
            file,
            group,
            until_ns,
            Rc::clone(&latencies_ns),
        );
        let done = Rc::clone(&done);
        world.spawn(async move {
            if let Err(error) = write.await {
                eprintln!("{error}");
            }
            done.set(done.get() + 1);
        });
    }
    while done.get() < files {
        world.sleep_until(world.monotonic_ns() + 1_000_000).await;
    }
    let took = (world.monotonic_ns() - started_ns) as f64 / 1e9;
    let cpu_us = (process::figures()?.cpu_ms - before.cpu_ms) as f64 * 1e3;
    let sorted = latencies_ns.borrow_mut().split_off(0);
    print_row(sorted, took, cpu_us, files, group, (sync, method));
    for number in 0..files {
        world
            .remove_file(&dir.join(format!("append-{number}")))
            .await?;
    }
    Ok(())
}

fn print_row(
    mut sorted: Vec<u64>,
    took: f64,
    cpu_us: f64,
    files: usize,
    group: u64,
    (sync, method): (SyncMode, SyncMethod),
) {
    sorted.sort_unstable();
    let at = |share: f64| {
        let index = (sorted.len() as f64 * share) as usize;
        sorted
            .get(index.min(sorted.len().saturating_sub(1)))
            .copied()
            .unwrap_or(0)
            / 1_000
    };
    let appends = sorted.len() as f64 * group as f64;
    let name = match (sync, method) {
        (SyncMode::None, _) => "no sync",
        (SyncMode::Data, SyncMethod::WriteThrough) => "O_DSYNC",
        (SyncMode::Data, SyncMethod::SyncAfterWrite) => "fdatasync",
    };
    println!(
        "{name:9} files {files:2} group {group:2}: {:8.0} appends/s  write p50 {:5} p99 {:6} us  \
         CPU {:5.1} us/append",
        appends / took,
        at(0.5),
        at(0.99),
        cpu_us / appends,
    );
}

fn main() -> io::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let parent = arguments
        .next()
        .map_or_else(std::env::temp_dir, PathBuf::from);
    let seconds = arguments
        .next()
        .and_then(|text| text.parse().ok())
        .unwrap_or(2);
    let dir = parent.join(format!("append-sync-{}", std::process::id()));
    std::fs::create_dir_all(&dir)?;
    let own = dir.clone();
    let main = move |seat: ShardSeat<(), ()>| {
        let dir = own.clone();
        async move {
            for files in [1, 16] {
                for group in GROUPS {
                    for kind in [
                        (SyncMode::None, SyncMethod::WriteThrough),
                        (SyncMode::Data, SyncMethod::WriteThrough),
                        (SyncMode::Data, SyncMethod::SyncAfterWrite),
                    ] {
                        measure(&seat.world, &dir, seconds, files, group, kind).await?;
                    }
                }
            }
            Ok(())
        }
    };
    let outcome = executor::run(ExecutorOptions::new(1)?, main).and_then(executor::Running::join);
    std::fs::remove_dir_all(&dir)?;
    outcome
}
