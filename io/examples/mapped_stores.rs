//! Cost of an append that survives the end of the process: stores into a mapped file, by the size of the file
//! cycled over, against a direct write without a sync.
//!
//! `cargo run --release -p chronik-io --example mapped_stores [directory]`. Prints nanoseconds per
//! append, median and tails. Small laps stay in the core's cache and fault only when the kernel has
//! written their pages back; the first lap of a large file pays for each page.

use chronik_io::{
    BLOCK_BYTES, BlockBuffer, DirectWorld, ExecutorOptions, File, Mapping, OpenMode, ShardSeat,
    World, executor,
};
use std::io;
use std::path::{Path, PathBuf};

/// Bytes of one append: a produce request of one 1 KiB record.
const APPEND_BYTES: usize = 1_100;
/// Bytes from one append to the next, in whole cache lines.
const STRIDE_BYTES: usize = 1_152;
const FILE_BYTES: usize = 64 << 20;
/// Bytes brought into memory ahead of the stores.
const PREPARED_BYTES: usize = 128 << 10;
const APPENDS: usize = 400_000;
const WRITES: u64 = 20_000;
/// Blocks written before, which the direct writes cycle over.
const BLOCKS: u64 = 2048;

fn print(what: &str, mut took_ns: Vec<u64>) {
    took_ns.sort_unstable();
    let at = |part: f64| took_ns[((took_ns.len() - 1) as f64 * part) as usize];
    let mean = took_ns.iter().sum::<u64>() / took_ns.len() as u64;
    println!(
        "{what:<34} {mean:>8} {:>8} {:>8} {:>9} {:>9}",
        at(0.5),
        at(0.99),
        at(0.999),
        at(1.0)
    );
}

async fn stores(world: &DirectWorld, dir: &Path, lap_bytes: usize) -> io::Result<()> {
    let path = dir.join("mapped");
    let mut mapping = world.create_mapping(&path, FILE_BYTES).await?;
    let bytes = [7; APPEND_BYTES];
    for pass in ["first laps", "later laps"] {
        let mut took_ns = Vec::with_capacity(APPENDS);
        let (mut at, mut prepared) = (0, 0);
        for _ in 0..APPENDS / 2 {
            let started_ns = world.monotonic_ns();
            if at + STRIDE_BYTES > lap_bytes {
                (at, prepared) = (0, 0);
            }
            if at + STRIDE_BYTES > prepared {
                let end = (at + STRIDE_BYTES + PREPARED_BYTES).min(FILE_BYTES);
                mapping.prepare(at, end - at)?;
                prepared = end;
            }
            mapping.store(at + 48, &bytes);
            mapping.store(at, &[1; 40]);
            mapping.publish(at + 40, 1);
            at += STRIDE_BYTES;
            took_ns.push(world.monotonic_ns() - started_ns);
        }
        print(&format!("{} KiB, {pass}", lap_bytes >> 10), took_ns);
    }
    world.remove_file(&path).await
}

async fn writes(world: &DirectWorld, dir: &Path) -> io::Result<()> {
    let path = dir.join("written");
    let file = world.open_file(&path, OpenMode::ReadWriteCreate).await?;
    for block in 0..BLOCKS {
        let mut buffer = file.buffer(BLOCK_BYTES);
        buffer.as_mut_slice().fill(0);
        file.write_at(buffer, block * BLOCK_BYTES as u64).await?;
    }
    file.sync_data().await?;
    let mut took_ns = Vec::new();
    for number in 0..WRITES {
        let started_ns = world.monotonic_ns();
        let mut buffer = file.buffer(BLOCK_BYTES);
        buffer.as_mut_slice().fill(7);
        let position = number % BLOCKS * BLOCK_BYTES as u64;
        file.write_at(buffer, position).await?;
        took_ns.push(world.monotonic_ns() - started_ns);
    }
    print("a direct write, not synced", took_ns);
    file.close().await?;
    world.remove_file(&path).await
}

fn main() -> io::Result<()> {
    let parent = std::env::args()
        .nth(1)
        .map_or_else(std::env::temp_dir, PathBuf::from);
    let own = parent.join(format!("mapped-stores-{}", std::process::id()));
    std::fs::create_dir_all(&own)?;
    println!(
        "{:<34} {:>8} {:>8} {:>8} {:>9} {:>9}",
        "ns per append", "mean", "p50", "p99", "p99.9", "max"
    );
    let options = ExecutorOptions::new(1)?;
    let dir = own.clone();
    let shard = move |seat: ShardSeat<(), ()>| {
        let dir = dir.clone();
        async move {
            for lap_bytes in [256 << 10, 4 << 20, FILE_BYTES] {
                stores(&seat.world, &dir, lap_bytes).await?;
            }
            writes(&seat.world, &dir).await
        }
    };
    let outcome = executor::run(options, shard).and_then(executor::Running::join);
    std::fs::remove_dir_all(&own)?;
    outcome
}
