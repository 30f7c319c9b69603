//! A connection's way to a client that is known: phases as types.
//!
//! Lives on the shard of the connection. A request is handled only in [`Open`], which alone has a
//! principal and what that may do. Never sends.

use std::rc::Rc;

use chronik_protocol::Str;

use super::context::Advertised;
use super::guard::Access;

/// How clients prove who they are (SASL). None is offered yet, so that no connection can be in
/// [`Session::Authenticating`]: the first variant makes the compiler ask for what happens there.
#[derive(Clone, Copy, Debug)]
pub(super) enum Mechanism {}

/// Who asks, as access control lists write it: `User:alice`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Principal {
    /// Kafka has one kind, `User`.
    pub(super) kind: Str,
    /// The name.
    pub(super) name: Str,
}

impl Principal {
    /// Somebody who was not asked (`KafkaPrincipal.ANONYMOUS`).
    pub(super) const ANONYMOUS: Self = Self {
        kind: Str::from_static("User"),
        name: Str::from_static("ANONYMOUS"),
    };
}

/// What is known of a connection from its two addresses.
pub(super) struct Peer {
    /// Where the client is told to find the broker: the listener it came through.
    pub(super) advertised: Advertised,
    /// The client's address, as Java writes one: `/127.0.0.1`.
    pub(super) host: Str,
}

/// The phase of a connection.
pub(crate) enum Session {
    /// Nothing has come yet.
    Handshake(Handshake),
    /// The client has chosen how to prove who it is.
    Authenticating(Authenticating),
    /// The client is known, and is served.
    Open(Rc<Open>),
}

/// A connection on which nothing has come yet.
pub(crate) struct Handshake {
    peer: Rc<Peer>,
    mechanism: Option<Mechanism>,
}

/// A connection whose client is proving who it is.
pub(crate) struct Authenticating {
    mechanism: Mechanism,
}

/// A connection whose client is known.
pub(crate) struct Open {
    /// The connection's addresses.
    pub(super) peer: Rc<Peer>,
    /// The client.
    pub(super) principal: Principal,
    /// What the client may do.
    pub(super) access: Access,
}

impl Handshake {
    /// The next phase: on a listener that asks nobody who they are, everybody is served.
    fn proceed(&self) -> Session {
        match self.mechanism {
            Some(mechanism) => Session::Authenticating(Authenticating { mechanism }),
            None => Session::Open(Rc::new(Open {
                peer: Rc::clone(&self.peer),
                principal: Principal::ANONYMOUS,
                access: Access::all(),
            })),
        }
    }
}

impl Session {
    /// A new connection, of a listener without authentication.
    pub(super) fn begin(peer: Peer) -> Self {
        Self::Handshake(Handshake {
            peer: Rc::new(peer),
            mechanism: None,
        })
    }

    /// The open connection that a request has come on.
    pub(super) fn open(&mut self) -> &Rc<Open> {
        if let Self::Handshake(handshake) = self {
            *self = handshake.proceed();
        }
        match self {
            Self::Open(open) => open,
            Self::Authenticating(authenticating) => match authenticating.mechanism {},
            Self::Handshake(_) => unreachable!("a handshake proceeds to another phase"),
        }
    }
}
