//! A topic of 2,000 partitions: other changes of the catalogue and the stop do not wait until its logs are
//! open, the partition that somebody asks for is served before the others, and a restart serves all.

use std::path::Path;

use chronik_protocol::ErrorCode;

use crate::settings::is_outside;
use crate::support::batch::TestBatch;
use crate::support::calls::{
    LATEST, code, create_topic, delete_topic, list_offset, produce_ok, read_values,
};
use crate::support::client::Client;
use crate::support::{BrokerOptions, Scratch};

const MANY: i32 = 2_000;

fn directories(data: &Path, topic: &str) -> usize {
    let entries = std::fs::read_dir(data).expect("a data directory");
    let names = entries.map(|entry| entry.expect("an entry").file_name());
    let of_topic = |name: &str| name.rsplit_once('-').is_some_and(|(of, _)| of == topic);
    names
        .filter(|name| name.to_str().is_some_and(of_topic))
        .count()
}

#[test]
fn a_topic_of_many_partitions_holds_up_neither_changes_nor_the_stop() {
    if is_outside() {
        return;
    }
    let scratch = Scratch::new();
    let options = BrokerOptions::new(scratch.join("data")).set("chronik.shards", 2);
    let broker = options.start();
    let mut client = Client::connect(broker.address());
    create_topic(&mut client, "old", 1, &[]);
    create_topic(&mut client, "many", MANY, &[]);
    create_topic(&mut client, "small", 1, &[]);
    let deleted = delete_topic(&mut client, "old").expect("an answer");
    assert_eq!(deleted, ErrorCode::None);
    let many = usize::try_from(MANY).expect("a count");
    let opened = directories(broker.data(), "many");
    assert!(opened < many, "the other changes were answered before");
    for (topic, partition) in [("small", 0), ("many", MANY - 1), ("many", 0)] {
        let batch = TestBatch::of_values(["first"]).encode();
        produce_ok(&mut client, topic, partition, batch);
        let values = read_values(&mut client, topic, partition, 0);
        assert_eq!(values, [(0, b"first".to_vec())]);
    }
    let opened = directories(broker.data(), "many");
    assert!(opened < many, "whoever asks is served before all are open");
    broker.stop();
    let opened = directories(&scratch.join("data"), "many");
    assert!(opened < many, "a stop does not open the rest");

    let broker = options.start();
    let mut client = Client::connect(broker.address());
    let opened = directories(broker.data(), "many");
    assert!(opened < many, "nor does a start");
    for partition in 0..MANY {
        let listed = list_offset(&mut client, "many", partition, LATEST);
        let end = i64::from([0, MANY - 1].contains(&partition));
        assert_eq!(
            (code(listed.error_code), listed.offset),
            (ErrorCode::None, end)
        );
    }
    let batch = TestBatch::of_values(["second"]).encode();
    assert_eq!(produce_ok(&mut client, "many", 0, batch), 1);
    assert_eq!(directories(broker.data(), "many"), many);
    broker.stop();
}
