//! What grows with a group's offsets or with the number of groups is done in slices: none looks at, or
//! writes, more than its bound.

use chronik_protocol::messages::OffsetCommitRequest;
use chronik_protocol::messages::offset_commit_request::{
    OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use chronik_protocol::{Str, Uuid};

use super::rig::{Rig, TOPIC, TOPIC_ID};
use crate::groups::{GroupPage, GroupReply, GroupRequest, NameFilter, TopicChanges};
use crate::limits::{GROUPS_PER_PAGE, OFFSETS_PER_SLICE};

/// Commits `count` offsets of one topic for a group.
fn commit(rig: &mut Rig, group: &str, count: usize) {
    let partition = |partition_index| OffsetCommitRequestPartition {
        partition_index,
        committed_offset: 5,
        ..OffsetCommitRequestPartition::default()
    };
    let all: Vec<i32> = (0..).take(count).collect();
    for some in all.chunks(1_000) {
        let request = OffsetCommitRequest {
            group_id: Str::from(group.to_owned()),
            generation_id_or_member_epoch: -1,
            topics: vec![OffsetCommitRequestTopic {
                name: Str::from(TOPIC),
                topic_id: Uuid(TOPIC_ID),
                partitions: some.iter().copied().map(partition).collect(),
                ..OffsetCommitRequestTopic::default()
            }],
            ..OffsetCommitRequest::default()
        };
        rig.ask(GroupRequest::CommitOffsets {
            request,
            knows_epochs: true,
        });
    }
}

/// Offsets that a group has.
fn offsets(rig: &Rig, group: &str) -> usize {
    let states = rig.states();
    let found = states.values().filter_map(|state| state.offsets.of(group));
    found
        .flat_map(|topics| topics.values())
        .map(|all| all.len())
        .sum()
}

#[test]
fn a_sweep_looks_at_no_more_offsets_than_a_slice_may() {
    let mut rig = Rig::new(1, &[]);
    let count = 2 * OFFSETS_PER_SLICE + 7;
    commit(&mut rig, "many", count);
    commit(&mut rig, "few", 3);
    let changes = TopicChanges {
        gone: [(Str::from(TOPIC), [Uuid(TOPIC_ID)].into())].into(),
        created: false,
    };
    let image = (*rig.image).clone();
    rig.show(image, &changes);
    let all = |rig: &Rig| offsets(rig, "many") + offsets(rig, "few");
    let mut left = all(&rig);
    let mut slices = 0;
    while rig.work() {
        let now = all(&rig);
        assert!(left - now <= OFFSETS_PER_SLICE, "{left} became {now}");
        slices += usize::from(now < left);
        left = now;
    }
    assert_eq!(left, 0, "every one is forgotten");
    assert!(slices >= 3, "in {slices} slices");
}

#[test]
fn a_group_with_many_offsets_is_deleted_whole_and_the_next_later() {
    let mut rig = Rig::new(2, &[]);
    commit(&mut rig, "many", OFFSETS_PER_SLICE + 7);
    commit(&mut rig, "few", 3);
    let names = ["many", "few", "none"].map(Str::from).to_vec();
    let GroupReply::Delete(first) = rig.ask(GroupRequest::Delete(names.clone())) else {
        panic!("another answer");
    };
    assert_eq!(first.results.len(), 1, "many is gone, few is not yet");
    assert_eq!((offsets(&rig, "many"), offsets(&rig, "few")), (0, 3));
    let rest = names[1..].to_vec();
    let GroupReply::Delete(rest) = rig.ask(GroupRequest::Delete(rest)) else {
        panic!("another answer");
    };
    let codes: Vec<i16> = rest
        .results
        .iter()
        .map(|result| result.error_code)
        .collect();
    assert_eq!(codes, [0, 69], "few is gone, none was not there");
    assert_eq!(offsets(&rig, "few"), 0);
}

#[test]
fn a_list_of_groups_has_pages() {
    let mut rig = Rig::new(3, &[]);
    let count = GROUPS_PER_PAGE + 17;
    for number in 0..count {
        commit(&mut rig, &format!("g{number}"), 1);
    }
    let mut page = GroupPage::FIRST;
    let mut found = Vec::new();
    let mut pages = 0;
    loop {
        let list = GroupRequest::List {
            states: NameFilter::default(),
            types: NameFilter::default(),
            page,
        };
        let GroupReply::List(response, next) = rig.ask(list) else {
            panic!("another answer");
        };
        assert!(response.groups.len() <= GROUPS_PER_PAGE);
        found.extend(response.groups.into_iter().map(|group| group.group_id));
        pages += 1;
        if next.is_none() {
            break;
        }
        page = GroupPage { after: next };
    }
    assert_eq!((found.len(), pages), (count, 2));
    found.sort();
    found.dedup();
    assert_eq!(found.len(), count, "each once");
}
