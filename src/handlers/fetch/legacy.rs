//! What old versions of Fetch cannot be sent.

use chronik_protocol::record::{BATCH_HEADER_BYTES, BatchHeader, Compression};
use chronik_protocol::{ErrorCode, Records};
use chronik_shards::ReadResult;

/// From this version on clients understand zstd (KIP-110).
pub(super) const ZSTD_VERSION: i16 = 10;

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
