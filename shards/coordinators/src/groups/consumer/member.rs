//! A member of a consumer group, as the records of `__consumer_offsets` describe it.
//!
//! Plain values. How a member moves from one epoch to the next is in `reconcile`.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use chronik_protocol::messages::consumer_group_current_member_assignment_value::TopicPartitions;
use chronik_protocol::messages::consumer_group_member_metadata_value::{
    ClassicMemberMetadata, ClassicProtocol,
};
use chronik_protocol::messages::{
    ConsumerGroupCurrentMemberAssignmentValue, ConsumerGroupMemberMetadataValue,
};
use chronik_protocol::{Str, Uuid};

/// Epoch of a member that leaves for good.
pub(crate) const LEAVE_EPOCH: i32 = -1;
/// Epoch of a static member that means to come back.
pub(crate) const LEAVE_STATIC_EPOCH: i32 = -2;

/// By topic and partition, the member epoch since which the member has it (KIP-1251).
pub(crate) type Owned = BTreeMap<Uuid, BTreeMap<i32, i32>>;

/// Where a member stands on its way to the target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum MemberState {
    /// It has what its epoch gives it.
    Stable,
    /// It has to give partitions up before it may go on.
    UnrevokedPartitions,
    /// It is in the newest epoch and waits for partitions that others have not given up.
    UnreleasedPartitions,
    /// Written by a Kafka that knows more states.
    Unknown,
}

impl MemberState {
    fn number(self) -> i8 {
        match self {
            MemberState::Stable => 0,
            MemberState::UnrevokedPartitions => 1,
            MemberState::UnreleasedPartitions => 2,
            MemberState::Unknown => 127,
        }
    }

    fn of(number: i8) -> MemberState {
        match number {
            0 => MemberState::Stable,
            1 => MemberState::UnrevokedPartitions,
            2 => MemberState::UnreleasedPartitions,
            _ => MemberState::Unknown,
        }
    }
}

/// See the module's text.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Member {
    pub(crate) id: Str,
    /// Last epoch told to the member; [`LEAVE_STATIC_EPOCH`] while a static member is away.
    pub(crate) epoch: i32,
    /// The epoch before: a request with it may be the repetition of one whose answer got lost.
    pub(crate) previous_epoch: i32,
    pub(crate) state: MemberState,
    pub(crate) instance_id: Option<Str>,
    pub(crate) rack_id: Option<Str>,
    pub(crate) rebalance_timeout_ms: i32,
    pub(crate) client_id: Str,
    /// As Kafka prints an address: `/127.0.0.1`.
    pub(crate) client_host: Str,
    pub(crate) topic_names: Arc<BTreeSet<Str>>,
    /// `None` and empty both mean that there is none.
    pub(crate) topic_regex: Option<Str>,
    pub(crate) server_assignor: Option<Str>,
    pub(crate) assigned: Arc<Owned>,
    /// No more assigned, but not given up yet either.
    pub(crate) revoking: Arc<Owned>,
    /// Set when the member speaks the classic protocol.
    pub(crate) classic: Option<Arc<ClassicMemberMetadata>>,
}

impl Member {
    /// A member that has not been heard of.
    pub(crate) fn new(id: Str) -> Member {
        Member {
            id,
            epoch: 0,
            previous_epoch: -1,
            state: MemberState::Stable,
            instance_id: None,
            rack_id: None,
            rebalance_timeout_ms: -1,
            client_id: Str::default(),
            client_host: Str::default(),
            topic_names: Arc::default(),
            topic_regex: Some(Str::default()),
            server_assignor: None,
            assigned: Arc::default(),
            revoking: Arc::default(),
            classic: None,
        }
    }

    /// Whether the member has everything the target of `epoch` gives it.
    pub(crate) fn is_reconciled_to(&self, epoch: i32) -> bool {
        self.state == MemberState::Stable && self.epoch == epoch
    }

    /// The expression it subscribes by, if any.
    pub(crate) fn regex(&self) -> Option<&Str> {
        self.topic_regex.as_ref().filter(|regex| !regex.is_empty())
    }

    /// The epoch since which the member has a partition, or had it until it gives it up.
    pub(crate) fn epoch_of(&self, topic: Uuid, partition: i32) -> Option<i32> {
        let of = |owned: &Owned| owned.get(&topic)?.get(&partition).copied();
        of(&self.assigned).or_else(|| of(&self.revoking))
    }

    /// Takes over what a `ConsumerGroupMemberMetadata` record says.
    pub(crate) fn describe(&mut self, value: &ConsumerGroupMemberMetadataValue) {
        self.instance_id = value.instance_id.clone();
        self.rack_id = value.rack_id.clone();
        self.client_id = value.client_id.clone();
        self.client_host = value.client_host.clone();
        let names = value.subscribed_topic_names.iter().cloned().collect();
        if *self.topic_names != names {
            self.topic_names = Arc::new(names);
        }
        self.topic_regex = value.subscribed_topic_regex.clone();
        self.rebalance_timeout_ms = value.rebalance_timeout_ms;
        self.server_assignor = value.server_assignor.clone();
        self.classic = value.classic_member_metadata.clone().map(Arc::new);
    }

    /// The same as a record.
    pub(crate) fn description(&self) -> ConsumerGroupMemberMetadataValue {
        ConsumerGroupMemberMetadataValue {
            instance_id: self.instance_id.clone(),
            rack_id: self.rack_id.clone(),
            client_id: self.client_id.clone(),
            client_host: self.client_host.clone(),
            subscribed_topic_names: self.topic_names.iter().cloned().collect(),
            subscribed_topic_regex: self.topic_regex.clone(),
            rebalance_timeout_ms: self.rebalance_timeout_ms,
            server_assignor: self.server_assignor.clone(),
            classic_member_metadata: self.classic.as_deref().cloned(),
            ..ConsumerGroupMemberMetadataValue::default()
        }
    }

    /// Takes over what a `ConsumerGroupCurrentMemberAssignment` record says.
    pub(crate) fn place(&mut self, value: &ConsumerGroupCurrentMemberAssignmentValue) {
        self.epoch = value.member_epoch;
        self.previous_epoch = value.previous_member_epoch;
        self.state = MemberState::of(value.state);
        self.assigned = Arc::new(owned(&value.assigned_partitions, value.member_epoch));
        self.revoking = Arc::new(owned(
            &value.partitions_pending_revocation,
            value.member_epoch,
        ));
    }

    /// The same as a record.
    pub(crate) fn placement(&self) -> ConsumerGroupCurrentMemberAssignmentValue {
        ConsumerGroupCurrentMemberAssignmentValue {
            member_epoch: self.epoch,
            previous_member_epoch: self.previous_epoch,
            state: self.state.number(),
            assigned_partitions: topic_partitions(&self.assigned),
            partitions_pending_revocation: topic_partitions(&self.revoking),
            ..ConsumerGroupCurrentMemberAssignmentValue::default()
        }
    }
}

/// Records of Kafka before 4.3 have no epochs: the member's own stands in for them.
fn owned(topics: &[TopicPartitions], member_epoch: i32) -> Owned {
    let mut owned = Owned::new();
    for topic in topics {
        let epochs = topic.assignment_epochs.as_deref();
        let epochs = epochs.filter(|epochs| epochs.len() == topic.partitions.len());
        let of = |at: usize| epochs.and_then(|epochs| epochs.get(at).copied());
        let partitions = topic.partitions.iter().enumerate();
        let pairs = partitions.map(|(at, partition)| {
            let epoch = of(at).unwrap_or_else(|| member_epoch.max(0));
            (*partition, epoch)
        });
        owned.insert(topic.topic_id, pairs.collect());
    }
    owned
}

fn topic_partitions(owned: &Owned) -> Vec<TopicPartitions> {
    let topic = |(topic_id, partitions): (&Uuid, &BTreeMap<i32, i32>)| TopicPartitions {
        topic_id: *topic_id,
        partitions: partitions.keys().copied().collect(),
        assignment_epochs: Some(partitions.values().copied().collect()),
        ..TopicPartitions::default()
    };
    owned.iter().map(topic).collect()
}

/// A copy that keeps no frame alive.
pub(crate) fn detached_classic(classic: &ClassicMemberMetadata) -> ClassicMemberMetadata {
    let protocol = |protocol: &ClassicProtocol| ClassicProtocol {
        name: protocol.name.detached(),
        metadata: Bytes::copy_from_slice(&protocol.metadata),
        ..ClassicProtocol::default()
    };
    ClassicMemberMetadata {
        session_timeout_ms: classic.session_timeout_ms,
        supported_protocols: classic.supported_protocols.iter().map(protocol).collect(),
        ..ClassicMemberMetadata::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_member_is_what_its_records_say() {
        let mut member = Member::new(Str::from("m"));
        member.instance_id = Some(Str::from("i"));
        member.topic_names = Arc::new(BTreeSet::from([Str::from("a"), Str::from("b")]));
        member.topic_regex = None;
        member.epoch = 4;
        member.previous_epoch = 3;
        member.state = MemberState::UnrevokedPartitions;
        member.assigned = Arc::new(Owned::from([(Uuid(200), BTreeMap::from([(1, 2), (3, 4)]))]));
        member.revoking = Arc::new(Owned::from([(Uuid(201), BTreeMap::from([(0, 3)]))]));
        let mut copy = Member::new(Str::from("m"));
        copy.describe(&member.description());
        copy.place(&member.placement());
        assert_eq!(copy, member);
        assert_eq!(copy.epoch_of(Uuid(200), 3), Some(4));
        assert_eq!(copy.epoch_of(Uuid(201), 0), Some(3));
        assert_eq!(copy.epoch_of(Uuid(200), 0), None);
    }

    #[test]
    fn assignments_without_epochs_get_the_members() {
        let mut value = ConsumerGroupCurrentMemberAssignmentValue {
            member_epoch: 7,
            assigned_partitions: vec![TopicPartitions {
                topic_id: Uuid(200),
                partitions: vec![0, 1],
                assignment_epochs: None,
                ..TopicPartitions::default()
            }],
            ..ConsumerGroupCurrentMemberAssignmentValue::default()
        };
        let mut member = Member::new(Str::from("m"));
        member.place(&value);
        assert_eq!(member.epoch_of(Uuid(200), 1), Some(7));
        value.member_epoch = LEAVE_STATIC_EPOCH;
        value.assigned_partitions[0].assignment_epochs = Some(vec![5]);
        member.place(&value);
        assert_eq!(member.epoch_of(Uuid(200), 1), Some(0));
    }
}
