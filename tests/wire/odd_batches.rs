//! Batches that no producer makes and Kafka accepts: stored so that consumers can read them.

use chronik_protocol::ErrorCode;
use chronik_protocol::record::Compression;

use crate::bad_batches::{answered, three, with_deltas};
use crate::subject::Subject;
use crate::support::batch::{BASE_TIMESTAMP_MS, TestBatch, TestRecord, put_varint};
use crate::support::calls::{code, latest, produce, produce_ok, read_batches, read_values};

/// A record whose key, value and header value are null by other lengths than −1.
fn odd_nulls(key_length: i64) -> Vec<u8> {
    let mut body = vec![0, 0, 0];
    put_varint(&mut body, key_length);
    put_varint(&mut body, -7);
    put_varint(&mut body, 1);
    put_varint(&mut body, 1);
    body.push(b'h');
    put_varint(&mut body, -300);
    let mut record = Vec::new();
    put_varint(&mut record, body.len() as i64);
    record.extend(body);
    record
}

#[test]
fn odd_batches_are_taken_and_can_be_read() {
    let subject = Subject::start();
    let mut client = subject.connect();
    let deltas = |deltas: &[i64]| three(|batch| batch.payload = with_deltas(deltas));
    let whole = three(|_| {});
    let behind = |rest: &[u8]| [&whole[..], rest].concat();
    for (case, bytes) in [
        ("offset deltas that repeat", deltas(&[0, 0, 1])),
        ("offset deltas that skip", deltas(&[0, 1, 3])),
        ("offset deltas that fall", deltas(&[2, 1, 0])),
        ("a negative offset delta", deltas(&[-1, 1, 2])),
        ("a byte behind the batch", behind(&[0])),
        ("zeros that are no length", behind(&[0; 11])),
        ("half a header behind the batch", behind(&whole[..16])),
        ("half a batch behind the batch", behind(&whole[..40])),
        ("nearly a batch", behind(&whole[..whole.len() - 1])),
        (
            "nulls of other lengths",
            three(|batch| {
                let rest = [TestRecord::of("b").encode(1), TestRecord::of("c").encode(2)];
                batch.payload = [odd_nulls(-2), rest.concat()].concat();
            }),
        ),
        (
            "times that wrap",
            three(|batch| {
                batch.base_timestamp = i64::MIN + BASE_TIMESTAMP_MS;
                let record = |index: i64| {
                    TestRecord {
                        timestamp_delta: i64::MIN,
                        ..TestRecord::of("value")
                    }
                    .encode(index)
                };
                batch.payload = [record(0), record(1), record(2)].concat();
            }),
        ),
    ] {
        let topic = subject.topic(1);
        let answer = produce(&mut client, &topic, 0, bytes);
        let message = answer.error_message;
        assert_eq!(
            code(answer.error_code),
            ErrorCode::None,
            "{case}: {message:?}"
        );
        assert_eq!(latest(&mut client, &topic, 0), 3, "{case}");
        let batches = read_batches(&mut client, &topic, 0, 0);
        assert_eq!(batches.len(), 1, "{case}");
        if subject.is_outside() {
            // Kafka stores the offset deltas as they came; consumers see them.
            continue;
        }
        let read = read_values(&mut client, &topic, 0, 0);
        let offsets: Vec<_> = read.iter().map(|(offset, _)| *offset).collect();
        assert_eq!(offsets, [0, 1, 2], "{case}");
    }
    // A length that wraps when the header is added makes Kafka stumble: any error will do.
    let topic = subject.topic(1);
    let wraps = three(|batch| batch.batch_length = Some(i32::MAX));
    let answer = produce(&mut client, &topic, 0, wraps);
    assert_ne!(code(answer.error_code), ErrorCode::None);
    let codec = three(|batch| batch.attributes |= 6);
    let answer = produce(&mut client, &topic, 0, codec);
    assert_eq!(code(answer.error_code), ErrorCode::UnknownServerError);
}

/// Odd records are written anew under the codec that the topic asks for.
#[test]
fn odd_batches_are_taken_by_topics_with_a_codec() {
    let subject = Subject::start();
    let mut client = subject.connect();
    let topic = subject.topic_with(1, &[("compression.type", "gzip")]);
    let batch = three(|batch| batch.payload = with_deltas(&[0, 0, 0]));
    produce_ok(&mut client, &topic, 0, batch);
    let stored = read_batches(&mut client, &topic, 0, 0).remove(0);
    assert_eq!(stored.attributes & 7, 1);
    let payload = bytes::Bytes::from(stored.payload);
    let plain = Compression::Gzip.decompress_bounded(&payload, 1000);
    assert_eq!(
        plain.expect("what the broker wrote"),
        with_deltas(&[0, 1, 2])
    );
    let packed = Compression::Zstd.compress(None, &with_deltas(&[0, 5, 2]));
    let behind_a_codec = three(|batch| {
        *batch = batch.clone().compressed(4, packed.expect("any bytes"));
    });
    if !subject.is_outside() {
        // Kafka takes it where it has to write the batch anew, and stumbles where it has not.
        let answer = produce(&mut client, &topic, 0, behind_a_codec);
        assert_eq!(code(answer.error_code), ErrorCode::InvalidRecord);
    }
}

#[test]
fn the_append_time_bit_counts_for_nothing_where_producers_tell_the_time() {
    const LOG_APPEND_TIME: i16 = 8;
    let subject = Subject::start();
    let mut client = subject.connect();
    let claiming = |max_timestamp| {
        let mut batch = TestBatch::of_values(["a", "b"]);
        batch.attributes |= LOG_APPEND_TIME;
        batch.max_timestamp = max_timestamp;
        batch
    };
    let plain = subject.topic(1);
    answered(
        &mut client,
        &plain,
        &claiming(BASE_TIMESTAMP_MS),
        ErrorCode::None,
    );
    let stored = read_batches(&mut client, &plain, 0, 0).remove(0);
    assert_eq!(stored.attributes & LOG_APPEND_TIME, 0);
    assert_eq!(stored.max_timestamp, BASE_TIMESTAMP_MS);
    // The time that the header claims for all is the one that is judged.
    let late = answered(
        &mut client,
        &plain,
        &claiming(i64::MAX),
        ErrorCode::InvalidTimestamp,
    );
    assert_eq!(late.record_errors.len(), 2);
    let none = answered(
        &mut client,
        &plain,
        &claiming(-1),
        ErrorCode::InvalidTimestamp,
    );
    assert_eq!(none.record_errors.len(), 2);
    let stamped = subject.topic_with(1, &[("message.timestamp.type", "LogAppendTime")]);
    let now = claiming(BASE_TIMESTAMP_MS);
    let refused = answered(&mut client, &stamped, &now, ErrorCode::InvalidTimestamp);
    let indices: Vec<_> = refused
        .record_errors
        .iter()
        .map(|it| it.batch_index)
        .collect();
    assert_eq!(indices, [0, 1]);
}
