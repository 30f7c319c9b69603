//! Records that do not fit into the log: whoever asked for them is told, everybody else goes on.

use std::collections::BTreeMap;

use chronik_catalog::{Image, RESOURCE_TOPIC};
use chronik_protocol::messages::leave_group_request::MemberIdentity;
use chronik_protocol::messages::{ConfigRecord, ConsumerGroupHeartbeatRequest, LeaveGroupRequest};
use chronik_protocol::records_of::MetadataRecord;
use chronik_protocol::{ErrorCode, Str};

use super::rig::{Rig, TOPIC};
use super::rules::{
    AT_ONCE, Joiner, code, commit, commit_result, joined, offset_of, stable, state_of, sync, synced,
};
use crate::groups::group::Group;
use crate::groups::{Caller, GroupReply, GroupRequest, OFFSETS_TOPIC, TopicChanges};

/// More than [`SMALL_BYTES`].
static LARGE: [u8; 4096] = [0; 4096];
const SMALL_BYTES: u32 = 2_000;
/// Not even the smallest record fits.
const NOTHING_BYTES: u32 = 64;

/// Lets `__consumer_offsets` take batches up to `bytes`.
fn bound(rig: &mut Rig, bytes: u32) {
    let mut image = Image::clone(&rig.image);
    let record = ConfigRecord {
        resource_type: RESOURCE_TOPIC,
        resource_name: Str::from(OFFSETS_TOPIC),
        name: Str::from("max.message.bytes"),
        value: Some(Str::from(bytes.to_string())),
        ..ConfigRecord::default()
    };
    image
        .apply(&MetadataRecord::Config(record))
        .expect("a sound record");
    image.settle();
    image.offset += 1;
    rig.show(image, &TopicChanges::default());
}

/// Groups of every partition commit at once.
fn everybody_else_goes_on(rig: &mut Rig) {
    for group in ["a", "b", "c", "d", "e", "f"] {
        assert_eq!(commit_result(&rig.ask(commit(group, 1))), ErrorCode::None);
    }
}

/// What the log says is what the groups are.
fn assert_replayed(rig: &Rig) {
    let replayed = rig.replayed();
    for (partition, state) in rig.states() {
        let members = |group: &Group| group.member_count();
        let names = |groups: &BTreeMap<Str, Group>| -> Vec<(Str, usize)> {
            let pairs = groups
                .iter()
                .map(|(id, group)| (id.clone(), members(group)));
            pairs.collect()
        };
        assert_eq!(names(&state.groups), names(&replayed[&partition].groups));
    }
}

fn heartbeat(member: &str, epoch: i32) -> GroupRequest {
    let topics = (epoch == 0).then(|| vec![Str::from(TOPIC)]);
    GroupRequest::ConsumerHeartbeat {
        request: ConsumerGroupHeartbeatRequest {
            group_id: Str::from("g"),
            member_id: Str::from(member),
            member_epoch: epoch,
            rebalance_timeout_ms: 60_000,
            topic_partitions: (epoch == 0).then(Vec::new),
            subscribed_topic_names: topics,
            ..ConsumerGroupHeartbeatRequest::default()
        },
        id_required: true,
        caller: Caller::default(),
    }
}

fn heartbeat_error(reply: &GroupReply) -> ErrorCode {
    match reply {
        GroupReply::ConsumerHeartbeat(reply) => code(reply.error_code),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_static_member_that_comes_back_too_large_is_refused_and_the_group_is_as_it_was() {
    let mut rig = Rig::new(1, &[AT_ONCE]);
    let caller = rig.send(Joiner::named("machine").request());
    rig.pass(0);
    let before = joined(&mut rig, caller);
    let caller = sync(&mut rig, &before);
    rig.settle();
    let share = synced(&mut rig, caller);

    bound(&mut rig, SMALL_BYTES);
    let large = Joiner {
        metadata: &LARGE,
        ..Joiner::named("machine")
    };
    let caller = rig.send(large.request());
    let refused = joined(&mut rig, caller);
    assert_eq!(code(refused.error_code), ErrorCode::UnknownServerError);
    assert_eq!(refused.member_id, "", "no id was given to it");
    everybody_else_goes_on(&mut rig);
    assert_eq!(state_of(&mut rig, "g"), "Stable");
    assert_replayed(&rig);

    // The one before is a member as ever, with its share and its session.
    let caller = sync(&mut rig, &before);
    rig.settle();
    assert_eq!(synced(&mut rig, caller), share);
    rig.pass(9_000);
    assert_eq!(state_of(&mut rig, "g"), "Stable");
    rig.pass(2_000);
    rig.settle();
    assert_eq!(state_of(&mut rig, "g"), "Empty", "its session has ended");
    // And its instance may come back.
    let caller = rig.send(Joiner::named("machine").request());
    rig.pass(0);
    rig.settle();
    assert_eq!(code(joined(&mut rig, caller).error_code), ErrorCode::None);
}

#[test]
fn a_new_group_that_does_not_fit_was_never_there() {
    let mut rig = Rig::new(2, &[AT_ONCE]);
    bound(&mut rig, NOTHING_BYTES);
    let caller = rig.send(Joiner::named("machine").request());
    let refused = joined(&mut rig, caller);
    assert_eq!(code(refused.error_code), ErrorCode::UnknownServerError);
    assert_eq!(state_of(&mut rig, "g"), "missing");
    assert_replayed(&rig);
    bound(&mut rig, SMALL_BYTES);
    everybody_else_goes_on(&mut rig);
    let caller = rig.send(Joiner::named("machine").request());
    rig.pass(0);
    rig.settle();
    assert_eq!(code(joined(&mut rig, caller).error_code), ErrorCode::None);
}

#[test]
fn an_assignment_that_does_not_fit_is_refused_and_the_group_begins_anew() {
    let mut rig = Rig::new(3, &[AT_ONCE]);
    let large = Joiner {
        metadata: &LARGE,
        ..Joiner::named("machine")
    };
    bound(&mut rig, SMALL_BYTES);
    let caller = rig.send(large.request());
    rig.pass(0);
    rig.settle();
    let first = joined(&mut rig, caller);
    let caller = sync(&mut rig, &first);
    assert_eq!(synced(&mut rig, caller), Err(ErrorCode::UnknownServerError));
    everybody_else_goes_on(&mut rig);
    bound(&mut rig, 1_000_000);
    let again = Joiner {
        member: first.member_id.clone(),
        ..large
    };
    let caller = rig.send(again.request());
    rig.settle();
    let second = joined(&mut rig, caller);
    assert_eq!(second.generation_id, first.generation_id + 1);
    let caller = sync(&mut rig, &second);
    rig.settle();
    assert!(synced(&mut rig, caller).is_ok());
    assert_replayed(&rig);
}

#[test]
fn a_group_that_empties_without_room_for_its_record_is_usable_again() {
    let mut rig = Rig::new(4, &[AT_ONCE]);
    let member = stable(&mut rig).member_id;
    bound(&mut rig, NOTHING_BYTES);
    let leave = GroupRequest::Leave(LeaveGroupRequest {
        group_id: Str::from("g"),
        members: vec![MemberIdentity {
            member_id: member,
            ..MemberIdentity::default()
        }],
        ..LeaveGroupRequest::default()
    });
    match rig.ask(leave) {
        GroupReply::Leave(reply) => {
            assert_eq!(code(reply.error_code), ErrorCode::UnknownServerError);
        }
        other => panic!("{other:?}"),
    }
    bound(&mut rig, SMALL_BYTES);
    everybody_else_goes_on(&mut rig);
    stable(&mut rig);
    assert_eq!(state_of(&mut rig, "g"), "Stable");
    assert_replayed(&rig);
}

#[test]
fn a_silent_member_whose_going_does_not_fit_goes_when_it_does() {
    let mut rig = Rig::new(5, &[]);
    assert_eq!(
        heartbeat_error(&rig.ask(heartbeat("one", 0))),
        ErrorCode::None
    );
    bound(&mut rig, NOTHING_BYTES);
    rig.pass(46_000);
    rig.settle();
    assert_eq!(state_of(&mut rig, "g"), "Stable", "its going does not fit");
    bound(&mut rig, SMALL_BYTES);
    rig.pass(11_000);
    rig.settle();
    assert_eq!(state_of(&mut rig, "g"), "Empty");
    assert_replayed(&rig);
}

#[test]
fn a_heartbeat_that_does_not_fit_moves_nothing() {
    let mut rig = Rig::new(6, &[]);
    bound(&mut rig, NOTHING_BYTES);
    let reply = rig.ask(heartbeat("one", 0));
    assert_eq!(heartbeat_error(&reply), ErrorCode::UnknownServerError);
    assert_eq!(state_of(&mut rig, "g"), "missing");
    bound(&mut rig, SMALL_BYTES);
    let reply = rig.ask(heartbeat("one", 0));
    assert_eq!(heartbeat_error(&reply), ErrorCode::None);
    assert_replayed(&rig);
}

#[test]
fn groups_whose_deletion_does_not_fit_are_there_and_say_so() {
    let mut rig = Rig::new(8, &[]);
    assert_eq!(commit_result(&rig.ask(commit("a", 1))), ErrorCode::None);
    bound(&mut rig, NOTHING_BYTES);
    let delete = |rig: &mut Rig| match rig.ask(GroupRequest::Delete(vec![Str::from("a")])) {
        GroupReply::Delete(reply) => code(reply.results[0].error_code),
        other => panic!("{other:?}"),
    };
    assert_eq!(delete(&mut rig), ErrorCode::UnknownServerError);
    assert_eq!(state_of(&mut rig, "a"), "Empty");
    bound(&mut rig, SMALL_BYTES);
    assert_eq!(delete(&mut rig), ErrorCode::None);
    assert_replayed(&rig);
}

#[test]
fn a_partition_that_could_not_be_read_is_read_again() {
    let mut rig = Rig::new(9, &[]);
    everybody_else_goes_on(&mut rig);
    rig.unreadable = true;
    rig.restart();
    rig.work();
    let refused = |rig: &mut Rig| {
        let caller = rig.send(commit("a", 2));
        rig.replies
            .remove(&caller)
            .map(|reply| commit_result(&reply))
    };
    for _ in 0..5 {
        while rig.work() {}
        rig.pass(40_000);
    }
    while rig.work() {}
    assert_eq!(refused(&mut rig), Some(ErrorCode::NotCoordinator));
    rig.unreadable = false;
    rig.pass(31_000);
    while rig.work() {}
    everybody_else_goes_on(&mut rig);
}

#[test]
fn a_write_of_a_deleted_offsets_topic_counts_for_nothing_in_the_new_one() {
    let mut rig = Rig::new(1, &[]);
    rig.send(commit("g", 1));
    rig.recreate_offsets_topic(2_000);
    let refused = rig.send(commit("g", 2));
    let written = rig.send(commit("g", 3));
    // The oldest is the old topic's. The next fails while the last is still under way.
    rig.decide(Some(ErrorCode::UnknownTopicOrPartition));
    rig.decide(Some(ErrorCode::KafkaStorageError));
    while rig.work() {}
    assert_eq!(rig.undecided(), 1);
    rig.settle();
    for caller in [refused, written] {
        let told = commit_result(&rig.replies.remove(&caller).expect("an answer"));
        assert_eq!(told, ErrorCode::NotCoordinator);
    }
    // It was written after all, and the state is what the log says.
    assert_eq!(offset_of(&mut rig, "g"), Ok(3));
    assert_replayed(&rig);
}

#[test]
fn what_opens_again_while_it_is_read_is_read_to_its_new_end() {
    let mut rig = Rig::new(2, &[]);
    for offset in 1..=10 {
        assert_eq!(
            commit_result(&rig.ask(commit("g", offset))),
            ErrorCode::None
        );
    }
    rig.close();
    rig.open_the_first();
    // What was read for that comes now, and is not the answer to the next one.
    rig.open_all();
    rig.settle();
    assert_eq!(offset_of(&mut rig, "g"), Ok(10));
    assert_replayed(&rig);
}
