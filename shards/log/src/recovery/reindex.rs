//! Making a segment's indexes from its batches.
//!
//! Runs on the partition's shard, in slices: at start, or when a read finds an index that is
//! missing or wrong. Never changes the log itself.

use std::path::Path;

use chronik_io::{File, OpenMode, World};
use chronik_terms::topic_settings::TopicConfig;
use tracing::warn;

use crate::LogError;
use crate::directory::{FileKind, segment_path};
use crate::index::{IndexBuilder, NO_TIMESTAMP, TIME_ENTRY_BYTES, TimeIndex};
use crate::scan::{LogScan, ScanEnd, ScanStep};
use crate::segment::{SideFileSync, indexed, write_indexes};

/// The greatest timestamp of a sealed segment, −1 when it has none: the last entry of its time
/// index. `None` when the file is missing or cannot be one.
pub async fn max_timestamp<W: World>(
    world: &W,
    dir: &Path,
    base_offset: i64,
) -> Result<Option<i64>, LogError> {
    let path = segment_path(dir, base_offset, FileKind::TimeIndex);
    let file = match world.open_file(&path, OpenMode::Read).await {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(LogError::io("opening", &path)(error)),
    };
    let entry = TIME_ENTRY_BYTES as u64;
    if file.len() == 0 {
        return Ok(Some(NO_TIMESTAMP));
    }
    if !file.len().is_multiple_of(entry) {
        return Ok(None);
    }
    // Two, for one alone cannot be told from zeros that were never written over.
    let at = file.len().saturating_sub(2 * entry);
    let bytes = file.read_at(at, 2 * TIME_ENTRY_BYTES).await;
    let bytes = bytes.map_err(LogError::io("reading", &path))?;
    let times = TimeIndex::parse(base_offset, &bytes).ok();
    Ok(times.and_then(|times| times.last().map(|last| last.0)))
}

/// Builds both indexes of a sealed segment from its batches and writes their files. Returns
/// them, also where the files could not be written.
pub async fn rebuild_indexes<W: World>(
    world: &W,
    dir: &Path,
    base_offset: i64,
    config: &TopicConfig,
) -> Result<IndexBuilder, LogError> {
    let path = segment_path(dir, base_offset, FileKind::Log);
    let file = world
        .open_file(&path, OpenMode::Read)
        .await
        .map_err(LogError::io("opening", &path))?;
    let mut index = IndexBuilder::new(base_offset);
    let mut scan = LogScan::new(world, &file, base_offset, (0, file.len()), base_offset);
    loop {
        match scan.step().await.map_err(LogError::io("reading", &path))? {
            ScanStep::Batch {
                header, position, ..
            } => {
                index.append(&indexed(&header, position), config.index_interval_bytes);
            }
            ScanStep::End(ScanEnd::Exact) => break,
            ScanStep::End(end) => {
                warn!(
                    file = %path.display(), at = scan.position(), ?end,
                    "a sealed segment holds something else than batches; it is indexed up to there"
                );
                break;
            }
        }
    }
    index.finish();
    let (offsets, times) = (index.offsets.to_bytes(), index.times.to_bytes());
    if let Err(error) = write_indexes(
        world,
        dir,
        base_offset,
        (&offsets, &times),
        SideFileSync::Now,
    )
    .await
    {
        // A full disk must not stop a read or a start; who needs the files makes them again.
        warn!(file = %path.display(), %error, "the indexes were rebuilt but not written");
    }
    Ok(index)
}
