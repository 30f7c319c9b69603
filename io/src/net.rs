//! Sockets: the stream a connection talks through, and the listener that hands them out.
//!
//! Owns accepting (one plain thread, see `listener`) and moving bytes (on the connection's shard).
//! The simulated twin of a stream is `simulated::pipe`. Never looks into the bytes.

#![allow(async_fn_in_trait)] // See `world`: these futures never leave their shard.

mod door;
mod listener;
mod place;
mod stream;

pub use door::{Door, DoorLimits, ListenerLimits};
pub use listener::{Accepted, Accepting, Incoming, Listener};
pub use place::ListenLimits;
pub use stream::DirectStream;

use bytes::{Bytes, BytesMut};
use std::io;
use std::net::SocketAddr;

/// A connected byte stream. One task may read while another writes (share it in an `Rc`); deadlines
/// are the callers' own timers. A disconnect is noticed while a read is pending, so keep one.
pub trait Stream: 'static {
    /// The other end's address.
    fn peer(&self) -> SocketAddr;

    /// The address the peer connected to.
    fn local(&self) -> SocketAddr;

    /// Appends at least one byte to `buffer`, as many as there are and fit its spare capacity
    /// (some is reserved if there is none), and returns their number; 0 when the peer has ended its
    /// side. Safe to drop: bytes are either appended or still in the socket.
    async fn read_into(&self, buffer: &mut BytesMut) -> io::Result<usize>;

    /// Writes all parts in order. Small neighbours are joined first, large ones are sent where they
    /// lie. After an error or a drop it is unknown how much was sent: close the connection.
    async fn write_all(&self, parts: Vec<Bytes>) -> io::Result<()>;

    /// Ends both directions now; pending reads and writes return.
    async fn shutdown(&self) -> io::Result<()>;
}
