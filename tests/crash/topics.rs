//! Topics created and deleted right before a kill, under a few reused names: every acknowledged change has happened, an
//! unacknowledged one has happened wholly or not at all, and a topic holds nothing of an earlier one of its name.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use chronik_protocol::messages::{
    CreateTopicsRequest, DeleteRecordsRequest, DeleteTopicsRequest, MetadataRequest,
    delete_records_request,
};
use chronik_protocol::{ErrorCode, Uuid};

use crate::Dice;
use crate::support::batch::TestBatch;
use crate::support::calls::{
    code, creatable, create_topic, delete_topic, latest, list_offset, produce, produce_ok,
    read_values, text,
};
use crate::support::client::Client;

/// Names that are used.
const NAMES: u64 = 4;
const PARTITIONS: i32 = 2;
const EARLIEST: i64 = -2;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    /// Creation acknowledged with this id.
    Created(Uuid),
    /// Deletion acknowledged, or never created.
    Deleted,
    /// Asked for, and killed.
    Unknown,
}

/// What one partition of one topic holds.
#[derive(Debug, Default)]
struct Held {
    /// Records below were deleted, acknowledged.
    start: i64,
    /// Every record, from offset 0 on.
    values: Vec<Vec<u8>>,
}

/// Every topic this run has asked for.
#[derive(Debug, Default)]
pub(crate) struct Topics {
    fates: BTreeMap<String, Fate>,
    held: BTreeMap<(Uuid, i32), Held>,
    next_value: u64,
}

impl Topics {
    /// Creates or deletes a topic, or deletes one and creates it again, and waits for the answers; now
    /// and then nothing. Records come and go in between.
    pub(crate) fn disturb(&mut self, address: SocketAddr, dice: &mut Dice) {
        let mut client = Client::connect(address);
        let name = format!("passing-{}", dice.below(NAMES));
        match self.fate(&name) {
            Fate::Created(_) if dice.below(2) == 0 => {
                self.fill(&mut client, &name, dice);
                self.delete(&mut client, &name);
                if dice.below(2) == 0 {
                    self.create(&mut client, &name);
                    self.fill(&mut client, &name, dice);
                }
            }
            Fate::Created(_) => self.fill(&mut client, &name, dice),
            Fate::Deleted => {
                self.create(&mut client, &name);
                if dice.below(2) == 0 {
                    self.fill(&mut client, &name, dice);
                }
            }
            Fate::Unknown => unreachable!("decided after each start"),
        }
    }

    fn fate(&self, name: &str) -> Fate {
        self.fates.get(name).copied().unwrap_or(Fate::Deleted)
    }

    fn create(&mut self, client: &mut Client, name: &str) {
        let id = create_topic(client, name, PARTITIONS, &[]);
        self.fates.insert(name.to_owned(), Fate::Created(id));
    }

    fn delete(&mut self, client: &mut Client, name: &str) {
        let deleted = delete_topic(client, name).expect("an answer");
        assert_eq!(deleted, ErrorCode::None, "{name}");
        self.fates.insert(name.to_owned(), Fate::Deleted);
    }

    /// Appends some records, and deletes some, often all of them.
    fn fill(&mut self, client: &mut Client, name: &str, dice: &mut Dice) {
        let Fate::Created(id) = self.fate(name) else {
            return;
        };
        for partition in 0..PARTITIONS {
            for _ in 0..dice.below(12) {
                self.append(client, name, (id, partition));
            }
            let held = self.held.entry((id, partition)).or_default();
            let end = held.values.len() as u64;
            let offset = match dice.below(4) {
                0 => end,
                1 => dice.below(end + 1),
                _ => 0,
            };
            if offset as i64 > held.start {
                delete_records(client, name, partition, offset as i64);
                held.start = offset as i64;
            }
        }
    }

    fn append(&mut self, client: &mut Client, name: &str, log: (Uuid, i32)) {
        let value = format!("{name} {}", self.next_value).into_bytes();
        self.next_value += 1;
        let batch = TestBatch::of_values([value.clone()]).encode();
        let offset = produce_ok(client, name, log.1, batch);
        let held = self.held.entry(log).or_default();
        assert_eq!(offset, held.values.len() as i64, "{name}-{}", log.1);
        held.values.push(value);
    }

    /// Asks for a creation or a deletion that will be under way when the broker is killed.
    pub(crate) fn disturb_without_waiting(&mut self, address: SocketAddr, dice: &mut Dice) {
        let mut client = Client::connect(address);
        if dice.below(2) == 0 {
            return;
        }
        let name = format!("passing-{}", dice.below(NAMES));
        match self.fate(&name) {
            Fate::Created(_) => {
                let request = DeleteTopicsRequest {
                    topic_names: vec![text(&name)],
                    timeout_ms: 30_000,
                    ..Default::default()
                };
                client.send(&request, 5);
            }
            _ => {
                let topics = vec![creatable(&name, PARTITIONS, &[])];
                let request = CreateTopicsRequest {
                    topics,
                    timeout_ms: 30_000,
                    ..Default::default()
                };
                client.send(&request, 7);
            }
        }
        self.fates.insert(name, Fate::Unknown);
    }

    /// Compares what is there with what was promised; what was open is now decided.
    pub(crate) fn check(&mut self, client: &mut Client) {
        let request = MetadataRequest {
            topics: None,
            ..Default::default()
        };
        let topics = client.call(&request, 12).topics;
        let mut there: BTreeMap<String, Uuid> = topics
            .into_iter()
            .map(|topic| (topic.name.unwrap_or_default().to_string(), topic.topic_id))
            .collect();
        there.remove(crate::TOPIC);
        for name in self.fates.keys().cloned().collect::<Vec<_>>() {
            let found = there.remove(&name);
            match self.fate(&name) {
                Fate::Created(id) => assert_eq!(found, Some(id), "{name} was created"),
                Fate::Deleted => assert_eq!(found, None, "{name} was deleted"),
                Fate::Unknown => {
                    let fate = found.map_or(Fate::Deleted, Fate::Created);
                    self.fates.insert(name.clone(), fate);
                }
            }
            match found {
                Some(id) => {
                    for partition in 0..PARTITIONS {
                        self.check_log(client, &name, (id, partition));
                        self.append(client, &name, (id, partition));
                    }
                }
                None => {
                    let batch = TestBatch::of_values(["gone"]).encode();
                    let answer = produce(client, &name, 0, batch);
                    let error = code(answer.error_code);
                    assert_eq!(error, ErrorCode::UnknownTopicOrPartition, "{name}");
                }
            }
        }
        assert!(there.is_empty(), "topics nobody asked for: {there:?}");
    }

    fn check_log(&mut self, client: &mut Client, name: &str, log: (Uuid, i32)) {
        let held = self.held.entry(log).or_default();
        let earliest = list_offset(client, name, log.1, EARLIEST).offset;
        assert_eq!(earliest, held.start, "{name}-{} begins there", log.1);
        let end = held.values.len() as i64;
        assert_eq!(latest(client, name, log.1), end, "{name}-{}", log.1);
        let expected = (0..).zip(held.values.iter().cloned());
        let expected: Vec<(i64, Vec<u8>)> = expected.skip(held.start as usize).collect();
        assert_eq!(read_values(client, name, log.1, held.start), expected);
    }
}

fn delete_records(client: &mut Client, name: &str, partition: i32, offset: i64) {
    let request = DeleteRecordsRequest {
        topics: vec![delete_records_request::DeleteRecordsTopic {
            name: text(name),
            partitions: vec![delete_records_request::DeleteRecordsPartition {
                partition_index: partition,
                offset,
                ..Default::default()
            }],
            ..Default::default()
        }],
        timeout_ms: 10_000,
        ..Default::default()
    };
    let answer = client.call(&request, 2).topics[0].partitions[0].clone();
    assert_eq!(
        code(answer.error_code),
        ErrorCode::None,
        "{name}-{partition}"
    );
}
