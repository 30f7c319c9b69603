//! Heartbeats, and members that are not heard of.

use chronik_protocol::messages::HeartbeatRequest;
use chronik_protocol::{ErrorCode, Str};

use super::group::{ClassicGroup, ClassicState};
use crate::groups::outcome::Outcome;
use crate::groups::step::Step;

impl ClassicGroup {
    /// A member says that it lives.
    ///
    /// # Errors
    /// What it has to be told: mostly that it should join again.
    pub(crate) fn heartbeat(
        &mut self,
        step: &mut Step<'_>,
        request: &HeartbeatRequest,
    ) -> Result<(), ErrorCode> {
        self.check_member(&request.member_id, request.group_instance_id.as_ref())?;
        if request.generation_id != self.generation {
            return Err(ErrorCode::IllegalGeneration);
        }
        match self.state {
            ClassicState::Empty => Err(ErrorCode::UnknownMemberId),
            ClassicState::PreparingRebalance => {
                self.renew_session(step, &request.member_id);
                Err(ErrorCode::RebalanceInProgress)
            }
            ClassicState::CompletingRebalance | ClassicState::Stable => {
                self.renew_session(step, &request.member_id);
                Ok(())
            }
        }
    }

    /// A member's session, or the time it had to come again with the id it was given, is over.
    pub(crate) fn session_expired(&mut self, step: &mut Step<'_>, id: &Str) -> Outcome {
        if self.pending_join.remove(id) {
            return if self.state == ClassicState::PreparingRebalance && self.has_all_joined() {
                self.complete_join(step)
            } else {
                Outcome::NOTHING
            };
        }
        let Some(member) = self.members.get(id) else {
            return Outcome::NOTHING;
        };
        if member.may_be_silent() {
            return Outcome::NOTHING;
        }
        tracing::info!(group = %self.id, member = %id, "member was not heard of: removed");
        if let Some(member) = self.remove(id) {
            self.dismiss(step, member);
        }
        self.member_gone(step)
    }

    /// A member was removed.
    pub(super) fn member_gone(&mut self, step: &mut Step<'_>) -> Outcome {
        match self.state {
            ClassicState::Stable | ClassicState::CompletingRebalance => {
                self.prepare_rebalance(step)
            }
            ClassicState::PreparingRebalance if self.has_all_joined() => self.complete_join(step),
            ClassicState::PreparingRebalance | ClassicState::Empty => Outcome::NOTHING,
        }
    }
}
