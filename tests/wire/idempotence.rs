//! Idempotent producers: duplicates, gaps, epochs, the last five batches, and restarts.

use chronik_protocol::ErrorCode;
use chronik_protocol::messages::{InitProducerIdRequest, ProduceRequest};

use crate::subject::Subject;
use crate::support::batch::TestBatch;
use crate::support::calls::{
    PRODUCE_BY_NAME, code, create_topic, init_producer, latest, only_partition, produce,
    produce_request, read_batches,
};
use crate::support::client::Client;
use crate::support::{BrokerOptions, Scratch, skip};

/// What one batch of a producer got.
type Answer = (ErrorCode, i64);

/// A batch of `records` records with this producer's mark.
fn batch(id: i64, epoch: i16, sequence: i32, records: usize) -> Vec<u8> {
    let values = (0..records).map(|number| format!("{id} {epoch} {sequence}+{number}"));
    TestBatch::of_values(values)
        .by_producer(id, epoch, sequence)
        .encode()
}

fn send(client: &mut Client, topic: &str, batch: Vec<u8>) -> Answer {
    let answer = produce(client, topic, 0, batch);
    (code(answer.error_code), answer.base_offset)
}

#[test]
fn producer_ids_are_given_once() {
    let subject = Subject::start();
    let mut ids: Vec<i64> = (0..20)
        .map(|_| init_producer(&mut subject.connect()))
        .collect();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), 20);
    assert!(ids[0] >= 0);
    let mut client = subject.connect();
    let request = InitProducerIdRequest {
        transactional_id: None,
        transaction_timeout_ms: -1,
        producer_id: -1,
        producer_epoch: -1,
        ..Default::default()
    };
    let response = client.call(&request, 4);
    assert_eq!(
        (code(response.error_code), response.producer_epoch),
        (ErrorCode::None, 0)
    );
}

#[test]
fn a_repeated_batch_is_answered_with_its_first_offset() {
    let subject = Subject::start();
    let topic = subject.topic(1);
    let mut client = subject.connect();
    let id = init_producer(&mut client);
    // Sequences 0, 2, 4 … of two records each.
    let nth = |number: i32| batch(id, 0, 2 * number, 2);
    for number in 0..7 {
        let offset = i64::from(2 * number);
        assert_eq!(
            send(&mut client, &topic, nth(number)),
            (ErrorCode::None, offset)
        );
        assert_eq!(
            send(&mut client, &topic, nth(number)),
            (ErrorCode::None, offset),
            "again"
        );
    }
    // The last five are remembered in full; older ones are known to be old.
    for number in 2..7 {
        let offset = i64::from(2 * number);
        assert_eq!(
            send(&mut client, &topic, nth(number)),
            (ErrorCode::None, offset),
            "{number}"
        );
    }
    for number in 0..2 {
        let (error, offset) = send(&mut client, &topic, nth(number));
        assert_eq!(
            error,
            ErrorCode::OutOfOrderSequenceNumber,
            "{number} at {offset}"
        );
    }
    assert_eq!(latest(&mut client, &topic, 0), 14, "each once");
}

#[test]
fn sequences_must_follow_each_other() {
    use ErrorCode::{InvalidProducerEpoch, OutOfOrderSequenceNumber};
    let subject = Subject::start();
    let topic = subject.topic(1);
    let mut client = subject.connect();
    let id = init_producer(&mut client);
    let none = ErrorCode::None;
    let mut step = |epoch, sequence, records, expected: Answer, why: &str| {
        let found = send(&mut client, &topic, batch(id, epoch, sequence, records));
        assert_eq!(found, expected, "{why}");
    };
    step(0, 0, 3, (none, 0), "a producer begins at 0");
    step(0, 4, 1, (OutOfOrderSequenceNumber, -1), "a gap");
    step(0, 3, 1, (none, 3), "the next one");
    step(
        0,
        3,
        2,
        (OutOfOrderSequenceNumber, -1),
        "no duplicate: another length",
    );
    step(
        0,
        0,
        2,
        (OutOfOrderSequenceNumber, -1),
        "no duplicate: another end",
    );
    step(
        1,
        5,
        1,
        (OutOfOrderSequenceNumber, -1),
        "a new epoch begins at 0",
    );
    step(1, 0, 1, (none, 4), "a new epoch");
    step(
        0,
        4,
        1,
        (InvalidProducerEpoch, -1),
        "the old epoch is fenced",
    );
    step(1, 1, 1, (none, 5), "and the new one goes on");
    step(
        2,
        0,
        1,
        (none, 6),
        "epochs may go on without InitProducerId",
    );
}

#[test]
fn an_unknown_producer_may_begin_anywhere() {
    let subject = Subject::start();
    let topic = subject.topic(1);
    let mut client = subject.connect();
    // Its state may have expired: a broker cannot tell.
    assert_eq!(
        send(&mut client, &topic, batch(77_001, 0, 500, 1)),
        (ErrorCode::None, 0)
    );
    assert_eq!(
        send(&mut client, &topic, batch(77_001, 0, 501, 1)),
        (ErrorCode::None, 1)
    );
    assert_eq!(
        send(&mut client, &topic, batch(77_001, 0, 503, 1)),
        (ErrorCode::OutOfOrderSequenceNumber, -1)
    );
}

#[test]
fn sequences_wrap_at_the_highest() {
    let subject = Subject::start();
    let topic = subject.topic(1);
    let mut client = subject.connect();
    let id = 77_002;
    assert_eq!(
        send(&mut client, &topic, batch(id, 0, i32::MAX - 3, 2)),
        (ErrorCode::None, 0)
    );
    // MAX−1, MAX, 0, 1
    assert_eq!(
        send(&mut client, &topic, batch(id, 0, i32::MAX - 1, 4)),
        (ErrorCode::None, 2)
    );
    assert_eq!(
        send(&mut client, &topic, batch(id, 0, i32::MAX - 1, 4)),
        (ErrorCode::None, 2)
    );
    assert_eq!(
        send(&mut client, &topic, batch(id, 0, 2, 1)),
        (ErrorCode::None, 6)
    );
    assert_eq!(
        send(&mut client, &topic, batch(id, 0, 0, 1)),
        (ErrorCode::OutOfOrderSequenceNumber, -1)
    );
    let batches = read_batches(&mut client, &topic, 0, 0);
    let sequences: Vec<i32> = batches.iter().map(|batch| batch.base_sequence).collect();
    assert_eq!(sequences, [i32::MAX - 3, i32::MAX - 1, 2]);
}

#[test]
fn a_producer_that_names_no_sequence_is_refused() {
    let subject = Subject::start();
    let topic = subject.topic(1);
    let mut client = subject.connect();
    for (id, epoch, sequence) in [(5, 0, -1), (5, 3, -1), (5, 0, -7)] {
        let (error, _) = send(&mut client, &topic, batch(id, epoch, sequence, 1));
        assert_eq!(error, ErrorCode::InvalidRecord, "{id} {epoch} {sequence}");
    }
    let mut transactional = TestBatch::of_values(["x"]).by_producer(5, 0, 0);
    transactional.attributes |= 0x10;
    let answer = produce(&mut client, &topic, 0, transactional.encode());
    assert_ne!(
        code(answer.error_code),
        ErrorCode::None,
        "no transaction was begun"
    );
    assert_eq!(latest(&mut client, &topic, 0), 0);
}

#[test]
fn five_in_flight_and_the_first_one_fails() {
    let subject = Subject::start();
    let topic = subject.topic(1);
    let mut client = subject.connect();
    let id = init_producer(&mut client);
    let mut broken = TestBatch::of_values(["0"]).by_producer(id, 0, 0);
    broken.crc = Some(0);
    let batches = [
        broken.encode(),
        batch(id, 0, 1, 1),
        batch(id, 0, 2, 1),
        batch(id, 0, 3, 1),
    ];
    let sent: Vec<i32> = batches
        .into_iter()
        .map(|batch| client.send(&produce_request(&topic, 0, -1, batch), PRODUCE_BY_NAME))
        .collect();
    let errors: Vec<ErrorCode> = sent
        .into_iter()
        .map(|sent| {
            let response = client.receive::<ProduceRequest>(sent, PRODUCE_BY_NAME);
            code(only_partition(response).error_code)
        })
        .collect();
    assert_eq!(errors[0], ErrorCode::CorruptMessage);
    // The broker knows nothing of this producer here, so the next batch may begin anywhere.
    assert_eq!(errors[1..], [ErrorCode::None; 3]);
}

#[test]
fn producers_are_remembered_across_restarts() {
    if std::env::var_os("CHRONIK_TEST_BOOTSTRAP").is_some() {
        skip("another broker cannot be restarted from here");
        return;
    }
    let scratch = Scratch::new();
    let options = BrokerOptions::new(scratch.join("data"));
    let mut broker = options.start();
    let mut client = Client::connect(broker.address());
    create_topic(&mut client, "kept", 1, &[]);
    let id = init_producer(&mut client);
    let mut ids = vec![id];
    for round in 0..6_i32 {
        let offset = i64::from(3 * round);
        let sequence = 3 * round;
        assert_eq!(
            send(&mut client, "kept", batch(id, 0, sequence, 3)),
            (ErrorCode::None, offset)
        );
        if round % 2 == 0 {
            broker.kill()
        } else {
            broker.stop()
        }
        broker = options.start();
        client = Client::connect(broker.address());
        let again = send(&mut client, "kept", batch(id, 0, sequence, 3));
        assert_eq!(
            again,
            (ErrorCode::None, offset),
            "a duplicate after restart {round}"
        );
        let gap = send(&mut client, "kept", batch(id, 0, sequence + 4, 3));
        assert_eq!(gap, (ErrorCode::OutOfOrderSequenceNumber, -1));
        ids.push(init_producer(&mut client));
    }
    ids.sort_unstable();
    assert!(
        ids.is_sorted_by(|a, b| a < b),
        "no id is given twice: {ids:?}"
    );
    assert_eq!(latest(&mut client, "kept", 0), 18);
    broker.stop();
}
