//! Odd requests about records and offsets.

use chronik_protocol::messages::*;
use chronik_protocol::{Str, Uuid};

use super::{Ground, NO_ID};

pub(super) fn ask_all(ground: &mut Ground) {
    list_offsets(ground);
    epochs(ground);
    fetch(ground);
    delete_records(ground);
}

fn list_offsets(ground: &mut Ground) {
    use list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
    let partition = |partition_index, current_leader_epoch, timestamp| ListOffsetsPartition {
        partition_index,
        current_leader_epoch,
        timestamp,
        max_num_offsets: 1,
        ..Default::default()
    };
    let topic = |name: Str, partitions| ListOffsetsTopic {
        name,
        partitions,
        ..Default::default()
    };
    let (known, missing) = (ground.topic(), ground.missing());
    #[rustfmt::skip]
    let cases = [
        ("nothing", vec![]),
        ("no partition", vec![topic(known.clone(), vec![])]),
        ("the end", vec![topic(known.clone(), vec![partition(0, -1, -1)])]),
        ("the beginning", vec![topic(known.clone(), vec![partition(0, -1, -2)])]),
        ("the greatest time", vec![topic(known.clone(), vec![partition(0, -1, -3)])]),
        ("the local beginning", vec![topic(known.clone(), vec![partition(0, -1, -4)])]),
        ("what is tiered", vec![topic(known.clone(), vec![partition(0, -1, -5)])]),
        ("what is to be tiered", vec![topic(known.clone(), vec![partition(0, -1, -6)])]),
        ("time -7", vec![topic(known.clone(), vec![partition(0, -1, -7)])]),
        ("a time", vec![topic(known.clone(), vec![partition(0, -1, 5)])]),
        ("epoch 77", vec![topic(known.clone(), vec![partition(0, 77, -1)])]),
        ("epoch -2", vec![topic(known.clone(), vec![partition(0, -2, -1)])]),
        ("a missing topic", vec![topic(missing, vec![partition(0, -1, -1)])]),
        ("a missing partition", vec![topic(known.clone(), vec![partition(9, -1, -1)])]),
        ("partition -1", vec![topic(known.clone(), vec![partition(-1, -1, -1)])]),
        ("a partition twice", vec![topic(known, vec![partition(0, -1, -1), partition(0, -1, -2)])]),
    ];
    for (case, topics) in cases {
        let request = ListOffsetsRequest {
            replica_id: -1,
            topics,
            ..Default::default()
        };
        ground.ask(case, &request);
    }
}

fn epochs(ground: &mut Ground) {
    use offset_for_leader_epoch_request::{OffsetForLeaderPartition, OffsetForLeaderTopic};
    let partition = |partition, current_leader_epoch, leader_epoch| OffsetForLeaderPartition {
        partition,
        current_leader_epoch,
        leader_epoch,
        ..Default::default()
    };
    let (known, missing) = (ground.topic(), ground.missing());
    for (case, topic, part) in [
        ("epoch 77", &known, partition(0, -1, 77)),
        ("epoch -1", &known, partition(0, -1, -1)),
        ("of epoch 77", &known, partition(0, 77, 0)),
        ("a missing topic", &missing, partition(0, -1, 0)),
        ("a missing partition", &known, partition(9, -1, 0)),
    ] {
        let request = OffsetForLeaderEpochRequest {
            replica_id: -1,
            topics: vec![OffsetForLeaderTopic {
                topic: topic.clone(),
                partitions: vec![part],
                ..Default::default()
            }],
            ..Default::default()
        };
        ground.ask(case, &request);
    }
}

fn fetch(ground: &mut Ground) {
    use fetch_request::{FetchPartition, FetchTopic};
    let part = |partition, fetch_offset| FetchPartition {
        partition,
        fetch_offset,
        partition_max_bytes: 1000,
        current_leader_epoch: -1,
        last_fetched_epoch: -1,
        log_start_offset: -1,
        ..Default::default()
    };
    let (known, missing) = ((ground.topic(), ground.id), (ground.missing(), NO_ID));
    let of_epoch = FetchPartition {
        current_leader_epoch: 77,
        ..part(0, 0)
    };
    let fetched_epoch = FetchPartition {
        last_fetched_epoch: 77,
        ..part(0, 0)
    };
    for (case, topic, partition) in [
        ("the end", &known, part(0, 0)),
        ("behind the end", &known, part(0, 5)),
        ("before the beginning", &known, part(0, -1)),
        ("epoch 77", &known, of_epoch),
        ("fetched in epoch 77", &known, fetched_epoch),
        ("a missing topic", &missing, part(0, 0)),
        ("no id", &(Str::default(), Uuid::ZERO), part(0, 0)),
        ("a missing partition", &known, part(9, 0)),
        ("partition -1", &known, part(-1, 0)),
    ] {
        let topic = FetchTopic {
            topic: topic.0.clone(),
            topic_id: topic.1,
            partitions: vec![partition],
            ..Default::default()
        };
        let request = FetchRequest {
            replica_id: -1,
            max_bytes: 10_000,
            topics: vec![topic],
            session_epoch: -1,
            ..Default::default()
        };
        ground.ask(case, &request);
    }
    for (case, session_id, session_epoch) in [
        ("a session that is not there", 77, 5),
        ("a session's first epoch", 77, 0),
        ("a session that ends", 77, -1),
        ("no session in epoch 5", 0, 5),
        ("epoch -2", 0, -2),
    ] {
        let request = FetchRequest {
            replica_id: -1,
            max_bytes: 10_000,
            session_id,
            session_epoch,
            ..Default::default()
        };
        ground.ask_sorted(case, &request, |response| {
            response.session_id = response.session_id.min(1);
        });
    }
}

fn delete_records(ground: &mut Ground) {
    use delete_records_request::{DeleteRecordsPartition, DeleteRecordsTopic};
    let (known, missing) = (ground.topic(), ground.missing());
    for (case, name, partition_index, offset) in [
        ("to the end", &known, 0, -1),
        ("to -2", &known, 0, -2),
        ("to 5", &known, 0, 5),
        ("to 0", &known, 0, 0),
        ("a missing topic", &missing, 0, 0),
        ("a missing partition", &known, 9, 0),
        ("partition -1", &known, -1, 0),
    ] {
        let request = DeleteRecordsRequest {
            topics: vec![DeleteRecordsTopic {
                name: name.clone(),
                partitions: vec![DeleteRecordsPartition {
                    partition_index,
                    offset,
                    ..Default::default()
                }],
                ..Default::default()
            }],
            timeout_ms: 10_000,
            ..Default::default()
        };
        ground.ask(case, &request);
    }
}
