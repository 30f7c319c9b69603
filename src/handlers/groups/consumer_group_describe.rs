//! ConsumerGroupDescribe (key 69, KIP-848): groups of the new protocol as operators see them.

use std::rc::Rc;

use chronik_io::World;
use chronik_protocol::messages::consumer_group_describe_response::DescribedGroup;
use chronik_protocol::messages::{ConsumerGroupDescribeRequest, ConsumerGroupDescribeResponse};
use chronik_protocol::{ErrorCode, Str};
use chronik_shards::groups::{GroupReply, GroupRequest};

use super::{GONE, ask, consumer_groups_are_on};
use crate::handlers::context::Context;
use crate::handlers::operations;

/// Answers.
pub(super) async fn handle<W: World>(
    context: Rc<Context<W>>,
    request: ConsumerGroupDescribeRequest,
) -> ConsumerGroupDescribeResponse {
    let refuse = |error: ErrorCode| {
        let groups = request.group_ids.iter();
        groups.map(|group| refused(group, error)).collect()
    };
    let mut groups = if consumer_groups_are_on(&context.image()) {
        let describe = GroupRequest::ConsumerDescribe(request.group_ids.clone());
        match ask(&context, describe).await {
            Some(GroupReply::ConsumerDescribe(groups)) => groups,
            Some(_) => unreachable!("the coordinator answers what it was asked"),
            None => refuse(GONE),
        }
    } else {
        refuse(ErrorCode::UnsupportedVersion)
    };
    if request.include_authorized_operations {
        let none = ErrorCode::None.as_i16();
        for group in groups.iter_mut().filter(|group| group.error_code == none) {
            group.authorized_operations = operations::GROUP;
        }
    }
    ConsumerGroupDescribeResponse {
        groups,
        ..ConsumerGroupDescribeResponse::default()
    }
}

fn refused(group: &Str, error: ErrorCode) -> DescribedGroup {
    DescribedGroup {
        group_id: group.clone(),
        error_code: error.as_i16(),
        ..DescribedGroup::default()
    }
}
