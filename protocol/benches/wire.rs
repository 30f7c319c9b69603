//! Micro-benchmarks of a request's cost before and after the log: decoding a produce request, checking its
//! batch, encoding a fetch reply.
//!
//! `cargo bench -p chronik-protocol --bench wire`. `instructions.rs` counts the same work.

mod subjects;

use std::hint::black_box;

use chronik_protocol::record::Compression;
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use subjects::SHAPES;

fn decode(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("decode_produce");
    for (records, record_bytes) in SHAPES {
        let batch = subjects::batch(records, record_bytes, Compression::None);
        let frame = subjects::produce_frame(&batch);
        group.throughput(Throughput::Bytes(frame.len() as u64));
        let id = BenchmarkId::from_parameter(format!("{records}x{record_bytes}"));
        group.bench_with_input(id, &frame, |bencher, frame| {
            bencher.iter(|| subjects::decode(black_box(frame)));
        });
    }
    group.finish();
}

fn check(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("check_batch");
    for (records, record_bytes) in SHAPES {
        for codec in [Compression::None, Compression::Lz4, Compression::Zstd] {
            let batch = subjects::batch(records, record_bytes, codec);
            group.throughput(Throughput::Bytes((records * record_bytes) as u64));
            let id = BenchmarkId::from_parameter(format!("{records}x{record_bytes}-{codec:?}"));
            group.bench_with_input(id, &batch, |bencher, batch| {
                bencher.iter(|| subjects::check(black_box(batch)));
            });
        }
    }
    group.finish();
}

fn encode(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("encode_fetch");
    let stored = subjects::batch(16, 1024, Compression::None);
    for (partitions, batches) in [(1, 1), (1, 64), (16, 16), (256, 1)] {
        let response = subjects::fetch_response(partitions, batches, &stored);
        let bytes = partitions as usize * batches * stored.len();
        group.throughput(Throughput::Bytes(bytes as u64));
        let id = BenchmarkId::from_parameter(format!("{partitions}-partitions-{batches}-batches"));
        group.bench_with_input(id, &response, |bencher, response| {
            bencher.iter(|| subjects::encode(black_box(response)));
        });
    }
    group.finish();
}

criterion_group!(benches, decode, check, encode);
criterion_main!(benches);
