//! Many requests on one connection before the first reply: every reply comes, in order.

use std::thread;

use chronik_protocol::ErrorCode;
use chronik_protocol::messages::{
    ApiVersionsRequest, FetchRequest, ListOffsetsRequest, MetadataRequest, ProduceRequest,
    list_offsets_request,
};

use crate::subject::Subject;
use crate::support::batch::TestBatch;
use crate::support::calls::{
    FETCH_BY_NAME, PRODUCE_BY_NAME, code, fetch_request, latest, only_partition, produce_request,
    read_values, text,
};
use crate::support::client::Client;

fn list_latest(topic: &str) -> ListOffsetsRequest {
    ListOffsetsRequest {
        replica_id: -1,
        topics: vec![list_offsets_request::ListOffsetsTopic {
            name: text(topic),
            partitions: vec![list_offsets_request::ListOffsetsPartition {
                timestamp: -1,
                ..Default::default()
            }],
            ..Default::default()
        }],
        ..Default::default()
    }
}

#[test]
fn hundreds_of_mixed_requests_are_answered_in_order() {
    let subject = Subject::start();
    let topic = subject.topic(4);
    let mut client = subject.connect();
    let rounds = 100;
    let mut sent = Vec::new();
    for round in 0..rounds {
        let batch = TestBatch::of_values([format!("record {round}")]).encode();
        // Other partitions are on other shards: their replies are ready at other times.
        sent.push(client.send(
            &produce_request(&topic, round % 4, -1, batch),
            PRODUCE_BY_NAME,
        ));
        sent.push(client.send(
            &MetadataRequest {
                topics: None,
                ..Default::default()
            },
            9,
        ));
        sent.push(client.send(&fetch_request(&topic, 0, 0), FETCH_BY_NAME));
        sent.push(client.send(&list_latest(&topic), 7));
        sent.push(client.send(&ApiVersionsRequest::default(), 2));
    }
    for (round, sent) in (0..rounds).zip(sent.chunks(5)) {
        let produced = only_partition(client.receive::<ProduceRequest>(sent[0], PRODUCE_BY_NAME));
        assert_eq!(code(produced.error_code), ErrorCode::None);
        assert_eq!(produced.base_offset, i64::from(round / 4), "round {round}");
        let metadata = client.receive::<MetadataRequest>(sent[1], 9);
        assert!(
            metadata
                .topics
                .iter()
                .any(|found| found.name.as_deref() == Some(&*topic))
        );
        let fetched = client.receive::<FetchRequest>(sent[2], FETCH_BY_NAME);
        let high_watermark = fetched.responses[0].partitions[0].high_watermark;
        let listed = client.receive::<ListOffsetsRequest>(sent[3], 7);
        assert!(
            listed.topics[0].partitions[0].offset >= high_watermark,
            "a watermark never falls"
        );
        let versions = client.receive::<ApiVersionsRequest>(sent[4], 2);
        assert_eq!(code(versions.error_code), ErrorCode::None);
    }
}

#[test]
fn records_of_one_connection_are_stored_in_the_order_they_were_sent() {
    let subject = Subject::start();
    let topic = subject.topic(1);
    let writers = 4;
    let per_writer = 300;
    thread::scope(|scope| {
        for writer in 0..writers {
            let (subject, topic) = (&subject, &topic);
            scope.spawn(move || {
                let mut client = subject.connect();
                let sent: Vec<i32> = (0..per_writer)
                    .map(|number| {
                        let batch = TestBatch::of_values([format!("{writer} {number}")]).encode();
                        client.send(&produce_request(topic, 0, -1, batch), PRODUCE_BY_NAME)
                    })
                    .collect();
                let offsets: Vec<i64> = sent
                    .into_iter()
                    .map(|sent| produced_offset(&mut client, sent))
                    .collect();
                assert!(
                    offsets.is_sorted_by(|a, b| a < b),
                    "writer {writer}: {offsets:?}"
                );
            });
        }
    });
    let mut next = vec![0; writers];
    let values = read_values(&mut subject.connect(), &topic, 0, 0);
    assert_eq!(values.len(), writers * per_writer);
    for (offset, (found, value)) in (0..).zip(values) {
        assert_eq!(found, offset);
        let value = String::from_utf8(value).expect("what was written");
        let (writer, number) = value.split_once(' ').expect("two numbers");
        let writer: usize = writer.parse().expect("a number");
        assert_eq!(
            number.parse(),
            Ok(next[writer]),
            "writer {writer} at {offset}"
        );
        next[writer] += 1;
    }
}

fn produced_offset(client: &mut Client, correlation_id: i32) -> i64 {
    let response = client.receive::<ProduceRequest>(correlation_id, PRODUCE_BY_NAME);
    let answer = only_partition(response);
    assert_eq!(
        code(answer.error_code),
        ErrorCode::None,
        "{:?}",
        answer.error_message
    );
    answer.base_offset
}

#[test]
fn acks_0_gets_no_reply_and_keeps_its_place() {
    let subject = Subject::start();
    let topic = subject.topic(1);
    let mut client = subject.connect();
    for round in 0..50 {
        let batch = |what: &str| TestBatch::of_values([format!("{what} {round}")]).encode();
        client.send(
            &produce_request(&topic, 0, 0, batch("silent")),
            PRODUCE_BY_NAME,
        );
        let answered = client.send(
            &produce_request(&topic, 0, -1, batch("loud")),
            PRODUCE_BY_NAME,
        );
        assert_eq!(produced_offset(&mut client, answered), 2 * round + 1);
    }
    let values = read_values(&mut client, &topic, 0, 0);
    let first: Vec<_> = values.iter().take(3).map(|(_, value)| &value[..]).collect();
    assert_eq!(first, [&b"silent 0"[..], b"loud 0", b"silent 1"]);
    assert_eq!(values.len(), 100);
}

#[test]
fn acks_0_that_fails_closes_the_connection() {
    let subject = Subject::start();
    let mut client = subject.connect();
    let batch = TestBatch::of_values(["nowhere"]).encode();
    client.send(
        &produce_request("no-such-topic", 0, 0, batch),
        PRODUCE_BY_NAME,
    );
    client.expect_closed_after("acks=0 to a topic that does not exist");
    let topic = subject.topic(1);
    let mut broken = TestBatch::of_values(["broken"]);
    broken.crc = Some(1);
    let mut client = subject.connect();
    client.send(
        &produce_request(&topic, 0, 0, broken.encode()),
        PRODUCE_BY_NAME,
    );
    client.expect_closed_after("acks=0 with a wrong checksum");
    assert_eq!(latest(&mut subject.connect(), &topic, 0), 0);
}

#[test]
fn a_request_in_many_pieces_is_one_request() {
    let subject = Subject::start();
    let topic = subject.topic(1);
    let mut client = subject.connect();
    let batch = TestBatch::of_values(["in pieces"]).encode();
    let frame =
        crate::support::client::frame(&produce_request(&topic, 0, -1, batch), PRODUCE_BY_NAME, 1);
    // Nagle is off: most pieces travel alone.
    for piece in frame.chunks(3) {
        client.send_bytes(piece);
    }
    assert_eq!(produced_offset(&mut client, 1), 0);
}
