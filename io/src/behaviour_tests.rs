//! The contract of a `World` as checks that run in both, the simulated and the direct one.
//!
//! Each check works below a directory of its own, on any executor.

use crate::append::{AppendError, AppendFile, AppendOptions, SyncMethod, SyncMode};
use crate::mapping::Mapping;
use crate::simulated::Random;
use crate::storage::{BLOCK_BYTES, BlockBuffer, File, Preparation};
use crate::world::{OpenMode, OpenOptions, World};
use futures_util::FutureExt;
use std::io;
use std::path::Path;

/// Recognisable bytes of a stream: the value depends on the position.
pub(crate) fn pattern(position: u64, len: usize) -> Vec<u8> {
    let byte = |at: u64| (at.wrapping_mul(0x9e37_79b9) >> 13) as u8 | 1;
    (position..position + len as u64).map(byte).collect()
}

/// Reserves `bytes` of room, performing the jobs due.
pub(crate) async fn make_room<F: File>(
    file: &mut AppendFile<F>,
    bytes: u64,
) -> Result<(), AppendError> {
    while file.room() < bytes {
        if let Some(job) = file.take_write() {
            let result = job.perform().await;
            file.complete(result)?;
            continue;
        }
        file.reserve(bytes);
        let job = file
            .take_zero()
            .expect("room was asked for and nothing is in flight");
        let result = job.perform().await;
        file.complete(result)?;
    }
    Ok(())
}

pub(crate) async fn flush<F: File>(file: &mut AppendFile<F>) -> Result<(), AppendError> {
    if let Some(job) = file.take_write() {
        let result = job.perform().await;
        file.complete(result)?;
    }
    if let Some(job) = file.take_sync() {
        let result = job.perform().await;
        file.complete(result)?;
    }
    Ok(())
}

pub(crate) const KINDS: [(SyncMode, SyncMethod); 3] = [
    (SyncMode::None, SyncMethod::WriteThrough),
    (SyncMode::Data, SyncMethod::WriteThrough),
    (SyncMode::Data, SyncMethod::SyncAfterWrite),
];

/// Small buffers and chunks, so that every boundary is crossed often.
pub(crate) fn small(kind: (SyncMode, SyncMethod)) -> AppendOptions {
    AppendOptions {
        sync: kind.0,
        method: kind.1,
        zero_ahead_bytes_min: 8 << 10,
        zero_ahead_bytes_max: 64 << 10,
        buffer_bytes_min: 4 << 10,
        buffer_bytes_max: 16 << 10,
        pending_bytes_max: 48 << 10,
        ..AppendOptions::default()
    }
}

/// A mapped file begins as zeros, and readers of the file see what was stored.
pub(crate) async fn mappings_are_files<W: World>(world: &W, dir: &Path) {
    let path = dir.join("mapped");
    let mut mapping = world.create_mapping(&path, 3 * BLOCK_BYTES).await.unwrap();
    assert_eq!(mapping.len(), 3 * BLOCK_BYTES);
    let file = world.read_file(&path, 1 << 20).await.unwrap();
    assert_eq!(&file[..], &[0; 3 * BLOCK_BYTES][..]);
    let again = world.create_mapping(&path, BLOCK_BYTES).await;
    assert_eq!(again.err().unwrap().kind(), io::ErrorKind::AlreadyExists);
    mapping.prepare(100, 2 * BLOCK_BYTES).unwrap();
    mapping.store(BLOCK_BYTES - 3, b"stored");
    mapping.publish(8, 0x0102_0304_0506_0708);
    let last = mapping.len() - 8;
    mapping.publish(last, u64::MAX);
    let file = world.read_file(&path, 1 << 20).await.unwrap();
    assert_eq!(&file[BLOCK_BYTES - 3..BLOCK_BYTES + 3], b"stored");
    assert_eq!(&file[8..16], &[8, 7, 6, 5, 4, 3, 2, 1]);
    assert_eq!(&file[last..], &[0xff; 8]);
    drop(mapping);
    assert_eq!(world.read_file(&path, 1 << 20).await.unwrap(), file);
    assert_eq!(
        world.boot_id().await.unwrap(),
        world.boot_id().await.unwrap()
    );
    world.remove_file(&path).await.unwrap();
}

/// Appends of random sizes in random groups, with reopening, arrive byte for byte.
pub(crate) async fn append_arrives<W: World>(world: &W, dir: &Path, seed: u64) {
    let mut random = Random::new(seed);
    for (number, kind) in KINDS.into_iter().enumerate() {
        let path = dir.join(format!("append-{number}"));
        let mut file = AppendFile::open(world, &path, 0, small(kind))
            .await
            .unwrap();
        for _ in 0..60 {
            for _ in 0..random.below(5) {
                let len = match random.below(8) {
                    0 => random.below(40_000),
                    1 => BLOCK_BYTES as u64 * random.below(4),
                    _ => random.below(3_000),
                };
                make_room(&mut file, len).await.unwrap();
                let bytes = pattern(file.end(), len as usize);
                let (first, second) = bytes.split_at(random.index(bytes.len() + 1));
                assert_eq!(file.append(&[first, &[], second]).unwrap(), file.end());
            }
            flush(&mut file).await.unwrap();
            assert_eq!((file.written(), file.durable()), (file.end(), file.end()));
            match random.below(12) {
                0 => file.idle(),
                1 => {
                    // As after a crash: the file has bytes after the valid ones.
                    let valid_len = random.below(file.end() + 1);
                    drop(file);
                    file = AppendFile::open(world, &path, valid_len, small(kind))
                        .await
                        .unwrap();
                }
                2 => {
                    let end = file.end();
                    let sealed = file.seal().await.unwrap();
                    assert_eq!(sealed.len(), end);
                    drop(sealed);
                    file = AppendFile::open(world, &path, end, small(kind))
                        .await
                        .unwrap();
                }
                _ => {
                    let (at, len) = (random.below(file.end() + 1), random.below(9_000));
                    let len = len.min(file.end() - at) as usize;
                    let read = file.file().read_at(at, len).await.unwrap();
                    assert!(read == pattern(at, len), "seed {seed}: {len} bytes at {at}");
                }
            }
        }
        let end = file.end();
        drop(file.seal().await.unwrap());
        let whole = world.read_file(&path, usize::MAX).await.unwrap();
        assert_eq!(whole.len() as u64, end, "seed {seed}: exact length");
        assert!(whole == pattern(0, end as usize), "seed {seed}: content");
    }
}

/// The use that opens a resting file later sees the changes of the one that was faster.
pub(crate) async fn a_resting_file_may_grow_while_it_is_opened<W: World>(world: &W, dir: &Path) {
    let path = dir.join("resting");
    let content = pattern(0, 2 * BLOCK_BYTES);
    world.write_file_atomic(&path, &content).await.unwrap();
    let file = world.resting_file(&path, OpenMode::ReadWrite, content.len() as u64);
    let mut read = std::pin::pin!(file.read_at(10, 5_000));
    assert!(read.as_mut().now_or_never().is_none(), "it is being opened");
    let (position, len) = (content.len() as u64, BLOCK_BYTES as u64);
    let grown = file.prepare(position, len, Preparation::ZeroNow).await;
    grown.unwrap();
    assert_eq!(read.await.unwrap(), content[10..5_010]);
    assert_eq!(file.len(), position + len);
}

/// Reads at any position and length, also beyond the end and longer than a piece.
pub(crate) async fn reads_are_clamped<W: World>(world: &W, dir: &Path) {
    let path = dir.join("reads");
    let file = world
        .open_file(&path, OpenMode::ReadWriteCreate)
        .await
        .unwrap();
    assert!(file.is_empty() && file.read_at(0, 100).await.unwrap().is_empty());
    let len = 1_500_000_usize;
    let mut buffer = file.buffer(len);
    buffer.as_mut_slice().fill(0);
    buffer.as_mut_slice()[..len].copy_from_slice(&pattern(0, len));
    file.write_at(buffer, 0).await.unwrap();
    file.sync_data().await.unwrap();
    file.set_len(len as u64).await.unwrap();
    for (at, ask) in [
        (0, len),
        (0, len + 5_000),
        (1, 4_095),
        (4_095, 2),
        (len - 1, 1),
        (len - 1, 100),
        (len - 5_000, 100_000),
        (len, 1),
        (len + 1_000_000, 1),
        (700_001, 600_000),
        (12_345, 0),
    ] {
        let expected = ask.min(len.saturating_sub(at));
        let read = file.read_at(at as u64, ask).await.unwrap();
        assert_eq!(read.len(), expected, "{ask} bytes at {at}");
        assert!(read == pattern(at as u64, expected), "{ask} bytes at {at}");
    }
    file.close().await.unwrap();
    let file = world.open_file(&path, OpenMode::Read).await.unwrap();
    assert_eq!(file.len(), len as u64);
    assert_eq!(file.read_at(len as u64 - 3, 10).await.unwrap().len(), 3);
    let buffer = file.buffer(1);
    assert!(
        file.write_at(buffer, 0).await.is_err(),
        "opened for reading only"
    );
    file.close().await.unwrap();
}

/// Directory operations and whole files.
pub(crate) async fn directories_work<W: World>(world: &W, dir: &Path) {
    let kind = |error: io::Error| error.kind();
    let nested = dir.join("a/b/c");
    world.create_dir_all(&nested).await.unwrap();
    world.create_dir_all(&nested).await.unwrap();
    world
        .write_file_atomic(&nested.join("file"), b"one")
        .await
        .unwrap();
    world
        .write_file_atomic(&nested.join("file"), b"the second")
        .await
        .unwrap();
    let long = pattern(0, 70_000);
    world
        .write_file_atomic(&nested.join("long"), &long)
        .await
        .unwrap();
    assert!(world.read_file(&nested.join("long"), 70_000).await.unwrap() == long);
    let refused = world
        .read_file(&nested.join("long"), 69_999)
        .await
        .unwrap_err();
    assert_eq!(kind(refused), io::ErrorKind::FileTooLarge);
    assert_eq!(
        &world.read_file(&nested.join("file"), 100).await.unwrap()[..],
        b"the second"
    );
    let listed = world.list_dir(&nested).await.unwrap();
    let listed: Vec<_> = listed
        .iter()
        .map(|e| (e.name.to_str().unwrap(), e.is_dir, e.len))
        .collect();
    assert_eq!(listed, [("file", false, 10), ("long", false, 70_000)]);
    names_change(world, dir).await;
}

/// Renaming and removing the files of [`directories_work`].
async fn names_change<W: World>(world: &W, dir: &Path) {
    let kind = |error: io::Error| error.kind();
    world
        .rename(&dir.join("a/b"), &dir.join("a/moved"))
        .await
        .unwrap();
    let moved = dir.join("a/moved/c");
    assert_eq!(
        &world.read_file(&moved.join("file"), 100).await.unwrap()[..],
        b"the second"
    );
    world
        .rename(&moved.join("long"), &moved.join("file"))
        .await
        .unwrap();
    assert_eq!(
        world
            .read_file(&moved.join("file"), 100_000)
            .await
            .unwrap()
            .len(),
        70_000
    );
    world.remove_file(&moved.join("file")).await.unwrap();
    assert_eq!(
        kind(world.remove_file(&moved.join("file")).await.unwrap_err()),
        io::ErrorKind::NotFound
    );
    assert!(world.list_dir(&moved).await.unwrap().is_empty());
    let missing = world
        .open_file(&moved.join("none"), OpenMode::ReadWrite)
        .await
        .err()
        .unwrap();
    assert_eq!(kind(missing), io::ErrorKind::NotFound);
    let unsynced = OpenOptions::from(OpenMode::ReadWriteCreate).without_entry_sync();
    let file = world.open_file(&moved.join("new"), unsynced).await.unwrap();
    world.sync_dir(&moved).await.unwrap();
    file.close().await.unwrap();

    let entries = world.list_dir(dir).await.unwrap();
    assert!(
        entries
            .iter()
            .any(|entry| entry.name == "a" && entry.is_dir)
    );
    world.remove_dir_all(&dir.join("a")).await.unwrap();
    assert_eq!(
        kind(world.list_dir(&dir.join("a")).await.unwrap_err()),
        io::ErrorKind::NotFound
    );
    assert_eq!(
        kind(world.remove_dir_all(&dir.join("a")).await.unwrap_err()),
        io::ErrorKind::NotFound
    );
    assert!(world.free_bytes(dir).await.unwrap() > 0);
}

/// Many files, appended to and renamed in turns, each keep their own content.
pub(crate) async fn many_files_keep_what_is_theirs<W: World>(world: &W, dir: &Path) {
    let dir = dir.join("many");
    world.create_dir_all(&dir).await.unwrap();
    let mut files = Vec::new();
    for number in 0..12 {
        let path = dir.join(number.to_string());
        let kind = KINDS[number % KINDS.len()];
        files.push(
            AppendFile::open(world, &path, 0, small(kind))
                .await
                .unwrap(),
        );
    }
    for round in 0..6_u64 {
        for (number, file) in files.iter_mut().enumerate() {
            let bytes = pattern(file.end() + number as u64, 3_000);
            make_room(file, 3_000).await.unwrap();
            file.append(&[&bytes]).unwrap();
            flush(file).await.unwrap();
        }
        let moved = round as usize * 2;
        let to = dir.join(format!("{moved}.moved"));
        world
            .rename(&dir.join(moved.to_string()), &to)
            .await
            .unwrap();
        for (number, file) in files.iter().enumerate() {
            let end = file.end();
            let read = file.file().read_at(0, usize::MAX).await.unwrap();
            let expected: Vec<u8> = (0..end / 3_000)
                .flat_map(|part| pattern(part * 3_000 + number as u64, 3_000))
                .collect();
            assert_eq!(read[..end as usize], expected[..], "file {number}");
        }
    }
}
