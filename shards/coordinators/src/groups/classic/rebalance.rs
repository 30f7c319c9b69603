//! From one generation to the next: who is waited for, for how long, and who is told.

use chronik_protocol::ErrorCode;
use chronik_protocol::Str;
use chronik_protocol::messages::JoinGroupResponse;

use super::group::{ClassicGroup, ClassicState, InitialDelay};
use super::member::Member;
use crate::groups::deadlines::GroupTimer;
use crate::groups::outcome::{Outcome, Then};
use crate::groups::refused::{join_refused, sync_refused};
use crate::groups::request::GroupReply;
use crate::groups::step::Step;

impl ClassicGroup {
    /// The heartbeat of a member is due in `timeout_ms` from now.
    pub(super) fn schedule_session(&self, step: &mut Step<'_>, member: &Str, timeout_ms: i64) {
        let timer = GroupTimer::Session {
            group: self.id.clone(),
            member: member.clone(),
        };
        step.timers.schedule(timer, timeout_ms);
    }

    /// A member was heard of.
    pub(crate) fn renew_session(&self, step: &mut Step<'_>, member: &str) {
        if let Some(member) = self.members.get(member) {
            self.schedule_session(step, &member.id, i64::from(member.session_timeout_ms));
        }
    }

    pub(super) fn cancel_session(&self, step: &mut Step<'_>, member: &Str) {
        step.timers.cancel(GroupTimer::Session {
            group: self.id.clone(),
            member: member.clone(),
        });
    }

    pub(super) fn join_timer(&self) -> GroupTimer {
        GroupTimer::Join {
            group: self.id.clone(),
        }
    }

    pub(super) fn sync_timer(&self) -> GroupTimer {
        GroupTimer::Sync {
            group: self.id.clone(),
        }
    }

    /// Answers a parked join.
    pub(super) fn answer_join(
        &mut self,
        step: &mut Step<'_>,
        member: &Str,
        response: JoinGroupResponse,
    ) {
        let parked = self.members.get_mut(member);
        if let Some(token) = parked.and_then(|member| member.awaiting_join.take()) {
            self.awaiting_join -= 1;
            step.reply(token, GroupReply::Join(response));
        }
    }

    /// Tells a member that was removed to come again as a new one.
    pub(super) fn dismiss(&self, step: &mut Step<'_>, mut member: Member) {
        if let Some(token) = member.awaiting_join.take() {
            step.reply(
                token,
                join_refused(Str::default(), ErrorCode::UnknownMemberId),
            );
        }
        if let Some(token) = member.awaiting_sync.take() {
            step.reply(token, sync_refused(ErrorCode::UnknownMemberId));
        }
    }

    /// Tells a static member whose place was taken.
    pub(super) fn fence(&mut self, step: &mut Step<'_>, member: &mut Member) {
        if let Some(token) = member.awaiting_join.take() {
            self.awaiting_join -= 1;
            step.reply(
                token,
                join_refused(member.id.clone(), ErrorCode::FencedInstanceId),
            );
        }
        if let Some(token) = member.awaiting_sync.take() {
            step.reply(token, sync_refused(ErrorCode::FencedInstanceId));
        }
    }

    /// Something about the members has changed.
    pub(super) fn rebalance_or_complete_join(&mut self, step: &mut Step<'_>) -> Outcome {
        match self.state {
            ClassicState::PreparingRebalance => self.complete_join_if_all_are_here(step),
            _ => self.prepare_rebalance(step),
        }
    }

    /// Everybody has to come again.
    pub(crate) fn prepare_rebalance(&mut self, step: &mut Step<'_>) -> Outcome {
        if self.state == ClassicState::CompletingRebalance {
            self.withdraw_assignment(step, ErrorCode::RebalanceInProgress);
        }
        self.pending_sync.clear();
        step.timers.cancel(self.sync_timer());
        let first = self.state == ClassicState::Empty;
        if first {
            // The group is new: its other members are probably starting as well.
            let delay_ms = i64::from(step.settings.initial_rebalance_delay_ms);
            let timeout_ms = i64::from(self.rebalance_timeout_ms());
            self.initial_delay = Some(InitialDelay {
                delay_ms,
                remaining_ms: timeout_ms.saturating_sub(delay_ms).max(0),
            });
            self.new_member_added = false;
            step.timers.schedule(self.join_timer(), delay_ms);
        }
        self.turn_to(ClassicState::PreparingRebalance, step.now.wall_ms);
        if first {
            return Outcome::NOTHING;
        }
        self.initial_delay = None;
        if self.has_all_joined() {
            return self.complete_join(step);
        }
        let timeout_ms = i64::from(self.rebalance_timeout_ms());
        step.timers.schedule(self.join_timer(), timeout_ms);
        Outcome::NOTHING
    }

    /// Goes on when nobody is waited for any more; the first rebalance waits for its delay.
    pub(super) fn complete_join_if_all_are_here(&mut self, step: &mut Step<'_>) -> Outcome {
        let first = self.previous_state == Some(ClassicState::Empty);
        if self.state != ClassicState::PreparingRebalance || first || !self.has_all_joined() {
            return Outcome::NOTHING;
        }
        self.complete_join(step)
    }

    /// The time to join is over.
    pub(crate) fn join_expired(&mut self, step: &mut Step<'_>) -> Outcome {
        if self.state != ClassicState::PreparingRebalance {
            return Outcome::NOTHING;
        }
        if let Some(InitialDelay {
            delay_ms,
            remaining_ms,
        }) = self.initial_delay
            && self.new_member_added
            && remaining_ms > 0
        {
            self.new_member_added = false;
            let configured_ms = i64::from(step.settings.initial_rebalance_delay_ms);
            let next_ms = configured_ms.min(remaining_ms);
            self.initial_delay = Some(InitialDelay {
                delay_ms: next_ms,
                remaining_ms: remaining_ms.saturating_sub(delay_ms).max(0),
            });
            step.timers.schedule(self.join_timer(), next_ms);
            return Outcome::NOTHING;
        }
        self.complete_join(step)
    }

    /// Begins the next generation with those who are here.
    pub(super) fn complete_join(&mut self, step: &mut Step<'_>) -> Outcome {
        step.timers.cancel(self.join_timer());
        self.initial_delay = None;
        self.remove_absent_dynamic_members(step);
        if !self.elect_present_leader() && !self.members.is_empty() {
            // Only static members are left, and none of them is here: they are waited for until
            // their sessions end.
            let timeout_ms = i64::from(self.rebalance_timeout_ms());
            step.timers.schedule(self.join_timer(), timeout_ms);
            return Outcome::NOTHING;
        }
        self.begin_generation(step.now.wall_ms);
        if self.state == ClassicState::Empty {
            tracing::info!(group = %self.id, generation = self.generation, "group is empty");
            return Outcome::written(vec![self.record()], Then::Nothing);
        }
        tracing::info!(
            group = %self.id,
            generation = self.generation,
            members = self.members.len(),
            "group has a new generation"
        );
        let ids: Vec<Str> = self.members.keys().cloned().collect();
        for id in ids {
            let response = self.generation_for(&id, self.is_leader(&id));
            self.answer_join(step, &id, response);
            self.renew_session(step, &id);
            if let Some(member) = self.members.get_mut(&id) {
                member.is_new = false;
            }
            self.pending_sync.insert(id);
        }
        let timeout_ms = i64::from(self.rebalance_timeout_ms());
        step.timers.schedule(self.sync_timer(), timeout_ms);
        Outcome::NOTHING
    }

    fn remove_absent_dynamic_members(&mut self, step: &mut Step<'_>) {
        let absent = |member: &&Member| member.awaiting_join.is_none() && member.instance.is_none();
        let absent: Vec<Str> = self
            .members
            .values()
            .filter(absent)
            .map(|member| member.id.clone())
            .collect();
        for id in absent {
            self.cancel_session(step, &id);
            if let Some(member) = self.remove(&id) {
                self.dismiss(step, member);
            }
        }
    }

    /// Makes somebody the leader who is here; says whether there is anybody.
    fn elect_present_leader(&mut self) -> bool {
        let Some(leader) = self.leader.as_ref().and_then(|id| self.members.get(id)) else {
            return false;
        };
        if leader.awaiting_join.is_some() {
            return true;
        }
        let mut present = self.members.values().filter(|m| m.awaiting_join.is_some());
        match present.next() {
            Some(member) => {
                self.leader = Some(member.id.clone());
                true
            }
            None => false,
        }
    }

    fn begin_generation(&mut self, now_ms: i64) {
        self.generation = self.generation.wrapping_add(1).max(0);
        self.assigning = false;
        self.pending_sync.clear();
        if self.members.is_empty() {
            self.protocol_name = None;
            self.subscribed_topics = self.compute_subscribed_topics();
            self.turn_to(ClassicState::Empty, now_ms);
        } else {
            self.protocol_name = self.select_protocol();
            self.subscribed_topics = self.compute_subscribed_topics();
            self.turn_to(ClassicState::CompletingRebalance, now_ms);
        }
    }

    /// Those who wait for an assignment get an error instead, and nobody has one.
    pub(super) fn withdraw_assignment(&mut self, step: &mut Step<'_>, error: ErrorCode) {
        self.assigning = false;
        let mut heard = Vec::new();
        for member in self.members.values_mut() {
            member.assignment = bytes::Bytes::new();
            if let Some(token) = member.awaiting_sync.take() {
                step.reply(token, sync_refused(error));
                heard.push(member.id.clone());
            }
        }
        for id in heard {
            self.renew_session(step, &id);
        }
    }
}
