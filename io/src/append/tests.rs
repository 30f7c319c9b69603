//! Tests of `AppendFile` that need faults: failures stay, shortages pass, power cuts take only bytes that were
//! not durable. (Plain behaviour is in `behaviour_tests`, in both worlds.)

use super::{AppendError, AppendFile, AppendOptions, SyncMode};
use crate::behaviour_tests::{KINDS, flush, make_room, pattern, small};
use crate::simulated::{Fault, Operation, SimulatedFile, SimulatedWorld, Simulation};
use crate::storage::File;
use crate::world::{OpenMode, World};
use std::cell::Cell;
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

fn log() -> &'static Path {
    Path::new("/log")
}

async fn opened(world: &SimulatedWorld, options: AppendOptions) -> AppendFile<SimulatedFile> {
    let mut file = AppendFile::open(world, log(), 0, options).await.unwrap();
    make_room(&mut file, 20_000).await.unwrap();
    file.append(&[&pattern(0, 5_000)]).unwrap();
    flush(&mut file).await.unwrap();
    file
}

#[test]
fn a_failed_file_stays_failed() {
    for (number, kind) in KINDS.into_iter().enumerate() {
        for (operation, fault) in [
            (Operation::Write, Fault::Broken),
            (Operation::Write, Fault::Short),
            (Operation::Write, Fault::NoSpace),
            (Operation::Sync, Fault::Broken),
            (Operation::Zero, Fault::Broken),
        ] {
            let mut simulation = Simulation::new(number as u64);
            let world = simulation.world();
            let mut file = simulation.run(opened(&world, small(kind)));
            simulation.faults().script(operation, "log", 0, fault);
            simulation.run(async {
                let room = file.room();
                file.append(&[&pattern(5_000, 100)]).unwrap();
                let mut outcome = flush(&mut file).await;
                if outcome.is_ok() {
                    // Zeroing alone, or a sync where appending needs none.
                    outcome = make_room(&mut file, room + 1).await;
                }
                assert!(
                    matches!(outcome, Err(AppendError::Failed(_))),
                    "{operation:?} {outcome:?}"
                );
                for _ in 0..3 {
                    assert!(matches!(
                        file.append(&[b"more"]),
                        Err(AppendError::Failed(_))
                    ));
                    assert!(file.take_write().is_none() && file.take_sync().is_none());
                    assert!(file.take_zero().is_none() && !file.wants_zeroing());
                    assert!(file.failure().is_some());
                }
                assert!(file.written() <= 5_100 && file.durable() <= 5_100);
                assert!(matches!(file.seal().await, Err(AppendError::Failed(_))));
            });
        }
    }
}

#[test]
fn a_full_disk_is_not_a_failure() {
    let mut simulation = Simulation::new(1);
    let world = simulation.world();
    let mut file = simulation.run(opened(&world, small(KINDS[1])));
    simulation.faults().set_space(Some(file.file().len()));
    simulation.run(async {
        let room = file.room();
        let refused = make_room(&mut file, room + 1).await;
        assert!(
            matches!(refused, Err(AppendError::NoSpace(_))),
            "{refused:?}"
        );
        assert_eq!(file.room(), room);
        assert!(!file.wants_zeroing(), "not before somebody asks again");
        let rest = pattern(5_000, room as usize);
        file.append(&[&rest]).unwrap();
        flush(&mut file).await.unwrap();
        assert_eq!((file.room(), file.durable()), (0, 5_000 + room));
    });
    simulation.faults().set_space(None);
    simulation.run(async {
        make_room(&mut file, 10).await.unwrap();
        let end = file.append(&[&pattern(file.end(), 10)]).unwrap();
        let sealed = file.seal().await.unwrap();
        assert!(sealed.read_at(0, usize::MAX).await.unwrap() == pattern(0, end as usize));
    });
}

/// In a cut file the rest of the last block is a hole where the file system's blocks are small.
#[test]
fn space_is_found_from_the_exact_end_on_before_anything_is_appended() {
    for (number, kind) in KINDS.into_iter().enumerate() {
        for is_resting in [false, true] {
            let mut simulation = Simulation::new(10 + number as u64);
            simulation.faults().set_block_bytes(1_024);
            let world = simulation.world();
            let mut file = simulation.run(opened(&world, small(kind)));
            simulation.run(file.seal()).unwrap();
            drop(file);
            let used = 5_120;
            let mut file = simulation
                .run(async {
                    if is_resting {
                        let file = world.resting_file(log(), OpenMode::ReadWriteCreate, 5_000);
                        return Ok(AppendFile::resting(file, 5_000, small(kind)));
                    }
                    AppendFile::open(&world, log(), 5_000, small(kind)).await
                })
                .unwrap();
            // Enough for the zeros, and not for the hole before them.
            for free in [0, 2_048, 8 << 10, (8 << 10) + 2_048] {
                simulation.faults().set_space(Some(used + free));
                let refused = simulation.run(make_room(&mut file, 3_000));
                assert!(
                    matches!(refused, Err(AppendError::NoSpace(_))),
                    "{free}: {refused:?}"
                );
            }
            simulation
                .faults()
                .set_space(Some(used + (8 << 10) + 3_072));
            simulation.run(async {
                make_room(&mut file, 3_000).await.unwrap();
                file.append(&[&pattern(5_000, 3_000)]).unwrap();
                flush(&mut file).await.unwrap();
                let sealed = file.seal().await.unwrap();
                let bytes = sealed.read_at(0, usize::MAX).await.unwrap();
                assert!(bytes == pattern(0, 8_000));
            });
        }
    }
}

#[test]
fn a_file_at_rest_asks_for_nothing() {
    let mut simulation = Simulation::new(2);
    let world = simulation.world();
    let mut file = simulation
        .run(AppendFile::open(&world, log(), 0, AppendOptions::default()))
        .unwrap();
    assert!(!file.wants_zeroing() && file.take_zero().is_none() && file.room() == 0);
    simulation.run(make_room(&mut file, 1)).unwrap();
    assert!(
        !file.wants_zeroing(),
        "room is there and nothing has been appended"
    );
}

#[test]
fn what_arrives_during_a_write_forms_the_next_one() {
    let mut simulation = Simulation::new(3);
    let world = simulation.world();
    simulation.run(async {
        let mut file = AppendFile::open(&world, log(), 0, small(KINDS[1]))
            .await
            .unwrap();
        make_room(&mut file, 60_000).await.unwrap();
        file.append(&[&pattern(0, 10)]).unwrap();
        let first = file.take_write().unwrap();
        for at in (10..30_010).step_by(100) {
            file.append(&[&pattern(at, 100)]).unwrap();
        }
        assert!(file.take_write().is_none(), "one write at a time");
        assert!(file.room() < 30_000, "what waits is bounded");
        let done = file.complete(first.perform().await).unwrap();
        assert_eq!((done.written, done.durable), (10, 10));
        let second = file.take_write().unwrap();
        let done = file.complete(second.perform().await).unwrap();
        assert_eq!((done.written, done.durable), (30_010, 30_010));
        let read = file.file().read_at(0, 30_010).await.unwrap();
        assert!(read == pattern(0, 30_010));
    });
}

/// A writer that appends, writes, zeroes and syncs until it is stopped or fails, and notes the durable and the
/// written end.
async fn write_on(world: SimulatedWorld, start: u64, options: AppendOptions, ends: Rc<Ends>) {
    let Ok(mut file) = AppendFile::open(&world, log(), start, options).await else {
        return;
    };
    ends.durable.set(file.durable());
    ends.written.set(file.written());
    loop {
        let len = world.random_u64() % 6_000;
        if make_room(&mut file, len).await.is_err() {
            return;
        }
        let bytes = pattern(file.end(), len as usize);
        if file.append(&[&bytes]).is_err() || world.random_u64().is_multiple_of(3) {
            continue;
        }
        let Some(job) = file.take_write() else {
            continue;
        };
        let Ok(done) = file.complete(job.perform().await) else {
            return;
        };
        ends.written.set(done.written);
        ends.durable.set(done.durable);
        if options.sync == SyncMode::None && world.random_u64().is_multiple_of(4) {
            let Some(job) = file.take_sync() else {
                continue;
            };
            let Ok(done) = file.complete(job.perform().await) else {
                return;
            };
            ends.durable.set(done.durable);
        }
    }
}

#[derive(Default)]
struct Ends {
    written: Cell<u64>,
    durable: Cell<u64>,
}

/// Length of the stream in the file, before zeros, torn bytes or the file's end.
fn valid_len(simulation: &mut Simulation) -> u64 {
    let world = simulation.world();
    let whole = match simulation.run(world.read_file(log(), usize::MAX)) {
        Ok(whole) => whole,
        Err(_) => return 0,
    };
    let expected = pattern(0, whole.len());
    whole
        .iter()
        .zip(&expected)
        .take_while(|(is, should)| is == should)
        .count() as u64
}

/// Several runs on one disk, each ended by a power cut or a kill.
fn lives(seed: u64) {
    let mut simulation = Simulation::new(seed);
    let options = small(KINDS[(seed % 3) as usize]);
    let mut start = 0;
    for life in 0..3 {
        if seed.is_multiple_of(5) {
            simulation.faults().chance(Operation::Write, 20_000);
            simulation.faults().chance(Operation::Sync, 20_000);
        }
        let ends = Rc::new(Ends::default());
        let world = simulation.world();
        world.spawn(write_on(world.clone(), start, options, Rc::clone(&ends)));
        let run_us = world.random_u64() % 5_000;
        let power_cut = !world.random_u64().is_multiple_of(3);
        drop(world);
        simulation.advance(Duration::from_micros(run_us));
        let kept = if power_cut {
            ends.durable.get()
        } else {
            ends.written.get()
        };
        simulation = if power_cut {
            simulation.crash()
        } else {
            simulation.kill()
        };
        start = valid_len(&mut simulation);
        assert!(
            start >= kept,
            "seed {seed}, life {life}: {start} of {kept} bytes are left"
        );
    }
}

#[test]
fn power_cuts_take_nothing_that_was_durable() {
    for seed in 0..2_000 {
        lives(seed);
    }
}

/// Without this the test above could not fail.
#[test]
fn power_cuts_do_take_what_was_not_durable() {
    let lost = (0..50).filter(|seed| {
        let mut simulation = Simulation::new(*seed);
        let world = simulation.world();
        let written = simulation.run(async {
            let mut file = opened(&world, small(KINDS[0])).await;
            file.append(&[&pattern(5_000, 9_000)]).unwrap();
            let job = file.take_write().unwrap();
            file.complete(job.perform().await).unwrap().written
        });
        drop(world);
        let mut simulation = simulation.crash();
        let left = valid_len(&mut simulation);
        assert!(left >= 5_000);
        left < written
    });
    assert!(lost.count() > 25);
}
