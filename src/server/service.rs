//! What the server asks of the handlers: take a request in order, answer it in its own time.
//!
//! Runs on every shard. Knows frames and replies; never an API.

use bytes::Bytes;
use futures_util::future::LocalBoxFuture;
use std::net::SocketAddr;

/// The side that understands requests.
pub(crate) trait Service: 'static {
    /// What is remembered about one connection.
    type Session: 'static;

    /// A new connection that came to the address `local` from `peer`.
    fn open(&self, local: SocketAddr, peer: SocketAddr) -> Self::Session;

    /// Whether a frame asks for much data, so that only one of its kind may be unanswered.
    fn is_fetch(frame: &[u8]) -> bool;

    /// Stage one: decodes, checks and hands the work to its owners, in the order of the connection.
    /// What takes longer is left to the answer's future, which is stage two.
    fn admit(&self, session: &mut Self::Session, frame: Bytes) -> impl Future<Output = Admitted>;
}

/// A request that was taken.
pub(crate) struct Admitted {
    /// What may be taken while the answer is not there.
    pub(crate) pace: Pace,
    /// The answer, now or later.
    pub(crate) answer: Answer,
}

/// What may overtake a request between being taken and being answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pace {
    /// Anything: its effects are in order once it was taken.
    Free,
    /// Anything but another of its kind: its reply may be large.
    OneFetch,
    /// Nothing: later requests may rely on its effect.
    Alone,
}

/// When the reply is there.
pub(crate) enum Answer {
    /// It is.
    Now(Reply),
    /// When the future says so. Dropping the future gives the request up.
    Later(LocalBoxFuture<'static, Reply>),
    /// As `Later`, from somebody who may wait for long and keeps nothing of the frame, only so many
    /// bytes of its own.
    Parked(LocalBoxFuture<'static, Reply>, usize),
}

/// What becomes of a request.
#[derive(Debug)]
pub(crate) enum Reply {
    /// These bytes go out, prefix included.
    Send(Vec<Bytes>),
    /// Nothing is sent (`acks=0`).
    Silent,
    /// The connection is closed after the replies before this one; the sentence names the API,
    /// its version and the reason, for the log.
    Close(String),
}

impl Reply {
    /// Bytes that go out.
    pub(crate) fn bytes(&self) -> usize {
        match self {
            Self::Send(parts) => parts.iter().map(Bytes::len).sum(),
            Self::Silent | Self::Close(_) => 0,
        }
    }
}
