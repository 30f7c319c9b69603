//! Inputs and work of this package's micro-benchmarks: the requests and replies of the loads that are compared
//! with Kafka.

use bytes::Bytes;
use chronik_protocol::codec::Reader;
use chronik_protocol::frame::{
    LENGTH_BYTES, RequestHeader, decode_request_header, encode_request, encode_response,
};
use chronik_protocol::messages::{FetchResponse, ProduceRequest, fetch_response, produce_request};
use chronik_protocol::record::{
    BatchBuilder, CheckedBatch, Compression, NewRecord, RecordLimits, RecordsSummary,
};
use chronik_protocol::{ApiKey, Message, Records, Str};

/// Records, and bytes of each.
pub(crate) const SHAPES: [(usize, usize); 4] = [(1, 1024), (16, 1024), (160, 100), (64, 10 * 1024)];
const PRODUCE_VERSION: i16 = 12;
const FETCH_VERSION: i16 = 16;

/// A batch as a producer sends it.
pub(crate) fn batch(records: usize, record_bytes: usize, codec: Compression) -> Bytes {
    let value: Vec<u8> = (0..record_bytes).map(|at| (at * 7 % 64) as u8).collect();
    let mut batch = BatchBuilder::new(0).compression(codec);
    for number in 0..records {
        let record = NewRecord {
            timestamp: 1_700_000_000_000 + number as i64,
            value: Some(&value),
            ..NewRecord::default()
        };
        batch.push(&record).expect("small");
    }
    batch.build().expect("valid").bytes
}

/// A produce request of one batch, without its length.
pub(crate) fn produce_frame(batch: &Bytes) -> Bytes {
    let partition_data = produce_request::PartitionProduceData {
        records: Some(Records::from(batch.clone())),
        ..Default::default()
    };
    let request = ProduceRequest {
        acks: -1,
        timeout_ms: 30_000,
        topic_data: vec![produce_request::TopicProduceData {
            name: Str::from("orders"),
            partition_data: vec![partition_data],
            ..Default::default()
        }],
        ..Default::default()
    };
    let client = Some(Str::from("bench"));
    let parts = encode_request(1, client, &request, PRODUCE_VERSION).expect("encodes");
    Bytes::from(parts.concat()).slice(LENGTH_BYTES..)
}

/// A fetch reply with `batches` stored batches in each partition.
pub(crate) fn fetch_response(partitions: i32, batches: usize, stored: &Bytes) -> FetchResponse {
    let partition = |partition_index| fetch_response::PartitionData {
        partition_index,
        high_watermark: 1_000,
        records: Some((0..batches).map(|_| stored.clone()).collect()),
        ..Default::default()
    };
    FetchResponse {
        responses: vec![fetch_response::FetchableTopicResponse {
            partitions: (0..partitions).map(partition).collect(),
            ..Default::default()
        }],
        ..Default::default()
    }
}

/// The decoding of an arriving frame.
pub(crate) fn decode(frame: &Bytes) -> (RequestHeader, ProduceRequest) {
    let mut reader = Reader::new(frame.clone());
    let header = decode_request_header(&mut reader).expect("a header");
    let request = ProduceRequest::decode(&mut reader, PRODUCE_VERSION).expect("a request");
    (header, request)
}

/// The checks of a batch before its append: length, CRC, every record.
pub(crate) fn check(batch: &Bytes) -> RecordsSummary {
    let batch = CheckedBatch::parse(batch.clone()).expect("a batch");
    let limits = RecordLimits::default();
    batch.validate_records(&limits).expect("good records")
}

/// The encoding of a reply before it is sent.
pub(crate) fn encode(response: &FetchResponse) -> Vec<Bytes> {
    let header_version = ApiKey::Fetch.response_header_version(FETCH_VERSION);
    encode_response(1, header_version, response, FETCH_VERSION).expect("encodes")
}
