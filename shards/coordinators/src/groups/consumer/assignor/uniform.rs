//! The `uniform` assignor for members that all subscribe to the same topics
//! (`UniformHomogeneousAssignmentBuilder`).
//!
//! Balance before stickiness: no member has two partitions more than another, and within that
//! everyone keeps what it has.

use std::collections::BTreeMap;
use std::sync::Arc;

use chronik_protocol::{Str, Uuid};

use super::{GroupAssignment, GroupSpec, MemberSpec, Partitions, index_of, partition_at};

/// How many partitions members may have, worked out one member after the other.
struct Quotas {
    least: usize,
    /// Members that still have to get one partition more than `least`.
    larger: usize,
    members_left: usize,
}

/// Partitions of one topic that a member keeps; indexed by partition.
type Kept = BTreeMap<Uuid, Vec<bool>>;

pub(super) fn assign(spec: &GroupSpec) -> GroupAssignment {
    let Some(first) = spec.members.values().next() else {
        return GroupAssignment::new();
    };
    let mut kept: Kept = first
        .topics
        .iter()
        .map(|topic| (*topic, vec![false; spec.partition_count(*topic)]))
        .collect();
    let total: usize = kept.values().map(Vec::len).sum();
    let mut quotas = Quotas {
        least: total / spec.members.len(),
        larger: total % spec.members.len(),
        members_left: spec.members.len(),
    };
    let mut target = GroupAssignment::new();
    let mut unfilled: Vec<(&Str, usize)> = Vec::new();
    for (id, member) in &spec.members {
        let (quota, is_larger) = quotas.offer();
        let (assignment, room) = keep(member, quota, &mut kept);
        target.insert(id.clone(), assignment);
        let room = quotas.settle(room, is_larger);
        if room > 0 {
            unfilled.push((id, room));
        }
    }
    let mut free = kept.iter().flat_map(|(topic, kept)| {
        let indices = kept.iter().enumerate();
        indices.filter_map(|(index, kept)| (!kept).then_some((*topic, partition_at(index))))
    });
    for (id, room) in unfilled {
        let Some(assignment) = target.get_mut(id) else {
            continue;
        };
        let assignment = Arc::make_mut(assignment);
        for (topic, partition) in free.by_ref().take(room) {
            assignment.entry(topic).or_default().insert(partition);
        }
    }
    target
}

impl Quotas {
    /// The most the next member may have, and whether that is the larger number.
    fn offer(&self) -> (usize, bool) {
        let is_larger = self.larger > 0;
        (self.least + usize::from(is_larger), is_larger)
    }

    /// Counts the member, which has `room` for more, and says how much it is to get. The one
    /// partition more goes first to those who have it already; who does not is given it only when
    /// the members left are no more than those that must have it.
    fn settle(&mut self, room: usize, is_larger: bool) -> usize {
        let give_up = room > 0 && is_larger && self.members_left > self.larger;
        self.members_left -= 1;
        if is_larger && !give_up {
            self.larger -= 1;
        }
        room - usize::from(give_up)
    }
}

/// What a member keeps of its last target: subscribed, not somebody else's, within the quota.
fn keep(member: &MemberSpec, quota: usize, kept: &mut Kept) -> (Arc<Partitions>, usize) {
    let mut room = quota;
    let mut lost = Vec::new();
    for (topic, partitions) in member.current.iter() {
        let mut taken = kept.get_mut(topic);
        for partition in partitions {
            let slot = index_of(*partition)
                .and_then(|index| taken.as_mut().and_then(|taken| taken.get_mut(index)));
            match slot {
                Some(slot) if !*slot && room > 0 => {
                    *slot = true;
                    room -= 1;
                }
                _ => lost.push((*topic, *partition)),
            }
        }
    }
    let mut assignment = Arc::clone(&member.current);
    if !lost.is_empty() {
        remove(Arc::make_mut(&mut assignment), &lost);
    }
    (assignment, room)
}

fn remove(assignment: &mut Partitions, lost: &[(Uuid, i32)]) {
    for (topic, partition) in lost {
        if let Some(partitions) = assignment.get_mut(topic) {
            partitions.remove(partition);
            if partitions.is_empty() {
                assignment.remove(topic);
            }
        }
    }
}
