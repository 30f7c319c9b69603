//! Owns plain request and reply over one blocking connection, for what happens before and after the
//! measuring: topics made and removed, the broker asked whether it is there.
//!
//! Never used while load runs.

use std::fmt::Display;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use bytes::Bytes;
use chronik_protocol::codec::Reader;
use chronik_protocol::frame::encode_request;
use chronik_protocol::messages::{
    CreateTopicsRequest, DeleteTopicsRequest, ResponseHeader, create_topics_request,
};
use chronik_protocol::{ErrorCode, Message, Request, Str};

/// Patience with one reply; deleting big topics takes a while.
const PATIENCE: Duration = Duration::from_secs(60);
/// No reply of these requests comes near this.
const REPLY_BYTES_MAX: usize = 1 << 20;
const CREATE_TOPICS_VERSION: i16 = 7;
const DELETE_TOPICS_VERSION: i16 = 5;

/// The name this program gives itself in every request.
pub(crate) const CLIENT_ID: &str = "chronik-bench";

/// A blocking connection for a few requests.
#[derive(Debug)]
pub(crate) struct Rpc {
    stream: TcpStream,
    correlation_id: i32,
}

/// A config of a topic to be made: name and value.
pub(crate) type TopicConfig<'a> = (&'a str, &'a str);

impl Rpc {
    /// Connects.
    ///
    /// # Errors
    /// The socket's.
    pub(crate) fn connect(address: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        Ok(Self {
            stream,
            correlation_id: 0,
        })
    }

    /// Sends one request and waits for its reply.
    ///
    /// # Errors
    /// The socket's, and `InvalidData` for a reply that cannot be read.
    pub(crate) fn call<R: Request>(
        &mut self,
        request: &R,
        version: i16,
    ) -> io::Result<R::Response> {
        self.correlation_id += 1;
        self.stream
            .write_all(&encode(request, version, self.correlation_id)?)?;
        let mut length = [0; 4];
        self.stream.read_exact(&mut length)?;
        let length = u32::from_be_bytes(length) as usize;
        if length > REPLY_BYTES_MAX {
            return Err(invalid(format!("a reply of {length} bytes")));
        }
        let mut reply = vec![0; length];
        self.stream.read_exact(&mut reply)?;
        let mut reader = Reader::new(Bytes::from(reply));
        let header = ResponseHeader::decode(&mut reader, R::KEY.response_header_version(version));
        let header = header.map_err(invalid)?;
        if header.correlation_id != self.correlation_id {
            return Err(invalid("a reply to another request"));
        }
        let response = R::Response::decode(&mut reader, version).map_err(invalid)?;
        reader.finish().map_err(invalid)?;
        Ok(response)
    }

    /// Creates a topic with one replica and returns the broker's answer.
    ///
    /// # Errors
    /// As [`Self::call`].
    pub(crate) fn create_topic(
        &mut self,
        name: &str,
        partitions: i32,
        configs: &[TopicConfig<'_>],
    ) -> io::Result<ErrorCode> {
        let configs =
            configs.iter().map(
                |(name, value)| create_topics_request::CreatableTopicConfig {
                    name: Str::from((*name).to_owned()),
                    value: Some(Str::from((*value).to_owned())),
                    ..Default::default()
                },
            );
        let topic = create_topics_request::CreatableTopic {
            name: Str::from(name.to_owned()),
            num_partitions: partitions,
            replication_factor: 1,
            configs: configs.collect(),
            ..Default::default()
        };
        let request = CreateTopicsRequest {
            topics: vec![topic],
            timeout_ms: 30_000,
            ..Default::default()
        };
        let response = self.call(&request, CREATE_TOPICS_VERSION)?;
        let result = response
            .topics
            .first()
            .ok_or_else(|| invalid("no result for the topic"))?;
        ErrorCode::try_from(result.error_code).map_err(|_| invalid("an unknown error code"))
    }

    /// Deletes a topic and returns the broker's answer.
    ///
    /// # Errors
    /// As [`Self::call`].
    pub(crate) fn delete_topic(&mut self, name: &str) -> io::Result<ErrorCode> {
        let request = DeleteTopicsRequest {
            topic_names: vec![Str::from(name.to_owned())],
            timeout_ms: 30_000,
            ..Default::default()
        };
        let response = self.call(&request, DELETE_TOPICS_VERSION)?;
        let result = response
            .responses
            .first()
            .ok_or_else(|| invalid("no result for the topic"))?;
        ErrorCode::try_from(result.error_code).map_err(|_| invalid("an unknown error code"))
    }
}

/// A whole request frame: length, header, body.
///
/// # Errors
/// `InvalidData` when the message holds what the version cannot carry.
pub(crate) fn encode<R: Request>(
    request: &R,
    version: i16,
    correlation_id: i32,
) -> io::Result<Bytes> {
    let parts = encode_request(correlation_id, Some(Str::from(CLIENT_ID)), request, version);
    Ok(parts.map_err(invalid)?.concat().into())
}

/// An error that says the other side (or this program) made nonsense.
pub(crate) fn invalid(reason: impl Display) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, reason.to_string())
}
