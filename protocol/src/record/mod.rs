//! Record batches: the one thing that is stored, replicated and fetched as it was received.
//!
//! Owns the format of magic 2 (Kafka 0.11 and later): headers, CRC, records, codecs, control records, recovery
//! scanning; and in `legacy` the conversion from and to the formats before it. Never interprets a record, does
//! no I/O, and allocates no more than its input's bytes justify or its caller's limits allow.

mod attributes;
mod batch;
mod builder;
mod compression;
mod control;
mod error;
mod facts;
mod header;
mod headers;
mod iterate;
pub mod legacy;
mod parser;
mod renumber;
mod retain;
mod scan;
mod search;
mod stream;
mod validate;
mod varint;

mod whole;

pub use attributes::{Attributes, TimestampType};
pub use batch::{BatchCheck, CheckedBatch, crc32c};
pub use builder::{BatchBuilder, NewRecord};
pub use compression::Compression;
pub use control::{ControlRecord, ControlType, EndTransactionMarker};
pub use error::{BatchError, CompressionError, RecordFault, RefusedRecords};
pub use header::{
    BATCH_HEADER_BYTES, BATCH_PREFIX_BYTES, BatchHeader, LOG_OVERHEAD_BYTES, MAGIC_V2,
    NO_PARTITION_LEADER_EPOCH, NO_PRODUCER_EPOCH, NO_PRODUCER_ID, NO_SEQUENCE, NO_TIMESTAMP,
    increment_sequence,
};
pub use headers::BatchHeaders;
pub use iterate::{Header, Headers, Record, RecordIter};
pub use scan::{Scan, scan};
pub use search::{SearchProgress, TimestampSearch};
pub use stream::{RecordStream, SomeRecords};
pub use validate::{
    RecordLimits, RecordsSummary, RecordsValidator, STEP_BYTES, ValidationProgress,
};
