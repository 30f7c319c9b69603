//! The produce requests of a run, built once: frames of one batch each, for every partition.
//!
//! Unchanged while load runs, except for the bytes in front that carry the correlation id.

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
/// Frames of one partition at most: enough variety for keys, little enough to build at once.
const FRAMES_PER_PARTITION_MAX: usize = 64;

/// The content of each request.
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
    /// Different keys that records use in turn; 0 for records without keys.
    pub(crate) keys: usize,
    /// 0, 1 or −1.
    pub(crate) acks: i16,
    /// The codec of the batch.
    pub(crate) codec: Compression,
    /// The version of the request, at most 12: later ones do not name the topic.
    pub(crate) version: i16,
}

/// Places of the only partition's fields in a reply, counted after its length.
#[derive(Clone, Copy, Debug)]
struct ReplyLayout {
    error_at: usize,
    base_offset_at: usize,
}

/// One produce request, ready to be sent any number of times.
#[derive(Clone, Debug)]
pub(crate) struct Frame {
    bytes: Bytes,
    /// Places of the fields read from a reply; `None` for acks=0.
    reply: Option<ReplyLayout>,
    /// The partition produced to.
    pub(crate) partition: i32,
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

    /// Everything after the prefix.
    pub(crate) fn rest(&self) -> &[u8] {
        &self.bytes[PREFIX_BYTES..]
    }

    /// True when the broker replies to it.
    pub(crate) fn is_answered(&self) -> bool {
        self.reply.is_some()
    }

    /// The Kafka error code and the base offset in a reply without its length; `None` when it is too short.
    pub(crate) fn result_in(&self, reply: &[u8]) -> Option<(i16, i64)> {
        let layout = self.reply?;
        let code = reply.get(layout.error_at..)?.first_chunk()?;
        let base_offset = reply.get(layout.base_offset_at..)?.first_chunk()?;
        Some((i16::from_be_bytes(*code), i64::from_be_bytes(*base_offset)))
    }
}

/// Builds the frames: one per partition, or as many rounds of that as the keys need.
///
/// # Errors
/// `InvalidData` when a batch or a request cannot be encoded.
pub(crate) fn build(payload: &Payload) -> io::Result<Vec<Frame>> {
    let value = value(payload.record_bytes);
    let reply = if payload.acks == 0 {
        None
    } else {
        Some(reply_layout(payload)?)
    };
    let partitions = usize::try_from(payload.partitions).map_err(invalid)?;
    let records_per_round = (partitions * payload.records).max(1);
    let rounds = payload.keys.div_ceil(records_per_round);
    let rounds = rounds.clamp(1, FRAMES_PER_PARTITION_MAX);
    let mut frames = Vec::with_capacity(rounds * partitions);
    for partition in (0..payload.partitions).cycle().take(rounds * partitions) {
        let first_key = frames.len() * payload.records;
        let request = request(payload, partition, batch(payload, &value, first_key)?);
        frames.push(Frame {
            bytes: encode(&request, payload.version, 0)?,
            reply,
            partition,
            records: payload.records as u64,
            value_bytes: (payload.records * payload.record_bytes) as u64,
        });
    }
    Ok(frames)
}

fn request(payload: &Payload, partition: i32, batch: Bytes) -> ProduceRequest {
    let partition_data = produce_request::PartitionProduceData {
        index: partition,
        records: Some(Records::from(batch)),
        ..Default::default()
    };
    ProduceRequest {
        acks: payload.acks,
        timeout_ms: 30_000,
        topic_data: vec![produce_request::TopicProduceData {
            name: Str::from(payload.topic.clone()),
            partition_data: vec![partition_data],
            ..Default::default()
        }],
        ..Default::default()
    }
}

fn batch(payload: &Payload, value: &[u8], first_key: usize) -> io::Result<Bytes> {
    let timestamp = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_err(invalid)?;
    let timestamp = i64::try_from(timestamp.as_millis()).map_err(invalid)?;
    let mut batch = BatchBuilder::new(0).compression(payload.codec);
    for number in 0..payload.records {
        let key = (payload.keys > 0)
            .then(|| format!("key-{:08}", (first_key + number) % payload.keys.max(1)));
        let record = NewRecord {
            timestamp,
            key: key.as_deref().map(str::as_bytes),
            value: Some(value),
            ..NewRecord::default()
        };
        batch.push(&record).map_err(invalid)?;
    }
    Ok(batch.build().map_err(invalid)?.bytes)
}

/// Finds each field as the first different byte of two replies that differ in it alone.
fn reply_layout(payload: &Payload) -> io::Result<ReplyLayout> {
    let reply = |error_code, base_offset| {
        let partition = produce_response::PartitionProduceResponse {
            error_code,
            base_offset,
            ..Default::default()
        };
        let response = ProduceResponse {
            responses: vec![produce_response::TopicProduceResponse {
                name: Str::from(payload.topic.clone()),
                partition_responses: vec![partition],
                ..Default::default()
            }],
            ..Default::default()
        };
        let header_version = ApiKey::Produce.response_header_version(payload.version);
        let parts = encode_response(0, header_version, &response, payload.version);
        io::Result::Ok(parts.map_err(invalid)?.concat())
    };
    let plain = reply(0, 0)?;
    let first_difference = |other: Vec<u8>| {
        let position = plain.iter().zip(other.iter()).position(|(a, b)| a != b);
        let position = position.and_then(|position| position.checked_sub(LENGTH_BYTES));
        position.ok_or_else(|| invalid("a reply without this field"))
    };
    Ok(ReplyLayout {
        error_at: first_difference(reply(-1, 0)?)?,
        base_offset_at: first_difference(reply(0, -1)?)?,
    })
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
    let mut random = fastrand::Rng::with_seed(7);
    let mut value = Vec::with_capacity(bytes + 32);
    while value.len() < bytes {
        value.extend_from_slice(WORDS[random.usize(..WORDS.len())].as_bytes());
        value.extend_from_slice(format!(" {:x} ", random.u32(..1 << 24)).as_bytes());
    }
    value.truncate(bytes);
    value
}

#[cfg(test)]
mod tests {
    use super::*;

    fn payload() -> Payload {
        Payload {
            topic: "a-topic".to_owned(),
            partitions: 3,
            records: 2,
            record_bytes: 10,
            keys: 13,
            acks: -1,
            codec: Compression::None,
            version: 12,
        }
    }

    #[test]
    fn replies_are_read_in_every_version_that_is_asked_for() {
        for version in 3..=12 {
            let payload = Payload {
                version,
                ..payload()
            };
            let frames = build(&payload).expect("frames");
            let response = ProduceResponse {
                responses: vec![produce_response::TopicProduceResponse {
                    name: Str::from("a-topic"),
                    partition_responses: vec![produce_response::PartitionProduceResponse {
                        index: 2,
                        error_code: 6,
                        base_offset: 0x1234_5678_9abc,
                        log_start_offset: 7,
                        ..Default::default()
                    }],
                    ..Default::default()
                }],
                throttle_time_ms: 9,
                ..Default::default()
            };
            let header_version = ApiKey::Produce.response_header_version(version);
            let parts = encode_response(77, header_version, &response, version).expect("a reply");
            let reply = parts.concat();
            assert_eq!(
                frames[0].result_in(&reply[LENGTH_BYTES..]),
                Some((6, 0x1234_5678_9abc)),
                "version {version}"
            );
        }
    }

    #[test]
    fn there_are_as_many_frames_as_the_keys_need() {
        let frames = build(&payload()).expect("frames");
        // Six records a round, thirteen keys: three rounds of three partitions.
        assert_eq!(frames.len(), 9);
        let partitions: Vec<i32> = frames.iter().map(|frame| frame.partition).collect();
        assert_eq!(partitions, [0, 1, 2, 0, 1, 2, 0, 1, 2]);
        let keyless = Payload {
            keys: 0,
            ..payload()
        };
        assert_eq!(build(&keyless).expect("frames").len(), 3);
    }
}
