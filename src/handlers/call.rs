//! One request as its handler sees it, and the way from a response to bytes.
//!
//! Lives on the shard of the connection. Never sends.

use std::rc::Rc;

use bytes::Bytes;
use chronik_io::World;
use chronik_protocol::frame::{RequestHeader, encode_response};
use chronik_protocol::messages::ResponseHeader;
use chronik_protocol::versions::ServedApi;
use chronik_protocol::{ApiKey, DecodeError, EncodeError, Message, Reader, Request, Str, Writer};
use tracing::{Span, debug_span, trace};

use super::beside::{LARGE_REQUEST_BYTES, beside, rest};
use super::context::Advertised;
use super::session::Open;
use crate::server::service::Reply;

/// A request of a served version.
pub(crate) struct Call {
    /// Which API.
    pub(super) api: ServedApi,
    /// Which version of it.
    pub(crate) version: i16,
    /// What the client calls itself.
    pub(crate) client_id: Option<Str>,
    /// The connection it came on.
    pub(super) session: Rc<Open>,
    /// How long the client is held up for its quota, ms.
    pub(super) throttle_ms: i32,
    correlation_id: i32,
    /// Whether so much came that it is looked at beside the shard.
    pub(super) is_large: bool,
}

impl Call {
    /// A call from its header.
    pub(super) fn new(
        api: ServedApi,
        header: RequestHeader,
        session: &Rc<Open>,
        body_bytes: usize,
    ) -> Self {
        let RequestHeader {
            api_version,
            correlation_id,
            client_id,
            ..
        } = header;
        Self {
            api,
            version: api_version,
            client_id,
            session: Rc::clone(session),
            throttle_ms: 0,
            correlation_id,
            is_large: body_bytes >= LARGE_REQUEST_BYTES,
        }
    }

    fn key(&self) -> ApiKey {
        self.api.range().key
    }

    /// Where this client is told to find the broker.
    pub(crate) fn advertised(&self) -> &Advertised {
        &self.session.peer.advertised
    }

    /// The client's address, as Java writes one.
    pub(crate) fn client_host(&self) -> &Str {
        &self.session.peer.host
    }

    /// What is logged of this request while it is under way. Costs a comparison while that is not asked
    /// for (`CHRONIK_TRACE=debug`).
    pub(super) fn span(&self) -> Span {
        debug_span!(
            "request",
            api = self.key().name(),
            version = self.version,
            client = self.client_id.as_deref(),
            correlation = self.correlation_id,
            principal = self.session.principal.name.as_str(),
        )
    }

    /// Keeps nothing of the frame, for a request that waits.
    pub(super) fn detach(&mut self) {
        self.client_id = self.client_id.as_ref().map(Str::detached);
    }

    /// The body of a request whose bytes are mostly records, with what it names again and again
    /// settled: what stands around the records is looked at here, with rests where it is much. `parts`
    /// counts it.
    ///
    /// # Errors
    /// The reply that closes the connection, when the bytes are not a request.
    pub(super) async fn decode_data<W: World, Q: Request>(
        &self,
        world: &W,
        mut body: Reader,
        settle: fn(&mut Q),
        parts: impl Fn(&Q) -> usize,
    ) -> Result<Q, Reply> {
        let mut request = self.decoded(Q::decode(&mut body, self.version))?;
        if let Err(error) = body.finish() {
            trace!(api = %self.key(), version = self.version, %error, "passed over");
        }
        let count = parts(&request);
        rest(world, count).await;
        settle(&mut request);
        rest(world, count).await;
        Ok(request)
    }

    /// The body, with what it names again and again settled; beside the shard if much came.
    ///
    /// # Errors
    /// The reply that closes the connection, when the bytes are not a request.
    pub(super) async fn decode_beside<W: World, Q: Request>(
        &self,
        world: &W,
        body: Reader,
        settle: fn(&mut Q),
    ) -> Result<Q, Reply> {
        let (key, version) = (self.key(), self.version);
        self.decoded(
            beside(world, self.is_large, move || {
                decode(key, version, body, settle)
            })
            .await,
        )
    }

    fn decoded<Q>(&self, decoded: Result<Q, DecodeError>) -> Result<Q, Reply> {
        decoded.map_err(|error| self.close(&format!("cannot be decoded: {error}")))
    }

    /// A response as bytes. One that does not fit its version is our bug; it costs the connection.
    pub(super) fn reply<M: Message>(&self, response: &M) -> Reply {
        let header_version = self.key().response_header_version(self.version);
        let encoded = encode_response(self.correlation_id, header_version, response, self.version);
        self.encoded(encoded)
    }

    /// As [`Call::reply`], beside the shard.
    pub(super) async fn reply_long<W: World, M: Message>(&self, world: &W, response: M) -> Reply {
        let version = self.version;
        let header_version = self.key().response_header_version(version);
        let correlation_id = self.correlation_id;
        // It ends there too: its parts are many.
        let encode = move || encode_response(correlation_id, header_version, &response, version);
        self.encoded(beside(world, true, encode).await)
    }

    fn encoded(&self, encoded: Result<Vec<Bytes>, EncodeError>) -> Reply {
        match encoded {
            Ok(parts) => Reply::Send(parts),
            Err(error) => self.close(&format!("cannot be answered: {error}")),
        }
    }

    /// The header of a response, without the length before it.
    ///
    /// # Errors
    /// Our bug.
    pub(super) fn put_header(&self, writer: &mut Writer) -> Result<(), EncodeError> {
        let header = ResponseHeader {
            correlation_id: self.correlation_id,
            ..ResponseHeader::default()
        };
        header.encode(writer, self.key().response_header_version(self.version))
    }

    /// Closes the connection with a sentence that names API and version.
    pub(crate) fn close(&self, reason: &str) -> Reply {
        let client = self.client_id.as_deref().unwrap_or("");
        Reply::Close(format!(
            "{} version {} of client \"{client}\" {reason}",
            self.key(),
            self.version
        ))
    }
}

/// Bytes behind the body are passed over, as in Kafka: librdkafka 2.11 sends three of them with Metadata 13.
fn decode<Q: Request>(
    key: ApiKey,
    version: i16,
    mut body: Reader,
    settle: fn(&mut Q),
) -> Result<Q, DecodeError> {
    let mut request = Q::decode(&mut body, version)?;
    if let Err(error) = body.finish() {
        trace!(api = %key, version, %error, "passed over");
    }
    settle(&mut request);
    Ok(request)
}
