//! Several shards on one simulated machine, started, asked, stopped, killed.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

use chronik_catalog::{
    ApiError, ConfigChange, ConfigOp, ConfigOpKind, ConfigResource, ControllerReply,
    ControllerRequest, Endpoint, NewTopic, TopicRef,
};
use chronik_io::simulated::Simulation;
use chronik_io::{Mesh, MeshOptions, World};
use chronik_protocol::record::{BatchBuilder, CheckedBatch, NewRecord};
use chronik_protocol::{ErrorCode, Str};
use chronik_shards::*;
use chronik_terms::*;

/// Where the data of the simulated broker lies.
pub(crate) const DATA: &str = "/data";

/// A broker of some shards and nothing else.
pub(crate) struct Cluster {
    pub(crate) simulation: Simulation,
    pub(crate) handles: Vec<ShardHandle>,
}

pub(crate) fn options() -> StartOptions {
    StartOptions {
        data: PathBuf::from(DATA),
        more_data: Vec::new(),
        node_id: 1,
        cluster_id: None,
        endpoints: vec![Endpoint {
            name: Str::from("PLAINTEXT"),
            host: Str::from("127.0.0.1"),
            port: 9092,
            security_protocol: 0,
        }],
        rack: None,
        write_behind_bytes: 64 << 10,
        remember_after_bytes: 300,
        // The records are as old as time itself.
        static_configs: BTreeMap::from([(Str::from("log.retention.ms"), Str::from("-1"))]),
    }
}

/// One batch of one record for each value.
pub(crate) fn batch(values: &[&[u8]]) -> CheckedBatch {
    let mut builder = BatchBuilder::new(0);
    for value in values {
        let record = NewRecord {
            timestamp: 1,
            value: Some(value),
            ..NewRecord::default()
        };
        builder.push(&record).expect("a small record");
    }
    builder.build().expect("a small batch")
}

impl Cluster {
    /// Starts `count` shards on a machine; panics when they do not start.
    pub(crate) fn start(simulation: Simulation, count: usize) -> Cluster {
        match Cluster::try_start(simulation, count) {
            (simulation, Ok(handles)) => Cluster {
                simulation,
                handles,
            },
            (simulation, Err(error)) => panic!("seed {}: {error}", simulation.seed()),
        }
    }

    pub(crate) fn try_start(
        simulation: Simulation,
        count: usize,
    ) -> (Simulation, Result<Vec<ShardHandle>, String>) {
        Cluster::try_start_with(simulation, count, options())
    }

    /// With other options than [`options`].
    pub(crate) fn try_start_with(
        simulation: Simulation,
        count: usize,
        options: StartOptions,
    ) -> (Simulation, Result<Vec<ShardHandle>, String>) {
        // Much comes after the start: weeks pass.
        Cluster::try_start_in_steps(simulation, count, options, 100_000)
    }

    /// Looks after so many steps whether the shards have started.
    pub(crate) fn try_start_in_steps(
        mut simulation: Simulation,
        count: usize,
        options: StartOptions,
        steps: usize,
    ) -> (Simulation, Result<Vec<ShardHandle>, String>) {
        let mesh = Mesh::new(count, MeshOptions::default());
        let started = Rc::new(RefCell::new(Vec::new()));
        for index in (0..count).rev() {
            let (world, endpoint) = (simulation.world(), mesh.endpoint(index));
            let (started, options) = (Rc::clone(&started), options.clone());
            simulation.world().spawn(async move {
                let result = start(world, endpoint, &options).await;
                started
                    .borrow_mut()
                    .push((index, result.map_err(|error| error.to_string())));
            });
        }
        while started.borrow().len() < count {
            let more = simulation.run_steps(steps);
            let done = started.borrow().len() == count;
            assert!(more || done, "seed {}: the start hangs", simulation.seed());
        }
        let mut started = started.take();
        started.sort_by_key(|(index, _)| *index);
        let handles = started.into_iter().map(|(_, result)| result).collect();
        (simulation, handles)
    }

    /// Asks one shard and waits.
    pub(crate) fn ask(&mut self, shard: usize, request: Request) -> Reply {
        let endpoint = self.handles[0].endpoint().clone();
        self.simulation
            .run(async move { endpoint.call(shard, request).await })
            .expect("a reply")
    }

    pub(crate) fn control(&mut self, request: ControllerRequest) -> ControllerReply {
        match self.ask(COORDINATOR_SHARD, Request::Control(request)) {
            Reply::Control(reply) => reply,
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn create(&mut self, name: &str, partitions: i32) -> Result<(), ApiError> {
        match self.control(create(name, partitions)) {
            ControllerReply::CreateTopics(mut topics) => topics.remove(0).result.map(|_| ()),
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn delete(&mut self, name: &str) -> Result<(), ApiError> {
        let request = ControllerRequest::DeleteTopics(vec![TopicRef::Name(Str::from(name))]);
        match self.control(request) {
            ControllerReply::DeleteTopics(mut topics) => topics.remove(0).2,
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn set(&mut self, resource: ConfigResource, name: &str, value: &str) {
        let op = ConfigOp {
            name: Str::from(name),
            kind: ConfigOpKind::Set,
            value: Some(Str::from(value)),
        };
        let change = ConfigChange {
            resource,
            ops: vec![op],
            replace_all: false,
        };
        let resources = vec![change];
        let request = ControllerRequest::AlterConfigs {
            resources,
            validate_only: false,
        };
        match self.control(request) {
            ControllerReply::AlterConfigs(results) => assert_eq!(results, [Ok(())]),
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn id(&self, name: &str, index: i32) -> PartitionId {
        let image = self.handles[0].image();
        PartitionId {
            topic_id: image.topic(name).expect("a topic").id,
            index,
        }
    }

    pub(crate) fn owner(&self, partition: PartitionId) -> usize {
        self.handles[0].owner(partition)
    }

    pub(crate) fn append(&mut self, partition: PartitionId, values: &[&[u8]]) -> AppendResult {
        let owner = self.owner(partition);
        match self.ask(owner, append(partition, values)) {
            Reply::Append(mut results) => results.remove(0),
            other => panic!("{other:?}"),
        }
    }

    /// Every value of a partition from an offset on, in order.
    pub(crate) fn values(&mut self, partition: PartitionId, from: i64) -> Vec<(i64, Vec<u8>)> {
        let owner = self.owner(partition);
        let mut found: Vec<(i64, Vec<u8>)> = Vec::new();
        let mut next = from;
        loop {
            let request = read(partition, next, None);
            let result = match self.ask(owner, request) {
                Reply::Read(mut results) => results.remove(0),
                other => panic!("{other:?}"),
            };
            assert_eq!(
                result.error,
                ErrorCode::None,
                "reading {partition:?} at {next}"
            );
            let mut rest = result.records.into_bytes();
            if rest.is_empty() {
                assert_eq!(next.max(result.log_start_offset), result.high_watermark);
                return found;
            }
            while !rest.is_empty() {
                let (batch, after) = CheckedBatch::parse_first(rest).expect("whole batches");
                rest = after;
                for record in batch.records(&Default::default()).expect("records") {
                    let record = record.expect("a record");
                    if record.offset >= from {
                        found.push((record.offset, record.value.expect("a value").to_vec()));
                    }
                }
                next = batch.header.next_offset();
            }
        }
    }

    /// A clean stop; the machine stays.
    pub(crate) fn stop(mut self) -> Simulation {
        let handle = self.handles[0].clone();
        self.simulation
            .run(async move { handle.stop().await })
            .expect("a clean stop");
        drop(self.handles);
        self.simulation.kill()
    }

    /// The names in the data directory, without the metadata log's.
    pub(crate) fn directories(&mut self) -> Vec<String> {
        let world = self.simulation.world();
        let data = PathBuf::from(DATA);
        let entries = self
            .simulation
            .run(async move { world.list_dir(&data).await });
        let entries = entries.expect("a data directory").into_iter();
        entries
            .filter(|entry| entry.is_dir && entry.name != "__cluster_metadata-0")
            .map(|entry| entry.name.to_string_lossy().into_owned())
            .collect()
    }

    pub(crate) fn advance(&mut self, millis: u64) {
        self.simulation.advance(Duration::from_millis(millis));
    }
}

pub(crate) fn create(name: &str, partitions: i32) -> ControllerRequest {
    let topic = NewTopic {
        name: Str::from(name),
        partition_count: partitions,
        replication_factor: 1,
        ..NewTopic::default()
    };
    ControllerRequest::CreateTopics {
        topics: vec![topic],
        validate_only: false,
    }
}

pub(crate) fn append(partition: PartitionId, values: &[&[u8]]) -> Request {
    append_with(Acks::All, partition, values)
}

pub(crate) fn append_with(acks: Acks, partition: PartitionId, values: &[&[u8]]) -> Request {
    let parts = vec![AppendPart {
        partition,
        batch: batch(values),
    }];
    Request::Append(AppendRequest {
        acks,
        timeout_ms: 30_000,
        parts,
    })
}

pub(crate) fn read(partition: PartitionId, fetch_offset: i64, wait: Option<Wait>) -> Request {
    Request::Read(ReadRequest {
        isolation: Isolation::ReadUncommitted,
        max_bytes: 1 << 20,
        parts: vec![ReadPart {
            partition,
            fetch_offset,
            max_bytes: 1 << 20,
            current_leader_epoch: -1,
            last_fetched_epoch: -1,
        }],
        wait,
        reader: None,
    })
}
