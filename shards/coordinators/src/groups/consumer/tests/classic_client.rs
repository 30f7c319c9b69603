//! A client of the classic protocol in a consumer group, incremental as the Java one: it gives up
//! what its share lacks, and comes again.

use bytes::Bytes;
use chronik_protocol::messages::consumer_protocol_subscription::TopicPartition;
use chronik_protocol::messages::join_group_request::JoinGroupRequestProtocol;
use chronik_protocol::messages::{
    ConsumerProtocolSubscription, HeartbeatRequest, JoinGroupRequest, SyncGroupRequest,
};
use chronik_protocol::{ErrorCode, Message, Str, Writer};

use super::super::assignor::Partitions;
use super::super::embedded;
use super::rig::{GROUP, Rig};
use crate::groups::request::{Caller, GroupReply, GroupRequest};

pub(super) struct ClassicClient {
    pub(super) id: Str,
    pub(super) generation: i32,
    pub(super) owned: Partitions,
    pub(super) names: Vec<&'static str>,
    must_join: bool,
    /// The group let go of it, and it has not heard of that. It may come back under its old id.
    pub(super) is_fenced: bool,
}

fn code(error_code: i16) -> ErrorCode {
    ErrorCode::try_from(error_code).expect("a known code")
}

impl ClassicClient {
    pub(super) fn new(names: Vec<&'static str>) -> ClassicClient {
        ClassicClient {
            id: Str::default(),
            generation: -1,
            owned: Partitions::new(),
            names,
            must_join: true,
            is_fenced: false,
        }
    }

    /// One exchange; a deaf client never sees the answer.
    pub(super) fn beat(&mut self, rig: &mut Rig, deaf: bool) {
        if self.must_join {
            return self.join(rig, deaf);
        }
        let token = rig.ask(GroupRequest::Heartbeat(HeartbeatRequest {
            group_id: Str::from(GROUP),
            member_id: self.id.clone(),
            generation_id: self.generation,
            ..HeartbeatRequest::default()
        }));
        match rig.replies.remove(&token) {
            Some(GroupReply::Heartbeat(response)) if !deaf => self.heed(code(response.error_code)),
            Some(GroupReply::Heartbeat(_)) => {}
            other => panic!("no answer to a heartbeat: {other:?}"),
        }
    }

    fn heed(&mut self, error: ErrorCode) {
        match error {
            ErrorCode::None | ErrorCode::CoordinatorNotAvailable => {}
            ErrorCode::RebalanceInProgress | ErrorCode::IllegalGeneration => self.must_join = true,
            ErrorCode::UnknownMemberId => *self = ClassicClient::new(self.names.clone()),
            other => panic!("{other:?}"),
        }
    }

    fn join(&mut self, rig: &mut Rig, deaf: bool) {
        let token = rig.ask(GroupRequest::Join {
            request: JoinGroupRequest {
                group_id: Str::from(GROUP),
                member_id: self.id.clone(),
                session_timeout_ms: 30_000,
                rebalance_timeout_ms: 60_000,
                protocol_type: Str::from("consumer"),
                protocols: vec![JoinGroupRequestProtocol {
                    name: Str::from("cooperative-sticky"),
                    metadata: self.wishes(rig),
                    ..JoinGroupRequestProtocol::default()
                }],
                ..JoinGroupRequest::default()
            },
            caller: Caller::default(),
            known_member_id: true,
            skip_assignment: true,
        });
        let response = match rig.replies.remove(&token) {
            Some(GroupReply::Join(response)) => response,
            other => panic!("no answer to a join: {other:?}"),
        };
        match code(response.error_code) {
            _ if deaf => {}
            ErrorCode::MemberIdRequired => self.id = response.member_id,
            ErrorCode::None => {
                (self.id, self.generation) = (response.member_id, response.generation_id);
                self.sync(rig);
            }
            error => self.heed(error),
        }
    }

    fn sync(&mut self, rig: &mut Rig) {
        let token = rig.ask(GroupRequest::Sync(SyncGroupRequest {
            group_id: Str::from(GROUP),
            member_id: self.id.clone(),
            generation_id: self.generation,
            ..SyncGroupRequest::default()
        }));
        let response = match rig.replies.remove(&token) {
            Some(GroupReply::Sync(response)) => response,
            other => panic!("no answer to a sync: {other:?}"),
        };
        match code(response.error_code) {
            ErrorCode::None => {
                let told = embedded::assigned(&response.assignment, &rig.image);
                let told = told.expect("an assignment").expect("partitions only");
                let gives_up = self.owned.iter().any(|(topic, owned)| {
                    told.get(topic).is_none_or(|told| !told.is_superset(owned))
                });
                self.owned = told;
                self.must_join = gives_up;
                self.is_fenced = false;
            }
            error => self.heed(error),
        }
    }

    fn wishes(&self, rig: &Rig) -> Bytes {
        let owned = self.owned.iter().filter_map(|(id, partitions)| {
            Some(TopicPartition {
                topic: rig.image.topic_by_id(*id)?.name.clone(),
                partitions: partitions.iter().copied().collect(),
            })
        });
        let message = ConsumerProtocolSubscription {
            topics: self.names.iter().map(|name| Str::from(*name)).collect(),
            user_data: None,
            owned_partitions: owned.collect(),
            ..ConsumerProtocolSubscription::default()
        };
        let mut writer = Writer::new();
        writer.put_i16(1);
        message.encode(&mut writer, 1).expect("encodes");
        writer.into_bytes()
    }
}
