//! Metadata records to and from batches, as Kafka's raft layer frames them: plain v2 batches, no
//! compression, null keys, no headers, every record at the batch's own time.
//!
//! Pure. Owns the record versions that are written; what records mean is in `replay`.

use bytes::Bytes;
use chronik_protocol::codec::{EncodeError, Message, Writer};
use chronik_protocol::messages::{
    LeaderChangeMessage, SnapshotFooterRecord, SnapshotHeaderRecord, leader_change_message,
};
use chronik_protocol::record::{
    BatchBuilder, BatchError, CheckedBatch, ControlType, NewRecord, RecordLimits,
};
use chronik_protocol::records_of::MetadataRecord;

use crate::limits::{METADATA_BATCH_BYTES_MAX, METADATA_BATCH_BYTES_TARGET};

/// Why records could not be put into a batch, or read from one.
#[derive(Debug, thiserror::Error)]
pub enum FramingError {
    /// A field that the record's version lacks: a bug of ours.
    #[error("a metadata record cannot be encoded: {0}")]
    Encode(#[from] EncodeError),
    /// Not a sound batch, or too much for one.
    #[error("a metadata batch is not sound: {0}")]
    Batch(#[from] BatchError),
    /// Not a record this version of the format knows.
    #[error("the metadata record at offset {offset} cannot be read: {reason}")]
    Record {
        /// Its offset.
        offset: i64,
        /// What is wrong with it.
        reason: String,
    },
    /// More than one atomic change may hold.
    #[error("the change has {0} bytes of metadata records, more than one batch may hold")]
    TooLarge(usize),
}

/// The version each record is written in at `metadata.version` 4.3-IV0 (`MetadataVersion`).
fn version_of(record: &MetadataRecord) -> i16 {
    match record {
        MetadataRecord::RegisterBroker(_) => 4,
        MetadataRecord::Partition(_) | MetadataRecord::PartitionChange(_) => 2,
        MetadataRecord::BrokerRegistrationChange(_) => 3,
        _ => 0,
    }
}

/// Frames a change that counts as a whole or not at all.
///
/// # Errors
/// See [`FramingError`]; [`FramingError::TooLarge`] above the batch size Kafka reads.
pub(crate) fn atomic_batch(
    records: &[MetadataRecord],
    now_ms: i64,
) -> Result<CheckedBatch, FramingError> {
    let mut builder = BatchBuilder::new(0);
    for record in records {
        push(&mut builder, record, now_ms)?;
    }
    if builder.records_bytes() > METADATA_BATCH_BYTES_MAX {
        return Err(FramingError::TooLarge(builder.records_bytes()));
    }
    Ok(builder.build()?)
}

fn push(
    builder: &mut BatchBuilder,
    record: &MetadataRecord,
    now_ms: i64,
) -> Result<(), FramingError> {
    let value = record.encode(version_of(record))?;
    builder.push(&NewRecord {
        timestamp: now_ms,
        value: Some(&value),
        ..NewRecord::default()
    })?;
    Ok(())
}

/// Frames records that need not be atomic: the next batch, and how many records went into it.
pub(super) fn some_batch(
    records: &[MetadataRecord],
    base_offset: i64,
    leader_epoch: i32,
    now_ms: i64,
) -> Result<(CheckedBatch, usize), FramingError> {
    let mut builder = BatchBuilder::new(base_offset).leader_epoch(leader_epoch);
    let mut taken = 0;
    for record in records {
        if builder.records_bytes() >= METADATA_BATCH_BYTES_TARGET {
            break;
        }
        push(&mut builder, record, now_ms)?;
        taken += 1;
    }
    Ok((builder.build()?, taken))
}

/// The first batch of an epoch: who leads the quorum now (`LeaderChangeMessage` v0).
pub(super) fn leader_change(node_id: i32, now_ms: i64) -> Result<CheckedBatch, FramingError> {
    let voter = || leader_change_message::Voter {
        voter_id: node_id,
        ..Default::default()
    };
    let message = LeaderChangeMessage {
        version: 0,
        leader_id: node_id,
        voters: vec![voter()],
        granting_voters: vec![voter()],
        ..LeaderChangeMessage::default()
    };
    control(ControlType::LeaderChange, &message, 0, -1, now_ms)
}

/// Begins a snapshot; `log_timestamp_ms` is the append time of the last record in it.
pub(super) fn snapshot_header(
    leader_epoch: i32,
    log_timestamp_ms: i64,
    now_ms: i64,
) -> Result<CheckedBatch, FramingError> {
    let message = SnapshotHeaderRecord {
        version: 0,
        last_contained_log_timestamp: log_timestamp_ms,
        ..SnapshotHeaderRecord::default()
    };
    control(
        ControlType::SnapshotHeader,
        &message,
        0,
        leader_epoch,
        now_ms,
    )
}

/// Ends a snapshot: without it the file is not whole.
pub(super) fn snapshot_footer(
    base_offset: i64,
    leader_epoch: i32,
    now_ms: i64,
) -> Result<CheckedBatch, FramingError> {
    let message = SnapshotFooterRecord {
        version: 0,
        ..SnapshotFooterRecord::default()
    };
    control(
        ControlType::SnapshotFooter,
        &message,
        base_offset,
        leader_epoch,
        now_ms,
    )
}

fn control(
    kind: ControlType,
    message: &impl Message,
    base_offset: i64,
    leader_epoch: i32,
    now_ms: i64,
) -> Result<CheckedBatch, FramingError> {
    let mut writer = Writer::new();
    message.encode(&mut writer, 0)?;
    let (key, value) = (kind.key(), writer.into_bytes());
    let mut builder = BatchBuilder::new(base_offset)
        .leader_epoch(leader_epoch)
        .control();
    let record = NewRecord {
        timestamp: now_ms,
        key: Some(&key),
        value: Some(&value),
        ..NewRecord::default()
    };
    builder.push(&record)?;
    Ok(builder.build()?)
}

/// The records of a data batch with their offsets; nothing of a control batch.
///
/// # Errors
/// When a record cannot be read: then neither can the catalogue.
pub(super) fn read_batch(batch: &CheckedBatch) -> Result<Vec<(i64, MetadataRecord)>, FramingError> {
    if batch.header.is_control() {
        return Ok(Vec::new());
    }
    let limits = RecordLimits {
        decompressed_bytes_max: METADATA_BATCH_BYTES_MAX,
        ..RecordLimits::default()
    };
    let mut records = Vec::new();
    for record in batch.records(&limits)? {
        let record = record?;
        let offset = record.offset;
        let unreadable = |reason: String| FramingError::Record { offset, reason };
        let value: Bytes = record
            .value
            .ok_or_else(|| unreadable("no value".to_owned()))?;
        // The log's own buffers are large: an image must not keep one alive for a topic's name.
        let value = Bytes::copy_from_slice(&value);
        let (record, _) =
            MetadataRecord::decode(value).map_err(|error| unreadable(error.to_string()))?;
        records.push((offset, record));
    }
    Ok(records)
}
