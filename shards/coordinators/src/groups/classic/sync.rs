//! SyncGroup: the leader's assignment comes in, everybody's share goes out.

use bytes::Bytes;
use chronik_protocol::messages::{SyncGroupRequest, SyncGroupResponse};
use chronik_protocol::{ErrorCode, Str};

use super::group::{ClassicGroup, ClassicState};
use crate::groups::caller::Token;
use crate::groups::outcome::{Outcome, Then};
use crate::groups::refused::sync_refused;
use crate::groups::request::GroupReply;
use crate::groups::step::Step;

impl ClassicGroup {
    /// A member asks for its share; the leader brings everybody's.
    pub(crate) fn sync(
        &mut self,
        step: &mut Step<'_>,
        request: &SyncGroupRequest,
        token: Token,
    ) -> Outcome {
        if let Err(error) = self.check_sync(request) {
            step.reply(token, sync_refused(error));
            return Outcome::NOTHING;
        }
        match self.state {
            ClassicState::Empty => step.reply(token, sync_refused(ErrorCode::UnknownMemberId)),
            ClassicState::PreparingRebalance => {
                step.reply(token, sync_refused(ErrorCode::RebalanceInProgress));
            }
            ClassicState::CompletingRebalance => return self.await_sync(step, request, token),
            ClassicState::Stable => {
                self.synced(step, &request.member_id);
                let reply = self.share_of(&request.member_id);
                step.reply(token, GroupReply::Sync(reply));
            }
        }
        Outcome::NOTHING
    }

    fn check_sync(&self, request: &SyncGroupRequest) -> Result<(), ErrorCode> {
        self.check_member(&request.member_id, request.group_instance_id.as_ref())?;
        if request.generation_id != self.generation {
            return Err(ErrorCode::IllegalGeneration);
        }
        let differs = |given: &Option<Str>, own: &Option<Str>| match (given, own) {
            (Some(given), Some(own)) => given != own,
            _ => false,
        };
        if differs(&request.protocol_type, &self.protocol_type)
            || differs(&request.protocol_name, &self.protocol_name)
        {
            return Err(ErrorCode::InconsistentGroupProtocol);
        }
        Ok(())
    }

    fn await_sync(
        &mut self,
        step: &mut Step<'_>,
        request: &SyncGroupRequest,
        token: Token,
    ) -> Outcome {
        if let Some(member) = self.members.get_mut(&request.member_id)
            && let Some(abandoned) = member.awaiting_sync.replace(token)
        {
            step.reply(abandoned, sync_refused(ErrorCode::RebalanceInProgress));
        }
        self.synced(step, &request.member_id);
        if !self.is_leader(&request.member_id) || std::mem::replace(&mut self.assigning, true) {
            return Outcome::NOTHING;
        }
        for member in self.members.values_mut() {
            member.assignment = Bytes::new();
        }
        // Shares are as many as a leader likes; those of nobody are passed over.
        for share in &request.assignments {
            if let Some(member) = self.members.get_mut(&share.member_id) {
                member.assignment = share.assignment.clone();
            }
        }
        let bytes = self.members.values().map(|member| member.assignment.len());
        if bytes.fold(0, usize::saturating_add) <= step.batch_bytes_max {
            // The request's buffer is not to be kept. What does not fit is refused, and given up, at once.
            for member in self.members.values_mut() {
                member.assignment = Bytes::copy_from_slice(&member.assignment);
            }
        }
        let then = Then::Assigned {
            group: self.id.clone(),
            generation: self.generation,
        };
        Outcome::written(vec![self.record()], then)
    }

    /// The leader's assignment is durable.
    pub(crate) fn assigned(&mut self, step: &mut Step<'_>, generation: i32) {
        if self.state != ClassicState::CompletingRebalance || self.generation != generation {
            return;
        }
        self.assigning = false;
        self.turn_to(ClassicState::Stable, step.now.wall_ms);
        let waiting: Vec<(Str, Token)> = self
            .members
            .values_mut()
            .filter_map(|member| Some((member.id.clone(), member.awaiting_sync.take()?)))
            .collect();
        for (id, token) in waiting {
            let reply = self.share_of(&id);
            step.reply(token, GroupReply::Sync(reply));
            // While it waited its session may have ended unnoticed.
            self.renew_session(step, &id);
        }
    }

    /// The leader's assignment could not be written, and nothing of it was.
    pub(crate) fn not_assigned(
        &mut self,
        step: &mut Step<'_>,
        generation: i32,
        error: ErrorCode,
    ) -> Outcome {
        if self.state != ClassicState::CompletingRebalance || self.generation != generation {
            return Outcome::NOTHING;
        }
        self.withdraw_assignment(step, error);
        self.prepare_rebalance(step)
    }

    fn share_of(&self, member: &str) -> SyncGroupResponse {
        let member = self.members.get(member);
        SyncGroupResponse {
            protocol_type: self.protocol_type.clone(),
            protocol_name: self.protocol_name.clone(),
            assignment: member.map(|m| m.assignment.clone()).unwrap_or_default(),
            ..SyncGroupResponse::default()
        }
    }

    fn synced(&mut self, step: &mut Step<'_>, member: &str) {
        self.pending_sync.remove(member);
        if self.pending_sync.is_empty() {
            step.timers.cancel(self.sync_timer());
        }
    }

    /// The time to fetch assignments is over: those who did not are gone.
    pub(crate) fn sync_expired(&mut self, step: &mut Step<'_>) -> Outcome {
        let expected = matches!(
            self.state,
            ClassicState::CompletingRebalance | ClassicState::Stable
        );
        if !expected || self.pending_sync.is_empty() {
            return Outcome::NOTHING;
        }
        for id in std::mem::take(&mut self.pending_sync) {
            self.cancel_session(step, &id);
            if let Some(member) = self.remove(&id) {
                self.dismiss(step, member);
            }
        }
        self.prepare_rebalance(step)
    }
}
