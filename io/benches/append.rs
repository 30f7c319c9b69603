//! Micro-benchmarks of `AppendFile`: the core's cost of an append, without the disk's time.
//!
//! `cargo bench -p chronik-io --bench append`. The disk is the simulated one, in memory, and its
//! work is not timed; `cargo run --release -p chronik-io --example append_sync` times real writes.

use std::path::Path;
use std::time::{Duration, Instant};

use chronik_io::append::{AppendFile, AppendOptions};
use chronik_io::simulated::{SimulatedWorld, Simulation};
use chronik_io::world::World;
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};

/// Bytes after which the file is started anew, so that the disk in memory stays small.
const FILE_BYTES_MAX: usize = 64 << 20;
/// Appends between two writes, and bytes of them.
const APPENDS_PER_WRITE: usize = 32;
const BYTES_PER_WRITE: usize = 1 << 20;

struct Rig {
    simulation: Simulation,
    file: AppendFile<<SimulatedWorld as World>::File>,
    appended: usize,
}

impl Rig {
    fn new() -> Self {
        let mut simulation = Simulation::new(1);
        let world = simulation.world();
        let path = Path::new("/appended");
        let opening = AppendFile::open(&world, path, 0, AppendOptions::default());
        let file = simulation.run(opening).expect("a new file opens");
        Self {
            simulation,
            file,
            appended: 0,
        }
    }

    /// Reserves room for `bytes` and the rest of their last block.
    fn make_room(&mut self, bytes: usize) {
        self.file.reserve(bytes as u64);
        while let Some(job) = self.file.take_zero() {
            let result = self.simulation.run(job.perform());
            self.file.complete(result).expect("a healthy disk");
        }
        assert!(self.file.room() >= bytes as u64, "no room");
    }

    fn write(&mut self) {
        while let Some(job) = self.file.take_write() {
            let result = self.simulation.run(job.perform());
            self.file.complete(result).expect("a healthy disk");
        }
    }
}

fn append(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("append_file");
    for bytes in [1_100, 16_700, 655_800] {
        let batch = vec![7; bytes];
        // As a partition appends: the rewritten prefix, and the rest as received.
        let (prefix, rest) = batch.split_at(16);
        let per_write = (BYTES_PER_WRITE / bytes).clamp(1, APPENDS_PER_WRITE);
        group.throughput(Throughput::Bytes(bytes as u64));
        let id = BenchmarkId::from_parameter(bytes);
        group.bench_function(id, |bencher| {
            bencher.iter_custom(|mut appends| {
                let mut took = Duration::ZERO;
                let mut rig = Rig::new();
                while appends > 0 {
                    if rig.appended > FILE_BYTES_MAX {
                        rig = Rig::new();
                    }
                    let round = appends.min(per_write as u64);
                    rig.make_room(per_write * bytes);
                    let started = Instant::now();
                    for _ in 0..round {
                        rig.file.append(&[prefix, rest]).expect("there is room");
                    }
                    took += started.elapsed();
                    rig.write();
                    rig.appended += per_write * bytes;
                    appends -= round;
                }
                took
            });
        });
    }
    group.finish();
}

criterion_group!(benches, append);
criterion_main!(benches);
