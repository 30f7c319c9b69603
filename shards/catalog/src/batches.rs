//! Metadata records to and from batches, as Kafka's raft layer frames them: plain v2 batches, no
//! compression, null keys, no headers, every record at the batch's own time.
//!
//! Pure. What records mean is in `replay`, which versions of them are written in `versions`.

use bytes::Bytes;
use chronik_protocol::codec::{DecodeError, EncodeError, Message, Writer};
use chronik_protocol::messages::{
    KRaftVersionRecord, LeaderChangeMessage, SnapshotFooterRecord, SnapshotHeaderRecord,
    leader_change_message,
};
use chronik_protocol::record::{
    BatchBuilder, BatchError, CheckedBatch, ControlRecord, ControlType, NewRecord, RecordLimits,
};
use chronik_protocol::records_of::MetadataRecord;

use super::quorum::Quorum;
use super::versions::MetadataVersion;
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
    /// A control record that cannot be read.
    #[error("the control record at offset {offset} cannot be read: {source}")]
    Control {
        /// Of its batch.
        offset: i64,
        /// What is wrong with it.
        source: DecodeError,
    },
    /// More than one atomic change may hold.
    #[error("the change has {0} bytes of metadata records, more than one batch may hold")]
    TooLarge(usize),
}

/// Frames a change that counts as a whole or not at all, as a log of `version` has it.
///
/// # Errors
/// See [`FramingError`]; [`FramingError::TooLarge`] above the batch size Kafka reads.
pub fn atomic_batch(
    version: MetadataVersion,
    records: &[MetadataRecord],
    now_ms: i64,
) -> Result<CheckedBatch, FramingError> {
    let mut builder = BatchBuilder::new(0);
    for record in records {
        push(&mut builder, version, record, now_ms)?;
    }
    if builder.records_bytes() > METADATA_BATCH_BYTES_MAX {
        return Err(FramingError::TooLarge(builder.records_bytes()));
    }
    Ok(builder.build()?)
}

fn push(
    builder: &mut BatchBuilder,
    version: MetadataVersion,
    record: &MetadataRecord,
    now_ms: i64,
) -> Result<(), FramingError> {
    let (record, version) = version.fit(record);
    let value = record.encode(version)?;
    builder.push(&NewRecord {
        timestamp: now_ms,
        value: Some(&value),
        ..NewRecord::default()
    })?;
    Ok(())
}

/// Frames records that need not be atomic: the next batch, and how many records went into it.
pub fn some_batch(
    version: MetadataVersion,
    records: &[MetadataRecord],
    (base_offset, leader_epoch): (i64, i32),
    now_ms: i64,
) -> Result<(CheckedBatch, usize), FramingError> {
    let mut builder = BatchBuilder::new(base_offset).leader_epoch(leader_epoch);
    let mut taken = 0;
    for record in records {
        if builder.records_bytes() >= METADATA_BATCH_BYTES_TARGET {
            break;
        }
        push(&mut builder, version, record, now_ms)?;
        taken += 1;
    }
    Ok((builder.build()?, taken))
}

/// The first batch of an epoch: who leads the quorum now (`LeaderChangeMessage` v0).
pub fn leader_change(node_id: i32, now_ms: i64) -> Result<CheckedBatch, FramingError> {
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
    let record = (ControlType::LeaderChange, encoded(&message)?);
    control(&[record], (0, -1), now_ms)
}

/// Begins a snapshot, with what is to be known of the quorum; `log_timestamp_ms` is the append time of
/// the last record in it.
pub fn snapshot_header(
    quorum: &Quorum,
    leader_epoch: i32,
    log_timestamp_ms: i64,
    now_ms: i64,
) -> Result<CheckedBatch, FramingError> {
    let message = SnapshotHeaderRecord {
        version: 0,
        last_contained_log_timestamp: log_timestamp_ms,
        ..SnapshotHeaderRecord::default()
    };
    let mut records = vec![(ControlType::SnapshotHeader, encoded(&message)?)];
    if quorum.version > 0 {
        let version = KRaftVersionRecord {
            version: 0,
            kraft_version: quorum.version,
            ..KRaftVersionRecord::default()
        };
        records.push((ControlType::KRaftVersion, encoded(&version)?));
    }
    if let Some(voters) = &quorum.voters {
        records.push((ControlType::KRaftVoters, encoded(voters)?));
    }
    control(&records, (0, leader_epoch), now_ms)
}

/// Ends a snapshot: without it the file is not whole.
pub fn snapshot_footer(
    base_offset: i64,
    leader_epoch: i32,
    now_ms: i64,
) -> Result<CheckedBatch, FramingError> {
    let message = SnapshotFooterRecord {
        version: 0,
        ..SnapshotFooterRecord::default()
    };
    let record = (ControlType::SnapshotFooter, encoded(&message)?);
    control(&[record], (base_offset, leader_epoch), now_ms)
}

/// A message of version 0 by itself.
fn encoded(message: &impl Message) -> Result<Bytes, FramingError> {
    let mut writer = Writer::new();
    message.encode(&mut writer, 0)?;
    Ok(writer.into_bytes())
}

fn control(
    records: &[(ControlType, Bytes)],
    (base_offset, leader_epoch): (i64, i32),
    now_ms: i64,
) -> Result<CheckedBatch, FramingError> {
    let mut builder = BatchBuilder::new(base_offset)
        .leader_epoch(leader_epoch)
        .control();
    for (kind, value) in records {
        let key = kind.key();
        let record = NewRecord {
            timestamp: now_ms,
            key: Some(&key),
            value: Some(value),
            ..NewRecord::default()
        };
        builder.push(&record)?;
    }
    Ok(builder.build()?)
}

/// The records of a control batch; nothing of a data batch.
///
/// # Errors
/// When one is no control record.
pub fn read_control(batch: &CheckedBatch) -> Result<Vec<ControlRecord>, FramingError> {
    if !batch.header.is_control() {
        return Ok(Vec::new());
    }
    let limits = RecordLimits {
        decompressed_bytes_max: METADATA_BATCH_BYTES_MAX,
        ..RecordLimits::default()
    };
    let mut records = Vec::new();
    for (index, record) in (0..).zip(batch.records(&limits)?) {
        records.push(ControlRecord::from_record(index, &record?)?);
    }
    Ok(records)
}

/// The records of a data batch with their offsets; nothing of a control batch.
///
/// # Errors
/// When a record cannot be read: then neither can the catalogue.
pub fn read_batch(batch: &CheckedBatch) -> Result<Vec<(i64, MetadataRecord)>, FramingError> {
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
