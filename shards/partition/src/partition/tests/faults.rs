//! Full disks, failed writes and failed syncs.

use std::path::Path;
use std::time::Duration;

use chronik_io::World;
use chronik_io::simulated::{Fault, Operation, Simulation};
use chronik_log::LogError;
use chronik_log::recovery::RecoveryHint;
use chronik_protocol::ErrorCode;
use chronik_terms::Acks;
use chronik_terms::topic_settings::Durability;

use super::rig::{Rig, batch, clean, produced_batch, small_config};

const DIR: &str = "/data/orders-0";

#[test]
fn a_full_disk_refuses_appends_and_takes_them_again_when_space_returns() {
    for durability in [Durability::Disk, Durability::Process] {
        let mut simulation = Simulation::new(1);
        let world = simulation.world();
        let config = small_config(durability);
        let hint = RecoveryHint::default();
        let opened = Rig::open(&world, Path::new(DIR), &config, hint, 0);
        let (rig, _) = simulation.run(opened).expect("opens");
        let small = batch(&[&[7; 700]]);
        simulation.run(rig.must_append(&small));
        simulation.faults().set_space(Some(96 << 10));
        let mut appended = 1;
        let refused = loop {
            let result = simulation.run(rig.append(&small, Acks::All));
            match result.error {
                ErrorCode::None => appended += 1,
                _ => break result,
            }
            assert!(appended < 1000, "the disk never fills");
        };
        assert_eq!(refused.error, ErrorCode::KafkaStorageError);
        let message = refused.message.expect("says why").to_string();
        assert!(message.contains("full"), "{message}");
        assert!(!rig.failed(), "a full disk is no failure of the log");
        let read = simulation.run(rig.read_all(0));
        assert_eq!(read.len(), appended);
        let again = simulation.run(rig.append(&small, Acks::Leader));
        assert_eq!(again.error, ErrorCode::KafkaStorageError);
        simulation.faults().set_space(None);
        let offset = simulation.run(rig.must_append(&small));
        assert_eq!(offset, appended as i64, "refused appends took no offset");
        let report = simulation.run(rig.close()).expect("closes");
        let opened = Rig::open(&world, Path::new(DIR), &config, clean(&report), 1);
        let (rig, report) = simulation.run(opened).expect("opens");
        assert!(report.clean);
        assert_eq!(simulation.run(rig.read_all(0)).len(), appended + 1);
    }
}

/// Everything under way is refused, what is below the high watermark can be read, and only a
/// restart brings the log back.
fn fails_for_good(operation: Operation, fault: Fault, durability: Durability) {
    let mut simulation = Simulation::new(7);
    let world = simulation.world();
    let config = small_config(durability);
    let hint = RecoveryHint::default();
    let (rig, _) = simulation
        .run(Rig::open(&world, Path::new(DIR), &config, hint, 0))
        .expect("opens");
    for sequence in 0..3 {
        simulation.run(rig.must_append(&produced_batch((5, 0, sequence), &[b"kept"])));
    }
    simulation.run(rig.quiet());
    simulation.faults().script(operation, ".log", 0, fault);
    let tags: Vec<u64> = (3..6)
        .map(|sequence| rig.send(&produced_batch((5, 0, sequence), &[&[9; 600]]), Acks::All))
        .collect();
    let written = rig.send(&produced_batch((6, 0, 0), &[b"leader"]), Acks::Leader);
    // A repetition of a batch under way must not be answered from memory.
    let repeated = rig.send(&produced_batch((5, 0, 3), &[&[9; 600]]), Acks::All);
    assert!(rig.result(repeated).is_none());
    simulation.run_until_idle();
    for tag in tags.into_iter().chain([written, repeated]) {
        let result = rig.result(tag).expect("answered");
        assert_eq!(result.error, ErrorCode::KafkaStorageError);
    }
    assert!(rig.failed());
    let later = simulation.run(rig.append(&produced_batch((5, 0, 3), &[&[9; 600]]), Acks::All));
    assert_eq!(later.error, ErrorCode::KafkaStorageError);
    let old = simulation.run(rig.append(&produced_batch((5, 0, 0), &[b"kept"]), Acks::All));
    assert_eq!(
        old.error,
        ErrorCode::KafkaStorageError,
        "also repetitions of what is safe"
    );
    assert_eq!(simulation.run(rig.read_all(0)).len(), 3);
    let closed = simulation.run(rig.close());
    assert!(
        matches!(closed, Err(LogError::Failed { .. })),
        "it must not pass for clean"
    );
    let mut simulation = simulation.crash();
    let world = simulation.world();
    let opened = Rig::open(&world, Path::new(DIR), &config, RecoveryHint::default(), 1);
    let (rig, report) = simulation.run(opened).expect("opens");
    assert!(!report.clean);
    if durability == Durability::Disk {
        assert!(report.log_end >= 3, "what was acknowledged is there");
    }
    let next = simulation.run(rig.append(&produced_batch((8, 0, 0), &[b"again"]), Acks::All));
    assert_eq!(next.error, ErrorCode::None);
}

#[test]
fn a_failed_write_takes_the_log_offline_until_restart() {
    fails_for_good(Operation::Write, Fault::Broken, Durability::Disk);
    fails_for_good(Operation::Write, Fault::Short, Durability::Disk);
}

/// What was acknowledged before the write behind it failed is in the ring: the log goes offline, and
/// the next start of the process finds everything.
#[test]
fn a_failed_write_behind_loses_nothing_that_was_acknowledged() {
    let mut simulation = Simulation::new(8);
    let world = simulation.world();
    let config = small_config(Durability::Process);
    let hint = RecoveryHint::default();
    let opened = Rig::open(&world, Path::new(DIR), &config, hint, 0);
    let (rig, _) = simulation.run(opened).expect("opens");
    simulation
        .faults()
        .script(Operation::Write, ".log", 0, Fault::Broken);
    for sequence in 0..4 {
        let batch = produced_batch((5, 0, sequence), &[&[9; 600]]);
        assert_eq!(simulation.run(rig.must_append(&batch)), i64::from(sequence));
    }
    assert_eq!(simulation.run(rig.read_all(0)).len(), 4, "and consumed");
    simulation.advance(Duration::from_millis(100));
    assert!(rig.failed());
    let later = simulation.run(rig.append(&produced_batch((5, 0, 4), &[b"late"]), Acks::All));
    assert_eq!(later.error, ErrorCode::KafkaStorageError);
    let closed = simulation.run(rig.close());
    assert!(matches!(closed, Err(LogError::Failed { .. })));
    let mut simulation = simulation.kill();
    let world = simulation.world();
    let opened = Rig::open(&world, Path::new(DIR), &config, hint, 1);
    let (rig, report) = simulation.run(opened).expect("opens");
    assert!(
        report.put_back_batches > 0 && report.log_end == 4,
        "{report:?}"
    );
    let repeated = simulation.run(rig.append(&produced_batch((5, 0, 3), &[&[9; 600]]), Acks::All));
    assert_eq!((repeated.error, repeated.base_offset), (ErrorCode::None, 3));
    assert_eq!(simulation.run(rig.read_all(0)).len(), 4);
}

#[test]
fn a_stronger_promise_holds_at_once_and_a_failed_sync_ends_the_log() {
    let mut simulation = Simulation::new(3);
    let world = simulation.world();
    let relaxed = small_config(Durability::Process);
    let hint = RecoveryHint::default();
    let (rig, _) = simulation
        .run(Rig::open(&world, Path::new(DIR), &relaxed, hint, 0))
        .expect("opens");
    simulation.run(rig.must_append(&batch(&[b"relaxed"])));
    let strict = std::sync::Arc::new(small_config(Durability::Disk));
    rig.with(|partition, _| partition.set_config(strict));
    simulation.run(rig.must_append(&batch(&[b"strict"])));
    simulation
        .faults()
        .script(Operation::Sync, ".log", 0, Fault::Broken);
    let result = simulation.run(rig.append(&batch(&[b"lost"]), Acks::All));
    assert_eq!(result.error, ErrorCode::KafkaStorageError);
    drop(rig);
    let mut simulation = simulation.crash();
    let world = simulation.world();
    let opened = Rig::open(&world, Path::new(DIR), &relaxed, hint, 1);
    let (rig, _) = simulation.run(opened).expect("opens");
    let read = simulation.run(rig.read_all(0));
    assert!(read.len() >= 2, "acknowledged under the stronger promise");
}

#[test]
fn a_segment_that_cannot_be_created_refuses_appends_and_the_log_stays_healthy() {
    let mut simulation = Simulation::new(11);
    let world = simulation.world();
    let config = small_config(Durability::Disk);
    let opened = Rig::open(&world, Path::new(DIR), &config, RecoveryHint::default(), 0);
    let (rig, _) = simulation.run(opened).expect("opens");
    let large = batch(&[&[1; 15_000]]);
    simulation.run(rig.must_append(&large));
    simulation.run(rig.quiet());
    simulation
        .faults()
        .script(Operation::Open, ".log", 0, Fault::Broken);
    let refused = simulation.run(rig.append(&large, Acks::All));
    assert_eq!(refused.error, ErrorCode::KafkaStorageError);
    assert!(!rig.failed());
    assert_eq!(simulation.run(rig.must_append(&large)), 1);
    assert_eq!(simulation.run(rig.read_all(0)).len(), 2);
}

#[test]
fn indexes_that_cannot_be_written_hold_the_recovery_point_back_and_are_rebuilt() {
    let mut simulation = Simulation::new(12);
    let world = simulation.world();
    let config = small_config(Durability::Disk);
    let hint = RecoveryHint::default();
    let opened = Rig::open(&world, Path::new(DIR), &config, hint, 0);
    let (rig, _) = simulation.run(opened).expect("opens");
    let large = batch(&[&[1; 15_000]]);
    simulation
        .faults()
        .script(Operation::Write, ".index", 0, Fault::Broken);
    simulation.run(rig.must_append(&large));
    simulation.run(rig.must_append(&large));
    simulation.run(rig.quiet());
    assert_eq!(rig.recovery_point(), None);
    assert!(!rig.failed());
    drop(rig);
    let mut simulation = simulation.crash();
    let world = simulation.world();
    let opened = Rig::open(&world, Path::new(DIR), &config, hint, 1);
    let (rig, report) = simulation.run(opened).expect("opens");
    assert_eq!(report.rebuilt_indexes, 1);
    assert_eq!(simulation.run(rig.read_all(0)).len(), 2);
}

#[test]
fn flushes_make_a_log_durable_that_promises_only_to_outlive_the_process() {
    let flushed = |messages: Option<u64>, ms: Option<u64>, appends: u64| {
        let mut simulation = Simulation::new(21);
        let world = simulation.world();
        let mut config = small_config(Durability::Process);
        (config.flush_messages, config.flush_ms) = (messages, ms);
        let hint = RecoveryHint::default();
        let opened = Rig::open(&world, Path::new(DIR), &config, hint, 0);
        let (rig, _) = simulation.run(opened).expect("opens");
        for _ in 0..appends {
            simulation.run(rig.must_append(&batch(&[b"x"])));
        }
        if let Some(due_ns) = rig.with(|partition, _| partition.next_timer_ns()) {
            assert!(due_ns > world.monotonic_ns());
            rig.at(due_ns);
        }
        simulation.run(rig.quiet());
        assert_eq!(rig.with(|partition, _| partition.next_timer_ns()), None);
        rig.with(|partition, _| partition.durable_offset())
    };
    assert_eq!(flushed(None, None, 3), 0);
    assert_eq!(flushed(Some(4), None, 3), 0);
    assert_eq!(flushed(Some(3), None, 3), 3);
    assert_eq!(flushed(None, Some(1000), 3), 3);
    assert_eq!(flushed(Some(2), Some(1000), 3), 3);
}

#[test]
fn a_seal_that_fails_ends_the_log_and_its_segment_can_still_be_read() {
    let mut simulation = Simulation::new(14);
    let world = simulation.world();
    let config = small_config(Durability::Disk);
    let opened = Rig::open(&world, Path::new(DIR), &config, RecoveryHint::default(), 0);
    let (rig, _) = simulation.run(opened).expect("opens");
    for n in 0..3_u8 {
        simulation.run(rig.must_append(&batch(&[&[n; 7000]])));
    }
    simulation
        .faults()
        .script(Operation::SetLen, ".log", 0, Fault::Broken);
    rig.send(&batch(&[&[3; 7000]]), Acks::All);
    simulation.run(rig.quiet());
    assert!(rig.failed());
    let read = simulation.run(rig.read_all(0));
    let bases: Vec<i64> = read.iter().map(|batch| batch.header.base_offset).collect();
    assert_eq!(bases[..3], [0, 1, 2]);
}

#[test]
fn room_that_was_never_used_is_given_back_at_a_clean_stop() {
    let mut simulation = Simulation::new(15);
    let world = simulation.world();
    let config = small_config(Durability::Disk);
    let hint = RecoveryHint::default();
    let opened = Rig::open(&world, Path::new(DIR), &config, hint, 0);
    let (rig, _) = simulation.run(opened).expect("opens");
    simulation.run(rig.must_append(&batch(&[b"x"])));
    let hint = clean(&simulation.run(rig.close()).expect("closes"));
    let opened = Rig::open(&world, Path::new(DIR), &config, hint, 1);
    let (rig, _) = simulation.run(opened).expect("opens");
    simulation
        .faults()
        .script(Operation::Zero, ".log", 0, Fault::NoSpace);
    let refused = simulation.run(rig.append(&batch(&[&[1; 9000]]), Acks::All));
    assert_eq!(refused.error, ErrorCode::KafkaStorageError);
    let hint = clean(&simulation.run(rig.close()).expect("closes"));
    let opened = Rig::open(&world, Path::new(DIR), &config, hint, 2);
    let (_, report) = simulation.run(opened).expect("opens");
    assert!(report.clean);
}

#[test]
fn a_failed_read_is_the_readers_trouble_alone() {
    let mut simulation = Simulation::new(17);
    let world = simulation.world();
    let config = small_config(Durability::Disk);
    let opened = Rig::open(&world, Path::new(DIR), &config, RecoveryHint::default(), 0);
    let (rig, _) = simulation.run(opened).expect("opens");
    for _ in 0..6 {
        simulation.run(rig.must_append(&batch(&[&[1; 7000]])));
    }
    simulation.run(rig.quiet());
    simulation
        .faults()
        .script(Operation::Read, ".log", 0, Fault::Broken);
    let refused = simulation.run(rig.read(0, 100));
    assert_eq!(refused.error, ErrorCode::KafkaStorageError);
    assert!(!rig.failed());
    assert_eq!(simulation.run(rig.read_all(0)).len(), 6);
}
