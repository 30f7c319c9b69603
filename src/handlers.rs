//! One module per API, and the table that leads to them.
//!
//! Runs on every shard. Turns frames into typed requests and typed responses into bytes; versions
//! come from `protocol::versions`. Never owns state of a partition or of the catalogue.

mod alter_configs;
mod alter_replica_log_dirs;
mod api_versions;
mod beside;
mod call;
mod configs;
pub(crate) mod context;
mod conversion;
mod create_partitions;
mod create_topics;
mod delete_records;
mod delete_topics;
mod describe_cluster;
mod describe_configs;
mod describe_log_dirs;
mod describe_quorum;
mod describe_topic_partitions;
mod distinct;
mod elect_leaders;
pub(crate) mod fetch;
mod fetch_sessions;
mod groups;
mod init_producer_id;
mod list_config_resources;
mod list_offsets;
mod metadata;
mod offset_for_leader_epoch;
mod operations;
mod parked_fetches;
mod partitions;
mod pieces;
mod produce;
mod reassignments;
mod security;
mod sentences;
mod slice;
#[cfg(test)]
mod tests;
mod update_features;

use std::net::SocketAddr;
use std::rc::Rc;

use bytes::Bytes;
use chronik_io::World;
use chronik_protocol::frame::{RequestHeader, decode_request_header};
use chronik_protocol::messages::{
    CreateDelegationTokenRequest, DescribeDelegationTokenRequest, ExpireDelegationTokenRequest,
    ListPartitionReassignmentsRequest, RenewDelegationTokenRequest,
};
use chronik_protocol::{ApiKey, Reader, Request, Str, versions};

use crate::server::service::{Admitted, Answer, Pace, Reply, Service};
use call::Call;
use context::{Advertised, Context};
use distinct::Distinct;

/// The service behind every connection.
pub(crate) struct Handlers<W> {
    context: Rc<Context<W>>,
}

impl<W: World> Handlers<W> {
    /// Handlers that share `context`.
    pub(crate) fn new(context: Rc<Context<W>>) -> Self {
        Self { context }
    }
}

/// What is remembered about a connection.
pub(crate) struct Session {
    /// Where its client is told to find the broker.
    advertised: Rc<Advertised>,
    /// Its client's address, as Java writes one: `/127.0.0.1`.
    client_host: Str,
}

impl<W: World> Service for Handlers<W> {
    type Session = Session;

    fn open(&self, local: SocketAddr, peer: SocketAddr) -> Session {
        Session {
            advertised: Rc::new(self.context.advertised(local)),
            client_host: Str::from(format!("/{}", peer.ip().to_canonical())),
        }
    }

    fn is_fetch(frame: &[u8]) -> bool {
        frame.starts_with(&ApiKey::Fetch.as_i16().to_be_bytes())
    }

    async fn admit(&self, session: &mut Session, frame: Bytes) -> Admitted {
        let mut body = Reader::new(frame);
        let header = match decode_request_header(&mut body) {
            Ok(header) => header,
            Err(error) => return closed(format!("unreadable request header: {error}")),
        };
        match served(&header) {
            Ok(key) => {
                let call = Call::new(key, header, session, body.remaining());
                dispatch(&self.context, call, body).await
            }
            Err(Unserved::ApiVersions) => api_versions::unknown_version(&header),
            Err(Unserved::Close(reason)) => closed(reason),
        }
    }
}

enum Unserved {
    /// A version of ApiVersions that is newer than ours is answered in a form all can read.
    ApiVersions,
    /// Anything else ends the connection, as in Kafka.
    Close(String),
}

fn served(header: &RequestHeader) -> Result<ApiKey, Unserved> {
    let RequestHeader {
        api_key,
        api_version,
        ..
    } = *header;
    let Ok(key) = ApiKey::try_from(api_key) else {
        return Err(Unserved::Close(format!(
            "unknown API key {api_key} (version {api_version})"
        )));
    };
    match versions::of(key) {
        Some(range) if range.serves(api_version) => Ok(key),
        Some(_) if key == ApiKey::ApiVersions => Err(Unserved::ApiVersions),
        _ => Err(Unserved::Close(format!(
            "{key} version {api_version} is not served"
        ))),
    }
}

/// One line of the table: how a request is answered, and by which handler. One that needs nothing of the
/// call stands behind `alone`.
macro_rules! answered {
    ($context:ident, $call:ident, $body:ident, $how:ident, $handle:path) => {{
        let world = $context.world.clone();
        let handle = move |call, request| $handle($context, call, request);
        $how(&world, $call, $body, handle).await
    }};
    ($context:ident, $call:ident, $body:ident, $how:ident, alone $handle:path) => {{
        let world = $context.world.clone();
        let handle = move |_, request| $handle($context, request);
        $how(&world, $call, $body, handle).await
    }};
}
use answered;

async fn dispatch<W: World>(context: &Rc<Context<W>>, call: Call, body: Reader) -> Admitted {
    let context = Rc::clone(context);
    let world = &context.world.clone();
    match call.key {
        ApiKey::Produce => produce::admit(context, call, body).await,
        ApiKey::Fetch => fetch::admit(context, call, body).await,
        ApiKey::ApiVersions => {
            now(world, call, body, |call, request| {
                api_versions::handle(&context, call, &request)
            })
            .await
        }
        ApiKey::Metadata => answered!(context, call, body, in_pieces, metadata::handle),
        ApiKey::DescribeCluster => {
            now(world, call, body, |call, request| {
                describe_cluster::handle(&context, call, &request)
            })
            .await
        }
        ApiKey::DescribeTopicPartitions => answered!(
            context,
            call,
            body,
            later,
            describe_topic_partitions::handle
        ),
        ApiKey::ListOffsets => answered!(context, call, body, later, list_offsets::handle),
        ApiKey::OffsetForLeaderEpoch => {
            answered!(context, call, body, later, offset_for_leader_epoch::handle)
        }
        ApiKey::CreateTopics => answered!(context, call, body, later, create_topics::handle),
        ApiKey::DeleteTopics => answered!(context, call, body, later, delete_topics::handle),
        ApiKey::CreatePartitions => {
            answered!(context, call, body, later, create_partitions::handle)
        }
        ApiKey::DeleteRecords => answered!(context, call, body, later, delete_records::handle),
        ApiKey::DescribeConfigs => {
            answered!(context, call, body, in_pieces, describe_configs::handle)
        }
        ApiKey::AlterConfigs => answered!(context, call, body, later, alter_configs::replace),
        ApiKey::IncrementalAlterConfigs => {
            answered!(context, call, body, later, alter_configs::change)
        }
        ApiKey::InitProducerId => {
            answered!(context, call, body, later, alone init_producer_id::handle)
        }
        ApiKey::DescribeLogDirs => answered!(context, call, body, later, describe_log_dirs::handle),
        ApiKey::ListConfigResources => {
            now(world, call, body, |call, request| {
                list_config_resources::handle(&context, call, &request)
            })
            .await
        }
        _ => dispatch_rare(context, call, body).await,
    }
}

/// What administrators ask, and the groups.
async fn dispatch_rare<W: World>(context: Rc<Context<W>>, call: Call, body: Reader) -> Admitted {
    let world = &context.world.clone();
    match call.key {
        ApiKey::ElectLeaders => answered!(context, call, body, later, alone elect_leaders::handle),
        ApiKey::AlterReplicaLogDirs => {
            answered!(context, call, body, later, alone alter_replica_log_dirs::handle)
        }
        ApiKey::AlterPartitionReassignments => {
            answered!(context, call, body, later, alone reassignments::alter)
        }
        ApiKey::ListPartitionReassignments => {
            now::<W, ListPartitionReassignmentsRequest>(world, call, body, |_, _| {
                reassignments::list()
            })
            .await
        }
        ApiKey::DescribeQuorum => answered!(context, call, body, later, describe_quorum::handle),
        ApiKey::UpdateFeatures => answered!(context, call, body, later, update_features::handle),
        ApiKey::DescribeAcls => checked(world, call, body, security::describe_acls).await,
        ApiKey::CreateAcls => checked(world, call, body, security::create_acls).await,
        ApiKey::DeleteAcls => checked(world, call, body, security::delete_acls).await,
        ApiKey::CreateDelegationToken => {
            now::<W, CreateDelegationTokenRequest>(world, call, body, |call, _| {
                security::create_token(call)
            })
            .await
        }
        ApiKey::RenewDelegationToken => {
            now::<W, RenewDelegationTokenRequest>(world, call, body, |_, _| security::renew_token())
                .await
        }
        ApiKey::ExpireDelegationToken => {
            now::<W, ExpireDelegationTokenRequest>(world, call, body, |_, _| {
                security::expire_token()
            })
            .await
        }
        ApiKey::DescribeDelegationToken => {
            now::<W, DescribeDelegationTokenRequest>(world, call, body, |_, _| {
                security::describe_tokens()
            })
            .await
        }
        _ => groups::admit(context, call, body).await,
    }
}

/// Closes the connection; `reason` names what the client asked for.
fn closed(reason: String) -> Admitted {
    Admitted {
        pace: Pace::Alone,
        answer: Answer::Now(Reply::Close(reason)),
    }
}

/// Answers from what this shard has in memory.
async fn now<W: World, Q: Request + Distinct>(
    world: &W,
    call: Call,
    body: Reader,
    handle: impl FnOnce(&Call, Q) -> Q::Response,
) -> Admitted {
    let answer = match call.decode_beside::<W, Q>(world, body).await {
        Ok(request) => {
            let response = handle(&call, request);
            call.reply_beside(world, response).await
        }
        Err(close) => close,
    };
    Admitted {
        pace: Pace::Free,
        answer: Answer::Now(answer),
    }
}

/// Answers from nothing but the request, which may be one that Kafka does not take for a request.
async fn checked<W: World, Q: Request + Distinct>(
    world: &W,
    call: Call,
    body: Reader,
    handle: impl FnOnce(&Q) -> Option<Q::Response>,
) -> Admitted {
    let answer = match call.decode_beside::<W, Q>(world, body).await {
        Ok(request) => match handle(&request) {
            Some(response) => call.reply_beside(world, response).await,
            None => call.close("has a kind that is unknown"),
        },
        Err(close) => close,
    };
    Admitted {
        pace: Pace::Free,
        answer: Answer::Now(answer),
    }
}

/// Answers when other shards have, with nothing taken from this connection meanwhile.
async fn later<W: World, Q: Request + Distinct, F: Future<Output = Q::Response> + 'static>(
    world: &W,
    call: Call,
    body: Reader,
    handle: impl FnOnce(Rc<Call>, Q) -> F,
) -> Admitted {
    let request = match call.decode_beside::<W, Q>(world, body).await {
        Ok(request) => request,
        Err(close) => {
            return Admitted {
                pace: Pace::Alone,
                answer: Answer::Now(close),
            };
        }
    };
    let call = Rc::new(call);
    let response = handle(Rc::clone(&call), request);
    let world = world.clone();
    let answer = async move { call.reply_beside(&world, response.await).await };
    let answer = Answer::Later(Box::pin(answer));
    Admitted {
        pace: Pace::Alone,
        answer,
    }
}

/// As [`later`], for an answer that is made piece by piece.
async fn in_pieces<W: World, Q: Request + Distinct, F: Future<Output = Reply> + 'static>(
    world: &W,
    call: Call,
    body: Reader,
    handle: impl FnOnce(Rc<Call>, Q) -> F,
) -> Admitted {
    let pace = Pace::Alone;
    let answer = match call.decode_beside::<W, Q>(world, body).await {
        Ok(request) => Answer::Later(Box::pin(handle(Rc::new(call), request))),
        Err(close) => Answer::Now(close),
    };
    Admitted { pace, answer }
}

/// As [`later`], for a request that may wait for others for long: `begin` hands it on, and what it
/// returns keeps nothing of it.
async fn parked<W: World, Q: Request + Distinct, F: Future<Output = Q::Response> + 'static>(
    world: &W,
    mut call: Call,
    body: Reader,
    begin: impl AsyncFnOnce(Rc<Call>, Q) -> F,
) -> Admitted {
    let pace = Pace::Alone;
    let request = match call.decode_beside::<W, Q>(world, body).await {
        Ok(request) => request,
        Err(close) => {
            let answer = Answer::Now(close);
            return Admitted { pace, answer };
        }
    };
    call.detach();
    let call = Rc::new(call);
    let response = begin(Rc::clone(&call), request).await;
    let answer = Box::pin(async move { call.reply(&response.await) });
    Admitted {
        pace,
        answer: Answer::Parked(answer, WAITING_BYTES),
    }
}

/// What a request keeps that waits for the rest of its group, bytes.
const WAITING_BYTES: usize = 1024;
