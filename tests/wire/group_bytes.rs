//! Every byte of the records that groups write, and of their batches' headers, against what Apache
//! Kafka 4.3.1 wrote for the same calls: `group_bytes.txt`.
//!
//! That file was made by this test: `CHRONIK_TEST_BOOTSTRAP=HOST:PORT CHRONIK_TEST_RECORD=1 cargo test
//! --test wire group_bytes` with a Kafka whose `group.initial.rebalance.delay.ms` is 0. What differs
//! from run to run (ids that brokers make, times, a hash over topic ids) is masked, at its full length.

use std::fmt::Write as _;
use std::ops::RangeInclusive;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use chronik_protocol::messages::{
    ConsumerGroupHeartbeatRequest, ConsumerProtocolSubscription, DeleteGroupsRequest,
    JoinGroupRequest, JoinGroupResponse, LeaveGroupRequest, OffsetDeleteRequest, SyncGroupRequest,
    leave_group_request, offset_delete_request, sync_group_request,
};
use chronik_protocol::record::BatchHeader;
use chronik_protocol::records_of::{GroupKey, GroupValue, RecordSet, decode_value};
use chronik_protocol::{ErrorCode, Message, Uuid, Writer};

use crate::subject::Subject;
use crate::support::calls::{code, create_topic, text};
use crate::support::client::Client;
use crate::support::consumer_groups::{
    LoggedRecord, accepted, assigned, beat, configure, coordinated, joining, logged, names, owning,
    written,
};
use crate::support::eventually;
use crate::support::groups::{
    COMMIT_BY_NAME, JOIN, SYNC, commit_request, committed, heartbeat, join_request, new_member,
};

/// How long an offset with a retention of its own is kept, ms.
const RETENTION_MS: i64 = 86_400_000;

/// A broker, a topic of two partitions, and what is masked.
struct Recorder {
    _subject: Subject,
    client: Client,
    /// Of fixed length, so that masking it leaves lengths as they are.
    run: String,
    topic: String,
    id: Uuid,
    /// Bytes that differ in each run, with the letter they are shown as.
    variables: Vec<(Vec<u8>, char)>,
    started_ms: i64,
    told: String,
}

fn now_ms() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let millis = now.expect("a clock after 1970").as_millis();
    i64::try_from(millis).expect("a time in this era")
}

impl Recorder {
    fn new() -> Recorder {
        let subject = Subject::start_with(&[("group.initial.rebalance.delay.ms", "0")]);
        let mut client = subject.connect();
        let run = format!("{:010}", std::process::id());
        let topic = format!("bytes-{run}");
        let id = create_topic(&mut client, &topic, 2, &[]);
        Recorder {
            _subject: subject,
            client,
            variables: vec![
                (run.clone().into_bytes(), 'r'),
                (id.0.to_be_bytes().to_vec(), 'i'),
            ],
            run,
            topic,
            id,
            // A clock of the broker's that is a little behind is no difference.
            started_ms: now_ms() - 60_000,
            told: String::new(),
        }
    }

    /// A group whose records are told under this name.
    fn group(&mut self, name: &str) -> String {
        let group = format!("{name}-{}", self.run);
        coordinated(&mut self.client, &group);
        let set = configure(
            &mut self.client,
            &group,
            "consumer.assignment.interval.ms",
            "0",
        );
        assert_eq!(set.0, ErrorCode::None, "{}", set.1);
        group
    }

    /// Asks for a member id, which is masked from now on.
    fn member(&mut self, group: &str) -> String {
        let member = new_member(&mut self.client, group);
        self.mask_member(&member);
        member
    }

    fn mask_member(&mut self, member: &str) {
        let random = member.len().checked_sub(36).expect("ends with a UUID");
        self.variables
            .push((member.as_bytes()[random..].to_vec(), 'm'));
    }

    fn join(&mut self, request: &JoinGroupRequest) -> JoinGroupResponse {
        let joined = self.client.call(request, JOIN);
        assert_eq!(code(joined.error_code), ErrorCode::None, "{request:?}");
        joined
    }

    /// The leader takes everything, or a member of a group of the new protocol what it is given.
    fn sync(&mut self, group: &str, joined: &JoinGroupResponse, share: &'static [u8]) {
        let request = SyncGroupRequest {
            group_id: text(group),
            generation_id: joined.generation_id,
            member_id: joined.member_id.clone(),
            protocol_type: Some(text("consumer")),
            protocol_name: Some(text("range")),
            assignments: vec![sync_group_request::SyncGroupRequestAssignment {
                member_id: joined.member_id.clone(),
                assignment: Bytes::from_static(share),
                ..Default::default()
            }],
            ..Default::default()
        };
        let synced = self.client.call(&request, SYNC);
        assert_eq!(code(synced.error_code), ErrorCode::None, "{group}");
    }

    fn leave(&mut self, group: &str, member: &str, instance: Option<&str>) {
        let request = LeaveGroupRequest {
            group_id: text(group),
            members: vec![leave_group_request::MemberIdentity {
                member_id: text(member),
                group_instance_id: instance.map(text),
                reason: Some(text("it is over")),
                ..Default::default()
            }],
            ..Default::default()
        };
        let left = self.client.call(&request, 5);
        assert_eq!(code(left.members[0].error_code), ErrorCode::None);
    }

    fn delete(&mut self, group: &str) {
        let request = DeleteGroupsRequest {
            groups_names: vec![text(group)],
            ..DeleteGroupsRequest::default()
        };
        let result = self.client.call(&request, 2).results.remove(0);
        assert_eq!(code(result.error_code), ErrorCode::None, "{group}");
    }

    /// Commits by a member, or by nobody in generation −1.
    fn commit(&mut self, group: &str, member: (&str, i32), partition: i32, metadata: Option<&str>) {
        let mut request = commit_request(group, &self.topic, partition, 7);
        request.member_id = text(member.0);
        request.generation_id_or_member_epoch = member.1;
        let place = &mut request.topics[0].partitions[0];
        place.committed_metadata = metadata.map(text);
        place.committed_leader_epoch = if metadata.is_some() { 5 } else { -1 };
        let response = self.client.call(&request, COMMIT_BY_NAME);
        let error = code(response.topics[0].partitions[0].error_code);
        assert_eq!(error, ErrorCode::None, "{group}");
    }

    fn accept(&mut self, request: &ConsumerGroupHeartbeatRequest) -> i32 {
        accepted(&mut self.client, request).member_epoch
    }

    /// Adds all that the group wrote to what is compared. How many calls share a batch is a matter
    /// of time. Targets and tombstones of several members at once come in the order of their text:
    /// Kafka's is that of a hash table.
    fn tell(&mut self, title: &str, group: &str) {
        // A JoinGroup is answered when its members are there, as by Kafka, which may be before the records
        // of the group's conversion can be read. What reads of the group is answered after them.
        committed(&mut self.client, group, &self.topic, 0);
        writeln!(self.told, "# {title}").expect("a string");
        let records = logged(&mut self.client, group);
        let kind = |record: &LoggedRecord| (name_of(record), record.value_bytes.is_none());
        let alike = |one: &LoggedRecord, next: &LoggedRecord| {
            let unordered = matches!(one.key, GroupKey::ConsumerGroupTargetAssignmentMember(_))
                || one.value_bytes.is_none();
            unordered && kind(one) == kind(next)
        };
        for records in records.chunk_by(alike) {
            let mut texts: Vec<String> = records.iter().map(|one| self.text(one)).collect();
            texts.sort_unstable();
            self.told.push_str(&texts.concat());
        }
    }

    fn text(&self, record: &LoggedRecord) -> String {
        let key = self.masked(record, &record.key_bytes);
        let value = record.value_bytes.as_ref();
        let value = value.map_or("none".to_owned(), |value| self.masked(record, value));
        let BatchHeader {
            attributes,
            producer_id,
            producer_epoch,
            base_sequence,
            ..
        } = &record.batch;
        let flags = attributes.bits();
        let producer = format!("{producer_id} {producer_epoch} {base_sequence}");
        let name = name_of(record);
        format!("{name}: attributes {flags}, producer {producer}\n  {key}\n  {value}\n")
    }

    /// Hexadecimal, with a letter in place of each digit that differs from run to run.
    fn masked(&self, record: &LoggedRecord, bytes: &[u8]) -> String {
        let mut shown = bytes.iter().fold(String::new(), |mut shown, byte| {
            write!(shown, "{byte:02x}").expect("a string");
            shown
        });
        let mut mask = |at: usize, length: usize, letter: char| {
            let digits = letter.to_string().repeat(length * 2);
            shown.replace_range(at * 2..(at + length) * 2, &digits);
        };
        let times = self.started_ms..=now_ms() + 60_000;
        let expiries = times.start() + RETENTION_MS..=times.end() + RETENTION_MS;
        let within = |range: &RangeInclusive<i64>, word: &[u8]| {
            word.try_into()
                .is_ok_and(|word| range.contains(&i64::from_be_bytes(word)))
        };
        for (at, word) in bytes.windows(8).enumerate() {
            if within(&times, word) || within(&expiries, word) {
                mask(at, 8, 't');
            }
        }
        for (variable, letter) in self.variables.iter().chain(&numbers_of(record)) {
            for (at, window) in bytes.windows(variable.len()).enumerate() {
                if window == variable {
                    mask(at, variable.len(), *letter);
                }
            }
        }
        shown
    }
}

fn name_of(record: &LoggedRecord) -> String {
    let name = format!("{:?}", record.key);
    name.split('(').next().unwrap_or_default().to_owned()
}

/// Numbers in a record's value that depend on ids and on what the broker did before.
fn numbers_of(record: &LoggedRecord) -> Vec<(Vec<u8>, char)> {
    let Some(value) = record.value_bytes.clone() else {
        return Vec::new();
    };
    let value = decode_value::<GroupValue>(record.key.record_type(), value);
    match value.expect("a known value").0 {
        GroupValue::ConsumerGroupMetadata(value) => {
            vec![(value.metadata_hash.to_be_bytes().to_vec(), 'h')]
        }
        GroupValue::ConsumerGroupRegularExpression(value) => {
            vec![(value.version.to_be_bytes().to_vec(), 'v')]
        }
        _ => Vec::new(),
    }
}

fn subscription(topic: &str) -> Vec<u8> {
    let message = ConsumerProtocolSubscription {
        topics: vec![text(topic)],
        user_data: None,
        ..ConsumerProtocolSubscription::default()
    };
    let mut writer = Writer::new();
    writer.put_i16(1);
    message.encode(&mut writer, 1).expect("encodes");
    writer.into_bytes().to_vec()
}

/// Dynamic and static members, commits of every kind, deletion.
fn classic(recorder: &mut Recorder) {
    let group = recorder.group("classic");
    let wishes = subscription(&recorder.topic);
    let member = recorder.member(&group);
    let joined = recorder.join(&join_request(&group, &member, &wishes));
    recorder.sync(&group, &joined, b"a share");
    recorder.commit(&group, (&member, 1), 0, Some("up to 7"));
    recorder.commit(&group, (&member, 1), 1, None);
    recorder.leave(&group, &member, None);
    let mut request = join_request(&group, "", &wishes);
    request.group_instance_id = Some(text("instance"));
    for _ in 0..2 {
        // The second time it takes the place of its former self.
        let joined = recorder.join(&request);
        recorder.mask_member(&joined.member_id);
        recorder.sync(&group, &joined, b"another share");
    }
    recorder.leave(&group, "", Some("instance"));
    let delete = OffsetDeleteRequest {
        group_id: text(&group),
        topics: vec![offset_delete_request::OffsetDeleteRequestTopic {
            name: text(&recorder.topic),
            partitions: vec![offset_delete_request::OffsetDeleteRequestPartition {
                partition_index: 1,
            }],
        }],
    };
    let deleted = recorder.client.call(&delete, 0);
    let error = code(deleted.topics[0].partitions[0].error_code);
    assert_eq!(error, ErrorCode::None);
    recorder.delete(&group);
    recorder.tell("a classic group", &group);

    let group = recorder.group("nobody");
    recorder.commit(&group, ("", -1), 0, Some(""));
    let mut request = commit_request(&group, &recorder.topic, 1, 9);
    request.retention_time_ms = RETENTION_MS;
    let response = recorder.client.call(&request, 2);
    let error = code(response.topics[0].partitions[0].error_code);
    assert_eq!(error, ErrorCode::None);
    recorder.tell("commits without a member", &group);
}

/// Members of the new protocol, one of them static, and a group that is deleted.
fn consumer(recorder: &mut Recorder) {
    let group = recorder.group("consumer");
    let topic = recorder.topic.clone();
    let mut first = joining(&group, "m1", &[&topic]);
    first.rack_id = Some(text("rack"));
    first.server_assignor = Some(text("range"));
    recorder.accept(&first);
    recorder.commit(&group, ("m1", 2), 0, Some("up to 7"));
    recorder.accept(&joining(&group, "m2", &[&topic]));
    recorder.accept(&beat(&group, "m1", 2));
    recorder.accept(&owning(beat(&group, "m1", 2), recorder.id, &[0]));
    recorder.accept(&beat(&group, "m2", 3));
    recorder.accept(&beat(&group, "m2", -1));
    recorder.accept(&beat(&group, "m1", 3));
    recorder.accept(&beat(&group, "m1", -1));
    recorder.delete(&group);
    recorder.tell("a group of the new protocol", &group);

    let group = recorder.group("static");
    let with_instance = |mut request: ConsumerGroupHeartbeatRequest| {
        request.instance_id = Some(text("instance"));
        request
    };
    recorder.accept(&with_instance(joining(&group, "m1", &[&topic])));
    recorder.accept(&with_instance(beat(&group, "m1", -2)));
    recorder.accept(&with_instance(joining(&group, "m2", &[&topic])));
    recorder.accept(&with_instance(beat(&group, "m2", -1)));
    recorder.tell("a static member of the new protocol", &group);
}

/// A subscription by expression, which the broker resolves behind its answer.
fn expression(recorder: &mut Recorder) {
    let group = recorder.group("expression");
    let mut request = joining(&group, "m1", &[]);
    request.subscribed_topic_names = None;
    request.subscribed_topic_regex = Some(text(&format!("bytes-{}|no-such", recorder.run)));
    let mut epoch = recorder.accept(&request);
    eventually("the topics of an expression", || {
        let response = accepted(&mut recorder.client, &beat(&group, "m1", epoch));
        epoch = response.member_epoch;
        let found = names(&written(&mut recorder.client, &group));
        assert!(found.len() < 20, "{found:?}");
        assigned(&response).is_some().then_some(())
    });
    recorder.accept(&beat(&group, "m1", -1));
    recorder.tell("an expression", &group);
}

/// A classic group taken over by members of the new protocol, and back.
fn converted(recorder: &mut Recorder) {
    let topic = recorder.topic.clone();
    let wishes = subscription(&topic);

    let group = recorder.group("upgraded-empty");
    recorder.commit(&group, ("", -1), 0, None);
    recorder.accept(&joining(&group, "m1", &[&topic]));
    recorder.accept(&beat(&group, "m1", -1));
    let member = recorder.member(&group);
    recorder.join(&join_request(&group, &member, &wishes));
    recorder.tell("an empty group of each protocol, converted", &group);

    let group = recorder.group("upgraded-live");
    let member = recorder.member(&group);
    let joined = recorder.join(&join_request(&group, &member, &wishes));
    recorder.sync(&group, &joined, b"");
    // The share of two with the same wishes would depend on the id that the broker made.
    recorder.accept(&joining(&group, "m1", &["no-such-topic"]));
    let beaten = heartbeat(&mut recorder.client, &group, &member, 1);
    assert_eq!(beaten, ErrorCode::RebalanceInProgress);
    let joined = recorder.join(&join_request(&group, &member, &wishes));
    recorder.sync(&group, &joined, b"");
    recorder.accept(&beat(&group, "m1", -1));
    recorder.tell("a classic member meets one of the new protocol", &group);
}

#[test]
fn groups_write_kafkas_bytes() {
    let mut recorder = Recorder::new();
    classic(&mut recorder);
    consumer(&mut recorder);
    expression(&mut recorder);
    converted(&mut recorder);
    let told = recorder.told;
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/wire/group_bytes.txt");
    if std::env::var_os("CHRONIK_TEST_RECORD").is_some() {
        std::fs::write(&path, &told).expect("the file of expected bytes");
    }
    let expected = std::fs::read_to_string(&path).expect("the file of expected bytes");
    for (number, (line, wanted)) in told.lines().zip(expected.lines()).enumerate() {
        let before: Vec<&str> = told.lines().take(number).collect();
        let before = before[number.saturating_sub(12)..].join("\n");
        assert_eq!(line, wanted, "line {}, after\n{before}", number + 1);
    }
    assert_eq!(told.lines().count(), expected.lines().count());
}
