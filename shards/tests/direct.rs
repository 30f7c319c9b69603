//! A whole shard on a real executor and a real disk: many partitions created, closed, found again.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use chronik_catalog::{ControllerReply, ControllerRequest, NewTopic};
use chronik_io::executor::{ExecutorOptions, ShardSeat, run};
use chronik_protocol::record::{BatchBuilder, NewRecord};
use chronik_protocol::{ErrorCode, Str};
use chronik_shards::*;
use chronik_terms::*;

/// Enough that one stack frame for each would not fit a thread's stack.
const PARTITIONS: i32 = 1000;

fn options(data: &Path) -> StartOptions {
    StartOptions {
        data: data.to_owned(),
        more_data: Vec::new(),
        node_id: 1,
        cluster_id: None,
        endpoints: Vec::new(),
        rack: None,
        write_behind_bytes: 1 << 20,
        remember_after_bytes: chronik_shards::limits::REMEMBER_AFTER_BYTES,
        static_configs: BTreeMap::new(),
    }
}

async fn create(handle: &ShardHandle) {
    let topic = NewTopic {
        partition_count: PARTITIONS,
        ..NewTopic::with_defaults(Str::from("many"))
    };
    let request = ControllerRequest::CreateTopics {
        topics: vec![topic],
        validate_only: false,
    };
    let reply = handle
        .endpoint()
        .call(COORDINATOR_SHARD, Request::Control(request))
        .await;
    match reply {
        Ok(Reply::Control(ControllerReply::CreateTopics(topics))) => {
            topics[0].result.as_ref().expect("created");
        }
        other => panic!("{other:?}"),
    }
}

/// Appends one record to the first and the last partition; gives their offsets.
async fn append(handle: &ShardHandle) -> Vec<i64> {
    let image = handle.image();
    let topic_id = image.topic("many").expect("the topic").id;
    let mut offsets = Vec::new();
    for index in [0, PARTITIONS - 1] {
        let partition = PartitionId { topic_id, index };
        let mut builder = BatchBuilder::new(0);
        let record = NewRecord {
            timestamp: 1,
            value: Some(b"value"),
            ..NewRecord::default()
        };
        builder.push(&record).expect("a small record");
        let parts = vec![AppendPart {
            partition,
            batch: builder.build().expect("a batch"),
        }];
        let request = AppendRequest {
            acks: Acks::All,
            timeout_ms: 60_000,
            parts,
        };
        let owner = handle.owner(partition);
        match handle
            .endpoint()
            .call(owner, Request::Append(request))
            .await
        {
            Ok(Reply::Append(results)) => {
                assert_eq!(
                    results[0].error,
                    ErrorCode::None,
                    "{:?}",
                    results[0].message
                );
                offsets.push(results[0].base_offset);
            }
            other => panic!("{other:?}"),
        }
    }
    offsets
}

/// One life of the broker: started, used, stopped.
fn live(data: &Path, first: bool) -> io::Result<()> {
    let options = options(data);
    let running = run(
        ExecutorOptions::new(1)?,
        move |seat: ShardSeat<Request, Reply>| {
            let options = options.clone();
            async move {
                let started = start(seat.world, seat.endpoint, &options).await;
                let handle = started.map_err(io::Error::other)?;
                if first {
                    create(&handle).await;
                }
                assert_eq!(append(&handle).await, if first { [0, 0] } else { [1, 1] });
                handle.stop().await.map(drop).map_err(io::Error::other)
            }
        },
    )?;
    running.join()
}

/// Tasks of a real executor may run as soon as they are spawned; closing partitions one after the
/// other must not take a stack frame for each.
#[test]
fn many_partitions_are_created_closed_and_found_again() {
    let binary = std::env::current_exe().expect("a test binary");
    let folder = binary.parent().expect("in a directory");
    let scratch = tempfile::tempdir_in(folder).expect("a directory beside the binary");
    let data: PathBuf = scratch.path().join("data");
    for first in [true, false] {
        live(&data, first).expect("a clean life");
        assert!(data.join(".kafka_cleanshutdown").exists());
    }
}
