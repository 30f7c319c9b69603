//! Our bytes against those of Apache Kafka's own classes (`tests/golden/messages.txt`), and some values whose
//! bytes are known from elsewhere.

use crate::support;
use bytes::Bytes;
use chronik_protocol::messages::{
    ApiVersionsResponse, ConsumerGroupMemberMetadataValue, FeatureLevelRecord, FetchRequest,
    GroupMetadataKey, OffsetCommitKey, OffsetCommitValue, PartitionChangeRecord,
    consumer_group_member_metadata_value::ClassicMemberMetadata, fetch_request::ReplicaState,
};
use chronik_protocol::records_of::{
    self, GroupKey, GroupValue, MetadataRecord, RecordSet, TransactionKey,
};
use chronik_protocol::{DecodeError, ErrorCode, Message, Reader, Str, Uuid, Writer, versions};
use std::collections::BTreeSet;

const GOLDEN: &str = include_str!("../golden/messages.txt");

/// (message, version, variant, bytes)
fn golden() -> impl Iterator<Item = (&'static str, i16, &'static str, Bytes)> {
    GOLDEN
        .lines()
        .filter(|line| !line.starts_with('#'))
        .map(|line| {
            let words: Vec<&str> = line.split(' ').collect();
            let [message, version, variant, hex] = words[..] else {
                panic!("{line}")
            };
            let bytes = support::from_hex(if hex == "-" { "" } else { hex });
            (message, version.parse().expect(line), variant, bytes)
        })
}

#[test]
fn we_read_and_write_what_kafka_writes() {
    let mut differences = Vec::new();
    for (message, version, variant, bytes) in golden() {
        let again = support::transcode(message, version, &bytes);
        if again.as_ref() != Ok(&bytes) {
            differences.push(format!(
                "{message} {version} {variant}: {again:?} for {bytes:?}"
            ));
        }
    }
    assert!(differences.is_empty(), "{}", differences.join("\n"));
}

#[test]
fn every_version_of_kafka_is_there_and_every_one_we_serve() {
    let seen: BTreeSet<(&str, i16)> = golden()
        .map(|(name, version, ..)| (name, version))
        .collect();
    assert!(seen.len() > 700, "{} message versions", seen.len());
    for row in &versions::ADVERTISED {
        for suffix in ["Request", "Response"] {
            let name = format!("{}{suffix}", row.key.name());
            // Below are versions that Kafka 4 has dropped and we keep for old clients.
            let kafkas = seen.range((name.as_str(), 0)..).next();
            let least = kafkas.map_or(0, |(_, version)| *version);
            for version in row.min.max(least)..=row.max {
                assert!(seen.contains(&(name.as_str(), version)), "{name} {version}");
            }
        }
    }
    for message in &support::schemas() {
        let last = message.versions.last;
        assert!(
            seen.contains(&(message.name.as_str(), last)),
            "{} {last}",
            message.name
        );
    }
}

#[test]
fn what_kafka_says_by_default_is_our_default() {
    let (_, _, _, bytes) = golden()
        .find(|(name, version, variant, _)| {
            (*name, *version, *variant) == ("FetchRequest", 18, "default")
        })
        .expect("a line");
    let mut reader = Reader::new(bytes);
    assert_eq!(
        FetchRequest::decode(&mut reader, 18),
        Ok(FetchRequest::default())
    );
    assert_eq!(
        FetchRequest::default().replica_state,
        ReplicaState::default()
    );
    assert_eq!(ReplicaState::default().replica_id, -1);
}

/// Kafka's schema says `"default": null` without quotation marks here, which its generator takes for "no
/// default": the structure starts empty, and a null is written.
#[test]
fn a_null_that_is_not_the_default_is_written() {
    let value = ConsumerGroupMemberMetadataValue::default();
    assert_eq!(
        value.classic_member_metadata,
        Some(ClassicMemberMetadata::default())
    );
    let value = ConsumerGroupMemberMetadataValue {
        classic_member_metadata: None,
        ..value
    };
    let mut writer = Writer::new();
    value.encode(&mut writer, 0).expect("encodes");
    let bytes = support::from_hex("010101010101ffffffff0101000100");
    assert_eq!(writer.into_bytes(), bytes);
}

/// The answer of a broker that does not know the version asked for: version 0, error 35.
#[test]
fn api_versions_0_is_plain() {
    let mut writer = Writer::new();
    let error_code = ErrorCode::UnsupportedVersion.as_i16();
    let response = ApiVersionsResponse {
        error_code,
        ..Default::default()
    };
    response.encode(&mut writer, 0).expect("encodes");
    assert_eq!(
        writer.into_bytes(),
        Bytes::from_static(&[0, 35, 0, 0, 0, 0])
    );
}

/// From a metadata log of Kafka 4.3: `metadata.version` at level 25.
#[test]
fn metadata_records_have_their_frame() {
    let bytes = support::from_hex("010c00116d657461646174612e76657273696f6e001900");
    let name = Str::from_static("metadata.version");
    let record = MetadataRecord::from(FeatureLevelRecord {
        name,
        feature_level: 25,
        ..Default::default()
    });
    assert_eq!(
        MetadataRecord::decode(bytes.clone()),
        Ok((record.clone(), 0))
    );
    assert_eq!(record.encode(0), Ok(bytes.clone()));
    assert_eq!(record.record_type(), 12);

    let trailing: Bytes = [&bytes[..], &[0]].concat().into();
    assert!(matches!(
        MetadataRecord::decode(trailing),
        Err(DecodeError::TrailingBytes { .. })
    ));
    let unknown = MetadataRecord::decode(Bytes::from_static(&[1, 6, 0]));
    assert!(matches!(
        unknown,
        Err(DecodeError::UnknownRecordType { record_type: 6, .. })
    ));
    let frame = MetadataRecord::decode(Bytes::from_static(&[0, 12, 0]));
    assert!(matches!(
        frame,
        Err(DecodeError::OutOfRange { value: 0, .. })
    ));
}

/// Only changed tags are written: type 5, version 0, partition, topic, leader (tag 1).
#[test]
fn a_partition_change_names_only_what_changed() {
    let change = PartitionChangeRecord {
        partition_id: 3,
        topic_id: Uuid(7),
        leader: 2,
        ..Default::default()
    };
    let expected = "01050000000003000000000000000000000000000000070101".to_owned() + "0400000002";
    assert_eq!(
        MetadataRecord::from(change).encode(0),
        Ok(support::from_hex(&expected))
    );
}

#[test]
fn coordinator_records_have_theirs() {
    let key = GroupKey::from(OffsetCommitKey {
        group: "g".into(),
        topic: "t".into(),
        partition: 5,
    });
    let bytes = support::from_hex("000100016700017400000005");
    assert_eq!(records_of::encode_key(&key), Ok(bytes.clone()));
    assert_eq!(records_of::decode_key(bytes.clone()), Ok(key));

    let value = OffsetCommitValue {
        offset: 9,
        metadata: "m".into(),
        ..Default::default()
    };
    let value = GroupValue::from(value);
    let bytes = support::from_hex("00030000000000000009ffffffff00016d0000000000000000");
    assert_eq!(records_of::encode_value(&value, 3), Ok(bytes.clone()));
    assert_eq!(records_of::decode_value(1, bytes), Ok((value, 3)));

    let metadata = GroupKey::from(GroupMetadataKey { group: "g".into() });
    assert_eq!(
        records_of::encode_key(&metadata),
        Ok(support::from_hex("0002000167"))
    );

    let unknown = records_of::decode_key::<TransactionKey>(Bytes::from_static(&[0, 9, 0, 0]));
    assert!(matches!(
        unknown,
        Err(DecodeError::UnknownRecordType { record_type: 9, .. })
    ));
    let newer = records_of::decode_value::<GroupValue>(1, Bytes::from_static(&[0, 9]));
    assert!(matches!(
        newer,
        Err(DecodeError::UnsupportedVersion { version: 9, .. })
    ));
}
