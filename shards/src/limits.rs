//! Every bound of this room, with units in the names; relations between them are asserted.
//!
//! Owns numbers only.

/// Bytes of a segment of the metadata log: small, so that a snapshot lets old ones go.
pub const METADATA_SEGMENT_BYTES: u32 = 16 * 1024 * 1024;

/// Bytes of metadata log after which a snapshot is made.
pub const METADATA_SNAPSHOT_AFTER_BYTES: u64 = 4 * 1024 * 1024;

/// Bytes of a snapshot file or of the metadata log read at once.
pub const METADATA_READ_BYTES: usize = 1024 * 1024;

/// Bytes of the largest snapshot that is read at start.
pub const METADATA_SNAPSHOT_BYTES_MAX: usize = 1024 * 1024 * 1024;

/// Changes of the catalogue that may wait for the one in progress; more are refused.
pub const CONTROL_QUEUE_LEN_MAX: usize = 4096;

/// Partitions one shard opens, closes or deletes at a time.
pub const PARTITION_TASKS_MAX: usize = 32;

/// Logs of new partitions that one shard opens at a time while nobody has asked for them: whoever asks for
/// one waits for these as well, on the same disk.
pub const OPENINGS_BEHIND_MAX: usize = 8;

/// Logs of new partitions that one slice begins to open.
pub const OPENINGS_PER_SLICE: usize = 64;

/// So long a request waits for a partition that is new, ms; then it is refused, and its client comes again.
pub const EARLY_WAIT_MS_MAX: u64 = 1_000;

/// A read that asks for more partitions that are new, and for others, does not wait: these would open in half
/// a second at most.
pub const EARLY_IN_READ_MAX: usize = 32;

/// Requests of one shard that wait for partitions that are new; more do not wait.
pub const EARLY_REQUESTS_MAX: usize = 4096;

/// Partitions that all of them name.
pub const EARLY_PARTS_MAX: usize = 16 * 1024;

/// Bytes of all of them, before the last.
pub const EARLY_BYTES_MAX: usize = 64 * 1024 * 1024;

/// Partitions that one slice lets follow a new image: some microseconds each where they are there, and
/// most where they are to be opened.
pub const FOLLOWING_PER_SLICE: usize = 64;

/// Partitions whose old segments one shard works on at a time.
pub const CHORES_MAX: usize = 4;

/// A log that moves is closed when the last look at it found no more new bytes than this: to copy so
/// much while clients wait takes some ten milliseconds. Twice as much after every
/// [`COPY_LOOKS_PER_STEP`] looks, while the log grows nearly as fast as it is copied …
pub const COPY_REST_BYTES_MAX: u64 = 4 * 1024 * 1024;

/// … see [`COPY_REST_BYTES_MAX`] …
pub const COPY_LOOKS_PER_STEP: u32 = 8;

/// … so often at most: 64 MiB, a tenth of a second.
pub const COPY_STEPS_MAX: u32 = 4;

/// From this look on copying does not rest any more: producers are faster than it is with rests.
pub const COPY_RESTS_BELOW_LOOKS: u32 = 3;

/// Moves between log directories that wait on one shard; more are refused.
pub const MOVES_MAX: usize = 16 * 1024;

/// So long a move waits for the end of a compaction of its log before others have their turn, ms.
pub const MOVE_PREPARING_MS_MAX: u64 = 30_000;

/// So long appends wait for what is on its way of a log that moves, ms, before they go on and the move is
/// tried again later.
pub const MOVE_SETTLING_MS_MAX: u64 = 1_000;

/// Tries after which a move that the catalogue refuses is not tried again.
pub const MOVE_TRIES_REFUSED_MAX: u32 = 5;

/// Tries to remove what a move has left, the last after some three minutes; the next start removes the rest.
pub const REMOVAL_TRIES_MAX: u32 = 12;

/// Requests that wait on one shard for the last step of a move; more are refused.
pub const HELD_REQUESTS_MAX: usize = 16 * 1024;

/// Held requests that one slice lets go.
pub const HELD_PER_SLICE: usize = 64;

/// Partitions that one slice looks at for old segments.
pub const CHORES_PER_SLICE: usize = 32;

/// Timers that one slice serves.
pub const TIMERS_PER_SLICE: usize = 64;

/// Bytes being read from disk for readers of one shard at a time; a single longer batch is read alone.
pub const DISK_READ_BYTES_MAX: usize = 64 * 1024 * 1024;

/// What a read counts for at least among them, bytes: each has a file open as well.
pub const DISK_READ_CHARGE_BYTES_MIN: usize = 256 * 1024;

/// Bytes that the reads which one shard has let to the disk may give together. What is given may hold
/// twice its bytes in memory.
pub const READ_GIVEN_BYTES_MAX: usize = 64 * 1024 * 1024;

/// Bytes of batches longer than a block that the reads of one shard hold; one of them at least, and one
/// more where a read holds some and wants another.
pub const READ_LONG_BYTES_MAX: usize = 64 * 1024 * 1024;

/// Bytes read from disk for one request: parts behind that give nothing this time.
pub const READ_DISK_BYTES_MAX: usize = 256 * 1024 * 1024;

/// Parts of reads that one slice plans: less than a microsecond each where the cache has them.
pub const READ_PARTS_PER_SLICE: usize = 1024;

/// Requests of more parts read no more from disk than they ask for: no cache could keep the rest.
pub const SPARING_ABOVE_PARTS: usize = 24;

/// Searches of logs by time that one shard has under way.
pub const LOOKUPS_MAX: usize = 4;

/// Bytes one read may ask for; larger requests are cut to it.
pub const READ_REQUEST_BYTES_MAX: usize = 56 * 1024 * 1024;

/// Reads of one shard that may wait for disk bytes; more are refused.
pub const DISK_READ_QUEUE_LEN_MAX: usize = 16 * 1024;

/// Requests of one shard that may be parked for data; more are answered at once with what is there.
pub const PARKED_REQUESTS_MAX: usize = 256 * 1024;

/// Parked requests that one slice answers: each is a read of a few microseconds.
pub const WOKEN_PER_SLICE: usize = 16;

/// Appends of one shard that may be unanswered; more are refused.
pub const PENDING_APPENDS_MAX: usize = 256 * 1024;

/// Bytes of the appends of one shard that are undecided; more are refused (REQUEST_TIMED_OUT). The
/// connections' budgets keep what clients wait for below; this bounds what those leave who gave up.
pub const UNDECIDED_APPEND_BYTES_MAX: usize = 512 * 1024 * 1024;

/// Bytes of the newest batches that one shard keeps in memory.
pub const CACHE_TAIL_BYTES: usize = 64 * 1024 * 1024;

/// Bytes read from disk that one shard keeps in memory.
pub const CACHE_COLD_BYTES: usize = 48 * 1024 * 1024;

/// Bytes of sealed segments' indexes that one shard keeps in memory.
pub const CACHE_INDEX_BYTES: usize = 8 * 1024 * 1024;

/// Bytes one shard appends before it makes a checkpoint of its logs: what the next start scans at
/// most besides, after a kill. About a tenth of a second of reading.
pub const REMEMBER_AFTER_BYTES: u64 = 128 * 1024 * 1024;

/// A checkpoint is made after so many times its own size was appended at least.
pub const REMEMBER_SHARE: u64 = 16;

/// But after so many times [`REMEMBER_AFTER_BYTES`] at the latest.
pub const REMEMBER_LATER_MAX: u64 = 8;

/// Logs that one slice of a checkpoint tells of: some microseconds each.
pub const REMEMBERED_PER_SLICE: usize = 16;

/// Logs that one slice looks up once more before a checkpoint is written.
pub const CONFIRMED_PER_SLICE: usize = 128;

/// Bytes of a checkpoint file or of another small file of the data directory that is read.
pub const SMALL_FILE_BYTES_MAX: usize = 64 * 1024 * 1024;

const _: () = assert!(
    chronik_partition::limits::BATCH_BYTES_MAX + READ_REQUEST_BYTES_MAX < i32::MAX as usize
);
const _: () = assert!(READ_REQUEST_BYTES_MAX <= READ_GIVEN_BYTES_MAX);
const _: () = assert!(DISK_READ_BYTES_MAX < READ_DISK_BYTES_MAX);
const _: () =
    assert!(chronik_catalog::limits::METADATA_BATCH_BYTES_MAX < METADATA_SEGMENT_BYTES as usize);
const _: () = assert!(METADATA_SNAPSHOT_AFTER_BYTES < METADATA_SEGMENT_BYTES as u64);

/// Bytes of a partition of `__consumer_offsets` read at once when its groups are loaded.
pub const GROUP_LOAD_READ_BYTES: usize = 1024 * 1024;

/// Partitions of one page of lag whose next record is read for its time.
pub const LAG_READS_MAX: usize = 256;
