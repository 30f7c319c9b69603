//! Version 0 of ListOffsets: several offsets for each partition, newest first, which are those where
//! segments begin and where the log ends.

use chronik_io::World;
use chronik_protocol::ErrorCode;
use chronik_protocol::messages::list_offsets_response::{
    ListOffsetsPartitionResponse, ListOffsetsTopicResponse,
};
use chronik_protocol::messages::{ListOffsetsRequest, ListOffsetsResponse};
use chronik_terms::{SegmentOffsets, SegmentOffsetsQuery, SegmentsBefore};

use super::Repeated;
use crate::handlers::context::Context;
use crate::handlers::partitions;

/// Answers.
pub(super) async fn handle<W: World>(
    context: &Context<W>,
    request: &ListOffsetsRequest,
) -> ListOffsetsResponse {
    let image = context.image();
    let now_ms = context.world.now_ms();
    // Answered once each, the work is bounded by the segments there are, whatever a request repeats.
    let mut twice = Repeated::of(request);
    let (mut queries, mut errors) = (Vec::new(), Vec::new());
    for topic in &request.topics {
        for asked in &topic.partitions {
            let planned = if twice.contains(&topic.name, asked.partition_index) {
                Err(ErrorCode::InvalidRequest)
            } else {
                partitions::by_name(&image, &topic.name, asked.partition_index)
                    .and_then(|id| Ok((id, before(asked.timestamp)?)))
            };
            errors.push(planned.err());
            if let Ok((partition, before)) = planned {
                queries.push(SegmentOffsetsQuery {
                    partition,
                    before,
                    count_max: usize::try_from(asked.max_num_offsets).unwrap_or(0),
                    now_ms,
                });
            }
        }
    }
    let answers = context
        .router
        .segment_offsets(&context.world, queries)
        .await
        .unwrap_or_default();
    let mut answers = partitions::merge(errors, answers, SegmentOffsets::failed);
    let topics = request.topics.iter().map(|topic| ListOffsetsTopicResponse {
        name: topic.name.clone(),
        partitions: topic
            .partitions
            .iter()
            .zip(&mut answers)
            .filter(|(asked, _)| twice.tell(&topic.name, asked.partition_index))
            .map(|(asked, answer)| ListOffsetsPartitionResponse {
                partition_index: asked.partition_index,
                error_code: answer.error.as_i16(),
                old_style_offsets: answer.offsets,
                ..ListOffsetsPartitionResponse::default()
            })
            .collect(),
        ..ListOffsetsTopicResponse::default()
    });
    ListOffsetsResponse {
        topics: topics
            .filter(|topic| !topic.partitions.is_empty())
            .collect(),
        ..ListOffsetsResponse::default()
    }
}

fn before(timestamp: i64) -> Result<SegmentsBefore, ErrorCode> {
    match timestamp {
        -1 => Ok(SegmentsBefore::End),
        -2 => Ok(SegmentsBefore::Start),
        0.. => Ok(SegmentsBefore::Time(timestamp)),
        _ => Err(ErrorCode::UnsupportedVersion),
    }
}
