//! A classic group: its state, members and generation.
//!
//! What requests and deadlines do to it stands in the files beside this one.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use chronik_protocol::messages::ConsumerProtocolSubscription;
use chronik_protocol::messages::join_group_request::JoinGroupRequestProtocol;
use chronik_protocol::messages::join_group_response::JoinGroupResponseMember;
use chronik_protocol::{ErrorCode, Message, Reader, Str};

use super::member::{Member, Protocol};
use crate::groups::caller::Token;
use crate::groups::refused::{join_refused, sync_refused};
use crate::groups::request::GroupReply;
use crate::groups::step::Step;

/// The protocol type of consumers (`ConsumerProtocol.PROTOCOL_TYPE`).
pub(crate) const CONSUMER_PROTOCOL_TYPE: &str = "consumer";

/// Where a group stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ClassicState {
    /// No members; maybe offsets.
    Empty,
    /// Members are waited for.
    PreparingRebalance,
    /// The leader's assignment is waited for.
    CompletingRebalance,
    /// Everybody has a share.
    Stable,
}

impl ClassicState {
    /// Kafka's name.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            ClassicState::Empty => "Empty",
            ClassicState::PreparingRebalance => "PreparingRebalance",
            ClassicState::CompletingRebalance => "CompletingRebalance",
            ClassicState::Stable => "Stable",
        }
    }
}

/// How much longer a group's first members may wait for others
/// (`group.initial.rebalance.delay.ms`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct InitialDelay {
    pub(super) delay_ms: i64,
    pub(super) remaining_ms: i64,
}

/// A classic group; see the module's text.
#[derive(Clone, Debug)]
pub(crate) struct ClassicGroup {
    pub(super) id: Str,
    pub(super) state: ClassicState,
    /// The state it came to `state` from; `None` when it was loaded or is new.
    pub(super) previous_state: Option<ClassicState>,
    /// When it came to this state, ms since the epoch.
    pub(super) state_timestamp_ms: Option<i64>,
    /// `None` for a group that only has offsets.
    pub(super) protocol_type: Option<Str>,
    pub(super) protocol_name: Option<Str>,
    pub(super) generation: i32,
    pub(super) leader: Option<Str>,
    pub(super) members: BTreeMap<Str, Member>,
    /// Member ids by `group.instance.id`.
    pub(super) static_members: BTreeMap<Str, Str>,
    /// Ids that were given to new members that have not come again yet (KIP-394).
    pub(super) pending_join: BTreeSet<Str>,
    /// Members with a parked join.
    pub(super) awaiting_join: usize,
    /// Members of this generation that have not asked for their assignment.
    pub(super) pending_sync: BTreeSet<Str>,
    /// How many members support a protocol.
    pub(super) supported: BTreeMap<Str, usize>,
    /// Topics the members want, where the protocol is the consumers' own and can be read.
    pub(super) subscribed_topics: Option<BTreeSet<Str>>,
    /// During the first rebalance: somebody came, so others may.
    pub(super) new_member_added: bool,
    pub(super) initial_delay: Option<InitialDelay>,
    /// The leader's assignment for this generation is on its way to the log. A second one, from a
    /// leader that did not get its answer, must not take its place.
    pub(super) assigning: bool,
}

impl ClassicGroup {
    /// A group without members.
    pub(crate) fn new(id: Str, now_ms: i64) -> ClassicGroup {
        ClassicGroup {
            id,
            state: ClassicState::Empty,
            previous_state: None,
            state_timestamp_ms: Some(now_ms),
            protocol_type: None,
            protocol_name: None,
            generation: 0,
            leader: None,
            members: BTreeMap::new(),
            static_members: BTreeMap::new(),
            pending_join: BTreeSet::new(),
            awaiting_join: 0,
            pending_sync: BTreeSet::new(),
            supported: BTreeMap::new(),
            subscribed_topics: None,
            new_member_added: false,
            initial_delay: None,
            assigning: false,
        }
    }

    pub(crate) fn state(&self) -> ClassicState {
        self.state
    }

    pub(crate) fn state_timestamp_ms(&self) -> Option<i64> {
        self.state_timestamp_ms
    }

    pub(crate) fn generation(&self) -> i32 {
        self.generation
    }

    pub(crate) fn protocol_type(&self) -> Option<&Str> {
        self.protocol_type.as_ref()
    }

    pub(crate) fn protocol_name(&self) -> Option<&Str> {
        self.protocol_name.as_ref()
    }

    pub(crate) fn members(&self) -> impl ExactSizeIterator<Item = &Member> {
        self.members.values()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.state == ClassicState::Empty
    }

    /// Members and those who were only given an id.
    pub(crate) fn size(&self) -> usize {
        self.members.len() + self.pending_join.len()
    }

    /// Refuses everybody who is parked here.
    pub(crate) fn refuse_waiting(&mut self, error: ErrorCode, out: &mut Vec<(Token, GroupReply)>) {
        self.awaiting_join = 0;
        for member in self.members.values_mut() {
            if let Some(token) = member.awaiting_join.take() {
                out.push((token, join_refused(member.id.clone(), error)));
            }
            if let Some(token) = member.awaiting_sync.take() {
                out.push((token, sync_refused(error)));
            }
        }
    }

    /// Takes every deadline of the group out: it is another one from now on, or none.
    pub(crate) fn cancel_deadlines(&self, step: &mut Step<'_>) {
        for id in self.members.keys().chain(&self.pending_join) {
            self.cancel_session(step, id);
        }
        step.timers.cancel(self.join_timer());
        step.timers.cancel(self.sync_timer());
    }

    pub(crate) fn uses_consumer_protocol(&self) -> bool {
        self.protocol_type
            .as_ref()
            .is_some_and(|name| name == CONSUMER_PROTOCOL_TYPE)
    }

    /// Whether some member wants a topic. Consumers whose wishes cannot be read want everything.
    pub(crate) fn is_subscribed_to(&self, topic: &str) -> bool {
        match &self.subscribed_topics {
            Some(topics) => topics.contains(topic),
            None => self.uses_consumer_protocol(),
        }
    }

    /// Whether the group knows what its members want.
    pub(crate) fn knows_subscriptions(&self) -> bool {
        self.subscribed_topics.is_some()
    }

    pub(super) fn is_leader(&self, member: &str) -> bool {
        self.leader.as_ref().is_some_and(|leader| leader == member)
    }

    pub(super) fn leader_or_empty(&self) -> Str {
        self.leader.clone().unwrap_or_default()
    }

    pub(super) fn turn_to(&mut self, state: ClassicState, now_ms: i64) {
        self.previous_state = Some(self.state);
        self.state = state;
        self.state_timestamp_ms = Some(now_ms);
    }

    /// Whether a request is from a member of this group, and not from one whose place a newer
    /// instance has taken (KIP-345).
    pub(crate) fn check_member(
        &self,
        member: &str,
        instance: Option<&Str>,
    ) -> Result<(), ErrorCode> {
        if let Some(instance) = instance {
            match self.static_members.get(instance) {
                None => return Err(ErrorCode::UnknownMemberId),
                Some(current) if current != member => return Err(ErrorCode::FencedInstanceId),
                Some(_) => {}
            }
        }
        if self.members.contains_key(member) {
            Ok(())
        } else {
            Err(ErrorCode::UnknownMemberId)
        }
    }

    pub(super) fn supports(
        &self,
        protocol_type: &str,
        protocols: &[JoinGroupRequestProtocol],
    ) -> bool {
        if self.state == ClassicState::Empty {
            return !protocol_type.is_empty() && !protocols.is_empty();
        }
        let by_all =
            |name: &str| self.supported.get(name).copied().unwrap_or(0) == self.members.len();
        self.protocol_type
            .as_ref()
            .is_some_and(|own| own == protocol_type)
            && protocols.iter().any(|protocol| by_all(&protocol.name))
    }

    pub(super) fn count_protocols(&mut self, protocols: &[Protocol], added: bool) {
        for protocol in protocols {
            let count = self.supported.entry(protocol.name.clone()).or_default();
            *count = if added {
                *count + 1
            } else {
                count.saturating_sub(1)
            };
            if *count == 0 {
                self.supported.remove(&protocol.name);
            }
        }
    }

    /// Adds a member, whose join may be parked.
    pub(super) fn add(&mut self, member: Member, protocol_type: &Str) {
        if let Some(instance) = &member.instance {
            self.static_members
                .insert(instance.clone(), member.id.clone());
        }
        if self.members.is_empty() {
            self.protocol_type = Some(protocol_type.detached());
        }
        if self.leader.is_none() {
            self.leader = Some(member.id.clone());
        }
        self.count_protocols(&member.protocols, true);
        self.awaiting_join += usize::from(member.awaiting_join.is_some());
        self.pending_join.remove(&member.id);
        self.members.insert(member.id.clone(), member);
    }

    /// Removes a member, or an id that was given to one. Whoever is parked for it is returned.
    pub(super) fn remove(&mut self, id: &str) -> Option<Member> {
        let removed = self.members.remove(id);
        if let Some(member) = &removed {
            self.count_protocols(&member.protocols, false);
            self.awaiting_join -= usize::from(member.awaiting_join.is_some());
            if let Some(instance) = &member.instance {
                self.static_members.remove(instance);
            }
        }
        if self.is_leader(id) {
            self.leader = self.members.keys().next().cloned();
        }
        self.pending_join.remove(id);
        self.pending_sync.remove(id);
        removed
    }

    pub(super) fn has_all_joined(&self) -> bool {
        self.members.len() == self.awaiting_join && self.pending_join.is_empty()
    }

    /// The longest a member may take to come again, ms.
    pub(super) fn rebalance_timeout_ms(&self) -> i32 {
        let timeouts = self.members.values().map(|m| m.rebalance_timeout_ms);
        timeouts.max().unwrap_or(0).max(0)
    }

    /// The protocol most members vote for among those that all support; between equals the one the
    /// leader likes better.
    pub(super) fn select_protocol(&self) -> Option<Str> {
        let by_all = |name: &Str| self.supported.get(name) == Some(&self.members.len());
        let mut votes: BTreeMap<&Str, usize> = BTreeMap::new();
        for member in self.members.values() {
            let mut names = member.protocols.iter().map(|protocol| &protocol.name);
            if let Some(vote) = names.find(|name| by_all(name)) {
                *votes.entry(vote).or_default() += 1;
            }
        }
        let leader = self.leader.as_ref().and_then(|id| self.members.get(id));
        let liking = |name: &Str| {
            let mut names = leader.iter().flat_map(|leader| &leader.protocols);
            names
                .position(|protocol| protocol.name == *name)
                .unwrap_or(usize::MAX)
        };
        let best = votes
            .into_iter()
            .min_by_key(|(name, count)| (usize::MAX - count, liking(name)));
        best.map(|(name, _)| name.clone())
    }

    /// What the members want, if they are consumers and the protocol's metadata can be read.
    pub(super) fn compute_subscribed_topics(&self) -> Option<BTreeSet<Str>> {
        if !self.uses_consumer_protocol() {
            return None;
        }
        if self.members.is_empty() {
            return Some(BTreeSet::new());
        }
        let protocol = self.protocol_name.as_ref()?;
        let mut topics = BTreeSet::new();
        for member in self.members.values() {
            let wanted = subscribed_topics(member.metadata(protocol))?;
            topics.extend(wanted.iter().map(Str::detached));
        }
        Some(topics)
    }

    /// What the leader is told of everybody.
    pub(super) fn members_for_leader(&self) -> Vec<JoinGroupResponseMember> {
        let protocol = self.protocol_name.clone().unwrap_or_default();
        let tell = |member: &Member| JoinGroupResponseMember {
            member_id: member.id.clone(),
            group_instance_id: member.instance.clone(),
            metadata: member.metadata(&protocol),
            ..JoinGroupResponseMember::default()
        };
        self.members.values().map(tell).collect()
    }
}

/// The topics of a consumer's subscription. Every version begins as version 0 does.
fn subscribed_topics(metadata: Bytes) -> Option<Vec<Str>> {
    let mut reader = Reader::new(metadata);
    let version = reader.get_i16().ok()?;
    if version < 0 {
        return None;
    }
    let subscription = ConsumerProtocolSubscription::decode(&mut reader, 0).ok()?;
    Some(subscription.topics)
}
