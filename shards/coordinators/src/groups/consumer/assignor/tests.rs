//! Properties of the assignors over thousands of seeded groups that change step by step.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use chronik_protocol::{Str, Uuid};

use crate::seeded::Seeded;

use super::{Assignor, GroupAssignment, GroupSpec, MemberSpec, Partitions};

fn topic(number: usize) -> Uuid {
    Uuid(1000 + number as u128)
}

fn topics(numbers: impl IntoIterator<Item = usize>) -> Arc<BTreeSet<Uuid>> {
    Arc::new(numbers.into_iter().map(topic).collect())
}

fn member(topics: &Arc<BTreeSet<Uuid>>) -> MemberSpec {
    MemberSpec {
        instance_id: None,
        topics: Arc::clone(topics),
        current: Arc::default(),
    }
}

fn spec(counts: &[i32], members: usize) -> GroupSpec {
    let all = topics(0..counts.len());
    GroupSpec {
        members: (0..members)
            .map(|number| (Str::from(format!("m{number:04}")), member(&all)))
            .collect(),
        partition_counts: (0..).map(topic).zip(counts.iter().copied()).collect(),
    }
}

fn size(partitions: &Partitions) -> usize {
    partitions.values().map(BTreeSet::len).sum()
}

fn adopt(spec: &mut GroupSpec, target: &GroupAssignment) {
    for (id, member) in &mut spec.members {
        member.current = Arc::clone(&target[id]);
    }
}

/// Every partition somebody wants is given to exactly one who wants it; nobody is left out.
fn check_complete(spec: &GroupSpec, target: &GroupAssignment) {
    assert!(target.keys().eq(spec.members.keys()));
    let mut owners: BTreeMap<(Uuid, i32), &Str> = BTreeMap::new();
    for (id, partitions) in target {
        for (topic, partitions) in partitions.iter() {
            assert!(spec.members[id].topics.contains(topic), "not subscribed");
            assert!(!partitions.is_empty(), "a topic without partitions");
            for partition in partitions {
                assert!((0..spec.partition_counts[topic]).contains(partition));
                assert_eq!(owners.insert((*topic, *partition), id), None, "two owners");
            }
        }
    }
    let wanted: BTreeSet<Uuid> = spec
        .members
        .values()
        .flat_map(|m| m.topics.iter().copied())
        .collect();
    let partitions: i32 = wanted
        .iter()
        .map(|topic| spec.partition_counts[topic])
        .sum();
    assert_eq!(owners.len(), partitions as usize, "partitions left over");
}

fn kept(spec: &GroupSpec, target: &GroupAssignment) -> usize {
    let same = |(id, member): (&Str, &MemberSpec)| {
        let new = &target[id];
        let topics = member.current.iter();
        let shared = topics.map(|(topic, old)| {
            new.get(topic)
                .map_or(0, |new| new.intersection(old).count())
        });
        shared.sum::<usize>()
    };
    spec.members.iter().map(same).sum()
}

/// A random change: members come and go, topics grow, subscriptions change.
fn change(seeded: &mut Seeded, spec: &mut GroupSpec, next_member: &mut usize, uniform: bool) {
    let topic_count = spec.partition_counts.len();
    match seeded.below(4) {
        0 => {
            let chosen = topic(seeded.below(topic_count));
            *spec
                .partition_counts
                .get_mut(&chosen)
                .expect("a known topic") += 1 + seeded.below(3) as i32;
        }
        1 if spec.members.len() > 1 => {
            let leaver = seeded.below(spec.members.len());
            let id = spec
                .members
                .keys()
                .nth(leaver)
                .expect("a known member")
                .clone();
            spec.members.remove(&id);
        }
        2 if !uniform => {
            let chosen = seeded.below(spec.members.len());
            let wanted = topics((0..topic_count).filter(|_| seeded.below(2) == 0));
            spec.members
                .values_mut()
                .nth(chosen)
                .expect("a known member")
                .topics = wanted;
        }
        _ => {
            *next_member += 1;
            let wanted = if uniform {
                Arc::clone(&spec.members.values().next().expect("a member").topics)
            } else {
                topics((0..topic_count).filter(|_| seeded.below(2) == 0))
            };
            let id = Str::from(format!("n{:04}", seeded.below(10_000) + *next_member));
            spec.members.insert(id, member(&wanted));
        }
    }
}

#[test]
fn equal_subscriptions_are_shared_evenly_and_little_moves() {
    for seed in 0..400 {
        let mut seeded = Seeded::new(seed);
        let counts: Vec<i32> = (0..1 + seeded.below(4))
            .map(|_| seeded.below(9) as i32)
            .collect();
        let mut spec = spec(&counts, 1 + seeded.below(7));
        let mut next_member = 0;
        for _ in 0..12 {
            let target = Assignor::Uniform.assign(&spec);
            check_complete(&spec, &target);
            let sizes = || target.values().map(|partitions| size(partitions));
            let (least, most) = (sizes().min().unwrap_or(0), sizes().max().unwrap_or(0));
            assert!(most - least <= 1, "seed {seed}: {least} to {most}");
            // What can be kept: of each member at most its share.
            let total: usize = sizes().sum();
            let share = total / spec.members.len();
            let floor: usize = spec
                .members
                .values()
                .map(|member| size(&member.current).min(share))
                .sum();
            assert!(kept(&spec, &target) >= floor, "seed {seed}: moved too much");
            adopt(&mut spec, &target);
            assert_eq!(
                Assignor::Uniform.assign(&spec),
                target,
                "seed {seed}: restless"
            );
            change(&mut seeded, &mut spec, &mut next_member, true);
        }
    }
}

#[test]
fn differing_subscriptions_are_balanced_as_far_as_they_allow() {
    for seed in 0..400 {
        let mut seeded = Seeded::new(seed);
        let counts: Vec<i32> = (0..2 + seeded.below(4))
            .map(|_| seeded.below(9) as i32)
            .collect();
        let mut spec = spec(&counts, 2 + seeded.below(6));
        let mut next_member = 0;
        for _ in 0..12 {
            change(&mut seeded, &mut spec, &mut next_member, false);
            let target = Assignor::Uniform.assign(&spec);
            check_complete(&spec, &target);
            // No single partition could move and make two members more alike.
            for (giver, partitions) in &target {
                for topic in partitions.keys() {
                    for (taker, member) in &spec.members {
                        let gap = size(partitions).saturating_sub(size(&target[taker]));
                        assert!(
                            !member.topics.contains(topic) || gap <= 1,
                            "seed {seed}: {giver} has {gap} more than {taker}"
                        );
                    }
                }
            }
            adopt(&mut spec, &target);
            assert_eq!(
                Assignor::Uniform.assign(&spec),
                target,
                "seed {seed}: restless"
            );
        }
    }
}

#[test]
fn ranges_are_runs_that_differ_by_one() {
    for seed in 0..400 {
        let mut seeded = Seeded::new(seed);
        let counts: Vec<i32> = (0..1 + seeded.below(4))
            .map(|_| seeded.below(9) as i32)
            .collect();
        let mut spec = spec(&counts, 1 + seeded.below(7));
        let mut next_member = 0;
        for _ in 0..12 {
            change(&mut seeded, &mut spec, &mut next_member, false);
            let target = Assignor::Range.assign(&spec);
            check_complete(&spec, &target);
            for topic in spec.partition_counts.keys() {
                let runs = spec
                    .members
                    .iter()
                    .filter(|(_, m)| m.topics.contains(topic));
                let runs = runs.map(|(id, _)| target[id].get(topic).cloned().unwrap_or_default());
                let runs: Vec<BTreeSet<i32>> = runs.collect();
                let lens = || runs.iter().map(BTreeSet::len);
                assert!(lens().max().unwrap_or(0) - lens().min().unwrap_or(0) <= 1);
                for run in runs.iter().filter(|run| !run.is_empty()) {
                    let (first, last) = (*run.first().expect("one"), *run.last().expect("one"));
                    assert_eq!((last - first + 1) as usize, run.len(), "a gap");
                }
            }
        }
    }
}

#[test]
fn ranges_of_equal_topics_are_equal_and_static_members_keep_theirs() {
    let mut group = spec(&[3, 3], 0);
    let all = topics(0..2);
    for (id, instance) in [("z", "i0"), ("y", "i1")] {
        let mut member = member(&all);
        member.instance_id = Some(Str::from(instance));
        group.members.insert(Str::from(id), member);
    }
    let before = Assignor::Range.assign(&group);
    assert_eq!(before["z"][&topic(0)], BTreeSet::from([0, 1]));
    assert_eq!(before["z"][&topic(1)], BTreeSet::from([0, 1]));
    assert_eq!(before["y"][&topic(0)], BTreeSet::from([2]));
    // The instance comes back under an id that sorts differently.
    let returned = group.members.remove("z").expect("a member");
    group.members.insert(Str::from("a"), returned);
    let after = Assignor::Range.assign(&group);
    assert_eq!((&after["a"], &after["y"]), (&before["z"], &before["y"]));
    // A dynamic member comes after static ones, whatever its id.
    group.members.insert(Str::from("0"), member(&all));
    let joined = Assignor::Range.assign(&group);
    assert_eq!(joined["0"][&topic(0)], BTreeSet::from([2]));
}

#[test]
fn a_target_that_names_a_partition_twice_is_mended() {
    let mut group = spec(&[4], 2);
    let twice: Partitions = BTreeMap::from([(topic(0), BTreeSet::from([0, 1, 9, -1]))]);
    for member in group.members.values_mut() {
        member.current = Arc::new(twice.clone());
    }
    let target = Assignor::Uniform.assign(&group);
    check_complete(&group, &target);
    let odd = topics([]);
    group.members.insert(Str::from("odd"), member(&odd));
    let target = Assignor::Uniform.assign(&group);
    check_complete(&group, &target);
}

#[test]
fn a_thousand_members_share_a_thousand_partitions() {
    let mut group = spec(&[1000], 1000);
    let target = Assignor::Uniform.assign(&group);
    check_complete(&group, &target);
    adopt(&mut group, &target);
    let leaver = Str::from("m0500");
    group.members.remove(&leaver);
    let after = Assignor::Uniform.assign(&group);
    check_complete(&group, &after);
    assert_eq!(kept(&group, &after), 999);
}
