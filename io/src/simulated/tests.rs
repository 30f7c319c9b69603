//! Tests of the simulation itself, and the contract of a world, on it.

use super::{Random, Simulation, pipe};
use crate::behaviour_tests as behaviour;
use crate::mapping::Mapping;
use crate::net::Stream;
use crate::world::{OpenMode, OpenOptions, World};
use bytes::{Bytes, BytesMut};
use std::cell::RefCell;
use std::io;
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

#[test]
fn behaves_as_every_world() {
    for seed in 0..8 {
        let mut simulation = Simulation::new(seed);
        let world = simulation.world();
        simulation.run(async {
            let dir = Path::new("/data");
            world.create_dir_all(dir).await.unwrap();
            behaviour::append_arrives(&world, dir, seed).await;
            behaviour::reads_are_clamped(&world, dir).await;
            behaviour::a_resting_file_may_grow_while_it_is_opened(&world, dir).await;
            behaviour::directories_work(&world, dir).await;
            behaviour::mappings_are_files(&world, dir).await;
            behaviour::many_files_keep_what_is_theirs(&world, dir).await;
        });
    }
}

/// A kill keeps what was stored in a mapping; after a power cut each sector is in one of its versions.
#[test]
fn mappings_outlive_the_process_and_not_the_power() {
    let path = Path::new("/mapped");
    let (mut kept, mut lost) = (0, 0);
    for seed in 0..60 {
        let mut simulation = Simulation::new(seed);
        let world = simulation.world();
        let mut mapping = simulation.run(world.create_mapping(path, 8192)).unwrap();
        let boot = simulation.run(world.boot_id()).unwrap();
        mapping.store(510, b"abcd");
        mapping.store(511, b"X");
        let mut simulation = simulation.kill();
        let world = simulation.world();
        assert_eq!(simulation.run(world.boot_id()).unwrap(), boot);
        let file = simulation.run(world.read_file(path, 8192)).unwrap();
        assert_eq!(&file[510..514], b"aXcd");
        let mut simulation = simulation.crash();
        let world = simulation.world();
        assert_ne!(simulation.run(world.boot_id()).unwrap(), boot);
        let file = simulation.run(world.read_file(path, 8192)).unwrap();
        assert!([&b"\0\0"[..], b"ab", b"aX"].contains(&&file[510..512]));
        assert!([&b"\0\0"[..], b"cd"].contains(&&file[512..514]));
        kept += usize::from(file[510..514] == *b"aXcd");
        lost += usize::from(file[510..514] == [0; 4]);
    }
    assert!(kept > 0 && lost > 0, "{kept} kept, {lost} lost");
}

/// The trace of a run: order of tasks, times and random numbers.
fn trace(seed: u64) -> Vec<(u64, u64, u64)> {
    let mut simulation = Simulation::new(seed);
    let notes = Rc::new(RefCell::new(Vec::new()));
    for task in 0..8 {
        let (world, notes) = (simulation.world(), Rc::clone(&notes));
        simulation.world().spawn(async move {
            for _ in 0..20 {
                world
                    .sleep_for(Duration::from_nanos(world.random_u64() % 1_000))
                    .await;
                let path = format!("/{task}");
                world
                    .write_file_atomic(Path::new(&path), b"content")
                    .await
                    .unwrap();
                notes
                    .borrow_mut()
                    .push((task, world.monotonic_ns(), world.random_u64()));
            }
        });
    }
    simulation.advance(Duration::from_secs(10));
    notes.take()
}

#[test]
fn the_same_seed_gives_the_same_run() {
    assert_eq!(trace(7).len(), 160);
    assert_eq!(trace(7), trace(7));
    assert_ne!(trace(7), trace(8));
}

#[test]
fn time_moves_only_when_nothing_runs() {
    let mut simulation = Simulation::new(1);
    let world = simulation.world();
    let (start_ms, start_ns) = (world.now_ms(), world.monotonic_ns());
    simulation.run(world.sleep_for(Duration::from_secs(3_600)));
    assert_eq!(world.monotonic_ns() - start_ns, 3_600_000_000_000);
    assert_eq!(world.now_ms() - start_ms, 3_600_000);
    simulation.run_until_idle();
    assert_eq!(world.monotonic_ns() - start_ns, 3_600_000_000_000);
}

#[test]
fn names_are_durable_when_the_call_returns() {
    for seed in 0..200 {
        let mut simulation = Simulation::new(seed);
        let world = simulation.world();
        let unsynced = OpenOptions::from(OpenMode::ReadWriteCreate).without_entry_sync();
        simulation.run(async {
            world.create_dir_all(Path::new("/a/b")).await.unwrap();
            world
                .write_file_atomic(Path::new("/a/b/one"), b"1")
                .await
                .unwrap();
            world
                .open_file(Path::new("/a/b/two"), OpenMode::ReadWriteCreate)
                .await
                .unwrap();
            world
                .rename(Path::new("/a/b/one"), Path::new("/a/three"))
                .await
                .unwrap();
            world.remove_file(Path::new("/a/b/two")).await.unwrap();
            world
                .open_file(Path::new("/a/maybe"), unsynced)
                .await
                .unwrap();
        });
        drop(world);
        let mut simulation = simulation.crash();
        let world = simulation.world();
        simulation.run(async {
            assert!(world.list_dir(Path::new("/a/b")).await.unwrap().is_empty());
            let kept = world.read_file(Path::new("/a/three"), 10).await.unwrap();
            assert_eq!(&kept[..], b"1");
        });
    }
}

#[test]
fn an_atomic_file_is_old_or_new() {
    let mut seen = [0; 2];
    for seed in 0..300 {
        let mut simulation = Simulation::new(seed);
        let world = simulation.world();
        let path = Path::new("/file");
        simulation
            .run(world.write_file_atomic(path, &[1; 3_000]))
            .unwrap();
        let writer = world.clone();
        world.spawn(async move {
            writer.write_file_atomic(path, &[2; 5_000]).await.unwrap();
        });
        simulation.advance(Duration::from_micros(world.random_u64() % 1_500));
        drop(world);
        let mut simulation = simulation.crash();
        let world = simulation.world();
        let read = simulation.run(world.read_file(path, 10_000)).unwrap();
        let old = read[..] == [1; 3_000];
        assert!(
            old || read[..] == [2; 5_000],
            "seed {seed}: {} bytes",
            read.len()
        );
        seen[usize::from(old)] += 1;
    }
    assert!(seen[0] > 10 && seen[1] > 10, "{seen:?}");
}

#[test]
fn a_pipe_keeps_every_byte_in_order() {
    for seed in 0..50 {
        let mut simulation = Simulation::new(seed);
        let world = simulation.world();
        let (client, server) = pipe(&world);
        assert_eq!(
            (client.peer(), client.local()),
            (server.local(), server.peer())
        );
        let sent: Vec<Bytes> = (0..40)
            .map(|n| Bytes::from(behaviour::pattern(n * 9_000, 9_000)))
            .collect();
        world.spawn(async move {
            client.write_all(sent).await.unwrap();
            client.shutdown().await.unwrap();
        });
        let mut received = BytesMut::new();
        simulation.run(async { while server.read_into(&mut received).await.unwrap() > 0 {} });
        assert!(received == behaviour::pattern(0, 360_000), "seed {seed}");
    }
}

#[test]
fn a_reset_reaches_both_ends() {
    let mut simulation = Simulation::new(5);
    let world = simulation.world();
    let (client, server) = pipe(&world);
    let resetter = world.clone();
    world.spawn(async move {
        resetter.sleep_for(Duration::from_millis(1)).await;
        client.reset();
        let refused = client
            .write_all(vec![Bytes::from_static(b"x")])
            .await
            .unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::ConnectionReset);
    });
    let error = simulation
        .run(server.read_into(&mut BytesMut::new()))
        .unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
    simulation.run_until_idle();
}

#[test]
#[should_panic(expected = "seed 9: waits for ever")]
fn a_future_that_cannot_end_is_found() {
    Simulation::new(9).run(std::future::pending::<()>());
}

#[test]
fn random_numbers_stay_in_their_bounds() {
    let mut random = Random::new(1);
    assert!((0..1_000).all(|bound| random.below(bound) < bound.max(1)));
    assert!(!random.chance(0) && random.chance(1_000_000));
}
