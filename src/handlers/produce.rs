//! Produce (key 0): from a request to one append for each partition.
//!
//! Stage one runs in the order of the connection: it decodes to slices of the frame, checks every
//! batch, and hands the batches to the shards that own their partitions. Stage two waits for the
//! acknowledgements and encodes. Never copies records, except to rewrite a timestamp, a codec or a
//! format of old clients.

mod check;
mod conversions;
mod messages;
mod refusal;
mod respond;
mod rules;

use std::rc::Rc;

use chronik_catalog::{Image, Topic};
use chronik_io::World;
use chronik_protocol::messages::produce_request::TopicProduceData;
use chronik_protocol::messages::{ProduceRequest, ProduceResponse};
use chronik_protocol::{ErrorCode, Reader};
use chronik_terms::{Acks, AppendPart, PartitionId};

use super::api::{Api, Begun, Handled, Shape, Staged};
use super::beside::rest;
use super::call::Call;
use super::context::Context;
use super::distinct::{Keep, of_topics};
use super::partitions;
use super::slice::Slice;
use crate::router::tell_by_name;
use crate::server::service::{Pace, Reply};
use conversions::Conversions;
use refusal::Refusal;
use rules::Rules;

/// From this version on topics are named by id (KIP-516).
const TOPIC_ID_VERSION: i16 = 13;
/// The client id that may write to Kafka's own topics (`AdminUtils.ADMIN_CLIENT_ID`).
const ADMIN_CLIENT_ID: &str = "__admin_client";

impl Api for ProduceRequest {
    const SHAPE: Shape = Shape::Topics;

    /// `KafkaApis#handleProduceRequest` puts the records into a map.
    fn settle(&mut self) {
        self.topic_data = of_topics(
            std::mem::take(&mut self.topic_data),
            Keep::Last,
            |topic| (topic.name.clone(), topic.topic_id),
            |topic| &mut topic.partition_data,
            |partition| partition.index,
        );
    }

    fn refused(&self, _: &Call, error: ErrorCode) -> ProduceResponse {
        respond::all_refused(self, &Refusal::of(error))
    }

    /// What stands around the records is looked at here, with rests where it is much.
    fn read<W: World>(
        call: &Call,
        world: &W,
        body: Reader,
    ) -> impl Future<Output = Result<Self, Reply>> {
        call.decode_data(world, body, Self::settle, count)
    }
}

impl Staged for ProduceRequest {
    const PACE: Pace = Pace::Free;

    async fn begin<W: World>(
        context: Rc<Context<W>>,
        call: &mut Call,
        request: Self,
    ) -> Begun<
        ProduceResponse,
        impl AsyncFnOnce(&Call) -> Handled<ProduceResponse> + 'static + use<W>,
    > {
        let acks = match request.acks {
            -1 => Acks::All,
            0 => Acks::None,
            1 => Acks::Leader,
            _ => {
                let refused = request.refused(call, ErrorCode::InvalidRequiredAcks);
                return Begun::Done(Handled::Short(refused));
            }
        };
        let mut conversions = Conversions::new(&context);
        let (parts, refusals) = check_all(&context, &mut conversions, call, &request).await;
        let (world, timeout_ms) = (&context.world, request.timeout_ms);
        let gather = context.router.append(world, acks, timeout_ms, parts).await;
        // From here on the owners count the batches; a turn to make many ends.
        let charge = conversions.into_charge();
        Begun::Rest(async move |call: &Call| {
            let mut results = gather.collect().await.unwrap_or_default();
            if call.version < TOPIC_ID_VERSION {
                results.iter_mut().for_each(tell_by_name);
            }
            drop(charge);
            rest(&context.world, refusals.len()).await;
            let count = refusals.len();
            let response = respond::response(&request, refusals, results);
            rest(&context.world, count).await;
            match (acks, respond::first_error(&response)) {
                (Acks::None, None) => Handled::Reply(Reply::Silent),
                (Acks::None, Some(error)) => {
                    Handled::Reply(call.close(&format!("with acks=0 failed: {error}")))
                }
                _ => Handled::Short(response),
            }
        })
    }
}

/// How many partitions a request names.
fn count(request: &ProduceRequest) -> usize {
    let topics = request.topic_data.iter();
    topics.map(|topic| topic.partition_data.len()).sum()
}

/// Checks every partition's records; for each, either a part to append or why there is none.
async fn check_all<W: World>(
    context: &Context<W>,
    conversions: &mut Conversions<'_, W>,
    call: &Call,
    request: &ProduceRequest,
) -> (Vec<AppendPart>, Vec<Option<Refusal>>) {
    let image = context.image();
    let targets = find_all(&image, call, request);
    let mut slice = Slice::begin(&context.world);
    let mut parts = Vec::with_capacity(targets.len());
    let mut refusals = Vec::with_capacity(targets.len());
    let partitions = request
        .topic_data
        .iter()
        .flat_map(|topic| &topic.partition_data);
    for (target, partition) in targets.into_iter().zip(partitions) {
        slice.breathe(&context.world).await;
        let checked = match target {
            Ok((topic, id)) => {
                let records = partition.records.as_ref();
                let transactional = request.transactional_id.is_some();
                let rules = Rules::new(call.version, topic, id.index, transactional);
                let batch = check::batch(context, &mut slice, conversions, &rules, records).await;
                batch.and_then(|batch| {
                    let batch = batch.ok_or_else(Refusal::nothing)?;
                    Ok(AppendPart {
                        partition: id,
                        batch,
                    })
                })
            }
            Err(refusal) => Err(refusal),
        };
        match checked {
            Ok(part) => {
                parts.push(part);
                refusals.push(None);
            }
            Err(refusal) => refusals.push(Some(refusal)),
        }
    }
    (parts, refusals)
}

/// Where a batch goes, or why nowhere.
type Target<'a> = Result<(&'a Topic, PartitionId), Refusal>;

/// The partitions that the request names, in its order.
fn find_all<'a>(image: &'a Image, call: &Call, request: &ProduceRequest) -> Vec<Target<'a>> {
    let mut targets: Vec<Target<'a>> = Vec::new();
    for data in &request.topic_data {
        let topic = find_topic(image, call, data);
        targets.extend(data.partition_data.iter().map(|partition| {
            let topic = topic.map_err(Refusal::of)?;
            let found = partitions::of_topic(topic, partition.index);
            let unknown = || Refusal::of(ErrorCode::UnknownTopicOrPartition);
            Ok((topic, found.ok_or_else(unknown)?.0))
        }));
    }
    targets
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
