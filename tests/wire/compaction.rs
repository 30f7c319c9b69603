//! Compaction over the wire: the newest record of each key stays, at its offset; groups lose nothing;
//! and a start goes on where the cleaner was.

use std::collections::BTreeMap;
use std::fs;

use chronik_protocol::ErrorCode;

use crate::support::batch::{TestBatch, TestRecord};
use crate::support::calls::{
    code, create_topic, fetch, latest, produce, produce_ok, read_batches, text,
};
use crate::support::client::Client;
use crate::support::groups::{
    COMMIT_BY_NAME, commit_request, committed, fetch_offsets, find_coordinator,
};
use crate::support::{Broker, BrokerOptions, Scratch};

/// What the log says when a round is over.
const COMPACTED: &str = "log compacted";

fn options(scratch: &Scratch) -> Option<BrokerOptions> {
    if std::env::var_os("CHRONIK_TEST_BOOTSTRAP").is_some() {
        eprintln!("SKIPPED: the broker's settings matter");
        return None;
    }
    let options = BrokerOptions::new(scratch.join("data"))
        .set("chronik.shards", 2)
        .set("log.segment.delete.delay.ms", 0)
        .set("log.cleaner.min.cleanable.ratio", 0.01)
        .set("offsets.topic.num.partitions", 1)
        .set("offsets.topic.segment.bytes", 1_048_576);
    Some(options)
}

fn keyed(key: &str, value: Option<Vec<u8>>) -> TestRecord {
    TestRecord {
        key: Some(key.as_bytes().to_vec()),
        value,
        ..TestRecord::default()
    }
}

/// Begins anew, so that nothing is answered from memory.
fn restart(broker: Broker) -> (Broker, Client) {
    let options = broker.options().clone();
    broker.stop();
    let broker = options.start();
    let client = Client::connect(broker.address());
    (broker, client)
}

#[test]
fn the_newest_of_each_key_stays_at_its_offset() {
    let scratch = Scratch::new();
    let Some(options) = options(&scratch) else {
        return;
    };
    let broker = options.start();
    let mut client = Client::connect(broker.address());
    let settings = [("cleanup.policy", "compact"), ("segment.bytes", "1048576")];
    create_topic(&mut client, "states", 1, &settings);
    let mut expected = BTreeMap::new();
    // Three keys in turn, a tombstone among them; the last batch rolls the segment before it.
    for n in 0..9_u8 {
        let key = format!("key {}", n % 3);
        let value = (n != 4).then(|| vec![n; 500_000]);
        let batch = TestBatch::of(&[keyed(&key, value)]);
        let offset = produce_ok(&mut client, "states", 0, batch.encode());
        expected.insert(key.into_bytes(), offset);
    }
    broker.wait_for_line(COMPACTED);
    let end = latest(&mut client, "states", 0);
    let (broker, mut client) = restart(broker);
    let log_dir = broker.data().join("states-0");
    let cleaned = fs::read_to_string(broker.data().join("cleaner-offset-checkpoint"));
    let cleaned = cleaned.expect("written before the line");
    assert!(cleaned.contains("states 0 "), "{cleaned}");
    let names = fs::read_dir(&log_dir).expect("listed");
    let names = names.map(|entry| entry.expect("an entry").file_name());
    let left: Vec<_> = names
        .filter(|name| {
            let name = name.to_string_lossy();
            [".cleaned", ".swap", ".deleted"]
                .iter()
                .any(|end| name.ends_with(end))
        })
        .collect();
    assert!(left.is_empty(), "{left:?}");
    assert_eq!(latest(&mut client, "states", 0), end);
    // What was not sealed when the last round began may still be there twice.
    let batches = read_batches(&mut client, "states", 0, 0);
    let newest: BTreeMap<Vec<u8>, i64> = batches
        .iter()
        .flat_map(|batch| batch.keys())
        .map(|(offset, key)| (key, offset))
        .collect();
    assert_eq!(newest, expected);
    assert!(
        batches
            .iter()
            .map(|batch| batch.keys().len())
            .sum::<usize>()
            < 9
    );
    // An offset that is gone is read from the next one that is there.
    let partition = fetch(&mut client, "states", 0, 1);
    assert_eq!(code(partition.error_code), ErrorCode::None);
    // Records without a key have no place here.
    let refused = produce(
        &mut client,
        "states",
        0,
        TestBatch::of_values(["v"]).encode(),
    );
    assert_eq!(code(refused.error_code), ErrorCode::InvalidRecord);
    broker.stop();
}

#[test]
fn small_records_are_compacted_in_rounds() {
    let scratch = Scratch::new();
    let Some(options) = options(&scratch) else {
        return;
    };
    let broker = options.start();
    let mut client = Client::connect(broker.address());
    let settings = [("cleanup.policy", "compact"), ("segment.bytes", "1048576")];
    create_topic(&mut client, "many", 1, &settings);
    for round in 0..40_u32 {
        let records: Vec<_> = (0..100)
            .map(|n| {
                keyed(
                    &format!("{}", (round * 7 + n) % 150),
                    Some(vec![round as u8; 1000]),
                )
            })
            .collect();
        produce_ok(&mut client, "many", 0, TestBatch::of(&records).encode());
    }
    broker.wait_for_line(COMPACTED);
    let (broker, mut client) = restart(broker);
    let batches = read_batches(&mut client, "many", 0, 0);
    let keys: Vec<(i64, Vec<u8>)> = batches.iter().flat_map(|batch| batch.keys()).collect();
    assert!(keys.len() < 4000, "{} of 4000 are there", keys.len());
    assert!(keys.windows(2).all(|pair| pair[0].0 < pair[1].0));
    let newest: BTreeMap<_, _> = keys.iter().map(|(offset, key)| (key, offset)).collect();
    assert_eq!(newest.len(), 150);
    broker.stop();
}

#[test]
fn committed_offsets_outlive_the_compaction_of_their_log() {
    let scratch = Scratch::new();
    let Some(options) = options(&scratch) else {
        return;
    };
    let broker = options.start();
    let mut client = Client::connect(broker.address());
    create_topic(&mut client, "read", 1, &[]);
    find_coordinator(&mut client, "group 0");
    for n in 1..=600_i64 {
        let group = format!("group {}", n % 5);
        let mut request = commit_request(&group, "read", 0, n);
        let partition = &mut request.topics[0].partitions[0];
        partition.committed_metadata = Some(text(&"m".repeat(4000)));
        let response = client.call(&request, COMMIT_BY_NAME);
        let answer = &response.topics[0].partitions[0];
        assert_eq!(code(answer.error_code), ErrorCode::None);
    }
    broker.wait_for_line(COMPACTED);
    let options = broker.options().clone();
    broker.kill();
    let broker = options.start();
    let mut client = Client::connect(broker.address());
    for n in 596..=600_i64 {
        let group = format!("group {}", n % 5);
        while code(fetch_offsets(&mut client, &group, None).error_code)
            == ErrorCode::CoordinatorLoadInProgress
        {}
        assert_eq!(committed(&mut client, &group, "read", 0), n);
    }
    let bytes: u64 = fs::read_dir(broker.data().join("__consumer_offsets-0"))
        .expect("listed")
        .map(|entry| entry.expect("an entry"))
        .filter(|entry| entry.path().extension().is_some_and(|end| end == "log"))
        .map(|entry| entry.metadata().expect("a file").len())
        .sum();
    assert!(bytes < 1_500_000, "{bytes} bytes of 600 commits");
    broker.stop();
}
