//! Control records: the ones brokers and controllers write between the clients' batches.
//!
//! Owns the key (`ControlRecordType`) and the end-of-transaction marker's value. Never decodes the other types'
//! values, which are messages of their own.

use bytes::{BufMut, Bytes, BytesMut};

use super::{BatchError, Record, RecordFault};

/// The type of a control record: the second half of its key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ControlType {
    /// A transaction was aborted.
    Abort,
    /// A transaction was committed.
    Commit,
    /// A new leader of the metadata quorum: `LeaderChangeMessage`.
    LeaderChange,
    /// The beginning of a metadata snapshot: `SnapshotHeaderRecord`.
    SnapshotHeader,
    /// The end of a metadata snapshot: `SnapshotFooterRecord`.
    SnapshotFooter,
    /// The version of the quorum's protocol: `KRaftVersionRecord`.
    KRaftVersion,
    /// The voters of the metadata quorum: `VotersRecord`.
    KRaftVoters,
    /// A type of a later Kafka, passed over as Kafka does.
    Unknown(i16),
}

impl ControlType {
    /// The type with this id.
    pub fn from_id(id: i16) -> Self {
        match id {
            0 => Self::Abort,
            1 => Self::Commit,
            2 => Self::LeaderChange,
            3 => Self::SnapshotHeader,
            4 => Self::SnapshotFooter,
            5 => Self::KRaftVersion,
            6 => Self::KRaftVoters,
            id => Self::Unknown(id),
        }
    }

    /// The type's id in the key.
    pub fn id(self) -> i16 {
        match self {
            Self::Abort => 0,
            Self::Commit => 1,
            Self::LeaderChange => 2,
            Self::SnapshotHeader => 3,
            Self::SnapshotFooter => 4,
            Self::KRaftVersion => 5,
            Self::KRaftVoters => 6,
            Self::Unknown(id) => id,
        }
    }

    /// The key of a control record of this type: version 0, then the id.
    pub fn key(self) -> Bytes {
        let mut key = BytesMut::with_capacity(4);
        key.put_i16(0);
        key.put_i16(self.id());
        key.freeze()
    }
}

/// A record of a control batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ControlRecord {
    /// The type in the record's key.
    pub control_type: ControlType,
    /// A message of the type's own schema, its version in front.
    pub value: Bytes,
}

impl ControlRecord {
    /// Reads a record of a batch whose header says control.
    ///
    /// # Errors
    /// [`RecordFault::Control`] at `index` when the key is null, shorter than 4 bytes or of a
    /// negative version, or when the value is null.
    pub fn from_record(index: i32, record: &Record) -> Result<Self, BatchError> {
        Self::read(record).ok_or(BatchError::Record {
            index,
            fault: RecordFault::Control,
        })
    }

    fn read(record: &Record) -> Option<Self> {
        // A later version of the key may be longer; its first two fields stay (`ControlRecordType`).
        let (version, rest) = record.key.as_ref()?.split_first_chunk::<2>()?;
        let (id, _) = rest.split_first_chunk::<2>()?;
        if i16::from_be_bytes(*version) < 0 {
            return None;
        }
        let control_type = ControlType::from_id(i16::from_be_bytes(*id));
        Some(Self {
            control_type,
            value: record.value.clone()?,
        })
    }

    /// The transaction marker, if the record is one and its value is sound.
    pub fn end_transaction(&self) -> Option<EndTransactionMarker> {
        let commit = match self.control_type {
            ControlType::Abort => false,
            ControlType::Commit => true,
            _ => return None,
        };
        let (version, rest) = self.value.split_first_chunk::<2>()?;
        let (coordinator_epoch, _) = rest.split_first_chunk::<4>()?;
        (i16::from_be_bytes(*version) >= 0).then(|| EndTransactionMarker {
            commit,
            coordinator_epoch: i32::from_be_bytes(*coordinator_epoch),
        })
    }
}

/// The record a transaction coordinator writes to every partition of a transaction that ends
/// (`EndTransactionMarker`, `EndTxnMarker` version 0).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EndTransactionMarker {
    /// True for a commit, false for an abort.
    pub commit: bool,
    /// Epoch of the coordinator, by which a partition fences an older one.
    pub coordinator_epoch: i32,
}

impl EndTransactionMarker {
    /// The control record with this marker.
    pub fn to_record(self) -> ControlRecord {
        let mut value = BytesMut::with_capacity(6);
        value.put_i16(0);
        value.put_i32(self.coordinator_epoch);
        let control_type = if self.commit {
            ControlType::Commit
        } else {
            ControlType::Abort
        };
        ControlRecord {
            control_type,
            value: value.freeze(),
        }
    }
}
