//! Owns what a start refuses, and the proof that it touches nothing then: directories spoilt in one way
//! each, and the sentence that says so, from the start and from the doctor alike.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use chronik_protocol::messages::{
    ConfigRecord, FeatureLevelRecord, PartitionChangeRecord, RegisterBrokerRecord, TopicRecord,
    VotersRecord, ZkMigrationStateRecord, voters_record,
};
use chronik_protocol::record::{BatchBuilder, ControlType, NewRecord};
use chronik_protocol::records_of::MetadataRecord;
use chronik_protocol::{Message, Str, Uuid, Writer};

use crate::picture::Picture;
use crate::support::batch::{ReadBatch, TestBatch};
use crate::support::calls::{create_topic, produce_ok};
use crate::support::client::Client;
use crate::support::message::TestMessage;
use crate::support::{BrokerOptions, Scratch, free_port};
use crate::{chronik, connect, tree};

/// What `chronik doctor` says of directories.
pub(crate) fn doctor(dirs: &[&Path], words: &[&str]) -> Output {
    let binary = std::env::var_os("CHRONIK_TEST_BINARY");
    let mut command = Command::new(binary.unwrap_or_else(|| env!("CARGO_BIN_EXE_chronik").into()));
    let port = free_port().to_string();
    command.args(["doctor", "--port", &port]);
    for dir in dirs {
        command.arg("--data").arg(dir);
    }
    for setting in words {
        command.args(["--override", setting]);
    }
    command.output().expect("the doctor runs")
}

/// A start on these directories, and the doctor, must refuse with all of these words, and leave every
/// file as it was.
pub(crate) fn refused(dirs: &[&Path], settings: &[(&str, &str)], words: &[&str]) {
    let before: Vec<_> = dirs.iter().map(|dir| tree::digest(dir)).collect();
    told(dirs, settings, words);
    let after: Vec<_> = dirs.iter().map(|dir| tree::digest(dir)).collect();
    assert!(before == after, "{words:?}: something was changed");
}

/// As [`refused`], for a directory that another process uses.
pub(crate) fn told(dirs: &[&Path], settings: &[(&str, &str)], words: &[&str]) {
    let names: Vec<_> = dirs.iter().map(|dir| dir.display().to_string()).collect();
    let mut options: BrokerOptions = chronik(Path::new(&names.join(",")));
    for (key, value) in settings {
        options = options.set(key, value);
    }
    let mut broker = options.spawn();
    let status = broker.wait_for_exit(Duration::from_secs(60));
    let said = broker.log();
    assert!(
        status.is_some_and(|status| !status.success()),
        "{words:?}: {said}"
    );
    let has_words = |line: &&str| words.iter().all(|word| line.contains(word));
    assert!(
        said.lines().any(|line| has_words(&line)),
        "{words:?} in one line of\n{said}"
    );

    let settings: Vec<_> = settings
        .iter()
        .map(|(key, value)| format!("{key}={value}"))
        .collect();
    let settings: Vec<_> = settings.iter().map(String::as_str).collect();
    let output = doctor(dirs, &settings);
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(!output.status.success(), "{words:?}: {said}");
    let mut refusals = said.lines().filter(|line| line.starts_with("refused"));
    assert!(
        refusals.any(|line| has_words(&line)),
        "{words:?} in one line of\n{said}"
    );
}

/// A directory that this broker made: `count` log directories, one topic, some records.
pub(crate) struct Made {
    pub(crate) scratch: Scratch,
    pub(crate) dirs: Vec<PathBuf>,
    topic: Uuid,
    copies: usize,
}

impl Made {
    pub(crate) fn new(count: usize) -> Self {
        let scratch = Scratch::new();
        let dirs: Vec<_> = (0..count)
            .map(|at| scratch.join(format!("made-{at}")))
            .collect();
        let names: Vec<_> = dirs.iter().map(|dir| dir.display().to_string()).collect();
        let broker = chronik(Path::new(&names.join(","))).start();
        let mut client = connect(&broker);
        let topic = create_topic(&mut client, "t", 4, &[]);
        for partition in 0..4 {
            produce_ok(
                &mut client,
                "t",
                partition,
                TestBatch::of_values(["one"]).encode(),
            );
        }
        broker.stop();
        Self {
            scratch,
            dirs,
            topic,
            copies: 0,
        }
    }

    /// A copy to spoil. With `of_kafka` nothing tells that this broker wrote it.
    pub(crate) fn copy(&mut self, of_kafka: bool) -> Vec<PathBuf> {
        self.copies += 1;
        let copies = (0..).zip(&self.dirs).map(|(at, dir)| {
            let copy = self.scratch.join(format!("copy-{}-{at}", self.copies));
            tree::copy(dir, &copy);
            copy
        });
        let copies: Vec<_> = copies.collect();
        if of_kafka {
            fs::remove_file(copies[0].join("chronik-epoch")).expect("it is there");
        }
        copies
    }
}

fn metadata_log(data: &Path) -> PathBuf {
    data.join("__cluster_metadata-0/00000000000000000000.log")
}

/// Appends a batch to the metadata log.
fn append(data: &Path, make: impl FnOnce(BatchBuilder) -> BatchBuilder) {
    let path = metadata_log(data);
    let mut bytes = fs::read(&path).expect("the metadata log");
    let last = ReadBatch::all(&bytes).pop().expect("a batch");
    let next = last.base_offset + i64::from(last.last_offset_delta) + 1;
    let batch = make(BatchBuilder::new(next).leader_epoch(last.leader_epoch));
    bytes.extend_from_slice(&batch.build().expect("a sound batch").bytes);
    fs::write(path, bytes).expect("written");
}

fn append_record(data: &Path, record: &MetadataRecord) {
    let value = record.encode(0).expect("a record");
    append_value(data, &value);
}

fn append_value(data: &Path, value: &[u8]) {
    append(data, |mut builder| {
        let record = NewRecord {
            timestamp: 1,
            value: Some(value),
            ..NewRecord::default()
        };
        builder.push(&record).expect("a small record");
        builder
    });
}

fn append_voters(data: &Path, ids: &[i32]) {
    let voters = ids.iter().map(|id| voters_record::Voter {
        voter_id: *id,
        ..Default::default()
    });
    let record = VotersRecord {
        voters: voters.collect(),
        ..VotersRecord::default()
    };
    let mut writer = Writer::new();
    record.encode(&mut writer, 0).expect("a record");
    let value = writer.into_bytes();
    append(data, |builder| {
        let mut builder = builder.control();
        let key = ControlType::KRaftVoters.key();
        let record = NewRecord {
            timestamp: 1,
            key: Some(&key),
            value: Some(&value),
            headers: &[],
        };
        builder.push(&record).expect("a small record");
        builder
    });
}

fn level(name: &'static str, feature_level: i16) -> MetadataRecord {
    MetadataRecord::FeatureLevel(FeatureLevelRecord {
        name: Str::from(name),
        feature_level,
        ..FeatureLevelRecord::default()
    })
}

#[test]
fn directories_of_somebody_else_are_refused_and_left_alone() {
    let mut made = Made::new(1);
    let data = &made.copy(false)[0];
    refused(&[data], &[("node.id", "7")], &["node 1", "node.id=7"]);
    let other = ("chronik.cluster.id", "AAAAAAAAQACAAAAAAAAAAQ");
    refused(&[data], &[other], &["cluster", "AAAAAAAAQACAAAAAAAAAAQ"]);

    let data = &made.copy(false)[0];
    fs::write(
        data.join("meta.properties"),
        "version=0\nbroker.id=1\ncluster.id=x\n",
    )
    .expect("written");
    refused(&[data], &[], &["version", "ZooKeeper"]);

    let data = &made.copy(false)[0];
    fs::remove_file(data.join("meta.properties")).expect("it is there");
    refused(&[data], &[], &["no meta.properties", "kafka-storage.sh"]);

    let broker = chronik(&made.dirs[0]).start();
    told(
        &[&made.dirs[0]],
        &[],
        &["is held by process", &broker.pid().to_string()],
    );
    broker.stop();
}

#[test]
fn a_directory_says_which_node_it_is_where_the_settings_do_not() {
    let scratch = Scratch::new();
    let data = scratch.join("data");
    chronik(&data).set("node.id", 7).start().stop();
    let broker = chronik(&data).start();
    assert_eq!(Picture::take(&mut connect(&broker)).broker_id, 7);
    broker.stop();
    refused(&[&data], &[("node.id", "1")], &["node 7", "node.id=1"]);
}

#[test]
fn directories_that_do_not_belong_together_are_refused() {
    let mut made = Made::new(2);
    let dirs = made.copy(false);
    let (first, second) = (&*dirs[0], &*dirs[1]);
    refused(&[second, first], &[], &["no metadata log", "first"]);
    let new = made.scratch.join("new");
    fs::create_dir(&new).expect("made");
    refused(&[&new, second], &[], &["is new"]);
    let other = Made::new(1);
    refused(
        &[first, &other.dirs[0]],
        &[],
        &["a metadata log of its own"],
    );
    let properties = fs::read_to_string(second.join("meta.properties")).expect("it is there");
    let moved = properties.replace("node.id=1", "node.id=2");
    fs::write(second.join("meta.properties"), moved).expect("written");
    refused(&[first, second], &[], &["node 2", "node.id=1"]);

    let dirs = made.copy(true);
    refused(&[&dirs[0]], &[], &["another log directory", "log.dirs"]);
}

#[test]
fn catalogues_that_are_not_one_brokers_are_refused() {
    let mut made = Made::new(1);
    let topic = made.topic;
    let shared = PartitionChangeRecord {
        partition_id: 2,
        topic_id: topic,
        replicas: Some(vec![1, 2]),
        ..PartitionChangeRecord::default()
    };
    let broker = RegisterBrokerRecord {
        broker_id: 2,
        fenced: true,
        ..RegisterBrokerRecord::default()
    };
    let remote = ConfigRecord {
        resource_type: 2,
        resource_name: Str::from("t"),
        name: Str::from("remote.storage.enable"),
        value: Some(Str::from("true")),
        ..ConfigRecord::default()
    };
    let migration = ZkMigrationStateRecord {
        zk_migration_state: 1,
        ..ZkMigrationStateRecord::default()
    };
    let cases: [(MetadataRecord, &[&str]); 7] = [
        (
            MetadataRecord::PartitionChange(shared),
            &["t-2", "replicas on other nodes"],
        ),
        (
            MetadataRecord::RegisterBroker(broker),
            &["node 2", "unregister"],
        ),
        (MetadataRecord::Config(remote), &["remote storage", "(t)"]),
        (
            MetadataRecord::ZkMigrationState(migration),
            &["ZooKeeper", "under way"],
        ),
        (
            level("metadata.version", 31),
            &["metadata.version is 31", "4.3-IV0"],
        ),
        (
            level("transaction.version", 3),
            &["transaction.version", "level 3"],
        ),
        (level("no.such.feature", 1), &["no.such.feature"]),
    ];
    for (record, words) in cases {
        let data = &made.copy(false)[0];
        append_record(data, &record);
        refused(&[data], &[], words);
    }
}

#[test]
fn metadata_that_nobody_knows_and_quorums_of_several_are_refused() {
    let mut made = Made::new(1);
    let data = &made.copy(false)[0];
    // A frame of version 1 around a record of type 99.
    append_value(data, &[1, 99, 0, 0]);
    refused(
        &[data],
        &[],
        &["metadata record at offset", "cannot be read"],
    );
    let data = &made.copy(false)[0];
    let state = data.join("__cluster_metadata-0/quorum-state");
    let voters = fs::read_to_string(&state).expect("it is there");
    let voters = voters.replace("{\"voterId\":1}", "{\"voterId\":1},{\"voterId\":5}");
    fs::write(&state, voters).expect("written");
    refused(&[data], &[], &["other controllers", "node 5"]);
    let data = &made.copy(false)[0];
    append_voters(data, &[1, 3]);
    refused(&[data], &[], &["other controllers", "node 3"]);
}

#[test]
fn a_change_that_its_controller_did_not_end_does_not_count_and_takes_no_other_along() {
    let mut made = Made::new(1);
    let data = &made.copy(true)[0];
    append_record(data, &MetadataRecord::BeginTransaction(Default::default()));
    let topic = TopicRecord {
        name: Str::from("half"),
        topic_id: Uuid(1 << 100),
        ..TopicRecord::default()
    };
    append_record(data, &MetadataRecord::Topic(topic));
    let said = doctor(&[data], &[]);
    let said = String::from_utf8_lossy(&said.stdout).into_owned();
    assert!(
        said.contains("within a transaction of its controller"),
        "{said}"
    );
    let names = |client: &mut Client| Picture::take(client).topics.into_keys().collect::<Vec<_>>();
    let broker = chronik(data).start();
    let mut client = connect(&broker);
    assert_eq!(names(&mut client), ["__consumer_offsets", "t"]);
    create_topic(&mut client, "whole", 1, &[]);
    // Without a snapshot, so that the next start reads the log from its beginning.
    broker.kill();
    let broker = chronik(data).start();
    let mut client = connect(&broker);
    assert_eq!(names(&mut client), ["__consumer_offsets", "t", "whole"]);
    broker.stop();
}

#[test]
fn logs_that_cannot_be_served_are_refused() {
    let mut made = Made::new(1);
    let data = &made.copy(true)[0];
    let message = TestMessage::of(1, 5, Some(b"key"), Some(b"value"));
    fs::write(data.join("t-3/00000000000000000000.log"), message.encode()).expect("written");
    refused(&[data], &[], &["before Kafka 0.11", "t-3"]);
}
