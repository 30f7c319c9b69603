//! Topics deleted and created again under the same names, while records are appended, deleted by
//! request, retained and compacted, and the broker is killed, stopped or loses power between any two
//! steps, on several shards and log directories. Afterwards every acknowledged record that was not
//! deleted is there, at its offset, and nothing of an earlier topic of the name is.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};

use chronik_io::World;
use chronik_io::simulated::{Random, Simulation};
use chronik_protocol::{ErrorCode, Str, Uuid};
use chronik_shards::*;
use chronik_terms::*;

use crate::cluster::{Cluster, options};
use crate::incarnations_model::{Kind, Model, NAMES, SharedModel, batch_bytes};

/// Histories of one run of the tests.
const SEEDS: u64 = 5_000;
/// Lives of a broker in one history.
const LIVES: u64 = 3;
/// Requests of one client in one life.
const REQUESTS: u64 = 7;
const OTHER: &str = "/other";

fn start(simulation: Simulation, shards: usize, dirs: u64) -> Cluster {
    let mut options = options();
    if dirs > 1 {
        options.more_data = vec![PathBuf::from(OTHER)];
    }
    for (name, value) in [
        ("log.retention.check.interval.ms", "40"),
        ("log.cleaner.backoff.ms", "10"),
    ] {
        let (name, value) = (Str::from_static(name), Str::from_static(value));
        options.static_configs.insert(name, value);
    }
    let seed = simulation.seed();
    let (simulation, handles) = Cluster::try_start_with(simulation, shards, options);
    Cluster {
        simulation,
        handles: handles.unwrap_or_else(|error| panic!("seed {seed}: {error}")),
    }
}

/// Deletes and creates topics until it is cut off.
fn spawn_operator(cluster: &Cluster, model: &SharedModel, mut random: Random) {
    let (handle, model) = (cluster.handles[0].clone(), model.clone());
    let world = cluster.simulation.world();
    world.clone().spawn(async move {
        for _ in 0..REQUESTS {
            if random.below(3) == 0 {
                let pause_ns = random.below(60) * 1_000_000;
                world.sleep_until(world.monotonic_ns() + pause_ns).await;
            }
            let name = NAMES[random.index(NAMES.len())].0;
            let partitions = 1 + i32::try_from(random.below(2)).unwrap_or(0);
            let asked = model.borrow_mut().change(name, partitions);
            let Some((request, is_sure)) = asked else {
                continue;
            };
            let request = Request::Control(request);
            let answer = handle.endpoint().call(COORDINATOR_SHARD, request).await;
            let Ok(Reply::Control(reply)) = answer else {
                return;
            };
            if !model.borrow_mut().changed(name, reply, is_sure) {
                return;
            }
        }
    });
}

/// Appends to random partitions, and deletes some of their records, until it is cut off.
fn spawn_client(cluster: &Cluster, model: &SharedModel, mut random: Random) {
    let (handle, model) = (cluster.handles[0].clone(), model.clone());
    let world = cluster.simulation.world();
    world.clone().spawn(async move {
        for _ in 0..REQUESTS * 2 {
            let Some(id) = model.borrow().any(&mut random) else {
                world.sleep_until(world.monotonic_ns() + 1_000_000).await;
                continue;
            };
            let owner = handle.owner(id);
            if random.below(5) == 0 {
                let offset = model.borrow_mut().delete_some(id, &mut random);
                let Some(offset) = offset else { continue };
                let part = DeleteRecordsPart {
                    partition: id,
                    offset,
                };
                let request = Request::DeleteRecords(vec![part]);
                let answer = handle.endpoint().call(owner, request).await;
                let Ok(Reply::DeleteRecords(results)) = answer else {
                    return;
                };
                model.borrow_mut().deleted(id, offset, results[0].error);
            } else {
                let (number, request) = model.borrow_mut().append(id);
                let answer = handle.endpoint().call(owner, request).await;
                let Ok(Reply::Append(results)) = answer else {
                    return;
                };
                if results[0].error == ErrorCode::None {
                    let offset = results[0].base_offset;
                    model.borrow_mut().appended(id, offset, number);
                }
            }
        }
    });
}

/// The first offset that can be read; `None` where the log is offline.
fn log_start(cluster: &mut Cluster, partition: PartitionId) -> Option<i64> {
    let query = OffsetQuery {
        partition,
        current_leader_epoch: -1,
        isolation: Isolation::ReadUncommitted,
        target: OffsetTarget::Earliest,
    };
    let owner = cluster.owner(partition);
    match cluster.ask(owner, Request::ListOffsets(vec![query])) {
        Reply::ListOffsets(answers) => {
            (answers[0].error == ErrorCode::None).then_some(answers[0].offset)
        }
        other => panic!("{other:?}"),
    }
}

/// Compares what is there with what was promised; what was open is decided now.
fn check(cluster: &mut Cluster, model: &SharedModel, is_whole: bool) {
    let image = cluster.handles[0].image();
    let found: BTreeMap<Str, (Uuid, usize)> = image
        .topics()
        .map(|topic| (topic.name.clone(), (topic.id, topic.partitions.len())))
        .collect();
    model.borrow_mut().settle(&found);
    for (topic_id, partitions) in found.into_values() {
        for index in 0..i32::try_from(partitions).expect("few") {
            let id = PartitionId { topic_id, index };
            let Some(start) = log_start(cluster, id) else {
                assert!(!is_whole, "{id:?} is offline");
                continue;
            };
            let found = cluster.values(id, start);
            model.borrow_mut().check(id, start, &found);
        }
    }
    if is_whole {
        let known: BTreeSet<String> = model.borrow().directories();
        for name in cluster.directories() {
            let is_leftover = name.ends_with("-delete") || name.ends_with("-stray");
            assert!(is_leftover || known.contains(&name), "{name} is nobody's");
        }
    }
}

fn run(seed: u64) -> usize {
    let _telling = Telling(seed);
    let mut random = Random::new(seed ^ 0x1dea);
    let dirs = 1 + random.below(2);
    let shards = |random: &mut Random| usize::try_from(1 + random.below(3)).unwrap_or(1);
    let mut cluster = start(Simulation::new(seed), shards(&mut random), dirs);
    let model = Model::shared();
    for life in 0..LIVES {
        for client in 0..3 {
            let random = Random::new(seed.wrapping_mul(131) + life * 10 + client);
            match client {
                0 => spawn_operator(&cluster, &model, random),
                _ => spawn_client(&cluster, &model, random),
            }
        }
        let steps = usize::try_from(random.below(1_600)).unwrap_or(0);
        cluster.simulation.run_steps(steps);
        let machine = match random.below(5) {
            0 | 1 => cluster.simulation.kill(),
            2 => cluster.stop(),
            _ => cluster.simulation.crash(),
        };
        // A disk is away for a life, now and then; topics come and go meanwhile.
        let is_whole = dirs == 1 || random.below(6) > 0;
        if !is_whole {
            machine.faults().break_below(OTHER);
        }
        model.borrow_mut().is_whole = is_whole;
        cluster = start(machine, shards(&mut random), dirs);
        check(&mut cluster, &model, is_whole);
    }
    if !model.borrow().is_whole {
        model.borrow_mut().is_whole = true;
        cluster = start(cluster.simulation.kill(), shards(&mut random), dirs);
        check(&mut cluster, &model, true);
    }
    model.borrow().acknowledged()
}

/// Names the seed of a history that fails.
struct Telling(u64);

impl Drop for Telling {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the history of seed {} fails", self.0);
        }
    }
}

#[test]
fn a_topic_begins_anew_under_a_name_that_was_used() {
    assert!(batch_bytes() > 0 && NAMES.iter().any(|(_, kind)| *kind == Kind::Compacted));
    let only = std::env::var("CHRONIK_SIMULATED_SEED").ok();
    let only = only.map(|seed| {
        seed.parse::<u64>()
            .expect("CHRONIK_SIMULATED_SEED is a number")
    });
    let seeds = only.map_or(0..SEEDS, |seed| seed..seed + 1);
    let next = AtomicU64::new(seeds.start);
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let acknowledged: usize = std::thread::scope(|scope| {
        let work = || {
            let mut acknowledged = 0;
            loop {
                let seed = next.fetch_add(1, Ordering::Relaxed);
                if seed >= seeds.end {
                    return acknowledged;
                }
                acknowledged += run(seed);
            }
        };
        let threads: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        let ended = threads.into_iter().map(|thread| thread.join());
        ended.map(|counted| counted.expect("no seed fails")).sum()
    });
    // Cut off at random, clients still get most of their records through.
    let histories = usize::try_from(seeds.end - seeds.start).expect("few");
    assert!(
        only.is_some() || acknowledged > histories * 5,
        "only {acknowledged} records were acknowledged in {histories} histories"
    );
}
