//! OffsetForLeaderEpoch (key 23): where leader epochs end (KIP-101, KIP-320).

use chronik_catalog::Image;
use chronik_io::World;
use chronik_protocol::ErrorCode;
use chronik_protocol::messages::offset_for_leader_epoch_response::{
    EpochEndOffset, OffsetForLeaderTopicResult,
};
use chronik_protocol::messages::{OffsetForLeaderEpochRequest, OffsetForLeaderEpochResponse};
use chronik_terms::{EpochAnswer, EpochQuery};

use super::api::{Api, Later, Shape};
use super::beside::beside;
use super::call::Call;
use super::context::Context;
use super::partitions;

impl Api for OffsetForLeaderEpochRequest {
    const SHAPE: Shape = Shape::Topics;

    fn settle(&mut self) {}

    fn refused(&self, _: &Call, error: ErrorCode) -> OffsetForLeaderEpochResponse {
        let parts = self.topics.iter().map(|topic| topic.partitions.len());
        let errors = vec![Some(error); parts.sum()];
        response(self, errors, Vec::new())
    }
}

impl Later for OffsetForLeaderEpochRequest {
    async fn answer<W: World>(
        context: &Context<W>,
        call: &Call,
        request: Self,
    ) -> OffsetForLeaderEpochResponse {
        let (image, is_large) = (context.image(), call.is_large);
        let planned = move || (plan(&image, &request), request);
        let ((queries, errors), request) = beside(&context.world, is_large, planned).await;
        let answers = context
            .router
            .epoch_ends(&context.world, queries)
            .await
            .unwrap_or_default();
        let answered = move || response(&request, errors, answers);
        beside(&context.world, is_large, answered).await
    }
}

/// The queries of all partitions that can be asked, and for each partition why it cannot.
fn plan(
    image: &Image,
    request: &OffsetForLeaderEpochRequest,
) -> (Vec<EpochQuery>, Vec<Option<ErrorCode>>) {
    let (mut queries, mut errors) = (Vec::new(), Vec::new());
    for topic in &request.topics {
        for partition in &topic.partitions {
            let found = partitions::by_name(image, &topic.topic, partition.partition);
            errors.push(found.err());
            if let Ok(id) = found {
                queries.push(EpochQuery {
                    partition: id,
                    current_leader_epoch: partition.current_leader_epoch,
                    leader_epoch: partition.leader_epoch,
                });
            }
        }
    }
    (queries, errors)
}

fn response(
    request: &OffsetForLeaderEpochRequest,
    errors: Vec<Option<ErrorCode>>,
    answers: Vec<EpochAnswer>,
) -> OffsetForLeaderEpochResponse {
    let mut answers = partitions::merge(errors, answers, EpochAnswer::failed);
    let topics = request
        .topics
        .iter()
        .map(|topic| OffsetForLeaderTopicResult {
            topic: topic.topic.clone(),
            partitions: topic
                .partitions
                .iter()
                .zip(&mut answers)
                .map(|(partition, answer)| EpochEndOffset {
                    error_code: answer.error.as_i16(),
                    partition: partition.partition,
                    leader_epoch: answer.leader_epoch,
                    end_offset: answer.end_offset,
                    ..EpochEndOffset::default()
                })
                .collect(),
            ..OffsetForLeaderTopicResult::default()
        });
    OffsetForLeaderEpochResponse {
        topics: topics.collect(),
        ..OffsetForLeaderEpochResponse::default()
    }
}
