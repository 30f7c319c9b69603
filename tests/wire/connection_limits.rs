//! Connection limits: they hold from the change on, some excess connections wait and others are closed, and a refused
//! address may come back.

use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use chronik_protocol::messages::ApiVersionsRequest;

use crate::configs::BROKER;
use crate::settings::{NODE, is_outside, set, shown};
use crate::subject::Subject;
use crate::support::client::{Client, frame};
use crate::support::{BrokerOptions, Scratch, measured};

/// Opens `count` connections one after the other and counts those that are answered.
fn answered(address: SocketAddr, count: usize) -> usize {
    let request = frame(&ApiVersionsRequest::default(), 0, 1);
    let mut open = Vec::new();
    let is_answered = |stream: &mut TcpStream| {
        stream
            .set_read_timeout(Some(Duration::from_secs(60)))
            .expect("a timeout");
        stream
            .write_all(&request)
            .and_then(|()| stream.read_exact(&mut [0; 8]))
            .is_ok()
    };
    for _ in 0..count {
        let mut stream = TcpStream::connect(address).expect("the backlog");
        if is_answered(&mut stream) {
            open.push(stream);
        }
    }
    open.len()
}

/// Expects `count` of nine connections to be answered, never more. Those of the time before leave their
/// places some time after they are closed, so there may be fewer at first.
fn assert_answered(address: SocketAddr, count: usize, name: &str) {
    for _ in 0..1_000 {
        let found = answered(address, 9);
        assert!(found <= count, "{name}: {found}");
        if found == count {
            return;
        }
    }
    panic!("{name}: never {count}");
}

#[test]
fn connection_limits_hold_from_the_change_on_and_after_a_restart() {
    if is_outside() {
        return;
    }
    let scratch = Scratch::new();
    let options = BrokerOptions::new(scratch.join("data"));
    let broker = options.start();
    let mut client = Client::connect(broker.address());
    for (name, value) in [
        ("max.connections.per.ip", "4"),
        (
            "max.connections.per.ip.overrides",
            "192.0.2.1:1,127.0.0.1:4",
        ),
    ] {
        for of in [NODE, ""] {
            assert_eq!(set(&mut client, of, name, Some(value)), Ok(()), "{name}");
            // This client's own is one of them.
            assert_answered(broker.address(), 3, name);
            assert_eq!(set(&mut client, of, name, None), Ok(()), "{name}");
            assert_answered(broker.address(), 9, name);
        }
    }
    assert_eq!(
        set(&mut client, "", "max.connections.per.ip", Some("5")),
        Ok(())
    );
    drop(client);
    broker.stop();
    let broker = options.start();
    assert_answered(broker.address(), 5, "after a restart");
    broker.stop();
}

/// Asks for the versions and does not wait for them.
fn asking(address: SocketAddr) -> TcpStream {
    let mut stream = TcpStream::connect(address).expect("the backlog");
    stream
        .set_read_timeout(Some(Duration::from_secs(60)))
        .expect("a timeout");
    let request = frame(&ApiVersionsRequest::default(), 0, 1);
    stream.write_all(&request).expect("the backlog");
    stream
}

fn is_answered(mut stream: &TcpStream) -> bool {
    stream.read_exact(&mut [0; 8]).is_ok()
}

#[test]
fn connections_beyond_the_number_wait_until_others_leave_or_it_grows() {
    if is_outside() {
        return;
    }
    let subject = Subject::start();
    let mut client = subject.connect();
    for name in ["max.connections", "listener.name.plaintext.max.connections"] {
        assert_eq!(set(&mut client, NODE, name, Some("4")), Ok(()), "{name}");
        // This client's own connection is one of four. Earlier ones may still be closing.
        let mut open: VecDeque<TcpStream> = (0..3).map(|_| asking(subject.address())).collect();
        assert!(open.iter().all(is_answered), "{name}");
        let mut waiting: VecDeque<TcpStream> = (0..5).map(|_| asking(subject.address())).collect();
        for _ in 0..20 {
            client.call(&ApiVersionsRequest::default(), 0);
        }
        for stream in &waiting {
            stream.set_nonblocking(true).expect("a mode");
            let mut answer: &TcpStream = stream;
            let told = answer.read(&mut [0; 1]).map_err(|error| error.kind());
            assert_eq!(told, Err(ErrorKind::WouldBlock), "{name}");
            stream.set_nonblocking(false).expect("a mode");
        }
        for _ in 0..3 {
            drop(open.pop_front());
            let next = waiting.pop_front().expect("one waits");
            assert!(is_answered(&next), "{name}: the first that waits");
            open.push_back(next);
        }
        assert_eq!(set(&mut client, NODE, name, None), Ok(()), "{name}");
        assert!(waiting.iter().all(is_answered), "{name}: no limit");
    }
}

#[test]
fn an_address_that_is_shut_out_has_a_way_back() {
    if is_outside() {
        return;
    }
    let scratch = Scratch::new();
    let options = BrokerOptions::new(scratch.join("data"));
    let broker = options.start();
    let mut client = Client::connect(broker.address());
    let name = "max.connections.per.ip.overrides";
    let nobody = Some("127.0.0.1:0");
    assert_eq!(set(&mut client, "", name, nobody), Ok(()), "as in Kafka");
    let is_shut_out = |address| !is_answered(&asking(address));
    assert!(is_shut_out(broker.address()));
    broker.wait_for_line("the way back: a number for the address");
    // Open connections stay open.
    client.call(&ApiVersionsRequest::default(), 0);
    drop(client);
    let way_back = |options: &BrokerOptions| {
        let broker = options.clone().set(name, "127.0.0.1:3").start();
        let mut client = Client::connect(broker.address());
        assert_answered(broker.address(), 2, "the file's number");
        (
            broker,
            client.call(&ApiVersionsRequest::default(), 0),
            client,
        )
    };
    broker.stop();
    let (broker, _, mut client) = way_back(&options);
    let (shown, ..) = shown(&mut client, BROKER, NODE, name);
    assert_eq!(shown.as_deref(), nobody, "what was set is still set");
    for of_each in [Some("0"), None] {
        let set = set(&mut client, "", "max.connections.per.ip", of_each);
        assert_eq!(set, Ok(()));
        assert_answered(broker.address(), 2, "the file's number");
    }
    assert_eq!(set(&mut client, "", name, None), Ok(()));
    broker.stop();
    let broker = options.start();
    assert_answered(broker.address(), 9, "no limit");
    broker.stop();
}

#[test]
fn connections_come_no_faster_than_their_rate() {
    if is_outside() {
        return;
    }
    let subject = Subject::start();
    let mut client = subject.connect();
    for name in [
        "max.connection.creation.rate",
        "listener.name.plaintext.max.connection.creation.rate",
    ] {
        assert_eq!(set(&mut client, NODE, name, Some("5")), Ok(()));
        let begun = Instant::now();
        assert_eq!(answered(subject.address(), 11), 11);
        // Five were saved up at most; the others came each a fifth of a second after the one before.
        measured::time_at_least("11 connections", begun.elapsed(), Duration::from_secs(1));
        assert_eq!(set(&mut client, NODE, name, None), Ok(()));
    }
}
