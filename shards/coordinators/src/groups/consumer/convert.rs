//! A classic group becomes a consumer group, and a consumer group a classic one
//! (`group.consumer.migration.policy`).
//!
//! Both are records: tombstones of what was and the whole of what is, in one batch. Assignments stay
//! as they are, members of the other protocol go on as such.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use bytes::Bytes;
use chronik_protocol::messages::consumer_group_member_metadata_value::{
    ClassicMemberMetadata, ClassicProtocol,
};
use chronik_protocol::messages::group_metadata_value::MemberMetadata;
use chronik_protocol::messages::{GroupMetadataKey, GroupMetadataValue};
use chronik_protocol::records_of::{GroupKey, GroupValue};
use chronik_protocol::{ErrorCode, Str};

use super::super::caller::Refusal;
use super::super::classic::group::{CONSUMER_PROTOCOL_TYPE, ClassicGroup};
use super::super::classic::member::Member as OldMember;
use super::super::records::GROUP_METADATA_VERSION;
use super::super::records::GroupRecord;
use super::super::step::Step;
use super::assignor::Partitions;
use super::group::ConsumerGroup;
use super::hash::metadata_hash;
use super::member::{Member, Owned};
use super::{embedded, records};

/// The consumer group that goes on where a classic group with members stands, and the records that
/// make it so.
///
/// # Errors
/// `GROUP_ID_NOT_FOUND` with the reason why the group cannot be converted.
pub(super) fn upgrade(
    id: &Str,
    classic: &ClassicGroup,
    step: &Step<'_>,
) -> Result<(ConsumerGroup, Vec<GroupRecord>), Refusal> {
    let refuse = |why: &str| {
        tracing::info!(group = %id, why, "a classic group is not converted");
        let message = format!("Cannot upgrade classic group {id} to consumer group because {why}.");
        Refusal::new(ErrorCode::GroupIdNotFound, message)
    };
    let settings = &step.settings.consumer;
    if !settings.migration.upgrade {
        return Err(refuse("online upgrade is disabled"));
    }
    if !classic.uses_consumer_protocol() {
        return Err(refuse(
            "the group does not use the consumer embedded protocol",
        ));
    }
    if classic.members().len() > settings.max_size {
        return Err(refuse(
            "the group size exceeds the consumer group maximum size",
        ));
    }
    let protocol = classic.protocol_name().cloned().unwrap_or_default();
    let mut members = Vec::new();
    for member in classic.members() {
        match upgraded(member, &protocol, classic.generation(), step) {
            Ok(Some(member)) => members.push(member),
            Ok(None) => {
                return Err(refuse(
                    "an unsupported custom assignor is in use. Please refer to the documentation \
                     or switch to a default assignor before re-attempting the upgrade",
                ));
            }
            Err(embedded::Malformed) => {
                return Err(refuse("the embedded consumer protocol is malformed"));
            }
        }
    }
    let records = consumer_records(id, classic.generation(), &members, step);
    let mut group = ConsumerGroup::new(id.clone());
    for record in &records {
        group.replay(record);
    }
    let mut out = vec![GroupRecord::group_tombstone(id)];
    out.extend(records);
    Ok((group, out))
}

/// A classic member as one of a consumer group, in the epoch of its generation; `None` when its
/// assignment holds more than partitions.
fn upgraded(
    old: &OldMember,
    protocol: &str,
    generation: i32,
    step: &Step<'_>,
) -> Result<Option<Member>, embedded::Malformed> {
    let Some(assigned) = embedded::assigned(&old.assignment, step.image)? else {
        return Ok(None);
    };
    let wishes = embedded::subscription(&old.metadata(protocol))?;
    let since = |numbers: &std::collections::BTreeSet<i32>| {
        numbers.iter().map(|number| (*number, generation)).collect()
    };
    let assigned: Owned = assigned.iter().map(|(id, of)| (*id, since(of))).collect();
    let protocols = old.protocols.iter().map(|protocol| ClassicProtocol {
        name: protocol.name.clone(),
        metadata: protocol.metadata.clone(),
        ..ClassicProtocol::default()
    });
    let mut member = Member::new(old.id.clone());
    member.epoch = generation;
    member.previous_epoch = generation;
    member.instance_id = old.instance.clone();
    member.rack_id = wishes.rack_id.filter(|rack| !rack.is_empty());
    member.rebalance_timeout_ms = old.rebalance_timeout_ms;
    member.client_id = old.client_id.clone();
    member.client_host = old.client_host.clone();
    member.topic_names = Arc::new(wishes.topics.iter().map(Str::detached).collect());
    member.assigned = Arc::new(assigned);
    member.classic = Some(Arc::new(ClassicMemberMetadata {
        session_timeout_ms: old.session_timeout_ms,
        supported_protocols: protocols.collect(),
        ..ClassicMemberMetadata::default()
    }));
    Ok(Some(member))
}

fn consumer_records(
    id: &Str,
    generation: i32,
    members: &[Member],
    step: &Step<'_>,
) -> Vec<GroupRecord> {
    let names = members.iter().flat_map(|member| member.topic_names.iter());
    let names: std::collections::BTreeSet<&Str> = names.collect();
    let hash = metadata_hash(step.image, names.into_iter());
    let mut out: Vec<GroupRecord> = members.iter().map(|m| records::member(id, m)).collect();
    out.push(records::epoch(id, generation, hash));
    for member in members {
        let numbers = |of: &BTreeMap<i32, i32>| of.keys().copied().collect();
        let assigned = member.assigned.iter();
        let target: Partitions = assigned.map(|(topic, of)| (*topic, numbers(of))).collect();
        out.push(records::target(id, &member.id, &target));
    }
    out.push(records::target_epoch(id, generation, 0));
    out.extend(members.iter().map(|member| records::current(id, member)));
    out
}

/// Everything a consumer group has in the log, removed.
pub(crate) fn tombstones(group: &ConsumerGroup, out: &mut Vec<GroupRecord>) {
    let id = &group.id;
    let members = || group.members.keys();
    out.extend(members().map(|member| records::current_tombstone(id, member)));
    out.extend(members().map(|member| records::target_tombstone(id, member)));
    out.push(records::target_epoch_tombstone(id));
    out.extend(members().map(|member| records::member_tombstone(id, member)));
    let regexes = group.resolved.keys();
    out.extend(regexes.map(|regex| records::regex_tombstone(id, regex)));
    out.push(records::partition_metadata_tombstone(id));
    out.push(records::epoch_tombstone(id));
}

/// Whether a consumer group becomes classic when these of its members go.
pub(super) fn leaves_only_classic(
    group: &ConsumerGroup,
    leaving: &[Arc<Member>],
    step: &Step<'_>,
) -> bool {
    let staying = group.members.len().saturating_sub(leaving.len());
    let classic = leaving.iter().filter(|member| member.classic.is_some());
    let classic = group.classic_members().saturating_sub(classic.count());
    staying > 0
        && classic == staying
        && step.settings.consumer.migration.downgrade
        && staying <= step.settings.max_size
}

/// The records that make a consumer group classic, with the members that stay, all of them classic.
/// `joining` stands in for a member that it takes the place of, whose id it comes with.
///
/// # Errors
/// `GROUP_ID_NOT_FOUND` when a member's subscription cannot be read.
pub(super) fn downgrade(
    group: &ConsumerGroup,
    staying: &[&Member],
    joining: Option<(&Member, &Str)>,
    step: &Step<'_>,
) -> Result<Vec<GroupRecord>, Refusal> {
    let mut out = Vec::new();
    tombstones(group, &mut out);
    let all = || {
        staying
            .iter()
            .copied()
            .chain(joining.map(|(member, _)| member))
    };
    let protocol = common_protocol(&all().collect::<Vec<_>>()).unwrap_or_default();
    let mut members = Vec::new();
    for member in all() {
        let of = match joining {
            Some((joining, replaced)) if joining.id == member.id => replaced,
            _ => &member.id,
        };
        let target = group.target_of(of);
        let classic = member.classic.as_deref();
        let protocols = classic.map_or(&[][..], |classic| &classic.supported_protocols);
        let subscription = protocols.iter().find(|own| own.name == protocol);
        let subscription = subscription.map_or_else(Bytes::new, |own| own.metadata.clone());
        let assignment = embedded::assignment(&target, &subscription, step.image);
        let assignment = assignment.map_err(|_| {
            let id = &group.id;
            let message = format!(
                "Cannot downgrade the classic group {id}: a member's subscription is malformed."
            );
            Refusal::new(ErrorCode::GroupIdNotFound, message)
        })?;
        members.push(MemberMetadata {
            member_id: member.id.clone(),
            group_instance_id: member.instance_id.clone(),
            client_id: member.client_id.clone(),
            client_host: member.client_host.clone(),
            rebalance_timeout: member.rebalance_timeout_ms,
            session_timeout: classic.map_or(0, |classic| classic.session_timeout_ms),
            subscription,
            assignment,
            ..MemberMetadata::default()
        });
    }
    let value = GroupMetadataValue {
        protocol_type: Str::from_static(CONSUMER_PROTOCOL_TYPE),
        generation: group.epoch,
        protocol: Some(protocol),
        leader: members.first().map(|leader| leader.member_id.clone()),
        current_state_timestamp: step.now.wall_ms,
        members,
        ..GroupMetadataValue::default()
    };
    let key = GroupMetadataKey {
        group: group.id.clone(),
    };
    out.push(GroupRecord {
        key: GroupKey::GroupMetadata(key),
        value: Some((GroupValue::GroupMetadata(value), GROUP_METADATA_VERSION)),
    });
    Ok(out)
}

/// What most members like best of what all of them support (`ClassicGroup#selectProtocol`).
fn common_protocol(members: &[&Member]) -> Option<Str> {
    let protocols = |member: &&Member| {
        let classic = member.classic.as_ref();
        classic.map_or(Vec::new(), |classic| {
            let names = classic.supported_protocols.iter();
            names.map(|protocol| protocol.name.clone()).collect()
        })
    };
    let all: Vec<Vec<Str>> = members.iter().map(protocols).collect();
    // Counted once: to look for each name at everybody costs the square of members and of names.
    let mut supporters: HashMap<&Str, usize> = HashMap::new();
    for names in &all {
        let mut own: HashSet<&Str> = HashSet::new();
        for name in names.iter().filter(|name| own.insert(name)) {
            *supporters.entry(name).or_default() += 1;
        }
    }
    let by_all = |name: &&Str| supporters.get(*name) == Some(&all.len());
    let mut votes: BTreeMap<&Str, usize> = BTreeMap::new();
    for vote in all.iter().filter_map(|names| names.iter().find(by_all)) {
        *votes.entry(vote).or_default() += 1;
    }
    let best = votes.into_iter().max_by_key(|(_, count)| *count);
    best.map(|(name, _)| name.clone())
}
