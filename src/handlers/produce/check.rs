//! What a producer's records must be before a shard sees them.
//!
//! Runs on the connection's shard, in slices short enough for everybody else. Order and codes
//! follow `ProduceRequest#validateRecords`, `UnifiedLog#analyzeAndValidateRecords` and
//! `LogValidator`. Never assigns an offset.

use chronik_io::World;
use chronik_protocol::record::{
    BATCH_HEADER_BYTES, BatchError, BatchHeader, CheckedBatch, Compression, CompressionError,
    Progress, RecordFault, RecordLimits, RecordsSummary, RecordsValidator, STEP_BYTES,
};
use chronik_protocol::{ErrorCode, Records, Str};
use chronik_shards::catalog::{TimestampKind, Topic, TopicCompression, TopicConfig};

use super::conversions::Conversions;
use super::messages;
use crate::handlers::context::{Context, LARGE_RECORD_BYTES};
use crate::handlers::slice::Slice;

/// From this version on batches may be compressed by zstd (KIP-110).
const ZSTD_VERSION: i16 = 7;
/// Bytes of records, decompressed, that a codec is given on the shard: gzip takes 90 µs for them.
const CODED_BYTES_HERE_MAX: usize = STEP_BYTES;
/// Bytes of a batch that is copied on the shard: some 50 µs, its checksum included.
const COPIED_BYTES_HERE_MAX: usize = 256 << 10;

/// Why records were not taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Refusal {
    /// Kafka's code.
    pub(super) error: ErrorCode,
    /// A sentence for people.
    pub(super) message: Option<Str>,
    /// Position and fault of a single record, when one is to blame.
    pub(super) record: Option<(i32, Str)>,
}

impl Refusal {
    /// A code alone.
    pub(super) fn of(error: ErrorCode) -> Self {
        Self {
            error,
            message: None,
            record: None,
        }
    }

    /// No error: there is nothing to append, so no offset is given either.
    pub(super) fn nothing() -> Self {
        Self::of(ErrorCode::None)
    }

    /// A code and a sentence.
    pub(super) fn saying(error: ErrorCode, message: impl Into<String>) -> Self {
        Self {
            error,
            message: Some(Str::from(message.into())),
            record: None,
        }
    }
}

/// What holds for the records of one partition of one request.
pub(super) struct Rules<'a> {
    version: i16,
    topic: &'a Topic,
    index: i32,
    transactional: bool,
}

impl<'a> Rules<'a> {
    /// Rules for partition `index` of `topic` in a request of `version`.
    pub(super) fn new(version: i16, topic: &'a Topic, index: i32, transactional: bool) -> Self {
        Self {
            version,
            topic,
            index,
            transactional,
        }
    }

    /// The topic's settings.
    pub(super) fn config(&self) -> &TopicConfig {
        &self.topic.config
    }

    /// Whether the topic takes a batch of so many bytes.
    fn check_size(&self, size_bytes: usize) -> Result<(), Refusal> {
        let limit = self.config().max_message_bytes;
        if u64::try_from(size_bytes).unwrap_or(u64::MAX) <= u64::from(limit) {
            return Ok(());
        }
        let Rules { topic, index, .. } = self;
        let message = format!(
            "the batch for {}-{index} is {size_bytes} bytes, max.message.bytes is {limit}",
            topic.name
        );
        Err(Refusal::saying(ErrorCode::MessageTooLarge, message))
    }
}

/// The one batch of a partition, checked to the last record and ready to be appended; `None` when
/// there is nothing to append, which only versions before 3 allow.
///
/// # Errors
/// Why the producer gets an error for this partition.
pub(super) async fn batch<W: World>(
    context: &Context<W>,
    slice: &mut Slice,
    conversions: &mut Conversions<'_, W>,
    rules: &Rules<'_>,
    records: Option<&Records>,
) -> Result<Option<CheckedBatch>, Refusal> {
    let bytes = records.and_then(|records| records.parts().first().cloned());
    if let Some(bytes) = &bytes
        && messages::are_messages(rules.version, bytes)
    {
        return messages::batch(context, slice, conversions, rules, bytes.clone()).await;
    }
    let world = &context.world;
    let bytes = bytes.unwrap_or_default();
    if bytes.is_empty() {
        return Err(Refusal::saying(
            ErrorCode::InvalidRecord,
            "there is no record batch",
        ));
    }
    let now_ms = world.now_ms();
    let limits = limits(rules.config(), now_ms);
    let header = BatchHeader::peek(&bytes).map_err(|error| refusal(&error, rules, &limits))?;
    check_header(&header, rules)?;
    let batch = CheckedBatch::parse(bytes).map_err(|error| refusal(&error, rules, &limits))?;
    slice.breathe(world).await;
    let mut validator =
        RecordsValidator::new(&batch, limits).map_err(|error| refusal(&error, rules, &limits))?;
    let summary = loop {
        match validator
            .step(STEP_BYTES)
            .map_err(|error| refusal(&error, rules, &limits))?
        {
            Progress::More => slice.breathe(world).await,
            Progress::Done(summary) => break summary,
        }
    };
    let rewrite = Rewrite::of(&batch, &summary, rules.config(), now_ms);
    if rewrite.is_none() {
        return Ok(Some(batch));
    }
    let converted = convert(context, conversions, rules, (batch, &summary), rewrite).await?;
    Ok(Some(converted))
}

/// What can be refused before the checksum is computed.
fn check_header(header: &BatchHeader, rules: &Rules<'_>) -> Result<(), Refusal> {
    if rules.version < ZSTD_VERSION && header.compression() == Compression::Zstd {
        return Err(Refusal::of(ErrorCode::UnsupportedCompressionType));
    }
    if header.is_transactional() && !rules.transactional {
        return Err(Refusal::of(ErrorCode::TransactionalIdAuthorizationFailed));
    }
    if rules.transactional {
        // Nobody could begin a transaction here, so there is none to add records to.
        return Err(Refusal::of(ErrorCode::InvalidTxnState));
    }
    rules.check_size(header.size_bytes())?;
    if header.base_offset != 0 {
        let message = format!("the base offset must be 0 but is {}", header.base_offset);
        return Err(Refusal::saying(ErrorCode::InvalidRecord, message));
    }
    Ok(())
}

/// The topic's rules for records, now.
pub(super) fn limits(config: &TopicConfig, now_ms: i64) -> RecordLimits {
    let (timestamp_ms_min, timestamp_ms_max) = match config.timestamp_kind {
        TimestampKind::CreateTime => (
            now_ms.saturating_sub(config.timestamp_before_max_ms),
            now_ms.saturating_add(config.timestamp_after_max_ms),
        ),
        TimestampKind::LogAppendTime => (i64::MIN, i64::MAX),
    };
    RecordLimits {
        keys_required: config.cleanup_policy.compact,
        timestamp_ms_min,
        timestamp_ms_max,
        ..RecordLimits::default()
    }
}

/// What the topic wants to be another in a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Rewrite {
    /// With its level.
    codec: Option<(Compression, Option<i32>)>,
    append_time_ms: Option<i64>,
    max_timestamp_ms: Option<i64>,
}

impl Rewrite {
    fn of(
        batch: &CheckedBatch,
        summary: &RecordsSummary,
        config: &TopicConfig,
        now_ms: i64,
    ) -> Self {
        let source = batch.header.compression();
        let wanted = target_codec(config, source);
        let by_append = config.timestamp_kind == TimestampKind::LogAppendTime;
        // A header that does not tell the true maximum would mislead lookups by time.
        let misleads = !by_append && batch.header.max_timestamp != summary.max_timestamp_ms;
        Self {
            codec: (wanted != source).then_some((wanted, config.compression_level)),
            append_time_ms: by_append.then_some(now_ms),
            max_timestamp_ms: misleads.then_some(summary.max_timestamp_ms),
        }
    }

    fn is_none(&self) -> bool {
        self.codec.is_none() && self.append_time_ms.is_none() && self.max_timestamp_ms.is_none()
    }

    /// Codecs know no slices: takes as long as the batch is large.
    fn apply(self, batch: CheckedBatch, limits: &RecordLimits) -> Result<CheckedBatch, BatchError> {
        let batch = match self.codec {
            Some((codec, level)) => batch.recompressed(codec, level, limits)?,
            None => batch,
        };
        Ok(match (self.append_time_ms, self.max_timestamp_ms) {
            (Some(now_ms), _) => batch.with_log_append_time(now_ms),
            (None, Some(max_timestamp_ms)) => batch.with_max_timestamp(max_timestamp_ms),
            (None, None) => batch,
        })
    }
}

/// Gives the batch the codec and the time that the topic asks for.
///
/// # Errors
/// MESSAGE_TOO_LARGE when it becomes longer than the topic takes (`UnifiedLog#append` looks again
/// after a conversion), or the request too long.
async fn convert<W: World>(
    context: &Context<W>,
    conversions: &mut Conversions<'_, W>,
    rules: &Rules<'_>,
    (batch, summary): (CheckedBatch, &RecordsSummary),
    rewrite: Rewrite,
) -> Result<CheckedBatch, Refusal> {
    let limits = limits(rules.config(), context.world.now_ms());
    let plain_bytes = summary.decompressed_bytes;
    // Known beforehand where nothing is compressed afterwards.
    let expected_bytes = match rewrite.codec {
        Some((Compression::None, _)) => plain_bytes.saturating_add(BATCH_HEADER_BYTES),
        _ => batch.bytes.len(),
    };
    rules.check_size(expected_bytes)?;
    conversions.room_for(expected_bytes).await?;
    let is_codecs_work = rewrite.codec.is_some();
    let _turn = match is_codecs_work && plain_bytes > LARGE_RECORD_BYTES {
        true => Some(context.large_record.lock().await),
        false => None,
    };
    let here_max = match is_codecs_work {
        true => CODED_BYTES_HERE_MAX,
        false => COPIED_BYTES_HERE_MAX,
    };
    let converted = match plain_bytes.max(batch.bytes.len()) <= here_max {
        true => rewrite.apply(batch, &limits),
        false => {
            let work = move || rewrite.apply(batch, &limits);
            let computed = context.world.compute(work).await;
            computed.map_err(|error| {
                Refusal::saying(ErrorCode::UnknownServerError, error.to_string())
            })?
        }
    };
    let converted = converted.map_err(|error| refusal(&error, rules, &limits))?;
    rules.check_size(converted.bytes.len())?;
    conversions.made(converted.bytes.len());
    Ok(converted)
}

/// The codec that the topic asks for, of what came with codec `source`.
pub(super) fn target_codec(config: &TopicConfig, source: Compression) -> Compression {
    match config.compression {
        TopicCompression::Producer => source,
        TopicCompression::Uncompressed => Compression::None,
        TopicCompression::Gzip => Compression::Gzip,
        TopicCompression::Snappy => Compression::Snappy,
        TopicCompression::Lz4 => Compression::Lz4,
        TopicCompression::Zstd => Compression::Zstd,
    }
}

/// The code and the sentence of what is wrong with a batch.
pub(super) fn refusal(error: &BatchError, rules: &Rules<'_>, limits: &RecordLimits) -> Refusal {
    let code = match error {
        BatchError::CrcMismatch { .. }
        | BatchError::InvalidLength { .. }
        | BatchError::UnknownMagic { .. } => ErrorCode::CorruptMessage,
        BatchError::LogAppendTimeNotAllowed => ErrorCode::InvalidTimestamp,
        BatchError::Compression(CompressionError::LimitExceeded { .. }) | BatchError::TooLarge => {
            ErrorCode::MessageTooLarge
        }
        BatchError::Record { index, fault } => {
            return record_refusal(*index, *fault, rules, limits);
        }
        _ => ErrorCode::InvalidRecord,
    };
    Refusal::saying(code, error.to_string())
}

/// The sentences are `LogValidator`'s; producers show them to people.
fn record_refusal(
    index: i32,
    fault: RecordFault,
    rules: &Rules<'_>,
    limits: &RecordLimits,
) -> Refusal {
    let partition = format!("{}-{}", rules.topic.name, rules.index);
    let of_record = match fault {
        RecordFault::TimestampOutOfRange(timestamp) => format!(
            "Timestamp {timestamp} of message with offset {index} is out of range. The timestamp \
             should be within [{}, {}]",
            limits.timestamp_ms_min, limits.timestamp_ms_max
        ),
        RecordFault::NullKey => {
            format!(
                "Compacted topic cannot accept message without key in topic partition {partition}"
            )
        }
        other => format!("Record {index} for {partition} is malformed: {other:?}"),
    };
    let (error, message) = match fault {
        RecordFault::TimestampOutOfRange(_) => (
            ErrorCode::InvalidTimestamp,
            "One or more records have been rejected due to invalid timestamp".to_owned(),
        ),
        _ => (
            ErrorCode::InvalidRecord,
            format!(
                "One or more records have been rejected due to 1 record errors in total, and only \
                 showing the first three errors at most: [RecordError(batchIndex={index}, \
                 message='{of_record}')]"
            ),
        ),
    };
    Refusal {
        error,
        message: Some(Str::from(message)),
        record: Some((index, Str::from(of_record))),
    }
}
