//! Odd requests about groups and their offsets.

use chronik_protocol::messages::*;
use chronik_protocol::{Str, Uuid};

use super::{Ground, NO_ID};
use crate::support::calls::text;
use crate::support::consumer_groups::coordinated;

pub(super) fn ask_all(ground: &mut Ground) {
    let group = ground.missing.clone();
    coordinated(&mut ground.subject.connect(), &group);
    coordinators(ground);
    members(ground);
    strangers(ground);
    consumers(ground);
    commits(ground);
    commits_to_nowhere(ground);
    offsets(ground);
    administration(ground);
}

fn coordinators(ground: &mut Ground) {
    for (case, key_type, keys) in [
        ("no key", 0, vec![]),
        ("kind 99", 99, vec![text("k")]),
        ("kind -1", -1, vec![text("k")]),
        ("a share without its name", 2, vec![text("k")]),
    ] {
        let request = FindCoordinatorRequest {
            key: keys.first().cloned().unwrap_or_default(),
            key_type,
            ..Default::default()
        };
        if !keys.is_empty() {
            ground.ask(&format!("{case}, alone"), &request);
        }
        let request = FindCoordinatorRequest {
            key: Str::default(),
            coordinator_keys: keys,
            ..request
        };
        ground.ask(case, &request);
    }
}

fn members(ground: &mut Ground) {
    let group = ground.missing();
    let protocol = join_group_request::JoinGroupRequestProtocol {
        name: text("range"),
        ..Default::default()
    };
    let join = JoinGroupRequest {
        group_id: group.clone(),
        session_timeout_ms: 10_000,
        rebalance_timeout_ms: 10_000,
        protocol_type: text("consumer"),
        protocols: vec![protocol],
        ..Default::default()
    };
    #[rustfmt::skip]
    let cases = [
        ("no group's name", JoinGroupRequest { group_id: text(""), ..join.clone() }),
        ("too short a session", JoinGroupRequest { session_timeout_ms: 1, ..join.clone() }),
        ("too long a session", JoinGroupRequest { session_timeout_ms: i32::MAX, ..join.clone() }),
        ("a member nobody knows", JoinGroupRequest { member_id: text("nobody"), ..join.clone() }),
        ("no protocol", JoinGroupRequest { protocols: vec![], ..join.clone() }),
        ("no protocol's kind", JoinGroupRequest { protocol_type: text(""), ..join.clone() }),
        ("no instance's name", JoinGroupRequest {
            group_instance_id: Some(text("")),
            ..join.clone()
        }),
    ];
    for (case, request) in cases {
        ground.ask_sorted(case, &request, |response| {
            for id in [&mut response.member_id, &mut response.leader] {
                if id.len() > 30 {
                    *id = text("MADE-UP");
                }
            }
            for member in &mut response.members {
                member.member_id = text("MADE-UP");
            }
        });
    }
}

fn strangers(ground: &mut Ground) {
    let group = ground.missing();
    #[rustfmt::skip]
    let cases = [
        ("no group's name", text(""), "m", 1),
        ("no member", group.clone(), "", 1),
        ("a missing group", group.clone(), "m", 1),
        ("a missing group, no generation", group.clone(), "m", -1),
    ];
    for (case, group_id, member, generation) in cases {
        let request = SyncGroupRequest {
            group_id: group_id.clone(),
            generation_id: generation,
            member_id: text(member),
            protocol_type: Some(text("consumer")),
            protocol_name: Some(text("range")),
            ..Default::default()
        };
        ground.ask(case, &request);
        let request = HeartbeatRequest {
            group_id: group_id.clone(),
            generation_id: generation,
            member_id: text(member),
            ..Default::default()
        };
        ground.ask(case, &request);
        let request = LeaveGroupRequest {
            group_id: group_id.clone(),
            member_id: text(member),
            ..Default::default()
        };
        ground.ask(&format!("{case}, alone, {generation}"), &request);
        let member = leave_group_request::MemberIdentity {
            member_id: text(member),
            ..Default::default()
        };
        let request = LeaveGroupRequest {
            group_id,
            members: vec![member],
            ..Default::default()
        };
        ground.ask(&format!("{case}, {generation}"), &request);
    }
}

fn consumers(ground: &mut Ground) {
    let valid = ConsumerGroupHeartbeatRequest {
        group_id: ground.missing(),
        member_id: text("member"),
        rebalance_timeout_ms: 1000,
        subscribed_topic_names: Some(vec![ground.topic()]),
        topic_partitions: Some(Vec::new()),
        ..Default::default()
    };
    type Request = ConsumerGroupHeartbeatRequest;
    let owned = consumer_group_heartbeat_request::TopicPartitions {
        topic_id: NO_ID,
        partitions: vec![0],
        ..Default::default()
    };
    #[rustfmt::skip]
    let cases = [
        ("no group's name", Request { group_id: text(""), ..valid.clone() }),
        ("no member", Request { member_id: text(""), member_epoch: 5, ..valid.clone() }),
        ("epoch 5 of nobody", Request { member_epoch: 5, ..valid.clone() }),
        ("epoch -3", Request { member_epoch: -3, ..valid.clone() }),
        ("leaving a missing group", Request { member_epoch: -1, ..valid.clone() }),
        ("leaving for a while, without a name", Request { member_epoch: -2, ..valid.clone() }),
        ("no timeout", Request { rebalance_timeout_ms: -1, ..valid.clone() }),
        ("timeout 0", Request { rebalance_timeout_ms: 0, ..valid.clone() }),
        ("no subscription", Request { subscribed_topic_names: None, ..valid.clone() }),
        ("an unknown assignor", Request { server_assignor: Some(text("no")), ..valid.clone() }),
        ("no assignor's name", Request { server_assignor: Some(text("")), ..valid.clone() }),
        ("no instance's name", Request { instance_id: Some(text("")), ..valid.clone() }),
        ("no rack's name", Request { rack_id: Some(text("")), ..valid.clone() }),
        ("owning already", Request { topic_partitions: Some(vec![owned]), ..valid.clone() }),
        ("owning null", Request { topic_partitions: None, ..valid.clone() }),
        ("a bad expression", Request {
            subscribed_topic_names: None,
            subscribed_topic_regex: Some(text("(?x)a")),
            ..valid.clone()
        }),
    ];
    for (case, request) in cases {
        ground.ask(case, &request);
    }
    #[rustfmt::skip]
    let cases = [
        ("nothing", vec![]),
        ("a missing group", vec![text("no such group")]),
        ("no name", vec![text("")]),
    ];
    for (case, group_ids) in cases {
        let request = ConsumerGroupDescribeRequest {
            group_ids,
            ..Default::default()
        };
        ground.ask(case, &request);
    }
}

fn commit(group: Str, name: Str, topic_id: Uuid, partition_index: i32) -> OffsetCommitRequest {
    use offset_commit_request::{OffsetCommitRequestPartition, OffsetCommitRequestTopic};
    OffsetCommitRequest {
        group_id: group,
        generation_id_or_member_epoch: -1,
        retention_time_ms: -1,
        topics: vec![OffsetCommitRequestTopic {
            name,
            topic_id,
            partitions: vec![OffsetCommitRequestPartition {
                partition_index,
                committed_offset: 5,
                committed_leader_epoch: -1,
                ..Default::default()
            }],
            ..Default::default()
        }],
        ..Default::default()
    }
}

fn commits(ground: &mut Ground) {
    let group = text("a group that commits");
    let (known, id) = (ground.topic(), ground.id);
    let to = |partition| commit(group.clone(), known.clone(), id, partition);
    let large = {
        let mut request = to(0);
        request.topics[0].partitions[0].committed_metadata = Some(text(&"m".repeat(5000)));
        request
    };
    let below = {
        let mut request = to(0);
        request.topics[0].partitions[0].committed_offset = -5;
        request
    };
    for (case, request) in [
        ("a missing partition", to(9)),
        ("partition -1", to(-1)),
        ("too much metadata", large),
        ("offset -5", below),
        (
            "no group's name",
            OffsetCommitRequest {
                group_id: text(""),
                ..to(0)
            },
        ),
        (
            "nothing",
            OffsetCommitRequest {
                topics: vec![],
                ..to(0)
            },
        ),
        (
            "a member nobody knows",
            OffsetCommitRequest {
                member_id: text("m"),
                ..to(0)
            },
        ),
        (
            "a generation",
            OffsetCommitRequest {
                generation_id_or_member_epoch: 5,
                member_id: text("m"),
                ..to(0)
            },
        ),
    ] {
        ground.ask(case, &request);
    }
}

fn commits_to_nowhere(ground: &mut Ground) {
    let group = text("a group that commits");
    let request = commit(group.clone(), ground.missing(), NO_ID, 0);
    ground.ask("a missing topic", &request);
    let request = commit(group, Str::default(), Uuid::ZERO, 0);
    ground.ask("no topic", &request);
}

fn offsets(ground: &mut Ground) {
    use offset_fetch_request::{
        OffsetFetchRequestGroup, OffsetFetchRequestTopic, OffsetFetchRequestTopics,
    };
    let group = text("a group without offsets");
    #[rustfmt::skip]
    let cases = [
        ("no offset", group.clone(), ground.topic(), ground.id, 0),
        ("a missing partition", group.clone(), ground.topic(), ground.id, 9),
        ("a missing topic", group.clone(), ground.missing(), NO_ID, 0),
        ("no topic", group.clone(), Str::default(), Uuid::ZERO, 0),
        ("no group's name", text(""), ground.topic(), ground.id, 0),
    ];
    for (case, group_id, name, topic_id, partition) in cases {
        let old = OffsetFetchRequestTopic {
            name: name.clone(),
            partition_indexes: vec![partition],
            ..Default::default()
        };
        let request = OffsetFetchRequest {
            group_id: group_id.clone(),
            topics: Some(vec![old]),
            ..Default::default()
        };
        ground.ask(&format!("{case}, one group"), &request);
        let topic = OffsetFetchRequestTopics {
            name,
            topic_id,
            partition_indexes: vec![partition],
            ..Default::default()
        };
        let asked = OffsetFetchRequestGroup {
            group_id,
            member_epoch: -1,
            topics: Some(vec![topic]),
            ..Default::default()
        };
        let request = OffsetFetchRequest {
            topics: Some(Vec::new()),
            groups: vec![asked],
            ..Default::default()
        };
        ground.ask(case, &request);
    }
    let all = OffsetFetchRequestGroup {
        group_id: group.clone(),
        member_epoch: -1,
        topics: None,
        ..Default::default()
    };
    let of_member = OffsetFetchRequestGroup {
        member_id: Some(text("m")),
        member_epoch: 5,
        ..all.clone()
    };
    #[rustfmt::skip]
    let cases = [
        ("all topics", vec![all]),
        ("of a member nobody knows", vec![of_member]),
        ("no group", vec![]),
    ];
    for (case, groups) in cases {
        let request = OffsetFetchRequest {
            topics: Some(Vec::new()),
            groups,
            ..Default::default()
        };
        ground.ask(case, &request);
    }
}

fn administration(ground: &mut Ground) {
    let none = text("no such group");
    for (case, groups) in [
        ("nothing", vec![]),
        ("a missing group", vec![none.clone()]),
        ("no name", vec![text("")]),
    ] {
        let request = DescribeGroupsRequest {
            groups: groups.clone(),
            ..Default::default()
        };
        ground.ask(case, &request);
        let request = DeleteGroupsRequest {
            groups_names: groups,
            ..Default::default()
        };
        ground.ask(case, &request);
    }
    for (case, states, types) in [
        ("an unknown state", vec![text("nonsense")], vec![]),
        ("an unknown type", vec![], vec![text("nonsense")]),
    ] {
        let request = ListGroupsRequest {
            states_filter: states,
            types_filter: types,
            ..Default::default()
        };
        ground.ask(case, &request);
    }
    use offset_delete_request::{OffsetDeleteRequestPartition, OffsetDeleteRequestTopic};
    for (case, group_id, name, partition_index) in [
        ("no group's name", text(""), ground.topic(), 0),
        ("a missing group", none.clone(), ground.topic(), 0),
        ("a missing topic", none.clone(), ground.missing(), 0),
        ("a missing partition", none, ground.topic(), 9),
    ] {
        let request = OffsetDeleteRequest {
            group_id,
            topics: vec![OffsetDeleteRequestTopic {
                name,
                partitions: vec![OffsetDeleteRequestPartition { partition_index }],
            }],
        };
        ground.ask(case, &request);
    }
}
