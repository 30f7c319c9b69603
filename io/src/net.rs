//! Sockets: the stream of a connection, and the listener that accepts connections.
//!
//! Owns accepting (one plain thread, see `listener`) and the transfer of bytes (on the connection's shard). The
//! simulated twin of a stream is `simulated::pipe`. Never interprets a byte.

#![allow(async_fn_in_trait)] // See `world`: these futures never leave their shard.

mod connection_quotas;
mod listener;
mod place;
mod stream;

pub use connection_quotas::{ConnectionLimits, ConnectionQuotas, ListenerLimits};
pub use listener::{Accepted, Accepting, Incoming, Listener};
pub use place::ListenLimits;
pub use stream::DirectStream;

use bytes::{Bytes, BytesMut};
use std::io;
use std::net::SocketAddr;

/// How a stream stands, found without waiting and without moving a byte.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    /// Bytes that have come and have not been read.
    pub unread_bytes: usize,
    /// Whether some bytes could be written at once.
    pub is_writable: bool,
    /// Whether the peer has ended its side; bytes that it sent before may still be unread.
    pub has_left: bool,
}

/// A connected byte stream. One task may read while another writes (share it in an `Rc`); deadlines are the
/// callers' own timers. A disconnect is noticed only during a read, so keep one pending.
pub trait Stream: 'static {
    /// The other end's address.
    fn peer(&self) -> SocketAddr;

    /// The address the peer connected to.
    fn local(&self) -> SocketAddr;

    /// Appends at least one byte to `buffer`, as many as are there and fit its spare capacity (some is reserved if
    /// there is none), and returns their number; 0 when the peer has ended its side. Safe to drop: bytes are either
    /// appended or still in the socket.
    async fn read_into(&self, buffer: &mut BytesMut) -> io::Result<usize>;

    /// Writes all parts in order: small neighbours joined, large ones without a copy. After an error or a drop the
    /// number of bytes sent is unknown: close the connection.
    async fn write_all(&self, parts: Vec<Bytes>) -> io::Result<()> {
        self.write_noting(parts, |_| {}).await
    }

    /// As [`Stream::write_all`], and tells `note` how many bytes the socket has taken whenever it takes some.
    async fn write_noting(&self, parts: Vec<Bytes>, note: impl FnMut(usize)) -> io::Result<()>;

    /// How it stands.
    fn standing(&self) -> Standing;

    /// Ends both directions now; pending reads and writes return.
    async fn shutdown(&self) -> io::Result<()>;
}
