//! Clients that leave in the middle of a request: it is done whole, or not at all.

use std::time::Duration;

use chronik_io::World;
use chronik_protocol::Str;
use chronik_protocol::messages::offset_commit_request::{
    OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use chronik_protocol::messages::{FindCoordinatorRequest, OffsetCommitRequest, OffsetFetchRequest};

use super::apis::create;
use super::{Client, TestBroker};

/// More than the coordinator takes in one go.
const ENTRIES: usize = 5_000;

/// Commits `offset` for both partitions, each named very often.
fn commit(offset: i64) -> OffsetCommitRequest {
    let entry = |partition_index| OffsetCommitRequestPartition {
        partition_index,
        committed_offset: offset,
        ..OffsetCommitRequestPartition::default()
    };
    let entries = (0..ENTRIES).map(|at| entry(i32::from(at >= ENTRIES / 2)));
    OffsetCommitRequest {
        group_id: "g".into(),
        topics: vec![OffsetCommitRequestTopic {
            name: Str::from("t"),
            partitions: entries.collect(),
            ..OffsetCommitRequestTopic::default()
        }],
        ..OffsetCommitRequest::default()
    }
}

async fn committed(client: &mut Client) -> Vec<i64> {
    let fetch = OffsetFetchRequest {
        group_id: "g".into(),
        topics: None,
        ..OffsetFetchRequest::default()
    };
    let response = client.ask(&fetch, 5).await;
    let parts = response.topics.iter().flat_map(|topic| &topic.partitions);
    parts.map(|part| part.committed_offset).collect()
}

#[test]
fn a_commit_whose_client_leaves_counts_for_all_its_partitions_or_for_none() {
    let mut broker = TestBroker::start(51, 2, &[]);
    let (mut client, door) = (broker.connect(0), broker.door.clone());
    broker.run(async move {
        let find = FindCoordinatorRequest {
            coordinator_keys: vec!["g".into()],
            ..FindCoordinatorRequest::default()
        };
        create(&mut client, "t", 2).await;
        client.ask(&find, 4).await;
        while client.ask(&commit(0), 8).await.topics[0].partitions[0].error_code != 0 {
            door.world.sleep_for(Duration::from_millis(10)).await;
        }
        let mut is_done = 0;
        for offset in 1..60 {
            let leaver = door.connect(usize::try_from(offset % 2).expect("small"));
            leaver.send(&commit(offset), 8).await;
            let wait_us = door.world.random_u64() % 3_000;
            door.world.sleep_for(Duration::from_micros(wait_us)).await;
            leaver.stream.reset();
            door.world.sleep_for(Duration::from_secs(1)).await;
            let offsets = committed(&mut client).await;
            assert_eq!(offsets[0], offsets[1], "{offsets:?}");
            is_done += usize::from(offsets[0] == offset);
        }
        assert!(is_done > 0, "none of them came so far");
    });
}
