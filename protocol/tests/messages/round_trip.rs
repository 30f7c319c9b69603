//! Every message in every version reads what its schema says and writes the same bytes again.

use crate::support::{self, wire::Maker};
use bytes::Bytes;
use chronik_protocol::messages::{
    DescribeTopicPartitionsRequest, FetchResponse, MetadataRequest, ProduceRequest,
    fetch_response::{FetchableTopicResponse, PartitionData},
    produce_request::{PartitionProduceData, TopicProduceData},
};
use chronik_protocol::{
    DecodeError, EncodeError, Message, Reader, Records, Str, Uuid, Writer, frame,
};

/// Random values per message and version.
const ROUNDS: u64 = 12;

#[test]
fn every_message_writes_what_it_read() {
    let schemas = support::schemas();
    assert_eq!(schemas.len(), support::MESSAGES);
    for message in &schemas {
        for version in message.versions.iter() {
            for round in 0..ROUNDS {
                let seed = round << 32 | u64::from(version.unsigned_abs());
                let bytes = Bytes::from(Maker::new(message, version, seed).bytes());
                let again = support::transcode(&message.name, version, &bytes);
                assert_eq!(
                    again.as_ref(),
                    Ok(&bytes),
                    "{} {version}, seed {seed}",
                    message.name
                );
            }
        }
    }
}

#[test]
fn every_cut_is_an_error() {
    for message in &support::schemas() {
        let version = message.versions.last;
        let bytes = Bytes::from(Maker::new(message, version, 1).bytes());
        for end in 0..bytes.len().min(300) {
            let result = support::transcode(&message.name, version, &bytes.slice(..end));
            assert!(result.is_err(), "{} {version} cut at {end}", message.name);
        }
        let longer: Bytes = [&bytes[..], &[0]].concat().into();
        let result = support::transcode(&message.name, version, &longer);
        assert!(
            result.is_err(),
            "{} {version} with a byte too many",
            message.name
        );
    }
}

#[test]
fn versions_outside_the_schema_are_refused() {
    for message in &support::schemas() {
        for version in [
            message.versions.first - 1,
            message.versions.last + 1,
            i16::MIN,
            i16::MAX,
        ] {
            let result = support::transcode(&message.name, version, &Bytes::from_static(&[0; 64]));
            assert!(result.is_err(), "{} {version}", message.name);
        }
    }
}

#[test]
fn a_value_the_version_lacks_is_an_error_unless_it_may_be_dropped() {
    let mut request = ProduceRequest {
        transactional_id: Some("tx".into()),
        ..Default::default()
    };
    let field = "ProduceRequest.TransactionalId";
    let error = EncodeError::FieldNotInVersion { field, version: 2 };
    assert_eq!(request.encode(&mut Writer::new(), 2), Err(error));
    assert_eq!(request.encode(&mut Writer::new(), 3), Ok(()));

    request.unknown_tagged_fields = vec![(7, Bytes::new())];
    let error = EncodeError::TagsNotInVersion { version: 8 };
    assert_eq!(request.encode(&mut Writer::new(), 8), Err(error));
    assert_eq!(request.encode(&mut Writer::new(), 9), Ok(()));

    // The throttle time may be dropped.
    let response = FetchResponse {
        throttle_time_ms: 5,
        ..Default::default()
    };
    assert_eq!(response.encode(&mut Writer::new(), 0), Ok(()));

    let nothing = MetadataRequest {
        topics: None,
        ..Default::default()
    };
    let field = "MetadataRequest.Topics";
    assert_eq!(
        nothing.encode(&mut Writer::new(), 0),
        Err(EncodeError::NullNotAllowed { field })
    );
    assert_eq!(nothing.encode(&mut Writer::new(), 1), Ok(()));
}

#[test]
fn defaults_are_kafkas() {
    let request = MetadataRequest::default();
    assert!(request.allow_auto_topic_creation);
    assert_eq!(request.topics, Some(vec![]));
    let request = DescribeTopicPartitionsRequest::default();
    assert_eq!(
        (request.response_partition_limit, request.cursor),
        (2000, None)
    );
    let partition = PartitionData::default();
    assert_eq!(partition.last_stable_offset, -1);
    assert_eq!(partition.diverging_epoch.end_offset, -1);
    assert_eq!(partition.records, None);
}

#[test]
fn large_records_are_neither_copied_in_nor_out() {
    let batch = Bytes::from(vec![42u8; 100_000]);
    let partition = PartitionProduceData {
        records: Some(Records::from(batch.clone())),
        ..Default::default()
    };
    let topic = TopicProduceData {
        topic_id: Uuid(9),
        partition_data: vec![partition],
        ..Default::default()
    };
    let request = ProduceRequest {
        topic_data: vec![topic],
        ..Default::default()
    };
    let parts = frame::encode_request(1, Some("me".into()), &request, 13).expect("encodes");
    assert!(
        parts.iter().any(|part| part.as_ptr() == batch.as_ptr()),
        "copied while encoding"
    );

    let frame: Bytes = parts.concat().into();
    assert_eq!(
        frame::decode_length(&frame, usize::MAX),
        Ok(Some(frame.len() - 4))
    );
    let mut reader = Reader::new(frame.slice(4..));
    let header = frame::decode_request_header(&mut reader).expect("a header");
    assert_eq!(
        (header.api_key, header.api_version, header.correlation_id),
        (0, 13, 1)
    );
    assert_eq!(header.client_id, Some(Str::from_static("me")));
    let decoded = ProduceRequest::decode(&mut reader, 13).expect("decodes");
    assert_eq!(reader.finish(), Ok(()));
    assert_eq!(decoded, request);
    let records = decoded.topic_data[0].partition_data[0]
        .records
        .clone()
        .expect("records");
    let inside = frame.as_ptr_range().contains(&records.parts()[0].as_ptr());
    assert!(inside, "copied while decoding");
}

#[test]
fn a_response_strings_parts_together_behind_one_length() {
    let parts: Vec<Bytes> = (1..=3u8)
        .map(|byte| Bytes::from(vec![byte; 5000]))
        .collect();
    let records: Records = parts.iter().cloned().collect();
    let partition = PartitionData {
        records: Some(records.clone()),
        ..Default::default()
    };
    let topic = FetchableTopicResponse {
        partitions: vec![partition],
        ..Default::default()
    };
    let response = FetchResponse {
        responses: vec![topic],
        ..Default::default()
    };
    let sent = frame::encode_response(77, 1, &response, 12).expect("encodes");
    for part in &parts {
        assert!(
            sent.iter().any(|other| other.as_ptr() == part.as_ptr()),
            "copied"
        );
    }
    let joined: Bytes = sent.concat().into();
    let mut reader = Reader::new(joined);
    assert_eq!(
        reader.get_i32().expect("a length") as usize,
        reader.remaining()
    );
    assert_eq!(reader.get_i32(), Ok(77));
    assert_eq!(reader.get_unknown_tags(), Ok(vec![]));
    let decoded = FetchResponse::decode(&mut reader, 12).expect("decodes");
    assert_eq!(decoded.responses[0].partitions[0].records, Some(records));
    assert_eq!(reader.finish(), Ok(()));
}

#[test]
fn frame_lengths_are_judged_before_anything_is_kept() {
    assert_eq!(frame::decode_length(&[0, 0, 0], 100), Ok(None));
    assert_eq!(frame::decode_length(&[0, 0, 0, 100], 100), Ok(Some(100)));
    for length in [-1i32, 0, 7, 101, i32::MAX, i32::MIN] {
        let refused = frame::decode_length(&length.to_be_bytes(), 100);
        assert!(
            matches!(refused, Err(DecodeError::OutOfRange { .. })),
            "{length}"
        );
    }
}
