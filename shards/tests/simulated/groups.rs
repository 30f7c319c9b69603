//! Groups on whole shards: offsets through power cuts, and how far groups are behind.

use chronik_coordinators::groups::{CommittedQuery, GroupReply, GroupRequest, OFFSETS_TOPIC};
use chronik_io::simulated::Simulation;
use chronik_protocol::messages::OffsetCommitRequest;
use chronik_protocol::messages::offset_commit_request::{
    OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use chronik_protocol::messages::offset_fetch_request::{
    OffsetFetchRequestGroup, OffsetFetchRequestTopics,
};
use chronik_protocol::{ErrorCode, Str};
use chronik_shards::*;
use chronik_terms::*;

use crate::cluster::Cluster;

fn group(cluster: &mut Cluster, request: GroupRequest) -> GroupReply {
    match cluster.ask(COORDINATOR_SHARD, Request::Group(Box::new(request))) {
        Reply::Group(reply) => *reply,
        other => panic!("{other:?}"),
    }
}

pub(crate) fn commit_request(name: &str, partition: PartitionId, offset: i64) -> GroupRequest {
    let request = OffsetCommitRequest {
        group_id: Str::from(name),
        // Simulated time flies while nothing happens: weeks pass during a start.
        retention_time_ms: 1 << 60,
        topics: vec![OffsetCommitRequestTopic {
            name: Str::from("t"),
            topic_id: partition.topic_id,
            partitions: vec![OffsetCommitRequestPartition {
                partition_index: partition.index,
                committed_offset: offset,
                ..Default::default()
            }],
            ..Default::default()
        }],
        ..Default::default()
    };
    GroupRequest::CommitOffsets {
        request,
        knows_epochs: true,
    }
}

pub(crate) fn commit(
    cluster: &mut Cluster,
    name: &str,
    partition: PartitionId,
    offset: i64,
) -> ErrorCode {
    match group(cluster, commit_request(name, partition, offset)) {
        GroupReply::CommitOffsets(reply) => {
            let error = reply.topics[0].partitions[0].error_code;
            ErrorCode::try_from(error).expect("an error code")
        }
        other => panic!("{other:?}"),
    }
}

/// What a group has committed; asked again while groups are being read.
pub(crate) fn committed(cluster: &mut Cluster, name: &str, index: i32) -> i64 {
    loop {
        let wanted = OffsetFetchRequestGroup {
            group_id: Str::from(name),
            topics: Some(vec![OffsetFetchRequestTopics {
                name: Str::from("t"),
                partition_indexes: vec![index],
                ..Default::default()
            }]),
            ..Default::default()
        };
        let fetch = GroupRequest::FetchOffsets {
            groups: vec![wanted],
        };
        let GroupReply::FetchOffsets(mut groups) = group(cluster, fetch) else {
            panic!("another answer");
        };
        let found = groups.remove(0);
        match ErrorCode::try_from(found.error_code) {
            Ok(ErrorCode::None) => return found.topics[0].partitions[0].committed_offset,
            Ok(ErrorCode::CoordinatorLoadInProgress) => {}
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn offsets_survive_power_cuts_on_any_number_of_shards() {
    let mut cluster = Cluster::start(Simulation::new(5), 2);
    cluster.create("t", 4).expect("created");
    cluster.create(OFFSETS_TOPIC, 3).expect("created");
    for (round, shards) in [1, 3, 2, 1].into_iter().enumerate() {
        let offset = 100 * i64::try_from(round).expect("small");
        for number in 0..10 {
            let id = cluster.id("t", number % 4);
            let name = format!("group-{number}");
            let result = commit(&mut cluster, &name, id, offset + i64::from(number));
            assert_eq!(result, ErrorCode::None, "{name}");
        }
        drop(cluster.handles);
        let simulation = cluster.simulation.crash();
        cluster = Cluster::start(simulation, shards);
        for number in 0..10 {
            let name = format!("group-{number}");
            let found = committed(&mut cluster, &name, number % 4);
            assert_eq!(found, offset + i64::from(number), "{name} in round {round}");
        }
    }
}

#[test]
fn lag_is_told_in_records_and_in_time() {
    let mut cluster = Cluster::start(Simulation::new(6), 2);
    cluster.create("t", 2).expect("created");
    cluster.create(OFFSETS_TOPIC, 3).expect("created");
    for index in 0..2 {
        let id = cluster.id("t", index);
        // The test's records say that they were written 1 ms after the epoch.
        cluster.append(id, &[b"one", b"two", b"three"]);
    }
    let (behind, done) = (cluster.id("t", 0), cluster.id("t", 1));
    assert_eq!(commit(&mut cluster, "g", behind, 1), ErrorCode::None);
    assert_eq!(commit(&mut cluster, "g", done, 3), ErrorCode::None);
    let shard = cluster.handles[1].clone();
    let query = CommittedQuery {
        after: None,
        groups_max: 10,
    };
    let lags = cluster
        .simulation
        .run(async move { group_lag(&shard, query, 5_001).await })
        .expect("groups");
    let group = lags.first().expect("one group");
    assert_eq!(
        (&*group.group, &*group.state, lags.len()),
        ("g", "Empty", 1)
    );
    let told: Vec<_> = group
        .partitions
        .iter()
        .map(|p| (p.partition, p.committed_offset, p.records, p.age_ms))
        .collect();
    assert_eq!(
        told,
        [(0, 1, Some(2), Some(5_000)), (1, 3, Some(0), Some(0))]
    );
}
