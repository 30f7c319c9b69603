//! Owns the produce requests of a run, built once: one frame per partition, each holding one batch.
//!
//! Never touched while load runs, except for the bytes in front that carry the correlation id.

use std::io;
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use chronik_protocol::frame::{LENGTH_BYTES, encode_response};
use chronik_protocol::messages::{
    ProduceRequest, ProduceResponse, produce_request, produce_response,
};
use chronik_protocol::record::{BatchBuilder, Compression, NewRecord};
use chronik_protocol::{ApiKey, Records, Str};

use crate::rpc::{encode, invalid};

/// Length, API key, API version and correlation id.
pub(crate) const PREFIX_BYTES: usize = 12;
const CORRELATION_ID_AT: usize = 8;
/// The newest version that names topics instead of giving their ids.
const PRODUCE_VERSION: i16 = 12;

/// What each request carries.
#[derive(Clone, Debug)]
pub(crate) struct Payload {
    /// The topic; it exists.
    pub(crate) topic: String,
    /// Partitions 0 to this, one frame each.
    pub(crate) partitions: i32,
    /// Records in the one batch of a request.
    pub(crate) records: usize,
    /// Bytes of each record's value.
    pub(crate) record_bytes: usize,
    /// 1 or −1: a reply is needed to measure.
    pub(crate) acks: i16,
    /// How the batch is compressed.
    pub(crate) codec: Compression,
}

/// One produce request, ready to be sent any number of times.
#[derive(Clone, Debug)]
pub(crate) struct Frame {
    bytes: Bytes,
    /// Where in a reply (without its length) the partition's error code stands.
    error_at: usize,
    /// Records in it.
    pub(crate) records: u64,
    /// Bytes of their values.
    pub(crate) value_bytes: u64,
}

impl Frame {
    /// The first bytes of the request with this correlation id.
    pub(crate) fn prefix(&self, correlation_id: i32) -> [u8; PREFIX_BYTES] {
        let mut prefix = [0; PREFIX_BYTES];
        prefix.copy_from_slice(&self.bytes[..PREFIX_BYTES]);
        prefix[CORRELATION_ID_AT..].copy_from_slice(&correlation_id.to_be_bytes());
        prefix
    }

    /// Everything behind the prefix.
    pub(crate) fn rest(&self) -> &[u8] {
        &self.bytes[PREFIX_BYTES..]
    }

    /// The Kafka error code in a reply, which comes without its length; `None` when it is too short.
    pub(crate) fn error_in(&self, reply: &[u8]) -> Option<i16> {
        let code = reply.get(self.error_at..)?.first_chunk()?;
        Some(i16::from_be_bytes(*code))
    }
}

/// Builds one frame per partition.
///
/// # Errors
/// `InvalidData` when a batch or a request cannot be encoded.
pub(crate) fn build(payload: &Payload) -> io::Result<Vec<Frame>> {
    let value = value(payload.record_bytes);
    (0..payload.partitions)
        .map(|partition| {
            let batch = batch(payload, &value)?;
            let request = ProduceRequest {
                acks: payload.acks,
                timeout_ms: 30_000,
                topic_data: vec![produce_request::TopicProduceData {
                    name: Str::from(payload.topic.clone()),
                    partition_data: vec![produce_request::PartitionProduceData {
                        index: partition,
                        records: Some(Records::from(batch)),
                        ..Default::default()
                    }],
                    ..Default::default()
                }],
                ..Default::default()
            };
            Ok(Frame {
                bytes: encode(&request, PRODUCE_VERSION, 0)?,
                error_at: error_position(&payload.topic)?,
                records: payload.records as u64,
                value_bytes: (payload.records * payload.record_bytes) as u64,
            })
        })
        .collect()
}

fn batch(payload: &Payload, value: &[u8]) -> io::Result<Bytes> {
    let timestamp = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_err(invalid)?;
    let timestamp = i64::try_from(timestamp.as_millis()).map_err(invalid)?;
    let mut batch = BatchBuilder::new(0).compression(payload.codec);
    for _ in 0..payload.records {
        let record = NewRecord {
            timestamp,
            value: Some(value),
            ..NewRecord::default()
        };
        batch.push(&record).map_err(invalid)?;
    }
    Ok(batch.build().map_err(invalid)?.bytes)
}

/// Where the error code of the only partition stands: the first byte in which a reply with error 0
/// and one with error −1 differ.
fn error_position(topic: &str) -> io::Result<usize> {
    let reply = |error_code| {
        let partition = produce_response::PartitionProduceResponse {
            error_code,
            ..Default::default()
        };
        let response = ProduceResponse {
            responses: vec![produce_response::TopicProduceResponse {
                name: Str::from(topic.to_owned()),
                partition_responses: vec![partition],
                ..Default::default()
            }],
            ..Default::default()
        };
        let header_version = ApiKey::Produce.response_header_version(PRODUCE_VERSION);
        let parts = encode_response(0, header_version, &response, PRODUCE_VERSION);
        io::Result::Ok(parts.map_err(invalid)?.concat())
    };
    let (without, with) = (reply(0)?, reply(-1)?);
    let position = without.iter().zip(with.iter()).position(|(a, b)| a != b);
    let position = position.and_then(|position| position.checked_sub(LENGTH_BYTES));
    position.ok_or_else(|| invalid("a reply without an error code"))
}

/// Text-like bytes: about as compressible as log lines, and the same in every run.
fn value(bytes: usize) -> Vec<u8> {
    const WORDS: [&str; 8] = [
        "offset",
        "broker",
        "partition",
        "epoch",
        "leader",
        "segment",
        "1763745823",
        "id=",
    ];
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut value = Vec::with_capacity(bytes + 32);
    while value.len() < bytes {
        // xorshift64: no quality needed, only variety without a dependency.
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        value.extend_from_slice(WORDS[(state % 8) as usize].as_bytes());
        value.extend_from_slice(format!(" {:x} ", state >> 40).as_bytes());
    }
    value.truncate(bytes);
    value
}
