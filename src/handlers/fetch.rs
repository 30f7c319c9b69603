//! Fetch (key 1): from a request, or the session it continues, to batches as they lie in memory.
//!
//! Stage one finds out which partitions are meant and sends the first read to their owners; stage
//! two waits (for data, not for time), merges and encodes. Records are never copied here, except
//! to convert them for clients before Kafka 0.11.

mod legacy;
mod parked;
mod read;
mod respond;
mod session;

use std::rc::Rc;

use chronik_io::World;
use chronik_protocol::messages::FetchResponse;
use chronik_protocol::messages::fetch_request::FetchRequest;
use chronik_protocol::{ErrorCode, Reader};
use chronik_shards::catalog::Image;
use chronik_shards::{Isolation, PartitionId, ReadPart};

use super::beside::rest;
use super::call::Call;
use super::context::Context;
use super::partitions;
use crate::server::service::{Admitted, Answer, Pace};
use legacy::Old;
use read::Reading;
use session::{FetchPart, Opened, TopicKey};

pub(crate) use parked::Parked;
pub(crate) use session::SessionCache;

/// From this version on topics are named by id (KIP-516).
const TOPIC_ID_VERSION: i16 = 13;
/// From this version on the replica's id is in a tagged structure (KIP-903).
const REPLICA_STATE_VERSION: i16 = 15;
/// What one partition of a fetch that waits takes, here and where it is parked, bytes.
const PART_BYTES_KEPT: usize = 320;
/// Longest time a fetch may wait, ms: bounds what a client can park.
const WAIT_MS_MAX: i32 = 600_000;

/// Takes a Fetch request.
pub(super) async fn admit<W: World>(
    context: Rc<Context<W>>,
    mut call: Call,
    body: Reader,
) -> Admitted {
    let decoded = call.decode_data::<W, FetchRequest>(&context.world, body, count);
    let request = match decoded.await {
        Ok(request) => request,
        Err(close) => {
            return Admitted {
                pace: Pace::OneFetch,
                answer: Answer::Now(close),
            };
        }
    };
    let opened = context.sessions.borrow_mut().open(
        &session::Ask::of(&request, call.version >= TOPIC_ID_VERSION),
        context.world.now_ms(),
        || context.world.random_u64(),
    );
    let opened = match opened {
        Ok(opened) => opened,
        Err(error) => {
            let error_code = error.as_i16();
            let response = FetchResponse {
                error_code,
                ..FetchResponse::default()
            };
            return Admitted {
                pace: Pace::OneFetch,
                answer: Answer::Now(call.reply(&response)),
            };
        }
    };
    rest(&context.world, opened.parts.len()).await;
    let (parts, errors) = plan(&context.image(), &call, &request, &opened);
    rest(&context.world, parts.len()).await;
    let kept_bytes = opened.parts.len() * PART_BYTES_KEPT;
    // What waits keeps nothing of the frame, however much came with the request.
    call.detach();
    let reading = Reading::new(&context, &request, parts, isolation(&request));
    let old = legacy::message_format(call.version).map(|format| Old {
        format,
        reading: reading.clone(),
    });
    let sent = read::begin(&context, reading).await;
    let answer = async move {
        let mut results = read::finish(&context, sent).await;
        if let Some(old) = old {
            results = old.finish(&context, results).await;
        }
        let count = errors.len();
        rest(&context.world, count).await;
        let outcome = respond::Outcome {
            opened,
            errors,
            results,
        };
        let response = outcome.into_response(&mut context.sessions.borrow_mut(), call.version);
        rest(&context.world, count).await;
        call.reply(&response)
    };
    Admitted {
        pace: Pace::OneFetch,
        answer: Answer::Parked(Box::pin(answer), kept_bytes),
    }
}

/// How many partitions a request names.
fn count(request: &FetchRequest) -> usize {
    let topics = request.topics.iter();
    topics.map(|topic| topic.partitions.len()).sum()
}

fn isolation(request: &FetchRequest) -> Isolation {
    match request.isolation_level {
        0 => Isolation::ReadUncommitted,
        _ => Isolation::ReadCommitted,
    }
}

/// What to read, and for each partition of the fetch why it cannot be.
fn plan(
    image: &Image,
    call: &Call,
    request: &FetchRequest,
    opened: &Opened,
) -> (Vec<ReadPart>, Vec<Option<ErrorCode>>) {
    let replica_id = if call.version >= REPLICA_STATE_VERSION {
        request.replica_state.replica_id
    } else {
        request.replica_id
    };
    let mut parts = Vec::with_capacity(opened.parts.len());
    let mut errors = Vec::with_capacity(opened.parts.len());
    for part in &opened.parts {
        // No other broker has a replica here, so none may fetch as one.
        let found = if replica_id >= 0 {
            Err(ErrorCode::NotLeaderOrFollower)
        } else {
            find(image, part)
        };
        errors.push(found.err());
        if let Ok(partition) = found {
            parts.push(ReadPart {
                partition,
                fetch_offset: part.fetch_offset,
                max_bytes: usize::try_from(part.max_bytes).unwrap_or(0),
                current_leader_epoch: part.current_leader_epoch,
                last_fetched_epoch: part.last_fetched_epoch,
            });
        }
    }
    (parts, errors)
}

fn find(image: &Image, part: &FetchPart) -> Result<PartitionId, ErrorCode> {
    match &part.topic {
        TopicKey::Name(name) => partitions::by_name(image, name, part.partition),
        TopicKey::Id(id) => {
            let topic = image.topic_by_id(*id).ok_or(ErrorCode::UnknownTopicId)?;
            let found = partitions::of_topic(topic, part.partition);
            found
                .map(|(id, _)| id)
                .ok_or(ErrorCode::UnknownTopicOrPartition)
        }
    }
}
