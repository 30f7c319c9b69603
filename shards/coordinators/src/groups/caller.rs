//! Callers of the coordinator: the token of one that waits, and what one is refused with.
//!
//! Plain values at the bottom of this room.

use chronik_protocol::{ErrorCode, Str};

/// A caller that waits. The coordinator knows who it is; each is answered exactly once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Token(pub(crate) usize);

/// A refusal: Kafka's code, and a sentence where the response has room for one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) code: ErrorCode,
    pub(crate) message: Option<Str>,
}

impl From<ErrorCode> for Refusal {
    fn from(code: ErrorCode) -> Refusal {
        Refusal {
            code,
            message: None,
        }
    }
}

impl Refusal {
    /// A refusal with a sentence.
    pub(crate) fn new(code: ErrorCode, message: impl Into<String>) -> Refusal {
        Refusal {
            code,
            message: Some(Str::from(message.into())),
        }
    }
}
