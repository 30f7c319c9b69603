//! Produce (key 0): from a request to one append for each partition.
//!
//! Stage one runs in the order of the connection: it decodes to slices of the frame, checks every
//! batch, and hands the batches to the shards that own their partitions. Stage two waits for the
//! acknowledgements and encodes. Never copies records, except to rewrite a timestamp, a codec or a
//! format of old clients.

mod check;
mod messages;
mod respond;

use std::rc::Rc;

use chronik_io::World;
use chronik_protocol::messages::ProduceRequest;
use chronik_protocol::messages::produce_request::TopicProduceData;
use chronik_protocol::{ErrorCode, Reader};
use chronik_shards::catalog::{Image, Topic};
use chronik_shards::{Acks, AppendPart};

use super::call::Call;
use super::context::Context;
use super::partitions;
use super::slice::Slice;
use crate::server::service::{Admitted, Answer, Pace, Reply};
use check::{Refusal, Rules};

/// From this version on topics are named by id (KIP-516).
const TOPIC_ID_VERSION: i16 = 13;
/// The client id that may write to Kafka's own topics (`AdminUtils.ADMIN_CLIENT_ID`).
const ADMIN_CLIENT_ID: &str = "__admin_client";

/// Takes a Produce request.
pub(super) async fn admit<W: World>(context: Rc<Context<W>>, call: Call, body: Reader) -> Admitted {
    let request = match call.decode::<ProduceRequest>(body) {
        Ok(request) => request,
        Err(close) => {
            return Admitted {
                pace: Pace::Free,
                answer: Answer::Now(close),
            };
        }
    };
    let acks = match request.acks {
        -1 => Some(Acks::All),
        0 => Some(Acks::None),
        1 => Some(Acks::Leader),
        _ => None,
    };
    let Some(acks) = acks else {
        let refused = Refusal::of(ErrorCode::InvalidRequiredAcks);
        let response = respond::all_refused(&request, &refused);
        return Admitted {
            pace: Pace::Free,
            answer: Answer::Now(call.reply(&response)),
        };
    };
    let (parts, refusals) = check_all(&context, &call, &request).await;
    let gather = context.router.append(acks, request.timeout_ms, parts).await;
    let answer = async move {
        let results = gather.collect().await.unwrap_or_default();
        let response = respond::response(&request, refusals, results);
        match (acks, respond::first_error(&response)) {
            (Acks::None, None) => Reply::Silent,
            (Acks::None, Some(error)) => call.close(&format!("with acks=0 failed: {error}")),
            _ => call.reply(&response),
        }
    };
    Admitted {
        pace: Pace::Free,
        answer: Answer::Later(Box::pin(answer)),
    }
}

/// Checks every partition's records; for each, either a part to append or why there is none.
async fn check_all<W: World>(
    context: &Context<W>,
    call: &Call,
    request: &ProduceRequest,
) -> (Vec<AppendPart>, Vec<Option<Refusal>>) {
    let image = context.image();
    let mut slice = Slice::begin(&context.world);
    let count = request
        .topic_data
        .iter()
        .map(|topic| topic.partition_data.len())
        .sum();
    let mut parts = Vec::with_capacity(count);
    let mut refusals = Vec::with_capacity(count);
    for data in &request.topic_data {
        let topic = find_topic(&image, call, data);
        for partition in &data.partition_data {
            let found = topic.and_then(|topic| {
                let found = partitions::of_topic(topic, partition.index);
                Ok((topic, found.ok_or(ErrorCode::UnknownTopicOrPartition)?.0))
            });
            let checked = match found {
                Ok((topic, id)) => {
                    let records = partition.records.as_ref();
                    let transactional = request.transactional_id.is_some();
                    let rules = Rules::new(call.version, topic, id.index, transactional);
                    let batch = check::batch(context, &mut slice, &rules, records).await;
                    batch.and_then(|batch| {
                        let batch = batch.ok_or_else(Refusal::nothing)?;
                        Ok(AppendPart {
                            partition: id,
                            batch,
                        })
                    })
                }
                Err(error) => Err(Refusal::of(error)),
            };
            match checked {
                Ok(part) => {
                    parts.push(part);
                    refusals.push(None);
                }
                Err(refusal) => refusals.push(Some(refusal)),
            }
        }
    }
    (parts, refusals)
}

fn find_topic<'a>(
    image: &'a Image,
    call: &Call,
    data: &TopicProduceData,
) -> Result<&'a Topic, ErrorCode> {
    let found = if call.version >= TOPIC_ID_VERSION {
        image
            .topic_by_id(data.topic_id)
            .ok_or(ErrorCode::UnknownTopicId)
    } else {
        image
            .topic(&data.name)
            .ok_or(ErrorCode::UnknownTopicOrPartition)
    };
    let topic = found?;
    let is_admin = call.client_id.as_deref() == Some(ADMIN_CLIENT_ID);
    if topic.is_internal && !is_admin {
        return Err(ErrorCode::InvalidTopicException);
    }
    Ok(topic)
}
