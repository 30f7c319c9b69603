//! The records of one stored batch, a few at a time: whoever reads a log without knowing what is in it.
//!
//! A value that goes to a thread beside the shard for each step and comes back, for a checksum over a
//! large batch and a codec at work know no slices. Holds the batch as it is stored, a record under way,
//! and what one step gives, whatever the batch unfolds to.

use bytes::Bytes;
use chronik_protocol::record::{
    BatchError, BatchHeader, CheckedBatch, Compression, RecordStream, STEP_BYTES, SomeRecords,
};

use crate::limits::{UNFOLDED_RECORD_BYTES_MAX, UNFOLDED_STEP_BYTES};

/// Bytes of a batch that is not compressed, whose steps are made on the shard.
const PLAIN_BYTES_HERE_MAX: usize = 64 << 10;
/// Bytes of a compressed one whose first step is: a block of snappy or LZ4 is unfolded whole, however
/// small a step is.
const COMPRESSED_BYTES_HERE_MAX: usize = 4 << 10;

/// See the module's text.
pub enum Unfolding {
    /// Not looked at.
    Stored(Bytes),
    /// Under way.
    Open(Box<RecordStream>),
}

/// What a step gave, and what there is to be gone on with.
pub struct Unfolded {
    /// Comes back for the next step.
    pub unfolding: Unfolding,
    /// Records in order, or what is wrong with the batch; none at its end.
    pub some: Result<SomeRecords, BatchError>,
}

impl Unfolding {
    /// Of the batch that these bytes are, with its header.
    pub fn of(batch: Bytes) -> Unfolding {
        Self::Stored(batch)
    }

    /// Whether a step may be made on the shard.
    pub(crate) fn is_short(&self, header: &BatchHeader) -> bool {
        match (header.compression(), self) {
            (Compression::None, _) => header.size_bytes() <= PLAIN_BYTES_HERE_MAX,
            (_, Self::Stored(bytes)) => bytes.len() <= COMPRESSED_BYTES_HERE_MAX,
            (_, Self::Open(_)) => false,
        }
    }

    /// A step on the shard.
    pub(crate) fn step_here(self) -> Unfolded {
        self.step(STEP_BYTES)
    }

    /// A step beside the shard.
    pub fn step_beside(self) -> Unfolded {
        self.step(UNFOLDED_STEP_BYTES)
    }

    fn step(self, budget: usize) -> Unfolded {
        match self.open() {
            Ok(mut stream) => {
                let some = stream.step(budget);
                let unfolding = Self::Open(stream);
                Unfolded { unfolding, some }
            }
            Err(error) => Unfolded {
                unfolding: Self::Stored(Bytes::new()),
                some: Err(error),
            },
        }
    }

    fn open(self) -> Result<Box<RecordStream>, BatchError> {
        match self {
            Self::Stored(bytes) => {
                let batch = CheckedBatch::parse(bytes)?;
                let stream = RecordStream::new(&batch, UNFOLDED_RECORD_BYTES_MAX)?;
                Ok(Box::new(stream))
            }
            Self::Open(stream) => Ok(stream),
        }
    }
}

impl std::fmt::Debug for Unfolding {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Stored(bytes) => write!(f, "Stored({} bytes)", bytes.len()),
            Self::Open(stream) => write!(f, "Open({:?})", stream.header()),
        }
    }
}
