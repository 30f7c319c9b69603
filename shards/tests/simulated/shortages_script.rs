//! What a broker does with files, as a script, and what clients were told meanwhile.
//!
//! Requests may be refused at any step; afterwards everything has to be served, and nothing that was
//! acknowledged may be lost nor anything be left over.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use chronik_catalog::{
    ConfigChange, ConfigOp, ConfigOpKind, ConfigResource, ControllerReply, ControllerRequest,
};
use chronik_coordinators::groups::{GroupReply, GroupRequest, OFFSETS_TOPIC};
use chronik_io::World;
use chronik_io::simulated::Simulation;
use chronik_protocol::messages::OffsetCommitRequest;
use chronik_protocol::messages::offset_commit_request::{
    OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use chronik_protocol::messages::offset_fetch_request::{
    OffsetFetchRequestGroup, OffsetFetchRequestTopics,
};
use chronik_protocol::record::{BatchBuilder, CheckedBatch, NewRecord};
use chronik_protocol::{ErrorCode, Str};
use chronik_shards::*;
use chronik_terms::*;

use crate::cluster::{Cluster, DATA, options};

/// Seconds within which everything has to be served again.
const HEALED_S: u64 = 120;

/// Few, for nothing is wanted of the time after a start.
const STEPS: usize = 50;

const GROUPS: [&str; 2] = ["g", "h"];

/// What clients were told.
#[derive(Default)]
struct Told {
    /// Offset and value of what was acknowledged, by topic and partition.
    records: BTreeMap<(&'static str, i32), BTreeMap<i64, Vec<u8>>>,
    /// Below here records may be gone.
    starts: BTreeMap<(&'static str, i32), i64>,
    committed: BTreeMap<&'static str, i64>,
    created: BTreeSet<&'static str>,
    deleted: BTreeSet<&'static str>,
}

pub(crate) struct Script {
    cluster: Option<Cluster>,
    /// The machine, while no broker runs on it.
    machine: Option<Simulation>,
    told: Told,
    number: u32,
    /// How many operations failed for a shortage before a start that failed for it too.
    met: u64,
}

fn start_options() -> StartOptions {
    let mut options = options();
    for (name, value) in [
        ("log.segment.bytes", "16384"),
        ("log.segment.delete.delay.ms", "1000"),
        ("log.cleaner.backoff.ms", "1000"),
        ("log.cleaner.min.cleanable.ratio", "0.01"),
        ("log.retention.check.interval.ms", "1000"),
    ] {
        let static_configs = &mut options.static_configs;
        static_configs.insert(Str::from(name), Str::from(value));
    }
    options
}

fn keyed(key: &[u8], value: &[u8]) -> CheckedBatch {
    let mut builder = BatchBuilder::new(0);
    let record = NewRecord {
        timestamp: 1,
        key: Some(key),
        value: Some(value),
        ..NewRecord::default()
    };
    builder.push(&record).expect("a small record");
    builder.build().expect("a small batch")
}

fn code(error: i16) -> ErrorCode {
    ErrorCode::try_from(error).expect("an error code")
}

impl Script {
    pub(crate) fn new(seed: u64) -> Script {
        let (simulation, handles) =
            Cluster::try_start_in_steps(Simulation::new(seed), 1, start_options(), STEPS);
        let handles = handles.expect("starts while nothing is short");
        Script {
            cluster: Some(Cluster {
                simulation,
                handles,
            }),
            machine: None,
            told: Told::default(),
            number: 0,
            met: 0,
        }
    }

    fn cluster(&mut self) -> &mut Cluster {
        self.cluster.as_mut().expect("a broker runs")
    }

    pub(crate) fn machine(&self) -> &Simulation {
        match (&self.cluster, &self.machine) {
            (Some(cluster), _) => &cluster.simulation,
            (None, Some(machine)) => machine,
            (None, None) => panic!("no machine"),
        }
    }

    /// How many operations failed for the shortage.
    pub(crate) fn met(&self) -> u64 {
        self.met + self.machine().faults().met()
    }

    fn create(&mut self, name: &'static str, partitions: i32) -> ErrorCode {
        let result = self.cluster().create(name, partitions);
        match result {
            Ok(()) => {
                self.told.created.insert(name);
                self.told.deleted.remove(name);
                ErrorCode::None
            }
            Err(error) => error.code,
        }
    }

    fn delete(&mut self, name: &'static str) {
        if self.cluster().delete(name).is_ok() {
            self.told.created.remove(name);
            self.told.deleted.insert(name);
            self.told.records.retain(|(topic, _), _| *topic != name);
        }
    }

    fn set(&mut self, topic: &str, name: &str, value: &str) -> bool {
        let op = ConfigOp {
            name: Str::from(name),
            kind: ConfigOpKind::Set,
            value: Some(Str::from(value)),
        };
        let change = ConfigChange {
            resource: ConfigResource::Topic(Str::from(topic)),
            ops: vec![op],
            replace_all: false,
        };
        let request = ControllerRequest::AlterConfigs {
            resources: vec![change],
            validate_only: false,
        };
        match self.cluster().control(request) {
            ControllerReply::AlterConfigs(results) => results == [Ok(())],
            other => panic!("{other:?}"),
        }
    }

    fn id(&mut self, topic: &str, index: i32) -> Option<PartitionId> {
        let image = self.cluster().handles[0].image();
        let topic_id = image.topic(topic)?.id;
        Some(PartitionId { topic_id, index })
    }

    /// One record under one of three keys.
    fn append(&mut self, topic: &'static str, index: i32, acks: Acks) -> ErrorCode {
        let Some(id) = self.id(topic, index) else {
            return ErrorCode::UnknownTopicOrPartition;
        };
        self.number += 1;
        let key = [b'k', b'0' + u8::try_from(self.number % 3).expect("small")];
        let mut value = self.number.to_string().into_bytes();
        value.resize(5_000, b'.');
        let request = Request::Append(AppendRequest {
            acks,
            timeout_ms: 30_000,
            parts: vec![AppendPart {
                partition: id,
                batch: keyed(&key, &value),
            }],
        });
        let owner = self.cluster().owner(id);
        let result = match self.cluster().ask(owner, request) {
            Reply::Append(mut results) => results.remove(0),
            other => panic!("{other:?}"),
        };
        if result.error == ErrorCode::None {
            let records = self.told.records.entry((topic, index)).or_default();
            records.insert(result.base_offset, value);
        }
        result.error
    }

    fn commit(&mut self, group: &'static str, offset: i64) -> ErrorCode {
        let request = OffsetCommitRequest {
            group_id: Str::from(group),
            retention_time_ms: 1 << 60,
            topics: vec![OffsetCommitRequestTopic {
                name: Str::from("a"),
                partitions: vec![OffsetCommitRequestPartition {
                    committed_offset: offset,
                    ..Default::default()
                }],
                ..Default::default()
            }],
            ..Default::default()
        };
        let commit = GroupRequest::CommitOffsets {
            request,
            knows_epochs: true,
        };
        let error = match self.group(commit) {
            GroupReply::CommitOffsets(reply) => code(reply.topics[0].partitions[0].error_code),
            other => panic!("{other:?}"),
        };
        if error == ErrorCode::None {
            self.told.committed.insert(group, offset);
        }
        error
    }

    fn group(&mut self, request: GroupRequest) -> GroupReply {
        let request = Request::Group(Box::new(request));
        match self.cluster().ask(COORDINATOR_SHARD, request) {
            Reply::Group(reply) => *reply,
            other => panic!("{other:?}"),
        }
    }

    fn committed(&mut self, group: &str) -> Result<i64, ErrorCode> {
        let wanted = OffsetFetchRequestGroup {
            group_id: Str::from(group),
            topics: Some(vec![OffsetFetchRequestTopics {
                name: Str::from("a"),
                partition_indexes: vec![0],
                ..Default::default()
            }]),
            ..Default::default()
        };
        let groups = vec![wanted];
        let GroupReply::FetchOffsets(mut found) = self.group(GroupRequest::FetchOffsets { groups })
        else {
            panic!("another answer");
        };
        let found = found.remove(0);
        match code(found.error_code) {
            ErrorCode::None => Ok(found.topics[0].partitions[0].committed_offset),
            error => Err(error),
        }
    }

    fn delete_records(&mut self, topic: &'static str, index: i32, offset: i64) -> ErrorCode {
        let Some(partition) = self.id(topic, index) else {
            return ErrorCode::UnknownTopicOrPartition;
        };
        let request = Request::DeleteRecords(vec![DeleteRecordsPart { partition, offset }]);
        let owner = self.cluster().owner(partition);
        let result = match self.cluster().ask(owner, request) {
            Reply::DeleteRecords(mut results) => results.remove(0),
            other => panic!("{other:?}"),
        };
        // Whatever the answer: they may be gone.
        let start = self.told.starts.entry((topic, index)).or_default();
        *start = offset.max(*start);
        if result.error == ErrorCode::None {
            assert!(result.low_watermark >= offset);
        }
        result.error
    }

    /// Everything a broker does with files before it stops.
    pub(crate) fn run_first(&mut self) {
        self.create("a", 2);
        self.create("c", 1);
        self.create(OFFSETS_TOPIC, 1);
        self.set("c", "cleanup.policy", "compact");
        self.set("a", "chronik.durability", "process");
        for round in 0..7 {
            for (topic, index) in [("a", 0), ("a", 1), ("c", 0)] {
                self.append(topic, index, Acks::All);
            }
            self.commit(GROUPS[round % 2], i64::try_from(round).expect("small"));
        }
        self.cluster().advance(20_000);
        self.delete_records("a", 0, 3);
        self.create("b", 1);
        self.append("b", 0, Acks::All);
        self.delete("b");
        // From now on old records may go.
        for index in 0..2 {
            self.told.starts.insert(("a", index), i64::MAX);
        }
        self.set("a", "retention.bytes", "20000");
        self.cluster().advance(10_000);
        self.append("a", 0, Acks::Leader);
        self.append("c", 0, Acks::Leader);
    }

    /// A stop, a start, and what comes behind them.
    pub(crate) fn run_rest(&mut self) {
        self.restart_cleanly();
        if self.cluster.is_none() {
            return;
        }
        self.append("a", 0, Acks::All);
        self.append("c", 0, Acks::All);
        self.commit("g", 100);
        self.create("d", 1);
        self.cluster().advance(5_000);
    }

    fn restart_cleanly(&mut self) {
        let Some(mut cluster) = self.cluster.take() else {
            return;
        };
        let handle = cluster.handles[0].clone();
        let stopped = cluster.simulation.run(async move { handle.stop().await });
        assert!(stopped.is_ok(), "a stop comes to its end");
        drop(cluster.handles);
        // What is short stays so.
        let faults = std::mem::take(&mut *cluster.simulation.faults());
        let machine = cluster.simulation.kill();
        *machine.faults() = faults;
        self.start(machine);
    }

    /// A kill, and a start that meets `faults`; says whether it went well.
    pub(crate) fn kill_and_start(&mut self, faults: impl FnOnce(&Simulation)) -> bool {
        let cluster = self.cluster.take().expect("a broker runs");
        drop(cluster.handles);
        let machine = cluster.simulation.kill();
        faults(&machine);
        self.start(machine);
        self.cluster.is_some()
    }

    fn start(&mut self, machine: Simulation) {
        let (simulation, handles) = Cluster::try_start_in_steps(machine, 1, start_options(), STEPS);
        match handles {
            Ok(handles) => {
                self.cluster = Some(Cluster {
                    simulation,
                    handles,
                });
            }
            // It says why, and the next one may go better.
            Err(why) => {
                assert!(!why.is_empty());
                self.met += simulation.faults().met();
                self.machine = Some(simulation.kill());
            }
        }
    }

    /// Nothing is short any more.
    pub(crate) fn heal(&mut self) {
        self.machine().faults().clear();
        if let Some(machine) = self.machine.take() {
            self.start(machine);
        }
        assert!(self.cluster.is_some(), "nothing is short, so it starts");
    }

    /// Tries until it works.
    fn until(&mut self, what: &str, mut attempt: impl FnMut(&mut Script) -> ErrorCode) {
        let mut last = ErrorCode::None;
        for _ in 0..HEALED_S {
            last = attempt(self);
            if last == ErrorCode::None {
                return;
            }
            self.cluster().advance(1_000);
        }
        panic!("{what}: still {last:?}");
    }

    pub(crate) fn check(&mut self) {
        let told: Vec<_> = self.told.created.iter().copied().collect();
        for topic in told {
            assert!(self.id(topic, 0).is_some(), "{topic} was created");
        }
        let told: Vec<_> = self.told.deleted.iter().copied().collect();
        for topic in told {
            assert!(self.id(topic, 0).is_none(), "{topic} was deleted");
        }
        for topic in ["a", "c", OFFSETS_TOPIC, "d", "z"] {
            self.until(topic, |script| match script.id(topic, 0) {
                Some(_) => ErrorCode::None,
                None => script.create(topic, 2),
            });
        }
        for (topic, index) in [("a", 0), ("a", 1), ("c", 0), ("d", 0), ("z", 0)] {
            let what = format!("an append to {topic}-{index}");
            self.until(&what, |script| {
                match script.id(topic, index) {
                    // Its creation was refused half way: it has as many as it was made with.
                    None => ErrorCode::UnknownTopicOrPartition,
                    Some(_) => script.append(topic, index, Acks::All),
                }
            });
        }
        for group in GROUPS {
            let mut found = 0;
            self.until("an offset fetch", |script| {
                script.committed(group).map_or_else(
                    |error| error,
                    |offset| {
                        found = offset;
                        ErrorCode::None
                    },
                )
            });
            if let Some(told) = self.told.committed.get(group) {
                assert_eq!(found, *told, "the offset of {group}");
            }
            self.until("an offset commit", |script| script.commit(group, 1_000));
        }
        let id = self.id("a", 0).expect("it exists");
        let next = self.log_start(id) + 1;
        self.until("DeleteRecords", |script| {
            script.delete_records("a", 0, next)
        });
        self.check_records();
    }

    fn check_records(&mut self) {
        for (topic, index) in [("a", 0), ("a", 1), ("c", 0), ("d", 0), ("z", 0)] {
            let Some(told) = self.told.records.get(&(topic, index)).cloned() else {
                continue;
            };
            let id = self.id(topic, index).expect("it exists");
            let start = self.told.starts.get(&(topic, index)).copied().unwrap_or(0);
            let from = self.log_start(id);
            assert!(
                from <= start,
                "{topic}-{index} begins at {from}, not {start}"
            );
            let found: BTreeMap<i64, Vec<u8>> =
                self.cluster().values(id, from).into_iter().collect();
            for (offset, value) in &told {
                let superseded = topic == "c" && told.keys().any(|later| *later > *offset);
                match found.get(offset) {
                    Some(there) => assert!(there == value, "{topic}-{index}: another record"),
                    None => assert!(
                        *offset < start || superseded,
                        "{topic}-{index} lost offset {offset} from {from} on"
                    ),
                }
            }
        }
    }

    fn log_start(&mut self, partition: PartitionId) -> i64 {
        // Moves nothing, and tells where it is.
        let part = DeleteRecordsPart {
            partition,
            offset: 0,
        };
        let owner = self.cluster().owner(partition);
        match self
            .cluster()
            .ask(owner, Request::DeleteRecords(vec![part]))
        {
            Reply::DeleteRecords(mut results) => results.remove(0).low_watermark.max(0),
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn kill(&mut self) {
        let cluster = self.cluster.take().expect("a broker runs");
        drop(cluster.handles);
        self.start(cluster.simulation.kill());
    }

    /// Every file and directory below the data directory, as paths.
    fn files(&mut self) -> Vec<String> {
        let world = self.cluster().simulation.world();
        let list = async move {
            let (mut found, mut to_list) = (Vec::new(), vec![PathBuf::from(DATA)]);
            while let Some(dir) = to_list.pop() {
                for entry in world.list_dir(&dir).await.expect("lists") {
                    let path = dir.join(&entry.name);
                    found.push(path.to_string_lossy().into_owned());
                    if entry.is_dir {
                        to_list.push(path);
                    }
                }
            }
            found
        };
        self.cluster().simulation.run(list)
    }

    /// Long after the shortage there is no directory but those of topics, and no file on its way out.
    pub(crate) fn check_nothing_is_left_over(&mut self) {
        self.cluster().advance(HEALED_S * 1_000);
        let mut wanted: BTreeSet<String> = self.cluster().handles[0]
            .image()
            .topics()
            .flat_map(|topic| {
                let count = topic.partitions.len();
                (0..count).map(|index| format!("{DATA}/{}-{index}", topic.name))
            })
            .collect();
        wanted.insert(format!("{DATA}/__cluster_metadata-0"));
        for path in self.files() {
            let name = path.rsplit('/').next().unwrap_or_default();
            // A `.cleaned` segment that was given up is overwritten by a round or removed by a start.
            let is_left = [".deleted", ".swap", "-delete", "-stray"]
                .iter()
                .any(|end| name.ends_with(end));
            assert!(!is_left, "{path} is left over");
            let owner = path
                .rsplit_once('/')
                .map(|(dir, _)| dir)
                .unwrap_or_default();
            let is_log = name.ends_with(".log");
            assert!(!is_log || wanted.contains(owner), "{path} is nobody's");
        }
    }
}
