//! Requests and replies over one blocking connection, before and after the measurement: creating and removing
//! topics, probing the broker.
//!
//! Never used while load runs.

use std::fmt::Display;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use bytes::Bytes;
use chronik_protocol::codec::Reader;
use chronik_protocol::frame::encode_request;
use chronik_protocol::messages::{
    ApiVersionsRequest, CreateTopicsRequest, DeleteTopicsRequest, ListOffsetsRequest,
    ResponseHeader, create_topics_request, list_offsets_request,
};
use chronik_protocol::{ApiKey, ErrorCode, Message, Request, Str, Uuid};

/// Time for one reply; deleting big topics takes a while.
const PATIENCE: Duration = Duration::from_secs(60);
/// Every reply of these requests is far below this.
const REPLY_BYTES_MAX: usize = 1 << 20;
const API_VERSIONS_VERSION: i16 = 3;
/// Time for a new topic until each of its partitions answers.
const READY_PATIENCE: Duration = Duration::from_secs(60);
const READY_STEP: Duration = Duration::from_millis(20);

/// The versions of this program: the newest of each API that still names topics.
const SPOKEN: [(ApiKey, i16, i16); 11] = [
    (ApiKey::Produce, 3, 12),
    (ApiKey::Fetch, 4, 12),
    (ApiKey::ListOffsets, 1, 8),
    (ApiKey::CreateTopics, 2, 7),
    (ApiKey::DeleteTopics, 1, 5),
    (ApiKey::FindCoordinator, 4, 6),
    (ApiKey::JoinGroup, 4, 9),
    (ApiKey::SyncGroup, 5, 5),
    (ApiKey::Heartbeat, 4, 4),
    (ApiKey::LeaveGroup, 4, 5),
    (ApiKey::ConsumerGroupHeartbeat, 1, 1),
];

/// The client id of every request.
pub(crate) const CLIENT_ID: &str = "chronik-bench";

/// A blocking connection for a few requests.
#[derive(Debug)]
pub(crate) struct Rpc {
    stream: TcpStream,
    correlation_id: i32,
    /// API key, oldest and newest version the broker serves.
    served: Vec<(i16, i16, i16)>,
}

/// A config of a topic to create: name and value.
pub(crate) type TopicConfig<'a> = (&'a str, &'a str);

impl Rpc {
    /// Connects and reads the versions the broker serves.
    ///
    /// # Errors
    /// The socket's, and as [`Self::call`].
    pub(crate) fn connect(address: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let mut rpc = Self {
            stream,
            correlation_id: 0,
            served: Vec::new(),
        };
        let request = ApiVersionsRequest {
            client_software_name: CLIENT_ID.into(),
            client_software_version: env!("CARGO_PKG_VERSION").into(),
            ..Default::default()
        };
        let response = rpc.call_version(&request, API_VERSIONS_VERSION)?;
        let served = response.api_keys.iter();
        rpc.served = served
            .map(|api| (api.api_key, api.min_version, api.max_version))
            .collect();
        Ok(rpc)
    }

    /// The newest version of an API that both sides speak.
    ///
    /// # Errors
    /// `Unsupported` when there is none.
    pub(crate) fn version(&self, key: ApiKey) -> io::Result<i16> {
        let spoken = SPOKEN.iter().find(|(spoken, _, _)| *spoken == key);
        let served = self
            .served
            .iter()
            .find(|(served, _, _)| *served == key.as_i16());
        let common = spoken.zip(served).and_then(|(ours, theirs)| {
            let newest = ours.2.min(theirs.2);
            (newest >= ours.1.max(theirs.1)).then_some(newest)
        });
        common.ok_or_else(|| {
            io::Error::new(
                io::ErrorKind::Unsupported,
                format!("no common version of {key:?}"),
            )
        })
    }

    /// True when the broker serves an API at all.
    pub(crate) fn serves(&self, key: ApiKey) -> bool {
        let mut served = self.served.iter();
        served.any(|(served, _, _)| *served == key.as_i16())
    }

    /// Sends one request, in the newest common version, and waits for its reply.
    ///
    /// # Errors
    /// The socket's, `Unsupported` without a common version, and `InvalidData` for a reply that
    /// cannot be read.
    pub(crate) fn call<R: Request>(&mut self, request: &R) -> io::Result<R::Response> {
        let version = self.version(R::KEY)?;
        self.call_version(request, version)
    }

    fn call_version<R: Request>(&mut self, request: &R, version: i16) -> io::Result<R::Response> {
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
        let created = self.create_topic_with_id(name, partitions, configs)?;
        Ok(created.0)
    }

    /// As [`Self::create_topic`], and the topic's id, zero when the broker has none.
    ///
    /// # Errors
    /// As [`Self::call`].
    pub(crate) fn create_topic_with_id(
        &mut self,
        name: &str,
        partitions: i32,
        configs: &[TopicConfig<'_>],
    ) -> io::Result<(ErrorCode, Uuid)> {
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
        let response = self.call(&request)?;
        let result = response
            .topics
            .first()
            .ok_or_else(|| invalid("no result for the topic"))?;
        let error = ErrorCode::try_from(result.error_code);
        let error = error.map_err(|_| invalid("an unknown error code"))?;
        Ok((error, result.topic_id))
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
        let response = self.call(&request)?;
        let result = response
            .responses
            .first()
            .ok_or_else(|| invalid("no result for the topic"))?;
        ErrorCode::try_from(result.error_code).map_err(|_| invalid("an unknown error code"))
    }

    /// Waits until every partition of a topic answers ListOffsets: a broker may answer CreateTopics before it serves
    /// them.
    ///
    /// # Errors
    /// As [`Self::call`], and the broker's error when a partition still has one after a minute.
    pub(crate) fn await_topic(&mut self, name: &str, partitions: i32) -> io::Result<()> {
        let started = Instant::now();
        loop {
            match self.offsets(name, partitions, LATEST) {
                Ok(_) => return Ok(()),
                Err(error) if started.elapsed() > READY_PATIENCE => return Err(error),
                Err(_) => thread::sleep(READY_STEP),
            }
        }
    }

    /// The offset at `timestamp` ([`EARLIEST`], [`LATEST`]) of each partition from 0 on.
    ///
    /// # Errors
    /// As [`Self::call`], and the first error code of a partition.
    pub(crate) fn offsets(
        &mut self,
        name: &str,
        partitions: i32,
        timestamp: i64,
    ) -> io::Result<Vec<i64>> {
        let request = ListOffsetsRequest {
            replica_id: -1,
            topics: vec![list_offsets_request::ListOffsetsTopic {
                name: Str::from(name.to_owned()),
                partitions: (0..partitions)
                    .map(
                        |partition_index| list_offsets_request::ListOffsetsPartition {
                            partition_index,
                            timestamp,
                            ..Default::default()
                        },
                    )
                    .collect(),
                ..Default::default()
            }],
            ..Default::default()
        };
        let response = self.call(&request)?;
        let mut offsets = vec![-1; usize::try_from(partitions).map_err(invalid)?];
        for partition in response.topics.iter().flat_map(|topic| &topic.partitions) {
            if partition.error_code != 0 {
                let code = ErrorCode::try_from(partition.error_code);
                return Err(invalid(format!("offsets of {name}: {code:?}")));
            }
            let offset = usize::try_from(partition.partition_index)
                .ok()
                .and_then(|index| offsets.get_mut(index));
            *offset.ok_or_else(|| invalid("an offset nobody asked for"))? = partition.offset;
        }
        Ok(offsets)
    }
}

/// The timestamp that stands for the first offset of a log.
pub(crate) const EARLIEST: i64 = -2;
/// The timestamp that stands for the offset after the last record that may be read.
pub(crate) const LATEST: i64 = -1;

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

/// An error for a malformed message of the other side (or of this program).
pub(crate) fn invalid(reason: impl Display) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, reason.to_string())
}
