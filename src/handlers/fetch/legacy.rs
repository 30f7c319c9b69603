//! What old versions of Fetch cannot be sent, and what they are sent instead.
//!
//! Runs on the connection's shard, in slices short enough for everybody else. Clients before Kafka
//! 0.11 get messages: the stored batches are converted one after the other and given back as they
//! are, so that a fetch holds little more than what it read and what it answers.

use std::ops::Range;
use std::rc::Rc;

use chronik_io::World;
use chronik_protocol::record::Compression;
use chronik_protocol::record::legacy::{Converted, DownConversion, MessageError, MessageFormat};
use chronik_protocol::{ErrorCode, Records};
use chronik_terms::{Isolation, ReadPart, ReadResult};
use tracing::warn;

use super::read::{self, Asking, Reading};
use crate::handlers::context::Context;
use crate::handlers::conversion;
use crate::handlers::slice::Slice;

/// The versions that take batches but no zstd (KIP-110).
pub(super) const WITHOUT_ZSTD: Range<i16> = 4..10;

/// The format that clients of `version` read; `None` when batches are sent as they are.
pub(super) fn message_format(version: i16) -> Option<MessageFormat> {
    match version {
        ..2 => Some(MessageFormat::V0),
        2 | 3 => Some(MessageFormat::V1),
        _ => None,
    }
}

/// What an old client reads, and how.
///
/// Batches may hold nothing for it: control batches, and what compaction left of others. Such a client
/// knows no way behind them by itself, so they are passed over here.
pub(super) struct Old {
    /// What it understands.
    pub(super) format: MessageFormat,
    /// What is read; moves forward where batches are passed over.
    pub(super) reading: Reading,
}

impl Old {
    /// Replaces the batches of all results by messages. When all there is was passed over, what is left
    /// of the wait goes on behind it.
    pub(super) async fn finish<W: World>(
        mut self,
        context: &Rc<Context<W>>,
        mut results: Vec<ReadResult>,
    ) -> Vec<ReadResult> {
        loop {
            let moved;
            (results, moved) = self.convert(context, results).await;
            let answerable =
                |result: &ReadResult| result.error != ErrorCode::None || !result.records.is_empty();
            let waits = self.reading.waits_at(context.world.monotonic_ns());
            if !moved || !waits || results.iter().any(answerable) {
                return results;
            }
            let sent = read::begin(context, self.reading.clone()).await;
            results = read::finish(context, sent).await;
        }
    }

    /// The messages, and whether anything was passed over.
    async fn convert<W: World>(
        &mut self,
        context: &Context<W>,
        results: Vec<ReadResult>,
    ) -> (Vec<ReadResult>, bool) {
        let mut slice = Slice::begin(&context.world);
        let mut converted = Vec::with_capacity(results.len());
        let (mut used, mut moved) = (0_usize, false);
        let Self { format, reading } = self;
        let (isolation, bytes_max) = (reading.isolation, reading.max_bytes);
        for (part, mut result) in reading.parts.iter_mut().zip(results) {
            let room = bytes_max.saturating_sub(used);
            if room == 0 {
                result.records = Records::default();
            }
            let from = part.fetch_offset;
            while result.error == ErrorCode::None && !result.records.is_empty() {
                let batches = std::mem::take(&mut result.records);
                let (bytes_in, max) = (batches.len(), part.max_bytes.min(room));
                let work = DownConversion::new(batches, *format, part.fetch_offset, max);
                let run = conversion::run(context, &mut slice, work, bytes_in).await;
                let Ok(converted) = run else {
                    result = ReadResult::failed(ErrorCode::UnknownServerError);
                    break;
                };
                match converted {
                    Err(error) => result = ReadResult::failed(code(part, &error)),
                    Ok(messages) if !messages.records.is_empty() => {
                        result.records = messages.records;
                        break;
                    }
                    Ok(Converted { next_offset, .. }) => {
                        let next = next_offset.unwrap_or(part.fetch_offset);
                        if next <= part.fetch_offset {
                            break;
                        }
                        part.fetch_offset = next;
                        if next >= result.high_watermark {
                            break;
                        }
                        result = read_one(context, isolation, bytes_max, part).await;
                    }
                }
            }
            moved |= part.fetch_offset != from;
            used = used.saturating_add(result.records.len());
            converted.push(result);
        }
        (converted, moved)
    }
}

async fn read_one<W: World>(
    context: &Context<W>,
    isolation: Isolation,
    bytes_max: usize,
    part: &ReadPart,
) -> ReadResult {
    let parts = vec![part.clone()];
    let asking = Asking::default();
    let how = (None, asking.reader());
    let read = context.router.read(isolation, bytes_max, parts, how).await;
    let mut results = read.collect().await.unwrap_or_default();
    results
        .pop()
        .unwrap_or_else(|| ReadResult::failed(ErrorCode::NotLeaderOrFollower))
}

fn code(part: &ReadPart, error: &MessageError) -> ErrorCode {
    if let MessageError::Codec(_) = error {
        return ErrorCode::UnsupportedCompressionType;
    }
    let ReadPart {
        partition,
        fetch_offset,
        ..
    } = part;
    warn!(?partition, fetch_offset, %error, "a stored batch cannot be converted for an old client");
    ErrorCode::CorruptMessage
}

/// Replaces records that hold a zstd batch by UNSUPPORTED_COMPRESSION_TYPE.
pub(super) fn refuse_zstd(result: &mut ReadResult) {
    if holds_zstd(&result.records) {
        result.records = Records::default();
        result.error = ErrorCode::UnsupportedCompressionType;
    }
}

/// What is no batch is left to the client to refuse.
fn holds_zstd(records: &Records) -> bool {
    let mut headers = records.batch_headers();
    headers.any(|batch| batch.compression() == Compression::Zstd)
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use chronik_protocol::record::{BatchBuilder, NewRecord};

    use super::*;

    fn batch(compression: Compression) -> Bytes {
        let mut builder = BatchBuilder::new(0).compression(compression);
        let record = NewRecord {
            value: Some(b"some value"),
            ..NewRecord::default()
        };
        builder.push(&record).expect("small");
        builder.build().expect("small").bytes
    }

    #[test]
    fn a_zstd_batch_is_found_wherever_the_parts_are_cut() {
        let (plain, zstd) = (batch(Compression::Lz4), batch(Compression::Zstd));
        let both = [&plain[..], &plain[..], &zstd[..]].concat();
        for cut in 0..both.len() {
            let parts = [
                Bytes::copy_from_slice(&both[..cut]),
                Bytes::copy_from_slice(&both[cut..]),
            ];
            assert!(holds_zstd(&parts.into_iter().collect()), "cut at {cut}");
        }
        assert!(!holds_zstd(&[plain.clone(), plain].into_iter().collect()));
        assert!(!holds_zstd(&Records::default()));
    }
}
