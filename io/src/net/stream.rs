//! `DirectStream`: a TCP connection on its shard.
//!
//! Owns the socket. glommio supplies the waiting; the bytes move by plain `recv` and `sendmsg`, because its own
//! calls read into initialised memory only and send the first of several parts. A request that arrives whole
//! costs one `recv`, a reply one `sendmsg`.

use super::place::ConnectionPlace;
use super::{Standing, Stream};
use crate::direct::DirectWorld;
use bytes::{Buf, BufMut, Bytes, BytesMut};
use futures_io::{AsyncRead, AsyncWrite};
use glommio::net::TcpStream;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::{Errno, ioctl_fionread};
use rustix::net::{RecvFlags, SendAncillaryBuffer, SendFlags};
use std::cell::RefCell;
use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, IntoRawFd};
use std::pin::Pin;

/// Spare capacity for reads through glommio, which requires zeroed memory: enough for most requests, little
/// enough to zero for each. With more spare capacity `recv` is tried first.
const SMALL_READ_BYTES: usize = 4096;

/// Spare capacity from which a read in the middle of a large frame probably finds bytes waiting.
const LARGE_READ_BYTES: usize = 16 * 1024;

/// Parts up to this size are joined with their neighbours: a vector entry costs more than the copy.
const JOIN_BYTES_MAX: usize = 4096;

/// Size up to which joined parts grow.
const JOINED_BYTES_MAX: usize = 64 * 1024;

/// Most parts the kernel takes at once (`IOV_MAX`).
const PARTS_MAX: usize = 1024;

/// A connection accepted by [`super::Listener`] or made by [`DirectStream::connect`].
pub struct DirectStream {
    /// Borrowed only inside a poll, so that a reader and a writer can share the stream.
    stream: RefCell<TcpStream>,
    peer: SocketAddr,
    local: SocketAddr,
    _place: Option<ConnectionPlace>,
}

impl DirectStream {
    pub(super) fn new(
        _world: &DirectWorld,
        socket: std::net::TcpStream,
        peer: SocketAddr,
        local: SocketAddr,
        place: Option<ConnectionPlace>,
    ) -> DirectStream {
        // SAFETY: the descriptor was just given up by `socket`, so the stream is its only owner.
        let stream = unsafe { TcpStream::from_raw_fd(socket.into_raw_fd()) };
        DirectStream {
            stream: RefCell::new(stream),
            peer,
            local,
            _place: place,
        }
    }

    /// Connects to `peer`.
    ///
    /// # Errors
    /// Those of `connect(2)`.
    pub async fn connect(_world: &DirectWorld, peer: SocketAddr) -> io::Result<DirectStream> {
        let stream = TcpStream::connect(peer).await.map_err(io::Error::from)?;
        stream.set_nodelay(true).map_err(io::Error::from)?;
        let local = stream.local_addr().map_err(io::Error::from)?;
        Ok(DirectStream {
            stream: RefCell::new(stream),
            peer,
            local,
            _place: None,
        })
    }

    fn with_descriptor<T>(&self, call: impl FnOnce(BorrowedFd<'_>) -> T) -> T {
        let stream = self.stream.borrow();
        // SAFETY: the descriptor is open as long as `stream`, which outlives the call.
        call(unsafe { BorrowedFd::borrow_raw(stream.as_raw_fd()) })
    }

    /// Receives the bytes at hand, without waiting; `None` without any.
    fn receive_now(&self, buffer: &mut BytesMut) -> io::Result<Option<usize>> {
        let received = self.with_descriptor(|descriptor| {
            let spare = buffer.spare_capacity_mut();
            let (filled, _) = rustix::net::recv(descriptor, spare, RecvFlags::DONTWAIT)?;
            Ok(filled.0.len())
        });
        match received {
            Ok(count) => {
                // SAFETY: `recv` has initialised the first `count` bytes of the spare capacity.
                unsafe { buffer.advance_mut(count) };
                Ok(Some(count))
            }
            Err(Errno::AGAIN | Errno::INTR) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Sends as much of the first parts as the socket takes now; `None` if it takes nothing.
    fn send_now(&self, parts: &[Bytes]) -> io::Result<Option<usize>> {
        let mut slices = [IoSlice::new(&[]); 16];
        let heap: Vec<IoSlice<'_>>;
        let count = parts.len().min(PARTS_MAX);
        let vector = if count <= slices.len() {
            for (slice, part) in slices.iter_mut().zip(parts) {
                *slice = IoSlice::new(part);
            }
            &slices[..count]
        } else {
            heap = parts[..count]
                .iter()
                .map(|part| IoSlice::new(part))
                .collect();
            &heap[..]
        };
        let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
        let sent = self.with_descriptor(|descriptor| {
            let mut nothing = SendAncillaryBuffer::default();
            rustix::net::sendmsg(descriptor, vector, &mut nothing, flags)
        });
        match sent {
            Ok(count) => Ok(Some(count)),
            Err(Errno::AGAIN | Errno::INTR) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
}

impl Drop for DirectStream {
    /// glommio closes the socket with its next pass through the kernel, on a busy shard much later; the shutdown tells
    /// the peer now.
    fn drop(&mut self) {
        // Fails only on an ended connection.
        let _ = self.with_descriptor(|descriptor| {
            rustix::net::shutdown(descriptor, rustix::net::Shutdown::Both)
        });
    }
}

/// Joins small neighbours and drops empty parts.
fn join_small(parts: Vec<Bytes>) -> Vec<Bytes> {
    let small = |part: &Bytes| part.len() <= JOIN_BYTES_MAX;
    if parts
        .windows(2)
        .all(|pair| !small(&pair[0]) || !small(&pair[1]))
        && parts.iter().all(|part| !part.is_empty())
    {
        return parts;
    }
    let mut joined = Vec::with_capacity(parts.len());
    let mut run = BytesMut::new();
    for part in parts {
        if !small(&part) || run.len() + part.len() > JOINED_BYTES_MAX {
            if !run.is_empty() {
                joined.push(run.split().freeze());
            }
            if !small(&part) {
                joined.push(part);
                continue;
            }
        }
        run.extend_from_slice(&part);
    }
    if !run.is_empty() {
        joined.push(run.freeze());
    }
    joined
}

/// Cuts `count` sent bytes off the front; `sent` counts the parts sent whole.
fn advance(parts: &mut [Bytes], sent: &mut usize, mut count: usize) {
    while let Some(part) = parts.get_mut(*sent) {
        if part.len() > count {
            part.advance(count);
            return;
        }
        count -= part.len();
        *sent += 1;
    }
}

impl Stream for DirectStream {
    fn peer(&self) -> SocketAddr {
        self.peer
    }

    fn local(&self) -> SocketAddr {
        self.local
    }

    async fn read_into(&self, buffer: &mut BytesMut) -> io::Result<usize> {
        if buffer.capacity() == buffer.len() {
            buffer.reserve(SMALL_READ_BYTES);
        }
        if buffer.capacity() - buffer.len() >= LARGE_READ_BYTES
            && let Some(count) = self.receive_now(buffer)?
        {
            return Ok(count);
        }
        let start = buffer.len();
        let zeroed = (buffer.capacity() - start).min(SMALL_READ_BYTES);
        // Truncated on every way out, dropping the future included.
        let mut read = Zeroed { buffer, len: start };
        read.buffer.resize(start + zeroed, 0);
        let count = poll_fn(|context| {
            let target = &mut read.buffer[start..];
            Pin::new(&mut *self.stream.borrow_mut()).poll_read(context, target)
        })
        .await?;
        read.len = start + count;
        Ok(count)
    }

    async fn write_noting(&self, parts: Vec<Bytes>, mut note: impl FnMut(usize)) -> io::Result<()> {
        let mut parts = join_small(parts);
        let mut sent = 0;
        while sent < parts.len() {
            let count = match self.send_now(&parts[sent..])? {
                Some(count) => count,
                None => {
                    poll_fn(|context| {
                        let mut stream = self.stream.borrow_mut();
                        Pin::new(&mut *stream).poll_write(context, &parts[sent])
                    })
                    .await?
                }
            };
            if count == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
            note(count);
            advance(&mut parts, &mut sent, count);
        }
        Ok(())
    }

    fn standing(&self) -> Standing {
        self.with_descriptor(|descriptor| {
            let left = PollFlags::RDHUP | PollFlags::HUP | PollFlags::ERR;
            let mut polled = [PollFd::new(&descriptor, PollFlags::OUT | PollFlags::RDHUP)];
            // A signal may keep the answer back: nothing is known then, and somebody asks again.
            let found = match poll(&mut polled, Some(&Timespec::default())) {
                Ok(_) => polled[0].revents(),
                Err(_) => PollFlags::empty(),
            };
            let unread = ioctl_fionread(descriptor).unwrap_or(0);
            Standing {
                unread_bytes: usize::try_from(unread).unwrap_or(usize::MAX),
                is_writable: found.contains(PollFlags::OUT),
                has_left: found.intersects(left),
            }
        })
    }

    async fn shutdown(&self) -> io::Result<()> {
        let ended = self.with_descriptor(|descriptor| {
            rustix::net::shutdown(descriptor, rustix::net::Shutdown::Both)
        });
        match ended {
            // The peer was first.
            Err(Errno::NOTCONN) => Ok(()),
            ended => Ok(ended?),
        }
    }
}

/// A buffer extended by zeros for a read, truncated to the bytes read when dropped.
struct Zeroed<'a> {
    buffer: &'a mut BytesMut,
    len: usize,
}

impl Drop for Zeroed<'_> {
    fn drop(&mut self) {
        self.buffer.truncate(self.len);
    }
}

#[cfg(test)]
mod tests {
    use super::{JOIN_BYTES_MAX, JOINED_BYTES_MAX, advance, join_small};
    use bytes::Bytes;

    fn parts(lens: &[usize]) -> Vec<Bytes> {
        let part = |(number, len): (usize, &usize)| Bytes::from(vec![number as u8; *len]);
        lens.iter().enumerate().map(part).collect()
    }

    #[test]
    fn small_neighbours_are_joined_in_order() {
        for lens in [
            &[][..],
            &[0],
            &[5],
            &[5, 6, 7],
            &[4, 100_000, 3, 3, 100_000, 100_000, 1],
            &[JOIN_BYTES_MAX, JOIN_BYTES_MAX + 1, JOIN_BYTES_MAX, 1],
            &[JOIN_BYTES_MAX; 50],
            &[0, 0, 9_000, 0],
        ] {
            let joined = join_small(parts(lens));
            assert_eq!(joined.concat(), parts(lens).concat());
            assert!(joined.iter().all(|part| !part.is_empty()));
            let small = |part: &Bytes| part.len() <= JOIN_BYTES_MAX;
            assert!(joined.windows(2).all(|pair| {
                !small(&pair[0]) || !small(&pair[1]) || pair[0].len() > JOINED_BYTES_MAX / 2
            }));
        }
        assert_eq!(join_small(parts(&[4, 100_000, 3, 3])).len(), 3);
    }

    #[test]
    fn sent_bytes_are_cut_off_wherever_they_end() {
        let whole = parts(&[3, 1, 7, 2]);
        for first in 0..13 {
            let (mut rest, mut sent) = (whole.clone(), 0);
            advance(&mut rest, &mut sent, first);
            advance(&mut rest, &mut sent, 0);
            assert_eq!(rest[sent..].concat(), whole.concat()[first..]);
        }
    }
}
