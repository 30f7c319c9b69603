//! What a producer's records must be before a shard sees them.
//!
//! Runs on the connection's shard, in slices short enough for everybody else. Order and codes
//! follow `ProduceRequest#validateRecords`, `UnifiedLog#analyzeAndValidateRecords` and
//! `LogValidator`. Never assigns an offset.

use chronik_io::World;
use chronik_protocol::record::{
    BATCH_HEADER_BYTES, BatchError, BatchHeader, CheckedBatch, Compression, LOG_OVERHEAD_BYTES,
    MAGIC_V2, RecordLimits, RecordsSummary, RecordsValidator, STEP_BYTES, TimestampType,
    ValidationProgress,
};
use chronik_protocol::{ErrorCode, Records};
use chronik_terms::topic_settings::{TimestampKind, TopicConfig};

use super::conversions::Conversions;
use super::messages;
use super::refusal::{LISTED_MEMORY_BYTES, Refusal, check_size, refusal};
use super::rules::{Rules, limits, target_codec};
use crate::handlers::context::{Context, LARGE_RECORD_BYTES};
use crate::handlers::slice::Slice;

/// From this version on batches may be compressed by zstd (KIP-110).
const ZSTD_VERSION: i16 = 7;
/// Bytes of records, decompressed, that a codec is given on the shard: gzip takes 90 µs for them.
const CODED_BYTES_HERE_MAX: usize = STEP_BYTES;
/// Bytes of a batch that is copied on the shard: some 50 µs, its checksum included.
const COPIED_BYTES_HERE_MAX: usize = 256 << 10;

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
    let limits = conversions.limits(rules.config(), now_ms);
    let refused = |error: BatchError, conversions: &mut Conversions<'_, W>| {
        let refusal = refusal(&error, rules, &limits, conversions.listing());
        conversions.charge(refusal.records.len() * LISTED_MEMORY_BYTES);
        refusal
    };
    let header = BatchHeader::peek(&bytes).map_err(|error| refused(error, conversions))?;
    check_header(&header, &bytes, rules)?;
    let batch = CheckedBatch::parse_first(bytes).map_err(|error| refused(error, conversions))?;
    // What follows is no batch: `check_header` has seen to that.
    let (batch, _) = batch;
    slice.breathe(world).await;
    let mut validator =
        RecordsValidator::new(&batch, limits).map_err(|error| refused(error, conversions))?;
    let summary = loop {
        match validator
            .step(STEP_BYTES)
            .map_err(|error| refused(error, conversions))?
        {
            ValidationProgress::More => slice.breathe(world).await,
            ValidationProgress::Done(summary) => break summary,
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
fn check_header(header: &BatchHeader, bytes: &[u8], rules: &Rules<'_>) -> Result<(), Refusal> {
    if rules.version < ZSTD_VERSION && header.compression() == Compression::Zstd {
        return Err(Refusal::of(ErrorCode::UnsupportedCompressionType));
    }
    match (header.is_transactional(), rules.transactional) {
        (false, _) => {}
        (true, false) => {
            return Err(Refusal::of(ErrorCode::TransactionalIdAuthorizationFailed));
        }
        // Nobody could begin a transaction here, so there is none to add records to.
        (true, true) => return Err(Refusal::of(ErrorCode::InvalidTxnState)),
    }
    check_rest(bytes.get(header.size_bytes()..).unwrap_or_default())?;
    check_size(rules, header.size_bytes())?;
    if header.base_offset != 0 {
        let message = format!("the base offset must be 0 but is {}", header.base_offset);
        return Err(Refusal::saying(ErrorCode::InvalidRecord, message));
    }
    Ok(())
}

/// What follows the batch. Bytes that cannot be another one are cut off, as by Kafka
/// (`ByteBufferLogInputStream#nextBatch`, `UnifiedLog#trimInvalidBytes`).
fn check_rest(rest: &[u8]) -> Result<(), Refusal> {
    /// Bytes of the shortest message of format 0 behind its length.
    const MESSAGE_BYTES_MIN: i32 = 14;
    const MAGIC: usize = 16;
    let Some([.., a, b, c, d]) = rest.first_chunk::<LOG_OVERHEAD_BYTES>() else {
        return Ok(());
    };
    let length = i32::from_be_bytes([*a, *b, *c, *d]);
    if length < MESSAGE_BYTES_MIN {
        let message = format!("behind the batch stands a length of {length}");
        return Err(Refusal::saying(ErrorCode::CorruptMessage, message));
    }
    let Some(magic) = rest.get(MAGIC).map(|byte| i8::from_be_bytes([*byte])) else {
        return Ok(());
    };
    if !(0..=MAGIC_V2).contains(&magic) {
        let message = format!("behind the batch stands the magic {magic}");
        return Err(Refusal::saying(ErrorCode::CorruptMessage, message));
    }
    let whole_bytes = usize::try_from(length).unwrap_or(usize::MAX);
    if rest.len() - LOG_OVERHEAD_BYTES < whole_bytes {
        return Ok(());
    }
    let message = "a partition of a request has exactly one record batch";
    Err(Refusal::saying(ErrorCode::InvalidRecord, message))
}

/// What the topic wants to be another in a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Rewrite {
    /// With its level.
    codec: Option<(Compression, Option<i32>)>,
    append_time_ms: Option<i64>,
    max_timestamp_ms: Option<i64>,
    /// Records that consumers could not read as they are.
    odd: bool,
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
        let misleads = batch.header.max_timestamp != summary.max_timestamp_ms
            || batch.header.timestamp_type() == TimestampType::LogAppendTime;
        Self {
            codec: (wanted != source).then_some((wanted, config.compression_level)),
            append_time_ms: by_append.then_some(now_ms),
            max_timestamp_ms: (misleads && !by_append).then_some(summary.max_timestamp_ms),
            odd: summary.odd,
        }
    }

    fn is_none(&self) -> bool {
        !self.is_deep() && self.append_time_ms.is_none() && self.max_timestamp_ms.is_none()
    }

    /// Whether the records themselves are written anew.
    fn is_deep(&self) -> bool {
        self.odd || self.codec.is_some()
    }

    /// Codecs know no slices: takes as long as the batch is large.
    fn apply(self, batch: CheckedBatch, limits: &RecordLimits) -> Result<CheckedBatch, BatchError> {
        let batch = match self.codec {
            _ if self.odd => {
                let same = (batch.header.compression(), None);
                let (codec, level) = self.codec.unwrap_or(same);
                batch.renumbered(codec, level, limits)?
            }
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
    check_size(rules, expected_bytes)?;
    conversions.room_for(expected_bytes).await?;
    let is_deep = rewrite.is_deep();
    let turn = match is_deep && plain_bytes > LARGE_RECORD_BYTES {
        true => Some(context.large_record.lock().await),
        false => None,
    };
    let here_max = match is_deep {
        true => CODED_BYTES_HERE_MAX,
        false => COPIED_BYTES_HERE_MAX,
    };
    let converted = match plain_bytes.max(batch.bytes.len()) <= here_max {
        true => rewrite.apply(batch, &limits),
        false => {
            let work = move || rewrite.apply(batch, &limits);
            let computed = match turn {
                Some(_) => context.world.compute_long(work).await,
                None => context.world.compute(work).await,
            };
            computed.map_err(|error| {
                Refusal::saying(ErrorCode::UnknownServerError, error.to_string())
            })?
        }
    };
    let converted =
        converted.map_err(|error| refusal(&error, rules, &limits, conversions.listing()))?;
    check_size(rules, converted.bytes.len())?;
    conversions.made(converted.bytes.len());
    Ok(converted)
}
