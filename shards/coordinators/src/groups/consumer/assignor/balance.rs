//! The `uniform` assignor for members with differing subscriptions
//! (`UniformHeterogeneousAssignmentBuilder`).
//!
//! Everyone keeps what it still subscribes to, the rest goes to whoever has least, and then topic
//! after topic gives from its most loaded subscriber to its least loaded one until nothing gets
//! better. A general optimum would cost far more than the passes made here.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::sync::Arc;

use chronik_protocol::{Str, Uuid};

use super::{GroupAssignment, GroupSpec, Partitions, index_of, partition_at};

/// Passes over all topics (`MAX_ITERATION_COUNT`).
const PASSES_MAX: usize = 16;

/// A topic, who wants it and who has what of it; members by their place in the order of ids.
struct Topic {
    id: Uuid,
    subscribers: Vec<usize>,
    owners: Vec<Option<usize>>,
}

/// The assignment as it grows.
struct Balance {
    topics: Vec<Topic>,
    /// Partitions of each member, over all topics.
    sizes: Vec<usize>,
}

pub(super) fn assign(spec: &GroupSpec) -> GroupAssignment {
    let mut balance = Balance::keeping(spec);
    balance.fill();
    balance.even_out();
    balance.target(spec)
}

impl Balance {
    /// The topics in the order in which they are handed out, with what members keep.
    fn keeping(spec: &GroupSpec) -> Balance {
        let mut by_id: BTreeMap<Uuid, Topic> = BTreeMap::new();
        for (index, member) in spec.members.values().enumerate() {
            for topic in member.topics.iter() {
                let known = by_id.entry(*topic).or_insert_with(|| Topic {
                    id: *topic,
                    subscribers: Vec::new(),
                    owners: vec![None; spec.partition_count(*topic)],
                });
                known.subscribers.push(index);
            }
        }
        let mut sizes = vec![0; spec.members.len()];
        for (index, (member, size)) in spec.members.values().zip(&mut sizes).enumerate() {
            let wanted = member.current.iter();
            let wanted = wanted.filter(|(topic, _)| member.topics.contains(topic));
            for (topic, partitions) in wanted {
                let Some(topic) = by_id.get_mut(topic) else {
                    continue;
                };
                for partition in partitions {
                    let owner = index_of(*partition).and_then(|at| topic.owners.get_mut(at));
                    if let Some(owner @ None) = owner {
                        *owner = Some(index);
                        *size += 1;
                    }
                }
            }
        }
        let mut topics: Vec<Topic> = by_id.into_values().collect();
        topics.sort_by(|a, b| {
            // Most partitions per subscriber first, compared without division; then the fewest
            // subscribers, then the id (which the order was before).
            let a_share = a.owners.len() as u128 * b.subscribers.len() as u128;
            let b_share = b.owners.len() as u128 * a.subscribers.len() as u128;
            b_share
                .cmp(&a_share)
                .then(a.subscribers.len().cmp(&b.subscribers.len()))
        });
        Balance { topics, sizes }
    }

    /// Gives what nobody has to whoever has least.
    fn fill(&mut self) {
        let sizes = &mut self.sizes;
        for topic in &mut self.topics {
            let mut least: BinaryHeap<Reverse<(usize, usize)>> = topic
                .subscribers
                .iter()
                .map(|member| Reverse((sizes[*member], *member)))
                .collect();
            for owner in topic.owners.iter_mut().filter(|owner| owner.is_none()) {
                let Some(Reverse((size, member))) = least.pop() else {
                    break;
                };
                *owner = Some(member);
                sizes[member] = size + 1;
                least.push(Reverse((size + 1, member)));
            }
        }
    }

    /// Passes over the topics until one whole pass moves nothing.
    fn even_out(&mut self) {
        let mut still = 0;
        let shared = self.topics.iter().filter(|t| t.subscribers.len() > 1);
        let shared = shared.count();
        for _ in 0..PASSES_MAX {
            for topic in &mut self.topics {
                if topic.subscribers.len() < 2 {
                    continue;
                }
                still = if even_out_topic(topic, &mut self.sizes) {
                    0
                } else {
                    still + 1
                };
                if still >= shared {
                    return;
                }
            }
        }
    }

    fn target(&self, spec: &GroupSpec) -> GroupAssignment {
        let mut members: Vec<Partitions> = vec![Partitions::new(); self.sizes.len()];
        for topic in &self.topics {
            for (partition, owner) in topic.owners.iter().enumerate() {
                if let Some(partitions) = owner.and_then(|owner| members.get_mut(owner)) {
                    let partitions = partitions.entry(topic.id).or_default();
                    partitions.insert(partition_at(partition));
                }
            }
        }
        let assigned = |(partitions, (id, member)): (Partitions, (&Str, &super::MemberSpec))| {
            let assignment = if partitions == *member.current {
                Arc::clone(&member.current)
            } else {
                Arc::new(partitions)
            };
            (id.clone(), assignment)
        };
        let paired = members.into_iter().zip(&spec.members);
        paired.map(assigned).collect()
    }
}

/// Moves partitions of one topic from its most to its least loaded subscriber while that makes
/// the two more alike. Says whether anything moved.
fn even_out_topic(topic: &mut Topic, sizes: &mut [usize]) -> bool {
    let mut owned: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    for (partition, owner) in topic.owners.iter().enumerate() {
        if let Some(owner) = owner {
            owned.entry(*owner).or_default().push(partition);
        }
    }
    let loads = |member: &usize| (sizes[*member], *member);
    let mut takers: BTreeSet<(usize, usize)> = topic.subscribers.iter().map(loads).collect();
    let mut givers: BTreeSet<(usize, usize)> = owned.keys().map(loads).collect();
    let mut moved = false;
    while let (Some((most, giver)), Some((least, taker))) = (givers.pop_last(), takers.pop_first())
    {
        if most <= least + 1 {
            break;
        }
        let Some(partition) = owned.get_mut(&giver).and_then(Vec::pop) else {
            // Nothing left to give; the taker is still the least loaded.
            takers.insert((least, taker));
            continue;
        };
        topic.owners[partition] = Some(taker);
        sizes[giver] = most - 1;
        sizes[taker] = least + 1;
        takers.remove(&(most, giver));
        takers.insert((most - 1, giver));
        takers.insert((least + 1, taker));
        givers.insert((most - 1, giver));
        if givers.remove(&(least, taker)) {
            givers.insert((least + 1, taker));
        }
        moved = true;
    }
    moved
}
