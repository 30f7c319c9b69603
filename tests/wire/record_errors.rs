//! Records that break a rule of their topic: the answer names each, with Kafka's code and sentences, and is bounded.

use chronik_protocol::ErrorCode;
use chronik_protocol::messages::produce_response::PartitionProduceResponse;
use chronik_protocol::record::Compression;

use crate::bad_batches::answered;
use crate::subject::Subject;
use crate::support::batch::{BASE_TIMESTAMP_MS, TestBatch, TestRecord};
use crate::support::calls::{code, only_partition, produce, produce_request};

fn keyed() -> TestRecord {
    TestRecord {
        key: Some(b"k".to_vec()),
        ..TestRecord::of("v")
    }
}

fn indices(answer: &PartitionProduceResponse) -> Vec<i32> {
    let errors = answer.record_errors.iter();
    errors.map(|error| error.batch_index).collect()
}

#[test]
fn every_record_without_a_key_is_named() {
    let subject = Subject::start();
    let mut client = subject.connect();
    let topic = subject.topic_with(1, &[("cleanup.policy", "compact")]);
    let records = (0..100).map(|number| match number % 10 {
        0 => TestRecord::of("v"),
        _ => keyed(),
    });
    let mixed = TestBatch::of(&records.collect::<Vec<_>>());
    let packed = Compression::Lz4.compress(None, &mixed.payload);
    let packed = mixed.clone().compressed(3, packed.expect("any bytes"));
    let sentence =
        format!("Compacted topic cannot accept message without key in topic partition {topic}-0");
    let shown = |index: i32| format!("RecordError(batchIndex={index}, message='{sentence}')");
    let message = format!(
        "One or more records have been rejected due to 10 record errors in total, and only showing \
         the first three errors at most: [{}, {}, {}]",
        shown(0),
        shown(10),
        shown(20)
    );
    for batch in [&mixed, &packed] {
        let answer = answered(&mut client, &topic, batch, ErrorCode::InvalidRecord);
        assert_eq!(indices(&answer), (0..100).step_by(10).collect::<Vec<_>>());
        for error in &answer.record_errors {
            assert_eq!(error.batch_index_error_message.as_deref(), Some(&*sentence));
        }
        assert_eq!(answer.error_message.as_deref(), Some(&*message));
    }
    answered(
        &mut client,
        &topic,
        &TestBatch::of(&[keyed()]),
        ErrorCode::None,
    );
    // Older versions have the code and no list; the oldest has the code, too.
    for version in [3, 7, 8, 12] {
        let request = produce_request(&topic, 0, -1, mixed.encode());
        let answer = only_partition(client.call(&request, version));
        assert_eq!(
            code(answer.error_code),
            ErrorCode::InvalidRecord,
            "{version}"
        );
        let listed = if version < 8 { 0 } else { 10 };
        assert_eq!(answer.record_errors.len(), listed, "{version}");
    }
}

#[test]
fn a_time_out_of_bounds_gives_its_code_to_the_whole_batch() {
    let subject = Subject::start();
    let mut client = subject.connect();
    let both = [
        ("cleanup.policy", "compact"),
        ("message.timestamp.after.max.ms", "1000"),
    ];
    let topic = subject.topic_with(1, &both);
    let future = TestRecord {
        timestamp_delta: 4_000_000_000_000 - BASE_TIMESTAMP_MS,
        ..keyed()
    };
    let batch = TestBatch::of(&[
        TestRecord::of("no key"),
        keyed(),
        future,
        TestRecord::of("no"),
    ]);
    let answer = answered(&mut client, &topic, &batch, ErrorCode::InvalidTimestamp);
    assert_eq!(indices(&answer), [0, 2, 3]);
    let sentence = "One or more records have been rejected due to invalid timestamp";
    assert_eq!(answer.error_message.as_deref(), Some(sentence));
    let late = answer.record_errors[1].batch_index_error_message.as_deref();
    let late = late.expect("a sentence");
    let begin = "Timestamp 4000000000000 of message with offset 2 is out of range. The timestamp \
                 should be within [";
    assert!(late.starts_with(begin), "{late}");
    // Bytes after the last record belong to no record.
    let mut broken = batch.clone();
    broken.payload.push(1);
    let answer = answered(&mut client, &topic, &broken, ErrorCode::InvalidRecord);
    assert!(indices(&answer).is_empty());
}

#[test]
fn timestamps_outside_the_topics_bounds_are_refused() {
    let subject = Subject::start();
    let mut client = subject.connect();
    let narrow = [
        ("message.timestamp.before.max.ms", "1000"),
        ("message.timestamp.after.max.ms", "1000"),
    ];
    let (narrow, plain) = (subject.topic_with(1, &narrow), subject.topic(1));
    let old = TestBatch::of_values(["old", "as old"]);
    let answer = answered(&mut client, &narrow, &old, ErrorCode::InvalidTimestamp);
    assert_eq!(indices(&answer), [0, 1]);
    answered(&mut client, &plain, &old, ErrorCode::None);
    let mut future = TestBatch::of_values(["from the year 2096"]);
    (future.base_timestamp, future.max_timestamp) = (4_000_000_000_000, 4_000_000_000_000);
    answered(&mut client, &narrow, &future, ErrorCode::InvalidTimestamp);
    // An hour ahead is what topics allow unless told otherwise.
    answered(&mut client, &plain, &future, ErrorCode::InvalidTimestamp);
    let stamped = subject.topic_with(1, &[("message.timestamp.type", "LogAppendTime")]);
    let answer = answered(&mut client, &stamped, &future, ErrorCode::None);
    let stamp = answer.log_append_time_ms;
    assert!(
        (BASE_TIMESTAMP_MS..4_000_000_000_000).contains(&stamp),
        "{stamp}"
    );
}

/// A few kilobytes unfold to a million records without keys.
#[test]
fn the_answer_is_bounded_whatever_a_batch_unfolds_to() {
    const COUNT: i32 = 1_000_000;
    let subject = Subject::start();
    if subject.is_outside() {
        return;
    }
    let mut client = subject.connect();
    let topic = subject.topic_with(1, &[("cleanup.policy", "compact")]);
    let record = TestRecord::default();
    let payload: Vec<u8> = (0..i64::from(COUNT))
        .flat_map(|delta| record.encode(delta))
        .collect();
    let packed = Compression::Zstd
        .compress(None, &payload)
        .expect("any bytes");
    let mut batch = TestBatch::of_values(["x"]).compressed(4, packed);
    (batch.record_count, batch.last_offset_delta) = (COUNT, COUNT - 1);
    assert!(batch.encode().len() < 1_000_000);
    let answer = produce(&mut client, &topic, 0, batch.encode());
    assert_eq!(code(answer.error_code), ErrorCode::InvalidRecord);
    let message = answer.error_message.as_deref().expect("a sentence");
    assert!(
        message.contains("due to 1000000 record errors"),
        "{message}"
    );
    assert_eq!(indices(&answer), (0..1 << 16).collect::<Vec<_>>());
    let texts = answer.record_errors.iter();
    let texts = texts.filter_map(|error| error.batch_index_error_message.as_ref());
    let text_bytes: usize = texts.map(|text| text.len()).sum();
    assert!(
        (1 << 20..(1 << 20) + 200).contains(&text_bytes),
        "{text_bytes}"
    );
}
