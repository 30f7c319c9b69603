//! Well-formed produce requests with malformed records: Kafka's error for each, nothing stored, and the connection goes
//! on.

use chronik_protocol::ErrorCode;
use chronik_protocol::messages::{
    ProduceRequest, produce_request, produce_response::PartitionProduceResponse,
};
use chronik_protocol::record::Compression;
use chronik_protocol::{Records, Uuid};

use crate::neighbours::Neighbour;
use crate::subject::Subject;
use crate::support::batch::{TestBatch, TestRecord, put_varint};
use crate::support::calls::{
    PRODUCE_BY_NAME, code, latest, only_partition, produce, produce_request, read_values,
};
use crate::support::client::Client;

/// A batch of three records, honest until `change`.
pub(crate) fn three(change: impl FnOnce(&mut TestBatch)) -> Vec<u8> {
    let mut batch = TestBatch::of_values(["one", "two", "three"]);
    change(&mut batch);
    batch.encode()
}

/// Records whose offset deltas are these.
pub(crate) fn with_deltas(deltas: &[i64]) -> Vec<u8> {
    deltas
        .iter()
        .flat_map(|delta| TestRecord::of("value").encode(*delta))
        .collect()
}

/// Batches whose bytes are damaged before any record is looked at: CORRUPT_MESSAGE.
fn damaged_batches() -> Vec<(&'static str, Vec<u8>)> {
    let length = |length| three(|batch| batch.batch_length = Some(length));
    let flipped = |at: usize| {
        let mut bytes = three(|_| {});
        bytes[at] ^= 0x40;
        bytes
    };
    let behind = |rest: &[u8]| [&three(|_| {})[..], rest].concat();
    vec![
        ("a wrong checksum", three(|batch| batch.crc = Some(1))),
        ("a flipped bit in the records", flipped(70)),
        ("a flipped bit in the attributes", flipped(22)),
        ("format 3", three(|batch| batch.magic = 3)),
        ("format −1", three(|batch| batch.magic = -1)),
        ("a length of 0", length(0)),
        ("a negative length", length(-9)),
        ("a length below the header", length(48)),
        ("zeros behind the batch", behind(&[0; 12])),
        (
            "a format of the future behind the batch",
            behind(&[&[0; 11][..], &[99, 0, 0, 0, 0, 3]].concat()),
        ),
    ]
}

/// What is not exactly one whole batch of today's format: INVALID_RECORD.
fn miscounted_batches() -> Vec<(&'static str, Vec<u8>)> {
    let length = |length| three(|batch| batch.batch_length = Some(length));
    let whole = three(|_| {});
    vec![
        ("no bytes at all", Vec::new()),
        ("format 0", three(|batch| batch.magic = 0)),
        ("format 1", three(|batch| batch.magic = 1)),
        ("a length beyond the bytes", length(5_000)),
        ("half a header", whole[..30].to_vec()),
        ("half the records", whole[..whole.len() - 5].to_vec()),
        ("two batches", [&whole[..], &whole].concat()),
        (
            "two batches and a half",
            [&whole[..], &whole, &whole[..50]].concat(),
        ),
    ]
}

/// Batches with a true checksum over something untrue: all INVALID_RECORD.
fn lying_batches() -> Vec<(&'static str, Vec<u8>)> {
    let counts = |count, last_offset_delta| {
        three(|batch| (batch.record_count, batch.last_offset_delta) = (count, last_offset_delta))
    };
    let payload = |payload: Vec<u8>| three(|batch| batch.payload = payload);
    let mut huge_record = Vec::new();
    put_varint(&mut huge_record, i64::from(i32::MAX));
    let trailing = [with_deltas(&[0, 1, 2]), vec![0; 9]].concat();
    vec![
        ("no records", TestBatch::of(&[]).encode()),
        ("fewer records than claimed", counts(4, 3)),
        ("more records than claimed", counts(2, 1)),
        ("a count that is not the offsets'", counts(4, 2)),
        ("a negative count", counts(-3, 2)),
        ("the highest count", counts(i32::MAX, 2)),
        (
            "the highest count and offset",
            counts(i32::MAX, i32::MAX - 1),
        ),
        ("a last offset too far", counts(3, 9)),
        ("a last offset too near", counts(3, 1)),
        ("a negative last offset", counts(3, -7)),
        ("a record longer than the batch", payload(huge_record)),
        ("records of no bytes", payload(vec![0, 0, 0])),
        ("zeros for records", payload(vec![0; 100])),
        ("bytes behind the last record", payload(trailing)),
        ("a control batch", three(|batch| batch.attributes |= 0x20)),
        ("a base offset", three(|batch| batch.base_offset = 77)),
    ]
}

#[test]
fn a_broken_batch_gets_kafkas_error_and_is_not_stored() {
    let subject = Subject::start();
    let mut neighbour = Neighbour::of(&subject);
    let topic = subject.topic(1);
    let mut client = subject.connect();
    let mut wrong = Vec::new();
    for (batches, expected) in [
        (damaged_batches(), ErrorCode::CorruptMessage),
        (miscounted_batches(), ErrorCode::InvalidRecord),
        (lying_batches(), ErrorCode::InvalidRecord),
    ] {
        for (case, bytes) in batches {
            let answer = produce(&mut client, &topic, 0, bytes);
            let (found, message) = (code(answer.error_code), answer.error_message);
            if (found, answer.base_offset) != (expected, -1) {
                wrong.push(format!("{case}: {found:?}, not {expected:?}: {message:?}"));
            }
            neighbour.works_after(case);
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert_eq!(latest(&mut client, &topic, 0), 0, "nothing was stored");
    neighbour.memory_is_bounded();
}

#[test]
fn what_is_behind_a_codec_is_looked_at_too() {
    let subject = Subject::start();
    let mut neighbour = Neighbour::of(&subject);
    let topic = subject.topic(1);
    let mut client = subject.connect();
    let garbage = b"this is compressed by no codec at all, but it is long enough".to_vec();
    for (number, codec) in codecs() {
        let honest = with_deltas(&[0, 1, 2]);
        let compress = |bytes: &[u8]| {
            codec
                .compress(None, bytes)
                .expect("a codec takes any bytes")
        };
        let whole = compress(&honest);
        let lies = [
            ("garbage", garbage.clone()),
            ("half a stream", whole[..whole.len() / 2].to_vec()),
            ("nothing", Vec::new()),
            ("too few records", compress(&with_deltas(&[0, 1]))),
            (
                "offset deltas that skip",
                compress(&with_deltas(&[0, 1, 5])),
            ),
            (
                "a length that lies",
                compress(&[0xfe, 0xff, 0xff, 0xff, 0x0f]),
            ),
        ];
        for (lie, payload) in lies {
            let case = format!("{lie} in codec {number}");
            let batch = three(|batch| *batch = batch.clone().compressed(number, payload));
            let answer = produce(&mut client, &topic, 0, batch);
            let found = code(answer.error_code);
            assert!(
                matches!(found, ErrorCode::InvalidRecord | ErrorCode::CorruptMessage)
                    // Kafka's word for what it did not expect of a codec.
                    || subject.is_outside() && found == ErrorCode::UnknownServerError,
                "{case}: {found:?} {:?}",
                answer.error_message
            );
            neighbour.works_after(&case);
        }
        let batch = three(|batch| *batch = batch.clone().compressed(number, whole));
        assert_eq!(
            code(produce(&mut client, &topic, 0, batch).error_code),
            ErrorCode::None
        );
    }
    assert_eq!(
        latest(&mut client, &topic, 0),
        12,
        "only the honest batches were stored"
    );
    neighbour.memory_is_bounded();
}

fn codecs() -> [(i16, Compression); 4] {
    [
        (1, Compression::Gzip),
        (2, Compression::Snappy),
        (3, Compression::Lz4),
        (4, Compression::Zstd),
    ]
}

#[test]
fn a_compressed_bomb_takes_no_memory() {
    let subject = Subject::start();
    let mut neighbour = Neighbour::of(&subject);
    let topic = subject.topic(1);
    let mut client = subject.connect();
    for (number, codec) in codecs() {
        // Snappy shrinks zeros to a twentieth only, and one request may have a mebibyte.
        let bytes = if number == 2 { 16 << 20 } else { 200 << 20 };
        let record = TestRecord::of(vec![0; bytes]).encode(0);
        let payload = codec
            .compress(None, &record)
            .expect("zeros can be compressed");
        drop(record);
        assert!(
            payload.len() < 1_000_000,
            "codec {number}: {} bytes",
            payload.len()
        );
        let batch = TestBatch::of_values(["one"]).compressed(number, payload);
        let answer = produce(&mut client, &topic, 0, batch.encode());
        let found = code(answer.error_code);
        // Kafka takes it, for it counts compressed bytes only.
        assert!(
            matches!(
                found,
                ErrorCode::None | ErrorCode::MessageTooLarge | ErrorCode::InvalidRecord
            ),
            "codec {number}: {found:?} {:?}",
            answer.error_message
        );
        neighbour.works_after(&format!("a bomb in codec {number}"));
    }
    neighbour.memory_is_bounded();
}

/// Produces and expects this answer.
pub(crate) fn answered(
    client: &mut Client,
    topic: &str,
    batch: &TestBatch,
    expected: ErrorCode,
) -> PartitionProduceResponse {
    let answer = produce(client, topic, 0, batch.encode());
    let message = &answer.error_message;
    assert_eq!(code(answer.error_code), expected, "{topic} {message:?}");
    answer
}

#[test]
fn batches_larger_than_the_topic_allows_are_refused() {
    let subject = Subject::start();
    let mut client = subject.connect();
    let sized = |bytes| TestBatch::of_values([vec![b'x'; bytes]]);
    let plain = subject.topic(1);
    answered(
        &mut client,
        &plain,
        &sized(1_048_600),
        ErrorCode::MessageTooLarge,
    );
    answered(&mut client, &plain, &sized(1_048_400), ErrorCode::None);
    let small = subject.topic_with(1, &[("max.message.bytes", "1000")]);
    answered(&mut client, &small, &sized(900), ErrorCode::None);
    answered(
        &mut client,
        &small,
        &sized(1_000),
        ErrorCode::MessageTooLarge,
    );
}

#[test]
fn a_place_that_does_not_exist_takes_no_records() {
    let subject = Subject::start();
    let mut client = subject.connect();
    let topic = subject.topic(2);
    let batch = || TestBatch::of_values(["lost"]).encode();
    for (name, partition) in [
        ("no-such-topic", 0),
        (&*topic, 2),
        (&*topic, -1),
        (&*topic, i32::MAX),
        ("", 0),
        ("a b/..", 0),
    ] {
        let answer = produce(&mut client, name, partition, batch());
        let found = code(answer.error_code);
        assert_eq!(
            found,
            ErrorCode::UnknownTopicOrPartition,
            "{name:?} {partition}"
        );
    }
    let mut by_id = produce_request(&topic, 0, -1, batch());
    by_id.topic_data[0].name = Default::default();
    by_id.topic_data[0].topic_id = Uuid(0x1234_5678);
    let answer = only_partition(client.call(&by_id, 13));
    assert_eq!(code(answer.error_code), ErrorCode::UnknownTopicId);
}

#[test]
fn acks_are_0_1_or_all() {
    let subject = Subject::start();
    let mut client = subject.connect();
    let topic = subject.topic(1);
    for acks in [7, 2, -2, i16::MIN, i16::MAX] {
        let request = produce_request(&topic, 0, acks, TestBatch::of_values(["no"]).encode());
        let answer = only_partition(client.call(&request, PRODUCE_BY_NAME));
        assert_eq!(
            code(answer.error_code),
            ErrorCode::InvalidRequiredAcks,
            "acks={acks}"
        );
    }
    assert_eq!(latest(&mut client, &topic, 0), 0);
}

#[test]
fn one_bad_partition_does_not_spoil_the_others() {
    let subject = Subject::start();
    let mut client = subject.connect();
    let topic = subject.topic(3);
    let mut request: ProduceRequest =
        produce_request(&topic, 0, -1, TestBatch::of_values(["zero"]).encode());
    for (index, records) in [
        (1, three(|batch| batch.crc = Some(7))),
        (2, TestBatch::of_values(["two"]).encode()),
        (3, TestBatch::of_values(["nowhere"]).encode()),
    ] {
        request.topic_data[0]
            .partition_data
            .push(produce_request::PartitionProduceData {
                index,
                records: Some(Records::from(bytes::Bytes::from(records))),
                ..Default::default()
            });
    }
    let response = client.call(&request, PRODUCE_BY_NAME);
    let mut found: Vec<_> = response.responses[0]
        .partition_responses
        .iter()
        .map(|answer| (answer.index, code(answer.error_code)))
        .collect();
    found.sort_by_key(|(index, _)| *index);
    let expected = [
        (0, ErrorCode::None),
        (1, ErrorCode::CorruptMessage),
        (2, ErrorCode::None),
        (3, ErrorCode::UnknownTopicOrPartition),
    ];
    assert_eq!(found, expected);
    assert_eq!(
        read_values(&mut client, &topic, 0, 0),
        [(0, b"zero".to_vec())]
    );
    assert_eq!(read_values(&mut client, &topic, 1, 0), []);
    assert_eq!(
        read_values(&mut client, &topic, 2, 0),
        [(0, b"two".to_vec())]
    );
}

#[test]
fn zstd_needs_a_version_that_knows_it() {
    let subject = Subject::start();
    let mut client = subject.connect();
    let topic = subject.topic(1);
    let payload = Compression::Zstd
        .compress(None, &with_deltas(&[0]))
        .expect("any bytes");
    let batch = TestBatch::of_values(["x"]).compressed(4, payload).encode();
    let answer = only_partition(client.call(&produce_request(&topic, 0, -1, batch.clone()), 6));
    assert_eq!(
        code(answer.error_code),
        ErrorCode::UnsupportedCompressionType
    );
    let answer = only_partition(client.call(&produce_request(&topic, 0, -1, batch), 7));
    assert_eq!(code(answer.error_code), ErrorCode::None);
}
