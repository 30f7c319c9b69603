//! JoinGroup: who may come in, under which id, and whether the group has to begin anew.

use chronik_protocol::messages::{JoinGroupRequest, JoinGroupResponse};
use chronik_protocol::{ErrorCode, Str};

use super::group::{ClassicGroup, ClassicState};
use super::member::{Member, Protocol};
use crate::groups::caller::Token;
use crate::groups::deadlines::GroupTimer;
use crate::groups::outcome::{Outcome, Replaced, Then};
use crate::groups::refused::join_refused;
use crate::groups::request::{Caller, GroupReply};
use crate::groups::step::Step;
use crate::limits::{
    GROUP_MEMBER_METADATA_BYTES_MAX, GROUP_MEMBER_PROTOCOLS_MAX, GROUP_PENDING_MEMBERS_MAX,
};

/// A request to join, and who waits for it.
#[derive(Clone, Debug)]
pub(crate) struct Join {
    pub(crate) request: JoinGroupRequest,
    pub(crate) caller: Caller,
    pub(crate) known_member_id: bool,
    pub(crate) skip_assignment: bool,
    pub(crate) token: Token,
}

/// What can be refused before anybody looks at the group.
pub(crate) fn refusal(request: &JoinGroupRequest, step: &Step<'_>) -> Option<ErrorCode> {
    let timeouts = step.settings.min_session_timeout_ms..=step.settings.max_session_timeout_ms;
    let protocols = request.protocols.iter();
    let bytes: usize = protocols
        .map(|protocol| protocol.name.len().saturating_add(protocol.metadata.len()))
        .fold(0, usize::saturating_add);
    if request.group_id.is_empty() {
        Some(ErrorCode::InvalidGroupId)
    } else if !timeouts.contains(&request.session_timeout_ms) {
        Some(ErrorCode::InvalidSessionTimeout)
    } else if bytes > GROUP_MEMBER_METADATA_BYTES_MAX
        || request.protocols.len() > GROUP_MEMBER_PROTOCOLS_MAX
    {
        Some(ErrorCode::InvalidRequest)
    } else {
        None
    }
}

impl ClassicGroup {
    /// A member wants to come in, or again.
    pub(crate) fn join(&mut self, step: &mut Step<'_>, join: Join) -> Outcome {
        let unknown = join.request.member_id.is_empty();
        if !self.has_room_for(step, &join.request.member_id) {
            self.remove_silently(step, &join.request.member_id.clone());
            step.reply(
                join.token,
                join_refused(Str::default(), ErrorCode::GroupMaxSizeReached),
            );
            return Outcome::NOTHING;
        }
        if !self.supports(&join.request.protocol_type, &join.request.protocols) {
            let member = join.request.member_id.clone();
            step.reply(
                join.token,
                join_refused(member, ErrorCode::InconsistentGroupProtocol),
            );
            return Outcome::NOTHING;
        }
        if unknown {
            self.join_new(step, join)
        } else {
            self.join_again(step, join)
        }
    }

    fn remove_silently(&mut self, step: &mut Step<'_>, member: &Str) {
        if let Some(removed) = self.remove(member) {
            self.dismiss(step, removed);
        }
    }

    /// `group.max.size`. While the group is being formed those count who are already back: the last
    /// to return find no place.
    fn has_room_for(&self, step: &Step<'_>, member: &str) -> bool {
        let known = self.members.get(member);
        match self.state {
            ClassicState::Empty => true,
            ClassicState::PreparingRebalance => {
                known.is_some_and(|member| member.awaiting_join.is_some())
                    || self.awaiting_join < step.settings.max_size
            }
            ClassicState::CompletingRebalance | ClassicState::Stable => {
                known.is_some() || self.members.len() < step.settings.max_size
            }
        }
    }

    fn join_new(&mut self, step: &mut Step<'_>, join: Join) -> Outcome {
        let instance = join.request.group_instance_id.as_ref();
        let stem = instance.unwrap_or(&join.caller.client_id);
        let id = Str::from(format!("{stem}-{}", step.random_uuid()));
        if let Some(instance) = instance {
            return match self.static_members.get(instance).cloned() {
                Some(old) => self.replace_static_member(step, join, &old, id),
                None => self.add_member(step, join, id),
            };
        }
        if !join.known_member_id {
            return self.add_member(step, join, id);
        }
        if self.pending_join.len() >= GROUP_PENDING_MEMBERS_MAX {
            let error = ErrorCode::GroupMaxSizeReached;
            step.reply(join.token, join_refused(Str::default(), error));
            return Outcome::NOTHING;
        }
        self.pending_join.insert(id.clone());
        let timer = GroupTimer::Session {
            group: self.id.clone(),
            member: id.clone(),
        };
        step.timers
            .schedule(timer, i64::from(join.request.session_timeout_ms));
        step.reply(join.token, join_refused(id, ErrorCode::MemberIdRequired));
        Outcome::NOTHING
    }

    fn join_again(&mut self, step: &mut Step<'_>, join: Join) -> Outcome {
        let id = join.request.member_id.detached();
        let instance = join.request.group_instance_id.as_ref();
        if self.pending_join.contains(&id) {
            if instance.is_some() {
                // Ids are only given out to dynamic members.
                step.reply(join.token, join_refused(id, ErrorCode::UnknownMemberId));
                return Outcome::NOTHING;
            }
            return self.add_member(step, join, id);
        }
        if let Err(error) = self.check_member(&id, instance) {
            step.reply(join.token, join_refused(id, error));
            return Outcome::NOTHING;
        }
        let unchanged = self
            .members
            .get(&id)
            .is_some_and(|member| member.matches(&join.request.protocols));
        let leads = self.is_leader(&id);
        match self.state {
            ClassicState::PreparingRebalance => self.update_member(step, &join, &id),
            // It may not have got the first answer: the same again.
            ClassicState::CompletingRebalance if unchanged => {
                let response = self.generation_for(&id, leads);
                step.reply(join.token, GroupReply::Join(response));
                Outcome::NOTHING
            }
            // A leader joins anew to assign anew: what it saw change need not be in its metadata.
            ClassicState::Stable if unchanged && !leads => {
                let response = self.generation_for(&id, false);
                step.reply(join.token, GroupReply::Join(response));
                Outcome::NOTHING
            }
            ClassicState::CompletingRebalance | ClassicState::Stable => {
                self.update_member(step, &join, &id)
            }
            ClassicState::Empty => {
                step.reply(join.token, join_refused(id, ErrorCode::UnknownMemberId));
                Outcome::NOTHING
            }
        }
    }

    /// What a member is told of the current generation.
    pub(super) fn generation_for(&self, member: &Str, with_members: bool) -> JoinGroupResponse {
        JoinGroupResponse {
            generation_id: self.generation,
            protocol_type: self.protocol_type.clone(),
            protocol_name: self.protocol_name.clone(),
            leader: self.leader_or_empty(),
            member_id: member.clone(),
            members: if with_members {
                self.members_for_leader()
            } else {
                Vec::new()
            },
            ..JoinGroupResponse::default()
        }
    }

    fn add_member(&mut self, step: &mut Step<'_>, join: Join, id: Str) -> Outcome {
        let request = &join.request;
        let member = Member {
            id: id.clone(),
            instance: request.group_instance_id.as_ref().map(Str::detached),
            client_id: join.caller.client_id.detached(),
            client_host: join.caller.client_host.detached(),
            rebalance_timeout_ms: request.rebalance_timeout_ms,
            session_timeout_ms: request.session_timeout_ms,
            protocols: Protocol::of_request(&request.protocols),
            assignment: bytes::Bytes::new(),
            awaiting_join: Some(join.token),
            awaiting_sync: None,
            is_new: true,
        };
        let first = self.previous_state == Some(ClassicState::Empty);
        if self.state == ClassicState::PreparingRebalance && first {
            self.new_member_added = true;
        }
        self.add(member, &request.protocol_type);
        // A new member cannot heartbeat before it knows its id, and a client that went away during
        // a long join is not noticed: a long timeout stands in for the session.
        let timeout_ms = step.settings.new_member_join_timeout_ms;
        self.schedule_session(step, &id, i64::from(timeout_ms));
        self.rebalance_or_complete_join(step)
    }

    /// A member has come again; its join is parked.
    fn update_member(&mut self, step: &mut Step<'_>, join: &Join, id: &Str) -> Outcome {
        self.update(step, id, &join.request, Some(join.token));
        self.rebalance_or_complete_join(step)
    }

    pub(super) fn update(
        &mut self,
        step: &mut Step<'_>,
        id: &Str,
        request: &JoinGroupRequest,
        token: Option<Token>,
    ) {
        let Some(member) = self.members.get_mut(id) else {
            return;
        };
        let before = member.awaiting_join;
        let new = Protocol::of_request(&request.protocols);
        let old = std::mem::replace(&mut member.protocols, new.clone());
        member.rebalance_timeout_ms = request.rebalance_timeout_ms;
        member.session_timeout_ms = request.session_timeout_ms;
        member.awaiting_join = token;
        self.count_protocols(&old, false);
        self.count_protocols(&new, true);
        self.awaiting_join += usize::from(token.is_some());
        self.awaiting_join -= usize::from(before.is_some());
        if let Some(abandoned) = before {
            // The member asks on another connection; whoever still listens there may ask again.
            step.reply(
                abandoned,
                join_refused(id.clone(), ErrorCode::RebalanceInProgress),
            );
        }
    }

    /// A static member has come back with nothing but its instance id: it gets a new member id, and
    /// the old one is fenced. Where nothing else changes the group stays as it is (KIP-345).
    fn replace_static_member(
        &mut self,
        step: &mut Step<'_>,
        join: Join,
        old: &Str,
        new: Str,
    ) -> Outcome {
        let leader_before = self.leader.clone();
        let Some(mut member) = self.members.remove(old) else {
            return self.add_member(step, join, new);
        };
        self.fence(step, &mut member);
        let before = Replaced {
            member: member.clone(),
            was_pending_sync: self.pending_sync.contains(old),
        };
        member.id = new.clone();
        member.is_new = false;
        if let Some(instance) = &member.instance {
            self.static_members.insert(instance.clone(), new.clone());
        }
        let session_timeout_ms = i64::from(member.session_timeout_ms);
        self.members.insert(new.clone(), member);
        if self.leader.as_ref() == Some(old) {
            self.leader = Some(new.clone());
        }
        self.pending_sync.remove(old);
        self.schedule_session(step, &new, session_timeout_ms);
        self.update(step, &new, &join.request, Some(join.token));
        match self.state {
            ClassicState::Stable if self.select_protocol() == self.protocol_name => {
                let then = Then::Replaced {
                    group: self.id.clone(),
                    member: new,
                    leader_before,
                    skip_assignment: join.skip_assignment,
                    before: Box::new(before),
                };
                Outcome::written(vec![self.record()], then)
            }
            ClassicState::Stable => self.rebalance_or_complete_join(step),
            // The old id may be on its way to the leader: it has to assign anew.
            ClassicState::CompletingRebalance => self.prepare_rebalance(step),
            ClassicState::PreparingRebalance | ClassicState::Empty => {
                self.complete_join_if_all_are_here(step)
            }
        }
    }

    /// The new id of a static member cannot be written: it is refused, and the group is as it was.
    pub(crate) fn not_replaced(
        &mut self,
        step: &mut Step<'_>,
        id: &Str,
        before: Replaced,
        error: ErrorCode,
    ) {
        let Some(mut refused_member) = self.members.remove(id) else {
            return;
        };
        self.count_protocols(&refused_member.protocols, false);
        self.cancel_session(step, id);
        if let Some(token) = refused_member.awaiting_join.take() {
            self.awaiting_join -= 1;
            step.reply(token, join_refused(Str::default(), error));
        }
        let Replaced {
            member,
            was_pending_sync,
        } = before;
        let old = member.id.clone();
        if self.leader.as_ref() == Some(id) {
            self.leader = Some(old.clone());
        }
        if let Some(instance) = &member.instance {
            self.static_members.insert(instance.clone(), old.clone());
        }
        if was_pending_sync {
            self.pending_sync.insert(old.clone());
        }
        self.count_protocols(&member.protocols, true);
        self.members.insert(old.clone(), member);
        self.renew_session(step, &old);
    }

    /// The new id of a static member is durable: it is told the generation that goes on.
    pub(crate) fn replaced(
        &mut self,
        step: &mut Step<'_>,
        member: &Str,
        leader_before: Option<Str>,
        skip_assignment: bool,
    ) {
        let leads = self.is_leader(member);
        let mut response = self.generation_for(member, false);
        if skip_assignment {
            if leads {
                response.members = self.members_for_leader();
            }
            response.skip_assignment = leads;
        } else {
            // Without KIP-814 a leader that is told so would assign anew; it is told of its old
            // id instead, and keeps quiet.
            response.leader = leader_before.unwrap_or_default();
        }
        self.answer_join(step, member, response);
    }
}
