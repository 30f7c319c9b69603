//! Every bound of the catalogue, with units in the names; relations between them are asserted.
//!
//! Owns numbers only.

/// Partitions one request may create (`ReplicationControlManager.MAX_PARTITIONS_PER_BATCH`).
pub const PARTITIONS_PER_REQUEST_MAX: u64 = 10_000;

/// Producer ids in one durable block (`ProducerIdsBlock.PRODUCER_ID_BLOCK_SIZE`).
pub const PRODUCER_ID_BLOCK_LEN: i64 = 1000;

/// Bytes of one batch of the metadata log (`KafkaRaftClient.MAX_BATCH_SIZE_BYTES`).
pub const METADATA_BATCH_BYTES_MAX: usize = 8 * 1024 * 1024;

/// Bytes of records put into one batch where a change need not be atomic (start, snapshots).
pub const METADATA_BATCH_BYTES_TARGET: usize = 512 * 1024;

const _: () = assert!(METADATA_BATCH_BYTES_TARGET < METADATA_BATCH_BYTES_MAX);
