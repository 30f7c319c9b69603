//! A simulated connection: two streams joined in memory, with short reads, delays and resets.
//!
//! Owns the bytes in flight in both directions. Runs on the simulation's thread; sizes and delays come from its
//! seed. Never loses or reorders a byte of a connection that is not reset.

use super::SimulatedWorld;
use crate::net::{Standing, Stream};
use crate::world::World;
use bytes::{BufMut, Bytes, BytesMut};
use std::cell::RefCell;
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::task::{Poll, Waker};

/// Bytes one direction holds before its writer waits: a small socket buffer.
const BUFFER_BYTES_MAX: usize = 64 * 1024;

#[derive(Default)]
struct Direction {
    data: BytesMut,
    /// The writing side has ended.
    ended: bool,
    reset: bool,
    reader: Option<Waker>,
    writer: Option<Waker>,
}

impl Direction {
    fn wake(&mut self) {
        for waker in [self.reader.take(), self.writer.take()]
            .into_iter()
            .flatten()
        {
            waker.wake();
        }
    }
}

/// One end of a [`pipe`].
pub struct SimulatedStream {
    world: SimulatedWorld,
    incoming: Rc<RefCell<Direction>>,
    outgoing: Rc<RefCell<Direction>>,
    local: SocketAddr,
    peer: SocketAddr,
}

/// A connection inside a simulation: each end reads the other's bytes.
#[must_use]
pub fn pipe(world: &SimulatedWorld) -> (SimulatedStream, SimulatedStream) {
    let there = Rc::new(RefCell::new(Direction::default()));
    let back = Rc::new(RefCell::new(Direction::default()));
    let port = 1024 + u16::try_from(world.random_u64() % 60_000).unwrap_or(0);
    let client = SocketAddr::from(([10, 0, 0, 1], port));
    let server = SocketAddr::from(([10, 0, 0, 2], 9092));
    let end = |incoming: &Rc<_>, outgoing: &Rc<_>, local, peer| SimulatedStream {
        world: world.clone(),
        incoming: Rc::clone(incoming),
        outgoing: Rc::clone(outgoing),
        local,
        peer,
    };
    (
        end(&back, &there, client, server),
        end(&there, &back, server, client),
    )
}

impl SimulatedStream {
    /// Breaks the connection: both ends get `ConnectionReset`, and bytes in flight are lost.
    pub fn reset(&self) {
        for direction in [&self.incoming, &self.outgoing] {
            let mut direction = direction.borrow_mut();
            direction.reset = true;
            direction.data.clear();
            direction.wake();
        }
    }

    /// Lays bytes into the socket of the other end at once, as a delivery between two steps of its reader does.
    pub fn put_now(&self, bytes: &[u8]) {
        let mut direction = self.outgoing.borrow_mut();
        direction.data.extend_from_slice(bytes);
        direction.wake();
    }

    async fn delay(&self) {
        let wait_ns = self.world.random_u64() % 100_000;
        self.world
            .sleep_until(self.world.monotonic_ns() + wait_ns)
            .await;
    }

    async fn write_some(&self, bytes: &[u8]) -> io::Result<usize> {
        poll_fn(|context| {
            let mut direction = self.outgoing.borrow_mut();
            if direction.reset {
                return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
            }
            if direction.ended {
                return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
            }
            let free = BUFFER_BYTES_MAX - direction.data.len();
            if free == 0 {
                direction.writer = Some(context.waker().clone());
                return Poll::Pending;
            }
            let count = bytes.len().min(free);
            direction.data.extend_from_slice(&bytes[..count]);
            if let Some(waker) = direction.reader.take() {
                waker.wake();
            }
            Poll::Ready(Ok(count))
        })
        .await
    }
}

impl Stream for SimulatedStream {
    fn peer(&self) -> SocketAddr {
        self.peer
    }

    fn local(&self) -> SocketAddr {
        self.local
    }

    async fn read_into(&self, buffer: &mut BytesMut) -> io::Result<usize> {
        if buffer.capacity() == buffer.len() {
            buffer.reserve(4096);
        }
        poll_fn(|context| {
            let mut direction = self.incoming.borrow_mut();
            if direction.reset {
                return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
            }
            if direction.data.is_empty() {
                if direction.ended {
                    return Poll::Ready(Ok(0));
                }
                direction.reader = Some(context.waker().clone());
                return Poll::Pending;
            }
            let most = direction.data.len().min(buffer.capacity() - buffer.len());
            // Half of all reads are short.
            let draw = self.world.random_u64();
            let count = if draw & 1 == 0 {
                most
            } else {
                1 + (draw >> 1) as usize % most
            };
            buffer.put(direction.data.split_to(count));
            if let Some(waker) = direction.writer.take() {
                waker.wake();
            }
            Poll::Ready(Ok(count))
        })
        .await
    }

    async fn write_noting(&self, parts: Vec<Bytes>, mut note: impl FnMut(usize)) -> io::Result<()> {
        for part in parts {
            let mut rest = &part[..];
            while !rest.is_empty() {
                self.delay().await;
                let piece = 1 + self.world.random_u64() as usize % rest.len();
                let count = self.write_some(&rest[..piece]).await?;
                note(count);
                rest = &rest[count..];
            }
        }
        Ok(())
    }

    fn standing(&self) -> Standing {
        let (incoming, outgoing) = (self.incoming.borrow(), self.outgoing.borrow());
        Standing {
            unread_bytes: incoming.data.len(),
            is_writable: outgoing.data.len() < BUFFER_BYTES_MAX,
            has_left: incoming.ended || incoming.reset,
        }
    }

    async fn shutdown(&self) -> io::Result<()> {
        for direction in [&self.incoming, &self.outgoing] {
            let mut direction = direction.borrow_mut();
            direction.ended = true;
            direction.wake();
        }
        Ok(())
    }
}

impl Drop for SimulatedStream {
    fn drop(&mut self) {
        for direction in [&self.incoming, &self.outgoing] {
            let mut direction = direction.borrow_mut();
            direction.ended = true;
            direction.wake();
        }
    }
}
