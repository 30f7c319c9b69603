//! One non-blocking connection of the load loop: queued requests, unanswered requests, and the bytes of an
//! incomplete reply.
//!
//! Never copies a frame: only its first bytes (length, key, version, correlation id) are made per request, the rest
//! is sent from the frame's own memory.

use std::collections::VecDeque;
use std::io::{self, ErrorKind, IoSlice, Read, Write};
use std::net::{SocketAddr, TcpStream};

use crate::frames::{Frame, PREFIX_BYTES};

/// Requests put into one system call.
const REQUESTS_PER_WRITE: usize = 64;
/// Bytes read from the socket at once; every produce reply is shorter.
const INPUT_BYTES: usize = 64 * 1024;

/// A reply (or, for acks=0, the end of sending), matched with its request.
#[derive(Debug)]
pub(crate) struct Completion {
    /// Index of the frame sent.
    pub(crate) frame: usize,
    /// When the request was due, ns since the run started.
    pub(crate) due_ns: u64,
    /// The partition's Kafka error code, 0 when there is none.
    pub(crate) error: i16,
    /// The offset of the batch's first record; `None` for acks=0.
    pub(crate) base_offset: Option<i64>,
}

#[derive(Debug)]
struct Outgoing {
    prefix: [u8; PREFIX_BYTES],
    frame: usize,
    due_ns: u64,
    sent: usize,
}

#[derive(Debug)]
struct Awaited {
    frame: usize,
    due_ns: u64,
    correlation_id: i32,
}

/// One connection; see the module.
#[derive(Debug)]
pub(crate) struct Connection {
    stream: TcpStream,
    outgoing: VecDeque<Outgoing>,
    awaited: VecDeque<Awaited>,
    /// The first `filled` bytes are incomplete replies.
    input: Box<[u8]>,
    filled: usize,
    next_correlation_id: i32,
    blocked: bool,
}

impl Connection {
    /// Connects, with TCP_NODELAY.
    ///
    /// # Errors
    /// The socket's.
    pub(crate) fn open(address: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        stream.set_nonblocking(true)?;
        Ok(Self {
            stream,
            outgoing: VecDeque::new(),
            awaited: VecDeque::new(),
            input: vec![0; INPUT_BYTES].into_boxed_slice(),
            filled: 0,
            next_correlation_id: 0,
            blocked: false,
        })
    }

    /// The socket, for epoll.
    pub(crate) fn socket(&self) -> &TcpStream {
        &self.stream
    }

    /// Requests queued, or sent and not yet answered.
    pub(crate) fn unanswered(&self) -> usize {
        self.awaited.len().max(self.outgoing.len())
    }

    /// True while bytes wait for the socket.
    pub(crate) fn is_blocked(&self) -> bool {
        self.blocked
    }

    /// Queues `frame` (an index into the frames of the run).
    pub(crate) fn enqueue(&mut self, frame: usize, due_ns: u64, frames: &[Frame]) {
        let correlation_id = self.next_correlation_id;
        self.next_correlation_id = correlation_id.wrapping_add(1);
        let prefix = frames[frame].prefix(correlation_id);
        self.outgoing.push_back(Outgoing {
            prefix,
            frame,
            due_ns,
            sent: 0,
        });
        if frames[frame].is_answered() {
            self.awaited.push_back(Awaited {
                frame,
                due_ns,
                correlation_id,
            });
        }
    }

    /// Sends as much as the socket takes and appends the requests without reply to `completions`; true when
    /// [`Self::is_blocked`] changed.
    ///
    /// # Errors
    /// The socket's.
    pub(crate) fn flush(
        &mut self,
        frames: &[Frame],
        completions: &mut Vec<Completion>,
    ) -> io::Result<bool> {
        let was_blocked = self.blocked;
        self.blocked = false;
        while !self.outgoing.is_empty() {
            let mut slices = Vec::with_capacity(2 * REQUESTS_PER_WRITE);
            for outgoing in self.outgoing.iter().take(REQUESTS_PER_WRITE) {
                let rest = frames[outgoing.frame].rest();
                let prefix_sent = outgoing.sent.min(PREFIX_BYTES);
                slices.push(IoSlice::new(&outgoing.prefix[prefix_sent..]));
                slices.push(IoSlice::new(&rest[outgoing.sent - prefix_sent..]));
            }
            match self.stream.write_vectored(&slices) {
                Ok(sent) => self.advance(sent, frames, completions),
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    self.blocked = true;
                    break;
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(self.blocked != was_blocked)
    }

    fn advance(&mut self, mut sent: usize, frames: &[Frame], completions: &mut Vec<Completion>) {
        while let Some(first) = self.outgoing.front_mut() {
            let left = PREFIX_BYTES + frames[first.frame].rest().len() - first.sent;
            if sent < left {
                first.sent += sent;
                return;
            }
            sent -= left;
            if !frames[first.frame].is_answered() {
                completions.push(Completion {
                    frame: first.frame,
                    due_ns: first.due_ns,
                    error: 0,
                    base_offset: None,
                });
            }
            self.outgoing.pop_front();
        }
    }

    /// Reads the bytes at hand and appends the requests they answer to `completions`.
    ///
    /// # Errors
    /// The socket's, `UnexpectedEof` when the broker closed the connection, and `InvalidData` for a reply out of order.
    pub(crate) fn receive(
        &mut self,
        frames: &[Frame],
        completions: &mut Vec<Completion>,
    ) -> io::Result<()> {
        match self.stream.read(&mut self.input[self.filled..]) {
            Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
            Ok(read) => self.filled += read,
            Err(error)
                if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
            Err(error) => return Err(error),
        }
        let mut taken = 0;
        while let Some((length, rest)) = self.input[taken..self.filled].split_first_chunk::<4>() {
            let length = u32::from_be_bytes(*length) as usize;
            let Some(reply) = rest.get(..length) else {
                break;
            };
            let invalid = || io::Error::new(ErrorKind::InvalidData, "a reply nobody waits for");
            let awaited = self.awaited.pop_front().ok_or_else(invalid)?;
            if !reply.starts_with(&awaited.correlation_id.to_be_bytes()) {
                return Err(invalid());
            }
            let (error, base_offset) =
                frames[awaited.frame].result_in(reply).ok_or_else(invalid)?;
            completions.push(Completion {
                frame: awaited.frame,
                due_ns: awaited.due_ns,
                error,
                base_offset: Some(base_offset),
            });
            taken += 4 + length;
        }
        self.input.copy_within(taken..self.filled, 0);
        self.filled -= taken;
        Ok(())
    }
}
