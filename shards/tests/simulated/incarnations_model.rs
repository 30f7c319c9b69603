//! What clients of the histories in `incarnations` were told of topics and records, and what may be
//! found after it. Owns the rules; asks nobody.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use chronik_catalog::{ControllerReply, ControllerRequest, NewTopic, TopicRef};
use chronik_io::simulated::Random;
use chronik_protocol::record::{BatchBuilder, CheckedBatch, NewRecord};
use chronik_protocol::{ErrorCode, Str, Uuid};
use chronik_shards::*;
use chronik_terms::*;

/// What moves the start of a topic's logs, or thins them out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// DeleteRecords only.
    Plain,
    /// `retention.bytes` as well.
    Retained,
    /// Compaction, and nothing else.
    Compacted,
}

/// Every name that is used, and what a topic of it is.
pub(crate) const NAMES: [(&str, Kind); 3] = [
    ("plain", Kind::Plain),
    ("retained", Kind::Retained),
    ("compacted", Kind::Compacted),
];

/// `retention.bytes` of those that are retained.
const RETENTION_BYTES: usize = 400;
/// Keys of records.
const KEYS: u64 = 3;

pub(crate) type SharedModel = Rc<RefCell<Model>>;

/// What is known of one log.
#[derive(Debug, Default)]
struct Log {
    /// Numbers of the records that were sent; nothing else may be found.
    sent: BTreeSet<u64>,
    /// Those acknowledged, by offset.
    acknowledged: BTreeMap<i64, u64>,
    /// DeleteRecords up to here was acknowledged.
    start_min: i64,
    /// DeleteRecords up to here was asked for.
    start_max: i64,
}

#[derive(Debug)]
struct Topic {
    kind: Kind,
    logs: Vec<Log>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Absent,
    There(Uuid),
    Creating,
    Deleting(Uuid),
}

/// See the module's text.
#[derive(Debug)]
pub(crate) struct Model {
    names: BTreeMap<&'static str, Fate>,
    topics: BTreeMap<Uuid, Topic>,
    /// Ids that are gone: none may come back.
    gone: BTreeSet<Uuid>,
    next_number: u64,
    /// Every log directory can be used.
    pub(crate) is_whole: bool,
}

/// A batch of one record that says its number.
fn batch(number: u64) -> CheckedBatch {
    let (key, value) = (format!("{}", number % KEYS), format!("{number:08}"));
    // Segments roll by the records' times.
    let at = i64::try_from(number * 10).expect("small");
    let mut builder = BatchBuilder::new(at);
    let record = NewRecord {
        timestamp: at,
        key: Some(key.as_bytes()),
        value: Some(value.as_bytes()),
        ..NewRecord::default()
    };
    builder.push(&record).expect("a small record");
    builder.build().expect("a small batch")
}

/// Bytes of a batch.
pub(crate) fn batch_bytes() -> usize {
    batch(1).bytes.len()
}

fn kind_of(name: &str) -> Kind {
    let known = NAMES.iter().find(|(known, _)| *known == name);
    known.expect("one of the names").1
}

fn creation(name: &str, partition_count: i32) -> ControllerRequest {
    let retention = RETENTION_BYTES.to_string();
    let mut configs = vec![("segment.ms", "35"), ("file.delete.delay.ms", "30")];
    match kind_of(name) {
        Kind::Plain => {}
        Kind::Retained => configs.push(("retention.bytes", &retention)),
        Kind::Compacted => configs.extend([
            ("cleanup.policy", "compact"),
            ("min.cleanable.dirty.ratio", "0.01"),
        ]),
    }
    let configs = configs.into_iter();
    let topic = NewTopic {
        name: Str::from(name),
        partition_count,
        replication_factor: 1,
        configs: configs
            .map(|(name, value)| (Str::from(name), Some(Str::from(value))))
            .collect(),
        ..NewTopic::default()
    };
    ControllerRequest::CreateTopics {
        topics: vec![topic],
        validate_only: false,
    }
}

impl Model {
    pub(crate) fn shared() -> SharedModel {
        Rc::new(RefCell::new(Model {
            names: NAMES.map(|(name, _)| (name, Fate::Absent)).into(),
            topics: BTreeMap::new(),
            gone: BTreeSet::new(),
            next_number: 1,
            is_whole: true,
        }))
    }

    /// What the operator asks for next, and whether it has to be granted.
    pub(crate) fn change(
        &mut self,
        name: &'static str,
        partitions: i32,
    ) -> Option<(ControllerRequest, bool)> {
        let (fate, request) = match self.names[name] {
            Fate::Absent => (Fate::Creating, creation(name, partitions)),
            Fate::There(id) => {
                let topics = vec![TopicRef::Name(Str::from(name))];
                (Fate::Deleting(id), ControllerRequest::DeleteTopics(topics))
            }
            Fate::Creating | Fate::Deleting(_) => return None,
        };
        self.names.insert(name, fate);
        Some((request, self.is_whole))
    }

    /// The answer to it; `false` where it was refused and nobody knows more.
    pub(crate) fn changed(
        &mut self,
        name: &'static str,
        reply: ControllerReply,
        is_sure: bool,
    ) -> bool {
        let fate = match reply {
            ControllerReply::CreateTopics(mut topics) => match topics.remove(0).result {
                Ok(topic) => {
                    self.begin(name, topic.id, topic.partitions.len());
                    Some(Fate::There(topic.id))
                }
                Err(error) => {
                    let stops = error.code == ErrorCode::NotController;
                    assert!(stops || !is_sure, "{name} not created: {error:?}");
                    None
                }
            },
            ControllerReply::DeleteTopics(mut topics) => match topics.remove(0).2 {
                Ok(()) => Some(Fate::Absent),
                Err(error) => {
                    let stops = error.code == ErrorCode::NotController;
                    assert!(stops || !is_sure, "{name} not deleted: {error:?}");
                    None
                }
            },
            other => panic!("{other:?}"),
        };
        if let Some(fate) = fate {
            if let Fate::Deleting(id) = self.names[name] {
                self.gone.insert(id);
            }
            self.names.insert(name, fate);
        }
        fate.is_some()
    }

    fn begin(&mut self, name: &str, id: Uuid, partitions: usize) {
        assert!(!self.gone.contains(&id), "{name} comes back");
        self.topics.entry(id).or_insert_with(|| Topic {
            kind: kind_of(name),
            logs: (0..partitions).map(|_| Log::default()).collect(),
        });
    }

    /// A partition of a topic that is there.
    pub(crate) fn any(&self, random: &mut Random) -> Option<PartitionId> {
        let there: Vec<Uuid> = self
            .names
            .values()
            .filter_map(|fate| match fate {
                Fate::There(id) | Fate::Deleting(id) => Some(*id),
                _ => None,
            })
            .collect();
        if there.is_empty() {
            return None;
        }
        let topic_id = there[random.index(there.len())];
        let index = random.index(self.topics[&topic_id].logs.len());
        let index = i32::try_from(index).expect("few");
        Some(PartitionId { topic_id, index })
    }

    fn log(&mut self, id: PartitionId) -> &mut Log {
        let topic = self.topics.get_mut(&id.topic_id).expect("known");
        &mut topic.logs[usize::try_from(id.index).expect("not negative")]
    }

    /// A record to be appended.
    pub(crate) fn append(&mut self, id: PartitionId) -> (u64, Request) {
        let number = self.next_number;
        self.next_number += 1;
        self.log(id).sent.insert(number);
        let parts = vec![AppendPart {
            partition: id,
            batch: batch(number),
        }];
        let request = AppendRequest {
            acks: Acks::All,
            timeout_ms: 30_000,
            parts,
        };
        (number, Request::Append(request))
    }

    pub(crate) fn appended(&mut self, id: PartitionId, offset: i64, number: u64) {
        let before = self.log(id).acknowledged.insert(offset, number);
        assert!(before.is_none(), "{id:?}: {offset} acknowledged twice");
    }

    /// Up to where records are to be deleted: often all of them.
    pub(crate) fn delete_some(&mut self, id: PartitionId, random: &mut Random) -> Option<i64> {
        if self.topics[&id.topic_id].kind == Kind::Compacted {
            return None;
        }
        let log = self.log(id);
        let end = log.acknowledged.keys().next_back()? + 1;
        let span = u64::try_from(end - log.start_min).unwrap_or(0);
        let offset = match random.below(2) {
            0 => end,
            _ => log.start_min + i64::try_from(random.below(span + 1)).expect("small"),
        };
        log.start_max = log.start_max.max(offset);
        Some(offset)
    }

    pub(crate) fn deleted(&mut self, id: PartitionId, offset: i64, error: ErrorCode) {
        if error == ErrorCode::None {
            let log = self.log(id);
            log.start_min = log.start_min.max(offset);
        }
    }

    /// Which topics there are decides what was asked for and not answered.
    pub(crate) fn settle(&mut self, found: &BTreeMap<Str, (Uuid, usize)>) {
        for (name, _) in NAMES {
            let there = found.get(name).copied();
            let id = there.map(|(id, _)| id);
            match self.names[name] {
                Fate::Absent => assert_eq!(id, None, "{name} was deleted"),
                Fate::There(known) => assert_eq!(id, Some(known), "{name} was created"),
                Fate::Creating => {}
                Fate::Deleting(known) => {
                    assert!(id.is_none() || id == Some(known), "{name} is another");
                    if id.is_none() {
                        self.gone.insert(known);
                    }
                }
            }
            if let Some((id, partitions)) = there {
                self.begin(name, id, partitions);
            }
            let fate = id.map_or(Fate::Absent, Fate::There);
            self.names.insert(name, fate);
        }
    }

    /// What a log holds from its start on.
    pub(crate) fn check(&mut self, id: PartitionId, start: i64, found: &[(i64, Vec<u8>)]) {
        let kind = self.topics[&id.topic_id].kind;
        let log = self.log(id);
        let numbers: BTreeMap<i64, u64> = found
            .iter()
            .map(|(offset, value)| {
                let text = std::str::from_utf8(value).expect("a number");
                (*offset, text.parse().expect("a number"))
            })
            .collect();
        let context = format!("{id:?} ({kind:?}) from {start}: {numbers:?}, {log:?}");
        for number in numbers.values() {
            assert!(
                log.sent.contains(number),
                "{number} is a stranger: {context}"
            );
        }
        let acknowledged_end = log
            .acknowledged
            .keys()
            .next_back()
            .map_or(0, |last| last + 1);
        let end = numbers.keys().next_back().map_or(start, |last| last + 1);
        assert!(
            start >= log.start_min,
            "deleted records are back: {context}"
        );
        let start_max = match kind {
            Kind::Retained => {
                let kept = RETENTION_BYTES / batch_bytes();
                log.start_max.max(end - i64::try_from(kept).expect("small"))
            }
            _ => log.start_max,
        };
        assert!(start <= start_max, "the log begins too late: {context}");
        assert!(end >= acknowledged_end, "the log ends too early: {context}");
        for (offset, number) in log.acknowledged.range(start..) {
            let is_there = numbers.get(offset) == Some(number);
            let is_newer = |(at, other): (&i64, &u64)| at > offset && other % KEYS == number % KEYS;
            let is_replaced = kind == Kind::Compacted && numbers.iter().any(is_newer);
            assert!(is_there || is_replaced, "{offset} is lost: {context}");
        }
        if kind != Kind::Compacted {
            assert!(numbers.keys().copied().eq(start..end), "a gap: {context}");
        }
    }

    /// The names of the partitions' directories.
    pub(crate) fn directories(&self) -> BTreeSet<String> {
        let mut names = BTreeSet::new();
        for (name, fate) in &self.names {
            if let Fate::There(id) = fate {
                let count = self.topics[id].logs.len();
                names.extend((0..count).map(|index| format!("{name}-{index}")));
            }
        }
        names
    }

    /// How many records were acknowledged.
    pub(crate) fn acknowledged(&self) -> usize {
        let logs = self.topics.values().flat_map(|topic| &topic.logs);
        logs.map(|log| log.acknowledged.len()).sum()
    }
}
