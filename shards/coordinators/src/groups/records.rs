//! Records of `__consumer_offsets`: made, put into batches, read from batches.
//!
//! Pure. Owns the versions that are written (Kafka 4.3's `GroupCoordinatorRecordHelpers`); what
//! the records mean is told where they are replayed.

use bytes::Bytes;
use chronik_protocol::codec::EncodeError;
use chronik_protocol::messages::{GroupMetadataKey, OffsetCommitKey};
use chronik_protocol::record::{
    BatchBuilder, BatchError, CheckedBatch, NO_PRODUCER_EPOCH, NO_PRODUCER_ID, NewRecord,
};
use chronik_protocol::records_of::{
    GroupKey, GroupValue, RecordSet, decode_key, decode_value, encode_key, encode_value,
};
use chronik_protocol::{DecodeError, Str};

/// The version of `GroupMetadata` values that is written: Kafka 4.3 knows 4 and writes 3.
pub(crate) const GROUP_METADATA_VERSION: i16 = 3;

/// Bytes of a batch that are not its records.
const BATCH_OVERHEAD_BYTES: usize = 61;

/// One record: a key and a value with the version it is written in, or a tombstone.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct GroupRecord {
    pub(crate) key: GroupKey,
    pub(crate) value: Option<(GroupValue, i16)>,
}

impl GroupRecord {
    /// A record that removes what is under `key`.
    pub(crate) fn tombstone(key: GroupKey) -> GroupRecord {
        GroupRecord { key, value: None }
    }

    /// Removes a classic group.
    pub(crate) fn group_tombstone(group: &Str) -> GroupRecord {
        GroupRecord::tombstone(GroupKey::GroupMetadata(GroupMetadataKey {
            group: group.clone(),
        }))
    }

    /// Removes a committed offset.
    pub(crate) fn offset_tombstone(group: &Str, topic: &Str, partition: i32) -> GroupRecord {
        GroupRecord::tombstone(offset_key(group, topic, partition))
    }
}

/// The key of a committed offset.
pub(crate) fn offset_key(group: &Str, topic: &Str, partition: i32) -> GroupKey {
    GroupKey::OffsetCommit(OffsetCommitKey {
        group: group.clone(),
        topic: topic.clone(),
        partition,
    })
}

/// Why records could not be put into a batch.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PackError {
    /// More than one batch of the topic may hold.
    #[error("{bytes} bytes of records do not fit into one batch of at most {max_bytes}")]
    TooLarge { bytes: usize, max_bytes: usize },
    /// A field its version lacks: a bug of ours.
    #[error("a group record cannot be encoded: {0}")]
    Encode(#[from] EncodeError),
    /// A length the format cannot hold.
    #[error("a batch of group records cannot be built: {0}")]
    Batch(#[from] BatchError),
}

/// Puts records into batches of at most `max_bytes` each, in their order. With `atomic` they must
/// all fit into one.
///
/// # Errors
/// See [`PackError`]. Then nothing may be appended.
pub(crate) fn pack(
    records: &[GroupRecord],
    atomic: bool,
    max_bytes: usize,
    now_ms: i64,
) -> Result<Vec<CheckedBatch>, PackError> {
    // Kafka's coordinator counts from sequence 0 although no producer is named.
    let new_batch = || BatchBuilder::new(0).producer(NO_PRODUCER_ID, NO_PRODUCER_EPOCH, 0);
    let mut batches = Vec::new();
    let mut builder = new_batch();
    for record in records {
        let bytes = bytes_min(record);
        if bytes > max_bytes {
            // Not even encoded: it may be as long as a request.
            return Err(PackError::TooLarge { bytes, max_bytes });
        }
        let key = encode_key(&record.key)?;
        let value = match &record.value {
            Some((value, version)) => Some(encode_value(value, *version)?),
            None => None,
        };
        // Length, attributes, deltas and header count take at most 21 bytes.
        let bytes = key.len() + value.as_ref().map_or(0, Bytes::len) + 21;
        let full = builder.records_bytes() + bytes + BATCH_OVERHEAD_BYTES;
        if full > max_bytes {
            if atomic || builder.is_empty() {
                return Err(PackError::TooLarge {
                    bytes: full,
                    max_bytes,
                });
            }
            let next = std::mem::replace(&mut builder, new_batch());
            batches.push(next.build()?);
        }
        builder.push(&NewRecord {
            timestamp: now_ms,
            key: Some(&key),
            value: value.as_deref(),
            ..NewRecord::default()
        })?;
    }
    if !builder.is_empty() {
        batches.push(builder.build()?);
    }
    Ok(batches)
}

/// What a record takes at least, by what its members brought; 0 for those that are short in any case.
fn bytes_min(record: &GroupRecord) -> usize {
    match &record.value {
        Some((GroupValue::GroupMetadata(value), _)) => {
            let members = value.members.iter();
            let brought = members.map(|member| member.subscription.len() + member.assignment.len());
            brought.fold(0, usize::saturating_add)
        }
        _ => 0,
    }
}

/// Reads a record as the log has it. `Ok(None)` for a key of a type nobody here knows: Kafka
/// passes over those, so that a downgrade can read what an upgrade wrote.
///
/// # Errors
/// When a record of a known type cannot be read.
pub(crate) fn unpack(
    key: &Bytes,
    value: Option<&Bytes>,
) -> Result<Option<GroupRecord>, DecodeError> {
    // The buffers of the log are large: state must not keep one alive for a group's name.
    let key = match decode_key::<GroupKey>(Bytes::copy_from_slice(key)) {
        Ok(key) => key,
        Err(DecodeError::UnknownRecordType { .. }) => return Ok(None),
        Err(error) => return Err(error),
    };
    let value = match value {
        Some(value) => {
            let value = Bytes::copy_from_slice(value);
            Some(decode_value::<GroupValue>(key.record_type(), value)?)
        }
        None => None,
    };
    Ok(Some(GroupRecord { key, value }))
}
