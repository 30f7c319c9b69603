//! Every bound of the coordinators, with units in the names.
//!
//! Owns numbers only.

/// Callers of the group coordinator that may be unanswered, parked ones included; more are refused.
pub const GROUP_CALLERS_MAX: usize = 256 * 1024;

/// Groups of one partition of `__consumer_offsets`; more are refused.
pub const GROUPS_PER_PARTITION_MAX: usize = 100_000;

/// Bytes of names and metadata of all protocols one member of a classic group may bring: what does
/// not fit into a batch of `__consumer_offsets` could not be remembered anyway.
pub const GROUP_MEMBER_METADATA_BYTES_MAX: usize = 1024 * 1024;

/// Protocols that one member of a classic group may name; clients have a few. Choosing one looks at
/// those of all members.
pub const GROUP_MEMBER_PROTOCOLS_MAX: usize = 128;

/// Topics that one member of a consumer group may name: 2 to 4 microseconds each, in one slice, and two
/// thirds of what a record of the member can hold. More are subscribed to by an expression.
pub const GROUP_MEMBER_TOPICS_MAX: usize = 10_000;

/// Topics all members of a consumer group name together: each change of one looks at all of them (0.1 ms
/// for 1,000).
pub const GROUP_TOPICS_MAX: usize = 20_000;

/// Partitions that one member of a consumer group may say that it owns: about as many as a record holds.
pub const GROUP_MEMBER_PARTITIONS_MAX: usize = 100_000;

/// Ids given to new members of one classic group that have not come again with them.
pub const GROUP_PENDING_MEMBERS_MAX: usize = 10_000;

/// Groups that one slice of a sweep looks at.
pub const GROUPS_PER_SLICE: usize = 32;

/// Groups that one page of a list of them looks at: a tenth of a microsecond each.
pub const GROUPS_PER_PAGE: usize = 5_000;

/// Committed offsets that one slice of a sweep looks at, or one of a deletion forgets: less than a
/// microsecond each where they stay, and two where they go.
pub const OFFSETS_PER_SLICE: usize = 2_000;

/// Longest record that is read of a log whose content nobody has checked, bytes once decompressed: those
/// of groups and of transactions, which their coordinators keep below `message.max.bytes`.
pub const UNFOLDED_RECORD_BYTES_MAX: usize = 32 * 1024 * 1024;

/// Bytes of records, decompressed, that one step beside the shard gives of such a log.
pub const UNFOLDED_STEP_BYTES: usize = 256 * 1024;

/// Records of `__consumer_offsets` that one slice of loading replays.
pub const GROUP_RECORDS_PER_SLICE: usize = 64;

/// Bytes of their values after which the slice ends: a member's record names thousands of topics, some
/// microseconds each.
pub const GROUP_RECORD_BYTES_PER_SLICE: usize = 32 * 1024;
