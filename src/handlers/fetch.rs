//! Fetch (key 1): from a request, or the session it continues, to batches as they lie in memory.
//!
//! Stage one finds out which partitions are meant and sends the first read to their owners; stage
//! two waits (for data, not for time), merges and encodes. Records are never copied here, except
//! to convert them for clients before Kafka 0.11.

mod legacy;
mod read;
mod respond;

use std::rc::Rc;

use chronik_catalog::Image;
use chronik_io::World;
use chronik_protocol::ErrorCode;
use chronik_protocol::messages::FetchResponse;
use chronik_protocol::messages::fetch_request::FetchRequest;
use chronik_terms::{Isolation, PartitionId, ReadPart};

use super::api::{Api, Begun, Handled, Shape, Staged};
use super::beside::beside;
use super::call::Call;
use super::context::Context;
use super::distinct::{Keep, of_topics};
use super::fetch_sessions::{Ask, FetchPart, NO_SESSION, Opened, Session, TopicKey};
use super::partitions;
use crate::server::service::Pace;
use legacy::Old;
use read::Reading;

/// From this version on topics are named by id (KIP-516).
const TOPIC_ID_VERSION: i16 = 13;
/// From this version on the replica's id is in a tagged structure (KIP-903).
const REPLICA_STATE_VERSION: i16 = 15;
/// What one partition of a fetch that waits takes, here and where it is parked, bytes.
const PART_BYTES_KEPT: usize = 320;
/// From so many partitions on a fetch is planned and answered beside the shard: some 150 ns each.
const PARTS_AT_ONCE: usize = 4_000;
/// Longest time a fetch may wait, ms: bounds what a client can park.
const WAIT_MS_MAX: i32 = 600_000;

impl Api for FetchRequest {
    const SHAPE: Shape = Shape::Topics;

    /// `FetchRequest#fetchData` is a map. Forgotten ones are forgotten once, whatever their number.
    fn settle(&mut self) {
        self.topics = of_topics(
            std::mem::take(&mut self.topics),
            Keep::Last,
            |topic| (topic.topic.clone(), topic.topic_id),
            |topic| &mut topic.partitions,
            |partition| partition.partition,
        );
    }

    fn refused(&self, call: &Call, error: ErrorCode) -> FetchResponse {
        respond::all_refused(self, call.version, error)
    }
}

impl Staged for FetchRequest {
    const PACE: Pace = Pace::OneFetch;

    async fn begin<W: World>(
        context: Rc<Context<W>>,
        call: &mut Call,
        request: Self,
    ) -> Begun<FetchResponse, impl AsyncFnOnce(&Call) -> Handled<FetchResponse> + 'static + use<W>>
    {
        let uses_ids = call.version >= TOPIC_ID_VERSION;
        let ask = move || (Ask::of(&request, uses_ids), request);
        let (ask, request) = beside(&context.world, call.is_large, ask).await;
        let random = || context.world.random_u64();
        let opening = context
            .sessions
            .borrow_mut()
            .open(ask, context.world.now_ms(), random);
        let opening = match opening {
            Ok(opening) => opening,
            Err(error) => {
                let response = FetchResponse {
                    error_code: error.as_i16(),
                    ..FetchResponse::default()
                };
                return Begun::Done(Handled::Short(response));
            }
        };
        // A session may have many more than the request names.
        let is_large = opening.len() > PARTS_AT_ONCE;
        let away = Away::begin(&context, opening.session_id());
        let (image, version) = (context.image(), call.version);
        let planned = move || {
            let (opened, session) = opening.run();
            let planned = plan(&image, version, &request, &opened);
            (request, opened, session, planned)
        };
        let planned = beside(&context.world, is_large, planned).await;
        let (request, opened, session, (parts, errors)) = planned;
        away.end(session);
        let kept_bytes = opened.parts.len() * PART_BYTES_KEPT;
        // What waits keeps nothing of the frame, however much came with the request.
        call.detach();
        let reading = Reading::new(&context, &request, parts, isolation(&request));
        let old = legacy::message_format(version).map(|format| Old {
            format,
            reading: reading.clone(),
        });
        let sent = read::begin(&context, reading).await;
        let rest = async move |call: &Call| {
            let mut results = read::finish(&context, sent).await;
            if let Some(old) = old {
                results = old.finish(&context, results).await;
            }
            let outcome = respond::Outcome {
                opened,
                errors,
                results,
            };
            respond(&context, call.version, outcome, is_large).await
        };
        Begun::Parked(rest, kept_bytes)
    }
}

/// The answer; the session learns what the client is told.
async fn respond<W: World>(
    context: &Context<W>,
    version: i16,
    outcome: respond::Outcome,
    is_large: bool,
) -> Handled<FetchResponse> {
    let id = outcome.opened.session_id;
    let mut session = context.sessions.borrow_mut().lend(id);
    let away = Away::begin(context, if session.is_some() { id } else { NO_SESSION });
    let respond = move || {
        let response = outcome.into_response(session.as_mut(), version);
        (response, session)
    };
    let (response, session) = beside(&context.world, is_large, respond).await;
    away.end(session);
    match is_large {
        true => Handled::Long(response),
        false => Handled::Short(response),
    }
}

/// A session that is with its request; when the connection ends meanwhile it is forgotten.
struct Away<'a, W> {
    context: &'a Context<W>,
    /// 0 when there is none.
    session_id: i32,
}

impl<'a, W> Away<'a, W> {
    fn begin(context: &'a Context<W>, session_id: i32) -> Self {
        Self {
            context,
            session_id,
        }
    }

    fn end(mut self, session: Option<Session>) {
        let id = std::mem::replace(&mut self.session_id, NO_SESSION);
        if let Some(session) = session {
            self.context.sessions.borrow_mut().give_back(id, session);
        }
    }
}

impl<W> Drop for Away<'_, W> {
    fn drop(&mut self) {
        if self.session_id != NO_SESSION {
            self.context.sessions.borrow_mut().remove(self.session_id);
        }
    }
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
    version: i16,
    request: &FetchRequest,
    opened: &Opened,
) -> (Vec<ReadPart>, Vec<Option<ErrorCode>>) {
    let replica_id = if version >= REPLICA_STATE_VERSION {
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
