//! Random histories against a model: several clients append to several topics while shards are
//! killed, stopped, or lose power; afterwards every acknowledged record is there once, in order, as
//! far as the promise goes: what is only promised to survive the process may be missing at a log's
//! end after a power cut, and only there.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use chronik_catalog::ConfigResource;
use chronik_io::World;
use chronik_io::simulated::{Random, Simulation};
use chronik_protocol::{ErrorCode, Str};
use chronik_shards::*;
use chronik_terms::*;

use crate::cluster::{Cluster, append_with};

/// What clients know of one partition.
#[derive(Default)]
struct Known {
    /// Offset and value of every record that was acknowledged.
    acknowledged: BTreeMap<i64, Vec<u8>>,
    /// Values that were sent; nothing else may be found.
    sent: BTreeSet<Vec<u8>>,
}

type Model = Rc<RefCell<BTreeMap<PartitionId, Known>>>;

/// A client that appends numbered values to random partitions until it is cut off.
fn spawn_client(cluster: &Cluster, model: &Model, acks: Acks, name: u64, mut random: Random) {
    let (handle, model) = (cluster.handles[0].clone(), Rc::clone(model));
    let partitions: Vec<PartitionId> = model.borrow().keys().copied().collect();
    let world = cluster.simulation.world();
    world.spawn(async move {
        for number in 0..40u64 {
            let id =
                partitions[usize::try_from(random.below(partitions.len() as u64)).unwrap_or(0)];
            let value = format!("{name}/{number}").into_bytes();
            model
                .borrow_mut()
                .entry(id)
                .or_default()
                .sent
                .insert(value.clone());
            let request = append_with(acks, id, &[&value]);
            let Ok(reply) = handle.endpoint().call(handle.owner(id), request).await else {
                return;
            };
            let Reply::Append(results) = reply else {
                panic!("{reply:?}")
            };
            if results[0].error == ErrorCode::None {
                let mut model = model.borrow_mut();
                let known = model.entry(id).or_default();
                let before = known.acknowledged.insert(results[0].base_offset, value);
                assert!(before.is_none(), "an offset acknowledged twice");
            }
        }
    });
}

fn check(cluster: &mut Cluster, model: &Model, forgives: bool) {
    let seed = cluster.simulation.seed();
    let mut model = model.borrow_mut();
    for (id, known) in model.iter_mut() {
        let found: BTreeMap<i64, Vec<u8>> = cluster.values(*id, 0).into_iter().collect();
        if forgives {
            // Whatever is left is a beginning of what there was.
            let end = i64::try_from(found.len()).expect("small");
            known.acknowledged.split_off(&end);
        }
        for (offset, value) in &known.acknowledged {
            assert_eq!(
                found.get(offset),
                Some(value),
                "seed {seed}: {id:?} at {offset}"
            );
        }
        let mut seen = BTreeSet::new();
        for value in found.values() {
            assert!(
                known.sent.contains(value),
                "seed {seed}: a record nobody sent"
            );
            assert!(seen.insert(value), "seed {seed}: a record twice");
        }
        let offsets: Vec<i64> = found.keys().copied().collect();
        assert!(
            offsets.first().is_none_or(|first| *first == 0),
            "seed {seed}: a gap at 0"
        );
        assert!(
            offsets.windows(2).all(|pair| pair[1] == pair[0] + 1),
            "seed {seed}: a gap"
        );
    }
}

/// The power goes while the logs are being closed, or between that and the mark of a clean stop.
fn cut_in_stop(mut cluster: Cluster, random: &mut Random) -> Simulation {
    let (world, handle) = (cluster.simulation.world(), cluster.handles[0].clone());
    world.spawn(async move {
        handle.stop().await.ok();
    });
    let steps = usize::try_from(random.below(1_500)).unwrap_or(0);
    cluster.simulation.run_steps(steps);
    cluster.simulation.crash()
}

/// Lives of a broker with topics of one durability, ended in one of the first `endings` ways: killed,
/// stopped, without power, without power during a stop. Returns how many records were acknowledged and not forgiven.
fn run(seed: u64, durability: &str, acks: Acks, endings: u64) -> usize {
    let mut random = Random::new(seed ^ 0x5eed);
    let shards = |random: &mut Random| usize::try_from(1 + random.below(4)).unwrap_or(1);
    let simulation = Simulation::new(seed);
    if seed % 3 == 1 {
        simulation.close_files(200_000);
    }
    let mut cluster = Cluster::start(simulation, shards(&mut random));
    for topic in ["a", "b"] {
        cluster.create(topic, 3).expect("created");
        let resource = ConfigResource::Topic(Str::from(topic));
        cluster.set(resource, "chronik.durability", durability);
    }
    let model = Model::default();
    for topic in ["a", "b"] {
        for index in 0..3 {
            model
                .borrow_mut()
                .insert(cluster.id(topic, index), Known::default());
        }
    }
    for round in 0..4u64 {
        for client in 0..3 {
            let name = round * 10 + client;
            let random = Random::new(seed.wrapping_mul(31) + name);
            spawn_client(&cluster, &model, acks, name, random);
        }
        let steps = usize::try_from(random.below(4000)).unwrap_or(0);
        cluster.simulation.run_steps(steps);
        let ending = random.below(endings);
        let machine = match ending {
            0 => cluster.simulation.kill(),
            1 => cluster.stop(),
            3 => cut_in_stop(cluster, &mut random),
            _ => cluster.simulation.crash(),
        };
        cluster = Cluster::start(machine, shards(&mut random));
        let forgives = ending >= 2 && (durability, acks) != ("disk", Acks::All);
        check(&mut cluster, &model, forgives);
    }
    let model = model.borrow();
    model.values().map(|known| known.acknowledged.len()).sum()
}

#[test]
fn nothing_acknowledged_is_lost_or_doubled() {
    let disk: usize = (0..150).map(|seed| run(seed, "disk", Acks::All, 4)).sum();
    // Cut off at random, clients still get most of their records through.
    assert!(disk > 15_000, "only {disk} records were acknowledged");
}

#[test]
fn what_is_written_behind_survives_kills() {
    for (durability, acks) in [
        ("process", Acks::All),
        ("process", Acks::Leader),
        ("disk", Acks::Leader),
    ] {
        let seeds = 1000..1060;
        let acknowledged: usize = seeds.map(|seed| run(seed, durability, acks, 2)).sum();
        assert!(
            acknowledged > 6_000,
            "only {acknowledged} records were acknowledged"
        );
    }
}

#[test]
fn a_power_cut_takes_what_is_written_behind_from_the_end_only() {
    for (durability, acks) in [("process", Acks::All), ("disk", Acks::Leader)] {
        (2000..2060).for_each(|seed| {
            run(seed, durability, acks, 4);
        });
    }
}
