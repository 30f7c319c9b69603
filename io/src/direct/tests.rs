//! The behaviour every world must have, on real files, and what is special about them.

use crate::behaviour_tests as behaviour;
use crate::executor::{ExecutorOptions, ShardSeat, run};
use crate::storage::{BlockBuffer, File, Preparation};
use crate::world::{OpenMode, OpenOptions, World};
use crate::{DirectWorld, Remote};
use std::future::Future;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

/// Runs `main` on one shard with a directory of its own.
fn on_shard<Run>(main: fn(DirectWorld, PathBuf) -> Run)
where
    Run: Future<Output = ()> + 'static,
{
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().to_owned();
    let running = run::<(), (), _, _>(
        ExecutorOptions::new(1).unwrap(),
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

#[test]
fn behaves_as_every_world() {
    on_shard(|world, dir| async move {
        behaviour::append_arrives(&world, &dir, 1).await;
        behaviour::reads_are_clamped(&world, &dir).await;
        behaviour::a_resting_file_may_grow_while_it_is_opened(&world, &dir).await;
        behaviour::directories_work(&world, &dir).await;
        behaviour::mappings_are_files(&world, &dir).await;
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

/// A file that was renamed while open is still the same file: nothing goes by path.
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

/// Somebody else cuts a file under us: fewer bytes, no panic, no made-up ones.
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
