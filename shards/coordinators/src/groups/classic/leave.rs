//! LeaveGroup: members go, by their own wish or an operator's.

use chronik_protocol::messages::leave_group_request::MemberIdentity;
use chronik_protocol::messages::leave_group_response::MemberResponse;
use chronik_protocol::messages::{LeaveGroupRequest, LeaveGroupResponse};
use chronik_protocol::{ErrorCode, Str};

use super::group::{ClassicGroup, ClassicState};
use crate::groups::outcome::Outcome;
use crate::groups::step::Step;

/// The answer to a request that no group takes.
pub(crate) fn nobody_left(request: &LeaveGroupRequest, error: ErrorCode) -> LeaveGroupResponse {
    let tell = |member: &MemberIdentity| told(member, error);
    LeaveGroupResponse {
        members: request.members.iter().map(tell).collect(),
        ..LeaveGroupResponse::default()
    }
}

fn told(member: &MemberIdentity, error: ErrorCode) -> MemberResponse {
    MemberResponse {
        member_id: member.member_id.clone(),
        group_instance_id: member.group_instance_id.clone(),
        error_code: error.as_i16(),
        ..MemberResponse::default()
    }
}

impl ClassicGroup {
    /// Members leave; each is judged by itself.
    pub(crate) fn leave(
        &mut self,
        step: &mut Step<'_>,
        request: &LeaveGroupRequest,
    ) -> (LeaveGroupResponse, Outcome) {
        let mut members = Vec::with_capacity(request.members.len());
        let mut left = false;
        for member in &request.members {
            let result = self.leave_one(step, member);
            left |= result.is_ok();
            members.push(told(member, result.err().unwrap_or(ErrorCode::None)));
        }
        let outcome = match self.state {
            _ if !left => Outcome::NOTHING,
            ClassicState::Stable | ClassicState::CompletingRebalance => {
                self.prepare_rebalance(step)
            }
            ClassicState::PreparingRebalance => self.complete_join_if_all_are_here(step),
            ClassicState::Empty => Outcome::NOTHING,
        };
        let response = LeaveGroupResponse {
            members,
            ..LeaveGroupResponse::default()
        };
        (response, outcome)
    }

    fn leave_one(&mut self, step: &mut Step<'_>, member: &MemberIdentity) -> Result<(), ErrorCode> {
        let instance = member.group_instance_id.as_ref();
        let id: Str = if member.member_id.is_empty() {
            // An operator removes a static member by its instance id.
            let found = instance.and_then(|instance| self.static_members.get(instance));
            found.cloned().ok_or(ErrorCode::UnknownMemberId)?
        } else if self.pending_join.contains(&member.member_id) {
            member.member_id.clone()
        } else {
            self.check_member(&member.member_id, instance)?;
            member.member_id.clone()
        };
        self.cancel_session(step, &id);
        if let Some(member) = self.remove(&id) {
            self.dismiss(step, member);
        }
        Ok(())
    }
}
