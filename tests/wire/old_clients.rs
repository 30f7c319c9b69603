//! Clients before Kafka 0.11: message sets, Produce 0 to 2, Fetch 0 to 3, ListOffsets 0. Errors and offsets are those of
//! Apache Kafka 3.9.1.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::Path;

use bytes::Bytes;
use chronik_protocol::ErrorCode;
use chronik_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use chronik_protocol::messages::{FetchRequest, ListOffsetsRequest, fetch_response::PartitionData};
use chronik_protocol::record::Compression;

use crate::subject::Subject;
use crate::support::batch::{BASE_TIMESTAMP_MS, ReadBatch, TestBatch, TestRecord};
use crate::support::calls::{
    EARLIEST, LATEST, code, create_topic, fetch_request, fetched_bytes, latest, only_partition,
    produce_ok, produce_request, read_batches, text,
};
use crate::support::client::Client;
use crate::support::message::TestMessage;
use crate::support::{BrokerOptions, Scratch, skip};

const ACKS_ALL: i16 = -1;
const CODECS: [Compression; 4] = [
    Compression::None,
    Compression::Gzip,
    Compression::Snappy,
    Compression::Lz4,
];

/// Error and base offset of a Produce request of this version.
fn produce(client: &mut Client, version: i16, topic: &str, set: &[u8]) -> (ErrorCode, i64) {
    let request = produce_request(topic, 0, ACKS_ALL, set);
    let answer = only_partition(client.call(&request, version));
    (code(answer.error_code), answer.base_offset)
}

fn fetch(client: &mut Client, version: i16, topic: &str, from: i64, max: i32) -> PartitionData {
    let mut request = fetch_request(topic, 0, from);
    request.session_epoch = -1;
    request.topics[0].partitions[0].partition_max_bytes = max;
    let mut response = client.call(&request, version);
    response.responses.remove(0).partitions.remove(0)
}

fn fetch_messages(client: &mut Client, version: i16, topic: &str, from: i64) -> Vec<TestMessage> {
    let answer = fetch(client, version, topic, from, 1 << 20);
    assert_eq!(code(answer.error_code), ErrorCode::None, "Fetch v{version}");
    TestMessage::all(&fetched_bytes(&answer))
}

/// Three messages of `magic`: everything, nothing, empty.
fn three(magic: i8) -> [TestMessage; 3] {
    let (key, value) = (Some(&b"key"[..]), Some(&b"value"[..]));
    [
        TestMessage::of(magic, BASE_TIMESTAMP_MS, key, value),
        TestMessage::of(magic, BASE_TIMESTAMP_MS + 7, None, None),
        TestMessage::of(magic, BASE_TIMESTAMP_MS + 3, Some(b""), Some(b"")),
    ]
}

fn set(messages: &[TestMessage]) -> Vec<u8> {
    messages.iter().flat_map(TestMessage::encode).collect()
}

/// `messages` in a wrapper, or side by side where there is no codec.
fn packed(codec: Compression, messages: &[TestMessage]) -> Vec<u8> {
    let magic = messages[0].magic;
    let inner: Vec<TestMessage> = (0..)
        .zip(messages)
        .map(|(offset, message)| TestMessage {
            offset,
            ..message.clone()
        })
        .collect();
    if codec == Compression::None {
        return set(&inner);
    }
    let value = codec.compress(None, &set(&inner)).expect("memory");
    let mut wrapper = TestMessage::wrapper(magic, BASE_TIMESTAMP_MS + 7, codec.id(), &value);
    wrapper.offset = inner.len() as i64 - 1;
    wrapper.encode()
}

/// The messages of a set with those of its wrappers in their place, offsets made absolute.
fn unpacked(set: Vec<TestMessage>) -> Vec<TestMessage> {
    let mut messages = Vec::new();
    for message in set {
        let codec = Compression::from_id(message.attributes & 7).expect("a codec");
        if codec == Compression::None {
            messages.push(message);
            continue;
        }
        let mut value = message.value.expect("a wrapper's value");
        if codec == Compression::Lz4 && message.magic == 0 {
            assert_eq!(
                value[6], 0x1a,
                "the checksum that old clients want (KAFKA-3160)"
            );
            value[6] = 0x82;
        }
        let plain = codec.decompress_bounded(&Bytes::from(value), 1 << 20);
        let inner = TestMessage::all(&plain.expect("a readable wrapper"));
        let base = match message.magic {
            0 => 0,
            _ => message.offset - inner.last().expect("messages").offset,
        };
        messages.extend(inner.into_iter().map(|inner| TestMessage {
            offset: base + inner.offset,
            ..inner
        }));
    }
    messages
}

#[test]
fn messages_of_every_version_codec_and_format_come_back_in_each() {
    let subject = Subject::start();
    let mut client = subject.connect();
    for codec in CODECS {
        let topic = subject.topic(1);
        let mut expected = Vec::new();
        for (version, magic) in [(0, 0), (1, 0), (2, 0), (2, 1), (1, 1)] {
            let sent = three(magic);
            let base = expected.len() as i64;
            let answer = produce(&mut client, version, &topic, &packed(codec, &sent));
            assert_eq!(
                answer,
                (ErrorCode::None, base),
                "{codec} v{version} magic {magic}"
            );
            expected.extend(
                (base..)
                    .zip(sent)
                    .map(|(offset, sent)| TestMessage { offset, ..sent }),
            );
        }
        for batch in read_batches(&mut client, &topic, 0, 0) {
            assert_eq!(batch.attributes, i16::from(codec.id()), "the codec is kept");
        }
        for version in 0..4 {
            let magic = if version < 2 { 0 } else { 1 };
            let found = unpacked(fetch_messages(&mut client, version, &topic, 0));
            let as_read = |message: &TestMessage| TestMessage {
                magic,
                timestamp: if magic == 0 { -1 } else { message.timestamp },
                ..message.clone()
            };
            let expected: Vec<_> = expected.iter().map(as_read).collect();
            assert_eq!(found, expected, "{codec} Fetch v{version}");
        }
    }
}

#[test]
fn batches_become_messages_without_their_headers() {
    let subject = Subject::start();
    let mut client = subject.connect();
    let topic = subject.topic(1);
    let record = |key: Option<&[u8]>, value: Option<&[u8]>, timestamp_delta| TestRecord {
        key: key.map(<[u8]>::to_vec),
        value: value.map(<[u8]>::to_vec),
        headers: vec![(b"name".to_vec(), Some(b"value".to_vec()))],
        timestamp_delta,
    };
    let records = [record(Some(b"k"), Some(b"v"), 0), record(None, None, 9)];
    for base in [0, 2] {
        let batch = TestBatch::of(&records).encode();
        // A batch of format 2 is taken by the old versions too.
        assert_eq!(
            produce(&mut client, base, &topic, &batch),
            (ErrorCode::None, base.into())
        );
    }
    for version in [2, 3] {
        let found = fetch_messages(&mut client, version, &topic, 1);
        let second = TestMessage::of(1, BASE_TIMESTAMP_MS + 9, None, None);
        let first = TestMessage::of(1, BASE_TIMESTAMP_MS, Some(b"k"), Some(b"v"));
        let expected = [(1, &second), (2, &first), (3, &second)];
        let expected = expected.map(|(offset, message)| TestMessage {
            offset,
            ..message.clone()
        });
        assert_eq!(
            found, expected,
            "Fetch v{version} begins where it was asked to"
        );
    }
    for version in 4..10 {
        let answer = fetch(&mut client, version, &topic, 1, 1 << 20);
        let batches = ReadBatch::all(&fetched_bytes(&answer));
        assert_eq!(batches.len(), 2, "Fetch v{version} has batches as they are");
    }
}

#[test]
fn the_time_of_the_append_is_told_to_who_knows_times() {
    let subject = Subject::start();
    let mut client = subject.connect();
    let topic = subject.topic_with(1, &[("message.timestamp.type", "LogAppendTime")]);
    for (version, magic) in [(0, 0), (2, 1)] {
        let (error, _) = produce(&mut client, version, &topic, &set(&three(magic)));
        assert_eq!(error, ErrorCode::None);
    }
    let claimed = TestMessage {
        attributes: 8,
        ..three(1)[0].clone()
    };
    let refused = produce(&mut client, 2, &topic, &claimed.encode());
    assert_eq!(refused, (ErrorCode::InvalidTimestamp, -1));
    let batches = read_batches(&mut client, &topic, 0, 0);
    let appended: Vec<i64> = batches.iter().map(|batch| batch.max_timestamp).collect();
    for message in fetch_messages(&mut client, 3, &topic, 0) {
        let at = usize::from(message.offset >= 3);
        assert_eq!((message.attributes, message.timestamp), (8, appended[at]));
        assert!(message.timestamp > BASE_TIMESTAMP_MS);
    }
    for message in fetch_messages(&mut client, 1, &topic, 0) {
        assert_eq!((message.magic, message.attributes), (0, 0));
    }
}

#[test]
fn bad_message_sets_get_kafkas_errors_and_leave_nothing_behind() {
    let subject = Subject::start();
    let mut client = subject.connect();
    let topic = subject.topic_with(1, &[("max.message.bytes", "400")]);
    let compacted = subject.topic_with(1, &[("cleanup.policy", "compact")]);
    let one = TestMessage::of(1, BASE_TIMESTAMP_MS, Some(b"k"), Some(b"v")).encode();
    let old = TestMessage::of(0, -1, Some(b"k"), Some(b"v")).encode();
    let wrapper = packed(Compression::Gzip, &three(1));
    let mut wrong_crc = one.clone();
    wrong_crc[20] ^= 1;
    let mut wrong_size = one.clone();
    wrong_size[8..12].copy_from_slice(&13_i32.to_be_bytes());
    let mut wrong_magic = one.clone();
    wrong_magic[16] = 9;
    let zstd = TestMessage::wrapper(1, 0, 4, b"zstd").encode();
    let large = TestMessage::of(1, BASE_TIMESTAMP_MS, None, Some(&[b'v'; 400])).encode();
    let cases: [(&str, Vec<u8>, ErrorCode); 10] = [
        ("checksum", wrong_crc.clone(), ErrorCode::CorruptMessage),
        ("size", wrong_size, ErrorCode::CorruptMessage),
        ("magic", wrong_magic, ErrorCode::CorruptMessage),
        (
            "checksum of the second",
            [one.clone(), wrong_crc].concat(),
            ErrorCode::CorruptMessage,
        ),
        (
            "both formats",
            [old, one.clone()].concat(),
            ErrorCode::InvalidRecord,
        ),
        ("two wrappers", wrapper.repeat(2), ErrorCode::InvalidRecord),
        ("zstd", zstd, ErrorCode::InvalidRecord),
        ("a large message", large, ErrorCode::MessageTooLarge),
        ("a large batch", one.repeat(60), ErrorCode::MessageTooLarge),
        ("nothing", Vec::new(), ErrorCode::None),
    ];
    for (name, set, expected) in cases {
        for version in 0..3 {
            let answer = produce(&mut client, version, &topic, &set);
            assert_eq!(answer, (expected, -1), "{name} in Produce v{version}");
        }
    }
    let keyless = set(&three(1)[1..2]);
    let refused = produce(&mut client, 2, &compacted, &keyless);
    assert_eq!(refused, (ErrorCode::InvalidRecord, -1));
    let since_3 = produce(&mut client, 3, &topic, &one);
    assert_eq!(since_3, (ErrorCode::InvalidRecord, -1));
    let half = [&one[..], &one[..20]].concat();
    assert_eq!(produce(&mut client, 2, &topic, &half), (ErrorCode::None, 0));
    assert_eq!(latest(&mut client, &topic, 0), 1);
}

#[test]
fn zstd_is_refused_to_who_cannot_read_it() {
    let subject = Subject::start();
    let mut client = subject.connect();
    let topic = subject.topic(1);
    produce_ok(
        &mut client,
        &topic,
        0,
        TestBatch::of_values(["readable"]).encode(),
    );
    let packed = TestBatch::of_values(["packed"]);
    let payload = Compression::Zstd
        .compress(None, &packed.payload)
        .expect("memory");
    produce_ok(
        &mut client,
        &topic,
        0,
        packed.compressed(4, payload).encode(),
    );
    for version in 0..4 {
        let offsets: Vec<i64> = fetch_messages(&mut client, version, &topic, 0)
            .iter()
            .map(|message| message.offset)
            .collect();
        assert_eq!(offsets, [0], "what comes before it, Fetch v{version}");
        let refused = fetch(&mut client, version, &topic, 1, 1 << 20);
        assert_eq!(
            code(refused.error_code),
            ErrorCode::UnsupportedCompressionType
        );
        assert!(fetched_bytes(&refused).is_empty());
    }
}

#[test]
fn an_old_fetch_keeps_to_its_limits_and_goes_on() {
    let subject = Subject::start();
    let mut client = subject.connect();
    let topic = subject.topic(1);
    let values: Vec<Vec<u8>> = (0..500_u16).map(|n| n.to_be_bytes().repeat(50)).collect();
    produce_ok(
        &mut client,
        &topic,
        0,
        TestBatch::of_values(values.clone()).encode(),
    );
    for version in 0..4 {
        let mut found: Vec<Vec<u8>> = Vec::new();
        while found.len() < values.len() {
            let from = found.len() as i64;
            let answer = fetch(&mut client, version, &topic, from, 1_000);
            let bytes = fetched_bytes(&answer);
            assert!(bytes.len() <= 1_000, "{} bytes", bytes.len());
            let messages = TestMessage::all(&bytes);
            assert_eq!(messages.first().map(|message| message.offset), Some(from));
            found.extend(messages.into_iter().flat_map(|message| message.value));
        }
        assert_eq!(found, values, "Fetch v{version}");
        let alone = fetch(&mut client, version, &topic, 3, 1);
        assert_eq!(TestMessage::all(&fetched_bytes(&alone)).len(), 1);
        let beyond = fetch(&mut client, version, &topic, 501, 1_000);
        assert_eq!(code(beyond.error_code), ErrorCode::OffsetOutOfRange);
        let end = fetch(&mut client, version, &topic, 500, 1_000);
        assert_eq!(
            (code(end.error_code), end.high_watermark),
            (ErrorCode::None, 500)
        );
    }
}

/// What ListOffsets 0 says.
fn old_offsets(
    client: &mut Client,
    topic: &str,
    timestamp: i64,
    max: i32,
) -> (ErrorCode, Vec<i64>) {
    let request = ListOffsetsRequest {
        replica_id: -1,
        topics: vec![ListOffsetsTopic {
            name: text(topic),
            partitions: vec![ListOffsetsPartition {
                timestamp,
                max_num_offsets: max,
                ..Default::default()
            }],
            ..Default::default()
        }],
        ..Default::default()
    };
    let mut response = client.call(&request, 0);
    let answer = response.topics.remove(0).partitions.remove(0);
    (code(answer.error_code), answer.old_style_offsets)
}

#[test]
fn old_offsets_are_where_segments_begin() {
    let subject = Subject::start();
    let mut client = subject.connect();
    let topic = subject.topic_with(1, &[("segment.bytes", "1048576")]);
    let mut ask = |timestamp, max| old_offsets(&mut client, &topic, timestamp, max);
    assert_eq!(ask(LATEST, 9), (ErrorCode::None, vec![0]));
    assert_eq!(ask(0, 9), (ErrorCode::None, vec![]));
    for _ in 0..3 {
        let large = TestBatch::of_values([vec![7; 700_000], vec![8; 2]]).encode();
        produce_ok(&mut client, &topic, 0, large);
    }
    let mut ask = |timestamp, max| old_offsets(&mut client, &topic, timestamp, max);
    assert_eq!(ask(LATEST, 1), (ErrorCode::None, vec![6]));
    assert_eq!(ask(LATEST, 9), (ErrorCode::None, vec![6, 4, 2, 0]));
    assert_eq!(ask(LATEST, 0), (ErrorCode::None, vec![]));
    assert_eq!(ask(EARLIEST, 9), (ErrorCode::None, vec![0]));
    assert_eq!(ask(i64::MAX, 2), (ErrorCode::None, vec![6, 4]));
    assert_eq!(ask(1, 2), (ErrorCode::None, vec![]));
    assert_eq!(ask(-3, 2), (ErrorCode::UnsupportedVersion, vec![]));
    let (unknown, _) = old_offsets(&mut client, "no-such-topic", LATEST, 1);
    assert_eq!(unknown, ErrorCode::UnknownTopicOrPartition);
}

/// Batches of offsets 1 to 6 that no client can write and no old one can be shown: a transaction's
/// end, and what compaction leaves of a batch.
fn hidden(leader_epoch: i32) -> [TestBatch; 2] {
    let marker = TestRecord {
        key: Some(vec![0, 0, 0, 1]),
        ..TestRecord::of([0; 6])
    };
    let commit = TestBatch {
        base_offset: 1,
        leader_epoch,
        attributes: 0x30,
        ..TestBatch::of(&[marker]).by_producer(7, 0, -1)
    };
    let emptied = TestBatch {
        base_offset: 2,
        leader_epoch,
        last_offset_delta: 4,
        ..TestBatch::of(&[])
    };
    [commit, emptied]
}

fn append(log: &Path, batch: &TestBatch) {
    let mut file = OpenOptions::new().append(true).open(log).expect("the log");
    file.write_all(&batch.encode()).expect("room on the disk");
}

#[test]
fn batches_without_anything_to_show_are_passed_over() {
    if std::env::var_os("CHRONIK_TEST_BOOTSTRAP").is_some() {
        skip("another broker's files are not touched");
        return;
    }
    let scratch = Scratch::new();
    let options = BrokerOptions::new(scratch.join("data"));
    let broker = options.start();
    let mut client = Client::connect(broker.address());
    create_topic(&mut client, "hidden", 1, &[]);
    produce_ok(
        &mut client,
        "hidden",
        0,
        TestBatch::of_values(["before"]).encode(),
    );
    let leader_epoch = read_batches(&mut client, "hidden", 0, 0)[0].leader_epoch;
    broker.stop();
    let log = scratch.join("data/hidden-0/00000000000000000000.log");
    hidden(leader_epoch)
        .iter()
        .for_each(|batch| append(&log, batch));
    // It is not as it was left: the broker has to look at it.
    fs::remove_file(scratch.join("data/.kafka_cleanshutdown")).expect("a clean stop");
    let broker = options.start();
    let mut client = Client::connect(broker.address());
    let nothing = fetch(&mut client, 2, "hidden", 1, 1_000);
    assert_eq!(
        (code(nothing.error_code), nothing.high_watermark),
        (ErrorCode::None, 7)
    );
    assert!(fetched_bytes(&nothing).is_empty());
    // A fetch that waits at them is answered by what comes behind them, not by nothing at once.
    let mut waiting = fetch_request("hidden", 0, 1);
    (waiting.session_epoch, waiting.max_wait_ms) = (-1, 60_000);
    let mut reader = Client::connect(broker.address());
    let sent = reader.send(&waiting, 2);
    produce_ok(
        &mut client,
        "hidden",
        0,
        TestBatch::of_values(["after"]).encode(),
    );
    let reply = reader.receive::<FetchRequest>(sent, 2);
    let bytes = fetched_bytes(&reply.responses[0].partitions[0]);
    assert_eq!(TestMessage::all(&bytes)[0].offset, 7);
    for version in 0..4 {
        for (from, max, expected) in [(0, 1_000, vec![0, 7]), (1, 1, vec![7]), (4, 1, vec![7])] {
            let answer = fetch(&mut client, version, "hidden", from, max);
            let messages = TestMessage::all(&fetched_bytes(&answer));
            let offsets: Vec<i64> = messages.iter().map(|message| message.offset).collect();
            assert_eq!(offsets, expected, "Fetch v{version} from {from}");
        }
    }
    broker.stop();
}
