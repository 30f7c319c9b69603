//! Compaction over the wire: the newest record of each key stays, at its offset; groups lose nothing; and a restarted
//! cleaner resumes.

use std::collections::BTreeMap;
use std::fs;

use chronik_protocol::ErrorCode;
use chronik_protocol::messages::{
    IncrementalAlterConfigsRequest, incremental_alter_configs_request,
};

use crate::support::batch::{TestBatch, TestRecord};
use crate::support::calls::{
    EARLIEST, code, create_topic, fetch, latest, list_offset, produce, produce_ok, read_batches,
    text,
};
use crate::support::client::Client;
use crate::support::groups::{
    COMMIT_BY_NAME, commit_request, committed, fetch_offsets, find_coordinator,
};
use crate::support::{Broker, BrokerOptions, Scratch, eventually, skip};

/// What the log says when a round is over.
const COMPACTED: &str = "log compacted";

fn options(scratch: &Scratch) -> Option<BrokerOptions> {
    if std::env::var_os("CHRONIK_TEST_BOOTSTRAP").is_some() {
        skip("the broker's settings matter");
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
    // Earlier rounds began before all was there; this one reaches the segment that is written to.
    broker.wait_for_line("end=7 ");
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
    let bytes_of_logs = || -> u64 {
        fs::read_dir(broker.data().join("__consumer_offsets-0"))
            .expect("listed")
            .map(|entry| entry.expect("an entry"))
            .filter(|entry| entry.path().extension().is_some_and(|end| end == "log"))
            // A segment may go between the two looks.
            .map(|entry| entry.metadata().map_or(0, |file| file.len()))
            .sum()
    };
    // The kill may have come behind an early round: then others follow.
    eventually("less than 1.5 MB of 600 commits", || {
        (bytes_of_logs() < 1_500_000).then_some(())
    });
    broker.stop();
}

fn set(client: &mut Client, topic: &str, key: &str, value: &str) {
    let config = incremental_alter_configs_request::AlterableConfig {
        name: text(key),
        value: Some(text(value)),
        ..Default::default()
    };
    let request = IncrementalAlterConfigsRequest {
        resources: vec![incremental_alter_configs_request::AlterConfigsResource {
            resource_type: 2,
            resource_name: text(topic),
            configs: vec![config],
            ..Default::default()
        }],
        ..Default::default()
    };
    let response = client.call(&request, 1).responses.remove(0);
    assert_eq!(code(response.error_code), ErrorCode::None);
}

/// Produces records of half a megabyte for three keys in turn.
fn produce_states(client: &mut Client, topic: &str, numbers: std::ops::Range<u8>) {
    for n in numbers {
        let key = format!("key {}", n % 3);
        let batch = TestBatch::of(&[keyed(&key, Some(vec![n; 500_000]))]);
        produce_ok(client, topic, 0, batch.encode());
    }
}

fn offsets(client: &mut Client, topic: &str, from: i64) -> Vec<i64> {
    let batches = read_batches(client, topic, 0, from);
    let keys = batches.iter().flat_map(|batch| batch.keys());
    keys.map(|(offset, _)| offset).collect()
}

#[test]
fn a_log_may_be_compacted_and_lose_what_is_old_as_well() {
    let scratch = Scratch::new();
    let Some(options) = options(&scratch) else {
        return;
    };
    let broker = options.set("log.retention.check.interval.ms", 20).start();
    let mut client = Client::connect(broker.address());
    let settings = [
        ("cleanup.policy", "compact,delete"),
        ("segment.bytes", "1048576"),
        ("retention.ms", "-1"),
    ];
    create_topic(&mut client, "both", 1, &settings);
    produce_states(&mut client, "both", 0..9);
    // The round that reaches the segment that is written to, not one that began before all was there.
    broker.wait_for_line("end=8 ");
    let (broker, mut client) = restart(broker);
    let left = offsets(&mut client, "both", 0);
    assert!(left.len() < 9 && left.ends_with(&[6, 7, 8]), "{left:?}");
    // The records are older than a minute, all of them.
    set(&mut client, "both", "retention.ms", "60000");
    broker.wait_for_line("log_start=9");
    let start = list_offset(&mut client, "both", 0, EARLIEST).offset;
    assert_eq!((start, latest(&mut client, "both", 0)), (9, 9));
    broker.stop();
}

#[test]
fn what_happens_to_old_records_can_be_changed_while_it_serves() {
    let scratch = Scratch::new();
    let Some(options) = options(&scratch) else {
        return;
    };
    let broker = options.set("log.retention.check.interval.ms", 20).start();
    let mut client = Client::connect(broker.address());
    let settings = [
        ("cleanup.policy", "delete"),
        ("segment.bytes", "1048576"),
        ("retention.ms", "-1"),
    ];
    create_topic(&mut client, "changed", 1, &settings);
    let without_key = TestBatch::of_values([vec![0; 500_000]]);
    produce_ok(&mut client, "changed", 0, without_key.encode());
    produce_states(&mut client, "changed", 0..9);
    assert_eq!(offsets(&mut client, "changed", 0).len(), 10, "all is there");

    set(&mut client, "changed", "cleanup.policy", "compact");
    broker.wait_for_line(COMPACTED);
    let refused = produce(&mut client, "changed", 0, without_key.encode());
    assert_eq!(code(refused.error_code), ErrorCode::InvalidRecord);
    set(&mut client, "changed", "retention.ms", "60000");
    let (broker, mut client) = restart(broker);
    let left = offsets(&mut client, "changed", 0);
    assert!(
        !left.contains(&0),
        "a record without a key has no place in {left:?}"
    );
    assert!(left.len() < 10 && left.ends_with(&[7, 8, 9]), "{left:?}");

    // Nothing goes by any rule.
    set(&mut client, "changed", "cleanup.policy", "");
    produce_states(&mut client, "changed", 9..15);
    let more = offsets(&mut client, "changed", 0);
    assert_eq!(more.len(), left.len() + 6);
    produce_ok(&mut client, "changed", 0, without_key.encode());

    set(&mut client, "changed", "cleanup.policy", "delete");
    broker.wait_for_line("log_start=17");
    let start = list_offset(&mut client, "changed", 0, EARLIEST).offset;
    assert_eq!((start, latest(&mut client, "changed", 0)), (17, 17));
    broker.stop();
}
