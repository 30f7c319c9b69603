//! DescribeGroups, ListGroups and DeleteGroups.

use chronik_protocol::messages::delete_groups_response::DeletableGroupResult;
use chronik_protocol::messages::describe_groups_response::DescribedGroup;
use chronik_protocol::messages::list_groups_response::ListedGroup;
use chronik_protocol::{ErrorCode, Str};

use super::classic::ClassicState;
use super::group::Group;
use super::name_filter::NameFilter;
use super::partition::GroupPartition;
use super::records::GroupRecord;

/// The state of a group that is not there (`ClassicGroupState.DEAD`).
const DEAD: &str = "Dead";

/// A group that cannot be described.
pub(crate) fn not_described(group: &Str, error: ErrorCode) -> DescribedGroup {
    DescribedGroup {
        group_id: group.clone(),
        error_code: error.as_i16(),
        ..DescribedGroup::default()
    }
}

/// What became of one group that was to be deleted.
pub(crate) fn deleted(group: &Str, error: ErrorCode) -> DeletableGroupResult {
    DeletableGroupResult {
        group_id: group.clone(),
        error_code: error.as_i16(),
        ..DeletableGroupResult::default()
    }
}

impl GroupPartition {
    /// Describes one classic group.
    pub(crate) fn describe(&self, id: &Str, missing_is_error: bool) -> DescribedGroup {
        let group = match self.groups.get(id) {
            Some(Group::Classic(group)) => group,
            Some(Group::Consumer(_)) => {
                return missing(id, missing_is_error, "is not a classic group.");
            }
            None => return missing(id, missing_is_error, "not found."),
        };
        let stable = group.state() == ClassicState::Stable;
        let protocol = group.protocol_name().filter(|_| stable);
        DescribedGroup {
            group_id: id.clone(),
            group_state: Str::from_static(group.state().name()),
            protocol_type: group.protocol_type().cloned().unwrap_or_default(),
            protocol_data: protocol.cloned().unwrap_or_default(),
            members: group.members().map(|m| m.describe(protocol)).collect(),
            ..DescribedGroup::default()
        }
    }

    /// Adds the groups behind `after` that both filters take. Looks at `left` of them at most; says at
    /// which it stopped, if there are more.
    pub(crate) fn list(
        &self,
        (states, types): (&NameFilter, &NameFilter),
        after: Option<&str>,
        left: &mut usize,
        out: &mut Vec<ListedGroup>,
    ) -> Option<Str> {
        use std::ops::Bound::{Excluded, Unbounded};
        let from = after.map_or(Unbounded, Excluded);
        let mut last: Option<&Str> = None;
        for (id, group) in self.groups.range::<str, _>((from, Unbounded)) {
            if *left == 0 {
                return last.cloned();
            }
            *left -= 1;
            last = Some(id);
            if states.takes(group.state_name()) && types.takes(group.type_name()) {
                out.push(ListedGroup {
                    group_id: id.clone(),
                    protocol_type: group.protocol_type(),
                    group_state: Str::from_static(group.state_name()),
                    group_type: Str::from_static(group.type_name()),
                    ..ListedGroup::default()
                });
            }
        }
        None
    }

    /// The last of its groups.
    pub(crate) fn last_group(&self) -> Option<&Str> {
        self.groups.keys().next_back()
    }

    /// Judges one group that is to be deleted; what removes it, with all its offsets, is added to
    /// `records`: a group that somebody joined between two parts would have lost the first.
    ///
    /// # Errors
    /// `GROUP_ID_NOT_FOUND`, `NON_EMPTY_GROUP`.
    pub(crate) fn delete(&self, id: &str, records: &mut Vec<GroupRecord>) -> Result<(), ErrorCode> {
        let Some((id, group)) = self.groups.get_key_value(id) else {
            return Err(ErrorCode::GroupIdNotFound);
        };
        if !group.is_empty() {
            return Err(ErrorCode::NonEmptyGroup);
        }
        for (topic, partitions) in self.offsets.of(id).into_iter().flatten() {
            for partition in partitions.keys() {
                records.push(GroupRecord::offset_tombstone(id, topic, *partition));
            }
        }
        group.tombstones(id, records);
        Ok(())
    }
}

fn missing(id: &Str, is_error: bool, why: &str) -> DescribedGroup {
    let mut described = not_described(id, ErrorCode::None);
    described.group_state = Str::from_static(DEAD);
    if is_error {
        described.error_code = ErrorCode::GroupIdNotFound.as_i16();
        described.error_message = Some(Str::from(format!("Group {id} {why}")));
    }
    described
}
