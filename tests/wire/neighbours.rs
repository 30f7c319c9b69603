//! One well-behaved connection beside others that are not: they change neither its answers nor the broker's memory.

use std::io::Write;
use std::time::Duration;

use chronik_protocol::ErrorCode;

use crate::subject::Subject;
use crate::support::batch::TestBatch;
use crate::support::calls::{
    FETCH_BY_NAME, code, fetch_request, fetched_bytes, produce, read_values,
};
use crate::support::client::{Client, frame};
use crate::support::{measured, skip};

/// How much a broker may grow while a test mistreats it: far below what the bad input asks for, far
/// above what buffers and caches of a few connections need.
const GROWTH_BYTES_MAX: u64 = 96 << 20;

/// A well-behaved client on a topic of its own.
#[derive(Debug)]
pub(crate) struct Neighbour<'a> {
    subject: &'a Subject,
    client: Client,
    topic: String,
    written: Vec<(i64, Vec<u8>)>,
    resident_bytes: Option<u64>,
}

impl<'a> Neighbour<'a> {
    pub(crate) fn of(subject: &'a Subject) -> Self {
        let topic = subject.topic(1);
        let client = subject.connect();
        let mut neighbour = Self {
            subject,
            client,
            topic,
            written: Vec::new(),
            resident_bytes: None,
        };
        neighbour.works_after("nothing");
        neighbour.resident_bytes = subject.resident_bytes();
        neighbour
    }

    /// Writes one record and reads it back, on the connection it has had from the start.
    pub(crate) fn works_after(&mut self, case: &str) {
        let value = format!("after {case}").into_bytes();
        let batch = TestBatch::of_values([value.clone()]).encode();
        let answer = produce(&mut self.client, &self.topic, 0, batch);
        let offset = self.written.len() as i64;
        assert_eq!(
            (code(answer.error_code), answer.base_offset),
            (ErrorCode::None, offset),
            "{case}"
        );
        self.written.push((offset, value));
        let read = read_values(&mut self.client, &self.topic, 0, offset);
        assert_eq!(read, self.written[self.written.len() - 1..], "{case}");
    }

    /// The broker has not grown beyond what its own buffers and caches explain.
    pub(crate) fn memory_is_bounded(&mut self) {
        let all = read_values(&mut self.client, &self.topic, 0, 0);
        assert_eq!(all, self.written);
        let (Some(before), Some(now)) = (self.resident_bytes, self.subject.resident_bytes()) else {
            return;
        };
        let grown = now.saturating_sub(before);
        measured::memory_within("the broker's growth", grown, GROWTH_BYTES_MAX);
    }
}

#[test]
fn a_huge_frame_that_never_comes_takes_no_memory() {
    let subject = Subject::start_with(&[("socket.request.max.bytes", "1073741824")]);
    if subject.is_outside() {
        skip("Kafka allocates what the length claims");
        return;
    }
    let mut neighbour = Neighbour::of(&subject);
    let half_open: Vec<Client> = (0..8)
        .map(|_| {
            let mut client = subject.connect();
            client.send_bytes(&(1_i32 << 30).to_be_bytes());
            client.send_bytes(&[0; 512 * 1024]);
            client
        })
        .collect();
    for round in 0..20 {
        neighbour.works_after(&format!("half-open frames, round {round}"));
    }
    neighbour.memory_is_bounded();
    drop(half_open);
    neighbour.works_after("half-open frames that were given up");
}

#[test]
fn a_reader_that_does_not_read_delays_nobody_and_takes_no_memory() {
    let subject = Subject::start();
    let mut neighbour = Neighbour::of(&subject);
    let topic = subject.topic(1);
    let mut writer = subject.connect();
    let value = vec![b'x'; 900_000];
    for _ in 0..8 {
        let batch = TestBatch::of_values([value.clone()]).encode();
        assert_eq!(
            code(produce(&mut writer, &topic, 0, batch).error_code),
            ErrorCode::None
        );
    }
    // 400 replies of 7 MB, on each of three connections that never read.
    let request = frame(&fetch_request(&topic, 0, 0), FETCH_BY_NAME, 1);
    let slow: Vec<Client> = (0..3)
        .map(|_| {
            let client = subject.connect();
            let timeout = Some(Duration::from_millis(300));
            client
                .stream()
                .set_write_timeout(timeout)
                .expect("a socket takes a timeout");
            for _ in 0..400 {
                // The broker stops reading at some point: that is what must happen.
                if client.stream().write_all(&request).is_err() {
                    break;
                }
            }
            client
        })
        .collect();
    for round in 0..20 {
        neighbour.works_after(&format!("slow readers, round {round}"));
    }
    neighbour.memory_is_bounded();
    drop(slow);
    neighbour.works_after("slow readers that went away");
}

#[test]
fn a_slow_reader_gets_everything_once_it_reads() {
    let subject = Subject::start();
    let topic = subject.topic(1);
    let mut client = subject.connect();
    let values: Vec<Vec<u8>> = (0..4_u8).map(|number| vec![number; 900_000]).collect();
    for value in &values {
        let batch = TestBatch::of_values([value.clone()]).encode();
        assert_eq!(
            code(produce(&mut client, &topic, 0, batch).error_code),
            ErrorCode::None
        );
    }
    let request = fetch_request(&topic, 0, 0);
    let sent: Vec<i32> = (0..50)
        .map(|_| client.send(&request, FETCH_BY_NAME))
        .collect();
    for correlation_id in sent {
        let response = client
            .receive::<chronik_protocol::messages::FetchRequest>(correlation_id, FETCH_BY_NAME);
        let bytes = fetched_bytes(&response.responses[0].partitions[0]);
        assert!(
            bytes.len() > 4 * 900_000,
            "reply {correlation_id} has {} bytes",
            bytes.len()
        );
    }
}
