//! Requests beside the deletion of what they are about: the shard that is asked may know it already.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use chronik_io::World;
use chronik_protocol::messages::alter_replica_log_dirs_request::{
    AlterReplicaLogDir, AlterReplicaLogDirTopic,
};
use chronik_protocol::messages::delete_records_request::{
    DeleteRecordsPartition, DeleteRecordsTopic,
};
use chronik_protocol::messages::delete_topics_request::DeleteTopicState;
use chronik_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use chronik_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use chronik_protocol::messages::offset_for_leader_epoch_request::{
    OffsetForLeaderPartition, OffsetForLeaderTopic,
};
use chronik_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use chronik_protocol::messages::*;
use chronik_protocol::{ErrorCode, Records, Str, Uuid};

use chronik_terms::{
    DeleteRecordsPart, EpochQuery, Isolation, OffsetQuery, OffsetTarget, PartitionId,
    SegmentOffsetsQuery, SegmentsBefore,
};

use super::apis::create;
use super::data::batch;
use super::{Client, TestBroker};

const PARTITIONS: i32 = 8;
const ROUNDS: usize = 30;

fn name() -> Str {
    Str::from_static("t")
}

/// What goes to the owners of partitions.
const ASKED: [(&str, i16); 9] = [
    ("Produce", 7),
    ("Produce", 13),
    ("Fetch", 4),
    ("Fetch", 13),
    ("ListOffsets", 0),
    ("ListOffsets", 2),
    ("DeleteRecords", 2),
    ("OffsetForLeaderEpoch", 2),
    ("AlterReplicaLogDirs", 1),
];

/// What was told, by what was asked.
type Codes = BTreeMap<(&'static str, i16), BTreeSet<i16>>;

async fn produce(client: &mut Client, version: i16, id: Uuid) -> Vec<i16> {
    let data = (0..PARTITIONS).map(|index| PartitionProduceData {
        index,
        records: Some(Records::from(batch("x", 1))),
        ..PartitionProduceData::default()
    });
    let topic = TopicProduceData {
        name: name(),
        topic_id: id,
        partition_data: data.collect(),
        ..TopicProduceData::default()
    };
    let request = ProduceRequest {
        acks: 1,
        timeout_ms: 1_000,
        topic_data: vec![topic],
        ..ProduceRequest::default()
    };
    let response = client.ask(&request, version).await;
    let parts = response.responses.iter();
    let parts = parts.flat_map(|topic| &topic.partition_responses);
    parts.map(|part| part.error_code).collect()
}

async fn fetch(client: &mut Client, version: i16, id: Uuid) -> Vec<i16> {
    let partitions = (0..PARTITIONS).map(|partition| FetchPartition {
        partition,
        partition_max_bytes: 1 << 10,
        ..FetchPartition::default()
    });
    let topic = FetchTopic {
        topic: name(),
        topic_id: id,
        partitions: partitions.collect(),
        ..FetchTopic::default()
    };
    let request = FetchRequest {
        max_bytes: 1 << 20,
        topics: vec![topic],
        ..FetchRequest::default()
    };
    let response = client.ask(&request, version).await;
    let parts = response.responses.iter();
    let parts = parts.flat_map(|topic| &topic.partitions);
    parts.map(|part| part.error_code).collect()
}

async fn list_offsets(client: &mut Client, version: i16) -> Vec<i16> {
    let partitions = (0..PARTITIONS).map(|partition_index| ListOffsetsPartition {
        partition_index,
        timestamp: -1,
        max_num_offsets: 1,
        ..ListOffsetsPartition::default()
    });
    let topic = ListOffsetsTopic {
        name: name(),
        partitions: partitions.collect(),
        ..ListOffsetsTopic::default()
    };
    let request = ListOffsetsRequest {
        topics: vec![topic],
        ..ListOffsetsRequest::default()
    };
    let response = client.ask(&request, version).await;
    let parts = response.topics.iter().flat_map(|topic| &topic.partitions);
    parts.map(|part| part.error_code).collect()
}

async fn delete_records(client: &mut Client, version: i16) -> Vec<i16> {
    let partitions = (0..PARTITIONS).map(|partition_index| DeleteRecordsPartition {
        partition_index,
        ..DeleteRecordsPartition::default()
    });
    let topic = DeleteRecordsTopic {
        name: name(),
        partitions: partitions.collect(),
        ..DeleteRecordsTopic::default()
    };
    let request = DeleteRecordsRequest {
        topics: vec![topic],
        timeout_ms: 1_000,
        ..DeleteRecordsRequest::default()
    };
    let response = client.ask(&request, version).await;
    let parts = response.topics.iter().flat_map(|topic| &topic.partitions);
    parts.map(|part| part.error_code).collect()
}

async fn epoch_ends(client: &mut Client, version: i16) -> Vec<i16> {
    let partitions = (0..PARTITIONS).map(|partition| OffsetForLeaderPartition {
        partition,
        current_leader_epoch: -1,
        ..OffsetForLeaderPartition::default()
    });
    let topic = OffsetForLeaderTopic {
        topic: name(),
        partitions: partitions.collect(),
        ..OffsetForLeaderTopic::default()
    };
    let request = OffsetForLeaderEpochRequest {
        topics: vec![topic],
        ..OffsetForLeaderEpochRequest::default()
    };
    let response = client.ask(&request, version).await;
    let parts = response.topics.iter().flat_map(|topic| &topic.partitions);
    parts.map(|part| part.error_code).collect()
}

async fn move_logs(client: &mut Client, version: i16) -> Vec<i16> {
    let topic = AlterReplicaLogDirTopic {
        name: name(),
        partitions: (0..PARTITIONS).collect(),
        ..AlterReplicaLogDirTopic::default()
    };
    let dir = AlterReplicaLogDir {
        path: Str::from_static("/data"),
        topics: vec![topic],
        ..AlterReplicaLogDir::default()
    };
    let request = AlterReplicaLogDirsRequest {
        dirs: vec![dir],
        ..AlterReplicaLogDirsRequest::default()
    };
    let response = client.ask(&request, version).await;
    let parts = response.results.iter().flat_map(|topic| &topic.partitions);
    parts.map(|part| part.error_code).collect()
}

async fn ask(client: &mut Client, (api, version): (&str, i16), id: Uuid) -> Vec<i16> {
    match api {
        "Produce" => produce(client, version, id).await,
        "Fetch" => fetch(client, version, id).await,
        "ListOffsets" => list_offsets(client, version).await,
        "DeleteRecords" => delete_records(client, version).await,
        "OffsetForLeaderEpoch" => epoch_ends(client, version).await,
        _ => move_logs(client, version).await,
    }
}

async fn delete(client: &mut Client) {
    let topic = DeleteTopicState {
        name: Some(name()),
        ..DeleteTopicState::default()
    };
    let request = DeleteTopicsRequest {
        topics: vec![topic],
        timeout_ms: 1_000,
        ..DeleteTopicsRequest::default()
    };
    assert_eq!(client.ask(&request, 6).await.responses[0].error_code, 0);
}

#[test]
fn who_asks_by_name_hears_nothing_of_ids_beside_a_deletion() {
    let mut broker = TestBroker::start(41, 2, &[]);
    let (id, is_over) = (Rc::new(Cell::new(Uuid::ZERO)), Rc::new(Cell::new(false)));
    let codes: Rc<RefCell<Codes>> = Rc::default();
    for asked in ASKED {
        for shard in [0, 1] {
            let mut client = broker.connect(shard);
            let (id, is_over) = (Rc::clone(&id), Rc::clone(&is_over));
            let codes = Rc::clone(&codes);
            broker.simulation.world().spawn(async move {
                while !is_over.get() {
                    let told = ask(&mut client, asked, id.get()).await;
                    codes.borrow_mut().entry(asked).or_default().extend(told);
                }
            });
        }
    }
    let mut client = broker.connect(0);
    broker.run(async move {
        for _ in 0..ROUNDS {
            id.set(create(&mut client, "t", PARTITIONS).await);
            // Its logs open behind the answer; the others find them open for a moment.
            for _ in 0..4 {
                produce(&mut client, 7, id.get()).await;
            }
            delete(&mut client).await;
        }
        is_over.set(true);
    });
    let codes = codes.borrow();
    let (of_name, of_id) = (
        ErrorCode::UnknownTopicOrPartition.as_i16(),
        ErrorCode::UnknownTopicId.as_i16(),
    );
    for asked in ASKED {
        let (right, wrong) = match asked {
            ("Fetch", 13) => (of_id, Some(of_name)),
            // A batch that is on its way when its log goes is told so as Kafka tells it (`DelayedProduce`).
            ("Produce", 13) => (of_id, None),
            _ => (of_name, Some(of_id)),
        };
        let told = &codes[&asked];
        assert!(
            told.contains(&0) && told.contains(&right),
            "{asked:?}: {told:?}"
        );
        let is_wrong = wrong.is_some_and(|wrong| told.contains(&wrong));
        assert!(!is_wrong, "{asked:?}: {told:?}, of all {codes:?}");
    }
}

/// The look-up of the name is over, and the shard knows the topic no more.
#[test]
fn a_shard_that_knows_no_such_topic_says_so_of_its_name() {
    let mut broker = TestBroker::start(42, 2, &[]);
    let context = Rc::clone(&broker.contexts[0]);
    let told = broker.run(async move {
        let (world, router) = (&context.world, &context.router);
        let gone = PartitionId {
            topic_id: Uuid(4_242),
            index: 0,
        };
        let offsets = OffsetQuery {
            partition: gone,
            current_leader_epoch: -1,
            isolation: Isolation::ReadUncommitted,
            target: OffsetTarget::Latest,
        };
        let segments = SegmentOffsetsQuery {
            partition: gone,
            before: SegmentsBefore::End,
            count_max: 1,
            now_ms: 0,
        };
        let epochs = EpochQuery {
            partition: gone,
            current_leader_epoch: -1,
            leader_epoch: 0,
        };
        let records = DeleteRecordsPart {
            partition: gone,
            offset: 0,
        };
        let dir = router.log_dirs().all()[0].id.expect("usable");
        [
            router
                .list_offsets(world, vec![offsets])
                .await
                .expect("told")[0]
                .error,
            router
                .segment_offsets(world, vec![segments])
                .await
                .expect("told")[0]
                .error,
            router.epoch_ends(world, vec![epochs]).await.expect("told")[0].error,
            router
                .delete_records(world, vec![records])
                .await
                .expect("told")[0]
                .error,
            router
                .move_logs(world, vec![(gone, dir)])
                .await
                .expect("told")[0],
        ]
    });
    assert_eq!(told, [ErrorCode::UnknownTopicOrPartition; 5]);
}
