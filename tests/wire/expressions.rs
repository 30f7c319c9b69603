//! Regular expressions of subscriptions (KIP-848), over the wire: long, deep and malformed ones. The verdicts are those
//! of RE2/J 1.8, Kafka 4.3.1's library.

use chronik_protocol::ErrorCode;
use chronik_protocol::messages::ConsumerGroupHeartbeatRequest;

use crate::subject::Subject;
use crate::support::calls::{code, text};
use crate::support::client::{Client, frame, framed};
use crate::support::consumer_groups::{assigned, beat, joining};
use crate::support::eventually;
use crate::support::groups::find_coordinator;

/// The longest string that a request can carry.
const STRING_BYTES_MAX: usize = i16::MAX as usize;

fn joining_by(group: &str, expression: &str) -> ConsumerGroupHeartbeatRequest {
    let mut request = joining(group, "m", &[]);
    request.subscribed_topic_names = None;
    request.subscribed_topic_regex = Some(text(expression));
    request
}

/// Joins a group of its own by the expression, and leaves.
fn subscribe(client: &mut Client, group: &str, expression: &str) -> ErrorCode {
    let response = client.call(&joining_by(group, expression), 1);
    let error = code(response.error_code);
    if error == ErrorCode::None {
        let left = client.call(&beat(group, "m", -1), 1);
        assert_eq!(code(left.error_code), ErrorCode::None);
    }
    error
}

fn nested(depth: usize) -> String {
    format!("{}topic-a{}", "(".repeat(depth), ")".repeat(depth))
}

#[test]
fn long_and_deep_expressions_are_taken_and_match() {
    let subject = Subject::start_with(&[("group.consumer.min.heartbeat.interval.ms", "1")]);
    let mut client = subject.connect();
    let topic = subject.topic(1);
    find_coordinator(&mut client, "long");
    let mut alternatives = topic.clone();
    while alternatives.len() + "|no-such".len() <= STRING_BYTES_MAX {
        alternatives.push_str("|no-such");
    }
    let deep = nested(1_000).replace("topic-a", &topic);
    let plain = format!("{}|{topic}", "x".repeat(STRING_BYTES_MAX - topic.len() - 1));
    for (name, expression) in [("long", alternatives), ("deep", deep), ("plain", plain)] {
        let response = client.call(&joining_by(name, &expression), 1);
        assert_eq!(code(response.error_code), ErrorCode::None, "{name}");
        let mut epoch = response.member_epoch;
        let mut found = assigned(&response);
        // It is resolved behind the answer.
        let found = eventually("its partitions", || {
            if found.as_ref().is_none_or(|found| found.is_empty()) {
                let response = client.call(&beat(name, "m", epoch), 1);
                assert_eq!(code(response.error_code), ErrorCode::None, "{name}");
                epoch = response.member_epoch;
                found = assigned(&response);
            }
            found.take().filter(|found| !found.is_empty())
        });
        assert_eq!(found.len(), 1, "{name}");
    }
}

#[test]
fn what_is_no_expression_is_refused_and_harms_nobody() {
    let subject = Subject::start();
    let mut client = subject.connect();
    find_coordinator(&mut client, "g");
    for expression in [
        "(",
        ")",
        "[",
        "a**",
        "*a",
        "(?P<n>a)(?P<n>b)",
        "\\",
        "a{2,1}",
        "a{1001}",
        "(?=a)",
        "\\1",
        "[z-a]",
        "\\pX",
        "a++",
        "(?i",
        "[[:foo:]]",
    ] {
        let error = subscribe(&mut client, "g", expression);
        assert_eq!(error, ErrorCode::InvalidRegularExpression, "{expression}");
    }
    for expression in ["(?<n>a)", "\\Qab", "x{-1}", "a{1000}"] {
        let error = subscribe(&mut client, "g", expression);
        assert_eq!(error, ErrorCode::None, "{expression}");
    }
    // Kafka's own stack ends at such depths; any code will do, and everything goes on.
    for depth in [10_000, STRING_BYTES_MAX / 2 - 4] {
        let taken = subscribe(&mut client, "g", &nested(depth));
        let codes = [ErrorCode::None, ErrorCode::InvalidRegularExpression];
        assert!(codes.contains(&taken), "{depth}: {taken:?}");
    }
    for open in ["(", "[", "(?:", "a|(", "((a", "\\Q(", "[^"] {
        let endless = open.repeat(STRING_BYTES_MAX / open.len());
        subscribe(&mut client, "g", &endless);
    }
    assert_eq!(subscribe(&mut client, "g", "topic-a"), ErrorCode::None);
}

#[test]
fn no_string_of_a_request_has_a_mebibyte() {
    let subject = Subject::start();
    let mut client = subject.connect();
    find_coordinator(&mut client, "g");
    let mark = "m".repeat(100);
    let whole = frame(&joining_by("g", &mark), 1, 1);
    let at = whole
        .windows(100)
        .position(|window| window == mark.as_bytes());
    let at = at.expect("the expression");
    let long = vec![b'x'; 1 << 20];
    // A compact string says its length and one in an unsigned varint of one byte, here of three.
    let length = [0x81, 0x80, 0x40];
    let body = [&whole[4..at - 1], &length[..], &long, &whole[at + 100..]].concat();
    client.send_bytes(&framed(&body));
    client.expect_closed_after("an expression of 1 MiB");
    let mut client = subject.connect();
    assert_eq!(subscribe(&mut client, "g", "topic-a"), ErrorCode::None);
}
