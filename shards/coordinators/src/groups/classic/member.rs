//! A member of a classic group.
//!
//! State only; what happens to members is the group's business.

use bytes::Bytes;
use chronik_protocol::Str;
use chronik_protocol::messages::describe_groups_response::DescribedGroupMember;
use chronik_protocol::messages::join_group_request::JoinGroupRequestProtocol;

use crate::groups::caller::Token;

/// A way to assign that a member supports, with what it tells the leader about itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Protocol {
    pub(crate) name: Str,
    pub(crate) metadata: Bytes,
}

impl Protocol {
    /// Copies of what a request says, for requests' frames must not be kept.
    pub(crate) fn of_request(protocols: &[JoinGroupRequestProtocol]) -> Vec<Protocol> {
        let copy = |protocol: &JoinGroupRequestProtocol| Protocol {
            name: protocol.name.detached(),
            metadata: Bytes::copy_from_slice(&protocol.metadata),
        };
        protocols.iter().map(copy).collect()
    }
}

/// A member; see the module's text.
#[derive(Clone, Debug)]
pub(crate) struct Member {
    pub(crate) id: Str,
    /// `group.instance.id` of a static member (KIP-345).
    pub(crate) instance: Option<Str>,
    pub(crate) client_id: Str,
    pub(crate) client_host: Str,
    pub(crate) rebalance_timeout_ms: i32,
    pub(crate) session_timeout_ms: i32,
    /// The one it likes best first.
    pub(crate) protocols: Vec<Protocol>,
    /// Empty until the leader has assigned.
    pub(crate) assignment: Bytes,
    pub(crate) awaiting_join: Option<Token>,
    pub(crate) awaiting_sync: Option<Token>,
    /// It has not been told its first generation.
    pub(crate) is_new: bool,
}

impl Member {
    /// What it tells the leader under a protocol; nothing when it does not support it.
    pub(crate) fn metadata(&self, protocol: &str) -> Bytes {
        let found = self.protocols.iter().find(|own| own.name == protocol);
        found.map(|own| own.metadata.clone()).unwrap_or_default()
    }

    /// Whether a request says the same of it.
    pub(crate) fn matches(&self, protocols: &[JoinGroupRequestProtocol]) -> bool {
        let same = |(own, other): (&Protocol, &JoinGroupRequestProtocol)| {
            own.name == other.name && own.metadata == other.metadata
        };
        self.protocols.len() == protocols.len() && self.protocols.iter().zip(protocols).all(same)
    }

    /// Whether it may be silent: members that wait for the group are heard of when the group is
    /// done. New ones are timed all the same, or clients that gave up would pile up.
    pub(crate) fn may_be_silent(&self) -> bool {
        !self.is_new && (self.awaiting_join.is_some() || self.awaiting_sync.is_some())
    }

    /// For DescribeGroups; the metadata only under the protocol the group has chosen.
    pub(crate) fn describe(&self, protocol: Option<&Str>) -> DescribedGroupMember {
        DescribedGroupMember {
            member_id: self.id.clone(),
            group_instance_id: self.instance.clone(),
            client_id: self.client_id.clone(),
            client_host: self.client_host.clone(),
            member_metadata: protocol.map(|name| self.metadata(name)).unwrap_or_default(),
            member_assignment: self.assignment.clone(),
            ..DescribedGroupMember::default()
        }
    }
}
