//! Micro-benchmarks of the mesh: a call to the own shard, a call to another one and back, and many calls in
//! flight.
//!
//! `cargo bench -p chronik-io`. Each sample starts executors of its own; only the calls are timed.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use chronik_io::{Endpoint, ExecutorOptions, Responder, ShardSeat, World, executor};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};

/// A call answered when the measurement is over: keeps a shard serving until then.
const UNTIL_THE_END: u64 = u64::MAX;

/// Times `calls` calls of shard 0 to shard `destination`, `under_way` of them in flight.
fn run(shards: usize, destination: usize, calls: u64, under_way: u64) -> Duration {
    let (told, took) = channel();
    let main = move |seat: ShardSeat<u64, u64>| {
        let told = told.clone();
        async move {
            let ShardSeat {
                index,
                world,
                endpoint,
                ..
            } = seat;
            let waiting: Rc<RefCell<Vec<Responder<u64>>>> = Rc::default();
            let (pump, serving, kept) = (world.clone(), endpoint.clone(), Rc::clone(&waiting));
            world.spawn(async move {
                let answer = move |ask: u64, responder: Responder<u64>| {
                    if ask == UNTIL_THE_END {
                        kept.borrow_mut().push(responder);
                    } else {
                        responder.reply(ask + 1);
                    }
                };
                serving.serve(&pump, answer).await;
            });
            if index == 0 {
                let took = timed(&endpoint, destination, calls, under_way).await;
                // Unheard only when the benchmark was ended.
                let _unheard = told.send(took);
                waiting.borrow_mut().clear();
            } else {
                // Lost or answered, it is over.
                let _over = endpoint.call(0, UNTIL_THE_END).await;
            }
            Ok(())
        }
    };
    let options = ExecutorOptions::new(shards).expect("cores");
    let running = executor::run(options, main).expect("executors");
    let took = took.recv().expect("a time");
    running.join().expect("shards end well");
    took
}

async fn timed(
    endpoint: &Endpoint<u64, u64>,
    destination: usize,
    calls: u64,
    under_way: u64,
) -> Duration {
    let started = Instant::now();
    let mut left = calls;
    while left > 0 {
        let burst = left.min(under_way);
        let mut sent = Vec::with_capacity(burst as usize);
        for ask in 0..burst {
            sent.push(endpoint.send(destination, ask).await);
        }
        for call in sent {
            call.await.expect("a reply");
        }
        left -= burst;
    }
    started.elapsed()
}

fn mesh(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("mesh");
    group.sample_size(10).throughput(Throughput::Elements(1));
    for (name, shards, destination, under_way) in [
        ("own-shard", 1, 0, 1),
        ("other-shard", 2, 1, 1),
        ("other-shard-64-under-way", 2, 1, 64),
    ] {
        group.bench_function(name, |bencher| {
            bencher.iter_custom(|calls| run(shards, destination, calls, under_way));
        });
    }
    group.finish();
}

criterion_group!(benches, mesh);
criterion_main!(benches);
