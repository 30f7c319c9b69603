//! ConsumerGroupDescribe (key 69, KIP-848): groups of the new protocol as operators see them.

use chronik_io::World;
use chronik_protocol::messages::consumer_group_describe_response::DescribedGroup;
use chronik_protocol::messages::{ConsumerGroupDescribeRequest, ConsumerGroupDescribeResponse};
use chronik_protocol::{ErrorCode, Str};
use chronik_shards::questions::DescribeConsumerGroups;

use super::{GONE, GROUPS_AT_ONCE, ask, consumer_groups_are_on};
use crate::handlers::api::{Api, Handled, Lengthy, Shape};
use crate::handlers::call::Call;
use crate::handlers::context::Context;
use crate::handlers::operations;
use crate::handlers::pieces::Pieces;

impl Api for ConsumerGroupDescribeRequest {
    const SHAPE: Shape = Shape::Groups;

    fn settle(&mut self) {}

    fn refused(&self, _: &Call, error: ErrorCode) -> ConsumerGroupDescribeResponse {
        let groups = self.group_ids.iter();
        ConsumerGroupDescribeResponse {
            groups: groups.map(|group| refused(group, error)).collect(),
            ..ConsumerGroupDescribeResponse::default()
        }
    }
}

impl Lengthy for ConsumerGroupDescribeRequest {
    /// Answers. A group that is named again and again is answered each time and looked at once.
    async fn answer_at_length<W: World>(
        context: &Context<W>,
        call: &Call,
        request: Self,
    ) -> Handled<ConsumerGroupDescribeResponse> {
        let groups = &request.group_ids;
        let mut pieces =
            Pieces::of_array::<ConsumerGroupDescribeResponse>(context, call, true, groups.len());
        let with_operations = request.include_authorized_operations;
        let ask = async |names| {
            let mut described = describe(context, names).await;
            let none = ErrorCode::None.as_i16();
            for group in described
                .iter_mut()
                .filter(|group| with_operations && group.error_code == none)
            {
                group.authorized_operations = operations::GROUP;
            }
            described
        };
        pieces.push_each(groups, GROUPS_AT_ONCE, ask).await;
        Handled::Reply(pieces.finish(call))
    }
}

async fn describe<W: World>(context: &Context<W>, groups: Vec<Str>) -> Vec<DescribedGroup> {
    let refuse = |error: ErrorCode| groups.iter().map(|group| refused(group, error)).collect();
    if !consumer_groups_are_on(context) {
        return refuse(ErrorCode::UnsupportedVersion);
    }
    let groups = groups.clone();
    let asked = ask(context, DescribeConsumerGroups { groups }).await;
    asked.unwrap_or_else(|| refuse(GONE))
}

fn refused(group: &Str, error: ErrorCode) -> DescribedGroup {
    DescribedGroup {
        group_id: group.clone(),
        error_code: error.as_i16(),
        ..DescribedGroup::default()
    }
}
