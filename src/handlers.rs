//! One module per API, and the way of a request to its handler: `table.rs` says who answers a key,
//! `pipeline.rs` what every request goes through, `api.rs` what an API states of itself.
//!
//! Runs on every shard. Turns frames into typed requests and typed responses into bytes; versions
//! come from `protocol::versions`. Never owns state of a partition or of the catalogue.

mod alter_configs;
mod alter_replica_log_dirs;
mod api;
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
mod guard;
mod init_producer_id;
mod list_config_resources;
mod list_offsets;
mod metadata;
mod meters;
mod offset_for_leader_epoch;
mod operations;
mod parked_fetches;
mod partitions;
mod pieces;
mod pipeline;
mod produce;
mod quota;
mod reassignments;
mod security;
mod sentences;
mod session;
mod slice;
mod table;
#[cfg(test)]
mod tests;
mod update_features;

use std::net::SocketAddr;
use std::rc::Rc;

use bytes::Bytes;
use chronik_io::World;
use chronik_protocol::frame::{RequestHeader, decode_request_header};
use chronik_protocol::versions::ServedApi;
use chronik_protocol::{ApiKey, Reader, Str};

use crate::server::service::{Admitted, Answer, Pace, Reply, Service};
use call::Call;
use context::Context;
use session::{Peer, Session};

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

impl<W: World> Service for Handlers<W> {
    type Session = Session;

    fn open(&self, local: SocketAddr, peer: SocketAddr) -> Session {
        Session::begin(Peer {
            advertised: self.context.advertised(local),
            host: Str::from(format!("/{}", peer.ip().to_canonical())),
        })
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
        let session = session.open();
        match served(&header) {
            Ok(api) => {
                let call = Call::new(api, header, session, body.remaining());
                table::handle(Rc::clone(&self.context), call, body).await
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

fn served(header: &RequestHeader) -> Result<ServedApi, Unserved> {
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
    match ServedApi::of(key) {
        Some(api) if api.range().serves(api_version) => Ok(api),
        Some(ServedApi::ApiVersions) => Err(Unserved::ApiVersions),
        _ => Err(Unserved::Close(format!(
            "{key} version {api_version} is not served"
        ))),
    }
}

/// Closes the connection; `reason` names what the client asked for.
fn closed(reason: String) -> Admitted {
    Admitted {
        pace: Pace::Alone,
        answer: Answer::Now(Reply::Close(reason)),
    }
}
