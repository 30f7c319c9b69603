//! An idempotent producer like a real one: five batches in flight per partition, and after a lost connection the same
//! batches again, with the same sequences, in the same order.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::sync::Mutex;

use chronik_protocol::ErrorCode;
use chronik_protocol::messages::ProduceRequest;

use crate::gate::Gate;
use crate::support::batch::TestBatch;
use crate::support::calls::{
    PRODUCE_BY_NAME, code, only_partition, produce_request, try_init_producer,
};
use crate::support::client::Client;
use crate::{PARTITIONS, TOPIC};

const IN_FLIGHT_PER_PARTITION: usize = 5;
const RECORDS_PER_BATCH: i32 = 3;

/// A record the broker has acknowledged, and where it said it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Acknowledged {
    pub(crate) partition: i32,
    pub(crate) offset: i64,
    pub(crate) mark: Mark,
}

/// What a record holds: who wrote it, and as which of its records in this partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Mark {
    pub(crate) producer: usize,
    pub(crate) number: i32,
}

impl Mark {
    fn value(self) -> String {
        format!("{} {}", self.producer, self.number)
    }

    pub(crate) fn parse(value: &[u8]) -> Self {
        let text = std::str::from_utf8(value).expect("what a producer wrote");
        let (producer, number) = text.split_once(' ').expect("two numbers");
        let number_of = |text: &str| text.parse().expect("a number");
        Self {
            producer: number_of(producer) as usize,
            number: number_of(number),
        }
    }
}

#[derive(Debug, Default)]
struct Lane {
    /// The next record's number, which is also its sequence.
    next: i32,
    /// First sequences of the batches that were sent (or must be sent again), oldest first.
    in_flight: VecDeque<i32>,
}

/// One producer; [`Producer::run`] is its thread.
#[derive(Debug)]
pub(crate) struct Producer<'a> {
    number: usize,
    acks: i16,
    address: SocketAddr,
    gate: &'a Gate,
    acknowledged: &'a Mutex<Vec<Acknowledged>>,
}

impl<'a> Producer<'a> {
    pub(crate) fn new(
        (number, acks): (usize, i16),
        address: SocketAddr,
        gate: &'a Gate,
        acknowledged: &'a Mutex<Vec<Acknowledged>>,
    ) -> Self {
        Self {
            number,
            acks,
            address,
            gate,
            acknowledged,
        }
    }

    /// Writes until the gate says that it is over and everything is acknowledged; returns how many
    /// batches were left when there was no broker any more.
    pub(crate) fn run(&self) -> usize {
        let mut lanes: [Lane; PARTITIONS as usize] = Default::default();
        let mut producer_id = None;
        let mut seen = 0;
        while let Some(time) = self.gate.wait(seen) {
            seen = time;
            match self.use_connection(&mut producer_id, &mut lanes) {
                // Only the end of the run ends a connection without an error.
                Ok(()) => return 0,
                Err(error) => assert!(
                    error.kind() != io::ErrorKind::InvalidData,
                    "producer {}: {error}",
                    self.number
                ),
            }
        }
        lanes.iter().map(|lane| lane.in_flight.len()).sum()
    }

    fn use_connection(&self, id: &mut Option<i64>, lanes: &mut [Lane]) -> io::Result<()> {
        let mut client = Client::try_connect(self.address)?;
        let id = match *id {
            Some(id) => id,
            None => {
                let response = try_init_producer(&mut client)?;
                assert_eq!(code(response.error_code), ErrorCode::None);
                *id.insert(response.producer_id)
            }
        };
        let mut sent = VecDeque::new();
        for (partition, lane) in (0..).zip(&*lanes) {
            for &sequence in &lane.in_flight {
                sent.push_back((self.send(&mut client, id, partition, sequence)?, partition));
            }
        }
        loop {
            let over = self.gate.is_over();
            for (partition, lane) in (0..).zip(&mut *lanes) {
                while !over && lane.in_flight.len() < IN_FLIGHT_PER_PARTITION {
                    let sequence = lane.next;
                    lane.next += RECORDS_PER_BATCH;
                    lane.in_flight.push_back(sequence);
                    sent.push_back((self.send(&mut client, id, partition, sequence)?, partition));
                }
            }
            let Some((correlation_id, partition)) = sent.pop_front() else {
                return Ok(());
            };
            let response = client.try_receive::<ProduceRequest>(correlation_id, PRODUCE_BY_NAME)?;
            let answer = only_partition(response);
            match code(answer.error_code) {
                ErrorCode::None => {}
                // A broker that is stopping may say so; a real producer tries again elsewhere.
                error if error.is_retriable() => return Err(io::Error::other(error.name())),
                error => panic!(
                    "producer {} in partition {partition}: {error:?} {:?}",
                    self.number, answer.error_message
                ),
            }
            let lane = &mut lanes[partition as usize];
            let sequence = lane.in_flight.pop_front().expect("a batch was in flight");
            self.note(partition, sequence, answer.base_offset);
        }
    }

    fn send(&self, client: &mut Client, id: i64, partition: i32, first: i32) -> io::Result<i32> {
        let marks = (first..first + RECORDS_PER_BATCH).map(|number| self.mark(number).value());
        let batch = TestBatch::of_values(marks).by_producer(id, 0, first);
        let request = produce_request(TOPIC, partition, self.acks, batch.encode());
        client.try_send(&request, PRODUCE_BY_NAME)
    }

    fn mark(&self, number: i32) -> Mark {
        Mark {
            producer: self.number,
            number,
        }
    }

    fn note(&self, partition: i32, sequence: i32, base_offset: i64) {
        assert!(base_offset >= 0, "an acknowledged batch has an offset");
        let records = (0..RECORDS_PER_BATCH).map(|delta| Acknowledged {
            partition,
            offset: base_offset + i64::from(delta),
            mark: self.mark(sequence + delta),
        });
        self.acknowledged
            .lock()
            .expect("nobody panics with the lock")
            .extend(records);
    }
}
