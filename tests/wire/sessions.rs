//! Incremental fetch sessions (KIP-227): full, incremental, forgotten partitions, wrong epochs.

use chronik_protocol::ErrorCode;
use chronik_protocol::messages::{FetchRequest, FetchResponse, fetch_request::ForgottenTopic};

use crate::subject::Subject;
use crate::support::batch::TestBatch;
use crate::support::calls::{
    FETCH_BY_NAME, code, fetch_partition, fetch_request, fetched_bytes, produce_ok, text,
};
use crate::support::client::Client;

/// A session's next request: which partitions change, and to which offset.
fn in_session(topic: &str, id: i32, epoch: i32, changed: &[(i32, i64)]) -> FetchRequest {
    let mut request = fetch_request(topic, 0, 0);
    request.session_id = id;
    request.session_epoch = epoch;
    let partitions = changed
        .iter()
        .map(|(partition, offset)| fetch_partition(*partition, *offset));
    request.topics[0].partitions = partitions.collect();
    if changed.is_empty() {
        request.topics.clear();
    }
    request
}

/// Which partitions are answered, and with how many bytes.
fn answered(response: &FetchResponse) -> Vec<(i32, usize)> {
    let partitions = response
        .responses
        .iter()
        .flat_map(|topic| &topic.partitions);
    let mut found: Vec<_> = partitions
        .map(|partition| (partition.partition_index, fetched_bytes(partition).len()))
        .collect();
    found.sort_unstable();
    found
}

fn call(client: &mut Client, request: &FetchRequest) -> FetchResponse {
    client.call(request, FETCH_BY_NAME)
}

#[test]
fn a_session_answers_only_what_changed() {
    let subject = Subject::start();
    let topic = subject.topic(3);
    let mut client = subject.connect();
    let batch = TestBatch::of_values(["one"]).encode();
    let one = batch.len();
    produce_ok(&mut client, &topic, 0, batch.clone());

    let full = call(
        &mut client,
        &in_session(&topic, 0, 0, &[(0, 0), (1, 0), (2, 0)]),
    );
    assert_eq!(code(full.error_code), ErrorCode::None);
    assert_ne!(full.session_id, 0);
    assert_eq!(
        answered(&full),
        [(0, one), (1, 0), (2, 0)],
        "a full reply names everything"
    );
    let id = full.session_id;

    let same = call(&mut client, &in_session(&topic, id, 1, &[(0, 1)]));
    assert_eq!(
        (code(same.error_code), same.session_id),
        (ErrorCode::None, id)
    );
    assert_eq!(answered(&same), [], "nothing new");

    produce_ok(&mut client, &topic, 1, batch.clone());
    produce_ok(&mut client, &topic, 2, batch.clone());
    let news = call(&mut client, &in_session(&topic, id, 2, &[]));
    assert_eq!(answered(&news), [(1, one), (2, one)]);

    // Not moved on: it comes again. Moved on: it is silent.
    let again = call(&mut client, &in_session(&topic, id, 3, &[(1, 1)]));
    assert_eq!(answered(&again), [(2, one)]);

    let mut forget = in_session(&topic, id, 4, &[]);
    forget.forgotten_topics_data = vec![ForgottenTopic {
        topic: text(&topic),
        partitions: vec![2],
        ..Default::default()
    }];
    assert_eq!(answered(&call(&mut client, &forget)), []);
    produce_ok(&mut client, &topic, 0, batch.clone());
    produce_ok(&mut client, &topic, 2, batch);
    let rest = call(&mut client, &in_session(&topic, id, 5, &[]));
    assert_eq!(
        answered(&rest),
        [(0, one)],
        "a forgotten partition is not answered"
    );
}

#[test]
fn a_session_epoch_must_be_the_next_one() {
    let subject = Subject::start();
    let topic = subject.topic(1);
    let mut client = subject.connect();
    let full = call(&mut client, &in_session(&topic, 0, 0, &[(0, 0)]));
    let id = full.session_id;
    for epoch in [2, 7, i32::MAX] {
        let wrong = call(&mut client, &in_session(&topic, id, epoch, &[]));
        assert_eq!(
            code(wrong.error_code),
            ErrorCode::InvalidFetchSessionEpoch,
            "{epoch}"
        );
        assert_eq!((wrong.session_id, wrong.responses.len()), (0, 0));
    }
    let next = call(&mut client, &in_session(&topic, id, 1, &[]));
    assert_eq!(code(next.error_code), ErrorCode::None);
    let repeated = call(&mut client, &in_session(&topic, id, 1, &[]));
    assert_eq!(
        code(repeated.error_code),
        ErrorCode::InvalidFetchSessionEpoch
    );
    let unknown = call(&mut client, &in_session(&topic, id ^ 0x55, 1, &[]));
    assert_eq!(code(unknown.error_code), ErrorCode::FetchSessionIdNotFound);
}

#[test]
fn a_session_ends_when_told() {
    let subject = Subject::start();
    let topic = subject.topic(1);
    let mut client = subject.connect();
    let id = call(&mut client, &in_session(&topic, 0, 0, &[(0, 0)])).session_id;
    produce_ok(&mut client, &topic, 0, TestBatch::of_values(["x"]).encode());
    let mut other = subject.connect();
    let moved = call(&mut other, &in_session(&topic, id, 1, &[]));
    // Sessions live on the shard of their connection: elsewhere the client begins a new one.
    let found = code(moved.error_code);
    let lost = found == ErrorCode::FetchSessionIdNotFound && !subject.is_outside();
    assert!(lost || answered(&moved).len() == 1, "{found:?}");

    // Epoch −1 closes the session and is a full fetch without one.
    let last = call(&mut client, &in_session(&topic, id, -1, &[(0, 0)]));
    assert_eq!(
        (code(last.error_code), last.session_id),
        (ErrorCode::None, 0)
    );
    assert_eq!(answered(&last).len(), 1);
    let gone = call(&mut client, &in_session(&topic, id, 2, &[]));
    assert_eq!(code(gone.error_code), ErrorCode::FetchSessionIdNotFound);

    // Epoch 0 with an id closes that session and begins another.
    let first = call(&mut client, &in_session(&topic, 0, 0, &[(0, 0)])).session_id;
    let second = call(&mut client, &in_session(&topic, first, 0, &[(0, 0)])).session_id;
    assert!(second != 0 && second != first);
    let gone = call(&mut client, &in_session(&topic, first, 1, &[]));
    assert_eq!(code(gone.error_code), ErrorCode::FetchSessionIdNotFound);
}

#[test]
fn a_partition_with_an_error_is_answered_every_time() {
    let subject = Subject::start();
    let topic = subject.topic(1);
    let mut client = subject.connect();
    let full = call(&mut client, &in_session(&topic, 0, 0, &[(0, 0), (7, 0)]));
    let id = full.session_id;
    for epoch in 1..4 {
        let response = call(&mut client, &in_session(&topic, id, epoch, &[]));
        assert_eq!(answered(&response), [(7, 0)]);
        let error = response.responses[0].partitions[0].error_code;
        assert_eq!(code(error), ErrorCode::UnknownTopicOrPartition);
    }
}

#[test]
fn sessions_beyond_the_cache_are_refused_or_push_out_old_ones() {
    let subject = Subject::start();
    let topic = subject.topic(1);
    let mut client = subject.connect();
    // max.incremental.fetch.session.cache.slots is 1000 unless configured.
    let mut without_session = 0;
    for _ in 0..1_200 {
        let full = call(&mut client, &in_session(&topic, 0, 0, &[(0, 0)]));
        assert_eq!(code(full.error_code), ErrorCode::None);
        without_session += usize::from(full.session_id == 0);
    }
    if !subject.is_outside() {
        assert!(without_session < 1_200, "sessions are given at all");
    }
    assert_eq!(
        answered(&call(&mut client, &fetch_request(&topic, 0, 0))).len(),
        1
    );
}
