//! A member's next step towards its target (KIP-848's reconciliation, Kafka's
//! `CurrentAssignmentBuilder`).
//!
//! Pure. The rule that keeps a partition from having two owners: a member gets a partition only
//! when nobody else's epoch holds it, and stays in its epoch until it has said that it gave up
//! what it has to give up.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use chronik_protocol::{ErrorCode, Uuid};

use super::super::caller::Refusal;
use super::assignor::Partitions;
use super::member::{Member, MemberState, Owned};

/// What a member is held against.
pub(crate) struct Reconciliation<'a> {
    /// Epoch of the target.
    pub(crate) target_epoch: i32,
    /// The member's part of it.
    pub(crate) target: &'a Partitions,
    /// Topics that exist and the member subscribes to; an expression that has not been resolved
    /// counts as nothing.
    pub(crate) subscribed: &'a BTreeSet<Uuid>,
    /// The request at hand changed the subscription.
    pub(crate) subscription_changed: bool,
    /// What the member says it owns; `None` when it does not say.
    pub(crate) owned: Option<&'a Partitions>,
    /// Whether some member's epoch holds the partition.
    pub(crate) is_taken: &'a dyn Fn(Uuid, i32) -> bool,
}

/// What [`Reconciliation::plan`] comes to.
#[derive(Default)]
struct Plan {
    assigned: Owned,
    revoking: Owned,
    /// Free and wanted.
    pending: Partitions,
    /// Something wanted is not free.
    waits: bool,
}

impl Reconciliation<'_> {
    /// The member after one step; equal to `member` when it cannot or need not move.
    ///
    /// # Errors
    /// `FENCED_MEMBER_EPOCH` when the member's state was written by a Kafka that knows more, and
    /// it still owns something.
    pub(crate) fn step(&self, member: &Member) -> Result<Member, Refusal> {
        match member.state {
            MemberState::Stable if member.epoch != self.target_epoch => {
                Ok(self.advance(member, member.epoch))
            }
            MemberState::Stable if self.subscription_changed => Ok(self.shrink(member)),
            MemberState::Stable => Ok(member.clone()),
            MemberState::UnrevokedPartitions if self.still_owns(&member.revoking) => {
                if self.subscription_changed {
                    Ok(self.shrink(member))
                } else {
                    Ok(member.clone())
                }
            }
            MemberState::UnrevokedPartitions | MemberState::UnreleasedPartitions => {
                Ok(self.advance(member, member.epoch))
            }
            MemberState::Unknown if self.owned.is_some_and(BTreeMap::is_empty) => {
                Ok(self.advance(member, self.target_epoch))
            }
            MemberState::Unknown => Err(Refusal::new(
                ErrorCode::FencedMemberEpoch,
                "The consumer group member is in a unknown state. The member must abandon all its \
                 partitions and rejoin.",
            )),
        }
    }

    /// Whether the member may still use one of these; if it does not say what it owns, it may.
    fn still_owns(&self, partitions: &Owned) -> bool {
        let Some(owned) = self.owned else {
            return true;
        };
        owned.iter().any(|(topic, owned)| {
            let partitions = partitions.get(topic);
            partitions.is_some_and(|p| owned.iter().any(|number| p.contains_key(number)))
        })
    }

    /// Takes topics out that the member unsubscribed from, within its epoch.
    fn shrink(&self, member: &Member) -> Member {
        let (assigned, lost): (Owned, Owned) = member
            .assigned
            .iter()
            .map(|(topic, partitions)| (*topic, partitions.clone()))
            .partition(|(topic, _)| self.subscribed.contains(topic));
        if lost.is_empty() {
            return member.clone();
        }
        let mut next = member.clone();
        let mut revoking = Owned::clone(&member.revoking);
        for (topic, partitions) in lost {
            revoking.entry(topic).or_default().extend(partitions);
        }
        next.previous_epoch = member.epoch;
        next.assigned = Arc::new(assigned);
        if self.still_owns(&revoking) {
            next.state = MemberState::UnrevokedPartitions;
            next.revoking = Arc::new(revoking);
        }
        next
    }

    fn plan(&self, member: &Member) -> Plan {
        let mut plan = Plan::default();
        let (nothing_owned, nothing_wanted) = (BTreeMap::new(), BTreeSet::new());
        let topics: BTreeSet<Uuid> = self
            .target
            .keys()
            .chain(member.assigned.keys())
            .copied()
            .collect();
        for topic in topics {
            let current = member.assigned.get(&topic).unwrap_or(&nothing_owned);
            let target = self.target.get(&topic);
            let target = target.filter(|_| self.subscribed.contains(&topic));
            let target = target.unwrap_or(&nothing_wanted);
            let (assigned, revoking): (BTreeMap<i32, i32>, BTreeMap<i32, i32>) = current
                .iter()
                .partition(|(partition, _)| target.contains(partition));
            // What this very member is giving up is taken by nobody else.
            let own = member.revoking.get(&topic);
            let is_own = |partition: &i32| own.is_some_and(|own| own.contains_key(partition));
            let wanted = target.iter().filter(|p| !current.contains_key(p));
            let (waiting, pending): (BTreeSet<i32>, BTreeSet<i32>) =
                wanted.partition(|p| (self.is_taken)(topic, **p) && !is_own(p));
            plan.waits |= !waiting.is_empty();
            if !assigned.is_empty() {
                plan.assigned.insert(topic, assigned);
            }
            if !revoking.is_empty() {
                plan.revoking.insert(topic, revoking);
            }
            if !pending.is_empty() {
                plan.pending.insert(topic, pending);
            }
        }
        plan
    }

    fn advance(&self, member: &Member, epoch: i32) -> Member {
        let mut plan = self.plan(member);
        let mut next = member.clone();
        next.previous_epoch = member.epoch;
        if !plan.revoking.is_empty() && self.still_owns(&plan.revoking) {
            next.epoch = epoch;
            next.state = MemberState::UnrevokedPartitions;
            next.assigned = Arc::new(plan.assigned);
            next.revoking = Arc::new(plan.revoking);
            return next;
        }
        for (topic, partitions) in plan.pending {
            let since = partitions.into_iter().map(|p| (p, self.target_epoch));
            plan.assigned.entry(topic).or_default().extend(since);
        }
        next.epoch = self.target_epoch;
        next.state = if plan.waits {
            MemberState::UnreleasedPartitions
        } else {
            MemberState::Stable
        };
        next.assigned = Arc::new(plan.assigned);
        next.revoking = Arc::default();
        next
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use chronik_protocol::Str;

    const A: Uuid = Uuid(200);
    const B: Uuid = Uuid(201);

    fn partitions(of: &[(Uuid, &[i32])]) -> Partitions {
        of.iter()
            .map(|(topic, numbers)| (*topic, numbers.iter().copied().collect()))
            .collect()
    }

    fn owned(of: &[(Uuid, &[(i32, i32)])]) -> Arc<Owned> {
        let of = of
            .iter()
            .map(|(topic, pairs)| (*topic, pairs.iter().copied().collect()));
        Arc::new(of.collect())
    }

    /// Steps a member towards (epoch 11, target) with everything subscribed.
    fn step(
        member: &Member,
        target: &[(Uuid, &[i32])],
        reported: Option<&[(Uuid, &[i32])]>,
        taken: &[(Uuid, i32)],
    ) -> Member {
        let (target, reported) = (partitions(target), reported.map(partitions));
        let reconciliation = Reconciliation {
            target_epoch: 11,
            target: &target,
            subscribed: &BTreeSet::from([A, B]),
            subscription_changed: false,
            owned: reported.as_ref(),
            is_taken: &|topic, partition| taken.contains(&(topic, partition)),
        };
        reconciliation.step(member).expect("no refusal")
    }

    fn stable() -> Member {
        let mut member = Member::new(Str::from("m"));
        member.epoch = 10;
        member.assigned = owned(&[(A, &[(1, 10), (2, 10)])]);
        member
    }

    #[test]
    fn nothing_to_give_up_is_one_step() {
        let next = step(&stable(), &[(A, &[1, 2, 3]), (B, &[0])], None, &[]);
        assert_eq!((next.epoch, next.previous_epoch), (11, 10));
        assert_eq!(next.state, MemberState::Stable);
        let expected = owned(&[(A, &[(1, 10), (2, 10), (3, 11)]), (B, &[(0, 11)])]);
        assert_eq!(next.assigned, expected);
        assert_eq!(step(&next, &[(A, &[1])], None, &[]), next, "already there");
    }

    #[test]
    fn what_is_to_be_given_up_comes_first() {
        let target: &[(Uuid, &[i32])] = &[(A, &[2]), (B, &[0])];
        let next = step(&stable(), target, None, &[]);
        assert_eq!((next.epoch, next.previous_epoch), (10, 10));
        assert_eq!(next.state, MemberState::UnrevokedPartitions);
        assert_eq!(next.assigned, owned(&[(A, &[(2, 10)])]));
        assert_eq!(next.revoking, owned(&[(A, &[(1, 10)])]));
        // Silence and a report that still has it change nothing.
        assert_eq!(step(&next, target, None, &[]), next);
        assert_eq!(step(&next, target, Some(&[(A, &[1, 2])]), &[]), next);
        let done = step(&next, target, Some(&[(A, &[2])]), &[(A, 1)]);
        assert_eq!((done.epoch, done.state), (11, MemberState::Stable));
        assert_eq!(done.assigned, owned(&[(A, &[(2, 10)]), (B, &[(0, 11)])]));
        assert!(done.revoking.is_empty());
    }

    #[test]
    fn partitions_of_others_are_waited_for() {
        let target: &[(Uuid, &[i32])] = &[(A, &[1, 2, 3])];
        let next = step(&stable(), target, None, &[(A, 3)]);
        assert_eq!(
            (next.epoch, next.state),
            (11, MemberState::UnreleasedPartitions)
        );
        assert_eq!(next.assigned, stable().assigned);
        let done = step(&next, target, None, &[]);
        assert_eq!(done.state, MemberState::Stable);
        assert_eq!(done.assigned, owned(&[(A, &[(1, 10), (2, 10), (3, 11)])]));
    }

    #[test]
    fn a_partition_comes_back_that_was_being_given_up() {
        let mut member = stable();
        member.state = MemberState::UnrevokedPartitions;
        member.assigned = owned(&[(A, &[(2, 10)])]);
        member.revoking = owned(&[(A, &[(1, 10)])]);
        let done = step(
            &member,
            &[(A, &[1, 2])],
            Some(&[(A, &[2])]),
            &[(A, 1), (A, 2)],
        );
        assert_eq!((done.epoch, done.state), (11, MemberState::Stable));
        assert_eq!(done.assigned, owned(&[(A, &[(1, 11), (2, 10)])]));
    }

    #[test]
    fn an_unsubscribed_topic_goes_within_the_epoch() {
        let mut member = stable();
        member.epoch = 11;
        let (target, nothing) = (partitions(&[(A, &[1, 2])]), Partitions::new());
        let mut reconciliation = Reconciliation {
            target_epoch: 11,
            target: &target,
            subscribed: &BTreeSet::from([B]),
            subscription_changed: true,
            owned: None,
            is_taken: &|_, _| false,
        };
        let next = reconciliation.step(&member).expect("no refusal");
        assert_eq!(
            (next.epoch, next.state),
            (11, MemberState::UnrevokedPartitions)
        );
        assert!(next.assigned.is_empty());
        assert_eq!(next.revoking, member.assigned);
        reconciliation.owned = Some(&nothing);
        let given_up = reconciliation.step(&member).expect("no refusal");
        assert_eq!(given_up.state, MemberState::Stable);
        assert!(given_up.assigned.is_empty() && given_up.revoking.is_empty());
    }

    #[test]
    fn an_unknown_state_is_fenced_unless_nothing_is_owned() {
        let mut member = stable();
        member.state = MemberState::Unknown;
        let (target, nothing) = (partitions(&[(A, &[1])]), Partitions::new());
        let mut reconciliation = Reconciliation {
            target_epoch: 11,
            target: &target,
            subscribed: &BTreeSet::from([A]),
            subscription_changed: false,
            owned: None,
            is_taken: &|_, _| false,
        };
        let refusal = reconciliation.step(&member).expect_err("fenced");
        assert_eq!(refusal.code, ErrorCode::FencedMemberEpoch);
        reconciliation.owned = Some(&nothing);
        let next = reconciliation.step(&member).expect("no refusal");
        assert_eq!((next.epoch, next.state), (11, MemberState::Stable));
    }
}
