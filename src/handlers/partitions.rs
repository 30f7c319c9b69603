//! Finding the partition a client means.

use chronik_catalog::{Image, PartitionInfo, Topic};
use chronik_protocol::ErrorCode;
use chronik_terms::PartitionId;

/// The partition `index` of `topic`, if it exists.
pub(super) fn of_topic(topic: &Topic, index: i32) -> Option<(PartitionId, &PartitionInfo)> {
    let info = usize::try_from(index)
        .ok()
        .and_then(|index| topic.partitions.get(index))?;
    Some((
        PartitionId {
            topic_id: topic.id,
            index,
        },
        info,
    ))
}

/// The partition `index` of the topic called `name`.
///
/// # Errors
/// UNKNOWN_TOPIC_OR_PARTITION.
pub(super) fn by_name(image: &Image, name: &str, index: i32) -> Result<PartitionId, ErrorCode> {
    let found = image.topic(name).and_then(|topic| of_topic(topic, index));
    found
        .map(|(partition, _)| partition)
        .ok_or(ErrorCode::UnknownTopicOrPartition)
}

/// Results of the parts that could be asked for, put back among those that could not: `errors`
/// has, for every part of the request, the error that kept it from being asked.
pub(super) fn merge<R>(
    errors: Vec<Option<ErrorCode>>,
    results: Vec<R>,
    failed: impl Fn(ErrorCode) -> R,
) -> impl Iterator<Item = R> {
    let mut results = results.into_iter();
    errors.into_iter().map(move |error| match error {
        Some(error) => failed(error),
        None => results
            .next()
            .unwrap_or_else(|| failed(ErrorCode::UnknownServerError)),
    })
}
