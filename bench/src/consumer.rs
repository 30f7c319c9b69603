//! One fetching connection: the request in flight, the bytes of an incomplete reply, and the position in each of
//! its partitions.
//!
//! Keeps no record: batches are counted by their headers. Fetches without sessions, so that each request is
//! complete. Its buffer is reused for every reply.

use std::io::{self, ErrorKind, Write};
use std::net::{SocketAddr, TcpStream};

use bytes::Bytes;
use chronik_protocol::codec::Reader;
use chronik_protocol::messages::{FetchRequest, FetchResponse, ResponseHeader, fetch_request};
use chronik_protocol::record::{BATCH_HEADER_BYTES, BatchHeader, LOG_OVERHEAD_BYTES};
use chronik_protocol::{ApiKey, ErrorCode, Message, Str};
use rustix::buffer::spare_capacity;
use rustix::net::RecvFlags;

use crate::rpc::{encode, invalid};

/// The least room offered to the socket.
const ROOM_BYTES: usize = 64 * 1024;
/// Longest reply: the limit asked for, and one batch more.
const REPLY_BYTES_MAX: usize = 1 << 30;
/// Bytes of a whole reply, as Kafka's consumer asks (`fetch.max.bytes`).
const FETCH_BYTES_MAX: i32 = 50 << 20;
/// The longest wait of a fetch that finds nothing, as Kafka's consumer asks.
const WAIT_MS: i32 = 500;

/// The reading position in a partition.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Position {
    /// The partition.
    pub(crate) partition: i32,
    /// Offset of the next record wanted.
    pub(crate) offset: i64,
    /// The offset at which reading ends; `None` reads on to the end of the run.
    pub(crate) end: Option<i64>,
}

impl Position {
    fn is_at_end(&self) -> bool {
        self.end.is_some_and(|end| self.offset >= end)
    }
}

/// The fetch load of a run.
#[derive(Clone, Debug)]
pub(crate) struct Consumption {
    /// Connections; each reads its share of the partitions.
    pub(crate) connections: usize,
    /// The topic; it exists.
    pub(crate) topic: String,
    /// The start of each partition.
    pub(crate) positions: Vec<Position>,
    /// The version of the request, at most 12: later ones do not name the topic.
    pub(crate) version: i16,
    /// Most bytes of one partition in a reply.
    pub(crate) partition_bytes_max: i32,
    /// Bytes taken from each socket at every tick at most, as by a slow reader; `None` is unlimited.
    pub(crate) bytes_per_tick: Option<usize>,
}

/// A batch that arrived.
#[derive(Clone, Copy, Debug)]
pub(crate) struct FetchedBatch {
    /// The partition.
    pub(crate) partition: i32,
    /// Offset of the first record.
    pub(crate) base_offset: i64,
}

/// The content of one reply.
#[derive(Debug, Default)]
pub(crate) struct Fetched {
    /// When the request was sent, ns since the run started.
    pub(crate) sent_ns: u64,
    /// Bytes of its batches, headers included.
    pub(crate) bytes: u64,
    /// Records in them.
    pub(crate) records: u64,
    /// The batches.
    pub(crate) batches: Vec<FetchedBatch>,
}

/// One connection; see the module.
#[derive(Debug)]
pub(crate) struct Consumer {
    stream: TcpStream,
    topic: Str,
    version: i16,
    partition_bytes_max: i32,
    positions: Vec<Position>,
    correlation_id: i32,
    sent_ns: u64,
    /// The reply so far, its length in front.
    input: Vec<u8>,
}

impl Consumer {
    /// Connects; the first request is sent by [`Self::send`].
    ///
    /// # Errors
    /// The socket's.
    pub(crate) fn open(
        address: SocketAddr,
        consumption: &Consumption,
        positions: Vec<Position>,
    ) -> io::Result<Self> {
        // Stays blocking: requests are small and sent when the socket is empty, and reads use MSG_DONTWAIT.
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        Ok(Self {
            stream,
            topic: Str::from(consumption.topic.clone()),
            version: consumption.version,
            partition_bytes_max: consumption.partition_bytes_max,
            positions,
            correlation_id: 0,
            sent_ns: 0,
            input: Vec::with_capacity(ROOM_BYTES),
        })
    }

    /// The socket, for epoll.
    pub(crate) fn socket(&self) -> &TcpStream {
        &self.stream
    }

    /// True when everything asked for has been read.
    pub(crate) fn is_done(&self) -> bool {
        self.positions.iter().all(Position::is_at_end)
    }

    /// Sends the next fetch.
    ///
    /// # Errors
    /// The socket's.
    pub(crate) fn send(&mut self, now_ns: u64) -> io::Result<()> {
        let wanted = self
            .positions
            .iter()
            .filter(|position| !position.is_at_end());
        let partitions = wanted
            .map(|position| fetch_request::FetchPartition {
                partition: position.partition,
                fetch_offset: position.offset,
                partition_max_bytes: self.partition_bytes_max,
                ..Default::default()
            })
            .collect();
        let request = FetchRequest {
            max_wait_ms: WAIT_MS,
            min_bytes: 1,
            max_bytes: FETCH_BYTES_MAX,
            topics: vec![fetch_request::FetchTopic {
                topic: self.topic.clone(),
                partitions,
                ..Default::default()
            }],
            ..Default::default()
        };
        self.correlation_id = self.correlation_id.wrapping_add(1);
        self.sent_ns = now_ns;
        (&self.stream).write_all(&encode(&request, self.version, self.correlation_id)?)
    }

    /// Reads the bytes at hand, at most `bytes_max`; returns the reply when it is complete.
    ///
    /// # Errors
    /// The socket's, `UnexpectedEof` when the broker closed the connection, and `InvalidData` for a reply that is
    /// malformed or carries an error.
    pub(crate) fn receive(&mut self, bytes_max: usize) -> io::Result<Option<Fetched>> {
        let mut left = bytes_max;
        loop {
            if let Some(end) = self.reply_end()? {
                if self.input.len() >= end {
                    return self.take_reply(end).map(Some);
                }
                self.input.reserve(end - self.input.len());
            } else {
                self.input.reserve(ROOM_BYTES);
            }
            if left == 0 {
                return Ok(None);
            }
            match self.read(left) {
                Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                Ok(read) => left = left.saturating_sub(read),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(None),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    fn read(&mut self, bytes_max: usize) -> io::Result<usize> {
        let room = self.input.capacity() - self.input.len();
        if bytes_max < room {
            let filled = self.input.len();
            self.input.resize(filled + bytes_max, 0);
            let part = &mut self.input[filled..];
            let outcome = rustix::net::recv(&self.stream, part, RecvFlags::DONTWAIT);
            let read = outcome.as_ref().map_or(0, |(read, _)| *read);
            self.input.truncate(filled + read);
            return Ok(outcome?.0);
        }
        let spare = spare_capacity(&mut self.input);
        Ok(rustix::net::recv(&self.stream, spare, RecvFlags::DONTWAIT)?.0)
    }

    /// The end of the reply in the input, its length included; `None` before that is known.
    fn reply_end(&self) -> io::Result<Option<usize>> {
        let Some(length) = self.input.first_chunk::<4>() else {
            return Ok(None);
        };
        let length = u32::from_be_bytes(*length) as usize;
        if length > REPLY_BYTES_MAX {
            return Err(invalid(format!("a reply of {length} bytes")));
        }
        Ok(Some(4 + length))
    }

    fn take_reply(&mut self, end: usize) -> io::Result<Fetched> {
        if self.input.len() > end {
            return Err(invalid("more than the reply that was asked for"));
        }
        let frame = Bytes::from(std::mem::take(&mut self.input));
        let fetched = self.walk(&frame);
        // Nothing else refers to the reply, so this is the same memory.
        self.input = Vec::from(frame);
        self.input.clear();
        fetched
    }

    fn walk(&mut self, frame: &Bytes) -> io::Result<Fetched> {
        let mut reader = Reader::new(frame.slice(4..));
        let header_version = ApiKey::Fetch.response_header_version(self.version);
        let header = ResponseHeader::decode(&mut reader, header_version).map_err(invalid)?;
        if header.correlation_id != self.correlation_id {
            return Err(invalid("a reply to another request"));
        }
        let response = FetchResponse::decode(&mut reader, self.version).map_err(invalid)?;
        check(response.error_code)?;
        let mut fetched = Fetched {
            sent_ns: self.sent_ns,
            ..Fetched::default()
        };
        let partitions = response
            .responses
            .iter()
            .flat_map(|topic| &topic.partitions);
        for partition in partitions {
            check(partition.error_code)?;
            let Some(records) = &partition.records else {
                continue;
            };
            let index = partition.partition_index;
            let position = self
                .positions
                .iter_mut()
                .find(|position| position.partition == index)
                .ok_or_else(|| invalid("a partition nobody asked for"))?;
            for part in records.parts() {
                walk_batches(part, position, &mut fetched)?;
            }
        }
        // Partitions with records go to the end of the next request, as in Kafka's consumer: a broker fills replies in
        // the order of the request.
        if !fetched.batches.is_empty() {
            let served = |position: &Position| {
                fetched
                    .batches
                    .iter()
                    .any(|batch| batch.partition == position.partition)
            };
            self.positions.sort_by_cached_key(served);
        }
        Ok(fetched)
    }
}

fn check(code: i16) -> io::Result<()> {
    if code == 0 {
        return Ok(());
    }
    Err(invalid(format!("fetch: {:?}", ErrorCode::try_from(code))))
}

/// Counts the whole batches at the front of `bytes`; the last one may be incomplete.
fn walk_batches(bytes: &Bytes, position: &mut Position, fetched: &mut Fetched) -> io::Result<()> {
    let mut rest = bytes.as_ref();
    while rest.len() >= BATCH_HEADER_BYTES {
        let header = BatchHeader::peek(rest).map_err(invalid)?;
        let length = usize::try_from(header.batch_length).map_err(invalid)?;
        let Some(behind) = rest.get(LOG_OVERHEAD_BYTES + length..) else {
            break;
        };
        fetched.bytes += (rest.len() - behind.len()) as u64;
        fetched.records += u64::try_from(header.record_count).map_err(invalid)?;
        fetched.batches.push(FetchedBatch {
            partition: position.partition,
            base_offset: header.base_offset,
        });
        let next = header.base_offset + i64::from(header.last_offset_delta) + 1;
        position.offset = position.offset.max(next);
        rest = behind;
    }
    Ok(())
}
