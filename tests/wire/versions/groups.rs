//! The APIs of groups and their offsets, in every version.

use chronik_protocol::messages::{
    ConsumerGroupDescribeRequest, DeleteGroupsRequest, DescribeGroupsRequest,
    FindCoordinatorRequest, HeartbeatRequest, JoinGroupRequest, LeaveGroupRequest,
    ListConfigResourcesRequest, ListGroupsRequest, OffsetDeleteRequest, OffsetFetchRequest,
    leave_group_request, offset_delete_request, offset_fetch_request,
};
use chronik_protocol::{ErrorCode, Str};

use super::Scene;
use crate::subject::unused_name;
use crate::support::calls::text;
use crate::support::consumer_groups::{accepted, joining};
use crate::support::groups::{
    commit, commit_request, find_coordinator, join_request, new_member, stable_group, sync_request,
};

pub(super) fn group_apis(scene: &mut Scene) {
    find_coordinator(&mut scene.client, "any");
    coordinator_apis(scene);
    member_apis(scene);
    leaving(scene);
    offset_apis(scene);
    fetching(scene);
    operator_apis(scene);
    consumer_group_apis(scene);
}

fn coordinator_apis(scene: &mut Scene) {
    scene.every(
        |_, version| FindCoordinatorRequest {
            key: text(if version < 4 { "g" } else { "" }),
            coordinator_keys: if version < 4 {
                Vec::new()
            } else {
                vec![text("g"), text("h")]
            },
            ..Default::default()
        },
        |response| {
            let found = response.coordinators.iter().map(|found| found.error_code);
            found.chain([response.error_code]).collect()
        },
    );
}

fn member_apis(scene: &mut Scene) {
    scene.every(
        |scene, version| {
            let group = unused_name();
            let member = if version < 4 {
                String::new()
            } else {
                new_member(&mut scene.subject.connect(), &group)
            };
            JoinGroupRequest {
                rebalance_timeout_ms: if version == 0 { -1 } else { 10_000 },
                ..join_request(&group, &member, b"")
            }
        },
        |response| vec![response.error_code, i16::from(response.members.len() != 1)],
    );
    scene.every(
        |scene, version| {
            let group = unused_name();
            let joined = crate::support::groups::join_alone(&mut scene.subject.connect(), &group);
            let mut request = sync_request(&group, &joined);
            if version < 5 {
                (request.protocol_type, request.protocol_name) = (None, None);
            }
            request
        },
        |response| {
            vec![
                response.error_code,
                i16::from(response.assignment.is_empty()),
            ]
        },
    );
    scene.every(
        |scene, _| {
            let group = unused_name();
            let joined = stable_group(&mut scene.subject.connect(), &group);
            HeartbeatRequest {
                group_id: text(&group),
                generation_id: joined.generation_id,
                member_id: joined.member_id,
                ..Default::default()
            }
        },
        |response| vec![response.error_code],
    );
}

fn leaving(scene: &mut Scene) {
    scene.every(
        |scene, version| {
            let group = unused_name();
            let joined = stable_group(&mut scene.subject.connect(), &group);
            let old = version < 3;
            LeaveGroupRequest {
                group_id: text(&group),
                member_id: if old {
                    joined.member_id.clone()
                } else {
                    Str::default()
                },
                members: if old {
                    Vec::new()
                } else {
                    vec![leave_group_request::MemberIdentity {
                        member_id: joined.member_id,
                        ..Default::default()
                    }]
                },
                ..Default::default()
            }
        },
        |response| {
            let members = response.members.iter().map(|member| member.error_code);
            members.chain([response.error_code]).collect()
        },
    );
}

fn offset_apis(scene: &mut Scene) {
    scene.every(
        |scene, version| {
            let mut request = commit_request("plain", &scene.topic, 0, i64::from(version));
            if version < 6 {
                request.topics[0].partitions[0].committed_leader_epoch = -1;
            }
            if version >= 10 {
                request.topics[0].topic_id = scene.topic_id;
                request.topics[0].name = Str::default();
            }
            request
        },
        |response| vec![response.topics[0].partitions[0].error_code],
    );
}

fn fetching(scene: &mut Scene) {
    scene.every(
        |scene, version| {
            let (name, partitions) = (scene.topic_name(), vec![0, 1]);
            let by_id = version >= 10;
            let topic = offset_fetch_request::OffsetFetchRequestTopics {
                name: if by_id { Str::default() } else { name.clone() },
                topic_id: scene.topic_id,
                partition_indexes: partitions.clone(),
                ..Default::default()
            };
            let old_topic = offset_fetch_request::OffsetFetchRequestTopic {
                name,
                partition_indexes: partitions,
                ..Default::default()
            };
            let old = version < 8;
            OffsetFetchRequest {
                group_id: text(if old { "plain" } else { "" }),
                topics: Some(if old { vec![old_topic] } else { Vec::new() }),
                groups: if old {
                    Vec::new()
                } else {
                    vec![offset_fetch_request::OffsetFetchRequestGroup {
                        group_id: text("plain"),
                        topics: Some(vec![topic]),
                        ..Default::default()
                    }]
                },
                require_stable: version >= 7,
                ..Default::default()
            }
        },
        |response| {
            let old = response.topics.iter().flat_map(|topic| &topic.partitions);
            let old = old.map(|p| (p.partition_index, p.committed_offset, p.error_code));
            let groups = response.groups.iter().flat_map(|group| &group.topics);
            let new = groups.flat_map(|topic| &topic.partitions);
            let new = new.map(|p| (p.partition_index, p.committed_offset, p.error_code));
            let found: Vec<_> = old.chain(new).collect();
            assert_eq!(found, [(0, 10, 0), (1, -1, 0)], "what was committed last");
            vec![response.error_code]
        },
    );
    scene.every(
        |scene, _| OffsetDeleteRequest {
            group_id: text("plain"),
            topics: vec![offset_delete_request::OffsetDeleteRequestTopic {
                name: scene.topic_name(),
                partitions: vec![offset_delete_request::OffsetDeleteRequestPartition {
                    partition_index: 0,
                }],
            }],
        },
        |response| {
            vec![
                response.error_code,
                response.topics[0].partitions[0].error_code,
            ]
        },
    );
}

fn operator_apis(scene: &mut Scene) {
    let group = unused_name();
    stable_group(&mut scene.subject.connect(), &group);
    scene.every(
        |_, version| DescribeGroupsRequest {
            groups: vec![text(&group)],
            include_authorized_operations: version >= 3,
            ..Default::default()
        },
        |response| {
            let found = &response.groups[0];
            assert_eq!((&*found.group_state, found.members.len()), ("Stable", 1));
            vec![found.error_code]
        },
    );
    scene.every(
        |_, version| ListGroupsRequest {
            states_filter: if version < 4 {
                Vec::new()
            } else {
                vec![text("stable")]
            },
            types_filter: if version < 5 {
                Vec::new()
            } else {
                vec![text("Classic")]
            },
            ..Default::default()
        },
        |response| {
            let found = response
                .groups
                .iter()
                .any(|found| *found.group_id == *group);
            vec![response.error_code, i16::from(!found)]
        },
    );
    scene.every(
        |scene, _| {
            let group = unused_name();
            let client = &mut scene.subject.connect();
            assert_eq!(commit(client, &group, &scene.topic, 0, 1), ErrorCode::None);
            DeleteGroupsRequest {
                groups_names: vec![text(&group)],
                ..Default::default()
            }
        },
        |response| response.results.iter().map(|r| r.error_code).collect(),
    );
}

fn consumer_group_apis(scene: &mut Scene) {
    scene.every(
        |scene, _| joining(&unused_name(), "member", &[&scene.topic]),
        |response| vec![response.error_code, (response.member_epoch < 1).into()],
    );
    let group = unused_name();
    accepted(
        &mut scene.client,
        &joining(&group, "member", &[&scene.topic]),
    );
    scene.every(
        |_, _| ConsumerGroupDescribeRequest {
            group_ids: vec![text(&group)],
            ..Default::default()
        },
        |response| {
            let members = response
                .groups
                .iter()
                .map(|g| g.members.len())
                .sum::<usize>();
            vec![response.groups[0].error_code, (members != 1).into()]
        },
    );
    scene.every(
        |_, version| ListConfigResourcesRequest {
            // Topics; version 0 knows client metrics only and names no type.
            resource_types: if version < 1 { Vec::new() } else { vec![2] },
            ..Default::default()
        },
        |response| vec![response.error_code],
    );
}
