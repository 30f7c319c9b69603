//! A consumer that reads on through all crashes and keeps every record it was ever given.

use std::io;
use std::net::SocketAddr;
use std::sync::Mutex;

use chronik_protocol::ErrorCode;

use crate::TOPIC;
use crate::gate::Gate;
use crate::producer::Mark;
use crate::support::batch::ReadBatch;
use crate::support::calls::{FETCH_BY_NAME, code, fetch_request, fetched_bytes};
use crate::support::client::Client;

/// What a partition held when it was read, by offset: a log begins at 0 here and has no holes.
pub(crate) type Log = Vec<Mark>;

/// Follows one partition; [`Consumer::run`] is its thread.
#[derive(Debug)]
pub(crate) struct Consumer<'a> {
    partition: i32,
    address: SocketAddr,
    gate: &'a Gate,
    consumed: &'a Mutex<Log>,
}

impl<'a> Consumer<'a> {
    pub(crate) fn new(
        partition: i32,
        address: SocketAddr,
        gate: &'a Gate,
        consumed: &'a Mutex<Log>,
    ) -> Self {
        Self {
            partition,
            address,
            gate,
            consumed,
        }
    }

    /// Reads until the gate says that it is over.
    pub(crate) fn run(&self) {
        let mut seen = 0;
        while let Some(time) = self.gate.wait(seen) {
            seen = time;
            match self.use_connection() {
                Ok(()) => return,
                Err(error) => assert!(
                    error.kind() != io::ErrorKind::InvalidData,
                    "consumer of {}: {error}",
                    self.partition
                ),
            }
        }
    }

    fn use_connection(&self) -> io::Result<()> {
        let mut client = Client::try_connect(self.address)?;
        while !self.gate.is_over() {
            let offset = self
                .consumed
                .lock()
                .expect("nobody panics with the lock")
                .len() as i64;
            let mut request = fetch_request(TOPIC, self.partition, offset);
            request.max_wait_ms = 200;
            let response = client.try_call(&request, FETCH_BY_NAME)?;
            let answer = &response.responses[0].partitions[0];
            match code(answer.error_code) {
                ErrorCode::None => {}
                error if error.is_retriable() => return Err(io::Error::other(error.name())),
                error => panic!("partition {} at {offset}: {error:?}", self.partition),
            }
            let mut consumed = self.consumed.lock().expect("nobody panics with the lock");
            extend(&mut consumed, &ReadBatch::all(&fetched_bytes(answer)));
        }
        Ok(())
    }
}

/// Appends the records of `batches` that `log` lacks.
///
/// # Panics
/// When an offset is left out.
pub(crate) fn extend(log: &mut Log, batches: &[ReadBatch]) {
    for (offset, value) in batches.iter().flat_map(ReadBatch::values) {
        let next = log.len() as i64;
        assert!(offset <= next, "offset {offset} comes after {}", next - 1);
        if offset == next {
            log.push(Mark::parse(&value));
        }
    }
}
