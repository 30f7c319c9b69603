//! Logs that move while images that touch hundreds of partitions are followed a slice at a time: topics
//! deleted, created again and given partitions meanwhile, and a kill at any moment of that.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use chronik_catalog::{
    ConfigChange, ConfigOp, ConfigOpKind, ConfigResource, ControllerRequest, NewPartitions,
    TopicRef,
};
use chronik_io::World;
use chronik_io::simulated::Simulation;
use chronik_protocol::{ErrorCode, Str, Uuid};
use chronik_shards::*;
use chronik_terms::*;

use crate::cluster::{Cluster, DATA, append, create};
use crate::moves::{OTHER, dir_id, start};

/// Changes that are made.
const CHANGES: usize = 8;
/// More than one slice of them.
const PARTITIONS: i32 = 150;

/// Touches every partition there is.
fn broker_setting(value: &str) -> ControllerRequest {
    let op = ConfigOp {
        name: Str::from("message.max.bytes"),
        kind: ConfigOpKind::Set,
        value: Some(Str::from(value.to_owned())),
    };
    ControllerRequest::AlterConfigs {
        resources: vec![ConfigChange {
            resource: ConfigResource::Broker(None),
            ops: vec![op],
            replace_all: false,
        }],
        validate_only: false,
    }
}

fn more_partitions(name: &str, count: i32) -> ControllerRequest {
    ControllerRequest::CreatePartitions {
        topics: vec![NewPartitions {
            name: Str::from(name.to_owned()),
            count,
            assignments: None,
        }],
        validate_only: false,
    }
}

fn deletion(name: &str) -> ControllerRequest {
    ControllerRequest::DeleteTopics(vec![TopicRef::Name(Str::from(name.to_owned()))])
}

/// Changes of the catalogue, one behind the other as fast as it takes them; how many were answered.
fn change(cluster: &Cluster, round: usize) -> Rc<Cell<usize>> {
    let changes: [ControllerRequest; CHANGES] = [
        broker_setting("1100000"),
        deletion("gone"),
        create("gone", 70),
        broker_setting("1200000"),
        more_partitions("grows", 90),
        deletion("gone"),
        create("gone", 90),
        broker_setting("1300000"),
    ];
    let (endpoint, done) = (cluster.handles[0].endpoint().clone(), Rc::new(Cell::new(0)));
    let (told, world) = (Rc::clone(&done), cluster.simulation.world());
    cluster.simulation.world().spawn(async move {
        for request in changes {
            match endpoint.call(0, Request::Control(request)).await {
                Ok(Reply::Control(_)) => told.set(told.get() + 1),
                _ => return,
            }
            if round.is_multiple_of(2) {
                world.sleep_for(Duration::from_micros(400)).await;
            }
        }
    });
    done
}

/// Wants logs of every topic elsewhere and back, on and on.
fn carry(cluster: &Cluster) {
    let dirs = [dir_id(cluster, DATA), dir_id(cluster, OTHER)];
    let (handle, world) = (cluster.handles[0].clone(), cluster.simulation.world());
    cluster.simulation.world().spawn(async move {
        for number in 0_usize.. {
            let mut wishes: BTreeMap<usize, Vec<(PartitionId, Uuid)>> = BTreeMap::new();
            for name in ["gone", "grows", "stays"] {
                let image = handle.image();
                let Some(topic) = image.topic(name) else {
                    continue;
                };
                for index in (number % 3..topic.partitions.len()).step_by(5) {
                    let id = PartitionId {
                        topic_id: topic.id,
                        index: index as i32,
                    };
                    let to = dirs[(index + number) % 2];
                    wishes.entry(handle.owner(id)).or_default().push((id, to));
                }
            }
            for (shard, wishes) in wishes {
                let called = handle.endpoint().call(shard, Request::MoveLogs(wishes));
                let Ok(Reply::MoveLogs(_)) = called.await else {
                    return;
                };
            }
            world.sleep_for(Duration::from_millis(3)).await;
        }
    });
}

/// What was acknowledged, by partition.
type Values = Rc<RefCell<BTreeMap<PartitionId, Vec<Vec<u8>>>>>;

/// Writes to logs of every topic; what was acknowledged, by partition.
fn write(cluster: &Cluster) -> Values {
    let acknowledged = Rc::new(RefCell::new(BTreeMap::new()));
    let (handle, world) = (cluster.handles[0].clone(), cluster.simulation.world());
    let told = Rc::clone(&acknowledged);
    cluster.simulation.world().spawn(async move {
        for number in 0_usize.. {
            for name in ["gone", "grows", "stays"] {
                let image = handle.image();
                let Some(topic) = image.topic(name) else {
                    continue;
                };
                let id = PartitionId {
                    topic_id: topic.id,
                    index: (number * 7 % topic.partitions.len()) as i32,
                };
                let value = format!("{name} {number}").into_bytes();
                let request = append(id, &[&value]);
                let Ok(Reply::Append(results)) =
                    handle.endpoint().call(handle.owner(id), request).await
                else {
                    return;
                };
                if results[0].error == ErrorCode::None {
                    let mut told = told.borrow_mut();
                    let values: &mut Vec<Vec<u8>> = told.entry(id).or_default();
                    values.push(value);
                }
            }
            world.sleep_for(Duration::from_micros(300)).await;
        }
    });
    acknowledged
}

/// Where the directories of a partition's name are.
fn found(cluster: &mut Cluster) -> BTreeMap<String, Vec<&'static str>> {
    let mut found: BTreeMap<String, Vec<&'static str>> = BTreeMap::new();
    for path in [DATA, OTHER] {
        let world = cluster.simulation.world();
        let listed = cluster.simulation.run(world.list_dir(path.as_ref()));
        for entry in listed.expect("listed") {
            let name = entry.name.into_string().expect("a name");
            if ["gone-", "grows-", "stays-"]
                .iter()
                .any(|topic| name.starts_with(topic))
            {
                found.entry(name).or_default().push(path);
            }
        }
    }
    found
}

/// Everything that was acknowledged is there, of topics that are.
fn check_values(cluster: &mut Cluster, acknowledged: &Values, context: &str) {
    let image = cluster.handles[0].image();
    for (id, values) in acknowledged.borrow().iter() {
        let Some(topic) = image.topic_by_id(id.topic_id) else {
            continue;
        };
        let read = cluster.values(*id, 0).into_iter();
        let read: Vec<Vec<u8>> = read.map(|(_, value)| value).collect();
        let context = format!("{context}: {}-{}", topic.name, id.index);
        assert!(read.starts_with(values), "{context}");
        assert!(read.len() <= values.len() + 1, "{context}");
    }
}

/// Every log lies where the catalogue says, and nothing else is there; how many lie in each directory.
fn check_directories(cluster: &mut Cluster, context: &str) -> [usize; 2] {
    // What is renamed away is removed beside.
    cluster.advance(2_000);
    let dirs = [DATA, OTHER].map(|path| (path, dir_id(cluster, path)));
    let (mut expected, mut counts) = (BTreeMap::new(), [0, 0]);
    let image = cluster.handles[0].image();
    for topic in image.topics() {
        for (index, info) in topic.partitions.iter().enumerate() {
            let at = dirs.iter().position(|(_, id)| info.directories == [*id]);
            let at = at.expect("a directory");
            counts[at] += 1;
            expected.insert(format!("{}-{index}", topic.name), vec![dirs[at].0]);
        }
    }
    assert_eq!(found(cluster), expected, "{context}");
    counts
}

#[test]
fn logs_move_while_images_that_touch_hundreds_of_them_are_followed() {
    let (mut all_done, mut lie_in) = (0, [0, 0]);
    for round in 0..ROUNDS {
        let simulation = Simulation::new(12_000 + round as u64);
        let mut cluster = start(simulation, 1 + round % 2);
        for (name, count) in [("gone", 70), ("grows", 40), ("stays", PARTITIONS)] {
            cluster.create(name, count).expect("created");
        }
        carry(&cluster);
        let acknowledged = write(&cluster);
        cluster.simulation.run_steps(3000);
        let done = change(&cluster, round);
        cluster.simulation.run_steps(STEPS * (round + 1) / ROUNDS);
        let context = format!("round {round}, {} changes", done.get());
        all_done += usize::from(done.get() == CHANGES);
        let ended = match round % 3 {
            0 => cluster.simulation.kill(),
            1 => cluster.simulation.crash(),
            _ => cluster.stop(),
        };
        let mut cluster = start(ended, 1 + round % 3);
        check_values(&mut cluster, &acknowledged, &context);
        let counts = check_directories(&mut cluster, &context);
        lie_in = [lie_in[0] + counts[0], lie_in[1] + counts[1]];
    }
    let spread = 2..ROUNDS - 1;
    assert!(spread.contains(&all_done), "{all_done} made every change");
    assert!(lie_in.iter().all(|count| *count > 100), "{lie_in:?}");
}

/// Moments that are looked at.
const ROUNDS: usize = 18;
/// Steps within which every change is made.
const STEPS: usize = 8_000;
