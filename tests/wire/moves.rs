//! AlterReplicaLogDirs: logs move to another log directory while clients write and read, and a kill on
//! the way loses nothing.

use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};

use chronik_protocol::ErrorCode;

use crate::admin::{all_dirs, place};
use crate::support::batch::TestBatch;
use crate::support::calls::{code, create_topic, fetch, fetched_bytes, produce_ok, read_values};
use crate::support::client::Client;
use crate::support::groups::{commit, committed, find_coordinator};
use crate::support::{BrokerOptions, Scratch, eventually};

fn options(scratch: &Scratch) -> BrokerOptions {
    BrokerOptions::new(scratch.join("first"))
        .argument("--data")
        .argument(scratch.join("second"))
        .set("log.retention.ms", -1)
}

/// Where the partitions of a topic are, and which of them are still being moved.
fn homes(client: &mut Client, topic: &str) -> (BTreeMap<i32, String>, bool) {
    let (mut homes, mut moving) = (BTreeMap::new(), false);
    for dir in client.call(&all_dirs(), 4).results {
        for found in dir.topics.iter().filter(|found| &*found.name == topic) {
            for partition in &found.partitions {
                if partition.is_future_key {
                    moving = true;
                    continue;
                }
                let twice = homes.insert(partition.partition_index, dir.log_dir.to_string());
                assert_eq!(twice, None, "in two directories");
            }
        }
    }
    (homes, moving)
}

fn directories(client: &mut Client) -> Vec<String> {
    let dirs = client.call(&all_dirs(), 4).results;
    dirs.iter().map(|dir| dir.log_dir.to_string()).collect()
}

/// Asks for a directory, and waits until the partitions are there.
fn move_all(client: &mut Client, topic: &str, partitions: &[i32], to: &str) {
    for (_, codes) in place(client, &[(to, topic, partitions)]) {
        assert!(
            codes.iter().all(|(_, error)| *error == ErrorCode::None),
            "{codes:?}"
        );
    }
    eventually("the end of the moves", || {
        let (homes, moving) = homes(client, topic);
        let is_there = |index| homes.get(index).is_some_and(|at| at == to);
        (!moving && partitions.iter().all(is_there)).then_some(())
    });
}

/// Produces one record after the other until it is to stop; gives how many.
fn producer(address: SocketAddr, stops: &Arc<AtomicBool>) -> JoinHandle<i64> {
    let stops = Arc::clone(stops);
    thread::spawn(move || {
        let mut client = Client::connect(address);
        let mut count = 0;
        while !stops.load(Ordering::Relaxed) {
            let batch = TestBatch::of_values([format!("{count:09}")]);
            assert_eq!(produce_ok(&mut client, "t", 0, batch.encode()), count);
            count += 1;
        }
        count
    })
}

/// Reads on and on until it is to stop; no read is refused.
fn consumer(address: SocketAddr, stops: &Arc<AtomicBool>) -> JoinHandle<()> {
    let stops = Arc::clone(stops);
    thread::spawn(move || {
        let mut client = Client::connect(address);
        while !stops.load(Ordering::Relaxed) {
            let found = fetch(&mut client, "t", 0, 0);
            assert_eq!(code(found.error_code), ErrorCode::None);
            drop(fetched_bytes(&found));
        }
    })
}

#[test]
fn a_log_moves_under_load_and_nothing_is_refused_or_lost() {
    let scratch = Scratch::new();
    let broker = options(&scratch).start();
    let mut client = Client::connect(broker.address());
    create_topic(&mut client, "t", 1, &[("segment.bytes", "1048576")]);
    let dirs = directories(&mut client);
    let stops = Arc::new(AtomicBool::new(false));
    let producing = producer(broker.address(), &stops);
    let consuming = consumer(broker.address(), &stops);
    for round in 0..6 {
        move_all(&mut client, "t", &[0], &dirs[round % 2]);
        let at = homes(&mut client, "t").0;
        assert_eq!(at[&0], dirs[round % 2]);
    }
    stops.store(true, Ordering::Relaxed);
    let count = producing.join().expect("nothing was refused");
    consuming.join().expect("nothing was refused");
    broker.kill();

    let broker = options(&scratch).start();
    let mut client = Client::connect(broker.address());
    let values = read_values(&mut client, "t", 0, 0);
    let expected = (0..count).map(|at| (at, format!("{at:09}").into_bytes()));
    assert!(values.into_iter().eq(expected), "of {count} records");
    assert_eq!(homes(&mut client, "t").0[&0], dirs[1]);
    broker.stop();
}

#[test]
fn groups_move_with_their_partitions() {
    let scratch = Scratch::new();
    let broker = options(&scratch).start();
    let mut client = Client::connect(broker.address());
    create_topic(&mut client, "t", 1, &[]);
    find_coordinator(&mut client, "group");
    let dirs = directories(&mut client);
    let every: Vec<i32> = (0..50).collect();
    for (round, dir) in dirs.iter().enumerate() {
        let offset = i64::try_from(round).expect("a few");
        assert_eq!(
            commit(&mut client, "group", "t", 0, offset),
            ErrorCode::None
        );
        move_all(&mut client, "__consumer_offsets", &every, dir);
        assert_eq!(committed(&mut client, "group", "t", 0), offset);
    }
    broker.kill();
    let broker = options(&scratch).start();
    let mut client = Client::connect(broker.address());
    find_coordinator(&mut client, "group");
    assert_eq!(committed(&mut client, "group", "t", 0), 1);
    broker.stop();
}

#[test]
fn an_offline_directory_is_refused_as_a_target_and_nothing_leaves_it() {
    let scratch = Scratch::new();
    let broker = options(&scratch).start();
    let mut client = Client::connect(broker.address());
    create_topic(&mut client, "t", 2, &[]);
    let dirs = directories(&mut client);
    let (at, _) = homes(&mut client, "t");
    let of = |dir: &str| *at.iter().find(|(_, at)| *at == dir).expect("one each").0;
    let (here, there) = (of(&dirs[0]), of(&dirs[1]));
    broker.stop();
    let (second, away) = (scratch.join("second"), scratch.join("away"));
    fs::rename(&second, &away).expect("renamed");
    // It leads to itself: nothing can be opened there, as on a disk that is gone.
    std::os::unix::fs::symlink(&second, &second).expect("a link");
    let broker = options(&scratch).start();
    let mut client = Client::connect(broker.address());
    let mut codes = |dir: &str, partitions: &[i32]| {
        let answered = place(&mut client, &[(dir, "t", partitions)]);
        let codes = answered.into_iter().flat_map(|(_, codes)| codes);
        codes.map(|(_, error)| error).collect::<Vec<_>>()
    };
    let offline = ErrorCode::KafkaStorageError;
    // As Kafka 4.3.1: the directory is judged before the partition.
    assert_eq!(codes(&dirs[1], &[here]), [offline]);
    assert_eq!(codes(&dirs[1], &[there]), [offline]);
    assert_eq!(codes(&dirs[1], &[9]), [offline]);
    assert_eq!(codes(&dirs[0], &[there]), [offline]);
    assert_eq!(codes(&dirs[0], &[here]), [ErrorCode::None]);
    broker.stop();
}
