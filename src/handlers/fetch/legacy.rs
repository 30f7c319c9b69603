//! What old versions of Fetch cannot be sent, and what they are sent instead.
//!
//! Runs on the connection's shard, in slices short enough for everybody else. Clients before Kafka
//! 0.11 get messages: the stored batches are converted one after the other and given back as they
//! are, so that a fetch holds little more than what it read and what it answers.

use std::ops::Range;

use chronik_io::World;
use chronik_protocol::record::legacy::{
    Converted, DownConversion, DownProgress, MessageError, MessageFormat,
};
use chronik_protocol::record::{BATCH_HEADER_BYTES, BatchHeader, Compression, STEP_BYTES};
use chronik_protocol::{ErrorCode, Records};
use chronik_shards::{Isolation, ReadPart, ReadResult};
use tracing::warn;

use crate::handlers::context::Context;
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
pub(super) struct Old {
    /// What it understands.
    pub(super) format: MessageFormat,
    /// What was read, in the order of the results.
    pub(super) parts: Vec<ReadPart>,
    /// As it was read.
    pub(super) isolation: Isolation,
    /// Bytes over all parts.
    pub(super) bytes_max: usize,
}

impl Old {
    /// Replaces the batches of all results by messages.
    ///
    /// A part whose batches hold nothing for such a reader (control batches; what compaction left)
    /// is read on behind them: its client knows no way to go there by itself.
    pub(super) async fn convert<W: World>(
        self,
        context: &Context<W>,
        results: Vec<ReadResult>,
    ) -> Vec<ReadResult> {
        let mut slice = Slice::begin(&context.world);
        let mut converted = Vec::with_capacity(results.len());
        let mut used = 0_usize;
        for (part, mut result) in self.parts.iter().zip(results) {
            let room = self.bytes_max.saturating_sub(used);
            if room == 0 {
                result.records = Records::default();
            }
            let mut part = part.clone();
            part.max_bytes = part.max_bytes.min(room);
            let result = self.one(context, &mut slice, part, result).await;
            used = used.saturating_add(result.records.len());
            converted.push(result);
        }
        converted
    }

    async fn one<W: World>(
        &self,
        context: &Context<W>,
        slice: &mut Slice,
        mut part: ReadPart,
        mut result: ReadResult,
    ) -> ReadResult {
        while result.error == ErrorCode::None && !result.records.is_empty() {
            let batches = std::mem::take(&mut result.records);
            let offset = part.fetch_offset;
            let conversion = DownConversion::new(batches, self.format, offset, part.max_bytes);
            let converted = match finish(&context.world, slice, conversion).await {
                Ok(converted) => converted,
                Err(error) => return ReadResult::failed(code(&part, &error)),
            };
            result.records = converted.records;
            let next = converted.next_offset.unwrap_or(offset);
            if !result.records.is_empty() || next <= offset || next >= result.high_watermark {
                break;
            }
            part.fetch_offset = next;
            let parts = vec![part.clone()];
            let read = context
                .router
                .read(self.isolation, self.bytes_max, parts, None);
            let mut again = read.await.collect().await.unwrap_or_default();
            result = match again.pop() {
                Some(again) => again,
                None => ReadResult::failed(ErrorCode::NotLeaderOrFollower),
            };
        }
        result
    }
}

async fn finish<W: World>(
    world: &W,
    slice: &mut Slice,
    mut conversion: DownConversion,
) -> Result<Converted, MessageError> {
    loop {
        match conversion.step(STEP_BYTES)? {
            DownProgress::More => slice.breathe(world).await,
            DownProgress::Done(converted) => return Ok(converted),
        }
    }
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

/// Goes from batch header to batch header, across the parts.
fn holds_zstd(records: &Records) -> bool {
    let mut header = [0_u8; BATCH_HEADER_BYTES];
    let mut filled = 0;
    let mut skip = 0;
    for part in records.parts() {
        let mut rest = &part[..];
        while !rest.is_empty() {
            if skip > 0 {
                let step = skip.min(rest.len());
                rest = rest.get(step..).unwrap_or_default();
                skip -= step;
                continue;
            }
            let step = (BATCH_HEADER_BYTES - filled).min(rest.len());
            let (taken, left) = rest.split_at(step);
            if let Some(place) = header.get_mut(filled..filled + step) {
                place.copy_from_slice(taken);
            }
            filled += step;
            rest = left;
            if filled == BATCH_HEADER_BYTES {
                // What is no batch is left to the client to refuse.
                let Ok(batch) = BatchHeader::peek(&header) else {
                    return false;
                };
                if batch.compression() == Compression::Zstd {
                    return true;
                }
                skip = batch.size_bytes().saturating_sub(BATCH_HEADER_BYTES);
                filled = 0;
            }
        }
    }
    false
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
