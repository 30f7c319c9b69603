//! The record of a classic group, and the group a record tells of.

use bytes::Bytes;
use chronik_protocol::Str;
use chronik_protocol::messages::group_metadata_value::MemberMetadata;
use chronik_protocol::messages::{GroupMetadataKey, GroupMetadataValue};
use chronik_protocol::records_of::{GroupKey, GroupValue};

use super::group::{ClassicGroup, ClassicState};
use super::member::{Member, Protocol};
use crate::groups::outcome::Outcome;
use crate::groups::records::{GROUP_METADATA_VERSION, GroupRecord};
use crate::groups::step::Step;

impl ClassicGroup {
    /// The record of the group as it is.
    pub(crate) fn record(&self) -> GroupRecord {
        let protocol = self.protocol_name.clone();
        let member = |member: &Member| MemberMetadata {
            member_id: member.id.clone(),
            group_instance_id: member.instance.clone(),
            client_id: member.client_id.clone(),
            client_host: member.client_host.clone(),
            rebalance_timeout: member.rebalance_timeout_ms,
            session_timeout: member.session_timeout_ms,
            subscription: member.metadata(protocol.as_deref().unwrap_or_default()),
            assignment: member.assignment.clone(),
            ..MemberMetadata::default()
        };
        self.record_of(GroupMetadataValue {
            protocol_type: self.protocol_type.clone().unwrap_or_default(),
            generation: self.generation,
            protocol: self.protocol_name.clone(),
            leader: self.leader.clone(),
            current_state_timestamp: self.state_timestamp_ms.unwrap_or(-1),
            members: self.members.values().map(member).collect(),
            ..GroupMetadataValue::default()
        })
    }

    /// The record of a group that nobody is a member of yet.
    pub(crate) fn empty_record(&self) -> GroupRecord {
        self.record_of(GroupMetadataValue {
            generation: 0,
            protocol: None,
            leader: None,
            current_state_timestamp: self.state_timestamp_ms.unwrap_or(-1),
            ..GroupMetadataValue::default()
        })
    }

    fn record_of(&self, value: GroupMetadataValue) -> GroupRecord {
        GroupRecord {
            key: GroupKey::GroupMetadata(GroupMetadataKey {
                group: self.id.clone(),
            }),
            value: Some((GroupValue::GroupMetadata(value), GROUP_METADATA_VERSION)),
        }
    }

    /// The log has been read: every member has a whole session to be heard of.
    pub(crate) fn loaded(&mut self, step: &mut Step<'_>) -> Outcome {
        for member in self.members.values() {
            self.schedule_session(step, &member.id, i64::from(member.session_timeout_ms));
        }
        if self.members.len() > step.settings.max_size {
            // `group.max.size` was made smaller.
            return self.prepare_rebalance(step);
        }
        Outcome::NOTHING
    }

    /// The group a record tells of. Members that were told a later generation find out by their
    /// next request.
    pub(crate) fn replayed(id: Str, value: &GroupMetadataValue) -> ClassicGroup {
        let state = if value.members.is_empty() {
            ClassicState::Empty
        } else {
            ClassicState::Stable
        };
        let mut group = ClassicGroup {
            state,
            state_timestamp_ms: Some(value.current_state_timestamp).filter(|ms| *ms != -1),
            generation: value.generation,
            protocol_type: Some(value.protocol_type.clone()).filter(|name| !name.is_empty()),
            protocol_name: value.protocol.clone(),
            leader: value.leader.clone(),
            ..ClassicGroup::new(id, 0)
        };
        for member in &value.members {
            let member = Member {
                id: member.member_id.clone(),
                instance: member.group_instance_id.clone(),
                client_id: member.client_id.clone(),
                client_host: member.client_host.clone(),
                rebalance_timeout_ms: match member.rebalance_timeout {
                    -1 => member.session_timeout,
                    timeout_ms => timeout_ms,
                },
                session_timeout_ms: member.session_timeout,
                protocols: vec![Protocol {
                    name: value.protocol.clone().unwrap_or_default(),
                    metadata: Bytes::clone(&member.subscription),
                }],
                assignment: Bytes::clone(&member.assignment),
                awaiting_join: None,
                awaiting_sync: None,
                is_new: false,
            };
            group.add(member, &value.protocol_type);
        }
        group.subscribed_topics = group.compute_subscribed_topics();
        group
    }
}
