//! The `range` assignor: each topic's partitions in order, a run for each subscriber
//! (`RangeAssignor`).
//!
//! Static members come first, in the order of their instance ids, so that a restart under a new
//! member id changes nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use chronik_protocol::{Str, Uuid};

use super::{GroupAssignment, GroupSpec, MemberSpec, Partitions, partition_at};

/// How far a topic has been handed out.
struct Runs {
    partitions: usize,
    subscribers: usize,
    served: usize,
    next: usize,
}

impl Runs {
    /// The next subscriber's run: the first ones get one partition more when it does not divide.
    fn take(&mut self) -> BTreeSet<i32> {
        let longer = self.served < self.partitions.checked_rem(self.subscribers).unwrap_or(0);
        let even = self.partitions.checked_div(self.subscribers).unwrap_or(0);
        let end = (self.next + even + usize::from(longer)).min(self.partitions);
        let run = (self.next..end).map(partition_at).collect();
        self.served += 1;
        self.next = end;
        run
    }
}

pub(super) fn assign(spec: &GroupSpec) -> GroupAssignment {
    let mut members: Vec<(&Str, &MemberSpec)> = spec.members.iter().collect();
    members.sort_by_key(|(id, member)| {
        let instance = member.instance_id.as_ref();
        (instance.is_none(), instance, *id)
    });
    let mut runs: BTreeMap<Uuid, Runs> = BTreeMap::new();
    for topic in members.iter().flat_map(|(_, member)| member.topics.iter()) {
        let topic_runs = runs.entry(*topic).or_insert_with(|| Runs {
            partitions: spec.partition_count(*topic),
            subscribers: 0,
            served: 0,
            next: 0,
        });
        topic_runs.subscribers += 1;
    }
    let mut target = GroupAssignment::new();
    for (id, member) in members {
        let mut partitions = Partitions::new();
        for topic in member.topics.iter() {
            let run = runs.get_mut(topic).map(Runs::take).unwrap_or_default();
            if !run.is_empty() {
                partitions.insert(*topic, run);
            }
        }
        let assignment = if partitions == *member.current {
            Arc::clone(&member.current)
        } else {
            Arc::new(partitions)
        };
        target.insert(id.clone(), assignment);
    }
    target
}
