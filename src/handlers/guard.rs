//! What a principal may do. Without an authorizer everybody may do everything, and every request passes.
//!
//! Runs on the shard of the connection, between decoding and handling. Judges a request as a whole; what
//! it names is judged where it is looked up, so that a denied name takes its place among the answers
//! like an unknown one (`partitions::merge`).

use chronik_protocol::ErrorCode;

/// What a request needs rights for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    /// Nothing: everybody may ask.
    Free,
    /// The cluster, for the request as a whole.
    Cluster,
    /// Each topic for itself.
    Topics,
    /// One group, for the request as a whole; topics that it names besides are judged each for itself.
    Group,
    /// Each group for itself.
    Groups,
    /// One transactional id, for the request as a whole.
    TransactionalId,
    /// Each resource for itself, by its kind.
    Resources,
    /// A delegation token or its owner.
    Token,
}

impl Shape {
    /// What a request of this shape is refused with when none of it is allowed.
    pub(super) fn denial(self) -> ErrorCode {
        match self {
            Self::Free => ErrorCode::None,
            Self::Cluster | Self::Resources => ErrorCode::ClusterAuthorizationFailed,
            Self::Topics => ErrorCode::TopicAuthorizationFailed,
            Self::Group | Self::Groups => ErrorCode::GroupAuthorizationFailed,
            Self::TransactionalId => ErrorCode::TransactionalIdAuthorizationFailed,
            Self::Token => ErrorCode::DelegationTokenAuthorizationFailed,
        }
    }
}

/// What a principal may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Access {
    /// Everything: there is no authorizer.
    All,
}

impl Access {
    /// What everybody may do while there is no authorizer.
    pub(super) fn all() -> Self {
        Self::All
    }

    /// Why a request of this shape is refused as a whole; `None` when it is handled.
    pub(super) fn denial(self, shape: Shape) -> Option<ErrorCode> {
        let is_denied = match self {
            Self::All => false,
        };
        is_denied.then(|| shape.denial())
    }
}
