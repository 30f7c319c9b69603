//! The catalogue across kills and power cuts: what was acknowledged is there, what was not is there
//! as a whole or not at all, and no directory is left over.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use chronik_catalog::{
    ConfigResource, ControllerReply, ControllerRequest, NewPartitions, TopicRef,
};
use chronik_io::World;
use chronik_io::simulated::Simulation;
use chronik_protocol::{ErrorCode, Str};
use chronik_shards::*;
use chronik_terms::topic_settings::Durability;
use chronik_terms::*;

use crate::cluster::{Cluster, DATA, create};

/// Every directory belongs to a partition of the image, and every partition takes an append.
fn check_whole(cluster: &mut Cluster) {
    let image = cluster.handles[0].image();
    let mut wanted = BTreeSet::new();
    for topic in image.topics() {
        for index in 0..topic.partitions.len() {
            let index = i32::try_from(index).expect("few partitions");
            wanted.insert(format!("{}-{index}", topic.name));
            let id = PartitionId {
                topic_id: topic.id,
                index,
            };
            let result = cluster.append(id, &[b"x"]);
            assert_eq!(
                result.error,
                ErrorCode::None,
                "{}-{index}: {result:?}",
                topic.name
            );
        }
    }
    // What was deleted goes behind the answer, and behind the start.
    cluster.advance(1_000);
    let found: BTreeSet<String> = cluster.directories().into_iter().collect();
    assert_eq!(found, wanted, "seed {}", cluster.simulation.seed());
}

/// Creates one topic and deletes another, one after the other; gives the numbers of the changes
/// (0 creates, 1 deletes) as they are acknowledged.
fn spawn_changes(cluster: &Cluster, deletion_first: bool) -> Rc<RefCell<Vec<usize>>> {
    let deletion = ControllerRequest::DeleteTopics(vec![TopicRef::Name(Str::from("kept"))]);
    let mut changes = vec![(0, create("new", 3)), (1, deletion)];
    if deletion_first {
        changes.reverse();
    }
    let acknowledged = Rc::new(RefCell::new(Vec::new()));
    let endpoint = cluster.handles[0].endpoint().clone();
    let done = Rc::clone(&acknowledged);
    cluster.simulation.world().spawn(async move {
        for (number, change) in changes {
            let reply = endpoint
                .call(COORDINATOR_SHARD, Request::Control(change))
                .await;
            if reply.is_ok() {
                done.borrow_mut().push(number);
            }
        }
    });
    acknowledged
}

#[test]
fn topics_are_created_and_deleted_as_a_whole_at_every_power_cut() {
    let mut outcomes = [0; 3];
    for seed in 0..400u64 {
        let count = usize::try_from(1 + seed % 3).expect("small");
        let mut cluster = Cluster::start(Simulation::new(seed), count);
        cluster.create("kept", 2).expect("created");
        let kept = cluster.id("kept", 0);
        cluster.append(kept, &[b"first"]);
        let acknowledged = spawn_changes(&cluster, seed % 2 == 0);
        let steps = usize::try_from(seed / 2).expect("small");
        cluster.simulation.run_steps(steps * 2);
        let machine = if seed % 5 == 0 {
            cluster.simulation.kill()
        } else {
            cluster.simulation.crash()
        };
        let mut cluster = Cluster::start(machine, usize::try_from(1 + seed % 2).expect("small"));
        let image = cluster.handles[0].image();
        let acknowledged = acknowledged.borrow();
        match image.topic("new") {
            Some(topic) => assert_eq!(topic.partitions.len(), 3, "seed {seed}"),
            None => assert!(
                !acknowledged.contains(&0),
                "seed {seed}: a created topic is gone"
            ),
        }
        if let Some(topic) = image.topic("kept") {
            assert!(
                !acknowledged.contains(&1),
                "seed {seed}: a deleted topic is back"
            );
            assert_eq!(topic.id, kept.topic_id);
            assert_eq!(
                cluster.values(kept, 0),
                [(0, b"first".to_vec())],
                "seed {seed}"
            );
        }
        check_whole(&mut cluster);
        outcomes[acknowledged.len()] += 1;
    }
    assert!(
        outcomes.iter().all(|number| *number > 20),
        "cuts too early or too late: {outcomes:?}"
    );
}

fn metadata_files(cluster: &mut Cluster) -> Vec<String> {
    let world = cluster.simulation.world();
    let directory = Path::new(DATA).join("__cluster_metadata-0");
    let entries = cluster
        .simulation
        .run(async move { world.list_dir(&directory).await });
    let entries = entries.expect("the metadata log").into_iter();
    entries
        .map(|entry| entry.name.to_string_lossy().into_owned())
        .collect()
}

#[test]
fn a_clean_stop_leaves_one_snapshot_that_says_everything() {
    let mut cluster = Cluster::start(Simulation::new(11), 2);
    cluster.create("a", 3).expect("created");
    cluster.create("b", 1).expect("created");
    cluster.delete("b").expect("deleted");
    cluster.set(
        ConfigResource::Topic(Str::from("a")),
        "retention.ms",
        "1234",
    );
    cluster.set(ConfigResource::Broker(None), "log.segment.bytes", "2000000");
    let mut simulation = cluster.stop();
    for round in 0..3 {
        let mut cluster = Cluster::start(simulation, 1);
        let files = metadata_files(&mut cluster);
        let snapshots = files
            .iter()
            .filter(|name| name.ends_with(".checkpoint"))
            .count();
        assert_eq!(snapshots, 1, "{files:?}");
        assert!(files.contains(&"quorum-state".to_owned()));
        let image = cluster.handles[0].image();
        let topic = image.topic("a").expect("a");
        assert_eq!(topic.config.retention_ms, Some(1234), "round {round}");
        assert_eq!(topic.config.segment_bytes, 2_000_000);
        assert_eq!(topic.partitions[2].leader_epoch, round + 1);
        assert!(image.topic("b").is_none());
        check_whole(&mut cluster);
        simulation = cluster.stop();
    }
}

#[test]
fn a_log_that_grows_is_let_go_behind_a_snapshot() {
    let mut cluster = Cluster::start(Simulation::new(16), 2);
    cluster.create("a", 1).expect("created");
    let long = "0:1,".repeat(8_000);
    let mut segments_max = 0;
    let mut snapshots_max = 0;
    for change in 0..1300 {
        let value = format!("{long}{change}:1");
        let topic = ConfigResource::Topic(Str::from("a"));
        cluster.set(topic, "leader.replication.throttled.replicas", &value);
        if change % 100 == 99 {
            let files = metadata_files(&mut cluster);
            let count = |suffix: &str| files.iter().filter(|name| name.ends_with(suffix)).count();
            segments_max = segments_max.max(count(".log"));
            snapshots_max = snapshots_max.max(count(".checkpoint"));
        }
    }
    // 40 MB of changes: more than two segments' worth, of which at most two are there at a time.
    assert!((1..=2).contains(&segments_max), "{segments_max} segments");
    assert!(
        (1..=2).contains(&snapshots_max),
        "{snapshots_max} snapshots"
    );
    let files = metadata_files(&mut cluster);
    assert!(
        !files.contains(&"00000000000000000000.log".to_owned()),
        "{files:?}"
    );
    let mut cluster = Cluster::start(cluster.simulation.crash(), 1);
    let image = cluster.handles[0].image();
    let configs = &image.topic("a").expect("a").configs;
    let value = configs
        .get("leader.replication.throttled.replicas")
        .expect("the setting");
    assert!(value.ends_with(",1299:1"));
    check_whole(&mut cluster);
}

#[test]
fn settings_and_partitions_reach_every_shard_and_survive_a_power_cut() {
    let mut cluster = Cluster::start(Simulation::new(12), 3);
    cluster.create("a", 1).expect("created");
    cluster.set(
        ConfigResource::Topic(Str::from("a")),
        "chronik.durability",
        "process",
    );
    let more = NewPartitions {
        name: Str::from("a"),
        count: 4,
        assignments: None,
    };
    let request = ControllerRequest::CreatePartitions {
        topics: vec![more],
        validate_only: false,
    };
    match cluster.control(request) {
        ControllerReply::CreatePartitions(results) => assert_eq!(results[0].1, Ok(())),
        other => panic!("{other:?}"),
    }
    let check = |cluster: &Cluster| {
        for handle in &cluster.handles {
            let image = handle.image();
            let topic = image.topic("a").expect("a");
            assert_eq!(topic.partitions.len(), 4);
            assert_eq!(topic.config.durability, Durability::Process);
        }
    };
    check(&cluster);
    let mut cluster = Cluster::start(cluster.simulation.crash(), 2);
    check(&cluster);
    check_whole(&mut cluster);
}

#[test]
fn a_producer_id_is_never_given_out_twice() {
    let mut given = BTreeSet::new();
    let mut simulation = Simulation::new(13);
    for round in 0..6 {
        let mut cluster = Cluster::start(simulation, 1);
        for _ in 0..700 {
            match cluster.control(ControllerRequest::AllocateProducerId) {
                ControllerReply::ProducerId(Ok(id)) => assert!(given.insert(id), "{id} again"),
                other => panic!("{other:?}"),
            }
        }
        simulation = match round % 3 {
            0 => cluster.simulation.crash(),
            1 => cluster.simulation.kill(),
            _ => cluster.stop(),
        };
    }
}

#[test]
fn what_nobody_knows_is_set_aside_and_what_was_deleted_is_removed() {
    let cluster = Cluster::start(Simulation::new(14), 1);
    let mut simulation = cluster.stop();
    let world = simulation.world();
    simulation.run(async move {
        let data = PathBuf::from(DATA);
        for name in [
            "foreign-0",
            "gone-1.0123456789abcdef0123456789abcdef-delete",
        ] {
            world
                .create_dir_all(&data.join(name))
                .await
                .expect("a directory");
            let file = data.join(name).join("00000000000000000000.log");
            world
                .write_file_atomic(&file, b"something")
                .await
                .expect("a file");
        }
    });
    let mut cluster = Cluster::start(simulation, 1);
    cluster.advance(1_000);
    let left = cluster.directories();
    assert_eq!(left.len(), 1, "{left:?}");
    assert!(
        left[0].starts_with("foreign-0.") && left[0].ends_with("-stray"),
        "{left:?}"
    );
}

#[test]
fn a_directory_of_another_node_is_refused_by_every_shard() {
    let mut simulation = Cluster::start(Simulation::new(15), 1).stop();
    let world = simulation.world();
    simulation.run(async move {
        let path = Path::new(DATA).join("meta.properties");
        let text = b"version=1\nnode.id=7\ncluster.id=x\ndirectory.id=HxYXXJN9VRTc7WjvTTEfeQ\n";
        world.write_file_atomic(&path, text).await.expect("a file");
    });
    let (_, result) = Cluster::try_start(simulation, 3);
    let error = result.err().expect("refused");
    assert!(error.contains("node.id"), "{error}");
}
