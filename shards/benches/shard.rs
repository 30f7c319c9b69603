//! Micro-benchmarks of one shard on a real executor and a real disk: appends under each promise, one
//! by one and sixty-four under way, and fetches answered out of the cache.
//!
//! `cargo bench -p chronik-shards`. Sockets, frames and the batch check are not in it. Each sample
//! starts a shard of its own below the build directory; only the requests are timed.

use std::collections::BTreeMap;
use std::future::Future;
use std::io;
use std::path::Path;
use std::pin::Pin;
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use chronik_catalog::{ControllerReply, ControllerRequest, NewTopic};
use chronik_io::executor::{ExecutorOptions, ShardSeat, run};
use chronik_protocol::record::{BatchBuilder, CheckedBatch, NewRecord};
use chronik_protocol::{ErrorCode, Str};
use chronik_shards::*;
use chronik_terms::*;
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};

const TOPIC: &str = "orders";
/// Bytes of one fetch, as Kafka's consumer asks for a partition.
const FETCH_BYTES: usize = 1 << 20;

fn batch(records: usize, record_bytes: usize) -> CheckedBatch {
    let value = vec![7; record_bytes];
    let mut builder = BatchBuilder::new(0);
    for _ in 0..records {
        let record = NewRecord {
            timestamp: 1_700_000_000_000,
            value: Some(&value),
            ..NewRecord::default()
        };
        builder.push(&record).expect("small");
    }
    builder.build().expect("valid")
}

type Timed = Pin<Box<dyn Future<Output = Duration>>>;

/// Lives one shard's life on an empty directory; `work` is what is timed, by itself.
fn live<Work>(durability: &'static str, work: Work) -> Duration
where
    Work: Fn(ShardHandle, PartitionId) -> Timed + Clone + Send + 'static,
{
    let binary = std::env::current_exe().expect("a benchmark's binary");
    let folder = binary.parent().expect("in a directory");
    let scratch = tempfile::tempdir_in(folder).expect("a directory beside the binary");
    let options = options(&scratch.path().join("data"), durability);
    let (told, took) = channel();
    let main = move |seat: ShardSeat<Request, Reply>| {
        let (options, told, work) = (options.clone(), told.clone(), work.clone());
        async move {
            let started = start(seat.world, seat.endpoint, &options).await;
            let handle = started.map_err(io::Error::other)?;
            let partition = create(&handle).await;
            // Nobody listens only when the benchmark was ended.
            let _unheard = told.send(work(handle.clone(), partition).await);
            handle.stop().await.map(drop).map_err(io::Error::other)
        }
    };
    let executors = ExecutorOptions::new(1).expect("cores");
    let running = run(executors, main).expect("an executor");
    let took = took.recv().expect("a time");
    running.join().expect("the shard ends well");
    took
}

fn options(data: &Path, durability: &str) -> StartOptions {
    let durability = Str::from(durability.to_owned());
    StartOptions {
        data: data.to_owned(),
        more_data: Vec::new(),
        node_id: 1,
        cluster_id: None,
        endpoints: Vec::new(),
        rack: None,
        write_behind_bytes: 64 << 20,
        remember_after_bytes: chronik_shards::limits::REMEMBER_AFTER_BYTES,
        static_configs: BTreeMap::from([(Str::from("chronik.durability"), durability)]),
    }
}

async fn create(handle: &ShardHandle) -> PartitionId {
    let request = ControllerRequest::CreateTopics {
        topics: vec![NewTopic {
            partition_count: 1,
            ..NewTopic::with_defaults(Str::from(TOPIC))
        }],
        validate_only: false,
    };
    let endpoint = handle.endpoint();
    match endpoint.call(0, Request::Control(request)).await {
        Ok(Reply::Control(ControllerReply::CreateTopics(topics))) => {
            topics[0].result.as_ref().expect("created");
        }
        other => panic!("{other:?}"),
    }
    let topic_id = handle.image().topic(TOPIC).expect("the topic").id;
    PartitionId { topic_id, index: 0 }
}

fn append_request(partition: PartitionId, batch: &CheckedBatch) -> Request {
    Request::Append(AppendRequest {
        acks: Acks::All,
        timeout_ms: 60_000,
        parts: vec![AppendPart {
            partition,
            batch: batch.clone(),
        }],
    })
}

/// Appends so often, with so many under way at once.
async fn append_all(
    handle: &ShardHandle,
    partition: PartitionId,
    batch: &CheckedBatch,
    (mut left, under_way): (u64, u64),
) {
    while left > 0 {
        let burst = left.min(under_way);
        let mut calls = Vec::with_capacity(burst as usize);
        for _ in 0..burst {
            let request = append_request(partition, batch);
            calls.push(handle.endpoint().send(0, request).await);
        }
        for call in calls {
            match call.await {
                Ok(Reply::Append(results)) => assert_eq!(results[0].error, ErrorCode::None),
                other => panic!("{other:?}"),
            }
        }
        left -= burst;
    }
}

fn append(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("append");
    group.sample_size(10);
    for durability in ["process", "disk"] {
        for (records, record_bytes) in [(1, 1024), (16, 1024)] {
            for under_way in [1, 64] {
                let batch = batch(records, record_bytes);
                group.throughput(Throughput::Bytes(batch.bytes.len() as u64));
                let name = format!("{durability}-{records}x{record_bytes}-{under_way}-under-way");
                group.bench_function(BenchmarkId::from_parameter(name), |bencher| {
                    bencher.iter_custom(|appends| {
                        let batch = batch.clone();
                        live(durability, move |handle, partition| {
                            let batch = batch.clone();
                            Box::pin(async move {
                                let started = Instant::now();
                                let amount = (appends, under_way);
                                append_all(&handle, partition, &batch, amount).await;
                                started.elapsed()
                            })
                        })
                    });
                });
            }
        }
    }
    group.finish();
}

fn fetch(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("fetch_from_cache");
    group.sample_size(10);
    for (batches, records) in [(1, 1), (64, 1), (64, 15)] {
        let batch = batch(records, 1024);
        group.throughput(Throughput::Bytes(batches * batch.bytes.len() as u64));
        let name = format!("{batches}-batches-of-{records}x1024");
        group.bench_function(BenchmarkId::from_parameter(name), |bencher| {
            bencher.iter_custom(|fetches| {
                let batch = batch.clone();
                live("process", move |handle, partition| {
                    let batch = batch.clone();
                    Box::pin(async move {
                        append_all(&handle, partition, &batch, (batches, 1)).await;
                        let stored = batches * batch.bytes.len() as u64;
                        timed_fetches(&handle, partition, fetches, stored).await
                    })
                })
            });
        });
    }
    group.finish();
}

async fn timed_fetches(
    handle: &ShardHandle,
    partition: PartitionId,
    fetches: u64,
    stored: u64,
) -> Duration {
    let endpoint = handle.endpoint();
    let started = Instant::now();
    for _ in 0..fetches {
        let request = ReadRequest {
            isolation: Isolation::ReadUncommitted,
            max_bytes: FETCH_BYTES,
            parts: vec![ReadPart {
                partition,
                fetch_offset: 0,
                max_bytes: FETCH_BYTES,
                current_leader_epoch: -1,
                last_fetched_epoch: -1,
            }],
            wait: None,
            reader: None,
        };
        match endpoint.call(0, Request::Read(request)).await {
            Ok(Reply::Read(results)) => assert_eq!(results[0].records.len() as u64, stored),
            other => panic!("{other:?}"),
        }
    }
    started.elapsed()
}

criterion_group!(benches, append, fetch);
criterion_main!(benches);
