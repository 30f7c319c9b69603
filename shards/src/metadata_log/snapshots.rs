//! Snapshots of the catalogue: `<end offset>-<epoch>.checkpoint` beside the metadata log.
//!
//! Owns their files and which of them counts. Runs on the designated shard, at start, at a clean stop and
//! when the log has grown enough.

use std::io;
use std::path::{Path, PathBuf};

use bytes::{Bytes, BytesMut};
use chronik_catalog::Image;
use chronik_catalog::batches::{
    FramingError, read_batch, read_control, snapshot_footer, snapshot_header, some_batch,
};
use chronik_catalog::replay::ReplayError;
use chronik_catalog::snapshot::{Sections, SnapshotId};
use chronik_catalog::versions::MetadataVersion;
use chronik_io::World;
use chronik_protocol::record::{CheckedBatch, ControlType};

use crate::limits::METADATA_SNAPSHOT_BYTES_MAX;

/// What went wrong with a snapshot.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// The file could not be read or written.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// Its batches are not sound.
    #[error(transparent)]
    Framing(#[from] FramingError),
    /// Its records contradict each other.
    #[error(transparent)]
    Replay(#[from] ReplayError),
    /// It has no header or no footer: a write that did not end.
    #[error("the snapshot has no {0}")]
    Missing(&'static str),
}

/// The snapshots of a directory, the newest first.
pub(crate) async fn list<W: World>(world: &W, directory: &Path) -> io::Result<Vec<SnapshotId>> {
    let entries = match world.list_dir(directory).await {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut found: Vec<SnapshotId> = entries
        .iter()
        .filter(|entry| !entry.is_dir)
        .filter_map(|entry| SnapshotId::parse(entry.name.to_str()?))
        .collect();
    found.sort_by(|one, other| other.cmp(one));
    Ok(found)
}

/// Loads the newest snapshot that can be read into `image`; says which. One that cannot be read is
/// passed over with a warning: the log may still hold what an older one needs.
pub(crate) async fn load_newest<W: World>(
    world: &W,
    directory: &Path,
    image: &mut Image,
) -> io::Result<Option<SnapshotId>> {
    for id in list(world, directory).await? {
        let path = directory.join(id.file_name());
        let mut candidate = image.clone();
        match load(world, &path, &mut candidate).await {
            Ok(()) => {
                candidate.offset = id.end_offset.saturating_sub(1);
                candidate.epoch = id.epoch;
                *image = candidate;
                return Ok(Some(id));
            }
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "metadata snapshot passed over");
            }
        }
    }
    Ok(None)
}

async fn load<W: World>(world: &W, path: &Path, image: &mut Image) -> Result<(), SnapshotError> {
    let mut rest: Bytes = world.read_file(path, METADATA_SNAPSHOT_BYTES_MAX).await?;
    let (mut began, mut ended) = (false, false);
    while !rest.is_empty() {
        let (batch, after) = CheckedBatch::parse_first(rest).map_err(FramingError::from)?;
        rest = after;
        for control in read_control(&batch)? {
            match control.control_type {
                ControlType::SnapshotHeader => {
                    began = true;
                    image.timestamp_ms = header_timestamp(&control.value);
                }
                ControlType::SnapshotFooter => ended = true,
                _ => image.apply_control(&batch, &control)?,
            }
        }
        for (_, record) in read_batch(&batch)? {
            image.apply(&record)?;
        }
        world.pause().await;
    }
    match (began, ended) {
        (false, _) => Err(SnapshotError::Missing("header")),
        (_, false) => Err(SnapshotError::Missing("footer")),
        _ => Ok(()),
    }
}

/// `SnapshotHeaderRecord` v0: int16 version, int64 timestamp.
fn header_timestamp(value: &[u8]) -> i64 {
    value
        .get(2..10)
        .and_then(|bytes| bytes.try_into().ok())
        .map_or(0, i64::from_be_bytes)
}

/// Writes a snapshot of `image`; durable when this returns. Older ones stay.
pub(crate) async fn write<W: World>(
    world: &W,
    directory: &Path,
    image: &Image,
) -> Result<SnapshotId, SnapshotError> {
    let id = SnapshotId {
        end_offset: image.offset.saturating_add(1),
        epoch: image.epoch,
    };
    let now_ms = world.now_ms();
    let mut content = BytesMut::new();
    let header = snapshot_header(&image.quorum, id.epoch, image.timestamp_ms, now_ms)?;
    content.extend_from_slice(&header.bytes);
    let mut offset = header.header.next_offset();
    let version = MetadataVersion::of(&image.features);
    for records in Sections::new(image) {
        let mut left = &records[..];
        while !left.is_empty() {
            let (batch, taken) = some_batch(version, left, (offset, id.epoch), now_ms)?;
            content.extend_from_slice(&batch.bytes);
            offset = batch.header.next_offset();
            left = left.get(taken..).unwrap_or_default();
            world.pause().await;
        }
    }
    content.extend_from_slice(&snapshot_footer(offset, id.epoch, now_ms)?.bytes);
    world
        .write_file_atomic(&directory.join(id.file_name()), &content)
        .await?;
    Ok(id)
}

/// Removes every snapshot older than `kept`.
pub(crate) async fn remove_older<W: World>(
    world: &W,
    directory: &Path,
    kept: SnapshotId,
) -> io::Result<()> {
    for id in list(world, directory).await? {
        if id < kept {
            let path: PathBuf = directory.join(id.file_name());
            world.remove_file(&path).await?;
        }
    }
    Ok(())
}
