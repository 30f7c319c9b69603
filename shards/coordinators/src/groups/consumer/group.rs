//! A consumer group: what replaying its records gives, and the counts kept beside it.
//!
//! The hard state changes in [`ConsumerGroup::replay`] only, so that reading `__consumer_offsets`
//! again gives the same group. Decisions (`heartbeat`, `leave`, `classic_members`) read it and make
//! records.

use std::collections::BTreeMap;
use std::sync::Arc;

use chronik_protocol::records_of::{GroupKey, GroupValue};
use chronik_protocol::{Str, Uuid};

use super::super::records::GroupRecord;
use super::assignor::Partitions;
use super::member::{LEAVE_EPOCH, Member, Owned};
use super::regex::{Resolution, Resolved};

/// Epoch of a group, and of its target, before the first record (`TargetAssignmentMetadata`).
const FIRST_EPOCH: i32 = 1;
/// A target that was removed.
const NO_TARGET_EPOCH: i32 = -1;

/// How far a group is, in Kafka's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum GroupState {
    /// It has no members.
    Empty,
    /// Its epoch has no target yet.
    Assigning,
    /// Members are on their way to the target.
    Reconciling,
    /// Everyone has what the target says.
    Stable,
}

impl GroupState {
    /// As tools show it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            GroupState::Empty => "Empty",
            GroupState::Assigning => "Assigning",
            GroupState::Reconciling => "Reconciling",
            GroupState::Stable => "Stable",
        }
    }
}

/// How many there are of each.
type Counts = BTreeMap<Str, usize>;

/// See the module's text.
#[derive(Clone, Debug)]
pub(crate) struct ConsumerGroup {
    pub(crate) id: Str,
    /// Grows whenever the target has to be made anew.
    pub(crate) epoch: i32,
    pub(crate) metadata_hash: i64,
    pub(crate) members: BTreeMap<Str, Arc<Member>>,
    /// Epoch the target was made for.
    pub(crate) assignment_epoch: i32,
    /// When, ms since the epoch; 0 when that is not known.
    pub(crate) assignment_timestamp_ms: i64,
    pub(crate) targets: BTreeMap<Str, Arc<Partitions>>,
    /// What expressions match.
    pub(crate) resolved: BTreeMap<Str, Resolved>,
    /// Kafka 4.0 left a record that is to be removed with the next change.
    pub(crate) has_partition_metadata: bool,
    static_members: BTreeMap<Str, Str>,
    /// Members that name a topic, plus expressions that match it.
    topics: Counts,
    assignors: Counts,
    regexes: Counts,
    classic_members: usize,
    classic_protocols: Counts,
    /// Epoch of the member that holds a partition.
    partition_epochs: BTreeMap<Uuid, BTreeMap<i32, i32>>,
    /// The image whose topics the metadata hash was last compared with. Not in the log.
    pub(crate) hashed_at: Option<i64>,
    /// Expressions on their way over the topics. Not in the log.
    pub(crate) resolution: Option<Box<Resolution>>,
}

impl ConsumerGroup {
    /// A group nobody has written about.
    pub(crate) fn new(id: Str) -> ConsumerGroup {
        ConsumerGroup {
            id,
            epoch: FIRST_EPOCH,
            metadata_hash: 0,
            members: BTreeMap::new(),
            assignment_epoch: FIRST_EPOCH,
            assignment_timestamp_ms: 0,
            targets: BTreeMap::new(),
            resolved: BTreeMap::new(),
            has_partition_metadata: false,
            static_members: BTreeMap::new(),
            topics: Counts::new(),
            assignors: Counts::new(),
            regexes: Counts::new(),
            classic_members: 0,
            classic_protocols: Counts::new(),
            partition_epochs: BTreeMap::new(),
            hashed_at: None,
            resolution: None,
        }
    }

    /// How far the group is; looks at every member.
    pub(crate) fn state(&self) -> GroupState {
        let mut members = self.members.values();
        if self.members.is_empty() {
            GroupState::Empty
        } else if self.epoch > self.assignment_epoch {
            GroupState::Assigning
        } else if members.all(|member| member.is_reconciled_to(self.assignment_epoch)) {
            GroupState::Stable
        } else {
            GroupState::Reconciling
        }
    }

    /// The member of this instance.
    pub(crate) fn static_member(&self, instance: &str) -> Option<&Arc<Member>> {
        self.members.get(self.static_members.get(instance)?)
    }

    /// Whether a member names the topic or an expression matches it.
    pub(crate) fn subscribes_to(&self, topic: &str) -> bool {
        self.topics.contains_key(topic)
    }

    /// Names subscribed to and how often, ascending by name.
    pub(crate) fn topics(&self) -> &BTreeMap<Str, usize> {
        &self.topics
    }

    /// Assignors that members ask for and how many do.
    pub(crate) fn assignors(&self) -> &BTreeMap<Str, usize> {
        &self.assignors
    }

    /// Expressions that members subscribe by and how many do.
    pub(crate) fn regexes(&self) -> &BTreeMap<Str, usize> {
        &self.regexes
    }

    /// Members that speak the classic protocol.
    pub(crate) fn classic_members(&self) -> usize {
        self.classic_members
    }

    /// Protocols that classic members offer and how many do.
    pub(crate) fn classic_protocols(&self) -> &BTreeMap<Str, usize> {
        &self.classic_protocols
    }

    /// Whether some member's epoch holds the partition.
    pub(crate) fn is_taken(&self, topic: Uuid, partition: i32) -> bool {
        let partitions = self.partition_epochs.get(&topic);
        partitions.is_some_and(|partitions| partitions.contains_key(&partition))
    }

    /// A member's part of the target.
    pub(crate) fn target_of(&self, member: &str) -> Arc<Partitions> {
        self.targets.get(member).cloned().unwrap_or_default()
    }

    /// Takes a record over. `false` when the group is gone with it. A tombstone of what is not
    /// there is nothing.
    pub(crate) fn replay(&mut self, record: &GroupRecord) -> bool {
        let value = record.value.as_ref().map(|(value, _)| value);
        match (&record.key, value) {
            (
                GroupKey::ConsumerGroupMetadata(_),
                Some(GroupValue::ConsumerGroupMetadata(value)),
            ) => {
                self.epoch = value.epoch;
                self.metadata_hash = value.metadata_hash;
            }
            (GroupKey::ConsumerGroupMetadata(_), _) => return false,
            (GroupKey::ConsumerGroupPartitionMetadata(_), value) => {
                self.has_partition_metadata = value.is_some();
            }
            (GroupKey::ConsumerGroupTargetAssignmentMetadata(_), value) => {
                let made = match value {
                    Some(GroupValue::ConsumerGroupTargetAssignmentMetadata(value)) => {
                        (value.assignment_epoch, value.assignment_timestamp)
                    }
                    _ => (NO_TARGET_EPOCH, 0),
                };
                (self.assignment_epoch, self.assignment_timestamp_ms) = made;
            }
            (GroupKey::ConsumerGroupRegularExpression(key), value) => {
                let resolved = match value {
                    Some(GroupValue::ConsumerGroupRegularExpression(value)) => Some(Resolved {
                        topics: value.topics.iter().cloned().collect(),
                        version: value.version,
                        timestamp_ms: value.timestamp,
                    }),
                    _ => None,
                };
                self.replace_resolved(&key.regular_expression, resolved);
            }
            _ => self.replay_member(record),
        }
        true
    }

    fn replay_member(&mut self, record: &GroupRecord) {
        let value = record.value.as_ref().map(|(value, _)| value);
        match (&record.key, value) {
            (
                GroupKey::ConsumerGroupMemberMetadata(key),
                Some(GroupValue::ConsumerGroupMemberMetadata(value)),
            ) => self.update_member(&key.member_id, true, |member| member.describe(value)),
            (GroupKey::ConsumerGroupMemberMetadata(key), _) => self.remove_member(&key.member_id),
            (
                GroupKey::ConsumerGroupCurrentMemberAssignment(key),
                Some(GroupValue::ConsumerGroupCurrentMemberAssignment(value)),
            ) => self.update_member(&key.member_id, true, |member| member.place(value)),
            (GroupKey::ConsumerGroupCurrentMemberAssignment(key), _) => {
                self.update_member(&key.member_id, false, |member| {
                    member.epoch = LEAVE_EPOCH;
                    member.previous_epoch = LEAVE_EPOCH;
                    member.assigned = Arc::default();
                    member.revoking = Arc::default();
                });
            }
            (
                GroupKey::ConsumerGroupTargetAssignmentMember(key),
                Some(GroupValue::ConsumerGroupTargetAssignmentMember(value)),
            ) => {
                let mut partitions = Partitions::new();
                for topic in &value.topic_partitions {
                    let numbers = topic.partitions.iter().copied();
                    partitions.insert(topic.topic_id, numbers.collect());
                }
                self.targets
                    .insert(key.member_id.clone(), Arc::new(partitions));
            }
            (GroupKey::ConsumerGroupTargetAssignmentMember(key), _) => {
                self.targets.remove(&key.member_id);
            }
            _ => {}
        }
    }

    fn update_member(&mut self, id: &Str, create: bool, change: impl FnOnce(&mut Member)) {
        let old = self.members.get(id).cloned();
        let mut member = match &old {
            Some(old) => Member::clone(old),
            None if create => Member::new(id.clone()),
            None => return,
        };
        change(&mut member);
        if let Some(old) = &old {
            self.uncount(old);
        }
        self.count(&member);
        self.members.insert(id.clone(), Arc::new(member));
    }

    fn remove_member(&mut self, id: &Str) {
        if let Some(old) = self.members.remove(id) {
            self.uncount(&old);
        }
    }

    fn count(&mut self, member: &Member) {
        if let Some(instance) = &member.instance_id {
            self.static_members
                .insert(instance.clone(), member.id.clone());
        }
        member
            .topic_names
            .iter()
            .for_each(|name| increase(&mut self.topics, name));
        if let Some(assignor) = &member.server_assignor {
            increase(&mut self.assignors, assignor);
        }
        if let Some(regex) = member.regex() {
            increase(&mut self.regexes, regex);
        }
        if let Some(classic) = &member.classic {
            self.classic_members += 1;
            for protocol in &classic.supported_protocols {
                increase(&mut self.classic_protocols, &protocol.name);
            }
        }
        self.take(&member.assigned, member.epoch);
        self.take(&member.revoking, member.epoch);
    }

    fn uncount(&mut self, member: &Member) {
        if let Some(instance) = &member.instance_id
            && self.static_members.get(instance) == Some(&member.id)
        {
            self.static_members.remove(instance);
        }
        member
            .topic_names
            .iter()
            .for_each(|name| decrease(&mut self.topics, name));
        if let Some(assignor) = &member.server_assignor {
            decrease(&mut self.assignors, assignor);
        }
        if let Some(regex) = member.regex() {
            decrease(&mut self.regexes, regex);
        }
        if let Some(classic) = &member.classic {
            self.classic_members = self.classic_members.saturating_sub(1);
            for protocol in &classic.supported_protocols {
                decrease(&mut self.classic_protocols, &protocol.name);
            }
        }
        self.release(&member.assigned, member.epoch);
        self.release(&member.revoking, member.epoch);
    }

    /// The member's epoch holds these partitions from now on.
    fn take(&mut self, owned: &Owned, epoch: i32) {
        for (topic, partitions) in owned {
            let held = self.partition_epochs.entry(*topic).or_default();
            for partition in partitions.keys() {
                let holder = held.entry(*partition).or_insert(epoch);
                if *holder > epoch {
                    let (group, topic) = (&self.id, *topic);
                    tracing::warn!(%group, %topic, partition, holder, epoch, "two members hold a partition");
                }
                *holder = epoch.max(*holder);
            }
        }
    }

    /// Lets partitions go that are held by this epoch; a newer holder keeps them.
    fn release(&mut self, owned: &Owned, epoch: i32) {
        for (topic, partitions) in owned {
            let Some(held) = self.partition_epochs.get_mut(topic) else {
                continue;
            };
            for partition in partitions.keys() {
                if held.get(partition) == Some(&epoch) {
                    held.remove(partition);
                }
            }
            if held.is_empty() {
                self.partition_epochs.remove(topic);
            }
        }
    }

    fn replace_resolved(&mut self, pattern: &Str, resolved: Option<Resolved>) {
        let old = match &resolved {
            Some(resolved) => self.resolved.insert(pattern.clone(), resolved.clone()),
            None => self.resolved.remove(pattern),
        };
        for name in old.iter().flat_map(|old| &old.topics) {
            decrease(&mut self.topics, name);
        }
        for name in resolved.iter().flat_map(|resolved| &resolved.topics) {
            increase(&mut self.topics, name);
        }
    }
}

/// One more of `name`.
pub(super) fn increase(counts: &mut Counts, name: &Str) {
    *counts.entry(name.clone()).or_default() += 1;
}

/// One less of `name`; none is not kept.
pub(super) fn decrease(counts: &mut Counts, name: &Str) {
    if let Some(count) = counts.get_mut(name) {
        *count = count.saturating_sub(1);
        if *count == 0 {
            counts.remove(name);
        }
    }
}
