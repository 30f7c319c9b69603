//! The contract of a world, on real files, and the direct world's own properties.

use crate::behaviour_tests as behaviour;
use crate::executor::{ExecutorOptions, ShardSeat, run};
use crate::storage::{BLOCK_BYTES, BlockBuffer, File, Preparation};
use crate::world::{OpenMode, OpenOptions, World};
use crate::{DirectWorld, Remote};
use futures_util::future::{join, join_all, join3, join5};
use std::cell::RefCell;
use std::future::Future;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// Runs `main` on one shard with a directory of its own.
fn on_shard<Run>(main: fn(DirectWorld, PathBuf) -> Run)
where
    Run: Future<Output = ()> + 'static,
{
    let files_max = ExecutorOptions::new(1).unwrap().descriptors.files_per_shard;
    on_shard_with(files_max, main);
}

/// As [`on_shard`], with `files_max` descriptors for files and the work on them.
fn on_shard_with<Run>(files_max: usize, main: fn(DirectWorld, PathBuf) -> Run)
where
    Run: Future<Output = ()> + 'static,
{
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().to_owned();
    let mut options = ExecutorOptions::new(1).unwrap();
    options.descriptors.files_per_shard = files_max;
    let running = run::<(), (), _, _>(
        options,
        move |ShardSeat { world, .. }: ShardSeat<(), ()>| {
            let path = path.clone();
            async move {
                main(world, path).await;
                Ok(())
            }
        },
    )
    .unwrap();
    let _: Remote<(), ()> = running.remote();
    running.join().unwrap();
}

async fn behaves(world: DirectWorld, dir: PathBuf) {
    behaviour::append_arrives(&world, &dir, 1).await;
    behaviour::reads_are_clamped(&world, &dir).await;
    behaviour::a_resting_file_may_grow_while_it_is_opened(&world, &dir).await;
    behaviour::directories_work(&world, &dir).await;
    behaviour::mappings_are_files(&world, &dir).await;
    behaviour::many_files_keep_what_is_theirs(&world, &dir).await;
}

#[test]
fn behaves_as_every_world() {
    on_shard(behaves);
}

/// The contract holds with two open files at a time.
#[test]
fn behaves_the_same_with_hardly_a_descriptor() {
    on_shard_with(5, behaves);
}

/// Open files of this process below `dir`.
fn open_below(dir: &Path) -> usize {
    let descriptors = std::fs::read_dir("/proc/self/fd").unwrap();
    let targets = descriptors
        .flatten()
        .filter_map(|it| std::fs::read_link(it.path()).ok());
    targets
        .filter(|target| target.starts_with(dir) && target != dir)
        .count()
}

/// All files stay usable while only some are open, also under new names.
#[test]
fn files_are_closed_and_opened_by_need() {
    on_shard_with(8, |world, dir| async move {
        let mut files = Vec::new();
        std::fs::create_dir(dir.join("a")).unwrap();
        for number in 0..30_u8 {
            let path = dir.join("a").join(number.to_string());
            let file = world
                .open_file(&path, OpenMode::ReadWriteCreate)
                .await
                .unwrap();
            let mut buffer = file.buffer(1);
            buffer.as_mut_slice().fill(number);
            file.write_at(buffer, 0).await.unwrap();
            files.push(file);
            assert!(open_below(&dir) <= 8, "{} files are open", open_below(&dir));
        }
        // A closed file is renamed and replaced, and its directory as well.
        world
            .rename(&dir.join("a/0"), &dir.join("a/zero"))
            .await
            .unwrap();
        std::fs::write(dir.join("a/0"), b"another").unwrap();
        world.rename(&dir.join("a"), &dir.join("b")).await.unwrap();
        std::fs::create_dir(dir.join("a")).unwrap();
        std::fs::write(dir.join("a/zero"), b"another").unwrap();
        let each = files.iter().zip(0..).map(async |(file, number): (_, u8)| {
            let mut buffer = file.buffer(1);
            buffer.as_mut_slice().fill(number);
            file.write_at(buffer, BLOCK_BYTES as u64).await.unwrap();
            file.sync_data().await.unwrap();
            assert_eq!(
                file.read_at(0, usize::MAX).await.unwrap(),
                vec![number; 2 * BLOCK_BYTES]
            );
        });
        // All at once: each waits for a permit.
        join_all(each).await;
        assert!(open_below(&dir) <= 8, "{} files are open", open_below(&dir));
        assert_eq!(
            std::fs::read(dir.join("b/zero")).unwrap(),
            vec![0; 2 * BLOCK_BYTES]
        );
        assert_eq!(std::fs::read(dir.join("b/0")).unwrap(), b"another");
        drop(files);
        for _ in 0..3 {
            world.pause().await; // They are closed with the next passes through the kernel.
        }
        assert_eq!(open_below(&dir), 0);
    });
}

/// Another file under the old name is never taken for the closed one.
#[test]
fn a_file_replaced_while_closed_is_not_mixed_up() {
    on_shard_with(4, |world, dir| async move {
        let (one, two) = (dir.join("one"), dir.join("two"));
        let first = world
            .open_file(&one, OpenMode::ReadWriteCreate)
            .await
            .unwrap();
        let second = world
            .open_file(&two, OpenMode::ReadWriteCreate)
            .await
            .unwrap();
        drop(second.read_at(0, 1).await.unwrap());
        // Behind the world's back.
        std::fs::write(dir.join("new"), b"another").unwrap();
        std::fs::rename(dir.join("new"), &one).unwrap();
        let mut buffer = first.buffer(1);
        buffer.as_mut_slice().fill(1);
        let error = first.write_at(buffer, 0).await.unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::InvalidData);
        assert_eq!(std::fs::read(&one).unwrap(), b"another");
        // Through it.
        world.remove_file(&two).await.unwrap();
        let third = world
            .open_file(&two, OpenMode::ReadWriteCreate)
            .await
            .unwrap();
        let error = second.sync_data().await.unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::NotFound);
        third.sync_data().await.unwrap();
    });
}

#[test]
fn zeroing_extends_by_zeros_and_keeps_the_rest() {
    on_shard(|world, dir| async move {
        for write_through in [false, true] {
            let path = dir.join(format!("zeros-{write_through}"));
            let options = OpenOptions {
                write_through,
                ..OpenMode::ReadWriteCreate.into()
            };
            let file = world.open_file(&path, options).await.unwrap();
            let mut buffer = file.buffer(8_192);
            buffer.as_mut_slice().fill(7);
            file.write_at(buffer, 0).await.unwrap();
            file.prepare(4_096, 3 << 20, Preparation::ZeroNow)
                .await
                .unwrap();
            assert_eq!(file.len(), 4_096 + (3 << 20));
            let read = file.read_at(0, usize::MAX).await.unwrap();
            assert!(read[..4_096].iter().all(|byte| *byte == 7));
            assert!(read[4_096..].iter().all(|byte| *byte == 0));
            assert_eq!(read.len() as u64, file.len());
            assert_eq!(std::fs::metadata(&path).unwrap().len(), file.len());
        }
    });
}

/// A file renamed while open stays the same file: its path is not used.
#[test]
fn an_open_file_outlives_its_name() {
    on_shard(|world, dir| async move {
        let (old, new) = (dir.join("old"), dir.join("new"));
        let file = world
            .open_file(&old, OpenMode::ReadWriteCreate)
            .await
            .unwrap();
        world.rename(&old, &new).await.unwrap();
        std::fs::write(&old, b"another file").unwrap();
        let mut buffer = file.buffer(1);
        buffer.as_mut_slice().fill(9);
        file.write_at(buffer, 0).await.unwrap();
        file.set_len(100).await.unwrap();
        file.prepare(4_096, 4_096, Preparation::ZeroNow)
            .await
            .unwrap();
        assert_eq!(file.read_at(0, 100).await.unwrap(), vec![9; 100]);
        assert_eq!(std::fs::read(&old).unwrap(), b"another file");
        assert_eq!(std::fs::metadata(&new).unwrap().len(), 8_192);
    });
}

/// A file cut from outside: fewer bytes, no panic, no invented ones.
#[test]
fn a_file_cut_from_outside_reads_short() {
    on_shard(|world, dir| async move {
        let path = dir.join("cut");
        std::fs::write(&path, vec![3; 1 << 20]).unwrap();
        let file = world.open_file(&path, OpenMode::Read).await.unwrap();
        let outside = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
        outside.set_len(600_000).unwrap();
        let read = file.read_at(10, 1 << 20).await.unwrap();
        assert_eq!(read, vec![3; 600_000 - 10]);
        outside.write_all_at(&[4], 0).unwrap();
    });
}

#[test]
fn random_numbers_differ_and_clocks_move() {
    on_shard(|world, _| async move {
        let drawn: std::collections::BTreeSet<u128> =
            (0..1_000).map(|_| world.random_u128()).collect();
        assert_eq!(drawn.len(), 1_000);
        assert_ne!(world.random_u64(), world.random_u64());
        let before_ns = world.monotonic_ns();
        world.sleep_until(before_ns + 2_000_000).await;
        assert!(world.monotonic_ns() >= before_ns + 2_000_000);
        world.sleep_until(before_ns).await;
        world.pause().await;
        assert!(world.now_ms() > 1_700_000_000_000);
    });
}

/// Long files are removed in steps, also deep in a directory, and work on other names overtakes them.
#[test]
fn long_files_are_removed_in_steps() {
    on_shard(|world, dir| async move {
        let long = 3 * super::removing::PIECE_BYTES + 5;
        let (one, below) = (dir.join("one"), dir.join("a/b"));
        std::fs::create_dir_all(&below).unwrap();
        let paths = [one.clone(), below.join("deep"), below.join("held")];
        for path in &paths {
            std::fs::File::create(path).unwrap().set_len(long).unwrap();
        }
        std::fs::write(below.join("short"), b"short").unwrap();
        let held = world.open_file(&paths[2], OpenMode::Read).await.unwrap();
        let first = RefCell::new(Vec::new());
        let removal = async {
            world.remove_file(&one).await.unwrap();
            first.borrow_mut().push("removed");
        };
        // Asked for later, done earlier: a removal has as many jobs as pieces.
        let others = async {
            let new = dir.join("new");
            let created = world.open_file(&new, OpenMode::ReadWriteCreate).await;
            created.unwrap();
            first.borrow_mut().push("created");
        };
        // On the same name: done after the removal.
        let again = async {
            let file = world
                .open_file(&one, OpenMode::ReadWriteCreate)
                .await
                .unwrap();
            assert_eq!(file.len(), 0);
        };
        join3(removal, others, again).await;
        assert!(first.borrow().contains(&"created"));
        world.remove_dir_all(&dir.join("a")).await.unwrap();
        assert!(!dir.join("a").exists());
        // A held file is not cut.
        assert_eq!(held.read_at(long - 5, 100).await.unwrap(), [0; 5][..]);
    });
}

/// Concurrent operations on one name happen in the order asked, on any thread.
#[test]
fn names_keep_their_order() {
    on_shard(|world, dir| async move {
        for round in 0..200 {
            let (name, moved) = (dir.join("name"), dir.join("moved"));
            let text = round.to_string();
            let first = join5(
                world.write_file_atomic(&name, text.as_bytes()),
                world.rename(&name, &moved),
                world.write_file_atomic(&name, b"next"),
                world.remove_file(&name),
                world.write_file_atomic(&name, b"last"),
            );
            let then = join(world.read_file(&moved, 100), world.remove_file(&moved));
            let ((a, b, c, d, e), (read, removed)) = join(first, then).await;
            let outcomes = [a, b, c, d, e, removed];
            assert!(outcomes.iter().all(Result::is_ok), "{outcomes:?}");
            assert_eq!(read.unwrap(), text.as_bytes());
            assert_eq!(std::fs::read(&name).unwrap(), b"last");
            assert!(!moved.exists());
        }
    });
}

/// A long computation does not delay short ones.
#[test]
fn short_computations_pass_long_ones() {
    on_shard(|world, _| async move {
        let (sender, receiver) = std::sync::mpsc::channel();
        let long = world.compute_long(move || receiver.recv().unwrap());
        let short = async {
            for number in 0..3 {
                assert_eq!(world.compute(move || number).await.unwrap(), number);
            }
            sender.send("freed").unwrap();
        };
        // The long one ends only after the short ones have.
        let (ended, ()) = join(long, short).await;
        assert_eq!(ended.unwrap(), "freed");
    });
}
