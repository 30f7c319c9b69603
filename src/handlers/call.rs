//! One request as its handler sees it, and the way from a response to bytes.
//!
//! Lives on the shard of the connection. Never sends.

use std::rc::Rc;

use chronik_protocol::frame::{RequestHeader, encode_response};
use chronik_protocol::messages::ResponseHeader;
use chronik_protocol::{ApiKey, EncodeError, Message, Reader, Request, Str, Writer};
use tracing::trace;

use super::Session;
use super::context::Advertised;
use super::distinct::Distinct;
use crate::server::service::Reply;

/// A request of a served version.
pub(crate) struct Call {
    /// Which API.
    pub(crate) key: ApiKey,
    /// Which version of it.
    pub(crate) version: i16,
    /// What the client calls itself.
    pub(crate) client_id: Option<Str>,
    /// Where this client is told to find the broker.
    pub(crate) advertised: Rc<Advertised>,
    /// The client's address, as Java writes one.
    pub(crate) client_host: Str,
    correlation_id: i32,
}

impl Call {
    /// A call from its header.
    pub(crate) fn new(key: ApiKey, header: RequestHeader, session: &Session) -> Self {
        let RequestHeader {
            api_version,
            correlation_id,
            client_id,
            ..
        } = header;
        Self {
            key,
            version: api_version,
            client_id,
            advertised: Rc::clone(&session.advertised),
            client_host: session.client_host.clone(),
            correlation_id,
        }
    }

    /// Keeps nothing of the frame, for a request that waits.
    pub(crate) fn detach(&mut self) {
        self.client_id = self.client_id.as_ref().map(Str::detached);
    }

    /// The body, with what it names again and again settled. Bytes behind it are passed over, as in Kafka: librdkafka 2.11 sends three of them
    /// with Metadata 13.
    ///
    /// # Errors
    /// The reply that closes the connection, when the bytes are not a request.
    pub(crate) fn decode<Q: Request + Distinct>(&self, mut body: Reader) -> Result<Q, Reply> {
        let mut request = Q::decode(&mut body, self.version)
            .map_err(|error| self.close(&format!("cannot be decoded: {error}")))?;
        if let Err(error) = body.finish() {
            trace!(api = %self.key, version = self.version, %error, "passed over");
        }
        request.settle();
        Ok(request)
    }

    /// A response as bytes. One that does not fit its version is our bug; it costs the connection.
    pub(crate) fn reply<M: Message>(&self, response: &M) -> Reply {
        let header_version = self.key.response_header_version(self.version);
        match encode_response(self.correlation_id, header_version, response, self.version) {
            Ok(parts) => Reply::Send(parts),
            Err(error) => self.close(&format!("cannot be answered: {error}")),
        }
    }

    /// The header of a response, without the length before it.
    ///
    /// # Errors
    /// Our bug.
    pub(crate) fn put_header(&self, writer: &mut Writer) -> Result<(), EncodeError> {
        let header = ResponseHeader {
            correlation_id: self.correlation_id,
            ..ResponseHeader::default()
        };
        header.encode(writer, self.key.response_header_version(self.version))
    }

    /// Closes the connection with a sentence that names API and version.
    pub(crate) fn close(&self, reason: &str) -> Reply {
        let client = self.client_id.as_deref().unwrap_or("");
        Reply::Close(format!(
            "{} version {} of client \"{client}\" {reason}",
            self.key, self.version
        ))
    }
}
